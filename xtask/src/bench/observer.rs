//! Who watches the storms: Bartizan, or a peer. Each is one process that we start, measure and end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::audit::{self, Audit};
use super::process;
use crate::command;

/// Longest time until an observer is ready: the kernel verifies every program first.
const READY: Duration = Duration::from_secs(60);
/// Longest time for its end after it was asked to.
const END: Duration = Duration::from_secs(60);
/// Longest wait for an observer that does not come to rest, because others keep the machine busy.
const RESTLESS: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// On Bartizan's standard error when it sees, judges and answers.
const BARTIZAN_READY: &str = "is ready in";
/// What the peer's script prints when it runs.
const PEER_READY: &str = "ready";

/// What a peer must print to be compared: who started what with which arguments, who ended, who connected where. Nothing of it is stored,
/// joined or judged: the least that a tracer does.
const PEER_SCRIPT: &str = r#"
tracepoint:syscalls:sys_enter_execve { printf("args %d ", pid); join(args->argv); }
tracepoint:sched:sched_process_exec { printf("exec %d %d %s %s\n", pid, uid, comm, str(args->filename)); }
tracepoint:sched:sched_process_fork { printf("fork %d %d\n", args->parent_pid, args->child_pid); }
tracepoint:sched:sched_process_exit /pid == tid/ { printf("exit %d\n", pid); }
tracepoint:sock:inet_sock_set_state /args->newstate == 2/ { printf("connect %d %s %d\n", pid, ntop(args->daddr), args->dport); }
tracepoint:sock:inet_sock_set_state /args->oldstate == 2/ { printf("result %d %d\n", args->sport, args->newstate); }
interval:ms:200 /@told == 0/ { @told = 1; printf("ready\n"); }
"#;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Nobody watches.
    Off,
    /// The sensor, with its default configuration.
    Bartizan,
    /// bpftrace with [`PEER_SCRIPT`].
    Bpftrace,
    /// auditd with rules for programs, connections and files.
    Auditd,
}

impl Subject {
    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bartizan => "Bartizan",
            Self::Bpftrace => "bpftrace",
            Self::Auditd => "auditd",
        }
    }

    /// Whether it loads eBPF programs, whose time the kernel can tell.
    pub(super) fn has_programs(self) -> bool {
        match self {
            Self::Bartizan | Self::Bpftrace => true,
            Self::Off | Self::Auditd => false,
        }
    }
}

/// Something of each subject.
pub(super) type BySubject<T> = BTreeMap<Subject, T>;

/// A running observer. It is killed, and its folder removed, when the owner goes; the kernel kills it when we are killed.
#[derive(Debug)]
pub(super) struct Observer {
    subject: Subject,
    child: Child,
    folder: PathBuf,
    /// `bartizan`, for its reading verbs.
    program: PathBuf,
    /// From its start until it was ready.
    pub(super) start: Duration,
    /// The kernel's audit, while auditd has it.
    audit: Option<Audit>,
}

impl Observer {
    /// Starts Bartizan on a new data folder in `folder`, and waits until it is ready. Its standard output, where it tells alerts, is piped
    /// to us if `alerts` is set.
    pub(super) fn bartizan(program: &Path, folder: PathBuf, alerts: bool) -> Result<Self> {
        // Not the host's own: what is measured are the defaults.
        Self::bartizan_with(program, folder, alerts, "")
    }

    /// As [`Observer::bartizan`], with this configuration.
    pub(super) fn bartizan_with(program: &Path, folder: PathBuf, alerts: bool, text: &str) -> Result<Self> {
        make_private(&folder)?;
        let config = folder.join("config.toml");
        fs::write(&config, text).with_context(|| format!("{} cannot be written", config.display()))?;
        let mut command = dying_with_us()?;
        command.arg(program).arg("run").arg("--config").arg(config).arg("--data-dir").arg(folder.join("data"));
        command.stdout(if alerts { Stdio::piped() } else { Stdio::null() });
        Self::start(Subject::Bartizan, command, program.to_owned(), folder, BARTIZAN_READY)
    }

    /// Starts the peer.
    pub(super) fn bpftrace(program: &Path, folder: PathBuf) -> Result<Self> {
        make_private(&folder)?;
        let output = File::create(folder.join("output")).with_context(|| format!("{} cannot be written", folder.display()))?;
        let mut command = dying_with_us()?;
        command.arg(program).arg("-e").arg(PEER_SCRIPT).stdout(output);
        Self::start(Subject::Bpftrace, command, program.to_owned(), folder, PEER_READY)
    }

    /// Starts auditd, then loads its rules; files below `watched` are watched.
    pub(super) fn auditd(folder: PathBuf, watched: &Path) -> Result<Self> {
        make_private(&folder)?;
        let audit = Audit::begin()?;
        let command = audit::daemon(dying_with_us()?, &folder)?;
        let program = PathBuf::from(command.get_program());
        let mut observer = Self::start(Subject::Auditd, command, program, folder, "")?;
        audit.load(watched)?;
        observer.audit = Some(audit);
        Ok(observer)
    }

