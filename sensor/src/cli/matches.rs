//! `bartizan matches`: alerts that make one story.

use bartizan_bus::StreamName;
use bartizan_bus::event::{CodecError, MatchId, PatternMatch, PatternMatchJson, Severity, decode_match};
use jiff::tz::TimeZone;

use super::Common;
use super::exit::Exit;
use super::latest::{self, Choice, Told};
use super::match_block;
use super::out::Stop;
use super::paint::Paint;

/// Show which alerts make one story, oldest first, each with its timeline. Works with and without a running Bartizan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,

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

    fn time_ns(&self) -> i64 {
        self.time.wall_ns
    }

    fn severity(&self) -> Severity {
        self.severity
    }

    fn is(&self, name: &str) -> bool {
        name == self.pattern
    }

    fn json(&self, seq: u64) -> serde_json::Result<String> {
        serde_json::to_string(&PatternMatchJson::new(self, Some(seq)))
    }

    fn block(&self, seq: u64, paint: Paint, zone: &TimeZone) -> String {
        match_block::render(self, seq, paint, zone)
    }
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    latest::show::<PatternMatch>(common, &args.choice, &args.patterns)
}
