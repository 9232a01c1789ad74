//! What is kept of an alert, all its revisions in one, and the bounded table of them.

use std::collections::BTreeMap;

use bartizan_bus::event::{Alert, AlertId, Attack, Confidence, Entity, EventId, EventTime, ExecId};

use crate::detector::TableInfo;

/// Most entities kept of one alert.
const MAX_ENTITIES: usize = 64;
/// Most owners kept of one alert: one for each of its first revisions.
const MAX_OWNERS: usize = 4;

/// An alert as far as patterns go: what its revisions say together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) alert: AlertId,
    pub(super) rule: String,
    pub(super) host: String,
    /// Of the newest revision.
    pub(super) title: String,
    pub(super) revision: u32,
    /// Sequence of the newest revision in ALERTS.
    pub(super) alert_seq: u64,
    /// Sequence in EVENTS at which it was triggered first.
    pub(super) trigger_seq: u64,
    /// Time of the oldest revision seen.
    pub(super) first: EventTime,
    first_revision: u32,
    /// Unix time of the newest revision, nanoseconds.
    pub(super) last_wall_ns: i64,
    pub(super) confidence: Confidence,
    pub(super) attack: Vec<Attack>,
    pub(super) entities: Vec<Entity>,
    pub(super) login: Option<EventId>,
    /// The process that each revision is about.
    pub(super) owners: Vec<ExecId>,
    /// That process and its ancestors, of the newest revision.
    pub(super) lineage: Vec<ExecId>,
    stamp: u64,
}

impl Seen {
    pub(super) fn new(alert: &Alert, alert_seq: u64) -> Self {
        let lineage: Vec<ExecId> = alert.lineage.iter().map(|entry| entry.exec_id).collect();
        Self {
            alert: alert.id,
            rule: alert.rule.clone(),
            host: alert.host.clone(),
            title: alert.title.clone(),
            revision: alert.revision,
            alert_seq,
            // A later revision says that the first was triggered before it.
            trigger_seq: if alert.revision <= 1 { alert.trigger_seq } else { alert.trigger_seq.saturating_sub(1) },
            first: alert.time,
            first_revision: alert.revision,
            last_wall_ns: alert.time.wall_ns,
            confidence: alert.confidence,
            attack: alert.attack.clone(),
            entities: alert.entities.iter().take(MAX_ENTITIES).cloned().collect(),
            login: alert.login,
            owners: lineage.first().copied().into_iter().collect(),
            lineage,
            stamp: 0,
        }
    }

    /// Takes another revision of the same alert in.
    fn merge(&mut self, other: Self) {
        let newer = other.revision >= self.revision;
        let (old, new) = if newer { (&*self, &other) } else { (&other, &*self) };
        let mut entities = new.entities.clone();
        entities.extend(old.entities.iter().filter(|entity| !new.entities.contains(entity)).cloned());
        entities.truncate(MAX_ENTITIES);
        let mut owners = self.owners.clone();
        owners.extend(other.owners.iter().filter(|owner| !self.owners.contains(owner)));
        owners.truncate(MAX_OWNERS);
        let first = if other.first_revision < self.first_revision { &other } else { &*self };
        let (first, first_revision) = (first.first, first.first_revision);
        let (trigger_seq, stamp) = (self.trigger_seq.min(other.trigger_seq), self.stamp);
        let last_wall_ns = self.last_wall_ns.max(other.last_wall_ns);
        let login = new.login.or(old.login);
        if newer {
            *self = other;
        }
        (self.entities, self.owners, self.first, self.first_revision) = (entities, owners, first, first_revision);
        (self.trigger_seq, self.stamp, self.last_wall_ns, self.login) = (trigger_seq, stamp, last_wall_ns, login);
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &str> {
        self.entities.iter().filter_map(|entity| match entity {
            Entity::Account { name } => Some(name.as_str()),
            _ => None,
        })
    }
}

/// The alerts that can be one step of one pattern.
#[derive(Debug, Default)]
pub(super) struct SeenTable {
    seen: BTreeMap<AlertId, Seen>,
    order: BTreeMap<u64, AlertId>,
    stamp: u64,
    newest_ns: i64,
    evicted: u64,
}

impl SeenTable {
    /// Takes an alert, or another revision of one. What is more than `window_ns` older than the newest goes, then the oldest until
    /// there are at most `max`.
    pub(super) fn add(&mut self, seen: Seen, window_ns: u64, max: usize) {
        let id = seen.alert;
        self.newest_ns = self.newest_ns.max(seen.last_wall_ns);
        self.stamp += 1;
        match self.seen.get_mut(&id) {
            Some(known) => {
                self.order.remove(&known.stamp);
                known.merge(seen);
                known.stamp = self.stamp;
            }
            None => {
                self.seen.insert(id, Seen { stamp: self.stamp, ..seen });
            }
        }
        self.order.insert(self.stamp, id);
        let oldest = self.newest_ns.saturating_sub(i64::try_from(window_ns).unwrap_or(i64::MAX));
        let Self { seen, order, evicted, .. } = self;
        seen.retain(|_, known| {
            let keep = known.last_wall_ns >= oldest;
            if !keep {
                order.remove(&known.stamp);
            }
            keep
        });
        while seen.len() > max {
            let Some((_, id)) = order.pop_first() else { return };
            seen.remove(&id);
            *evicted += 1;
        }
    }

    pub(super) fn get(&self, id: &AlertId) -> Option<&Seen> {
        self.seen.get(id)
    }

    /// All, by what triggered them.
    pub(super) fn in_order(&self) -> Vec<&Seen> {
        let mut all: Vec<&Seen> = self.seen.values().collect();
        all.sort_by_key(|seen| (seen.trigger_seq, seen.alert));
        all
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn table(&self, name: &'static str, bound: usize) -> TableInfo {
        TableInfo { name, entries: self.len(), bound, evicted: self.evicted }
    }
}
