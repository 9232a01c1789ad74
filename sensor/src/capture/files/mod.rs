//! The files that are watched: which they are, where the kernel is told, and what fanotify says of them.
//!
//! Invariants worth naming:
//!
//! - **Watched is the inode, not the path**: links, bind mounts, other roots and descriptors lead to the same inode, whichever system call
//!   or ring takes them there.
//! - **A watched path stays watched**: the folder that holds it is watched for names that appear, so that a file that takes its place, as
//!   `vipw` does, is on the list as soon as that event is read.
//! - **Bounded and counted**: at most [`WATCHED_MAX`] files and folders; what has no room, and what cannot be marked, is in the status.
//! - **What fanotify cannot tell is `None`**: it names the process and the file, merges what one process does to one file, and has no
//!   clock. The subject is the image that the process runs when the event is read.

mod event;
pub mod group;
mod handle;
mod judge;
mod list;
mod rules;
mod state;
mod tell;
mod writes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use aya::maps::{Array, HashMap as KernelMap, MapData};
use bartizan_bus::event::{Body, FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileXattr};
use bartizan_sensor_ebpf::abi::{
    Header, Kind, WANT_ENTRIES, WANT_READ, WANT_TREE, WATCH_BITS, WRITES_MAX, WatchKey, WriteGathered, WriteKey, watch_bit,
};

use super::drain;
use crate::accounts;
use crate::config::files::FilesConfig;
use crate::project::{Act, Observation, What, project};
use event::{Event, Handle};
use group::Group;
use handle::Paths;
use judge::complete;
pub use judge::{Judge, WatchList};
pub use list::WATCHED_MAX;
use rules::Rules;
pub(crate) use rules::matches;
use state::State;

/// Between two looks for watched files that came or went unseen.
const RESCAN: Duration = Duration::from_secs(10);
/// Between two looks, however much comes and goes, and of the time that a look took: anybody can make one due, and it must not cost more
/// than a twentieth of a processor.
const RESCAN_AT_MOST: Duration = Duration::from_millis(50);
const RESCAN_PART: u32 = 20;
/// Nanoseconds that an entry stays in the kernel's map of writes at least: its record is read by then.
const SETTLED: u64 = 200_000_000;
/// Buffers that one look takes, so that the rings get their turn.
const READS: usize = 16;

/// [`WatchKey`] as bytes that aya may write to a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Key(pub WatchKey);

// SAFETY: `WatchKey` is `#[repr(C)]`, made of integers without implicit padding.
unsafe impl aya::Pod for Key {}

/// Where the kernel looks up what is watched.
pub struct Maps {
    /// What is wanted of each file.
    pub watch: KernelMap<MapData, Key, u32>,
    /// Which files are none of them.
    pub bits: Array<MapData, u64>,
    /// What is written, by process and file.
    pub writes: MapData,
    /// Of which nothing is told.
    pub ignored: KernelMap<MapData, Key, u32>,
}

/// A watched file or folder.
#[derive(Debug, Clone)]
struct Watched {
    path: PathBuf,
    /// The rule's text; empty for a folder that only leads to what a rule names.
    rule: String,
    want: u32,
    folder: bool,
    /// As it was when last looked at: what an attribute change is told against.
    state: State,
    key: WatchKey,
}

/// What the status says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesReport {
    /// Files that are watched.
    pub files: u64,
    /// Folders, those among them that only lead to watched files.
    pub folders: u64,
    /// Entries of the configuration for which nothing is there now.
    pub missing: u64,
    /// Files and folders for which there was no room.
    pub beyond: u64,
    /// Files and folders of which nothing is told.
    pub ignored: u64,
    /// Entries of `files.ignore` for which nothing is there now.
    pub ignored_missing: Vec<String>,
    /// What could not be watched, with the reason; at most [`REFUSED_TOLD`].
    pub refused: Vec<(String, String)>,
    /// File systems all of whose renames and removals fanotify tells.
    pub file_systems: Vec<String>,
}

/// Refusals that a report names.
const REFUSED_TOLD: usize = 16;

/// What a process did to a file, as fanotify tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct FileDeed {
    /// When it was read, boot clock, nanoseconds: fanotify has no clock.
    pub now: u64,
    /// Thread-group id of who did it.
    pub pid: u32,
    /// Tells deeds of one time apart.
    pub seq: u32,
    /// What was done.
    pub body: Body,
}

