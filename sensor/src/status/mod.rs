//! What a running Bartizan says about itself, and whether that is as good as it could be.
//!
//! Invariants worth naming:
//!
//! - **The report is plain data**: the daemon fills it, the control socket carries it, `bartizan status` judges and prints it.
//! - **Degraded is against this kernel.** What the kernel cannot do is blindness and is named; it is not a fault. What it
//!   could do and Bartizan does not (disabled, failed, lost, failing) is.

mod verdict;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use verdict::Verdict;
pub(crate) use verdict::skipped_runs;

/// Losses within this many seconds make a running sensor degraded: [`StatusReport::recent_loss`] counts them.
pub const RECENT_LOSS_SECONDS: u64 = 300;

/// The reason under which a program's row in [`StatusReport::kinds`] counts its runs that the kernel skipped. Each may have been
/// a record, or one of the many runs that make none.
pub const SKIPPED: &str = "recursion";

/// Everything `bartizan status` knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the running binary.
    pub version: String,
    /// Its pid.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Data folder.
    pub data_dir: String,
    /// Start of this run, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// Every hook Bartizan has, attached or not.
    pub hooks: Vec<HookStatus>,
    /// What cannot be seen.
    pub blind: Vec<Blind>,
    /// Received and lost records, per kind.
    pub kinds: Vec<KindCount>,
    /// Records lost in the last [`RECENT_LOSS_SECONDS`] seconds, all kinds and reasons, skipped runs among them.
    pub recent_loss: u64,
    /// Of these, the runs that the kernel skipped, by program.
    #[serde(default)]
    pub recent_skipped: BTreeMap<String, u64>,
    /// What went wrong since the start, also when it is over: a sentence each. What it cost is counted as lost, so that these
    /// alone do not degrade.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The streams of the bus.
    pub streams: Vec<StreamStatus>,
    /// How long EVENTS reaches back; `None` from a Bartizan that does not say.
    #[serde(default)]
    pub budget: Option<BudgetStatus>,
    /// The durable consumers of all streams.
    pub consumers: Vec<ConsumerStatus>,
    /// Who in the process follows a stream without a durable consumer.
    #[serde(default)]
    pub subscriptions: Vec<SubscriptionStatus>,
    /// The detectors' own status.
    pub detectors: Value,
    /// Correlation's own status; null when it is off.
    #[serde(default)]
    pub correlation: Value,
    /// The forwarders' own status: an array of objects with `name`, `type`, `address`, `state`, `last_error`.
    pub sinks: Value,
    /// Secrets that were replaced; `None` from a Bartizan that does not say.
    #[serde(default)]
    pub redaction: Option<RedactionStatus>,
    /// NATS clients on the bus: what the service says of itself, an `error` where it could not start, null where it is off.
    #[serde(default)]
    pub nats: Value,
    /// Where numbers for Prometheus are served; `None` where they are not.
    #[serde(default)]
    pub metrics: Option<String>,
    /// The process table.
    pub process_table: ProcessTable,
    /// Containers.
    #[serde(default)]
    pub containers: ContainersStatus,
    /// Files of shared libraries that programs are attached to.
    #[serde(default)]
    pub libraries: Vec<LibraryStatus>,
    /// Watched files.
    #[serde(default)]
    pub files: FilesStatus,
    /// What the configuration leaves out (`sensor.ignore`, `sensor.only`), entry by entry.
    #[serde(default)]
    pub ignore: Vec<IgnoreStatus>,
    /// Authentications.
    #[serde(default)]
    pub auth: AuthStatus,
    /// Hashes of executables.
    #[serde(default)]
    pub hashes: HashStatus,
    /// The CPU ceiling.
    #[serde(default)]
    pub cpu: CpuStatus,
    /// What Bartizan needs of the kernel.
    #[serde(default)]
    pub kernel_state: KernelStatus,
    /// How long records of each ring (`priority`, `bulk`) took from the kernel to the bus; empty from a Bartizan that does not say.
    #[serde(default)]
    pub kernel_to_bus: BTreeMap<String, DelayStatus>,
    /// What Bartizan itself uses.
    pub self_usage: SelfUsage,
}

/// What Bartizan needs of the kernel, when last looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KernelStatus {
    /// Mode of lockdown; `None` where there is none or securityfs is not mounted.
    pub lockdown: Option<String>,
    /// Hooks whose programs the kernel does not call any more (`kernel.ftrace_enabled` is 0).
    pub silenced: Vec<String>,
}

