//! One turn of one server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::case::{Case, Measure};
use super::server::{self, Program};
use super::{Bench, Plan};
use crate::command;

/// What a turn gave. Times are of the measured stretch, processor time until the server came to rest.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Run {
    pub(super) messages: u64,
    pub(super) wall: Duration,
    /// Of the server's process, all threads.
    pub(super) cpu: Duration,
    /// Of that, within the stretch.
    pub(super) cpu_within: Duration,
    pub(super) driver_cpu: Duration,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    /// Most resident memory, bytes.
    pub(super) peak: u64,
    /// Bytes of the data folder after the end, for each message stored.
    pub(super) disk: Option<f64>,
    /// Bytes that it dirtied on their way to the disk, for each message.
    pub(super) written: f64,
    /// Shares of all processors' time.
    pub(super) idle: f64,
    pub(super) waiting: f64,
    pub(super) stolen: f64,
}

impl Run {
    /// Reads the driver's answer.
    ///
    /// # Errors
    /// A number is missing.
    pub(super) fn read(answer: &Value) -> Result<Self> {
        let number = |name: &str| answer[name].as_u64().with_context(|| format!("the driver's answer has no {name}: {answer}"));
        let share = |name: &str| answer[name].as_f64().unwrap_or_default();
        let messages = number("messages")?;
        Ok(Self {
            messages,
            wall: Duration::from_nanos(number("wall_ns")?),
            cpu: Duration::from_nanos(number("server_cpu_until_rest_ns")?),
            cpu_within: Duration::from_nanos(number("server_cpu_ns")?),
            driver_cpu: Duration::from_nanos(number("driver_cpu_ns")?),
            p50: answer["p50_ns"].as_u64().map(Duration::from_nanos),
            p99: answer["p99_ns"].as_u64().map(Duration::from_nanos),
            peak: number("server_peak_bytes")?,
            disk: None,
            written: number("server_written_bytes")? as f64 / messages.max(1) as f64,
            idle: share("machine_idle"),
            waiting: share("machine_waiting"),
            stolen: share("machine_stolen"),
        })
    }

    /// Messages a second.
    pub(super) fn throughput(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// Microseconds of a time for each message.
    pub(super) fn each(&self, time: Duration) -> f64 {
        time.as_nanos() as f64 / 1000.0 / self.messages.max(1) as f64
    }

    /// Processors that neither the server nor the driver used and that were not idle: the kernel's own threads, and others' work.
    pub(super) fn others(&self) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let used = (self.cpu_within + self.driver_cpu).as_secs_f64() / self.wall.as_secs_f64().max(1e-9);
        (processors * (1.0 - self.idle) - used).max(0.0)
    }

    /// What a goal is about.
    pub(super) fn value(&self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Throughput => Some(self.throughput()),
            Measure::Cpu => Some(self.each(self.cpu)),
            Measure::P99 => self.p99.map(|p99| p99.as_secs_f64() * 1e6),
        }
    }
}

/// Asks the driver, and reads its one line.
///
/// # Errors
/// It failed; with what it said.
pub(super) fn ask(driver: &mut Command) -> Result<Value> {
    let output = driver.stdin(Stdio::null()).output().with_context(|| format!("`{}` could not be started", command::describe(driver)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ({}, {})", said.trim(), command::describe(driver), output.status);
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the driver's answer is no JSON: {:?}", String::from_utf8_lossy(&output.stdout)))
}

/// The options that say how long.
pub(super) fn lasting(plan: &Plan) -> [String; 2] {
    let Plan { measured, warm_up, rounds: _, quick: _, stored: _, patience: _ } = plan;
    [format!("--seconds={}", measured.as_secs_f64()), format!("--warm-up={}", warm_up.as_secs_f64())]
}

/// Starts a server, drives it, stops it, weighs it.
///
/// # Errors
/// The server or the driver fails; with the server's last words.
pub(super) fn turn(bench: &Bench<'_>, program: &Program, case: &Case) -> Result<Run> {
    let folder = bench.folder.join(program.kind.name());
    let outcome = turn_in(&folder, bench, program, case);
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("      warning: {} cannot be removed ({error}): remove it by hand", folder.display());
    }
    outcome.with_context(|| format!("{}, measured with {}", case.name, program.kind.title()))
}

fn turn_in(folder: &Path, bench: &Bench<'_>, program: &Program, case: &Case) -> Result<Run> {
    let server = program.start(folder, case.durability)?;
    let mut driver = server.driver(&bench.needs.driver);
    driver.args(lasting(&bench.plan)).args(&case.work).args(["--client", case.client.word(program.kind)]);
    if case.batch.is_some() && bench.plan.quick {
        driver.args(["--messages", "100000"]);
    }
    let answer = ask(&mut driver).with_context(|| format!("{} said:\n{}", program.kind.title(), server.said()))?;
    let mut run = Run::read(&answer)?;
    server.stop()?;
    if let Some(stored) = answer["stored"].as_u64() {
        run.disk = Some(server::on_disk(folder)? as f64 / stored.max(1) as f64);
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_lacking_one_is_refused() -> Result<()> {
        let answer = serde_json::json!({
            "messages": 4, "wall_ns": 2_000_000_000_u64, "server_cpu_until_rest_ns": 8000, "server_cpu_ns": 4000, "driver_cpu_ns": 2000,
            "server_peak_bytes": 7, "server_written_bytes": 8, "machine_idle": 0.5, "machine_waiting": 0.25, "p50_ns": 5, "p99_ns": null,
        });
        let run = Run::read(&answer)?;
        assert_eq!((run.throughput(), run.each(run.cpu), run.written, run.idle), (2.0, 2.0, 2.0, 0.5));
        assert_eq!((run.p50, run.value(Measure::P99)), (Some(Duration::from_nanos(5)), None));
        assert!(Run::read(&serde_json::json!({"messages": 4})).is_err_and(|error| error.to_string().contains("wall_ns")));
        Ok(())
    }
}