    fn start(subject: Subject, mut command: Command, program: PathBuf, folder: PathBuf, ready: &str) -> Result<Self> {
        let log = folder.join("log");
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stderr(file).spawn();
        let child = child.with_context(|| format!("`{}` could not be started", command::describe(&command)))?;
        let mut observer = Self { subject, child, folder, program, start: Duration::ZERO, audit: None };
        let told = match subject {
            Subject::Bpftrace => observer.folder.join("output"),
            Subject::Off | Subject::Bartizan | Subject::Auditd => log.clone(),
        };
        loop {
            let is_ready = match subject {
                // It says nothing; the kernel knows its daemon.
                Subject::Auditd => audit::Status::ask()?.pid == u64::from(observer.pid()),
                Subject::Off | Subject::Bartizan | Subject::Bpftrace => fs::read_to_string(&told).unwrap_or_default().contains(ready),
            };
            if is_ready {
                break;
            }
            let ended = observer.child.try_wait().context("an observer cannot be waited for")?;
            if ended.is_some() || began.elapsed() > READY {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let how = ended.map_or("is not ready".to_owned(), |status| format!("ended ({status})"));
                bail!("{} {how} after {:.1} s. It said:\n{}", subject.name(), began.elapsed().as_secs_f64(), said.trim());
            }
            std::thread::sleep(LOOK);
        }
        observer.start = began.elapsed();
        Ok(observer)
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far: its process's, and that of a kernel thread that works for it alone.
    pub(super) fn cpu(&self) -> Result<(Duration, Duration)> {
        let thread = match self.subject {
            Subject::Auditd => audit::thread().map(process::cpu).transpose()?,
            Subject::Off | Subject::Bartizan | Subject::Bpftrace => None,
        };
        Ok((process::cpu(self.pid())?, thread.unwrap_or_default()))
    }

    /// Waits until it has worked off what happened: until it used less than a hundredth of a processor for a fifth of a second. Returns
    /// whether it came to rest.
    pub(super) fn rest(&self) -> Result<bool> {
        const WINDOW: Duration = Duration::from_millis(200);
        let began = Instant::now();
        while began.elapsed() < RESTLESS {
            let sum = || self.cpu().map(|(process, thread)| process + thread);
            let before = sum()?;
            std::thread::sleep(WINDOW);
            if sum()?.saturating_sub(before) < WINDOW / 100 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `bartizan status --json`.
    ///
    /// # Errors
    /// It gives no report.
    pub(super) fn status(&self) -> Result<Value> {
        let output = self.verb("status").arg("--json").output().context("bartizan status could not be started")?;
        // Degraded is an answer too.
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).with_context(|| {
            format!("bartizan status gave no report ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
        })
    }

    /// What it has counted so far.
    pub(super) fn counts(&self) -> Result<Counts> {
        match self.subject {
            Subject::Off => Ok(Counts::default()),
            Subject::Bartizan => Ok(Counts::from_status(&self.status()?)),
            Subject::Bpftrace => {
                let path = self.folder.join("output");
                let file = File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
                Counts::from_output(BufReader::new(file)).with_context(|| format!("{} cannot be read", path.display()))
            }
            Subject::Auditd => {
                let path = self.folder.join("audit.log");
                let file = File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
                let received = audit::count(BufReader::new(file)).with_context(|| format!("{} cannot be read", path.display()))?;
                Ok(Counts { received, lost: audit::Status::ask()?.lost, skipped: 0 })
            }
        }
    }

    /// `bartizan VERB` on its data folder.
    pub(super) fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).arg("--data-dir").arg(self.folder.join("data")).stdin(Stdio::null());
        command
    }

    /// Folder of one of its streams.
    pub(super) fn stream(&self, name: &str) -> PathBuf {
        self.folder.join("data/streams").join(name)
    }

    /// Lines of its standard output with the boot-clock time at which each was read; only of one that was started for alerts.
    pub(super) fn told(&mut self) -> Result<Receiver<(Duration, String)>> {
        let output = self.child.stdout.take().context("this observer was not started for its alerts")?;
        Ok(super::alerts::read_lines(output))
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// It does not end, or ends with another code than 0.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// As [`Observer::stop`]; its data folder goes on at `to`.
    ///
    /// # Errors
    /// As [`Observer::stop`], or the folder cannot be moved there.
    pub(super) fn stop_and_keep(mut self, to: &Path) -> Result<()> {
        self.end()?;
        fs::rename(self.folder.join("data"), to).with_context(|| format!("the sensor's data cannot be moved to {}", to.display()))
    }

    fn end(&mut self) -> Result<()> {
        let signal = match self.subject {
            Subject::Bpftrace => Signal::SIGINT,
            Subject::Off | Subject::Bartizan | Subject::Auditd => Signal::SIGTERM,
        };
        // Records that nobody reads would go to the kernel's own log.
        drop(self.audit.take());
        kill(Pid::from_raw(self.pid().cast_signed()), signal).context("an observer cannot be signalled")?;
        let began = Instant::now();
        loop {
            match self.child.try_wait().context("an observer cannot be waited for")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}", self.subject.name()),
                None if began.elapsed() > END => bail!("{} did not end after {signal}", self.subject.name()),
                None => std::thread::sleep(LOOK),
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        drop(self.audit.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("      warning: {} cannot be removed ({error}): remove it by hand", self.folder.display());
        }
    }
}

/// A command whose program the kernel kills when our thread ends, however that happens.
pub(super) fn dying_with_us() -> Result<Command> {
    let setpriv = command::find_program("setpriv").context("setpriv is not on this machine: run `apt-get install util-linux`")?;
    let mut command = Command::new(setpriv);
    command::clean(&mut command).args(["--pdeathsig", "KILL"]);
    Ok(command)
}

/// A folder of root's own: Bartizan refuses one that others may write to.
fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    made.with_context(|| format!("{} cannot be made: check who owns target/", folder.display()))
}

/// Records of an observer, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Kind and records received.
    pub(super) received: BTreeMap<String, u64>,
    /// Records that were certainly lost, of all kinds.
    pub(super) lost: u64,
    /// Runs that the kernel skipped, each of which may have been a record.
    pub(super) skipped: u64,
}

