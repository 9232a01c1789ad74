//! How fast an event is on the bus and an alert is told, one after the other on an otherwise idle sensor.

use std::fmt::Write;

use anyhow::Result;

use super::alerts::{self, Latencies};
use super::arrival::Arrivals;
use super::goal::{self, Goal};
use super::measure::Bench;
use super::observer::Observer;
use super::report::Head;
use super::stats::{percentile, summary};

/// Measures it: the text of the section.
///
/// # Errors
/// The sensor fails, or an alert does not come.
pub(super) fn measure(bench: &Bench<'_>, head: Head) -> Result<String> {
    eprintln!("      {} alerts, one after the other", bench.plan.alerts);
    let mut sensor = Observer::bartizan(bench.bartizan, bench.folder.join("alerts"), true)?;
    let latencies = alerts::measure(&mut sensor, bench.plan.alerts)?;
    sensor.rest()?;
    let arrivals = Arrivals::from_status(&sensor.status()?);
    sensor.stop()?;
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = render(&mut text, &head, &latencies, &arrivals);
    Ok(text)
}

fn render(text: &mut String, head: &Head, latencies: &Latencies, arrivals: &Arrivals) -> std::fmt::Result {
    let Latencies { stored, told, followed } = latencies;
    writeln!(text, "### From the kernel to the bus and to an alert\n")?;
    head.write(text)?;
    writeln!(
        text,
        "\n{} reverse shells on loopback, one after the other. From the kernel's stamp of a record until its event",
        told.len()
    )?;
    writeln!(text, "was appended to EVENTS, which the sensor counts itself (`kernel_to_bus` of `bartizan status --json`):\n")?;
    arrivals.write(text)?;
    writeln!(text, "\nOf the same shells, from the kernel's stamp of the shell's exec.\n")?;
    writeln!(text, "| until | p50, ms | p99, ms | greatest, ms |\n|---|--:|--:|--:|")?;
    let rows = [
        ("its record was in the file of ALERTS", stored),
        ("`bartizan run` told it on its standard output (a subscription in the process)", told),
        ("a reader that follows ALERTS had it (`bartizan alerts --follow`, woken by inotify)", followed),
    ];
    let ms = |values: &[std::time::Duration], percent| percentile(values.iter().map(|value| value.as_secs_f64() * 1000.0), percent);
    for (name, values) in rows {
        let cells = [50.0, 99.0, 100.0].map(|percent| ms(values, percent).map_or("—".to_owned(), |value| format!("{value:.2}")));
        writeln!(text, "| {name} | {} |", cells.join(" | "))?;
    }
    let goal = |what: &str, most, measured| Goal { what: what.to_owned(), most, unit: "ms", digits: 2, measured, falco: "" };
    let mut goals = arrivals.goals("");
    goals.push(goal("kernel to alert in the file of ALERTS, p99", 5.0, summary(ms(stored, 99.0))));
    goal::table(text, &goals)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_reader_has_its_row_and_each_goal_its_verdict() {
        let ms = |value| vec![Duration::from_micros(value)];
        let latencies = Latencies { stored: ms(5800), told: ms(1500), followed: ms(50_000) };
        let mut text = String::new();
        assert!(render(&mut text, &Head::default(), &latencies, &Arrivals::default()).is_ok());
        for row in [
            "in the file of ALERTS | 5.80 | 5.80 | 5.80 |",
            "(a subscription in the process) | 1.50 | 1.50 | 1.50 |",
            "woken by inotify) | 50.00 | 50.00 | 50.00 |",
            "| kernel to alert in the file of ALERTS, p99 | 5.00 ms | 5.80 | missed |",
        ] {
            assert!(text.contains(row), "{row}\nis not in\n{text}");
        }
    }
}