/// A file of a shared library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryStatus {
    /// Hook whose programs are on it.
    pub hook: String,
    /// Its name when it was found.
    pub path: String,
    /// Its inode number.
    pub inode: u64,
    /// Why nothing could be attached to it.
    pub problem: Option<String>,
}

/// The files that are watched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FilesStatus {
    /// Files.
    pub files: u64,
    /// Folders, those among them that only lead to watched files.
    pub folders: u64,
    /// Entries of `[files]` for which nothing is there now: they are waited for.
    pub missing: u64,
    /// Files and folders for which there was no room.
    pub beyond: u64,
    /// Files and folders of which nothing is told, as `files.ignore` says.
    #[serde(default)]
    pub ignored: u64,
    /// Entries of `files.ignore` for which nothing is there now.
    #[serde(default)]
    pub ignored_missing: Vec<String>,
    /// What cannot be watched, with the reason; the first sixteen.
    pub refused: BTreeMap<String, String>,
    /// File systems on which fanotify tells every rename and removal.
    pub file_systems: Vec<String>,
}

/// An entry of `sensor.ignore` or of `sensor.only`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IgnoreStatus {
    /// It is of `sensor.only`: of these kinds only what meets the conditions is told; else what meets them is left out.
    pub only: bool,
    /// Kinds that it is for.
    pub kinds: Vec<String>,
    /// Under which conditions, for reading.
    pub conditions: String,
    /// Executables and cgroups for which nothing is there now, or that cannot be looked at, with the reason.
    pub missing: Vec<String>,
}

/// What is known of authentications that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuthStatus {
    /// PAM handles and connections to sshd that are followed.
    pub transactions: ProcessTable,
    /// Lines of sshd's log that said what PAM had told already, and became no event.
    pub said_again: u64,
}

/// Hashes of executables, since the start unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HashStatus {
    /// Files hashed.
    pub hashed: u64,
    /// Files that are larger than `sensor.hash_max`.
    pub too_large: u64,
    /// Files that were gone or changed before they could be read.
    pub unreachable: u64,
    /// Files that were not asked for because too many waited.
    pub queue_full: u64,
    /// Files that wait now.
    pub waiting: u64,
    /// Files whose hash is remembered now.
    pub remembered: u64,
}

/// The CPU ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuStatus {
    /// The ceiling, percent of one processor; 0 is none.
    pub limit_percent: u32,
    /// Use when last looked at, likewise.
    pub used_percent: u32,
    /// Bulk kinds are left out now, and counted as `shed`.
    pub shedding: bool,
}

/// From the kernel's stamp of a record until its event was appended to the bus, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DelayStatus {
    /// Records.
    pub events: u64,
    /// Half of them took no longer, microseconds; percentiles are up to an eighth too long and never too short.
    pub p50_us: u64,
    /// 99 of 100 took no longer, microseconds.
    pub p99_us: u64,
    /// The longest, microseconds.
    pub longest_us: u64,
}

/// One kernel hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Name, as `--disable-hook` takes it.
    pub name: String,
    /// Kinds of events that it makes.
    pub kinds: Vec<String>,
    /// How it is attached, such as `tp_btf`, `fexit` or `syscall_tracepoint`; `none` when it is not.
    pub tier: String,
    /// This is the best tier that Bartizan has for it.
    pub best: bool,
    /// Whether it works.
    pub state: HookState,
    /// Why it does not, or why not in a better tier.
    pub reason: Option<String>,
    /// Program runs, where the kernel counts them (`kernel.bpf_stats_enabled`).
    pub runs: Option<u64>,
    /// Runs that the kernel skipped because the program was already running on that CPU.
    pub recursion_misses: u64,
}

/// Whether a hook works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookState {
    /// Attached.
    Active,
    /// Turned off by configuration.
    Disabled,
    /// This kernel has no place for it.
    Unavailable,
    /// This kernel has a place for it, and it could not be attached.
    Failed,
}

impl HookState {
    /// Lower-case name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// Something that cannot be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// Name of the hook that would see it.
    #[serde(default)]
    pub hook: String,
    /// What is not seen.
    pub what: String,
    /// Why not.
    pub why: String,
    /// Which detections that weakens.
    pub costs: Vec<String>,
    /// This kernel cannot do better. If not, the sensor is degraded.
    pub expected: bool,
}

