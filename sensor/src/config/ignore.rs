//! `[[sensor.ignore]]` and `[[sensor.only]]`: what is left out before a record is made of it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bartizan_bus::event::Body;
use bartizan_sensor_ebpf::abi::{IGNORE_CONDITIONS_MAX, IGNORE_MAX, KINDS, Ring};
use serde::Deserialize;

use crate::capture::files::matches;

/// One entry: records of these kinds are left out where all conditions hold that are given, each by one of its values. Of `sensor.only` the
/// records of these kinds are left out for which that is so of none of its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IgnoreEntry {
    /// Kinds of events; `*` stands for any characters, and then for those kinds only that can be left out under these conditions.
    pub kinds: Vec<String>,
    /// Executables of the process, absolute paths.
    pub exe: Vec<PathBuf>,
    /// User ids of the process, real and effective.
    pub uid: Vec<u32>,
    /// cgroups of the process, or above it: paths below the root of the unified hierarchy, with a `/` in front.
    pub cgroup: Vec<String>,
    /// Networks of the peer.
    pub network: Vec<Network>,
    /// It is one of `sensor.only`.
    #[serde(skip)]
    pub only: bool,
}

/// Kinds that have a peer.
const WITH_PEER: &[&str] = &[
    "network.accept",
    "network.connect",
    "network.dns",
    "network.flow_end",
    "network.http",
    "network.probe",
    "network.ssh",
    "network.syn",
    "network.tls",
    "network.udp_flow",
];
/// Kinds that have no process.
const WITHOUT_PROCESS: &[&str] = &["network.probe", "network.syn"];

/// Whether records of `kind` may be left out: those that come in masses, and nothing of what the process table and logins live on.
pub(crate) fn can_be_left_out(kind: &str) -> bool {
    let mut records = KINDS.iter().filter(|info| info.name == kind).peekable();
    records.peek().is_some() && records.all(|info| info.ring == Ring::Bulk)
}

impl IgnoreEntry {
    /// Whether it asks for something of the process.
    fn asks_for_process(&self) -> bool {
        let Self { kinds: _, exe, uid, cgroup, network: _, only: _ } = self;
        !(exe.is_empty() && uid.is_empty() && cgroup.is_empty())
    }

