//! Finds the patterns in a stream of alerts. Plain state machine: no I/O, no clock; the same alerts give the same matches.
//!
//! Invariants worth naming:
//!
//! - **Order is what triggered the alerts** (sequences of EVENTS), not the order in which they come: whichever of the steps comes
//!   last completes the match, and it is the same match.
//! - **One match for a pattern and a login**, however many alerts, revisions and shells it has.
//! - **A link is a fact about session, lineage, source and account together**, never an address alone ([`super::pattern`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bartizan_bus::event::{Alert, Confidence, Entity, EventId, MatchId, MatchStep, PatternMatch, Severity};

use super::config::CorrelateConfig;
use super::pattern::{PATTERNS, Pattern};
use super::seen::{Seen, SeenTable};
use crate::detector::{StateInfo, TableInfo, digest};

/// Most entities that a match names.
const MAX_ENTITIES: usize = 32;

/// Id of the match of `pattern` for `login`.
pub fn match_id(pattern: &str, login: &EventId) -> MatchId {
    MatchId(digest(&[pattern.as_bytes(), &login.0]))
}

/// The state of all patterns.
pub struct Correlator {
    config: CorrelateConfig,
    /// For each pattern its steps.
    tables: Vec<Vec<SeenTable>>,
    /// (pattern, login) of what was told.
    told: BTreeSet<(usize, EventId)>,
    told_order: VecDeque<(usize, EventId)>,
    told_evicted: u64,
    alerts: u64,
    matches: u64,
}

impl Correlator {
    /// With empty state.
    pub fn new(config: &CorrelateConfig) -> Self {
        let steps = |pattern: &Pattern| pattern.steps.iter().map(|_| SeenTable::default()).collect();
        Self {
            config: config.clone(),
            tables: PATTERNS.iter().map(steps).collect(),
            told: BTreeSet::new(),
            told_order: VecDeque::new(),
            told_evicted: 0,
            alerts: 0,
            matches: 0,
        }
    }

    /// Takes the alert with this sequence of ALERTS; gives what it completes.
    pub fn observe(&mut self, seq: u64, alert: &Alert) -> Vec<PatternMatch> {
        let mut found = Vec::new();
        for (index, pattern) in PATTERNS.iter().enumerate() {
            for (step, _) in pattern.steps.iter().enumerate().filter(|(_, step)| step.rules.contains(&alert.rule.as_str())) {
                self.alerts += 1;
                self.tables[index][step].add(Seen::new(alert, seq), self.config.window.ns(), self.config.max_alerts);
                for (login, chain) in self.complete(index, step, alert) {
                    found.push(render(pattern, &login, &chain));
                    self.remember(index, login);
                }
            }
        }
        self.matches += found.len() as u64;
        found
    }

    /// Logins that the alert completes the pattern for, each with its steps.
    fn complete(&self, index: usize, step: usize, alert: &Alert) -> BTreeMap<EventId, Vec<Seen>> {
        let (pattern, tables) = (&PATTERNS[index], &self.tables[index]);
        let Some(new) = tables[step].get(&alert.id) else { return BTreeMap::new() };
        let keys = if step == pattern.key { vec![new] } else { tables[pattern.key].in_order() };
        let mut complete = BTreeMap::new();
        for key in keys {
            let Some(login) = key.login.filter(|login| !self.told.contains(&(index, *login)) && !complete.contains_key(login)) else {
                continue;
            };
            // Most keys have nothing to do with the alert, which is soon seen where it stands beside them.
            let beside = if step + 1 == pattern.key { self.follows(pattern, pattern.key, new, key) } else { true };
            let beside = beside && (step != pattern.key + 1 || self.follows(pattern, step, key, new));
            let mut chain = VecDeque::from([key]);
            if beside && self.before(index, pattern.key, &mut chain) && self.after(index, pattern.key, &mut chain) {
                complete.insert(login, chain.into_iter().cloned().collect());
            }
        }
        complete
    }

    /// Whether `after` can be step `step` behind `before`.
    fn follows(&self, pattern: &Pattern, step: usize, before: &Seen, after: &Seen) -> bool {
        let window = i64::try_from(self.config.window.ns()).unwrap_or(i64::MAX);
        before.trigger_seq < after.trigger_seq
            && after.first.wall_ns.saturating_sub(before.last_wall_ns) <= window
            && (pattern.steps[step].link)(before, after)
    }

