//! `bartizan bus inspect` and `verify`: what is in the files, with and without a running Bartizan.

use bartizan_bus::edge::require_streams;
use bartizan_bus::log::inspect::{Inspection, inspect, stream_names};

use super::super::Common;
use super::super::escape::escape;
use super::super::exit::{Exit, Failure, chain};
use super::super::out::{Out, Stop};
use crate::config::units::about_bytes as about;

/// Show the segments of streams. Works with and without a running Bartizan, and changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these streams [default: all]
    #[arg(value_name = "STREAM")]
    streams: Vec<String>,

    /// One JSON object a stream
    #[arg(long)]
    json: bool,
}

/// Read every message of every stream and check it against its checksum. Exit code 1 when something does not read back.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    of: Args,
}

fn failed(error: &dyn std::error::Error) -> Stop {
    Stop::Failed(Failure::new(Exit::Failed, chain(error)))
}

fn look(common: &Common, args: &Args, deep: bool) -> Result<Vec<Inspection>, Stop> {
    let dir = common.data_dir().map_err(Stop::Failed)?;
    require_streams(&dir).map_err(|error| failed(&error))?;
    let names = match &args.streams[..] {
        [] => stream_names(&dir).map_err(|error| failed(&error))?,
        given => given.to_vec(),
    };
    names.iter().map(|name| inspect(&dir, name, deep).map_err(|error| failed(&error))).collect()
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    show(&look(common, args, false)?, args.json)?;
    Ok(Exit::Ok)
}

/// Runs the verb.
pub(crate) fn verify(common: &Common, args: &VerifyArgs) -> Result<Exit, Stop> {
    let found = look(common, &args.of, true)?;
    show(&found, args.of.json)?;
    let sound = found.iter().all(Inspection::is_sound);
    if !args.of.json {
        let mut out = Out::stdout();
        out.line(if sound { "Everything reads back." } else { "Not everything reads back: see above." })?;
        out.flush()?;
    }
    Ok(if sound { Exit::Ok } else { Exit::Failed })
}

fn show(found: &[Inspection], json: bool) -> Result<(), Stop> {
    let mut out = Out::stdout();
    for stream in found {
        if json {
            let line = serde_json::to_string(stream).map_err(|error| failed(&error))?;
            out.line(&super::super::escape::json(&line))?;
            continue;
        }
        let messages: u64 = stream.segments.iter().map(|segment| segment.messages).sum();
        let disk: u64 = stream.segments.iter().map(|segment| segment.disk_bytes).sum();
        let each = if messages > 0 { format!(", {:.1} bytes each", disk as f64 / messages as f64) } else { String::new() };
        out.line(&format!("{}: {messages} messages in {} segments, {}{each}", escape(&stream.stream), stream.segments.len(), about(disk)))?;
        for segment in &stream.segments {
            let form = if segment.sealed { "sealed" } else { "raw" };
            let last = segment.end_seq.saturating_sub(1);
            out.line(&format!(
                "  {} {form:6} {:>12} to {last:<12} {:>9} messages {:>7} subjects {:>10}",
                segment.file,
                segment.first_seq,
                segment.messages,
                segment.subjects,
                about(segment.disk_bytes),
            ))?;
            for damage in &segment.damage {
                out.line(&format!("    damaged: {}", escape(damage)))?;
            }
            if let Some(torn) = &segment.torn {
                out.line(&format!("    its end is not whole (yet): {}", escape(torn)))?;
            }
        }
        if stream.torn_bytes > 0 {
            out.line(&format!("  {} cut off by recovery, kept in *.torn", about(stream.torn_bytes)))?;
        }
        for file in &stream.set_aside {
            out.line(&format!("  set aside: {}", escape(file)))?;
        }
        if stream.lost > 0 {
            out.line(&format!("  {} messages were lost to damage found before", stream.lost))?;
        }
    }
    out.flush()
}
