//! Messages that somebody else recorded, stored again: as many bytes as a module would publish, under the subjects they had.

use std::io::{BufRead, stdin};

use anyhow::{Context, Result, bail};
use memchr::memmem;
use serde_json::{Value, json};

use crate::Target;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nats::{self, Nats, STREAM};
use crate::scan::Op;

/// Where acknowledgements come.
const INBOX: &str = "_INBOX.bus_driver_lines";
/// Messages on the way.
const WINDOW: u64 = 512;
/// What the sensor publishes below.
const SUBJECTS: &str = "sec.>";

/// Reads lines of `bartizan bus export` and stores what is in them.
///
/// # Errors
/// A line is none of these, or a message is refused.
pub(crate) fn run(target: &Target) -> Result<Value> {
    let mut nats = Nats::open(target.address)?;
    let config = json!({
        "name": STREAM, "subjects": [SUBJECTS], "retention": "limits", "discard": "old", "storage": "file", "num_replicas": 1,
        "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1, "max_consumers": -1,
        "compression": "s2",
    });
    let made = nats.api(&format!("STREAM.CREATE.{STREAM}"), &config.to_string())?;
    let compression = made["config"]["compression"].as_str().unwrap_or("none").to_owned();
    nats.subscribe(INBOX, 1)?;
    nats.settle()?;
    let meter = Meter::start(target.pid)?;
    let (mut published, mut acknowledged, mut bytes) = (0_u64, 0_u64, 0_u64);
    let mut frames = Vec::new();
    for line in stdin().lock().split(b'\n') {
        let line = line.context("the lines cannot be read")?;
        let (subject, payload) = parts(&line).with_context(|| format!("no line of an export: {}", String::from_utf8_lossy(&line)))?;
        bytes += payload.len() as u64;
        published += 1;
        frames.extend_from_slice(b"PUB ");
        frames.extend_from_slice(subject);
        frames.extend_from_slice(format!(" {INBOX} {}\r\n", payload.len()).as_bytes());
        frames.extend_from_slice(payload);
        frames.extend_from_slice(b"\r\n");
        if published % WINDOW == 0 {
            nats.connection.send(&frames)?;
            frames.clear();
            // One window is on the way while the next is read.
            acknowledged = wait(&mut nats, acknowledged, published - WINDOW)?;
        }
    }
    nats.connection.send(&frames)?;
    acknowledged = wait(&mut nats, acknowledged, published)?;
    let mut answer = meter.stop(acknowledged, Latencies::default())?;
    nats::check_stored(nats.stored()?, acknowledged)?;
    answer["payload_bytes"] = json!(bytes);
    answer["compression"] = json!(compression);
    Ok(answer)
}

/// Subject and content of a line, as they stand there: the content is its last part.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    const SUBJECT: &[u8] = b"\"subject\":\"";
    const CONTENT: &[u8] = b"\",\"json\":";
    let start = memmem::find(line, SUBJECT)? + SUBJECT.len();
    let end = start + memmem::find(&line[start..], CONTENT)?;
    Some((&line[start..end], line[end + CONTENT.len()..].strip_suffix(b"}")?))
}

/// Reads acknowledgements until there are so many.
fn wait(nats: &mut Nats, mut acknowledged: u64, wanted: u64) -> Result<u64> {
    while acknowledged < wanted {
        let Some((op, len)) = nats.peek()? else {
            nats.connection.fill().context("messages are not acknowledged")?;
            continue;
        };
        if let Op::Message { payload, .. } = &op {
            let answer = nats.bytes(payload);
            if memmem::find(answer, b"\"error\"").is_some() {
                bail!("a message is refused: {}", String::from_utf8_lossy(answer));
            }
            acknowledged += 1;
        }
        nats.connection.take(len);
    }
    Ok(acknowledged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_and_content_are_cut_out() {
        let line = br#"{"seq":7,"time":"1970-01-01T00:00:00Z","subject":"sec.events.process.exec","json":{"a":{"b":1}}}"#;
        assert_eq!(parts(line), Some((&b"sec.events.process.exec"[..], &br#"{"a":{"b":1}}"#[..])));
        assert_eq!(parts(br#"{"seq":7,"subject":"a","text":"b"}"#), None);
    }
}
