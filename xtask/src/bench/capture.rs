//! `cargo xtask bench capture`: the plan of the measurement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::bpf_stats::Counting;
use super::machine::Machine;
use super::observer::{Counts, Observer, Subject};
use super::process::{self, Memory, Runs};
use super::report::{self, Costs, Results, Round, Watched};
use super::storm::{Ran, Storm};
use super::{alerts, document};
use crate::build;
use crate::command;
use crate::mounts;
use crate::privilege::{self, Privilege};
use crate::project::Project;
use crate::step::Steps;

/// Name of its place in the document.
const DOCUMENT: &str = "capture";

/// Options of `cargo xtask bench capture`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    plan: Plan,
    /// Print the table and leave docs/performance.md as it is.
    #[arg(long)]
    print_only: bool,
}

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
struct Plan {
    /// Rounds; each measures everyone once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Storms to measure; all when none is named.
    #[arg(long = "storm", value_name = "STORM")]
    storms: Vec<Storm>,
    /// Threads of each storm; as many as there are processors when not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    threads: Option<u64>,
    /// Percent of the usual operations of each storm.
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    scale: u64,
    /// Alerts to raise for the time from kernel to alert.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    alerts: u64,
    /// Leave the peer out.
    #[arg(long)]
    no_peer: bool,
}

impl Plan {
    /// The same as options of the hidden verb.
    fn arguments(&self) -> Vec<String> {
        let Self { rounds, storms, threads, scale, alerts, no_peer } = self;
        let mut words = vec![format!("--rounds={rounds}"), format!("--scale={scale}"), format!("--alerts={alerts}")];
        words.extend(storms.iter().map(|storm| format!("--storm={}", storm.name())));
        words.extend(threads.map(|threads| format!("--threads={threads}")));
        words.extend(no_peer.then(|| "--no-peer".to_owned()));
        words
    }

    fn storms(&self) -> Vec<Storm> {
        if self.storms.is_empty() { Storm::ALL.to_vec() } else { self.storms.clone() }
    }

    fn operations(&self, storm: Storm) -> u64 {
        (storm.operations() * self.scale / 100).max(1)
    }
}

/// Options of the part that is root.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    plan: Plan,
    #[arg(long)]
    bartizan: PathBuf,
    /// Folder for the observers' files; made and removed.
    #[arg(long)]
    folder: PathBuf,
}

/// The verb: builds as the user, measures as root, writes the document as the user.
///
/// # Errors
/// A failed build, no way to root, a measurement that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { plan, print_only } = args;
    privilege::warn_if_under_sudo();
    let project = Project::locate()?;
    let root = Privilege::find("Measuring the sensor", "run `cargo xtask bench capture` as root")?;
    let document = project.root.join("docs/performance.md");
    if !print_only {
        // Before minutes of measuring.
        document::check(&document, DOCUMENT)?;
    }
    let mut steps = Steps::new(build::STEPS + 2);
    let built = build::build(&project, true, &mut steps)?;
    steps.step("Kernel file systems", || Ok(((), mounts::ensure(root))))?;
    let table = steps.step("Measurements", || {
        let mut measure = root.command(std::env::current_exe().context("our own program cannot be found")?);
        measure.args(["bench", "measure"]).args(plan.arguments());
        measure.arg("--bartizan").arg(&built.binary).arg("--folder").arg(project.scratch("bench")?);
        let table = command::capture_shown(&mut measure, "read its message above")?;
        Ok((table, "done"))
    })?;
    println!("{table}");
    if !print_only {
        document::write(&document, DOCUMENT, &table)?;
        eprintln!("written into {}", document.display());
    }
    Ok(())
}

/// The folder of the measurement, gone with its owner. One that was killed leaves it to the next.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn make(path: &Path) -> Result<Self> {
        remove_abandoned(path);
        std::fs::create_dir(path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

/// Removes folders beside `path` that differ from it in the pid at the end, of which no process runs any more.
fn remove_abandoned(path: &Path) {
    let stem = |name: &str| name.rsplit_once('-').map(|(stem, pid)| (stem.to_owned(), pid.to_owned()));
    let Some((own, _)) = path.file_name().and_then(|name| stem(&name.to_string_lossy())) else { return };
    let entries = path.parent().and_then(|parent| std::fs::read_dir(parent).ok()).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        let abandoned = stem(&entry.file_name().to_string_lossy())
            .is_some_and(|(stem, pid)| stem == own && pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists());
        if abandoned && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            eprintln!("      note: {}, left by a run that was killed, cannot be removed ({error})", entry.path().display());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("      warning: {} cannot be removed ({error}): remove it by hand", self.0.display());
        }
    }
}

