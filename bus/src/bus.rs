//! One data folder: its lock, its streams, and what must be done every few seconds.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

use crate::config::{BusConfig, StreamName};
use crate::error::OpenError;
use crate::files;
use crate::stream::{Stream, lock};

/// How often retention is enforced and cursors are synced.
const TICK: Duration = Duration::from_secs(5);
/// Longer than [`Bus::holder`] has the lock.
const LOOK: Duration = Duration::from_millis(50);

/// A process that has a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its pid, where the lock file says so.
    pub pid: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::error::holder(self.pid))
    }
}

/// Holds a data folder, so that no other process writes in it.
#[derive(Debug)]
pub struct FolderLock {
    _lock: Flock<File>,
}

impl FolderLock {
    /// Creates the folder where it is missing, and takes it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when somebody has the folder; [`OpenError::NotPrivate`]; otherwise what stands in the way.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        files::create_private_dir(dir).map_err(|source| OpenError::Io { action: "create folder", path: dir.to_owned(), source })?;
        check_private(dir)?;
        Ok(Self { _lock: take_lock(dir)? })
    }
}

/// All streams of one data folder. Clones are handles to the same bus; when the last one is dropped it is closed.
///
/// ```
/// # use bartizan_bus::{Bus, BusConfig, ConsumerConfig, Message, StreamName};
/// # let dir = tempfile::tempdir()?;
/// let bus = Bus::open(dir.path(), &BusConfig::default())?;
/// let alerts = bus.stream(StreamName::Alerts);
/// alerts.append(Message { subject: "sec.alerts.high.test".parse()?, msg_id: None, time_ns: 0, payload: "hello".into() })?;
/// let mut siem = alerts.consumer("siem", ConsumerConfig::default())?;
/// for delivery in siem.try_fetch(10)? {
///     siem.ack(delivery.seq);
/// }
/// siem.flush_acks()?;
/// bus.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    streams: [Stream; 4],
    ticker: Mutex<Option<Ticker>>,
    lock: Mutex<Option<Flock<File>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("streams", &self.streams).finish_non_exhaustive()
    }
}

impl Bus {
    /// Takes the data folder's lock, creates what is missing and recovers every stream.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when somebody has the folder; otherwise what stands in the way, and where.
    pub fn open(dir: &Path, config: &BusConfig) -> Result<Bus, OpenError> {
        Self::open_at_boot(dir, config, &files::boot_id())
    }

    /// Opens the folder as if the kernel had this boot id.
    pub(crate) fn open_at_boot(dir: &Path, config: &BusConfig, boot_id: &str) -> Result<Bus, OpenError> {
        files::create_private_dir(dir).map_err(|source| OpenError::Io { action: "create folder", path: dir.to_owned(), source })?;
        check_private(dir)?;
        let lock = take_lock(dir)?;
        let mut streams = Vec::with_capacity(StreamName::ALL.len());
        match open_streams(dir, config, boot_id, &mut streams) {
            Ok((streams, ticker)) => {
                Ok(Self { inner: Arc::new(Inner { streams, ticker: Mutex::new(Some(ticker)), lock: Mutex::new(Some(lock)) }) })
            }
            Err(error) => {
                close_all(&streams).unwrap_or_else(|error| warn!(%error, "cannot close the streams that had been opened"));
                Err(error)
            }
        }
    }

    /// Who has the data folder; `None` where nobody has, or where this user cannot find out. It takes nothing and creates nothing.
    pub fn holder(dir: &Path) -> Option<Holder> {
        let mut file = File::open(dir.join("lock")).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Some(Holder { pid: text.trim().parse().ok() }),
            // Held for this moment only, which `take_lock` waits out.
            Ok(_) | Err(_) => None,
        }
    }

    /// One of the streams.
    pub fn stream(&self, name: StreamName) -> &Stream {
        let [events, alerts, matches, responses] = &self.inner.streams;
        match name {
            StreamName::Events => events,
            StreamName::Alerts => alerts,
            StreamName::Matches => matches,
            StreamName::Responses => responses,
        }
    }

    /// Syncs everything, stores the consumers' cursors and releases the folder. Publishing and fetching end with `Closed`.
    /// Closing twice does nothing. Dropping the last handle does the same, and can only log what went wrong.
    ///
    /// # Errors
    /// The first failure; the rest is closed all the same.
    pub fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    /// Ends the bus as a power cut would.
    #[cfg(test)]
    pub(crate) fn crash(self) {
        self.inner.streams.iter().for_each(|stream| stream.inner.crash());
    }
}

impl Inner {
    fn close(&self) -> io::Result<()> {
        if let Some((stop, thread)) = lock(&self.ticker).take() {
            drop(stop);
            if thread.join().is_err() {
                warn!("the upkeep thread had panicked");
            }
        }
        let result = close_all(&self.streams);
        // Last: from here on the folder may be another process's.
        drop(lock(&self.lock).take());
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            warn!(%error, "cannot close the bus in good order: the next start recovers it");
        }
    }
}

type Ticker = (mpsc::Sender<()>, JoinHandle<()>);

