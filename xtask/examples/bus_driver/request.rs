//! Requests, one at a time: a thread that asks and a thread that answers, each with a connection.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::frames::Frames;
use crate::latency::Latencies;
use crate::meter::Meter;
use crate::nats::Nats;
use crate::phase::Phase;
use crate::scan::Op;
use crate::{Client, Target};

/// Warms up and measures.
///
/// # Errors
/// A connection broke, or an answer is not the one.
pub(crate) fn run(target: &Target, client: Client, size: usize) -> Result<Value> {
    if client == Client::Redis {
        bail!("Redis has no requests");
    }
    let (mut asking, mut answering) = (Nats::open(target.address)?, Nats::open(target.address)?);
    asking.subscribe("_INBOX.bus00.*", 1)?;
    asking.settle()?;
    answering.subscribe("service.a", 1)?;
    answering.settle()?;
    // Not joined: it waits for a request that does not come, and ends with the process.
    std::thread::spawn(move || {
        if let Err(error) = answer(&mut answering) {
            eprintln!("bus_driver: the answering end: {error:#}");
        }
    });
    let frames = Frames::new(size, 1, |number, payload| {
        [format!("PUB service.a _INBOX.bus00.{number:08} {size}\r\n").as_bytes(), payload, b"\r\n"].concat()
    });
    let mut next = 0;
    ask(&mut asking, &frames, &mut next, target.warming())?;
    let meter = Meter::start(target.pid)?;
    let latencies = ask(&mut asking, &frames, &mut next, target.measured())?;
    meter.stop(latencies.0, latencies.1)
}

fn ask(nats: &mut Nats, frames: &Frames, next: &mut usize, time: Duration) -> Result<(u64, Latencies)> {
    let (phase, mut count, mut latencies) = (Phase::lasting(time), 0, Latencies::default());
    let mut now = Instant::now();
    while phase.left(count, now) > 0 {
        nats.connection.send(frames.slice(*next, 1).0)?;
        let expected = *next % frames.count();
        *next += 1;
        loop {
            match nats.peek()? {
                Some((Op::Message { subject, .. }, len)) => {
                    let subject = nats.bytes(&subject);
                    if !subject.ends_with(format!(".{expected:08}").as_bytes()) {
                        bail!("request {expected} is answered on {:?}", String::from_utf8_lossy(subject));
                    }
                    nats.connection.take(len);
                    break;
                }
                Some((Op::WithHeaders { headers, .. }, _)) => bail!("answered {:?}", String::from_utf8_lossy(nats.bytes(&headers))),
                Some((_, len)) => nats.connection.take(len),
                None => drop(nats.connection.fill()?),
            }
        }
        let after = Instant::now();
        latencies.push(after - now);
        now = after;
        count += 1;
    }
    Ok((count, latencies))
}

fn answer(nats: &mut Nats) -> Result<()> {
    let mut out = Vec::new();
    loop {
        let Some((op, len)) = nats.peek()? else {
            if nats.connection.fill().is_err() {
                // The measurement is over, or its other end says what is wrong.
                return Ok(());
            }
            continue;
        };
        if let Op::Message { reply: Some(reply), payload, .. } = &op {
            let (reply, payload) = (nats.bytes(reply), nats.bytes(payload));
            out.clear();
            out.extend_from_slice(b"PUB ");
            out.extend_from_slice(reply);
            out.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
            out.extend_from_slice(payload);
            out.extend_from_slice(b"\r\n");
            nats.connection.send(&out)?;
        }
        nats.connection.take(len);
    }
}
