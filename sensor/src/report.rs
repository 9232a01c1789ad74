//! Makes the status report of a running daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan_bus::budget::{Budget, BudgetSource, EndsBy, forecast};
use bartizan_bus::event::Body;
use bartizan_bus::{Bus, StreamInfo, StreamName};
use bartizan_detectors::EngineStatus;
use bartizan_detectors::correlate::CorrelateStatus;
use bartizan_forward::StatusHandle;
use bartizan_sensor_ebpf::abi::{KINDS, Kind};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use serde_json::Value;

use crate::capture::HookReport;
use crate::capture::files::FilesReport;
use crate::capture::ignore::IgnoreReport;
use crate::capture::libraries::LibraryReport;
use crate::capture::load::{self, program_counters};
use crate::capture::loss::Losses;
use crate::counts::{Counts, RingDelays, Shared};
use crate::daemon::Served;
use crate::delay::{self, Delays};
use crate::enrich::container::KnownReport;
use crate::governor::GovernorReport;
use crate::hash::HashCounts;
use crate::host::{host_name, kernel_release};
use crate::metrics::Numbers;
use crate::redact::Redactions;
use crate::status::{
    AuthStatus, Blind, BudgetStatus, ContainersStatus, CpuStatus, DelayStatus, FilesStatus, HashStatus, HookState, HookStatus,
    IgnoreStatus, KindCount, LibraryStatus, ProcessTable, RedactionStatus, SelfUsage, StatusReport,
};

/// Where the numbers come from.
pub(crate) struct Reporter {
    pub(crate) bus: Bus,
    pub(crate) shared: Arc<Shared>,
    pub(crate) detectors: EngineStatus,
    /// `None` when it is off.
    pub(crate) correlation: Option<CorrelateStatus>,
    pub(crate) sinks: Vec<StatusHandle>,
    /// `None` when redaction is turned off.
    pub(crate) redactions: Option<Arc<Redactions>>,
    /// Of EVENTS.
    pub(crate) budget: Budget,
    pub(crate) edge: Arc<Served>,
    /// Where numbers are served, if they are, or why they are not although they should be.
    pub(crate) metrics: Result<Option<SocketAddr>, String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) started: Instant,
}

impl Reporter {
    /// The report now.
    pub(crate) fn report(&self) -> StatusReport {
        let Self { bus, shared, detectors, correlation, sinks, redactions, budget, edge, metrics, data_dir, started } = self;
        let (counts, hooks) = (shared.counts(), &shared.hooks);
        let uptime = started.elapsed();
        let streams: Vec<_> = StreamName::ALL.iter().map(|name| bus.stream(*name)).collect();
        let (entries, max, evicted) = counts.table;
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: host_name(),
            kernel: kernel_release(),
            data_dir: data_dir.display().to_string(),
            started: jiff::Timestamp::now().checked_sub(uptime).map_or_else(|_| String::new(), |at| format!("{at:.3}")),
            uptime_s: uptime.as_secs(),
            hooks: hooks.iter().map(|report| hook_status(report, &counts.libraries)).collect(),
            blind: blind(hooks, &counts.libraries),
            libraries: counts.libraries.iter().map(library).collect(),
            kinds: kinds(&counts),
            recent_loss: counts.recent_loss,
            problems: problems(&counts, edge, metrics),
            recent_skipped: counts.recent_skipped.clone(),
            streams: streams.iter().map(|stream| (&stream.info()).into()).collect(),
            budget: Some(budget_status(budget, &bus.stream(StreamName::Events).info())),
            consumers: streams.iter().flat_map(|stream| stream.consumers()).map(|info| (&info).into()).collect(),
            subscriptions: streams.iter().flat_map(|stream| stream.subscriptions()).map(|info| (&info).into()).collect(),
            detectors: value(&detectors.info()),
            correlation: correlation.as_ref().map_or(Value::Null, |correlation| value(&correlation.info())),
            sinks: Value::Array(sinks.iter().map(|sink| value(&sink.snapshot())).collect()),
            redaction: Some(redaction(redactions.as_deref())),
            nats: match &**edge {
                Served::Off => Value::Null,
                Served::Running(edge) => value(&edge.stats()),
                Served::Failed(reason) => serde_json::json!({ "error": reason }),
            },
            metrics: metrics.as_ref().ok().and_then(|address| *address).map(|address| format!("http://{address}/metrics")),
            process_table: ProcessTable { entries: entries as u64, max: max as u64, evicted },
            containers: containers(&counts.containers),
            files: files(&counts.files),
            ignore: counts.ignore.iter().map(ignored).collect(),
            auth: auth(&counts),
            hashes: hashes(counts.hashes),
            cpu: cpu(counts.governor),
            kernel_state: counts.kernel.clone(),
            kernel_to_bus: delays(&counts.delays),
            self_usage: usage(),
        }
    }

    /// What a scrape tells now.
    pub(crate) fn numbers(&self) -> Numbers {
        let edge = match &*self.edge {
            Served::Running(edge) => Some(edge.stats()),
            Served::Off | Served::Failed(_) => None,
        };
        Numbers { report: Some(self.report()), edge }
    }

    /// One line that says that everything is up, and how.
    pub(crate) fn ready_line(&self) -> String {
        let active = self.shared.hooks.iter().filter(|report| report.state == load::HookState::Active).count();
        let sinks = match self.sinks.len() {
            0 => "no forwarder".to_owned(),
            1 => "1 forwarder".to_owned(),
            count => format!("{count} forwarders"),
        };
        let nats = match &*self.edge {
            Served::Off => "NATS off".to_owned(),
            Served::Running(edge) => format!("NATS on {}", edge.server().local_addr()),
            Served::Failed(_) => "NATS not served".to_owned(),
        };
        format!(
            "bartizan {} is ready in {:.1} s: {active} of {} hooks, {sinks}, {nats}, data in {}",
            env!("CARGO_PKG_VERSION"),
            self.started.elapsed().as_secs_f64(),
            self.shared.hooks.len(),
            self.data_dir.display()
        )
    }
}

