//! A log's folder with a segment of any content.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::SyncPolicy;
use crate::error::{OpenError, ReadError};
use crate::log::record::{self, Fields};
use crate::log::sealed::Table;
use crate::log::segment::{Form, encode_header, file_name};
use crate::log::vfs::Disk;
use crate::log::{Log, LogConfig, LogReader, inspect, stream_dir};
use crate::pattern::{Filter, Pattern};
use crate::store::{Hint, Limits, Put, Store, Stored};

const STREAM: &str = "S";
const SUBJECT: &str = "fuzz.appended";
const PAYLOAD: &[u8] = b"acknowledged";
/// Reads of one pass: more than any input has messages and damaged places, so that whoever does not get on is found out.
const MOST: usize = 100_000;

/// The segment is sealed.
const SEALED: u8 = 1;
/// The bytes are a recipe: checksums and lengths are right, what they cover may be nonsense.
const MADE: u8 = 2;
/// `stream.json` is there, from the same boot.
const NOTED: u8 = 4;
/// Each subject keeps two messages.
const PER_SUBJECT: u8 = 8;
/// The stream keeps three messages.
const FEW: u8 = 16;
/// Another, good segment follows.
const FOLLOWED: u8 = 32;
/// First sequence of that segment.
const FOLLOWING: u64 = 5000;

