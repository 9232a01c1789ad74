//! Acknowledged publishes into a stream, by raw NATS or raw Redis: each publisher is a thread with a socket and a window.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::frames::Frames;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nats::{self, Nats};
use crate::phase::Phase;
use crate::redis::{self, Redis};
use crate::scan::{self, Op};
use crate::{Client, Target};

/// One publisher's end of a connection.
pub(crate) trait Publisher: Send {
    /// Sends up to `most` messages, the first of them with number `from`; gives how many.
    ///
    /// # Errors
    /// The connection broke.
    fn send(&mut self, from: usize, most: usize) -> Result<usize>;

    /// Reads acknowledgements, waits for at least one, and tells the number of each.
    ///
    /// # Errors
    /// The connection broke, or a message was refused.
    fn acknowledged(&mut self, each: &mut dyn FnMut(usize)) -> Result<()>;

    /// How many different numbers there are; a multiple of them is the first again.
    fn numbers(&self) -> usize;
}

/// Publishes by NATS. Each message has a reply subject of its own, as real clients' have.
#[derive(Debug)]
pub(crate) struct NatsPublisher {
    nats: Nats,
    frames: Frames,
}

impl NatsPublisher {
    pub(crate) fn open(target: &Target, index: usize, size: usize) -> Result<Self> {
        let mut nats = Nats::open(target.address)?;
        let inbox = format!("_INBOX.bus{index:02}");
        nats.subscribe(&format!("{inbox}.*"), 1)?;
        nats.settle()?;
        let frames = Frames::new(size, index as u64, |number, payload| {
            [format!("PUB bench.p{index:02} {inbox}.{number:08} {size}\r\n").as_bytes(), payload, b"\r\n"].concat()
        });
        Ok(Self { nats, frames })
    }
}

impl Publisher for NatsPublisher {
    fn send(&mut self, from: usize, most: usize) -> Result<usize> {
        let (bytes, number) = self.frames.slice(from, most);
        self.nats.connection.send(bytes)?;
        Ok(number)
    }

    fn acknowledged(&mut self, each: &mut dyn FnMut(usize)) -> Result<()> {
        self.nats.connection.fill()?;
        while let Some((op, len)) = self.nats.peek()? {
            match &op {
                Op::Message { subject, payload, .. } => {
                    let payload = self.nats.bytes(payload);
                    if memchr::memmem::find(payload, b"\"error\"").is_some() {
                        bail!("a publish is refused: {}", String::from_utf8_lossy(payload));
                    }
                    let subject = self.nats.bytes(subject);
                    each(scan::number(subject.get(subject.len().saturating_sub(8)..).unwrap_or_default())?);
                }
                Op::WithHeaders { headers, .. } => {
                    bail!("a publish is answered by {:?}", String::from_utf8_lossy(self.nats.bytes(headers)))
                }
                _ => {}
            }
            self.nats.connection.take(len);
        }
        Ok(())
    }

    fn numbers(&self) -> usize {
        self.frames.count()
    }
}

/// A publisher and where it is.
pub(crate) struct Windowed<P> {
    publisher: P,
    window: usize,
    next: usize,
    sent_at: Vec<Option<Instant>>,
}

impl<P: Publisher> Windowed<P> {
    pub(crate) fn new(publisher: P, window: usize) -> Self {
        let sent_at = vec![None; publisher.numbers()];
        Self { window: window.clamp(1, sent_at.len() / 2), publisher, next: 0, sent_at }
    }

    /// Publishes until the phase ends and everything is acknowledged; gives how many.
    ///
    /// # Errors
    /// The connection broke, a message was refused, or one was acknowledged that was not in flight.
    pub(crate) fn run(&mut self, phase: Phase, latencies: &mut Latencies) -> Result<u64> {
        // The window is filled up in quarters: large writes, and never fewer than three quarters of it in flight.
        let refill = (self.window / 4).max(1);
        let (mut begun, mut done) = (0_u64, 0_u64);
        loop {
            let now = Instant::now();
            let room = self.window - (begun - done) as usize;
            let mut most = room.min(usize::try_from(phase.left(begun, now)).unwrap_or(usize::MAX));
            if room >= refill || begun == done {
                while most > 0 {
                    let sent = self.publisher.send(self.next, most)?;
                    for number in self.next..self.next + sent {
                        let count = self.sent_at.len();
                        self.sent_at[number % count] = Some(now);
                    }
                    self.next += sent;
                    begun += sent as u64;
                    most -= sent;
                }
            }
            if begun == done {
                return Ok(done);
            }
            let (sent_at, mut stray, mut arrived) = (&mut self.sent_at, None, None);
            self.publisher.acknowledged(&mut |number| {
                let now = *arrived.get_or_insert_with(Instant::now);
                match sent_at.get_mut(number).and_then(Option::take) {
                    Some(sent) => {
                        latencies.push(now - sent);
                        done += 1;
                    }
                    None => stray = Some(number),
                }
            })?;
            if let Some(number) = stray {
                bail!("message {number} was acknowledged and was not in flight");
            }
        }
    }
}

