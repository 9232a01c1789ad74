//! Files and folders of the host that the guest is given besides its programs: a PAM service, its modules, a configuration.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::cpio::Entry;
use super::initramfs::Tree;

/// Entries of one folder and all below it. Nobody means to give the guest more: `--file /usr` would not fit into its memory.
const MOST_ENTRIES: usize = 10_000;

/// A file or folder, and where the guest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    host: PathBuf,
    guest: String,
}

impl FromStr for Extra {
    type Err = String;

    /// `PATH`, or `PATH=GUEST` where the guest is to have it elsewhere.
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, guest) = text.split_once('=').unwrap_or((text, text));
        if !guest.starts_with('/') || guest.len() == 1 || guest.split('/').any(|part| part == "..") {
            return Err(format!("the guest's path {guest:?} is not absolute, or has `..` in it: give PATH=/absolute/path"));
        }
        if host.is_empty() {
            return Err("there is no path before `=`: give PATH=GUEST".to_owned());
        }
        Ok(Self { host: host.into(), guest: guest.trim_end_matches('/').to_owned() })
    }
}

impl Extra {
    /// The same path on both.
    ///
    /// # Errors
    /// It is not absolute.
    pub(crate) fn same(path: &str) -> Result<Self> {
        path.parse().map_err(anyhow::Error::msg)
    }

    /// Puts it into the guest's file system.
    ///
    /// # Errors
    /// It cannot be read, is neither file nor folder, or is larger than any sensible test's.
    pub(super) fn place(&self, tree: &mut Tree) -> Result<()> {
        let Self { host, guest } = self;
        let mut room = MOST_ENTRIES;
        place(tree, host, guest, &mut room).with_context(|| format!("--file {}", host.display()))
    }
}

fn place(tree: &mut Tree, host: &Path, guest: &str, room: &mut usize) -> Result<()> {
    *room =
        room.checked_sub(1).with_context(|| format!("it has more than {MOST_ENTRIES} files and folders: name the ones that are needed"))?;
    let meta = fs::metadata(host).with_context(|| format!("{} cannot be read: check the path", host.display()))?;
    if meta.is_file() {
        tree.copy(host, guest)?;
        return if is_dynamic(host)? { tree.libraries(host) } else { Ok(()) };
    }
    if !meta.is_dir() {
        bail!("{} is neither a file nor a folder: leave it out", host.display());
    }
    tree.put(guest, Entry::Directory(meta.permissions().mode() & 0o7777));
    let entries = fs::read_dir(host).with_context(|| format!("{} cannot be read: check who owns it", host.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be read", host.display()))?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| anyhow::anyhow!("{} in {} is not UTF-8: rename it", name.display(), host.display()))?;
        let (from, to) = (entry.path(), format!("{guest}/{name}"));
        // A link to a file is followed. One to a folder stays a link: following it might never end.
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) && from.is_dir() {
            let target = fs::read_link(&from).with_context(|| format!("{} cannot be read", from.display()))?;
            let target = target.to_str().with_context(|| format!("{} points to what is not UTF-8", from.display()))?;
            tree.put(&to, Entry::Symlink(target.to_owned()));
        } else {
            place(tree, &from, &to, room)?;
        }
    }
    Ok(())
}

/// An ELF program or shared object: the types 2 (`ET_EXEC`) and 3 (`ET_DYN`) of elf(5), and not an object file or a core.
fn is_dynamic(path: &Path) -> Result<bool> {
    let mut header = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("{} cannot be read: check the path", path.display()))?;
    file.take(18).read_to_end(&mut header).with_context(|| format!("{} cannot be read", path.display()))?;
    let kind = header.get(16..18).and_then(|two| Some(u16::from_le_bytes(two.try_into().ok()?)));
    Ok(header.starts_with(b"\x7fELF") && matches!(kind, Some(2 | 3)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::super::cpio::Archive;
    use super::*;

    #[test]
    fn a_place_of_its_own_or_the_same() {
        let read = |text: &str| text.parse::<Extra>().map(|extra| (extra.host, extra.guest));
        assert_eq!(read("/etc/pam.d"), Ok(("/etc/pam.d".into(), "/etc/pam.d".into())));
        assert_eq!(read("my/su=/etc/pam.d/su"), Ok(("my/su".into(), "/etc/pam.d/su".into())));
        assert_eq!(read("/etc/pam.d/"), Ok(("/etc/pam.d/".into(), "/etc/pam.d".into())));
        for bad in ["pam.d", "/a=b", "/a=/b/../c", "=/a", "/", ""] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_folder_comes_with_all_below_it_and_its_links() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("d/e"))?;
        fs::write(path("d/e/f"), "content")?;
        symlink("e/f", path("d/link"))?;
        symlink("..", path("d/up"))?;
        let mut tree = Tree::new();
        Extra { host: path("d"), guest: "/g".into() }.place(&mut tree)?;
        let entry = |name: &str| tree.entry(name).cloned();
        assert_eq!(entry("g/e/f"), Some(Entry::File(0o644, b"content".to_vec())));
        assert_eq!(entry("g/link"), Some(Entry::File(0o644, b"content".to_vec())));
        assert_eq!(entry("g/up"), Some(Entry::Symlink("..".into())));
        assert!(matches!(entry("g/e"), Some(Entry::Directory(_))));
        Ok(())
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s"))?;
        let error = Extra { host: folder.path().into(), guest: "/g".into() }.place(&mut Tree::new());
        let error = error.err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("/s is neither a file nor a folder"), "{error}");
        Ok(())
    }

    #[test]
    fn a_shared_object_brings_its_libraries() -> Result<()> {
        let mut tree = Tree::new();
        // Any dynamic ELF file does: this test itself.
        Extra { host: std::env::current_exe()?, guest: "/lib/module.so".into() }.place(&mut tree)?;
        assert!(tree.paths().any(|path| path.contains("libc.so")), "{:?}", tree.paths().collect::<Vec<_>>());
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_fits_the_archive(text in "\\PC{0,40}") {
            if let Ok(Extra { host: _, guest }) = text.parse() {
                let held = Archive::default().append(guest.trim_start_matches('/'), &Entry::Directory(0o755));
                prop_assert!(held.is_ok() || guest.trim_matches('/').is_empty(), "{guest:?}: {held:?}");
            }
        }
    }
}
