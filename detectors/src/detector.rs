//! The [`Detector`] trait, and what a detector says: [`Finding`]s, which become [`Alert`]s.

use std::collections::BTreeMap;

use bartizan_bus::event::{
    Alert, AlertId, Attack, Body, BootId, Confidence, Entity, EventId, ExecId, LineageEntry, SecurityEvent, Severity, Status,
};
use minicbor::{Decode, Encode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::lineage::Lineage;

/// Names one process whatever image it runs, and however exactly its start time is known: equal for the kernel's own
/// word and for a process that was seeded from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct ProcessKey {
    /// Boot that the process lives in.
    #[n(0)]
    pub boot: BootId,
    /// Thread-group id in the initial pid namespace.
    #[n(1)]
    pub pid: u32,
    /// Start time in `/proc` ticks of 10 ms.
    #[n(2)]
    pub start_ticks: u64,
}

impl From<&ExecId> for ProcessKey {
    fn from(id: &ExecId) -> Self {
        Self { boot: id.boot, pid: id.pid, start_ticks: id.start_ticks() }
    }
}

/// What an alert is about, as bytes: with detector and rule it makes the alert's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey(Vec<u8>);

impl EntityKey {
    /// A process, whichever image it runs.
    pub fn process(key: &ProcessKey) -> Self {
        let ProcessKey { boot, pid, start_ticks } = key;
        let mut bytes = Vec::with_capacity(20);
        bytes.extend_from_slice(&boot.0.to_be_bytes());
        bytes.extend_from_slice(&pid.to_be_bytes());
        bytes.extend_from_slice(&start_ticks.to_be_bytes());
        Self(bytes)
    }

    /// Whatever these parts name together. Each is preceded by its length, so that one part's end is not another's begin.
    pub fn parts(parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Self(bytes)
    }
}

/// Id of the alert that `rule` of `detector` raises about `entity`: the first 16 bytes of SHA-256 over the three, each
/// preceded by its length.
pub fn alert_id(detector: &str, rule: &str, entity: &EntityKey) -> AlertId {
    AlertId(digest(&[detector.as_bytes(), rule.as_bytes(), &entity.0]))
}

/// The first 16 bytes of SHA-256 over the parts, each preceded by its length.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let whole = hash.finalize();
    let mut digest = [0; 16];
    digest.copy_from_slice(&whole[..16]);
    digest
}

/// One rule of a detector.
#[derive(Debug, Clone, Serialize)]
pub struct RuleDescription {
    /// Rule with its module, such as `runtime_watcher.reverse_shell`.
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
    /// ATT&CK tactic and technique ids that its alerts may carry.
    pub attack: &'static [(&'static str, &'static str)],
    /// Highest severity of its alerts.
    pub severity: Severity,
    /// Names of its settings, below `detectors.<module>.<rule>`.
    pub knobs: &'static [&'static str],
}

/// What a detector is.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    /// Module id, such as `runtime_watcher`.
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
    /// Its rules.
    pub rules: Vec<RuleDescription>,
    /// Kinds of events that it reads; the engine hands it no others.
    pub kinds: &'static [&'static str],
}

/// One bounded table of a detector's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableInfo {
    /// What it holds.
    pub name: &'static str,
    /// Entries now.
    pub entries: usize,
    /// Most entries that it may hold.
    pub bound: usize,
    /// Entries that made room for others since the state began.
    pub evicted: u64,
}

/// Size of a detector's state, and what it counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StateInfo {
    /// Every bounded table.
    pub tables: Vec<TableInfo>,
    /// What was folded, sanctioned, cut short: by name.
    pub counters: BTreeMap<&'static str, u64>,
}

/// What an observation may look at besides the event.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Sequence of the event in EVENTS.
    pub seq: u64,
    /// The processes of this host; the event is already in it.
    pub lineage: &'a Lineage,
}

/// Saved state that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the saved state of {what} cannot be read: {reason}; it is rebuilt from the stored events instead")]
pub struct RestoreError {
    /// Whose state.
    pub what: &'static str,
    /// Why.
    pub reason: String,
}

impl RestoreError {
    /// From a CBOR decoding error.
    pub(crate) fn cbor(what: &'static str) -> impl FnOnce(minicbor::decode::Error) -> Self {
        move |error| Self { what, reason: error.to_string() }
    }
}

/// Turns events into findings. Plain state machine: no I/O, no clock; the same events give the same findings.
pub trait Detector: Send {
    /// What it is.
    fn describe(&self) -> Description;

