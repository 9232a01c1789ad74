//! JetStream behind a router in memory: whatever is asked is answered, and what was answered holds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::{ConsumerConfig, StreamConfig};
use super::{JetStream, MemoryMeta, MetaStore, StoreFactory, consumer_folder};
use crate::error::OpenError;
use crate::log::lock;
use crate::nats::route::{InterestHook, Routed, Router, Tap, TapId};
use crate::pattern::Pattern;
use crate::store::{MemoryStore, Store};

/// A message that somebody got: where, reply, headers, content.
#[derive(Debug, Clone)]
struct Got {
    to: String,
    headers: String,
    payload: Vec<u8>,
}

type Tapped = (u64, Pattern, Arc<dyn Tap>);

/// Everybody listens to `_INBOX.>` and everything is noted.
#[derive(Default)]
struct Routes {
    taps: Mutex<Vec<Tapped>>,
    next: Mutex<u64>,
    got: Mutex<Vec<Got>>,
}

impl Router for Routes {
    fn publish(&self, message: &Routed<'_>) -> usize {
        let taps: Vec<Arc<dyn Tap>> =
            lock(&self.taps).iter().filter(|(_, pattern, _)| pattern.matches(message.subject)).map(|(.., tap)| Arc::clone(tap)).collect();
        taps.iter().for_each(|tap| tap.message(message));
        taps.iter().for_each(|tap| tap.batch_end());
        taps.len()
    }

    fn deliver(&self, to: &str, message: &Routed<'_>) -> usize {
        if !self.has_interest(to, None) {
            return 0;
        }
        let headers = String::from_utf8_lossy(message.headers).into_owned();
        lock(&self.got).push(Got { to: to.to_owned(), headers, payload: message.payload.to_vec() });
        1
    }

    fn flush(&self) {}

    fn has_interest(&self, subject: &str, _: Option<&str>) -> bool {
        subject.starts_with("_INBOX.")
    }

    fn tap(&self, pattern: &Pattern, tap: Arc<dyn Tap>) -> TapId {
        let mut next = lock(&self.next);
        *next += 1;
        lock(&self.taps).push((*next, pattern.clone(), tap));
        TapId(*next)
    }

    fn untap(&self, id: TapId) {
        lock(&self.taps).retain(|(of, ..)| *of != id.0);
    }

    fn on_interest(&self, _: InterestHook) {}
}

struct Memory;

impl StoreFactory for Memory {
    fn open(&self, config: &StreamConfig) -> Result<(Arc<dyn Store>, bool), OpenError> {
        Ok((Arc::new(MemoryStore::new(config.limits())), false))
    }
}

/// Takes its time for what need not be synced, so that others come in between.
#[derive(Clone, Default)]
struct Meta(Arc<MemoryMeta>);

impl MetaStore for Meta {
    fn put(&self, folder: &str, name: &str, bytes: &[u8], sync: bool) -> std::io::Result<()> {
        if !sync {
            std::thread::sleep(Duration::from_micros(500));
        }
        self.0.put(folder, name, bytes, sync)
    }

    fn get(&self, folder: &str, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.0.get(folder, name)
    }

    fn list(&self, folder: &str) -> std::io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn remove(&self, folder: &str, name: &str) -> std::io::Result<()> {
        self.0.remove(folder, name)
    }

    fn remove_folder(&self, folder: &str) -> std::io::Result<()> {
        self.0.remove_folder(folder)
    }
}

struct Bench {
    routes: Arc<Routes>,
    meta: Meta,
    jetstream: JetStream,
}

impl Bench {
    fn new() -> Self {
        let (routes, meta) = (Arc::new(Routes::default()), Meta::default());
        let jetstream = JetStream::start(routes.clone(), "test", Box::new(Memory), Box::new(meta.clone())).expect("started");
        Self { routes, meta, jetstream }
    }

    /// Publishes with a reply; everything that came there.
    fn ask(&self, subject: &str, headers: &[u8], payload: &[u8]) -> Vec<Got> {
        lock(&self.routes.got).clear();
        self.routes.publish(&Routed { subject, reply: Some("_INBOX.me"), headers, payload });
        std::mem::take(&mut *lock(&self.routes.got)).into_iter().filter(|got| got.to == "_INBOX.me").collect()
    }

