//! A disk that fills up, fails and forgets, and a log on it: whatever the seed makes happen, what was acknowledged is there, what was
//! deleted and acknowledged stays gone, and nothing is there that nobody appended.
//!
//! `BARTIZAN_SIM_SEED=<seed> cargo test -p bartizan-bus --lib log::sim` runs one seed again; `BARTIZAN_SIM_SEEDS=<n>` runs more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::vfs::{VFile, Vfs};
use super::{Log, LogConfig, lock};
use crate::config::SyncPolicy;
use crate::pattern::{Filter, Pattern};
use crate::store::{Hint, Limits, Purge, Put, Store};

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => {
            let end = *offset as usize + bytes.len();
            content.resize(content.len().max(end), 0);
            content[*offset as usize..end].copy_from_slice(bytes);
        }
        Change::Len(len) => content.resize(*len as usize, 0),
    }
}

#[derive(Debug, Default)]
struct Node {
    content: Vec<u8>,
    on_disk: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    entries: BTreeMap<PathBuf, usize>,
    entries_on_disk: BTreeMap<PathBuf, usize>,
    /// So many writes, creations or syncs from now the disk fails, this way.
    fail_in: Option<(u64, io::ErrorKind)>,
    random: u64,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: usize,
}

impl State {
    /// Whether this operation fails.
    fn fails(&mut self) -> io::Result<()> {
        match &mut self.fail_in {
            Some((0, kind)) => {
                let kind = *kind;
                // A full disk stays full for a moment; one that fails does so for good.
                self.fail_in = (kind != io::ErrorKind::StorageFull).then_some((0, kind));
                Err(kind.into())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl SimDisk {
    /// The power fails: of what was not synced, some is on disk and some is not, in no order.
    fn power_cut(&self, random: &mut Random) {
        let mut state = lock(&self.0);
        state.fail_in = None;
        for node in &mut state.nodes {
            let mut content = node.on_disk.clone();
            let keep_all = random.chance(4);
            for change in &node.unsynced {
                match change {
                    Change::Write(offset, bytes) if !keep_all && random.chance(2) => {
                        // A part of it, from its beginning.
                        let part = random.below(bytes.len() as u64 + 1) as usize;
                        apply(&mut content, &Change::Write(*offset, bytes[..part].to_vec()));
                    }
                    change if keep_all || random.chance(2) => apply(&mut content, change),
                    _ => {}
                }
            }
            node.content.clone_from(&content);
            node.on_disk = content;
            node.unsynced.clear();
        }
        // Names that were not synced: all of them, or none.
        if random.chance(2) {
            state.entries = state.entries_on_disk.clone();
        } else {
            state.entries_on_disk = state.entries.clone();
        }
    }

    /// The process dies: what it wrote is in the page cache, and stays.
    fn kill(&self) {
        lock(&self.0).fail_in = None;
    }
}

impl Vfs for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = lock(&self.0);
        let names =
            state.entries.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VFile>> {
        let node = *lock(&self.0).entries.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), node }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VFile>> {
        let mut state = lock(&self.0);
        state.fails()?;
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.entries.insert(path.to_owned(), node);
        Ok(Arc::new(SimFile { disk: self.clone(), node }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        let node = state.entries.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.entries.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).entries.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        lock(&self.0).entries.retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.fails()?;
        state.entries_on_disk = state.entries.clone();
        Ok(())
    }

    fn modified_ns(&self, _: &Path) -> io::Result<i64> {
        Ok(0)
    }
}

impl VFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = lock(&self.disk.0);
        let content = &state.nodes[self.node].content;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let len = buffer.len().min(content.len() - from);
        buffer[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        let failed = state.fails();
        state.random = state.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // A write that fails may have written a part.
        let part = if failed.is_ok() { bytes.len() } else { (state.random >> 33) as usize % (bytes.len() + 1) };
        let change = Change::Write(offset, bytes[..part].to_vec());
        let node = &mut state.nodes[self.node];
        apply(&mut node.content, &change);
        node.unsynced.push(change);
        failed
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        let node = &mut state.nodes[self.node];
        apply(&mut node.content, &Change::Len(len));
        node.unsynced.push(Change::Len(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.disk.0).nodes[self.node].content.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        state.fails()?;
        let node = &mut state.nodes[self.node];
        node.on_disk = node.content.clone();
        node.unsynced.clear();
        Ok(())
    }
}

type Message = (String, Vec<u8>);

/// What must and what may be in the log.
#[derive(Debug, Default)]
struct Model {
    /// Held, as far as the log said.
    live: BTreeMap<u64, Message>,
    /// Acknowledged: synced.
    acked_seq: u64,
    /// Deleted, and not acknowledged yet: after a power cut it may be back.
    deleting: BTreeMap<u64, Message>,
    /// Deleted and acknowledged.
    deleted: BTreeSet<u64>,
    highest: u64,
}

impl Model {
    fn delete(&mut self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            if let Some(message) = self.live.remove(&seq) {
                self.deleting.insert(seq, message);
            }
        }
    }

    fn enforce(&mut self, limits: Limits) {
        if let Some(max) = limits.max_msgs_per_subject {
            let mut of: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            self.live.iter().for_each(|(seq, (subject, _))| of.entry(subject).or_default().push(*seq));
            let beyond: Vec<u64> = of.values().flat_map(|seqs| seqs[..seqs.len().saturating_sub(max as usize)].to_vec()).collect();
            self.delete(beyond);
        }
        if let Some(max) = limits.max_msgs {
            let beyond: Vec<u64> = self.live.keys().copied().take(self.live.len().saturating_sub(max as usize)).collect();
            self.delete(beyond);
        }
    }

    /// Everything so far is acknowledged.
    fn acknowledge(&mut self) {
        // Sequences of what was refused are nobody's: after a kill they may be used.
        self.acked_seq = self.acked_seq.max(self.live.keys().next_back().copied().unwrap_or(0));
        self.deleted.extend(std::mem::take(&mut self.deleting).into_keys());
    }
}

struct World {
    seed: u64,
    random: Random,
    disk: SimDisk,
    boot: u64,
    limits: Limits,
    segment_bytes: u64,
    log: Option<Arc<Log>>,
    model: Model,
    verbose: bool,
}

const SUBJECTS: [&str; 4] = ["a", "a.b", "c", "d.e.f"];

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let some = |random: &mut Random, max| (random.chance(3)).then(|| 1 + random.below(max));
        let limits = Limits { max_msgs_per_subject: some(&mut random, 4), max_msgs: some(&mut random, 20), ..Limits::default() };
        let segment_bytes = [300, 2000, 1 << 20][random.below(3) as usize];
        let mut world = Self {
            seed,
            random,
            disk: SimDisk::default(),
            boot: 1,
            limits,
            segment_bytes,
            log: None,
            model: Model::default(),
            verbose: false,
        };
        world.verbose = std::env::var_os("BARTIZAN_SIM_SEED").is_some();
        world.open();
        world
    }

