//! A seeded simulation of the consumer: everything that can happen to one happens in a random order, in virtual time, over a store in
//! memory, and after every step a model that is too simple to be wrong says what must have come out.
//!
//! A seed that fails is printed; `BARTIZAN_SIM_SEED=<seed>` runs only that one and tells its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig};
use super::consumer::{Ack, Consumer, Output, Saved, Time};
use crate::nats::route::Routed;
use crate::pattern::{Filter, Pattern};
use crate::store::{Hint, Limits, MemoryStore, Purge, Put, Store};

const SEEDS: u64 = 1_500;
const STEPS: usize = 150;
const SUBJECTS: [&str; 5] = ["s.a", "s.b", "s.c", "t.a", "t.b.c"];
const FILTERS: [&[&str]; 6] = [&[], &["s.a"], &["s.*"], &["s.b", "t.>"], &["t.*"], &["none"]];
const PUSH_TO: &str = "push.here";
const SECOND: u64 = 1_000_000_000;
/// The clock looks this late at most.
const LATE: u64 = 5_000_000;

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

#[derive(Debug)]
enum Event {
    Message { to: String, seq: u64, deliveries: u64, cseq: u64, left: u64, size: u64 },
    Status { to: String, line: String, headers: BTreeMap<String, String> },
    MaxDeliveries(u64),
    Terminated(u64),
}

/// Everybody listens, apart from those who left.
#[derive(Default)]
struct Out {
    gone: BTreeSet<String>,
    events: Vec<Event>,
}

impl Output for Out {
    fn send(&mut self, to: &str, message: &Routed<'_>) -> bool {
        if self.gone.contains(to) {
            return false;
        }
        let to = to.to_owned();
        if let Some(rest) = message.reply.and_then(|reply| reply.strip_prefix("$JS.ACK.S.c.")) {
            let numbers: Vec<u64> = rest.split('.').map(|number| number.parse().expect("a number")).collect();
            let [deliveries, seq, cseq, _, left] = numbers[..] else { panic!("{rest}") };
            let size = (message.subject.len() + message.reply.map_or(0, str::len) + message.headers.len() + message.payload.len()) as u64;
            self.events.push(Event::Message { to, seq, deliveries, cseq, left, size });
        } else {
            let block = std::str::from_utf8(message.headers).expect("text").strip_suffix("\r\n\r\n").expect("a block");
            let mut lines = block.split("\r\n");
            let line = lines.next().and_then(|line| line.strip_prefix("NATS/1.0 ")).expect("a status").to_owned();
            let headers =
                lines.map(|line| line.split_once(": ").expect("a header")).map(|(name, value)| (name.to_owned(), value.to_owned()));
            self.events.push(Event::Status { to, line, headers: headers.collect() });
        }
        true
    }

    fn interest(&mut self, subject: &str, _: Option<&str>) -> bool {
        !self.gone.contains(subject)
    }

    fn advisory(&mut self, kind: &str, body: serde_json::Value) {
        let seq = body["stream_seq"].as_u64().expect("a sequence");
        self.events.push(if kind == "MAX_DELIVERIES" { Event::MaxDeliveries(seq) } else { Event::Terminated(seq) });
    }
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    deliveries: u64,
    due_ns: u64,
}

/// What a consumer must have done.
#[derive(Debug, Clone)]
struct Model {
    config: ConsumerConfig,
    filter: Filter,
    /// What is new begins here.
    position: u64,
    first: BTreeSet<u64>,
    owed: BTreeMap<u64, Owed>,
    cseq: u64,
    sseq: u64,
    floor: (u64, u64),
}

