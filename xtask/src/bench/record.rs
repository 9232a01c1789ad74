//! A recording: what a sensor stores while shells, programs, connections and logins go on, until it has so many events.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::bus::server::blocks_below;
use super::capture::{Folder, run_storm};
use super::observer::Observer;
use super::storm::Storm;
use crate::command;
use crate::privilege::Privilege;
use crate::step;

/// A round: shells first, for they are what hosts run; connections come in larger numbers than programs, as on hosts that serve.
const ROUND: [(Storm, u64); 5] =
    [(Storm::Shell, 600), (Storm::Exec, 1_000), (Storm::Connect, 10_000), (Storm::Refused, 1_000), (Storm::Login, 30)];

/// No shedding: with it a recording on a small machine would lack connections, which are the smallest events.
const CONFIG: &str = "[sensor]\ncpu_limit = 0\n";

/// Options of the hidden verb.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Events, at least.
    #[arg(long)]
    events: u64,
    #[arg(long)]
    bartizan: PathBuf,
    /// Folder for the sensor's files; made and removed.
    #[arg(long)]
    folder: PathBuf,
    /// Where its data folder is to be in the end, readable by everybody.
    #[arg(long)]
    keep: PathBuf,
}

/// The hidden verb, as root.
///
/// # Errors
/// Our own program cannot be found.
pub(super) fn command(root: Privilege, events: u64, bartizan: &Path, folder: &Path, keep: &Path) -> Result<Command> {
    let mut command = root.command(std::env::current_exe().context("our own program cannot be found")?);
    command.args(["bench", "record", &format!("--events={events}")]);
    command.arg("--bartizan").arg(bartizan).arg("--folder").arg(folder).arg("--keep").arg(keep);
    Ok(command)
}

/// Records, and says what: events stored, records by kind, what was lost, and the bytes of EVENTS before the sensor ended and afterwards.
///
/// # Errors
/// A storm fails, or the sensor does.
pub(super) fn run(args: &Args) -> Result<Value> {
    let Args { events, bartizan, folder, keep } = args;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let folder = Folder::make(folder)?;
    let sensor = Observer::bartizan_with(bartizan, folder.0.join("sensor"), false, CONFIG)?;
    let began = Instant::now();
    let mut next = events / 10;
    let counts = loop {
        for (storm, operations) in ROUND {
            run_storm(storm, operations, threads, &folder.0)?;
        }
        let counts = sensor.counts()?;
        if counts.all() >= *events {
            break counts;
        }
        if counts.all() >= next {
            eprintln!("        {} of {events} events after {}", counts.all(), step::seconds(began.elapsed()));
            next += events / 10;
        }
    };
    sensor.rest()?;
    let running = blocks_below(&sensor.stream("EVENTS"))?;
    sensor.stop_and_keep(keep)?;
    let ended = blocks_below(&keep.join("streams/EVENTS"))?;
    let mut inspect = Command::new(bartizan);
    command::clean(&mut inspect).args(["bus", "inspect", "EVENTS", "--json", "--data-dir"]).arg(keep);
    let found = command::capture(&mut inspect, "the recording cannot be read back")?;
    let found: Value = serde_json::from_str(&found).context("bartizan bus inspect gave no JSON")?;
    let stored: u64 = found["segments"].as_array().into_iter().flatten().filter_map(|segment| segment["messages"].as_u64()).sum();
    command::run(Command::new("chmod").args(["-R", "a+rX"]).arg(keep), "the recording cannot be made readable")?;
    Ok(json!({
        "events": stored, "kinds": counts.received, "lost": counts.lost, "skipped": counts.skipped, "seconds": began.elapsed().as_secs(),
        "disk_bytes_running": running, "disk_bytes": ended,
    }))
}
