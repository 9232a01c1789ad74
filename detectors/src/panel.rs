//! The detectors with all state that they share: what the engine runs, without any I/O.

use std::collections::BTreeMap;

use bartizan_bus::event::{Alert, SecurityEvent};

use crate::config::Config;
use crate::detector::{Context, Description, Detector, RestoreError, TableInfo, step};
use crate::lineage::Lineage;
use crate::snapshot::Snapshot;
use crate::status::DetectorStatus;

/// An alert and the detector that raised it.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// Index of the detector.
    pub detector: usize,
    /// The alert.
    pub alert: Alert,
}

/// All detectors and the lineage table.
pub struct Panel {
    lineage: Lineage,
    detectors: Vec<Seat>,
}

/// One detector.
struct Seat {
    detector: Box<dyn Detector>,
    /// As it says: asked once.
    description: Description,
    observed: u64,
}

impl Panel {
    /// With empty state.
    pub fn new(config: &Config) -> Self {
        let seat = |detector: Box<dyn Detector>| Seat { description: detector.describe(), detector, observed: 0 };
        Self { lineage: Lineage::new(config.max_processes), detectors: crate::detectors(config).into_iter().map(seat).collect() }
    }

    /// With the state of `snapshot`. A detector that the snapshot does not know starts empty.
    ///
    /// # Errors
    /// [`RestoreError`] when a part cannot be read.
    pub fn restore(config: &Config, snapshot: &Snapshot) -> Result<Self, RestoreError> {
        let mut panel = Self::new(config);
        panel.lineage = Lineage::restore(&snapshot.lineage, config.max_processes)?;
        for Seat { detector, description, .. } in &mut panel.detectors {
            if let Some(bytes) = snapshot.detectors.get(description.id) {
                detector.restore(bytes)?;
            }
        }
        Ok(panel)
    }

    /// Takes the event with this sequence of EVENTS.
    pub fn observe(&mut self, seq: u64, event: &SecurityEvent) -> Vec<Raised> {
        let Self { lineage, detectors } = self;
        lineage.observe(event);
        let context = Context { seq, lineage };
        let mut raised = Vec::new();
        for (index, Seat { detector, description, observed }) in detectors.iter_mut().enumerate() {
            // Every event counts; `step` hands on those that the detector reads.
            *observed += 1;
            raised.extend(step(detector.as_mut(), description, event, &context).into_iter().map(|alert| Raised { detector: index, alert }));
        }
        raised
    }

    /// The whole state, after the event with sequence `seq`.
    pub fn snapshot(&self, seq: u64) -> Snapshot {
        let detectors: BTreeMap<String, _> =
            self.detectors.iter().map(|seat| (seat.description.id.to_owned(), seat.detector.save().into())).collect();
        Snapshot { seq, lineage: self.lineage.save(), detectors }
    }

    /// Each detector's numbers, as far as they are known here.
    pub fn status(&self) -> Vec<DetectorStatus> {
        let seats = self.detectors.iter();
        seats
            .map(|Seat { detector, description, observed }| DetectorStatus {
                id: description.id,
                observed: *observed,
                state: detector.state(),
                ..DetectorStatus::default()
            })
            .collect()
    }

    /// How many events each detector was there for, in the order of [`Panel::status`].
    pub fn observed(&self) -> impl Iterator<Item = u64> {
        self.detectors.iter().map(|seat| seat.observed)
    }

    /// Tables that all detectors share.
    pub fn shared(&self) -> Vec<TableInfo> {
        self.lineage.tables()
    }
}
