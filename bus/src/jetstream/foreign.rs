//! Whatever a client sends to the API: it never panics, never hangs and is always answered.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::local::{InMemory, REPLY, TestRouter};
use super::{JetStream, MemoryMeta};

/// Words that mean something somewhere.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "S",
        "T",
        "c",
        "p",
        "s.>",
        "s.a",
        ">",
        "*",
        "t.*",
        "",
        "a b",
        "..",
        "$JS.API.>",
        "push.to",
        "all",
        "last",
        "new",
        "none",
        "explicit",
        "last_per_subject",
        "by_start_sequence",
        "by_start_time",
        "limits",
        "memory",
        "file",
        "old",
        "instant",
        "create",
        "update",
        "2026-11-27T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "5s",
        "é",
    ]);
    prop_oneof![6 => known.prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn field() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
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
        "discard_new_per_subject",
        "first_seq",
        "allow_direct",
        "sealed",
        "deny_delete",
        "metadata",
        "consumer_limits",
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
        "flow_control",
        "headers_only",
        "max_batch",
        "max_expires",
        "deliver_subject",
        "deliver_group",
        "idle_heartbeat",
        "inactive_threshold",
        "pause_until",
        "seq",
        "keep",
        "filter",
        "last_by_subj",
        "next_by_subj",
        "start_time",
        "batch",
        "multi_last",
        "up_to_seq",
        "up_to_time",
        "no_hdr",
        "offset",
        "subject",
        "deleted_details",
        "subjects_filter",
        "expires",
        "no_wait",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "[a-z_]{0,8}"]
}

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        4 => (-2i64..20).prop_map(|n| json!(n)),
        1 => any::<i64>().prop_map(|n| json!(n)),
        1 => prop::sample::select(vec![u64::MAX, i64::MAX as u64, 1 << 40]).prop_map(|n| json!(n)),
        1 => any::<f64>().prop_map(|n| json!(n)),
    ];
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::Bool), number, word().prop_map(Value::String)];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((field(), inner), 0..8).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Settings that are mostly right, so that something behind the checks happens too.
fn almost() -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec((field(), value()), 0..3);
    let base = prop::sample::select(vec![
        json!({"name": "S", "subjects": ["s.>"], "allow_direct": true}),
        json!({"name": "T", "subjects": ["t.*"], "storage": "memory"}),
        json!({"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}),
        json!({"stream_name": "S", "config": {"durable_name": "p", "ack_policy": "explicit", "deliver_subject": "push.to", "backoff": [0, -1]}}),
        json!({"stream_name": "S", "config": {"name": "e", "deliver_policy": "last_per_subject", "filter_subject": "s.*"}}),
        json!({"batch": 3, "expires": 1}),
        json!({"seq": 1}),
        json!({}),
    ]);
    (base, fields, any::<bool>()).prop_map(|(mut base, fields, inside)| {
        let target = if inside && base.get("config").is_some() { &mut base["config"] } else { &mut base };
        fields.into_iter().for_each(|(name, value)| target[name] = value);
        base
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => almost().prop_map(|value| value.to_string().into_bytes()),
        3 => value().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(Vec::new()),
    ]
}

fn subject() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec![
        "INFO",
        "STREAM.CREATE",
        "STREAM.UPDATE",
        "STREAM.INFO",
        "STREAM.DELETE",
        "STREAM.PURGE",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.MSG.GET",
        "STREAM.MSG.DELETE",
        "DIRECT.GET",
        "CONSUMER.CREATE",
        "CONSUMER.CREATE",
        "CONSUMER.DURABLE.CREATE",
        "CONSUMER.INFO",
        "CONSUMER.DELETE",
        "CONSUMER.NAMES",
        "CONSUMER.LIST",
        "CONSUMER.PAUSE",
        "CONSUMER.MSG.NEXT",
        "STREAM",
        "NO.SUCH",
    ]);
    let token = prop::sample::select(vec!["S", "S", "S", "T", "c", "p", "e", "s", "*", ">", "é", "$KV"]);
    (kind, prop::collection::vec(token, 0..4)).prop_map(|(kind, tokens)| [&["$JS", "API", kind][..], &tokens].concat().join("."))
}

