//! A consumer against a model that is simple enough to be believed: random publications, requests, acknowledgements, deletions, crashes
//! and steps of a clock that only exists here, all of it from one seed.
//!
//! `BARTIZAN_SIM_SEED=n cargo test -p bartizan-bus sim` plays one seed again and tells what it did; `BARTIZAN_SIM_SEEDS=n` plays so many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig};
use super::consumer::{Ack, Consumer, Output, Saved, Sent, Time};
use crate::nats::route::Routed;
use crate::pattern::Filter;
use crate::store::{Limits, MemoryStore, Purge, Put, Store};

const SEEDS: u64 = 3000;
const STEPS: u64 = 70;
const MS: u64 = 1_000_000;
/// Unix time at the clock's zero.
const EPOCH_NS: i64 = 1_800_000_000_000_000_000;
/// The clock does not look at a consumer more often: what `consumer/mod.rs` promises.
const SHORTEST_WAIT_NS: u64 = 5 * MS;
const SUBJECTS: [&str; 6] = ["a.1", "a.2", "a.3", "b.1", "b.2.x", "c"];
const PUSH_TO: &str = "push.here";

/// `SplitMix64`: the same numbers everywhere, for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

/// Something that came out of the consumer.
#[derive(Debug, Clone)]
struct Event {
    to: String,
    subject: String,
    reply: Option<String>,
    headers: String,
    payload: usize,
}

/// Who listens, and what they got.
#[derive(Default)]
struct Sink {
    deaf: BTreeSet<String>,
    events: Vec<Event>,
    advisories: Vec<String>,
}

impl Output for Sink {
    fn send(&mut self, to: &str, message: &Routed<'_>) -> Sent {
        if self.deaf.contains(to) {
            return Sent::Nobody;
        }
        self.events.push(Event {
            to: to.to_owned(),
            subject: message.subject.to_owned(),
            reply: message.reply.map(str::to_owned),
            headers: String::from_utf8_lossy(message.headers).into_owned(),
            payload: message.payload.len(),
        });
        Sent::Taken
    }

    fn is_crowded(&mut self, _: &str) -> bool {
        false
    }

    fn interest(&mut self, subject: &str, _: Option<&str>) -> bool {
        !self.deaf.contains(subject)
    }

    fn advisory(&mut self, kind: &str, _: serde_json::Value) {
        self.advisories.push(kind.to_owned());
    }
}

#[derive(Debug, Clone)]
struct Request {
    inbox: String,
    batch: u64,
    bytes: u64,
    limited: bool,
    no_wait: bool,
    expires_ns: Option<u64>,
    heartbeat: u64,
    next_heartbeat_ns: u64,
    served: bool,
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    deliveries: u64,
    due_ns: u64,
}

/// Where the consumer must be.
#[derive(Debug, Clone, Default)]
struct Model {
    next_seq: u64,
    first: BTreeSet<u64>,
    cseq: u64,
    delivered: u64,
    owed: BTreeMap<u64, Owed>,
    /// Acknowledged, ended or given up: must not come again.
    settled: BTreeSet<u64>,
}

/// What flow control must be.
struct Window {
    size: u64,
    sent: u64,
    asked: Option<(String, u64)>,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: 2 << 20, sent: 0, asked: None }
    }
}

type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($say:tt)+) => {
        if !$condition {
            return Err(format!($($say)+));
        }
    };
}

struct World {
    random: Random,
    store: MemoryStore,
    /// What the store holds: subject by sequence.
    held: BTreeMap<u64, &'static str>,
    config: ConsumerConfig,
    filter: Filter,
    consumer: Consumer,
    time: Time,
    sink: Sink,
    model: Model,
    waiting: VecDeque<Request>,
    window: Window,
    push_heartbeat_ns: u64,
    /// What is on disk, older first: the place, the settings, and what the model was then.
    saves: Vec<(Saved, ConsumerConfig, Model)>,
    /// Everything that was handed out, of whichever life: sequence, deliveries.
    given: Vec<(u64, u64)>,
    /// What was to be delivered from the beginning, or has come since.
    wanted: BTreeSet<u64>,
    floor: (u64, u64),
    exhausted: usize,
    terminated: usize,
    big: bool,
    inboxes: u64,
    story: String,
    /// The story is only written for a seed that is played again: writing it takes longer than living it.
    tells: bool,
}

