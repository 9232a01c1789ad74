//! The fuzz targets of `fuzz/`: built with coverage by the stable compiler, and run for some minutes each, two at a time.
//!
//! What they find that is new goes to `target/fuzz/`, never into the repository. What a target must not do is in `bartizan_bus::fuzzing`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::project::Project;
use crate::test::libtest::Counts;
use crate::test::packages;

/// What nightly's cargo-fuzz says to the compiler, as far as stable knows it: coverage by LLVM's own pass, which needs no `-Z` option. No
/// sanitizer: the code is safe Rust.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cforce-frame-pointers";
/// Named, so that build scripts, which have no libFuzzer to be linked with, are not instrumented.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Targets that run at the same time.
const AT_A_TIME: usize = 2;

/// Names of the targets, in order.
///
/// # Errors
/// The folder cannot be read, or has none.
pub(crate) fn targets(project: &Project) -> Result<Vec<String>> {
    let folder = project.root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read: restore it with git", folder.display()))? {
        let path = entry.with_context(|| format!("{} cannot be read: restore it with git", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    if names.is_empty() {
        bail!("{} has no fuzz target: restore it with git", folder.display());
    }
    names.sort_unstable();
    Ok(names)
}

/// Builds the targets and runs each for so many minutes. Each counts as one test.
///
/// # Errors
/// A failed build, a C++ compiler that cannot be installed, or a folder that cannot be made.
pub(crate) fn run(project: &Project, names: &[String], minutes: u64) -> Result<Counts> {
    packages::ensure_for_fuzz()?;
    let programs = build(project)?;
    let waiting = Mutex::new(names.iter().collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut counts = Counts::default();
        while let Some(name) = next() {
            match one(project, &programs, name, minutes) {
                Ok(said) => {
                    eprintln!("      {name}: {said}");
                    counts.passed += 1;
                }
                Err(error) => {
                    eprintln!("      {name} FAILED: {error:#}");
                    counts.failed += 1;
                }
            }
        }
        counts
    };
    let mut total = Counts::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(counts) => total.add(counts),
                Err(_) => total.failed += 1,
            }
        }
    });
    Ok(total)
}

/// Gives the folder of the programs.
fn build(project: &Project) -> Result<PathBuf> {
    let target = project.target.join("fuzz/build");
    let mut cargo = command::cargo();
    cargo.current_dir(project.root.join("fuzz"));
    cargo.args(["build", "--release", "--locked", "--target", TRIPLE, "--target-dir"]).arg(&target);
    cargo.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::run(&mut cargo, "read the compiler's message above")?;
    Ok(target.join(TRIPLE).join("release"))
}

/// Runs one target; gives what it did.
fn one(project: &Project, programs: &Path, name: &str, minutes: u64) -> Result<String> {
    let folder = project.target.join("fuzz").join(name);
    let (found, crashes, log) = (folder.join("corpus"), folder.join("crashes"), folder.join("log"));
    for made in [&found, &crashes] {
        fs::create_dir_all(made).with_context(|| format!("{} cannot be made: check who owns target/", made.display()))?;
    }
    let output = File::create(&log).with_context(|| format!("{} cannot be made: check who owns target/", log.display()))?;
    let program = programs.join(name);
    let mut fuzz = Command::new(&program);
    command::clean(&mut fuzz);
    fuzz.arg(format!("-max_total_time={}", minutes.saturating_mul(60)));
    fuzz.args(["-rss_limit_mb=2048", "-timeout=20", "-print_final_stats=1"]);
    fuzz.arg(format!("-artifact_prefix={}/", crashes.display()));
    let words = project.root.join("fuzz/dict").join(format!("{name}.dict"));
    if words.exists() {
        fuzz.arg(format!("-dict={}", words.display()));
    }
    fuzz.arg(&found).arg(project.root.join("fuzz/corpus").join(name));
    fuzz.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let status = fuzz.status().with_context(|| format!("{} could not be started: run `cargo xtask soak` again", program.display()))?;
    // Inputs of any bytes are in there.
    let text = String::from_utf8_lossy(&fs::read(&log).with_context(|| format!("{} cannot be read", log.display()))?).into_owned();
    match (status.success(), crash(&text)) {
        (true, _) => Ok(summary(&text)),
        (false, Some(input)) => bail!(
            "{input} breaks an invariant ({}); repeat it with `{} {input}`, and see {}",
            summary(&text),
            program.display(),
            log.display()
        ),
        (false, None) => bail!("it ended with {status}: see {}", log.display()),
    }
}

/// The input that libFuzzer wrote down when it ended.
fn crash(log: &str) -> Option<&str> {
    log.lines().rev().find_map(|line| Some(line.split_once("Test unit written to ")?.1.trim()))
}

/// Executions, edges and corpus of a log, in words.
fn summary(log: &str) -> String {
    let words = || log.lines().rev().filter(|line| line.starts_with('#')).find(|line| line.contains(" cov: "));
    let behind = |name: &str| {
        let mut words = words()?.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()
    };
    let begun = || words()?.strip_prefix('#')?.split_whitespace().next();
    let counted = log.lines().find_map(|line| Some(line.strip_prefix("stat::number_of_executed_units:")?.trim()));
    let executions = counted.or_else(begun).unwrap_or("no");
    let (edges, corpus) = (behind("cov:").unwrap_or("no"), behind("corp:").unwrap_or("nothing"));
    format!("{executions} executions, {edges} edges covered, corpus {corpus}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_in_the_manifest_and_has_a_corpus() -> Result<()> {
        let project = Project::locate()?;
        let manifest = fs::read_to_string(project.root.join("fuzz/Cargo.toml"))?;
        let names = targets(&project)?;
        assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        for name in names {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            assert!(fs::read_dir(project.root.join("fuzz/corpus").join(&name))?.next().is_some(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn a_log_tells_what_was_done_and_what_crashed() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 90 ft: 91 corp: 1/1b exec/s: 0 rss: 25Mb\n\
            #94705\tDONE   cov: 1984 ft: 2707 corp: 280/10837b lim: 233 exec/s: 10522 rss: 32Mb\nDone 94705 runs in 9 second(s)\n\
            stat::number_of_executed_units: 94706\n";
        assert_eq!(summary(log), "94706 executions, 1984 edges covered, corpus 280/10837b");
        assert_eq!(crash(log), None);
        let log = "#7\tNEW    cov: 5 ft: 91 corp: 3/1b\nartifact_prefix='/t/'; Test unit written to /t/crash-30\nBase64: YQ==\n";
        assert_eq!(crash(log), Some("/t/crash-30"));
        assert_eq!(summary(log), "7 executions, 5 edges covered, corpus 3/1b");
        assert_eq!(summary(""), "no executions, no edges covered, corpus nothing");
    }
}
