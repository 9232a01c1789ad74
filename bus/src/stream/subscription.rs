//! Subscriptions inside the process: from now on, bounded, and each with its own answer to being too slow.
//!
//! They are for what may end with the process. What must survive a restart is a durable [`Consumer`](crate::Consumer), which shares the
//! same messages in memory as long as it keeps up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::{Head, Stream, lock};
use crate::config::StreamName;
use crate::error::ReadError;
use crate::message::Delivery;
use crate::pattern::Filter;

/// What happens when a subscriber is slower than the publishers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Publishers wait, each with its thread, until there is room. Nothing is lost; who publishes from the task or thread that receives
    /// waits for itself. Not for ALERTS beside an [`Edge`](crate::edge::Edge) on the same tokio runtime: clients publish there, and a
    /// runtime whose threads all wait receives nothing.
    Block,
    /// What does not fit is not delivered, and counted.
    DropNewest,
    /// What does not fit in memory is read back from the log. Nothing is lost that retention does not delete, and nobody waits.
    Spill,
}

impl Overflow {
    /// Lower-case name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropNewest => "drop_newest",
            Self::Spill => "spill",
        }
    }
}

/// Settings of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionConfig {
    /// Which subjects.
    pub filter: Filter,
    /// Messages that wait in memory; at least 1. With [`Overflow::Block`] a batch that is longer fits into an empty queue.
    pub capacity: usize,
    /// What happens to those for which there is no room.
    pub overflow: Overflow,
}

impl Default for SubscriptionConfig {
    /// Everything, 1,024 in memory, the rest from the log.
    fn default() -> Self {
        Self { filter: Filter::all(), capacity: 1024, overflow: Overflow::Spill }
    }
}

/// A subscription's state in numbers, since it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionInfo {
    /// Its stream.
    pub stream: StreamName,
    /// What the subscriber called it.
    pub name: String,
    /// Its policy.
    pub overflow: Overflow,
    /// Messages that may wait in memory.
    pub capacity: u64,
    /// Those that do.
    pub waiting: u64,
    /// Messages received.
    pub delivered: u64,
    /// Messages not delivered because there was no room.
    pub dropped: u64,
    /// Messages that had to be read back from the log.
    pub spilled: u64,
    /// Sequences that retention deleted before they were read back, whether they matched or not.
    pub fell_off_retention: u64,
    /// Sequences passed over because their bytes are damaged, whether they matched or not.
    pub unreadable: u64,
    /// How often a publisher waited.
    pub publishers_waited: u64,
}

/// What a subscription shares with the publishers.
#[derive(Debug)]
pub(super) struct Subscriber {
    stream: StreamName,
    name: String,
    config: SubscriptionConfig,
    queue: Mutex<Queue>,
    room: Condvar,
    delivered: AtomicU64,
    dropped: AtomicU64,
    spilled: AtomicU64,
    fell_off_retention: AtomicU64,
    unreadable: AtomicU64,
    publishers_waited: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    held: VecDeque<Arc<Delivery>>,
    /// Nothing is queued any more.
    closed: bool,
}

impl Subscriber {
    pub(super) fn overflow(&self) -> Overflow {
        self.config.overflow
    }

    pub(super) fn wants(&self, subject: &str) -> bool {
        self.config.filter.matches(subject)
    }

    fn fits(&self, queue: &Queue, wanted: usize) -> bool {
        queue.closed || wanted == 0 || queue.held.is_empty() || queue.held.len() + wanted <= self.config.capacity
    }

    pub(super) fn has_room(&self, wanted: usize) -> bool {
        self.fits(&lock(&self.queue), wanted)
    }

