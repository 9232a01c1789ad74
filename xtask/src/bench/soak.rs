//! Storms against one sensor that lives on: what `cargo xtask soak` adds to the storm tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::capture::{Folder, run_storm};
use super::observer::{Counts, Observer};
use super::process;
use super::storm::Storm;
use crate::privilege::Privilege;
use crate::step;

/// Operations of a round, percent of a measurement's: many rounds say more than long ones.
const SCALE: u64 = 25;

/// Options of the hidden verb.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Storms; those that every build tells of when none is named.
    #[arg(long = "storm", value_name = "STORM")]
    storms: Vec<Storm>,
    /// Seconds; one round runs in any case.
    #[arg(long)]
    seconds: u64,
    #[arg(long)]
    bartizan: PathBuf,
    /// Folder for the sensor's files; made and removed.
    #[arg(long)]
    folder: PathBuf,
}

/// The hidden verb, as root.
///
/// # Errors
/// Our own program cannot be found.
pub(crate) fn command(root: Privilege, storms: &[Storm], seconds: u64, bartizan: &Path, folder: &Path) -> Result<Command> {
    let mut command = root.command(std::env::current_exe().context("our own program cannot be found")?);
    let path = |option: &str, path: &Path| {
        let mut word = OsString::from(option);
        word.push(path);
        word
    };
    command.args(["bench", "storms", &format!("--seconds={seconds}")]);
    command.arg(path("--bartizan=", bartizan)).arg(path("--folder=", folder));
    command.args(storms.iter().map(|storm| format!("--storm={}", storm.name())));
    Ok(command)
}

/// Runs the storms until the time is up. Exit code 0 when all balanced: what a storm did was received or counted as lost.
///
/// # Errors
/// A storm fails, or the sensor ends.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let Args { storms, seconds, bartizan, folder } = args;
    let storms = if storms.is_empty() { Storm::TOLD.as_slice() } else { storms.as_slice() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let folder = Folder::make(folder)?;
    let sensor = Observer::bartizan(bartizan, folder.0.join("sensor"), false)?;
    let (began, until) = (Instant::now(), Duration::from_secs(*seconds));
    let (mut round, mut balanced) = (0_u64, true);
    while round == 0 || began.elapsed() < until {
        round += 1;
        for storm in storms {
            let before = sensor.counts()?;
            let ran = run_storm(*storm, (storm.operations() * SCALE / 100).max(1), threads, &folder.0)?;
            sensor.rest()?;
            let counts = sensor.counts()?.since(&before);
            let (line, good) = verdict(*storm, ran.operations, &counts);
            balanced &= good;
            eprintln!("      {line}");
        }
        let memory = process::memory(sensor.pid())?;
        let [rss, anonymous] = [memory.rss, memory.anonymous].map(step::bytes);
        eprintln!("      round {round} after {}: {rss} resident, {anonymous} of it anonymous", step::seconds(began.elapsed()));
    }
    sensor.stop()?;
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all that a storm did is accounted for. Others on the machine make events too, so that more may have been received.
fn verdict(storm: Storm, operations: u64, counts: &Counts) -> (String, bool) {
    let Counts { received: _, lost, skipped } = counts;
    let Some((kind, each)) = storm.event() else {
        return (format!("storm {} makes no event: {lost} lost, {skipped} runs skipped", storm.name()), true);
    };
    let (done, received) = (operations * each, counts.of(kind));
    let good = received + counts.lost + counts.skipped >= done;
    let word = if good { "balances" } else { "DOES NOT BALANCE" };
    let line = format!("storm {} {word}: {done} of {kind} done, {received} received, {lost} lost, {skipped} runs skipped", storm.name());
    (line, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_received_nor_counted_fails() {
        let counts = |received, lost, skipped| Counts { received: [("process.exec".to_owned(), received)].into(), lost, skipped };
        assert!(verdict(Storm::Exec, 10, &counts(10, 0, 0)).1);
        assert!(verdict(Storm::Exec, 10, &counts(12, 0, 0)).1, "others' execs");
        assert!(verdict(Storm::Exec, 10, &counts(7, 2, 1)).1);
        let (line, good) = verdict(Storm::Exec, 10, &counts(9, 0, 0));
        assert!(!good && line.contains("DOES NOT BALANCE"), "{line}");
        assert!(verdict(Storm::Syscall, 10, &counts(0, 0, 0)).1, "of this no event is wanted");
        assert!(!verdict(Storm::Login, 10, &counts(19, 0, 0)).1, "a login is two execs");
    }

    #[test]
    fn the_command_names_the_storms() -> Result<()> {
        let command = command(Privilege::Root, &[Storm::Login], 60, Path::new("/b"), Path::new("/f"))?;
        let line = crate::command::words(&command.get_args().collect::<Vec<_>>());
        assert_eq!(line, "bench storms --seconds=60 --bartizan=/b --folder=/f --storm=login");
        Ok(())
    }
}
