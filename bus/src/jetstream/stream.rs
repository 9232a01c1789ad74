//! A stream as JetStream sees it: settings, a store, consumers; what is published into it and acknowledged.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::config::{Discard, StreamConfig};
use super::consumer::{Consumer, Output, Sent, Time};
use super::error::ApiError;
use super::survives;
use crate::headers;
use crate::log::lock;
use crate::message::PubAck;
use crate::nats::route::{Delivered, Routed, Router, TapId};
use crate::pattern::{Filter, Pattern};
use crate::store::{Purge, Put, Store, StoreError, Stored};
use crate::stream::dedupe::{Dedupe, ids_of_window};

/// Largest header block.
const MAX_HEADERS: usize = 64 * 1024;
/// Letters of an advisory's id.
const ADVISORY_ID: usize = 22;

/// What the process itself brings to a stream of its own.
pub trait Builtin: Send + Sync {
    /// What clients see of a stored message's content.
    fn render<'a>(&self, message: &'a Stored) -> Cow<'a, [u8]>;

    /// Takes what a client publishes on the stream's subjects, if it may; the error says why not. Written when this returns.
    ///
    /// # Errors
    /// What is wrong with the message, for its publisher.
    fn publish(&self, message: &Routed<'_>) -> Result<PubAck, String>;
}

/// See the module.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) created_ns: i64,
    pub(crate) builtin: Option<Arc<dyn Builtin>>,
    pub(crate) taps: Mutex<Vec<(Pattern, TapId)>>,
    /// Held while files of consumers change; taken with the lock of the state held, so that they change in its order.
    pub(crate) places: Mutex<()>,
    /// Acknowledgements wait for the disk.
    pub(crate) slow_acks: bool,
    /// Somebody will pump it.
    pub(crate) touched: AtomicBool,
    /// It is to be pumped when somebody has room again who had too much to read.
    pub(crate) waits_for_room: AtomicBool,
    state: Mutex<State>,
}

/// What is behind a stream's lock.
pub(crate) struct State {
    pub(crate) config: StreamConfig,
    pub(crate) consumers: BTreeMap<String, Consumer>,
    pub(super) dedupe: Dedupe,
    last_msg_id: String,
    /// Acknowledgements that are owed: sequence, where to, what.
    owed: VecDeque<(u64, String, Vec<u8>)>,
    pub(crate) deleted: bool,
    /// Publications refused.
    pub(crate) refused: u64,
}

/// Output through the router; advisories are kept until no lock is held.
pub(crate) struct Outbox<'a> {
    pub(crate) router: &'a dyn Router,
    pub(crate) builtin: Option<&'a dyn Builtin>,
    waits_for_room: &'a AtomicBool,
    pub(crate) advisories: Vec<(String, serde_json::Value)>,
}

impl Output for Outbox<'_> {
    fn send(&mut self, to: &str, message: &Routed<'_>) -> Sent {
        match self.router.deliver(to, message) {
            Delivered { took: 0, .. } => Sent::Nobody,
            Delivered { crowded: false, .. } => Sent::Taken,
            Delivered { crowded: true, .. } => Sent::Crowded,
        }
    }

    fn is_crowded(&mut self, to: &str) -> bool {
        // Before it is asked for: it may be told before the answer is here.
        self.waits_for_room.store(true, Ordering::SeqCst);
        self.router.is_crowded(to)
    }

    fn interest(&mut self, subject: &str, queue: Option<&str>) -> bool {
        self.router.has_interest(subject, queue)
    }

    fn advisory(&mut self, kind: &str, body: serde_json::Value) {
        self.advisories.push((kind.to_owned(), body));
    }

    fn render<'a>(&self, message: &'a Stored) -> Cow<'a, [u8]> {
        match self.builtin {
            Some(builtin) => builtin.render(message),
            None => message.payload().into(),
        }
    }
}

