//! What a stream is kept in: [`Store`], one log of messages with everything that JetStream asks of it.
//!
//! Two things implement it: `log::Log`, segments on disk, and [`MemoryStore`], a map that serves streams with memory storage
//! and is the model that the log is tested against.
//!
//! Invariants worth naming:
//!
//! - **Sequences start at 1, grow by one and are never reused**, also across deletion, purge and restart. After an unclean end they may skip.
//! - **A batch is stored as a whole or not at all.**
//! - **What `append` gave a sequence to is visible to readers at once**, survives a kill of the process once `flush` returned, and a
//!   power cut once [`Store::synced_seq`] has reached it.
//! - **Clocks are passed in.**

mod memory;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::error::ReadError;
use crate::pattern::Filter;
pub use memory::MemoryStore;

/// A message to append.
#[derive(Debug, Clone, Copy)]
pub struct Put<'a> {
    /// A concrete subject.
    pub subject: &'a str,
    /// NATS header block, from `NATS/1.0` to the blank line; empty for none.
    pub headers: &'a [u8],
    /// The content.
    pub payload: &'a [u8],
    /// Unix time in nanoseconds.
    pub time_ns: i64,
}

/// A message in a store. Cloning copies no content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence.
    pub seq: u64,
    /// Unix time in nanoseconds.
    pub time_ns: i64,
    subject: Bytes,
    /// Headers and payload, one behind the other.
    body: Bytes,
    headers_len: u32,
}

impl Stored {
    /// From its parts; `body` is the headers, then the payload. `None` where the lengths do not fit or the subject is no UTF-8.
    pub fn from_parts(seq: u64, time_ns: i64, subject: Bytes, body: Bytes, headers_len: usize) -> Option<Self> {
        let fits = headers_len <= body.len() && std::str::from_utf8(&subject).is_ok();
        fits.then_some(Self { seq, time_ns, subject, body, headers_len: u32::try_from(headers_len).ok()? })
    }

    /// Copies the parts together.
    pub fn copy_of(seq: u64, put: &Put<'_>) -> Self {
        let Put { subject, headers, payload, time_ns } = *put;
        let (subject, body) = (Bytes::copy_from_slice(subject.as_bytes()), [headers, payload].concat().into());
        Self { seq, time_ns, subject, body, headers_len: headers.len() as u32 }
    }

    /// Its subject.
    pub fn subject(&self) -> &str {
        // Checked when it was made; an empty subject would only match nothing.
        std::str::from_utf8(&self.subject).unwrap_or_default()
    }

    /// Its header block; empty for none.
    pub fn headers(&self) -> &[u8] {
        &self.body[..self.headers_len as usize]
    }

    /// Its content.
    pub fn payload(&self) -> &[u8] {
        &self.body[self.headers_len as usize..]
    }

    /// Its content, shared.
    pub fn payload_bytes(&self) -> Bytes {
        self.body.slice(self.headers_len as usize..)
    }

    /// What it counts against byte limits: subject, headers and payload and [`MESSAGE_OVERHEAD`].
    pub fn size(&self) -> u64 {
        (self.subject.len() + self.body.len()) as u64 + MESSAGE_OVERHEAD
    }
}

/// What a message counts against byte limits beyond its subject, headers and payload: 22 bytes of fixed record and 8 of checksum in
/// nats-server's file store, <https://github.com/nats-io/nats-server/blob/v2.14.5/server/filestore.go> `fileStoreMsgSizeRaw`.
pub const MESSAGE_OVERHEAD: u64 = 30;

/// What is kept. Each limit deletes the oldest messages beyond it; refusing new ones instead is the caller's business.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// At most so many messages.
    pub max_msgs: Option<u64>,
    /// At most so many bytes ([`Stored::size`]).
    pub max_bytes: Option<u64>,
    /// Nothing older than this.
    pub max_age: Option<Duration>,
    /// At most so many messages of one subject.
    pub max_msgs_per_subject: Option<u64>,
}

/// A store's state in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// Messages held.
    pub messages: u64,
    /// Their size ([`Stored::size`]).
    pub bytes: u64,
    /// Sequence of the oldest message; one more than `last_seq` when there is none.
    pub first_seq: u64,
    /// Time of the oldest message, Unix ns; 0 when there is none.
    pub first_time_ns: i64,
    /// Newest sequence ever given.
    pub last_seq: u64,
    /// Time of the message that had it, Unix ns; 0 before the first one.
    pub last_time_ns: i64,
    /// Sequences between `first_seq` and `last_seq` that have no message.
    pub deleted: u64,
    /// Distinct subjects held.
    pub subjects: u64,
    /// Grows whenever a message is removed, for whatever reason. Whoever counts messages counts again when it has moved.
    pub removals: u64,
}

/// How far the store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// Everything up to this sequence is as safe as the store's sync policy demands before an acknowledgement: written with `os` and
    /// `interval`, synced with `always`.
    pub acked_seq: u64,
    /// It will not move any more: the store was closed or has failed.
    pub ended: bool,
}

/// What to purge.
#[derive(Debug, Clone, Default)]
pub struct Purge {
    /// Only these subjects.
    pub filter: Filter,
    /// Only sequences below this one.
    pub below: Option<u64>,
    /// Keep the newest so many of what would go.
    pub keep: u64,
}

