//! Where JetStream listens: the API, acknowledgements, flow control, and the subjects of streams.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use super::consumer::Ack;
use super::stream::{Entry, answer, answer_with, publish_advisories};
use super::{Js, blocking};
use crate::log::lock;
use crate::nats::route::{Routed, Tap};

pub(super) fn register(js: &Arc<Js>) {
    let weak = Arc::downgrade(js);
    let api = Arc::new(ApiTap { js: weak.clone(), touched: Mutex::default() });
    let acks = Arc::new(AckTap { js: weak, touched: Mutex::default() });
    let mut taps = lock(&js.taps);
    let mut tap = |pattern: &str, tap: Arc<dyn Tap>| {
        if let Ok(pattern) = pattern.parse() {
            taps.push(js.router.tap(&pattern, tap));
        }
    };
    tap("$JS.API.>", api);
    tap("$JS.ACK.>", acks.clone());
    tap("$JS.FC.>", acks);
    let weak = Arc::downgrade(js);
    js.router.on_interest(Arc::new(move |subject, interested| {
        // A push consumer's subject, most likely: nothing else is subscribed to without wildcards so that it would matter here.
        if interested && let Some(js) = weak.upgrade() {
            js.interest(subject);
        }
    }));
    let weak = Arc::downgrade(js);
    js.router.on_room(Arc::new(move || {
        let Some(js) = weak.upgrade() else { return };
        for entry in js.all().into_iter().filter(|entry| entry.waits_for_room.swap(false, Ordering::SeqCst)) {
            js.arm(&entry.name);
        }
    }));
}

impl Js {
    /// Somebody listens to a subject now: push consumers for it have somebody to push to.
    fn interest(&self, subject: &str) {
        for entry in self.all() {
            let wanted = {
                let state = entry.state_if_free();
                // Whoever has the lock is about to pump anyway; the timer looks later for all.
                state.is_none_or(|state| state.consumers.values().any(|consumer| consumer.config.deliver_subject == subject))
            };
            if wanted {
                self.arm(&entry.name);
            }
        }
    }
}

/// Notes a stream that is to be pumped behind the batch.
fn touch(touched: &Mutex<Vec<Arc<Entry>>>, entry: &Arc<Entry>) {
    if !entry.touched.swap(true, Ordering::AcqRel) {
        lock(touched).push(Arc::clone(entry));
    }
}

fn pump_all(js: &Js, touched: &Mutex<Vec<Arc<Entry>>>) {
    let entries = std::mem::take(&mut *lock(touched));
    for entry in entries {
        js.pump(&entry);
    }
}

/// Whether a request of the API may wait for the disk.
fn writes(subject: &str) -> bool {
    ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE"].iter().any(|kind| subject.starts_with(kind))
        || ["CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.DELETE", "CONSUMER.PAUSE"].iter().any(|kind| subject.starts_with(kind))
}

struct ApiTap {
    js: Weak<Js>,
    touched: Mutex<Vec<Arc<Entry>>>,
}

impl Tap for ApiTap {
    fn message(&self, message: &Routed<'_>) {
        let Some(js) = self.js.upgrade() else { return };
        js.requests.fetch_add(1, Ordering::Relaxed);
        let subject = message.subject.strip_prefix("$JS.API.").unwrap_or_default();
        if let Some((stream, consumer)) = subject.strip_prefix("CONSUMER.MSG.NEXT.").and_then(|rest| rest.split_once('.')) {
            let Some(reply) = message.reply else { return };
            let found = js.stream(stream).filter(|entry| {
                let mut outbox = entry.outbox(&*js.router);
                let mut state = entry.state();
                match state.consumer(consumer, message.module) {
                    Some(consumer) => {
                        consumer.request(message.payload, reply, js.now(), &mut outbox);
                        true
                    }
                    None => false,
                }
            });
            match found {
                Some(entry) => touch(&self.touched, &entry),
                None => no_responders(&js, reply, message.subject),
            }
            return;
        }
        let pumped = if writes(subject) { blocking(|| js.api(subject, message)) } else { js.api(subject, message) };
        if let Some(entry) = pumped {
            touch(&self.touched, &entry);
        }
    }

