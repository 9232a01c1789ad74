//! `bartizan alerts`: what was detected.

use std::collections::HashMap;

use bartizan_bus::event::{Alert, AlertId, AlertJson, Severity, decode_alert};
use bartizan_bus::{Record, StreamName};
use jiff::tz::TimeZone;

use super::alert_block::AlertBlocks;
use super::clock::{Since, parse_since};
use super::escape;
use super::exit::{Exit, Failure, complain};
use super::log::Log;
use super::out::{Out, Stop};
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

fn parse_severity(text: &str) -> Result<Severity, String> {
    let all = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity.as_str() == text).ok_or_else(|| "use info, low, medium, high or critical".to_owned())
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
    let mut log = Log::open(&data_dir, StreamName::Alerts)?;
    let chosen = choose(&mut log, &filter, view.limit)?;

    // The alerts are read a second time rather than kept: what is kept is a few words an alert, however long its lineage.
    let mut again = Log::open_again(&data_dir, StreamName::Alerts)?;
    let mut out = Out::stdout();
    let mut shown: u64 = 0;
    while let Some(record) = again.next()? {
        if chosen.last().is_none_or(|last| record.seq > *last) {
            break;
        }
        if chosen.binary_search(&record.seq).is_ok()
            && let Some(alert) = decode(&record, &mut again)
        {
            out.line(&render(&alert, record.seq, view.json, &blocks, shown == 0)?)?;
            shown += 1;
        }
    }
    out.flush()?;
    if shown == 0 {
        complain(format_args!("no alerts{}", if view.follow { " yet; waiting for new ones" } else { "" }));
    }
    if !view.follow {
        return Ok(log.finish());
    }
    loop {
        match log.next()? {
            Some(record) => {
                if let Some(alert) = decode(&record, &mut log).filter(|alert| filter.shows(alert)) {
                    out.line(&render(&alert, record.seq, view.json, &blocks, shown == 0)?)?;
                    out.flush()?;
                    shown += 1;
                }
            }
            None => out.wait()?,
        }
    }
}

/// Sequences, ascending, of the latest revision of every alert that the filter shows; with a limit, of the last ones.
fn choose(log: &mut Log, filter: &Filter, limit: Option<usize>) -> Result<Vec<u64>, Failure> {
    let mut latest: HashMap<AlertId, Latest> = HashMap::new();
    while let Some(record) = log.next()? {
        if let Some(alert) = decode(&record, log) {
            let this = Latest { revision: alert.revision, seq: record.seq, shown: filter.shows(&alert) };
            let entry = latest.entry(alert.id).or_insert(this);
            if this.revision >= entry.revision {
                *entry = this;
            }
        }
    }
    let mut chosen: Vec<u64> = latest.into_values().filter(|latest| latest.shown).map(|latest| latest.seq).collect();
    chosen.sort_unstable();
    if let Some(limit) = limit {
        chosen.drain(..chosen.len().saturating_sub(limit));
    }
    Ok(chosen)
}

/// What is kept of an alert while the stream is read.
#[derive(Clone, Copy)]
struct Latest {
    revision: u32,
    seq: u64,
    shown: bool,
}

fn decode(record: &Record, log: &mut Log) -> Option<Alert> {
    match decode_alert(&record.payload) {
        Ok(alert) => Some(alert),
        Err(error) => {
            log.undecodable(record.seq, &error);
            None
        }
    }
}

/// A block with an empty line before it, unless it is the first; or a line of JSON.
fn render(alert: &Alert, seq: u64, json: bool, blocks: &AlertBlocks, first: bool) -> Result<String, Failure> {
    if json {
        let json = serde_json::to_string(&AlertJson::new(alert, Some(seq)));
        return json
            .map(|json| escape::json(&json))
            .map_err(|error| Failure::new(Exit::Failed, format_args!("alert {} cannot be written as JSON: {error}", alert.id)));
    }
    let gap = if first { "" } else { "\n" };
    Ok(format!("{gap}{}", blocks.render(alert, seq)))
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
