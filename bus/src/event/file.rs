//! What is done to files: the bodies of `file.*`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// A file, as far as the event's source knows it. What it does not know is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct File {
    /// Path by which it was reached, from the root of the acting process's mount namespace.
    #[n(0)]
    pub path: Option<String>,
    /// The path's beginning is missing (`.../name`).
    #[n(1)]
    #[cbor(default)]
    pub path_truncated: bool,
    /// Inode number.
    #[n(2)]
    pub inode: Option<u64>,
    /// Device of its file system: major << 20 | minor, as the kernel has it.
    #[n(3)]
    pub device: Option<u32>,
    /// Type and permission bits, `st_mode`.
    #[n(4)]
    pub mode: Option<u32>,
    /// Owner.
    #[n(5)]
    pub owner: Option<u32>,
    /// Group.
    #[n(6)]
    pub group: Option<u32>,
    /// Hard links.
    #[n(7)]
    pub links: Option<u32>,
    /// Bytes.
    #[n(8)]
    pub size: Option<u64>,
    /// Type of its file system, such as `ext4`.
    #[n(9)]
    pub file_system: Option<String>,
    /// The entry of `files.watch` or `files.read` that it belongs to; `None` for a file that is not watched.
    #[n(10)]
    pub watch: Option<String>,
}

/// Body of `file.open`: a file was opened to be written, was created, or is one whose readers are told. Where the source is fanotify, one
/// event stands for all opens of one process that the kernel merged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileOpen {
    /// The file.
    #[n(0)]
    pub file: File,
    /// It was opened to be read.
    #[n(1)]
    pub read: Option<bool>,
    /// It was opened to be written.
    #[n(2)]
    pub write: Option<bool>,
    /// It did not exist before.
    #[n(3)]
    pub created: Option<bool>,
    /// `O_*` flags of open(2), as the kernel keeps them.
    #[n(4)]
    pub flags: Option<u32>,
}

/// Body of `file.create`: a folder, device node, pipe or socket got a name. Regular files that open(2) makes are `file.open`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileCreate {
    /// The new file.
    #[n(0)]
    pub file: File,
    /// Device number of a node: major << 20 | minor.
    #[n(1)]
    pub node: Option<u32>,
}

/// Body of `file.rename`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileRename {
    /// The file; its path is the new one.
    #[n(0)]
    pub file: File,
    /// Its path before.
    #[n(1)]
    pub old_path: Option<String>,
    /// Inode number of the file that had the new path before, and has it no more.
    #[n(2)]
    pub replaced_inode: Option<u64>,
    /// The two changed places (`RENAME_EXCHANGE`).
    #[n(3)]
    pub exchanged: Option<bool>,
}

/// Body of `file.unlink`: a name was removed; with its last one, the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileUnlink {
    /// The file as it was before.
    #[n(0)]
    pub file: File,
    /// It is a folder.
    #[n(1)]
    pub folder: bool,
}

/// Body of `file.link`: a file got a further name, or a symbolic link was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileLink {
    /// The new name; for a hard link with what is known of the file.
    #[n(0)]
    pub file: File,
    /// A hard link: another path of the file. A symbolic one: its text.
    #[n(1)]
    pub to: Option<String>,
    /// It is a symbolic link.
    #[n(2)]
    pub symbolic: bool,
}

/// A number that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Change {
    /// Before, where that is known.
    #[n(0)]
    pub from: Option<u64>,
    /// After.
    #[n(1)]
    pub to: u64,
}

/// Body of `file.attributes`: permissions, owner, length or times were set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileAttributes {
    /// The file, after.
    #[n(0)]
    pub file: File,
    /// Permission bits.
    #[n(1)]
    pub mode: Option<Change>,
    /// Owner.
    #[n(2)]
    pub owner: Option<Change>,
    /// Group.
    #[n(3)]
    pub group: Option<Change>,
    /// Length in bytes: truncate(2).
    #[n(4)]
    pub size: Option<Change>,
    /// Its times were set to given values (utimensat(2)).
    #[n(5)]
    pub times_set: bool,
}

/// Body of `file.xattr`: an extended attribute was set or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileXattr {
    /// The file.
    #[n(0)]
    pub file: File,
    /// The attribute's name, such as `security.capability`.
    #[n(1)]
    pub name: Option<String>,
    /// Bytes of its value.
    #[n(2)]
    pub size: Option<u64>,
    /// It was removed.
    #[n(3)]
    pub removed: bool,
}

/// Body of `file.mount`: a file system was mounted, or a mount bound, moved or changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Mount {
    /// What was done: `mount`, `bind`, `move`, `remount`, `propagation`, `pivot_root`, `attach` (move_mount(2)).
    #[n(0)]
    pub action: String,
    /// Source as the caller named it: a device, or a path.
    #[n(1)]
    pub source: Option<String>,
    /// Where to.
    #[n(2)]
    pub target: Option<String>,
    /// File-system type.
    #[n(3)]
    pub file_system: Option<String>,
    /// `MS_*` flags of mount(2), or `MOVE_MOUNT_*` of move_mount(2).
    #[n(4)]
    pub flags: Option<u64>,
    /// Why it failed.
    #[n(5)]
    pub error: Option<Errno>,
    /// Source and target are what stood in the caller's memory after the call: another thread could have changed them.
    #[n(6)]
    #[cbor(default)]
    pub from_caller: bool,
}

/// Body of `file.umount`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Umount {
    /// Where it was mounted.
    #[n(0)]
    pub target: Option<String>,
    /// `MNT_*` and `UMOUNT_*` flags of umount2(2).
    #[n(1)]
    pub flags: Option<u32>,
    /// Why it failed.
    #[n(2)]
    pub error: Option<Errno>,
    /// As in [`Mount`].
    #[n(3)]
    #[cbor(default)]
    pub from_caller: bool,
}

/// Body of `file.write`: pages of one file that one process made dirty, gathered over at most a second. The event's time is that of the
/// last one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FileWrite {
    /// The file.
    #[n(0)]
    pub file: File,
    /// Pages that became dirty. A page that is written again before it reached the disk counts once.
    #[n(1)]
    pub pages: u64,
    /// The same in bytes: what will be written to the disk, in whole pages, and neither an upper nor a lower limit of what programs wrote.
    #[n(2)]
    pub bytes: u64,
    /// From the first to the last, nanoseconds.
    #[n(3)]
    pub span_ns: u64,
    /// Pages whose contents were sampled.
    #[n(4)]
    pub samples: u32,
    /// Distinct values among 64 bytes of a sample, mean times 100. Random or encrypted contents have about 5670, text 2000 to 3000,
    /// zeros 100; compressed contents look like random ones. `None` without samples.
    #[n(5)]
    pub distinct_bytes: Option<u32>,
    /// The file's first bytes, where its first page was among the samples.
    #[n(6)]
    pub magic: Option<Vec<u8>>,
}
