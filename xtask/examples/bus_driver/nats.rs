//! The few things that a NATS client says, on a blocking socket.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::connection::Connection;
use crate::scan::{self, Op};

/// Stream of every measurement.
pub(crate) const STREAM: &str = "BENCH";
/// What it stores.
pub(crate) const SUBJECTS: &str = "bench.>";

/// A connection that has said CONNECT.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) connection: Connection,
    /// Of the last request's subscription.
    sid: u32,
}

impl Nats {
    /// Connects and waits for the first PONG.
    ///
    /// # Errors
    /// Nobody listens, or it does not want us.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let mut nats = Self { connection: Connection::open(address)?, sid: 9_000_000 };
        let connect = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"echo":true,"lang":"bus_driver","version":"0"}"#;
        nats.connection.send(format!("{connect}\r\n").as_bytes())?;
        nats.settle()?;
        Ok(nats)
    }

    /// Subscribes; takes effect before whatever is sent on this connection afterwards.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn subscribe(&mut self, subject: &str, sid: u32) -> Result<()> {
        self.connection.send(format!("SUB {subject} {sid}\r\n").as_bytes())
    }

    /// Waits until the server has seen all that was sent so far.
    ///
    /// # Errors
    /// The connection broke, or the server said `-ERR`.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.connection.send(b"PING\r\n")?;
        loop {
            match self.take()? {
                Some(Op::Pong) => return Ok(()),
                Some(_) => {}
                None => drop(self.connection.fill()?),
            }
        }
    }

    /// The next operation that is already read; PINGs are answered. Its ranges are places in [`Nats::taken`] until the next read.
    ///
    /// # Errors
    /// The connection broke, or the server said `-ERR` or no NATS.
    pub(crate) fn peek(&mut self) -> Result<Option<(Op, usize)>> {
        loop {
            match scan::next(self.connection.unread())? {
                Some((Op::Ping, len)) => {
                    self.connection.take(len);
                    self.connection.send(b"PONG\r\n")?;
                }
                Some((Op::Error(text), _)) => {
                    bail!("the server says {}", String::from_utf8_lossy(&self.connection.unread()[text]).trim())
                }
                other => return Ok(other),
            }
        }
    }

    /// As [`Nats::peek`], and takes it away.
    ///
    /// # Errors
    /// As [`Nats::peek`].
    fn take(&mut self) -> Result<Option<Op>> {
        let Some((op, len)) = self.peek()? else { return Ok(None) };
        self.connection.take(len);
        Ok(Some(op))
    }

    /// The bytes of a range of the operation that was peeked at.
    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.connection.unread()[range.clone()]
    }

    /// A request with an answer in JSON.
    ///
    /// # Errors
    /// The connection broke, nobody answers, or the answer is an error.
    pub(crate) fn api(&mut self, subject: &str, body: &str) -> Result<Value> {
        const INBOX: &str = "_INBOX.bus_driver_api";
        self.sid += 1;
        let sid = self.sid;
        let request = format!("SUB {INBOX} {sid}\r\nUNSUB {sid} 1\r\nPUB $JS.API.{subject} {INBOX} {}\r\n{body}\r\n", body.len());
        self.connection.send(request.as_bytes())?;
        loop {
            let Some((op, len)) = self.peek()? else {
                self.connection.fill().with_context(|| format!("$JS.API.{subject} is not answered"))?;
                continue;
            };
            let answer = match &op {
                Op::Message { subject, payload, .. } if self.bytes(subject) == INBOX.as_bytes() => {
                    let text = self.bytes(payload);
                    Some(serde_json::from_slice::<Value>(text).with_context(|| format!("{:?} is no JSON", String::from_utf8_lossy(text)))?)
                }
                Op::WithHeaders { subject, headers, .. } if self.bytes(subject) == INBOX.as_bytes() => {
                    bail!("$JS.API.{subject:?}: {}", String::from_utf8_lossy(self.bytes(headers)).trim())
                }
                _ => None,
            };
            self.connection.take(len);
            if let Some(answer) = answer {
                if let Some(error) = answer.get("error") {
                    bail!("$JS.API.{subject} is refused: {error}");
                }
                return Ok(answer);
            }
        }
    }

    /// Makes the stream, unlimited, in files.
    ///
    /// # Errors
    /// As [`Nats::api`].
    pub(crate) fn make_stream(&mut self, metadata: &[String]) -> Result<()> {
        let metadata: serde_json::Map<String, Value> =
            metadata.iter().filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.into())).collect();
        let mut config = serde_json::json!({
            "name": STREAM, "subjects": [SUBJECTS], "retention": "limits", "discard": "old", "storage": "file", "num_replicas": 1,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1, "max_consumers": -1,
        });
        if !metadata.is_empty() {
            config["metadata"] = Value::Object(metadata);
        }
        self.api(&format!("STREAM.CREATE.{STREAM}"), &config.to_string()).map(drop)
    }

    /// Messages in the stream.
    ///
    /// # Errors
    /// As [`Nats::api`].
    pub(crate) fn stored(&mut self) -> Result<u64> {
        let info = self.api(&format!("STREAM.INFO.{STREAM}"), "")?;
        info["state"]["messages"].as_u64().with_context(|| format!("no state.messages in {info}"))
    }

    /// Makes a pull consumer of the whole stream.
    ///
    /// # Errors
    /// As [`Nats::api`].
    pub(crate) fn make_consumer(&mut self, name: &str, ack: bool) -> Result<()> {
        let policy = if ack { "explicit" } else { "none" };
        let body = serde_json::json!({"stream_name": STREAM, "config": {
            "durable_name": name, "name": name, "deliver_policy": "all", "ack_policy": policy, "replay_policy": "instant",
        }});
        self.api(&format!("CONSUMER.CREATE.{STREAM}.{name}"), &body.to_string()).map(drop)
    }
}

/// Checks that the stream has what was acknowledged.
///
/// # Errors
/// It has another number.
pub(crate) fn check_stored(stored: u64, acknowledged: u64) -> Result<()> {
    if stored != acknowledged {
        bail!("{acknowledged} messages were acknowledged and the stream has {stored}");
    }
    Ok(())
}
