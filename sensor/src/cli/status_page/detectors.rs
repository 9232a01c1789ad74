//! The detectors' own status: the engine, then each detector with the size of its state.

use super::fields::Fields;
use super::{heading, lines, row};
use crate::cli::paint::Paint;
use crate::config::units::about_bytes as about;
use crate::status::StatusReport;

/// What an operator reads of the engine only when it is not 0.
const COUNTERS: [&str; 4] = ["alerts_waiting", "publish_retries", "refused", "cursor_errors"];

pub(super) fn detectors(report: &StatusReport, paint: Paint) -> Vec<String> {
    let mut status = Fields::of(&report.detectors);
    if status.is_empty() {
        return Vec::new();
    }
    let events = report.streams.iter().find(|stream| stream.name == "EVENTS").map_or(0, |stream| stream.last_seq);
    let (snapshot, recovery) = (status.object("snapshot"), status.object("recovery"));
    let (shared, detectors) = (status.list("shared"), status.list("detectors"));

    let mut engine = Vec::new();
    let mut trouble = Vec::new();
    let mut rest = Vec::new();
    progress(&mut status, events, &mut engine, &mut trouble);
    saved(snapshot, &mut engine, &mut trouble, &mut rest);
    restored(recovery, &mut engine, &mut trouble, &mut rest);
    rest.splice(0..0, status.rest(""));

    let mut page = vec![format!("engine: {}", engine.join("; "))];
    page.extend(trouble.iter().map(|line| paint.yellow(line)));
    page.extend((!shared.is_empty()).then(|| format!("shared: {}", tables(shared, paint))));
    page.extend((!rest.is_empty()).then(|| format!("more: {}", rest.join(" "))));
    page.extend(table(detectors, paint));
    page
}

/// How far the engine is.
fn progress(status: &mut Fields, events: u64, engine: &mut Vec<String>, trouble: &mut Vec<String>) {
    let (running, acked, taken, undecodable) =
        (status.flag("running"), status.count("acked_seq"), status.count("last_seq"), status.count("undecodable"));
    // At most half a second behind what was taken: for programs, in the JSON.
    status.number("state_seq");
    let last = events.max(taken).max(acked);
    engine.push(format!("acked up to {acked} of {last} events, {} behind, {undecodable} undecodable", last - acked));
    if running == Some(false) {
        trouble.push("the engine takes no events: it is just starting, or has ended".to_owned());
    }
    trouble.extend(status.text("first_undecodable").map(|first| format!("first undecodable event: {first}")));
    let counters: Vec<String> = COUNTERS.into_iter().filter_map(|name| status.counter(name)).collect();
    trouble.extend((!counters.is_empty()).then(|| counters.join(", ")));
    trouble.extend(status.text("last_publish_error").map(|error| format!("last failure to store an alert: {error}")));
}

/// The snapshot on disk.
fn saved(mut snapshot: Fields, engine: &mut Vec<String>, trouble: &mut Vec<String>, rest: &mut Vec<String>) {
    let (seq, since, bytes) = (snapshot.number("seq"), snapshot.count("events_since"), snapshot.count("bytes"));
    // A snapshot of an earlier run has a size that nobody has asked for.
    let size = if bytes > 0 { format!(" ({})", about(bytes)) } else { String::new() };
    engine.push(match seq {
        Some(seq) => format!("snapshot up to {seq}, {since} events ago{size}"),
        None => "no snapshot yet".to_owned(),
    });
    snapshot.number("written");
    trouble.extend(snapshot.counter("failed").map(|failed| format!("snapshots: {failed}")));
    trouble.extend(snapshot.text("last_error").map(|error| format!("last failure to write a snapshot: {error}")));
    rest.extend(snapshot.rest("snapshot."));
}

/// How the state came to be at the start.
fn restored(mut recovery: Fields, engine: &mut Vec<String>, trouble: &mut Vec<String>, rest: &mut Vec<String>) {
    let (seq, replayed, after) = (recovery.number("snapshot_seq"), recovery.count("replayed"), recovery.count("resumed_after"));
    engine.push(match (seq, after) {
        (None, 0) => "at start: nothing to resume".to_owned(),
        (Some(seq), _) => format!("at start: resumed after {after}, {replayed} replayed behind snapshot {seq}"),
        (None, _) => format!("at start: resumed after {after}, {replayed} replayed without a snapshot"),
    });
    trouble.extend(recovery.text("snapshot_error").map(|error| format!("no snapshot was used at the start: {error}")));
    let missing = recovery.count("missing");
    if missing > 0 {
        trouble.push(format!("{missing} events were missing in the replay: retention had deleted them"));
    }
    rest.extend(recovery.rest("recovery."));
}

