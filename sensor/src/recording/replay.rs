//! `bartizan run --replay`: a recording in the place of the kernel, and everything behind it as it is live.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bartizan_bus::{Bus, BusConfig, Stream, StreamName, SubscriptionConfig};
use bartizan_detectors::EngineStatus;
use bartizan_detectors::correlate::CorrelateStatus;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::format::Header;
use super::read::{ReadError, Reader};
use super::totals::Totals;
use crate::config::Config;
use crate::counts::{Counts, Tally};
use crate::daemon::{DaemonError, Judged, OnAlert, announce, correlate, detect};
use crate::enrich::Enricher;
use crate::enrich::environment::Listed;
use crate::intake::{Input, Intake, Sink};
use crate::redact::{Key, Redactor};

/// Between two looks whether the detectors have caught up.
const LOOK: Duration = Duration::from_millis(2);
/// Inputs between two looks how far behind they are.
const STRIDE: u64 = 1024;
/// Events that they may be behind, at most: what is not judged must not pile up, in memory or until the stream's limit deletes it.
const MAX_BEHIND: u64 = 16_384;
/// Nothing in a replay is deleted for its age: recordings are old.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Why there is no replay, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be opened.
    #[error("{} cannot be opened: {source}; name a file that `bartizan record` made and that this user can read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be read, or the rest of it.
    #[error("{} {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReadError,
    },
    /// The data folder is in use.
    #[error(
        "the data folder {} is not empty, and a replay keeps apart what it finds: name one that is new or empty, or leave --data-dir out",
        .0.display()
    )]
    InUse(PathBuf),
    /// The data folder cannot be made or looked into.
    #[error("the data folder {} cannot be used: {source}; name another with --data-dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something behind the inputs failed.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// A recording that can be replayed.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// What there is in it, as far as it is good.
    pub totals: Totals,
    /// What is wrong with the rest of it.
    pub damage: Option<ReadError>,
}

impl Recording {
    /// Reads the whole file, so that what is wrong with it is said before anything comes of it. `allow_damaged`: what is before the damage
    /// will do.
    ///
    /// # Errors
    /// [`ReplayError::Open`] and [`ReplayError::Read`].
    pub fn check(path: &Path, allow_damaged: bool) -> Result<Self, ReplayError> {
        let mut reader = open(path)?;
        let damage = loop {
            match reader.next_input() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) if allow_damaged && error.leaves_the_rest() => break Some(error),
                Err(source) => return Err(ReplayError::Read { path: path.to_owned(), source }),
            }
        };
        Ok(Self { path: path.to_owned(), header: reader.header().clone(), totals: reader.totals().clone(), damage })
    }
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>, ReplayError> {
    let failed = |source| ReplayError::Open { path: path.to_owned(), source };
    // It is read twice, and opening a FIFO would wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    Reader::new(BufReader::with_capacity(1 << 20, file)).map_err(|source| ReplayError::Read { path: path.to_owned(), source })
}

/// The folder that a replay may use: `named`, if that is new or empty, else a fresh temporary one. It stays.
///
/// # Errors
/// [`ReplayError::InUse`] and [`ReplayError::Folder`].
pub fn data_folder(named: Option<&Path>) -> Result<PathBuf, ReplayError> {
    let Some(path) = named else {
        let template = std::env::temp_dir().join("bartizan-replay-XXXXXX");
        return nix::unistd::mkdtemp(&template).map_err(|errno| ReplayError::Folder { path: template, source: errno.into() });
    };
    match fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                Err(ReplayError::InUse(path.to_owned()))
            } else {
                Ok(path.to_owned())
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(source) => Err(ReplayError::Folder { path: path.to_owned(), source }),
    }
}

/// What came of a replay.
#[derive(Debug)]
pub struct Replayed {
    /// Somebody ended it before its end.
    pub interrupted: bool,
    /// Events by kind, and what was lost of them in the replay itself.
    pub counts: Counts,
    /// Events that EVENTS still holds, of so many that were made.
    pub kept: (u64, u64),
    /// Alerts.
    pub alerts: u64,
    /// Matches of correlation.
    pub matches: u64,
    /// How long it took.
    pub duration: Duration,
}

/// Replays `recording` into `config.data_dir`. Alerts go nowhere but into ALERTS and to `on_alert`: no forwarder, no NATS client and no
/// control socket are served.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(config: &Config, recording: &Recording, on_alert: OnAlert) -> Result<Replayed, ReplayError> {
    let started = Instant::now();
    let reader = open(&recording.path)?;
    let bus = Bus::open(&config.data_dir, &for_ever(config.bus(&config.events_budget()))).map_err(DaemonError::from)?;
    let tally = Arc::new(Tally::default());
    let intake = intake(config, &recording.header, bus.stream(StreamName::Events).clone(), Arc::clone(&tally))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bartizan")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { what: "cannot start the runtime's threads", source })?;
    let ran = runtime.block_on(run(config, &bus, recording, (reader, intake), on_alert));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let info = |name| bus.stream(name).info();
    let (events, alerts, matches) = (info(StreamName::Events), info(StreamName::Alerts), info(StreamName::Matches));
    bus.close().map_err(|source| DaemonError::System { what: "cannot sync the streams at the end", source })?;
    Ok(Replayed {
        interrupted: !ran?,
        counts: tally.counts(),
        kept: (events.messages, events.last_seq),
        alerts: alerts.messages,
        matches: matches.messages,
        duration: started.elapsed(),
    })
}