    pub(super) fn wait_for_room(&self, wanted: usize) {
        self.publishers_waited.fetch_add(1, Ordering::Relaxed);
        let queue = lock(&self.queue);
        drop(self.room.wait_while(queue, |queue| !self.fits(queue, wanted)).unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes what it has room for; what spills finds its way by itself.
    pub(super) fn offer(&self, delivery: &Arc<Delivery>) {
        if self.config.overflow == Overflow::Spill {
            return;
        }
        let mut queue = lock(&self.queue);
        if queue.closed {
            return;
        }
        if self.config.overflow == Overflow::DropNewest && queue.held.len() >= self.config.capacity {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.held.push_back(Arc::clone(delivery));
    }

    fn take(&self) -> Option<Arc<Delivery>> {
        let taken = lock(&self.queue).held.pop_front()?;
        self.room.notify_all();
        Some(taken)
    }

    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.room.notify_all();
    }

    pub(super) fn info(&self) -> SubscriptionInfo {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SubscriptionInfo {
            stream: self.stream,
            name: self.name.clone(),
            overflow: self.config.overflow,
            capacity: self.config.capacity as u64,
            waiting: lock(&self.queue).held.len() as u64,
            delivered: count(&self.delivered),
            dropped: count(&self.dropped),
            spilled: count(&self.spilled),
            fell_off_retention: count(&self.fell_off_retention),
            unreadable: count(&self.unreadable),
            publishers_waited: count(&self.publishers_waited),
        }
    }
}

/// A subscription to a stream; it ends when it is dropped.
///
/// ```
/// # use std::sync::Arc;
/// # use bartizan_bus::{Bus, BusConfig, Message, StreamName, SubscriptionConfig};
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// # let dir = tempfile::tempdir()?;
/// let bus = Bus::open(dir.path(), &BusConfig::default())?;
/// let alerts = bus.stream(StreamName::Alerts);
/// let mut subscription = alerts.subscribe("pager", SubscriptionConfig::default());
/// alerts.append(Message { subject: "sec.alerts.high.test".parse()?, msg_id: None, time_ns: 0, payload: "hello".into() })?;
/// assert_eq!(subscription.recv().await?.payload, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Subscription {
    stream: Stream,
    shared: Arc<Subscriber>,
    head: watch::Receiver<Head>,
    /// Of one that spills: the first sequence that was not looked at.
    next_seq: u64,
}

impl Subscription {
    pub(super) fn new(stream: Stream, name: &str, config: SubscriptionConfig) -> Self {
        let config = SubscriptionConfig { capacity: config.capacity.max(1), ..config };
        let shared = Arc::new(Subscriber {
            stream: stream.name(),
            name: name.to_owned(),
            config,
            queue: Mutex::default(),
            room: Condvar::new(),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            fell_off_retention: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            publishers_waited: AtomicU64::new(0),
        });
        // Between two batches, so that "from now on" means the same for all policies.
        let publishing = lock(&stream.inner.publishing);
        let (head, next_seq) = (stream.inner.head.subscribe(), stream.inner.last_seq() + 1);
        stream.inner.fan.add(Arc::clone(&shared));
        drop(publishing);
        Self { stream, shared, head, next_seq }
    }

    /// The next message. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ReadError::Closed`] when the bus was shut down and everything in memory was received. Only with [`Overflow::Spill`], and only about
    /// what is read back from the log: [`ReadError::Damaged`] once per damaged place, after which receiving goes on behind it;
    /// [`ReadError::Io`], after which the same messages are tried again.
    pub async fn recv(&mut self) -> Result<Arc<Delivery>, ReadError> {
        loop {
            let closed = self.head.borrow_and_update().closed;
            if let Some(delivery) = self.try_recv()? {
                return Ok(delivery);
            }
            if closed || self.head.changed().await.is_err() {
                return Err(ReadError::Closed { stream: self.stream.name() });
            }
        }
    }

    /// The next message, if there is one now.
    ///
    /// # Errors
    /// As [`Subscription::recv`], but for [`ReadError::Closed`].
    pub fn try_recv(&mut self) -> Result<Option<Arc<Delivery>>, ReadError> {
        let mut taken = self.shared.take();
        if taken.is_none() && self.shared.overflow() == Overflow::Spill {
            self.look()?;
            taken = self.shared.take();
        }
        self.shared.delivered.fetch_add(u64::from(taken.is_some()), Ordering::Relaxed);
        Ok(taken)
    }

    /// Its state in numbers.
    pub fn info(&self) -> SubscriptionInfo {
        self.shared.info()
    }

    /// Fills its own queue from memory, or from the log.
    fn look(&mut self) -> Result<(), ReadError> {
        let (inner, config) = (&self.stream.inner, &self.shared.config);
        let last_seq = inner.last_seq();
        if self.next_seq > last_seq {
            return Ok(());
        }
        if inner.is_closed() {
            if let Some(read) = inner.fan.recent(self.next_seq, config.capacity, &config.filter, last_seq) {
                self.next_seq = read.next_seq;
                lock(&self.shared.queue).held.extend(read.found);
            }
            return Ok(());
        }
        let first_seq = inner.first_seq();
        if self.next_seq < first_seq {
            self.shared.fell_off_retention.fetch_add(first_seq - self.next_seq, Ordering::Relaxed);
            self.next_seq = first_seq;
        }
        match inner.read(self.next_seq, config.capacity, &config.filter) {
            Ok(read) => {
                self.next_seq = read.next_seq;
                if read.from_log {
                    self.shared.spilled.fetch_add(read.found.len() as u64, Ordering::Relaxed);
                }
                lock(&self.shared.queue).held.extend(read.found);
                Ok(())
            }
            Err(failure) => {
                self.next_seq = failure.resume_at;
                self.shared.unreadable.fetch_add(failure.missing, Ordering::Relaxed);
                Err(failure.error)
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stream.inner.fan.remove(&self.shared);
    }
}
