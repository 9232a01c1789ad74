//! What the executables that run here contain: SHA-256 by file, worked out once and off the hot path.
//!
//! Invariants worth naming:
//!
//! - **Never another file's hash.** A file is named by inode, change time, size and (where the file system lets it be compared) device, as the
//!   kernel had them at the exec. What is opened later is hashed only when it has the same, before and after it was read ([`file`]).
//! - **Nobody waits for it.** An exec whose file is not known goes out without a hash, and `process.hash` tells it when it is there.
//! - **Bounded.** Files that are remembered, files that wait, processes that are told of one file, bytes of one file and bytes a second all have
//!   a limit. What is left out because of one is counted, and asked for again by the next exec of the file.

pub mod file;
pub mod worker;

use std::collections::{HashMap, VecDeque};

use bartizan_bus::event::ExecId;

/// Files whose hash is remembered, at most; the oldest make room. 200 bytes each.
const REMEMBERED: usize = 16_384;

/// Files that wait for their hash, at most.
pub const WAITING: usize = 1024;

/// Processes that are told of one file, at most.
const TOLD: usize = 16;

/// Names contents: a file that is written to, or replaced, has another id. Whoever can set the clock back and write to the raw disk can
/// forge one. So has a file whose links or mode change: a program that is deleted right after its exec may be gone, to this, before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// `s_dev` of its file system, the kernel's `MKDEV` form.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// Change time: seconds since 1970, nanoseconds.
    pub changed: (i64, u32),
    /// Bytes.
    pub size: u64,
}

/// A file that is to be hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub file: FileId,
    /// `s_magic` of its file system; 0 where it is not known.
    pub magic: u32,
    /// Who runs it.
    pub pid: u32,
    /// Whose child that is: it may see the file where the process is gone already.
    pub ppid: Option<u32>,
    /// Path in the process's mount tree.
    pub path: String,
}

/// Why a file has no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unhashed {
    /// It has more bytes than the limit.
    TooLarge,
    /// It is there no more, is another one by now, cannot be read, or is served by a program that may never answer.
    Unreachable,
}

/// What became of a wanted file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub file: FileId,
    /// SHA-256, hex.
    pub result: Result<String, Unhashed>,
}

/// A file that was asked for.
#[derive(Debug)]
struct Waiting {
    /// Processes that will be told.
    told: Vec<ExecId>,
    /// How it is looked for now.
    wanted: Wanted,
    /// Of the processes, how many were asked for it: each may have ended before its turn.
    asked: usize,
}

/// What is known of executables.
#[derive(Debug, Default)]
pub struct Hashes {
    /// Something takes what is wanted.
    on: bool,
    /// `None` for a file that is too large.
    known: HashMap<FileId, Option<String>>,
    /// In the order of their arrival.
    order: VecDeque<FileId>,
    /// Files that were asked for.
    waiting: HashMap<FileId, Waiting>,
    wanted: Vec<Wanted>,
    counts: HashCounts,
}

/// Numbers for the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HashCounts {
    /// Files hashed since the start.
    pub hashed: u64,
    /// Files that were too large.
    pub too_large: u64,
    /// Files that could not be reached any more.
    pub unreachable: u64,
    /// Files that were not asked for, because too many waited.
    pub full: u64,
    /// Files that wait now.
    pub waiting: u64,
    /// Files that are remembered now.
    pub remembered: u64,
}

impl Hashes {
    /// Nothing known. `on`: what is wanted will be taken.
    pub fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// The hash of the file that `process` runs, if it is known; else it is wanted, and the process will be told.
    pub fn look(&mut self, process: ExecId, wanted: impl FnOnce() -> Wanted, file: FileId) -> Option<String> {
        if !self.on {
            return None;
        }
        if let Some(known) = self.known.get(&file) {
            return known.clone();
        }
        if let Some(Waiting { told, .. }) = self.waiting.get_mut(&file) {
            if told.len() < TOLD {
                told.push(process);
            }
            return None;
        }
        if self.waiting.len() >= WAITING {
            self.counts.full += 1;
            return None;
        }
        let wanted = wanted();
        self.wanted.push(wanted.clone());
        self.waiting.insert(file, Waiting { told: vec![process], wanted, asked: 1 });
        None
    }

