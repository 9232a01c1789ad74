//! The two servers with the same settings: ours in this process, nats-server as a process that reads them from a file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bartizan_bus::edge::{Edge, EdgeConfig};
use bartizan_bus::nats::auth::{Credential, Permission, User};
use bartizan_bus::nats::{CloseReason, ServerConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wire::Wire;
use crate::{Failure, Outcome};

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
}

enum Running {
    Ours(Edge),
    NatsServer(Mutex<Child>),
}

/// A running server; it ends with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    running: Running,
    dir: tempfile::TempDir,
}

/// Loopback, any free port, nats-server's defaults.
pub(crate) fn config() -> ServerConfig {
    ServerConfig { listen: ([127, 0, 0, 1], 0).into(), ..ServerConfig::default() }
}

impl Server {
    pub(crate) async fn start(kind: Kind, config: ServerConfig) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        if kind == Kind::Ours {
            let edge = Edge::start(EdgeConfig { server: config, keep_sensor_names: false, ..EdgeConfig::default() }, dir.path(), None)?;
            return Ok(Self { address: edge.server().local_addr(), running: Running::Ours(edge), dir });
        }
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?.join("nats-server/2.14.6/nats-server");
        if !program.exists() {
            return Err(format!("{} is missing: run `cargo xtask test packages`", program.display()).into());
        }
        let file = dir.path().join("conf");
        std::fs::write(&file, written(&config, dir.path())?)?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let child = Command::new(program).arg("-c").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let ports = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let running = Running::NatsServer(Mutex::new(child));
        let mut server = Self { address: ([127, 0, 0, 1], 0).into(), running, dir };
        server.address.set_port(server.port(&ports).await?);
        Ok(server)
    }

    /// The port that nats-server took, from the file in which it says so.
    async fn port(&self, ports: &Path) -> Result<u16, Failure> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let said: Option<serde_json::Value> = std::fs::read(ports).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(url) = said.as_ref().and_then(|said| said["nats"][0].as_str()) {
                return Ok(url.rsplit(':').next().ok_or("no port")?.parse()?);
            }
            if Instant::now() > end {
                return Err(format!("nats-server does not listen: {}", std::fs::read_to_string(self.dir.path().join("log"))?).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection of which nothing is read yet.
    pub(crate) async fn wire(&self) -> Result<Wire, Failure> {
        Ok(Wire::plain(tokio::net::TcpStream::connect(self.address).await?))
    }

    /// A connection that has read INFO and said CONNECT with these fields too.
    pub(crate) async fn client(&self, fields: &str) -> Result<Wire, Failure> {
        let mut wire = self.wire().await?;
        wire.connect(fields).await?;
        Ok(wire)
    }

    /// Asks it to become a lame duck, and does not wait until it is done.
    pub(crate) async fn lame_duck(&self) -> Outcome {
        match &self.running {
            Running::Ours(edge) => edge.lame_duck().await?,
            Running::NatsServer(child) => {
                let pid = child.lock().map_err(|_| "poisoned")?.id();
                kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGUSR2)?;
            }
        }
        Ok(())
    }

    /// Ours counts why it closed connections; nats-server is believed.
    pub(crate) async fn counted(&self, reason: CloseReason) -> Outcome {
        let Running::Ours(edge) = &self.running else { return Ok(()) };
        let end = Instant::now() + Duration::from_secs(20);
        while edge.stats().server.closed.get(&reason).copied().unwrap_or(0) == 0 {
            if Instant::now() > end {
                return Err(format!("no connection closed as {reason:?} is counted: {:?}", edge.stats().server.closed).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Publications and subscriptions that ours counts as refused.
    pub(crate) fn violations(&self) -> Option<u64> {
        match &self.running {
            Running::Ours(edge) => Some(edge.stats().server.permission_violations),
            Running::NatsServer(_) => None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Running::NatsServer(child) = &self.running
            && let Ok(mut child) = child.lock()
        {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ms(time: Duration) -> String {
    format!("\"{}ms\"", time.as_millis())
}

fn path(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// The settings as nats-server reads them.
fn written(config: &ServerConfig, dir: &Path) -> Result<String, Failure> {
    let ServerConfig { listen: _, name, max_payload, max_control_line, max_pending, max_connections, max_subscriptions, .. } = config;
    let ServerConfig { ping_interval, ping_max, auth_timeout, write_deadline, lame_duck_grace, users, tls, .. } = config;
    let mut text = String::new();
    writeln!(text, "listen: \"127.0.0.1:-1\"\nserver_name: {name:?}\nports_file_dir: {}", path(dir))?;
    writeln!(text, "jetstream {{ store_dir: {} }}", path(&dir.join("data")))?;
    writeln!(text, "max_payload: {max_payload}\nmax_control_line: {max_control_line}\nmax_pending: {max_pending}")?;
    writeln!(text, "max_connections: {max_connections}\nmax_subscriptions: {max_subscriptions}")?;
    writeln!(text, "ping_interval: {}\nping_max: {ping_max}\nwrite_deadline: {}", ms(*ping_interval), ms(*write_deadline))?;
    writeln!(text, "lame_duck_grace_period: {}\nlame_duck_duration: \"5m\"", ms(*lame_duck_grace))?;
    if users.0.is_empty() {
        writeln!(text, "authorization {{ timeout: {} }}", auth_timeout.as_secs_f64())?;
    } else {
        writeln!(text, "authorization {{\n timeout: {}", auth_timeout.as_secs_f64())?;
        if let [User { credential: Credential::Token(token), .. }] = &*users.0 {
            writeln!(text, " token: {token:?}")?;
        } else {
            let users: Result<Vec<String>, Failure> = users.0.iter().map(user).collect();
            writeln!(text, " users: [\n{}\n ]", users?.join(",\n"))?;
        }
        writeln!(text, "}}")?;
    }
    if let Some(tls) = tls {
        writeln!(text, "tls {{\n cert_file: {}\n key_file: {}\n timeout: {}", path(&tls.cert), path(&tls.key), tls.timeout.as_secs_f64())?;
        if let Some(ca) = &tls.client_ca {
            writeln!(text, " ca_file: {}\n verify: true", path(ca))?;
        }
        if tls.handshake_first {
            writeln!(text, " handshake_first: true")?;
        }
        writeln!(text, "}}")?;
    }
    Ok(text)
}

fn user(user: &User) -> Result<String, Failure> {
    let User { credential, publish, subscribe, .. } = user;
    let who = match credential {
        Credential::Token(_) => return Err("nats-server knows one token only".into()),
        Credential::Password { user, password } => format!("user: {user:?}, password: {password:?}"),
        Credential::Nkey(key) => format!("nkey: {key:?}"),
    };
    let permission = |Permission { allow, deny }: &Permission| {
        let list = |name: &str, patterns: &[bartizan_bus::pattern::Pattern]| {
            let texts: Vec<String> = patterns.iter().map(|pattern| format!("{:?}", pattern.as_str())).collect();
            if texts.is_empty() { String::new() } else { format!("{name}: [{}]", texts.join(", ")) }
        };
        let both = [list("allow", allow), list("deny", deny)].into_iter().filter(|list| !list.is_empty()).collect::<Vec<_>>();
        format!("{{ {} }}", both.join(", "))
    };
    Ok(format!("  {{ {who}, permissions: {{ publish: {}, subscribe: {} }} }}", permission(publish), permission(subscribe)))
}

/// Where a test may put files.
pub(crate) fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = dir.path().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}
