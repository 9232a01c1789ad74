//! `bartizan status`: does it work, and what does it not see.

use std::time::Duration;

use super::exit::{Exit, Failure, chain};
use super::out::{Out, Stop};
use super::paint::{ColorChoice, Paint};
use super::{Common, status_page};
use crate::control::{self, ClientError};
use crate::status::Verdict;

/// How long a running Bartizan may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show whether Bartizan works, what it sees and what it does not. Exit code 0: as well as this kernel allows; 1: degraded
/// against that; 2: not running on this data folder; 3: could not be found out; 64: wrong usage or configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON object, with `verdict` and `reasons`
    #[arg(long)]
    json: bool,

    /// Colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: ColorChoice,

    /// The same as --color never
    #[arg(long, conflicts_with = "color")]
    no_color: bool,
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let data_dir = common.data_dir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Unknown, format_args!("cannot wait for an answer: {error}")))?;
    let report = runtime.block_on(control::status(&data_dir, PATIENCE)).map_err(|error| Failure::new(exit(&error), chain(&error)))?;
    let verdict = report.verdict();
    let mut out = Out::stdout();
    if args.json {
        let json = status_page::json(&report, &verdict);
        out.line(&json.map_err(|error| Failure::new(Exit::Unknown, format_args!("the report cannot be written as JSON: {error}")))?)?;
    } else {
        let color = if args.no_color { ColorChoice::Never } else { args.color };
        out.line(&status_page::render(&report, &verdict, Paint::for_stdout(color)))?;
    }
    out.flush()?;
    Ok(match verdict {
        Verdict::Working => Exit::Ok,
        Verdict::Degraded(_) => Exit::Failed,
    })
}

fn exit(error: &ClientError) -> Exit {
    match error {
        ClientError::NotRunning { .. } => Exit::NotRunning,
        ClientError::NoSocket { .. }
        | ClientError::Permission { .. }
        | ClientError::NoAnswer { .. }
        | ClientError::Answer { .. }
        | ClientError::Io { .. } => Exit::Unknown,
    }
}
