//! Resident memory: nothing stored, a million messages, ten million, a hundred consumers on them, and after a restart.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::process::{self, Memory};
use super::Bench;
use super::run;
use super::server::{self, Durability, Kind, Program, Server};

const MIB: f64 = 1_048_576.0;
/// Consumers, as the stage says; each fetches and acknowledges a batch.
const CONSUMERS: u64 = 100;
/// Resident memory of our own server, at most.
const GOAL_MIB: f64 = 40.0;
/// First stretch; the second is the rest.
const FIRST: u64 = 1_000_000;

/// What one server took.
#[derive(Debug, Clone, Default)]
struct Taken {
    stages: Vec<(&'static str, Memory)>,
    again: Duration,
    on_disk: f64,
    failed: Option<String>,
}

/// Measures and gives the text; Redis is left out, for it holds all of its data in memory by design.
///
/// # Errors
/// A folder cannot be made or read.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Option<String>> {
    if bench.plan.quick {
        return Ok(None);
    }
    let mut all = Vec::new();
    for program in bench.needs.servers.iter().filter(|program| program.kind != Kind::Redis) {
        eprintln!("      {}", program.kind.title());
        let mut taken = Taken::default();
        let folder = bench.folder.join(program.kind.name());
        if let Err(error) = one(bench, program, &folder, &mut taken) {
            eprintln!("        FAILED: {error:#}");
            taken.failed = Some(format!("{:#}", error.root_cause()));
        }
        std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
        all.push((program.kind, taken));
    }
    if all.is_empty() {
        return Ok(None);
    }
    Ok(Some(render(&all, bench.plan.stored)))
}

fn one(bench: &Bench<'_>, program: &Program, folder: &std::path::Path, taken: &mut Taken) -> Result<()> {
    let server = program.start(folder, Durability::Interval)?;
    let drive = |server: &Server, words: &[String]| run::ask(server.driver(&bench.needs.driver).args(words));
    let fill = |messages: u64| ["fill".to_owned(), format!("--messages={messages}")];
    note(taken, "nothing stored", &server)?;
    drive(&server, &fill(FIRST))?;
    note(taken, "1 million messages", &server)?;
    if bench.plan.stored > FIRST {
        drive(&server, &fill(bench.plan.stored - FIRST))?;
        note(taken, "all messages", &server)?;
    }
    let connected = drive(&server, &["consumers".to_owned(), format!("--count={CONSUMERS}")])?;
    let bytes = |name: &str| connected[name].as_u64().unwrap_or_default();
    let [rss, anonymous, peak] = ["server_resident_bytes", "server_anonymous_bytes", "server_peak_bytes"].map(bytes);
    taken.stages.push(("and 100 consumers, connected", Memory { rss, anonymous, peak, maps: 0 }));
    note(taken, "and gone again", &server)?;
    server.stop()?;
    taken.on_disk = server::on_disk(folder)? as f64 / bench.plan.stored as f64;
    let began = Instant::now();
    let server = program.start(folder, Durability::Interval)?;
    drive(&server, &["state".to_owned()])?;
    taken.again = began.elapsed();
    note(taken, "after a restart", &server)?;
    server.stop()
}

fn note(taken: &mut Taken, stage: &'static str, server: &Server) -> Result<()> {
    let memory = process::memory(server.pid())?;
    eprintln!("        {stage}: {:.1} MiB resident", memory.rss as f64 / MIB);
    taken.stages.push((stage, memory));
    Ok(())
}

fn render(all: &[(Kind, Taken)], stored: u64) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = table(&mut text, all, stored);
    text
}

