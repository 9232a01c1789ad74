//! `cargo xtask bench bus`: the bus over the wire and in the process, beside nats-server and Redis on the same machine in the same run.
//!
//! Invariants worth naming:
//!
//! - **Every measurement has a server and a folder of its own**: memory, bytes on disk and processor time are that measurement's alone.
//! - **At equal durability.** What a server may lose when the power fails is part of a measurement's name, and no ratio crosses it.
//! - **Alternating.** Within a measurement each round gives every server its turn, and a ratio is of one round: what else the machine does
//!   falls on all alike.
//! - **Goals stand beside the ratios**, met or not. Nothing is asserted.

mod case;
mod disk;
mod events_disk;
mod in_process;
mod memory;
mod needs;
mod quiet;
mod run;
pub(super) mod server;
mod table;
mod wire;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::capture::Folder;
use super::document;
use super::machine::Machine;
use crate::privilege;
use crate::project::Project;
use crate::step;
use case::Section;
use needs::Needs;
use server::Kind;

/// Options of `cargo xtask bench bus`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Sections to measure; all when none is named.
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<Section>,
    /// Servers to measure; all that can be had when none is named.
    #[arg(long = "server", value_name = "SERVER")]
    servers: Vec<Kind>,
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    seconds: f64,
    /// Seconds that a measurement waits for an idle machine; one that was disturbed all the same is made again, up to twice. 0 takes it as it comes.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    patience: u64,
    /// Messages stored for the section `memory`, and events recorded for `events-disk`.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000_000..))]
    stored: u64,
    /// A minute's worth: one short round of the most telling measurements, printed and not written down.
    #[arg(long)]
    quick: bool,
    /// Print the tables and leave docs/performance.md as it is.
    #[arg(long)]
    print_only: bool,
    /// Measure the example `serve` of bartizan-bus instead of `bartizan bus serve`: the same server, built without eBPF tools.
    #[arg(long)]
    example: bool,
    /// Another command of our own server, with `{port}`, `{dir}` and `{sync}` (`always` or `interval`) to be filled in.
    #[arg(long, value_name = "COMMAND", conflicts_with = "example")]
    ours: Option<String>,
    /// Metadata of the streams on our own server, KEY={sync}.
    #[arg(long, value_name = "KEY={sync}")]
    ours_metadata: Option<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 600.0 => Ok(seconds),
        _ => Err("give a number of seconds above 0 and up to 600".to_owned()),
    }
}

/// How long everything is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: u64,
    measured: Duration,
    warm_up: Duration,
    quick: bool,
    stored: u64,
    patience: Duration,
}

impl Args {
    fn plan(&self) -> Plan {
        if self.quick {
            let measured = Duration::from_millis(600);
            return Plan { rounds: 1, measured, warm_up: measured / 3, quick: true, stored: 1_000_000, patience: Duration::ZERO };
        }
        let (measured, patience) = (Duration::from_secs_f64(self.seconds), Duration::from_secs(self.patience));
        Plan { rounds: self.rounds, measured, warm_up: measured / 4, quick: false, stored: self.stored, patience }
    }

    fn sections(&self) -> Vec<Section> {
        if self.only.is_empty() { Section::value_variants().to_vec() } else { self.only.clone() }
    }

    /// What was asked for, as a reader would type it.
    fn command(&self, section: Section) -> String {
        let mut words = vec![format!("cargo xtask bench bus --only {}", section.name())];
        words.extend(self.servers.iter().map(|kind| format!("--server {}", kind.name())));
        words.extend(self.example.then(|| "--example".to_owned()));
        // The command itself may name a person's folders.
        words.extend(self.ours.as_ref().map(|_| "--ours COMMAND".to_owned()));
        if self.quick {
            words.push("--quick".to_owned());
        } else {
            words.push(format!("--rounds {} --seconds {}", self.rounds, self.seconds));
        }
        words.join(" ")
    }
}

/// The verb.
///
/// # Errors
/// A failed build, no server at all, or a measurement that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    privilege::warn_if_under_sudo();
    let project = Project::locate()?;
    let path = project.root.join("docs/performance.md");
    let write = !args.print_only && !args.quick;
    if write {
        // Before minutes of measuring.
        args.sections().into_iter().try_for_each(|section| document::check(&path, section.marker()))?;
    }
    let needs = Needs::get(&project, args)?;
    let folder = Folder::make(&project.scratch("bench-bus")?)?;
    let bench = Bench { project: &project, plan: args.plan(), needs, folder: &folder.0 };
    for section in args.sections() {
        let began = std::time::Instant::now();
        let machine = Machine::look()?;
        warn_if_busy(&machine);
        eprintln!("== {}: {}", section.name(), section.purpose());
        let Some(body) = bench.section(section)? else { continue };
        let text = format!("{}\n{body}", table::head(&machine, &args.command(section), &bench));
        println!("### {}\n\n{text}", section.title());
        if write {
            document::write(&path, section.marker(), &format!("### {}\n\n{text}", section.title()))?;
            eprintln!("      written into {}", path.display());
        }
        eprintln!("      {} took {}", section.name(), step::seconds(began.elapsed()));
    }
    Ok(())
}

/// A table of a busy machine is of that as well.
fn warn_if_busy(machine: &Machine) {
    let load: f64 = machine.load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
    if load > 0.5 {
        eprintln!("      warning: the load of this machine is {load} before anything is measured: close what else runs, and measure again");
    }
}

/// What all measurements have in common.
struct Bench<'a> {
    project: &'a Project,
    plan: Plan,
    needs: Needs,
    folder: &'a std::path::Path,
}

impl Bench<'_> {
    /// A section's text; `None` where there is nothing to measure.
    fn section(&self, section: Section) -> Result<Option<String>> {
        match section {
            Section::Driver | Section::Core | Section::Request | Section::Publish | Section::Fetch => wire::measure(self, section),
            Section::Memory => memory::measure(self),
            Section::InProcess => in_process::measure(self),
            Section::EventsDisk => events_disk::measure(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_that_is_written_down_reads_back() -> Result<()> {
        let args =
            Line::try_parse_from(["x", "--rounds", "3", "--only", "core", "--server", "nats", "--seconds", "1.5", "--example"])?.args;
        let command = args.command(Section::Core);
        let again = Line::try_parse_from(std::iter::once("x").chain(command.split(' ').skip(4)))?.args;
        assert_eq!((again.command(Section::Core), again.servers), (command, vec![Kind::Nats]));
        Ok(())
    }

    #[test]
    fn quick_is_short_and_seconds_are_positive() {
        let quick = Line::try_parse_from(["x", "--quick"]).map(|line| line.args.plan());
        assert!(quick.is_ok_and(|plan| plan.rounds == 1 && plan.measured < Duration::from_secs(1)));
        for seconds in ["0", "-1", "nan", "1000"] {
            assert!(Line::try_parse_from(["x", &format!("--seconds={seconds}")]).is_err(), "{seconds}");
        }
    }
}
