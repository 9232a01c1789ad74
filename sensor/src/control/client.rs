//! The asking side: `bartizan status`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan_bus::{Bus, Holder};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{MAX_REPLY, SOCKET_NAME, ShortPath};
use crate::status::StatusReport;

/// Pause before trying again when the daemon's queue of clients is full.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody runs on this data folder.
    #[error("Bartizan is not running on data folder {}: start it with `bartizan run --data-dir {0}`, or name another folder with --data-dir", data_dir.display())]
    NotRunning {
        /// The folder.
        data_dir: PathBuf,
    },
    /// Somebody has the data folder, and nobody is behind its socket.
    #[error("{holder} runs on data folder {}, but its control socket is gone or does not answer: {source}; it may be starting or stopping, else stop it and start it again", data_dir.display())]
    NoSocket {
        /// The folder.
        data_dir: PathBuf,
        /// Who has it.
        holder: Holder,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody runs, and this user may not ask.
    #[error("no permission to ask through {}: run this as the user that runs Bartizan (usually root)", path.display())]
    Permission {
        /// The socket or the folder.
        path: PathBuf,
    },
    /// Somebody has the socket and does not answer.
    #[error("Bartizan did not answer on {} within {} s: it is busy or stopped; look at its log", path.display(), patience.as_secs())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The answer is an error, or not one that this version reads.
    #[error("Bartizan's answer on {} cannot be used: {why}: use the `bartizan` of the version that runs", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The socket failed.
    #[error("cannot ask Bartizan through {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Asks the Bartizan that runs on `data_dir` for its status, within `patience`.
///
/// # Errors
/// [`ClientError`]; `NotRunning` when nobody has the folder, `NoSocket` when somebody has and cannot be asked.
pub async fn status(data_dir: &Path, patience: Duration) -> Result<StatusReport, ClientError> {
    let path = data_dir.join(SOCKET_NAME);
    let line = match tokio::time::timeout(patience, ask(data_dir)).await {
        Err(_) => return Err(ClientError::NoAnswer { path, patience }),
        Ok(Err(source)) => return Err(classify(source, data_dir, path)),
        Ok(Ok(line)) => line,
    };
    read_report(&line).map_err(|why| ClientError::Answer { path, why })
}

fn classify(source: io::Error, data_dir: &Path, path: PathBuf) -> ClientError {
    match source.kind() {
        // ENOTDIR too: a path below a file has nobody running on it either.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            let data_dir = data_dir.to_owned();
            match Bus::holder(&data_dir) {
                Some(holder) => ClientError::NoSocket { data_dir, holder, source },
                None => ClientError::NotRunning { data_dir },
            }
        }
        io::ErrorKind::PermissionDenied => ClientError::Permission { path },
        _ => ClientError::Io { path, source },
    }
}

async fn ask(data_dir: &Path) -> io::Result<Vec<u8>> {
    let short = ShortPath::new(data_dir, SOCKET_NAME)?;
    let stream = loop {
        match UnixStream::connect(&short.path).await {
            Ok(stream) => break stream,
            // connect(2) on a non-blocking UNIX socket says EAGAIN when the listener's queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(error),
        }
    };
    let (read, mut write) = stream.into_split();
    write.write_all(b"{\"request\":\"status\"}\n").await?;
    let mut line = Vec::new();
    BufReader::new(read.take(MAX_REPLY)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn read_report(line: &[u8]) -> Result<StatusReport, String> {
    if !line.ends_with(b"\n") {
        return Err(format!("it ends after {} bytes", line.len()));
    }
    serde_json::from_slice(line).map_err(|error| {
        let refusal = serde_json::from_slice::<serde_json::Value>(line).ok();
        match refusal.as_ref().and_then(|value| value.get("error")?.as_str()) {
            Some(refusal) => refusal.to_owned(),
            None => error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::sync::watch;

    use super::super::{Provider, bind, serve};
    use super::*;
    use crate::status::tests::report;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn provider() -> Provider {
        Arc::new(report)
    }

    #[tokio::test]
    async fn a_report_travels_whole_even_from_a_folder_with_a_long_path() {
        let temp = tempfile::tempdir().expect("temp folder");
        let data_dir = temp.path().join("long".repeat(50));
        std::fs::create_dir(&data_dir).expect("folder");
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(bind(&data_dir).expect("bind"), provider(), stopped));
        assert_eq!(status(&data_dir, PATIENCE).await.expect("status"), report());

        let socket = std::fs::metadata(data_dir.join(SOCKET_NAME)).expect("socket");
        assert!(socket.file_type().is_socket());
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);

        stop.send(true).expect("server listens");
        server.await.expect("server ends");
        assert!(matches!(status(&data_dir, PATIENCE).await, Err(ClientError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_not_running_and_is_replaced() {
        let temp = tempfile::tempdir().expect("temp folder");
        drop(std::os::unix::net::UnixListener::bind(temp.path().join(SOCKET_NAME)).expect("stale socket"));
        assert!(matches!(status(temp.path(), PATIENCE).await, Err(ClientError::NotRunning { .. })));

        let (_stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(bind(temp.path()).expect("bind over it"), provider(), stopped));
        assert_eq!(status(temp.path(), PATIENCE).await.expect("status"), report());
        server.abort();
    }

    #[tokio::test]
    async fn a_daemon_whose_socket_is_gone_is_running() {
        let temp = tempfile::tempdir().expect("temp folder");
        let bus = Bus::open(temp.path(), &bartizan_bus::BusConfig::default()).expect("bus");
        let error = status(temp.path(), PATIENCE).await.expect_err("no socket");
        let expected = format!("process {} runs on data folder {}, but its control socket", std::process::id(), temp.path().display());
        assert!(matches!(error, ClientError::NoSocket { .. }) && error.to_string().starts_with(&expected), "{error}");
        drop(std::os::unix::net::UnixListener::bind(temp.path().join(SOCKET_NAME)).expect("stale socket"));
        assert!(matches!(status(temp.path(), PATIENCE).await, Err(ClientError::NoSocket { .. })));
        drop(bus);
        assert!(matches!(status(temp.path(), PATIENCE).await, Err(ClientError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn a_missing_folder_is_not_running() {
        let temp = tempfile::tempdir().expect("temp folder");
        let error = status(&temp.path().join("none"), PATIENCE).await.expect_err("nobody is there");
        assert!(matches!(error, ClientError::NotRunning { .. }));
        assert!(error.to_string().contains("bartizan run --data-dir"), "{error}");
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_others_out_for_ever() {
        let temp = tempfile::tempdir().expect("temp folder");
        let (_stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(bind(temp.path()).expect("bind"), provider(), stopped));
        let mut silent = Vec::new();
        for _ in 0..9 {
            silent.push(UnixStream::connect(temp.path().join(SOCKET_NAME)).await.expect("connect"));
        }
        assert_eq!(status(temp.path(), Duration::from_secs(120)).await.expect("status after their deadline"), report());
        server.abort();
    }

    #[tokio::test]
    async fn one_who_never_answers_is_said_so() {
        let temp = tempfile::tempdir().expect("temp folder");
        let _listener = bind(temp.path()).expect("bind");
        let error = status(temp.path(), Duration::from_millis(50)).await.expect_err("no answer");
        assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    }

    #[test]
    fn a_refusal_is_quoted() {
        assert_eq!(read_report(b"{\"error\":\"not today\"}\n"), Err("not today".to_owned()));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_report(&line);
        }
    }
}
