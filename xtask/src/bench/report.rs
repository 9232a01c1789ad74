//! What was measured, and its table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::alerts::Latencies;
use super::capture::{BySubject, each};
use super::machine::Machine;
use super::observer::{Counts, Subject};
use super::process::{Memory, Runs};
use super::stats::{Summary, percentile, summary};
use super::storm::{Ran, Storm};

/// One storm under one subject.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// What the storm says.
    pub(super) ran: Ran,
    /// What its observer did meanwhile, until it had worked everything off.
    pub(super) watched: Option<Watched>,
}

/// What an observer did during a storm.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Its own processor time.
    pub(super) cpu: Duration,
    /// Its records.
    pub(super) counts: Counts,
}

/// All rounds of a storm.
#[derive(Debug, Clone)]
pub(super) struct Costs {
    /// Operations of each round.
    pub(super) operations: u64,
    /// The rounds, in order.
    pub(super) rounds: BySubject<Vec<Round>>,
    /// Time inside eBPF programs, in the pass of its own.
    pub(super) inside: BySubject<Runs>,
}

impl Costs {
    /// Nothing yet.
    pub(super) fn new(operations: u64) -> Self {
        Self { operations, rounds: BTreeMap::new(), inside: BTreeMap::new() }
    }

    fn of(&self, subject: Subject) -> &[Round] {
        self.rounds.get(&subject).map(Vec::as_slice).unwrap_or_default()
    }

    /// One number of each round.
    fn values(&self, subject: Subject, value: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.of(subject).iter().filter_map(value).collect()
    }

    /// The difference to the same round without observer.
    fn differences(&self, subject: Subject, value: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.of(subject).iter().zip(self.of(Subject::Off)).map(|(on, off)| value(on) - value(off)).collect()
    }
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Results {
    /// Where.
    pub(super) machine: Machine,
    /// The command that measures it again.
    pub(super) command: String,
    /// Version of Bartizan.
    pub(super) bartizan: String,
    /// Version of the peer, if there is one.
    pub(super) peer: Option<String>,
    /// Threads of each storm.
    pub(super) threads: u64,
    /// Columns.
    pub(super) subjects: Vec<Subject>,
    /// By storm.
    pub(super) costs: BTreeMap<Storm, Costs>,
    /// From start to ready, each round.
    pub(super) starts: BySubject<Vec<Duration>>,
    /// Memory after the storms of each round.
    pub(super) memory: BySubject<Vec<Memory>>,
    /// Alerts.
    pub(super) latencies: Latencies,
}

/// The table as Markdown.
pub(super) fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = head(&mut text, results);
    for (storm, costs) in &results.costs {
        let _ = table(&mut text, results, *storm, costs);
    }
    let _ = process(&mut text, results);
    let _ = latencies(&mut text, &results.latencies);
    text
}

fn head(text: &mut String, results: &Results) -> std::fmt::Result {
    let Results { machine, command, bartizan, peer, threads, subjects: _, costs, starts: _, memory: _, latencies: _ } = results;
    let Machine { processor, processors, memory_mib, kernel, virtualised, load, others, day } = machine;
    let rounds = costs.values().flat_map(|costs| costs.rounds.values().map(Vec::len)).max().unwrap_or_default();
    let place = virtualised.as_ref().map_or("not virtualised".to_owned(), |vendor| format!("a virtual machine ({vendor})"));
    writeln!(text, "Measured on {day} by `{}` with {bartizan} (release build, default configuration).\n", command.trim())?;
    writeln!(text, "- Machine: {processor}, {processors} processors, {memory_mib} MiB, {place}, kernel {kernel}.")?;
    writeln!(
        text,
        "- Load averages when it began: {load}. {}",
        match others.as_slice() {
            [] => "Nobody else had eBPF programs loaded.".to_owned(),
            some => format!("Others had eBPF programs loaded, which run in every column: {}.", some.join(", ")),
        }
    )?;
    writeln!(text, "- {rounds} rounds, everyone in turn; each storm on {threads} threads. Numbers are medians (least to greatest).")?;
    match peer {
        Some(version) => writeln!(text, "- Peer: {version}, printing execs with arguments, forks, exits and connects into a file."),
        None => writeln!(text, "- No peer: bpftrace was left out or is not on the machine."),
    }
}

