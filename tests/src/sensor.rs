//! A running `bartizan`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::binary::bartizan;
use crate::folder::Folder;
use crate::need::need_root;
use crate::outcome::{Outcome, run};
use crate::wait::{wait_for, wait_for_within};

/// On standard error when a sensor sees, judges and answers.
const READY: &str = "is ready in";
/// Longest time to that line: the kernel verifies every program first.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// What every sensor of the tests is told besides its own configuration: event time goes on quickly.
const BASE: &str = "[sensor]\nheartbeat = \"1s\"\n";
/// And in a guest, whose processors are emulated: that the sensor needs more of them than it may is no reason to leave records out.
const GUEST: &str = "cpu_limit = 0\n";

/// Hooks that tell which processes there are.
const PROCESSES: [&str; 4] = ["process_exec", "process_fork", "process_exit", "process_seed"];

/// Every hook, as the sensor itself lists them when it is given one that there is not.
#[track_caller]
fn hook_names() -> Vec<String> {
    let mut command = Command::new(bartizan());
    command.args(["run", "--disable-hook", "no such hook"]);
    let said = run(&mut command).stderr;
    let list = said.split_once("take: ").unwrap_or_else(|| panic!("the sensor does not list its hooks: {said}")).1;
    // Behind a colon stands a tier.
    list.split(", ").map(str::trim).filter(|name| !name.contains(':')).map(str::to_owned).collect()
}

/// What a sensor is started with.
#[derive(Debug, Clone, Default)]
pub struct SensorConfig {
    config: String,
    args: Vec<String>,
}

impl SensorConfig {
    /// Text of the configuration.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config = text.to_owned();
        self
    }

    /// An argument of `bartizan run`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Does without this tier of each of the hooks: they are held to their next one.
    #[must_use]
    pub fn without(self, tier: &str, hooks: &[&str]) -> Self {
        hooks.iter().fold(self, |sensor, hook| sensor.arg("--disable-hook").arg(&format!("{hook}:{tier}")))
    }

    /// Attaches of all hooks only those whose names begin like one of `beginnings`, and those that tell which processes there are: a hook costs
    /// a guest, which is emulated, a tenth of a second at every start and every end.
    ///
    /// # Panics
    /// No hook is called so.
    #[must_use]
    #[track_caller]
    pub fn hooks(self, beginnings: &[&str]) -> Self {
        let names = hook_names();
        for beginning in beginnings {
            assert!(names.iter().any(|name| name.starts_with(beginning)), "no hook begins with {beginning}: {names:?}");
        }
        let is_wanted = |name: &str| PROCESSES.contains(&name) || beginnings.iter().any(|beginning| name.starts_with(beginning));
        names.iter().filter(|name| !is_wanted(name)).fold(self, |sensor, name| sensor.arg("--disable-hook").arg(name))
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// It does not become ready; its log is shown.
    #[track_caller]
    pub fn start(self) -> Sensor {
        need_root();
        let folder = Folder::new();
        let guest = if std::env::var_os("BARTIZAN_VM").is_some() { GUEST } else { "" };
        folder.write("config.toml", format!("{BASE}{guest}"));
        let dir = folder.join("conf.d");
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
        folder.write("conf.d/test.toml", &self.config);
        let mut sensor = Sensor { folder, args: self.args, child: None, ready_lines: 0, markers: 0 };
        sensor.start_again();
        sensor
    }
}

/// A `bartizan run` with a data folder of its own. It is killed when the owner goes.
#[derive(Debug)]
pub struct Sensor {
    folder: Folder,
    args: Vec<String>,
    child: Option<Child>,
    /// Ready lines in the log so far: one for each start.
    ready_lines: usize,
    pub(crate) markers: u64,
}

impl Sensor {
    /// A sensor with the default configuration.
    ///
    /// # Panics
    /// It does not become ready; its log is shown.
    #[track_caller]
    pub fn start() -> Self {
        SensorConfig::default().start()
    }

    /// With a configuration or arguments: finish with [`SensorConfig::start`].
    pub fn with() -> SensorConfig {
        SensorConfig::default()
    }