impl Entry {
    pub(crate) fn new(
        config: StreamConfig,
        store: Arc<dyn Store>,
        created_ns: i64,
        builtin: Option<Arc<dyn Builtin>>,
        slow_acks: bool,
    ) -> Self {
        let window = Duration::from_nanos(u64::try_from(config.duplicate_window).unwrap_or(0));
        let (mut dedupe, mut last_msg_id) = (Dedupe::new(window), String::new());
        // The sensor's own streams sort their duplicates out themselves.
        if builtin.is_none() {
            remember(&*store, window, &mut dedupe, &mut last_msg_id);
        }
        let state = State {
            config: config.clone(),
            consumers: BTreeMap::new(),
            dedupe,
            last_msg_id,
            owed: VecDeque::new(),
            deleted: false,
            refused: 0,
        };
        Self {
            name: config.name,
            store,
            created_ns,
            builtin,
            taps: Mutex::default(),
            places: Mutex::default(),
            slow_acks,
            touched: AtomicBool::new(false),
            waits_for_room: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The lock, if nobody has it.
    pub(crate) fn state_if_free(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }

    pub(crate) fn outbox<'a>(&'a self, router: &'a dyn Router) -> Outbox<'a> {
        Outbox { router, builtin: self.builtin.as_deref(), waits_for_room: &self.waits_for_room, advisories: Vec::new() }
    }

    /// A message was published on one of the stream's subjects.
    pub(crate) fn publish(&self, message: &Routed<'_>, time: Time, router: &dyn Router) {
        let mut state = self.state();
        if state.deleted {
            return;
        }
        let reply = message.reply.filter(|_| !state.config.no_ack);
        match state.store(self, message, time) {
            Ok(Accepted::New(seq)) => {
                if let Some(reply) = reply {
                    state.owed.push_back((seq, reply.to_owned(), ack(&self.name, seq, false)));
                }
            }
            Ok(Accepted::Duplicate(seq)) => {
                if let Some(reply) = reply {
                    state.owed.push_back((seq, reply.to_owned(), ack(&self.name, seq, true)));
                }
            }
            Err(error) => {
                state.refused += 1;
                if let Some(reply) = reply {
                    drop(state);
                    answer(router, reply, &refusal(&self.name, &error));
                }
            }
        }
    }

    /// Writes what was published and sends the acknowledgements that are due.
    pub(crate) fn flush(&self, router: &dyn Router) {
        let result = self.store.flush();
        let mut state = self.state();
        if let Err(error) = result {
            let error = ApiError::store_failed(&error);
            let lost = |seq: u64| self.store.lost(seq);
            let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.owed).into_iter().partition(|(seq, ..)| lost(*seq));
            state.owed = kept;
            state.refused += gone.len() as u64;
            for (_, reply, _) in gone {
                answer(router, &reply, &refusal(&self.name, &error));
            }
        }
        self.acknowledge(&mut state, router);
    }

    /// Sends the acknowledgements of everything that is as safe as the stream promises.
    pub(crate) fn acknowledge(&self, state: &mut State, router: &dyn Router) {
        if state.owed.is_empty() {
            return;
        }
        let acked_seq = self.store.durable().borrow().acked_seq;
        while let Some((seq, reply, body)) = state.owed.pop_front_if(|(seq, ..)| *seq <= acked_seq) {
            if self.store.lost(seq) {
                let error = ApiError::store_failed("the message could not be written");
                answer(router, &reply, &refusal(&self.name, &error));
            } else {
                answer(router, &reply, &body);
            }
        }
    }

    /// Lets every consumer hand out what it can.
    pub(crate) fn pump(&self, time: Time, router: &dyn Router) -> Option<u64> {
        self.touched.store(false, Ordering::Release);
        let mut outbox = self.outbox(router);
        let mut deadline: Option<u64> = None;
        {
            let mut state = self.state();
            if state.deleted {
                return None;
            }
            for consumer in state.consumers.values_mut() {
                // One that panics ends neither the others' deliveries nor the connection that happened to bring them about.
                if survives("a consumer's delivery", &self.name, || consumer.pump(&*self.store, time, &mut outbox)).is_none() {
                    consumer.find_its_feet(&*self.store);
                }
                deadline = [deadline, consumer.deadline_ns(time)].into_iter().flatten().min();
            }
        }
        publish_advisories(router, &self.name, time, outbox.advisories);
        deadline
    }
}

/// Tells what happened to whoever listens.
pub(crate) fn publish_advisories(router: &dyn Router, stream: &str, time: Time, advisories: Vec<(String, serde_json::Value)>) {
    for (kind, mut body) in advisories {
        body["id"] = super::api::made_up_name(ADVISORY_ID).unwrap_or_default().into();
        body["timestamp"] = super::api::timestamp(time.wall_ns).into();
        let consumer = body.get("consumer").and_then(|consumer| consumer.as_str()).unwrap_or_default();
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.{stream}.{consumer}");
        let payload = body.to_string();
        router.publish(&Routed { subject: &subject, reply: None, headers: b"", payload: payload.as_bytes(), module: None });
    }
}

fn remember(store: &dyn Store, window: Duration, dedupe: &mut Dedupe, last_msg_id: &mut String) {
    ids_of_window(store, store.state().last_time_ns, window, |id, seq, time_ns| {
        last_msg_id.clear();
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            dedupe.insert(id, seq, time_ns);
            last_msg_id.push_str(id);
        }
    });
}

