//! `cargo xtask soak`: what `test` does with chance, and what it does under load, for longer.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bench::{self, Storm};
use crate::build;
use crate::fuzz;
use crate::privilege::{self, Privilege};
use crate::project::Project;
use crate::step::{self, Steps};
use crate::stream::{End, stream};
use crate::test::binaries;
use crate::test::libtest::{Counts, Tally};

/// libtest filter of the tests that load the machine: they have the word in their names.
const STORMS: &str = "storm";

/// The test that goes on for as long as its variable says.
const CHURN: &str = "churn";
const CHURN_MINUTES: &str = "BARTIZAN_CHURN_MINUTES";
/// What it takes besides its minutes, at most: a sensor's start, and a round that has begun.
const CHURN_MORE: Duration = Duration::from_secs(300);

/// Options of `cargo xtask soak`.
///
/// First every property test with many more cases than `test` takes; then the fuzz targets, two at a time; then the storm tests on this machine's kernel, again and again until
/// the time is up (a round that has begun is finished); then, for as long again, the storms of `cargo xtask bench` against one sensor that
/// lives on: what each did must be received or counted as lost, and the sensor's memory is shown after each round. It judges no throughput. Last
/// comes churn: processes that come and go in masses (fork bombs, containers, pids given out again), none of whom may be mixed up with
/// another, while tables stay bounded and memory does not grow.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Minutes of the storm tests, and of the bench's storms; at least one round of each runs.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Cases for each property test that sets no count of its own (`test` takes 256).
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    cases: u32,
    /// Minutes for each fuzz target; 0 leaves them out.
    #[arg(long, default_value_t = 10)]
    fuzz_minutes: u64,
    /// Minutes of churn; 0 leaves it out.
    #[arg(long, default_value_t = 30)]
    churn_minutes: u64,
    /// Run only the bench's storms of this name, and nothing else (repeatable).
    #[arg(long = "storm", value_name = "STORM")]
    storms: Vec<Storm>,
    /// Run only the fuzz target of this name, and nothing else: that needs no root (repeatable).
    #[arg(long = "fuzz", value_name = "TARGET", conflicts_with = "storms")]
    fuzz: Vec<String>,
}

/// The verb: exit code 0 only when every round passed.
///
/// # Errors
/// A failed build, no way to root, or no storm test to run.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    privilege::warn_if_under_sudo();
    let project = Project::locate()?;
    if !args.fuzz.is_empty() {
        return Ok(verdict(fuzz_targets(&project, args, &mut Steps::new(1))?));
    }
    let root = Privilege::find("A storm on the kernel", "run `cargo xtask soak` as root")?;
    let built = build::build(&project, false, &mut Steps::new(build::STEPS))?;
    let named = !args.storms.is_empty();
    let mut steps = Steps::new(if named { 1 } else { 5 });
    let mut total = if named { Counts::default() } else { tests(&project, args, root, &built.binary, &mut steps)? };
    let names = if named { &args.storms } else { Storm::TOLD.as_slice() };
    total.add(for_storms(&project, args, root, &built.binary, names, &mut steps)?);
    if !named {
        total.add(churn(&project, args.churn_minutes, root, &built.binary, &mut steps)?);
    }
    Ok(verdict(total))
}

/// Churn on one sensor.
fn churn(project: &Project, minutes: u64, root: Privilege, bartizan: &Path, steps: &mut Steps) -> Result<Counts> {
    steps.step(&format!("Churn on one sensor for {minutes} min"), || {
        if minutes == 0 {
            return Ok((Counts::default(), "left out, as --churn-minutes 0 says".to_owned()));
        }
        let binaries = binaries::build(project)?;
        let Some(binary) = binaries.iter().find(|binary| binary.name == CHURN) else {
            bail!("there is no test binary {CHURN:?} to soak: tests/tests/{CHURN}.rs was renamed");
        };
        let longest = Duration::from_secs(minutes.saturating_mul(60)).saturating_add(CHURN_MORE);
        let variable = format!("{CHURN_MINUTES}={minutes}");
        let (mut counts, trouble) = binaries::run_for(project, binary, bartizan, root, &["--nocapture"], &[&variable], longest)?;
        if trouble.is_some() {
            counts.failed = counts.failed.max(1);
        }
        let said = trouble.unwrap_or_else(|| "nobody mixed up, nothing grew".to_owned());
        Ok((counts, said))
    })
}

