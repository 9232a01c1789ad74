//! From the kernel to the bus: the kernel's stamp of an event beside the time at which the bus took it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::stats::{Summary, percentile, summary};
use crate::command;

/// Kinds whose stamp says something else than when the record was made: seeds are older than the sensor, packets to closed ports are
/// gathered over a second. The sensor's own have none of the kernel's.
const LEFT_OUT: [&str; 2] = ["process.seed", "network.probe"];
const OWN: &str = "sensor";

/// How long events took, microseconds, by category (`process`, `network`, …).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arrivals(BTreeMap<String, Vec<u32>>);

impl Arrivals {
    /// Reads them from a data folder that no sensor uses any more: every `step`th event.
    ///
    /// # Errors
    /// It cannot be read back.
    pub(super) fn of(bartizan: &Path, data: &Path, step: usize) -> Result<Self> {
        let mut export = Command::new(bartizan);
        command::clean(&mut export).args(["bus", "export", "EVENTS", "--data-dir"]).arg(data);
        let mut child = export.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("bartizan could not be started")?;
        let lines = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let arrivals = Self::read(lines, step);
        let status = child.wait().context("bartizan bus export cannot be waited for")?;
        if !status.success() {
            bail!("bartizan bus export ended with {status}: its message is above");
        }
        arrivals
    }

    fn read(mut lines: impl BufRead, step: usize) -> Result<Self> {
        let (mut arrivals, mut line, mut index) = (Self::default(), String::new(), 0_usize);
        while lines.read_line(&mut line).context("bartizan bus export cannot be read")? > 0 {
            if index.is_multiple_of(step.max(1))
                && let Some((category, took)) = arrival(&line)
            {
                arrivals.0.entry(category).or_default().push(took);
            }
            index += 1;
            line.clear();
        }
        Ok(arrivals)
    }

    /// This percentile of all categories together, ms.
    pub(super) fn percentile(&self, percent: f64) -> Option<Summary> {
        summary(percentile(self.0.values().flatten().map(|took| f64::from(*took) / 1000.0), percent))
    }

    /// A table, a row for each category.
    pub(super) fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| kinds | events | p50, ms | p99, ms | greatest, ms |\n|---|--:|--:|--:|--:|")?;
        for (category, took) in &self.0 {
            let of = |percent| percentile(took.iter().map(|took| f64::from(*took) / 1000.0), percent).unwrap_or_default();
            writeln!(text, "| `{category}.*` | {} | {:.2} | {:.2} | {:.2} |", took.len(), of(50.0), of(99.0), of(100.0))?;
        }
        Ok(())
    }
}

/// Category and microseconds of one line of the export.
fn arrival(line: &str) -> Option<(String, u32)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let kind = message["json"]["kind"].as_str()?;
    let (category, _) = kind.split_once('.')?;
    if category == OWN || LEFT_OUT.contains(&kind) {
        return None;
    }
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let took = time(&message["time"])?.as_nanosecond() - time(&message["json"]["time"])?.as_nanosecond();
    // The wall clock may have been set in between: before it happened is at once.
    Some((category.to_owned(), u32::try_from(took.max(0) / 1000).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(kind: &str, happened: &str, stored: &str) -> String {
        serde_json::json!({"seq": 1, "time": stored, "json": {"kind": kind, "time": happened}}).to_string() + "\n"
    }

    #[test]
    fn the_difference_of_both_times_is_in_microseconds() -> Result<()> {
        let (zero, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.0025Z");
        let text = [
            line("process.exec", zero, later),
            line("process.exec", later, zero),
            line("process.seed", zero, later),
            line("sensor.heartbeat", zero, later),
            line("network.connect", zero, "2026-01-01T02:00:00Z"),
            "no json\n".to_owned(),
        ];
        let arrivals = Arrivals::read(text.concat().as_bytes(), 1)?;
        assert_eq!(arrivals.0, [("process".to_owned(), vec![2500, 0]), ("network".to_owned(), vec![u32::MAX])].into());
        assert_eq!(Arrivals::read(text.concat().as_bytes(), 100)?.0, [("process".to_owned(), vec![2500])].into());
        let mut table = String::new();
        assert!(arrivals.write(&mut table).is_ok());
        assert!(table.contains("| `process.*` | 2 | 0.00 | 2.50 | 2.50 |"), "{table}");
        Ok(())
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(happened in "[0-9TZ:.-]{0,30}", text in "\\PC{0,40}") {
            let _ = arrival(&line("process.exec", &happened, "2026-01-01T00:00:00Z"));
            let _ = arrival(&text);
        }
    }
}
