//! What is to be sent to a connection: filled by publishers, emptied by whoever finds the socket ready.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::sync::Notify;

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
    pub(crate) fn new(socket: Option<Arc<TcpStream>>, max_pending: usize, spare: Arc<Spare>) -> Self {
        Self {
            spare,
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
        self.pending() > (self.max_pending / 4 * 3).min(CROWDED)
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
                    self.pending.fetch_sub(n, Ordering::Relaxed);
                    self.sent_bytes.fetch_add(n as u64, Ordering::Relaxed);
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
        self.pending.store(0, Ordering::Relaxed);
    }

    /// Takes everything that waits: the writer of a TLS connection sends it.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.buffer))
    }

    /// What `take` gave was sent.
    pub(crate) fn was_sent(&self, bytes: usize) {
        self.pending.fetch_sub(bytes, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Publishers wait when more than this is to be sent to somebody: beyond it a queue costs memory and caches and wins nothing.
const CROWDED: usize = 8 * 1024 * 1024;
