//! `cargo xtask bench`: what the sensor and the bus cost and how fast they are, into `docs/performance.md`.
//!
//! Invariants worth naming:
//!
//! - **Nothing is judged.** A bench writes numbers down; no time fails it. What fails it is a storm that did less than it counts, an
//!   observer that ends, or an alert that does not come.
//! - **Every storm is measured by itself**, in a process of its own: its wall clock and its processor time are its own words.
//! - **Interleaved.** Each round measures everyone in turn, so that what else the machine does falls on all alike.
//! - **Nothing stays**: observers die with us, their folders go, `kernel.bpf_stats_enabled` and the kernel's
//!   audit are restored also when we are killed (of audit stays one rule, which keeps new tasks as fast as they were).

mod alerts;
mod arrival;
mod audit;
mod bpf_stats;
mod bus;
mod capture;
mod document;
mod goal;
mod latency;
mod machine;
mod measure;
mod mixed;
mod observer;
mod process;
mod record;
mod report;
mod soak;
mod stats;
mod storm;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

pub(crate) use soak::command as storms;
pub(crate) use storm::Storm;

/// Options of `cargo xtask bench`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// The sensor off and on, beside peers: what execs, connections, opens and other calls cost, losses, memory, how fast events and alerts
    /// are, and what a build and redis-benchmark lose.
    Capture(capture::Args),
    /// The bus over the wire and in the process, beside nats-server and Redis: throughput, latency, processor time, memory, disk.
    Bus(bus::Args),
    /// The part of `capture` that needs root.
    #[command(hide = true)]
    Measure(capture::MeasureArgs),
    /// One storm, measured by itself.
    #[command(hide = true)]
    Storm(StormArgs),
    /// Storms against one sensor until the time is up, for `cargo xtask soak`.
    #[command(hide = true)]
    Storms(soak::Args),
    /// A sensor records storms until it has so many events: the part of `bus --only events-disk` that needs root.
    #[command(hide = true)]
    Record(record::Args),
}

#[derive(Debug, Clone, clap::Args)]
struct StormArgs {
    storm: Storm,
    #[arg(long)]
    operations: u64,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// For its files.
    #[arg(long)]
    folder: PathBuf,
}

/// The verb.
///
/// # Errors
/// A failed build, no way to root, a storm or an observer that fails.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Capture(args) => capture::run(args)?,
        What::Bus(args) => bus::run(args)?,
        What::Measure(args) => capture::measure(args)?,
        What::Storm(StormArgs { storm, operations, threads, folder }) => println!("{}", storm.run(*operations, *threads, folder)?),
        What::Storms(args) => return soak::run(args),
        What::Record(args) => println!("{}", record::run(args)?),
    }
    Ok(ExitCode::SUCCESS)
}
