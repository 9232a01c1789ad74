//! The host's accounts: which users, groups and passwords there are, and what of them is another than before.
//!
//! Invariants worth naming:
//!
//! - **Whoever writes the files is seen**: it is the files that are compared, so `useradd`, `vipw` and `echo >> /etc/passwd` tell the same.
//! - **No password and no hash leaves this module**: of a password it is told whether it is set, and of its hash nothing but a keyed digest
//!   is kept.
//! - **A restart misses nothing**: what the files said when the last look began is kept on disk, and what they say else at the next start is
//!   told then.
//! - **What cannot be read changes nothing**: the last state stays, and the reason is told once.
//!
//! Accounts that only a directory server knows are not in these files.

mod parse;
mod saved;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bartizan_bus::event::{AccountChange, AccountFile};
use hmac::{Hmac, KeyInit, Mac};
use parse::{Entries, changes, parse};
use saved::{KEY_BYTES, Saved, SavedFile};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Largest file that is read, bytes: about a hundred thousand users.
pub(crate) const SIZE_MAX: u64 = 8 << 20;
/// A file that is written in place is read when it was left alone for so long.
const REST: Duration = Duration::from_millis(500);
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
    /// Its state when it was read, and the last one that was met, with the time of that.
    read: Option<Stamp>,
    seen: Option<(Stamp, Instant)>,
    entries: Option<Entries>,
    /// Why it could not be read.
    problem: Option<String>,
}

/// The three files.
pub struct Accounts {
    files: [Watched; 3],
    key: [u8; KEY_BYTES],
    /// Where it is kept for the next run.
    saved: Option<SavedFile>,
    /// What is kept is not what the files said last, which was told at this time.
    told: Option<Instant>,
    /// So long after it was told it is kept: it is in EVENTS and on the disk by then.
    delay: Duration,
}

/// First eight bytes of HMAC-SHA256.
fn digest(key: &[u8; KEY_BYTES], value: &[u8]) -> u64 {
    // Shorter than a block of SHA-256, and so taken as it is, with zeros behind (RFC 2104).
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..KEY_BYTES].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block);
    mac.update(value);
    let bytes = mac.finalize().into_bytes();
    bytes.iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

impl Accounts {
    /// Those below `root`. The first look tells nothing.
    ///
    /// # Errors
    /// There are no random numbers for a key.
    pub fn below(root: &Path) -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        let watched = |(file, name)| Watched { file, path: root.join(name), read: None, seen: None, entries: None, problem: None };
        Ok(Self { files: FILES.map(watched), key, saved: None, told: None, delay: Duration::ZERO })
    }

    /// The first look tells what is another than the last run left in `data_dir`, and this run leaves the same there, `delay` after it was told:
    /// when the events of that are surely on the disk.
    pub fn remembering(mut self, data_dir: &Path, delay: Duration) -> Self {
        let file = SavedFile::new(data_dir);
        match file.load() {
            Ok(Some(saved)) => {
                self.key = saved.key;
                for (file, entries) in saved.files {
                    if let Some(watched) = self.files.iter_mut().find(|watched| watched.file == file) {
                        watched.entries = Some(entries);
                    }
                }
            }
            Ok(None) => {}
            Err(problem) => tracing::warn!("{problem}"),
        }
        (self.saved, self.delay) = (Some(file), delay);
        self
    }

    /// Keeps what was told up to now.
    fn save(&mut self) {
        let Some(file) = &self.saved else { return };
        let files = self.files.iter().filter_map(|watched| Some((watched.file, watched.entries.clone()?))).collect();
        // It is tried again with the next change.
        self.told = None;
        if let Err(error) = file.store(&Saved::new(self.key, files)) {
            tracing::warn!(%error, "what the account files say is not kept; after a restart what changed since may be told again");
        }
    }

    /// Reads what is another file than the last time, or was written and is not being written any more: since the look before.
    pub fn look(&mut self, now: Instant) -> Look {
        if self.told.is_some_and(|told| now.saturating_duration_since(told) >= self.delay) {
            self.save();
        }
        let Self { files, key, told, .. } = self;
        let mut look = Look::default();
        for watched in files {
            let before = watched.read;
            let found = watched.look(|value| digest(key, value), now);
            if watched.read != before {
                *told = Some(now);
                watched.problem = None;
            }
            let found = found.unwrap_or_else(|error| {
                let problem = format!("{}: {error}", watched.path.display());
                if watched.problem.as_ref() != Some(&problem) {
                    tracing::warn!("accounts: {problem}; what becomes of it is not told until it can be read");
                    watched.problem = Some(problem);
                }
                Vec::new()
            });
            let room = CHANGES_MAX.saturating_sub(look.changes.len());
            look.beyond += found.len().saturating_sub(room) as u64;
            let inode = watched.read.map_or(0, |stamp| stamp.inode);
            look.changes.extend(found.into_iter().take(room).map(|change| (inode, change)));
        }
        look
    }

    /// Files that cannot be read now, with the reason.
    pub fn problems(&self) -> Vec<String> {
        self.files.iter().filter_map(|watched| watched.problem.clone()).collect()
    }
}

