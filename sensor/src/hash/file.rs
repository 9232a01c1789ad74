//! Opening the file that the kernel named, and reading it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use sha2::{Digest, Sha256};

use super::{FileId, Unhashed, Wanted};

/// Bytes that are read at once.
const BLOCK: usize = 128 << 10;

/// include/uapi/linux/magic.h. Whoever serves a FUSE file system may let its reader wait for ever.
const FUSE: u32 = 0x6573_5546;
/// `st_dev` names a subvolume or the layer below, not the file system that the kernel's inode has.
const NO_DEVICE: [u32; 2] = [0x9123_683e, 0x794c_7630];

/// The SHA-256 of the wanted file, hex. `pace` is called with the bytes of each block.
///
/// # Errors
/// [`Unhashed`]: never is another file hashed in its place.
pub fn hash(wanted: &Wanted, max: u64, pace: impl FnMut(usize)) -> Result<String, Unhashed> {
    if wanted.file.size > max {
        return Err(Unhashed::TooLarge);
    }
    if wanted.magic == FUSE {
        return Err(Unhashed::Unreachable);
    }
    let mut file = open(wanted).ok_or(Unhashed::Unreachable)?;
    let hash = read(&mut file, wanted.file.size, pace).map_err(|_| Unhashed::Unreachable)?;
    // Written to while it was read?
    let after = file.metadata().map_err(|_| Unhashed::Unreachable)?;
    if is_same(&after, wanted) { Ok(hash) } else { Err(Unhashed::Unreachable) }
}

/// Opens the wanted file: by the process while it runs, which alone finds memfds and deleted files; else by its path, in the mount tree of
/// the process, of its parent, of Bartizan.
fn open(wanted: &Wanted) -> Option<File> {
    let Wanted { file: _, magic: _, pid, ppid, path } = wanted;
    // A link of the kernel's, which is followed; everywhere else a link is not what was executed.
    let by_process = (format!("/proc/{pid}/exe"), 0);
    let roots = [Some(*pid), *ppid].into_iter().flatten().map(|pid| format!("/proc/{pid}/root{path}"));
    let by_path = roots.chain([path.clone()]).map(|path| (path, libc::O_NOFOLLOW));
    [by_process].into_iter().chain(by_path).find_map(|(path, flags)| {
        let file = open_quietly(&path, flags).ok()?;
        is_same(&file.metadata().ok()?, wanted).then_some(file)
    })
}

/// Opens for reading without leaving an access time, where that is permitted, and without waiting for what is no file.
fn open_quietly(path: &str, flags: i32) -> io::Result<File> {
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    match open(flags | libc::O_NOATIME) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(flags),
        other => other,
    }
}

/// Whether an open file is the one that the kernel named.
fn is_same(metadata: &Metadata, wanted: &Wanted) -> bool {
    let FileId { device, inode, changed, size } = wanted.file;
    let kind = metadata.file_type();
    let regular = kind.is_file() && !kind.is_fifo();
    let found_device = (libc::major(metadata.dev()) << 20) | libc::minor(metadata.dev());
    let found_changed = (metadata.ctime(), metadata.ctime_nsec());
    regular
        && (NO_DEVICE.contains(&wanted.magic) || found_device == device)
        && (metadata.ino(), metadata.size()) == (inode, size)
        && found_changed == (changed.0, i64::from(changed.1))
}

fn read(file: &mut File, size: u64, mut pace: impl FnMut(usize)) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut block = vec![0; BLOCK];
    // One byte more than there were: a file that grows for ever is not read for ever.
    let mut left = file.take(size.saturating_add(1));
    loop {
        match left.read(&mut block) {
            Ok(0) => break,
            Ok(read) => {
                sum.update(block.get(..read).unwrap_or_default());
                pace(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn wanted(path: &Path) -> Wanted {
        let metadata = std::fs::metadata(path).expect("its metadata");
        let file = FileId {
            device: (libc::major(metadata.dev()) << 20) | libc::minor(metadata.dev()),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec() as u32),
            size: metadata.size(),
        };
        // A pid that is none: by path alone.
        Wanted { file, magic: 0, pid: u32::MAX, ppid: None, path: path.to_string_lossy().into_owned() }
    }

    #[test]
    fn the_file_that_was_named_is_hashed_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").expect("a file");
        let named = wanted(&path);
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut bytes = 0;
        assert_eq!(hash(&named, 3, |block| bytes += block).as_deref(), Ok(expected));
        assert_eq!(bytes, 3);
        assert_eq!(hash(&named, 2, |_| {}), Err(Unhashed::TooLarge));
        assert_eq!(hash(&Wanted { magic: FUSE, ..named.clone() }, 3, |_| {}), Err(Unhashed::Unreachable));
        let FileId { device, inode, changed, size } = named.file;
        for other in [
            FileId { device: device + 1, ..named.file },
            FileId { inode: inode + 1, ..named.file },
            FileId { changed: (changed.0, changed.1 ^ 1), ..named.file },
            FileId { size: size - 1, ..named.file },
        ] {
            assert_eq!(hash(&Wanted { file: other, ..named.clone() }, 3, |_| {}), Err(Unhashed::Unreachable), "{other:?}");
        }
        let on_overlay = Wanted { file: FileId { device: device + 1, ..named.file }, magic: NO_DEVICE[1], ..named.clone() };
        assert_eq!(hash(&on_overlay, 3, |_| {}).as_deref(), Ok(expected), "its layer's device");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert_eq!(hash(&Wanted { path: link.to_string_lossy().into_owned(), ..named.clone() }, 3, |_| {}), Err(Unhashed::Unreachable));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_has_no_hash() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("grows");
        std::fs::write(&path, vec![0; 2 * BLOCK]).expect("a file");
        let grow = |_| {
            use std::io::Write;
            let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
            file.write_all(b"more").expect("more of it");
        };
        assert_eq!(hash(&wanted(&path), u64::MAX, grow), Err(Unhashed::Unreachable));
    }
}
