//! `cargo xtask test`: every test there is, in order, with one verdict.

pub(crate) mod binaries;
mod clients;
pub(crate) mod libtest;
pub(crate) mod nats_server;
pub(crate) mod packages;
mod stages;
mod summary;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use stages::{Stage, VM_KERNELS};

use crate::privilege;
use crate::project::Project;
use crate::step;
use stages::Bench;
use summary::Finished;

/// Options of `cargo xtask test`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Stages to run, with those that they need; all when none is named.
    stages: Vec<Stage>,
    /// List the stages and end.
    #[arg(long)]
    list: bool,
    /// Test the optimised binary.
    #[arg(long)]
    release: bool,
}

/// The verb: exit code 0 only when every stage passed.
///
/// # Errors
/// The workspace cannot be read. What fails in a stage is in its report.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        for stage in Stage::value_variants() {
            println!("{:<10} {}", stage.name(), stage.purpose());
        }
        return Ok(ExitCode::SUCCESS);
    }
    privilege::warn_if_under_sudo();
    let mut bench = Bench { project: Project::locate()?, release: args.release, built: None };
    let chosen = choose(&args.stages);
    let (mut finished, mut skipped): (Vec<Finished>, Vec<Stage>) = (Vec::new(), Vec::new());
    let mut no_build = false;
    for (index, stage) in chosen.iter().copied().enumerate() {
        if no_build {
            skipped.push(stage);
            continue;
        }
        eprintln!("== [{}/{}] {}: {}", index + 1, chosen.len(), stage.name(), stage.purpose());
        let began = Instant::now();
        let report = bench.run(stage);
        let took = began.elapsed();
        for trouble in &report.trouble {
            eprintln!("== {}: {trouble}", stage.name());
        }
        eprintln!("== {} took {}", stage.name(), step::seconds(took));
        no_build = stage == Stage::Build && bench.built.is_none();
        finished.push(Finished { stage, report, took });
    }
    let (text, passed) = summary::render(&finished, &skipped);
    print!("{text}");
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The named stages with all that they need, in running order.
fn choose(named: &[Stage]) -> BTreeSet<Stage> {
    let named = if named.is_empty() { Stage::value_variants() } else { named };
    named.iter().flat_map(|stage| stage.needs().iter().chain([stage])).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naming_none_is_naming_all() {
        assert_eq!(choose(&[]).len(), Stage::value_variants().len());
    }

    #[test]
    fn what_a_stage_needs_comes_along_and_before() {
        let chosen: Vec<Stage> = choose(&[Stage::Vm, Stage::Format]).into_iter().collect();
        assert_eq!(chosen, [Stage::Packages, Stage::Build, Stage::Format, Stage::Vm]);
    }
}
