//! The few file operations whose order matters for what survives a power cut.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Only the owner reads what hosts do.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Writable for the group or for others.
const OTHERS_WRITE: u32 = 0o022;

/// The kernel's id of this boot (proc_sys_kernel(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Changes with every boot of the machine. Empty, and said, where it cannot be read: then every start is treated like one after a power cut.
pub(crate) fn boot_id() -> String {
    match std::fs::read_to_string(BOOT_ID) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => {
            tracing::warn!(path = BOOT_ID, %error, "cannot tell whether the machine was restarted: sequences will skip at every unclean start");
            String::new()
        }
    }
}

/// Creates the folder and its missing parents, private to the owner.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// Owner and mode of a folder in which somebody else than this user could replace files; `None` where nobody could.
pub(crate) fn foreign_hands(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let folder = std::fs::metadata(path)?;
    let (owner, mode) = (folder.uid(), folder.mode() & 0o7777);
    Ok((owner != nix::unistd::geteuid().as_raw() || mode & OTHERS_WRITE != 0).then_some((owner, mode)))
}

/// Forces the folder's entries (created, renamed, deleted files) to disk.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens a private file for reading and writing, creating it when it is missing and keeping what it holds.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// Replaces `path` by a file with these bytes in one step: a reader (and a later start) sees the old content or the new one,
/// never a mixture. With `sync` that also holds for a power cut.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let temporary = path.with_added_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_data()?;
    }
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) if sync => sync_dir(dir),
        _ => Ok(()),
    }
}
