//! `bartizan alerts`: what was detected.

use bartizan_bus::StreamName;
use bartizan_bus::event::{Alert, AlertId, AlertJson, CodecError, Severity, decode_alert};
use jiff::tz::TimeZone;

use super::Common;
use super::alert_block::AlertBlocks;
use super::exit::Exit;
use super::latest::{self, Choice, Told};
use super::out::Stop;
use super::paint::Paint;

/// Show what was detected, oldest first, each alert in its latest revision. Works with and without a running Bartizan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,

    /// Only alerts of this rule (runtime_watcher.reverse_shell) or detector (runtime_watcher); repeatable
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
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

    fn time_ns(&self) -> i64 {
        self.time.wall_ns
    }

    fn severity(&self) -> Severity {
        self.severity
    }

    fn is(&self, name: &str) -> bool {
        name == self.rule || name == self.detector
    }

    fn json(&self, seq: u64) -> serde_json::Result<String> {
        serde_json::to_string(&AlertJson::new(self, Some(seq)))
    }

    fn block(&self, seq: u64, paint: Paint, zone: &TimeZone) -> String {
        AlertBlocks::new(paint, zone.clone()).render(self, seq)
    }
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    latest::show::<Alert>(common, &args.choice, &args.rules)
}
