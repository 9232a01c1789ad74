//! The kernel's own file systems that a minimal host may not have mounted.

use std::path::Path;

use anyhow::{Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::command;
use crate::privilege::Privilege;

/// One file system that Bartizan or its operator wants.
#[derive(Debug)]
struct Wanted {
    kind: &'static str,
    place: &'static str,
    /// `f_type` of statfs(2), from include/uapi/linux/magic.h.
    magic: u32,
    purpose: &'static str,
}

const WANTED: &[Wanted] = &[
    Wanted { kind: "bpf", place: "/sys/fs/bpf", magic: 0xcafe_4a11, purpose: "eBPF objects by name" },
    Wanted { kind: "tracefs", place: "/sys/kernel/tracing", magic: 0x7472_6163, purpose: "tracepoint ids" },
    Wanted { kind: "securityfs", place: "/sys/kernel/security", magic: 0x7363_6673, purpose: "which LSMs are active" },
];

/// Mounts what is missing. Returns a phrase that says what was done.
///
/// A file system that this kernel lacks is named and left out: Bartizan itself reports what it is blind to without it.
pub(crate) fn ensure(privilege: Privilege) -> String {
    let mut phrases = Vec::new();
    for wanted in WANTED.iter().filter(|wanted| !is_mounted(wanted)) {
        eprintln!("      mounting {} on {} ({})", wanted.kind, wanted.place, wanted.purpose);
        match mount_one(wanted, privilege) {
            Ok(()) => phrases.push(format!("mounted {}", wanted.place)),
            Err(error) => {
                eprintln!("      warning: {error}");
                phrases.push(format!("without {}", wanted.place));
            }
        }
    }
    if phrases.is_empty() { "all there".to_owned() } else { phrases.join(", ") }
}

/// One of the file systems, as it is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Its type.
    pub(crate) kind: &'static str,
    /// Where it belongs.
    pub(crate) place: &'static str,
    /// What Bartizan or its operator wants it for.
    pub(crate) purpose: &'static str,
    /// It is there.
    pub(crate) mounted: bool,
    /// It could be: the kernel has the folder for it.
    pub(crate) possible: bool,
}

/// Looks at each and changes nothing.
pub(crate) fn look() -> Vec<State> {
    let state = |wanted: &Wanted| {
        let Wanted { kind, place, magic: _, purpose } = wanted;
        State { kind, place, purpose, mounted: is_mounted(wanted), possible: Path::new(place).is_dir() }
    };
    WANTED.iter().map(state).collect()
}

fn is_mounted(wanted: &Wanted) -> bool {
    statfs(wanted.place).is_ok_and(|fs| is_kind(fs.filesystem_type(), wanted.magic))
}

/// `f_type` is sign-extended on some platforms: only its low 32 bits are the magic.
fn is_kind(found: FsType, magic: u32) -> bool {
    found.0 as u32 == magic
}

fn mount_one(wanted: &Wanted, privilege: Privilege) -> Result<()> {
    let Wanted { kind, place, magic: _, purpose: _ } = wanted;
    if !Path::new(place).is_dir() {
        return Err(anyhow!("{place} does not exist, so this kernel has no {kind}; `bartizan status` names what that costs"));
    }
    let remedy = format!("mount it by hand with `mount -t {kind} {kind} {place}`; `bartizan status` names what its absence costs");
    match privilege {
        Privilege::Root => {
            mount(Some(*kind), *place, Some(*kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None::<&str>)
                .map_err(|errno| anyhow!("{kind} could not be mounted on {place} ({}): {remedy}", errno.desc()))
        }
        Privilege::Sudo => command::run(privilege.command("mount").args(["-t", kind, "-o", "nosuid,nodev,noexec", kind, place]), &remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_is_told_from_another() {
        assert!(is_kind(FsType(0xcafe_4a11), 0xcafe_4a11));
        assert!(is_kind(FsType(0xcafe_4a11_u32 as i32 as _), 0xcafe_4a11), "sign-extended");
        assert!(!is_kind(FsType(0x6265_6572), 0xcafe_4a11));
    }

    #[test]
    fn proc_is_recognised_by_its_magic_and_not_as_bpf() {
        let there = Wanted { kind: "proc", place: "/proc", magic: 0x9fa0, purpose: "" };
        assert!(is_mounted(&there));
        assert!(!is_mounted(&Wanted { magic: 0xcafe_4a11, ..there }));
    }

    #[test]
    fn a_missing_mount_point_is_a_sentence() {
        let absent = Wanted { kind: "bpf", place: "/no/such/place", magic: 1, purpose: "" };
        let error = mount_one(&absent, Privilege::Root).map_err(|e| e.to_string()).err().unwrap_or_default();
        assert!(error.contains("/no/such/place") && error.contains("bartizan status"), "{error}");
    }
}
