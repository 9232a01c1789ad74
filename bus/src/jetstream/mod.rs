//! JetStream over [`crate::store::Store`] and [`crate::nats::route::Router`]: streams and consumers for any NATS client.
//!
//! Invariants worth naming:
//!
//! - **A publication is acknowledged when its stream's promise holds**: written, or synced with `always`. Never before.
//! - **What is not supported answers with JetStream's own error**, never with silence, and is never ignored.
//! - **One lock a stream** covers its settings, its consumers and the order of what is published into it. Advisories are published when
//!   no lock is held.
//! - **Definitions are synced when they are made**; consumers' places follow within moments and are never ahead of their acknowledgements.

mod api;
mod config;
mod consumer;
mod error;
#[cfg(test)]
mod foreign;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod local;
mod meta;
#[cfg(test)]
mod sim;
mod stream;
mod tap;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::config::{StreamName, SyncPolicy};
use crate::error::OpenError;
use crate::log::{Log, LogConfig, lock, stream_dir};
use crate::nats::route::{Router, TapId};
use crate::pattern::Pattern;
use crate::store::{Durable, MemoryStore, Store, StoreError};
pub use config::{AckPolicy, ConsumerConfig, ConsumerLimits, DeliverPolicy, Discard, Storage, StreamConfig};
use consumer::{Consumer, Saved, Time};
pub use error::ApiError;
pub use meta::{FileMeta, MemoryMeta, MetaStore};
pub use stream::Builtin;
use stream::Entry;

/// The JetStream API level that is really here: 0 is nats-server 2.10's.
pub const API_LEVEL: u64 = 0;
/// What panicked is tried again behind so much time.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// How often consumers' places are stored.
const STORE_EVERY: Duration = Duration::from_millis(250);
/// How often a stream with an age limit is looked at, at most and at least.
const EXPIRE_EVERY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// In a stream's metadata: `always`, `interval` or `os`.
const SYNC_KEY: &str = "bartizan.sync";

/// Opens the stores of streams.
pub trait StoreFactory: Send + Sync {
    /// Opens or creates the store of a stream. Also tells whether its acknowledgements wait for the disk.
    ///
    /// # Errors
    /// What stands in the way.
    fn open(&self, config: &StreamConfig) -> Result<(Arc<dyn Store>, bool), OpenError>;

    /// Whether clients may make no stream of this name, because somebody else has a place for it.
    fn reserves(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// Streams in files of a data folder, or in memory where they ask for it.
#[derive(Debug)]
pub struct FileStores {
    dir: PathBuf,
    sync: SyncPolicy,
    keep_sensor_names: bool,
}

impl FileStores {
    /// In this folder, synced by this policy where a stream's metadata (`bartizan.sync`) does not say otherwise.
    pub fn new(dir: &Path, sync: SyncPolicy) -> Self {
        Self { dir: dir.to_owned(), sync, keep_sensor_names: false }
    }

    /// Clients may make no streams of the names that the sensor's have in the same folder.
    #[must_use]
    pub fn keeping_sensor_names(self) -> Self {
        Self { keep_sensor_names: true, ..self }
    }
}

impl StoreFactory for FileStores {
    fn open(&self, config: &StreamConfig) -> Result<(Arc<dyn Store>, bool), OpenError> {
        if config.storage == Storage::Memory {
            return Ok((Arc::new(MemoryStore::new(config.limits())), false));
        }
        let sync = match config.metadata.get(SYNC_KEY).map(String::as_str) {
            Some("always") => SyncPolicy::Always,
            Some("interval") => SyncPolicy::Interval(Duration::from_millis(200)),
            Some("os") => SyncPolicy::Os,
            _ => self.sync,
        };
        let settings = LogConfig { sync, ..LogConfig::new(&config.name, config.limits()) };
        let log = Log::open(&stream_dir(&self.dir, &config.name), settings)?;
        Ok((log, sync == SyncPolicy::Always))
    }

    /// The sensor's streams have folders of these names, whether it has run here or not.
    fn reserves(&self, name: &str) -> bool {
        self.keep_sensor_names && name.parse::<StreamName>().is_ok()
    }
}

/// JetStream that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Definitions that cannot be read.
    #[error("cannot read the definition of {what}: {reason}; move its file out of the jetstream folder to go on without it")]
    Definition {
        /// Of which stream or consumer.
        what: String,
        /// Why.
        reason: String,
    },
    /// The folder cannot be read.
    #[error("cannot read the definitions of streams: {0}")]
    Io(#[from] io::Error),
    /// A stream's log.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A stream's definition on disk.
#[derive(Serialize, Deserialize)]
struct StreamFile {
    created_ns: i64,
    config: StreamConfig,
}

/// A consumer's definition on disk.
#[derive(Serialize, Deserialize)]
struct ConsumerFile {
    config: ConsumerConfig,
    saved: Saved,
}

/// Everything JetStream knows.
pub(crate) struct Js {
    pub(crate) me: Weak<Js>,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) server: String,
    factory: Box<dyn StoreFactory>,
    pub(crate) meta: Box<dyn MetaStore>,
    pub(crate) streams: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Held while streams come and go.
    pub(crate) admin: Mutex<()>,
    started: Instant,
    taps: Mutex<Vec<TapId>>,
    deadlines: Mutex<BTreeSet<(u64, String)>>,
    earlier: Notify,
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    closing: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Running JetStream.
#[derive(Clone)]
pub struct JetStream {
    pub(crate) js: Arc<Js>,
}

impl std::fmt::Debug for JetStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JetStream").field("server", &self.js.server).finish_non_exhaustive()
    }
}

/// A stream in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct StreamStats {
    /// Its name.
    pub name: String,
    /// Messages held.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Oldest sequence.
    pub first_seq: u64,
    /// Newest sequence.
    pub last_seq: u64,
    /// Publications refused.
    pub refused: u64,
    /// Message ids forgotten within the duplicate window because there were too many.
    pub forgotten_ids: u64,
    /// Its consumers.
    pub consumers: Vec<ConsumerStats>,
}

