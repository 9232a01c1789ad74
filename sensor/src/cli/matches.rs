//! `bartizan matches`: alerts that make one story.

use bartizan_bus::StreamName;
use bartizan_bus::event::{CodecError, MatchId, PatternMatch, PatternMatchJson, Severity, decode_match};
use jiff::tz::TimeZone;

use super::alerts::parse_severity;
use super::clock::{Since, parse_since};
use super::exit::Exit;
use super::latest::{self, Told};
use super::match_block::MatchBlocks;
use super::out::Stop;
use super::paint::Paint;
use super::{Common, View};

/// Show which alerts make one story, oldest first, each with its timeline. Works with and without a running Bartizan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    view: View,

    /// Only matches since then: a duration (5m, 2h, 7d), an RFC 3339 time, or `boot`
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,

    /// Only matches of this severity or a higher one: info, low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<Severity>,

    /// Only matches of this pattern (correlate.brute_force_to_shell); repeatable
    #[arg(long = "pattern", value_name = "PATTERN")]
    patterns: Vec<String>,
}

impl Told for PatternMatch {
    type Id = MatchId;
    const STREAM: StreamName = StreamName::Matches;
    const PLURAL: &'static str = "matches";

    fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        decode_match(payload)
    }

    fn id(&self) -> MatchId {
        self.id
    }

    fn revision(&self) -> u32 {
        self.revision
    }

    fn json(&self, seq: u64) -> serde_json::Result<String> {
        serde_json::to_string(&PatternMatchJson::new(self, Some(seq)))
    }
}

/// Which matches are shown.
#[derive(Debug, Default)]
struct Filter {
    since_ns: Option<i64>,
    severity: Severity,
    patterns: Vec<String>,
}

impl Filter {
    fn shows(&self, found: &PatternMatch) -> bool {
        let Self { since_ns, severity, patterns } = self;
        since_ns.is_none_or(|since| found.time.wall_ns >= since)
            && found.severity >= *severity
            && (patterns.is_empty() || patterns.contains(&found.pattern))
    }
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let Args { view, since, severity, patterns } = args;
    let data_dir = common.data_dir()?;
    let since_ns = since.map(Since::resolve_now);
    let filter = Filter { since_ns, severity: severity.unwrap_or_default(), patterns: patterns.clone() };
    let blocks = MatchBlocks::new(Paint::for_stdout(view.color()), TimeZone::system());
    latest::show(&data_dir, view, |found| filter.shows(found), |found, seq| blocks.render(found, seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{TIME, pattern_match};

    #[test]
    fn filters_join_with_and() {
        let found = pattern_match();
        assert!(Filter::default().shows(&found));
        let of = |pattern: &str| Filter { patterns: vec![pattern.to_owned()], ..Filter::default() };
        assert!(of("correlate.brute_force_to_shell").shows(&found) && !of("correlate").shows(&found));
        let high = PatternMatch { severity: Severity::High, ..pattern_match() };
        assert!(!Filter { severity: Severity::Critical, ..Filter::default() }.shows(&high));
        assert!(!Filter { since_ns: Some(TIME.wall_ns + 1), ..Filter::default() }.shows(&found));
    }
}
