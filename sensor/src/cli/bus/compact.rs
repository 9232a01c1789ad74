//! `bartizan bus compact`: gives room back while nothing runs.

use bartizan_bus::edge::{Compacted, compact};

use super::super::Common;
use super::super::escape::escape;
use super::super::exit::{Exit, Failure, chain};
use super::super::out::{Out, Stop};
use crate::config::units::about_bytes as about;

/// Compress every closed segment and rewrite those that lost most of their messages. A running Bartizan does this by itself; this verb is for
/// one that is stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the verb.
pub(crate) fn run(common: &Common, Args {}: &Args) -> Result<Exit, Stop> {
    let config = common.config().map_err(Stop::Failed)?;
    let done = compact(&config.data_dir, &config.bus(&config.events_budget()))
        .map_err(|error| Stop::Failed(Failure::new(Exit::Failed, chain(&error))))?;
    let mut out = Out::stdout();
    for Compacted { stream, before, after } in done {
        out.line(&format!("{}: {} before, {} now", escape(&stream), about(before), about(after)))?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}
