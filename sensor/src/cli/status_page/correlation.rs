//! Correlation's own status.

use super::detectors::tables;
use super::fields::Fields;
use crate::cli::paint::Paint;
use crate::status::StatusReport;

/// What an operator reads only when it is not 0.
const COUNTERS: [&str; 5] = ["waiting", "undecodable", "publish_retries", "refused", "cursor_errors"];

pub(super) fn correlation(report: &StatusReport, paint: Paint) -> Vec<String> {
    let mut status = Fields::of(&report.correlation);
    if status.is_empty() {
        return Vec::new();
    }
    let alerts = report.streams.iter().find(|stream| stream.name == "ALERTS").map_or(0, |stream| stream.last_seq);
    let (running, acked, taken) = (status.flag("running"), status.count("acked_seq"), status.count("last_seq"));
    let (published, duplicates, replayed) = (status.count("published"), status.count("duplicates"), status.count("replayed"));
    let mut state = status.object("state");
    let (sizes, mut counted) = (state.list("tables"), state.object("counters"));
    let last = alerts.max(taken).max(acked);
    let mut page = vec![format!(
        "acked up to {acked} of {last} alerts, {} behind; {published} matches, {duplicates} found again; at start: {replayed} alerts replayed",
        last - acked
    )];
    let mut trouble = Vec::new();
    if running == Some(false) {
        trouble.push("it takes no alerts: it is just starting, or has ended".to_owned());
    }
    let counters: Vec<String> = COUNTERS.into_iter().filter_map(|name| status.counter(name)).collect();
    trouble.extend((!counters.is_empty()).then(|| counters.join(", ")));
    trouble.extend(status.text("first_undecodable").map(|first| format!("first undecodable alert: {first}")));
    trouble.extend(status.text("last_publish_error").map(|error| format!("last failure to store a match: {error}")));
    page.extend(trouble.iter().map(|line| paint.yellow(line)));
    page.extend((!sizes.is_empty()).then(|| tables(sizes, paint)));
    let counters = counted.counters();
    page.extend((!counters.is_empty()).then(|| counters.join(", ")));
    let rest = [status.rest(""), state.rest("state."), counted.rest("counters.")].concat();
    page.extend((!rest.is_empty()).then(|| format!("more: {}", rest.join(" "))));
    page
}

#[cfg(test)]
mod tests {
    use bartizan_detectors::correlate::CorrelateInfo;
    use bartizan_detectors::detector::{StateInfo, TableInfo};
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::status::tests::report;

    fn drawn(correlation: Value) -> Vec<String> {
        let mut report = report();
        report.streams[0].name = "ALERTS".into();
        report.streams[0].last_seq = 100;
        super::correlation(&StatusReport { correlation, ..report }, Paint::new(ColorChoice::Never, false, None))
    }

    #[test]
    fn everything_it_says_has_a_place() {
        let tables = vec![TableInfo { name: "guessing", entries: 3, bound: 1024, evicted: 2 }];
        let info = CorrelateInfo {
            running: false,
            last_seq: 95,
            acked_seq: 91,
            replayed: 80,
            published: 2,
            duplicates: 1,
            waiting: 3,
            undecodable: 4,
            first_undecodable: Some("sequence 9: no alert".into()),
            publish_retries: 5,
            refused: 6,
            last_publish_error: Some("no room".into()),
            cursor_errors: 7,
            state: StateInfo { tables, counters: [("alerts", 11), ("matches", 2)].into() },
        };
        let expected = [
            "acked up to 91 of 100 alerts, 9 behind; 2 matches, 1 found again; at start: 80 alerts replayed",
            "it takes no alerts: it is just starting, or has ended",
            "waiting 3, undecodable 4, publish_retries 5, refused 6, cursor_errors 7",
            "first undecodable alert: sequence 9: no alert",
            "last failure to store a match: no room",
            "guessing 3/1024 (evicted 2)",
            "alerts 11, matches 2",
        ];
        let drawn = drawn(serde_json::to_value(&info).expect("json"));
        assert_eq!(drawn, expected, "{drawn:#?}");
    }

    #[test]
    fn off_is_nothing_and_what_a_newer_one_says_is_printed_as_it_is() {
        assert!(drawn(Value::Null).is_empty());
        let odd = drawn(json!({ "running": true, "acked_seq": 100, "mood": "\u{1b}[2J" }));
        assert_eq!(odd[1], "more: mood=\\x1b[2J");
    }
}
