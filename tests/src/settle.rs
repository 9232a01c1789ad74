//! The proof of silence: a marker that goes the way of all events.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::sensor::Sensor;
use crate::wait::{wait_for, wait_until};

/// What the marker runs.
const MARKER: &str = "/bin/true";

impl Sensor {
    /// Returns when everything that has happened so far was judged and its alerts are on disk: runs a marker program, finds
    /// the marker's exec in EVENTS, and waits until the detectors have acknowledged beyond it and no verdict is pending.
    /// Returns the sequence of the marker in EVENTS.
    ///
    /// # Panics
    /// The marker does not come through.
    #[track_caller]
    pub fn settle(&mut self) -> u64 {
        self.markers += 1;
        let path = self.folder().join(format!("marker-{}-{}", std::process::id(), self.markers));
        fs::copy(MARKER, &path).unwrap_or_else(|error| panic!("cannot copy {MARKER} to {}: {error}", path.display()));
        let mut marker = Command::new(&path);
        marker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut marker = marker.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", path.display()));
        let pid = marker.id().to_string();
        marker.wait().unwrap_or_else(|error| panic!("cannot wait for {}: {error}", path.display()));
        let wanted = path.to_string_lossy();
        let seq = wait_for("the marker's exec in EVENTS", || {
            let events = self.events_json(&["--kind", "process.exec", "--pid", &pid]);
            events.iter().find(|event| event["process"]["exe"]["path"] == *wanted).and_then(|event| event["seq"].as_u64())
        });
        wait_until("the detectors' acknowledgement of the marker", || {
            let status = self.status_json();
            acknowledged(&status) >= Some(seq) && state_of(&status) >= Some(seq) && waiting(&status) == 0
        });
        seq
    }

    /// [`settle`](Self::settle), then the alerts that this test brought about.
    ///
    /// # Panics
    /// As these do.
    #[track_caller]
    pub fn settled_alerts(&mut self) -> Vec<Value> {
        self.settle();
        self.our_alerts()
    }
}

fn acknowledged(status: &Value) -> Option<u64> {
    status["detectors"]["acked_seq"].as_u64()
}

/// What the sizes and counters of the detectors are as after.
fn state_of(status: &Value) -> Option<u64> {
    status["detectors"]["state_seq"].as_u64()
}

/// Verdicts that wait for more to be known.
fn waiting(status: &Value) -> u64 {
    let detectors = status["detectors"]["detectors"].as_array().into_iter().flatten();
    let tables = detectors.flat_map(|detector| detector["state"]["tables"].as_array().into_iter().flatten());
    tables.filter(|table| table["name"] == "waiting").filter_map(|table| table["entries"].as_u64()).sum()
}
