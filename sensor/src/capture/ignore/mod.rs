//! What the configuration leaves out (`[[sensor.ignore]]`, `[[sensor.only]]`): the kernel's maps of it, kept up to date, and the same judgement for what fanotify
//! tells.
//!
//! Invariants worth naming:
//!
//! - **An executable is an inode**: the file that has the path now. Processes of one that was replaced are told again, because the number may
//!   go to another file; for the same end an entry of `sensor.only` goes on to name what was replaced.
//! - **What is not known is told**: a process that is gone, a path that is not there, a file that cannot be looked at.

mod prefixes;

use std::collections::HashMap;
use std::hash::Hash;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::lpm_trie::Key as Prefix;
use aya::maps::{HashMap as KernelMap, LpmTrie, MapData, MapError};
use bartizan_sensor_ebpf::abi::{IGNORE_CONDITIONS_MAX, Ignore, KINDS, WatchKey};

use super::cgroup;
use super::devices::Devices;
use super::files::Key;
use crate::config::ignore::IgnoreEntry;

/// [`Ignore`] as bytes that aya may write into the kernel object.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Global(pub Ignore);

// SAFETY: `Ignore` is `#[repr(C)]`, made of integers without padding.
unsafe impl Pod for Global {}

/// Where the kernel looks conditions up.
pub struct Maps {
    /// Entries by executable.
    pub exes: KernelMap<MapData, Key, u64>,
    /// By user id.
    pub uids: KernelMap<MapData, u32, u64>,
    /// By id of a cgroup.
    pub cgroups: KernelMap<MapData, u64, u64>,
    /// By prefix of the peer's address.
    pub networks: LpmTrie<MapData, [u8; 16], u64>,
}

/// Executables that are kept in the kernel's map after they were replaced, those of the present ones among them, at most.
const REPLACED_MAX: usize = IGNORE_CONDITIONS_MAX as usize / 2;

/// One entry, for the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreReport {
    /// Of these only what meets the conditions is told; else what meets them is left out.
    pub only: bool,
    /// What it is for.
    pub kinds: Vec<&'static str>,
    /// Under which conditions.
    pub conditions: String,
    /// Executables and cgroups for which nothing is there now, or that cannot be looked at.
    pub missing: Vec<String>,
}

/// One entry with its kinds.
#[derive(Debug, Clone)]
struct Entry {
    kinds: Vec<&'static str>,
    config: IgnoreEntry,
}

/// The entries and the kernel's maps of them.
pub struct Ignoring {
    entries: Vec<Entry>,
    /// Kept though nothing may be in them: the programs that are still to be loaded name them by their descriptors. `None` in tests.
    maps: Option<Maps>,
    devices: Devices,
    exes: HashMap<WatchKey, u64>,
    cgroups: HashMap<u64, u64>,
    root: Option<PathBuf>,
    report: Vec<IgnoreReport>,
}

fn compiled(entries: &[IgnoreEntry]) -> Vec<Entry> {
    // An entry whose kinds are wrong was refused with the configuration.
    entries.iter().map(|config| Entry { kinds: config.kinds().unwrap_or_default(), config: config.clone() }).collect()
}

/// What the kernel's programs are told before they are loaded.
pub fn global(entries: &[IgnoreEntry]) -> Global {
    let mut global = Ignore::NOTHING;
    for (index, Entry { kinds, config }) in compiled(entries).iter().enumerate() {
        let bit = 1 << index;
        for info in KINDS.iter().filter(|info| kinds.contains(&info.name)) {
            if let Some(word) = global.kinds.get_mut(info.kind as usize) {
                *word |= bit;
            }
        }
        let IgnoreEntry { kinds: _, exe, uid, cgroup, network, only } = config;
        global.only |= u64::from(*only) << index;
        let conditions = [
            (&mut global.exe, exe.is_empty()),
            (&mut global.uid, uid.is_empty()),
            (&mut global.cgroup, cgroup.is_empty()),
            (&mut global.network, network.is_empty()),
        ];
        conditions.into_iter().filter(|(_, empty)| !empty).for_each(|(word, _)| *word |= bit);
    }
    Global(global)
}