/// An acknowledgement, in nats-server's bytes.
fn ack(stream: &str, seq: u64, duplicate: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(40 + stream.len());
    body.extend_from_slice(b"{\"stream\":\"");
    body.extend_from_slice(stream.as_bytes());
    body.extend_from_slice(b"\",\"seq\":");
    body.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
    body.extend_from_slice(if duplicate { b",\"duplicate\": true}" } else { b"}" });
    body
}

fn refusal(stream: &str, error: &ApiError) -> Vec<u8> {
    serde_json::json!({ "error": error, "stream": stream, "seq": 0 }).to_string().into_bytes()
}

pub(crate) fn answer(router: &dyn Router, reply: &str, body: &[u8]) {
    answer_with(router, reply, b"", body);
}

/// An answer with headers, or of headers alone.
pub(crate) fn answer_with(router: &dyn Router, reply: &str, headers: &[u8], body: &[u8]) -> Delivered {
    router.deliver(reply, &Routed { subject: reply, reply: None, headers, payload: body, module: None })
}

enum Accepted {
    New(u64),
    Duplicate(u64),
}

fn store_error(error: &StoreError) -> ApiError {
    ApiError::store_failed(error)
}

impl State {
    /// A consumer that this module, or whoever is none, may know of.
    pub(crate) fn consumer(&mut self, name: &str, module: Option<&str>) -> Option<&mut Consumer> {
        self.consumers.get_mut(name).filter(|consumer| consumer.is_for(module))
    }