/// Opens every stream; `opened` has those to close when this fails.
fn open_streams(dir: &Path, config: &BusConfig, boot_id: &str, opened: &mut Vec<Stream>) -> Result<([Stream; 4], Ticker), OpenError> {
    for name in StreamName::ALL {
        opened.push(Stream::open(dir, name, config.stream(name), boot_id)?);
    }
    for created in [dir.join("streams"), dir.join("consumers"), dir.to_owned()] {
        files::sync_dir(&created).map_err(|source| OpenError::Io { action: "sync folder", path: created, source })?;
    }
    let streams: [Stream; 4] = match opened.clone().try_into() {
        Ok(streams) => streams,
        Err(_) => unreachable!("one stream was opened per name"),
    };
    streams.iter().for_each(upkeep);
    let ticker =
        start_ticker(&streams).map_err(|source| OpenError::Io { action: "start the upkeep thread of", path: dir.to_owned(), source })?;
    Ok((streams, ticker))
}

fn close_all(streams: &[Stream]) -> io::Result<()> {
    let mut result = Ok(());
    for stream in streams {
        let closed = stream.inner.close();
        if result.is_ok() {
            result = closed;
        }
    }
    result
}

/// Refuses a folder in which somebody else could replace files: what is read back from it decides what is alerted.
fn check_private(dir: &Path) -> Result<(), OpenError> {
    let found = files::foreign_hands(dir).map_err(|source| OpenError::Io { action: "look at", path: dir.to_owned(), source })?;
    match found {
        None => Ok(()),
        Some((owner, mode)) => Err(OpenError::NotPrivate { dir: dir.to_owned(), owner, mode, user: nix::unistd::geteuid().as_raw() }),
    }
}

/// Takes `<dir>/lock`. The file stays; only the lock on it tells whether somebody has the folder.
fn take_lock(dir: &Path) -> Result<Flock<File>, OpenError> {
    let path = dir.join("lock");
    let io_error = |action| {
        let path = path.clone();
        move |source| OpenError::Io { action, path, source }
    };
    let file = files::open_private(&path).map_err(io_error("open"))?;
    let taken = Flock::lock(file, FlockArg::LockExclusiveNonblock).or_else(|(file, _)| {
        // `Bus::holder` may have been looking.
        std::thread::sleep(LOOK);
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
    });
    match taken {
        Ok(mut lock) => {
            lock.set_len(0).map_err(io_error("write"))?;
            writeln!(lock, "{}", std::process::id()).map_err(io_error("write"))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Err(OpenError::Locked { dir: dir.to_owned(), pid })
        }
        Err((_, errno)) => Err(OpenError::Io { action: "lock", path: path.clone(), source: errno.into() }),
    }
}

/// Retention and cursors, every [`TICK`] until the sender is dropped. This is where the bus reads the wall clock.
fn start_ticker(streams: &[Stream; 4]) -> io::Result<Ticker> {
    let (stop, stopped) = mpsc::channel::<()>();
    let streams = streams.clone();
    let thread = std::thread::Builder::new().name("bus upkeep".to_owned()).spawn(move || {
        while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            streams.iter().for_each(upkeep);
        }
    })?;
    Ok((stop, thread))
}

fn upkeep(stream: &Stream) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => {
            let now_ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
            if let Err(error) = stream.enforce_retention(now_ns) {
                warn!(stream = %stream.name(), %error, "cannot delete old segments: trying again in a few seconds");
            }
        }
        Err(_) => warn!(stream = %stream.name(), "the wall clock stands before 1970: nothing is deleted by age"),
    }
    stream.inner.store_consumers();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_holder_is_known_while_there_is_one() {
        let temp = tempfile::tempdir().expect("temp folder");
        let dir = temp.path().join("data");
        assert_eq!(Bus::holder(&dir), None);
        let bus = Bus::open(&dir, &BusConfig::default()).expect("open");
        assert_eq!(Bus::holder(&dir), Some(Holder { pid: Some(std::process::id()) }));
        bus.close().expect("close");
        assert_eq!(Bus::holder(&dir), None);
        drop(Bus::open(&dir, &BusConfig::default()).expect("looking keeps nothing"));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let temp = tempfile::tempdir().expect("temp folder");
        for mode in [0o770, 0o707, 0o1777] {
            std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(mode)).expect("chmod");
            let error = Bus::open(temp.path(), &BusConfig::default()).expect_err("not private");
            assert!(matches!(error, OpenError::NotPrivate { mode: found, .. } if found == mode), "{error}");
            assert!(error.to_string().contains(&format!("mode {mode:04o}")) && error.to_string().contains("chmod 700"), "{error}");
        }
        assert_eq!(std::fs::read_dir(temp.path()).expect("list").count(), 0, "nothing is put into it");
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        drop(Bus::open(temp.path(), &BusConfig::default()).expect("others may look"));
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().expect("temp folder");
        std::os::unix::fs::chown(temp.path(), Some(65_534), None).expect("chown");
        let error = Bus::open(temp.path(), &BusConfig::default()).expect_err("another's");
        assert!(matches!(error, OpenError::NotPrivate { owner: 65_534, user: 0, .. }), "{error}");
    }
}
