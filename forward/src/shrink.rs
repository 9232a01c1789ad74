//! An alert as one line of JSON that fits: fields are dropped by name in a fixed order, and the line says which.

use bartizan_bus::event::{Alert, AlertJson, Entity, LineageEntry};
use serde::Serialize;

/// What a line lacks. In the JSON it is the object `shrunk`; a whole alert has no such key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shrunk {
    /// Bytes of the whole alert as JSON.
    pub full_bytes: usize,
    /// What was dropped or cut, in the order in which it was.
    pub fields: Vec<String>,
}

#[derive(Serialize)]
struct ShrunkJson<'a> {
    #[serde(flatten)]
    alert: AlertJson<'a>,
    shrunk: &'a Shrunk,
}

/// Room for the marker, which grows while fields are dropped.
const MARKER_BYTES: usize = 160;

/// An argument list that is cut keeps this many arguments of this many bytes.
const KEPT_ARGUMENTS: usize = 32;
const KEPT_ARGUMENT_BYTES: usize = 256;

/// Lists of evidence and entities that are cut keep this many.
const KEPT_LIST: usize = 16;

/// Lineage that is cut keeps at least the process and this many entries in all.
const KEPT_LINEAGE: usize = 4;

/// What is left to drop, in the order in which it goes: what explains least goes first. Each step gets the number of
/// bytes that are too many, and names what it dropped.
const STEPS: &[fn(&mut Alert, usize) -> Option<String>] = &[
    drop_ancestors_argv,
    cut_argv,
    cut_evidence,
    cut_entities,
    drop_next_steps,
    drop_ancestors,
    cut_texts,
    drop_argv,
    cut_lineage_texts,
    keep_the_core,
];

/// Renders `alert` as one line of JSON of at most `budget` bytes. `seq` is its sequence in ALERTS.
///
/// The line is ASCII-safe against log collectors: besides what JSON escapes, DEL, C1 controls, U+2028, U+2029 and the
/// byte order mark are written `\uXXXX`. The shortest form needs about 900 bytes; with a smaller budget it is given anyway.
pub fn render_alert(alert: &Alert, seq: Option<u64>, budget: usize) -> (String, Option<Shrunk>) {
    let whole = line(&AlertJson::new(alert, seq));
    if whole.len() <= budget {
        return (whole, None);
    }
    let mut rest = alert.clone();
    let mut shrunk = Shrunk { full_bytes: whole.len(), fields: Vec::new() };
    let mut text = whole;
    for step in STEPS {
        let excess = (text.len() + MARKER_BYTES).saturating_sub(budget);
        if let Some(field) = step(&mut rest, excess) {
            shrunk.fields.push(field);
            text = line(&ShrunkJson { alert: AlertJson::new(&rest, seq), shrunk: &shrunk });
            if text.len() <= budget {
                break;
            }
        }
    }
    (text, Some(shrunk))
}

fn line(value: &impl Serialize) -> String {
    let json = match serde_json::to_string(value) {
        Ok(json) => json,
        // The schema has no map with foreign keys and no failing `Serialize`, and memory does not fail to be written.
        Err(error) => unreachable!("rendering an alert failed: {error}"),
    };
    if !json.contains(needs_escape) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        // Outside of strings the JSON is ASCII without DEL, so what is replaced stands inside a string.
        if needs_escape(c) { escaped.push_str(&format!("\\u{:04x}", u32::from(c))) } else { escaped.push(c) }
    }
    escaped
}

fn needs_escape(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Bytes of `c` in the rendered line.
fn rendered_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c if needs_escape(c) => 6,
        c => c.len_utf8(),
    }
}

/// Cuts `text` to `max` rendered bytes, with `…` as the last character of what was cut. True if it was.
fn cut(text: &mut String, max: usize) -> bool {
    let mut used = 0;
    let mut keep = 0;
    for (offset, c) in text.char_indices() {
        used += rendered_len(c);
        if used > max {
            text.truncate(keep);
            text.push('…');
            return true;
        }
        if used + '…'.len_utf8() <= max {
            keep = offset + c.len_utf8();
        }
    }
    false
}

fn argv_len(entry: &LineageEntry) -> usize {
    entry.argv.iter().map(|argument| argument.chars().map(rendered_len).sum::<usize>() + 3).sum()
}

