//! `bartizan record`: what the kernel tells, into a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Common;
use super::exit::{Exit, Failure, chain};
use super::out::{Out, Stop};
use crate::daemon::DaemonError;
use crate::recording::Totals;
use crate::recording::record::{RecordError, Recorded, record};

/// Record what the kernel tells into a new file, for `bartizan run --replay`, until Ctrl-C. The file holds secrets: command lines as they
/// are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file, which must not be there
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// End after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,

    /// Do not attach this kernel hook; repeatable, and added to `sensor.disable_hooks` of the configuration
    #[arg(long = "disable-hook", value_name = "NAME")]
    disable_hooks: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let Args { file, seconds, disable_hooks } = args;
    let mut config = common.config()?;
    super::run::disable(&mut config, disable_hooks);
    let ready = |active, all| {
        let end = match seconds {
            Some(seconds) => format!("for {seconds} s or until Ctrl-C"),
            None => "until Ctrl-C".to_owned(),
        };
        // Standard error may be full or gone: that is no reason to stop.
        let _ = writeln!(
            std::io::stderr().lock(),
            "bartizan records into {} with {active} of {all} hooks, {end}; the file will hold secrets, command lines as they are",
            file.display()
        );
    };
    let recorded =
        record(&config, file, seconds.map(Duration::from_secs), ready).map_err(|error| Failure::new(exit(&error), chain(&error)))?;
    let mut out = Out::stdout();
    for line in summary(file, &recorded) {
        out.line(&line)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn exit(error: &RecordError) -> Exit {
    match error {
        RecordError::Exists(_) | RecordError::Capture(DaemonError::UnknownHook { .. }) => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn summary(file: &Path, recorded: &Recorded) -> Vec<String> {
    let Recorded { totals, bytes, duration } = recorded;
    let mut lines = vec![format!(
        "{}: {bytes} bytes, {} records and {} processes that ran already, in {:.1} s",
        file.display(),
        totals.all_records(),
        totals.seeds,
        duration.as_secs_f64()
    )];
    lines.extend(records_and_losses(totals));
    lines.push(format!("replay it with `bartizan run --replay {}`", file.display()));
    lines
}

/// A line for each kind of record and each loss.
pub(super) fn records_and_losses(totals: &Totals) -> Vec<String> {
    let records = totals.records.iter().map(|(kind, count)| format!("  {kind}: {count}"));
    let lost = totals.lost.iter().map(|((kind, reason), count)| format!("  lost: {count} of {kind} ({reason})"));
    let none = totals.lost.is_empty().then(|| "  nothing was lost".to_owned());
    records.chain(lost).chain(none).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_kinds_and_losses() {
        let mut totals = Totals { seeds: 7, records: [("process.exec", 3), ("process.exit", 2)].into(), ..Totals::default() };
        let recorded = |totals| Recorded { totals, bytes: 4096, duration: Duration::from_millis(1500) };
        assert_eq!(
            summary(Path::new("/tmp/a.rec"), &recorded(totals.clone())),
            [
                "/tmp/a.rec: 4096 bytes, 5 records and 7 processes that ran already, in 1.5 s",
                "  process.exec: 3",
                "  process.exit: 2",
                "  nothing was lost",
                "replay it with `bartizan run --replay /tmp/a.rec`"
            ]
        );
        totals.lost.insert(("process.exec".into(), "ring_full".into()), 9);
        let lines = summary(Path::new("/tmp/a.rec"), &recorded(totals));
        assert!(lines.contains(&"  lost: 9 of process.exec (ring_full)".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("nothing was lost")), "{lines:?}");
    }
}
