//! Reading a stored stream by pull requests on a raw socket: one request at a time, all acknowledgements of a batch in one write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::Target;
use crate::latency::Latencies;
use crate::memory;
use crate::meter::Meter;
use crate::nats::{Nats, STREAM};
use crate::phase::Phase;
use crate::scan::{self, Op};

/// Nanoseconds after which a pull ends that did not get all.
const EXPIRES: u64 = 5_000_000_000;

/// One consumer and where it is.
pub(crate) struct Puller {
    nats: Nats,
    batch: usize,
    ack: bool,
    inbox: String,
    name: String,
    /// Sequence of the last message.
    last: u64,
    acks: Vec<u8>,
}

impl Puller {
    /// Makes a durable consumer of the whole stream and a connection for it.
    pub(crate) fn open(target: &Target, name: &str, batch: usize, ack: bool) -> Result<Self> {
        let mut nats = Nats::open(target.address)?;
        // One's own: what another puller on the same subject gets would wait in this connection.
        let inbox = format!("_INBOX.pull_{name}");
        nats.subscribe(&inbox, 1)?;
        let mut puller = Self { nats, batch, ack, inbox, name: String::new(), last: 0, acks: Vec::new() };
        puller.begin(name)?;
        Ok(puller)
    }

    fn begin(&mut self, name: &str) -> Result<()> {
        self.nats.make_consumer(name, self.ack).with_context(|| format!("consumer {name} cannot be made"))?;
        (self.name, self.last) = (name.to_owned(), 0);
        Ok(())
    }

    /// One batch: asks, receives, acknowledges.
    ///
    /// # Errors
    /// The connection broke, a message is missing or comes twice, or the pull ends before its time.
    pub(crate) fn pull(&mut self) -> Result<()> {
        let body = format!("{{\"batch\":{},\"expires\":{EXPIRES}}}", self.batch);
        self.acks.extend_from_slice(
            format!("PUB $JS.API.CONSUMER.MSG.NEXT.{STREAM}.{} {} {}\r\n{body}\r\n", self.name, self.inbox, body.len()).as_bytes(),
        );
        // With the acknowledgements of the batch before.
        self.nats.connection.send(&self.acks)?;
        self.acks.clear();
        let mut received = 0;
        while received < self.batch {
            let Some((op, len)) = self.nats.peek()? else {
                self.nats.connection.fill()?;
                continue;
            };
            match &op {
                Op::Message { reply: Some(reply), .. } => {
                    let reply = self.nats.bytes(reply);
                    let seq = stream_sequence(reply)?;
                    if seq != self.last + 1 {
                        bail!("message {seq} follows on message {}", self.last);
                    }
                    self.last = seq;
                    received += 1;
                    if self.ack {
                        self.acks.extend_from_slice(b"PUB ");
                        self.acks.extend_from_slice(reply);
                        self.acks.extend_from_slice(b" 4\r\n+ACK\r\n");
                    }
                }
                Op::WithHeaders { headers, .. } => {
                    bail!("a pull ended after {received} messages: {:?}", String::from_utf8_lossy(self.nats.bytes(headers)).trim())
                }
                _ => {}
            }
            self.nats.connection.take(len);
        }
        Ok(())
    }

    /// Sends the last batch's acknowledgements and waits until the server has read them.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.nats.connection.send(&self.acks)?;
        self.acks.clear();
        self.nats.settle()
    }
}

/// The stream's sequence in `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`.
fn stream_sequence(reply: &[u8]) -> Result<u64> {
    let token = reply.split(|b| *b == b'.').nth(5).with_context(|| format!("{:?} is no ack subject", String::from_utf8_lossy(reply)))?;
    Ok(scan::number(token)? as u64)
}

/// Stores, warms up and measures.
///
/// # Errors
/// As [`Puller::pull`].
pub(crate) fn run(target: &Target, size: usize, batch: usize, ack: bool, messages: u64) -> Result<Value> {
    memory::fill(target, size, messages)?;
    let mut puller = Puller::open(target, "warm", batch, ack)?;
    let mut consumers = 0;
    pull_for(&mut puller, target.warming(), messages, &mut consumers)?;
    consumers += 1;
    puller.begin(&format!("c{consumers}"))?;
    let meter = Meter::start(target.pid)?;
    let (received, latencies) = pull_for(&mut puller, target.measured(), messages, &mut consumers)?;
    puller.end()?;
    let mut answer = meter.stop(received, latencies)?;
    answer["stored"] = json!(messages);
    Ok(answer)
}

/// Latencies are of whole batches.
fn pull_for(puller: &mut Puller, time: Duration, messages: u64, consumers: &mut u64) -> Result<(u64, Latencies)> {
    let (phase, mut received, mut latencies) = (Phase::lasting(time), 0, Latencies::default());
    let mut now = Instant::now();
    while phase.left(received, now) > 0 {
        if puller.last + puller.batch as u64 > messages {
            *consumers += 1;
            puller.end()?;
            puller.begin(&format!("c{consumers}"))?;
        }
        puller.pull()?;
        let after = Instant::now();
        latencies.push(after - now);
        now = after;
        received += puller.batch as u64;
    }
    Ok((received, latencies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_sixth_token() {
        assert_eq!(stream_sequence(b"$JS.ACK.BENCH.c1.1.42.43.1700000000000000000.7").unwrap(), 42);
        assert!(stream_sequence(b"$JS.ACK.BENCH").is_err());
        assert!(stream_sequence(b"$JS.ACK.B.c.1.x.1.1.1").is_err());
    }
}