    fn api(&self, subject: &str, body: &Value) -> Value {
        let got = self.ask(&format!("$JS.API.{subject}"), b"", body.to_string().as_bytes());
        assert_eq!(got.len(), 1, "{subject}: {got:?}");
        serde_json::from_slice(&got[0].payload).expect("json")
    }

    /// The number of an error, or 0.
    fn code(&self, subject: &str, body: &Value) -> u64 {
        self.api(subject, body)["error"]["err_code"].as_u64().unwrap_or(0)
    }

    fn publish(&self, subject: &str, headers: &[(&str, &str)]) -> Value {
        let mut block = String::new();
        if !headers.is_empty() {
            block.push_str("NATS/1.0\r\n");
            headers.iter().for_each(|(name, value)| block.push_str(&format!("{name}: {value}\r\n")));
            block.push_str("\r\n");
        }
        let got = self.ask(subject, block.as_bytes(), b"x");
        assert_eq!(got.len(), 1, "{subject}: {got:?}");
        serde_json::from_slice(&got[0].payload).expect("json")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

const KINDS: [&str; 24] = [
    "INFO",
    "STREAM.CREATE.S",
    "STREAM.UPDATE.S",
    "STREAM.INFO.S",
    "STREAM.DELETE.S",
    "STREAM.PURGE.S",
    "STREAM.NAMES",
    "STREAM.LIST",
    "STREAM.MSG.GET.S",
    "STREAM.MSG.DELETE.S",
    "DIRECT.GET.S",
    "DIRECT.GET.S.s.a",
    "CONSUMER.CREATE.S",
    "CONSUMER.CREATE.S.c",
    "CONSUMER.CREATE.S.c.s.a",
    "CONSUMER.DURABLE.CREATE.S.c",
    "CONSUMER.INFO.S.c",
    "CONSUMER.DELETE.S.c",
    "CONSUMER.NAMES.S",
    "CONSUMER.LIST.S",
    "CONSUMER.PAUSE.S.c",
    "STREAM.SNAPSHOT.S",
    "STREAM.LEADER.STEPDOWN.S",
    "META.LEADER.STEPDOWN",
];

/// Names that requests know, and some that none does.
const FIELDS: [&str; 52] = [
    "name",
    "subjects",
    "retention",
    "max_consumers",
    "max_msgs",
    "max_bytes",
    "max_age",
    "max_msgs_per_subject",
    "max_msg_size",
    "discard",
    "storage",
    "num_replicas",
    "duplicate_window",
    "allow_direct",
    "sealed",
    "deny_delete",
    "allow_rollup_hdrs",
    "consumer_limits",
    "metadata",
    "mirror",
    "sources",
    "stream_name",
    "config",
    "action",
    "durable_name",
    "deliver_policy",
    "opt_start_seq",
    "opt_start_time",
    "ack_policy",
    "ack_wait",
    "max_deliver",
    "backoff",
    "filter_subject",
    "filter_subjects",
    "max_waiting",
    "max_ack_pending",
    "deliver_subject",
    "idle_heartbeat",
    "flow_control",
    "inactive_threshold",
    "pause_until",
    "seq",
    "last_by_subj",
    "next_by_subj",
    "start_time",
    "batch",
    "multi_last",
    "up_to_seq",
    "keep",
    "filter",
    "offset",
    "bogus",
];

fn a_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-2_i64..6).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "S",
            "c",
            "s.a",
            "s.>",
            "s.*",
            ">",
            "",
            "all",
            "new",
            "last",
            "last_per_subject",
            "by_start_sequence",
            "by_start_time",
            "explicit",
            "none",
            "memory",
            "file",
            "2026-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "_INBOX.push",
            "create",
            "update",
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(FIELDS.to_vec()), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())),
        ]
    })
}