fn table(text: &mut String, results: &Results, storm: Storm, costs: &Costs) -> std::fmt::Result {
    let operations = costs.operations;
    writeln!(text, "\n### Storm `{}`\n\n{operations} times: {}.\n", storm.name(), storm.operation())?;
    columns(text, "for each operation", &results.subjects)?;
    let wall = |round: &Round| each(round.ran.wall, operations);
    let cpu = |round: &Round| each(round.ran.cpu, operations);
    let rows = Rows { subjects: &results.subjects };
    rows.all(text, "operations per second, the generator's highest", 0, |subject| {
        summary(costs.values(subject, |round| Some(operations as f64 / round.ran.wall.as_secs_f64().max(1e-9))))
    })?;
    rows.all(text, "wall clock, µs", 2, |subject| summary(costs.values(subject, |round| Some(wall(round)))))?;
    rows.all(text, "processor time of the workload, µs", 2, |subject| summary(costs.values(subject, |round| Some(cpu(round)))))?;
    rows.watching(text, "- of it more than off, µs", 2, |subject| summary(costs.differences(subject, cpu)))?;
    rows.watching(text, "- of it inside eBPF programs (bpf stats), µs", 2, |subject| {
        costs.inside.get(&subject).and_then(|runs| summary([each(runs.time, operations)]))
    })?;
    rows.watching(text, "runs of eBPF programs", 2, |subject| {
        costs.inside.get(&subject).and_then(|runs| summary([runs.count as f64 / operations as f64]))
    })?;
    rows.watching(text, "observer's own processor time, µs", 2, |subject| {
        summary(costs.values(subject, |round| Some(each(round.watched.as_ref()?.cpu, operations))))
    })?;
    rows.watching(text, "records received", 3, |subject| {
        summary(costs.values(subject, |round| Some(round.watched.as_ref()?.counts.all() as f64 / operations as f64)))
    })?;
    losses(text, results, storm, costs)
}