/// What one look at fanotify found.
#[derive(Debug, Default)]
pub struct Told {
    /// What happened.
    pub deeds: Vec<FileDeed>,
    /// Times that the kernel's queue was full: each stands for any number of events.
    pub overflows: u64,
    /// Events left out because the configuration says so, by kind.
    pub ignored: BTreeMap<&'static str, u64>,
    /// Events left out because Bartizan is at its CPU ceiling.
    pub shed: u64,
    /// Buffers with something in them that is no event; what stood behind it is lost.
    pub unreadable: u64,
}

/// The watched files.
pub struct FileWatch {
    rules: Rules,
    /// What nothing is told of.
    ignored: Rules,
    /// As the kernel's map has it.
    ignored_now: HashSet<WatchKey>,
    everywhere: bool,
    group: Option<Group>,
    maps: Maps,
    /// By the kernel's name of it.
    watched: HashMap<Handle, Watched>,
    paths: Paths,
    /// Files whose creation was told since [`Self::looked`], with its place among what was told.
    born: HashMap<Handle, usize>,
    /// When fanotify was read last: what is older than that was not created since.
    looked: SystemTime,
    /// Processes that were told to write to a watched file and have it open still, as far as is known.
    writing: HashSet<(i32, Handle)>,
    refused: BTreeMap<PathBuf, String>,
    report: FilesReport,
    scanned: Option<Instant>,
    /// How long the last look took.
    took: Duration,
    /// A name came or went that may be a watched one.
    stale: bool,
    /// One of the host's account files may be another one.
    accounts_touched: bool,
    /// The list as it was told last.
    told_list: Option<WatchList>,
    sequence: u32,
    own: i32,
}

impl FileWatch {
    /// Nothing is watched before [`refresh`](Self::refresh). `group`: where some hook is carried by fanotify.
    pub fn new(config: &FilesConfig, group: Option<Group>, maps: Maps) -> Self {
        Self {
            rules: Rules::new(config),
            ignored: Rules::named(&config.ignore),
            ignored_now: HashSet::new(),
            everywhere: config.everywhere,
            group,
            maps,
            watched: HashMap::new(),
            told_list: None,
            paths: Paths::default(),
            born: HashMap::new(),
            looked: SystemTime::now(),
            writing: HashSet::new(),
            refused: BTreeMap::new(),
            report: FilesReport::default(),
            scanned: None,
            took: Duration::ZERO,
            stale: true,
            accounts_touched: false,
            sequence: tell::SEQUENCES,
            own: std::process::id().cast_signed(),
        }
    }

    /// What fanotify has to say wakes by this.
    pub fn wakes_by(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().map(AsFd::as_fd)
    }

    /// For the status.
    pub fn report(&self) -> &FilesReport {
        &self.report
    }

    /// The rule that a path belongs to.
    pub fn rule(&self, path: &str) -> Option<&str> {
        self.rules.covering(path).map(|rule| rule.text.as_str())
    }

    /// A name came or went at `path`, as a record of the kernel's programs says.
    pub fn touched(&mut self, path: &str) {
        self.stale |= self.rules.leads_through(path) || self.rules.covering(path).is_some();
        self.accounts_touched |= accounts::is_one(path);
    }

    /// Whether one of the host's account files may be another one since the last call.
    pub fn accounts_touched(&mut self) -> bool {
        std::mem::take(&mut self.accounts_touched)
    }