    /// Takes one event of a kind that it reads.
    fn observe(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings);

    /// Event time moved on though nothing may have happened: called for each recorded `sensor.heartbeat`.
    fn tick(&mut self, _event: &SecurityEvent, _context: &Context<'_>, _out: &mut Findings) {}

    /// Size of its state.
    fn state(&self) -> StateInfo;

    /// The whole state, for [`restore`](Self::restore).
    fn save(&self) -> Vec<u8>;

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`RestoreError`] when `bytes` are not what this version saves; the state is then unchanged.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;
}

/// One thing that a rule found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Rule with its module.
    pub rule: &'static str,
    /// What it is about; with the rule, the alert's identity.
    pub entity: EntityKey,
    /// 1 for the first finding about `entity`.
    pub revision: u32,
    /// One line for a list.
    pub title: String,
    /// How much to care.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// ATT&CK references.
    pub attack: Vec<Attack>,
    /// Things it is about.
    pub entities: Vec<Entity>,
    /// Ids of the events that prove it, the trigger first.
    pub evidence: Vec<EventId>,
    /// The process it is about; `None` where there is none (packets that reach no program). Its ancestors are looked up when the
    /// alert is made; this entry stands for the process itself when the lineage table no longer has it.
    pub process: Option<LineageEntry>,
    /// The login it is about, where that is not the one that the process belongs to.
    pub login: Option<EventId>,
    /// Why, naming the evidence.
    pub explanation: String,
    /// What a responder does next.
    pub next_steps: Vec<String>,
}

impl Finding {
    /// The alert that this finding is, raised by `event`.
    pub fn into_alert(self, detector: &str, event: &SecurityEvent, context: &Context<'_>) -> Alert {
        let Self {
            rule,
            entity,
            revision,
            title,
            severity,
            confidence,
            attack,
            entities,
            evidence,
            process,
            login,
            explanation,
            next_steps,
        } = self;
        let of_process = process.as_ref().and_then(|process| context.lineage.get(&process.exec_id)?.process.login);
        let mut lineage = process.as_ref().map(|process| context.lineage.chain(&process.exec_id)).unwrap_or_default();
        if lineage.is_empty() {
            lineage.extend(process);
        }
        Alert {
            id: alert_id(detector, rule, &entity),
            revision,
            time: event.time,
            host: event.host.as_ref().to_owned(),
            detector: detector.to_owned(),
            rule: rule.to_owned(),
            title,
            severity,
            confidence,
            attack,
            entities,
            evidence,
            trigger_seq: context.seq,
            lineage,
            explanation,
            next_steps,
            status: Status::Open,
            login: login.or(of_process),
        }
    }
}

/// Where detectors put what they find.
#[derive(Debug, Default)]
pub struct Findings {
    found: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    /// Takes all that are there.
    pub fn take(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.found)
    }
}

/// Whether `event` carries event time forward for [`Detector::tick`].
pub(crate) fn is_tick(event: &SecurityEvent) -> bool {
    matches!(event.body, Body::Heartbeat(_))
}

/// Hands `event` to `detector`, which this is the description of, and makes alerts of what it finds.
pub fn step(detector: &mut dyn Detector, description: &Description, event: &SecurityEvent, context: &Context<'_>) -> Vec<Alert> {
    let mut out = Findings::default();
    if description.kinds.contains(&event.kind()) {
        detector.observe(event, context, &mut out);
    }
    if is_tick(event) {
        detector.tick(event, context, &mut out);
    }
    out.take().into_iter().map(|finding| finding.into_alert(description.id, event, context)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(start_ns: u64) -> ExecId {
        ExecId { boot: BootId(7), start_ns, pid: 42, exec: 3 }
    }

    #[test]
    fn alert_id_is_the_same_for_exact_and_seeded_start_times_and_any_image() {
        let exact = EntityKey::process(&ProcessKey::from(&id(1_234_567_890)));
        let seeded = EntityKey::process(&ProcessKey::from(&ExecId { exec: 0, ..id(1_230_000_000) }));
        assert_eq!(alert_id("d", "d.r", &exact), alert_id("d", "d.r", &seeded));
        let later = EntityKey::process(&ProcessKey::from(&id(1_240_000_000)));
        assert_ne!(alert_id("d", "d.r", &exact), alert_id("d", "d.r", &later));
    }

    #[test]
    fn alert_id_does_not_confuse_where_one_part_ends() {
        let entity = EntityKey(vec![1]);
        assert_ne!(alert_id("ab", "c", &entity), alert_id("a", "bc", &entity));
    }
}
