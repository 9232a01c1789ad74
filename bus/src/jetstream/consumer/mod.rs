//! A consumer: where it is in its stream, what it owes, who waits. A state machine without sockets, files and clocks.
//!
//! Invariants worth naming:
//!
//! - **At least once.** What must be acknowledged and is not comes again, until `max_deliver`.
//! - **A message counts as delivered only when somebody took it**: without interest nothing moves.
//! - **`num_pending` is exact** at every delivery: clients end their loops by it.
//! - **Nobody is given faster than they read**: a backlog stops at who has too much to read, and goes on when that is over.

mod ack;
mod pull;
mod push;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, MOST_ACK_PENDING};
use super::error::ApiError;
use crate::error::ReadError;
use crate::nats::route::Routed;
use crate::pattern::Filter;
use crate::store::{Hint, State, Store, Stored};
pub(crate) use ack::Ack;
pub(crate) use pull::PullRequest;
pub(super) use pull::go_duration;
pub(crate) use push::Flow;
pub(crate) use state::Saved;

/// What time it is, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    /// Nanoseconds of a clock that only goes on.
    pub(crate) ns: u64,
    /// Unix time in nanoseconds.
    pub(crate) wall_ns: i64,
}

/// Where deliveries go.
pub(crate) trait Output {
    /// Hands a message to whoever listens there.
    fn send(&mut self, to: &str, message: &Routed<'_>) -> Sent;
    /// Whether who listens there has too much to read already. If so, the consumer is pumped again when that is over.
    fn is_crowded(&mut self, to: &str) -> bool;
    /// Whether somebody listens there.
    fn interest(&mut self, subject: &str, queue: Option<&str>) -> bool;
    /// Tells the world what happened.
    fn advisory(&mut self, kind: &str, body: serde_json::Value);
    /// What clients see of a message's content.
    fn render<'a>(&self, message: &'a Stored) -> std::borrow::Cow<'a, [u8]> {
        message.payload().into()
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nobody listens.
    Nobody,
    Taken,
    /// Somebody took it who should get no more for a while.
    Crowded,
}

/// A message that was delivered and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    /// Consumer sequence of its first delivery.
    cseq: u64,
    deliveries: u64,
    due_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) stream: String,
    pub(crate) name: String,
    pub(crate) config: ConsumerConfig,
    /// The module that made it.
    pub(crate) owner: Option<String>,
    pub(crate) created_ns: i64,
    filter: Filter,
    /// First stream sequence that was not looked at.
    next_seq: u64,
    /// What is delivered before `next_seq`: the newest of each subject.
    first: VecDeque<u64>,
    /// (consumer, stream) sequence of the newest delivery.
    pub(crate) delivered: (u64, u64),
    pub(crate) ack_floor: (u64, u64),
    pub(crate) last_delivered_ns: Option<i64>,
    pub(crate) last_acked_ns: Option<i64>,
    pending: BTreeMap<u64, Pending>,
    due: BTreeSet<(u64, u64)>,
    pub(crate) redelivered: u64,
    waiting: VecDeque<PullRequest>,
    pub(crate) flow: Flow,
    /// Messages that pass and were not delivered, of those up to `counted_seq`.
    left: u64,
    counted_seq: u64,
    counted_removals: u64,
    hint: Hint,
    /// Read and not taken.
    peeked: Option<Stored>,
    /// When somebody used it last.
    used_ns: u64,
    heartbeat_ns: u64,
    pub(crate) paused_until_ns: Option<i64>,
    /// Somebody whom it gave something had too much to read.
    crowded: bool,
    /// Why what is due cannot be given: nothing that the clock would change.
    held_up: HeldUp,
    /// Changed since it was stored.
    pub(crate) dirty: bool,
}

/// What keeps a consumer from giving what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeldUp {
    No,
    /// It is paused, or its client has to confirm what it got.
    Waits,
    /// Nobody listens, or nobody who has not too much to read already.
    Unbound,
}

/// The next message and how it comes.
struct Candidate {
    message: Stored,
    deliveries: u64,
}

