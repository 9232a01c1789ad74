//! What the storms cost, and their tables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::goal::{self, Goal};
use super::machine::Machine;
use super::observer::{BySubject, Counts, Subject};
use super::process::{Memory, Runs};
use super::stats::{Summary, each, summary};
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
    /// Its process's own processor time.
    pub(super) cpu: Duration,
    /// That of a kernel thread which works for it alone.
    pub(super) thread: Duration,
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

    /// Records of the kind that the storm makes, in all rounds.
    fn received(&self, subject: Subject, storm: Storm) -> u64 {
        let Some((kind, _)) = storm.event() else { return 0 };
        self.of(subject).iter().filter_map(|round| round.watched.as_ref()).map(|watched| watched.counts.of(kind)).sum()
    }

    /// The difference to the same round without observer.
    fn differences(&self, subject: Subject, value: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.of(subject).iter().zip(self.of(Subject::Off)).map(|(on, off)| value(on) - value(off)).collect()
    }
}

/// What every section says first.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    /// Where.
    pub(super) machine: Machine,
    /// The command that measures it again.
    pub(super) command: String,
    /// Version of Bartizan.
    pub(super) bartizan: String,
    /// The peers in words.
    pub(super) peers: Vec<String>,
    /// Why a peer is not there.
    pub(super) absent: Vec<String>,
}

impl Head {
    /// Writes it: a sentence and the beginning of a list.
    pub(super) fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { machine, command, bartizan, peers, absent } = self;
        let Machine { processor, processors, memory_mib, kernel, virtualised, load, others, day } = machine;
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
        peers.iter().try_for_each(|peer| writeln!(text, "- Peer: {peer}."))?;
        absent.iter().try_for_each(|reason| writeln!(text, "- A peer less: {reason}."))
    }
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Results {
    pub(super) head: Head,
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
}

/// The tables as Markdown.
pub(super) fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = head(&mut text, results);
    let _ = goal::table(&mut text, &results.costs.iter().flat_map(|(storm, costs)| goals(*storm, costs)).collect::<Vec<_>>());
    for (storm, costs) in &results.costs {
        let _ = table(&mut text, results, *storm, costs);
    }
    let _ = process(&mut text, results);
    text
}

fn head(text: &mut String, results: &Results) -> std::fmt::Result {
    results.head.write(text)?;
    let rounds = results.costs.values().flat_map(|costs| costs.rounds.values().map(Vec::len)).max().unwrap_or_default();
    let threads = results.threads;
    writeln!(text, "- {rounds} rounds, everyone in turn; each storm on {threads} threads. Numbers are medians (least to greatest).")
}

/// What is wanted of Bartizan in this storm.
fn goals(storm: Storm, costs: &Costs) -> Vec<Goal> {
    let operations = costs.operations;
    let inside = || costs.inside.get(&Subject::Bartizan).and_then(|runs| summary([each(runs.time, operations)]));
    let own = || summary(costs.values(Subject::Bartizan, |round| Some(each(round.watched.as_ref()?.cpu, operations))));
    let ns = |round: &Round| each(round.ran.cpu, operations) * 1000.0;
    let goal = |what: &str, most, (unit, digits), measured, falco| {
        let what = format!("`{}`: {what}", storm.name());
        Goal { what, most, unit, digits, measured, falco }
    };
    const US: (&str, usize) = ("µs", 2);
    let (bpf, cpu) = ("inside eBPF programs", "the sensor's own processor time, all in");
    match storm {
        Storm::Exec => {
            vec![goal(bpf, 15.0, US, inside(), "30–34 µs"), goal(cpu, 60.0, US, own(), "110–158 µs"), missing(storm, costs)]
        }
        Storm::Connect => {
            vec![goal(bpf, 2.5, US, inside(), "5.0 µs"), goal(cpu, 4.0, US, own(), "7.5 µs"), missing(storm, costs)]
        }
        // What nothing is recorded of costs nothing, and that is no goal met.
        Storm::Open if costs.received(Subject::Bartizan, storm) == 0 => {
            vec![goal(bpf, 1.0, US, None, "1.4–1.9 µs"), goal("processor time: this build records no opens", 1.2, US, None, "2.1–2.7 µs")]
        }
        Storm::Open => {
            vec![goal(bpf, 1.0, US, inside(), "1.4–1.9 µs"), goal(cpu, 1.2, US, own(), "2.1–2.7 µs"), missing(storm, costs)]
        }
        Storm::Syscall => {
            let added = summary(costs.differences(Subject::Bartizan, ns));
            vec![goal("the caller's processor time more than off", 70.0, ("ns", 1), added, "80–88 ns")]
        }
        Storm::Refused | Storm::Read | Storm::Login | Storm::Shell => Vec::new(),
    }
}

