//! The two servers, each a process of its own with its own folder and port.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Failure;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NatsServer,
    Ours,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NatsServer => "nats-server",
            Self::Ours => "ours",
        }
    }

    fn program(self) -> Result<PathBuf, Failure> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
        let (path, remedy) = match self {
            Self::NatsServer => (target.join("nats-server/2.14.6/nats-server"), "cargo xtask test packages"),
            Self::Ours => {
                let debug = std::env::current_exe()?.parent().and_then(Path::parent).map(|dir| dir.join("examples/serve"));
                let path = std::env::var_os("BARTIZAN_BUS_SERVE").map(PathBuf::from).or(debug).ok_or("no examples")?;
                (path, "cargo build -p bartizan-bus --examples")
            }
        };
        if !path.exists() {
            return Err(format!("{} is missing: run `{remedy}`", path.display()).into());
        }
        Ok(path)
    }
}

/// A running server; it ends with this.
pub(crate) struct Server {
    kind: Kind,
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    child: Mutex<Option<Child>>,
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self { kind, dir: tempfile::tempdir()?, port, child: Mutex::new(None) };
        server.run().await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it again where it was.
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let log = std::fs::File::create(self.dir.path().join("log"))?;
        let data = self.dir.path().join("data");
        let mut command = Command::new(self.kind.program()?);
        match self.kind {
            Kind::NatsServer => command.args(["-a", "127.0.0.1", "-js", "-p"]).arg(self.port.to_string()).arg("-sd").arg(&data),
            Kind::Ours => command.arg("--port").arg(self.port.to_string()).arg("--data-dir").arg(&data),
        };
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        *self.child.lock().map_err(|_| "poisoned")? = Some(child);
        let end = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if Instant::now() > end {
                return Err(format!("it does not listen: {}", std::fs::read_to_string(self.dir.path().join("log"))?).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.lock().map_err(|_| "poisoned")?.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is left to be told to.
        let _ = self.kill();
    }
}
