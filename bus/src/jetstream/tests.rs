//! JetStream behind a router in memory: what was answered holds, whoever comes in between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::local::{InMemory, REPLY, TestRouter};
use super::{JetStream, MemoryMeta, MetaStore, consumer_folder};
use crate::log::lock;

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
    router: Arc<TestRouter>,
    meta: Meta,
    jetstream: JetStream,
}

impl Bench {
    fn new() -> Self {
        let (router, meta) = (Arc::new(TestRouter::default()), Meta::default());
        let jetstream = JetStream::start(router.clone(), "test", Box::new(InMemory), Box::new(meta.clone())).expect("started");
        Self { router, meta, jetstream }
    }

    /// Publishes with a reply; the contents that came there.
    fn ask(&self, subject: &str, headers: &[u8], payload: &[u8]) -> Vec<Vec<u8>> {
        self.router.answers(REPLY);
        self.router.client(subject, Some(REPLY), headers, payload);
        self.router.answers(REPLY).into_iter().map(|(_, payload)| payload).collect()
    }

    fn answer(&self, subject: &str, headers: &[u8], payload: &[u8]) -> Value {
        let got = self.ask(subject, headers, payload);
        assert_eq!(got.len(), 1, "{subject}: {got:?}");
        serde_json::from_slice(&got[0]).expect("json")
    }

    /// The number of an error, or 0.
    fn code(&self, subject: &str, body: &Value) -> u64 {
        let answer = self.answer(&format!("$JS.API.{subject}"), b"", body.to_string().as_bytes());
        answer["error"]["err_code"].as_u64().unwrap_or(0)
    }

    fn publish(&self, subject: &str, headers: &[(&str, &str)]) -> Value {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let block = if lines.is_empty() { lines } else { format!("NATS/1.0\r\n{lines}\r\n") };
        self.answer(subject, block.as_bytes(), b"x")
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
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
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"]})), 0);
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
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.a", "s.b"]})), 0);
    let ids = |bench: &Bench| {
        let taps = lock(&bench.router.taps);
        taps.iter()
            .filter(|(_, pattern, _)| !pattern.as_str().starts_with('$'))
            .map(|(id, pattern, _)| (pattern.to_string(), id.0))
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
fn settings_that_make_no_sense_are_refused_as_nats_server_does() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"], "deny_purge": true})), 0);
    for (config, code) in [
        (json!({"ack_policy": "explicit", "pause_until": "tomorrow"}), 10025),
        (json!({"ack_policy": "explicit", "ack_wait": -1}), 10183),
        (json!({"ack_policy": "explicit", "backoff": [1, -1]}), 10184),
        (json!({"deliver_subject": "_INBOX.x", "max_ack_pending": 3}), 10082),
    ] {
        assert_eq!(bench.code("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": config})), code, "{config}");
    }
    assert_eq!(bench.code("STREAM.PURGE.S", &json!({})), 10110);
    let limits = json!({"max_ack_pending": 7, "inactive_threshold": 60_000_000_000_i64});
    assert_eq!(bench.code("STREAM.CREATE.T", &json!({"name": "T", "consumer_limits": {"bogus": 1}})), 10025);
    assert_eq!(bench.code("STREAM.CREATE.T", &json!({"name": "T", "consumer_limits": limits})), 0);
    for (config, code) in [
        (json!({"ack_policy": "explicit", "max_ack_pending": 8}), 10121),
        (json!({"ack_policy": "explicit", "max_ack_pending": -1}), 10121),
        (json!({"ack_policy": "explicit", "inactive_threshold": 61_000_000_000_i64}), 10153),
    ] {
        assert_eq!(bench.code("CONSUMER.CREATE.T.c", &json!({"stream_name": "T", "config": config})), code, "{config}");
    }
    let made = json!({"stream_name": "T", "config": {"ack_policy": "explicit"}}).to_string();
    let made = bench.answer("$JS.API.CONSUMER.CREATE.T.c", b"", made.as_bytes());
    assert_eq!((&made["config"]["max_ack_pending"], &made["config"]["inactive_threshold"]), (&json!(7), &json!(60_000_000_000_i64)));
}

#[test]
fn publishers_hear_what_nats_server_tells_them() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"], "allow_rollup_hdrs": true})), 0);
    let said = |subject: &str, headers: &[(&str, &str)]| bench.publish(subject, headers)["error"]["description"].clone();
    assert_eq!(bench.publish("s.a", &[("Nats-Msg-Id", "1")]), json!({"stream": "S", "seq": 1}));
    assert_eq!(bench.publish("s.a", &[("Nats-Msg-Id", "1")]), json!({"stream": "S", "seq": 1, "duplicate": true}));
    assert_eq!(said("s.a", &[("Nats-Expected-Last-Sequence", "x")]), "wrong last sequence: 1");
    assert_eq!(said("s.a", &[("Nats-Rollup", "some")]), "rollup value invalid: \"some\"");
    assert_eq!(bench.publish("s.a", &[("Nats-Rollup", "SUB")])["seq"], 2);
    assert_eq!(bench.code("STREAM.MSG.GET.S", &json!({"seq": 1})), 10037);
    assert_eq!(bench.code("STREAM.MSG.GET.S", &json!({"seq": 1, "last_by_subj": "s.a"})), 10003);
    let level = b"NATS/1.0\r\nNats-Required-Api-Level: many\r\n\r\n";
    assert_eq!(bench.answer("$JS.API.INFO", level, b"")["error"]["err_code"], 10185);
}

#[test]
fn a_backoff_of_nothing_ends_a_look() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"]})), 0);
    let config = json!({"ack_policy": "explicit", "backoff": [0], "deliver_subject": "push.to"});
    assert_eq!(bench.code("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": config})), 0);
    // It returns, which is what this is about.
    assert_eq!(bench.publish("s.a", &[])["seq"], 1);
}

#[test]
fn who_may_acknowledge_in_one_stream_reaches_no_other() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let bench = Bench::new();
    assert_eq!(bench.code("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"]})), 0);
    let config = json!({"durable_name": "c", "ack_policy": "explicit"});
    assert_eq!(bench.code("CONSUMER.CREATE.S.c", &json!({"stream_name": "S", "config": config})), 0);
    assert_eq!(bench.publish("s.a", &[])["seq"], 1);
    assert_eq!(bench.ask("$JS.API.CONSUMER.MSG.NEXT.S.c", b"", b"1"), [b"x"]);
    let pending = || bench.answer("$JS.API.CONSUMER.INFO.S.c", b"", b"")["num_ack_pending"].clone();
    // With permission for $JS.ACK.OTHER.> only: OTHER stands where other servers have the domain.
    for subject in ["$JS.ACK.OTHER.x.S.c.1.1.1.1.0", "$JS.ACK.OTHER.x.S.c.1.1.1.1.0.token"] {
        for payload in ["+ACK", "+TERM", "-NAK", "+NXT 1"] {
            assert_eq!(bench.ask(subject, b"", payload.as_bytes()).len(), 0, "{subject} {payload}");
            assert_eq!(pending(), 1, "{subject} {payload}");
        }
    }
    assert_eq!(bench.ask("$JS.ACK.S.c.1.1.1.1.0", b"", b"+ACK"), [b""]);
    assert_eq!(pending(), 0);
}