    /// A folder for the test's own files; the sensor's are in it too.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it has written to standard error over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its pid.
    ///
    /// # Panics
    /// It does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the test has ended this sensor and not started it again").id()
    }

    /// Starts it after [`kill9`](Self::kill9) or [`terminate`](Self::terminate), on the same data folder, and waits until
    /// it is ready.
    ///
    /// # Panics
    /// It runs, or does not become ready; its log is shown.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// As [`start_again`](Self::start_again), without waiting.
    ///
    /// # Panics
    /// It runs, or cannot be started.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "this sensor runs already");
        let path = self.log_path();
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        // Killed by the kernel with the thread that started it, so that not even a killed test leaves a sensor behind.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(bartizan()).arg("run").arg("--config").arg(self.folder.join("config.toml"));
        command.arg("--data-dir").arg(self.data_dir()).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?} (apt-get install util-linux): {error}"));
        self.child = Some(child);
    }

    /// Waits until a [`spawn`](Self::spawn)ed sensor is ready.
    ///
    /// # Panics
    /// It ends or hangs instead; its log is shown.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.ready_lines += 1;
        wait_for_within(READY_DEADLINE, "a ready sensor", || {
            // Ended first, then read: the line of a sensor that was ready before it ended is seen.
            let ended = self.poll();
            if self.log().matches(READY).count() >= self.ready_lines {
                return Some(());
            }
            assert!(ended.is_none(), "the sensor ended ({ended:?}) before it was ready:\n{}", self.log());
            None
        });
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().unwrap_or_else(|error| panic!("cannot wait for the sensor: {error}"))
    }

    /// Ends it as a crash would: SIGKILL.
    ///
    /// # Panics
    /// It had ended by itself; its log is shown.
    #[track_caller]
    pub fn kill9(&mut self) {
        let ended = self.poll();
        assert!(ended.is_none(), "the sensor ended by itself ({ended:?}):\n{}", self.log());
        self.signal(Signal::SIGKILL);
        self.reap();
        // It may not have got so far.
        self.ready_lines = self.log().matches(READY).count();
    }

    /// Ends it in good order: SIGTERM, and exit code 0.
    ///
    /// # Panics
    /// It hangs, or ends with another code; its log is shown.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = wait_for("the end of the sensor after SIGTERM", || self.poll());
        self.child = None;
        assert!(status.success(), "after SIGTERM the sensor ended with {status}:\n{}", self.log());
    }

    /// [`kill9`](Self::kill9) and [`start_again`](Self::start_again).
    ///
    /// # Panics
    /// As these do.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.kill9();
        self.start_again();
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).unwrap_or_else(|error| panic!("cannot send {signal} to the sensor (pid {pid}): {error}"));
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap_or_else(|error| panic!("cannot wait for the sensor: {error}"));
        }
    }

    /// `bartizan VERB --data-dir …`, not yet run.
    pub fn command(&self, verb: &str) -> Command {
        verb_on(verb, &self.data_dir())
    }

    /// Runs a reading verb with `args` to its end.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn verb(&self, verb: &str, args: &[&str]) -> Outcome {
        run(self.command(verb).args(args))
    }

    /// Every alert, as `alerts --json` prints it.
    ///
    /// # Panics
    /// The verb fails.
    #[track_caller]
    pub fn alerts_json(&self) -> Vec<Value> {
        self.verb("alerts", &["--json"]).ok().ndjson()
    }

    /// The alerts that this test brought about: all but those about processes that run elsewhere on the machine, whose
    /// lineage comes by an ancestor of this test and not by the test itself, and those that are about no process at all.
    ///
    /// # Panics
    /// The verb fails.
    #[track_caller]
    pub fn our_alerts(&self) -> Vec<Value> {
        let (ourselves, ancestors) = (u64::from(std::process::id()), ancestors());
        let mut alerts = self.alerts_json();
        alerts.retain(|alert| {
            let pids = lineage(alert);
            // What came in packets alone may be anybody's; tests of that look at every alert.
            !pids.is_empty() && (pids.contains(&ourselves) || !pids.iter().any(|pid| ancestors.contains(pid)))
        });
        alerts
    }

    /// Events, as `events --json` with `args` prints them.
    ///
    /// # Panics
    /// The verb fails.
    #[track_caller]
    pub fn events_json(&self, args: &[&str]) -> Vec<Value> {
        self.verb("events", &[&["--json"], args].concat()).ok().ndjson()
    }

    /// These places (JSON pointers) of the events of `kind` that `pid` caused, in their order.
    ///
    /// # Panics
    /// The verb fails, or an event has no such place.
    #[track_caller]
    pub fn told(&self, kind: &str, pid: u32, places: &[&str]) -> Vec<Value> {
        let events = self.events_json(&["--kind", kind, "--pid", &pid.to_string()]);
        let at = |event: &Value, place: &str| event.pointer(place).unwrap_or_else(|| panic!("no {place}: {event:#}")).clone();
        events.iter().map(|event| places.iter().map(|place| at(event, place)).collect()).collect()
    }

    /// `status --json` with its exit code: 0 works, 1 degraded.
    ///
    /// # Panics
    /// The verb prints no report.
    #[track_caller]
    pub fn status(&self) -> (Option<i32>, Value) {
        let outcome = self.verb("status", &["--json"]);
        let report = outcome.ndjson().into_iter().next();
        (outcome.code, report.unwrap_or_else(|| panic!("no status report: {outcome}\n{}", self.log())))
    }

    /// `status --json`.
    ///
    /// # Panics
    /// The verb prints no report.
    #[track_caller]
    pub fn status_json(&self) -> Value {
        self.status().1
    }
}

/// The pids of an alert's lineage, from the process up.
pub fn lineage(alert: &Value) -> Vec<u64> {
    alert["lineage"].as_array().into_iter().flatten().filter_map(|entry| entry["pid"].as_u64()).collect()
}

/// The peers that an alert names among its entities.
pub fn peers(alert: &Value) -> Vec<SocketAddr> {
    let entities = alert["entities"].as_array().into_iter().flatten().filter(|entity| entity["type"] == "socket");
    let peer = |entity: &Value| {
        let (ip, port) = (entity["socket"]["peer_ip"].as_str()?.parse().ok()?, entity["socket"]["peer_port"].as_u64()?);
        Some(SocketAddr::new(ip, port.try_into().ok()?))
    };
    entities.filter_map(peer).collect()
}

/// This test's ancestors.
fn ancestors() -> Vec<u64> {
    // The name, in parentheses, is the only field that can hold spaces; state and parent follow it: proc_pid_stat(5).
    let parent = |pid: &u64| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent != 0)
    };
    std::iter::successors(Some(u64::from(std::process::id())), parent).skip(1).collect()
}

/// `bartizan VERB --data-dir DIR`.
fn verb_on(verb: &str, data_dir: &Path) -> Command {
    let mut command = Command::new(bartizan());
    command.arg(verb).arg("--data-dir").arg(data_dir);
    command
}

impl Drop for Sensor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the sensor's log is {}", self.log_path().display());
        }
    }
}
