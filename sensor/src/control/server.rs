//! The answering side, inside the daemon.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{MAX_REQUEST, SOCKET_NAME, ShortPath};
use crate::clients;
use crate::status::StatusReport;

/// Makes the report that is asked for.
pub type Provider = Arc<dyn Fn() -> StatusReport + Send + Sync>;

/// For a client to send its line, and to take the answer.
const STEP: Duration = Duration::from_secs(5);

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the control socket {}: {source}: the data folder must be on a file system that holds sockets and be writable", path.display())]
pub struct BindError {
    path: PathBuf,
    source: io::Error,
}

/// The bound socket; dropping it removes its file.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next start replaces a socket that stays behind.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes `<data_dir>/control.sock`, mode 0600. The caller holds the data folder's lock, so that a socket which is already
/// there belongs to a dead process and is replaced.
///
/// # Errors
/// [`BindError`] when the folder takes no socket. Must be called within a tokio runtime.
pub fn bind(data_dir: &Path) -> Result<Listener, BindError> {
    let path = data_dir.join(SOCKET_NAME);
    let make = || {
        // The mode of a socket file is the umask's doing at bind, and the umask belongs to the whole process. So it is made
        // under another name in a folder that is 0700 by the bus, restricted, and only then given its name.
        let temporary = format!(".{SOCKET_NAME}.new");
        let short = ShortPath::new(data_dir, &temporary)?;
        match std::fs::remove_file(&short.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&short.path)?;
        std::fs::set_permissions(&short.path, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&short.path, &path)?;
        Ok(listener)
    };
    match make() {
        Ok(inner) => Ok(Listener { inner, path }),
        Err(source) => Err(BindError { path, source }),
    }
}

/// Answers until `shutdown` becomes true or its sender is gone. Clients that are being served then are cut off.
pub async fn serve(listener: Listener, provider: Provider, shutdown: watch::Receiver<bool>) {
    clients::serve("control socket", &listener.inner, |stream| client(stream, Arc::clone(&provider)), shutdown).await;
}

async fn client(stream: UnixStream, provider: Provider) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let taken = tokio::time::timeout(STEP, (&mut read).take(MAX_REQUEST + 1).read_until(b'\n', &mut line)).await??;
        if taken == 0 {
            return Ok(());
        }
        let (mut reply, more) = answer(&line, &provider);
        reply.push(b'\n');
        tokio::time::timeout(STEP, write.write_all(&reply)).await??;
        if !more {
            return Ok(());
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    request: Request,
}

/// The answer to one line, and whether the connection may ask again.
fn answer(line: &[u8], provider: &Provider) -> (Vec<u8>, bool) {
    if line.len() as u64 > MAX_REQUEST {
        return (refuse(&format!("the request is longer than {MAX_REQUEST} bytes")), false);
    }
    match serde_json::from_slice(line) {
        Ok(Envelope { request: Request::Status }) => match serde_json::to_vec(&provider()) {
            Ok(report) => (report, true),
            Err(error) => (refuse(&format!("the status report cannot be written as JSON: {error}")), true),
        },
        Err(error) => (refuse(&format!("the request is not understood ({error}): ask {{\"request\":\"status\"}}")), true),
    }
}

fn refuse(why: &str) -> Vec<u8> {
    serde_json::json!({ "error": why }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::status::tests::report;

    fn provider() -> Provider {
        Arc::new(report)
    }

    fn error_of(reply: &[u8]) -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(reply).ok()?;
        Some(value.get("error")?.as_str()?.to_owned())
    }

    #[test]
    fn status_is_answered_with_the_report() {
        let (reply, more) = answer(b"{\"request\":\"status\"}\n", &provider());
        assert_eq!(serde_json::from_slice::<StatusReport>(&reply).expect("a report"), report());
        assert!(more);
    }

    #[test]
    fn an_unknown_request_is_refused_by_name() {
        let (reply, more) = answer(b"{\"request\":\"explode\"}\n", &provider());
        let error = error_of(&reply).expect("an error");
        assert!(error.contains("explode") && error.contains("status"), "{error}");
        assert!(more);
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (reply, more) = answer(&vec![b'x'; MAX_REQUEST as usize + 1], &provider());
        assert!(error_of(&reply).expect("an error").contains("4096"));
        assert!(!more);
    }

    proptest! {
        #[test]
        fn any_bytes_get_one_line_of_json(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let (reply, _) = answer(&line, &provider());
            prop_assert!(!reply.contains(&b'\n'));
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&reply).is_ok());
        }
    }
}