fn ack() -> impl Strategy<Value = (String, Vec<u8>)> {
    let number = || prop_oneof![Just("1".to_owned()), Just("2".to_owned()), any::<u64>().prop_map(|n| n.to_string()), word()];
    let body = prop::sample::select(vec![
        "",
        "+ACK",
        "-NAK",
        "-NAK {\"delay\":18446744073709551615}",
        "+WPI",
        "+TERM x",
        "+NXT 2",
        "-NAK 99999999h",
    ]);
    let body = prop_oneof![4 => body.prop_map(|body| body.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..20)];
    let name = prop::sample::select(vec!["c", "p", "e", "x"]);
    (name, prop::collection::vec(number(), 0..9), body)
        .prop_map(|(name, numbers, body)| (format!("$JS.ACK.S.{name}.{}", numbers.join(".")), body))
}

/// One thing that a client does.
#[derive(Debug, Clone)]
enum Sent {
    Request(String, Vec<u8>),
    Ack(String, Vec<u8>),
    Publish(&'static str, &'static [u8]),
}

fn sent() -> impl Strategy<Value = Sent> {
    let headers: Vec<&'static [u8]> = vec![
        b"",
        b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n",
        b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n",
        b"NATS/1.0\r\nNats-Expected-Last-Sequence: -1\r\n\r\n",
        b"NATS/1.0",
        b"\xff\r\n\r\n",
    ];
    prop_oneof![
        8 => (subject(), payload()).prop_map(|(subject, payload)| Sent::Request(subject, payload)),
        2 => ack().prop_map(|(subject, body)| Sent::Ack(subject, body)),
        2 => (prop::sample::select(vec!["s.a", "s.b", "t.x"]), prop::sample::select(headers)).prop_map(|(subject, headers)| Sent::Publish(subject, headers)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_request_is_answered(all in prop::collection::vec(sent(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let router = Arc::new(TestRouter::default());
        let js = JetStream::start(router.clone(), "test", Box::new(InMemory), Box::new(MemoryMeta::default())).expect("started");
        router.client("$JS.API.STREAM.CREATE.S", None, b"", br#"{"name":"S","subjects":["s.>"],"allow_direct":true}"#);
        router.client("s.a", None, b"", b"one");
        router.client("$JS.API.CONSUMER.CREATE.S.c", None, b"", br#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#);
        prop_assert_eq!(js.stats()[0].consumers.len(), 1);
        for sent in &all {
            router.answers(REPLY);
            match sent {
                Sent::Ack(subject, body) => router.client(subject, Some(REPLY), b"", body),
                Sent::Publish(subject, headers) => {
                    router.client(subject, Some(REPLY), headers, b"x");
                }
                Sent::Request(subject, body) => {
                    let waiting = |js: &JetStream| js.stats().iter().flat_map(|stream| &stream.consumers).map(|one| one.num_waiting).sum::<u64>();
                    let before = waiting(&js);
                    router.client(subject, Some(REPLY), b"", body);
                    let answers = router.answers(REPLY);
                    // A pull request may wait instead, or be dropped for its heartbeat where too many wait.
                    let waits = subject.starts_with("$JS.API.CONSUMER.MSG.NEXT.") && waiting(&js) >= before;
                    prop_assert!(!answers.is_empty() || waits, "no answer to {} {}", subject, body.escape_ascii());
                    for (headers, payload) in answers.iter().filter(|(headers, _)| headers.is_empty()).filter(|_| !subject.contains(".MSG.NEXT") && !subject.contains("DIRECT")) {
                        let json: Value = serde_json::from_slice(payload).map_err(|error| TestCaseError::fail(error.to_string()))?;
                        prop_assert!(headers.is_empty() && json["type"].is_string(), "{}", json);
                        prop_assert!(json.get("error").is_none_or(Value::is_object), "{}", json);
                    }
                }
            }
        }
        js.close().expect("closed");
    }
}
