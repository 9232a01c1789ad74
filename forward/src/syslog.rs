//! RFC 5424 messages in RFC 6587 frames: bytes out of values, no I/O.

use std::fmt::Write as _;

use bartizan_bus::event::{Alert, Severity};

use crate::config::{AppName, Facility, Framing};
use crate::shrink::{Shrunk, render_alert};

/// SD-ID of our structured data: 32473 is the enterprise number that RFC 5612 sets aside for documentation. It stands
/// until the project has one of its own.
pub const SD_ID: &str = "bartizan@32473";

/// Longest HOSTNAME (RFC 5424 §6.2.4).
const MAX_HOSTNAME: usize = 255;

/// Characters of a structured-data value. The JSON has the value in full.
const MAX_SD_VALUE: usize = 64;

/// Renders alerts for one sink.
#[derive(Debug, Clone)]
pub struct SyslogEncoder {
    /// Facility of every message.
    pub facility: Facility,
    /// APP-NAME of every message.
    pub app_name: AppName,
    /// PROCID of every message: this process's pid.
    pub process_id: u32,
    /// Frame around a message.
    pub framing: Framing,
    /// Largest message in bytes, without the frame.
    pub max_message_bytes: usize,
}

/// Syslog severity (RFC 5424 table 2): critical 2, high 3 (error), medium 4 (warning), low 5 (notice), info 6.
fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 6,
        Severity::Low => 5,
        Severity::Medium => 4,
        Severity::High => 3,
        Severity::Critical => 2,
    }
}

impl SyslogEncoder {
    /// Appends one frame with `alert` to `out`; `seq` is the alert's sequence in ALERTS. Says what the message lacks if
    /// the alert had to be shrunk.
    pub fn encode(&self, alert: &Alert, seq: u64, out: &mut Vec<u8>) -> Option<Shrunk> {
        let mut message = self.header(alert);
        let (json, shrunk) = render_alert(alert, Some(seq), self.max_message_bytes.saturating_sub(message.len()));
        message.push_str(&json);
        match self.framing {
            Framing::OctetCounted => {
                out.extend_from_slice(format!("{} ", message.len()).as_bytes());
                out.extend_from_slice(message.as_bytes());
            }
            Framing::Lf => {
                out.extend_from_slice(message.as_bytes());
                out.push(b'\n');
            }
        }
        shrunk
    }