impl Consumer {
    /// A new consumer at its beginning.
    pub(crate) fn new(stream: &str, name: &str, config: ConsumerConfig, store: &dyn Store, time: Time) -> Result<Self, ApiError> {
        let filter = config.filter()?;
        let failed = |error: ReadError| ApiError::consumer(error.to_string());
        let state = store.state();
        let mut first = VecDeque::new();
        let next_seq = match config.deliver_policy {
            DeliverPolicy::All => state.first_seq,
            DeliverPolicy::New => state.last_seq + 1,
            DeliverPolicy::Last => store.last(&filter, u64::MAX).map_err(failed)?.map_or(state.last_seq + 1, |message| message.seq),
            DeliverPolicy::LastPerSubject => {
                first = store.last_per_subject(&filter, state.last_seq).map_err(failed)?.into();
                state.last_seq + 1
            }
            // Not beyond what comes next: a restart would clamp it all the same.
            DeliverPolicy::ByStartSequence => config.opt_start_seq.max(state.first_seq).min(state.last_seq + 1),
            DeliverPolicy::ByStartTime => {
                let at = config.opt_start_time.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                let at = at.ok_or_else(|| ApiError::invalid_json("optional start time is not a time"))?;
                store.seq_at(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)).map_err(failed)?
            }
        };
        let mut consumer = Self::at(stream, name, config, next_seq, first, time)?;
        consumer.recount(store);
        Ok(consumer)
    }

    /// At a place that is known.
    fn at(stream: &str, name: &str, config: ConsumerConfig, next_seq: u64, first: VecDeque<u64>, time: Time) -> Result<Self, ApiError> {
        let before = first.front().copied().unwrap_or(next_seq).saturating_sub(1);
        Ok(Self {
            stream: stream.to_owned(),
            name: name.to_owned(),
            paused_until_ns: paused_until(&config),
            filter: config.filter()?,
            config,
            owner: None,
            created_ns: time.wall_ns,
            next_seq: next_seq.max(1),
            first,
            delivered: (0, before),
            ack_floor: (0, before),
            last_delivered_ns: None,
            last_acked_ns: None,
            pending: BTreeMap::new(),
            due: BTreeSet::new(),
            redelivered: 0,
            waiting: VecDeque::new(),
            flow: Flow::default(),
            left: 0,
            counted_seq: 0,
            counted_removals: 0,
            hint: Hint::default(),
            peeked: None,
            used_ns: time.ns,
            heartbeat_ns: time.ns,
            crowded: false,
            held_up: HeldUp::No,
            dirty: true,
        })
    }

    /// Other settings for the same place.
    pub(crate) fn update(&mut self, config: ConsumerConfig, store: &dyn Store) -> Result<(), ApiError> {
        self.config.check_update(&config)?;
        self.filter = config.filter()?;
        self.paused_until_ns = paused_until(&config);
        self.config = config;
        (self.peeked, self.hint) = (None, Hint::default());
        let passes = |seq: &u64| store.get(*seq).is_ok_and(|message| message.is_some_and(|message| self.filter.matches(message.subject())));
        self.first.retain(passes);
        self.dirty = true;
        self.recount(store);
        Ok(())
    }

    /// Whether who asks may know of it: modules know those that they made, everybody else knows all.
    pub(crate) fn is_for(&self, module: Option<&str>) -> bool {
        module.is_none() || self.owner.as_deref() == module
    }

    pub(crate) fn is_push(&self) -> bool {
        self.config.is_push()
    }

    pub(crate) fn num_ack_pending(&self) -> usize {
        self.pending.len()
    }

    /// Messages delivered more than once and still not acknowledged.
    pub(crate) fn num_redelivered(&self) -> usize {
        self.pending.values().filter(|pending| pending.deliveries > 1).count()
    }

    pub(crate) fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Messages that pass and were not delivered.
    pub(crate) fn num_pending(&mut self, store: &dyn Store) -> u64 {
        self.refresh(store);
        self.left
    }

    pub(crate) fn is_paused(&self, time: Time) -> bool {
        self.paused_until_ns.is_some_and(|until| until > time.wall_ns)
    }

    /// Counts what is left from the beginning.
    fn recount(&mut self, store: &dyn Store) {
        self.first.retain(|seq| store.get(*seq).is_ok_and(|message| message.is_some()));
        // Nobody can be given again what the stream has let go of. What was deleted further on is noticed when it is due.
        let first_seq = store.state().first_seq;
        while let Some((&seq, _)) = self.pending.first_key_value().filter(|(seq, _)| **seq < first_seq) {
            self.settle(seq);
        }
        let (state, behind) = self.count(store, self.next_seq);
        self.left = self.first.len() as u64 + behind;
        (self.counted_seq, self.counted_removals) = (state.last_seq, state.removals);
    }

    /// Counts what came since.
    fn refresh(&mut self, store: &dyn Store) {
        let state = store.state();
        if state.removals != self.counted_removals {
            if self.peeked.as_ref().is_some_and(|peeked| store.get(peeked.seq).is_ok_and(|message| message.is_none())) {
                self.peeked = None;
            }
            self.recount(store);
        } else if state.last_seq > self.counted_seq {
            let (counted, new) = self.count(store, self.counted_seq.max(self.next_seq - 1) + 1);
            if counted.removals == self.counted_removals {
                self.left += new;
                self.counted_seq = counted.last_seq;
            } else {
                self.recount(store);
            }
        }
    }

    /// What passes at or behind `from`, and the state in which that was so. The sensor's own streams grow while they are counted: what
    /// came in between would be counted again with the next look.
    fn count(&self, store: &dyn Store, from: u64) -> (State, u64) {
        let mut before = store.state();
        for _ in 0..MOST_COUNTS {
            let count = store.count(from, &self.filter).unwrap_or_else(|error| {
                tracing::warn!(stream = self.stream, consumer = self.name, %error, "cannot count what is pending");
                0
            });
            let state = store.state();
            if (state.last_seq, state.removals) == (before.last_seq, before.removals) {
                return (state, count);
            }
            before = state;
        }
        let beyond = |from: u64| store.count(from, &self.filter).unwrap_or(0);
        let ahead = beyond(before.last_seq + 1);
        (before, beyond(from).saturating_sub(ahead))
    }

    /// When a message that was delivered so often comes again.
    fn wait_ns(&self, deliveries: u64) -> u64 {
        let backoff =
            self.config.backoff.get(usize::try_from(deliveries).unwrap_or(usize::MAX).saturating_sub(1)).or(self.config.backoff.last());
        // A wait of nothing would be over before the look it began in: that look would hand the same message out for ever.
        u64::try_from(backoff.copied().unwrap_or(self.config.ack_wait)).unwrap_or(0).max(1)
    }

    /// Something panicked on the way: what is owed is due as before, and everything else is looked up anew.
    pub(crate) fn find_its_feet(&mut self, store: &dyn Store) {
        self.due = self.pending.iter().map(|(seq, pending)| (pending.due_ns, *seq)).collect();
        (self.peeked, self.hint) = (None, Hint::default());
        self.recount(store);
    }

    /// The next message to hand out: what is due again first, then what is new.
    fn candidate(&mut self, store: &dyn Store, time: Time, out: &mut dyn Output) -> Option<Candidate> {
        while let Some(&(due_ns, seq)) = self.due.first() {
            if due_ns > time.ns {
                break;
            }
            self.due.pop_first();
            let Some(pending) = self.pending.get(&seq).copied().filter(|pending| pending.due_ns == due_ns) else { continue };
            let max = u64::try_from(self.config.max_deliver).ok().filter(|max| *max > 0);
            if max.is_some_and(|max| pending.deliveries >= max) {
                out.advisory("MAX_DELIVERIES", self.max_deliveries(seq, pending.deliveries));
                self.settle(seq);
                continue;
            }
            match store.get(seq) {
                Ok(Some(message)) => return Some(Candidate { message, deliveries: pending.deliveries + 1 }),
                Ok(None) => {
                    self.settle(seq);
                }
                Err(error) => {
                    tracing::warn!(stream = self.stream, consumer = self.name, seq, %error, "cannot read a message that is to be delivered again");
                    self.settle(seq);
                }
            }
        }
        let most = if self.config.max_ack_pending > 0 { self.config.max_ack_pending } else { MOST_ACK_PENDING };
        if self.config.ack_policy != AckPolicy::None && self.pending.len() as i64 >= most {
            return None;
        }
        self.peek(store).map(|message| Candidate { message, deliveries: 1 })
    }

    fn peek(&mut self, store: &dyn Store) -> Option<Stored> {
        if let Some(peeked) = &self.peeked {
            return Some(peeked.clone());
        }
        while let Some(&seq) = self.first.front() {
            match store.get(seq) {
                Ok(Some(message)) => {
                    self.peeked = Some(message.clone());
                    return Some(message);
                }
                Ok(None) | Err(_) => {
                    self.first.pop_front();
                    self.left = self.left.saturating_sub(1);
                }
            }
        }
        for _ in 0..MOST_DAMAGE {
            match store.next(self.next_seq, &self.filter, &mut self.hint) {
                Ok(Some(message)) if message.seq <= self.counted_seq => {
                    self.peeked = Some(message.clone());
                    return Some(message);
                }
                Ok(_) => return None,
                Err(error) => {
                    tracing::warn!(stream = self.stream, consumer = self.name, %error, "messages cannot be read: going on behind them");
                    self.recount(store);
                }
            }
        }
        None
    }

    /// The subject that an acknowledgement goes to.
    fn ack_subject(&self, candidate: &Candidate, left: u64) -> String {
        let Candidate { message, deliveries } = candidate;
        let mut subject = String::with_capacity(64 + self.stream.len() + self.name.len());
        let (cseq, stream, name) = (self.delivered.0 + 1, &self.stream, &self.name);
        for part in ["$JS.ACK.", stream, ".", name] {
            subject.push_str(part);
        }
        let mut digits = itoa::Buffer::new();
        for number in [*deliveries, message.seq, cseq] {
            subject.push('.');
            subject.push_str(digits.format(number));
        }
        subject.push('.');
        subject.push_str(digits.format(message.time_ns));
        subject.push('.');
        subject.push_str(digits.format(left));
        subject
    }

    /// What would be left behind this one.
    fn left_behind(&self, candidate: &Candidate) -> u64 {
        if candidate.deliveries == 1 { self.left.saturating_sub(1) } else { self.left }
    }

    /// Somebody took it.
    fn commit(&mut self, candidate: &Candidate, time: Time) {
        let seq = candidate.message.seq;
        self.dirty = true;
        self.delivered.0 += 1;
        self.last_delivered_ns = Some(time.wall_ns);
        let cseq = self.delivered.0;
        if candidate.deliveries == 1 {
            self.peeked = None;
            self.left = self.left.saturating_sub(1);
            self.delivered.1 = self.delivered.1.max(seq);
            if self.first.front() == Some(&seq) {
                self.first.pop_front();
            } else {
                self.next_seq = seq + 1;
            }
        } else {
            self.redelivered += 1;
        }
        if self.config.ack_policy == AckPolicy::None {
            self.ack_floor = self.delivered;
            return;
        }
        let due_ns = time.ns.saturating_add(self.wait_ns(candidate.deliveries));
        let pending = self.pending.entry(seq).or_insert(Pending { cseq, deliveries: 0, due_ns });
        pending.deliveries = candidate.deliveries;
        pending.due_ns = due_ns;
        self.due.insert((due_ns, seq));
    }

    /// Nobody took it: it is due still, and keeps its place before what is due later.
    fn untaken(&mut self, candidate: &Candidate) {
        let seq = candidate.message.seq;
        if let Some(pending) = self.pending.get(&seq).filter(|_| candidate.deliveries > 1) {
            self.due.insert((pending.due_ns, seq));
        }
    }

    /// The message needs no acknowledgement any more. True when it did.
    fn settle(&mut self, seq: u64) -> bool {
        let Some(Pending { due_ns, .. }) = self.pending.remove(&seq) else { return false };
        self.due.remove(&(due_ns, seq));
        self.dirty = true;
        self.advance_floor();
        true
    }

    fn advance_floor(&mut self) {
        self.ack_floor = match self.pending.first_key_value() {
            Some((first, pending)) => ((pending.cseq - 1).max(self.ack_floor.0), (first - 1).max(self.ack_floor.1)),
            None => self.delivered,
        };
    }

    fn max_deliveries(&self, seq: u64, deliveries: u64) -> serde_json::Value {
        serde_json::json!({
            "type": "io.nats.jetstream.advisory.v1.max_deliver",
            "stream": self.stream, "consumer": self.name, "stream_seq": seq, "deliveries": deliveries,
        })
    }

    /// Hands out what can be handed out, ends requests that are over. Call it whenever something has changed.
    pub(crate) fn pump(&mut self, store: &dyn Store, time: Time, out: &mut dyn Output) {
        self.refresh(store);
        self.held_up = if self.is_paused(time) { HeldUp::Waits } else { HeldUp::No };
        if self.is_push() { self.pump_push(store, time, out) } else { self.pump_pull(store, time, out) }
    }

    /// Whether it has not been used for so long that it is to go.
    pub(crate) fn is_abandoned(&mut self, time: Time, out: &mut dyn Output) -> bool {
        let Ok(threshold) = u64::try_from(self.config.inactive_threshold) else { return false };
        if threshold == 0 {
            return false;
        }
        let used = if self.is_push() {
            out.interest(&self.config.deliver_subject, Some(self.config.deliver_group.as_str()).filter(|group| !group.is_empty()))
        } else {
            self.waiting.retain(|request| out.interest(&request.reply, None));
            !self.waiting.is_empty()
        };
        if used {
            self.used_ns = time.ns;
        }
        time.ns.saturating_sub(self.used_ns) > threshold
    }

    /// When it must be looked at again, at the latest.
    pub(crate) fn deadline_ns(&self, time: Time) -> Option<u64> {
        // Without somebody who waits nothing can come again.
        let due = self.due.first().map(|(due_ns, _)| *due_ns).filter(|_| self.is_push() || !self.waiting.is_empty());
        let waiting = self.waiting.iter().filter_map(PullRequest::deadline_ns).min();
        let heartbeat =
            (self.is_push() && self.config.idle_heartbeat > 0).then(|| self.heartbeat_ns.saturating_add(self.config.idle_heartbeat as u64));
        let (due, heartbeat) = match self.held_up {
            HeldUp::No => (due, heartbeat),
            HeldUp::Waits => (None, heartbeat),
            // Interest through a wildcard is not told: it is looked for, as long as there is something to give.
            HeldUp::Unbound => {
                ((self.left > 0 || due.is_some()).then(|| time.ns + LOOK_FOR_INTEREST_NS), heartbeat.filter(|_| self.crowded))
            }
        };
        // Twice within the threshold: interest is looked for, not told.
        let abandoned = u64::try_from(self.config.inactive_threshold)
            .ok()
            .filter(|threshold| *threshold > 0)
            .map(|threshold| time.ns + threshold / 2 + 1);
        let paused =
            self.paused_until_ns.and_then(|until| u64::try_from(until - time.wall_ns).ok()).map(|left| time.ns.saturating_add(left));
        [due, waiting, heartbeat, abandoned, paused].into_iter().flatten().min().map(|deadline| deadline.max(time.ns + SHORTEST_WAIT_NS))
    }

    /// Somebody used it.
    pub(crate) fn touch(&mut self, time: Time) {
        self.used_ns = time.ns;
    }
}

