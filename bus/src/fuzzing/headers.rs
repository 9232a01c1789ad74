//! Header blocks, and what JetStream does because of them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::headers::{MSG_ID, get, msg_id_block};
use crate::jetstream::local::{InMemory, REPLY, TestRouter};
use crate::jetstream::{JetStream, MemoryMeta};

/// What JetStream looks for in what clients publish and ask.
const NAMES: [&str; 10] = [
    MSG_ID,
    "Nats-Expected-Stream",
    "Nats-Expected-Last-Sequence",
    "Nats-Expected-Last-Subject-Sequence",
    "Nats-Expected-Last-Subject-Sequence-Subject",
    "Nats-Expected-Last-Msg-Id",
    "Nats-Rollup",
    "Nats-TTL",
    "Nats-Required-Api-Level",
    "",
];

/// Any bytes as a header block. A value is one line of the block; what is stored under such headers is what was sent, the second publication
/// with the same message id is a duplicate of the first, and a refusal leaves the stream as it was.
pub fn headers(block: &[u8]) {
    for name in NAMES {
        let Some(value) = get(block, name) else { continue };
        assert!(!value.contains('\n') && value.trim() == value, "{name}: {value:?}");
        assert!(block.windows(value.len().max(1)).any(|part| part == value.as_bytes()) || value.is_empty());
    }
    if let Ok(id) = std::str::from_utf8(block) {
        let single = !id.contains(['\r', '\n']) && id.trim() == id;
        assert!(!single || get(&msg_id_block(id), MSG_ID) == Some(id), "{id:?}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let router = Arc::new(TestRouter::default());
    let js = JetStream::start(router.clone(), "test", Box::new(InMemory), Box::new(MemoryMeta::default())).expect("started");
    let create = br#"{"name":"S","subjects":["s.>"],"allow_direct":true,"allow_rollup_hdrs":true}"#;
    router.client("$JS.API.STREAM.CREATE.S", None, b"", create);
    router.client("s.a", None, &msg_id_block("first"), b"one");
    router.client("s.b", None, b"", b"two");
    let last = |js: &JetStream| js.stats()[0].last_seq;
    let publish = || {
        router.answers(REPLY);
        let before = last(&js);
        router.client("s.a", Some(REPLY), block, b"three");
        let answers = router.answers(REPLY);
        assert_eq!(answers.len(), 1, "{answers:?}");
        let ack: Value = serde_json::from_slice(&answers[0].1).expect("JSON");
        let seq = ack["seq"].as_u64().expect("a sequence");
        let (refused, duplicate) = (ack["error"].is_object(), ack["duplicate"] == true);
        assert_eq!(refused, ack.get("error").is_some(), "{ack}");
        assert_eq!(last(&js), before + u64::from(!refused && !duplicate), "{ack}");
        assert!(refused || duplicate || seq == before + 1, "{ack}");
        (refused, duplicate, seq)
    };
    let (refused, duplicate, seq) = publish();
    if !refused && !duplicate {
        stored_as_sent(&router, block, seq);
    }
    let id = get(block, MSG_ID).filter(|id| !id.is_empty());
    let (refused_again, duplicate_again, seq_again) = publish();
    // What is expected of the stream's last message is looked at before the id.
    if !refused && !refused_again {
        assert_eq!((duplicate_again, seq_again == seq), (id.is_some(), id.is_some()), "{id:?}");
    }
    js.close().expect("closed");
}

fn stored_as_sent(router: &TestRouter, block: &[u8], seq: u64) {
    let wanted = format!("{{\"seq\":{seq}}}");
    router.client("$JS.API.STREAM.MSG.GET.S", Some(REPLY), b"", wanted.as_bytes());
    let answers = router.answers(REPLY);
    let got: Value = serde_json::from_slice(&answers[0].1).expect("JSON");
    let headers = got["message"]["hdrs"].as_str().unwrap_or_default();
    assert_eq!(STANDARD.decode(headers).expect("base64"), block);
    assert_eq!(got["message"]["data"], STANDARD.encode(b"three"));
    router.client("$JS.API.DIRECT.GET.S", Some(REPLY), b"", wanted.as_bytes());
    let answers = router.answers(REPLY);
    let (headers, payload) = &answers[0];
    assert_eq!(payload, b"three");
    // The client's own headers come first, and may be no header block at all.
    let added = headers.strip_prefix(block.strip_suffix(b"\r\n").unwrap_or_default()).unwrap_or(headers);
    assert!(added.ends_with(b"\r\n\r\n") && added.windows(15).any(|part| part == b"Nats-Sequence: "), "{}", headers.escape_ascii());
}
