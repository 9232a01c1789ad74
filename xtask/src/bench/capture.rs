//! `cargo xtask bench capture`: the plan of the measurement, and what its sections have in common.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::machine::Machine;
use super::measure::{self, Bench};
use super::report::Head;
use super::storm::{Ran, Storm};
use super::workload::Workload;
use super::{audit, document, latency, mixed, workload};
use crate::build;
use crate::command;
use crate::mounts;
use crate::privilege::{self, Privilege};
use crate::project::Project;
use crate::step::Steps;
use crate::test::packages;

/// One kind of measurement. Each has a place of its own in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Section {
    /// What one operation of each storm costs.
    Storms,
    /// How fast an event is on the bus, and an alert is told.
    Latency,
    /// Memory and latency while everything happens at once.
    Mixed,
    /// Wall clock of a crate's build.
    Build,
    /// Wall clock of redis-benchmark.
    Redis,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Storms => "storms",
            Self::Latency => "latency",
            Self::Mixed => "mixed",
            Self::Build => "build",
            Self::Redis => "redis",
        }
    }

    /// Whether everyone has a turn in it; else it is about Bartizan alone.
    fn has_turns(self) -> bool {
        match self {
            Self::Storms | Self::Build | Self::Redis => true,
            Self::Latency | Self::Mixed => false,
        }
    }

    /// Name of its place in the document.
    fn marker(self) -> String {
        format!("capture --only {}", self.name())
    }
}

/// A program that watches beside Bartizan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// bpftrace with a script: a floor for a tracer.
    Bpftrace,
    /// auditd with rules: what Debian has for this.
    Auditd,
}

/// Options of `cargo xtask bench capture`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    plan: Plan,
    /// Sections to measure; all when none is named.
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
    /// Print the tables and leave docs/performance.md as it is.
    #[arg(long)]
    print_only: bool,
}

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(super) struct Plan {
    /// Rounds; each measures everyone once.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rounds: u64,
    /// Storms to measure; all when none is named.
    #[arg(long = "storm", value_name = "STORM")]
    storms: Vec<Storm>,
    /// Threads of each storm; as many as there are processors when not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    threads: Option<u64>,
    /// Percent of the usual operations of each storm, and of redis-benchmark's.
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) scale: u64,
    /// Alerts to raise for the time from kernel to alert.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) alerts: u64,
    /// Seconds of the mixed load; 600 is what the goal for memory is about.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) seconds: u64,
    /// Peers to measure beside Bartizan; all that are on this machine when none is named.
    #[arg(long = "peer", value_name = "PEER")]
    peers: Vec<Peer>,
    /// Leave the peers out.
    #[arg(long, conflicts_with = "peers")]
    no_peer: bool,
}

impl Plan {
    /// The same as options, as far as they matter to `section`.
    fn arguments(&self, section: Section) -> Vec<String> {
        let Self { rounds, storms, threads, scale, alerts, seconds, peers, no_peer } = self;
        let mut words = Vec::new();
        let mut word = |of: &[Section], word: String| words.extend(of.contains(&section).then_some(word));
        let turns = [Section::Storms, Section::Build, Section::Redis];
        word(&turns, format!("--rounds={rounds}"));
        word(&[Section::Storms, Section::Redis], format!("--scale={scale}"));
        word(&[Section::Latency], format!("--alerts={alerts}"));
        word(&[Section::Mixed], format!("--seconds={seconds}"));
        storms.iter().for_each(|storm| word(&[Section::Storms], format!("--storm={}", storm.name())));
        threads.iter().for_each(|threads| word(&[Section::Storms, Section::Mixed], format!("--threads={threads}")));
        let name = |peer: &Peer| peer.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        peers.iter().for_each(|peer| word(&turns, format!("--peer={}", name(peer))));
        if *no_peer {
            word(&turns, "--no-peer".to_owned());
        }
        words
    }

    pub(super) fn storms(&self) -> Vec<Storm> {
        if self.storms.is_empty() { Storm::ALL.to_vec() } else { self.storms.clone() }
    }

    pub(super) fn operations(&self, storm: Storm) -> u64 {
        (storm.operations() * self.scale / 100).max(1)
    }

    fn wants(&self, peer: Peer) -> bool {
        !self.no_peer && (self.peers.is_empty() || self.peers.contains(&peer))
    }
}

/// Options of the part that is root.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    plan: Plan,
    /// What is measured.
    #[arg(long)]
    only: Section,
    #[arg(long)]
    bartizan: PathBuf,
    /// Folder for the observers' files; made and removed.
    #[arg(long)]
    folder: PathBuf,
    /// Cargo of the user, for the build that is timed.
    #[arg(long)]
    cargo: PathBuf,
    /// The workspace that is built.
    #[arg(long)]
    workspace: PathBuf,
}