    /// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD` and the space before MSG. MSG starts without a byte order
    /// mark: rsyslog would keep it inside MSG, and a JSON parser behind it refuse the line.
    fn header(&self, alert: &Alert) -> String {
        let Self { facility, app_name, process_id, framing: _, max_message_bytes: _ } = self;
        let priority = (*facility as u8) * 8 + severity_number(alert.severity);
        let mut header = format!("<{priority}>1 ");
        // TIME-SECFRAC has at most six digits (RFC 5424 §6.2.3); the JSON has all nine.
        match jiff::Timestamp::from_nanosecond(i128::from(alert.time.wall_ns)) {
            Ok(timestamp) => push(&mut header, format_args!("{timestamp:.6}")),
            Err(_) => header.push('-'),
        }
        header.push(' ');
        push_print_us_ascii(&mut header, &alert.host, MAX_HOSTNAME);
        push(&mut header, format_args!(" {} {process_id} ALERT [{SD_ID}", app_name.as_str()));
        // Lower-case names: rsyslog's mmpstrucdata lower-cases them anyway.
        push(&mut header, format_args!(" id=\"{}\" revision=\"{}\"", alert.id, alert.revision));
        header.push_str(" rule=\"");
        push_sd_value(&mut header, &alert.rule);
        push(&mut header, format_args!("\" severity=\"{}\"] ", alert.severity.as_str()));
        header
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String has no failing operation.
    let _infallible = out.write_fmt(text);
}

/// A header field: printable ASCII without spaces (`PRINTUSASCII`), `-` for none.
fn push_print_us_ascii(out: &mut String, text: &str, max: usize) {
    if text.is_empty() {
        out.push('-');
    }
    out.extend(text.chars().take(max).map(|c| if c.is_ascii_graphic() { c } else { '_' }));
}

/// A PARAM-VALUE: UTF-8 with `"`, `\` and `]` escaped (RFC 5424 §6.3.3) and without control characters, which that
/// section leaves to the receiver's mercy.
fn push_sd_value(out: &mut String, text: &str) {
    for c in text.chars().take(MAX_SD_VALUE) {
        match c {
            '"' | '\\' | ']' => out.extend(['\\', c]),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULT_MAX_MESSAGE_BYTES, MIN_MAX_MESSAGE_BYTES};
    use crate::shrink::tests::{alert, plain_alert};
    use bartizan_bus::event::AlertJson;
    use proptest::prelude::*;

    fn encoder(framing: Framing, max_message_bytes: usize) -> SyslogEncoder {
        SyslogEncoder { facility: Facility::Local0, app_name: AppName::default(), process_id: 4242, framing, max_message_bytes }
    }

    /// A strict reader of RFC 5424, written from its grammar.
    #[derive(Debug)]
    struct Parsed {
        priority: u16,
        timestamp: String,
        host: String,
        sd: Vec<(String, String)>,
        message: String,
    }

    fn parse(message: &[u8]) -> Option<Parsed> {
        let text = std::str::from_utf8(message).ok()?;
        let (priority, rest) = text.strip_prefix('<')?.split_once('>')?;
        let rest = rest.strip_prefix("1 ")?;
        let mut fields = rest.splitn(6, ' ');
        let mut field = |max: usize| {
            let field = fields.next()?;
            ((1..=max).contains(&field.len()) && field.bytes().all(|b| (33..=126).contains(&b))).then(|| field.to_owned())
        };
        let (timestamp, host) = (field(32)?, field(255)?);
        let (app, process, kind) = (field(48)?, field(128)?, field(32)?);
        if (app.as_str(), process.as_str(), kind.as_str()) != ("bartizan", "4242", "ALERT") {
            return None;
        }
        let mut rest = fields.next()?.strip_prefix("[bartizan@32473")?;
        let mut sd = Vec::new();
        while let Some(param) = rest.strip_prefix(' ') {
            let (name, quoted) = param.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, ']') => return None,
                    (_, '\\') => value.push(chars.next().filter(|(_, c)| matches!(c, '"' | '\\' | ']'))?.1),
                    (_, c) if c.is_control() => return None,
                    (_, c) => value.push(c),
                }
            };
            sd.push((name.to_owned(), value));
            rest = &quoted[end + 1..];
        }
        let message = rest.strip_prefix("] ")?.to_owned();
        Some(Parsed { priority: priority.parse().ok()?, timestamp, host, sd, message })
    }

    fn unframe(framing: Framing, bytes: &[u8]) -> Option<&[u8]> {
        match framing {
            Framing::OctetCounted => {
                let space = bytes.iter().position(|b| *b == b' ')?;
                let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
                bytes[space + 1..].get(..length).filter(|message| message.len() == bytes.len() - space - 1)
            }
            Framing::Lf => bytes.strip_suffix(b"\n").filter(|message| !message.contains(&b'\n')),
        }
    }

    #[test]
    fn the_message_is_this_one() {
        let mut out = Vec::new();
        let shrunk = encoder(Framing::Lf, DEFAULT_MAX_MESSAGE_BYTES).encode(&plain_alert(1), 7, &mut out);
        assert_eq!(shrunk, None);
        let expected = "<131>1 2026-11-23T07:12:01.123456Z web-01 bartizan 4242 ALERT [bartizan@32473 \
                        id=\"00000000000000000000000000000001\" revision=\"1\" rule=\"runtime_watcher.reverse_shell\" severity=\"high\"] \
                        {\"id\":\"00000000000000000000000000000001\",\"revision\":1,\"seq\":7,\"time\":\"2026-11-23T07:12:01.123456789Z\",";
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn severities_map_to_rfc_5424() {
        let of = |severity| {
            let mut out = Vec::new();
            encoder(Framing::Lf, 8096).encode(&Alert { severity, ..plain_alert(1) }, 1, &mut out);
            parse(unframe(Framing::Lf, &out).unwrap()).unwrap().priority - 128
        };
        let all = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        assert_eq!(all.map(of), [6, 5, 4, 3, 2]);
    }

    #[test]
    fn odd_hosts_become_header_fields() {
        for (host, expected) in [("", "-"), ("web 01", "web_01"), ("bücher", "b_cher"), ("a\nb", "a_b")] {
            let mut out = Vec::new();
            encoder(Framing::Lf, 8096).encode(&Alert { host: host.to_owned(), ..plain_alert(1) }, 1, &mut out);
            assert_eq!(parse(unframe(Framing::Lf, &out).unwrap()).unwrap().host, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn any_alert_is_one_well_formed_frame(alert in alert(), seq: u64, lf: bool, max in MIN_MAX_MESSAGE_BYTES..70_000) {
            let framing = if lf { Framing::Lf } else { Framing::OctetCounted };
            let mut out = Vec::new();
            let shrunk = encoder(framing, max).encode(&alert, seq, &mut out);
            let message = unframe(framing, &out);
            prop_assert!(message.is_some());
            let message = message.unwrap();
            prop_assert!(message.len() <= max);
            prop_assert!(!message.iter().any(u8::is_ascii_control));
            let parsed = parse(message);
            prop_assert!(parsed.is_some(), "{}", String::from_utf8_lossy(message));
            let parsed = parsed.unwrap();
            prop_assert!(parsed.timestamp.parse::<jiff::Timestamp>().is_ok());
            prop_assert_eq!(&parsed.sd[0], &("id".to_owned(), alert.id.to_string()));
            prop_assert_eq!(&parsed.sd[1], &("revision".to_owned(), alert.revision.to_string()));
            let rule: String = alert.rule.chars().take(MAX_SD_VALUE).map(|c| if c.is_control() { '?' } else { c }).collect();
            prop_assert_eq!(&parsed.sd[2], &("rule".to_owned(), rule));
            let json: serde_json::Value = serde_json::from_str(&parsed.message).unwrap();
            if shrunk.is_none() {
                prop_assert_eq!(json, serde_json::to_value(AlertJson::new(&alert, Some(seq))).unwrap());
            } else {
                prop_assert_eq!(&json["id"], &serde_json::Value::from(alert.id.to_string()));
            }
        }
    }
}
