//! The host's accounts: which users, groups and passwords there are, and what of them is another than before.
//!
//! Invariants worth naming:
//!
//! - **Whoever writes the files is seen**: it is the files that are compared, so `useradd`, `vipw` and `echo >> /etc/passwd` tell the same.
//! - **No password and no hash leaves this module**: of a password it is told whether it is set, and of its hash nothing but a keyed digest
//!   is kept.
//! - **What cannot be read changes nothing**: the last state stays, and the reason is told once.
//!
//! Accounts that only a directory server knows are not in these files.

mod parse;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bartizan_bus::event::{AccountChange, AccountFile};
use parse::{Entries, changes, parse};
use zeroize::Zeroizing;

/// Largest file that is read, bytes: about a hundred thousand users.
const SIZE_MAX: u64 = 8 << 20;
/// Changes that are told of one reading, at most: more than a person or an installation makes in a second.
pub const CHANGES_MAX: usize = 256;

/// What was found on one look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What changed, with the inode number of the file that says so.
    pub changes: Vec<(u64, AccountChange)>,
    /// Changes beyond [`CHANGES_MAX`].
    pub beyond: u64,
}

/// The files, without the root folder.
const FILES: [(AccountFile, &str); 3] =
    [(AccountFile::Passwd, "etc/passwd"), (AccountFile::Group, "etc/group"), (AccountFile::Shadow, "etc/shadow")];

/// Whether `path` is one of the host's account files.
pub fn is_one(path: &str) -> bool {
    file_at(path).is_some()
}

/// Which of the host's account files is at `path`.
pub(crate) fn file_at(path: &str) -> Option<AccountFile> {
    let path = path.strip_prefix('/')?;
    FILES.iter().find(|(_, name)| *name == path).map(|(file, _)| *file)
}

/// What tells one state of a file from another: device, inode, size, and times of the last write and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// One file and what it said last.
#[derive(Debug)]
struct Watched {
    file: AccountFile,
    path: PathBuf,
    /// Its state when it was read, and when it was last looked at.
    read: Option<Stamp>,
    seen: Option<Stamp>,
    entries: Option<Entries>,
    /// Why it could not be read.
    problem: Option<String>,
}

/// The three files.
#[derive(Debug)]
pub struct Accounts {
    files: [Watched; 3],
    /// Makes digests of this run's own.
    key: foldhash::quality::RandomState,
}

impl Accounts {
    /// Those below `root`.
    pub fn below(root: &Path) -> Self {
        let watched = |(file, name)| Watched { file, path: root.join(name), read: None, seen: None, entries: None, problem: None };
        Self { files: FILES.map(watched), key: foldhash::quality::RandomState::default() }
    }

    /// Reads what is another file than the last time, or was written and is not being written any more: since the look before. The first
    /// look tells nothing.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        for watched in &mut self.files {
            let found = match watched.look(&self.key) {
                Ok(found) => {
                    watched.problem = None;
                    found
                }
                Err(error) => {
                    let problem = Some(error.to_string());
                    if watched.problem != problem {
                        tracing::warn!("accounts: {}: {error}; changes of it are not told until it can be read", watched.path.display());
                        watched.problem = problem;
                    }
                    continue;
                }
            };
            let room = CHANGES_MAX.saturating_sub(look.changes.len());
            look.beyond += found.len().saturating_sub(room) as u64;
            let inode = watched.read.map_or(0, |stamp| stamp.inode);
            look.changes.extend(found.into_iter().take(room).map(|change| (inode, change)));
        }
        look
    }
}