fn table(text: &mut String, all: &[(Kind, Taken)], stored: u64) -> std::fmt::Result {
    writeln!(text, "{stored} messages of 256 B in one stream, default sync; resident (of it anonymous; most so far), MiB.\n")?;
    writeln!(text, "| stage | {} |", all.iter().map(|(kind, _)| kind.title()).collect::<Vec<_>>().join(" | "))?;
    writeln!(text, "|---|{}", "--:|".repeat(all.len()))?;
    let longest = all.iter().map(|(_, taken)| &taken.stages).max_by_key(|stages| stages.len());
    for (index, (stage, _)) in longest.into_iter().flatten().enumerate() {
        let cell = |taken: &Taken| match taken.stages.get(index) {
            Some((_, Memory { rss, anonymous, peak, maps: _ })) => {
                let [rss, anonymous, peak] = [rss, anonymous, peak].map(|bytes| *bytes as f64 / MIB);
                format!("{rss:.1} ({anonymous:.1}; {peak:.1})")
            }
            None => "—".to_owned(),
        };
        writeln!(text, "| {stage} | {} |", all.iter().map(|(_, taken)| cell(taken)).collect::<Vec<_>>().join(" | "))?;
    }
    let row = |name: &str, value: &dyn Fn(&Taken) -> String| {
        let whole = |taken: &Taken| if taken.failed.is_none() { value(taken) } else { "—".to_owned() };
        format!("| {name} | {} |", all.iter().map(|(_, taken)| whole(taken)).collect::<Vec<_>>().join(" | "))
    };
    writeln!(text, "{}", row("from a restart until the stream answers, s", &|taken| format!("{:.2}", taken.again.as_secs_f64())))?;
    writeln!(text, "{}", row("on disk, B/msg", &|taken| format!("{:.0}", taken.on_disk)))?;
    for (kind, taken) in all {
        if let Some(why) = &taken.failed {
            writeln!(text, "\n{} failed: {}", kind.title(), why.lines().next().unwrap_or_default())?;
        }
        if *kind == Kind::Ours {
            verdict(text, taken)?;
        }
    }
    Ok(())
}

fn verdict(text: &mut String, taken: &Taken) -> std::fmt::Result {
    let at = |name: &str| taken.stages.iter().find(|(stage, _)| *stage == name).map(|(_, memory)| memory.rss as f64 / MIB);
    let most = taken.stages.iter().map(|(_, memory)| memory.rss as f64 / MIB).fold(0.0, f64::max);
    let met = if taken.failed.is_none() && most <= GOAL_MIB { "met" } else { "**missed**" };
    write!(text, "\nGoal: resident ≤ {GOAL_MIB:.0} MiB with all messages and consumers: {most:.1} MiB at most, {met}.")?;
    match (at("1 million messages"), at("all messages")) {
        // A tenth is what allocators and caches differ by from one run to the next.
        (Some(first), Some(all)) => {
            let flat = if all <= first * 1.1 { "met" } else { "**missed**" };
            writeln!(text, " Goal: flat: {first:.1} MiB with a million, {all:.1} MiB with all, {flat}.")
        }
        _ => writeln!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rss_mib: &[u64]) -> Taken {
        let stages = ["nothing stored", "1 million messages", "all messages", "and 100 consumers, connected"];
        let memory = |mib: &u64| Memory { rss: mib << 20, ..Memory::default() };
        Taken { stages: stages.into_iter().zip(rss_mib.iter().map(memory)).collect(), ..Taken::default() }
    }

    #[test]
    fn goals_are_of_the_most_and_of_growth() {
        let text = render(&[(Kind::Nats, taken(&[20, 30, 50, 60])), (Kind::Ours, taken(&[5, 20, 21, 25]))], 10);
        assert!(text.contains("25.0 MiB at most, met.") && text.contains("20.0 MiB with a million, 21.0 MiB with all, met."), "{text}");
        let text = render(&[(Kind::Ours, taken(&[5, 20, 41, 25]))], 10);
        assert!(text.contains("41.0 MiB at most, **missed**.") && text.contains("41.0 MiB with all, **missed**."), "{text}");
    }

    #[test]
    fn one_that_failed_says_so() {
        let failed = Taken { failed: Some("it ended".to_owned()), ..taken(&[5]) };
        let text = render(&[(Kind::Nats, taken(&[20, 30, 50, 60])), (Kind::Ours, failed)], 10);
        assert!(text.contains("Bartizan failed: it ended") && text.contains("**missed**"), "{text}");
    }
}
