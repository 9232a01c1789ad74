//! What the configuration has left out before a record is made.
//!
//! Entries are bits of a word. Each map gives the entries that name what is looked up; an entry that names nothing of that sort asks for
//! nothing of it. The global `IGNORE` is a constant of the verifier: where no entry is for a kind, nothing of this is left in the program.

use aya_ebpf::maps::lpm_trie::Key;
use bartizan_sensor_ebpf::abi::{IGNORE_CGROUP_DEPTH, IGNORE_PREFIX_BITS, Ignore, KINDS_MAX, WatchKey};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::family::AF_INET6;
use super::maps::{IGNORE, IGNORE_CGROUPS, IGNORE_EXES, IGNORE_NETWORKS, IGNORE_UIDS};
use super::object::Object;
use super::{bound, copy, field, offset};

/// Begin of an IPv4 address in its mapped form, RFC 4291 §2.5.5.2: ten bytes of zero before it.
const MAPPED: u16 = 0xffff;

/// One word of [`IGNORE`].
macro_rules! word {
    ($field:ident) => {
        // SAFETY: a global that user space sets before load.
        unsafe { (&raw const IGNORE.$field).read_volatile() }
    };
}

/// Entries that are for this kind.
#[inline(always)]
pub(crate) fn of_kind(kind: u16) -> u64 {
    const { assert!(KINDS_MAX == 128) };
    let kinds = (&raw const IGNORE).cast::<u8>().wrapping_add(core::mem::offset_of!(Ignore, kinds)).cast::<u64>();
    // SAFETY: inside the array.
    unsafe { kinds.add(bound::<{ KINDS_MAX as u32 - 1 }>(u64::from(kind)) as usize).read_volatile() }
}

/// Those of them that ask for no peer.
#[inline(always)]
pub(crate) fn without_peer(kind: u16) -> u64 {
    of_kind(kind) & !word!(network)
}

/// Entries that are taken as met when it is not known whose a record is: those that ask for nothing of a process, and those that say what is
/// told. What is not known is told.
#[inline(always)]
pub(crate) fn met_by_nobody() -> u64 {
    !(word!(exe) | word!(uid) | word!(cgroup)) | word!(only)
}

/// Entries that say what is told.
#[inline(always)]
pub(crate) fn only() -> u64 {
    word!(only)
}

/// Whether a record is left out: `entries` are for its kind, and of those `met` have all their conditions met.
#[inline(always)]
pub(crate) fn leave_out(entries: u64, met: u64) -> bool {
    let only = word!(only);
    met & !only != 0 || (entries & only != 0 && met & only == 0)
}

/// Entries of whose conditions `task` meets those on processes.
#[inline(always)]
pub(crate) fn met_by(task: impl Object) -> u64 {
    if word!(exe) | word!(uid) | word!(cgroup) == 0 { u64::MAX } else { look(task.address()) }
}

#[inline(never)]
fn look(task: u64) -> u64 {
    let mut met = u64::MAX;
    let (exe, uid, cgroup) = (word!(exe), word!(uid), word!(cgroup));
    if exe != 0 {
        met &= !exe | of_exe(task);
    }
    if uid != 0 {
        let cred = super::task::cred(task);
        // A program that took another user's rights is nobody's who is named.
        met &= !uid | (of_uid(field!(cred, cred_uid)) & of_uid(field!(cred, cred_euid)));
    }
    if cgroup != 0 {
        met &= !cgroup | of_cgroup(task);
    }
    met
}

#[inline(always)]
fn of_exe(task: u64) -> u64 {
    let mm: u64 = field!(task, task_mm);
    let file: u64 = if mm == 0 { 0 } else { field!(mm, mm_exe_file) };
    if file == 0 {
        return 0;
    }
    let inode: u64 = field!(file, file_inode);
    let sb: u64 = field!(inode, inode_sb);
    let key = WatchKey { inode: field!(inode, inode_ino), device: field!(sb, sb_dev), pad: 0 };
    // SAFETY: a map value is aligned and lives for ever.
    IGNORE_EXES.get_ptr(&key).map_or(0, |entries| unsafe { entries.read_volatile() })
}

#[inline(always)]
fn of_uid(uid: u32) -> u64 {
    // SAFETY: as above.
    IGNORE_UIDS.get_ptr(&uid).map_or(0, |entries| unsafe { entries.read_volatile() })
}

/// Of the task's own cgroup in the unified hierarchy, and of those above it.
#[inline(always)]
fn of_cgroup(task: u64) -> u64 {
    let css_set: u64 = field!(task, task_cgroups);
    let cgroup: u64 = field!(css_set, css_set_dfl);
    let mut node: u64 = field!(cgroup, cgroup_kn);
    let mut entries = 0;
    for _ in 0..IGNORE_CGROUP_DEPTH {
        if node == 0 {
            break;
        }
        let id: u64 = field!(node, kn_id);
        // SAFETY: as above.
        entries |= IGNORE_CGROUPS.get_ptr(&id).map_or(0, |entries| unsafe { entries.read_volatile() });
        node = field!(node, kn_parent);
    }
    entries
}

/// Those of `entries` that ask for no peer, or for the one of the socket at `sk`.
#[inline(always)]
pub(crate) fn with_socket(entries: u64, sk: u64) -> u64 {
    if word!(network) == 0 { entries } else { entries & of_socket(sk) }
}

#[inline(never)]
fn of_socket(sk: u64) -> u64 {
    let family: u16 = field!(sk, sock_family);
    let is_v6 = family == AF_INET6 && offset!(sock_v6_daddr) != u64::from(ABSENT);
    let mut peer = [0_u8; 16];
    // SAFETY: room for both.
    unsafe {
        if is_v6 {
            copy((&raw mut peer).cast(), 16, sk + offset!(sock_v6_daddr));
        } else {
            copy((&raw mut peer).cast(), 4, sk + offset!(sock_daddr));
        }
    }
    of_peer(&peer, is_v6)
}

/// Likewise, where the peer's address is at hand (IPv4 in the first four bytes).
#[inline(always)]
pub(crate) fn with_peer(entries: u64, peer: &[u8; 16], is_v6: bool) -> u64 {
    if word!(network) == 0 { entries } else { entries & of_peer(peer, is_v6) }
}

/// Entries that ask for no peer, or for this one.
#[inline(always)]
fn of_peer(peer: &[u8; 16], is_v6: bool) -> u64 {
    let mut key = Key::new(IGNORE_PREFIX_BITS, *peer);
    if !is_v6 {
        let bytes = (&raw mut key.data).cast::<u8>();
        // SAFETY: inside the sixteen bytes.
        unsafe {
            let address = bytes.cast::<u32>().read_unaligned();
            bytes.cast::<u64>().write_unaligned(0);
            bytes.add(8).cast::<u32>().write_unaligned(u32::from(MAPPED) << 16);
            bytes.add(12).cast::<u32>().write_unaligned(address);
        }
    }
    !word!(network) | IGNORE_NETWORKS.get(&key).copied().unwrap_or(0)
}