impl Model {
    fn new(config: ConsumerConfig, store: &dyn Store) -> Self {
        let state = store.state();
        let filter = config.filter().expect("a filter");
        let all = matching(store, 1, &filter);
        let mut first = BTreeSet::new();
        let end = state.last_seq + 1;
        let position = match config.deliver_policy {
            DeliverPolicy::All => state.first_seq,
            DeliverPolicy::New => end,
            DeliverPolicy::Last => all.last().copied().unwrap_or(end),
            DeliverPolicy::LastPerSubject => {
                let newest: BTreeMap<String, u64> = all.iter().map(|seq| (subject(store, *seq), *seq)).collect();
                first = newest.into_values().collect();
                end
            }
            DeliverPolicy::ByStartSequence => config.opt_start_seq.clamp(state.first_seq, end),
            DeliverPolicy::ByStartTime => unreachable!("not simulated"),
        };
        let sseq = first.first().copied().unwrap_or(position).saturating_sub(1);
        Self { config, filter, position, first, owed: BTreeMap::new(), cseq: 0, sseq, floor: (0, sseq) }
    }

    /// What is to be delivered as new.
    fn to_come(&self, store: &dyn Store) -> BTreeSet<u64> {
        let mut to_come = matching(store, self.position, &self.filter);
        to_come.extend(self.first.iter().filter(|seq| exists(store, **seq)));
        to_come
    }

    fn acked(&self) -> bool {
        self.config.ack_policy != AckPolicy::None
    }

    fn exhausted(&self, owed: &Owed) -> bool {
        self.config.max_deliver > 0 && owed.deliveries >= self.config.max_deliver as u64
    }

    /// What is due again.
    fn due(&self, store: &dyn Store, now: u64) -> Option<u64> {
        let is_due = |(seq, owed): &(&u64, &Owed)| owed.due_ns <= now && !self.exhausted(owed) && exists(store, **seq);
        self.owed.iter().find(is_due).map(|(seq, _)| *seq)
    }

    /// What was deleted is owed no longer, at the latest when it would be due.
    fn is_void(&self, store: &dyn Store, seq: u64, owed: &Owed, now: u64) -> bool {
        !exists(store, seq) && (owed.due_ns <= now || seq < store.state().first_seq)
    }

    fn is_full(&self, store: &dyn Store, now: u64) -> bool {
        let owed = self.owed.iter().filter(|(seq, owed)| !self.is_void(store, **seq, owed, now)).count();
        self.acked() && self.config.max_ack_pending > 0 && owed as i64 >= self.config.max_ack_pending
    }

    fn deliverable(&self, store: &dyn Store, now: u64) -> bool {
        self.due(store, now).is_some() || (!self.is_full(store, now) && !self.to_come(store).is_empty())
    }

    fn wait_ns(&self, deliveries: u64) -> u64 {
        let waits = &self.config.backoff;
        let wait = if waits.is_empty() { self.config.ack_wait } else { waits[(deliveries as usize - 1).min(waits.len() - 1)] };
        wait as u64
    }

    fn settle(&mut self, seq: u64) {
        self.owed.remove(&seq);
    }
}

fn exists(store: &dyn Store, seq: u64) -> bool {
    store.get(seq).expect("memory").is_some()
}

fn subject(store: &dyn Store, seq: u64) -> String {
    store.get(seq).expect("memory").expect("there").subject().to_owned()
}

fn matching(store: &dyn Store, from: u64, filter: &Filter) -> BTreeSet<u64> {
    let (mut seqs, mut at, mut hint) = (BTreeSet::new(), from, Hint::default());
    while let Some(message) = store.next(at, filter, &mut hint).expect("memory") {
        seqs.insert(message.seq);
        at = message.seq + 1;
    }
    seqs
}

/// A pull request as its client sees it.
#[derive(Debug)]
struct Request {
    batch: u64,
    got: u64,
    bytes: Option<u64>,
    no_wait: bool,
    expires_ns: Option<u64>,
    heartbeat: u64,
    heard_ns: u64,
    ended: bool,
}

struct Sim {
    rng: Rng,
    store: MemoryStore,
    limits: Limits,
    stream: StreamConfig,
    consumer: Consumer,
    model: Model,
    /// What a restart finds.
    disk: (ConsumerConfig, Saved, Model),
    time: Time,
    out: Out,
    requests: BTreeMap<String, Request>,
    asked: u64,
    paused_until_ns: Option<u64>,
    heard_ns: u64,
    steps: String,
}

