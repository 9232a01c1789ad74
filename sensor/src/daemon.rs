//! `bartizan run`: puts the parts together, waits for a signal, takes them apart in the order of the data.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bartizan_bus::budget::Budget;
use bartizan_bus::edge::Edge;
use bartizan_bus::event::{Alert, Gap, Start};
use bartizan_bus::{Bus, OpenError, ReadError, Stream, StreamInfo, StreamName, Subscription, SubscriptionConfig};
use bartizan_detectors::correlate::{self, CorrelateConfig, CorrelateError, CorrelateStatus};
use bartizan_detectors::{EngineError, EngineStatus};
use bartizan_forward::{EngineError as ForwardError, Forwarder};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::accounts::Accounts;
use crate::capture::{HookReport, LoadError, Loaded, hook_names, is_hook_name, load, mounts, seed};
use crate::config::{Config, SensorConfig};
use crate::control;
use crate::counts::Shared;
use crate::enrich::container::reader::Lookups;
use crate::enrich::environment::Listed;
use crate::enrich::{Enricher, clock};
use crate::hash::Hashes;
use crate::hash::worker::Worker;
use crate::host::{host_name, kernel_release};
use crate::intake::Intake;
use crate::logins::LoginsFile;
use crate::memory;
use crate::metrics;
use crate::pipeline::Pipeline;
use crate::redact::{Key, KeyError, RedactionConfig, Redactor, RedactorError};
use crate::report::Reporter;

/// Between two looks at the stop whether everything is judged.
const LOOK: Duration = Duration::from_millis(20);

/// Inode of the initial pid namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
pub(crate) const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Above what EVENTS takes to sync: from the look at the account files until the events of what was found are published.
const ACCOUNTS_SETTLE: Duration = Duration::from_secs(2);
/// At a stop, longest wait for detectors and correlation to judge the last events.
const LAST_EVENTS: Duration = Duration::from_secs(3);