    fn batch_end(&self) {
        if let Some(js) = self.js.upgrade() {
            pump_all(&js, &self.touched);
        }
    }
}

/// What core NATS says where nobody listens: for subjects that exist only while what they name does.
pub(super) fn no_responders(js: &Js, reply: &str, subject: &str) {
    let block = format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n");
    answer_with(&*js.router, reply, block.as_bytes(), b"");
}

/// One more than an acknowledgement's subject has.
const MOST_TOKENS: usize = 10;

struct AckTap {
    js: Weak<Js>,
    touched: Mutex<Vec<Arc<Entry>>>,
}

impl Tap for AckTap {
    fn message(&self, message: &Routed<'_>) {
        let Some(js) = self.js.upgrade() else { return };
        let (mut places, mut count, mut start) = ([""; MOST_TOKENS], 0, 0);
        for end in memchr::memchr_iter(b'.', message.subject.as_bytes()).chain([message.subject.len()]) {
            if let Some(place) = places.get_mut(count) {
                *place = &message.subject[start..end];
            }
            (count, start) = (count + 1, end + 1);
        }
        let tokens = &places[..count.min(MOST_TOKENS)];
        if let ["$JS", "FC", stream, consumer, ..] = *tokens {
            let Some(entry) = js.stream(stream) else { return };
            if let Some(consumer) = entry.state().consumer(consumer, message.module) {
                consumer.flow_answer(message.subject);
            }
            touch(&self.touched, &entry);
            return;
        }
        // As it is written here, and in no other form: who may acknowledge in one stream must not reach another by the form with domain and
        // account in front.
        let ["$JS", "ACK", stream, consumer, deliveries, seq, cseq, _, _] = *tokens else { return };
        let (Ok(deliveries), Ok(seq), Ok(cseq), Some(ack)) = (deliveries.parse(), seq.parse(), cseq.parse(), Ack::parse(message.payload))
        else {
            return;
        };
        let Some(entry) = js.stream(stream) else { return };
        let mut outbox = entry.outbox(&*js.router);
        let time = js.now();
        let known = {
            let mut state = entry.state();
            let Some(consumer) = state.consumer(consumer, message.module) else { return };
            let known = consumer.acknowledge(seq, (deliveries, cseq), &ack, time, &mut outbox);
            if let (Ack::Next(request), Some(reply)) = (&ack, message.reply) {
                consumer.request(request, reply, time, &mut outbox);
            }
            known
        };
        publish_advisories(&*js.router, &entry.name, time, outbox.advisories);
        if let (true, Some(reply)) = (known && !matches!(ack, Ack::Next(_)), message.reply) {
            answer(&*js.router, reply, b"");
        }
        touch(&self.touched, &entry);
    }

    fn batch_end(&self) {
        if let Some(js) = self.js.upgrade() {
            pump_all(&js, &self.touched);
        }
    }
}

/// What is published on a stream's subjects.
pub(super) struct StreamTap {
    js: Weak<Js>,
    entry: Weak<Entry>,
}

impl StreamTap {
    pub(super) fn new(js: &Arc<Js>, entry: &Arc<Entry>) -> Self {
        Self { js: Arc::downgrade(js), entry: Arc::downgrade(entry) }
    }
}

impl Tap for StreamTap {
    fn message(&self, message: &Routed<'_>) {
        if let (Some(js), Some(entry)) = (self.js.upgrade(), self.entry.upgrade()) {
            entry.publish(message, js.now(), &*js.router);
        }
    }

    fn batch_end(&self) {
        if let (Some(js), Some(entry)) = (self.js.upgrade(), self.entry.upgrade()) {
            js.pump(&entry);
        }
    }
}