impl Ignoring {
    /// Fills the maps.
    ///
    /// # Errors
    /// A map's name, and why it cannot be written.
    pub fn new(entries: &[IgnoreEntry], mut maps: Maps) -> Result<Self, (&'static str, MapError)> {
        let mut uids = HashMap::<u32, u64>::new();
        let mut networks = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            entry.uid.iter().for_each(|uid| *uids.entry(*uid).or_default() |= 1 << index);
            networks.extend(entry.network.iter().map(|network| (*network, 1 << index)));
        }
        for (uid, bits) in uids {
            maps.uids.insert(uid, bits, 0).map_err(|error| ("IGNORE_UIDS", error))?;
        }
        for (network, bits) in prefixes::whole(&networks) {
            let (bytes, len) = network.key();
            maps.networks.insert(&Prefix::new(len, bytes), bits, 0).map_err(|error| ("IGNORE_NETWORKS", error))?;
        }
        let entries = compiled(entries);
        let mut ignoring = Self {
            entries,
            maps: Some(maps),
            devices: Devices::default(),
            exes: HashMap::new(),
            cgroups: HashMap::new(),
            root: None,
            report: Vec::new(),
        };
        ignoring.refresh()?;
        Ok(ignoring)
    }

    /// For the status.
    pub fn report(&self) -> &[IgnoreReport] {
        &self.report
    }

    /// Looks which files and cgroups have the paths now.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn refresh(&mut self) -> Result<(), (&'static str, MapError)> {
        let Some(maps) = &mut self.maps else { return Ok(()) };
        let (mut exes, mut cgroups) = (HashMap::<WatchKey, u64>::new(), HashMap::<u64, u64>::new());
        self.report.clear();
        if self.entries.iter().any(|entry| !entry.config.exe.is_empty()) {
            self.devices = Devices::read();
        }
        for (index, Entry { kinds, config }) in self.entries.iter().enumerate() {
            let mut missing = Vec::new();
            for path in &config.exe {
                match std::fs::metadata(path) {
                    Ok(meta) if meta.is_file() => *exes.entry(self.devices.key(path, &meta)).or_default() |= 1 << index,
                    Ok(_) => missing.push(format!("exe {}: it is no file", path.display())),
                    Err(error) => missing.push(format!("exe {}: {error}", path.display())),
                }
            }
            for path in &config.cgroup {
                match cgroup_id(&mut self.root, path) {
                    Ok(id) => *cgroups.entry(id).or_default() |= 1 << index,
                    Err(why) => missing.push(format!("cgroup {path}: {why}")),
                }
            }
            self.report.push(IgnoreReport { only: config.only, kinds: kinds.clone(), conditions: config.conditions(), missing });
        }
        // Who runs a file that was replaced is told of as before: an entry of what alone is told must not lose anybody by an upgrade.
        let only = self.entries.iter().enumerate().filter(|(_, entry)| entry.config.only).fold(0, |bits, (index, _)| bits | 1 << index);
        for (key, bits) in self.exes.iter().filter(|(_, bits)| *bits & only != 0).take(REPLACED_MAX) {
            *exes.entry(*key).or_default() |= bits & only;
        }
        bring(&mut maps.exes, &mut self.exes, exes, Key).map_err(|error| ("IGNORE_EXES", error))?;
        bring(&mut maps.cgroups, &mut self.cgroups, cgroups, |id| id).map_err(|error| ("IGNORE_CGROUPS", error))
    }

    /// Whether an event of `kind` by the process `pid`, which no program of the kernel has judged, is left out.
    pub fn leaves_out(&self, kind: &str, pid: u32) -> bool {
        let entries =
            || self.entries.iter().enumerate().filter(|(_, entry)| entry.kinds.contains(&kind) && entry.config.network.is_empty());
        let is_met = |(index, Entry { kinds: _, config }): (usize, &Entry)| {
            let IgnoreEntry { kinds: _, exe, uid, cgroup, network: _, only: _ } = config;
            let asked = [
                (!exe.is_empty()).then(|| self.runs(pid, 1 << index)),
                (!uid.is_empty()).then(|| is_of(pid, uid)),
                (!cgroup.is_empty()).then(|| is_in(pid, cgroup)),
            ];
            // Not met is worth more than not known.
            let asked: Vec<Option<bool>> = asked.into_iter().flatten().collect();
            if asked.contains(&Some(false)) { Some(false) } else { asked.into_iter().try_fold(true, |_, met| met) }
        };
        if entries().filter(|(_, entry)| !entry.config.only).any(|entry| is_met(entry) == Some(true)) {
            return true;
        }
        let mut only = entries().filter(|(_, entry)| entry.config.only).peekable();
        only.peek().is_some() && only.all(|entry| is_met(entry) == Some(false))
    }

    /// Whether the process runs a file of the entries `bits`; `None` where that cannot be found out.
    fn runs(&self, pid: u32, bits: u64) -> Option<bool> {
        let meta = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some(self.exes.get(&self.devices.known_key(&meta)).is_some_and(|entries| entries & bits != 0))
    }
}

/// Makes `map`, which holds `before`, hold `now`.
fn bring<K: Copy + Eq + Hash, M: Pod>(
    map: &mut KernelMap<MapData, M, u64>,
    before: &mut HashMap<K, u64>,
    now: HashMap<K, u64>,
    as_key: impl Fn(K) -> M,
) -> Result<(), MapError> {
    for key in before.keys().filter(|key| !now.contains_key(key)) {
        map.remove(&as_key(*key))?;
    }
    for (key, bits) in now.iter().filter(|(key, bits)| before.get(key) != Some(bits)) {
        map.insert(as_key(*key), bits, 0)?;
    }
    *before = now;
    Ok(())
}