/// Mostly what makes sense, so that not everything ends at the first check.
fn a_request() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let fields = || prop::collection::vec((prop::sample::select(FIELDS.to_vec()), a_value()), 0..4);
    let body = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..40),
        4 => (any::<bool>(), fields()).prop_map(|(consumer, fields)| {
            let mut body = if consumer {
                json!({"stream_name": "S", "config": {"name": "c", "ack_policy": "explicit"}})
            } else {
                json!({"name": "S", "subjects": ["s.>"], "allow_direct": true})
            };
            let target = if consumer { &mut body["config"] } else { &mut body };
            fields.into_iter().for_each(|(name, value)| target[name] = value);
            body.to_string().into_bytes()
        }),
        4 => fields().prop_map(|fields| {
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
            Value::Object(fields.collect()).to_string().into_bytes()
        }),
    ];
    (prop::sample::select(KINDS.to_vec()), body)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_is_answered(requests in prop::collection::vec(a_request(), 1..20), next in prop::collection::vec(any::<u8>(), 0..30)) {
        let runtime = runtime();
        let _guard = runtime.enter();
        let bench = Bench::new();
        bench.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"], "allow_direct": true}));
        bench.api("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": {"name": "c", "ack_policy": "explicit"}}));
        bench.publish("s.a", &[]);
        for (kind, body) in &requests {
            let got = bench.ask(&format!("$JS.API.{kind}"), b"", body);
            prop_assert!(!got.is_empty(), "{kind} {} is not answered", body.escape_ascii());
            if kind.starts_with("DIRECT.") {
                prop_assert!(got.iter().all(|got| got.headers.starts_with("NATS/1.0") && got.headers.ends_with("\r\n\r\n")), "{got:?}");
                continue;
            }
            let answer: Value = serde_json::from_slice(&got.last().expect("one").payload).expect("json");
            prop_assert!(answer["type"].as_str().is_some_and(|kind| kind.starts_with("io.nats.jetstream.api.v1.")), "{answer}");
            if let Some(error) = answer.get("error") {
                prop_assert!(error["code"].as_u64().is_some_and(|code| (400..600).contains(&code)), "{answer}");
                prop_assert!(error["err_code"].as_u64().is_some_and(|code| code >= 10_000), "{answer}");
            }
            bench.ask("$JS.API.CONSUMER.MSG.NEXT.S.c", b"", &next);
            bench.ask("$JS.ACK.S.c.1.1.1.1.0", b"", &next);
            bench.ask("s.a", &next, body);
        }
    }
}

/// Ends another thread's loop, also when a check fails.
#[derive(Default)]
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Names of consumers in the files of stream `S`.
fn stored(bench: &Bench) -> BTreeSet<String> {
    bench.meta.list(&consumer_folder("S")).expect("list").into_iter().collect()
}

#[test]
fn a_deleted_consumer_stays_deleted_while_places_are_stored() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    bench.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"]}));
    let js = bench.jetstream.js.clone();
    let entry = js.stream("S").expect("there");
    std::thread::scope(|scope| {
        let done = Done::default();
        let until = Arc::clone(&done.0);
        let (js, entry) = (&js, &entry);
        scope.spawn(move || {
            while !until.load(Ordering::Relaxed) {
                js.store_places(entry, false);
            }
        });
        for n in 0..150 {
            let config = json!({"durable_name": "c", "ack_policy": "explicit", "description": n.to_string()});
            assert_eq!(bench.code("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": config})), 0);
            entry.state().consumers.get_mut("c").expect("there").dirty = true;
            std::thread::sleep(Duration::from_micros(100));
            if n % 3 == 0 {
                assert_eq!(bench.code("CONSUMER.DELETE.S.c", &json!({})), 0);
                assert_eq!(stored(&bench), BTreeSet::new(), "round {n}");
            } else {
                let bytes = bench.meta.get(&consumer_folder("S"), "c").expect("read").expect("there");
                let file: super::ConsumerFile = serde_json::from_slice(&bytes).expect("json");
                assert_eq!(file.config.description, n.to_string(), "an older place replaced a newer definition");
            }
        }
    });
}

