//! What a detector says.

use std::net::IpAddr;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{AlertId, EventId, EventTime, ExecId, InetSocket, Severity};
use crate::subject::Subject;

/// How sure the rule is that it saw what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Confidence {
    /// Often benign; worth something only with other evidence.
    #[n(0)]
    Low,
    /// Usually right.
    #[n(1)]
    Medium,
    /// Right unless the exception list lacks an entry.
    #[n(2)]
    High,
}

/// Life of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Status {
    /// Nobody has dealt with it.
    #[n(0)]
    Open,
    /// Somebody has closed it.
    #[n(1)]
    Closed,
}

/// One MITRE ATT&CK reference.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Attack {
    /// Tactic id, such as `TA0002`.
    #[n(0)]
    pub tactic: String,
    /// Technique or sub-technique id, such as `T1059.004`.
    #[n(1)]
    pub technique: String,
}

/// Something that the alert is about.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entity {
    /// A process image.
    #[n(0)]
    Process {
        /// Its id.
        #[n(0)]
        exec_id: ExecId,
        /// Its pid.
        #[n(1)]
        pid: u32,
    },
    /// A connection.
    #[n(1)]
    Socket {
        /// Both ends.
        #[n(0)]
        socket: InetSocket,
    },
    /// A user of this host.
    #[n(2)]
    User {
        /// User id.
        #[n(0)]
        uid: u32,
        /// Name, if the host has one for it.
        #[n(1)]
        name: Option<String>,
    },
    /// A container.
    #[n(3)]
    Container {
        /// Container id.
        #[n(0)]
        id: String,
    },
    /// A host on the network.
    #[n(4)]
    Host {
        /// Its address.
        #[n(0)]
        ip: IpAddr,
    },
    /// An account by the name that a client gave; it need not exist.
    #[n(5)]
    Account {
        /// User name.
        #[n(0)]
        name: String,
    },
}

/// One process in a lineage.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct LineageEntry {
    /// The image's id.
    #[n(0)]
    pub exec_id: ExecId,
    /// Its pid.
    #[n(1)]
    pub pid: u32,
    /// `comm`.
    #[n(2)]
    pub name: String,
    /// Resolved path of the executed file.
    #[n(3)]
    pub exe: Option<String>,
    /// Argument vector.
    #[n(4)]
    pub argv: Vec<String>,
    /// Real user id.
    #[n(5)]
    pub uid: u32,
    /// User name.
    #[n(6)]
    pub user: Option<String>,
    /// Controlling terminal.
    #[n(7)]
    pub tty: Option<String>,
    /// It had ended when the alert was raised.
    #[n(8)]
    pub exited: bool,
    /// Known only from `/proc`, not from the kernel's own words.
    #[n(9)]
    pub approximate: bool,
}

/// A detection.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Alert {
    /// Deterministic: the same detector, rule and entity give the same id, live or replayed.
    #[n(0)]
    pub id: AlertId,
    /// 1 for the first; folding more evidence in makes the next.
    #[n(1)]
    pub revision: u32,
    /// Time of the event that triggered it.
    #[n(2)]
    pub time: EventTime,
    /// Host name.
    #[n(3)]
    pub host: String,
    /// Module, such as `runtime_watcher`.
    #[n(4)]
    pub detector: String,
    /// Rule with its module, such as `runtime_watcher.reverse_shell`.
    #[n(5)]
    pub rule: String,
    /// One line for a list.
    #[n(6)]
    pub title: String,
    /// How much to care.
    #[n(7)]
    pub severity: Severity,
    /// How sure the rule is.
    #[n(8)]
    pub confidence: Confidence,
    /// ATT&CK references.
    #[n(9)]
    pub attack: Vec<Attack>,
    /// What it is about.
    #[n(10)]
    pub entities: Vec<Entity>,
    /// Ids of the events that prove it, the trigger first.
    #[n(11)]
    pub evidence: Vec<EventId>,
    /// Sequence of the trigger in EVENTS.
    #[n(12)]
    pub trigger_seq: u64,
    /// The process first, then its ancestors up to the oldest known.
    #[n(13)]
    pub lineage: Vec<LineageEntry>,
    /// Why this is an alert, in a sentence or two that name the evidence.
    #[n(14)]
    pub explanation: String,
    /// What a responder does next.
    #[n(15)]
    pub next_steps: Vec<String>,
    /// Open or closed.
    #[n(16)]
    pub status: Status,
    /// The login that it happened in or that it is about: [`Auth::login`](super::Auth::login).
    #[n(17)]
    pub login: Option<EventId>,
}

impl Alert {
    /// Bus subject: `sec.alerts.<severity>.<detector>`.
    pub fn subject(&self) -> Subject {
        Subject::alert(self.severity, &self.detector)
    }

    /// `Nats-Msg-Id` on any bus: id and revision, so a replay cannot duplicate and an update is not swallowed.
    pub fn msg_id(&self) -> String {
        format!("{}/{}", self.id, self.revision)
    }
}

/// JSON rendering of an alert; `seq` is its sequence in the ALERTS stream.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AlertJson<'a> {
    id: AlertId,
    revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    time: String,
    host: &'a str,
    detector: &'a str,
    rule: &'a str,
    title: &'a str,
    severity: Severity,
    confidence: Confidence,
    attack: &'a [Attack],
    entities: &'a [Entity],
    evidence: &'a [EventId],
    trigger_seq: u64,
    lineage: &'a [LineageEntry],
    explanation: &'a str,
    next_steps: &'a [String],
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<EventId>,
}

impl<'a> AlertJson<'a> {
    /// Renders `alert`.
    pub fn new(alert: &'a Alert, seq: Option<u64>) -> Self {
        let Alert {
            id,
            revision,
            time,
            host,
            detector,
            rule,
            title,
            severity,
            confidence,
            attack,
            entities,
            evidence,
            trigger_seq,
            lineage,
            explanation,
            next_steps,
            status,
            login,
        } = alert;
        Self {
            id: *id,
            revision: *revision,
            seq,
            time: time.to_rfc3339(),
            host,
            detector,
            rule,
            title,
            severity: *severity,
            confidence: *confidence,
            attack,
            entities,
            evidence,
            trigger_seq: *trigger_seq,
            lineage,
            explanation,
            next_steps,
            status: *status,
            login: *login,
        }
    }
}
