//! Numbers for Prometheus: what `bartizan status` knows, as OpenMetrics text over HTTP.
//!
//! Invariants worth naming:
//!
//! - **A scrape reads, and costs little**: it is a function of one report; nothing is counted for its sake.
//! - **Names follow Prometheus**: `bartizan_`, base units (seconds, bytes), `_total` on what only grows, labels with few values.
//!   A label is never a pid, an address of a client or a subject.
//! - **What makes `status` say degraded has a number here**, at least in `bartizan_degraded_reasons`.

mod edge;
mod sensor;
mod serve;

use std::fmt;

use bartizan_bus::edge::EdgeStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::status::StatusReport;
pub(crate) use serve::{bind, serve};

/// What a scrape tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    /// Of the sensor; `None` where there is none (`bartizan bus serve`).
    pub(crate) report: Option<StatusReport>,
    /// Of the service for NATS clients; `None` where it is off or failed.
    pub(crate) edge: Option<EdgeStats>,
}

impl Numbers {
    /// As OpenMetrics text.
    ///
    /// # Errors
    /// The encoder's, which writes into memory and has none in practice.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut families = self.report.as_ref().map(sensor::families).unwrap_or_default();
        families.extend(self.edge.iter().flat_map(edge::families));
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(Families(families)));
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// One metric with all its label values.
#[derive(Debug)]
struct Family {
    /// Without `_total` and the unit.
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    grows: bool,
    rows: Vec<(Labels, Number)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl Number {
    fn encode(self, grows: bool, row: &mut MetricEncoder<'_>) -> fmt::Result {
        match (grows, self) {
            (true, Self::Whole(number)) => row.encode_counter::<NoLabelSet, _, u64>(&number, None),
            (true, Self::Real(number)) => row.encode_counter::<NoLabelSet, _, u64>(&number, None),
            (false, Self::Whole(number)) => row.encode_gauge(&number),
            (false, Self::Real(number)) => row.encode_gauge(&number),
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Family {
    /// What goes up and down.
    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, unit: None, grows: false, rows: Vec::new() }
    }

    /// What only grows, from the start of the process.
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { grows: true, ..Self::gauge(name, help) }
    }

    fn in_bytes(self) -> Self {
        Self { unit: Some(Unit::Bytes), ..self }
    }

    fn in_seconds(self) -> Self {
        Self { unit: Some(Unit::Seconds), ..self }
    }

    /// Without labels.
    fn of(mut self, number: impl Into<Number>) -> Self {
        self.rows.push((Vec::new(), number.into()));
        self
    }

    /// A row for each item.
    fn each<T, N: Into<Number>, const L: usize>(
        mut self,
        items: impl IntoIterator<Item = T>,
        row: impl Fn(&T) -> ([(&'static str, &str); L], N),
    ) -> Self {
        for item in items {
            let (labels, number) = row(&item);
            self.rows.push((labels.map(|(name, value)| (name, value.to_owned())).into(), number.into()));
        }
        self
    }
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, unit, grows, rows } in &self.0 {
            let kind = if *grows { MetricType::Counter } else { MetricType::Gauge };
            let name = format!("bartizan_{name}");
            let mut family = encoder.encode_descriptor(&name, help, unit.as_ref(), kind)?;
            for (labels, number) in rows {
                if labels.is_empty() {
                    number.encode(*grows, &mut family)?;
                } else {
                    number.encode(*grows, &mut family.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_make_a_line() {
        let family = Family::counter("odd", "An odd one").each(["a\"b\nbartizan_fake 1\\"], |name| ([("name", *name)], 1));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Families(vec![family])));
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        assert!(text.contains("bartizan_odd_total{name=\"a\\\"b\\nbartizan_fake 1\\\\\"} 1\n"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn a_scrape_of_nothing_is_whole() {
        assert_eq!(Numbers::default().text().as_deref(), Ok("# EOF\n"));
    }
}