/// A byte of settings, then a segment's bytes or a recipe for them. The log opens and serves what reads; what is appended and acknowledged is
/// there after the next opening, and so is everything that could be read before it, and nothing else; what was cut off or set aside is kept
/// beside the segment as `docs/bus-format.md` says.
pub fn segment(data: &[u8]) {
    let Some((&settings, content)) = data.split_first() else { return };
    let folder = Folder::new();
    let dir = stream_dir(&folder.0, STREAM);
    std::fs::create_dir_all(&dir).expect("a folder");
    let form = if settings & SEALED != 0 { Form::Sealed } else { Form::Raw };
    let bytes = match (settings & MADE != 0, form) {
        (false, _) => content.to_vec(),
        (true, Form::Raw) => made_raw(content),
        (true, Form::Sealed) => made_sealed(content),
    };
    let path = dir.join(file_name(1, form));
    std::fs::write(&path, &bytes).expect("written");
    if settings & FOLLOWED != 0 {
        std::fs::write(dir.join(file_name(FOLLOWING, Form::Raw)), following()).expect("written");
    }
    if settings & NOTED != 0 {
        let notes = br#"{"version":2,"stream":"S","reserved":1048576,"boot_id":"boot","clean_last_seq":null,"gaps":[]}"#;
        std::fs::write(dir.join("stream.json"), notes).expect("written");
    }
    look(&folder.0);
    let limits = Limits {
        max_msgs: (settings & FEW != 0).then_some(3),
        max_msgs_per_subject: (settings & PER_SUBJECT != 0).then_some(2),
        ..Limits::default()
    };
    let log = match open(&dir, limits) {
        Ok(log) => log,
        // A newer format is left alone.
        Err(OpenError::Version { .. }) => {
            assert_eq!(std::fs::read(&path).expect("still there"), bytes);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    kept_beside(&log, &dir, &path, form, &bytes);
    let before = all(&*log);
    // Subjects that a table or an operation names beside its sequences are believed: a start does not look each message up.
    let honest = settings & MADE == 0;
    consistent(&*log, &before, honest);
    if settings & FOLLOWED != 0 && limits == Limits::default() {
        assert!(before.contains_key(&FOLLOWING), "a good segment behind it is served");
    }
    let newest = log.state().last_seq;
    let put = Put { subject: SUBJECT, headers: b"", payload: PAYLOAD, time_ns: 1 };
    let seq = log.append(&[put]).expect("appended");
    log.flush().expect("flushed");
    assert!(seq > newest && log.synced_seq() >= seq, "{seq} behind {newest}");
    let with_it = all(&*log);
    let expected =
        |limited: bool| if limited { with_it.clone() } else { before.iter().map(clone).chain([with_it_entry(&with_it, seq)]).collect() };
    assert_eq!(with_it, expected(limits != Limits::default()));
    is_there(&*log, seq);
    log.compact();
    assert_eq!(all(&*log), with_it, "sealing changes nothing");
    log.close().expect("closed");
    drop(log);

    let log = open(&dir, limits).expect("what was opened once opens again");
    let report = log.report();
    assert_eq!((report.truncated_bytes, report.skipped_sequences, report.set_aside), (0, 0, 0), "{report:?}");
    let after = all(&*log);
    assert_eq!(after, with_it, "what could be read is there again, and nothing else");
    consistent(&*log, &after, honest);
    is_there(&*log, seq);
    log.close().expect("closed");
    drop(log);
    let found = look(&folder.0);
    assert!(found.contains(&seq), "who reads beside the writer finds it too");
}

fn clone<'a>((seq, message): (&'a u64, &'a Stored)) -> (u64, Stored) {
    (*seq, message.clone())
}

fn with_it_entry(with_it: &BTreeMap<u64, Stored>, seq: u64) -> (u64, Stored) {
    (seq, with_it.get(&seq).expect("what was appended is served").clone())
}

fn open(dir: &Path, limits: Limits) -> Result<Arc<Log>, OpenError> {
    let config = LogConfig { sync: SyncPolicy::Always, segment_bytes: 4096, background: false, ..LogConfig::new(STREAM, limits) };
    Log::open_on(Arc::new(Disk), dir, config, "boot")
}

fn is_there(log: &dyn Store, seq: u64) {
    let found = log.get(seq).expect("reads").expect("is there");
    assert_eq!((found.subject(), found.payload()), (SUBJECT, PAYLOAD));
    let filter = Filter::from(SUBJECT.parse::<Pattern>().expect("a pattern"));
    let last = log.last(&filter, u64::MAX);
    // Damage to others of its subject is told, not passed over.
    assert!(matches!(last, Ok(Some(ref last)) if last.seq == seq) || matches!(last, Err(ReadError::Damaged { .. })), "{last:?}");
}

/// All messages that read.
fn all(log: &dyn Store) -> BTreeMap<u64, Stored> {
    let (mut found, mut hint, mut from) = (BTreeMap::new(), Hint::default(), 0);
    for _ in 0..MOST {
        match log.next(from, &Filter::all(), &mut hint) {
            Ok(None) => return found,
            Ok(Some(message)) => {
                assert!(message.seq >= from && message.seq <= log.state().last_seq, "{} from {from}", message.seq);
                from = message.seq + 1;
                found.insert(message.seq, message);
            }
            Err(ReadError::Damaged { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("reading does not come to an end");
}

/// One question's answer agrees with another's.
fn consistent(log: &dyn Store, found: &BTreeMap<u64, Stored>, honest: bool) {
    let state = log.state();
    assert!(found.len() as u64 <= state.messages && state.first_seq <= state.last_seq + 1, "{} of {state:?}", found.len());
    assert_eq!(state.deleted, state.last_seq + 1 - state.first_seq - state.messages);
    for (seq, message) in found.iter().take(20) {
        assert_eq!(log.get(*seq).expect("reads again").as_ref(), Some(message));
        assert!(!honest || log.subject_count(message.subject()) > 0, "{}", message.subject());
    }
    let deleted = log.deleted();
    assert!(deleted.iter().all(|(first, last)| first <= last) && deleted.is_sorted(), "{deleted:?}");
    assert!(deleted.iter().all(|(first, last)| found.range(*first..=*last).next().is_none()), "{deleted:?}");
    let filter = Filter::from("a.*".parse::<Pattern>().expect("a pattern"));
    log.subjects(&filter);
    for time_ns in [i64::MIN, 0, i64::MAX] {
        assert!(log.seq_at(time_ns).is_ok_and(|seq| seq <= state.last_seq + 1) || found.len() as u64 != state.messages);
    }
    // These may meet damage.
    let _ = (log.count(0, &filter), log.last_per_subject(&filter, u64::MAX), log.last(&filter, u64::MAX));
}

/// What recovery took out of the segments is in a file of its own.
fn kept_beside(log: &Log, dir: &Path, path: &Path, form: Form, bytes: &[u8]) {
    let report = log.report();
    if form == Form::Sealed {
        let aside = path.with_added_extension("damaged");
        assert_eq!(report.set_aside, u64::from(aside.exists()));
        assert!(!aside.exists() || std::fs::read(&aside).expect("readable") == bytes);
        assert!(path.exists() != aside.exists());
    } else if report.truncated_bytes > 0 {
        let cut = usize::try_from(report.truncated_bytes).expect("fits");
        let (kept, tail) = bytes.split_at(bytes.len() - cut);
        let torn = std::fs::read(path.with_added_extension("torn")).unwrap_or_default();
        assert!(torn == tail || (torn.is_empty() && tail.iter().all(|byte| *byte == 0)), "{} of {cut} bytes kept", torn.len());
        assert!(kept.is_empty() || std::fs::read(path).is_ok_and(|left| left == kept), "what is whole stays");
    }
    assert!(dir.join("stream.json").exists());
}

/// Everything that needs no writer: inspection and a reader's pass; gives the sequences that were read.
fn look(data_dir: &Path) -> Vec<u64> {
    for deep in [false, true] {
        let found = inspect::inspect(data_dir, STREAM, deep).expect("inspected");
        assert!(found.segments.iter().all(|segment| segment.end_seq >= segment.first_seq));
    }
    let mut reader = LogReader::open_named(data_dir, STREAM).expect("opened");
    let mut found = Vec::new();
    for _ in 0..MOST {
        match reader.next_stored() {
            Ok(Some(message)) => {
                assert!(found.last().is_none_or(|last| *last < message.seq), "{} behind {found:?}", message.seq);
                found.push(message.seq);
            }
            Ok(None) => {
                let _ = (reader.seek_time(0), reader.next_stored(), reader.seek_end());
                return found;
            }
            Err(ReadError::Damaged { .. }) => {}
            Err(ReadError::Version { .. }) => return found,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("reading does not come to an end");
}

/// Takes bytes from the front of a recipe; zeros where it has ended.
struct Recipe<'a>(&'a [u8]);

impl<'a> Recipe<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }
}

/// Records: a byte of flags (of the format; bit 4 damages the record, bit 5 moves its sequence on), lengths of subject, middle and payload,
/// the time in a byte, then what they are the lengths of. What is left of fewer than five bytes stands there as it is.
fn made_raw(recipe: &[u8]) -> Vec<u8> {
    let mut bytes = encode_header(Form::Raw, STREAM, 1).to_vec();
    let mut recipe = Recipe(recipe);
    let mut seq = 1;
    while recipe.0.len() >= 5 {
        let (flags, subject, middle, payload, time) = (recipe.byte(), recipe.byte(), recipe.byte(), recipe.byte(), recipe.byte());
        let (subject, middle, payload) = (recipe.bytes(subject.into()), recipe.bytes(middle.into()), recipe.bytes(payload.into()));
        if flags & 32 != 0 {
            seq += u64::from(time);
        }
        let at = bytes.len();
        let body = subject.len() + middle.len() + payload.len();
        bytes.extend_from_slice(&(24 + body as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&u64::to_le_bytes(seq));
        bytes.extend_from_slice(&i64::from(time as i8).to_le_bytes());
        bytes.extend_from_slice(&u16::from(flags & 15).to_le_bytes());
        bytes.extend_from_slice(&(subject.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(middle.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&[subject, middle, payload].concat());
        let crc = crc32fast::hash(&[&bytes[at..at + 4], &bytes[at + 8..]].concat());
        bytes[at + 4..at + 8].copy_from_slice(&(crc ^ u32::from(flags & 16 != 0)).to_le_bytes());
        seq += u64::from(flags & 8 == 0);
    }
    bytes.extend_from_slice(recipe.0);
    bytes
}

/// A byte of how many blocks there are (three at most; bit 2 damages the last, bit 3 the table); for each, two bytes of its content's length,
/// then first and last sequence, number of messages and the content; the rest is the table of contents, in which places of blocks are set right.
fn made_sealed(recipe: &[u8]) -> Vec<u8> {
    let mut bytes = encode_header(Form::Sealed, STREAM, 1).to_vec();
    let mut recipe = Recipe(recipe);
    let head = recipe.byte();
    let mut places = Vec::new();
    for _ in 0..head & 3 {
        let len = usize::from(u16::from_le_bytes([recipe.byte(), recipe.byte()]));
        let (first, last, count) = (recipe.byte(), recipe.byte(), recipe.byte());
        let content = recipe.bytes(len);
        let compressed = zstd::bulk::compress(content, 1).expect("compressed");
        let at = bytes.len();
        bytes.extend_from_slice(b"BLK2\0\0\0\0");
        bytes.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&u64::from(first).to_le_bytes());
        bytes.extend_from_slice(&u64::from(last).to_le_bytes());
        bytes.extend_from_slice(&u32::from(count).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&compressed);
        let crc = crc32fast::hash(&bytes[at + 8..]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        places.push((at as u64, (bytes.len() - at) as u32));
    }
    if let Some(last) = bytes.last_mut().filter(|_| head & 4 != 0) {
        *last ^= 1;
    }
    let table = match Table::decode(recipe.0, 1) {
        Some(mut table) => {
            table.blocks.iter_mut().zip(&places).for_each(|(block, place)| (block.offset, block.len) = *place);
            table.encode(1).expect("encoded")
        }
        None => recipe.0.to_vec(),
    };
    let compressed = zstd::bulk::compress(&table, 1).expect("compressed");
    let offset = bytes.len() as u64;
    bytes.extend_from_slice(&compressed);
    let mut trailer = offset.to_le_bytes().to_vec();
    trailer.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
    trailer.extend_from_slice(&(table.len() as u32).to_le_bytes());
    trailer.extend_from_slice(&(crc32fast::hash(&compressed) ^ u32::from(head & 8 != 0)).to_le_bytes());
    let crc = crc32fast::hash(&trailer);
    trailer.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&trailer);
    bytes.extend_from_slice(b"BARTZEND");
    bytes
}

fn following() -> Vec<u8> {
    let mut bytes = encode_header(Form::Raw, STREAM, FOLLOWING).to_vec();
    let fields =
        Fields { seq: FOLLOWING, time_ns: 5, subject: "a.following", headers: b"", payload: b"good", continues: false, operation: false };
    record::encode(&fields, &mut bytes);
    bytes
}

/// A folder of its own, in memory where the machine has such a place; gone when this is dropped.
struct Folder(PathBuf);

thread_local! {
    /// Folders that are empty again.
    static NUMBER: RefCell<Option<u64>> = const { RefCell::new(None) };
}

impl Folder {
    fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.with_borrow_mut(|number| *number.get_or_insert_with(|| MADE.fetch_add(1, Ordering::Relaxed)));
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self(parent.join(format!("bartizan-fuzz-{}-{number}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
