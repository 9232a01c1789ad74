//! What was measured over the wire, as Markdown.

use std::fmt::Write;

use super::super::machine::Machine;
use super::super::report::cell;
use super::super::stats::{Summary, summary};
use super::Bench;
use super::case::Case;
use super::disk::Sync;
use super::run::Run;
use super::server::{Durability, Kind};
use super::wire::Measured;

const MIB: f64 = 1_048_576.0;

/// Where, when, by which command, with what.
pub(super) fn head(machine: &Machine, command: &str, bench: &Bench<'_>) -> String {
    let Machine { processor, processors, memory_mib, kernel, virtualised, load, others: _, day } = machine;
    let place = virtualised.as_ref().map_or("not virtualised".to_owned(), |vendor| format!("a virtual machine ({vendor})"));
    let versions: Vec<&str> = bench.needs.servers.iter().map(|program| program.version.as_str()).collect();
    let (rounds, seconds) = (bench.plan.rounds, bench.plan.measured.as_secs_f64());
    format!(
        "Measured on {day} by `{command}`: {}. {processor}, {processors} processors, {memory_mib} MiB, {place}, kernel {kernel}; load \
         averages when it began: {load}. {rounds} rounds of {seconds} s, everyone in turn. Numbers are medians (least to greatest); a ratio \
         is the median of the rounds' ratios.\n",
        versions.join(", ")
    )
}

/// A section's table.
pub(super) fn render(cases: &[Case], measured: &[Measured], syncs: &[Sync]) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = table(&mut text, cases, measured);
    let _ = sync_lines(&mut text, syncs);
    let _ = goals(&mut text, cases, measured);
    text
}

fn table(text: &mut String, cases: &[Case], measured: &[Measured]) -> std::fmt::Result {
    let stored = measured.iter().flat_map(|measured| &measured.runs).any(|(_, runs)| runs.iter().any(|run| run.disk.is_some()));
    let disk = if stored { " on disk, B/msg | dirtied, B/msg |" } else { "" };
    let of = cases.iter().find_map(|case| case.batch).map_or(String::new(), |batch| format!(" of {batch}"));
    writeln!(
        text,
        "| work | server | msg/s | p50{of}, µs | p99{of}, µs | server CPU, µs/msg | driver CPU, µs/msg | RSS peak, MiB |{disk} busy: server + driver + \
         others (idle, disk) | limited by |"
    )?;
    writeln!(text, "|---|---|{}---|---|", "--:|".repeat(if stored { 8 } else { 6 }))?;
    for (case, Measured { runs, failed }) in cases.iter().zip(measured) {
        let mut name = case.name.as_str();
        for (kind, runs) in runs {
            if !runs.is_empty() {
                row(text, name, case, *kind, runs, stored)?;
            } else if let Some((_, why)) = failed.iter().find(|(failed, _)| failed == kind) {
                let why = why.lines().next().unwrap_or_default().replace('|', "/");
                writeln!(text, "| {name} | {} | failed: {why} |{}", kind.title(), " |".repeat(if stored { 9 } else { 7 }))?;
            }
            name = "";
        }
        ratio_row(text, runs, stored)?;
    }
    Ok(())
}

fn row(text: &mut String, name: &str, case: &Case, kind: Kind, runs: &[Run], stored: bool) -> std::fmt::Result {
    let of = |value: &dyn Fn(&Run) -> Option<f64>, digits| cell(summary(runs.iter().filter_map(value)), digits);
    let us = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    write!(text, "| {name} | {} | {} ", kind.title(), of(&|run| Some(run.throughput()), 0))?;
    write!(text, "| {} | {} ", of(&|run| us(run.p50), 0), of(&|run| us(run.p99), 0))?;
    write!(text, "| {} | {} ", of(&|run| Some(run.each(run.cpu)), 2), of(&|run| Some(run.each(run.driver_cpu)), 2))?;
    write!(text, "| {} |", of(&|run| Some(run.peak as f64 / MIB), 0))?;
    if stored {
        write!(text, " {} | {} |", of(&|run| run.disk, 0), of(&|run| run.disk.map(|_| run.written), 0))?;
    }
    let busy = Busy::of(runs);
    writeln!(text, " {} | {} |", busy.text(), busy.limit(case))
}