    /// What was wanted since the last call.
    pub fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.wanted)
    }

    /// Remembers an answer. Returns the processes that are to be told, none where the next exec is to ask again.
    pub fn answer(&mut self, answer: &Answer) -> Vec<ExecId> {
        if answer.result == Err(Unhashed::Unreachable)
            && let Some(Waiting { told, wanted, asked }) = self.waiting.get_mut(&answer.file)
            && let Some(next) = told.get(*asked)
        {
            // A file without a name is found by who runs it alone, and who was asked has ended.
            *asked += 1;
            *wanted = Wanted { pid: next.pid, ppid: None, ..wanted.clone() };
            self.wanted.push(wanted.clone());
            return Vec::new();
        }
        let told = self.waiting.remove(&answer.file).map(|waiting| waiting.told).unwrap_or_default();
        let known = match &answer.result {
            Ok(hash) => {
                self.counts.hashed += 1;
                Some(hash.clone())
            }
            Err(Unhashed::TooLarge) => {
                self.counts.too_large += 1;
                None
            }
            Err(Unhashed::Unreachable) => {
                self.counts.unreachable += 1;
                return Vec::new();
            }
        };
        if self.known.insert(answer.file, known).is_none() {
            self.order.push_back(answer.file);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        told
    }

    /// Numbers now.
    pub fn counts(&self) -> HashCounts {
        HashCounts { waiting: self.waiting.len() as u64, remembered: self.known.len() as u64, ..self.counts }
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::BootId;

    use super::*;

    fn process(pid: u32) -> ExecId {
        ExecId { boot: BootId(1), start_ns: 1, pid, exec: 1 }
    }

    fn id(inode: u64) -> FileId {
        FileId { device: 1, inode, changed: (5, 6), size: 7 }
    }

    fn look(hashes: &mut Hashes, pid: u32, file: FileId) -> Option<String> {
        let wanted = || Wanted { file, magic: 0, pid, ppid: None, path: "/x".into() };
        hashes.look(process(pid), wanted, file)
    }

    #[test]
    fn a_file_is_asked_for_once_and_then_known() {
        let mut hashes = Hashes::new(true);
        assert_eq!((look(&mut hashes, 1, id(1)), look(&mut hashes, 2, id(1))), (None, None));
        assert_eq!(hashes.take_wanted().len(), 1);
        let told = hashes.answer(&Answer { file: id(1), result: Ok("ab".into()) });
        assert_eq!(told, [process(1), process(2)]);
        assert_eq!(look(&mut hashes, 3, id(1)).as_deref(), Some("ab"));
        let changed = FileId { changed: (5, 7), ..id(1) };
        assert_eq!(look(&mut hashes, 3, changed), None, "a changed file is another one");
        assert_eq!(hashes.take_wanted().len(), 1);
    }

    #[test]
    fn what_could_not_be_reached_is_asked_for_again_and_what_is_too_large_is_not() {
        let mut hashes = Hashes::new(true);
        for (file, result, again) in [(id(1), Unhashed::Unreachable, 1), (id(2), Unhashed::TooLarge, 0)] {
            look(&mut hashes, 1, file);
            hashes.take_wanted();
            let told = hashes.answer(&Answer { file, result: Err(result) });
            assert_eq!(told.len(), 1 - again, "only what will not change is told");
            look(&mut hashes, 1, file);
            assert_eq!(hashes.take_wanted().len(), again);
        }
        let counts = hashes.counts();
        assert_eq!((counts.hashed, counts.unreachable, counts.too_large), (0, 1, 1));
    }

    #[test]
    fn nothing_grows_without_a_bound() {
        let mut hashes = Hashes::new(true);
        for inode in 0..WAITING as u64 + 5 {
            look(&mut hashes, 1, id(inode));
        }
        assert_eq!((hashes.counts().full, hashes.take_wanted().len()), (5, WAITING));
        for pid in 0..100 {
            look(&mut hashes, pid, id(0));
        }
        assert_eq!(hashes.answer(&Answer { file: id(0), result: Ok("x".into()) }).len(), TOLD);
        for inode in 0..REMEMBERED as u64 + 9 {
            hashes.answer(&Answer { file: id(inode), result: Ok("x".into()) });
        }
        assert_eq!(hashes.counts().remembered, REMEMBERED as u64);
        assert_eq!(hashes.order.len(), REMEMBERED);
    }

    #[test]
    fn turned_off_nothing_is_wanted() {
        let mut hashes = Hashes::new(false);
        assert_eq!(look(&mut hashes, 1, id(1)), None);
        assert_eq!((hashes.take_wanted(), hashes.counts()), (Vec::new(), HashCounts::default()));
    }

    #[test]
    fn a_file_that_one_process_does_not_lead_to_is_looked_for_by_the_next() {
        let mut hashes = Hashes::new(true);
        for pid in [1, 2] {
            look(&mut hashes, pid, id(1));
        }
        assert_eq!(hashes.take_wanted().iter().map(|wanted| wanted.pid).collect::<Vec<_>>(), [1]);
        let gone = Answer { file: id(1), result: Err(Unhashed::Unreachable) };
        assert_eq!(hashes.answer(&gone), []);
        assert_eq!(hashes.take_wanted().iter().map(|wanted| wanted.pid).collect::<Vec<_>>(), [2]);
        assert_eq!(hashes.answer(&Answer { file: id(1), result: Ok("ab".into()) }), [process(1), process(2)]);
        // Nobody leads to it: the next exec asks again.
        look(&mut hashes, 3, id(2));
        hashes.take_wanted();
        assert_eq!(
            (hashes.answer(&Answer { file: id(2), ..gone }), hashes.take_wanted().len(), hashes.counts().unreachable),
            (Vec::new(), 0, 1)
        );
        assert_eq!(hashes.counts().waiting, 0);
    }
}