impl World {
    fn new(seed: u64, tells: bool) -> Result<Self, String> {
        let mut random = Random(seed);
        let store = MemoryStore::new(Limits {
            max_msgs: random.one_in(3).then(|| 5 + random.below(30)),
            max_msgs_per_subject: random.one_in(4).then(|| 1 + random.below(5)),
            max_age: random.one_in(6).then(|| Duration::from_millis(500 + random.below(5000))),
            ..Limits::default()
        });
        let mut time = Time { ns: 1 + random.below(1000 * MS), wall_ns: 0 };
        time.wall_ns = EPOCH_NS + time.ns as i64;
        let mut held = BTreeMap::new();
        for _ in 0..random.below(25) {
            let subject = random.pick(&SUBJECTS);
            let put = Put { subject, headers: b"", payload: b"before", time_ns: time.wall_ns };
            held.insert(store.append(&[put]).map_err(|error| error.to_string())?, subject);
            time = later(time, random.below(3) * MS);
        }
        held.retain(|seq, _| store.get(*seq).is_ok_and(|message| message.is_some()));
        if random.one_in(2) {
            let gone: Vec<u64> = held.keys().copied().filter(|_| random.one_in(4)).collect();
            store.delete(&gone).map_err(|error| error.to_string())?;
            held.retain(|seq, _| !gone.contains(seq));
        }
        let config = settings(&mut random, &store).checked(&StreamConfig { name: "S".to_owned(), ..StreamConfig::default() });
        let config = config.map_err(|error| error.description)?;
        let filter = config.filter().map_err(|error| error.description)?;
        let consumer = Consumer::new("S", "c", config.clone(), &store, time).map_err(|error| error.description)?;
        let big = config.flow_control && random.one_in(4);
        let mut world = Self {
            random,
            store,
            held,
            filter,
            consumer,
            time,
            sink: Sink::default(),
            model: Model::default(),
            waiting: VecDeque::new(),
            window: Window::default(),
            push_heartbeat_ns: time.ns,
            saves: Vec::new(),
            given: Vec::new(),
            wanted: BTreeSet::new(),
            floor: (0, 0),
            exhausted: 0,
            terminated: 0,
            big,
            inboxes: 0,
            story: String::new(),
            tells,
            config,
        };
        world.begin()?;
        let begins = format!("held {:?}, {:?}", world.held, world.config);
        world.note(format_args!("{begins}"));
        world.save();
        Ok(world)
    }

    /// The model's own idea of where a new consumer begins.
    fn begin(&mut self) -> Check {
        let last = self.store.state().last_seq;
        let matching = |seq: &u64| self.held.get(seq).is_some_and(|subject| self.filter.matches(subject));
        let all: Vec<u64> = self.held.keys().copied().filter(matching).collect();
        let mut first = BTreeMap::new();
        let next_seq = match self.config.deliver_policy {
            DeliverPolicy::All => self.held.keys().next().copied().unwrap_or(last + 1),
            DeliverPolicy::New => last + 1,
            DeliverPolicy::Last => all.last().copied().unwrap_or(last + 1),
            DeliverPolicy::ByStartSequence => {
                let oldest = self.held.keys().next().copied().unwrap_or(last + 1);
                self.config.opt_start_seq.clamp(oldest, last + 1)
            }
            DeliverPolicy::LastPerSubject => {
                all.iter().for_each(|seq| {
                    first.insert(self.held[seq], *seq);
                });
                last + 1
            }
            DeliverPolicy::ByStartTime => {
                let text = self.config.opt_start_time.clone().unwrap_or_default();
                let at = text.parse::<jiff::Timestamp>().map_err(|error| error.to_string())?.as_nanosecond() as i64;
                let from = self.held.keys().copied().find(|seq| {
                    let message = self.store.get(*seq);
                    message.is_ok_and(|message| message.is_some_and(|message| message.time_ns >= at))
                });
                from.unwrap_or(last + 1)
            }
        };
        self.model.next_seq = next_seq;
        self.model.first = first.into_values().collect();
        self.model.delivered = self.model.first.first().copied().unwrap_or(next_seq) - 1;
        self.wanted = self.todo();
        self.floor = self.consumer.ack_floor;
        ensure!(self.consumer.delivered == (0, self.model.delivered), "begins at {:?}", self.consumer.delivered);
        Ok(())
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        if !self.tells {
            return;
        }
        let _ = writeln!(self.story, "{:>12} {what}", self.time.ns);
    }

    fn todo(&self) -> BTreeSet<u64> {
        let first = self.model.first.iter().copied().filter(|seq| self.held.contains_key(seq));
        let behind = self.held.range(self.model.next_seq..).filter(|(_, subject)| self.filter.matches(subject)).map(|(seq, _)| *seq);
        first.chain(behind).collect()
    }

    fn wait_ns(&self, deliveries: u64) -> u64 {
        let backoff = &self.config.backoff;
        let n = (deliveries as usize).min(backoff.len());
        (if n == 0 { self.config.ack_wait } else { backoff[n - 1] }).max(1) as u64
    }

    fn paused(&self) -> bool {
        self.consumer.is_paused(self.time)
    }

    /// What is to be handed out next: the earliest that is due again, or else the oldest that was never delivered.
    fn next(&mut self) -> Option<(u64, u64)> {
        let mut due: Vec<(u64, u64)> = self.model.owed.iter().map(|(seq, owed)| (owed.due_ns, *seq)).collect();
        due.sort_unstable();
        let now = self.time.ns;
        for (_, seq) in due.into_iter().take_while(|(due_ns, _)| *due_ns <= now) {
            let deliveries = self.model.owed[&seq].deliveries;
            let given_up = self.config.max_deliver > 0 && deliveries as i64 >= self.config.max_deliver;
            if !given_up && self.held.contains_key(&seq) {
                return Some((seq, deliveries + 1));
            }
            self.exhausted += usize::from(given_up);
            self.settle(seq);
        }
        let max = self.config.max_ack_pending;
        if self.config.ack_policy != AckPolicy::None && max > 0 && self.model.owed.len() as i64 >= max {
            return None;
        }
        self.todo().first().map(|seq| (*seq, 1))
    }

