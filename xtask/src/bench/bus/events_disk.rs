//! Bytes on disk for each event of a real sensor, in its EVENTS stream and, the same events as JSON, in nats-server's file store with
//! `compression: s2`: what they would take if modules published them there.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::server::{self, Durability, Kind, Program};
use super::{Bench, run};
use crate::build;
use crate::command;
use crate::mounts;
use crate::privilege::Privilege;
use crate::step::{self, Steps};

/// Bytes for each event, at most.
const GOAL_BYTES: f64 = 60.0;
/// Times smaller than nats-server's, at least.
const GOAL_RATIO: f64 = 6.0;

/// Records, exports into nats-server, weighs.
///
/// # Errors
/// The sensor or a server fails.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Option<String>> {
    let root = Privilege::find("Recording events", "run `cargo xtask bench bus --only events-disk` as root")?;
    let built = build::build(bench.project, true, &mut Steps::new(build::STEPS))?;
    mounts::ensure(root);
    let kept = bench.folder.join("recorded");
    eprintln!("      recording {} events", bench.plan.stored);
    let mut record = super::super::record::command(root, bench.plan.stored, &built.binary, &bench.folder.join("recording"), &kept)?;
    let recorded = command::capture_shown(&mut record, "read its message above")?;
    let recorded: Value = serde_json::from_str(recorded.trim()).with_context(|| format!("the recording says {recorded:?}"))?;
    let others = bench.needs.servers.iter().filter(|program| program.kind == Kind::Nats);
    let mut stored = Vec::new();
    for program in others {
        eprintln!("      the same events as JSON into {}", program.kind.title());
        stored.push(store(bench, program, &built.binary, &kept)?);
    }
    remove(root, &kept)?;
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = table(&mut text, &recorded, &stored);
    Ok(Some(text))
}

/// The recording is root's.
fn remove(root: Privilege, kept: &Path) -> Result<()> {
    let mut command = root.command("rm");
    command.arg("-rf").arg(kept);
    command::run(&mut command, "remove it by hand")
}

/// What a server made of the recording.
#[derive(Debug, Default)]
struct Stored {
    title: String,
    events: u64,
    /// Of their JSON.
    payload: u64,
    disk: u64,
    compression: String,
}

fn store(bench: &Bench<'_>, program: &Program, bartizan: &Path, kept: &Path) -> Result<Stored> {
    let folder = bench.folder.join(program.kind.name());
    let server = program.start(&folder, Durability::Interval)?;
    let mut export = Command::new(bartizan);
    command::clean(&mut export).args(["bus", "export", "EVENTS", "--data-dir"]).arg(kept).stdout(Stdio::piped());
    let mut exporting = export.spawn().context("bartizan bus export could not be started")?;
    let lines = exporting.stdout.take().context("bartizan bus export has no output")?;
    let mut driver = server.driver(&bench.needs.driver);
    driver.arg("lines").stdin(Stdio::from(lines)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = driver.output().context("the driver could not be started")?;
    let exported = exporting.wait().context("bartizan bus export cannot be waited for")?;
    if !output.status.success() || !exported.success() {
        bail!("{} (export: {exported}, driver: {})", String::from_utf8_lossy(&output.stderr).trim(), output.status);
    }
    let answer: Value = serde_json::from_slice(&output.stdout).context("the driver's answer is no JSON")?;
    let run = run::Run::read(&answer)?;
    server.stop()?;
    let stored = Stored {
        title: program.version.clone(),
        events: run.messages,
        payload: answer["payload_bytes"].as_u64().unwrap_or_default(),
        disk: server::on_disk(&folder)?,
        compression: answer["compression"].as_str().unwrap_or_default().to_owned(),
    };
    std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    eprintln!("        {} events, {} on disk", stored.events, step::bytes(stored.disk));
    Ok(stored)
}

fn table(text: &mut String, recorded: &Value, stored: &[Stored]) -> std::fmt::Result {
    let number = |name: &str| recorded[name].as_u64().unwrap_or_default();
    let kinds: Vec<(&str, u64)> = recorded["kinds"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, count)| (kind.as_str(), count.as_u64().unwrap_or_default()))
        .filter(|(_, count)| *count > 0)
        .collect();
    let (events, records) = (number("events"), kinds.iter().map(|(_, count)| count).sum::<u64>());
    let each = |bytes: u64, events: u64| bytes as f64 / events.max(1) as f64;
    let (running, ended) = (each(number("disk_bytes_running"), events), each(number("disk_bytes"), events));
    let share = |count: u64| format!("{:.1} %", 100.0 * count as f64 / records.max(1) as f64);
    let list: Vec<String> = kinds.iter().map(|(kind, count)| format!("`{kind}` {}", share(*count))).collect();
    writeln!(
        text,
        "{events} events of a real sensor in {} s, while pipelines of shells, programs, connections and logins went on: {}. Lost: {} (and {} skipped runs).\n",
        number("seconds"),
        list.join(", "),
        number("lost"),
        number("skipped")
    )?;
    writeln!(text, "| store | events | content, B/event | on disk, B/event | Bartizan is smaller, times |\n|---|--:|--:|--:|--:|")?;
    writeln!(text, "| EVENTS of Bartizan, sensor running (active segment and indexes included) | {events} | | {running:.1} | |")?;
    writeln!(text, "| the same after its end | {events} | | {ended:.1} | |")?;
    let worst = running.max(ended);
    let mut ratio = None;
    for Stored { title, events, payload, disk, compression } in stored {
        let times = each(*disk, *events) / worst.max(f64::MIN_POSITIVE);
        writeln!(
            text,
            "| {title}, the same as JSON, compression `{compression}` | {events} | {:.0} | {:.1} | {times:.1} |",
            each(*payload, *events),
            each(*disk, *events)
        )?;
        ratio = Some(times);
    }
    let word = |met: bool| if met { "met" } else { "**missed**" };
    write!(text, "\nGoal: at most {GOAL_BYTES:.0} B an event: {worst:.1} B, {}.", word(worst <= GOAL_BYTES))?;
    match ratio {
        Some(times) => {
            writeln!(text, " Goal: at least {GOAL_RATIO:.0} times smaller than nats-server: {times:.1}, {}.", word(times >= GOAL_RATIO))
        }
        None => writeln!(text, " nats-server was left out."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_both_weights_counts() {
        let recorded = serde_json::json!({
            "events": 100, "kinds": {"process.exec": 25, "process.exit": 75, "auth.start": 0}, "lost": 1, "skipped": 2, "seconds": 9,
            "disk_bytes_running": 5000, "disk_bytes": 4000,
        });
        let nats = Stored { title: "nats-server 2".to_owned(), events: 100, payload: 70_000, disk: 25_000, compression: "s2".to_owned() };
        let mut text = String::new();
        table(&mut text, &recorded, &[nats]).expect("written");
        for part in [
            "100 events of a real sensor in 9 s",
            "`process.exec` 25.0 %, `process.exit` 75.0 %. Lost: 1 (and 2 skipped runs).",
            "| nats-server 2, the same as JSON, compression `s2` | 100 | 700 | 250.0 | 5.0 |",
            "at most 60 B an event: 50.0 B, met.",
            "nats-server: 5.0, **missed**.",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert!(!text.contains("auth.start"), "{text}");
    }
}