    fn open(&mut self) {
        let config = LogConfig {
            sync: SyncPolicy::Always,
            segment_bytes: self.segment_bytes,
            background: false,
            compression: Some(1),
            ..LogConfig::new("S", self.limits)
        };
        let log = Log::open_on(Arc::new(self.disk.clone()), Path::new("/log"), config, &format!("boot {}", self.boot));
        self.log = Some(log.unwrap_or_else(|error| panic!("seed {}: cannot open: {error}", self.seed)));
        self.check_after_open();
    }

    fn log(&self) -> &Arc<Log> {
        self.log.as_ref().expect("open")
    }

    fn held(&self) -> BTreeMap<u64, Message> {
        let (log, mut hint) = (self.log(), Hint::default());
        let (mut held, mut from) = (BTreeMap::new(), 1);
        loop {
            match log.next(from, &Filter::all(), &mut hint) {
                Ok(Some(message)) => {
                    from = message.seq + 1;
                    held.insert(message.seq, (message.subject().to_owned(), message.payload().to_vec()));
                }
                Ok(None) => return held,
                Err(error) => panic!("seed {}: {error}", self.seed),
            }
        }
    }

    fn check_after_open(&mut self) {
        let (seed, held) = (self.seed, self.held());
        for (seq, message) in &self.model.live {
            if *seq <= self.model.acked_seq {
                assert_eq!(held.get(seq), Some(message), "seed {seed}: message {seq} was acknowledged and is not there as it was");
            }
        }
        for (seq, message) in &held {
            assert!(!self.model.deleted.contains(seq), "seed {seed}: message {seq} was deleted and acknowledged, and is back");
            let known = self.model.live.get(seq).or_else(|| self.model.deleting.get(seq));
            assert_eq!(known, Some(message), "seed {seed}: message {seq} was never appended like this");
        }
        let state = self.log().state();
        assert_eq!(state.messages, held.len() as u64, "seed {seed}: the count is wrong");
        assert!(state.last_seq >= self.model.acked_seq, "seed {seed}: the log ends before what it acknowledged");
        // What is there now is what there is; what is gone stays gone.
        let gone = self.model.live.keys().chain(self.model.deleting.keys()).filter(|seq| !held.contains_key(seq)).copied();
        self.model.deleted.extend(gone.collect::<Vec<_>>());
        // What never left the process took no sequence.
        self.model.deleted.retain(|seq| *seq <= state.last_seq);
        self.model.live = held;
        self.model.deleting.clear();
        self.model.highest = state.last_seq;
        self.model.acked_seq = state.last_seq;
    }

