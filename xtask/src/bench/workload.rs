//! Work that people wait for, with and without an observer: a crate's build, and redis-benchmark.

use std::fmt::Write;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::goal::{self, Goal};
use super::measure::Bench;
use super::observer::{BySubject, Counts, Subject, dying_with_us};
use super::report::{Head, cell};
use super::stats::{Summary, summary};
use crate::command;

/// What is built: libraries of this workspace's own dependencies that hold procedural macros, build scripts and a good deal of code.
const PACKAGES: [&str; 4] = ["clap", "regex", "serde_json", "toml"];

/// Requests of redis-benchmark for each of its tests: some seconds.
const REQUESTS: u64 = 200_000;
/// Longest wait for the server.
const READY: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Debug, Clone)]
pub(super) enum Workload {
    /// A build into an empty folder.
    Build {
        /// Cargo, and beside it rustc.
        cargo: PathBuf,
        workspace: PathBuf,
        target: PathBuf,
    },
    /// redis-benchmark against a server of its own.
    Redis {
        server: PathBuf,
        benchmark: PathBuf,
        folder: PathBuf,
        /// Requests for each test.
        requests: u64,
    },
}

impl Workload {
    /// A build with this cargo.
    pub(super) fn build(cargo: &Path, workspace: &Path, folder: &Path) -> Self {
        Self::Build { cargo: cargo.to_owned(), workspace: workspace.to_owned(), target: folder.join("build") }
    }

    /// redis-benchmark with `scale` percent of its requests.
    pub(super) fn redis(folder: &Path, scale: u64) -> Result<Self> {
        let find = |name, package: &str| {
            command::find_program(name).with_context(|| format!("{name} is not on this machine: `apt-get install {package}`"))
        };
        let (server, benchmark) = (find("redis-server", "redis-server")?, find("redis-benchmark", "redis-tools")?);
        Ok(Self::Redis { server, benchmark, folder: folder.to_owned(), requests: (REQUESTS * scale / 100).max(1) })
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Build { .. } => "A crate's build",
            Self::Redis { .. } => "redis-benchmark",
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Build { .. } => format!("`cargo build --offline -p {}` into an empty folder.", PACKAGES.join(" -p ")),
            Self::Redis { requests, .. } => format!(
                "`redis-benchmark -t set,get -n {requests} -c 50` over loopback against a `redis-server` that saves nothing, started anew."
            ),
        }
    }

    /// The greatest ratio of wall clocks that is wanted.
    fn goal(&self) -> f64 {
        match self {
            Self::Build { .. } => 1.05,
            Self::Redis { .. } => 1.02,
        }
    }

    /// Does it once; its wall clock.
    fn run(&self) -> Result<Duration> {
        match self {
            Self::Build { cargo, workspace, target } => {
                if target.exists() {
                    fs::remove_dir_all(target).with_context(|| format!("{} cannot be removed", target.display()))?;
                }
                let mut build = dying_with_us()?;
                build.arg(cargo).current_dir(workspace).env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS");
                if let Some(rustc) = cargo.parent().map(|folder| folder.join("rustc")).filter(|rustc| command::is_executable(rustc)) {
                    build.env("RUSTC", rustc);
                }
                build.args(["build", "--quiet", "--offline"]).args(PACKAGES.iter().flat_map(|package| ["-p", package]));
                timed(&mut build, "it needs this workspace's dependencies: run `cargo fetch`")
            }
            Self::Redis { server, benchmark, folder, requests } => {
                let server = Server::start(server, folder)?;
                let mut load = dying_with_us()?;
                load.arg(benchmark).args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-t", "set,get", "-c", "50", "-q"]);
                load.args(["-n", &requests.to_string()]);
                timed(&mut load, "see whether redis-server runs here")
            }
        }
    }
}

fn timed(command: &mut Command, remedy: &str) -> Result<Duration> {
    let began = Instant::now();
    command::capture(command, remedy)?;
    Ok(began.elapsed())
}