/// Why `bartizan run` cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Not root.
    #[error("bartizan {0} must be root, because it loads eBPF programs: start it with sudo (a developer types `cargo xtask run`)")]
    NotRoot(&'static str),
    /// In a container's pid namespace.
    #[error(
        "bartizan {0} must be in the host's pid namespace, because the kernel names processes by its ids: start it outside of the container, or give the container the host's (--pid=host)"
    )]
    PidNamespace(&'static str),
    /// A hook that does not exist.
    #[error("there is no hook {name:?}; --disable-hook and sensor.disable_hooks take: {}", known.join(", "))]
    UnknownHook {
        /// As given.
        name: String,
        /// Every name there is.
        known: Vec<String>,
    },
    /// The bus cannot be opened.
    #[error(transparent)]
    Bus(#[from] OpenError),
    /// There is no key to hash secrets with.
    #[error(transparent)]
    RedactionKey(#[from] KeyError),
    /// Secrets cannot be redacted.
    #[error(transparent)]
    Redactor(#[from] RedactorError),
    /// Capture cannot start.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] control::BindError),
    /// A forwarder cannot be opened.
    #[error("forwarder {name}: {source}")]
    Forward {
        /// Name from the configuration.
        name: String,
        /// Why.
        source: Box<ForwardError>,
    },
    /// The detectors ended.
    #[error("the detectors ended: {0}")]
    Detectors(#[source] Box<EngineError>),
    /// Correlation ended.
    #[error("correlation ended: {0}")]
    Correlation(#[source] Box<CorrelateError>),
    /// The folder of the runtimes' files cannot be opened.
    #[error("sensor.runtime_root: {}: {source}; name the folder that has the host's var/lib and run, which is / outside of containers", path.display())]
    RuntimeRoot {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of the system that is always there is not.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// As above, without an error number.
    #[error("{0}")]
    Host(String),
    /// A part of Bartizan panicked.
    #[error("{0} stopped unexpectedly: this is a bug in Bartizan; what it had acknowledged is on disk, start it again")]
    Panicked(&'static str),
}

/// Told of every alert that is raised while the daemon runs, with its sequence in ALERTS. It must not wait: it is called on a thread
/// of the runtime, and the stop waits for it.
pub type OnAlert = Box<dyn Fn(&Alert, u64) + Send>;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`DaemonError`] when it cannot start, or when a part fails for good.
pub fn run(config: Config, on_alert: OnAlert) -> Result<(), DaemonError> {
    let started = Instant::now();
    may_capture("run", &config.sensor.disable_hooks)?;
    let budget = config.events_budget();
    let bus = Bus::open(&config.data_dir, &config.bus(&budget))?;
    let redactor = redactor(&config.redaction, &config.data_dir)?;
    if let Some(done) = mounts::ensure_tracefs() {
        tracing::info!("{done}");
    }
    let loaded = load(&config.sensor.load(&config.files))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bartizan")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { what: "cannot start the runtime's threads", source })?;
    let parts = Parts { bus: bus.clone(), budget, loaded, redactor };
    let result = Daemon::start(&runtime, config, parts, started, on_alert).and_then(|daemon| daemon.run(&runtime));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let closed = bus.close().map_err(|source| DaemonError::System { what: "cannot sync the streams at the end", source });
    result.and(closed)
}

/// Whether this process is who and where it must be to capture, and every disabled hook is one. `verb`: who asks.
pub(crate) fn may_capture(verb: &'static str, disabled: &[String]) -> Result<(), DaemonError> {
    for name in disabled {
        if !is_hook_name(name) {
            return Err(DaemonError::UnknownHook { name: name.clone(), known: hook_names() });
        }
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(DaemonError::NotRoot(verb));
    }
    // Where /proc is not mounted, whoever reads it next will say so.
    if std::fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() != INITIAL_PID_NAMESPACE) {
        return Err(DaemonError::PidNamespace(verb));
    }
    Ok(())
}

/// What was opened before anything runs.
struct Parts {
    bus: Bus,
    /// Of EVENTS.
    budget: Budget,
    loaded: Loaded,
    redactor: Option<Redactor>,
}

/// Everything that runs.
struct Daemon {
    capture: thread::JoinHandle<()>,
    shared: Arc<Shared>,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<Result<(), DaemonError>>,
    judged: Judged,
    edge: Arc<Served>,
    terminate: Signal,
    interrupt: Signal,
}

/// Whether NATS clients are served.
pub(crate) enum Served {
    /// Turned off in the configuration.
    Off,
    Running(Edge),
    /// Capture and detection go on without it.
    Failed(String),
}

/// Serves NATS clients on the bus, where that is wanted and possible.
fn serve_nats(config: &Config, bus: &Bus) -> Served {
    if !config.nats.enabled {
        return Served::Off;
    }
    let edge = config.nats.edge(&config.data_dir).map_err(|error| error.to_string());
    match edge.and_then(|edge| Edge::start(edge, &config.data_dir, Some(bus)).map_err(|error| error.to_string())) {
        Ok(edge) => Served::Running(edge),
        Err(reason) => {
            tracing::warn!(reason, "NATS clients are not served: everything else goes on");
            Served::Failed(reason)
        }
    }
}

/// What has been judged, and what there is to judge.
pub(crate) struct Judged {
    pub(crate) detectors: EngineStatus,
    pub(crate) events: Stream,
    pub(crate) correlation: Option<CorrelateStatus>,
    pub(crate) alerts: Stream,
}

impl Judged {
    /// The last event that there is.
    pub(crate) fn last(&self) -> u64 {
        self.events.info().last_seq
    }

    /// How many events are not judged.
    pub(crate) fn behind(&self) -> u64 {
        self.last().saturating_sub(self.detectors.info().acked_seq)
    }

    /// Whether the events up to `last` are, and every alert that there is.
    pub(crate) fn through(&self, last: u64) -> bool {
        let Self { detectors, events: _, correlation, alerts } = self;
        let correlated = || correlation.as_ref().is_none_or(|correlation| correlation.info().acked_seq >= alerts.info().last_seq);
        detectors.info().acked_seq >= last && correlated()
    }
}

impl Daemon {
    fn start(runtime: &Runtime, config: Config, parts: Parts, started: Instant, on_alert: OnAlert) -> Result<Self, DaemonError> {
        let Parts { bus, budget, loaded, redactor } = parts;
        let Loaded { kernel, seeds, counters, hooks } = loaded;
        let start = start_event(&hooks);
        let seed_wanted = seed::is_active(&hooks);
        let shared = Arc::new(Shared::new(counters, hooks));
        let events = bus.stream(StreamName::Events).clone();
        let gap = gap_before(&bus);

        let seeds = if seed_wanted { seed::take(seeds, clock::boot_now()) } else { seed::Seeds::default() };
        let enricher =
            Enricher::new(clock::boot_id().map_err(DaemonError::Host)?, host_name(), clock::wall_offset(), config.sensor.process_table);
        let redactions = redactor.as_ref().map(Redactor::counts);
        let SensorConfig { environment, hash_max, hash_rate, .. } = &config.sensor;
        let hasher = (*hash_max > 0)
            .then(|| Worker::start(*hash_max, *hash_rate))
            .transpose()
            .map_err(|source| DaemonError::System { what: "cannot start the thread that hashes executables", source })?;
        let enricher = enricher.redacting(redactor).keeping(Listed::new(environment)).hashing(Hashes::new(hasher.is_some()));
        let logins = LoginsFile::new(&config.data_dir);
        let known_logins = logins.load().unwrap_or_else(|problem| {
            tracing::warn!("{problem}");
            Vec::new()
        });
        let sink = Intake::new(enricher, events, Arc::clone(&shared.tally), Some(logins));
        let accounts = accounts()?.remembering(&config.data_dir, config.streams.events.sync_interval + ACCOUNTS_SETTLE);
        let mut pipeline = Pipeline::new(kernel, &config, Arc::clone(&shared), sink, lookups(&config)?, hasher, accounts);
        pipeline.begin(start, gap, known_logins, seeds);

        let _entered = runtime.enter();
        let (shutdown, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let detectors = EngineStatus::new();
        let judging = detect(bus.clone(), config.detectors.clone(), config.data_dir.clone(), detectors.clone(), stopping.clone());
        tasks.spawn(on_own_thread("detect", "the detectors' thread", judging)?);
        let stopped = stopping.clone();
        tasks.spawn(async move {
            memory::upkeep(stopped).await;
            Ok(())
        });
        let correlation = config.detectors.correlate.enabled.then(CorrelateStatus::default);
        if let Some(status) = &correlation {
            let (config, data_dir) = (config.detectors.correlate.clone(), config.data_dir.clone());
            tasks.spawn(correlate(bus.clone(), config, data_dir, status.clone(), stopping.clone()));
        }
        let judged = Judged {
            detectors: detectors.clone(),
            events: bus.stream(StreamName::Events).clone(),
            correlation: correlation.clone(),
            alerts: bus.stream(StreamName::Alerts).clone(),
        };
        let mut sinks = Vec::new();
        for sink in &config.forward {
            let seed = u64::from(std::process::id()) ^ clock::boot_now();
            let forwarder = Forwarder::new(sink, bus.stream(StreamName::Alerts).clone(), seed)
                .map_err(|source| DaemonError::Forward { name: sink.name.to_string(), source: Box::new(source) })?;
            sinks.push(forwarder.status());
            // A sink that fails for good is named in the status and must not take the sensor with it.
            let stopping = stopping.clone();
            tasks.spawn(async move {
                let _ = forwarder.run(stopping).await;
                Ok(())
            });
        }
        let alerts = bus.stream(StreamName::Alerts).subscribe("terminal", SubscriptionConfig::default());
        tasks.spawn(announce(alerts, on_alert, stopping.clone()));
        let edge = Arc::new(serve_nats(&config, &bus));
        let metrics = config.metrics.listen.map(metrics::bind).transpose();
        if let Err(error) = &metrics {
            tracing::warn!("{error}: everything else goes on");
        }
        let listener = control::bind(&config.data_dir)?;
        let reporter = Reporter {
            bus,
            shared: Arc::clone(&shared),
            detectors,
            correlation,
            sinks,
            redactions,
            budget,
            edge: Arc::clone(&edge),
            metrics: metrics.as_ref().map(|listener| listener.as_ref().map(|listener| listener.address)).map_err(ToString::to_string),
            data_dir: config.data_dir.clone(),
            started,
        };
        let ready = reporter.ready_line();
        let reporter = Arc::new(reporter);
        if let Ok(Some(listener)) = metrics {
            let (reporter, stopping) = (Arc::clone(&reporter), stopping.clone());
            tasks.spawn(async move {
                metrics::serve(listener, Arc::new(move || reporter.numbers()), stopping).await;
                Ok(())
            });
        }
        let provider: control::Provider = Arc::new(move || reporter.report());
        tasks.spawn(async move {
            control::serve(listener, provider, stopping).await;
            Ok(())
        });
        let capture = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || drop(pipeline.run(started)))
            .map_err(|source| DaemonError::System { what: "cannot start the capture thread", source })?;
        // Before the ready line: whoever waits for that may ask to stop at once.
        let listen = |kind| signal(kind).map_err(|source| DaemonError::System { what: "cannot listen for signals", source });
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        // Standard error may be full or gone: that is no reason to stop.
        let _ = writeln!(io::stderr().lock(), "{ready}");
        Ok(Self { capture, shared, shutdown, tasks, judged, edge, terminate, interrupt })
    }

    /// Waits for a signal or the end of a part, then stops capture first, so that the rest sees its last events.
    fn run(self, runtime: &Runtime) -> Result<(), DaemonError> {
        let Self { capture, shared, shutdown, mut tasks, judged, edge, mut terminate, mut interrupt } = self;
        let watched = runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => { tracing::info!("SIGTERM: stopping"); return Ok(()) }
                    _ = interrupt.recv() => { tracing::info!("SIGINT: stopping"); return Ok(()) }
                    Some(ended) = tasks.join_next() => match ended {
                        // A forwarder that gave up for good; its status says why.
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Err(error),
                        Err(_) => return Err(DaemonError::Panicked("a background task")),
                    },
                    () = ended(&capture) => return Err(DaemonError::Panicked("the capture thread")),
                }
            }
        });
        shared.stop();
        let captured = capture.join().map_err(|_| DaemonError::Panicked("the capture thread"));
        // What capture stored last is judged now rather than at the next start, unless that takes too long.
        let last = judged.last();
        let patience = Instant::now();
        while watched.is_ok() && !judged.through(last) && patience.elapsed() < LAST_EVENTS {
            thread::sleep(LOOK);
        }
        // Receivers are gone only when every task has ended already.
        let _ = shutdown.send(true);
        let ended = runtime.block_on(async {
            let mut result = Ok(());
            while let Some(ended) = tasks.join_next().await {
                result = result.and(ended.unwrap_or(Err(DaemonError::Panicked("a background task"))));
            }
            result
        });
        if let Served::Running(edge) = &*edge
            && let Err(error) = runtime.block_on(edge.close())
        {
            tracing::warn!(%error, "cannot close the streams of NATS clients in good order: the next start recovers them");
        }
        watched.and(captured).and(ended)
    }
}

/// The host's account files.
pub(crate) fn accounts() -> Result<Accounts, DaemonError> {
    Accounts::below(Path::new("/")).map_err(|source| DaemonError::System { what: "cannot make a key for digests of passwords", source })
}

/// Starts the reader of the container runtimes' files.
pub(crate) fn lookups(config: &Config) -> Result<Lookups, DaemonError> {
    let path = &config.sensor.runtime_root;
    Lookups::start(path).map_err(|source| DaemonError::RuntimeRoot { path: path.clone(), source })
}

/// Resolves when the thread has ended.
async fn ended(thread: &thread::JoinHandle<()>) {
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Runs `work` on a thread of its own, and resolves to what it came to: a batch then wakes one thread, not one after another of the
/// runtime's, and whatever `work` computes keeps no client of the runtime waiting. `name`: the thread's; `what`: the same for a reader.
fn on_own_thread(
    name: &'static str,
    what: &'static str,
    work: impl Future<Output = Result<(), DaemonError>> + Send + 'static,
) -> Result<impl Future<Output = Result<(), DaemonError>> + Send + 'static, DaemonError> {
    let system = |source| DaemonError::System { what: "cannot start a thread", source };
    let runtime = tokio::runtime::Builder::new_current_thread().thread_name(name).enable_time().build().map_err(system)?;
    let (tell, told) = oneshot::channel();
    let run = move || {
        let ended = runtime.block_on(work);
        // What still runs for it, such as the write of a snapshot, comes to its end first.
        drop(runtime);
        // Who no longer listens has ended, and with it the daemon.
        drop(tell.send(ended));
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(system)?;
    Ok(async move { told.await.unwrap_or(Err(DaemonError::Panicked(what))) })
}

pub(crate) async fn detect(
    bus: Bus,
    config: bartizan_detectors::Config,
    data_dir: PathBuf,
    status: EngineStatus,
    stopping: watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    match bartizan_detectors::run(bus, config, data_dir, stopping, status).await {
        Ok(_) => Ok(()),
        Err(error) => Err(DaemonError::Detectors(Box::new(error))),
    }
}

pub(crate) async fn correlate(
    bus: Bus,
    config: CorrelateConfig,
    data_dir: PathBuf,
    status: CorrelateStatus,
    stopping: watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    correlate::run(bus, config, data_dir, stopping, status).await.map_err(|error| DaemonError::Correlation(Box::new(error)))
}

/// Tells `on_alert` of every alert that is stored from now on.
pub(crate) async fn announce(mut alerts: Subscription, on_alert: OnAlert, mut stopping: watch::Receiver<bool>) -> Result<(), DaemonError> {
    loop {
        let received = tokio::select! {
            // In this order: what was raised last is shown, and that ends because `on_alert` never waits.
            biased;
            received = alerts.recv() => received,
            // An error means that the sender is gone, which is the end as well.
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        match received {
            Ok(delivery) => match delivery.read::<Alert>() {
                Ok(alert) => on_alert(&alert, delivery.seq),
                Err(error) => tracing::warn!(seq = delivery.seq, "an alert is stored but cannot be shown: {error}"),
            },
            // Receiving goes on behind the damage.
            Err(error @ ReadError::Damaged { .. }) => tracing::warn!("some alerts cannot be shown: {error}"),
            Err(error) => {
                tracing::warn!("alerts are no longer shown here: {error}");
                return Ok(());
            }
        }
    }
}

/// Replaces secrets, with this host's key; `None` when that is turned off. The data folder is locked by this process.
fn redactor(config: &RedactionConfig, data_dir: &Path) -> Result<Option<Redactor>, DaemonError> {
    if !config.enabled {
        tracing::warn!("redaction is turned off: argument vectors are stored and forwarded as they are, with the secrets in them");
        return Ok(None);
    }
    Ok(Some(Redactor::new(config, Key::of_host(data_dir)?)?))
}

/// What EVENTS cannot speak for: the time since its last event, and what is known to be lost of its end.
fn gap_before(bus: &Bus) -> Option<Gap> {
    let info = bus.stream(StreamName::Events).info();
    let last = (info.messages > 0).then_some(info.last_time_ns)?;
    let now = clock::wall_offset().saturating_add(clock::boot_now() as i64);
    Some(gap(&info, last, now))
}

fn gap(info: &StreamInfo, from: i64, to: i64) -> Gap {
    let mut reason = "the sensor was not running".to_owned();
    if info.skipped_sequences_at_open > 0 {
        // A block that was reserved is skipped: that says nothing of how many messages were lost, if any.
        reason += ", and the end of the stream may have been lost: sequences were skipped so that none is used twice";
    }
    let lost = info.lost_at_end_at_open;
    Gap { reason, from_wall_ns: Some(from), to_wall_ns: Some(to), missing_sequences: (lost > 0).then_some(lost) }
}

pub(crate) fn start_event(hooks: &[HookReport]) -> Start {
    Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel_release(),
        hooks: hooks.iter().filter_map(|report| report.tier.map(|tier| format!("{} ({})", report.hook.name, tier.name))).collect(),
        blind: crate::report::blind(hooks, &[]).iter().map(|blind| format!("{}: {}", blind.what, blind.why)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bartizan_bus::BusConfig;

    use super::*;

    /// Longest wait for what takes a few rounds of the follower.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn alerts_are_announced_until_the_stop() {
        let temp = tempfile::tempdir().expect("temp folder");
        let bus = Bus::open(temp.path(), &BusConfig::default()).expect("bus");
        let (tell, told) = mpsc::channel();
        let (stop, stopping) = watch::channel(false);
        let on_alert: OnAlert = Box::new(move |alert, seq| tell.send((alert.id, seq)).expect("test listens"));
        let alerts = bus.stream(StreamName::Alerts).subscribe("terminal", SubscriptionConfig::default());
        let following = tokio::spawn(announce(alerts, on_alert, stopping));
        let alert = Arc::new(crate::cli::samples::alert());
        bus.append(&alert).expect("append");
        let heard = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await.expect("join");
        assert_eq!(heard, Ok((alert.id, 1)));
        stop.send(true).expect("announcer listens");
        tokio::time::timeout(PATIENCE, following).await.expect("ends").expect("no panic").expect("no error");
    }

    #[test]
    fn skipped_sequences_are_not_lost_messages() {
        let temp = tempfile::tempdir().expect("temp folder");
        let bus = Bus::open(temp.path(), &BusConfig::default()).expect("bus");
        let mut info = bus.stream(StreamName::Events).info();
        assert_eq!(gap(&info, 1, 2).reason, "the sensor was not running");
        info.skipped_sequences_at_open = 1 << 20;
        let skipped = gap(&info, 1, 2);
        assert!(skipped.reason.contains("may have been lost") && skipped.missing_sequences.is_none(), "{skipped:?}");
        info.lost_at_end_at_open = 3;
        assert_eq!(gap(&info, 1, 2).missing_sequences, Some(3));
    }

    #[tokio::test]
    async fn a_closed_bus_ends_the_announcing_after_its_last_alert() {
        let temp = tempfile::tempdir().expect("temp folder");
        let bus = Bus::open(temp.path(), &BusConfig::default()).expect("bus");
        let (_stop, stopping) = watch::channel(false);
        let (tell, told) = mpsc::channel();
        let alerts = bus.stream(StreamName::Alerts).subscribe("terminal", SubscriptionConfig::default());
        bus.append(&Arc::new(crate::cli::samples::alert())).expect("append");
        bus.close().expect("close");
        let following = tokio::spawn(announce(alerts, Box::new(move |_, seq| tell.send(seq).expect("test listens")), stopping));
        tokio::time::timeout(PATIENCE, following).await.expect("ends by itself").expect("no panic").expect("no error");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1]);
    }
}
