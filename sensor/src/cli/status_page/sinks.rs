//! The forwarders' own status: one line each.

use super::fields::Fields;
use super::{Row, heading, row};
use crate::cli::escape::escape;
use crate::cli::paint::Paint;
use crate::status::StatusReport;

/// What an operator reads of a sink only when it is not 0.
const COUNTERS: [&str; 10] = [
    "in_flight",
    "resent",
    "duplicates",
    "shrunk",
    "below_min_severity",
    "undecodable",
    "refused",
    "unreadable",
    "fell_off_retention",
    "cursor_errors",
];

pub(super) fn sinks(report: &StatusReport) -> Vec<Row> {
    let mut rows = vec![heading(["sink", "type", "to", "state", "confirmed", "behind", ""])];
    let all = report.sinks.as_array().map(Vec::as_slice).unwrap_or_default();
    for (sink, status) in report.sink_rows().iter().zip(all) {
        let cells = [
            escape(&sink.name),
            escape(&sink.kind),
            escape(&sink.address),
            escape(&sink.state),
            sink.confirmed.to_string(),
            sink.lag.to_string(),
            details(Fields::of(status)),
        ];
        let stepped_over = sink.undecodable + sink.refused > 0;
        rows.push(row(cells).colour_if(stepped_over, Paint::yellow).colour_if(sink.failing(), Paint::red));
    }
    rows
}

/// Everything that has no column. Of no use on a page are `since`, `cursor` and `sent`: `--json` has them.
fn details(mut status: Fields) -> String {
    for shown in ["name", "type", "address", "state", "since"] {
        status.text(shown);
    }
    for shown in ["confirmed", "lag", "cursor", "sent"] {
        status.number(shown);
    }
    let mut parts = Vec::from_iter(status.counter("failed_attempts"));
    parts.extend(status.text("next_retry").map(|at| format!("next retry {at}")));
    let at = status.text("last_error_at").map(|at| format!(" ({at})")).unwrap_or_default();
    parts.extend(status.text("last_error").map(|error| format!("last error{at}: {error}")));
    parts.extend(status.text("warning").map(|warning| format!("warning: {warning}")));
    parts.extend(COUNTERS.into_iter().filter_map(|name| status.counter(name)));
    if let Some(mut newest) = status.list("poison").pop() {
        let (seq, reason) = (newest.count("seq"), newest.text("reason").unwrap_or_default());
        parts.push(format!("last stepped over: ALERTS {seq}: {reason}"));
    }
    parts.extend(status.rest(""));
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use bartizan_forward::{Poison, SinkState, SinkStatus};

    use super::super::lines;
    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::status::tests::report;

    fn drawn(sinks: serde_json::Value) -> Vec<String> {
        let report = StatusReport { sinks, ..report() };
        lines(&super::sinks(&report), Paint::new(ColorChoice::Never, false, None))
    }

    fn status() -> SinkStatus {
        SinkStatus {
            name: "siem".into(),
            kind: "syslog",
            address: "127.0.0.1:514".into(),
            state: SinkState::Connected,
            since: "2026-01-31T08:00:00.000Z".into(),
            last_error: None,
            last_error_at: None,
            warning: None,
            failed_attempts: 0,
            next_retry: None,
            cursor: 7,
            lag: 0,
            in_flight: 0,
            sent: 7,
            confirmed: 7,
            resent: 0,
            duplicates: 0,
            below_min_severity: 0,
            shrunk: 0,
            undecodable: 0,
            refused: 0,
            poison: Default::default(),
            unreadable: 0,
            fell_off_retention: 0,
            cursor_errors: 0,
        }
    }

    #[test]
    fn a_sink_is_a_line() {
        let failing = SinkStatus {
            name: "far".into(),
            state: SinkState::Retrying,
            failed_attempts: 4,
            next_retry: Some("2026-01-31T08:05:00.000Z".into()),
            last_error: Some("cannot connect to 127.0.0.1:514: Connection refused".into()),
            last_error_at: Some("2026-01-31T08:04:30.000Z".into()),
            lag: 3,
            ..status()
        };
        let poison = Poison { seq: 5, id: None, reason: "damaged".into() };
        let worn = SinkStatus {
            name: "worn".into(),
            resent: 2,
            duplicates: 1,
            undecodable: 1,
            warning: Some("short window".into()),
            poison: [poison].into(),
            ..status()
        };
        let mut newer = serde_json::to_value(status()).expect("json");
        newer["colour"] = "blue".into();
        let expected = [
            "sink  type    to             state      confirmed  behind",
            "siem  syslog  127.0.0.1:514  connected  7          0",
            "far   syslog  127.0.0.1:514  retrying   7          3       failed_attempts 4; next retry \
             2026-01-31T08:05:00.000Z; last error (2026-01-31T08:04:30.000Z): cannot connect to 127.0.0.1:514: Connection refused",
            "worn  syslog  127.0.0.1:514  connected  7          0       warning: short window; resent 2; duplicates 1; undecodable 1; last stepped over: ALERTS 5: damaged",
            "siem  syslog  127.0.0.1:514  connected  7          0       colour=blue",
        ];
        let drawn = drawn(serde_json::json!([status(), failing, worn, newer]));
        assert_eq!(drawn, expected, "{drawn:#?}");
    }
}