#[test]
fn an_update_does_not_stop_listening() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    bench.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.a", "s.b"]}));
    let ids = |bench: &Bench| {
        let taps = lock(&bench.routes.taps);
        taps.iter()
            .filter(|(_, pattern, _)| !pattern.as_str().starts_with('$'))
            .map(|(id, pattern, _)| (pattern.to_string(), *id))
            .collect()
    };
    let before: BTreeSet<(String, u64)> = ids(&bench);
    assert_eq!(bench.code("STREAM.UPDATE.S", &json!({"name": "S", "subjects": ["s.a", "s.c"], "max_msgs": 3})), 0);
    let after: BTreeSet<(String, u64)> = ids(&bench);
    assert_eq!(before.intersection(&after).map(|(subject, _)| subject.as_str()).collect::<Vec<_>>(), ["s.a"]);
    assert_eq!(after.len(), 2);
    assert_eq!(bench.publish("s.c", &[])["seq"], 1);
    assert_eq!(bench.ask("s.b", b"", b"x").len(), 0);
}

#[test]
fn settings_that_would_do_nothing_are_refused_and_limits_hold() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    for (body, code) in [
        (json!({"name": "T", "allow_msg_ttl": true}), 10052),
        (json!({"name": "T", "sealed": true}), 10052),
        (json!({"name": "T", "consumer_limits": {"bogus": 1}}), 10025),
        (json!({"name": "T", "consumer_limits": null}), 0),
    ] {
        assert_eq!(bench.code("STREAM.CREATE.T", &body), code, "{body}");
    }
    let limits = json!({"max_ack_pending": 7, "inactive_threshold": 60_000_000_000_i64});
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"], "deny_purge": true, "consumer_limits": limits})), 0);
    for (config, code) in [
        (json!({"ack_policy": "explicit", "sample_freq": "100%"}), 10012),
        (json!({"ack_policy": "explicit", "pause_until": "tomorrow"}), 10025),
        (json!({"ack_policy": "explicit", "ack_wait": -1}), 10183),
        (json!({"ack_policy": "explicit", "backoff": [1, -1]}), 10184),
        (json!({"ack_policy": "explicit", "max_ack_pending": 8}), 10121),
        (json!({"ack_policy": "explicit", "inactive_threshold": 61_000_000_000_i64}), 10153),
        (json!({"deliver_subject": "_INBOX.x", "max_ack_pending": 3}), 10082),
    ] {
        assert_eq!(bench.code("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": config})), code, "{config}");
    }
    let made = bench.api("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": {"ack_policy": "explicit"}}));
    let config: ConsumerConfig = serde_json::from_value(made["config"].clone()).expect("a consumer");
    assert_eq!((config.max_ack_pending, Duration::from_nanos(config.inactive_threshold as u64)), (7, Duration::from_secs(60)));
    assert_eq!(bench.code("STREAM.PURGE.S", &json!({})), 10110);
}

#[test]
fn publishers_hear_what_nats_server_tells_them() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    bench.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"], "allow_rollup_hdrs": true}));
    let said = |subject: &str, headers: &[(&str, &str)]| bench.publish(subject, headers)["error"]["description"].clone();
    assert_eq!(bench.publish("s.a", &[("Nats-Msg-Id", "1")]), json!({"stream": "S", "seq": 1}));
    assert_eq!(bench.publish("s.a", &[("Nats-Msg-Id", "1")]), json!({"stream": "S", "seq": 1, "duplicate": true}));
    assert_eq!(said("s.a", &[("Nats-Expected-Last-Sequence", "x")]), "wrong last sequence: 1");
    assert_eq!(said("s.a", &[("Nats-Rollup", "some")]), "rollup value invalid: \"some\"");
    assert_eq!(bench.publish("s.a", &[("Nats-Rollup", "SUB")])["seq"], 2);
    assert_eq!(bench.code("STREAM.MSG.GET.S", &json!({"seq": 1})), 10037);
    assert_eq!(bench.code("STREAM.MSG.GET.S", &json!({"seq": 1, "last_by_subj": "s.a"})), 10003);
    let level = b"NATS/1.0\r\nNats-Required-Api-Level: many\r\n\r\n";
    let got = bench.ask("$JS.API.INFO", level, b"");
    let answer: Value = serde_json::from_slice(&got[0].payload).expect("json");
    assert_eq!(answer["error"]["err_code"], 10185);
}
