//! Showing a stream whose records have revisions, each thing in its latest one: what `alerts` and `matches` have in common.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use bartizan_bus::event::{CodecError, Severity};
use bartizan_bus::{Record, StreamName};
use jiff::tz::TimeZone;

use super::clock::{Since, parse_since};
use super::escape;
use super::exit::{Exit, Failure, complain};
use super::log::Log;
use super::out::{Out, Stop};
use super::paint::Paint;
use super::{Common, View};

/// What a record of such a stream is.
pub(super) trait Told: Sized {
    /// What its revisions have in common.
    type Id: Copy + Eq + Hash + fmt::Display;
    /// Its stream.
    const STREAM: StreamName;
    /// What several are called.
    const PLURAL: &'static str;
    fn decode(payload: &[u8]) -> Result<Self, CodecError>;
    fn id(&self) -> Self::Id;
    fn revision(&self) -> u32;
    fn time_ns(&self) -> i64;
    fn severity(&self) -> Severity;
    /// Whether the operator can mean it by `name`.
    fn is(&self, name: &str) -> bool;
    fn json(&self, seq: u64) -> serde_json::Result<String>;
    fn block(&self, seq: u64, paint: Paint, zone: &TimeZone) -> String;
}

/// What both verbs take.
#[derive(Debug, clap::Args)]
pub(super) struct Choice {
    #[command(flatten)]
    view: View,

    /// Only what happened since then: a duration (5m, 2h, 7d), an RFC 3339 time, or `boot`
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,

    /// Only of this severity or a higher one: info, low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<Severity>,
}

fn parse_severity(text: &str) -> Result<Severity, String> {
    let all = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity.as_str() == text).ok_or_else(|| "use info, low, medium, high or critical".to_owned())
}

/// What is shown.
#[derive(Debug, Default)]
struct Filter {
    since_ns: Option<i64>,
    severity: Severity,
    names: Vec<String>,
}

impl Filter {
    fn shows(&self, told: &impl Told) -> bool {
        let Self { since_ns, severity, names } = self;
        since_ns.is_none_or(|since| told.time_ns() >= since)
            && told.severity() >= *severity
            && (names.is_empty() || names.iter().any(|name| told.is(name)))
    }
}

/// Shows what `choice` and `names` (any of them) let through, oldest first, and goes on with what comes if `choice` says so.
pub(super) fn show<T: Told>(common: &Common, choice: &Choice, names: &[String]) -> Result<Exit, Stop> {
    let Choice { view, since, severity } = choice;
    let data_dir = common.data_dir()?;
    let filter = Filter { since_ns: since.map(Since::resolve_now), severity: severity.unwrap_or_default(), names: names.to_vec() };
    let (paint, zone) = (Paint::for_stdout(view.color()), TimeZone::system());
    let render = |told: &T, seq: u64, first: bool| -> Result<String, Failure> {
        if view.json {
            let failed =
                |error| Failure::new(Exit::Failed, format_args!("{} of {} cannot be written as JSON: {error}", told.id(), T::STREAM));
            return told.json(seq).map(|json| escape::json(&json)).map_err(failed);
        }
        // An empty line before each block, unless it is the first.
        let gap = if first { "" } else { "\n" };
        Ok(format!("{gap}{}", told.block(seq, paint, &zone)))
    };
    let mut log = Log::open(&data_dir, T::STREAM)?;
    let chosen = choose::<T>(&mut log, &filter, view.limit)?;

    // They are read a second time rather than kept: what is kept is a few words each, however long the lineages.
    let mut again = Log::open_again(&data_dir, T::STREAM)?;
    let mut out = Out::stdout();
    let mut shown: u64 = 0;
    while let Some(record) = again.next()? {
        if chosen.last().is_none_or(|last| record.seq > *last) {
            break;
        }
        if chosen.binary_search(&record.seq).is_ok()
            && let Some(told) = decode::<T>(&record, &mut again)
        {
            out.line(&render(&told, record.seq, shown == 0)?)?;
            shown += 1;
        }
    }
    out.flush()?;
    if shown == 0 {
        complain(format_args!("no {}{}", T::PLURAL, if view.follow { " yet; waiting for new ones" } else { "" }));
    }
    if !view.follow {
        return Ok(log.finish());
    }
    loop {
        match log.next()? {
            Some(record) => {
                if let Some(told) = decode::<T>(&record, &mut log).filter(|told| filter.shows(told)) {
                    out.line(&render(&told, record.seq, shown == 0)?)?;
                    out.flush()?;
                    shown += 1;
                }
            }
            None => log.wait(&out)?,
        }
    }
}

/// Sequences, ascending, of the latest revision of everything that is shown; with a limit, of the last ones.
fn choose<T: Told>(log: &mut Log, filter: &Filter, limit: Option<usize>) -> Result<Vec<u64>, Failure> {
    let mut latest: HashMap<T::Id, Latest> = HashMap::new();
    while let Some(record) = log.next()? {
        if let Some(told) = decode::<T>(&record, log) {
            let this = Latest { revision: told.revision(), seq: record.seq, shown: filter.shows(&told) };
            let entry = latest.entry(told.id()).or_insert(this);
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

/// What is kept while the stream is read.
#[derive(Clone, Copy)]
struct Latest {
    revision: u32,
    seq: u64,
    shown: bool,
}

fn decode<T: Told>(record: &Record, log: &mut Log) -> Option<T> {
    match T::decode(&record.payload) {
        Ok(told) => Some(told),
        Err(error) => {
            log.undecodable(record.seq, &error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{Alert, PatternMatch};

    use super::*;
    use crate::cli::samples::{TIME, alert, pattern_match};

    #[test]
    fn severities_are_named_and_ordered() {
        assert_eq!(parse_severity("high"), Ok(Severity::High));
        assert!(parse_severity("HIGH").is_err() && parse_severity("").is_err());
    }

    #[test]
    fn filters_join_with_and() {
        assert!(Filter::default().shows(&alert()) && Filter::default().shows(&pattern_match()));
        let named = |name: &str| Filter { names: vec!["other".to_owned(), name.to_owned()], ..Filter::default() };
        assert!(named("runtime_watcher").shows(&alert()) && named("runtime_watcher.reverse_shell").shows(&alert()));
        assert!(!named("runtime_watcher.reverse").shows(&alert()));
        assert!(named("correlate.brute_force_to_shell").shows(&pattern_match()) && !named("correlate").shows(&pattern_match()));
        let at_least = |severity| Filter { severity, ..Filter::default() };
        let high = (Alert { severity: Severity::High, ..alert() }, PatternMatch { severity: Severity::High, ..pattern_match() });
        assert!(at_least(Severity::High).shows(&high.0) && at_least(Severity::High).shows(&high.1));
        assert!(!at_least(Severity::Critical).shows(&high.0) && !at_least(Severity::Critical).shows(&high.1));
        let later = Filter { since_ns: Some(TIME.wall_ns + 1), ..Filter::default() };
        assert!(!later.shows(&alert()) && !later.shows(&pattern_match()));
    }
}
