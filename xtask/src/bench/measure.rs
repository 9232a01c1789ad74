//! Turns: everyone watches the same work, one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bpf_stats::Counting;
use super::capture::{Plan, run_storm, version};
use super::observer::{Counts, Observer, Subject};
use super::process::{self, Memory, Runs};
use super::report::{self, Costs, Head, Results, Round, Watched};
use super::storm::{Ran, Storm, WATCHED};
use crate::command;

/// What all measurements have in common.
pub(super) struct Bench<'a> {
    pub(super) plan: &'a Plan,
    pub(super) bartizan: &'a Path,
    /// For everybody's files.
    pub(super) folder: &'a Path,
    pub(super) threads: u64,
    /// The program, where this peer is wanted and there.
    pub(super) bpftrace: Option<PathBuf>,
    /// Whether this peer is wanted and can be had.
    pub(super) auditd: bool,
}

/// Measures every storm under every subject: the text of the section.
///
/// # Errors
/// A storm or an observer fails.
pub(super) fn storms(bench: &Bench<'_>, head: Head) -> Result<String> {
    let plan = bench.plan;
    let mut results = Results {
        head,
        threads: bench.threads,
        subjects: bench.subjects(),
        costs: plan.storms().into_iter().map(|storm| (storm, Costs::new(plan.operations(storm)))).collect(),
        ..Results::default()
    };
    // Programs and libraries come into the page cache, and nobody's first round is its slowest.
    for storm in plan.storms() {
        bench.storm(storm, (plan.operations(storm) / 10).max(1))?;
    }
    for round in 0..plan.rounds {
        eprintln!("      round {} of {}", round + 1, plan.rounds);
        for subject in results.subjects.clone() {
            bench.round(subject, &mut results)?;
        }
    }
    eprintln!("      time inside eBPF programs, with kernel.bpf_stats_enabled");
    let counting = Counting::begin()?;
    for subject in results.subjects.clone().into_iter().filter(|subject| subject.has_programs()) {
        bench.inside(subject, &mut results)?;
    }
    drop(counting);
    Ok(report::render(&results))
}

impl Bench<'_> {
    /// Who has a turn in each round.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let peers = [(Subject::Bpftrace, self.bpftrace.is_some()), (Subject::Auditd, self.auditd)];
        let here = peers.into_iter().filter_map(|(peer, here)| here.then_some(peer));
        [Subject::Off, Subject::Bartizan].into_iter().chain(here).collect()
    }

    /// The peers in words.
    pub(super) fn peers(&self) -> Result<Vec<String>> {
        let mut peers = Vec::new();
        if let Some(program) = &self.bpftrace {
            peers.push(format!("{}, printing execs with arguments, forks, exits and connects into a file", version(program)?));
        }
        if self.auditd {
            let said = command::find_program("auditctl").map(|program| version_of_audit(&program)).transpose()?.unwrap_or_default();
            peers.push(format!("auditd {said}, Debian's settings, with rules for execve, connect and opens for writing below one folder"));
        }
        Ok(peers)
    }

    /// Starts the observer of a turn, and waits until it rests.
    pub(super) fn observer(&self, subject: Subject) -> Result<Option<Observer>> {
        let folder = self.folder.join(subject.name());
        let observer = match (subject, &self.bpftrace) {
            (Subject::Bartizan, _) => self.bartizan(folder)?,
            (Subject::Bpftrace, Some(program)) => Observer::bpftrace(program, folder)?,
            (Subject::Auditd, _) => Observer::auditd(folder, &self.watched()?)?,
            (Subject::Off, _) | (Subject::Bpftrace, None) => return Ok(None),
        };
        self.rest(subject, &observer)?;
        Ok(Some(observer))
    }

    /// The folder whose files are opened for writing.
    fn watched(&self) -> Result<PathBuf> {
        let watched = self.folder.join(WATCHED);
        std::fs::create_dir_all(&watched).with_context(|| format!("{} cannot be made", watched.display()))?;
        Ok(watched)
    }

    /// Starts Bartizan with its defaults, and has it watch the files that are opened for writing.
    pub(super) fn bartizan(&self, folder: PathBuf) -> Result<Observer> {
        let config = format!("[files]\nextra_watch = [{:?}]\n", self.watched()?);
        Observer::bartizan_with(self.bartizan, folder, false, &config)
    }

    /// One subject's turn: every storm once under one observer.
    fn round(&self, subject: Subject, results: &mut Results) -> Result<()> {
        let observer = self.observer(subject)?;
        if let Some(observer) = &observer {
            results.starts.entry(subject).or_default().push(observer.start);
        }
        for (storm, costs) in &mut results.costs {
            let (ran, watched) = match &observer {
                None => (self.storm(*storm, costs.operations)?, None),
                Some(observer) => {
                    let (ran, watched) = self.under(subject, observer, *storm, costs.operations)?;
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
    fn under(&self, subject: Subject, observer: &Observer, storm: Storm, operations: u64) -> Result<(Ran, Watched)> {
        let counted = observer.counts()?;
        self.rest(subject, observer)?;
        let (process, thread) = observer.cpu()?;
        let ran = self.storm(storm, operations)?;
        self.rest(subject, observer)?;
        let after = observer.cpu()?;
        let counts: Counts = observer.counts()?.since(&counted);
        Ok((ran, Watched { cpu: after.0.saturating_sub(process), thread: after.1.saturating_sub(thread), counts }))
    }

    /// Waits until the observer has worked everything off.
    pub(super) fn rest(&self, subject: Subject, observer: &Observer) -> Result<()> {
        if !observer.rest()? {
            eprintln!("      note: {} does not come to rest, because others keep this machine busy", subject.name());
        }
        Ok(())
    }

    /// Every storm once more under each observer, with the kernel's clock on the programs. Apart, because that clock costs too.
    fn inside(&self, subject: Subject, results: &mut Results) -> Result<()> {
        let Some(observer) = self.observer(subject)? else { return Ok(()) };
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
    pub(super) fn storm(&self, storm: Storm, operations: u64) -> Result<Ran> {
        run_storm(storm, operations, self.threads, self.folder)
    }
}

/// `auditctl version 3.0.9` without its name.
fn version_of_audit(auditctl: &Path) -> Result<String> {
    let said = command::capture(std::process::Command::new(auditctl).arg("-v"), "this machine cannot run it")?;
    Ok(said.trim().rsplit(' ').next().unwrap_or_default().to_owned())
}