/// A row for each kind of event, and one for each other name that something was lost under.
fn kinds(counts: &Counts) -> Vec<KindCount> {
    let Counts { received, filtered_self, filtered, pending_full, lost, .. } = counts;
    let mut rows: BTreeMap<&str, KindCount> = Body::KINDS.iter().map(|kind| (*kind, KindCount::new(kind))).collect();
    fn row<'r, 'k>(rows: &'r mut BTreeMap<&'k str, KindCount>, kind: &'k str) -> &'r mut KindCount {
        rows.entry(kind).or_insert_with_key(|kind| KindCount::new(kind))
    }
    for (kind, count) in received {
        row(&mut rows, kind).received = *count;
    }
    for (kind, count) in filtered_self {
        row(&mut rows, kind).filtered_self = *count;
    }
    for (kind, count) in filtered {
        row(&mut rows, kind).filtered = *count;
    }
    for connect in KINDS.iter().filter(|info| info.kind == Kind::Connect) {
        row(&mut rows, connect.name).unknown_result = *pending_full;
    }
    for ((kind, reason), count) in lost {
        row(&mut rows, kind).lost.insert((*reason).to_owned(), *count);
    }
    rows.into_values().collect()
}

/// What went wrong since the start, in sentences.
fn problems(counts: &Counts, edge: &Served, metrics: &Result<Option<SocketAddr>, String>) -> Vec<String> {
    let Counts { lost, publish_error, decode_error, accounts, .. } = counts;
    let sum = |lost: &Losses, reasons: &[&str]| -> u64 {
        lost.iter().filter(|((_, reason), _)| reasons.contains(reason)).map(|(_, count)| count).sum()
    };
    let mut problems = Vec::new();
    if let Served::Failed(reason) = edge {
        problems.push(format!("NATS clients are not served: {reason}."));
    }
    if let Err(error) = metrics {
        problems.push(format!("Metrics are not served: {error}."));
    }
    if let Some(error) = decode_error {
        problems.push(format!("{} records could not be decoded; the first: {error}.", sum(lost, &["decode"])));
    }
    if let Some(error) = publish_error {
        problems.push(format!("{} events could not be stored; the last error: {error}.", sum(lost, &["disk_full", "bus_error"])));
    }
    problems.extend(accounts.iter().map(|problem| format!("Accounts: {problem}; what becomes of them is not told.")));
    problems
}

fn budget_status(budget: &Budget, info: &StreamInfo) -> BudgetStatus {
    let Budget { bytes, source, disk } = *budget;
    let at_rate = forecast(bytes, Duration::from_secs(info.max_age_s), info.recent_bytes, Duration::from_secs(info.recent_s));
    BudgetStatus {
        stream: info.name.to_string(),
        max_bytes: bytes,
        source: match source {
            BudgetSource::Configured => "configured",
            BudgetSource::DiskPart => "disk_part",
            BudgetSource::Most => "most",
            BudgetSource::Least => "least",
            BudgetSource::HalfDisk => "half_disk",
            BudgetSource::UnknownDisk => "unknown_disk",
        }
        .to_owned(),
        disk_bytes: disk,
        max_age_s: info.max_age_s,
        bytes_per_day: at_rate.map(|at_rate| at_rate.bytes_per_day),
        days: at_rate.map(|at_rate| at_rate.days),
        ends_by: at_rate.map(|at_rate| if at_rate.ends_by == EndsBy::Age { "age" } else { "size" }.to_owned()),
    }
}

fn redaction(counts: Option<&Redactions>) -> RedactionStatus {
    let patterns = counts.map(Redactions::by_pattern).unwrap_or_default();
    RedactionStatus {
        enabled: counts.is_some(),
        values: patterns.values().sum(),
        patterns: patterns.into_iter().map(|(id, count)| (id.to_owned(), count)).collect(),
    }
}

fn value(from: &impl Serialize) -> Value {
    // Plain structs of numbers and names have no failing serialiser.
    serde_json::to_value(from).unwrap_or(Value::Null)
}

fn library(report: &LibraryReport) -> LibraryStatus {
    let LibraryReport { hook, path, inode, problem } = report.clone();
    LibraryStatus { hook: hook.to_owned(), path, inode, problem }
}

fn files(report: &FilesReport) -> FilesStatus {
    let FilesReport { files, folders, missing, beyond, ignored, ignored_missing, refused, file_systems } = report.clone();
    FilesStatus { files, folders, missing, beyond, ignored, ignored_missing, refused: refused.into_iter().collect(), file_systems }
}

fn ignored(report: &IgnoreReport) -> IgnoreStatus {
    let IgnoreReport { only, kinds, conditions, missing } = report;
    IgnoreStatus {
        only: *only,
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        conditions: conditions.clone(),
        missing: missing.clone(),
    }
}

fn auth(counts: &Counts) -> AuthStatus {
    let (entries, max, evicted) = counts.transactions;
    AuthStatus { transactions: ProcessTable { entries: entries as u64, max: max as u64, evicted }, said_again: counts.said_again }
}

fn delays(delays: &RingDelays) -> BTreeMap<String, DelayStatus> {
    let RingDelays { priority, bulk } = delays;
    let status = |delays: &Delays| {
        let delay::Summary { events, p50, p99, longest } = delays.summary();
        DelayStatus { events, p50_us: p50, p99_us: p99, longest_us: longest }
    };
    [("priority", priority), ("bulk", bulk)].map(|(ring, delays)| (ring.to_owned(), status(delays))).into()
}

fn containers(report: &KnownReport) -> ContainersStatus {
    let KnownReport { held, max, known, waiting, failed, dropped, evicted, last_failure } = report;
    ContainersStatus {
        entries: *held as u64,
        max: *max as u64,
        evicted: *evicted,
        known: *known as u64,
        waiting: *waiting as u64,
        failed: *failed,
        last_failure: last_failure.clone(),
        dropped: *dropped,
    }
}

fn hashes(counts: HashCounts) -> HashStatus {
    let HashCounts { hashed, too_large, unreachable, full, waiting, remembered } = counts;
    HashStatus { hashed, too_large, unreachable, queue_full: full, waiting, remembered }
}

fn cpu(report: GovernorReport) -> CpuStatus {
    let GovernorReport { limit, used, shedding } = report;
    CpuStatus { limit_percent: limit, used_percent: used, shedding }
}

/// Whether a hook found its library only after the start.
fn came_late(report: &HookReport, libraries: &[LibraryReport]) -> bool {
    report.tier.is_none() && libraries.iter().any(|library| library.hook == report.hook.name && library.problem.is_none())
}

/// A hook as the report tells it; `libraries` may say that one came after the start.
pub(crate) fn hook_status(report: &HookReport, libraries: &[LibraryReport]) -> HookStatus {
    let late = came_late(report, libraries);
    let HookReport { hook, tier, state, reasons, held_back, broken, programs } = report;
    let counters: Vec<_> = programs.iter().filter_map(|(_, fd)| program_counters(fd).ok()).collect();
    let runs: u64 = counters.iter().map(|counters| counters.runs).sum();
    let best = tier.is_some_and(|tier| hook.tiers.first().is_some_and(|first| first.name == tier.name));
    HookStatus {
        name: hook.name.to_owned(),
        kinds: hook.kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        tier: tier.or(report.hook.tiers.first().filter(|_| late)).map_or("none", |tier| tier.name).to_owned(),
        best: best || late,
        state: match state {
            _ if late => HookState::Active,
            // The operator holds a better tier back: that is worse than this kernel allows.
            load::HookState::Active if *held_back => HookState::Disabled,
            load::HookState::Active if *broken => HookState::Failed,
            load::HookState::Active => HookState::Active,
            load::HookState::Disabled => HookState::Disabled,
            load::HookState::Unavailable | load::HookState::Absent => HookState::Unavailable,
            load::HookState::Failed => HookState::Failed,
        },
        reason: (!reasons.is_empty() && !late).then(|| reasons.join("; ")),
        runs: (runs > 0).then_some(runs),
        recursion_misses: counters.iter().map(|counters| counters.recursion_misses).sum(),
    }
}

/// What is not seen: hooks that are not attached, and what a lesser tier misses.
pub(crate) fn blind(hooks: &[HookReport], libraries: &[LibraryReport]) -> Vec<Blind> {
    hooks
        .iter()
        .filter(|report| report.state != load::HookState::Absent && !came_late(report, libraries))
        .filter_map(|report| {
            let HookReport { hook, tier, state, reasons, held_back, broken, programs: _ } = report;
            let what = match tier {
                Some(tier) => tier.blind?,
                None => hook.without,
            };
            Some(Blind {
                hook: hook.name.to_owned(),
                what: what.to_owned(),
                why: if reasons.is_empty() { "no better hook was tried".to_owned() } else { reasons.join("; ") },
                costs: hook.costs.iter().map(|cost| (*cost).to_owned()).collect(),
                expected: !held_back && !broken && matches!(state, load::HookState::Active | load::HookState::Unavailable),
            })
        })
        .collect()
}

fn usage() -> SelfUsage {
    let cpu_seconds = getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6);
    let rss_bytes =
        procfs::process::Process::myself().and_then(|process| process.statm()).map_or(0, |statm| statm.resident * procfs::page_size());
    SelfUsage { rss_bytes, cpu_seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(count: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = Counts::default();
        count(&mut counts);
        counts
    }

    #[test]
    fn every_count_has_a_row() {
        let counts = counted(|counts| {
            counts.received = BTreeMap::from([("process.exec", 7)]);
            counts.filtered_self = BTreeMap::from([("process.exec", 2), ("process.exit", 1)]);
            counts.filtered = BTreeMap::from([("network.connect", 9)]);
            counts.pending_full = 4;
            counts.lost = Losses::from([(("process.exec".into(), "ring_full"), 5), (("unknown".into(), "decode"), 3)]);
        });
        let rows = kinds(&counts);
        let row = |kind: &str| rows.iter().find(|row| row.kind == kind).unwrap_or_else(|| panic!("no row {kind}")).clone();
        assert_eq!(
            row("process.exec"),
            KindCount { received: 7, filtered_self: 2, lost: BTreeMap::from([("ring_full".into(), 5)]), ..KindCount::new("process.exec") }
        );
        assert_eq!((row("process.exit").filtered_self, row("network.connect").unknown_result), (1, 4));
        assert_eq!(row("network.connect").filtered, 9);
        assert_eq!(row("unknown").lost["decode"], 3);
        assert_eq!(rows.len(), Body::KINDS.len() + 1);
    }

    #[test]
    fn problems_are_sentences_with_their_number() {
        assert!(problems(&Counts::default(), &Served::Off, &Ok(None)).is_empty());
        let counts = counted(|counts| {
            let lost = [(("unknown", "decode"), 3), (("process.exec", "disk_full"), 4), (("process.exit", "bus_error"), 1)];
            counts.lost = lost.into_iter().map(|((kind, reason), count)| ((kind.to_owned(), reason), count)).collect();
            counts.decode_error = Some("kind 99 is not known".into());
            counts.publish_error = Some("EVENTS is full".into());
        });
        let expected = [
            "3 records could not be decoded; the first: kind 99 is not known.",
            "5 events could not be stored; the last error: EVENTS is full.",
        ];
        assert_eq!(problems(&counts, &Served::Off, &Ok(None)), expected);
        let refused = problems(&Counts::default(), &Served::Off, &Err("it is taken".into()));
        assert_eq!(refused, ["Metrics are not served: it is taken."]);
    }
}