/// Counts of one kind of record, or of one kernel program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KindCount {
    /// The kind, such as `process.exec`. With [`SKIPPED`] among the losses, the program whose runs were skipped.
    pub kind: String,
    /// Records that reached user space since the start.
    pub received: u64,
    /// Records lost since the start, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Records that Bartizan itself caused and that were left out. They are neither received nor lost.
    #[serde(default)]
    pub filtered_self: u64,
    /// Records that were left out as the configuration says (`sensor.ignore`, `sensor.only`, `files.ignore`). They are neither received nor lost.
    #[serde(default)]
    pub filtered: u64,
    /// Records that were told before their result was known, because too many attempts were pending. They are received.
    #[serde(default)]
    pub unknown_result: u64,
}

impl KindCount {
    /// Nothing counted.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }
    }

    /// Runs of the program of this name that the kernel skipped.
    pub fn skipped(&self) -> u64 {
        self.lost.get(SKIPPED).copied().unwrap_or_default()
    }

    /// Losses that were records for certain, by reason.
    pub fn lost_records(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lost.iter().filter(|(reason, _)| *reason != SKIPPED).map(|(reason, count)| (reason.as_str(), *count))
    }
}

/// A stream, as its `StreamInfo` says. Fields without a name here are kept in `more`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Name, such as `EVENTS`.
    pub name: String,
    /// Messages held.
    pub messages: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Last sequence given out.
    pub last_seq: u64,
    /// Everything up to here is on disk.
    pub synced_seq: u64,
    /// Failed writes and syncs since open.
    pub write_errors: u64,
    /// Bytes cut off a torn tail at open.
    pub truncated_at_open: u64,
    /// The rest of the stream's own words.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A durable consumer, as its `ConsumerInfo` says. Fields without a name here are kept in `more`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConsumerStatus {
    /// Its stream.
    pub stream: String,
    /// Its name.
    pub name: String,
    /// Everything up to here is acknowledged.
    pub ack_floor: u64,
    /// Messages not yet delivered to it.
    pub pending: u64,
    /// Delivered and not yet acknowledged.
    pub ack_pending: u64,
    /// Deliveries beyond the first.
    pub redelivered: u64,
    /// Messages that it gave up on.
    pub terminated: u64,
    /// Messages that retention deleted before it saw them.
    pub fell_off_retention: u64,
    /// The rest of the consumer's own words.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A subscription in the process, as its `SubscriptionInfo` says. Fields without a name here are kept in `more`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionStatus {
    /// Its stream.
    pub stream: String,
    /// Its name.
    pub name: String,
    /// What happens when it is too slow: `block`, `drop_newest` or `spill`.
    pub overflow: String,
    /// Messages received.
    pub delivered: u64,
    /// Messages not delivered because there was no room.
    pub dropped: u64,
    /// Messages read back from the log.
    pub spilled: u64,
    /// Sequences that retention deleted before they were read back.
    pub fell_off_retention: u64,
    /// The rest of its own words.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The object that `info` serialises to, without the fields in `named`.
fn rest(info: &impl Serialize, named: &[&str]) -> Map<String, Value> {
    match serde_json::to_value(info) {
        Ok(Value::Object(mut map)) => {
            map.retain(|key, _| !named.contains(&key.as_str()));
            map
        }
        // Plain structs of numbers and names have no failing serialiser.
        Ok(_) | Err(_) => Map::new(),
    }
}

impl From<&bartizan_bus::StreamInfo> for StreamStatus {
    fn from(info: &bartizan_bus::StreamInfo) -> Self {
        Self {
            name: info.name.to_string(),
            messages: info.messages,
            bytes: info.bytes,
            last_seq: info.last_seq,
            synced_seq: info.synced_seq,
            write_errors: info.write_errors,
            truncated_at_open: info.truncated_at_open,
            more: rest(info, &["name", "messages", "bytes", "last_seq", "synced_seq", "write_errors", "truncated_at_open"]),
        }
    }
}

impl From<&bartizan_bus::ConsumerInfo> for ConsumerStatus {
    fn from(info: &bartizan_bus::ConsumerInfo) -> Self {
        Self {
            stream: info.stream.to_string(),
            name: info.name.to_string(),
            ack_floor: info.ack_floor,
            pending: info.pending,
            ack_pending: info.ack_pending,
            redelivered: info.redelivered,
            terminated: info.terminated,
            fell_off_retention: info.fell_off_retention,
            more: rest(info, &["stream", "name", "ack_floor", "pending", "ack_pending", "redelivered", "terminated", "fell_off_retention"]),
        }
    }
}

