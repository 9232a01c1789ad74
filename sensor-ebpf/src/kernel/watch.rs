//! Which files are watched, and what records say of a file.

use bartizan_sensor_ebpf::abi::{Count, FileInfo, Kind, PATH_COMPONENTS, WANT_TREE, WatchKey, watch_bit};

use super::maps::{FILES_EVERYWHERE, FILES_IGNORED, IGNORE_FOLDERS, WATCH, WATCH_MASK};
use super::{emit, field, read};

/// Folders above a file that are looked at for a watched one.
const ANCESTORS: usize = 8;

/// What is wanted (`WANT_*`) of the inode at this address; 0 when it is not watched, or there is none.
#[inline(always)]
pub(crate) fn of(inode: u64) -> u32 {
    if inode == 0 {
        return 0;
    }
    let number: u64 = field!(inode, inode_ino);
    let (word, bit) = watch_bit(number);
    // SAFETY: a map value is aligned and lives for ever.
    if WATCH_MASK.get_ptr(word).is_none_or(|word| unsafe { word.read_volatile() } & bit == 0) {
        return 0;
    }
    let sb: u64 = field!(inode, inode_sb);
    let key = WatchKey { inode: number, device: field!(sb, sb_dev), pad: 0 };
    // SAFETY: as above; a word that is replaced meanwhile is one of the two.
    WATCH.get_ptr(&key).map_or(0, |want| unsafe { want.read_volatile() })
}

/// What is wanted of the folder that holds the dentry at this address.
#[inline(always)]
pub(crate) fn of_parent(dentry: u64) -> u32 {
    let parent: u64 = field!(dentry, dentry_parent);
    of(field!(parent, dentry_inode))
}

/// What a file inherits from a watched folder above the one that holds it: folders are put on the list one by one, and this one may be too
/// new to be on it.
#[inline(never)]
pub(crate) fn of_ancestors(dentry: u64) -> u64 {
    let mut dentry: u64 = field!(dentry, dentry_parent);
    for _ in 0..ANCESTORS {
        let parent: u64 = field!(dentry, dentry_parent);
        if parent == dentry || parent == 0 {
            return 0;
        }
        let want = of(field!(parent, dentry_inode));
        if want & WANT_TREE != 0 {
            return u64::from(want);
        }
        dentry = parent;
    }
    0
}

/// Whether files that are not watched are told too.
#[inline(always)]
pub(crate) fn everywhere() -> bool {
    // SAFETY: a global that user space sets before load.
    unsafe { core::ptr::read_volatile(&raw const FILES_EVERYWHERE) != 0 }
}

/// Whether nothing is told of the file at this dentry: it, or a folder above it in its file system, is one of `files.ignore`. If so it is counted.
/// A file that is on the list all the same has another name, which is not ignored.
#[inline(always)]
pub(crate) fn is_ignored(kind: Kind, dentry: u64) -> bool {
    let ignored = is_below_ignored(dentry);
    if ignored {
        emit::count(kind, Count::Filtered);
    }
    ignored
}

/// The same, uncounted.
#[inline(always)]
pub(crate) fn is_below_ignored(dentry: u64) -> bool {
    // SAFETY: a global that user space sets before load.
    unsafe { core::ptr::read_volatile(&raw const FILES_IGNORED) != 0 && of(field!(dentry, dentry_inode)) == 0 && climb(dentry) != 0 }
}

#[inline(never)]
fn climb(dentry: u64) -> u64 {
    let mut dentry = dentry;
    for _ in 0..PATH_COMPONENTS {
        let inode: u64 = field!(dentry, dentry_inode);
        // A name that is not there yet has none.
        if inode != 0 {
            let sb: u64 = field!(inode, inode_sb);
            let key = WatchKey { inode: field!(inode, inode_ino), device: field!(sb, sb_dev), pad: 0 };
            if IGNORE_FOLDERS.get_ptr(&key).is_some() {
                return 1;
            }
        }
        let parent: u64 = field!(dentry, dentry_parent);
        if parent == dentry || parent == 0 {
            return 0;
        }
        dentry = parent;
    }
    0
}

/// Fills `info` from the inode at this address.
///
/// # Safety
/// `info` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn describe(info: *mut FileInfo, inode: u64, wanted: u32) {
    let sb: u64 = field!(inode, inode_sb);
    let mode: u16 = field!(inode, inode_mode);
    // SAFETY: by contract.
    unsafe {
        (*info).inode = field!(inode, inode_ino);
        (*info).size = field!(inode, inode_size);
        (*info).device = read(sb + super::offset!(sb_dev));
        (*info).mode = u32::from(mode);
        (*info).owner = field!(inode, inode_uid);
        (*info).group = field!(inode, inode_gid);
        (*info).links = field!(inode, inode_nlink);
        (*info).wanted = wanted;
    }
}
