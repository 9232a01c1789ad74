//! What must hold while something else is under way: a write, a sync, a note on the log; and behind a damaged block among whole ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::segment::{self, Form};
use super::vfs::{Disk, VFile, Vfs};
use super::{Log, LogConfig, LogReader, lock};
use crate::config::SyncPolicy;
use crate::error::ReadError;
use crate::pattern::Filter;
use crate::store::{Hint, Limits, Put, Store, StoreError};

/// For what must happen but may take as long as a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(200);

/// What waits at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    /// Nobody waits, and writes fail: no room left.
    Full,
    Write,
    Sync,
    /// The file that the log's notes are replaced by.
    Note,
}

#[derive(Debug)]
struct Gate {
    state: Mutex<(Held, bool)>,
    changed: Condvar,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((Held::Nothing, false)), changed: Condvar::new() })
    }

    fn hold(&self, held: Held) {
        *lock(&self.state) = (held, false);
    }

    /// Lets everything through.
    fn open(&self) {
        lock(&self.state).0 = Held::Nothing;
        self.changed.notify_all();
    }

    /// Until somebody stands at the gate.
    fn wait_for_somebody(&self) {
        let (_state, late) =
            self.changed.wait_timeout_while(lock(&self.state), PATIENCE, |(_, arrived)| !*arrived).unwrap_or_else(PoisonError::into_inner);
        assert!(!late.timed_out(), "nobody came to the gate");
    }

    fn pass(&self, what: Held) {
        let mut state = lock(&self.state);
        if state.0 == what {
            state.1 = true;
            self.changed.notify_all();
        }
        drop(self.changed.wait_while(state, |(held, _)| *held == what).unwrap_or_else(PoisonError::into_inner));
    }
}

/// The machine's disk behind a gate.
#[derive(Debug)]
struct Gated(Arc<Gate>);

impl Gated {
    fn file(&self, inner: Arc<dyn VFile>) -> Arc<dyn VFile> {
        Arc::new(GatedFile { inner, gate: Arc::clone(&self.0) })
    }
}