/// The hidden verb: everything that needs root. The table goes to stdout.
///
/// # Errors
/// A storm or an observer fails.
pub(crate) fn measure(args: &MeasureArgs) -> Result<()> {
    let MeasureArgs { plan, bartizan, folder } = args;
    let folder = Folder::make(folder)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let peer = if plan.no_peer { None } else { command::find_program("bpftrace") };
    if peer.is_none() && !plan.no_peer {
        eprintln!("      bpftrace is not on this machine, so the table has no peer: `apt-get install --no-install-recommends bpftrace`");
    }
    let bench = Bench { plan, bartizan, folder: &folder.0, threads: plan.threads.unwrap_or(processors), peer };
    let results = bench.all()?;
    print!("{}", report::render(&results));
    Ok(())
}

/// What all measurements have in common.
struct Bench<'a> {
    plan: &'a Plan,
    bartizan: &'a Path,
    folder: &'a Path,
    threads: u64,
    peer: Option<PathBuf>,
}

impl Bench<'_> {
    fn all(&self) -> Result<Results> {
        let subjects = self.subjects();
        let mut results = Results {
            machine: Machine::look()?,
            command: format!("cargo xtask bench capture {}", self.plan.arguments().join(" ")),
            peer: self.peer.as_deref().map(version).transpose()?,
            bartizan: version(self.bartizan)?,
            threads: self.threads,
            subjects: subjects.clone(),
            costs: self.plan.storms().into_iter().map(|storm| (storm, Costs::new(self.plan.operations(storm)))).collect(),
            ..Results::default()
        };
        // Programs and libraries come into the page cache, and nobody's first round is its slowest.
        for storm in self.plan.storms() {
            self.storm(storm, (self.plan.operations(storm) / 10).max(1))?;
        }
        for round in 0..self.plan.rounds {
            eprintln!("      round {} of {}", round + 1, self.plan.rounds);
            for subject in &subjects {
                self.round(*subject, &mut results)?;
            }
        }
        eprintln!("      time inside eBPF programs, with kernel.bpf_stats_enabled");
        let counting = Counting::begin()?;
        for subject in subjects.iter().filter(|subject| **subject != Subject::Off) {
            self.inside(*subject, &mut results)?;
        }
        drop(counting);
        eprintln!("      {} alerts, one after the other", self.plan.alerts);
        let mut sensor = Observer::bartizan(self.bartizan, self.folder.join("alerts"), true)?;
        results.latencies = alerts::measure(&mut sensor, self.plan.alerts)?;
        sensor.stop()?;
        Ok(results)
    }

    fn subjects(&self) -> Vec<Subject> {
        [Subject::Off, Subject::Bartizan].into_iter().chain(self.peer.as_ref().map(|_| Subject::Bpftrace)).collect()
    }

    fn observer(&self, subject: Subject) -> Result<Option<Observer>> {
        let folder = self.folder.join(subject.name());
        Ok(match (subject, &self.peer) {
            (Subject::Bartizan, _) => Some(Observer::bartizan(self.bartizan, folder, false)?),
            (Subject::Bpftrace, Some(program)) => Some(Observer::bpftrace(program, folder)?),
            (Subject::Off, _) | (Subject::Bpftrace, None) => None,
        })
    }

    /// One subject's turn: every storm once under one observer.
    fn round(&self, subject: Subject, results: &mut Results) -> Result<()> {
        let observer = self.observer(subject)?;
        if let Some(observer) = &observer {
            results.starts.entry(subject).or_default().push(observer.start);
            self.rest(subject, observer)?;
        }
        for (storm, costs) in &mut results.costs {
            let (ran, watched) = match &observer {
                None => (self.storm(*storm, costs.operations)?, None),
                Some(observer) => {
                    let (ran, watched) = self.watched(subject, observer, *storm, costs.operations)?;
                    (ran, Some(watched))
                }
            };
            costs.rounds.entry(subject).or_default().push(Round { ran, watched });
        }
        let Some(observer) = observer else { return Ok(()) };
        results.memory.entry(subject).or_default().push(self.memory(&observer)?);
        observer.stop()
    }

    fn memory(&self, observer: &Observer) -> Result<Memory> {
        process::memory(observer.pid())
    }

    /// A storm with an observer: what it counted and used until it had worked everything off.
    fn watched(&self, subject: Subject, observer: &Observer, storm: Storm, operations: u64) -> Result<(Ran, Watched)> {
        let counted = observer.counts()?;
        self.rest(subject, observer)?;
        let before = process::cpu(observer.pid())?;
        let ran = self.storm(storm, operations)?;
        self.rest(subject, observer)?;
        let cpu = process::cpu(observer.pid())?.saturating_sub(before);
        let counts: Counts = observer.counts()?.since(&counted);
        Ok((ran, Watched { cpu, counts }))
    }

    fn rest(&self, subject: Subject, observer: &Observer) -> Result<()> {
        if !observer.rest()? {
            eprintln!("      note: {} does not come to rest, because others keep this machine busy", subject.name());
        }
        Ok(())
    }

    /// Every storm once more under each observer, with the kernel's clock on the programs. Apart, because that clock costs too.
    fn inside(&self, subject: Subject, results: &mut Results) -> Result<()> {
        let Some(observer) = self.observer(subject)? else { return Ok(()) };
        self.rest(subject, &observer)?;
        for (storm, costs) in &mut results.costs {
            let before = process::bpf(observer.pid())?.total();
            self.storm(*storm, costs.operations)?;
            let after = process::bpf(observer.pid())?.total();
            self.rest(subject, &observer)?;
            let runs = Runs { time: after.time.saturating_sub(before.time), count: after.count.saturating_sub(before.count) };
            costs.inside.insert(subject, runs);
        }
        observer.stop()
    }

    /// Runs a storm in a process of its own.
    fn storm(&self, storm: Storm, operations: u64) -> Result<Ran> {
        run_storm(storm, operations, self.threads)
    }
}