fn verdict(total: Counts) -> ExitCode {
    let Counts { passed, failed, ignored: _ } = total;
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The fuzz targets that were asked for, or all. Each counts as one test.
fn fuzz_targets(project: &Project, args: &Args, steps: &mut Steps) -> Result<Counts> {
    let all = fuzz::targets(project)?;
    if let Some(unknown) = args.fuzz.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {unknown:?}: the targets are {}", all.join(", "));
    }
    let names = if args.fuzz.is_empty() { all } else { args.fuzz.clone() };
    let minutes = args.fuzz_minutes;
    steps.step(&format!("Fuzz targets {} for {minutes} min each", names.join(", ")), || {
        if minutes == 0 {
            return Ok((Counts::default(), "left out, as --fuzz-minutes 0 says".to_owned()));
        }
        let counts = fuzz::run(project, &names, minutes)?;
        Ok((counts, format!("{} passed, {} failed; what they found is in target/fuzz/", counts.passed, counts.failed)))
    })
}

/// The bench's storms, one after the other on one sensor. They count as one test.
fn for_storms(project: &Project, args: &Args, root: Privilege, bartizan: &Path, storms: &[Storm], steps: &mut Steps) -> Result<Counts> {
    let names: Vec<&str> = storms.iter().map(|storm| storm.name()).collect();
    steps.step(&format!("Storms {} on one sensor for {} min", names.join(", "), args.minutes), || {
        let mut command = bench::storms(root, storms, args.minutes.saturating_mul(60), bartizan, &project.scratch("soak")?)?;
        let end = stream(&mut command, None, "run `cargo xtask soak` again", |_| ControlFlow::Continue(()))?;
        let good = matches!(end, End::Exited(status) if status.success());
        let counts = Counts { passed: u64::from(good), failed: u64::from(!good), ignored: 0 };
        Ok((counts, if good { "all balanced" } else { "FAILED: its lines are above" }))
    })
}

/// Property tests, fuzz targets and storm tests.
fn tests(project: &Project, args: &Args, root: Privilege, bartizan: &Path, steps: &mut Steps) -> Result<Counts> {
    let properties = steps.step(&format!("Property tests, {} cases each", args.cases), || {
        let counts = properties(project, args.cases)?;
        Ok((counts, format!("{} passed, {} failed", counts.passed, counts.failed)))
    })?;
    let fuzzed = fuzz_targets(project, args, steps)?;
    let storms = steps.step(&format!("Storm tests for {} min", args.minutes), || {
        let until = Instant::now() + Duration::from_secs(args.minutes.saturating_mul(60));
        let (mut total, mut rounds, mut bad) = (Counts::default(), 0_u64, 0_u64);
        let binaries = binaries::build(project)?;
        let began = Instant::now();
        while rounds == 0 || Instant::now() < until {
            rounds += 1;
            let mut good = true;
            for binary in binaries.iter().filter(|binary| binary.runs_here()) {
                let (counts, trouble) = binaries::run(project, binary, bartizan, root, &[STORMS])?;
                total.add(counts);
                good &= trouble.is_none();
            }
            if total.ran() == 0 {
                bail!("no test has {STORMS:?} in its name, so there is nothing to soak: the storm tests were renamed");
            }
            bad += u64::from(!good);
            eprintln!("      round {rounds} {} after {}", if good { "passed" } else { "FAILED" }, step::seconds(began.elapsed()));
        }
        Ok(((total, bad), format!("{rounds} rounds, {bad} failed")))
    })?;
    let (counts, bad_rounds) = storms;
    let failed = properties.failed + fuzzed.failed + counts.failed.max(bad_rounds);
    Ok(Counts { passed: properties.passed + fuzzed.passed + counts.passed, failed, ignored: 0 })
}

/// All unit and integration tests, the property tests among them with more cases: proptest reads `PROPTEST_CASES`.
fn properties(project: &Project, cases: u32) -> Result<Counts> {
    let mut cargo = project.cargo();
    cargo.args(["test", "--workspace", "--exclude", "bartizan-tests", "--no-fail-fast", "--tests"]);
    cargo.env("PROPTEST_CASES", cases.to_string());
    let mut tally = Tally::default();
    let end = stream(&mut cargo, None, "install Rust from https://rustup.rs", |piece| {
        tally.feed(piece);
        ControlFlow::Continue(())
    })?;
    let mut counts = tally.counts();
    match end {
        End::Exited(status) if status.success() => {}
        // A crash or a failed build has no failing test to count.
        End::Exited(_) | End::Stopped | End::TimedOut => counts.failed = counts.failed.max(1),
    }
    Ok(counts)
}