impl Watched {
    fn look(&mut self, key: &foldhash::quality::RandomState) -> io::Result<Vec<AccountChange>> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            // Between the removal of the old one and the new one; a removal itself is told of the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let stamp = Stamp::of(&metadata);
        let before = self.seen.replace(stamp);
        if self.read == Some(stamp) {
            return Ok(Vec::new());
        }
        // A writer in place may be between two writes; whoever renames has finished.
        let in_place = self.read.is_some_and(|read| read.is_same_file(&stamp));
        if in_place && before != Some(stamp) {
            return Ok(Vec::new());
        }
        if stamp.size > SIZE_MAX {
            self.read = Some(stamp);
            return Err(io::Error::other(format!("{} bytes, where {SIZE_MAX} are read at most", stamp.size)));
        }
        let bytes = Zeroizing::new(fs::read(&self.path)?);
        let entries = parse(self.file, &bytes, key);
        let found = self.entries.as_ref().map(|before| changes(self.file, before, &entries)).unwrap_or_default();
        (self.read, self.entries) = (Some(stamp), Some(entries));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::AccountAction;

    use super::*;

    struct Host {
        root: tempfile::TempDir,
        accounts: Accounts,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("etc")).unwrap();
            let accounts = Accounts::below(root.path());
            let mut host = Self { root, accounts };
            host.replace("passwd", "root:x:0:0:root:/root:/bin/bash\n");
            host.replace("shadow", "root:$y$abc:19000:0:99999:7:::\n");
            assert_eq!(host.accounts.look(), Look::default(), "what was there before is not told");
            host
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join("etc").join(name)
        }

        /// As account tools do it.
        fn replace(&mut self, name: &str, text: &str) {
            fs::write(self.path("new"), text).unwrap();
            fs::rename(self.path("new"), self.path(name)).unwrap();
        }

        fn names(&mut self) -> Vec<(AccountAction, String)> {
            self.accounts.look().changes.into_iter().map(|(_, change)| (change.action, change.name)).collect()
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_read_at_once() {
        let mut host = Host::new();
        host.replace("passwd", "root:x:0:0:root:/root:/bin/bash\nevil:x:0:0::/:/bin/sh\n");
        let look = host.accounts.look();
        let inode = fs::metadata(host.path("passwd")).unwrap().ino();
        assert_eq!((look.changes.len(), look.changes[0].0, look.changes[0].1.name.as_str()), (1, inode, "evil"));
        assert_eq!(host.accounts.look(), Look::default(), "and told once");
    }

    #[test]
    fn a_file_that_is_being_written_is_read_when_it_rests() {
        let mut host = Host::new();
        fs::write(host.path("passwd"), "").unwrap();
        assert_eq!(host.names(), []);
        fs::write(host.path("passwd"), "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/:/bin/sh\n").unwrap();
        assert_eq!(host.names(), [], "it is another one than at the last look");
        assert_eq!(host.names(), [(AccountAction::Added, "ann".to_owned())]);
    }

    #[test]
    fn a_file_that_is_gone_says_nothing_until_it_is_back() {
        let mut host = Host::new();
        fs::remove_file(host.path("passwd")).unwrap();
        assert_eq!(host.names(), []);
        host.replace("passwd", "toor:x:0:0:root:/root:/bin/bash\n");
        // The new one may have the old one's inode, and is then taken for one that is being written.
        let told = [host.names(), host.names()].concat();
        assert_eq!(told, [(AccountAction::Removed, "root".to_owned()), (AccountAction::Added, "toor".to_owned())]);
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_and_what_is_too_large_is_not_read() {
        let mut host = Host::new();
        let many: String = (0..CHANGES_MAX + 5).map(|n| format!("u{n}:x:{n}:{n}::/:/bin/sh\n")).collect();
        host.replace("passwd", &format!("root:x:0:0:root:/root:/bin/bash\n{many}"));
        let look = host.accounts.look();
        assert_eq!((look.changes.len(), look.beyond), (CHANGES_MAX, 5));
        let large = fs::File::create(host.path("group")).unwrap();
        large.set_len(SIZE_MAX + 1).unwrap();
        assert_eq!(host.accounts.look(), Look::default());
        assert!(host.accounts.files[1].problem.as_ref().is_some_and(|problem| problem.contains("read at most")));
    }
}
