//! A writer of cpio "newc" archives, the form of an initramfs.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use anyhow::{Context, Result, bail};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// `S_IFMT` values of stat(2).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// What one path of the archive is. All belong to root and carry no time, so that equal input gives equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A folder with permission bits.
    Directory(u32),
    /// A file with permission bits and content.
    File(u32, Vec<u8>),
    /// A link to a path.
    Symlink(String),
    /// A character device: permission bits, major, minor.
    Device(u32, u32, u32),
}

/// An archive that is being written.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Appends `entry` at `path`, relative to the root. Folders must come before what is in them: the kernel makes no parents.
    ///
    /// # Errors
    /// A path that newc or the kernel cannot hold, or content of 4 GiB and more.
    pub(crate) fn append(&mut self, path: &str, entry: &Entry) -> Result<()> {
        // The kernel's limit is PATH_MAX with the NUL; a leading slash or `..` would leave the new root.
        let odd = path.is_empty() || path.len() >= 4096 || path.starts_with('/') || path.contains('\0') || path == TRAILER;
        if odd || path.split('/').any(|part| part == "..") {
            bail!("{path:?} cannot be a path of an initramfs: give an absolute path without `..` and shorter than 4096 bytes");
        }
        match entry {
            Entry::Directory(mode) => self.write(path, DIRECTORY | mode, (0, 0), &[]),
            Entry::File(mode, content) => self.write(path, REGULAR | mode, (0, 0), content),
            Entry::Symlink(to) => self.write(path, SYMLINK | 0o777, (0, 0), to.as_bytes()),
            Entry::Device(mode, major, minor) => self.write(path, CHARACTER | mode, (*major, *minor), &[]),
        }
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// None that a path of its own length could cause; kept for the writer's sake.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.write(TRAILER, 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn write(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{path} has 4 GiB or more, which an initramfs cannot hold"))?;
        self.inode += 1;
        let name_size = u32::try_from(path.len() + 1).context("a path is too long for an initramfs")?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Header with name, and content, each end on a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// A reader as strict as the format: wrong magic, padding or lengths are errors.
    fn read(mut bytes: &[u8]) -> Result<Vec<(String, Entry)>> {
        fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
            let (head, rest) = bytes.split_at_checked(count).context("archive ends early")?;
            *bytes = rest;
            Ok(head)
        }
        let whole = bytes.len();
        let mut found = Vec::new();
        loop {
            assert_eq!((whole - bytes.len()) % 4, 0, "a header is aligned");
            assert_eq!(take(&mut bytes, 6)?, MAGIC.as_bytes());
            let mut fields = [0_u32; 13];
            for field in &mut fields {
                *field = u32::from_str_radix(std::str::from_utf8(take(&mut bytes, 8)?)?, 16)?;
            }
            let [_, mode, uid, gid, _, _, size, _, _, major, minor, name_size, check] = fields;
            assert_eq!((uid, gid, check), (0, 0, 0));
            let skip = |bytes: &mut &[u8]| -> Result<()> {
                let padding = take(bytes, (4 - (whole - bytes.len()) % 4) % 4)?;
                assert!(padding.iter().all(|byte| *byte == 0));
                Ok(())
            };
            let name = take(&mut bytes, name_size as usize)?;
            let name = String::from_utf8(name.strip_suffix(b"\0").context("name has its NUL")?.to_vec())?;
            skip(&mut bytes)?;
            let content = take(&mut bytes, size as usize)?.to_vec();
            skip(&mut bytes)?;
            if name == TRAILER {
                assert!(bytes.is_empty());
                return Ok(found);
            }
            let permissions = mode & 0o7777;
            let entry = match mode & 0o170_000 {
                DIRECTORY => Entry::Directory(permissions),
                REGULAR => Entry::File(permissions, content),
                SYMLINK => Entry::Symlink(String::from_utf8(content)?),
                CHARACTER => Entry::Device(permissions, major, minor),
                other => bail!("type {other:o}"),
            };
            found.push((name, entry));
        }
    }

    fn archive(entries: &[(String, Entry)]) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        entries.iter().try_for_each(|(path, entry)| archive.append(path, entry))?;
        archive.finish()
    }

    fn entries() -> impl Strategy<Value = Vec<(String, Entry)>> {
        let mode = 0_u32..0o7777;
        let entry = prop_oneof![
            mode.clone().prop_map(Entry::Directory),
            (mode.clone(), proptest::collection::vec(any::<u8>(), 0..70)).prop_map(|(mode, content)| Entry::File(mode, content)),
            "[a-z/.]{1,20}".prop_map(Entry::Symlink),
            (mode, 0_u32..300, 0_u32..300).prop_map(|(mode, major, minor)| Entry::Device(mode, major, minor)),
        ];
        proptest::collection::vec(("[a-zA-Z0-9_-]{1,9}(/[a-z0-9]{1,9}){0,3}", entry), 0..12)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in entries()) {
            let bytes = archive(&entries).unwrap();
            prop_assert_eq!(read(&bytes).unwrap(), entries);
        }

        #[test]
        fn any_path_is_held_or_refused(path in "\\PC{0,40}") {
            let entry = Entry::Directory(0o755);
            if let Ok(bytes) = archive(&[(path.clone(), entry.clone())]) {
                prop_assert_eq!(read(&bytes).unwrap(), vec![(path, entry)]);
            }
        }
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for path in ["", "/etc", "a/../b", "..", "a\0b", TRAILER] {
            assert!(Archive::default().append(path, &Entry::Directory(0o755)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn busybox_lists_and_unpacks_it() -> Result<()> {
        let Some(busybox) = crate::command::find_program("busybox") else {
            // The strict reader above stands on its own; this second opinion needs the package that `xtask test` installs.
            return Ok(());
        };
        let entries = [
            ("d".to_owned(), Entry::Directory(0o755)),
            ("d/f".to_owned(), Entry::File(0o640, b"content".to_vec())),
            ("l".to_owned(), Entry::Symlink("d/f".to_owned())),
        ];
        let folder = tempfile::tempdir()?;
        let mut child = Command::new(busybox)
            .args(["cpio", "-i", "-v"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        child.stdin.take().context("stdin is piped")?.write_all(&archive(&entries)?)?;
        assert!(child.wait()?.success());
        assert_eq!(std::fs::read(folder.path().join("d/f"))?, b"content");
        assert_eq!(std::fs::read_link(folder.path().join("l"))?.to_str(), Some("d/f"));
        Ok(())
    }
}
