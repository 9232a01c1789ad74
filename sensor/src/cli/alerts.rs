//! `bartizan alerts`: what was detected.

use bartizan_bus::StreamName;
use bartizan_bus::event::{Alert, AlertId, AlertJson, CodecError, Severity, decode_alert};
use jiff::tz::TimeZone;

use super::alert_block::AlertBlocks;
use super::clock::{Since, parse_since};
use super::exit::Exit;
use super::latest::{self, Told};
use super::out::Stop;
use super::paint::Paint;
use super::{Common, View};

/// Show what was detected, oldest first, each alert in its latest revision. Works with and without a running Bartizan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    view: View,

    /// Only alerts since then: a duration (5m, 2h, 7d), an RFC 3339 time, or `boot`
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,

    /// Only alerts of this severity or a higher one: info, low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<Severity>,

    /// Only alerts of this rule (runtime_watcher.reverse_shell) or detector (runtime_watcher); repeatable
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
}

pub(super) fn parse_severity(text: &str) -> Result<Severity, String> {
    let all = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity.as_str() == text).ok_or_else(|| "use info, low, medium, high or critical".to_owned())
}

impl Told for Alert {
    type Id = AlertId;
    const STREAM: StreamName = StreamName::Alerts;
    const PLURAL: &'static str = "alerts";

    fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        decode_alert(payload)
    }

    fn id(&self) -> AlertId {
        self.id
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    fn json(&self, seq: u64) -> serde_json::Result<String> {
        serde_json::to_string(&AlertJson::new(self, Some(seq)))
    }
}

/// Which alerts are shown.
#[derive(Debug, Default)]
struct Filter {
    since_ns: Option<i64>,
    severity: Severity,
    rules: Vec<String>,
}

impl Filter {
    fn shows(&self, alert: &Alert) -> bool {
        let Self { since_ns, severity, rules } = self;
        since_ns.is_none_or(|since| alert.time.wall_ns >= since)
            && alert.severity >= *severity
            && (rules.is_empty() || rules.iter().any(|rule| *rule == alert.rule || *rule == alert.detector))
    }
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let Args { view, since, severity, rules } = args;
    let data_dir = common.data_dir()?;
    let since_ns = since.map(Since::resolve_now);
    let filter = Filter { since_ns, severity: severity.unwrap_or_default(), rules: rules.clone() };
    let blocks = AlertBlocks::new(Paint::for_stdout(view.color()), TimeZone::system());
    latest::show(&data_dir, view, |alert| filter.shows(alert), |alert, seq| blocks.render(alert, seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{TIME, alert};

    #[test]
    fn severities_are_named_and_ordered() {
        assert_eq!(parse_severity("high"), Ok(Severity::High));
        assert!(parse_severity("HIGH").is_err() && parse_severity("").is_err());
    }

    #[test]
    fn filters_join_with_and() {
        assert!(Filter::default().shows(&alert()));
        let rules = |rule: &str| Filter { rules: vec![rule.to_owned()], ..Filter::default() };
        assert!(rules("runtime_watcher").shows(&alert()) && rules("runtime_watcher.reverse_shell").shows(&alert()));
        assert!(!rules("runtime_watcher.reverse").shows(&alert()));
        let high = Alert { severity: Severity::High, ..alert() };
        assert!(Filter { severity: Severity::High, ..Filter::default() }.shows(&high));
        assert!(!Filter { severity: Severity::Critical, ..Filter::default() }.shows(&high));
        assert!(!Filter { since_ns: Some(TIME.wall_ns + 1), ..Filter::default() }.shows(&alert()));
    }
}
