//! `bartizan run --replay`: a recording instead of the kernel.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Common;
use super::alert_block::AlertBlocks;
use super::escape::escape;
use super::exit::{Exit, Failure, chain};
use super::paint::{ColorChoice, Paint};
use super::record::records_and_losses;
use super::run::line;
use crate::daemon::OnAlert;
use crate::recording::replay::{Recording, ReplayError, Replayed, data_folder, replay};

/// Replays `file`.
pub(super) fn run(common: &Common, file: &Path, allow_damaged: bool) -> Result<Exit, Failure> {
    let mut config = common.config()?;
    let recording = Recording::check(file, allow_damaged).map_err(failed)?;
    // The folder of the configuration is the live sensor's.
    let named = common.data_dir.is_some().then_some(config.data_dir.as_path());
    config.data_dir = data_folder(named).map_err(failed)?;
    tell(&before(file, &recording, &config.data_dir));
    let replayed = replay(&config, &recording, announcer()).map_err(failed)?;
    tell(&after(&recording, &replayed, &config.data_dir));
    let whole = !replayed.interrupted && replayed.counts.decode_error.is_none() && replayed.counts.publish_error.is_none();
    Ok(if whole { Exit::Ok } else { Exit::Failed })
}

fn failed(error: ReplayError) -> Failure {
    let exit = if matches!(error, ReplayError::InUse(_)) { Exit::Usage } else { Exit::Failed };
    Failure::new(exit, chain(&error))
}

/// On standard error. Nothing can be done when that is closed.
fn tell(lines: &[String]) {
    let mut err = io::stderr().lock();
    for line in lines {
        let _ = writeln!(err, "{line}");
    }
}

/// Shows alerts as `run` does. No kernel waits here, so that a slow reader of standard output slows the replay down and misses nothing.
fn announcer() -> OnAlert {
    let blocks = AlertBlocks::new(Paint::for_stdout(ColorChoice::Auto), TimeZone::system());
    let terminal = io::stdout().is_terminal();
    Box::new(move |alert, seq| {
        let text = if terminal { format!("\n{}\n", blocks.render(alert, seq)) } else { line(alert) };
        let mut out = io::stdout().lock();
        // Whoever watched is gone; the alert is stored all the same.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    })
}

fn before(file: &Path, recording: &Recording, folder: &Path) -> Vec<String> {
    let Recording { header, totals, damage, .. } = recording;
    let begin = i128::from(header.started) + i128::from(header.wall_offset);
    let begin = Timestamp::from_nanosecond(begin).map_or_else(|_| "an unknown time".to_owned(), |time| format!("{time:.3}"));
    let seconds = totals.last.saturating_sub(header.started) as f64 / 1e9;
    let mut lines = vec![
        format!(
            "bartizan replays {}: {} records of {} from {begin} on, {seconds:.1} s, recorded by bartizan {} on Linux {}",
            file.display(),
            totals.all_records(),
            escape(&header.host),
            escape(&header.start.version),
            escape(&header.start.kernel),
        ),
        format!("into {}", folder.display()),
    ];
    lines.extend(damage.as_ref().map(|damage| format!("only in part, because {} {damage}", file.display())));
    lines
}

fn after(recording: &Recording, replayed: &Replayed, folder: &Path) -> Vec<String> {
    let Replayed { interrupted, counts, kept: (kept, made), alerts, matches, duration } = replayed;
    let events: u64 = counts.received.values().sum();
    let head = if *interrupted { "interrupted: the rest of the recording is not replayed" } else { "the recording is at its end" };
    let mut lines = vec![format!("{head}: {events} events, {alerts} alerts and {matches} matches in {:.1} s", duration.as_secs_f64())];
    lines.extend(records_and_losses(&recording.totals));
    if kept < made {
        lines.push(format!("  EVENTS is at its limit and holds the last {kept} of {made} events; all were judged"));
    }
    for ((kind, reason), count) in counts.own_losses() {
        lines.push(format!("  lost in this replay: {count} of {kind} ({reason})"));
    }
    lines.extend(counts.decode_error.iter().map(|error| format!("  the first record that is none: {error}")));
    lines.extend(counts.publish_error.iter().map(|error| format!("  the last event that was not stored: {error}")));
    lines.push(format!("see `bartizan alerts --data-dir {0}` and `bartizan events --data-dir {0}`", folder.display()));
    lines
}
