//! The few things that a Redis client says, on a blocking socket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value as Json, json};

use crate::connection::Connection;
use crate::frames::Frames;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nats;
use crate::phase::Phase;
use crate::publish::{Publisher, Windowed};
use crate::resp::{self, Value};
use crate::{Target, scan};

/// Key of the stream.
const KEY: &[u8] = b"bench";
/// A reader takes the content, not what Redis puts around it.
const GROUP: &[u8] = b"g";

/// A connection.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) connection: Connection,
}

impl Redis {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self { connection: Connection::open(address)? })
    }

    /// Reads one value as a whole and hands it on.
    ///
    /// # Errors
    /// The connection broke, or the value is not what `read` wants.
    fn read<T>(&mut self, read: impl FnOnce(&Value<'_>) -> Result<T>) -> Result<T> {
        while resp::length(self.connection.unread())?.is_none() {
            self.connection.fill()?;
        }
        let (value, len) = resp::next(self.connection.unread())?.context("a value that was measured is not there")?;
        let outcome = read(&value);
        drop(value);
        self.connection.take(len);
        outcome
    }

    /// A command; an error of the server's is one.
    ///
    /// # Errors
    /// The connection broke, or Redis refuses.
    pub(crate) fn call(&mut self, words: &[&[u8]]) -> Result<()> {
        let mut bytes = Vec::new();
        resp::command(&mut bytes, words);
        self.connection.send(&bytes)?;
        self.read(|value| match value {
            Value::Error(_) => value.bytes().map(drop),
            _ => Ok(()),
        })
    }

    /// Messages in the stream.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub(crate) fn stored(&mut self) -> Result<u64> {
        let mut bytes = Vec::new();
        resp::command(&mut bytes, &[b"XLEN", KEY]);
        self.connection.send(&bytes)?;
        self.read(|value| Ok(scan::number(value.bytes()?)? as u64))
    }
}

/// Publishes by XADD. Answers have no name of their own and come in order.
#[derive(Debug)]
pub(crate) struct XaddPublisher {
    redis: Redis,
    frames: Frames,
    in_flight: VecDeque<usize>,
}

impl XaddPublisher {
    pub(crate) fn open(target: &Target, index: usize, size: usize) -> Result<Self> {
        let frames = Frames::new(size, index as u64, |_, payload| {
            let mut bytes = Vec::new();
            resp::command(&mut bytes, &[b"XADD", KEY, b"*", b"d", payload]);
            bytes
        });
        Ok(Self { redis: Redis::open(target.address)?, frames, in_flight: VecDeque::new() })
    }
}

impl Publisher for XaddPublisher {
    fn send(&mut self, from: usize, most: usize) -> Result<usize> {
        let (bytes, number) = self.frames.slice(from, most);
        self.redis.connection.send(bytes)?;
        let count = self.frames.count();
        self.in_flight.extend((from..from + number).map(|number| number % count));
        Ok(number)
    }

    fn acknowledged(&mut self, each: &mut dyn FnMut(usize)) -> Result<()> {
        self.redis.connection.fill()?;
        while let Some((value, len)) = resp::next(self.redis.connection.unread())? {
            value.bytes().context("an XADD is refused")?;
            drop(value);
            self.redis.connection.take(len);
            each(self.in_flight.pop_front().context("Redis answers what was not asked")?);
        }
        Ok(())
    }

    fn numbers(&self) -> usize {
        self.frames.count()
    }
}

/// One reader and where it is.
struct Reader {
    redis: Redis,
    batch: String,
    group: bool,
    /// Id of the last entry.
    last: Vec<u8>,
    /// What goes out with the next request.
    out: Vec<u8>,
    acknowledging: bool,
}

impl Reader {
    fn begin(&mut self, name: &str) -> Result<()> {
        self.last = b"0-0".to_vec();
        if !self.group {
            return Ok(());
        }
        self.finish()?;
        // A group that was read to its end is made anew, so that it begins at the first entry again.
        self.redis.call(&[b"XGROUP", b"DESTROY", KEY, GROUP])?;
        self.redis.call(&[b"XGROUP", b"CREATE", KEY, GROUP, b"0"]).with_context(|| format!("group of {name}"))
    }

