//! `bartizan version`: what this binary is.

use super::exit::Exit;
use super::out::{Out, Stop};

/// Show the version of this binary.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<Exit, Stop> {
    let version = env!("CARGO_PKG_VERSION");
    let schema = bartizan_bus::event::SCHEMA_VERSION;
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let mut out = Out::stdout();
    if args.json {
        let json = serde_json::json!({ "name": "bartizan", "version": version, "event_schema": schema, "arch": arch, "os": os });
        out.line(&json.to_string())?;
    } else {
        out.line(&format!("bartizan {version} ({arch}-{os}, event schema {schema})"))?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}