impl Vfs for Gated {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VFile>> {
        Disk.open(path).map(|file| self.file(file))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VFile>> {
        if path.to_string_lossy().contains("stream.json") {
            self.0.pass(Held::Note);
        }
        Disk.create(path).map(|file| self.file(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        Disk.remove_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
    fn modified_ns(&self, path: &Path) -> io::Result<i64> {
        Disk.modified_ns(path)
    }
}

#[derive(Debug)]
struct GatedFile {
    inner: Arc<dyn VFile>,
    gate: Arc<Gate>,
}

impl VFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass(Held::Write);
        if lock(&self.gate.state).0 == Held::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.gate.pass(Held::Sync);
        self.inner.sync()
    }
}

fn open(gate: &Arc<Gate>, dir: &Path, segment_bytes: u64) -> Arc<Log> {
    let config = LogConfig { sync: SyncPolicy::Always, segment_bytes, background: false, ..LogConfig::new("S", Limits::default()) };
    Log::open_on(Arc::new(Gated(Arc::clone(gate))), dir, config, "boot").expect("open")
}

fn append(log: &Log, payload: &[u8]) -> u64 {
    log.append(&[Put { subject: "a.b", headers: b"", payload, time_ns: 1 }]).expect("append")
}

/// Does it on a thread; tells when it is done.
fn aside(log: &Arc<Log>, work: impl FnOnce(&Log) + Send + 'static) -> Receiver<()> {
    let (done, is_done) = channel();
    let log = Arc::clone(log);
    thread::spawn(move || {
        work(&log);
        // The test may have failed already.
        let _ = done.send(());
    });
    is_done
}

/// Sequences that are read, and how often damage was met on the way.
fn read(log: &Log) -> (Vec<u64>, usize) {
    let (mut hint, mut from, mut seqs, mut damage) = (Hint::default(), 1, Vec::new(), 0);
    // More turns than there are messages: one that spins does not get to the end.
    for _ in 0..10_000 {
        match log.next(from, &Filter::all(), &mut hint) {
            Ok(Some(message)) => {
                from = message.seq + 1;
                seqs.push(message.seq);
            }
            Ok(None) => return (seqs, damage),
            Err(ReadError::Damaged { .. }) => damage += 1,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not come to an end: {} messages, {damage} times damage", seqs.len());
}

#[test]
fn a_segment_is_not_sealed_while_its_last_messages_are_written() {
    let (dir, gate) = (tempfile::tempdir().expect("temp folder"), Gate::new());
    let log = open(&gate, dir.path(), 4096);
    append(&log, b"first");
    log.flush().expect("flush");
    append(&log, &[b'x'; 8192]);
    gate.hold(Held::Write);
    // The segment is full with this one: the next has begun already when the write begins.
    let written = aside(&log, |log| log.flush().expect("flush"));
    gate.wait_for_somebody();
    let sealed = aside(&log, Log::rewrite_all);
    sealed.recv_timeout(PATIENCE).expect("there is nothing to seal");
    gate.open();
    written.recv_timeout(PATIENCE).expect("written");
    assert_eq!(read(&log), (vec![1, 2], 0));
    log.rewrite_all();
    assert_eq!(read(&log), (vec![1, 2], 0), "sealed now");
    log.crash();
    drop(log);
    assert_eq!(read(&open(&gate, dir.path(), 4096)), (vec![1, 2], 0), "what was acknowledged is there after a restart");
}

#[test]
fn nothing_is_called_synced_while_its_sync_is_under_way() {
    let (dir, gate) = (tempfile::tempdir().expect("temp folder"), Gate::new());
    let log = open(&gate, dir.path(), 1 << 20);
    append(&log, b"first");
    gate.hold(Held::Sync);
    let first = aside(&log, |log| log.flush().expect("flush"));
    gate.wait_for_somebody();
    let second = aside(&log, |log| log.sync_now().expect("sync"));
    assert!(second.recv_timeout(A_WHILE).is_err(), "it has to wait for the first");
    assert_eq!((log.synced_seq(), log.durable().borrow().acked_seq), (0, 0));
    gate.open();
    first.recv_timeout(PATIENCE).expect("synced");
    second.recv_timeout(PATIENCE).expect("synced, too");
    assert_eq!((log.synced_seq(), log.durable().borrow().acked_seq), (1, 1));
}

#[test]
fn appending_waits_for_a_reservation_without_the_lock() {
    let (dir, gate) = (tempfile::tempdir().expect("temp folder"), Gate::new());
    let log = open(&gate, dir.path(), 1 << 20);
    gate.hold(Held::Note);
    let noting = aside(&log, |log| log.reserve(1 << 30).expect("reserve"));
    gate.wait_for_somebody();
    log.reserved.store(0, std::sync::atomic::Ordering::Release);
    let appended = aside(&log, |log| assert_eq!(append(log, b"first"), 1));
    assert!(appended.recv_timeout(A_WHILE).is_err(), "it has to wait");
    // Whoever notes something needs the lock, too.
    aside(&log, |log| assert_eq!(log.state().messages, 0)).recv_timeout(PATIENCE).expect("nobody holds the lock meanwhile");
    gate.open();
    noting.recv_timeout(PATIENCE).expect("noted");
    appended.recv_timeout(PATIENCE).expect("appended");
}

#[tokio::test]
async fn what_another_failed_to_write_is_not_acknowledged() {
    let (dir, gate) = (tempfile::tempdir().expect("temp folder"), Gate::new());
    let log = open(&gate, dir.path(), 1 << 20);
    gate.hold(Held::Full);
    let seq = append(&log, b"mine");
    assert!(matches!(log.flush(), Err(StoreError::Full { .. })), "another's flush takes it along");
    gate.open();
    assert!(matches!(log.flush_own(seq), Err(StoreError::Full { .. })), "there is nothing left to write, and yet");
    let next = append(&log, b"and again");
    log.flush_own(next).expect("there is room again");
    assert!(matches!(log.wait_synced(seq).await, Err(StoreError::Full { .. })));
    log.wait_synced(next).await.expect("synced");
    assert_eq!(read(&log), (vec![next], 0));
}

#[test]
fn a_damaged_block_among_others_is_met_once() {
    let (dir, gate) = (tempfile::tempdir().expect("temp folder"), Gate::new());
    let folder = super::stream_dir(dir.path(), "S");
    let log = open(&gate, &folder, 2 << 20);
    let mut noise = 1u64;
    for _ in 0..3000 {
        // Nothing that compresses.
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        })
        .take(1000)
        .collect();
        append(&log, &payload);
    }
    log.flush().expect("flush");
    log.rewrite_all();
    log.close().expect("close");
    drop(log);
    let sealed: PathBuf = std::fs::read_dir(&folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.extension().is_some_and(|form| form == "sealed"))
        .expect("a sealed segment");
    let mut bytes = std::fs::read(&sealed).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&sealed, bytes).expect("write");

