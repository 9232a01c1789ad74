//! A server for one measurement: started on a free port with a folder of its own, stopped in good order, weighed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::observer::dying_with_us;
use crate::command;

/// Longest wait for a server to listen. One that reads millions of messages again takes its time.
const READY: Duration = Duration::from_secs(600);
/// Longest wait for a server to end after it was asked to.
const END: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// nats-server.
    Nats,
    /// Our own.
    Ours,
    /// Redis.
    Redis,
}

impl Kind {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Ours => "ours",
            Self::Redis => "redis",
        }
    }

    /// As in a table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Ours => "Bartizan",
            Self::Redis => "Redis",
        }
    }
}

/// What the power may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Synced now and then: ours every 200 ms, Redis every second, nats-server every two minutes. Each server's own default.
    Interval,
    /// Synced before it is acknowledged.
    Always,
}

impl Durability {
    /// In a measurement's name.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Interval => "default sync",
            Self::Always => "every message synced",
        }
    }

    /// Our own servers' word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Always => "always",
        }
    }
}

/// A program that can be started as often as one likes.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) kind: Kind,
    /// The program, or for our own the words of its command.
    pub(super) words: Vec<String>,
    /// What it says of its version.
    pub(super) version: String,
    /// Our own streams' metadata, with `{sync}`.
    pub(super) metadata: Option<String>,
}

impl Program {
    /// Starts it in `folder`, which exists for a restart and is made otherwise.
    ///
    /// # Errors
    /// It ends, or does not listen.
    pub(super) fn start(&self, folder: &Path, durability: Durability) -> Result<Server> {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made: check who owns target/", folder.display()))?;
        let port = free_port()?;
        let data = folder.join("data");
        fs::create_dir_all(&data).with_context(|| format!("{} cannot be made", data.display()))?;
        let mut command = dying_with_us()?;
        command.args(self.arguments(folder, &data, port, durability)?);
        let log = folder.join("log");
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let output = file.try_clone().with_context(|| format!("{} cannot be written", log.display()))?;
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        let child = child.with_context(|| format!("`{}` could not be started", command::describe(&command)))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server { kind: self.kind, child, folder: folder.to_owned(), address, metadata: self.metadata(durability) };
        server.wait_until_it_listens(began)?;
        Ok(server)
    }

    fn metadata(&self, durability: Durability) -> Option<String> {
        self.metadata.as_ref().map(|pair| pair.replace("{sync}", durability.word()))
    }

    fn arguments(&self, folder: &Path, data: &Path, port: u16, durability: Durability) -> Result<Vec<String>> {
        let text =
            |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{} is no UTF-8: use another folder", path.display()));
        let data = text(data)?;
        let mut words = self.words.clone();
        match self.kind {
            Kind::Nats => {
                let path = folder.join("nats.conf");
                fs::write(&path, nats_config(&data, port, durability)).with_context(|| format!("{} cannot be written", path.display()))?;
                words.extend(["-c".to_owned(), text(&path)?]);
            }
            Kind::Redis => words.extend(redis_options(&data, port, durability)),
            Kind::Ours => {
                for word in &mut words {
                    *word = word.replace("{port}", &port.to_string()).replace("{dir}", &data).replace("{sync}", durability.word());
                }
            }
        }
        Ok(words)
    }
}

fn nats_config(data: &str, port: u16, durability: Durability) -> String {
    let sync = if durability == Durability::Always { ", sync_interval: always" } else { "" };
    format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {data:?}{sync} }}\n")
}

/// No snapshots and no rewriting of the log beside the measurement, and no cutting off of a subscriber that is behind.
fn redis_options(data: &str, port: u16, durability: Durability) -> Vec<String> {
    let sync = if durability == Durability::Always { "always" } else { "everysec" };
    let port = port.to_string();
    let options = [
        ["--port", port.as_str()],
        ["--bind", "127.0.0.1"],
        ["--dir", data],
        ["--save", ""],
        ["--appendonly", "yes"],
        ["--appendfsync", sync],
        ["--auto-aof-rewrite-percentage", "0"],
        ["--client-output-buffer-limit", "pubsub 0 0 0"],
    ];
    options.into_iter().flatten().map(str::to_owned).collect()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port on 127.0.0.1 can be had")?;
    Ok(listener.local_addr().context("a socket has no address")?.port())
}