fn a_config(rng: &mut Rng, last_seq: u64) -> ConsumerConfig {
    let push = rng.chance(25);
    let ack_policy = *rng.pick(&[AckPolicy::Explicit, AckPolicy::Explicit, AckPolicy::All, AckPolicy::None]);
    let mut deliver_policy = *rng.pick(&[
        DeliverPolicy::All,
        DeliverPolicy::All,
        DeliverPolicy::New,
        DeliverPolicy::Last,
        DeliverPolicy::LastPerSubject,
        DeliverPolicy::ByStartSequence,
    ]);
    let filters = *rng.pick(&FILTERS);
    if deliver_policy == DeliverPolicy::LastPerSubject && filters.is_empty() {
        deliver_policy = DeliverPolicy::All;
    }
    let acked = ack_policy != AckPolicy::None;
    let backoff = if acked && rng.chance(25) { vec![SECOND as i64, 2 * SECOND as i64, 3 * SECOND as i64] } else { Vec::new() };
    let max_deliver = if acked && rng.chance(40) { if backoff.is_empty() { 1 + rng.below(4) as i64 } else { 4 } } else { 0 };
    ConsumerConfig {
        durable_name: "c".to_owned(),
        deliver_policy,
        opt_start_seq: if deliver_policy == DeliverPolicy::ByStartSequence { 1 + rng.below(last_seq + 5) } else { 0 },
        ack_policy,
        ack_wait: if acked { (1 + rng.below(5) as i64) * SECOND as i64 } else { 0 },
        max_deliver,
        backoff,
        filter_subjects: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        max_waiting: if push { 0 } else { 1 + rng.below(4) as i64 },
        max_ack_pending: if acked { 1 + rng.below(8) as i64 } else { 0 },
        deliver_subject: if push { PUSH_TO.to_owned() } else { String::new() },
        idle_heartbeat: if push && rng.chance(50) { SECOND as i64 } else { 0 },
        ..ConsumerConfig::default()
    }
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let some = |rng: &mut Rng, percent: u64, n: u64| if rng.chance(percent) { Some(1 + rng.below(n)) } else { None };
        let limits = Limits {
            max_msgs: some(&mut rng, 25, 20),
            max_msgs_per_subject: some(&mut rng, 25, 4),
            max_age: some(&mut rng, 20, 20).map(Duration::from_secs),
            max_bytes: None,
        };
        let stream = StreamConfig { name: "S".to_owned(), subjects: vec!["s.>".to_owned(), "t.>".to_owned()], ..StreamConfig::default() };
        let stream = stream.checked().expect("a stream");
        let store = MemoryStore::new(limits);
        let time = Time { ns: SECOND, wall_ns: 1_800_000_000 * SECOND as i64 };
        for _ in 0..rng.below(20) {
            let subject: &&str = rng.pick(&SUBJECTS);
            publish(&store, subject, time);
        }
        if rng.chance(30) {
            let last = store.state().last_seq;
            store.delete(&[last, last / 2]).expect("delete");
        }
        let config = a_config(&mut rng, store.state().last_seq).checked(&stream).expect("a consumer");
        let consumer = Consumer::new("S", "c", config.clone(), &store, time).expect("a consumer");
        let model = Model::new(config.clone(), &store);
        let disk = (config, consumer.save(), model.clone());
        let (out, requests, steps) = (Out::default(), BTreeMap::new(), String::new());
        let heard_ns = time.ns;
        Self { rng, store, limits, stream, consumer, model, disk, time, out, requests, asked: 0, paused_until_ns: None, heard_ns, steps }
    }

    fn is_paused(&self) -> bool {
        self.paused_until_ns.is_some_and(|until| until > self.time.ns)
    }

    fn live(&self) -> impl Iterator<Item = (&String, &Request)> {
        self.requests.iter().filter(|(inbox, request)| !request.ended && !self.out.gone.contains(*inbox))
    }

    fn is_bound(&self) -> bool {
        self.model.config.is_push() && !self.out.gone.contains(PUSH_TO)
    }

    fn pump(&mut self) {
        self.consumer.pump(&self.store, self.time, &mut self.out);
        self.judge();
        self.after_pump();
    }

    /// Holds what came out against the model.
    fn judge(&mut self) {
        for event in std::mem::take(&mut self.out.events) {
            let _ = writeln!(self.steps, "    {event:?}");
            match event {
                Event::Message { to, seq, deliveries, cseq, left, size } => {
                    assert!(!self.is_paused(), "a delivery while paused");
                    self.judge_message(seq, deliveries, cseq, left);
                    if !self.model.config.is_push() {
                        let now = self.time.ns;
                        let request = self.requests.get_mut(&to).expect("somebody asked");
                        assert!(!request.ended, "{to} is over");
                        request.got += 1;
                        request.heard_ns = now;
                        assert!(request.got <= request.batch, "{to} got too many");
                        if let Some(bytes) = &mut request.bytes {
                            *bytes = bytes.checked_sub(size).expect("no more bytes than were asked for");
                        }
                        request.ended = request.got == request.batch && request.bytes.is_none_or(|bytes| bytes == 0);
                    }
                    self.heard_ns = self.time.ns;
                }
                Event::Status { to, line, headers } => self.judge_status(&to, &line, &headers),
                Event::MaxDeliveries(seq) => {
                    let owed = self.model.owed[&seq];
                    assert!(self.model.exhausted(&owed) && owed.due_ns <= self.time.ns, "{seq} is not given up: {owed:?}");
                    self.model.settle(seq);
                }
                Event::Terminated(seq) => panic!("{seq} was terminated by nobody"),
            }
        }
    }

    fn judge_message(&mut self, seq: u64, deliveries: u64, cseq: u64, left: u64) {
        let (store, now) = (&self.store, self.time.ns);
        let to_come = self.model.to_come(store);
        assert_eq!(cseq, self.model.cseq + 1, "consumer sequences have no gap");
        self.model.cseq = cseq;
        if deliveries == 1 {
            assert_eq!(Some(&seq), to_come.first(), "the next new one");
            assert_eq!(left, to_come.len() as u64 - 1, "num_pending");
            assert_eq!(self.model.due(store, now), None, "what is due again goes first");
            assert!(!self.model.is_full(store, now), "more than may be pending");
            assert!(!self.model.owed.contains_key(&seq), "{seq} is new again");
            if !self.model.first.remove(&seq) {
                self.model.position = seq + 1;
            }
            self.model.sseq = self.model.sseq.max(seq);
        } else {
            let owed = *self.model.owed.get(&seq).expect("only what is owed comes again");
            assert_eq!(deliveries, owed.deliveries + 1);
            assert!(owed.due_ns <= now, "{seq} comes {} ns early", owed.due_ns - now);
            assert!(!self.model.exhausted(&owed), "{seq} comes too often");
            assert_eq!(left, to_come.len() as u64, "num_pending of one that comes again");
        }
        if self.model.acked() {
            let due_ns = now + self.model.wait_ns(deliveries);
            self.model.owed.insert(seq, Owed { deliveries, due_ns });
        }
    }

    fn judge_status(&mut self, to: &str, line: &str, headers: &BTreeMap<String, String>) {
        let now = self.time.ns;
        if line == "100 Idle Heartbeat" {
            assert_eq!(headers["Nats-Last-Consumer"], self.model.cseq.to_string());
            assert_eq!(headers["Nats-Last-Stream"], self.model.sseq.to_string());
            if self.model.config.is_push() {
                assert!(now >= self.heard_ns + self.model.config.idle_heartbeat as u64, "a heartbeat too early");
                self.heard_ns = now;
                return;
            }
        }
        let request = self.requests.get_mut(to).expect("somebody asked");
        assert!(!request.ended, "{to} is over: {line}");
        let left = || {
            assert_eq!(headers["Nats-Pending-Messages"], (request.batch - request.got).to_string());
            assert_eq!(headers["Nats-Pending-Bytes"], request.bytes.unwrap_or(0).to_string());
        };
        match line {
            "100 Idle Heartbeat" => {
                assert!(request.heartbeat > 0 && now >= request.heard_ns + request.heartbeat, "a heartbeat too early");
                request.heard_ns = now;
                return;
            }
            "404 No Messages" => assert!(request.no_wait && (request.got > 0 || request.expires_ns.is_none())),
            "408 Request Timeout" => {
                left();
                assert!(request.expires_ns.is_some_and(|expires| expires <= now), "a timeout too early");
            }
            "409 Message Size Exceeds MaxBytes" => {
                left();
                assert!(request.bytes.is_some());
            }
            "409 Batch Completed" => {
                left();
                assert!(request.got == request.batch && request.bytes.is_some_and(|bytes| bytes > 0));
            }
            "409 Exceeded MaxWaiting" => assert!(request.got == 0 && request.heartbeat == 0),
            "400 Bad Request - heartbeat value too large" => {
                assert!(request.expires_ns.is_some_and(|expires| request.heartbeat * 2 > expires - now));
            }
            other => panic!("{other}"),
        }
        request.ended = true;
    }

    /// What must hold whenever the consumer has done what it can.
    fn after_pump(&mut self) {
        let (now, paused) = (self.time.ns, self.is_paused());
        // What was deleted needs no acknowledgement any longer, some time after its time has come.
        let saved = self.consumer.save();
        let kept: BTreeSet<u64> = saved.pending.iter().map(|(seq, ..)| *seq).collect();
        let store = &self.store;
        for (seq, owed) in &self.model.owed {
            assert!(kept.contains(seq) || self.model.is_void(store, *seq, owed, now), "{seq} is forgotten: {owed:?}");
        }
        self.model.owed.retain(|seq, _| kept.contains(seq));
        assert_eq!(kept, self.model.owed.keys().copied().collect(), "what is owed");
        for (seq, _, deliveries) in &saved.pending {
            assert_eq!(*deliveries, self.model.owed[seq].deliveries);
        }
        let to_come = self.model.to_come(store);
        assert_eq!(self.consumer.num_pending(store), to_come.len() as u64, "num_pending: {to_come:?}");
        assert_eq!(self.consumer.delivered, (self.model.cseq, self.model.sseq));
        let floor = self.consumer.ack_floor;
        assert!(floor >= self.model.floor && floor.0 <= self.model.cseq && floor.1 <= self.model.sseq, "{floor:?} {:?}", self.model.floor);
        assert!(self.model.owed.keys().all(|seq| *seq > floor.1), "{floor:?} is behind what is owed: {:?}", self.model.owed);
        if self.model.owed.is_empty() && self.model.cseq > 0 {
            assert_eq!(floor, (self.model.cseq, self.model.sseq), "nothing is owed");
        }
        self.model.floor = floor;
        let deliverable = !paused && self.model.deliverable(store, now);
        if self.model.config.is_push() {
            assert!(!(deliverable && self.is_bound()), "something can be pushed and is not");
        } else {
            let waiting: Vec<_> = self.live().map(|(inbox, _)| inbox.clone()).collect();
            assert!(!deliverable || waiting.is_empty(), "{waiting:?} wait for what is there");
            for (inbox, request) in self.live() {
                assert!(request.expires_ns.is_none_or(|expires| expires > now), "{inbox} is out of time");
                assert!(!request.no_wait || (request.expires_ns.is_some() && request.got == 0), "{inbox} does not want to wait");
                assert!(request.heartbeat == 0 || now < request.heard_ns + request.heartbeat, "{inbox} hears nothing");
            }
        }
        self.judge_deadline();
    }

    /// When something will have to be done, the clock is set.
    fn judge_deadline(&self) {
        let owed = self.model.owed.iter().filter(|(seq, owed)| exists(&self.store, **seq) && !self.model.exhausted(owed));
        let due = owed.map(|(_, owed)| owed.due_ns).min();
        let (due, resumed) = if self.is_paused() { (None, self.paused_until_ns) } else { (due, None) };
        let next = if self.is_bound() {
            let beat = self.model.config.idle_heartbeat as u64;
            [due, resumed, (beat > 0).then_some(self.heard_ns + beat)].into_iter().flatten().min()
        } else {
            let asked = self.live().flat_map(|(_, request)| {
                [request.expires_ns, (request.heartbeat > 0).then_some(request.heard_ns + request.heartbeat)].into_iter().flatten()
            });
            let waits = self.live().next().is_some();
            asked.min().into_iter().chain([due, resumed].into_iter().flatten().filter(|_| waits)).min()
        };
        if let Some(next) = next {
            let deadline = self.consumer.deadline_ns(self.time).expect("the clock is set");
            assert!(deadline <= next.max(self.time.ns + LATE), "woken at {deadline}, and it must be at {next}");
        }
    }

    fn acknowledge(&mut self, seq: u64, ack: &Ack) {
        let known = self.consumer.acknowledge(seq, 1, ack, self.time, &mut self.out);
        assert_eq!(known, seq <= self.model.sseq, "who is answered");
        let terminated = matches!(ack, Ack::Term(_)) && self.model.owed.contains_key(&seq);
        if terminated {
            assert!(matches!(self.out.events.pop(), Some(Event::Terminated(at)) if at == seq));
        }
        if !known {
            return;
        }
        let now = self.time.ns;
        match ack {
            Ack::Done | Ack::Next(_) if self.model.config.ack_policy == AckPolicy::All => self.model.owed.retain(|owed, _| *owed > seq),
            Ack::Done | Ack::Next(_) | Ack::Term(_) => self.model.settle(seq),
            Ack::Nak(delay) => {
                if let Some(owed) = self.model.owed.get_mut(&seq) {
                    owed.due_ns = now + delay;
                }
            }
            Ack::InProgress => {
                if let Some(deliveries) = self.model.owed.get(&seq).map(|owed| owed.deliveries) {
                    let due_ns = now + self.model.wait_ns(deliveries);
                    self.model.owed.insert(seq, Owed { deliveries, due_ns });
                }
            }
        }
    }

    fn request(&mut self) {
        self.asked += 1;
        let inbox = format!("inbox.{}", self.asked);
        let rng = &mut self.rng;
        let batch = 1 + rng.below(6);
        let expires = if rng.chance(60) { (1 + rng.below(6)) * SECOND / 2 } else { 0 };
        let heartbeat = if expires > 0 && rng.chance(40) { SECOND / 4 * (1 + rng.below(3)) } else { 0 };
        let bytes = if rng.chance(25) { 40 + rng.below(400) } else { 0 };
        let no_wait = rng.chance(35);
        let body = format!(
            r#"{{"batch":{batch},"expires":{expires},"idle_heartbeat":{heartbeat},"max_bytes":{bytes},"no_wait":{no_wait},"group":null}}"#
        );
        let now = self.time.ns;
        let request = Request {
            batch,
            got: 0,
            bytes: (bytes > 0).then_some(bytes),
            no_wait,
            expires_ns: (expires > 0).then_some(now + expires),
            heartbeat,
            heard_ns: now,
            ended: false,
        };
        let _ = writeln!(self.steps, "{inbox} {body}");
        self.requests.insert(inbox.clone(), request);
        let waited: Vec<String> = self.live().map(|(inbox, _)| inbox.clone()).collect();
        self.consumer.request(body.as_bytes(), &inbox, self.time, &mut self.out);
        self.judge();
        // Too many with a heartbeat are dropped in silence: the client misses its heartbeats.
        if !self.requests[&inbox].ended && heartbeat > 0 && waited.len() as i64 > self.model.config.max_waiting {
            self.requests.get_mut(&inbox).expect("asked").ended = true;
        }
        assert!(self.live().count() as i64 <= self.model.config.max_waiting, "more wait than may");
    }

    fn save(&mut self) {
        self.disk = (self.consumer.config.clone(), self.consumer.save(), self.model.clone());
    }

    fn restart(&mut self) {
        let (config, saved, model) = self.disk.clone();
        let bytes = serde_json::to_vec(&(&config, &saved)).expect("json");
        let (config, saved): (ConsumerConfig, Saved) = serde_json::from_slice(&bytes).expect("json");
        self.consumer = Consumer::restore("S", "c", config, &saved, &self.store, self.time).expect("restored");
        self.model = model;
        self.paused_until_ns = None;
        self.requests.clear();
        self.heard_ns = self.time.ns;
        let waits: Vec<(u64, u64)> = self.model.owed.iter().map(|(seq, owed)| (*seq, owed.deliveries)).collect();
        for (seq, deliveries) in waits {
            let due_ns = self.time.ns + self.model.wait_ns(deliveries);
            self.model.owed.insert(seq, Owed { deliveries, due_ns });
        }
    }

    /// The stream ends earlier than the consumer's place knows.
    fn power_cut(&mut self) {
        let last_seq = self.store.state().last_seq;
        let end = last_seq - self.rng.below(last_seq.min(8) + 1);
        let store = MemoryStore::new(Limits::default());
        let mut gone = Vec::new();
        for seq in 1..=end {
            let time = |time_ns| Time { wall_ns: time_ns, ..self.time };
            match self.store.get(seq).expect("memory") {
                Some(message) => publish(&store, message.subject(), time(message.time_ns)),
                None => {
                    publish(&store, "gone", time(0));
                    gone.push(seq);
                }
            }
        }
        store.delete(&gone).expect("delete");
        store.set_limits(self.limits).expect("limits");
        self.store = store;
        self.restart();
        let model = &mut self.model;
        model.owed.retain(|seq, _| *seq <= end);
        model.first.retain(|seq| *seq <= end);
        model.position = model.position.min(end + 1);
        model.sseq = model.sseq.min(end);
        model.floor.1 = model.floor.1.min(end);
        self.save();
    }

    fn update(&mut self) {
        let mut config = self.consumer.config.clone();
        let filters = *self.rng.pick(&FILTERS);
        if config.deliver_policy != DeliverPolicy::LastPerSubject || !filters.is_empty() {
            config.filter_subjects = filters.iter().map(|filter| (*filter).to_owned()).collect();
        }
        if self.model.acked() {
            config.max_ack_pending = 1 + self.rng.below(8) as i64;
        }
        config.pause_until = None;
        let config = config.checked(&self.stream).expect("an update");
        self.consumer.update(config.clone(), &self.store).expect("updated");
        self.paused_until_ns = None;
        self.model.filter = Filter::any_of(config.filter_subjects.iter().map(|filter| filter.parse::<Pattern>().expect("a filter")));
        self.model.config = config;
        let (store, filter) = (&self.store, &self.model.filter);
        self.model.first.retain(|seq| exists(store, *seq) && filter.matches(&subject(store, *seq)));
        self.save();
    }

    fn say(&mut self, step: &str) {
        let _ = writeln!(self.steps, "{:>12} {step}", self.time.ns - SECOND);
    }

    fn advance(&mut self, ns: u64) {
        self.time.ns += ns;
        self.time.wall_ns += ns as i64;
    }

    fn step(&mut self) {
        let push = self.model.config.is_push();
        let last_seq = self.store.state().last_seq;
        match self.rng.below(100) {
            0..25 => {
                for _ in 0..1 + self.rng.below(4) {
                    let subject: &&str = self.rng.pick(&SUBJECTS);
                    publish(&self.store, subject, self.time);
                }
                self.say("publish");
            }
            25..45 if !push => self.request(),
            25..45 => {
                let leaves = self.rng.chance(25);
                self.say(if leaves { "leaves" } else { "listens" });
                if leaves {
                    self.out.gone.insert(PUSH_TO.to_owned());
                } else {
                    self.out.gone.remove(PUSH_TO);
                }
            }
            45..70 => {
                let known: Vec<u64> = self.model.owed.keys().copied().collect();
                let seq = if known.is_empty() || self.rng.chance(10) { 1 + self.rng.below(last_seq + 3) } else { *self.rng.pick(&known) };
                let ack = match self.rng.below(10) {
                    0..5 => Ack::Done,
                    5 => Ack::Nak(0),
                    6 => Ack::Nak((1 + self.rng.below(4)) * SECOND / 2),
                    7 => Ack::InProgress,
                    8 => Ack::Term("no".to_owned()),
                    _ => Ack::Next(Vec::new()),
                };
                self.say(&format!("{seq} {ack:?}"));
                self.acknowledge(seq, &ack);
            }
            70..84 => {
                let ns = match self.consumer.deadline_ns(self.time) {
                    Some(deadline) if self.rng.chance(60) => (deadline - self.time.ns).saturating_sub(self.rng.below(2)),
                    _ => self.rng.below(3 * SECOND),
                };
                self.advance(ns);
                self.store.expire(self.time.wall_ns).expect("expire");
                self.say("time");
            }
            84..88 => {
                let seqs = [1 + self.rng.below(last_seq + 1), last_seq];
                self.store.delete(&seqs[..1 + self.rng.below(2) as usize]).expect("delete");
                self.say(&format!("delete {seqs:?}"));
            }
            88..90 => {
                let filter = Filter::any_of(self.rng.pick(&FILTERS).iter().map(|filter| filter.parse::<Pattern>().expect("a filter")));
                let below = self.rng.chance(50).then(|| self.rng.below(last_seq + 2));
                let purge = Purge { filter, below, keep: self.rng.below(3) };
                self.store.purge(&purge).expect("purge");
                self.say(&format!("{purge:?}"));
            }
            90..93 => {
                let leaves = self.live().map(|(inbox, _)| inbox.clone()).next();
                if let Some(inbox) = leaves {
                    self.say(&format!("{inbox} leaves"));
                    self.out.gone.insert(inbox);
                }
            }
            93..95 => {
                self.save();
                self.say("save");
            }
            95 => {
                self.restart();
                self.say("crash");
            }
            96 => {
                self.power_cut();
                self.say("power cut");
            }
            97 => {
                self.save();
                self.restart();
                self.say("restart");
            }
            98 => {
                self.update();
                self.say("update");
            }
            _ => {
                let until = self.time.ns + self.rng.below(3 * SECOND);
                self.paused_until_ns = Some(until);
                self.consumer.paused_until_ns = Some(self.time.wall_ns + (until - self.time.ns) as i64);
                self.say("pause");
            }
        }
        self.pump();
    }

    /// Everything comes in the end.
    fn drain(&mut self) {
        self.say("drain");
        self.paused_until_ns = None;
        self.consumer.paused_until_ns = None;
        self.out.gone.remove(PUSH_TO);
        for _ in 0..1_000 {
            if self.model.owed.is_empty() && self.model.to_come(&self.store).is_empty() {
                return;
            }
            if !self.model.config.is_push() && self.live().next().is_none() {
                self.request();
            }
            self.pump();
            let owed: Vec<u64> = self.model.owed.keys().copied().collect();
            for seq in owed {
                if self.rng.chance(80) {
                    self.acknowledge(seq, &Ack::Done);
                }
            }
            self.pump();
            self.advance(SECOND);
        }
        panic!("never done: {:?} {:?}", self.model.owed, self.model.to_come(&self.store));
    }
}

fn publish(store: &MemoryStore, subject: &str, time: Time) {
    store.append(&[Put { subject, headers: b"", payload: b"x", time_ns: time.wall_ns }]).expect("append");
    store.flush().expect("flush");
}

/// Runs a seed; what went wrong, and the steps that led there.
fn run(seed: u64) -> Result<(), String> {
    let mut sim = Sim::new(seed);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        sim.pump();
        for _ in 0..STEPS {
            sim.step();
        }
        sim.drain();
    }));
    done.map_err(|_| format!("{:#?}\n{}", sim.model.config, sim.steps))
}

#[test]
fn a_consumer_does_what_its_model_does() {
    let one = std::env::var("BARTIZAN_SIM_SEED").ok().map(|seed| seed.parse::<u64>().expect("BARTIZAN_SIM_SEED is a number"));
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(steps) = run(seed) {
            if one.is_some() {
                eprintln!("{steps}");
            }
            panic!("seed {seed} fails; run it alone and see its steps with BARTIZAN_SIM_SEED={seed}");
        }
    }
}