    /// Why it cannot leave `kind` out.
    fn obstacle(&self, kind: &str) -> Option<&'static str> {
        if !can_be_left_out(kind) {
            return Some("the process table, logins and detectors live on it");
        }
        if !self.network.is_empty() && !WITH_PEER.contains(&kind) {
            return Some("it has no peer, and the entry names networks");
        }
        (self.asks_for_process() && WITHOUT_PROCESS.contains(&kind)).then_some("it has no process, and the entry names exe, uid or cgroup")
    }

    /// The kinds that it leaves out, in their order.
    ///
    /// # Errors
    /// One does not exist or cannot be left out, in a sentence.
    pub fn kinds(&self) -> Result<Vec<&'static str>, String> {
        let mut all = Vec::new();
        for pattern in &self.kinds {
            let named: Vec<&'static str> = Body::KINDS.iter().copied().filter(|kind| matches(pattern, kind)).collect();
            if named.is_empty() {
                return Err(format!("there is no kind {pattern:?}: `bartizan events --reference` lists them"));
            }
            let mut possible: Vec<_> = named.iter().copied().filter(|kind| self.obstacle(kind).is_none()).collect();
            if possible.is_empty() {
                let why = named.first().and_then(|kind| self.obstacle(kind)).unwrap_or_default();
                let others: Vec<_> = Body::KINDS.iter().copied().filter(|kind| self.obstacle(kind).is_none()).collect();
                return Err(format!("{pattern} cannot be left out: {why}; these can: {}", others.join(", ")));
            }
            all.append(&mut possible);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Its conditions, for reading: `exe /usr/bin/curl; uid 33`.
    pub fn conditions(&self) -> String {
        let Self { kinds: _, exe, uid, cgroup, network, only: _ } = self;
        let list = |name: &str, values: Vec<String>| (!values.is_empty()).then(|| format!("{name} {}", values.join(", ")));
        [
            list("exe", exe.iter().map(|path| path.display().to_string()).collect()),
            list("uid", uid.iter().map(u32::to_string).collect()),
            list("cgroup", cgroup.clone()),
            list("network", network.iter().map(Network::to_string).collect()),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
    }

    fn validate(&self) -> Result<(), String> {
        let Self { kinds, exe, uid: _, cgroup, network, only: _ } = self;
        if kinds.is_empty() {
            return Err("an entry names no kinds: write which, such as kinds = [\"network.*\"]".to_owned());
        }
        if network.is_empty() && !self.asks_for_process() {
            return Err(format!(
                "the entry for {} has no condition: name exe, uid, cgroup or network (a kind that nobody wants is left out by sensor.disable_hooks)",
                kinds.join(", ")
            ));
        }
        if let Some(path) = exe.iter().find(|path| !path.is_absolute()) {
            return Err(format!("exe {path:?} is not an absolute path: begin it with /"));
        }
        for path in cgroup {
            let components = path.strip_prefix('/').ok_or_else(|| format!("cgroup {path:?} does not begin with /"))?;
            if components.split('/').any(|component| matches!(component, "" | "." | "..")) {
                return Err(format!("cgroup {path:?} is no path below the root: write it as /proc/PID/cgroup has it behind 0::"));
            }
        }
        self.kinds().map(|_| ())
    }
}

/// What is wrong with the entries together, in a sentence.
///
/// # Errors
/// The first thing that is.
pub fn validate(entries: &[IgnoreEntry]) -> Result<(), String> {
    if entries.len() > IGNORE_MAX {
        return Err(format!(
            "sensor.ignore and sensor.only have {} entries and {IGNORE_MAX} are allowed: put those with one condition together",
            entries.len()
        ));
    }
    for entry in entries {
        entry.validate().map_err(|why| format!("{}: {why}", if entry.only { "sensor.only" } else { "sensor.ignore" }))?;
    }
    let count = |of: fn(&IgnoreEntry) -> usize| entries.iter().map(of).sum::<usize>();
    let counts = [
        ("exe", count(|e| e.exe.len())),
        ("uid", count(|e| e.uid.len())),
        ("cgroup", count(|e| e.cgroup.len())),
        ("network", count(|e| e.network.len())),
    ];
    match counts.into_iter().find(|(_, count)| *count > IGNORE_CONDITIONS_MAX as usize) {
        Some((name, count)) => Err(format!("sensor.ignore and sensor.only name {count} of {name} and {IGNORE_CONDITIONS_MAX} are allowed")),
        None => Ok(()),
    }
}

/// Addresses that begin with the same bits: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`. IPv4 is held, and compared, in its mapped form (RFC 4291
/// §2.5.5.2), so that a mapped address is the IPv4 address that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    bits: u128,
    len: u32,
}

/// Begin of mapped addresses, and its length in bits.
const MAPPED: Network = Network { bits: 0xffff << 32, len: 96 };

impl Network {
    /// All of IPv4.
    pub(crate) const IPV4: Self = MAPPED;

    /// Its bits, network order, and how many of them count.
    pub(crate) fn key(self) -> ([u8; 16], u32) {
        (self.bits.to_be_bytes(), self.len)
    }

    fn is_v4(self) -> bool {
        MAPPED.is_begin_of(self)
    }

    fn is_begin_of(self, other: Self) -> bool {
        self.len <= other.len && (self.bits ^ other.bits) & mask(self.len) == 0
    }

    /// Whether all of `other` is in it. No IPv6 network holds IPv4 addresses.
    pub(crate) fn holds(self, other: Self) -> bool {
        self.is_v4() == other.is_v4() && self.is_begin_of(other)
    }
}

