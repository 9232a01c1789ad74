//! What a stretch of work cost: wall clock, processor time of the server, of this process and of the whole machine, bytes to the disk.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::latency::Latencies;

/// A server that still works so long after the last message is not waited for any longer.
const RESTLESS: Duration = Duration::from_secs(5);
/// It rests when it used less than a hundredth of a processor for so long.
const WINDOW: Duration = Duration::from_millis(250);

/// Processor time so far of all threads of a process, the ended ones too.
fn cpu(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).context("the server ended")?;
    Ok(Duration::from(clock.now().context("the server ended")?))
}

fn own_cpu() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("this process has no clock")?))
}

/// Ticks of all processors since the machine started.
#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    all: u64,
    idle: u64,
    waiting: u64,
    stolen: u64,
}

impl Machine {
    /// <https://man7.org/linux/man-pages/man5/proc_stat.5.html>
    fn look() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = text.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
        let at = |index: usize| ticks.get(index).copied().unwrap_or_default();
        Self { all: ticks.iter().take(8).sum(), idle: at(3) + at(4), waiting: at(4), stolen: at(7) }
    }
}

/// A number of `/proc/PID/io` or `/proc/PID/status`; 0 where that may not be read.
fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Running.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    began: Instant,
    server: Duration,
    own: Duration,
    machine: Machine,
    written: u64,
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// The server ended.
    pub(crate) fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            machine: Machine::look(),
            written: field(pid, "io", "write_bytes"),
            server: cpu(pid)?,
            own: own_cpu()?,
            began: Instant::now(),
        })
    }

    /// Ends, waits until the server has worked off what it put off, and says what `messages` messages took.
    ///
    /// # Errors
    /// The server ended.
    pub(crate) fn stop(self, messages: u64, latencies: Latencies) -> Result<Value> {
        let wall = self.began.elapsed();
        let (server, own, machine) = (cpu(self.pid)?, own_cpu()?, Machine::look());
        let restless = self.rest()?;
        let share =
            |ticks: u64, before: u64| ticks.saturating_sub(before) as f64 / machine.all.saturating_sub(self.machine.all).max(1) as f64;
        let [p50, p99, most] = latencies.percentiles([50.0, 99.0, 100.0]).map_or([None; 3], |values| values.map(Some));
        Ok(json!({
            "messages": messages,
            "wall_ns": wall.as_nanos() as u64,
            "server_cpu_ns": server.saturating_sub(self.server).as_nanos() as u64,
            "server_cpu_until_rest_ns": cpu(self.pid)?.saturating_sub(self.server).as_nanos() as u64,
            "server_restless": restless,
            "server_written_bytes": field(self.pid, "io", "write_bytes").saturating_sub(self.written),
            "server_peak_bytes": field(self.pid, "status", "VmHWM") << 10,
            "server_resident_bytes": field(self.pid, "status", "VmRSS") << 10,
            "server_anonymous_bytes": field(self.pid, "status", "RssAnon") << 10,
            "driver_cpu_ns": own.saturating_sub(self.own).as_nanos() as u64,
            "machine_idle": share(machine.idle, self.machine.idle),
            "machine_waiting": share(machine.waiting, self.machine.waiting),
            "machine_stolen": share(machine.stolen, self.machine.stolen),
            "p50_ns": p50,
            "p99_ns": p99,
            "max_ns": most,
        }))
    }

    /// Whether it did not come to rest.
    fn rest(&self) -> Result<bool> {
        let began = Instant::now();
        while began.elapsed() < RESTLESS {
            let before = cpu(self.pid)?;
            std::thread::sleep(WINDOW);
            if cpu(self.pid)?.saturating_sub(before) < WINDOW / 100 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_metered() -> Result<()> {
        let meter = Meter::start(std::process::id())?;
        let mut latencies = Latencies::default();
        latencies.push(Duration::from_nanos(5));
        let said = meter.stop(3, latencies)?;
        assert_eq!((said["messages"].as_u64(), said["p99_ns"].as_u64()), (Some(3), Some(5)));
        assert!(said["server_peak_bytes"].as_u64() > Some(0) && said["wall_ns"].as_u64() > Some(0), "{said}");
        assert!(Meter::start((i32::MAX - 1).cast_unsigned()).is_err());
        Ok(())
    }
}