/// Something the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk (or quota) is full. Nothing was stored; the store stays usable.
    #[error("no room left for {path}: {source}; free disk space or lower the stream's max_bytes", path = path.display())]
    Full {
        /// What was written.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than a store accepts.
    #[error("{what} has {bytes} bytes, and the limit is {max}: split it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The disk failed. After a failed sync the store accepts nothing more until it is opened again.
    #[error("cannot {action} {path}: {source}; check the disk, then restart", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store was closed.
    #[error("the stream is closed")]
    Closed,
    /// Bytes that do not read back.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Belongs to one reader of one store, which may keep in it where the reader is.
#[derive(Debug, Default)]
pub struct Hint(());

/// One stream's messages. All methods take `&self` and may be called from any thread; none of them waits for a sync, except those that say so.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Appends all messages with consecutive sequences, or none, and gives the first one's; then deletes what is beyond the limits
    /// (`max_age` apart). What it gave sequences to is visible at once, and may wait in memory for [`Store::flush`].
    ///
    /// # Errors
    /// [`StoreError`]: nothing was stored.
    fn append(&self, batch: &[Put<'_>]) -> Result<u64, StoreError>;

    /// Hands everything appended to the operating system (from then on it survives a kill of the process), and asks for a sync where
    /// the policy is `always`. Cheap when there is nothing to write.
    ///
    /// # Errors
    /// [`StoreError`]: what was appended and not flushed is gone again, as if it had never been, and its sequences will not be reused.
    fn flush(&self) -> Result<(), StoreError>;

    /// What publishers wait for.
    fn durable(&self) -> watch::Receiver<Durable>;

    /// Whether the message that was appended under this sequence is gone because it could not be written: a publisher that waits for
    /// [`Durable::acked_seq`] asks this before it acknowledges.
    fn lost(&self, seq: u64) -> bool {
        let _ = seq;
        false
    }

    /// Everything up to this sequence is on disk. For memory: appended.
    fn synced_seq(&self) -> u64;

    /// The state in numbers. Cheap.
    fn state(&self) -> State;

    /// One message; `None` where there is none.
    ///
    /// # Errors
    /// Its bytes do not read back.
    fn get(&self, seq: u64) -> Result<Option<Stored>, ReadError>;

    /// The first message at or behind `from` that passes the filter.
    ///
    /// # Errors
    /// Bytes do not read back; [`ReadError::Damaged`] once per damaged place for one hint, and the next call goes on behind it.
    fn next(&self, from: u64, filter: &Filter, hint: &mut Hint) -> Result<Option<Stored>, ReadError>;

    /// The newest message that passes the filter and has a sequence of at most `up_to`.
    ///
    /// # Errors
    /// Bytes do not read back.
    fn last(&self, filter: &Filter, up_to: u64) -> Result<Option<Stored>, ReadError>;

    /// For each subject that passes the filter, the newest sequence of at most `up_to`; ascending.
    ///
    /// # Errors
    /// Bytes do not read back.
    fn last_per_subject(&self, filter: &Filter, up_to: u64) -> Result<Vec<u64>, ReadError>;

    /// How many messages at or behind `from` pass the filter.
    ///
    /// # Errors
    /// Bytes do not read back.
    fn count(&self, from: u64, filter: &Filter) -> Result<u64, ReadError>;

    /// Subjects that pass the filter, with how many messages each has; in order of the subject.
    fn subjects(&self, filter: &Filter) -> Vec<(String, u64)>;

    /// How many messages this one subject has. Cheap.
    fn subject_count(&self, subject: &str) -> u64;

    /// The first sequence whose message has this or a later time; one more than the last sequence when there is none.
    ///
    /// # Errors
    /// Bytes do not read back.
    fn seq_at(&self, time_ns: i64) -> Result<u64, ReadError>;

    /// Ranges (first, last) of sequences between the first and the last that have no message; ascending.
    fn deleted(&self) -> Vec<(u64, u64)>;

    /// Deletes these messages for ever; gives how many there were. Durable as an append is, with the next [`Store::flush`].
    ///
    /// # Errors
    /// [`StoreError`]: nothing was deleted.
    fn delete(&self, seqs: &[u64]) -> Result<u64, StoreError>;

    /// Deletes what `purge` says; gives how many there were. Durable as [`Store::delete`] is.
    ///
    /// # Errors
    /// [`StoreError`]: nothing, or not everything, was deleted.
    fn purge(&self, purge: &Purge) -> Result<u64, StoreError>;

    /// Changes the limits and deletes what is beyond them.
    ///
    /// # Errors
    /// [`StoreError`]: the limits hold all the same.
    fn set_limits(&self, limits: Limits) -> Result<(), StoreError>;

    /// Deletes what is older than `max_age` at `now_ns` (Unix ns).
    ///
    /// # Errors
    /// [`StoreError`].
    fn expire(&self, now_ns: i64) -> Result<(), StoreError>;

    /// Rewrites what is worth it on disk, before it returns: seals closed segments, gives the room of deleted messages back.
    fn compact(&self) {}

    /// Syncs everything, waits for it and refuses further messages.
    ///
    /// # Errors
    /// [`StoreError`].
    fn close(&self) -> Result<(), StoreError>;

    /// Closes the store and deletes it with all it holds.
    ///
    /// # Errors
    /// [`StoreError`].
    fn destroy(&self) -> Result<(), StoreError>;
}