/// Events that the generator made and the sensor has not got, whether it counted them as lost or not.
fn missing(storm: Storm, costs: &Costs) -> Goal {
    let gone = |round: &Round| {
        let (kind, each) = storm.event()?;
        let Watched { counts, cpu: _, thread: _ } = round.watched.as_ref()?;
        let missing = (round.ran.operations * each).saturating_sub(counts.of(kind));
        Some(missing.max(counts.lost) as f64)
    };
    let measured = summary(costs.values(Subject::Bartizan, gone)).map(|Summary { min, max, median: _ }| Summary { median: max, min, max });
    Goal { what: format!("`{}`: events lost in a round, at most", storm.name()), most: 0.0, unit: "", digits: 0, measured, falco: "0" }
}

/// The unit in which a storm's times are told, its size in microseconds, and the digits after the point.
fn unit(storm: Storm) -> (&'static str, f64, usize) {
    match storm {
        Storm::Syscall => ("ns", 0.001, 1),
        Storm::Exec | Storm::Connect | Storm::Refused | Storm::Open | Storm::Read | Storm::Login | Storm::Shell => ("µs", 1.0, 2),
    }
}

fn table(text: &mut String, results: &Results, storm: Storm, costs: &Costs) -> std::fmt::Result {
    let operations = costs.operations;
    writeln!(text, "\n### Storm `{}`\n\n{operations} times: {}.\n", storm.name(), storm.operation())?;
    columns(text, "for each operation", &results.subjects)?;
    let (unit, size, digits) = unit(storm);
    let share = |time: Duration| each(time, operations) / size;
    let wall = |round: &Round| share(round.ran.wall);
    let cpu = |round: &Round| share(round.ran.cpu);
    let named = |name: &str| format!("{name}, {unit}");
    let rows = Rows { subjects: &results.subjects };
    let reached =
        if storm.rate().is_some() { "operations per second, held back" } else { "operations per second, the generator's highest" };
    rows.all(text, reached, 0, |subject| {
        summary(costs.values(subject, |round| Some(operations as f64 / round.ran.wall.as_secs_f64().max(1e-9))))
    })?;
    rows.all(text, &named("wall clock"), digits, |subject| summary(costs.values(subject, |round| Some(wall(round)))))?;
    rows.watching(text, &named("- more than off"), digits, |subject| summary(costs.differences(subject, wall)))?;
    rows.all(text, &named("processor time of the workload"), digits, |subject| summary(costs.values(subject, |round| Some(cpu(round)))))?;
    rows.watching(text, &named("- of it more than off"), digits, |subject| summary(costs.differences(subject, cpu)))?;
    rows.watching(text, &named("- of it inside eBPF programs (bpf stats)"), digits, |subject| {
        costs.inside.get(&subject).and_then(|runs| summary([share(runs.time)]))
    })?;
    rows.watching(text, "runs of eBPF programs", 2, |subject| {
        costs.inside.get(&subject).and_then(|runs| summary([runs.count as f64 / operations as f64]))
    })?;
    rows.watching(text, &named("observer's own processor time"), digits, |subject| {
        summary(costs.values(subject, |round| Some(share(round.watched.as_ref()?.cpu))))
    })?;
    if results.subjects.contains(&Subject::Auditd) {
        rows.watching(text, &named("its kernel thread's (kauditd)"), digits, |subject| match subject {
            Subject::Auditd => summary(costs.values(subject, |round| Some(share(round.watched.as_ref()?.thread)))),
            Subject::Off | Subject::Bartizan | Subject::Bpftrace => None,
        })?;
    }
    rows.watching(text, "records received", 3, |subject| {
        summary(costs.values(subject, |round| Some(round.watched.as_ref()?.counts.all() as f64 / operations as f64)))
    })?;
    losses(text, results, storm, costs)
}