/// Id of a cgroup: the inode number of its folder. `root` is looked for once.
fn cgroup_id(root: &mut Option<PathBuf>, path: &str) -> Result<u64, String> {
    if root.is_none() {
        *root = Some(cgroup::place().map_err(|error| error.to_string())?);
    }
    let folder = root.as_deref().unwrap_or(Path::new("/")).join(path.trim_start_matches('/'));
    std::fs::metadata(folder).map(|meta| meta.ino()).map_err(|error| error.to_string())
}

/// Whether the process has one of these user ids, as real and as effective id; `None` where that cannot be found out.
fn is_of(pid: u32, uids: &[u32]) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut ids = ids.split_whitespace().map(str::parse::<u32>);
    Some([ids.next(), ids.next()].into_iter().all(|id| matches!(id, Some(Ok(id)) if uids.contains(&id))))
}

/// Whether the process is in one of these cgroups of the unified hierarchy, or below; `None` where that cannot be found out.
fn is_in(pid: u32, cgroups: &[String]) -> Option<bool> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(cgroups.iter().any(|cgroup| own.strip_prefix(cgroup.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))))
}

#[cfg(test)]
mod tests {
    use bartizan_sensor_ebpf::abi::Kind;

    use super::*;

    fn entry(kinds: &[&str]) -> IgnoreEntry {
        IgnoreEntry { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), ..IgnoreEntry::default() }
    }

    #[test]
    fn nothing_configured_is_nothing_in_the_kernel() {
        assert_eq!(global(&[]).0, Ignore::NOTHING);
    }

    #[test]
    fn each_entry_has_its_bit_at_its_kinds_and_conditions() {
        let by_peer = IgnoreEntry { network: vec!["10.0.0.0/8".parse().unwrap()], ..entry(&["network.connect"]) };
        let by_process = IgnoreEntry { exe: vec!["/x".into()], uid: vec![1], ..entry(&["file.write", "network.*"]) };
        let Global(global) = global(&[by_peer, by_process]);
        let of = |kind: Kind| global.kinds[kind as usize];
        assert_eq!([of(Kind::Connect), of(Kind::FileWrite), of(Kind::FileOpen), of(Kind::Exec), of(Kind::Probe)], [3, 2, 0, 0, 0]);
        assert_eq!((global.exe, global.uid, global.cgroup, global.network), (2, 2, 0, 1));
    }

    /// These entries, with this test's own program at the first.
    fn ignoring(entries: &[IgnoreEntry]) -> Ignoring {
        let own = std::env::current_exe().unwrap();
        let exes = HashMap::from([(Devices::read().key(&own, &std::fs::metadata(&own).unwrap()), 1)]);
        Ignoring {
            entries: compiled(entries),
            maps: None,
            devices: Devices::read(),
            exes,
            cgroups: HashMap::new(),
            root: None,
            report: Vec::new(),
        }
    }

    #[test]
    fn an_entry_of_what_alone_is_told_leaves_out_whom_it_does_not_name() {
        let (own, nobody) = (std::process::id(), u32::MAX);
        let only = |uid: u32| IgnoreEntry { uid: vec![uid], only: true, ..entry(&["file.unlink"]) };
        let uid = nix::unistd::getuid().as_raw();
        let judged = |entries: &[IgnoreEntry], pid| ignoring(entries).leaves_out("file.unlink", pid);
        assert!(!judged(&[only(uid)], own) && judged(&[only(uid + 1)], own));
        assert!(!judged(&[only(uid + 1), only(uid)], own), "one of them is enough");
        assert!(!judged(&[only(uid)], nobody), "what is not known is told");
        assert!(!ignoring(&[only(uid + 1)]).leaves_out("file.rename", own), "of other kinds it says nothing");
        assert_eq!((global(&[only(uid), entry(&["file.unlink"])]).0.only, global(&[only(uid)]).0.kinds[Kind::FileUnlink as usize]), (1, 1));
    }

    #[test]
    fn what_fanotify_tells_is_judged_by_the_process_that_is_there() {
        let own = std::env::current_exe().unwrap();
        let mut with = IgnoreEntry { exe: vec![own], uid: vec![nix::unistd::getuid().as_raw()], ..entry(&["file.unlink"]) };
        let me = std::process::id();
        assert!(ignoring(std::slice::from_ref(&with)).leaves_out("file.unlink", me));
        assert!(
            !ignoring(std::slice::from_ref(&with)).leaves_out("file.rename", me)
                && !ignoring(std::slice::from_ref(&with)).leaves_out("file.unlink", 1)
        );
        with.uid = vec![54_321];
        assert!(!ignoring(std::slice::from_ref(&with)).leaves_out("file.unlink", me));
        with.uid.clear();
        with.cgroup = vec!["/nowhere".into()];
        assert!(!ignoring(std::slice::from_ref(&with)).leaves_out("file.unlink", me));
        assert!(!ignoring(std::slice::from_ref(&with)).leaves_out("file.unlink", u32::MAX), "it is gone");
    }
}
