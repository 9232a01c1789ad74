//! How fast the raw driver is when the server costs nothing: its writer against a socket that takes everything, its reader against one
//! that gives frames without end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Target;
use crate::connection::Connection;
use crate::core::Pair;
use crate::frames::Frames;
use crate::latency::Latencies;
use crate::meter::Meter;

/// A server that is none: it throws away what the publisher sends, and gives the subscriber as many prepared frames.
fn nothing(size: usize, sent_len: u64) -> Result<(SocketAddr, std::thread::JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let frames = Frames::new(size, 2, |_, payload| [format!("MSG core.a 1 {size}\r\n").as_bytes(), payload, b"\r\n"].concat());
    let thread = std::thread::spawn(move || -> Result<()> {
        let (publisher, _) = listener.accept()?;
        let (subscriber, _) = listener.accept()?;
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let give = scope.spawn(|| give(subscriber, &frames, sent_len, &taken));
            take(publisher, &taken);
            // Whoever closes first ends the other.
            drop(give.join());
        });
        Ok(())
    });
    Ok((address, thread))
}

fn take(mut from: TcpStream, taken: &AtomicU64) {
    let mut buffer = vec![0; 512 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        taken.fetch_add(read as u64, Ordering::Release);
        if read == 0 {
            taken.store(u64::MAX, Ordering::Release);
            return;
        }
    }
}

fn give(mut to: TcpStream, frames: &Frames, sent_len: u64, taken: &AtomicU64) {
    let mut given = 0_u64;
    loop {
        let all = taken.load(Ordering::Acquire);
        if all == u64::MAX {
            return;
        }
        let due = all / sent_len - given;
        if due == 0 {
            std::thread::yield_now();
            continue;
        }
        let (bytes, number) = frames.slice(given as usize, usize::try_from(due.min(2048)).unwrap_or(2048));
        if to.write_all(bytes).is_err() {
            return;
        }
        given += number as u64;
    }
}

/// Warms up and measures. The processor time is of the driver and of the socket's other end together.
///
/// # Errors
/// The sockets break.
pub(crate) fn run(target: &Target, size: usize) -> Result<Value> {
    let frames = Frames::new(size, 1, |_, payload| [format!("PUB core.a {size}\r\n").as_bytes(), payload, b"\r\n"].concat());
    let (address, thread) = nothing(size, frames.slice(0, 1).0.len() as u64)?;
    let head = format!("MSG core.a 1 {size}\r\n").into_bytes();
    let (publisher, subscriber) = (Connection::open(address)?, Connection::open(address)?);
    let mut pair = Pair::new(publisher, subscriber, frames, size, head);
    pair.run(target.warming())?;
    let meter = Meter::start(target.pid)?;
    let messages = pair.run(target.measured())?;
    let answer = meter.stop(messages, Latencies::default())?;
    drop(pair);
    thread.join().unwrap_or_else(|_| bail!("the empty server panicked")).context("the empty server failed")?;
    Ok(answer)
}
