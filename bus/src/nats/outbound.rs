//! What is to be sent to a connection: filled by publishers, emptied by whoever finds the socket ready.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::route::RoomHook;
use crate::log::lock;

/// A connection on which nothing waits keeps a buffer of at most this size; a larger one is for the next that needs it.
const OWN_BYTES: usize = 4 * 1024;

/// Larger buffers wait for the next connection; so many bytes of them together.
const SPARE_BYTES: usize = 4 * 1024 * 1024;

/// Buffers that grew and are empty, for all connections of a server: a hundred that were busy once do not keep a hundred of them, and one
/// that is busy does not ask the kernel for fresh pages again and again.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    buffers: Vec<Vec<u8>>,
    /// Their capacities.
    bytes: usize,
}

impl Spare {
    fn take(&self) -> Vec<u8> {
        let mut held = lock(&self.0);
        let buffer = held.buffers.pop().unwrap_or_default();
        held.bytes -= buffer.capacity();
        buffer
    }

    /// Takes the memory of `buffer`, which is empty.
    fn give(&self, buffer: &mut Vec<u8>) {
        if buffer.capacity() <= OWN_BYTES {
            return;
        }
        let buffer = std::mem::take(buffer);
        let mut held = lock(&self.0);
        if held.bytes + buffer.capacity() <= SPARE_BYTES {
            held.bytes += buffer.capacity();
            held.buffers.push(buffer);
        }
    }
}

/// Told when a connection that somebody waits for has room again; one for all connections of a server.
#[derive(Default)]
pub(crate) struct Room(RwLock<Vec<RoomHook>>);

impl Room {
    pub(crate) fn listen(&self, hook: RoomHook) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    fn is_there(&self) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|hook| hook());
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The client went.
    ClientClosed,
    /// The client did what the protocol forbids.
    ProtocolError,
    /// Wrong or no credentials.
    AuthenticationFailed,
    /// No credentials in time.
    AuthenticationTimeout,
    /// It did not read what it had asked for: too much was waiting.
    SlowConsumerPending,
    /// It did not read what it had asked for: a write took too long.
    SlowConsumerDeadline,
    /// Pings were not answered.
    Stale,
    /// There were too many connections.
    TooMany,
    /// TLS did not come about.
    TlsFailed,
    /// The server ends.
    ServerShutdown,
}

impl CloseReason {
    /// Lower-case name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ProtocolError => "protocol_error",
            Self::AuthenticationFailed => "authentication_failed",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::SlowConsumerPending => "slow_consumer_pending",
            Self::SlowConsumerDeadline => "slow_consumer_deadline",
            Self::Stale => "stale",
            Self::TooMany => "too_many",
            Self::TlsFailed => "tls_failed",
            Self::ServerShutdown => "server_shutdown",
        }
    }
}