/// Age deletes nothing.
fn for_ever(mut bus: BusConfig) -> BusConfig {
    for stream in [&mut bus.events, &mut bus.alerts, &mut bus.matches, &mut bus.responses] {
        stream.max_age = FOR_EVER;
    }
    bus
}

/// Makes events as the recorded host would have.
fn intake(config: &Config, header: &Header, events: Stream, tally: Arc<Tally>) -> Result<Intake, DaemonError> {
    let Header { boot, host, wall_offset, started, start, key } = header.clone();
    let redactor = match config.redaction.enabled {
        true => Some(Redactor::new(&config.redaction, Key::from_bytes(key))?),
        false => None,
    };
    let enricher = Enricher::new(boot, host, wall_offset, config.sensor.process_table)
        .redacting(redactor)
        .keeping(Listed::new(&config.sensor.environment));
    let mut intake = Intake::new(enricher, events, tally, None);
    intake.take(Input::Begin { now: started, start, gap: None });
    Ok(intake)
}

/// Whether it came to the end.
async fn run(
    config: &Config,
    bus: &Bus,
    recording: &Recording,
    (reader, intake): (Reader<BufReader<File>>, Intake),
    on_alert: OnAlert,
) -> Result<bool, ReplayError> {
    let listen = |kind| signal(kind).map_err(|source| DaemonError::System { what: "cannot listen for signals", source });
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (shutdown, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let detectors = EngineStatus::new();
    tasks.spawn(detect(bus.clone(), config.detectors.clone(), config.data_dir.clone(), detectors.clone(), stopping.clone()));
    let correlation = config.detectors.correlate.enabled.then(CorrelateStatus::default);
    if let Some(status) = &correlation {
        tasks.spawn(correlate(bus.clone(), config.detectors.correlate.clone(), config.data_dir.clone(), status.clone(), stopping.clone()));
    }
    let alerts = bus.stream(StreamName::Alerts).subscribe("terminal", SubscriptionConfig::default());
    tasks.spawn(announce(alerts, on_alert, stopping));
    let judged =
        Judged { detectors, events: bus.stream(StreamName::Events).clone(), correlation, alerts: bus.stream(StreamName::Alerts).clone() };
    let stop = Arc::new(AtomicBool::new(false));
    let source = thread::Builder::new()
        .name("replay".to_owned())
        .spawn({
            let (stop, path, inputs) = (Arc::clone(&stop), recording.path.clone(), recording.totals.inputs);
            move || feed((reader, inputs), intake, &judged, &stop).map_err(|source| ReplayError::Read { path, source })
        })
        .map_err(|source| DaemonError::System { what: "cannot start the replay's thread", source })?;
    let failed = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // Each runs until it is told to stop.
        Some(ended) = tasks.join_next() => ended.unwrap_or(Err(DaemonError::Panicked("a background task"))),
        () = async { while !source.is_finished() { tokio::time::sleep(LOOK).await } } => Ok(()),
    };
    stop.store(true, Ordering::Release);
    let whole = source.join().map_err(|_| DaemonError::Panicked("the replay's thread"));
    // Receivers are gone only when every task has ended already.
    let _ = shutdown.send(true);
    let mut ended = failed;
    while let Some(task) = tasks.join_next().await {
        ended = ended.and(task.unwrap_or(Err(DaemonError::Panicked("a background task"))));
    }
    ended?;
    whole?
}

/// Hands as many inputs to `intake` as were checked, and waits until all that came of them is judged. No when it was stopped before.
fn feed(
    (mut reader, inputs): (Reader<BufReader<File>>, u64),
    mut intake: Intake,
    judged: &Judged,
    stop: &AtomicBool,
) -> Result<bool, ReadError> {
    let wait = |done: &dyn Fn() -> bool| {
        while !stop.load(Ordering::Acquire) {
            if done() {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    };
    while reader.totals().inputs < inputs {
        // What the stream does not take is counted.
        match reader.next_input()? {
            Some(input) => intake.take(input),
            None => break,
        };
        // The recorder has looked them up; what it found comes as an input.
        while intake.next_container().is_some() {}
        if reader.totals().inputs.is_multiple_of(STRIDE) && !wait(&|| judged.behind() <= MAX_BEHIND) {
            return Ok(false);
        }
    }
    // A recording that was cut has records whose time had not come.
    intake.take(Input::Due(u64::MAX));
    intake.take(Input::Second);
    let last = judged.last();
    Ok(wait(&|| judged.through(last)))
}
