//! `bartizan bus export`: a stream's messages, one JSON object a line.

use std::borrow::Cow;

use bartizan_bus::edge::rendered;
use bartizan_bus::store::Stored;
use bartizan_bus::{LogReader, ReadError};
use serde::Serialize;
use serde_json::value::RawValue;

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
                let line = line(&message, &content).map_err(|error| Stop::Failed(Failure::new(Exit::Failed, chain(&error))))?;
                out.line(&super::super::escape::json(&line))?;
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

/// A message, on its line: one of the last three.
#[derive(Debug, Serialize)]
struct Line<'a> {
    seq: u64,
    time: String,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// JSON as it was published, digit by digit: a number may be longer than any type, and a key may stand twice.
fn line(message: &Stored, content: &[u8]) -> Result<String, serde_json::Error> {
    let mut line = Line {
        seq: message.seq,
        time: jiff::Timestamp::from_nanosecond(message.time_ns.into()).map(|time| time.to_string()).unwrap_or_default(),
        subject: message.subject(),
        headers: (!message.headers().is_empty()).then(|| String::from_utf8_lossy(message.headers())),
        json: None,
        text: None,
        hex: None,
    };
    match (serde_json::from_slice::<&RawValue>(content), std::str::from_utf8(content)) {
        // Line feeds stand between its parts only: inside a string they are escaped.
        (Ok(json), _) => line.json = Some(RawValue::from_string(json.get().replace(['\n', '\r'], " "))?),
        (Err(_), Ok(text)) => line.text = Some(text),
        (Err(_), Err(_)) => line.hex = Some(content.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
    serde_json::to_string(&line)
}

#[cfg(test)]
mod tests {
    use bartizan_bus::store::Put;

    use super::*;

    #[test]
    fn content_is_what_was_published() {
        let line = |headers: &[u8], payload: &[u8]| {
            line(&Stored::copy_of(7, &Put { subject: "a.b", headers, payload, time_ns: 0 }), payload).expect("a line")
        };
        let start = r#"{"seq":7,"time":"1970-01-01T00:00:00Z","subject":"a.b","#;
        let exact = r#"{"b":12345678901234567890123,"a":1.10,"a":2}"#;
        assert_eq!(line(b"", exact.as_bytes()), format!(r#"{start}"json":{exact}}}"#));
        assert_eq!(line(b"", b"{\n \"a\": 1\r\n}"), format!(r#"{start}"json":{{  "a": 1  }}}}"#));
        assert_eq!(line(b"NATS/1.0\r\n\r\n", b"it's"), format!(r#"{start}"headers":"NATS/1.0\r\n\r\n","text":"it's"}}"#));
        assert_eq!(line(b"", b"\xff\x00"), format!(r#"{start}"hex":"ff00"}}"#));
    }
}