fn drop_ancestors_argv(alert: &mut Alert, excess: usize) -> Option<String> {
    let mut saved = 0;
    let mut from = None;
    for (index, entry) in alert.lineage.iter_mut().enumerate().skip(2).rev() {
        if saved >= excess {
            break;
        }
        if !entry.argv.is_empty() {
            saved += argv_len(entry);
            entry.argv.clear();
            from = Some(index);
        }
    }
    from.map(|from| format!("lineage[{from}..].argv"))
}

fn cut_argv(alert: &mut Alert, _excess: usize) -> Option<String> {
    let mut changed = false;
    for entry in alert.lineage.iter_mut().take(2) {
        changed |= entry.argv.len() > KEPT_ARGUMENTS;
        entry.argv.truncate(KEPT_ARGUMENTS);
        for argument in &mut entry.argv {
            changed |= cut(argument, KEPT_ARGUMENT_BYTES);
        }
    }
    changed.then(|| format!("lineage[0..2].argv to {KEPT_ARGUMENTS} arguments of {KEPT_ARGUMENT_BYTES} bytes"))
}

fn cut_list<T>(list: &mut Vec<T>, name: &str) -> Option<String> {
    let cut = list.len() > KEPT_LIST;
    list.truncate(KEPT_LIST);
    cut.then(|| format!("{name}[{KEPT_LIST}..]"))
}

fn cut_evidence(alert: &mut Alert, _excess: usize) -> Option<String> {
    cut_list(&mut alert.evidence, "evidence")
}

fn cut_entities(alert: &mut Alert, _excess: usize) -> Option<String> {
    cut_list(&mut alert.entities, "entities")
}

fn drop_next_steps(alert: &mut Alert, _excess: usize) -> Option<String> {
    let had = !alert.next_steps.is_empty();
    alert.next_steps.clear();
    had.then(|| "next_steps".to_owned())
}

fn drop_ancestors(alert: &mut Alert, excess: usize) -> Option<String> {
    let mut saved = 0;
    let mut kept = alert.lineage.len();
    while kept > KEPT_LINEAGE && saved < excess {
        kept -= 1;
        saved += line(&alert.lineage[kept]).len() + 1;
    }
    let cut = kept < alert.lineage.len();
    alert.lineage.truncate(kept);
    cut.then(|| format!("lineage[{kept}..]"))
}

fn cut_texts(alert: &mut Alert, _excess: usize) -> Option<String> {
    let mut changed = cut(&mut alert.explanation, 512) | cut(&mut alert.title, 256);
    for entity in &mut alert.entities {
        changed |= match entity {
            Entity::User { name: Some(name), .. } => cut(name, 64),
            Entity::Container { id } => cut(id, 128),
            Entity::Account { name } => cut(name, 64),
            Entity::User { name: None, .. } | Entity::Process { .. } | Entity::Socket { .. } | Entity::Host { .. } => false,
        };
    }
    changed.then(|| "explanation to 512 bytes, title to 256, entity names to 128".to_owned())
}

fn drop_argv(alert: &mut Alert, _excess: usize) -> Option<String> {
    let had = alert.lineage.iter().any(|entry| !entry.argv.is_empty());
    alert.lineage.iter_mut().for_each(|entry| entry.argv.clear());
    had.then(|| "lineage[0..].argv".to_owned())
}

fn cut_lineage_texts(alert: &mut Alert, _excess: usize) -> Option<String> {
    let mut changed = false;
    for LineageEntry { exec_id: _, pid: _, name, exe, argv: _, uid: _, user, tty, exited: _, approximate: _ } in &mut alert.lineage {
        changed |= cut(name, 32);
        for text in [exe, user, tty].into_iter().flatten() {
            changed |= cut(text, 128);
        }
    }
    changed.then(|| "lineage names to 32 bytes, paths, users and terminals to 128".to_owned())
}