    /// Brings the list up to date when that is due. Returns whether it looked.
    pub fn refresh(&mut self) -> bool {
        let wait = if self.stale { RESCAN_AT_MOST.max(self.took * RESCAN_PART) } else { RESCAN };
        if self.scanned.is_some_and(|at| at.elapsed() < wait) {
            return false;
        }
        let begun = Instant::now();
        self.stale = false;
        self.mark_file_systems();
        let left_out = self.refresh_ignored();
        let list::Listing { found, missing, beyond, refused, .. } = list::list(&self.rules, &self.ignored, Path::new("/"));
        let beyond = beyond + left_out;
        self.refused.extend(refused);
        self.refused.retain(|path, _| path.exists());
        let mut before = std::mem::take(&mut self.watched);
        for (path, list::Found { rule, want }) in found {
            match self.watch(&path, &rule, want, &before) {
                Ok(()) => {
                    self.refused.remove(&path);
                }
                // It went meanwhile: its folder is watched.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.refused.insert(path, error.to_string());
                }
            }
        }
        before.retain(|handle, _| !self.watched.contains_key(handle));
        let kept: HashSet<WatchKey> = self.watched.values().map(|watched| watched.key).collect();
        for watched in before.into_values().filter(|watched| !kept.contains(&watched.key)) {
            // Only the map: a mark goes with its inode, and what it still says belongs to no rule. One that is gone is as good.
            let _ = self.maps.watch.remove(&Key(watched.key));
        }
        self.set_bits(&kept);
        let folders = self.watched.values().filter(|watched| watched.folder).count() as u64;
        self.report.files = self.watched.len() as u64 - folders;
        self.report.folders = folders;
        self.report.missing = missing as u64;
        self.report.beyond = beyond;
        (self.scanned, self.took) = (Some(Instant::now()), begun.elapsed());
        self.report.refused =
            self.refused.iter().take(REFUSED_TOLD).map(|(path, why)| (path.to_string_lossy().into_owned(), why.clone())).collect();
        true
    }

    /// Tells the kernel of which files and folders nothing is told. Returns for how many there was no room.
    fn refresh_ignored(&mut self) -> u64 {
        if self.ignored.is_empty() {
            return 0;
        }
        let places = list::places(&self.ignored, Path::new("/"));
        let missing = self.ignored.iter().enumerate().filter(|(index, _)| !places.iter().any(|(rule, _)| rule == index));
        self.report.ignored_missing = missing.map(|(_, rule)| rule.text.clone()).collect();
        let mut key = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some(self.paths.key(path, &meta))
        };
        let wanted: HashSet<WatchKey> = places.iter().filter_map(|(_, path)| key(path)).collect();
        for gone in self.ignored_now.difference(&wanted) {
            // One that is gone is as good.
            let _ = self.maps.ignored.remove(&Key(*gone));
        }
        self.ignored_now.retain(|key| wanted.contains(key));
        let mut beyond = 0;
        for key in wanted {
            if self.ignored_now.contains(&key) || self.maps.ignored.insert(Key(key), 1, 0).is_ok() {
                self.ignored_now.insert(key);
            } else {
                beyond += 1;
            }
        }
        self.report.ignored = self.ignored_now.len() as u64;
        beyond
    }

    /// Whether nothing is told of what `body` is about: all of its paths are ignored.
    fn is_ignored(&self, body: &Body) -> bool {
        if self.ignored.is_empty() {
            return false;
        }
        let mut paths = about(body).peekable();
        paths.peek().is_some() && paths.all(|path| self.ignored.covering(path).is_some())
    }

    /// Puts one file or folder on the list, in the kernel first.
    fn watch(&mut self, path: &Path, rule: &str, want: u32, before: &HashMap<Handle, Watched>) -> io::Result<()> {
        let meta = std::fs::metadata(path)?;
        let key = self.paths.key(path, &meta);
        // A file system without handles (ramfs) can be watched all the same, but not by fanotify, which will say so.
        let handle = handle::of(path).unwrap_or_else(|_| Handle::of_inode(key.inode, meta.dev()));
        let wanted = self.watched.get(&handle).map_or(want, |known| known.want | want);
        let known = before.get(&handle);
        if known.is_none_or(|known| known.want != wanted) || self.watched.contains_key(&handle) {
            self.maps.watch.insert(Key(key), wanted, 0).map_err(io::Error::other)?;
            let (word, bit) = watch_bit(key.inode);
            let old = self.maps.bits.get(&word, 0).map_err(io::Error::other)?;
            self.maps.bits.set(word, old | bit, 0).map_err(io::Error::other)?;
            if let Some(group) = &self.group {
                let events = events(wanted, meta.is_dir(), group.wanted());
                if events != 0
                    && let Err(error) = group.mark(path, events)
                {
                    if known.is_none() && !self.watched.contains_key(&handle) {
                        // One that is gone is as good.
                        let _ = self.maps.watch.remove(&Key(key));
                    }
                    return Err(error);
                }
            }
        }
        if let Some(other) = self.watched.get_mut(&handle) {
            // Two rules name it.
            other.want = wanted;
            if other.rule.is_empty() {
                other.rule = rule.to_owned();
            }
            return Ok(());
        }
        if meta.is_dir() {
            self.paths.know(&handle, path);
        }
        let state = known.map_or_else(|| State::of(path, &meta), |known| known.state.clone());
        let watched = Watched { path: path.to_owned(), rule: rule.to_owned(), want: wanted, folder: meta.is_dir(), state, key };
        self.watched.insert(handle, watched);
        Ok(())
    }

    /// Asks for renames and removals on every local file system, where that is wanted.
    fn mark_file_systems(&mut self) {
        let events = self.group.as_ref().map_or(0, |group| group.wanted() & (libc::FAN_RENAME | libc::FAN_DELETE));
        match self.paths.refresh() {
            Ok(systems) => {
                self.report.file_systems.clear();
                let Some(group) = self.group.as_ref().filter(|_| self.everywhere && events != 0) else { return };
                for system in systems {
                    match group.mark_file_system(&system.place, events | libc::FAN_ONDIR) {
                        Ok(()) => self.report.file_systems.push(system.place.to_string_lossy().into_owned()),
                        Err(error) => {
                            self.refused.insert(system.place.clone(), format!("its file system: {error}"));
                        }
                    }
                }
            }
            Err(error) => {
                self.refused.insert(PathBuf::from("/proc/self/mountinfo"), error.to_string());
            }
        }
    }

    /// Says which inode numbers may be watched: words are only ever replaced by ones that have all that is watched now.
    fn set_bits(&mut self, keys: &HashSet<WatchKey>) {
        let mut words = vec![0_u64; WATCH_BITS as usize];
        for key in keys {
            let (word, bit) = watch_bit(key.inode);
            if let Some(word) = words.get_mut(word as usize) {
                *word |= bit;
            }
        }
        for (index, word) in words.into_iter().enumerate() {
            if let Err(error) = self.maps.bits.set(index as u32, word, 0) {
                self.refused.insert(PathBuf::from("/"), format!("the kernel's map cannot be written: {error}"));
                return;
            }
        }
    }

    /// Looks at a record of the kernel's programs: one about a name that came or went may make a look at the list due.
    pub fn notice(&mut self, record: &[u8]) {
        if !is_about_names(record) {
            return;
        }
        if self.stale {
            // Which name it is does not matter any more, but that it may be one of these.
            self.accounts_touched = true;
            return;
        }
        // What is no record is counted by whoever takes it.
        let Ok(Observation { what: What::Act(act), .. }) = project(record) else { return };
        let Act { mut body, in_file_system, .. } = *act;
        if in_file_system {
            complete(&mut body, |device| self.paths.place(device));
        }
        for path in names(&body) {
            self.touched(path);
        }
    }

    /// The list as it is told to whoever takes what is captured; `None` while that is what was told before.
    pub fn changed_list(&mut self) -> Option<WatchList> {
        let mut files: Vec<(u64, u32, u32)> = self
            .watched
            .values()
            .filter_map(|watched| Some((watched.key.inode, watched.key.device, self.rules.place(&watched.rule)?)))
            .collect();
        files.sort_unstable();
        let mut mounts: Vec<(u32, String)> =
            self.paths.places().map(|(device, path)| (device, path.to_string_lossy().into_owned())).collect();
        mounts.sort_unstable();
        let rules = self.rules.iter().map(|rule| rule.text.clone()).collect();
        let list = WatchList { rules, everywhere: self.everywhere, files, mounts };
        if self.told_list.as_ref() == Some(&list) {
            return None;
        }
        self.told_list = Some(list.clone());
        Some(list)
    }

    /// Takes what the kernel gathered of writes: what is settled at `now` (boot clock, nanoseconds), or all of it.
    ///
    /// # Errors
    /// The kernel's map cannot be read.
    pub fn written(&self, now: u64, all: bool) -> io::Result<Vec<(WriteKey, WriteGathered)>> {
        let is_due = |gathered: &WriteGathered| all || gathered.first + SETTLED < now;
        // SAFETY: the types of `WRITES`.
        unsafe { drain::take(&self.maps.writes, WRITES_MAX as usize, is_due) }
    }

    /// Takes what fanotify has to say. `now`: boot clock, nanoseconds. `shed`: leave out what is not watched.
    pub fn take(&mut self, now: u64, shed: bool) -> Told {
        let mut told = Told::default();
        self.born.clear();
        let begun = SystemTime::now();
        for _ in 0..READS {
            let Some(group) = &mut self.group else { break };
            let events = match group.read() {
                Ok([]) => break,
                Ok(bytes) => event::parse(bytes).unwrap_or_else(|events| {
                    told.unreadable += 1;
                    events
                }),
                Err(error) => {
                    tracing::error!(%error, "fanotify cannot be read");
                    told.unreadable += 1;
                    break;
                }
            };
            for event in &events {
                self.tell(event, now, shed, &mut told);
            }
        }
        self.looked = begun;
        told
    }

    fn tell(&mut self, event: &Event, now: u64, shed: bool, told: &mut Told) {
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            told.overflows += 1;
            self.stale = true;
        } else if event.pid != self.own {
            let before = told.deeds.len();
            self.observe(event, now, shed, told);
            // What changed a watched name is watched before the next event is looked at.
            if self.stale && told.deeds.len() > before {
                self.refresh();
            }
        }
    }
}

