//! Requests to JetStream's API, publications and acknowledgements, one after the other.

use std::sync::Arc;

use serde_json::Value;

use crate::jetstream::local::{InMemory, REPLY, TestRouter};
use crate::jetstream::{JetStream, MemoryMeta};

/// Where messages go that are pulled, at once or later: what comes there is no answer.
const PULLED: &str = "_INBOX.pulled";
/// Requests of one input.
const MOST: usize = 48;

/// What a line's first byte chooses: a subject behind `$JS.API.` and the type of its answer.
const REQUESTS: [(&str, &str); 28] = [
    ("INFO", "account_info"),
    ("STREAM.CREATE.S", "stream_create"),
    ("STREAM.CREATE.T", "stream_create"),
    ("STREAM.UPDATE.S", "stream_update"),
    ("STREAM.UPDATE.T", "stream_update"),
    ("STREAM.INFO.S", "stream_info"),
    ("STREAM.DELETE.S", "stream_delete"),
    ("STREAM.DELETE.T", "stream_delete"),
    ("STREAM.PURGE.S", "stream_purge"),
    ("STREAM.NAMES", "stream_names"),
    ("STREAM.LIST", "stream_list"),
    ("STREAM.MSG.GET.S", "stream_msg_get"),
    ("STREAM.MSG.GET.T", "stream_msg_get"),
    ("STREAM.MSG.DELETE.S", "stream_msg_delete"),
    ("CONSUMER.CREATE.S", "consumer_create"),
    ("CONSUMER.CREATE.S.c", "consumer_create"),
    ("CONSUMER.CREATE.S.p", "consumer_create"),
    ("CONSUMER.CREATE.S.c.s.a", "consumer_create"),
    ("CONSUMER.CREATE.T.c", "consumer_create"),
    ("CONSUMER.DURABLE.CREATE.S.c", "consumer_create"),
    ("CONSUMER.INFO.S.c", "consumer_info"),
    ("CONSUMER.DELETE.S.c", "consumer_delete"),
    ("CONSUMER.NAMES.S", "consumer_names"),
    ("CONSUMER.LIST.S", "consumer_list"),
    ("CONSUMER.PAUSE.S.c", "consumer_pause"),
    ("CONSUMER.MSG.NEXT.S.c", ""),
    ("CONSUMER.MSG.NEXT.S.p", ""),
    ("DIRECT.GET.S", ""),
];

/// Lines. The first byte of a line says what it is: a letter from `A` on a request whose body is the rest, `!` a request whose subject
/// (behind `$JS.API.`) ends at the first blank, `+` a publication and `-` an acknowledgement, whose subjects end there too. `~` in a
/// publication is an end of line, and a blank line ends its headers. Every request is answered with JSON of its type, or waits where it may.
pub fn jetstream_json(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let router = Arc::new(TestRouter::default());
    let js = JetStream::start(router.clone(), "test", Box::new(InMemory), Box::new(MemoryMeta::default())).expect("started");
    router.client("$JS.API.STREAM.CREATE.S", None, b"", br#"{"name":"S","subjects":["s.>"],"allow_direct":true}"#);
    router.client("s.a", None, b"", b"one");
    let consumer = br#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#;
    router.client("$JS.API.CONSUMER.CREATE.S.c", None, b"", consumer);
    let run = || runtime.block_on(async { tokio::task::yield_now().await });
    // Who pushes to the inbox of the answers is told nothing new, and the answers could not be told from what is pushed.
    let mixes = |line: &[u8]| line.windows(6).any(|part| part == b"_INBOX") || line.windows(2).any(|part| part == b"\\u");
    for (n, line) in data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !mixes(line)).take(MOST).enumerate() {
        act(&js, &router, line[0], &line[1..]);
        if n % 8 == 0 {
            run();
        }
    }
    run();
    ask(&js, &router, "STREAM.INFO.S", "stream_info", b"");
    let info = ask(&js, &router, "INFO", "account_info", b"").expect("an answer");
    assert!(info.get("error").is_none(), "{info}");
    js.close().expect("closed");
}

fn act(js: &JetStream, router: &TestRouter, kind: u8, rest: &[u8]) {
    let words = || {
        let blank = rest.iter().position(|byte| *byte == b' ');
        let (subject, body) = blank.map_or((rest, &b""[..]), |blank| (&rest[..blank], &rest[blank + 1..]));
        // What is no subject does not come through the server.
        std::str::from_utf8(subject).ok().filter(|subject| subject.parse::<crate::Subject>().is_ok()).map(|subject| (subject, body))
    };
    match kind {
        b'!' => {
            if let Some((subject, body)) = words() {
                ask(js, router, subject, "", body);
            }
        }
        b'+' => {
            if let Some((subject, body)) = words().filter(|(subject, _)| !subject.starts_with("$JS.")) {
                let text = body.split(|byte| *byte == b'~').collect::<Vec<_>>().join(&b"\r\n"[..]);
                let headers = text.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |end| end + 4);
                router.client(subject, Some(REPLY), &text[..headers], &text[headers..]);
                // Acknowledged or refused by each stream that has the subject.
                for (_, answer) in router.answers(REPLY) {
                    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
                    assert!(answer["stream"].is_string() && answer["seq"].is_u64(), "{answer}");
                }
            }
        }
        b'-' => {
            if let Some((subject, body)) = words() {
                router.client(&format!("$JS.ACK.{subject}"), Some(PULLED), b"", body);
            }
        }
        letter => {
            let (subject, answer) = REQUESTS[usize::from(letter.wrapping_sub(b'A')) % REQUESTS.len()];
            ask(js, router, subject, answer, rest);
        }
    }
}

/// Sends a request and looks at its answer, which is given where it is the API's JSON.
fn ask(js: &JetStream, router: &TestRouter, subject: &str, kind: &str, body: &[u8]) -> Option<Value> {
    let waiting = || js.stats().iter().flat_map(|stream| &stream.consumers).map(|one| one.num_waiting).sum::<u64>();
    let before = waiting();
    let next = subject.starts_with("CONSUMER.MSG.NEXT.");
    let reply = if next { PULLED } else { REPLY };
    router.answers(reply);
    router.client(&format!("$JS.API.{subject}"), Some(reply), b"", body);
    let answers = router.answers(reply);
    // A pull request may wait instead, or be dropped for its heartbeat where too many wait.
    assert!(!answers.is_empty() || (next && waiting() >= before), "no answer to {subject} {}", body.escape_ascii());
    if next || subject.starts_with("DIRECT.GET.") || answers.iter().any(|(headers, _)| !headers.is_empty()) {
        return None;
    }
    let mut json = Value::Null;
    for (_, payload) in &answers {
        let answer: Value = serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{error}: {}", payload.escape_ascii()));
        let found = answer["type"].as_str().unwrap_or_default();
        assert!(found.starts_with("io.nats.jetstream.api.v1."), "{answer}");
        assert!(kind.is_empty() || found == format!("io.nats.jetstream.api.v1.{kind}_response"), "{answer}");
        assert!(
            answer.get("error").is_none_or(|error| error.is_object() && error["code"].is_u64() && error["err_code"].is_u64()),
            "{answer}"
        );
        json = answer;
    }
    assert!(json.is_object(), "no answer of its type to {subject} {}", body.escape_ascii());
    Some(json)
}