/// A consumer is looked at by the clock this often at most.
const SHORTEST_WAIT_NS: u64 = 5_000_000;
/// A push consumer that nobody listens to looks for somebody this often.
const LOOK_FOR_INTEREST_NS: u64 = 1_000_000_000;
/// A stream that grows is counted so often at most; then what came during the last count may be counted once too often.
const MOST_COUNTS: usize = 16;
/// So many damaged places are passed within one look.
const MOST_DAMAGE: usize = 64;

fn paused_until(config: &ConsumerConfig) -> Option<i64> {
    let at = config.pause_until.as_deref()?.parse::<jiff::Timestamp>().ok()?;
    i64::try_from(at.as_nanosecond()).ok().filter(|at| *at > 0)
}

/// The block of a status message.
pub(crate) fn status(line: &str, headers: &[(&str, &str)]) -> String {
    let mut block = format!("NATS/1.0 {line}\r\n");
    for (name, value) in headers {
        block.push_str(name);
        block.push_str(": ");
        block.push_str(value);
        block.push_str("\r\n");
    }
    block.push_str("\r\n");
    block
}

fn send_status(out: &mut dyn Output, to: &str, reply: Option<&str>, block: &str) -> bool {
    out.send(to, &Routed { subject: to, reply, headers: block.as_bytes(), payload: b"", module: None }) != Sent::Nobody
}