/// A sentence for each observer: what the storm did, what was received of it, what was lost.
fn losses(text: &mut String, results: &Results, storm: Storm, costs: &Costs) -> std::fmt::Result {
    let (kind, each) = storm.event();
    writeln!(text)?;
    for subject in results.subjects.iter().filter(|subject| **subject != Subject::Off) {
        let mut sum = Counts::default();
        let rounds = costs.of(*subject);
        rounds.iter().filter_map(|round| round.watched.as_ref()).for_each(|watched| sum.add(&watched.counts));
        let done = rounds.iter().map(|round| round.ran.operations).sum::<u64>() * each;
        write!(text, "- {}: {done} of `{kind}` done, {} received (others' among them); ", subject.name(), sum.of(kind))?;
        write!(text, "{} records lost, {} program runs skipped, of all kinds and rounds.", sum.lost, sum.skipped)?;
        if storm == Storm::Login && *subject == Subject::Bartizan {
            let auth: Vec<String> = sum
                .received
                .iter()
                .filter(|(kind, count)| kind.starts_with("auth.") && **count > 0)
                .map(|(kind, count)| format!("`{kind}` {count}"))
                .collect();
            match auth.as_slice() {
                [] => write!(text, " No `auth.*` events: this build or machine does not see PAM.")?,
                some => write!(text, " Of {} logins: {}.", done / each, some.join(", "))?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn process(text: &mut String, results: &Results) -> std::fmt::Result {
    const MIB: f64 = 1_048_576.0;
    writeln!(text, "\n### The observers' processes\n")?;
    let watching: Vec<Subject> = results.subjects.iter().copied().filter(|subject| *subject != Subject::Off).collect();
    writeln!(text, "| after the storms of a round | {} |", watching.iter().map(|subject| subject.name()).collect::<Vec<_>>().join(" | "))?;
    writeln!(text, "|---|{}", "--:|".repeat(watching.len()))?;
    let mut row = |name: &str, value: &dyn Fn(Subject) -> Option<Summary>| {
        let cells: Vec<String> = watching.iter().map(|subject| cell(value(*subject), 1)).collect();
        writeln!(text, "| {name} | {} |", cells.join(" | "))
    };
    let memory = |subject: Subject, of: fn(&Memory) -> u64| {
        let values = results.memory.get(&subject).map(Vec::as_slice).unwrap_or_default();
        summary(values.iter().map(|memory| of(memory) as f64 / MIB))
    };
    row("resident, MiB", &|subject| memory(subject, |memory| memory.rss))?;
    row("- of it anonymous, MiB", &|subject| memory(subject, |memory| memory.anonymous))?;
    row("most resident since its start, MiB", &|subject| memory(subject, |memory| memory.peak))?;
    row("eBPF maps in the kernel, MiB", &|subject| memory(subject, |memory| memory.maps))?;
    row("from start to ready, ms", &|subject| {
        let starts = results.starts.get(&subject).map(Vec::as_slice).unwrap_or_default();
        summary(starts.iter().map(|start| start.as_secs_f64() * 1000.0))
    })
}

fn latencies(text: &mut String, latencies: &Latencies) -> std::fmt::Result {
    let Latencies { stored, told, followed } = latencies;
    writeln!(text, "\n### From the kernel to an alert\n")?;
    writeln!(text, "{} reverse shells on loopback, one after the other; from the kernel's stamp of the shell's exec.\n", told.len())?;
    writeln!(text, "| until | p50, ms | p99, ms | greatest, ms |\n|---|--:|--:|--:|")?;
    let rows = [
        ("its record was in the file of ALERTS", stored),
        ("`bartizan run` told it on its standard output (a subscription in the process)", told),
        ("a reader that follows ALERTS had it (`bartizan alerts --follow`, woken by inotify)", followed),
    ];
    for (name, values) in rows {
        let ms = || values.iter().map(|latency| latency.as_secs_f64() * 1000.0);
        let cells = [percentile(ms(), 50.0), percentile(ms(), 99.0), percentile(ms(), 100.0)];
        let cells: Vec<String> = cells.map(|value| value.map_or("—".to_owned(), |value| format!("{value:.2}"))).into();
        writeln!(text, "| {name} | {} |", cells.join(" | "))?;
    }
    Ok(())
}

fn columns(text: &mut String, first: &str, subjects: &[Subject]) -> std::fmt::Result {
    let ratios = subjects.iter().filter(|subject| **subject != Subject::Off);
    let names: Vec<String> =
        subjects.iter().map(|subject| subject.name().to_owned()).chain(ratios.map(|subject| format!("{} / off", subject.name()))).collect();
    writeln!(text, "| {first} | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len()))
}

struct Rows<'a> {
    subjects: &'a [Subject],
}

impl Rows<'_> {
    /// A row with a value for every subject, and the ratios of the medians.
    fn all(&self, text: &mut String, name: &str, digits: usize, value: impl Fn(Subject) -> Option<Summary>) -> std::fmt::Result {
        let off = value(Subject::Off).map(|summary| summary.median).filter(|median| *median > 0.0);
        let ratio = |subject: &Subject| match (off, value(*subject)) {
            (Some(off), Some(on)) => format!("{:.2}", on.median / off),
            _ => "—".to_owned(),
        };
        self.row(text, name, |subject| cell(value(subject), digits), ratio)
    }

    /// A row that only observers have a value for.
    fn watching(&self, text: &mut String, name: &str, digits: usize, value: impl Fn(Subject) -> Option<Summary>) -> std::fmt::Result {
        let shown = |subject| if subject == Subject::Off { String::new() } else { cell(value(subject), digits) };
        self.row(text, name, shown, |_| String::new())
    }

    fn row(
        &self,
        text: &mut String,
        name: &str,
        shown: impl Fn(Subject) -> String,
        ratio: impl Fn(&Subject) -> String,
    ) -> std::fmt::Result {
        let values = self.subjects.iter().map(|subject| shown(*subject));
        let ratios = self.subjects.iter().filter(|subject| **subject != Subject::Off).map(ratio);
        writeln!(text, "| {name} | {} |", values.chain(ratios).collect::<Vec<_>>().join(" | "))
    }
}

/// `median (least–greatest)`; a single number alone.
pub(super) fn cell(summary: Option<Summary>, digits: usize) -> String {
    match summary {
        None => "—".to_owned(),
        Some(Summary { median, min, max }) if min == max => format!("{median:.digits$}"),
        Some(Summary { median, min, max }) => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(wall_us: u64, cpu_us: u64, own_us: Option<u64>) -> Round {
        let ran = Ran { operations: 10, wall: Duration::from_micros(wall_us), cpu: Duration::from_micros(cpu_us) };
        let counts = Counts { received: [("process.exec".to_owned(), 21), ("auth.start".to_owned(), 10)].into(), lost: 1, skipped: 2 };
        Round { ran, watched: own_us.map(|own| Watched { cpu: Duration::from_micros(own), counts }) }
    }

    fn results() -> Results {
        let mut costs = Costs::new(10);
        costs.rounds.insert(Subject::Off, vec![round(100, 50, None), round(300, 70, None), round(200, 60, None)]);
        costs.rounds.insert(Subject::Bartizan, vec![round(400, 90, Some(30)), round(500, 100, Some(40)), round(600, 80, Some(50))]);
        costs.inside.insert(Subject::Bartizan, Runs { time: Duration::from_micros(25), count: 40 });
        Results {
            subjects: vec![Subject::Off, Subject::Bartizan],
            costs: [(Storm::Login, costs)].into(),
            latencies: Latencies {
                stored: vec![Duration::from_micros(800)],
                told: vec![Duration::from_micros(1500)],
                followed: vec![Duration::from_millis(50)],
            },
            ..Results::default()
        }
    }

    #[test]
    fn each_row_has_its_medians_ranges_and_ratios() {
        let text = render(&results());
        for row in [
            "| for each operation | off | Bartizan | Bartizan / off |\n|---|--:|--:|--:|",
            "| operations per second, the generator's highest | 50000 (33333–100000) | 20000 (16667–25000) | 0.40 |",
            "| wall clock, µs | 20.00 (10.00–30.00) | 50.00 (40.00–60.00) | 2.50 |",
            "| processor time of the workload, µs | 6.00 (5.00–7.00) | 9.00 (8.00–10.00) | 1.50 |",
            // Of pairs: 4, 3 and 2.
            "| - of it more than off, µs |  | 3.00 (2.00–4.00) |  |",
            "| - of it inside eBPF programs (bpf stats), µs |  | 2.50 |  |",
            "| observer's own processor time, µs |  | 4.00 (3.00–5.00) |  |",
            "| until | p50, ms | p99, ms | greatest, ms |",
            "in the file of ALERTS | 0.80 | 0.80 | 0.80 |",
            "(a subscription in the process) | 1.50 | 1.50 | 1.50 |",
            "woken by inotify) | 50.00 | 50.00 | 50.00 |",
        ] {
            assert!(text.contains(row), "{row}\nis not in\n{text}");
        }
    }

    #[test]
    fn losses_are_sums_and_logins_name_their_events() {
        let text = render(&results());
        assert!(text.contains("60 of `process.exec` done, 63 received"), "{text}");
        assert!(text.contains("3 records lost, 6 program runs skipped"), "{text}");
        assert!(text.contains("Of 30 logins: `auth.start` 30."), "{text}");
    }

    #[test]
    fn nothing_measured_is_a_dash_and_no_panic() {
        let mut empty = Results { subjects: vec![Subject::Off, Subject::Bartizan], ..Results::default() };
        empty.costs.insert(Storm::Exec, Costs::new(0));
        let text = render(&empty);
        assert!(text.contains("| wall clock, µs | — | — | — |"), "{text}");
    }
}
