//! From the kernel to the bus, as the sensor itself counts it: the kernel's stamp of a record beside the clock when its event was appended.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::goal::Goal;
use super::stats::summary;

/// Of a ring, ms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Arrival {
    events: u64,
    p50: f64,
    p99: f64,
    longest: f64,
}

/// Of both rings.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arrivals(BTreeMap<String, Arrival>);

impl Arrivals {
    /// Reads `bartizan status --json`.
    pub(super) fn from_status(report: &Value) -> Self {
        let ms = |value: &Value| value.as_u64().unwrap_or_default() as f64 / 1000.0;
        let arrival = |of: &Value| Arrival {
            events: of["events"].as_u64().unwrap_or_default(),
            p50: ms(&of["p50_us"]),
            p99: ms(&of["p99_us"]),
            longest: ms(&of["longest_us"]),
        };
        let rings = report["kernel_to_bus"].as_object().into_iter().flatten();
        Self(rings.map(|(ring, of)| (ring.clone(), arrival(of))).collect())
    }

    /// A table, a row for each ring.
    pub(super) fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "| ring | events | p50, ms | p99, ms | longest, ms |\n|---|--:|--:|--:|--:|")?;
        for (ring, Arrival { events, p50, p99, longest }) in &self.0 {
            let records = match ring.as_str() {
                "priority" => "priority (processes, logins)",
                "bulk" => "bulk (network, failed execs)",
                other => other,
            };
            writeln!(text, "| {records} | {events} | {p50:.2} | {p99:.2} | {longest:.2} |")?;
        }
        Ok(())
    }

    /// What is wanted of each ring; `when` says under which load.
    pub(super) fn goals(&self, when: &str) -> Vec<Goal> {
        let goal = |(ring, arrival): (&String, &Arrival)| Goal {
            what: format!("kernel to bus, p99, {ring} ring{when}"),
            most: 2.0,
            unit: "ms",
            digits: 2,
            measured: summary((arrival.events > 0).then_some(arrival.p99)),
            falco: "",
        };
        self.0.iter().map(goal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ring_has_a_row_and_a_goal() {
        let ring = |events: u64, p99: u64| serde_json::json!({"events": events, "p50_us": 250, "p99_us": p99, "longest_us": 70_000});
        let report = serde_json::json!({"kernel_to_bus": {"priority": ring(10, 1900), "bulk": ring(0, 0)}});
        let arrivals = Arrivals::from_status(&report);
        let mut table = String::new();
        assert!(arrivals.write(&mut table).is_ok());
        assert!(table.contains("| priority (processes, logins) | 10 | 0.25 | 1.90 | 70.00 |"), "{table}");
        let goals = arrivals.goals(" under load");
        let measured = |what: &str| goals.iter().find(|goal| goal.what == what).map(|goal| goal.measured.map(|summary| summary.median));
        assert_eq!(measured("kernel to bus, p99, priority ring under load"), Some(Some(1.9)));
        assert_eq!(measured("kernel to bus, p99, bulk ring under load"), Some(None), "nothing came, so nothing is met");
        assert_eq!(Arrivals::from_status(&Value::Null), Arrivals::default());
    }
}