/// A sentence for each observer: what the storm did, what was received of it, what was lost.
fn losses(text: &mut String, results: &Results, storm: Storm, costs: &Costs) -> std::fmt::Result {
    writeln!(text)?;
    let Some((kind, each)) = storm.event() else { return unasked(text, results, costs) };
    for subject in results.subjects.iter().filter(|subject| **subject != Subject::Off) {
        let mut sum = Counts::default();
        let rounds = costs.of(*subject);
        rounds.iter().filter_map(|round| round.watched.as_ref()).for_each(|watched| sum.add(&watched.counts));
        let done = rounds.iter().map(|round| round.ran.operations).sum::<u64>() * each;
        match sum.of(kind) {
            0 => write!(text, "- {}: {done} of `{kind}` done, of which it records nothing; ", subject.name())?,
            received => write!(text, "- {}: {done} of `{kind}` done, {received} received (others' among them); ", subject.name())?,
        }
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

/// Of work that should make no events: what came all the same.
fn unasked(text: &mut String, results: &Results, costs: &Costs) -> std::fmt::Result {
    for subject in results.subjects.iter().filter(|subject| **subject != Subject::Off) {
        let mut sum = Counts::default();
        costs.of(*subject).iter().filter_map(|round| round.watched.as_ref()).for_each(|watched| sum.add(&watched.counts));
        let (name, all, lost) = (subject.name(), sum.all(), sum.lost);
        writeln!(text, "- {name}: no event is wanted of this; {all} records of all kinds received meanwhile (others'), {lost} lost.")?;
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
        Round { ran, watched: own_us.map(|own| Watched { cpu: Duration::from_micros(own), thread: Duration::ZERO, counts }) }
    }

    fn results() -> Results {
        let mut costs = Costs::new(10);
        costs.rounds.insert(Subject::Off, vec![round(100, 50, None), round(300, 70, None), round(200, 60, None)]);
        costs.rounds.insert(Subject::Bartizan, vec![round(400, 90, Some(30)), round(500, 100, Some(40)), round(600, 80, Some(50))]);
        costs.inside.insert(Subject::Bartizan, Runs { time: Duration::from_micros(25), count: 40 });
        Results { subjects: vec![Subject::Off, Subject::Bartizan], costs: [(Storm::Login, costs)].into(), ..Results::default() }
    }

    #[test]
    fn each_row_has_its_medians_ranges_and_ratios() {
        let text = render(&results());
        for row in [
            "| for each operation | off | Bartizan | Bartizan / off |\n|---|--:|--:|--:|",
            "| operations per second, the generator's highest | 50000 (33333–100000) | 20000 (16667–25000) | 0.40 |",
            "| wall clock, µs | 20.00 (10.00–30.00) | 50.00 (40.00–60.00) | 2.50 |",
            "| - more than off, µs |  | 30.00 (20.00–40.00) |  |",
            "| processor time of the workload, µs | 6.00 (5.00–7.00) | 9.00 (8.00–10.00) | 1.50 |",
            // Of pairs: 4, 3 and 2.
            "| - of it more than off, µs |  | 3.00 (2.00–4.00) |  |",
            "| - of it inside eBPF programs (bpf stats), µs |  | 2.50 |  |",
            "| observer's own processor time, µs |  | 4.00 (3.00–5.00) |  |",
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

    fn storm(storm: Storm) -> Results {
        let costs = results().costs.remove(&Storm::Login).unwrap();
        Results { costs: [(storm, costs)].into(), ..results() }
    }

    #[test]
    fn goals_are_held_against_the_generators_own_count() {
        let text = render(&storm(Storm::Exec));
        for row in [
            "| `exec`: inside eBPF programs | 15.00 µs | 2.50 | met | 30–34 µs |",
            "| `exec`: the sensor's own processor time, all in | 60.00 µs | 4.00 (3.00–5.00) | met | 110–158 µs |",
            // All 10 of a round were received; it counted 1 as lost.
            "| `exec`: events lost in a round, at most | 0 | 1 | missed | 0 |",
        ] {
            assert!(text.contains(row), "{row}\nis not in\n{text}");
        }
        let text = render(&storm(Storm::Connect));
        assert!(text.contains("| `connect`: events lost in a round, at most | 0 | 10 | missed | 0 |"), "{text}");
    }

    #[test]
    fn what_is_not_recorded_meets_no_goal() {
        let text = render(&storm(Storm::Open));
        assert!(text.contains("this build records no opens | 1.20 µs | — | not measured |"), "{text}");
        assert!(text.contains("30 of `file.open` done, of which it records nothing"), "{text}");
        assert!(text.contains("| operations per second, held back |"), "{text}");
    }

    #[test]
    fn a_call_that_nobody_watches_is_told_in_nanoseconds() {
        let text = render(&storm(Storm::Syscall));
        assert!(text.contains("| wall clock, ns | 20000.0 (10000.0–30000.0) |"), "{text}");
        assert!(text.contains("more than off | 70.0 ns | 3000.0 (2000.0–4000.0) | missed | 80–88 ns |"), "{text}");
        assert!(text.contains("no event is wanted of this; 93 records"), "{text}");
    }

    #[test]
    fn the_kernel_thread_has_a_row_beside_auditd_alone() {
        assert!(!render(&storm(Storm::Exec)).contains("kauditd"));
        let mut results = storm(Storm::Exec);
        results.subjects.push(Subject::Auditd);
        assert!(render(&results).contains("| its kernel thread's (kauditd), µs |  | — | — |"), "{}", render(&results));
    }

    #[test]
    fn nothing_measured_is_a_dash_and_no_panic() {
        let mut empty = Results { subjects: vec![Subject::Off, Subject::Bartizan], ..Results::default() };
        empty.costs.insert(Storm::Exec, Costs::new(0));
        let text = render(&empty);
        assert!(text.contains("| wall clock, µs | — | — | — |"), "{text}");
    }
}