/// Bytes on their way to a client.
#[derive(Debug)]
pub(crate) struct Outbound {
    spare: Arc<Spare>,
    room: Arc<Room>,
    /// Somebody wants to be told when there is room.
    awaited: AtomicBool,
    buffer: Mutex<Vec<u8>>,
    writing: Mutex<Writing>,
    /// Bytes in both.
    pending: AtomicUsize,
    max_pending: usize,
    /// Somebody will flush it.
    touched: AtomicBool,
    closed: AtomicBool,
    reason: Mutex<Option<CloseReason>>,
    /// Wakes the writer.
    pub(crate) ready: Notify,
    /// Wakes the reader.
    pub(crate) ended: Notify,
    pub(crate) sent_messages: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Writing {
    bytes: Vec<u8>,
    at: usize,
    /// `None` with TLS: then only the writer writes.
    socket: Option<Arc<TcpStream>>,
}

impl Outbound {
    pub(crate) fn new(socket: Option<Arc<TcpStream>>, max_pending: usize, spare: Arc<Spare>, room: Arc<Room>) -> Self {
        Self {
            spare,
            room,
            awaited: AtomicBool::new(false),
            buffer: Mutex::default(),
            writing: Mutex::new(Writing { socket, ..Writing::default() }),
            pending: AtomicUsize::new(0),
            max_pending,
            touched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reason: Mutex::default(),
            ready: Notify::new(),
            ended: Notify::new(),
            sent_messages: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes waiting.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Whether so much waits that publishers should.
    pub(crate) fn is_crowded(&self) -> bool {
        self.pending() > self.crowded()
    }

    fn crowded(&self) -> usize {
        (self.max_pending / 4 * 3).min(CROWDED)
    }

    /// Whether it is crowded; if so, [`Room`] is told when most of it is gone.
    pub(crate) fn await_room(&self) -> bool {
        // Said before it is looked at: whoever takes the last of it sees one or is seen by the other.
        // It stays said: others may wait as well, and being told once too often is nothing.
        self.awaited.store(true, Ordering::SeqCst);
        !self.is_closed() && self.pending.load(Ordering::SeqCst) > self.crowded() / ROOM_PART
    }

    /// So many bytes do not wait any longer.
    fn went(&self, bytes: usize) {
        let left = self.pending.fetch_sub(bytes, Ordering::SeqCst).saturating_sub(bytes);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if left <= self.crowded() / ROOM_PART {
            self.tell_room();
        }
    }

    fn tell_room(&self) {
        if self.awaited.load(Ordering::SeqCst) && self.awaited.swap(false, Ordering::SeqCst) {
            self.room.is_there();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        *lock(&self.reason)
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        lock(&self.reason).get_or_insert(reason);
        self.closed.store(true, Ordering::Release);
        self.ready.notify_one();
        self.ended.notify_one();
    }

    /// Appends what `write` writes. True when nobody had said that they would flush: then the caller must.
    pub(crate) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_closed() {
            return false;
        }
        // Counted while nobody can take it, so that the count never falls below what is there.
        let pending = {
            let mut buffer = lock(&self.buffer);
            if buffer.capacity() == 0 {
                *buffer = self.spare.take();
            }
            let before = buffer.len();
            write(&mut buffer);
            let added = buffer.len() - before;
            self.pending.fetch_add(added, Ordering::Relaxed) + added
        };
        if pending > self.max_pending {
            self.close(CloseReason::SlowConsumerPending);
        }
        !self.touched.swap(true, Ordering::AcqRel)
    }

    /// Sends what the socket takes right now; the writer does the rest.
    pub(crate) fn flush(&self) {
        self.touched.store(false, Ordering::Release);
        match self.writing.try_lock() {
            Ok(mut writing) => {
                let Some(socket) = writing.socket.clone() else {
                    drop(writing);
                    self.ready.notify_one();
                    return;
                };
                if self.drain(&mut writing, |bytes| socket.try_write(bytes)).is_err() || writing.at < writing.bytes.len() {
                    self.ready.notify_one();
                }
            }
            // Whoever writes now may have looked before this was there.
            Err(_) => self.ready.notify_one(),
        }
    }

    /// Writes until nothing is left or the socket takes no more (`WouldBlock` is no error here).
    fn drain(&self, writing: &mut Writing, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            if writing.at == writing.bytes.len() {
                writing.bytes.clear();
                writing.at = 0;
                let mut buffer = lock(&self.buffer);
                std::mem::swap(&mut *buffer, &mut writing.bytes);
                if writing.bytes.is_empty() {
                    self.spare.give(&mut buffer);
                    self.spare.give(&mut writing.bytes);
                    return Ok(());
                }
            }
            match write(&writing.bytes[writing.at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    writing.at += n;
                    self.went(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.close(CloseReason::ClientClosed);
                    return Err(error);
                }
            }
        }
    }

    /// One round of the writer on a plain socket: sends what it takes. True when something is left.
    pub(crate) fn drain_socket(&self) -> io::Result<bool> {
        let mut writing = lock(&self.writing);
        let Some(socket) = writing.socket.clone() else { return Ok(false) };
        self.drain(&mut writing, |bytes| socket.try_write(bytes))?;
        Ok(writing.at < writing.bytes.len())
    }

    /// The connection is over: closes its socket and frees what nobody takes any more. Others remember this connection as a receiver until
    /// they publish again, which may be never; its socket and memory do not wait for them.
    pub(crate) fn hang_up(&self) {
        self.close(CloseReason::ClientClosed);
        let mut writing = lock(&self.writing);
        if let Some(socket) = std::mem::take(&mut *writing).socket {
            // A client that has gone already has no socket to be shut.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
        *lock(&self.buffer) = Vec::new();
        self.pending.store(0, Ordering::SeqCst);
        self.tell_room();
    }

    /// Takes everything that waits: the writer of a TLS connection sends it.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.buffer))
    }

    /// What `take` gave was sent.
    pub(crate) fn was_sent(&self, bytes: usize) {
        self.went(bytes);
    }
}

/// Publishers wait when more than this is to be sent to somebody: beyond it a queue costs memory and caches and wins nothing.
const CROWDED: usize = 8 * 1024 * 1024;

/// Who waited for room is told when so small a part of what made it crowded is left: early enough that the socket does not run dry meanwhile.
const ROOM_PART: usize = 2;
