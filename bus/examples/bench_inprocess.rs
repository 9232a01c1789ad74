//! How fast one thread publishes inside the process. `cargo xtask bench bus --only in-process` builds, runs and reads it; by hand:
//!
//! `cargo run --release -p bartizan-bus --example bench_inprocess -- --store log --sync always --folder /tmp/bench`
//!
//! Prints one line of JSON. Processor time is of the whole process: the threads that sync and seal are in it, until they rest.

use std::collections::VecDeque;
use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan_bus::SyncPolicy;
use bartizan_bus::log::{Log, LogConfig};
use bartizan_bus::store::{Durable, Limits, MemoryStore, Put, Store};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Different contents, sent round and round.
const PAYLOADS: usize = 4096;

#[derive(Debug)]
struct Arguments {
    store: String,
    sync: String,
    folder: PathBuf,
    size: usize,
    /// Messages from one `flush` to the next.
    group: u64,
    /// Messages that may wait for their acknowledgement.
    window: u64,
    measured: Duration,
    warm_up: Duration,
}

impl Arguments {
    /// `--name=value` or `--name value`.
    fn read() -> Outcome<Self> {
        let words: Vec<String> =
            std::env::args().skip(1).flat_map(|word| word.splitn(2, '=').map(str::to_owned).collect::<Vec<_>>()).collect();
        let find = |name: &str, otherwise: &str| {
            let value = words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
            value.cloned().unwrap_or_else(|| otherwise.to_owned())
        };
        Ok(Self {
            store: find("--store", "log"),
            sync: find("--sync", "interval"),
            folder: find("--folder", "bench-inprocess").into(),
            size: find("--size", "256").parse()?,
            group: find("--group", "256").parse()?,
            window: find("--window", "16384").parse()?,
            measured: Duration::from_secs_f64(find("--seconds", "2").parse()?),
            warm_up: Duration::from_secs_f64(find("--warm-up", "0.5").parse()?),
        })
    }
}

/// The one place that knows what stores there are.
fn open(arguments: &Arguments) -> Outcome<Arc<dyn Store>> {
    match arguments.store.as_str() {
        "memory" => Ok(Arc::new(MemoryStore::new(Limits { max_msgs: Some(1_000_000), ..Limits::default() }))),
        "log" => {
            let sync = match arguments.sync.as_str() {
                "always" => SyncPolicy::Always,
                "interval" => SyncPolicy::Interval(Duration::from_millis(200)),
                other => return Err(format!("--sync {other}: use always or interval").into()),
            };
            let config = LogConfig { sync, ..LogConfig::new("BENCH", Limits::default()) };
            Ok(Log::open(&arguments.folder.join("data"), config)?)
        }
        other => Err(format!("--store {other}: use log or memory").into()),
    }
}

fn clock(id: ClockId) -> Outcome<Duration> {
    Ok(Duration::from(clock_gettime(id)?))
}

/// One publisher and where it is.
struct Publisher {
    store: Arc<dyn Store>,
    durable: watch::Receiver<Durable>,
    runtime: tokio::runtime::Runtime,
    payloads: Vec<Vec<u8>>,
    group: u64,
    window: u64,
    /// Messages appended.
    done: u64,
    /// Groups that wait for their acknowledgement: the last sequence of each, and when it was flushed.
    waiting: VecDeque<(u64, Instant)>,
    latencies: Vec<Duration>,
}

impl Publisher {
    fn publish_for(&mut self, time: Duration) -> Outcome<u64> {
        let (until, before) = (Instant::now() + time, self.done);
        while Instant::now() < until {
            for _ in 0..self.group {
                let payload = &self.payloads[self.done as usize % PAYLOADS];
                let now = clock(ClockId::CLOCK_REALTIME)?.as_nanos() as i64;
                self.store.append(&[Put { subject: "sec.events.process.exec", headers: b"", payload, time_ns: now }])?;
                self.done += 1;
            }
            self.store.flush()?;
            self.waiting.push_back((self.done, Instant::now()));
            self.acknowledged()?;
            while self.waiting.front().is_some_and(|(seq, _)| seq + self.window < self.done) {
                self.wait()?;
            }
        }
        while !self.waiting.is_empty() {
            self.wait()?;
        }
        Ok(self.done - before)
    }

    /// Waits for the oldest group.
    fn wait(&mut self) -> Outcome<()> {
        let Some((seq, _)) = self.waiting.front().copied() else { return Ok(()) };
        self.runtime.block_on(self.durable.wait_for(|durable| durable.acked_seq >= seq || durable.ended))?;
        self.acknowledged()
    }

    fn acknowledged(&mut self) -> Outcome<()> {
        let Durable { acked_seq, ended } = *self.durable.borrow_and_update();
        while let Some((_, flushed)) = self.waiting.pop_front_if(|(seq, _)| *seq <= acked_seq) {
            self.latencies.push(flushed.elapsed());
        }
        if ended && !self.waiting.is_empty() {
            return Err("the store ended with messages unacknowledged".into());
        }
        Ok(())
    }
}

/// xorshift64*: nothing compresses it.
fn payloads(size: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut byte = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    };
    (0..PAYLOADS).map(|_| (0..size).map(|_| byte()).collect()).collect()
}

/// Waits until the helpers have worked off what was put off; at most five seconds.
fn rest() -> Outcome<()> {
    let window = Duration::from_millis(250);
    for _ in 0..20 {
        let before = clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        std::thread::sleep(window);
        if clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(before) < window / 100 {
            break;
        }
    }
    Ok(())
}

/// Blocks of a folder, in bytes.
fn on_disk(folder: &Path) -> Outcome<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += meta.blocks() * 512 + if meta.is_dir() { on_disk(&entry.path())? } else { 0 };
    }
    Ok(sum)
}

fn peak() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

fn main() -> Outcome<()> {
    let arguments = Arguments::read()?;
    std::fs::create_dir_all(&arguments.folder)?;
    let store = open(&arguments)?;
    let mut publisher = Publisher {
        durable: store.durable(),
        store: Arc::clone(&store),
        runtime: tokio::runtime::Builder::new_current_thread().build()?,
        payloads: payloads(arguments.size),
        group: arguments.group.max(1),
        window: arguments.window,
        done: 0,
        waiting: VecDeque::new(),
        latencies: Vec::new(),
    };
    publisher.publish_for(arguments.warm_up)?;
    publisher.latencies.clear();
    let (process, thread, began) = (clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, clock(ClockId::CLOCK_THREAD_CPUTIME_ID)?, Instant::now());
    let messages = publisher.publish_for(arguments.measured)?;
    let wall = began.elapsed();
    let thread = clock(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(thread);
    rest()?;
    let process = clock(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(process);
    let held = store.state().last_seq;
    if held != publisher.done {
        return Err(format!("{} messages were acknowledged and the store is at {held}", publisher.done).into());
    }
    store.close()?;
    let latencies = &mut publisher.latencies;
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1)));
    let ns = |time: Option<&Duration>| time.map(|time| time.as_nanos() as u64);
    println!(
        "{}",
        serde_json::json!({
            "messages": messages,
            "stored": publisher.done,
            "wall_ns": wall.as_nanos() as u64,
            "cpu_ns": process.as_nanos() as u64,
            "helpers_cpu_ns": process.saturating_sub(thread).as_nanos() as u64,
            "p50_ns": ns(at(50)),
            "p99_ns": ns(at(99)),
            "peak_bytes": peak()?,
            "disk_bytes": on_disk(&arguments.folder.join("data"))?,
        })
    );
    Ok(())
}
