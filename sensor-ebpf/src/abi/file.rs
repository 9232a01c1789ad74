//! Files: what records say of them, and the list of those that are watched.

/// Longest name of a file-system type that is kept, bytes with the NUL.
pub const FILE_SYSTEM_MAX: usize = 16;
/// Longest name of an extended attribute that is kept, bytes with the NUL; the kernel's `XATTR_NAME_MAX` is 255.
pub const XATTR_NAME_MAX: usize = 64;

/// `Mount::action`: mount(2).
pub const MOUNT_MOUNT: u32 = 0;
/// `Mount::action`: move_mount(2).
pub const MOUNT_ATTACH: u32 = 1;
/// `Mount::action`: pivot_root(2).
pub const MOUNT_PIVOT: u32 = 2;

/// A file or folder.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct FileInfo {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Device: major << 20 | minor.
    pub device: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: u32,
    /// Group.
    pub group: u32,
    /// Hard links.
    pub links: u32,
    /// What is wanted of it (`WANT_*`) by the list of watched files; 0 when it is not on it.
    pub wanted: u32,
}

/// `FileInfo::wanted`, and the value of the map `WATCH`: changes are told, opens for writing among them.
pub const WANT_CHANGE: u32 = 1 << 0;
/// So are opens for reading.
pub const WANT_READ: u32 = 1 << 1;
/// A folder: what is below it is watched like it.
pub const WANT_TREE: u32 = 1 << 2;
/// A folder: names that appear in it are told, because a watched path may be among them.
pub const WANT_ENTRIES: u32 = 1 << 3;

/// Names a watched file: the key of the map `WATCH`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WatchKey {
    /// Inode number, as the kernel keeps it in `struct inode`.
    pub inode: u64,
    /// `super_block.s_dev`.
    pub device: u32,
    /// Zero.
    pub pad: u32,
}

/// Whose writes are gathered: the key of the map `WRITES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct WriteKey {
    /// Inode number of the file.
    pub inode: u64,
    /// Its device.
    pub device: u32,
    /// Thread-group id of the process.
    pub tgid: u32,
}

/// What was gathered: the value of the map `WRITES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct WriteGathered {
    /// Boot clock of the first page, nanoseconds.
    pub first: u64,
    /// Boot clock of the last page, nanoseconds.
    pub last: u64,
    /// Pages that became dirty.
    pub pages: u64,
    /// Distinct bytes of all samples, added up.
    pub distinct: u64,
    /// Samples of [`SAMPLE`] bytes.
    pub samples: u64,
    /// The file's first bytes, where `has_magic`.
    pub magic: u64,
    /// Not 0 when `magic` is there.
    pub has_magic: u64,
}

/// Bytes of one sample.
pub const SAMPLE: usize = 64;
/// Files in the map `WRITES`.
pub const WRITES_MAX: u32 = 8192;

/// Files and folders of which nothing is told, at most: the size of the map `IGNORE_FOLDERS`.
pub const IGNORE_FOLDERS_MAX: u32 = 1024;

/// Words of the map that says at once that an inode is not watched: 65,536 bits.
pub const WATCH_BITS: u32 = 1024;

/// Word and bit of an inode number in that map.
#[inline(always)]
pub const fn watch_bit(inode: u64) -> (u32, u64) {
    // Knuth's multiplicative hash: neighbouring numbers spread.
    let hash = (inode as u32).wrapping_mul(0x9E37_79B1) >> 16;
    (hash >> 6, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inode_has_a_bit_and_its_neighbour_has_another() {
        for inode in 0..100_000 {
            let (word, bit) = watch_bit(inode);
            assert!(word < WATCH_BITS && bit.count_ones() == 1);
            assert_ne!(watch_bit(inode + 1), (word, bit));
        }
    }
}