/// Whether a record may tell of a name that came or went.
fn is_about_names(record: &[u8]) -> bool {
    let kind = record.get(offset_of!(Header, kind)..).and_then(|rest| rest.first_chunk()).map(|chunk| u16::from_ne_bytes(*chunk));
    const KINDS: [Kind; 5] = [Kind::FileOpen, Kind::FileCreate, Kind::FileRename, Kind::FileUnlink, Kind::FileLink];
    kind.is_some_and(|kind| KINDS.iter().any(|known| *known as u16 == kind))
}

/// Names that came or went.
fn names(body: &Body) -> impl Iterator<Item = &str> {
    let (path, old) = match body {
        Body::FileOpen(FileOpen { file, created: Some(true), .. })
        | Body::FileCreate(FileCreate { file, .. })
        | Body::FileLink(FileLink { file, .. })
        | Body::FileUnlink(FileUnlink { file, .. }) => (file.path.as_deref(), None),
        Body::FileRename(FileRename { file, old_path, .. }) => (file.path.as_deref(), old_path.as_deref()),
        _ => (None, None),
    };
    [path, old].into_iter().flatten()
}

/// Paths of the file that `body` is about.
fn about(body: &Body) -> impl Iterator<Item = &str> {
    let (path, old) = match body {
        Body::FileOpen(FileOpen { file, .. })
        | Body::FileCreate(FileCreate { file, .. })
        | Body::FileLink(FileLink { file, .. })
        | Body::FileUnlink(FileUnlink { file, .. })
        | Body::FileAttributes(FileAttributes { file, .. })
        | Body::FileXattr(FileXattr { file, .. }) => (file.path.as_deref(), None),
        Body::FileRename(FileRename { file, old_path, .. }) => (file.path.as_deref(), old_path.as_deref()),
        _ => (None, None),
    };
    [path, old].into_iter().flatten()
}