/// The verb: builds as the user, measures as root, writes the document as the user.
///
/// # Errors
/// A failed build, no way to root, a measurement that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { plan, only, print_only } = args;
    privilege::warn_if_under_sudo();
    let project = Project::locate()?;
    let root = Privilege::find("Measuring the sensor", "run `cargo xtask bench capture` as root")?;
    let document = project.root.join("docs/performance.md");
    let sections = if only.is_empty() { Section::value_variants() } else { only.as_slice() };
    if !print_only {
        // Before minutes of measuring.
        sections.iter().try_for_each(|section| document::check(&document, &section.marker()))?;
    }
    let mut steps = Steps::new(build::STEPS + 2 + sections.len());
    let built = build::build(&project, true, &mut steps)?;
    steps.step("Kernel file systems", || Ok(((), mounts::ensure(root))))?;
    steps.step("Peers", || {
        // Without a peer the tables have fewer columns, and say so.
        Ok(((), packages::ensure_for_capture().unwrap_or_else(|error| format!("not all are here: {error:#}"))))
    })?;
    for section in sections {
        let table = steps.step(&format!("Measurements: {}", section.name()), || {
            let mut measure = root.command(std::env::current_exe().context("our own program cannot be found")?);
            measure.args(["bench", "measure", "--only", section.name()]).args(plan.arguments(*section));
            measure.arg("--bartizan").arg(&built.binary).arg("--folder").arg(project.scratch("bench")?);
            measure.arg("--cargo").arg(command::cargo().get_program()).arg("--workspace").arg(&project.root);
            let table = command::capture_shown(&mut measure, "read its message above")?;
            Ok((table, "done"))
        })?;
        println!("{table}");
        if !print_only {
            document::write(&document, &section.marker(), &table)?;
            eprintln!("written into {}", document.display());
        }
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

/// The hidden verb: one section, which needs root. Its text goes to stdout.
///
/// # Errors
/// A storm or an observer fails.
pub(crate) fn measure(args: &MeasureArgs) -> Result<()> {
    let MeasureArgs { plan, only, bartizan, folder, cargo, workspace } = args;
    let folder = Folder::make(folder)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut absent = Vec::new();
    let bpftrace = command::find_program("bpftrace");
    if plan.wants(Peer::Bpftrace) && bpftrace.is_none() {
        absent.push("bpftrace is not on this machine: `apt-get install --no-install-recommends bpftrace`".to_owned());
    }
    let obstacle = plan.wants(Peer::Auditd).then(audit::obstacle).flatten();
    let auditd = plan.wants(Peer::Auditd) && obstacle.is_none();
    absent.extend(obstacle);
    absent.iter().filter(|_| only.has_turns()).for_each(|reason| eprintln!("      note: a column less: {reason}"));
    let bench = Bench {
        plan,
        bartizan,
        folder: &folder.0,
        threads: plan.threads.unwrap_or(processors),
        bpftrace: bpftrace.filter(|_| plan.wants(Peer::Bpftrace)),
        auditd,
    };
    let head = Head {
        machine: Machine::look()?,
        command: format!("cargo xtask bench {} {}", only.marker(), plan.arguments(*only).join(" ")),
        bartizan: version(bartizan)?,
        peers: if only.has_turns() { bench.peers()? } else { Vec::new() },
        absent: if only.has_turns() { absent } else { Vec::new() },
    };
    let text = match only {
        Section::Storms => measure::storms(&bench, head)?,
        Section::Latency => latency::measure(&bench, head)?,
        Section::Mixed => mixed::measure(&bench, head)?,
        Section::Build => workload::measure(&bench, head, Workload::build(cargo, workspace, &folder.0))?,
        Section::Redis => workload::measure(&bench, head, Workload::redis(&folder.0, plan.scale)?)?,
    };
    print!("{text}");
    Ok(())
}

/// Runs a storm in a process of its own, with its files below `folder`.
pub(super) fn run_storm(storm: Storm, operations: u64, threads: u64, folder: &Path) -> Result<Ran> {
    let mut process = Command::new(std::env::current_exe().context("our own program cannot be found")?);
    process.args(["bench", "storm", storm.name(), &format!("--operations={operations}"), &format!("--threads={threads}")]);
    process.arg("--folder").arg(folder);
    command::clean(&mut process);
    command::capture_shown(&mut process, "the storm says above what failed")?.parse()
}

/// The first line of what a program says of its version.
pub(super) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} could not be started", program.display()))?;
    if !output.status.success() {
        bail!("`{} --version` failed ({})", program.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
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

    fn plan(words: &[&str]) -> Result<Plan> {
        Ok(Line::try_parse_from(["x"].iter().chain(words))?.plan)
    }

    #[test]
    fn the_plan_reaches_the_part_that_is_root() -> Result<()> {
        let given =
            ["--rounds", "3", "--storm", "login", "--threads", "1", "--scale", "5", "--peer", "auditd", "--alerts=9", "--seconds=7"];
        let given = plan(&given)?;
        for section in Section::value_variants() {
            let words = given.arguments(*section);
            let again = plan(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
            assert_eq!(given.arguments(*section), again.arguments(*section));
        }
        assert_eq!(given.arguments(Section::Storms).join(" "), "--rounds=3 --scale=5 --storm=login --threads=1 --peer=auditd");
        assert_eq!(given.arguments(Section::Latency).join(" "), "--alerts=9");
        assert_eq!(given.arguments(Section::Mixed).join(" "), "--seconds=7 --threads=1");
        assert_eq!(given.operations(Storm::Login), Storm::Login.operations() / 20);
        assert_eq!((given.storms(), plan(&[])?.storms()), (vec![Storm::Login], Storm::ALL.to_vec()));
        Ok(())
    }

    #[test]
    fn peers_are_all_or_those_that_are_named() -> Result<()> {
        let wanted = |words: &[&str]| -> Result<[bool; 2]> {
            let plan = plan(words)?;
            Ok([plan.wants(Peer::Bpftrace), plan.wants(Peer::Auditd)])
        };
        assert_eq!(wanted(&[])?, [true, true]);
        assert_eq!(wanted(&["--peer=auditd"])?, [false, true]);
        assert_eq!(wanted(&["--no-peer"])?, [false, false]);
        assert!(plan(&["--no-peer", "--peer=auditd"]).is_err());
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
}