impl Counts {
    /// Reads `bartizan status --json`. The reason `recursion` stands for skipped runs: docs/cli.md.
    fn from_status(report: &Value) -> Self {
        let mut counts = Self::default();
        for row in report["kinds"].as_array().into_iter().flatten() {
            let kind = row["kind"].as_str().unwrap_or_default();
            *counts.received.entry(kind.to_owned()).or_default() += row["received"].as_u64().unwrap_or_default();
            for (reason, count) in row["lost"].as_object().into_iter().flatten() {
                let count = count.as_u64().unwrap_or_default();
                if reason == "recursion" { counts.skipped += count } else { counts.lost += count }
            }
        }
        counts
    }

    /// Reads the lines of [`PEER_SCRIPT`], and what bpftrace says of lost ones: `Lost 12 events`.
    fn from_output(output: impl BufRead) -> Result<Self> {
        let mut counts = Self::default();
        for line in output.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("Lost"), Some(number)) => counts.lost += number.parse::<u64>().unwrap_or_default(),
                (Some("exec"), Some(_)) => *counts.received.entry("process.exec".to_owned()).or_default() += 1,
                (Some("connect"), Some(_)) => *counts.received.entry("network.connect".to_owned()).or_default() += 1,
                (Some(other @ ("args" | "fork" | "exit" | "result")), Some(_)) => {
                    *counts.received.entry(other.to_owned()).or_default() += 1
                }
                _ => {}
            }
        }
        Ok(counts)
    }

    /// What came since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let Self { received, lost, skipped } = self;
        let earlier = |kind: &str| before.received.get(kind).copied().unwrap_or_default();
        Self {
            received: received.iter().map(|(kind, count)| (kind.clone(), count.saturating_sub(earlier(kind)))).collect(),
            lost: lost.saturating_sub(before.lost),
            skipped: skipped.saturating_sub(before.skipped),
        }
    }

    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { received, lost, skipped } = other;
        for (kind, count) in received {
            *self.received.entry(kind.clone()).or_default() += count;
        }
        self.lost += lost;
        self.skipped += skipped;
    }

    /// Received of one kind.
    pub(super) fn of(&self, kind: &str) -> u64 {
        self.received.get(kind).copied().unwrap_or_default()
    }

    /// Received of all kinds.
    pub(super) fn all(&self) -> u64 {
        self.received.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn skipped_runs_are_not_lost_records() {
        let report = serde_json::json!({"kinds": [
            {"kind": "process.exec", "received": 7, "lost": {"ring_full": 2}},
            {"kind": "auth.start", "received": 3, "lost": {}},
            {"kind": "sched_process_exec", "received": 0, "lost": {"recursion": 5}},
        ]});
        let counts = Counts::from_status(&report);
        assert_eq!((counts.of("process.exec"), counts.of("auth.start"), counts.all()), (7, 3, 10));
        assert_eq!((counts.lost, counts.skipped), (2, 5));
    }

    #[test]
    fn the_peers_lines_are_counted_and_its_losses() -> Result<()> {
        let said = "Attaching 7 probes...\nready\nexec 1 0 true /bin/true\nLost 12 events\nargs 1 /bin/true\nconnect 2 127.0.0.1 80\nexit 1\nexec\n";
        let counts = Counts::from_output(said.as_bytes())?;
        assert_eq!((counts.of("process.exec"), counts.of("network.connect"), counts.all(), counts.lost), (1, 1, 4, 12));
        Ok(())
    }

    #[test]
    fn differences_and_sums_are_by_kind() {
        let counts = |exec, lost| Counts { received: [("process.exec".to_owned(), exec)].into(), lost, skipped: 0 };
        let mut sum = counts(10, 3).since(&counts(4, 1));
        assert_eq!(sum, counts(6, 2));
        sum.add(&counts(1, 1));
        assert_eq!(sum, counts(7, 3));
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(Lost|exec|exit)( [0-9]{0,30})?\n") {
            let _ = Counts::from_output(bytes.as_slice());
            let _ = Counts::from_output(text.as_bytes());
            let _ = Counts::from_status(&Value::String(text));
        }
    }
}
