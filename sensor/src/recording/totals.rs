//! What there is in a recording, in numbers.

use std::collections::BTreeMap;
use std::mem::offset_of;

use bartizan_sensor_ebpf::abi::{Header, KINDS};

use crate::capture::rings::record_time;
use crate::intake::Input;

/// What records of a kind are called that this build does not know.
const UNKNOWN: &str = "unknown";

/// Numbers of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Inputs of all sorts.
    pub inputs: u64,
    /// Processes that ran already.
    pub seeds: u64,
    /// Records of the kernel, by the event kind that they become; gathered packets among them.
    pub records: BTreeMap<&'static str, u64>,
    /// What was lost, by kind and reason.
    pub lost: BTreeMap<(String, String), u64>,
    /// Latest time of the boot clock that an input tells, nanoseconds.
    pub last: u64,
}

impl Totals {
    /// Counts one more.
    pub(super) fn count(&mut self, input: &Input<'_>) {
        self.inputs += 1;
        let time = match input {
            Input::Begin { now, .. }
            | Input::Heartbeat { now, .. }
            | Input::Container { now, .. }
            | Input::Own { now, .. }
            | Input::Hashed { now, .. }
            | Input::Stop { now } => *now,
            Input::Seed(_) => {
                self.seeds += 1;
                0
            }
            Input::Record(record) => {
                *self.records.entry(name(record)).or_default() += 1;
                record_time(record).unwrap_or_default()
            }
            Input::Probe(_, gathered) => {
                *self.records.entry("network.probe").or_default() += 1;
                gathered.last
            }
            Input::UdpFlow(_, gathered) => {
                *self.records.entry("network.udp_flow").or_default() += 1;
                gathered.last
            }
            Input::Syn(_, gathered) => {
                *self.records.entry("network.syn").or_default() += 1;
                gathered.last
            }
            Input::FileDeed(deed) => {
                *self.records.entry(deed.body.kind()).or_default() += 1;
                deed.now
            }
            Input::Writes { now, .. } | Input::Accounts { now, .. } => *now,
            Input::Lost { now, lost } => {
                for loss in lost {
                    let count = self.lost.entry((loss.kind.clone(), loss.reason.clone())).or_default();
                    *count = count.saturating_add(loss.count);
                }
                *now
            }
            // Not a time that anything happened at: the end's is above all.
            Input::Due(_)
            | Input::Watched(_)
            | Input::Logins(_)
            | Input::Users(_)
            | Input::WallOffset(_)
            | Input::Alive(_)
            | Input::Second => 0,
        };
        self.last = self.last.max(time);
    }

    /// Records of all kinds.
    pub fn all_records(&self) -> u64 {
        self.records.values().sum()
    }

    /// Losses of all kinds.
    pub fn all_lost(&self) -> u64 {
        self.lost.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }
}

/// The event kind that a record becomes.
fn name(record: &[u8]) -> &'static str {
    let number = record.get(offset_of!(Header, kind)..).and_then(|rest| rest.first_chunk()).map(|chunk| u16::from_ne_bytes(*chunk));
    KINDS.iter().find(|info| Some(info.kind as u16) == number).map_or(UNKNOWN, |info| info.name)
}