    /// One batch: asks, receives, acknowledges. Gives how many.
    fn read(&mut self) -> Result<u64> {
        let mut out = std::mem::take(&mut self.out);
        let batch = self.batch.as_bytes();
        if self.group {
            resp::command(&mut out, &[b"XREADGROUP", b"GROUP", GROUP, b"c", b"COUNT", batch, b"STREAMS", KEY, b">"]);
        } else {
            resp::command(&mut out, &[b"XREAD", b"COUNT", batch, b"STREAMS", KEY, &self.last]);
        }
        self.redis.connection.send(&out)?;
        out.clear();
        if std::mem::take(&mut self.acknowledging) {
            self.redis.read(|value| value.bytes().map(drop))?;
        }
        let (group, last) = (self.group, &mut self.last);
        let received = self.redis.read(|value| {
            let Some(stream) = value.array()?.first() else { return Ok(0) };
            let entries = stream.array()?.get(1).context("an answer without entries")?.array()?;
            let ids: Result<Vec<&[u8]>> =
                entries.iter().map(|entry| entry.array()?.first().context("an entry without id")?.bytes()).collect();
            let ids = ids?;
            if let Some(id) = ids.last() {
                *last = id.to_vec();
            }
            if group {
                let words: Vec<&[u8]> = [b"XACK".as_slice(), KEY, GROUP].into_iter().chain(ids.iter().copied()).collect();
                resp::command(&mut out, &words);
            }
            Ok(ids.len() as u64)
        })?;
        self.acknowledging = group && received > 0;
        self.out = out;
        Ok(received)
    }

    /// Acknowledges the last batch.
    fn finish(&mut self) -> Result<()> {
        let out = std::mem::take(&mut self.out);
        self.redis.connection.send(&out)?;
        if std::mem::take(&mut self.acknowledging) {
            self.redis.read(|value| value.bytes().map(drop))?;
        }
        Ok(())
    }
}

/// Stores, warms up and measures: XREADGROUP and XACK, or XREAD.
///
/// # Errors
/// The connection broke, or Redis refuses.
pub(crate) fn fetch(target: &Target, size: usize, batch: usize, ack: bool, messages: u64) -> Result<Json> {
    let mut publisher = Windowed::new(XaddPublisher::open(target, 0, size)?, 1000);
    publisher.run(Phase::counting(messages), &mut Latencies::default())?;
    let mut redis = Redis::open(target.address)?;
    nats::check_stored(redis.stored()?, messages)?;
    let mut reader = Reader { redis, batch: batch.to_string(), group: ack, last: Vec::new(), out: Vec::new(), acknowledging: false };
    reader.begin("warm-up")?;
    read_for(&mut reader, target.warming(), messages)?;
    reader.begin("measurement")?;
    let meter = Meter::start(target.pid)?;
    let (received, latencies) = read_for(&mut reader, target.measured(), messages)?;
    reader.finish()?;
    let mut answer = meter.stop(received, latencies)?;
    answer["stored"] = json!(messages);
    Ok(answer)
}

/// Latencies are of whole batches.
fn read_for(reader: &mut Reader, time: Duration, messages: u64) -> Result<(u64, Latencies)> {
    let (phase, mut received, mut latencies) = (Phase::lasting(time), 0, Latencies::default());
    let (mut now, mut of_this_pass) = (Instant::now(), 0);
    while phase.left(received, now) > 0 {
        match reader.read()? {
            0 if of_this_pass != messages => bail!("{of_this_pass} of {messages} entries were read"),
            0 => {
                reader.begin("another pass")?;
                of_this_pass = 0;
            }
            some => {
                received += some;
                of_this_pass += some;
                latencies.push(now.elapsed());
            }
        }
        now = Instant::now();
    }
    Ok((received, latencies))
}
