//! One alert as a block of lines, with the lineage that explains it drawn as a tree.

use bartizan_bus::event::{Alert, Attack, Confidence, Entity, LineageEntry, Severity, Status};
use jiff::tz::TimeZone;

use super::clock::local;
use super::escape::{command_line, escape};
use super::event_line::{short, socket};
use super::paint::Paint;

/// Characters of an ancestor's command line that are drawn. The process itself is drawn whole, and so is all in JSON.
const ANCESTOR_WIDTH: usize = 240;

/// Renders alerts.
pub(crate) struct AlertBlocks {
    paint: Paint,
    zone: TimeZone,
}

impl AlertBlocks {
    pub(crate) fn new(paint: Paint, zone: TimeZone) -> Self {
        Self { paint, zone }
    }

    /// The block, without a line feed at its end. `seq` is the alert's sequence in ALERTS.
    pub(crate) fn render(&self, alert: &Alert, seq: u64) -> String {
        let Self { paint, zone } = self;
        let Alert {
            id,
            revision,
            time,
            host,
            detector: _,
            rule,
            title,
            severity,
            confidence: sureness,
            attack: references,
            entities,
            evidence,
            trigger_seq,
            lineage,
            explanation,
            next_steps,
            status,
            login,
        } = alert;
        let closed = match status {
            Status::Open => "",
            Status::Closed => "  (closed)",
        };
        let mut block = Block::new(*paint, *severity, &local(time.wall_ns, zone), rule, host);
        block.text.push_str(closed);
        block.title(title);
        block.field("Why", [escape(explanation)]);
        block.field("About", entities.iter().map(entity));
        block.field("Login", login.map(|login| login.to_string()));
        block.field("Lineage", tree(lineage, *paint));
        block.field("ATT&CK", [attack(references)]);
        block.field("Next", numbered(next_steps));
        block.field(
            "Id",
            [format!(
                "{id} revision {revision}, confidence {}, ALERTS {seq}, trigger EVENTS {trigger_seq}, {} evidence events",
                confidence(*sureness),
                evidence.len()
            )],
        );
        block.finish()
    }
}

/// A block of lines: a heading, a title, named fields.
pub(super) struct Block {
    paint: Paint,
    text: String,
}

impl Block {
    /// With its heading: how much to care, when, what and where.
    pub(super) fn new(paint: Paint, severity: Severity, when: &str, what: &str, host: &str) -> Self {
        let severity = paint.severity(severity, &severity.as_str().to_uppercase());
        let text = format!("{severity} {when} {} on {}", paint.cyan(&escape(what)), escape(host));
        Self { paint, text }
    }

    pub(super) fn title(&mut self, title: &str) {
        self.text.push_str(&format!("\n  {}", self.paint.bold(&escape(title))));
    }

    /// The block, without a line feed at its end.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// A named field of one or more lines; nothing when there is none.
    pub(super) fn field(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        for (index, line) in lines.into_iter().filter(|line| !line.is_empty()).enumerate() {
            let name = if index == 0 { format!("{name}:") } else { String::new() };
            self.text.push_str(&format!("\n  {} {line}", self.paint.dim(&format!("{name:<8}"))));
        }
    }
}

pub(super) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
    }
}

/// `TA0002 T1059.004, TA0011 T1095`
pub(super) fn attack(references: &[Attack]) -> String {
    references.iter().map(|a| format!("{} {}", escape(&a.tactic), escape(&a.technique))).collect::<Vec<_>>().join(", ")
}

/// `1. Isolate the host.`
pub(super) fn numbered(steps: &[String]) -> impl Iterator<Item = String> {
    steps.iter().enumerate().map(|(index, step)| format!("{}. {}", index + 1, escape(step)))
}

pub(super) fn entity(entity: &Entity) -> String {
    match entity {
        Entity::Process { exec_id, pid } => format!("process {pid} ({exec_id})"),
        Entity::Socket { socket: ends } => format!("peer {}", socket(ends)),
        Entity::User { uid, name } => match name {
            Some(name) => format!("user {} ({uid})", escape(name)),
            None => format!("user {uid}"),
        },
        Entity::Container { id } => format!("container {}", escape(&short(id))),
        Entity::Host { ip } => format!("host {ip}"),
        Entity::Account { name } => format!("account {}", escape(name)),
    }
}

/// From the oldest known ancestor down to the process, each one level deeper than its parent.
fn tree(lineage: &[LineageEntry], paint: Paint) -> Vec<String> {
    let last = lineage.len().saturating_sub(1);
    lineage
        .iter()
        .rev()
        .enumerate()
        .map(|(depth, entry)| {
            let branch = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
            let process = format!("{}({})", escape(&entry.name), entry.pid);
            let process = if depth == last { paint.red(&process) } else { process };
            format!("{branch}{process}{}", details(entry, if depth == last { usize::MAX } else { ANCESTOR_WIDTH }, paint))
        })
        .collect()
}

