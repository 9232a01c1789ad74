//! `bartizan record`: capture as `bartizan run` captures, into a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::format::Header;
use super::totals::Totals;
use super::write::{WriteError, Writer};
use crate::capture::load::Loaded;
use crate::capture::{HookState, LoadError, load, mounts, seed};
use crate::config::Config;
use crate::counts::Shared;
use crate::daemon::{DaemonError, accounts, lookups, may_capture, start_event};
use crate::enrich::clock;
use crate::enrich::environment::Listed;
use crate::host::host_name;
use crate::logins::LoginsFile;
use crate::pipeline::Pipeline;

/// Between two looks whether the capture thread still runs.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no recording, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Capture is not possible.
    #[error(transparent)]
    Capture(#[from] DaemonError),
    /// It would overwrite something.
    #[error("{} is there already, and a recording overwrites nothing: name another file, or remove that one", .0.display())]
    Exists(PathBuf),
    /// The file cannot be made.
    #[error("{} cannot be made: {source}; name a file in a folder that is there and can be written to", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The recording ended before its time.
    #[error(
        "the recording {} {source}. It holds what came before, and `bartizan run --replay {} --allow-damaged` replays that",
        path.display(),
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: WriteError,
    },
    /// A part of Bartizan panicked.
    #[error("the capture thread stopped unexpectedly: this is a bug in Bartizan; {} holds what came before", .0.display())]
    Panicked(PathBuf),
}

/// A recording that was made.
#[derive(Debug)]
pub struct Recorded {
    /// What there is in it.
    pub totals: Totals,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// Records into a new file until SIGTERM, SIGINT, or `limit` is over. `ready` is called once, when everything that happens from then on is
/// recorded, with the number of active hooks and of all.
///
/// # Errors
/// [`RecordError`]. A file that holds something is left.
pub fn record(config: &Config, path: &Path, limit: Option<Duration>, ready: impl FnOnce(usize, usize)) -> Result<Recorded, RecordError> {
    may_capture("record", &config.sensor.disable_hooks)?;
    // Asked again when it is made; here, so that nothing is loaded in vain.
    if path.symlink_metadata().is_ok() {
        return Err(RecordError::Exists(path.to_owned()));
    }
    if let Some(done) = mounts::ensure_tracefs() {
        tracing::info!("{done}");
    }
    let system = |what| move |source| RecordError::Capture(DaemonError::System { what, source });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("cannot start the runtime"))?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(system("cannot listen for signals"));
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?)
    };
    let loaded = load(&config.sensor.load(&config.files)).map_err(|error: LoadError| RecordError::Capture(error.into()))?;
    let file = create(path)?;
    let started = Instant::now();
    let (pipeline, shared) = pipeline(config, loaded, path, file)?;
    let active = shared.hooks.iter().filter(|report| report.state == HookState::Active).count();
    let capture = thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || pipeline.run(started))
        .map_err(system("cannot start the capture thread"))?;
    ready(active, shared.hooks.len());
    runtime.block_on(async {
        let over = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            while !capture.is_finished() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = over => {}
            () = ended => {}
        }
    });
    shared.stop();
    let writer = capture.join().map_err(|_| RecordError::Panicked(path.to_owned()))?;
    let written = |source| RecordError::Write { path: path.to_owned(), source };
    let (file, totals, bytes) = writer.finish().map_err(written)?;
    file.sync_all().map_err(|error| written(error.into()))?;
    Ok(Recorded { totals, bytes, duration: started.elapsed() })
}

/// Everything that captures, with the file behind it; the seeds are in the file.
fn pipeline(config: &Config, loaded: Loaded, path: &Path, file: File) -> Result<(Pipeline<Writer<File>>, Arc<Shared>), RecordError> {
    let Loaded { kernel, seeds, counters, hooks } = loaded;
    let start = start_event(&hooks);
    let seed_wanted = seed::is_active(&hooks);
    let shared = Arc::new(Shared::new(counters, hooks));
    let seeds = if seed_wanted { seed::take(seeds, clock::boot_now()) } else { seed::Seeds::default() };
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| DaemonError::System { what: "cannot make a key", source: io::Error::other(error.to_string()) })?;
    let header = Header {
        boot: clock::boot_id().map_err(DaemonError::Host)?,
        host: host_name(),
        wall_offset: clock::wall_offset(),
        started: clock::boot_now(),
        start: start.clone(),
        key,
    };
    let logins = LoginsFile::new(&config.data_dir).load().unwrap_or_else(|problem| {
        tracing::warn!("{problem}");
        Vec::new()
    });
    let sink = Writer::new(file, &header).map_err(|source| RecordError::Write { path: path.to_owned(), source })?;
    let sink = sink.keeping(Listed::new(&config.sensor.environment));
    let mut pipeline = Pipeline::new(kernel, config, Arc::clone(&shared), sink, lookups(config)?, None, accounts()?);
    pipeline.begin(start, None, logins, seeds);
    Ok((pipeline, shared))
}

/// A new file that its owner alone can read: it holds argument vectors with the secrets in them.
fn create(path: &Path) -> Result<File, RecordError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => RecordError::Exists(path.to_owned()),
        _ => RecordError::Create { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_file_is_new_and_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        let file = create(&path).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(create(&path), Err(RecordError::Exists(_))));
        // Not through a link neither, wherever it leads to.
        let link = folder.path().join("link");
        symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert!(matches!(create(&link), Err(RecordError::Exists(_))));
        let error = create(&folder.path().join("no/where")).unwrap_err();
        assert!(error.to_string().contains("name a file in a folder that is there"), "{error}");
    }
}