/// A row for each detector, each with lines of its own below it.
fn table(detectors: Vec<Fields>, paint: Paint) -> Vec<String> {
    if detectors.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![heading(["detector", "observed", "findings", "alerts", "duplicates"])];
    let mut below = vec![Vec::new()];
    for mut detector in detectors {
        let numbers = ["observed", "findings", "published", "duplicates"].map(|key| detector.count(key).to_string());
        let [observed, findings, published, duplicates] = numbers;
        rows.push(row([detector.text("id").unwrap_or_default(), observed, findings, published, duplicates]));
        let mut state = detector.object("state");
        let (sizes, mut counted) = (state.list("tables"), state.object("counters"));
        let mut lines = Vec::new();
        lines.extend((!sizes.is_empty()).then(|| tables(sizes, paint)));
        let counters = counted.counters();
        lines.extend((!counters.is_empty()).then(|| counters.join(", ")));
        let rest = [detector.rest(""), state.rest("state."), counted.rest("counters.")].concat();
        lines.extend((!rest.is_empty()).then(|| rest.join(" ")));
        below.push(lines);
    }
    let rows = lines(&rows, paint).into_iter().zip(below);
    rows.flat_map(|(row, below)| std::iter::once(row).chain(below.into_iter().map(|line| format!("  {line}")))).collect()
}

