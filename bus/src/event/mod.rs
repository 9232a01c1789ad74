//! The schema of everything that travels on the bus: [`SecurityEvent`], [`Alert`], [`PatternMatch`] and the types they are made of.
//!
//! Invariants worth naming:
//!
//! - **One typed body per kind.** [`Body`] is the only list of event kinds that readers see; kind names, subjects and
//!   severities are derived from it, and every `match` on it is exhaustive.
//! - **The stored encoding evolves by index.** Records are CBOR maps keyed by the `#[n(..)]` numbers. A number is never
//!   reused and never changes its type; a new field is `Option` or has `#[cbor(default)]`, so that a reader of
//!   version n reads all records before it, and an older reader skips what it does not know.
//! - **A field the sensor could not fill is `None`**, never a guess and never a placeholder string.
//! - **Nothing here does I/O or reads a clock.**

mod access;
mod account;
mod alert;
mod auth;
mod body;
mod bpf;
mod capabilities;
mod codec;
mod container;
mod credentials;
mod disguise;
mod exe_hash;
mod file;
mod flow;
mod hardening;
mod ids;
mod inbound;
mod io_uring;
mod isolation;
mod memory;
mod module;
mod pattern_match;
mod peer;
mod process;
pub mod shared;
mod signal;
mod sysctl;
mod wire;

pub use access::{Access, AccessHow};
pub use account::{AccountAction, AccountChange, AccountField, AccountFile};
pub use alert::{Alert, AlertJson, Attack, Confidence, Entity, LineageEntry, Status};
pub use auth::{Auth, AuthSource};
pub use body::{
    Body, Connect, Errno, Exec, Exit, Fork, Gap, Heartbeat, InetSocket, KindDescription, KindLoss, Loss, Relay, Seed, Start, Stdio,
    StdioEnd, Stop, Transport,
};
pub use bpf::{BpfAttach, BpfProgram, BpfSocket, BpfWay, PerfEvent};
pub use capabilities::{Capabilities, CapabilitySets};
pub use codec::{CodecError, SCHEMA_VERSION, decode_alert, decode_event, decode_match, encode_alert, encode_event, encode_match};
pub use container::{ContainerInfo, Pod, ProcessNamespaces};
pub use credentials::{Credentials, Groups, Ids};
pub use disguise::{Prctl, Rename};
pub use exe_hash::{ExeHash, NotHashed};
pub use file::{Change, File, FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileWrite, FileXattr, Mount, Umount};
pub use flow::{Bind, Direction, FlowEnd, RawSocket};
pub use hardening::{Health, Helper, KernelProbe, Lockdown, LockdownAct, ProbeAct};
pub use ids::{AlertId, BootId, EventId, ExecId, MatchId, NS_PER_TICK, ParseIdError};
pub use inbound::{Accept, Listen, PROBE_PORTS, Probe, SYN_PORTS, Syn};
pub use io_uring::{IoUring, IoUringOp};
pub use isolation::{CgroupMove, Chroot, NamespaceChange, NamespaceKind, Namespaces, Seccomp, SeccompMode};
pub use memory::{Memfd, MemoryExec};
pub use module::{Kexec, KexecAct, Module, ModuleAct};
pub use pattern_match::{MatchStep, PatternMatch, PatternMatchJson};
pub use peer::{UnixConnect, VsockAccept, VsockConnect, VsockSocket};
use process::Threaded;
pub use process::{Cgroup, ExeFile, Process};
pub use signal::{Signal, SignalResult};
pub use sysctl::Sysctl;
pub use wire::{Dns, DnsAnswer, DnsQuestion, Http, Ssh, Tls, TlsSide, UdpFlow};

use std::sync::Arc;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use crate::subject::Subject;

/// When something happened, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(map)]
pub struct EventTime {
    /// `CLOCK_BOOTTIME` in nanoseconds: the kernel's own stamp. Orders events of one boot; never steps.
    #[n(0)]
    pub boot_ns: u64,
    /// Unix time in nanoseconds (UTC): `boot_ns` plus the wall offset that was in force when the record was read.
    #[n(1)]
    pub wall_ns: i64,
}

impl EventTime {
    /// RFC 3339 in UTC with nanoseconds, the form every JSON rendering uses.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_nanosecond(i128::from(self.wall_ns)) {
            Ok(timestamp) => format!("{timestamp:.9}"),
            Err(_) => format!("out-of-range:{}", self.wall_ns),
        }
    }
}

