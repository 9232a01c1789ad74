//! What a watched file looked like, and what became of it.

use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bartizan_bus::event::{Change, File};

use crate::capture::devices::kernel_device;
use crate::project::escape_bytes;

/// Bytes of attribute names that are read; more are not told apart.
const NAMES_MAX: usize = 4096;

/// Attributes of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) inode: u64,
    pub(super) device: u32,
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds of the last change of contents.
    pub(super) modified: (i64, i64),
    /// Names of extended attributes with the size of their values.
    pub(super) xattrs: Vec<(String, u64)>,
}

/// What differs between two states.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) mode: Option<Change>,
    pub(super) owner: Option<Change>,
    pub(super) group: Option<Change>,
    /// Links were added.
    pub(super) linked: bool,
    /// Attributes that were set, with the size of their value, or removed (`None`).
    pub(super) xattrs: Vec<(String, Option<u64>)>,
    /// The time of the last change of contents went back.
    pub(super) times: bool,
}

impl State {
    /// The state of `path`, whose metadata is `meta`.
    pub(super) fn of(path: &Path, meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            device: kernel_device(meta.dev()),
            mode: meta.mode(),
            owner: meta.uid(),
            group: meta.gid(),
            links: u32::try_from(meta.nlink()).unwrap_or(u32::MAX),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            xattrs: xattrs(path),
        }
    }

    /// What is different in `now`.
    pub(super) fn difference(&self, now: &Self) -> Difference {
        let change = |from: u32, to: u32| (from != to).then_some(Change { from: Some(from.into()), to: to.into() });
        let set = now.xattrs.iter().filter(|attribute| !self.xattrs.contains(attribute)).map(|(name, size)| (name.clone(), Some(*size)));
        let is_gone = |name: &str| now.xattrs.iter().all(|(other, _)| other != name);
        let removed = self.xattrs.iter().filter(|(name, _)| is_gone(name)).map(|(name, _)| (name.clone(), None));
        Difference {
            mode: change(self.mode & 0o7777, now.mode & 0o7777),
            owner: change(self.owner, now.owner),
            group: change(self.group, now.group),
            linked: now.links > self.links,
            xattrs: set.chain(removed).collect(),
            times: now.modified < self.modified,
        }
    }

    /// As an event tells it.
    pub(super) fn file(&self) -> File {
        let Self { inode, device, mode, owner, group, links, size, modified: _, xattrs: _ } = self;
        File {
            inode: Some(*inode),
            device: Some(*device),
            mode: Some(*mode),
            owner: Some(*owner),
            group: Some(*group),
            links: Some(*links),
            size: Some(*size),
            ..File::default()
        }
    }
}

/// Names and sizes of the extended attributes; none where the file system has none.
fn xattrs(path: &Path) -> Vec<(String, u64)> {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Vec::new() };
    let mut names = vec![0_u8; NAMES_MAX];
    // SAFETY: the path is NUL-terminated, and the buffer as long as is said.
    let read = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let names = usize::try_from(read).ok().and_then(|read| names.get(..read)).unwrap_or_default();
    names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| Some((escape_bytes(name), size(&path, name)?)))
        .collect()
}

fn size(path: &CString, name: &[u8]) -> Option<u64> {
    let name = CString::new(name).ok()?;
    // SAFETY: both are NUL-terminated; without room the kernel says how much it would need.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    u64::try_from(size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let before = State { mode: 0o100_644, links: 1, modified: (10, 0), xattrs: vec![("user.a".into(), 1)], ..State::default() };
        assert_eq!(before.difference(&before), Difference::default());
        let after =
            State { mode: 0o104_755, links: 2, modified: (9, 0), xattrs: vec![("security.capability".into(), 20)], ..before.clone() };
        let difference = before.difference(&after);
        assert_eq!(difference.mode, Some(Change { from: Some(0o644), to: 0o4755 }));
        assert_eq!((difference.owner, difference.linked, difference.times), (None, true, true));
        assert_eq!(difference.xattrs, [("security.capability".to_owned(), Some(20)), ("user.a".to_owned(), None)]);
        assert!(!after.difference(&before).linked);
    }
}