/// Events to ask for of a file or folder.
fn events(want: u32, folder: bool, wanted: u64) -> u64 {
    use libc::{
        FAN_ATTRIB, FAN_CLOSE_NOWRITE, FAN_CLOSE_WRITE, FAN_CREATE, FAN_DELETE, FAN_DELETE_SELF, FAN_EVENT_ON_CHILD, FAN_MODIFY,
        FAN_MOVE_SELF, FAN_ONDIR, FAN_OPEN, FAN_RENAME,
    };
    let changes = FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB;
    let reads = if want & WANT_READ != 0 { FAN_OPEN | FAN_CLOSE_NOWRITE } else { 0 };
    // What keeps the list right is always asked for.
    match (folder, want & WANT_TREE != 0, want & WANT_ENTRIES != 0) {
        (false, _, _) => (changes | reads) & wanted | FAN_DELETE_SELF | FAN_MOVE_SELF,
        (true, true, _) => {
            (changes | reads | FAN_DELETE) & wanted
                | FAN_CREATE
                | FAN_RENAME
                | FAN_DELETE_SELF
                | FAN_MOVE_SELF
                | FAN_EVENT_ON_CHILD
                | FAN_ONDIR
        }
        (true, false, true) => FAN_DELETE & wanted | FAN_CREATE | FAN_RENAME | FAN_ONDIR,
        (true, false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use bartizan_sensor_ebpf::abi::WANT_CHANGE;

    use super::*;

    #[test]
    fn a_file_whose_readers_are_not_wanted_costs_them_nothing() {
        let changes = events(WANT_CHANGE, false, u64::MAX);
        assert_eq!(changes & (libc::FAN_OPEN | libc::FAN_CLOSE_NOWRITE), 0);
        assert_ne!(events(WANT_CHANGE | WANT_READ, false, u64::MAX) & libc::FAN_OPEN, 0);
        // Nor does a folder that only leads to a watched file, whose children are of no interest.
        assert_eq!(events(WANT_ENTRIES, true, u64::MAX) & libc::FAN_EVENT_ON_CHILD, 0);
    }
}