/// How much an operator should care. Ordered: `Info < Low < Medium < High < Critical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, JsonSchema, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Severity {
    /// Telemetry.
    #[default]
    #[n(0)]
    Info,
    /// Worth knowing when looking.
    #[n(1)]
    Low,
    /// Worth looking at today.
    #[n(2)]
    Medium,
    /// Worth looking at now.
    #[n(3)]
    High,
    /// Wake somebody.
    #[n(4)]
    Critical,
}

impl Severity {
    /// Lower-case name, as in subjects and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether the observed action succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Outcome {
    /// The action succeeded.
    #[n(0)]
    Success,
    /// The action failed; the body says with which errno.
    #[n(1)]
    Failure,
    /// Not known, or the question does not apply.
    #[default]
    #[n(2)]
    Unknown,
}

/// One thing that happened on this host, as the kernel (or the sensor itself) saw it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct SecurityEvent {
    /// Unique for ever; the same kernel record always gives the same id.
    #[n(0)]
    pub id: EventId,
    /// When it happened.
    #[n(1)]
    pub time: EventTime,
    /// Host name at the time of the event.
    #[n(2)]
    #[cbor(with = "shared::text")]
    pub host: Arc<str>,
    /// Severity of the event itself, before any detector: telemetry is `Info`, loss is higher.
    #[n(3)]
    pub severity: Severity,
    /// Whether the action succeeded.
    #[n(4)]
    pub outcome: Outcome,
    /// The process that acted; shared by the events of one that does not change. `None` only where `no_subject` says why.
    #[n(5)]
    #[cbor(with = "shared", has_nil)]
    pub process: Option<Arc<Process>>,
    /// Why there is no acting process ("sensor", "softirq", ...).
    #[n(6)]
    pub no_subject: Option<String>,
    /// What happened.
    #[n(7)]
    pub body: Body,
    /// The process that it was done to, where it was done to one: who gets a signal, whose memory is written.
    #[n(8)]
    pub target: Option<Process>,
    /// Thread of `process` that acted, where it was not the first one, whose number is the process's. In JSON it is `process.tid`.
    /// Records of schema version 1 had it elsewhere and are read without it.
    #[n(9)]
    pub tid: Option<u32>,
    /// The same of `target`: who gets a signal that is for one thread.
    #[n(10)]
    pub target_tid: Option<u32>,
}

impl SecurityEvent {
    /// The kind's name, such as `process.exec`.
    pub fn kind(&self) -> &'static str {
        self.body.kind()
    }

    /// Bus subject: `sec.events.<category>.<action>`.
    pub fn subject(&self) -> Subject {
        Subject::event(self.body.kind())
    }
}

/// JSON rendering of a stored event: the event's fields, its kind and its stream sequence in one object.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventJson<'a> {
    /// Unique for ever; the same kernel record always gives the same id.
    id: EventId,
    /// Sequence in the EVENTS stream, when the event was read from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// RFC 3339, UTC, nanoseconds.
    time: String,
    /// `CLOCK_BOOTTIME` in nanoseconds: orders events of one boot.
    boot_ns: u64,
    /// Host name at the time of the event.
    host: &'a str,
    /// What happened: one of the kinds below.
    kind: &'static str,
    /// Severity of the event itself, before any detector.
    severity: Severity,
    /// Whether the action succeeded.
    outcome: Outcome,
    /// The process that acted.
    #[schemars(with = "Option<Process>")]
    process: Option<Threaded<'a>>,
    /// Why there is no acting process.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_subject: Option<&'a str>,
    /// The process that it was done to, where it was done to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Process>")]
    target: Option<Threaded<'a>>,
    /// The fields of the kind.
    body: &'a Body,
}

impl<'a> EventJson<'a> {
    /// Renders `event`; `seq` is its sequence in the EVENTS stream.
    pub fn new(event: &'a SecurityEvent, seq: Option<u64>) -> Self {
        let SecurityEvent { id, time, host, severity, outcome, process, no_subject, body, target, tid, target_tid } = event;
        Self {
            id: *id,
            seq,
            time: time.to_rfc3339(),
            boot_ns: time.boot_ns,
            host,
            kind: body.kind(),
            severity: *severity,
            outcome: *outcome,
            process: process.as_deref().map(|process| Threaded { process, tid: *tid }),
            no_subject: no_subject.as_deref(),
            target: target.as_ref().map(|process| Threaded { process, tid: *target_tid }),
            body,
        }
    }
}