    /// Puts the steps before `step` in front of the chain; the earliest that fit.
    fn before<'a>(&'a self, index: usize, step: usize, chain: &mut VecDeque<&'a Seen>) -> bool {
        let (Some(previous), Some(next)) = (step.checked_sub(1), chain.front().copied()) else { return true };
        for seen in self.tables[index][previous].in_order() {
            if self.follows(&PATTERNS[index], step, seen, next) {
                chain.push_front(seen);
                if self.before(index, previous, chain) {
                    return true;
                }
                chain.pop_front();
            }
        }
        false
    }

    /// Puts the steps after `step` behind the chain; the earliest that fit.
    fn after<'a>(&'a self, index: usize, step: usize, chain: &mut VecDeque<&'a Seen>) -> bool {
        let (next, Some(last)) = (step + 1, chain.back().copied()) else { return true };
        let Some(table) = self.tables[index].get(next) else { return true };
        for seen in table.in_order() {
            if self.follows(&PATTERNS[index], next, last, seen) {
                chain.push_back(seen);
                if self.after(index, next, chain) {
                    return true;
                }
                chain.pop_back();
            }
        }
        false
    }

    fn remember(&mut self, index: usize, login: EventId) {
        self.told.insert((index, login));
        self.told_order.push_back((index, login));
        while self.told_order.len() > self.config.max_matches {
            if let Some(oldest) = self.told_order.pop_front() {
                self.told.remove(&oldest);
                self.told_evicted += 1;
            }
        }
    }

    /// Sizes and counts.
    pub fn state(&self) -> StateInfo {
        let named = PATTERNS.iter().zip(&self.tables).flat_map(|(pattern, tables)| pattern.steps.iter().zip(tables));
        let mut tables: Vec<TableInfo> = named.map(|(step, table)| table.table(step.name, self.config.max_alerts)).collect();
        let told = TableInfo { name: "told", entries: self.told.len(), bound: self.config.max_matches, evicted: self.told_evicted };
        tables.push(told);
        StateInfo { tables, counters: BTreeMap::from([("alerts", self.alerts), ("matches", self.matches)]) }
    }
}

/// The match that these alerts are.
fn render(pattern: &Pattern, login: &EventId, chain: &[Seen]) -> PatternMatch {
    let key = &chain[pattern.key];
    let confidence = chain.iter().map(|seen| seen.confidence).min().unwrap_or(Confidence::Low);
    let mut attack = Vec::new();
    let mut entities: Vec<Entity> = key.entities.clone();
    for seen in chain {
        seen.attack.iter().for_each(|reference| {
            if !attack.contains(reference) {
                attack.push(reference.clone());
            }
        });
        // Of all accounts that were tried, the one that matters is the key's.
        let more = seen.entities.iter().filter(|entity| !matches!(entity, Entity::Account { .. }));
        more.for_each(|entity| {
            if !entities.contains(entity) {
                entities.push(entity.clone());
            }
        });
    }
    entities.truncate(MAX_ENTITIES);
    let account = key.accounts().next().unwrap_or("an account");
    let source = key.entities.iter().find_map(|entity| match entity {
        Entity::Host { ip } => Some(format!(" from {ip}")),
        Entity::User { name: Some(name), .. } => Some(format!(" by {name}")),
        _ => None,
    });
    let steps: Vec<MatchStep> = pattern
        .steps
        .iter()
        .zip(chain)
        .map(|(step, seen)| MatchStep {
            name: step.name.to_owned(),
            alert: seen.alert,
            revision: seen.revision,
            alert_seq: seen.alert_seq,
            trigger_seq: seen.trigger_seq,
            time: seen.first,
            rule: seen.rule.clone(),
            title: seen.title.clone(),
        })
        .collect();
    let (time, host) = chain.last().map(|last| (last.first, last.host.clone())).unwrap_or_default();
    let names: Vec<&str> = pattern.steps.iter().map(|step| step.name).collect();
    PatternMatch {
        id: match_id(pattern.id, login),
        revision: 1,
        time,
        host,
        pattern: pattern.id.to_owned(),
        title: format!("{}: {account}{}", pattern.title, source.unwrap_or_default()),
        // Weak signals do not become certain by standing in a row.
        severity: if confidence == Confidence::Low { Severity::High } else { pattern.severity },
        confidence,
        attack,
        entities,
        login: Some(*login),
        steps,
        explanation: format!("{} happened in this order. {}", names.join(", "), pattern.joined_by),
        next_steps: pattern.next_steps.iter().map(|step| (*step).to_owned()).collect(),
    }
}