    fn append(&mut self) {
        let count = 1 + self.random.below(4);
        let batch: Vec<Message> = (0..count)
            .map(|_| {
                let subject = SUBJECTS[self.random.below(SUBJECTS.len() as u64) as usize];
                let len = self.random.below(120) as usize;
                (subject.to_owned(), (0..len).map(|_| self.random.next() as u8).collect())
            })
            .collect();
        let puts: Vec<Put<'_>> = batch.iter().map(|(subject, payload)| Put { subject, headers: b"", payload, time_ns: 1 }).collect();
        let Ok(first) = self.log().append(&puts) else { return };
        assert!(first > self.model.highest, "seed {}: sequence {first} was used before", self.seed);
        self.model.highest = first + count - 1;
        for (n, message) in batch.into_iter().enumerate() {
            self.model.live.insert(first + n as u64, message);
            self.model.enforce(self.limits);
        }
    }

    fn flush(&mut self) {
        match self.log().flush() {
            Ok(()) => self.model.acknowledge(),
            Err(_) => {
                // What was appended and not acknowledged may be there or not.
                let lost: Vec<u64> =
                    self.model.live.range(self.model.acked_seq + 1..).map(|(seq, _)| *seq).filter(|seq| self.log().lost(*seq)).collect();
                self.model.delete(lost);
                if self.log().failed().is_some() {
                    self.restart(false);
                }
            }
        }
    }

    fn restart(&mut self, power_cut: bool) {
        if let Some(log) = self.log.take() {
            log.crash();
        }
        if power_cut {
            self.disk.power_cut(&mut self.random);
            self.boot += 1;
        } else {
            self.disk.kill();
        }
        self.open();
    }

    fn step(&mut self) {
        let what = self.random.below(20);
        if self.verbose {
            let Model { live, acked_seq, deleting, highest, .. } = &self.model;
            let entries: Vec<_> = lock(&self.disk.0).entries.keys().map(|path| path.display().to_string()).collect();
            eprintln!(
                "step {what}: live {:?}, acked {acked_seq}, deleting {:?}, highest {highest}, {entries:?}",
                live.keys(),
                deleting.keys()
            );
        }
        match what {
            0..=7 => self.append(),
            8..=11 => self.flush(),
            12 => {
                let seqs: Vec<u64> = (0..3).map(|_| self.model.highest.saturating_sub(self.random.below(30))).collect();
                if self.log().delete(&seqs).is_ok() {
                    self.model.delete(seqs);
                }
            }
            13 => {
                let below = self.random.chance(2).then(|| self.model.highest.saturating_sub(self.random.below(20)));
                let subject = SUBJECTS[self.random.below(4) as usize];
                let filter = if self.random.chance(3) { Filter::all() } else { subject.parse::<Pattern>().expect("a pattern").into() };
                let gone: Vec<u64> = self
                    .model
                    .live
                    .iter()
                    .filter(|(seq, (subject, _))| below.is_none_or(|below| **seq < below) && filter.matches(subject))
                    .map(|(seq, _)| *seq)
                    .collect();
                let last = gone.last().copied();
                if self.log().purge(&Purge { filter, below, keep: 0 }).is_ok() {
                    self.model.delete(gone);
                } else if last.is_some() {
                    self.restart(false);
                }
            }
            14 => {
                self.flush();
                self.log().compact();
            }
            15 => {
                // Closing syncs everything.
                if self.log().close().is_ok() {
                    self.model.acknowledge();
                }
                self.log = None;
                self.disk.kill();
                self.open();
            }
            16 => self.restart(false),
            17 | 18 => self.restart(true),
            _ => {
                let kind = if self.random.chance(2) { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                lock(&self.disk.0).fail_in = Some((self.random.below(6), kind));
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let steps = 20 + world.random.below(60);
    for _ in 0..steps {
        world.step();
    }
    world.restart(true);
}

#[test]
fn nothing_acknowledged_is_lost_whatever_the_disk_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("BARTIZAN_SIM_SEED") {
        return run(seed);
    }
    for seed in 0..number("BARTIZAN_SIM_SEEDS").unwrap_or(3000) {
        run(seed);
    }
}