    fn settle(&mut self, seq: u64) -> bool {
        let owed = self.model.owed.remove(&seq).is_some();
        if owed {
            self.model.settled.insert(seq);
        }
        owed
    }

    /// What the stream has let go of cannot come again.
    fn let_go(&mut self) {
        let first_seq = self.store.state().first_seq;
        let gone: Vec<u64> = self.model.owed.range(..first_seq).map(|(seq, _)| *seq).collect();
        gone.into_iter().for_each(|seq| {
            self.settle(seq);
        });
    }

    fn save(&mut self) {
        self.saves.push((self.consumer.save(), self.config.clone(), self.model.clone()));
        if self.saves.len() > 3 {
            self.saves.remove(0);
        }
    }

    /// The process dies and comes back with what was on disk.
    fn crash(&mut self) -> Check {
        let (saved, config, model) = self.random.pick(&self.saves);
        // What is newer than the file that is read was never written.
        self.saves = vec![(saved.clone(), config.clone(), model.clone())];
        let saved: Saved = serde_json::from_slice(&serde_json::to_vec(&saved).map_err(|error| error.to_string())?)
            .map_err(|error| format!("a place does not read back: {error}"))?;
        self.note(format_args!("crash; back at {saved:?}"));
        self.filter = config.filter().map_err(|error| error.description)?;
        self.consumer = Consumer::restore("S", "c", config.clone(), &saved, &self.store, self.time).map_err(|error| error.description)?;
        (self.config, self.model, self.floor) = (config, model, saved.ack_floor);
        for seq in self.model.owed.keys().copied().collect::<Vec<_>>() {
            let due_ns = self.time.ns + self.wait_ns(self.model.owed[&seq].deliveries);
            self.model.owed.entry(seq).and_modify(|owed| owed.due_ns = due_ns);
        }
        self.waiting.clear();
        self.window = Window::default();
        self.push_heartbeat_ns = self.time.ns;
        self.let_go();
        Ok(())
    }

    /// Takes note of what the store deleted.
    fn reread(&mut self) {
        let store = &self.store;
        self.held.retain(|seq, _| store.get(*seq).is_ok_and(|message| message.is_some()));
    }

    fn publish(&mut self) -> Check {
        for _ in 0..=self.random.below(5) {
            let subject = self.random.pick(&SUBJECTS);
            let size = if self.big { self.random.below(700_000) } else { self.random.below(60) };
            let headers: &[u8] = if self.random.one_in(3) { b"NATS/1.0\r\nA: b\r\n\r\n" } else { b"" };
            let payload = vec![b'x'; size as usize];
            let put = Put { subject, headers, payload: &payload, time_ns: self.time.wall_ns };
            let seq = self.store.append(&[put]).map_err(|error| error.to_string())?;
            self.held.insert(seq, subject);
            if seq >= self.model.next_seq && self.filter.matches(subject) {
                self.wanted.insert(seq);
            }
            self.note(format_args!("publish {seq} {subject}"));
        }
        self.reread();
        Ok(())
    }

    fn remove(&mut self) -> Check {
        let failed = |error: crate::store::StoreError| error.to_string();
        match self.random.below(5) {
            0..=2 => {
                let seqs: Vec<u64> = self.held.keys().copied().filter(|_| self.random.one_in(4)).collect();
                self.note(format_args!("delete {seqs:?}"));
                self.store.delete(&seqs).map_err(failed)?;
            }
            3 => {
                let last = self.store.state().last_seq;
                let filter = match self.random.below(3) {
                    0 => Filter::all(),
                    _ => pattern(self.random.pick(&SUBJECTS)),
                };
                let below = self.random.one_in(2).then(|| self.random.below(last + 2));
                let purge = Purge { filter, below, keep: self.random.below(3) };
                self.note(format_args!("{purge:?}"));
                self.store.purge(&purge).map_err(failed)?;
            }
            _ => {
                let limits = Limits { max_msgs: Some(1 + self.random.below(30)), ..Limits::default() };
                self.note(format_args!("{limits:?}"));
                self.store.set_limits(limits).map_err(failed)?;
            }
        }
        self.reread();
        Ok(())
    }

    fn request(&mut self) -> Check {
        self.inboxes += 1;
        let inbox = format!("_INBOX.{}", self.inboxes);
        if self.random.one_in(12) {
            self.sink.deaf.insert(inbox.clone());
        }
        let batch = 1 + self.random.below(8);
        let expires = self.random.one_in(2).then(|| MS * (1 + self.random.below(3000)));
        let no_wait = self.random.one_in(3);
        let bytes = if self.random.one_in(3) { 60 + self.random.below(400) } else { 0 };
        let heartbeat = expires.filter(|_| self.random.one_in(2)).map_or(0, |expires| 1 + expires / (1 + self.random.below(8)));
        let body = match self.random.below(8) {
            0 => String::new(),
            1 => batch.to_string(),
            2 => "nonsense".to_owned(),
            _ => serde_json::json!({
                "batch": batch, "expires": expires, "no_wait": no_wait, "max_bytes": bytes, "idle_heartbeat": heartbeat, "id": null,
            })
            .to_string(),
        };
        self.ask(&inbox, &body)
    }

