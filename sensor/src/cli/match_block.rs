//! One match as a block of lines, with its alerts as a timeline.

use std::time::Duration;

use bartizan_bus::event::{MatchStep, PatternMatch};
use jiff::tz::TimeZone;

use super::alert_block::{Block, attack, confidence, entity, numbered};
use super::clock::local;
use super::escape::escape;
use super::paint::Paint;
use crate::config::units::format_duration;

/// The block, without a line feed at its end. `seq` is the match's sequence in MATCHES.
pub(super) fn render(found: &PatternMatch, seq: u64, paint: Paint, zone: &TimeZone) -> String {
    let PatternMatch {
        id,
        revision,
        time,
        host,
        pattern,
        title,
        severity,
        confidence: sureness,
        attack: references,
        entities,
        login,
        steps,
        explanation,
        next_steps,
    } = found;
    let mut block = Block::new(paint, *severity, &local(time.wall_ns, zone), pattern, host);
    block.title(title);
    block.field("Why", [escape(explanation)]);
    block.field("About", entities.iter().map(entity));
    block.field("Login", login.map(|login| login.to_string()));
    block.field("Steps", timeline(steps, paint, zone));
    block.field("ATT&CK", [attack(references)]);
    block.field("Next", numbered(next_steps));
    block.field("Id", [format!("{id} revision {revision}, confidence {}, MATCHES {seq}", confidence(*sureness))]);
    block.finish()
}

/// A line for each step, and one below it that says which alert it is.
fn timeline(steps: &[MatchStep], paint: Paint, zone: &TimeZone) -> Vec<String> {
    let width = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default();
    let mut before = None;
    let mut lines = Vec::new();
    for step in steps {
        let MatchStep { name, alert, revision, alert_seq, trigger_seq, time, rule, title } = step;
        let after = before.map_or_else(String::new, |before| {
            let ms = u64::try_from(time.wall_ns.saturating_sub(before) / 1_000_000).unwrap_or_default();
            format!(" {}", paint.dim(&format!("+{}", elapsed(ms))))
        });
        before = Some(time.wall_ns);
        let name = format!("{:<width$}", escape(name));
        lines.push(format!("{}  {}  {}{after}", local(time.wall_ns, zone), paint.red(&name), escape(title)));
        let which = format!("{}, alert {alert} revision {revision}, ALERTS {alert_seq}, trigger EVENTS {trigger_seq}", escape(rule));
        lines.push(format!("  {}", paint.dim(&which)));
    }
    lines
}

/// `850ms`, `12s`, `5m`, `3h`: cut, not exact.
fn elapsed(ms: u64) -> String {
    let unit = [86_400_000, 3_600_000, 60_000, 1_000].into_iter().find(|unit| ms >= *unit).unwrap_or(1);
    format_duration(Duration::from_millis(ms / unit * unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::cli::samples::pattern_match;

    fn render(found: &PatternMatch) -> String {
        super::render(found, 3, Paint::new(ColorChoice::Never, false, None), &TimeZone::UTC)
    }

    #[test]
    fn a_whole_block() {
        let expected = "\
CRITICAL 2023-11-14 22:13:20.000 correlate.brute_force_to_shell on host1
  Guessed password, login, reverse shell: alice from 203.0.113.9
  Why:     One after the other.
  About:   host 203.0.113.9
           account alice
  Login:   0909090909090909090909090909090909090909
  Steps:   2023-11-14 21:51:20.000  guessing  Brute force
             auth_fortress.brute_force, alert 01010101010101010101010101010101 revision 2, ALERTS 5, trigger EVENTS 10
           2023-11-14 22:13:08.000  success   alice logged in +21m
             auth_fortress.success_after_failures, alert 02020202020202020202020202020202 revision 1, ALERTS 6, trigger EVENTS 20
           2023-11-14 22:13:20.000  shell     Reverse shell +12s
             runtime_watcher.reverse_shell, alert 03030303030303030303030303030303 revision 1, ALERTS 7, trigger EVENTS 30
  ATT&CK:  TA0006 T1110.001
  Next:    1. Isolate the host.
  Id:      cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd revision 1, confidence high, MATCHES 3";
        assert_eq!(render(&pattern_match()), expected);
    }

    #[test]
    fn no_string_of_a_match_can_draw() {
        let evil = "\u{1b}[2J\n\u{202e}\u{9b}H".to_owned();
        let mut bad = pattern_match();
        for field in [&mut bad.host, &mut bad.pattern, &mut bad.title, &mut bad.explanation] {
            field.clone_from(&evil);
        }
        bad.next_steps = vec![evil.clone()];
        bad.steps.iter_mut().for_each(|step| {
            for field in [&mut step.name, &mut step.rule, &mut step.title] {
                field.clone_from(&evil);
            }
        });
        assert!(!render(&bad).chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'));
    }

    #[test]
    fn elapsed_times_are_cut() {
        for (ms, text) in [(0, "0ms"), (999, "999ms"), (1_999, "1s"), (119_000, "1m"), (3_599_999, "59m"), (90_000_000, "1d")] {
            assert_eq!(elapsed(ms), text);
        }
    }
}