/// The last resort: which alert this is, and nothing else. A new field of `Alert` must be thought of here.
fn keep_the_core(alert: &mut Alert, _excess: usize) -> Option<String> {
    let Alert {
        id: _,
        revision: _,
        time: _,
        host,
        detector,
        rule,
        title,
        severity: _,
        confidence: _,
        attack,
        entities,
        evidence,
        trigger_seq: _,
        lineage,
        explanation,
        next_steps,
        status: _,
        login: _,
    } = alert;
    for (text, max) in [(host, 64), (detector, 48), (rule, 64), (title, 96), (explanation, 32)] {
        cut(text, max);
    }
    attack.clear();
    entities.clear();
    evidence.clear();
    lineage.clear();
    next_steps.clear();
    Some("all but the core".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bartizan_bus::event::{AlertId, Attack, BootId, Confidence, EventId, EventTime, ExecId, InetSocket, Severity, Status, Transport};
    use proptest::prelude::*;

    fn exec_id(pid: u32) -> ExecId {
        ExecId { boot: BootId(7), start_ns: 1_000_000, pid, exec: 1 }
    }

    fn entry(pid: u32, argv: Vec<String>) -> LineageEntry {
        LineageEntry {
            exec_id: exec_id(pid),
            pid,
            name: "bash".to_owned(),
            exe: Some("/usr/bin/bash".to_owned()),
            argv,
            uid: 0,
            user: Some("root".to_owned()),
            tty: None,
            exited: false,
            approximate: false,
        }
    }

    pub(crate) fn plain_alert(number: u64) -> Alert {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        Alert {
            id: AlertId(id),
            revision: 1,
            time: EventTime { boot_ns: 5, wall_ns: 1_795_417_921_123_456_789 },
            host: "web-01".to_owned(),
            detector: "runtime_watcher".to_owned(),
            rule: "runtime_watcher.reverse_shell".to_owned(),
            title: "Reverse shell".to_owned(),
            severity: Severity::High,
            confidence: Confidence::High,
            attack: vec![Attack { tactic: "TA0002".to_owned(), technique: "T1059.004".to_owned() }],
            entities: vec![Entity::Process { exec_id: exec_id(9), pid: 9 }],
            evidence: vec![EventId([3; 20])],
            trigger_seq: number,
            lineage: vec![entry(9, vec!["bash".to_owned(), "-i".to_owned()]), entry(1, vec!["init".to_owned()])],
            explanation: "bash has 192.0.2.1:4444 as its standard input".to_owned(),
            next_steps: vec!["Look at it".to_owned()],
            status: Status::Open,
            login: None,
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => ".{0,40}",
            2 => "[\\x00-\\x20\"\\\\\\]\\x7f\u{80}-\u{9f}\u{2028}\u{2029}\u{feff}=|]{0,60}",
            1 => (any::<char>(), 0_usize..3000).prop_map(|(c, n)| c.to_string().repeat(n)),
        ]
    }

    fn argv() -> impl Strategy<Value = Vec<String>> {
        prop_oneof![
            8 => prop::collection::vec(text(), 0..6),
            1 => prop::collection::vec(text(), 0..80),
            1 => any::<char>().prop_map(|c| vec![c.to_string().repeat((1 << 20) / c.len_utf8())]),
        ]
    }

    fn entity() -> impl Strategy<Value = Entity> {
        prop_oneof![
            any::<u32>().prop_map(|pid| Entity::Process { exec_id: exec_id(pid), pid }),
            (any::<u32>(), prop::option::of(text())).prop_map(|(uid, name)| Entity::User { uid, name }),
            text().prop_map(|id| Entity::Container { id }),
            (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| Entity::Socket {
                socket: InetSocket {
                    transport: Transport::Tcp,
                    local_ip: Some(ip),
                    local_port: Some(port),
                    peer_ip: Some(ip),
                    peer_port: Some(port),
                    connected: true,
                    inode: None
                }
            }),
        ]
    }

    fn lineage_entry() -> impl Strategy<Value = LineageEntry> {
        (any::<u32>(), text(), prop::option::of(text()), argv(), prop::option::of(text()))
            .prop_map(|(pid, name, exe, argv, user)| LineageEntry { name, exe, tty: user.clone(), user, ..entry(pid, argv) })
    }

    /// Any alert, hostile ones included.
    pub(crate) fn alert() -> impl Strategy<Value = Alert> {
        (
            (any::<[u8; 16]>(), any::<u32>(), any::<i64>(), any::<u64>(), 0_usize..5),
            (text(), text(), text(), text(), text()),
            prop::collection::vec(lineage_entry(), 0..12),
            prop::collection::vec(entity(), 0..40),
            (prop::collection::vec(any::<[u8; 20]>(), 0..40), prop::collection::vec(text(), 0..4)),
            prop::collection::vec((text(), text()), 0..3),
        )
            .prop_map(
                |((id, revision, wall_ns, trigger_seq, severity), texts, lineage, entities, (evidence, next_steps), attack)| {
                    let (host, detector, rule, title, explanation) = texts;
                    let severity = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical][severity];
                    Alert {
                        id: AlertId(id),
                        revision,
                        time: EventTime { boot_ns: 1, wall_ns },
                        host,
                        detector,
                        rule,
                        title,
                        severity,
                        attack: attack.into_iter().map(|(tactic, technique)| Attack { tactic, technique }).collect(),
                        entities,
                        evidence: evidence.into_iter().map(EventId).collect(),
                        trigger_seq,
                        lineage,
                        explanation,
                        next_steps,
                        ..plain_alert(0)
                    }
                },
            )
    }

    #[test]
    fn a_fitting_alert_is_whole_and_unmarked() {
        let alert = plain_alert(1);
        let (text, shrunk) = render_alert(&alert, Some(4), 8096);
        assert_eq!(shrunk, None);
        assert_eq!(text, serde_json::to_string(&AlertJson::new(&alert, Some(4))).unwrap());
    }

    #[test]
    fn far_ancestors_lose_their_arguments_first_and_only_as_many_as_needed() {
        let long = || vec!["x".repeat(1000)];
        let mut alert = plain_alert(1);
        alert.lineage = (0..8).map(|pid| entry(pid, long())).collect();
        let (text, shrunk) = render_alert(&alert, None, 8096);
        assert_eq!(shrunk.unwrap().fields, ["lineage[6..].argv"]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["shrunk"]["fields"][0], "lineage[6..].argv");
        assert_eq!(json["lineage"][5]["argv"][0], "x".repeat(1000));
        assert_eq!(json["lineage"][6]["argv"], serde_json::json!([]));
        assert_eq!(json["lineage"].as_array().unwrap().len(), 8);
        assert_eq!(json["explanation"], alert.explanation);
    }

    #[test]
    fn the_process_keeps_the_start_of_its_own_arguments() {
        let mut alert = plain_alert(1);
        alert.lineage[0].argv = vec!["python3".to_owned(), "-c".to_owned(), "\n".repeat(1 << 20)];
        let (text, shrunk) = render_alert(&alert, None, 8096);
        assert_eq!(shrunk.unwrap().fields, ["lineage[0..2].argv to 32 arguments of 256 bytes"]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["lineage"][0]["argv"][1], "-c");
        assert!(json["lineage"][0]["argv"][2].as_str().unwrap().ends_with('…'));
        assert_eq!(json["next_steps"][0], "Look at it");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn any_alert_is_one_line_of_json_within_the_budget(alert in alert(), seq: Option<u64>, budget in 1100_usize..20_000) {
            let (text, shrunk) = render_alert(&alert, seq, budget);
            prop_assert!(text.len() <= budget, "{} > {budget}", text.len());
            prop_assert!(!text.chars().any(|c| c.is_control() || needs_escape(c)));
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let whole = serde_json::to_value(AlertJson::new(&alert, seq)).unwrap();
            match shrunk {
                None => prop_assert_eq!(json, whole),
                Some(shrunk) => {
                    prop_assert!(whole.to_string().len() > budget || line(&AlertJson::new(&alert, seq)).len() > budget);
                    prop_assert_eq!(&json["shrunk"]["fields"], &serde_json::to_value(&shrunk.fields).unwrap());
                    for key in ["id", "revision", "severity", "time", "trigger_seq", "status"] {
                        prop_assert_eq!(&json[key], &whole[key]);
                    }
                    // No key disappears, so that a receiver's schema holds for shrunk alerts too.
                    for key in whole.as_object().unwrap().keys() {
                        prop_assert!(json.get(key).is_some(), "{key} is gone");
                    }
                }
            }
        }

        #[test]
        fn cutting_keeps_a_prefix_within_the_limit(text in text(), max in 3_usize..100) {
            let mut short = text.clone();
            let was_cut = cut(&mut short, max);
            let rendered: usize = short.chars().map(rendered_len).sum();
            prop_assert!(rendered <= max);
            prop_assert_eq!(line(&short).len(), rendered + 2);
            if was_cut {
                prop_assert!(text.starts_with(short.strip_suffix('…').unwrap()));
            } else {
                prop_assert_eq!(short, text);
            }
        }
    }
}