/// `processes 12/16384, reports 4096/4096 (evicted 3)`: what made room is yellow.
pub(super) fn tables(tables: Vec<Fields>, paint: Paint) -> String {
    let said = |mut table: Fields| {
        let (name, entries, bound) = (table.text("name").unwrap_or_default(), table.count("entries"), table.count("bound"));
        let evicted = table.count("evicted");
        let rest = table.rest(" ").concat();
        match evicted {
            0 => format!("{name} {entries}/{bound}{rest}"),
            _ => format!("{}{rest}", paint.yellow(&format!("{name} {entries}/{bound} (evicted {evicted})"))),
        }
    };
    tables.into_iter().map(said).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use bartizan_detectors::detector::{StateInfo, TableInfo};
    use bartizan_detectors::status::{DetectorStatus, EngineInfo, Recovery, SnapshotStatus};
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::status::tests::report;

    fn drawn_in(detectors: Value, colour: ColorChoice) -> Vec<String> {
        let mut report = report();
        report.streams[0].name = "EVENTS".into();
        report.streams[0].last_seq = 1100;
        detectors_of(StatusReport { detectors, ..report }, colour)
    }

    fn detectors_of(report: StatusReport, colour: ColorChoice) -> Vec<String> {
        super::detectors(&report, Paint::new(colour, false, None))
    }

    fn drawn(info: &EngineInfo) -> Vec<String> {
        drawn_in(serde_json::to_value(info).expect("json"), ColorChoice::Never)
    }

    fn sizes(evicted: u64) -> Vec<TableInfo> {
        vec![
            TableInfo { name: "processes", entries: 120, bound: 16_384, evicted: 0 },
            TableInfo { name: "reports", entries: 4096, bound: 4096, evicted },
        ]
    }

    /// With a value in every field.
    fn worn() -> EngineInfo {
        let state = StateInfo { tables: sizes(3), counters: [("reported", 2), ("folded_same_process", 1), ("relay_truncated", 0)].into() };
        EngineInfo {
            running: true,
            last_seq: 1095,
            acked_seq: 1091,
            state_seq: 1091,
            alerts_waiting: 1,
            undecodable: 2,
            first_undecodable: Some("sequence 9: no event".into()),
            publish_retries: 4,
            refused: 5,
            last_publish_error: Some("no room".into()),
            cursor_errors: 6,
            shared: vec![TableInfo { name: "lineage", entries: 200, bound: 16_384, evicted: 0 }],
            detectors: vec![
                DetectorStatus { id: "runtime_watcher", observed: 1095, findings: 3, published: 2, duplicates: 1, state },
                DetectorStatus { id: "two", ..DetectorStatus::default() },
            ],
            snapshot: SnapshotStatus {
                seq: Some(1000),
                bytes: 12_288,
                events_since: 95,
                written: 1,
                failed: 7,
                last_error: Some("no space".into()),
            },
            recovery: Recovery { snapshot_seq: Some(880), snapshot_error: None, replayed: 120, resumed_after: 1010, missing: 10 },
        }
    }

    #[test]
    fn a_first_start() {
        let info = EngineInfo { running: true, last_seq: 1100, acked_seq: 1100, ..EngineInfo::default() };
        assert_eq!(
            drawn(&info),
            ["engine: acked up to 1100 of 1100 events, 0 behind, 0 undecodable; no snapshot yet; at start: nothing to resume"]
        );
    }

    #[test]
    fn everything_it_says_has_a_place() {
        let expected = [
            "engine: acked up to 1091 of 1100 events, 9 behind, 2 undecodable; snapshot up to 1000, 95 events ago (12.0 KiB); \
             at start: resumed after 1010, 120 replayed behind snapshot 880",
            "first undecodable event: sequence 9: no event",
            "alerts_waiting 1, publish_retries 4, refused 5, cursor_errors 6",
            "last failure to store an alert: no room",
            "snapshots: failed 7",
            "last failure to write a snapshot: no space",
            "10 events were missing in the replay: retention had deleted them",
            "shared: lineage 200/16384",
            "detector         observed  findings  alerts  duplicates",
            "runtime_watcher  1095      3         2       1",
            "  processes 120/16384, reports 4096/4096 (evicted 3)",
            "  folded_same_process 1, reported 2",
            "two              0         0         0       0",
        ];
        let drawn = drawn(&worn());
        assert_eq!(drawn, expected, "{drawn:#?}");
    }

    #[test]
    fn a_start_without_a_snapshot_and_an_engine_that_stands() {
        let recovery = Recovery { snapshot_error: Some("it is damaged".into()), replayed: 9, resumed_after: 9, ..Recovery::default() };
        let expected = [
            "engine: acked up to 9 of 1100 events, 1091 behind, 0 undecodable; no snapshot yet; at start: resumed after 9, 9 replayed \
             without a snapshot",
            "the engine takes no events: it is just starting, or has ended",
            "no snapshot was used at the start: it is damaged",
        ];
        let drawn = drawn(&EngineInfo { acked_seq: 9, recovery, ..EngineInfo::default() });
        assert_eq!(drawn, expected, "{drawn:#?}");
    }

    #[test]
    fn what_a_newer_engine_says_is_printed_as_it_is() {
        let mut value =
            serde_json::to_value(EngineInfo { running: true, detectors: vec![worn().detectors.remove(0)], ..EngineInfo::default() })
                .expect("json");
        value["mood"] = "good".into();
        value["refused"] = json!({ "by": 1 });
        value["snapshot"]["codec"] = "zstd".into();
        value["recovery"]["took_ms"] = 5.into();
        value["detectors"][0]["rules"] = json!([1]);
        value["detectors"][0]["state"]["hot"] = true.into();
        value["detectors"][0]["state"]["counters"]["ratio"] = 0.5.into();
        value["detectors"][0]["state"]["tables"][0]["bytes"] = 77.into();
        let expected = [
            "engine: acked up to 0 of 1100 events, 1100 behind, 0 undecodable; no snapshot yet; at start: nothing to resume",
            "more: mood=good refused={\"by\":1} snapshot.codec=zstd recovery.took_ms=5",
            "detector         observed  findings  alerts  duplicates",
            "runtime_watcher  1095      3         2       1",
            "  processes 120/16384 bytes=77, reports 4096/4096 (evicted 3)",
            "  folded_same_process 1, reported 2",
            "  rules=[1] state.hot=true counters.ratio=0.5",
        ];
        let drawn = drawn_in(value, ColorChoice::Never);
        assert_eq!(drawn, expected, "{drawn:#?}");
    }

    #[test]
    fn evictions_are_yellow() {
        let shared = |evicted| drawn_in(json!({ "shared": sizes(evicted) }), ColorChoice::Always).pop().expect("a line");
        assert_eq!(shared(0), "shared: processes 120/16384, reports 4096/4096");
        assert_eq!(shared(1), "shared: processes 120/16384, \u{1b}[33mreports 4096/4096 (evicted 1)\u{1b}[0m");
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(drawn_in(json!({}), ColorChoice::Never).is_empty());
        assert_eq!(drawn_in(json!("odd"), ColorChoice::Never).pop().expect("a line"), "more: value=odd");
    }
}