    /// Sends a request, and knows what must become of it.
    fn ask(&mut self, inbox: &str, body: &str) -> Check {
        self.note(format_args!("request {inbox} {body}"));
        self.consumer.request(body.as_bytes(), inbox, self.time, &mut self.sink);
        let wanted: serde_json::Value = if body.starts_with('{') {
            serde_json::from_str(body).unwrap_or_default()
        } else {
            body.parse::<u64>().map_or_else(|_| serde_json::json!({}), |batch| serde_json::json!({ "batch": batch }))
        };
        let number = |name: &str| wanted.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let (batch, expires, bytes, heartbeat) = (number("batch").max(1), number("expires"), number("max_bytes"), number("idle_heartbeat"));
        let deaf = &self.sink.deaf;
        let refused = if self.config.is_push() {
            Some("409 Consumer is push based".to_owned())
        } else if self.config.max_batch > 0 && batch as i64 > self.config.max_batch {
            Some(format!("409 Exceeded MaxRequestBatch of {}", self.config.max_batch))
        } else if heartbeat > 0 && heartbeat * 2 > expires {
            Some("400 Bad Request - heartbeat value too large".to_owned())
        } else {
            if self.waiting.len() as i64 >= self.config.max_waiting {
                self.waiting.retain(|request| !deaf.contains(&request.inbox));
            }
            (self.waiting.len() as i64 >= self.config.max_waiting)
                .then(|| if heartbeat > 0 { String::new() } else { "409 Exceeded MaxWaiting".to_owned() })
        };
        let told: Vec<String> = std::mem::take(&mut self.sink.events).into_iter().map(|event| line(&event)).collect();
        match refused {
            Some(line) if line.is_empty() || self.sink.deaf.contains(inbox) => ensure!(told.is_empty(), "a silent refusal said {told:?}"),
            Some(line) => ensure!(told == [line.clone()], "refused with {told:?} instead of {line}"),
            None => {
                ensure!(told.is_empty(), "a request that waits was told {told:?}");
                self.waiting.push_back(Request {
                    inbox: inbox.to_owned(),
                    batch,
                    bytes,
                    limited: bytes > 0,
                    no_wait: wanted.get("no_wait").and_then(serde_json::Value::as_bool).unwrap_or(false),
                    expires_ns: (expires > 0).then(|| self.time.ns + expires),
                    heartbeat,
                    next_heartbeat_ns: self.time.ns + heartbeat,
                    served: false,
                });
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self) -> Check {
        let owed: Vec<u64> = self.model.owed.keys().copied().collect();
        let (seq, deliveries) = match self.random.below(10) {
            // Whatever was ever given: acknowledged before, from another life, delivered again since.
            0 | 1 if !self.given.is_empty() => self.random.pick(&self.given),
            2 => (self.model.delivered + 1 + self.random.below(3), 1),
            _ if !owed.is_empty() => (self.random.pick(&owed), 1),
            _ => return Ok(()),
        };
        let delay = self.random.below(2000) * MS;
        let body = match self.random.below(10) {
            0..=3 => self.random.pick(&["", "+ACK", "+OK", "+NXT 2"]).to_owned(),
            4 => "-NAK".to_owned(),
            5 => format!("-NAK {{\"delay\":{delay}}}"),
            6 => format!("-NAK {}ms", delay / MS),
            7 => "+TERM why".to_owned(),
            _ => "+WPI".to_owned(),
        };
        self.say(seq, deliveries, &body)
    }

    fn say(&mut self, seq: u64, deliveries: u64, body: &str) -> Check {
        self.note(format_args!("{seq}: {body:?}"));
        let ack = Ack::parse(body.as_bytes()).ok_or_else(|| format!("{body} was not read"))?;
        let known = self.consumer.acknowledge(seq, (deliveries, 1), &ack, self.time, &mut self.sink);
        ensure!(known == (seq <= self.model.delivered), "an acknowledgement of {seq} was taken: {known}");
        if !known {
            return Ok(());
        }
        match ack {
            Ack::Done | Ack::Next(_) => {
                let from = if self.config.ack_policy == AckPolicy::All { 0 } else { seq };
                for seq in self.model.owed.range(from..=seq).map(|(seq, _)| *seq).collect::<Vec<_>>() {
                    self.settle(seq);
                }
            }
            Ack::Term(_) => self.terminated += usize::from(self.settle(seq)),
            Ack::Nak(delay) => {
                let due_ns = self.time.ns + delay;
                self.model.owed.entry(seq).and_modify(|owed| owed.due_ns = due_ns);
            }
            Ack::InProgress => {
                let wait = self.model.owed.get(&seq).map_or(0, |owed| self.wait_ns(owed.deliveries));
                let due_ns = self.time.ns + wait;
                self.model.owed.entry(seq).and_modify(|owed| owed.due_ns = due_ns);
            }
        }
        Ok(())
    }

    /// Other settings, as `CONSUMER.CREATE` on an existing consumer and `CONSUMER.PAUSE` give them: they are stored at once.
    fn update(&mut self) -> Check {
        let mut config = self.config.clone();
        if self.random.one_in(3) {
            let until = self.time.wall_ns + (self.random.below(2000) * MS) as i64;
            config.pause_until = self.random.one_in(3).then(|| text(until));
        } else if self.random.one_in(3) {
            filters(&mut config, &mut self.random);
        } else {
            if config.ack_policy != AckPolicy::None {
                config.max_ack_pending = 1 + self.random.below(12) as i64;
            }
            config.max_deliver = if self.random.one_in(2) { -1 } else { 4 + self.random.below(4) as i64 };
        }
        self.note(format_args!("update to {config:?}"));
        self.consumer.update(config.clone(), &self.store).map_err(|error| error.description)?;
        let filter = config.filter().map_err(|error| error.description)?;
        if filter != self.filter {
            // What passes only now is wanted only from here on, and what does not pass any longer is not wanted.
            self.filter = filter;
            let passes = |seq: &u64| self.held.get(seq).is_some_and(|subject| self.filter.matches(subject));
            self.model.first.retain(passes);
            self.wanted = self.todo();
        }
        self.config = config;
        self.let_go();
        self.saves.clear();
        self.save();
        Ok(())
    }

    fn pass(&mut self, ns: u64) -> Check {
        self.time = later(self.time, ns);
        self.store.expire(self.time.wall_ns).map_err(|error| error.to_string())?;
        self.reread();
        Ok(())
    }

    fn interest(&mut self) {
        let subject = if self.config.is_push() {
            PUSH_TO.to_owned()
        } else if self.waiting.is_empty() {
            return;
        } else {
            let n = self.random.below(self.waiting.len() as u64) as usize;
            self.waiting[n].inbox.clone()
        };
        self.note(format_args!("interest in {subject} changes"));
        if !self.sink.deaf.remove(&subject) {
            self.sink.deaf.insert(subject);
        }
    }

    fn step(&mut self) -> Check {
        match self.random.below(40) {
            0..=8 => self.publish()?,
            9..=16 if self.config.is_push() && !self.random.one_in(8) => self.confirm(),
            9..=16 => self.request()?,
            17..=25 => self.acknowledge()?,
            26..=30 => {
                let step = self.random.pick(&[0, 1, MS, 20 * MS, 300 * MS, 3000 * MS]);
                let step = self.random.below(step + 1);
                self.pass(step)?;
            }
            31 | 32 => {
                if let Some(deadline) = self.consumer.deadline_ns(self.time) {
                    self.pass((deadline - self.time.ns).min(10_000 * MS))?;
                }
            }
            33 => self.remove()?,
            34 => self.save(),
            35 => self.crash()?,
            36 => self.update()?,
            37 | 38 => self.interest(),
            _ => {}
        }
        // Mostly at once, as behind a batch; not always, because a batch may be long.
        if self.random.one_in(4) { Ok(()) } else { self.pump() }
    }

    fn confirm(&mut self) {
        if let Some((question, bytes)) = self.window.asked.clone() {
            self.note(format_args!("answer to {question}"));
            self.consumer.flow_answer("$JS.FC.S.c.0000.other");
            self.consumer.flow_answer(&question);
            self.window.asked = None;
            self.window.sent -= bytes;
            self.window.size = (self.window.size * 2).min(32 << 20);
        }
    }

    /// Lets the consumer hand out what it can, and compares everything it does.
    fn pump(&mut self) -> Check {
        self.let_go();
        self.consumer.pump(&self.store, self.time, &mut self.sink);
        let events: VecDeque<Event> = std::mem::take(&mut self.sink.events).into();
        for event in &events {
            self.note(format_args!("  -> {} {} {:?} {:?}", event.to, event.subject, event.reply, line(event)));
        }
        if self.config.is_push() {
            self.pushed(events)?
        } else {
            self.pulled(events)?
        }
        self.compare()
    }

    fn compare(&mut self) -> Check {
        let owed = self.model.owed.len();
        ensure!(self.consumer.num_ack_pending() == owed, "{} outstanding instead of {owed}", self.consumer.num_ack_pending());
        ensure!(self.consumer.num_waiting() == self.waiting.len(), "{} wait instead of {:?}", self.consumer.num_waiting(), self.waiting);
        let (left, todo) = (self.consumer.num_pending(&self.store), self.todo());
        ensure!(left == todo.len() as u64, "num_pending is {left}, left are {todo:?}");
        ensure!(self.consumer.delivered == (self.model.cseq, self.model.delivered), "delivered {:?}", self.consumer.delivered);
        let again = self.model.owed.values().filter(|owed| owed.deliveries > 1).count();
        ensure!(self.consumer.num_redelivered() == again, "num_redelivered is not {again}");
        let floor = self.consumer.ack_floor;
        ensure!(floor.0 >= self.floor.0 && floor.1 >= self.floor.1, "the floor fell from {:?} to {floor:?}", self.floor);
        ensure!(
            floor.0 <= self.consumer.delivered.0 && floor.1 <= self.consumer.delivered.1,
            "the floor {floor:?} is above what was given"
        );
        ensure!(self.model.owed.keys().next().is_none_or(|seq| floor.1 < *seq), "the floor {floor:?} is above what is outstanding");
        self.floor = floor;
        let advisories = |kind: &str| self.sink.advisories.iter().filter(|told| *told == kind).count();
        ensure!(
            advisories("MAX_DELIVERIES") == self.exhausted,
            "{} gave up, and {} were told",
            self.exhausted,
            advisories("MAX_DELIVERIES")
        );
        ensure!(advisories("MSG_TERMINATED") == self.terminated, "{} were ended", self.terminated);
        // The clock must look again before anything is late.
        let due = self.model.owed.values().map(|owed| owed.due_ns).min();
        let due = if self.paused() {
            None
        } else if !self.config.is_push() {
            due.filter(|_| !self.waiting.is_empty())
        } else if self.sink.deaf.contains(PUSH_TO) {
            // Somebody is looked for now and then as long as there is something to give.
            due.map(|_| self.time.ns + 1000 * MS)
        } else {
            due.filter(|_| self.window.sent <= self.window.size)
        };
        let requests = self
            .waiting
            .iter()
            .flat_map(|request| [request.expires_ns, (request.heartbeat > 0).then_some(request.next_heartbeat_ns)].into_iter().flatten());
        if let Some(needed) = requests.chain(due).min() {
            let deadline = self.consumer.deadline_ns(self.time).unwrap_or(u64::MAX);
            ensure!(deadline <= needed.max(self.time.ns + SHORTEST_WAIT_NS), "looks again at {deadline}, needed at {needed}");
        }
        Ok(())
    }

    /// A message came: it must be the one that was to come, told as it must be. Gives what it counts.
    fn delivered(&mut self, event: &Event) -> Result<u64, String> {
        let reply = event.reply.clone().unwrap_or_default();
        let tokens: Vec<&str> = reply.split('.').collect();
        let ["$JS", "ACK", "S", "c", numbers @ ..] = &tokens[..] else { return Err(format!("ack subject {reply}")) };
        let numbers: Vec<u64> = numbers.iter().map_while(|number| number.parse().ok()).collect();
        let [deliveries, seq, cseq, ns, left] = numbers[..] else { return Err(format!("ack subject {reply}")) };
        ensure!(!self.paused(), "paused, and {seq} came");
        ensure!(!self.model.settled.contains(&seq), "{seq} was settled and came again");
        let expected = self.next();
        ensure!(expected == Some((seq, deliveries)), "{expected:?} was to come, and ({seq}, {deliveries}) came");
        ensure!(self.held.get(&seq) == Some(&event.subject.as_str()), "{seq} came as {}", event.subject);
        let stored = self.store.get(seq).ok().flatten().ok_or_else(|| format!("{seq} does not exist"))?;
        ensure!(stored.time_ns as u64 == ns, "time {ns} of {seq}");
        ensure!(cseq == self.model.cseq + 1, "consumer sequence {cseq} behind {}", self.model.cseq);
        if self.config.headers_only {
            let size = format!("Nats-Msg-Size: {}\r\n", stored.payload().len());
            ensure!(event.payload == 0 && event.headers.contains(&size), "headers only: {event:?}");
        } else {
            ensure!(event.payload == stored.payload().len() && event.headers.as_bytes() == stored.headers(), "not as stored: {event:?}");
        }
        self.model.cseq = cseq;
        if deliveries == 1 {
            if !self.model.first.remove(&seq) {
                self.model.next_seq = seq + 1;
            }
            // What was before it and is gone will not come back either.
            self.model.first.retain(|other| *other > seq);
            self.model.delivered = self.model.delivered.max(seq);
        }
        let todo = self.todo();
        ensure!(left == todo.len() as u64, "{seq} says {left} are left, and those are {todo:?}");
        if self.config.ack_policy != AckPolicy::None {
            let due_ns = self.time.ns + self.wait_ns(deliveries);
            self.model.owed.insert(seq, Owed { deliveries, due_ns });
        }
        self.given.push((seq, deliveries));
        Ok((event.subject.len() + reply.len() + event.headers.len() + event.payload) as u64)
    }

    fn pulled(&mut self, mut events: VecDeque<Event>) -> Check {
        let now = self.time.ns;
        // First those whose time is over, and heartbeats.
        for mut request in std::mem::take(&mut self.waiting) {
            let deaf = self.sink.deaf.contains(&request.inbox);
            let (over, beat) =
                (request.expires_ns.is_some_and(|expires| expires <= now), request.heartbeat > 0 && request.next_heartbeat_ns <= now);
            if (over || beat) && !deaf {
                let told = events.pop_front().filter(|event| event.to == request.inbox && event.subject == request.inbox);
                let told = told.ok_or_else(|| format!("{request:?} was told nothing"))?;
                if over {
                    pending_headers(&told, "408 Request Timeout", &request)?;
                } else {
                    ensure!(line(&told) == "100 Idle Heartbeat", "{request:?} was told {told:?}");
                    let place = format!("Nats-Last-Consumer: {}\r\nNats-Last-Stream: {}\r\n", self.model.cseq, self.model.delivered);
                    ensure!(told.headers.contains(&place), "{place} is not in {told:?}");
                }
            }
            request.next_heartbeat_ns = if beat { now + request.heartbeat } else { request.next_heartbeat_ns };
            if !(over || beat && deaf) {
                self.waiting.push_back(request);
            }
        }
        // Then messages, each to whoever is first in line.
        while let Some(event) = events.front().filter(|event| event.reply.is_some() || line(event).starts_with("409 Message Size")).cloned()
        {
            events.pop_front();
            let mut request = loop {
                let request = self.waiting.pop_front().ok_or_else(|| format!("nobody waits for {event:?}"))?;
                if !self.sink.deaf.contains(&request.inbox) {
                    break request;
                }
            };
            ensure!(request.inbox == event.to, "{} was first, and {} got it", request.inbox, event.to);
            if event.reply.is_none() {
                pending_headers(&event, "409 Message Size Exceeds MaxBytes", &request)?;
                ensure!(request.limited && self.next().is_some(), "nothing was too large for {request:?}");
                continue;
            }
            let size = self.delivered(&event)?;
            ensure!(!request.limited || size <= request.bytes, "{size} bytes for {request:?}");
            request.served = true;
            request.batch -= 1;
            request.bytes = request.bytes.saturating_sub(size);
            request.next_heartbeat_ns = now + request.heartbeat;
            if request.batch > 0 {
                self.waiting.push_back(request);
            } else if request.bytes > 0 {
                let told = events.pop_front().filter(|told| told.to == request.inbox);
                pending_headers(&told.ok_or("a batch was not completed")?, "409 Batch Completed", &request)?;
            }
        }
        if !self.paused() && !self.waiting.is_empty() && self.next().is_some() {
            let idle = self.waiting.iter().find(|request| !self.sink.deaf.contains(&request.inbox));
            ensure!(idle.is_none(), "{idle:?} waits, and something is there");
            self.waiting.clear();
        }
        // At last those that do not wait.
        for request in std::mem::take(&mut self.waiting) {
            if !(request.no_wait && (request.served || request.expires_ns.is_none())) {
                self.waiting.push_back(request);
            } else if !self.sink.deaf.contains(&request.inbox) {
                let told = events.pop_front().filter(|told| told.to == request.inbox && line(told) == "404 No Messages");
                ensure!(told.is_some(), "{request:?} was not ended");
            }
        }
        ensure!(events.is_empty(), "came without a reason: {events:?}");
        Ok(())
    }

    fn pushed(&mut self, events: VecDeque<Event>) -> Check {
        if self.sink.deaf.contains(PUSH_TO) {
            ensure!(events.is_empty(), "nobody listens to {events:?}");
            self.window = Window::default();
            return Ok(());
        }
        let mut beats = 0;
        for event in &events {
            ensure!(event.to == PUSH_TO, "pushed to {}", event.to);
            match line(event).as_str() {
                "100 FlowControl Request" => {
                    ensure!(self.config.flow_control && self.window.asked.is_none(), "asked twice");
                    ensure!(self.window.sent > self.window.size / 2, "asked with {} bytes out", self.window.sent);
                    self.window.asked = event.reply.clone().map(|question| (question, self.window.sent));
                }
                "100 Idle Heartbeat" => {
                    beats += 1;
                    let place = format!("Nats-Last-Consumer: {}\r\nNats-Last-Stream: {}\r\n", self.model.cseq, self.model.delivered);
                    ensure!(event.headers.contains(&place), "{place} is not in {event:?}");
                    let stalled = event.headers.contains("Nats-Consumer-Stalled: $JS.FC.S.c.");
                    ensure!(stalled == (self.window.sent > self.window.size), "stalled, it says: {event:?}");
                }
                _ => {
                    ensure!(self.window.sent <= self.window.size, "{} bytes are out, and more came", self.window.sent);
                    let size = self.delivered(event)?;
                    self.push_heartbeat_ns = self.time.ns;
                    self.window.sent += if self.config.flow_control { size } else { 0 };
                }
            }
        }
        let heartbeat = self.config.idle_heartbeat as u64;
        let beat = heartbeat > 0 && self.time.ns >= self.push_heartbeat_ns + heartbeat;
        ensure!(beats == u32::from(beat), "{beats} heartbeats");
        if beat {
            self.push_heartbeat_ns = self.time.ns;
        }
        if !self.paused() && self.window.sent <= self.window.size {
            let next = self.next();
            ensure!(next.is_none(), "{next:?} was not pushed");
        }
        Ok(())
    }

    /// Everything that is owed is fetched and acknowledged; then nothing may be missing.
    fn drain(&mut self) -> Check {
        self.note(format_args!("drain"));
        self.sink.deaf.clear();
        for round in 0.. {
            ensure!(round < 500, "does not come to an end; owed {:?}, left {:?}", self.model.owed, self.todo());
            self.confirm();
            if !self.config.is_push() && self.waiting.is_empty() {
                self.inboxes += 1;
                let inbox = format!("_INBOX.{}", self.inboxes);
                self.ask(&inbox, if self.config.max_batch > 0 { "1" } else { "5" })?;
            }
            self.pump()?;
            for seq in self.model.owed.keys().copied().collect::<Vec<_>>() {
                self.say(seq, 1, "+ACK")?;
            }
            self.pump()?;
            if self.model.owed.is_empty() && self.todo().is_empty() {
                break;
            }
            if self.paused() {
                self.pass(2000 * MS)?;
            }
        }
        let given: BTreeSet<u64> = self.given.iter().map(|(seq, _)| *seq).collect();
        let missing: Vec<u64> = self.wanted.iter().copied().filter(|seq| self.held.contains_key(seq) && !given.contains(seq)).collect();
        ensure!(missing.is_empty(), "{missing:?} were never delivered");
        self.consumer.end_all("409 Consumer Deleted", &mut self.sink);
        let told = std::mem::take(&mut self.sink.events);
        ensure!(told.len() == self.waiting.len() && told.iter().all(|event| line(event) == "409 Consumer Deleted"), "ended with {told:?}");
        Ok(())
    }
}

/// The status line, or what stands for it in a message.
fn line(event: &Event) -> String {
    event.headers.lines().next().and_then(|line| line.strip_prefix("NATS/1.0 ")).unwrap_or_default().to_owned()
}

fn pending_headers(event: &Event, expected: &str, request: &Request) -> Check {
    let Request { batch, bytes, .. } = request;
    let headers = format!("NATS/1.0 {expected}\r\nNats-Pending-Messages: {batch}\r\nNats-Pending-Bytes: {bytes}\r\n\r\n");
    ensure!(event.headers == headers, "{request:?} was told {event:?} instead of {expected}");
    Ok(())
}

fn later(time: Time, ns: u64) -> Time {
    Time { ns: time.ns + ns, wall_ns: time.wall_ns + ns as i64 }
}

fn text(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(ns.into()).map(|time| time.to_string()).unwrap_or_default()
}

fn pattern(text: &str) -> Filter {
    text.parse::<crate::pattern::Pattern>().map(Filter::from).unwrap_or_default()
}

fn filters(config: &mut ConsumerConfig, random: &mut Random) {
    (config.filter_subject, config.filter_subjects) = match random.below(4) {
        0 if config.deliver_policy != DeliverPolicy::LastPerSubject => (String::new(), Vec::new()),
        0 | 1 => (random.pick(&["a.*", ">", "a.1", "b.>", "none"]).to_owned(), Vec::new()),
        _ => (
            String::new(),
            random.pick(&[vec!["a.*", "c"], vec!["b.1", "b.2.>"], vec!["a.1", "a.2"]]).into_iter().map(str::to_owned).collect(),
        ),
    };
}

fn settings(random: &mut Random, store: &MemoryStore) -> ConsumerConfig {
    let push = random.one_in(3);
    let last = store.state().last_seq;
    let wait = |random: &mut Random| (MS * (1 + random.below(1500))) as i64;
    let mut config = ConsumerConfig {
        durable_name: "c".to_owned(),
        ack_policy: random.pick(&[AckPolicy::Explicit, AckPolicy::Explicit, AckPolicy::All, AckPolicy::None]),
        deliver_policy: random.pick(&[
            DeliverPolicy::All,
            DeliverPolicy::All,
            DeliverPolicy::Last,
            DeliverPolicy::New,
            DeliverPolicy::LastPerSubject,
            DeliverPolicy::ByStartSequence,
            DeliverPolicy::ByStartTime,
        ]),
        headers_only: random.one_in(6),
        ..ConsumerConfig::default()
    };
    filters(&mut config, random);
    match config.deliver_policy {
        DeliverPolicy::ByStartSequence => config.opt_start_seq = 1 + random.below(last + 4),
        DeliverPolicy::ByStartTime => config.opt_start_time = Some(text(EPOCH_NS + random.below(1100 * MS) as i64)),
        _ => {}
    }
    if config.ack_policy != AckPolicy::None {
        config.ack_wait = wait(random);
        config.max_ack_pending = if random.one_in(4) { -1 } else { 1 + random.below(10) as i64 };
        if random.one_in(2) {
            config.max_deliver = 3 + random.below(3) as i64;
        }
        if random.one_in(3) {
            config.backoff = (0..=random.below(2)).map(|_| if random.one_in(8) { 0 } else { wait(random) }).collect();
        }
    }
    if push {
        PUSH_TO.clone_into(&mut config.deliver_subject);
        if random.one_in(2) {
            config.idle_heartbeat = 100 * MS as i64 + wait(random);
            config.flow_control = random.one_in(2);
        }
    } else {
        config.max_waiting = 1 + random.below(6) as i64;
        config.max_batch = if random.one_in(6) { 4 } else { 0 };
    }
    config
}

fn play(seed: u64, tells: bool) -> Result<(), String> {
    let world = catch_unwind(|| World::new(seed, tells)).unwrap_or_else(|_| Err("it panicked at its beginning".to_owned()));
    let mut world = world?;
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step()?;
        }
        world.drain()
    }));
    let result = result.unwrap_or_else(|_| Err("it panicked".to_owned()));
    result.map_err(|what| {
        let story: Vec<&str> = world.story.lines().collect();
        let all = std::env::var_os("BARTIZAN_SIM_SEED").is_some();
        let from = if all { 0 } else { story.len().saturating_sub(25) };
        format!("{}\n{what}", story[from..].join("\n"))
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_consumer_does_what_the_model_says() {
    let seeds = match number("BARTIZAN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BARTIZAN_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8) as u64;
    let play_some = |thread: u64| {
        let mine = seeds.clone().filter(move |seed| seed % threads == thread);
        mine.map(|seed| (seed, play(seed, false))).find_map(|(seed, result)| Some((seed, result.err()?)))
    };
    let failed: Vec<(u64, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let play_some = &play_some;
                scope.spawn(move || play_some(thread))
            })
            .collect();
        running.into_iter().filter_map(|running| running.join().expect("panics are caught in `play`")).collect()
    });
    if let Some((seed, what)) = failed.into_iter().min() {
        let what = play(seed, true).err().unwrap_or(what);
        panic!("{what}\nplay it again with BARTIZAN_SIM_SEED={seed}");
    }
}