/// Runs a storm in a process of its own.
pub(super) fn run_storm(storm: Storm, operations: u64, threads: u64) -> Result<Ran> {
    let mut process = Command::new(std::env::current_exe().context("our own program cannot be found")?);
    process.args(["bench", "storm", storm.name(), &format!("--operations={operations}"), &format!("--threads={threads}")]);
    command::clean(&mut process);
    command::capture_shown(&mut process, "the storm says above what failed")?.parse()
}

/// The first line of what a program says of its version.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} could not be started", program.display()))?;
    if !output.status.success() {
        bail!("`{} --version` failed ({})", program.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// What a map of durations sums up to; shorter than writing it out.
pub(super) type BySubject<T> = BTreeMap<Subject, T>;

/// Nanoseconds as microseconds for one of `operations`.
pub(super) fn each(total: Duration, operations: u64) -> f64 {
    total.as_nanos() as f64 / 1000.0 / operations.max(1) as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        plan: Plan,
    }

    #[test]
    fn the_plan_reaches_the_part_that_is_root() -> Result<()> {
        let plan = Line::try_parse_from(["x", "--rounds", "3", "--storm", "login", "--threads", "1", "--scale", "5", "--no-peer"])?.plan;
        let again = Line::try_parse_from(std::iter::once("x".to_owned()).chain(plan.arguments()))?.plan;
        assert_eq!(plan.arguments(), again.arguments());
        assert_eq!((again.rounds, again.storms(), again.threads, again.no_peer), (3, vec![Storm::Login], Some(1), true));
        assert_eq!(again.operations(Storm::Login), Storm::Login.operations() / 20);
        let all = Line::try_parse_from(["x"])?.plan;
        assert_eq!(all.storms(), Storm::ALL);
        Ok(())
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let path = |name: &str| parent.path().join(name);
        let running = format!("bench-{}", std::process::id());
        for name in ["bench-4194999", "other-4194999", "bench-notes", running.as_str()] {
            std::fs::create_dir(path(name))?;
        }
        let made = Folder::make(&path("bench-1"))?;
        let left = |name: &str| path(name).exists();
        assert!(!left("bench-4194999") && left("other-4194999") && left("bench-notes") && left(&running) && left("bench-1"));
        drop(made);
        assert!(!left("bench-1"));
        Ok(())
    }

    #[test]
    fn shares_are_in_microseconds() {
        assert!((each(Duration::from_millis(6), 3) - 2000.0).abs() < 1e-9);
    }
}
