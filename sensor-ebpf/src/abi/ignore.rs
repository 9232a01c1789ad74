//! What the configuration has left out before a record is made (`[[sensor.ignore]]`, `[[sensor.only]]`).

use super::KINDS_MAX;

/// Entries, at most: each has one bit of a word.
pub const IGNORE_MAX: usize = 64;
/// Executables, user ids, cgroups or prefixes of all entries together, at most: the size of each map.
pub const IGNORE_CONDITIONS_MAX: u32 = 1024;
/// Cgroups that are looked at, a process's own first: one that is named further up is not found. systemd and Kubernetes nest up to ten.
pub const IGNORE_CGROUP_DEPTH: usize = 32;
/// Bits of a prefix's key. IPv4 addresses are in their mapped form, RFC 4291 §2.5.5.2.
pub const IGNORE_PREFIX_BITS: u32 = 128;

/// The global `IGNORE`: which entries there are, a bit each. All zero when nothing is configured: the verifier then removes each test.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignore {
    /// By kind as a number: entries that are for it.
    pub kinds: [u64; KINDS_MAX],
    /// Entries that name executables.
    pub exe: u64,
    /// Entries that name user ids.
    pub uid: u64,
    /// Entries that name cgroups.
    pub cgroup: u64,
    /// Entries that name networks.
    pub network: u64,
    /// Entries that say what is told; the others say what is left out.
    pub only: u64,
}

impl Ignore {
    /// Nothing is left out.
    pub const NOTHING: Self = Self { kinds: [0; KINDS_MAX], exe: 0, uid: 0, cgroup: 0, network: 0, only: 0 };
}

const _: () = assert!(size_of::<Ignore>() == (KINDS_MAX + 5) * 8, "no padding");