/// A Redis of our own; it is killed when its owner goes, and by the kernel when we are killed.
#[derive(Debug)]
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(program: &Path, folder: &Path) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.context("no free port on 127.0.0.1")?.port();
        let log = folder.join("redis.log");
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = dying_with_us()?;
        command.arg(program).args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(folder).stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        let mut server = Self { child: command.spawn().context("redis-server could not be started")?, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if server.child.try_wait().context("redis-server cannot be waited for")?.is_some() || began.elapsed() > READY {
                bail!("redis-server does not answer. It said:\n{}", fs::read_to_string(&log).unwrap_or_default().trim());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
struct Timed {
    /// Wall clock of each round.
    walls: BySubject<Vec<Duration>>,
    /// What observers counted in all rounds.
    counts: BySubject<Counts>,
}

/// Measures it under every subject in turn: the text of the section.
///
/// # Errors
/// The work or an observer fails.
pub(super) fn measure(bench: &Bench<'_>, head: Head, workload: Workload) -> Result<String> {
    let subjects = bench.subjects();
    let mut timed = Timed::default();
    // Into the page cache.
    workload.run()?;
    for round in 0..bench.plan.rounds {
        eprintln!("      round {} of {}", round + 1, bench.plan.rounds);
        for subject in &subjects {
            let observer = bench.observer(*subject)?;
            let before = observer.as_ref().map(super::observer::Observer::counts).transpose()?;
            timed.walls.entry(*subject).or_default().push(workload.run()?);
            let (Some(observer), Some(before)) = (observer, before) else { continue };
            bench.rest(*subject, &observer)?;
            timed.counts.entry(*subject).or_default().add(&observer.counts()?.since(&before));
            observer.stop()?;
        }
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = render(&mut text, &head, &workload, &subjects, &timed, bench.plan.rounds);
    Ok(text)
}

fn render(text: &mut String, head: &Head, workload: &Workload, subjects: &[Subject], timed: &Timed, rounds: u64) -> std::fmt::Result {
    writeln!(text, "### {}\n", workload.title())?;
    head.write(text)?;
    writeln!(text, "- {rounds} rounds, everyone in turn. Numbers are medians (least to greatest).\n\n{}\n", workload.what())?;
    writeln!(text, "| observer | wall clock, s | / off | records received | lost |\n|---|--:|--:|--:|--:|")?;
    for subject in subjects {
        let walls = timed.walls.get(subject).map(Vec::as_slice).unwrap_or_default();
        let wall = summary(walls.iter().map(Duration::as_secs_f64));
        let counts = timed.counts.get(subject);
        let number = |of: fn(&Counts) -> u64| counts.map_or(String::new(), |counts| of(counts).to_string());
        let ratio = if *subject == Subject::Off { String::new() } else { cell(timed.ratio(*subject), 3) };
        let [all, lost] = [number(Counts::all), number(|counts| counts.lost)];
        writeln!(text, "| {} | {} | {ratio} | {all} | {lost} |", subject.name(), cell(wall, 2))?;
    }
    let ratio = timed.ratio(Subject::Bartizan);
    let goal = Goal { what: "wall clock / off".to_owned(), most: workload.goal(), unit: "", digits: 3, measured: ratio, falco: "" };
    goal::table(text, &[goal])
}

impl Timed {
    /// The ratio to the same round without observer.
    fn ratio(&self, subject: Subject) -> Option<Summary> {
        let walls = |subject| self.walls.get(&subject).map(Vec::as_slice).unwrap_or_default();
        let pairs = walls(subject).iter().zip(walls(Subject::Off));
        summary(pairs.map(|(on, off)| on.as_secs_f64() / off.as_secs_f64().max(1e-9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let seconds = |values: [u64; 3]| values.map(Duration::from_secs).to_vec();
        let walls = [(Subject::Off, seconds([10, 20, 40])), (Subject::Bartizan, seconds([11, 20, 60]))].into();
        let timed = Timed { walls, ..Timed::default() };
        assert_eq!(timed.ratio(Subject::Bartizan), Some(Summary { median: 1.1, min: 1.0, max: 1.5 }));
        assert_eq!(timed.ratio(Subject::Auditd), None);
        let mut text = String::new();
        let workload = Workload::build(Path::new("cargo"), Path::new("/w"), Path::new("/f"));
        let subjects = [Subject::Off, Subject::Bartizan];
        assert!(render(&mut text, &Head::default(), &workload, &subjects, &timed, 3).is_ok());
        assert!(text.contains("| Bartizan | 20.00 (11.00–60.00) | 1.100 (1.000–1.500) |"), "{text}");
        assert!(text.contains("| wall clock / off | 1.050 | 1.100 (1.000–1.500) | missed |"), "{text}");
    }
}