/// Bartizan beside nats-server: a ratio of each round that both had.
fn ratios(runs: &[(Kind, Vec<Run>)], value: impl Fn(&Run) -> Option<f64>) -> Option<Summary> {
    let of = |wanted: Kind| runs.iter().find(|(kind, _)| *kind == wanted).map(|(_, runs)| runs.as_slice()).unwrap_or_default();
    let pairs = of(Kind::Ours).iter().zip(of(Kind::Nats));
    summary(
        pairs.filter_map(|(ours, nats)| Some((value(ours)?, value(nats)?))).filter(|(_, nats)| *nats > 0.0).map(|(ours, nats)| ours / nats),
    )
}

fn ratio_row(text: &mut String, runs: &[(Kind, Vec<Run>)], stored: bool) -> std::fmt::Result {
    if ratios(runs, |run| Some(run.throughput())).is_none() {
        return Ok(());
    }
    let of = |value: &dyn Fn(&Run) -> Option<f64>| match cell(ratios(runs, value), 2) {
        none if none == "—" => none,
        some => format!("**{some}**"),
    };
    let us = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64());
    write!(text, "| | **Bartizan / nats-server** | {} ", of(&|run| Some(run.throughput())))?;
    write!(text, "| {} | {} ", of(&|run| us(run.p50)), of(&|run| us(run.p99)))?;
    write!(text, "| {} | | {} |", of(&|run| Some(run.each(run.cpu))), of(&|run| Some(run.peak as f64)))?;
    if stored {
        write!(text, " {} | {} |", of(&|run| run.disk), of(&|run| run.disk.map(|_| run.written)))?;
    }
    writeln!(text, " | |")
}

/// How the machine was used, medians.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Busy {
    server: f64,
    driver: f64,
    others: f64,
    /// Shares of all processors.
    idle: f64,
    waiting: f64,
    stolen: f64,
}

impl Busy {
    fn of(runs: &[Run]) -> Self {
        let median = |value: &dyn Fn(&Run) -> f64| summary(runs.iter().map(value)).map_or(0.0, |summary| summary.median);
        Self {
            server: median(&|run| run.cpu_within.as_secs_f64() / run.wall.as_secs_f64().max(1e-9)),
            driver: median(&|run| run.driver_cpu.as_secs_f64() / run.wall.as_secs_f64().max(1e-9)),
            others: median(&Run::others),
            idle: median(&|run| run.idle),
            waiting: median(&|run| run.waiting),
            stolen: median(&|run| run.stolen),
        }
    }

    fn text(&self) -> String {
        let Self { server, driver, others, idle, waiting, stolen } = self;
        let stolen = if *stolen >= 0.01 { format!(", stolen {:.0} %", stolen * 100.0) } else { String::new() };
        format!("{server:.2} + {driver:.2} + {others:.2} ({:.0} %, {:.0} %{stolen})", idle * 100.0, waiting * 100.0)
    }

    /// In a word: what another second of the same would need more of.
    fn limit(&self, case: &Case) -> &'static str {
        let synced = case.durability == Durability::Always;
        if self.idle < 0.15 {
            "processors"
        } else if self.waiting >= 0.1 || (synced && (case.one_at_a_time || self.waiting >= 0.05)) {
            "the disk's sync"
        } else if case.one_at_a_time {
            "round trips"
        } else {
            // Processors idle and nothing to wait for: one thread after the other.
            "one thread at a time"
        }
    }
}

fn sync_lines(text: &mut String, syncs: &[Sync]) -> std::fmt::Result {
    if syncs.is_empty() {
        return Ok(());
    }
    let one = |Sync { bytes, p50, p99 }: &Sync| format!("{bytes} B: p50 {p50:.0} µs, p99 {p99:.0} µs");
    writeln!(text, "\nThe disk by itself, one appending write and `fdatasync`: {}.", syncs.iter().map(one).collect::<Vec<_>>().join("; "))
}

