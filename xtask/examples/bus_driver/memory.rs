//! A stream that is filled, consumers on it, and what it says of itself after a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Target;
use crate::fetch::Puller;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nats::{self, Nats};
use crate::phase::Phase;
use crate::publish::{NatsPublisher, Windowed};

/// A server that reads its stream again is waited for so long.
const RECOVERY: Duration = Duration::from_secs(600);

/// Stores so many messages more; the stream is made when it is missing.
///
/// # Errors
/// A message is refused, or missing.
pub(crate) fn fill(target: &Target, size: usize, messages: u64) -> Result<Value> {
    let mut nats = Nats::open(target.address)?;
    let before = match nats.stored() {
        Ok(stored) => stored,
        Err(_) => {
            nats.make_stream(&target.metadata)?;
            0
        }
    };
    let mut publisher = Windowed::new(NatsPublisher::open(target, 0, size)?, 1000);
    let meter = Meter::start(target.pid)?;
    let done = publisher.run(Phase::counting(messages), &mut Latencies::default())?;
    let mut answer = meter.stop(done, Latencies::default())?;
    nats::check_stored(nats.stored()?, before + done)?;
    answer["stored"] = json!(before + done);
    Ok(answer)
}

/// Makes consumers, each of which fetches and acknowledges a batch.
///
/// # Errors
/// One of them fails.
pub(crate) fn consumers(target: &Target, count: usize, batch: usize) -> Result<Value> {
    let meter = Meter::start(target.pid)?;
    // Their connections stay open to the end, as those of consumers do.
    let mut pullers = Vec::new();
    for index in 0..count {
        let mut puller = Puller::open(target, &format!("m{index:03}"), batch, true)?;
        puller.pull()?;
        puller.end()?;
        pullers.push(puller);
    }
    meter.stop((count * batch) as u64, Latencies::default())
}

/// Waits until the stream answers.
///
/// # Errors
/// It does not.
pub(crate) fn state(target: &Target) -> Result<Value> {
    let began = Instant::now();
    loop {
        match Nats::open(target.address).and_then(|mut nats| nats.stored()) {
            Ok(stored) => return Ok(json!({"stored": stored})),
            Err(error) if began.elapsed() > RECOVERY => {
                return Err(error).with_context(|| format!("the stream does not answer after {} s", RECOVERY.as_secs()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
