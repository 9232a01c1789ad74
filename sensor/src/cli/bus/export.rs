//! `bartizan bus export`: a stream's messages, one JSON object a line.

use bartizan_bus::edge::rendered;
use bartizan_bus::{LogReader, ReadError};

use super::super::Common;
use super::super::exit::{Exit, Failure, chain, complain};
use super::super::out::{Out, Stop};

/// Write a stream's messages to standard output, one JSON object a line: sequence, time, subject, headers, and the content as JSON, as text
/// or as hex digits, whichever it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which stream
    #[arg(value_name = "STREAM")]
    stream: String,

    /// From this sequence on
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,

    /// At most so many messages
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let dir = common.data_dir().map_err(Stop::Failed)?;
    let failed = |error: ReadError| Stop::Failed(Failure::new(Exit::Failed, chain(&error)));
    let mut reader = LogReader::open_named(&dir, &args.stream).map_err(failed)?;
    reader.seek_seq(args.from).map_err(failed)?;
    let mut out = Out::stdout();
    let mut exit = Exit::Ok;
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        match reader.next_stored() {
            Ok(None) => break,
            Ok(Some(message)) => {
                left -= 1;
                let content = rendered(&args.stream, &message);
                let mut line = serde_json::json!({
                    "seq": message.seq,
                    "time": jiff::Timestamp::from_nanosecond(message.time_ns.into()).map(|time| time.to_string()).unwrap_or_default(),
                    "subject": message.subject(),
                });
                if !message.headers().is_empty() {
                    line["headers"] = String::from_utf8_lossy(message.headers()).into();
                }
                match (serde_json::from_slice::<serde_json::Value>(&content), std::str::from_utf8(&content)) {
                    (Ok(json), _) => line["json"] = json,
                    (Err(_), Ok(text)) => line["text"] = text.into(),
                    (Err(_), Err(_)) => line["hex"] = content.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
                }
                out.line(&super::super::escape::json(&line.to_string()))?;
            }
            // Told, and gone on behind it.
            Err(error @ ReadError::Damaged { .. }) => {
                complain(chain(&error));
                exit = Exit::Failed;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    out.flush()?;
    Ok(exit)
}