    /// The publish path, in nats-server's order of checks.
    fn store(&mut self, entry: &Entry, message: &Routed<'_>, time: Time) -> Result<Accepted, ApiError> {
        let Routed { subject, headers: block, payload, .. } = *message;
        let store = &*entry.store;
        if let Some(builtin) = &entry.builtin {
            let ack = builtin.publish(message).map_err(ApiError::stream_create)?;
            return Ok(if ack.duplicate { Accepted::Duplicate(ack.seq) } else { Accepted::New(ack.seq) });
        }
        if self.config.sealed {
            return Err(ApiError::sealed());
        }
        let mut msg_id = None;
        let mut rollup = None;
        if !block.is_empty() {
            let get = |name: &str| headers::get(block, name).filter(|value| !value.is_empty());
            if get("Nats-Expected-Stream").is_some_and(|stream| stream != entry.name) {
                return Err(ApiError::expected_stream());
            }
            if get("Nats-TTL").is_some() {
                return Err(ApiError::ttl_disabled());
            }
            if let Some(expected) = get("Nats-Expected-Last-Subject-Sequence") {
                let expected = number(expected);
                let of = get("Nats-Expected-Last-Subject-Sequence-Subject").unwrap_or(subject);
                let filter: Filter = of.parse::<Pattern>().map_err(|_| ApiError::bad_request())?.into();
                let last = store.last(&filter, u64::MAX).map_err(|error| ApiError::store_failed(&error))?.map_or(0, |last| last.seq);
                if last != expected {
                    return Err(ApiError::wrong_last_sequence(last));
                }
            }
            if let Some(expected) = get("Nats-Expected-Last-Sequence") {
                let last = store.state().last_seq;
                if number(expected) != last {
                    return Err(ApiError::wrong_last_sequence(last));
                }
            }
            msg_id = get(headers::MSG_ID);
            // One that could not be written does not make its repetition a duplicate.
            if let Some(seq) = msg_id.and_then(|id| self.dedupe.find(id, time.wall_ns)).filter(|seq| !store.lost(*seq)) {
                return Ok(Accepted::Duplicate(seq));
            }
            if get("Nats-Expected-Last-Msg-Id").is_some_and(|expected| expected != self.last_msg_id) {
                return Err(ApiError::wrong_last_msg_id(&self.last_msg_id));
            }
            rollup = get("Nats-Rollup").map(str::to_ascii_lowercase);
            if rollup.is_some() && !self.config.allow_rollup_hdrs {
                return Err(ApiError::rollup_failed("rollup not permitted"));
            }
            if let Some(kind) = rollup.as_ref().filter(|kind| *kind != "sub" && *kind != "all") {
                return Err(ApiError::rollup_failed(format!("rollup value invalid: {kind:?}")));
            }
        }
        let max = self.config.max_msg_size;
        if max >= 0 && (block.len() + payload.len()) as i64 > max {
            return Err(ApiError::message_too_large());
        }
        if block.len() > MAX_HEADERS || block.len() > crate::log::record::MAX_TEXT {
            return Err(ApiError::headers_too_large());
        }
        if self.config.discard == Discard::New && rollup.is_none() {
            self.check_room(store, subject, block.len() + payload.len())?;
        }
        let put = Put { subject, headers: block, payload, time_ns: time.wall_ns };
        let seq = store.append(&[put]).map_err(|error| store_error(&error))?;
        self.last_msg_id.clear();
        if let Some(id) = msg_id {
            self.dedupe.insert(id, seq, time.wall_ns);
            self.last_msg_id.push_str(id);
        }
        if let Some(kind) = rollup {
            let filter = match kind.as_str() {
                "sub" => subject.parse::<Pattern>().map(Filter::from).unwrap_or_default(),
                _ => Filter::all(),
            };
            let purge = Purge { filter, below: Some(seq), keep: 0 };
            // The message is stored, which is what its publisher asks: sent again it would be there twice.
            if let Err(error) = store.purge(&purge) {
                tracing::warn!(stream = entry.name, seq, %error, "a roll-up is stored, what it replaces could not be deleted");
            }
        }
        Ok(Accepted::New(seq))
    }

    /// Nothing that is owed will be acknowledged.
    pub(crate) fn refuse_owed(&mut self, stream: &str, error: &ApiError, router: &dyn Router) {
        for (_, reply, _) in self.owed.drain(..) {
            answer(router, &reply, &refusal(stream, error));
        }
    }

    fn check_room(&self, store: &dyn Store, subject: &str, content: usize) -> Result<(), ApiError> {
        let limit = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let state = store.state();
        if self.config.discard_new_per_subject {
            let max = limit(self.config.max_msgs_per_subject).unwrap_or(u64::MAX);
            if store.subject_count(subject) >= max {
                return Err(ApiError::store_failed("maximum messages per subject exceeded"));
            }
        }
        // One that replaces another of its subject takes no room.
        let replaces = !self.config.discard_new_per_subject
            && limit(self.config.max_msgs_per_subject).is_some_and(|max| store.subject_count(subject) >= max);
        if !replaces && limit(self.config.max_msgs).is_some_and(|max| state.messages >= max) {
            return Err(ApiError::store_failed("maximum messages exceeded"));
        }
        let size = (subject.len() + content) as u64 + crate::store::MESSAGE_OVERHEAD;
        if !replaces && limit(self.config.max_bytes).is_some_and(|max| state.bytes + size > max) {
            return Err(ApiError::store_failed("maximum bytes exceeded"));
        }
        Ok(())
    }

    /// Other settings from now on.
    pub(crate) fn reconfigure(&mut self, config: StreamConfig, store: &dyn Store) -> Result<(), ApiError> {
        store.set_limits(config.limits()).map_err(|error| store_error(&error))?;
        if config.duplicate_window != self.config.duplicate_window {
            let window = Duration::from_nanos(u64::try_from(config.duplicate_window).unwrap_or(0));
            self.dedupe = Dedupe::new(window);
            remember(store, window, &mut self.dedupe, &mut self.last_msg_id);
        }
        self.config = config;
        Ok(())
    }
}

/// A sequence; what is none is one that no stream has, as in nats-server.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}