impl From<&bartizan_bus::SubscriptionInfo> for SubscriptionStatus {
    fn from(info: &bartizan_bus::SubscriptionInfo) -> Self {
        Self {
            stream: info.stream.to_string(),
            name: info.name.clone(),
            overflow: info.overflow.as_str().to_owned(),
            delivered: info.delivered,
            dropped: info.dropped,
            spilled: info.spilled,
            fell_off_retention: info.fell_off_retention,
            more: rest(info, &["stream", "name", "overflow", "delivered", "dropped", "spilled", "fell_off_retention"]),
        }
    }
}

/// The limits of EVENTS, and what they mean at the present rate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Name of the stream.
    pub stream: String,
    /// Most bytes that it holds.
    pub max_bytes: u64,
    /// Where that comes from: `configured`, `disk_part`, `most`, `least`, `half_disk` or `unknown_disk`.
    pub source: String,
    /// Bytes of the disk under it, where they are known.
    pub disk_bytes: Option<u64>,
    /// What is older is deleted, seconds.
    pub max_age_s: u64,
    /// Bytes a day of the last day or less; `None` before there is an hour of events.
    pub bytes_per_day: Option<u64>,
    /// Days that are kept at that rate.
    pub days: Option<f64>,
    /// `age` or `size`: which limit comes first at that rate.
    pub ends_by: Option<String>,
}

/// Secrets that were replaced before anything was stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RedactionStatus {
    /// Off: the operator has turned it off, and secrets are stored.
    pub enabled: bool,
    /// Values replaced since the start.
    pub values: u64,
    /// The same, by the id of the pattern (docs/redaction.md).
    pub patterns: BTreeMap<String, u64>,
}

/// The process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessTable {
    /// Processes held.
    pub entries: u64,
    /// Most that it holds.
    pub max: u64,
    /// Living processes that had to make room.
    pub evicted: u64,
}

/// What the judgement and the page read of a sink's own status. The rest stays in [`StatusReport::sinks`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SinkRow {
    /// Name from the configuration.
    pub name: String,
    /// Protocol.
    #[serde(rename = "type")]
    pub kind: String,
    /// Receiver.
    pub address: String,
    /// What it is doing: the lower-case name of the forwarder's state.
    pub state: String,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// Attempts that failed since the last confirmation.
    pub failed_attempts: u64,
    /// When the next attempt is due.
    pub next_retry: Option<String>,
    /// Alerts not yet confirmed.
    pub lag: u64,
    /// Alerts confirmed.
    pub confirmed: u64,
    /// Alerts that cannot be decoded and were stepped over.
    pub undecodable: u64,
    /// Alerts that the receiver refused for ever.
    pub refused: u64,
}

impl SinkRow {
    /// Rows of an array of sink states; what is not an object of that form becomes a row that says so.
    fn all(sinks: &Value) -> Vec<Self> {
        let unreadable = |error: serde_json::Error| Self { state: format!("unreadable ({error})"), ..Self::default() };
        let rows = sinks.as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter().map(|sink| Self::deserialize(sink).unwrap_or_else(unreadable)).collect()
    }

    /// It is not delivering, and not only because it has just begun or was asked to wait.
    pub fn failing(&self) -> bool {
        match self.state.as_str() {
            "retrying" | "misconfigured" | "failed" => true,
            // Between two attempts of a receiver that is down.
            "connecting" => self.failed_attempts > 0,
            _ => false,
        }
    }

    fn complain(&self, reasons: &mut Vec<String>) {
        if self.failing() {
            let why = self.last_error.as_deref().unwrap_or("no error is known");
            reasons.push(format!(
                "Sink {} ({} {}) does not deliver, it is {}, and {} alerts wait: {why}.",
                self.name, self.kind, self.address, self.state, self.lag
            ));
        }
        if self.undecodable + self.refused > 0 {
            reasons.push(format!(
                "Sink {} stepped over {} alerts that could not be decoded and {} that the receiver refused: they are still in ALERTS.",
                self.name, self.undecodable, self.refused
            ));
        }
    }
}

/// What is known of containers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainersStatus {
    /// Containers that are remembered.
    pub entries: u64,
    /// Most that are.
    pub max: u64,
    /// Containers that had to make room.
    pub evicted: u64,
    /// Of those that are remembered, with what their runtime says of them.
    pub known: u64,
    /// Lookups under way.
    pub waiting: u64,
    /// Lookups that failed since the start.
    pub failed: u64,
    /// Why the last one did.
    pub last_failure: Option<String>,
    /// Lookups for which there was no room; they are made later.
    pub dropped: u64,
}

