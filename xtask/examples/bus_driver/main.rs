//! The load of `cargo xtask bench bus`: publishers and subscribers against one server, measured while they run.
//!
//! An example and not a part of xtask, because xtask itself is built without optimisation and without async-nats.
//!
//! Invariants worth naming:
//!
//! - **It says what it cost.** Its own processor time is in every answer, so that a table shows how much of the machine was the driver's;
//!   `ceiling` measures it against nothing at all.
//! - **Nothing is taken on trust.** Every message that it counts was received or acknowledged; at the end the server is asked how many it
//!   has. A message that is missing is an error and no slower number.
//! - **One line of JSON on stdout** is its answer. Errors go to stderr, with exit code 1.

mod asynchronous;
mod ceiling;
mod connection;
mod core;
mod fetch;
mod frames;
mod latency;
mod lines;
mod memory;
mod meter;
mod nats;
mod phase;
mod publish;
mod redis;
mod request;
mod resp;
mod scan;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Drives a message server and says what came of it.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    work: Work,
}

/// The server and how long to drive it.
#[derive(Debug, Clone, clap::Args)]
struct Target {
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:4222")]
    address: SocketAddr,
    /// Process of the server, for its processor time and memory.
    #[arg(long)]
    pid: u32,
    /// Measured for so long.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Driven for so long before.
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Metadata of the stream, as KEY=VALUE.
    #[arg(long)]
    metadata: Vec<String>,
}

impl Target {
    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warming(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

/// What speaks to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// NATS on a blocking socket, with large writes and prepared bytes.
    Raw,
    /// NATS by the crate async-nats.
    AsyncNats,
    /// Redis on a blocking socket, with large writes and prepared bytes.
    Redis,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Work {
    /// The raw driver's two halves against a socket that takes, or gives, everything.
    Ceiling {
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
    /// One publisher, one subscriber, nothing stored.
    Core {
        #[arg(long)]
        client: Client,
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
    /// Requests, one at a time, answered by another connection.
    Request {
        #[arg(long)]
        client: Client,
        #[arg(long, default_value_t = 16)]
        size: usize,
    },
    /// Acknowledged publishes into a stream.
    Publish {
        #[arg(long)]
        client: Client,
        #[arg(long, default_value_t = 256)]
        size: usize,
        /// Unacknowledged messages of each publisher.
        #[arg(long, default_value_t = 1000)]
        window: usize,
        #[arg(long, default_value_t = 1)]
        publishers: usize,
    },
    /// Reading a stored stream in batches.
    Fetch {
        #[arg(long)]
        client: Client,
        #[arg(long, default_value_t = 256)]
        size: usize,
        #[arg(long, default_value_t = 500)]
        batch: usize,
        /// Acknowledge each message.
        #[arg(long)]
        ack: bool,
        /// Messages stored before. When all are read and time is left, another consumer begins again.
        #[arg(long, default_value_t = 400_000)]
        messages: u64,
    },
    /// Stores so many messages.
    Fill {
        #[arg(long, default_value_t = 256)]
        size: usize,
        #[arg(long)]
        messages: u64,
    },
    /// Makes durable consumers that fetch and acknowledge a batch each.
    Consumers {
        #[arg(long, default_value_t = 100)]
        count: usize,
        #[arg(long, default_value_t = 500)]
        batch: usize,
    },
    /// Stores what `bartizan bus export` writes, read from standard input, in a stream that its server compresses if it can.
    Lines,
    /// Waits until the stream answers and says what is in it.
    State,
}

fn main() -> ExitCode {
    let Cli { target, work } = Cli::parse();
    match run(&target, &work) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bus_driver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(target: &Target, work: &Work) -> Result<serde_json::Value> {
    match *work {
        Work::Ceiling { size } => ceiling::run(target, size),
        Work::Core { client: Client::AsyncNats, size } => asynchronous::core(target, size),
        Work::Core { client, size } => core::run(target, client, size),
        Work::Request { client: Client::AsyncNats, size } => asynchronous::request(target, size),
        Work::Request { client, size } => request::run(target, client, size),
        Work::Publish { client: Client::AsyncNats, size, window, publishers } => asynchronous::publish(target, size, window, publishers),
        Work::Publish { client, size, window, publishers } => publish::run(target, client, size, window, publishers),
        Work::Fetch { client: Client::AsyncNats, size, batch, ack, messages } => asynchronous::fetch(target, size, batch, ack, messages),
        Work::Fetch { client: Client::Raw, size, batch, ack, messages } => fetch::run(target, size, batch, ack, messages),
        Work::Fetch { client: Client::Redis, size, batch, ack, messages } => redis::fetch(target, size, batch, ack, messages),
        Work::Fill { size, messages } => memory::fill(target, size, messages),
        Work::Consumers { count, batch } => memory::consumers(target, count, batch),
        Work::Lines => lines::run(target),
        Work::State => memory::state(target),
    }
}
