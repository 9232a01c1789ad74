//! Core publish and subscribe by raw bytes: a thread that writes, a thread that reads, nothing stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::connection::{Connection, SILENCE};
use crate::frames::Frames;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nats::Nats;
use crate::phase::Phase;
use crate::redis::Redis;
use crate::{Client, Target, resp};

/// Bytes of one write.
const WRITE: usize = 128 << 10;
/// A reader without bytes looks so often whether it has all.
const LOOK: Duration = Duration::from_millis(5);
/// What a server may send between messages.
const PING: &[u8] = b"PING\r\n";
/// Bytes on the way, at most: a server that buffers more for one subscriber than this would cut it off or hold the publisher back, and
/// the measurement would be of that.
pub(crate) const ON_THE_WAY: u64 = 8 << 20;

/// A publisher's and a subscriber's connection, and the frames between them.
pub(crate) struct Pair {
    pub(crate) publisher: Connection,
    pub(crate) subscriber: Connection,
    pub(crate) frames: Frames,
    /// Bytes of a frame as it is sent.
    pub(crate) sent_len: usize,
    /// Bytes of a frame as it is received; all are of equal length, so that counting bytes counts messages.
    pub(crate) received_len: usize,
    /// What a received frame begins with.
    pub(crate) received_head: Vec<u8>,
}

impl Pair {
    pub(crate) fn nats(target: &Target, size: usize) -> Result<Self> {
        let (publisher, mut subscriber) = (Nats::open(target.address)?, Nats::open(target.address)?);
        subscriber.subscribe("core.a", 1)?;
        subscriber.settle()?;
        let frame = |_, payload: &[u8]| [format!("PUB core.a {size}\r\n").as_bytes(), payload, b"\r\n"].concat();
        let received_head = format!("MSG core.a 1 {size}\r\n").into_bytes();
        Ok(Self::new(publisher.connection, subscriber.connection, Frames::new(size, 1, frame), size, received_head))
    }

    fn redis(target: &Target, size: usize) -> Result<Self> {
        let (mut publisher, mut subscriber) = (Redis::open(target.address)?, Redis::open(target.address)?);
        publisher.connection.send(b"CLIENT REPLY OFF\r\n")?;
        subscriber.call(&[b"SUBSCRIBE", b"core"])?;
        let frame = |_, payload: &[u8]| {
            let mut bytes = Vec::new();
            resp::command(&mut bytes, &[b"PUBLISH", b"core", payload]);
            bytes
        };
        let received_head = format!("*3\r\n$7\r\nmessage\r\n$4\r\ncore\r\n${size}\r\n").into_bytes();
        Ok(Self::new(publisher.connection, subscriber.connection, Frames::new(size, 1, frame), size, received_head))
    }

    pub(crate) fn new(publisher: Connection, subscriber: Connection, frames: Frames, size: usize, received_head: Vec<u8>) -> Self {
        let sent_len = frames.slice(0, 1).0.len();
        Self { publisher, subscriber, frames, sent_len, received_len: received_head.len() + size + 2, received_head }
    }

    /// Publishes for so long and receives everything.
    ///
    /// # Errors
    /// A connection broke, a message is missing, or the bytes are not the frames.
    pub(crate) fn run(&mut self, time: Duration) -> Result<u64> {
        let Self { publisher, subscriber, frames, sent_len, received_len, received_head } = self;
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        subscriber.wait_at_most(LOOK)?;
        let phase = Phase::lasting(time);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| receive(subscriber, *received_len, received_head, &received, &sent));
            let written = send(publisher, frames, *sent_len, phase, &received, || !reader.is_finished());
            // The reader stops when it has all; what was not sent is not waited for.
            sent.store(*written.as_ref().unwrap_or(&0), Ordering::Release);
            let read = reader.join().unwrap_or_else(|_| bail!("the subscriber panicked"));
            let (written, read) = (written?, read?);
            if written != read {
                bail!("{written} messages were published and {read} received");
            }
            Ok(read)
        })
    }
}

fn send(
    connection: &mut Connection,
    frames: &Frames,
    len: usize,
    phase: Phase,
    received: &AtomicU64,
    goes_on: impl Fn() -> bool,
) -> Result<u64> {
    let (most, ahead) = ((WRITE / len).max(1), (ON_THE_WAY / len as u64).max(1));
    let mut sent = 0_u64;
    while phase.left(sent, Instant::now()) > 0 && goes_on() {
        if sent - received.load(Ordering::Acquire) > ahead {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        let (bytes, number) = frames.slice(sent as usize, most);
        connection.send(bytes)?;
        sent += number as u64;
    }
    Ok(sent)
}

fn receive(connection: &mut Connection, len: usize, head: &[u8], received: &AtomicU64, sent: &AtomicU64) -> Result<u64> {
    let (mut count, mut last) = (0_u64, Instant::now());
    // Whoever publishes says in the end how many there were, so a reader that has all must not wait for another.
    while count < sent.load(Ordering::Acquire) {
        let whole = connection.unread().len() / len;
        if whole == 0 {
            match connection.fill_or_give_up().with_context(|| format!("{count} messages were received"))? {
                Some(_) => last = Instant::now(),
                None if last.elapsed() > SILENCE => bail!("{count} messages were received, and then none for {} s", SILENCE.as_secs()),
                None => {}
            }
            continue;
        }
        let taken = frames(connection.unread(), len, whole, head)?;
        if taken == 0 {
            connection.take(PING.len());
            connection.send(b"PONG\r\n")?;
            continue;
        }
        connection.take(taken * len);
        count += taken as u64;
        received.store(count, Ordering::Release);
    }
    Ok(count)
}

/// How many of `whole` places hold frames; 0 when a PING comes first. Looks at the first and the last place alone: what lies between two
/// frames of equal length and known beginning is frames.
fn frames(bytes: &[u8], len: usize, whole: usize, head: &[u8]) -> Result<usize> {
    if bytes.starts_with(PING) {
        return Ok(0);
    }
    if !bytes.starts_with(head) {
        bail!("the server sent {:?} where a message belongs", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
    }
    // A PING between frames shifts the last one: then one at a time, until it comes first.
    Ok(if bytes[(whole - 1) * len..].starts_with(head) { whole } else { 1 })
}

/// Warms up and measures.
///
/// # Errors
/// As [`Pair::run`].
pub(crate) fn run(target: &Target, client: Client, size: usize) -> Result<Value> {
    let mut pair = if client == Client::Redis { Pair::redis(target, size)? } else { Pair::nats(target, size)? };
    pair.run(target.warming())?;
    let meter = Meter::start(target.pid)?;
    let messages = pair.run(target.measured())?;
    meter.stop(messages, Latencies::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_and_a_ping_between_them_is_met() {
        let bytes = b"MSG a 1 2\r\nhi\r\nMSG a 1 2\r\nho\r\n";
        let (len, head) = (15, b"MSG a 1 2\r\n");
        assert_eq!(frames(bytes, len, 2, head).unwrap(), 2);
        let shifted = b"MSG a 1 2\r\nhi\r\nPING\r\nMSG a 1 2\r\nho\r\n";
        assert_eq!(frames(shifted, len, 2, head).unwrap(), 1);
        assert_eq!(frames(&shifted[len..], len, 1, head).unwrap(), 0);
        assert!(frames(b"-ERR 'Slow Consumer'\r\n", len, 1, head).is_err());
    }
}
