//! What correlation says: several alerts that make one story.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{AlertId, Attack, Confidence, Entity, EventId, EventTime, MatchId, Severity};
use crate::subject::Subject;

/// One alert in its place in a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MatchStep {
    /// The step's name in the pattern, such as `success`.
    #[n(0)]
    pub name: String,
    /// The alert.
    #[n(1)]
    pub alert: AlertId,
    /// Its newest revision when the match was found.
    #[n(2)]
    pub revision: u32,
    /// Sequence of that revision in ALERTS.
    #[n(3)]
    pub alert_seq: u64,
    /// Sequence in EVENTS of what first triggered it: what the steps are ordered by. Where only later revisions are still stored,
    /// the last sequence at which that can have been.
    #[n(4)]
    pub trigger_seq: u64,
    /// Time of the alert's first revision that was seen.
    #[n(5)]
    pub time: EventTime,
    /// The alert's rule.
    #[n(6)]
    pub rule: String,
    /// The alert's title.
    #[n(7)]
    pub title: String,
}

/// Alerts that, in this order and joined in this way, mean more than each alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PatternMatch {
    /// Deterministic: the same pattern and login give the same id, live or replayed.
    #[n(0)]
    pub id: MatchId,
    /// 1 for the first.
    #[n(1)]
    pub revision: u32,
    /// Time of the last step.
    #[n(2)]
    pub time: EventTime,
    /// Host name.
    #[n(3)]
    pub host: String,
    /// The pattern, such as `correlate.brute_force_to_shell`.
    #[n(4)]
    pub pattern: String,
    /// One line for a list.
    #[n(5)]
    pub title: String,
    /// How much to care.
    #[n(6)]
    pub severity: Severity,
    /// The lowest of the steps.
    #[n(7)]
    pub confidence: Confidence,
    /// ATT&CK references of all steps, in their order.
    #[n(8)]
    pub attack: Vec<Attack>,
    /// What the steps are about.
    #[n(9)]
    pub entities: Vec<Entity>,
    /// The login that holds the steps together: [`Auth::login`](super::Auth::login).
    #[n(10)]
    pub login: Option<EventId>,
    /// The alerts, in the order of what triggered them.
    #[n(11)]
    pub steps: Vec<MatchStep>,
    /// Why this is a match, in a sentence or two.
    #[n(12)]
    pub explanation: String,
    /// What a responder does next.
    #[n(13)]
    pub next_steps: Vec<String>,
}

impl PatternMatch {
    /// Bus subject: `sec.matches.<pattern>`.
    pub fn subject(&self) -> Subject {
        Subject::pattern_match(&self.pattern)
    }

    /// `Nats-Msg-Id` on any bus: id and revision.
    pub fn msg_id(&self) -> String {
        format!("{}/{}", self.id, self.revision)
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct MatchStepJson<'a> {
    name: &'a str,
    alert: AlertId,
    revision: u32,
    alert_seq: u64,
    trigger_seq: u64,
    time: String,
    rule: &'a str,
    title: &'a str,
}

/// JSON rendering of a match; `seq` is its sequence in the MATCHES stream.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PatternMatchJson<'a> {
    id: MatchId,
    revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    time: String,
    host: &'a str,
    pattern: &'a str,
    title: &'a str,
    severity: Severity,
    confidence: Confidence,
    attack: &'a [Attack],
    entities: &'a [Entity],
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<EventId>,
    steps: Vec<MatchStepJson<'a>>,
    explanation: &'a str,
    next_steps: &'a [String],
}

impl<'a> PatternMatchJson<'a> {
    /// Renders `found`.
    pub fn new(found: &'a PatternMatch, seq: Option<u64>) -> Self {
        let PatternMatch {
            id,
            revision,
            time,
            host,
            pattern,
            title,
            severity,
            confidence,
            attack,
            entities,
            login,
            steps,
            explanation,
            next_steps,
        } = found;
        let step = |step: &'a MatchStep| {
            let MatchStep { name, alert, revision, alert_seq, trigger_seq, time, rule, title } = step;
            MatchStepJson {
                name,
                alert: *alert,
                revision: *revision,
                alert_seq: *alert_seq,
                trigger_seq: *trigger_seq,
                time: time.to_rfc3339(),
                rule,
                title,
            }
        };
        Self {
            id: *id,
            revision: *revision,
            seq,
            time: time.to_rfc3339(),
            host,
            pattern,
            title,
            severity: *severity,
            confidence: *confidence,
            attack,
            entities,
            login: *login,
            steps: steps.iter().map(step).collect(),
            explanation,
            next_steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{BootId, decode_match, encode_match};

    fn found(time: u64, words: &str, steps: usize) -> PatternMatch {
        let time = EventTime { boot_ns: time, wall_ns: 1_700_000_000_000_000_000 };
        let step = |number: usize| MatchStep {
            name: format!("step{number}"),
            alert: AlertId([7; 16]),
            revision: 2,
            alert_seq: number as u64,
            trigger_seq: 5,
            time,
            rule: "a.b".into(),
            title: words.into(),
        };
        PatternMatch {
            id: MatchId([0xcd; 16]),
            revision: 1,
            time,
            host: "host1".into(),
            pattern: "correlate.brute_force_to_shell".into(),
            title: words.into(),
            severity: Severity::Critical,
            confidence: Confidence::High,
            attack: vec![Attack { tactic: "TA0006".into(), technique: "T1110.001".into() }],
            entities: vec![Entity::Account { name: words.into() }],
            login: Some(EventId::from_kernel(BootId(1), 1, 2, 3)),
            steps: (0..steps).map(step).collect(),
            explanation: words.into(),
            next_steps: vec![words.into()],
        }
    }

    #[test]
    fn subject_and_message_id_have_their_documented_form() {
        let found = found(1, "x", 3);
        assert_eq!(found.subject().as_str(), "sec.matches.correlate.brute_force_to_shell");
        assert_eq!(found.msg_id(), "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd/1");
        let json = serde_json::to_value(PatternMatchJson::new(&found, Some(4))).expect("JSON");
        assert_eq!((&json["seq"], &json["steps"][2]["alert_seq"]), (&4.into(), &2.into()));
        assert_eq!(json["steps"][0]["time"], "2023-11-14T22:13:20.000000000Z");
    }

    proptest! {
        #[test]
        fn what_is_stored_reads_back(time in any::<u64>(), words in ".{0,20}", steps in 0usize..5) {
            let found = found(time, &words, steps);
            prop_assert_eq!(decode_match(&encode_match(&found)).expect("own bytes"), found);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_match(&bytes);
        }
    }
}