/// `command` cut to `width` characters, saying so.
fn cut(command: String, width: usize) -> String {
    let length = command.chars().count();
    if length <= width {
        return command;
    }
    let kept: String = command.chars().take(width).collect();
    format!("{kept}… (and {} characters: see --json)", length - width)
}

fn details(entry: &LineageEntry, width: usize, paint: Paint) -> String {
    let LineageEntry { exec_id: _, pid: _, name: _, exe, argv, uid, user, tty, exited, approximate } = entry;
    let mut out = format!("  {}", user.as_deref().map_or_else(|| uid.to_string(), escape));
    if let Some(tty) = tty {
        out.push_str(&format!(" on {}", escape(tty)));
    }
    let command = if argv.is_empty() { exe.as_deref().map(escape).unwrap_or_default() } else { cut(command_line(argv, false), width) };
    if !command.is_empty() {
        out.push_str(&format!("  {command}"));
    }
    if let (Some(argv0), Some(exe)) = (argv.first(), exe)
        && argv0 != exe
    {
        out.push_str(&paint.dim(&format!("  exe {}", escape(exe))));
    }
    if *exited {
        out.push_str(&paint.dim("  (had ended)"));
    }
    if *approximate {
        out.push_str(&paint.dim("  (from /proc)"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::cli::samples::alert;

    fn render(alert: &Alert) -> String {
        AlertBlocks::new(Paint::new(ColorChoice::Never, false, None), TimeZone::UTC).render(alert, 3)
    }

    #[test]
    fn a_whole_block() {
        let mut alert = alert();
        alert.lineage[0].tty = Some("pts/3".into());
        alert.lineage[1].exited = true;
        alert.lineage[2].approximate = true;
        let expected = "\
CRITICAL 2023-11-14 22:13:20.000 runtime_watcher.reverse_shell on host1
  Reverse shell: bash talks to 203.0.113.9:443
  Why:     bash (pid 300) has a connected socket as its standard input.
  About:   process 300 (0000000000000007-45d964b800-300-1)
           peer tcp 10.0.0.1:5555 → 203.0.113.9:443
  Lineage: sshd(100)  alice  /usr/bin/sshd  (from /proc)
           └─ python3(200)  alice  python3 x.py  exe /usr/bin/python3  (had ended)
              └─ bash(300)  alice on pts/3  bash -i  exe /usr/bin/bash
  ATT&CK:  TA0002 T1059.004
  Next:    1. Isolate the host.
           2. Look at python3 (pid 200).
  Id:      abababababababababababababababab revision 1, confidence high, ALERTS 3, trigger EVENTS 42, 1 evidence events";
        assert_eq!(render(&alert), expected);
    }

    #[test]
    fn an_alert_with_nothing_to_list_has_no_empty_fields() {
        let bare = Alert { lineage: Vec::new(), attack: Vec::new(), entities: Vec::new(), next_steps: Vec::new(), ..alert() };
        assert_eq!(render(&bare).lines().count(), 4);
    }

    #[test]
    fn long_command_lines_of_ancestors_are_cut_and_the_process_is_whole() {
        let mut long = alert();
        long.lineage[0].argv = vec!["b".repeat(5000)];
        long.lineage[2].argv = vec!["a".repeat(5000)];
        let block = render(&long);
        assert!(block.contains(&"b".repeat(5000)));
        assert!(block.contains(&format!("  {}… (and 4760 characters: see --json)  exe", "a".repeat(240))), "{block}");
    }

    #[test]
    fn no_string_of_an_alert_can_draw() {
        let evil = "\u{1b}[2J\n\u{202e}\u{9b}H".to_owned();
        let mut bad = alert();
        for field in [&mut bad.host, &mut bad.detector, &mut bad.rule, &mut bad.title, &mut bad.explanation] {
            field.clone_from(&evil);
        }
        bad.next_steps = vec![evil.clone()];
        bad.attack[0].technique.clone_from(&evil);
        bad.attack[0].tactic.clone_from(&evil);
        bad.entities.push(Entity::User { uid: 1, name: Some(evil.clone()) });
        bad.entities.push(Entity::Container { id: evil.clone() });
        for entry in &mut bad.lineage {
            entry.name.clone_from(&evil);
            entry.argv = vec![evil.clone()];
            (entry.exe, entry.user, entry.tty) = (Some(evil.clone()), Some(evil.clone()), Some(evil.clone()));
        }
        let lines = render(&bad).lines().count();
        assert_eq!(lines, render(&alert()).lines().count() + 1, "two entities more, one step less, and no line of the attacker's");
        assert!(!render(&bad).chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'));
    }
}