/// One that runs. It is killed when its owner goes, and the kernel kills it when we are killed.
#[derive(Debug)]
pub(super) struct Server {
    kind: Kind,
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
    metadata: Option<String>,
}

impl Server {
    fn wait_until_it_listens(&mut self, began: Instant) -> Result<()> {
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().context("a server cannot be waited for")?;
            if ended.is_some() || began.elapsed() > READY {
                let how = ended.map_or("does not listen".to_owned(), |status| format!("ended ({status})"));
                bail!("{} {how} after {:.1} s. It said:\n{}", self.kind.title(), began.elapsed().as_secs_f64(), self.said());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Its last words.
    pub(super) fn said(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The driver, aimed at it.
    pub(super) fn driver(&self, driver: &Path) -> Command {
        let mut built = Command::new(driver);
        command::clean(&mut built);
        built.args(["--address", &self.address.to_string(), "--pid", &self.pid().to_string()]);
        built.args(self.metadata.iter().map(|pair| format!("--metadata={pair}")));
        built
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// It does not end, or not in good order.
    pub(super) fn stop(mut self) -> Result<()> {
        // What a terminal sends: every one of them takes it for the end.
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGINT).context("a server cannot be signalled")?;
        let began = Instant::now();
        loop {
            match self.child.try_wait().context("a server cannot be waited for")? {
                // nats-server ends with 1 after an interrupt.
                Some(status) if status.code().is_some_and(|code| code <= 1) => return Ok(()),
                Some(status) => bail!("{} ended with {status}. It said:\n{}", self.kind.title(), self.said()),
                None if began.elapsed() > END => bail!("{} did not end {} s after SIGINT", self.kind.title(), END.as_secs()),
                None => std::thread::sleep(LOOK),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that a server's data occupy, as `du` counts them: whole blocks.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn on_disk(folder: &Path) -> Result<u64> {
    blocks_below(&folder.join("data"))
}

/// The same of any folder.
///
/// # Errors
/// It cannot be read.
pub(in super::super) fn blocks_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
            let entry = entry.with_context(|| format!("{} cannot be read", folder.display()))?;
            let meta = entry.metadata().with_context(|| format!("{} cannot be read", entry.path().display()))?;
            sum += meta.blocks() * 512;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kind: Kind, words: &[&str]) -> Program {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Program { kind, words, version: String::new(), metadata: Some("k={sync}".to_owned()) }
    }

    #[test]
    fn durability_reaches_each_server() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let arguments = |program: &Program, durability| program.arguments(folder.path(), &data, 5, durability);
        let ours = program(Kind::Ours, &["serve", "--port", "{port}", "--sync={sync}", "{dir}/x"]);
        assert_eq!(arguments(&ours, Durability::Always)?[1..4], ["--port", "5", "--sync=always"]);
        assert_eq!(ours.metadata(Durability::Interval).as_deref(), Some("k=interval"));
        let redis = arguments(&program(Kind::Redis, &["r"]), Durability::Always)?;
        assert!(redis.windows(2).any(|pair| pair == ["--appendfsync", "always"]), "{redis:?}");
        arguments(&program(Kind::Nats, &["n"]), Durability::Always)?;
        assert!(fs::read_to_string(folder.path().join("nats.conf"))?.contains("sync_interval: always"));
        arguments(&program(Kind::Nats, &["n"]), Durability::Interval)?;
        assert!(!fs::read_to_string(folder.path().join("nats.conf"))?.contains("sync_interval"));
        Ok(())
    }

    #[test]
    fn a_server_that_ends_at_once_says_what_it_said() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let failed = program(Kind::Ours, &["sh", "-c", "echo no room; exit 3"]).start(&folder.path().join("s"), Durability::Interval);
        assert!(failed.is_err_and(|error| error.to_string().contains("no room")));
        Ok(())
    }

    #[test]
    fn blocks_are_counted_in_all_folders() -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::create_dir_all(folder.path().join("data/a/b"))?;
        let empty = on_disk(folder.path())?;
        fs::write(folder.path().join("data/a/b/c"), vec![1; 100_000])?;
        File::open(folder.path().join("data/a/b/c"))?.sync_all()?;
        assert!(on_disk(folder.path())? >= empty + 100_000);
        Ok(())
    }
}
