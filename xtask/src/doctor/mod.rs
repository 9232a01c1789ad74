//! `cargo xtask doctor`: what this machine has of what the verbs need, each missing thing with its remedy.
//!
//! It looks and changes nothing. Whether a registry can be reached is not tried: that shows when something is fetched, and says so then.

mod checks;
mod page;

use std::process::ExitCode;

use anyhow::Result;

use crate::project::Project;

/// The verbs that need things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    Build,
    Run,
    Test,
    Vm,
    Bench,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Run => "run",
            Self::Test => "test",
            Self::Vm => "vm",
            Self::Bench => "bench",
        }
    }
}

/// What a look at one thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// It is there; what exactly.
    There(String),
    /// It is not, and a verb brings it when it needs it; how.
    Later(String),
    /// It is not, and the verb works without it; what that costs and how to have it.
    Without(String),
    /// It is not, and a person must do something; what.
    Missing(String),
}

/// One thing that a verb needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    area: Area,
    thing: String,
    finding: Finding,
}

/// Options of `cargo xtask doctor`.
///
/// Exit code 0: every verb works, or fetches itself what it lacks. 1: something is missing that only you can bring.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {}

/// The verb.
///
/// # Errors
/// The workspace cannot be read.
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let checks = checks::all(&Project::locate()?);
    let (text, good) = page::render(&checks);
    print!("{text}");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