/// The file at `path`, not waited for: a pipe that somebody puts there has no writer.
///
/// # Errors
/// There is none, or it is no regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<(fs::File, fs::Metadata)> {
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is no regular file")) }
}

impl Watched {
    fn look(&mut self, digest: impl Fn(&[u8]) -> u64, now: Instant) -> io::Result<Vec<AccountChange>> {
        // Mostly nothing is new, and the file need not be opened.
        let is_read = |metadata: fs::Metadata| self.read == Some(Stamp::of(&metadata));
        if fs::metadata(&self.path).is_ok_and(is_read) {
            return Ok(Vec::new());
        }
        let (file, metadata) = match open_regular(&self.path) {
            Ok(opened) => opened,
            // Between the removal of the old one and the new one; a removal itself is told of the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let stamp = Stamp::of(&metadata);
        if self.read == Some(stamp) {
            return Ok(Vec::new());
        }
        if self.seen.is_none_or(|(seen, _)| seen != stamp) {
            self.seen = Some((stamp, now));
        }
        // A writer in place may be between two writes; whoever renames has finished.
        let in_place = self.read.is_some_and(|read| read.is_same_file(&stamp));
        if in_place && self.seen.is_some_and(|(_, since)| now.saturating_duration_since(since) < REST) {
            return Ok(Vec::new());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(stamp.size.min(SIZE_MAX) as usize + 1));
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(io::Error::other(format!("it is larger than {SIZE_MAX} bytes, which are read at most")));
        }
        let entries = parse(self.file, &bytes, digest).map_err(io::Error::other)?;
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
        now: Instant,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("etc")).unwrap();
            let accounts = Accounts::below(root.path()).unwrap();
            let mut host = Self { root, accounts, now: Instant::now() };
            host.replace("passwd", "root:x:0:0:root:/root:/bin/bash\n");
            host.replace("shadow", "root:$y$abc:19000:0:99999:7:::\n");
            assert_eq!(host.look(), Look::default(), "what was there before is not told");
            host
        }

        /// A look, a moment after the one before.
        fn look(&mut self) -> Look {
            self.after(Duration::from_millis(10))
        }

        fn after(&mut self, time: Duration) -> Look {
            self.now += time;
            self.accounts.look(self.now)
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
            self.look().changes.into_iter().map(|(_, change)| (change.action, change.name)).collect()
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_read_at_once() {
        let mut host = Host::new();
        host.replace("passwd", "root:x:0:0:root:/root:/bin/bash\nevil:x:0:0::/:/bin/sh\n");
        let look = host.look();
        let inode = fs::metadata(host.path("passwd")).unwrap().ino();
        assert_eq!((look.changes.len(), look.changes[0].0, look.changes[0].1.name.as_str()), (1, inode, "evil"));
        assert_eq!(host.look(), Look::default(), "and told once");
    }

    #[test]
    fn a_file_that_is_being_written_is_read_when_it_rests() {
        let mut host = Host::new();
        fs::write(host.path("passwd"), "").unwrap();
        assert_eq!(host.names(), []);
        fs::write(host.path("passwd"), "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/:/bin/sh\n").unwrap();
        assert_eq!((host.names(), host.names()), (Vec::new(), Vec::new()), "it may be written on");
        host.now += REST;
        assert_eq!(host.names(), [(AccountAction::Added, "ann".to_owned())]);
    }

    #[test]
    fn a_file_that_is_gone_says_nothing_until_it_is_back() {
        let mut host = Host::new();
        fs::remove_file(host.path("passwd")).unwrap();
        assert_eq!(host.names(), []);
        host.replace("passwd", "toor:x:0:0:root:/root:/bin/bash\n");
        // The new one may have the old one's inode, and is then taken for one that is being written.
        host.now += REST;
        let told = [host.names(), {
            host.now += REST;
            host.names()
        }]
        .concat();
        assert_eq!(told, [(AccountAction::Removed, "root".to_owned()), (AccountAction::Added, "toor".to_owned())]);
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_and_what_is_too_large_is_not_read() {
        let mut host = Host::new();
        let many: String = (0..CHANGES_MAX + 5).map(|n| format!("u{n}:x:{n}:{n}::/:/bin/sh\n")).collect();
        host.replace("passwd", &format!("root:x:0:0:root:/root:/bin/bash\n{many}"));
        let look = host.look();
        assert_eq!((look.changes.len(), look.beyond), (CHANGES_MAX, 5));
        let large = fs::File::create(host.path("group")).unwrap();
        large.set_len(SIZE_MAX + 1).unwrap();
        assert_eq!(host.look(), Look::default());
        let problem = |host: &Host| host.accounts.problems().join("; ");
        assert!(problem(&host).contains("read at most"), "{}", problem(&host));
        assert_eq!(host.look(), Look::default());
        assert!(problem(&host).contains("read at most"), "it stays one");
        host.replace("group", "adm:x:4:\n");
        assert_eq!((host.look(), problem(&host)), (Look::default(), String::new()));
    }

    #[test]
    fn what_changes_while_nobody_looks_is_told_by_the_next_run() {
        let mut host = Host::new();
        let data = tempfile::tempdir().unwrap();
        let delay = Duration::from_secs(2);
        let run = |root: &Path| Accounts::below(root).unwrap().remembering(data.path(), delay);
        host.accounts = run(host.root.path());
        assert_eq!((host.names(), host.after(delay)), (Vec::new(), Look::default()));
        host.replace("shadow", "root:$y$def:19000:0:99999:7:::\n");
        host.accounts = run(host.root.path());
        let changed = vec![(AccountAction::Changed, "root".to_owned())];
        assert_eq!(host.names(), changed, "the password is another one");
        // It ended before that was kept: told again rather than not at all.
        host.accounts = run(host.root.path());
        assert_eq!((host.names(), host.after(delay)), (changed, Look::default()));
        host.accounts = run(host.root.path());
        assert_eq!(host.names(), []);
        let kept = fs::read(data.path().join("accounts")).unwrap();
        assert!(!kept.windows(6).any(|bytes| bytes == b"$y$def"), "no hash is kept");
    }

    #[test]
    fn what_is_no_file_keeps_nobody_waiting() {
        let mut host = Host::new();
        for kind in ["pipe", "device"] {
            let path = host.path("new");
            if kind == "pipe" {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
            } else {
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            }
            fs::rename(&path, host.path("group")).unwrap();
            assert_eq!(host.look(), Look::default());
            assert!(host.accounts.problems().join("").contains("no regular file"), "{kind}");
        }
        host.replace("passwd", "root:x:0:0:root:/root:/bin/bash\nann:x:1:1:::\n");
        assert_eq!(host.names(), [(AccountAction::Added, "ann".to_owned())], "the others are looked at all the same");
    }
}
