//! What can go wrong, one kind of error per operation; each says what, where and what to do.

use std::io;
use std::path::PathBuf;

use crate::config::StreamName;

/// A data folder or a consumer that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another `Bus` of this one) has the folder.
    #[error("data folder {dir} is in use by {who}: stop that Bartizan first, or give this one another --data-dir", dir = dir.display(), who = holder(*pid))]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// Who has it, where the lock file says so.
        pid: Option<u32>,
    },
    /// Somebody else could replace what is in the data folder.
    #[error(
        "data folder {dir} belongs to user id {owner} and has mode {mode:04o}, so that others than user id {user}, who runs this, can change what is in it: `chown {user} {dir}` and `chmod 700 {dir}`, or give another --data-dir",
        dir = dir.display()
    )]
    NotPrivate {
        /// The data folder.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Effective user of this process.
        user: u32,
    },
    /// A file or folder could not be created, read or written.
    #[error("cannot {action} {path}: {source}; check that the folder exists, is writable for this user and that the disk works", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is always written as a whole does not read back.
    #[error("{path} is damaged ({reason}): move the file aside to go on without what it says, or restore it from a backup", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Written by a newer Bartizan.
    #[error("{path} has format version {found}, and this binary reads up to {supported}: use the newer Bartizan that wrote it", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this binary reads.
        supported: u32,
    },
    /// A live handle to this consumer exists already.
    #[error("consumer {name} of stream {stream} is already open: drop the other handle first, or use another name")]
    InUse {
        /// The stream.
        stream: StreamName,
        /// The consumer.
        name: String,
    },
    /// Not a consumer name.
    #[error("{name:?} is not a consumer name: use 1 to 64 letters, digits, `-` or `_`")]
    InvalidName {
        /// What was given.
        name: String,
    },
    /// The bus was closed.
    #[error("stream {stream} is closed because the bus was shut down: open the data folder again")]
    Closed {
        /// The stream.
        stream: StreamName,
    },
}

pub(crate) fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// A message that was not accepted. Nothing of the batch is in the log.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The disk (or quota) is full. The stream stays usable: later messages are accepted as soon as there is room.
    #[error("no room left for {path}: {source}; free disk space or lower the stream's max_bytes", path = path.display())]
    Full {
        /// The segment that was written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The message or the batch is larger than a stream accepts.
    #[error("{what} has {bytes} bytes, and the limit is {max}: split it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The disk failed. After a failed sync the stream accepts nothing more until it is opened again.
    #[error("cannot {action} {path}: {source}; check the disk, then restart Bartizan", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bus was closed.
    #[error("stream {stream} is closed because the bus was shut down: open the data folder again")]
    Closed {
        /// The stream.
        stream: StreamName,
    },
}

/// A message that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such stream in the data folder.
    #[error("there is no stream at {path}: check --data-dir, or start Bartizan there once", path = path.display())]
    NoStream {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}; check the permissions (root owns the data folder) and the disk", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were once written whole do not read back. Reading goes on behind the damage with the next call.
    #[error("{path} is damaged at byte {offset} ({reason}), {missing} messages cannot be read: reading goes on behind them; check the disk", path = path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What does not fit.
        reason: String,
        /// How many sequences cannot be read because of it (0 where that is not known).
        missing: u64,
    },
    /// Written by a newer Bartizan.
    #[error("{path} has format version {found}, and this binary reads up to {supported}: use the newer Bartizan that wrote it", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this binary reads.
        supported: u32,
    },
    /// The bus was closed.
    #[error("stream {stream} is closed because the bus was shut down: open the data folder again")]
    Closed {
        /// The stream.
        stream: StreamName,
    },
}