/// A consumer in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumerStats {
    /// Its name.
    pub name: String,
    /// Whether it has a durable name: others come and go with their clients.
    pub durable: bool,
    /// Messages to come.
    pub num_pending: u64,
    /// Messages delivered and not acknowledged.
    pub num_ack_pending: u64,
    /// Messages delivered more than once, ever.
    pub redelivered: u64,
    /// Pull requests that wait.
    pub num_waiting: u64,
}

impl JetStream {
    /// Opens everything that was defined before and answers on the router, on the tokio runtime this is called in.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        router: Arc<dyn Router>,
        server: &str,
        factory: Box<dyn StoreFactory>,
        meta: Box<dyn MetaStore>,
    ) -> Result<Self, StartError> {
        let js = Arc::new_cyclic(|me| Js {
            me: me.clone(),
            router,
            server: server.to_owned(),
            factory,
            meta,
            streams: RwLock::default(),
            admin: Mutex::default(),
            started: Instant::now(),
            taps: Mutex::default(),
            deadlines: Mutex::default(),
            earlier: Notify::new(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        js.load()?;
        tap::register(&js);
        let tasks = vec![tokio::spawn(keep_time(Arc::downgrade(&js))), tokio::spawn(keep_places(Arc::downgrade(&js)))];
        lock(&js.tasks).extend(tasks);
        Ok(Self { js })
    }

    /// Serves a log of the process itself as a stream that clients can read but not change.
    ///
    /// # Errors
    /// Its consumers cannot be read, or a stream of this name is there already.
    pub fn register_builtin(&self, config: StreamConfig, store: Arc<dyn Store>, builtin: Arc<dyn Builtin>) -> Result<(), StartError> {
        let definition = |reason: String| StartError::Definition { what: format!("stream {}", config.name), reason };
        let config = config.clone().checked().map_err(|error| definition(error.description))?;
        if self.js.stream(&config.name).is_some() {
            return Err(definition("there is a stream of this name already".to_owned()));
        }
        let name = config.name.clone();
        let created_ns = store.state().first_time_ns;
        let entry = Arc::new(Entry::new(config, store, created_ns, Some(builtin), true));
        self.js.load_consumers(&entry)?;
        self.js.enter(&entry);
        self.js.arm(&name);
        Ok(())
    }

    /// Streams and consumers in numbers.
    pub fn stats(&self) -> Vec<StreamStats> {
        self.js.all().iter().map(|entry| stats(entry)).collect()
    }

    /// Stores consumers' places, syncs and closes the streams. What is published afterwards is not taken.
    ///
    /// # Errors
    /// The first failure; everything else is closed all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let js = &self.js;
        if js.closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        lock(&js.taps).drain(..).for_each(|tap| js.router.untap(tap));
        lock(&js.tasks).drain(..).for_each(|task| task.abort());
        let mut result = Ok(());
        for entry in js.all() {
            lock(&entry.taps).drain(..).for_each(|(_, tap)| js.router.untap(tap));
            entry.flush(&*js.router);
            let mut outbox = entry.outbox(&*js.router);
            entry.state().consumers.values_mut().for_each(|consumer| consumer.end_all("409 Server Shutdown", &mut outbox));
            js.store_places(&entry, true);
            if entry.builtin.is_none() {
                let closed = entry.store.close();
                entry.acknowledge(&mut entry.state(), &*js.router);
                result = result.and(closed);
            }
        }
        js.router.flush();
        result
    }
}

fn stats(entry: &Entry) -> StreamStats {
    let state = entry.store.state();
    let mut inner = entry.state();
    let consumers = inner.consumers.values_mut().map(|consumer| ConsumerStats {
        name: consumer.name.clone(),
        durable: !consumer.config.durable_name.is_empty(),
        num_pending: consumer.num_pending(&*entry.store),
        num_ack_pending: consumer.num_ack_pending() as u64,
        redelivered: consumer.redelivered,
        num_waiting: consumer.num_waiting() as u64,
    });
    let consumers = consumers.collect();
    StreamStats {
        name: entry.name.clone(),
        messages: state.messages,
        bytes: state.bytes,
        first_seq: state.first_seq,
        last_seq: state.last_seq,
        refused: inner.refused,
        forgotten_ids: inner.dedupe.forgotten_early(),
        consumers,
    }
}

impl Js {
    /// What time it is. The only place that asks.
    pub(crate) fn now(&self) -> Time {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time {
            ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            wall_ns: i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    pub(crate) fn stream(&self, name: &str) -> Option<Arc<Entry>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn load(&self) -> Result<(), StartError> {
        for file in stream_files(&*self.meta)? {
            let (store, slow) = self.factory.open(&file.config)?;
            let entry = Arc::new(Entry::new(file.config, store, file.created_ns, None, slow));
            self.load_consumers(&entry)?;
            self.enter(&entry);
            self.arm(&entry.name);
        }
        Ok(())
    }

    fn load_consumers(&self, entry: &Entry) -> Result<(), StartError> {
        let folder = consumer_folder(&entry.name);
        for name in self.meta.list(&folder)? {
            let definition = |reason: String| StartError::Definition { what: format!("consumer {name} of stream {}", entry.name), reason };
            let bytes = self.meta.get(&folder, &name)?.ok_or_else(|| definition("it is gone".to_owned()))?;
            let file: ConsumerFile = serde_json::from_slice(&bytes).map_err(|error| definition(error.to_string()))?;
            let consumer = Consumer::restore(&entry.name, &name, file.config, &file.saved, &*entry.store, self.now())
                .map_err(|error| definition(error.description))?;
            entry.state().consumers.insert(name.clone(), consumer);
        }
        Ok(())
    }

    /// Takes a stream up: from now on what is published on its subjects is its.
    pub(crate) fn enter(&self, entry: &Arc<Entry>) {
        self.streams.write().unwrap_or_else(PoisonError::into_inner).insert(entry.name.clone(), Arc::clone(entry));
        self.listen(entry);
        if entry.slow_acks
            && let Some(js) = self.me.upgrade()
        {
            let task = tokio::spawn(follow(Arc::downgrade(&js), Arc::clone(entry), entry.store.durable()));
            lock(&self.tasks).push(task);
        }
    }

    /// Taps the stream's subjects. Those it had before stay tapped all the time: nothing that is published meanwhile is missed.
    pub(crate) fn listen(&self, entry: &Arc<Entry>) {
        let mut patterns: Vec<Pattern> = entry.state().config.patterns().unwrap_or_default();
        let mut taps = lock(&entry.taps);
        taps.retain(|(pattern, tap)| {
            let stays = patterns.contains(pattern);
            if !stays {
                self.router.untap(*tap);
            }
            stays
        });
        patterns.retain(|pattern| taps.iter().all(|(tapped, _)| tapped != pattern));
        if let Some(js) = self.me.upgrade() {
            let tap = Arc::new(tap::StreamTap::new(&js, entry));
            taps.extend(patterns.into_iter().map(|pattern| {
                let id = self.router.tap(&pattern, tap.clone());
                (pattern, id)
            }));
        }
    }

    pub(crate) fn open_store(&self, config: &StreamConfig) -> Result<(Arc<dyn Store>, bool), OpenError> {
        self.factory.open(config)
    }

    pub(crate) fn put_stream(&self, entry: &Entry, config: &StreamConfig) -> io::Result<()> {
        if config.storage == Storage::Memory {
            return Ok(());
        }
        let file = StreamFile { created_ns: entry.created_ns, config: config.clone() };
        self.meta.put("streams", &entry.name, &serde_json::to_vec(&file)?, true)
    }

    /// Stores a consumer's definition and place, synced. Ephemeral ones end with the process. The stream's state is locked.
    pub(crate) fn put_consumer(&self, entry: &Entry, consumer: &mut Consumer) -> io::Result<()> {
        if !consumer.config.is_durable() || consumer.config.mem_storage {
            return Ok(());
        }
        let file = ConsumerFile { config: consumer.config.clone(), saved: consumer.save() };
        let _places = lock(&entry.places);
        self.meta.put(&consumer_folder(&entry.name), &consumer.name, &serde_json::to_vec(&file)?, true)?;
        consumer.dirty = false;
        Ok(())
    }

    /// Stores the places of consumers that moved.
    fn store_places(&self, entry: &Entry, sync: bool) {
        let mut state = entry.state();
        if state.deleted || state.config.storage == Storage::Memory {
            return;
        }
        let dirty =
            state.consumers.values_mut().filter(|consumer| consumer.dirty && consumer.config.is_durable() && !consumer.config.mem_storage);
        let moved: Vec<(String, ConsumerFile)> = dirty
            .map(|consumer| {
                consumer.dirty = false;
                (consumer.name.clone(), ConsumerFile { config: consumer.config.clone(), saved: consumer.save() })
            })
            .collect();
        if moved.is_empty() {
            return;
        }
        // From here on nobody else changes these files: what is older cannot replace what is newer, nor bring back what was deleted.
        let places = lock(&entry.places);
        drop(state);
        let mut failed = Vec::new();
        for (name, file) in moved {
            let stored = serde_json::to_vec(&file)
                .map_err(io::Error::from)
                .and_then(|bytes| self.meta.put(&consumer_folder(&entry.name), &name, &bytes, sync));
            if let Err(error) = stored {
                warn!(stream = entry.name, consumer = name, %error, "cannot write a consumer's place: after a crash messages would come again");
                failed.push(name);
            }
        }
        drop(places);
        if !failed.is_empty() {
            let mut state = entry.state();
            for name in failed {
                if let Some(consumer) = state.consumers.get_mut(&name) {
                    consumer.dirty = true;
                }
            }
        }
    }

    /// Lets a stream's consumers hand out what they can.
    pub(crate) fn pump(&self, entry: &Entry) {
        entry.flush(&*self.router);
        let deadline = entry.pump(self.now(), &*self.router);
        if let Some(deadline) = deadline {
            self.wake_at(deadline, &entry.name);
        }
    }

    /// A stream is looked at not later than this.
    fn wake_at(&self, deadline_ns: u64, stream: &str) {
        let mut deadlines = lock(&self.deadlines);
        // One is enough if it is earlier.
        if deadlines.iter().take_while(|(at, _)| *at <= deadline_ns).any(|(_, name)| name == stream) {
            return;
        }
        let earliest = deadlines.first().is_none_or(|(at, _)| deadline_ns < *at);
        deadlines.insert((deadline_ns, stream.to_owned()));
        drop(deadlines);
        if earliest {
            self.earlier.notify_one();
        }
    }

    /// A stream is looked at soon.
    pub(crate) fn arm(&self, stream: &str) {
        self.wake_at(self.now().ns, stream);
    }

    /// Looks at a stream whose time has come: age limits, consumers nobody uses, everything that waits.
    fn look_at(&self, name: &str) {
        let Some(entry) = self.stream(name) else { return };
        let time = self.now();
        let max_age = u64::try_from(entry.state().config.max_age).unwrap_or(0);
        if max_age > 0 && entry.builtin.is_none() {
            if let Err(error) = entry.store.expire(time.wall_ns) {
                warn!(stream = name, %error, "cannot delete old messages: trying again");
            }
            let every = Duration::from_nanos(max_age / 4).clamp(EXPIRE_EVERY.0, EXPIRE_EVERY.1);
            self.wake_at(time.ns + every.as_nanos() as u64, name);
        }
        let abandoned: Vec<String> = {
            let mut outbox = entry.outbox(&*self.router);
            let mut state = entry.state();
            let gone =
                state.consumers.values_mut().filter_map(|consumer| consumer.is_abandoned(time, &mut outbox).then(|| consumer.name.clone()));
            gone.collect()
        };
        for consumer in abandoned {
            self.remove_consumer(&entry, &consumer, "409 Consumer Deleted");
        }
        self.pump(&entry);
    }

    /// Ends a consumer. False where there is none.
    pub(crate) fn remove_consumer(&self, entry: &Entry, name: &str, line: &str) -> bool {
        let mut outbox = entry.outbox(&*self.router);
        let mut state = entry.state();
        let Some(mut removed) = state.consumers.remove(name) else { return false };
        removed.end_all(line, &mut outbox);
        let _places = lock(&entry.places);
        drop(state);
        if removed.config.is_durable()
            && let Err(error) = self.meta.remove(&consumer_folder(&entry.name), name)
        {
            warn!(stream = entry.name, consumer = name, %error, "cannot delete a consumer's definition: it would come back with the next start");
        }
        true
    }
}

/// Runs what may wait for a disk, so that nobody else does: the runtime's other tasks go on on another thread.
pub(crate) fn blocking<R>(work: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A panic is told, and ends nothing but this piece of work: the task that did it serves all the others.
pub(crate) fn survives<R>(what: &str, stream: &str, work: impl FnOnce() -> R) -> Option<R> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
    if done.is_none() {
        tracing::error!(stream, "{what} panicked: going on; please report it");
    }
    done
}

fn stream_files(meta: &dyn MetaStore) -> Result<Vec<StreamFile>, StartError> {
    let mut files = Vec::new();
    for name in meta.list("streams")? {
        let definition = |reason: String| StartError::Definition { what: format!("stream {name}"), reason };
        let bytes = meta.get("streams", &name)?.ok_or_else(|| definition("it is gone".to_owned()))?;
        files.push(serde_json::from_slice(&bytes).map_err(|error| definition(error.to_string()))?);
    }
    Ok(files)
}

/// Settings of all streams that clients made.
///
/// # Errors
/// [`StartError::Definition`] for one that does not read, [`StartError::Io`].
pub fn definitions(meta: &dyn MetaStore) -> Result<Vec<StreamConfig>, StartError> {
    Ok(stream_files(meta)?.into_iter().map(|file| file.config).collect())
}

pub(crate) fn consumer_folder(stream: &str) -> String {
    format!("consumers/{stream}")
}

/// Sends acknowledgements and deliveries when the disk has come so far.
///
/// `durable` was subscribed before anything could be published, so that no sync is missed.
async fn follow(js: Weak<Js>, entry: Arc<Entry>, mut durable: watch::Receiver<Durable>) {
    while durable.changed().await.is_ok() {
        let ended = durable.borrow_and_update().ended;
        let Some(js) = js.upgrade() else { return };
        survives("acknowledgements and deliveries", &entry.name, || {
            entry.acknowledge(&mut entry.state(), &*js.router);
            if let Some(deadline) = entry.pump(js.now(), &*js.router) {
                js.wake_at(deadline, &entry.name);
            }
        });
        js.router.flush();
        if ended {
            return;
        }
    }
}

/// Looks at streams when their time has come.
async fn keep_time(js: Weak<Js>) {
    loop {
        let wait = {
            let Some(js) = js.upgrade() else { return };
            let now = js.now().ns;
            let due: Vec<String> = {
                let mut deadlines = lock(&js.deadlines);
                let mut due = Vec::new();
                while let Some((_, name)) = deadlines.pop_first_if_due(now) {
                    due.push(name);
                }
                due
            };
            for name in &due {
                if survives("a look at a stream", name, || blocking(|| js.look_at(name))).is_none() {
                    js.wake_at(js.now().ns + AFTER_PANIC.as_nanos() as u64, name);
                }
            }
            js.router.flush();
            let next = lock(&js.deadlines).first().map(|(at, _)| *at);
            next.map(|next| Duration::from_nanos(next.saturating_sub(js.now().ns)))
        };
        let Some(js) = js.upgrade() else { return };
        let earlier = js.earlier.notified();
        match wait {
            Some(wait) => {
                let _ = tokio::time::timeout(wait, earlier).await;
            }
            None => earlier.await,
        }
    }
}

trait PopDue {
    fn pop_first_if_due(&mut self, now: u64) -> Option<(u64, String)>;
}

impl PopDue for BTreeSet<(u64, String)> {
    fn pop_first_if_due(&mut self, now: u64) -> Option<(u64, String)> {
        if self.first()?.0 <= now { self.pop_first() } else { None }
    }
}

/// Stores consumers' places every few moments.
async fn keep_places(js: Weak<Js>) {
    loop {
        tokio::time::sleep(STORE_EVERY).await;
        let Some(js) = js.upgrade() else { return };
        for entry in js.all() {
            survives("storing consumers' places", &entry.name, || blocking(|| js.store_places(&entry, false)));
        }
    }
}