/// Runs all publishers at once; gives how many messages and their latencies.
///
/// # Errors
/// One of them fails.
pub(crate) fn run_all<P: Publisher>(publishers: &mut [Windowed<P>], time: Duration) -> Result<(u64, Latencies)> {
    let phase = Phase::lasting(time);
    let run = |windowed: &mut Windowed<P>| -> Result<(u64, Latencies)> {
        let mut latencies = Latencies::default();
        Ok((windowed.run(phase, &mut latencies)?, latencies))
    };
    // One publisher needs no thread more.
    if let [one] = publishers {
        return run(one);
    }
    let outcomes: Vec<Result<(u64, Latencies)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = publishers.iter_mut().map(|windowed| scope.spawn(|| run(windowed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a publisher panicked"))).collect()
    });
    let (mut sum, mut all) = (0, Latencies::default());
    for outcome in outcomes {
        let (messages, latencies) = outcome?;
        sum += messages;
        all.append(latencies);
    }
    Ok((sum, all))
}

/// Warms up, measures, and asks the server how many it has.
///
/// # Errors
/// A publisher fails, or the server has another number than was acknowledged.
pub(crate) fn run(target: &Target, client: Client, size: usize, window: usize, publishers: usize) -> Result<Value> {
    match client {
        Client::Redis => {
            let made: Result<Vec<_>> = (0..publishers).map(|index| redis::XaddPublisher::open(target, index, size)).collect();
            let mut redis = Redis::open(target.address)?;
            measure(target, made?, window, || redis.stored())
        }
        Client::Raw | Client::AsyncNats => {
            let mut nats = Nats::open(target.address)?;
            nats.make_stream(&target.metadata)?;
            let made: Result<Vec<_>> = (0..publishers).map(|index| NatsPublisher::open(target, index, size)).collect();
            measure(target, made?, window, || nats.stored())
        }
    }
}

fn measure<P: Publisher>(target: &Target, publishers: Vec<P>, window: usize, stored: impl FnOnce() -> Result<u64>) -> Result<Value> {
    let mut publishers: Vec<_> = publishers.into_iter().map(|publisher| Windowed::new(publisher, window)).collect();
    let (warmed, _) = run_all(&mut publishers, target.warming())?;
    let meter = Meter::start(target.pid)?;
    let (messages, latencies) = run_all(&mut publishers, target.measured())?;
    let mut answer = meter.stop(messages, latencies)?;
    nats::check_stored(stored().context("the server cannot be asked what it has")?, warmed + messages)?;
    answer["stored"] = json!(warmed + messages);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Acknowledges one message a call, in the order given by `last_first`.
    struct Fake {
        in_flight: VecDeque<usize>,
        most: usize,
        last_first: bool,
        stray: bool,
    }

    impl Publisher for Fake {
        fn send(&mut self, from: usize, most: usize) -> Result<usize> {
            let number = most.min(16 - from % 16);
            self.in_flight.extend((from..from + number).map(|number| number % 16));
            self.most = self.most.max(self.in_flight.len());
            Ok(number)
        }

        fn acknowledged(&mut self, each: &mut dyn FnMut(usize)) -> Result<()> {
            let next = if self.last_first { self.in_flight.pop_back() } else { self.in_flight.pop_front() };
            each(next.context("nothing is in flight")?);
            if self.stray {
                each(15);
            }
            Ok(())
        }

        fn numbers(&self) -> usize {
            16
        }
    }

    fn fake(last_first: bool, stray: bool) -> Windowed<Fake> {
        Windowed::new(Fake { in_flight: VecDeque::new(), most: 0, last_first, stray }, 8)
    }

    #[test]
    fn the_window_is_kept_and_everything_is_acknowledged() -> Result<()> {
        for last_first in [false, true] {
            let (mut windowed, mut latencies) = (fake(last_first, false), Latencies::default());
            // Newest first starves the oldest: with numbers that come round, no more than half of them.
            let messages = if last_first { 8 } else { 100 };
            assert_eq!(windowed.run(Phase::counting(messages), &mut latencies)?, messages);
            assert!(windowed.publisher.in_flight.is_empty() && windowed.publisher.most == 8, "{}", windowed.publisher.most);
            assert!(latencies.percentiles([50.0]).is_some());
        }
        Ok(())
    }

    #[test]
    fn an_acknowledgement_of_nothing_is_an_error() {
        let said = fake(false, true).run(Phase::counting(3), &mut Latencies::default());
        assert!(said.is_err_and(|error| error.to_string().contains("not in flight")));
    }
}