    let log = open(&gate, &folder, 2 << 20);
    let (seqs, damage) = read(&log);
    assert_eq!(damage, 1);
    let missing = 3000 - seqs.len() as u64;
    assert!((1..1000).contains(&missing), "a block of it: {missing}");
    assert_eq!((seqs.first(), seqs.last()), (Some(&1), Some(&3000)));
    assert_eq!(log.count(1, &Filter::all()).expect("count"), 3000 - missing);
    let gap = (1..=3000).find(|seq| !seqs.contains(seq)).expect("a gap");
    let subject = Filter::from("a.b".parse::<crate::pattern::Pattern>().expect("pattern"));
    for up_to in [gap, gap + missing - 1, 3000] {
        let below = seqs.iter().copied().filter(|seq| *seq <= up_to).max();
        assert_eq!(log.last(&subject, up_to).expect("last").map(|message| message.seq), below);
        assert_eq!(log.last(&Filter::all(), up_to).expect("last").map(|message| message.seq), below);
    }
    log.close().expect("close");

    // Readers of the files read on behind it as well, also where nothing follows the sealed segment.
    for entry in std::fs::read_dir(&folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|form| form == "seg") {
            std::fs::remove_file(path).expect("remove");
        }
    }
    let mut reader = LogReader::open_named(dir.path(), "S").expect("open");
    let (mut found, mut damage) = (Vec::new(), 0);
    loop {
        match reader.next_stored() {
            Ok(Some(message)) => found.push(message.seq),
            Ok(None) => break,
            Err(ReadError::Damaged { .. }) => damage += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let sealed: Vec<u64> = seqs.into_iter().take(found.len()).collect();
    assert_eq!((found.last() > Some(&(gap + missing)), damage), (true, 1));
    assert_eq!((found, reader.skipped()), (sealed, missing));
}

#[test]
fn readers_of_the_last_segment_read_on_behind_damage() {
    let (dir, gate) = (tempfile::tempdir().expect("temp folder"), Gate::new());
    let folder = super::stream_dir(dir.path(), "S");
    let log = open(&gate, &folder, 1 << 20);
    for _ in 0..100 {
        append(&log, &[b'x'; 100]);
    }
    log.flush().expect("flush");
    let mut reader = LogReader::open_named(dir.path(), "S").expect("open");
    let file = folder.join(segment::file_name(1, Form::Raw));
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&file, &bytes).expect("write");
    let mut left = || {
        let (mut seqs, mut damage) = (Vec::new(), 0);
        loop {
            match reader.next_stored() {
                Ok(Some(message)) => seqs.push(message.seq),
                Ok(None) => return (seqs, damage),
                Err(ReadError::Damaged { .. }) => damage += 1,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (seqs, damage) = left();
    assert_eq!((seqs.len(), damage, seqs.last()), (99, 1, Some(&100)));
    // And follows what comes.
    append(&log, b"later");
    log.flush().expect("flush");
    assert_eq!(left(), (vec![101], 0));
}