/// What Bartizan itself uses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SelfUsage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time since the start, user and system.
    pub cpu_seconds: f64,
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A report of a healthy sensor.
    pub(crate) fn report() -> StatusReport {
        let bus = tempfile::tempdir().expect("temp folder");
        let bus = bartizan_bus::Bus::open(bus.path(), &bartizan_bus::BusConfig::default()).expect("bus");
        let alerts = bus.stream(bartizan_bus::StreamName::Alerts);
        let mut consumer = alerts.consumer("forward-siem", bartizan_bus::ConsumerConfig::default()).expect("consumer");
        consumer.ack_through(0);
        StatusReport {
            version: "0.1.0".into(),
            pid: 4242,
            host: "host1".into(),
            kernel: "6.18.0".into(),
            data_dir: "/var/lib/bartizan".into(),
            started: "2026-01-31T08:00:00Z".into(),
            uptime_s: 93_784,
            hooks: vec![HookStatus {
                name: "exec".into(),
                kinds: vec!["process.exec".into()],
                tier: "tp_btf".into(),
                best: true,
                state: HookState::Active,
                reason: None,
                runs: Some(12),
                recursion_misses: 0,
            }],
            blind: vec![Blind {
                hook: "connect".into(),
                what: "connects by 32-bit programs".into(),
                why: "this kernel allows no fentry".into(),
                costs: vec!["runtime_watcher.reverse_shell".into()],
                expected: true,
            }],
            kinds: vec![KindCount { received: 1000, ..KindCount::new("process.exec") }],
            recent_loss: 0,
            recent_skipped: BTreeMap::new(),
            problems: Vec::new(),
            streams: vec![StreamStatus::from(&alerts.info())],
            budget: Some(BudgetStatus {
                stream: "EVENTS".into(),
                max_bytes: 8 << 30,
                source: "most".into(),
                disk_bytes: Some(100 << 30),
                max_age_s: 7 * 86_400,
                ..BudgetStatus::default()
            }),
            consumers: vec![ConsumerStatus::from(&consumer.info())],
            subscriptions: vec![SubscriptionStatus::from(&alerts.subscribe("terminal", Default::default()).info())],
            detectors: json!({
                "acked_seq": 1000,
                "last_seq": 1000,
                "detectors": [{ "id": "runtime_watcher", "observed": 1000, "published": 1 }],
            }),
            correlation: Value::Null,
            sinks: json!([{ "name": "siem", "type": "syslog", "address": "127.0.0.1:514", "state": "connected", "confirmed": 1, "lag": 0 }]),
            redaction: Some(RedactionStatus { enabled: true, values: 3, patterns: BTreeMap::from([("assign.name".into(), 3)]) }),
            nats: serde_json::Value::Null,
            metrics: None,
            process_table: ProcessTable { entries: 120, max: 65_536, evicted: 0 },
            containers: ContainersStatus { entries: 3, max: 4096, known: 2, ..ContainersStatus::default() },
            libraries: Vec::new(),
            files: FilesStatus::default(),
            ignore: Vec::new(),
            auth: AuthStatus::default(),
            hashes: HashStatus::default(),
            cpu: CpuStatus::default(),
            kernel_state: KernelStatus::default(),
            kernel_to_bus: BTreeMap::new(),
            self_usage: SelfUsage { rss_bytes: 31 << 20, cpu_seconds: 1.5 },
        }
    }

    #[test]
    fn an_older_daemon_s_report_is_read() {
        let mut value = serde_json::to_value(report()).expect("json");
        for key in ["problems", "recent_skipped", "correlation", "redaction", "budget", "containers"] {
            value.as_object_mut().and_then(|map| map.remove(key)).expect(key);
        }
        for key in ["filtered_self", "filtered", "unknown_result"] {
            value["kinds"][0].as_object_mut().and_then(|map| map.remove(key)).expect(key);
        }
        value["blind"][0].as_object_mut().and_then(|map| map.remove("hook")).expect("hook");
        assert_eq!(serde_json::from_value::<StatusReport>(value).expect("report").blind[0].hook, "");
    }

    #[test]
    fn a_report_reads_back_from_json() {
        let json = serde_json::to_string(&report()).expect("json");
        assert_eq!(serde_json::from_str::<StatusReport>(&json).expect("report"), report());
    }

    #[test]
    fn the_bus_s_own_words_are_all_kept() {
        let report = report();
        let stream = serde_json::to_value(&report.streams[0]).expect("json");
        assert_eq!(stream["name"], "ALERTS");
        assert!(stream.get("max_bytes").is_some() && stream.get("segments").is_some());
        assert!(serde_json::to_value(&report.consumers[0]).expect("json").get("delivered_seq").is_some());
    }
}