/// Each goal beside what came of it.
fn goals(text: &mut String, cases: &[Case], measured: &[Measured]) -> std::fmt::Result {
    let mut rows = Vec::new();
    for (case, Measured { runs, failed }) in cases.iter().zip(measured) {
        for goal in case.goals {
            let ratio = ratios(runs, |run| run.value(goal.measure()));
            let verdict = match ratio {
                Some(Summary { median, .. }) if goal.met(median) => "met",
                Some(_) => "**missed**",
                None if failed.iter().any(|(kind, _)| *kind == Kind::Ours) => "**failed**",
                // Without one of the two there is nothing to say.
                None => continue,
            };
            rows.push(format!("| {} | {} | {} | {verdict} |", case.name, goal.text(), cell(ratio, 2)));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n| goal | Bartizan / nats-server | measured | |\n|---|---|--:|---|\n{}", rows.join("\n"))
}

/// The driver alone.
pub(super) fn driver(rows: &[(u64, Vec<Run>)]) -> String {
    let mut text = String::from("| content | msg/s | CPU of both ends, µs/msg |\n|---|--:|--:|\n");
    for (size, runs) in rows {
        let throughput = cell(summary(runs.iter().map(Run::throughput)), 0);
        let cpu = cell(summary(runs.iter().map(|run| run.each(run.driver_cpu))), 3);
        let _ = writeln!(text, "| {size} B | {throughput} | {cpu} |");
    }
    text.push_str("\nRaw core publish and subscribe against a socket that throws away what it reads and sends prepared messages.\n");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::case::{Section, cases};
    use super::*;

    fn run(messages: u64, cpu_us: u64, idle: f64) -> Run {
        let time = Duration::from_secs(1);
        let cpu = Duration::from_micros(cpu_us);
        Run { messages, wall: time, cpu, cpu_within: cpu, idle, p99: Some(Duration::from_micros(10)), ..Run::default() }
    }

    fn measured() -> Measured {
        let ours = vec![run(2000, 2000, 0.5), run(3000, 3000, 0.5), run(1600, 1600, 0.5)];
        let nats = vec![run(1000, 2000, 0.0), run(1000, 2000, 0.0), run(1000, 2000, 0.0)];
        Measured { runs: vec![(Kind::Nats, nats), (Kind::Ours, ours)], failed: Vec::new() }
    }

    #[test]
    fn ratios_are_of_rounds_and_goals_stand_beside_them() {
        let cases = cases(Section::Core);
        let text = render(&cases[..1], &[measured()], &[]);
        for part in [
            "| 16 B, raw | nats-server | 1000 |",
            "|  | Bartizan | 2000 (1600–3000) |",
            "**Bartizan / nats-server** | **2.00 (1.60–3.00)** |",
            "| 16 B, raw | throughput ≥ 1.5 | 2.00 (1.60–3.00) | met |",
            "| 16 B, raw | CPU ≤ 0.7 | 0.50 | met |",
            "| processors |",
            "| one thread at a time |",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_missed_goal_is_said() {
        let mut measured = measured();
        measured.runs[1].1 = vec![run(1400, 1400, 0.5)];
        let text = render(&cases(Section::Core)[..1], &[measured], &[]);
        assert!(text.contains("| throughput ≥ 1.5 | 1.40 | **missed** |"), "{text}");
    }

    #[test]
    fn a_server_that_failed_or_is_absent_makes_no_ratio() {
        let mut measured = measured();
        measured.runs[1].1.clear();
        measured.failed.push((Kind::Ours, "no such stream | or so\nmore".to_owned()));
        let text = render(&cases(Section::Core)[..1], &[measured], &[]);
        assert!(text.contains("| Bartizan | failed: no such stream / or so |") && !text.contains("Bartizan / nats-server** "), "{text}");
        assert!(text.contains("| **failed** |"), "{text}");
        let none = render(&cases(Section::Core)[..1], &[Measured::default()], &[]);
        assert!(!none.contains("goal"), "{none}");
    }

    #[test]
    fn every_row_has_every_column() {
        let mut with_disk = measured();
        with_disk.runs[0].1[0].disk = Some(300.0);
        for measured in [measured(), with_disk] {
            let text = render(&cases(Section::Core)[..1], &[measured], &[]);
            let rows: Vec<&str> = text.lines().take_while(|line| line.starts_with('|')).collect();
            let columns = |row: &str| row.matches('|').count();
            assert!(rows.len() == 5 && rows.iter().all(|row| columns(row) == columns(rows[0])), "{text}");
        }
    }
}
