//! A writer that is killed with SIGKILL while it appends: everything it had acknowledged is there afterwards, in order.
//!
//! This test has its own `main`, because the writer is this same program started again as a child.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bartizan_bus::{Bus, BusConfig, ConsumerConfig, LogReader, Message, StreamConfig, StreamName, SyncPolicy};

/// Tells the child where to write.
const WRITER_DIR: &str = "BARTIZAN_TEST_WRITER_DIR";
/// Every other round kills twice: 210 kills in all.
const ROUNDS: u32 = 200;
/// A folder is left behind after so many rounds: each round reads all of it.
const ROUNDS_A_FOLDER: u32 = 10;
const BATCH: u64 = 5;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn config() -> BusConfig {
    // Small segments, so that kills also meet the change from one to the next.
    let alerts = StreamConfig { segment_bytes: 16 * 1024, ..StreamConfig::alerts() };
    let events = StreamConfig { segment_bytes: 64 * 1024, sync: SyncPolicy::Interval(Duration::from_millis(20)), ..StreamConfig::events() };
    BusConfig { events, alerts, ..BusConfig::default() }
}

fn payload(seq: u64) -> Vec<u8> {
    let mut payload = seq.to_le_bytes().to_vec();
    payload.resize(8 + (seq % 700) as usize, seq as u8);
    payload
}

fn message(seq: u64) -> Result<Message> {
    let time_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    Ok(Message { subject: "sec.alerts.high.kill".parse()?, msg_id: Some(format!("id-{seq}")), time_ns, payload: payload(seq).into() })
}

/// Publishes alerts one by one and events in batches until it is killed, and prints each acknowledgement.
fn write_until_killed(dir: &Path) -> Result<()> {
    let bus = Bus::open(dir, &config())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (alerts, events) = (bus.stream(StreamName::Alerts), bus.stream(StreamName::Events));
    let mut next_event = events.info().last_seq + 1;
    let mut out = std::io::stdout().lock();
    for alert in alerts.info().last_seq + 1.. {
        let ack = runtime.block_on(alerts.publish(message(alert)?))?;
        writeln!(out, "ALERTS {}", ack.seq)?;
        let batch: Result<Vec<Message>> = (next_event..next_event + BATCH).map(message).collect();
        let acks = events.append_batch(batch?)?;
        next_event += BATCH;
        writeln!(out, "EVENTS {}", acks.last().ok_or("no acknowledgement")?.seq)?;
        out.flush()?;
    }
    Ok(())
}

/// Starts the writer, kills it after it printed `lines` lines; gives the last acknowledged sequences of both streams.
fn run_and_kill(dir: &Path, lines: usize) -> Result<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe()?).env(WRITER_DIR, dir).stdout(Stdio::piped()).spawn()?;
    let mut reader = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let (mut alerts, mut events) = (0, 0);
    let mut note = |line: &str| -> Result<()> {
        match line.trim_end().split_once(' ') {
            Some(("ALERTS", seq)) => alerts = seq.parse()?,
            Some(("EVENTS", seq)) => events = seq.parse()?,
            _ => return Err(format!("unexpected line {line:?}").into()),
        }
        Ok(())
    };
    for _ in 0..lines {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err("the writer ended by itself".into());
        }
        note(&line)?;
    }
    child.kill()?;
    // What it had printed before it died counts too; only a cut last line does not.
    for line in reader.split(b'\n') {
        let line = String::from_utf8(line?)?;
        if note(&line).is_err() {
            break;
        }
    }
    child.wait()?;
    Ok((alerts, events))
}

fn check_stream(dir: &Path, bus: &Bus, name: StreamName, acked: u64) -> Result<()> {
    let info = bus.stream(name).info();
    assert!(info.last_seq >= acked, "{name}: {acked} was acknowledged, the stream ends at {}", info.last_seq);
    assert_eq!((info.first_seq, info.messages), (1, info.last_seq), "{name}: sequences are not dense");
    assert_eq!((info.skipped_sequences_at_open, info.unreadable_messages), (0, 0), "{name}");
    if name == StreamName::Events {
        assert_eq!(info.last_seq % BATCH, 0, "a batch is there in part");
    }
    let mut log = LogReader::open(dir, name)?;
    for seq in 1..=info.last_seq {
        let record = log.next()?.ok_or("the log ends early")?;
        assert_eq!((record.seq, &record.payload[..], record.msg_id), (seq, &payload(seq)[..], Some(format!("id-{seq}"))));
    }
    assert_eq!(log.next()?, None);
    Ok(())
}

fn kill_and_check() -> Result<()> {
    for first in (0..ROUNDS).step_by(ROUNDS_A_FOLDER as usize) {
        kill_in_one_folder(first..first + ROUNDS_A_FOLDER)?;
    }
    println!("every acknowledged message survived {ROUNDS} rounds of kills: ok");
    Ok(())
}

fn kill_in_one_folder(rounds: std::ops::Range<u32>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut consumed = 0;
    for round in rounds {
        // Where the kill falls is the scheduler's choice; how far the writer gets before varies.
        let lines = 2 + (round as usize * 37) % 150;
        let mut acked = run_and_kill(dir.path(), lines)?;
        if round % 2 == 1 {
            // The next writer finds the folder as the kill left it.
            acked = run_and_kill(dir.path(), lines)?;
        }
        let (alerts, events) = acked;
        let bus = Bus::open(dir.path(), &config())?;
        check_stream(dir.path(), &bus, StreamName::Alerts, alerts)?;
        check_stream(dir.path(), &bus, StreamName::Events, events)?;
        // A consumer goes on where it was, and an alert that is published again is known.
        let mut consumer = bus.stream(StreamName::Alerts).consumer("siem", ConsumerConfig::default())?;
        assert_eq!(consumer.ack_floor(), consumed);
        while let [first, .., last] | [first @ last] = &consumer.try_fetch(50)?[..] {
            assert_eq!((first.seq, first.delivered), (consumed + 1, 1));
            consumed = last.seq;
            consumer.ack_through(last.seq);
        }
        consumer.flush_acks()?;
        let again = bus.stream(StreamName::Alerts).append(message(alerts)?)?;
        assert_eq!((again.seq, again.duplicate), (alerts, true));
        drop(consumer);
        bus.close()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    match std::env::var_os(WRITER_DIR) {
        Some(dir) => write_until_killed(Path::new(&dir)),
        None => kill_and_check(),
    }
}