fn mask(len: u32) -> u128 {
    u128::MAX.checked_shl(128 - len).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("{text:?} is no network: write an address, or one with the length of its prefix, such as 10.0.0.0/8 or fd00::/8");
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse::<u32>().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let (bits, most, before) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 32, MAPPED.len),
            IpAddr::V6(address) => (address.to_bits(), 128, 0),
        };
        let len = before + len.filter(|len| *len <= most).or(len.is_none().then_some(most)).ok_or_else(error)?;
        let network = Self { bits, len };
        if bits & !mask(len) != 0 {
            return Err(format!("{text} has bits behind its prefix: write {}", Self { bits: bits & mask(len), len }));
        }
        Ok(network)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv6Addr::from_bits(self.bits);
        match address.to_ipv4_mapped().filter(|_| self.is_v4()) {
            Some(address) => write!(f, "{address}/{}", self.len - MAPPED.len),
            None => write!(f, "{address}/{}", self.len),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(kinds: &[&str]) -> IgnoreEntry {
        IgnoreEntry { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), uid: vec![33], ..IgnoreEntry::default() }
    }

    #[test]
    fn a_star_stands_for_what_can_be_left_out() {
        let files = entry(&["file.*"]).kinds().unwrap();
        assert!(files.contains(&"file.write") && !files.contains(&"file.mount"), "{files:?}");
        let network = entry(&["network.*", "network.connect"]).kinds().unwrap();
        assert!(
            network.contains(&"network.connect")
                && network.contains(&"network.bind")
                && !network.contains(&"network.probe")
                && !network.contains(&"network.syn")
        );
        let by_peer = IgnoreEntry { network: vec!["10.0.0.0/8".parse().unwrap()], uid: Vec::new(), ..entry(&["*"]) };
        assert_eq!(by_peer.kinds().unwrap(), WITH_PEER, "those with a peer");
    }

    #[test]
    fn identities_logins_and_the_kernel_are_never_left_out() {
        for info in KINDS.iter().filter(|info| info.ring == Ring::Priority) {
            // The task iterator's, which is an event of its own kind.
            let Some(kind) = Body::KINDS.iter().find(|kind| **kind == info.name) else { continue };
            assert!(entry(&[kind]).kinds().unwrap_err().contains("cannot be left out"), "{kind}");
        }
        for kind in ["process.exec", "process.fork", "process.exit", "process.credentials", "auth.*", "kernel.*", "sensor.*"] {
            let error = validate(&[entry(&[kind])]).unwrap_err();
            assert!(error.starts_with("sensor.ignore: ") && error.contains("live on it; these can: network.connect, "), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let network = || vec!["10.0.0.0/8".parse().unwrap()];
        let cases = [
            (entry(&[]), "names no kinds"),
            (entry(&["network.conect"]), "there is no kind \"network.conect\""),
            (IgnoreEntry { uid: Vec::new(), ..entry(&["network.*"]) }, "no condition"),
            (IgnoreEntry { exe: vec!["curl".into()], ..entry(&["network.*"]) }, "absolute"),
            (IgnoreEntry { cgroup: vec!["a".into()], ..entry(&["network.*"]) }, "begin with /"),
            (IgnoreEntry { cgroup: vec!["/".into()], ..entry(&["network.*"]) }, "below the root"),
            (IgnoreEntry { cgroup: vec!["/a/../b".into()], ..entry(&["network.*"]) }, "below the root"),
            (IgnoreEntry { network: network(), ..entry(&["file.write"]) }, "it has no peer"),
            (entry(&["network.probe"]), "it has no process"),
        ];
        for (entry, expected) in cases {
            let error = validate(&[entry]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(validate(&vec![entry(&["file.*"]); IGNORE_MAX + 1]).unwrap_err().contains("64 are allowed"));
        let many = IgnoreEntry { uid: (0..=IGNORE_CONDITIONS_MAX).collect(), ..entry(&["file.*"]) };
        assert!(validate(&[many]).unwrap_err().contains("1025 of uid"));
    }

    #[test]
    fn networks_as_people_write_them() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), canonical);
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "x", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().unwrap_err().contains("is no network"), "{text}");
        }
        assert_eq!("10.0.0.1/8".parse::<Network>().unwrap_err(), "10.0.0.1/8 has bits behind its prefix: write 10.0.0.0/8");
    }

    #[test]
    fn no_ipv6_network_holds_ipv4() {
        let [all, v4, ten, mapped] =
            ["::/0", "0.0.0.0/0", "10.0.0.0/8", "::ffff:10.1.0.0/112"].map(|text| text.parse::<Network>().unwrap());
        assert!(v4.holds(ten) && ten.holds(mapped) && !ten.holds(v4));
        assert!(!all.holds(v4) && !all.holds(ten) && all.holds("fd00::/8".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_refused(text in "[0-9a-f:./]{0,24}") {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }
    }
}
