//! `bartizan bus`: the edge bus by itself, and its files.

mod compact;
mod export;
mod inspect;
mod serve;

use clap::Subcommand;

use super::Common;
use super::exit::Exit;
use super::out::Stop;

/// The edge bus: serve it without a sensor, look at its files, check them, give room back, export.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Args),
    Inspect(inspect::Args),
    Verify(inspect::VerifyArgs),
    Compact(compact::Args),
    Export(export::Args),
}

impl Args {
    /// Whether it stays and logs as a service does.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.verb, Verb::Serve(_))
    }
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    match &args.verb {
        Verb::Serve(args) => serve::run(common, args),
        Verb::Inspect(args) => inspect::run(common, args),
        Verb::Verify(args) => inspect::verify(common, args),
        Verb::Compact(args) => compact::run(common, args),
        Verb::Export(args) => export::run(common, args),
    }
}
