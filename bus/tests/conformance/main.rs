//! Conformance: an unmodified client (async-nats) does the same things to a real nats-server and to Bartizan's, and both must do what
//! the test says. A difference shows as a difference: either it is in [`DIFFERENCES`], with the reason, or the run fails.
//!
//! `cargo test -p bartizan-bus --test conformance [-- [--server ours|nats-server] [FILTER]]`

mod consumers;
mod core;
mod kv;
mod restart;
mod server;
mod streams;

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use server::{Kind, Server};

impl Server {
    pub(crate) async fn client(&self) -> Result<async_nats::Client, Failure> {
        Ok(async_nats::connect(self.url()).await?)
    }

    pub(crate) async fn jetstream(&self) -> Result<async_nats::jetstream::Context, Failure> {
        Ok(async_nats::jetstream::new(self.client().await?))
    }
}

/// Why a test failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Outcome = Result<(), Failure>;
type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A test: its name, and what it does to a server.
pub(crate) struct Test {
    name: &'static str,
    run: fn(Arc<Server>) -> Running,
    /// It stops and starts its server.
    own_server: bool,
}

/// Tests by the names of their functions.
macro_rules! tests {
    ($own:literal: $($module:ident::$name:ident),* $(,)?) => {
        [$(Test { name: concat!(stringify!($module), "::", stringify!($name)), run: |server| Box::pin($module::$name(server)), own_server: $own }),*]
    };
}
pub(crate) use tests;

/// Tests that one of the servers is known to fail, and why. One that passes after all must leave the list.
const DIFFERENCES: &[(Kind, &str, &str)] = &[(
    Kind::NatsServer,
    "restart::streams_consumers_and_buckets_survive_a_kill",
    "a message deleted by a client and those that a per-subject limit deleted may be back after SIGKILL",
)];

/// Longest time for one test.
const TIMEOUT: Duration = Duration::from_secs(30);

fn all() -> Vec<Test> {
    let mut all: Vec<Test> = Vec::new();
    all.extend(core::tests());
    all.extend(streams::tests());
    all.extend(consumers::tests());
    all.extend(kv::tests());
    all.extend(restart::tests());
    all
}

/// Says what is not as it should be.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($say:tt)+) => {
        if !$condition {
            return Err(format!($($say)+).into());
        }
    };
}

/// Says what differs from what should be.
#[macro_export]
macro_rules! same {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    return Err(format!("{}:{}: {} is {left:?}, expected {right:?}", file!(), line!(), stringify!($left)).into());
                }
            }
        }
    };
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut arguments = std::env::args().skip(1);
    let (mut only, mut filter) = (None, String::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--server" => only = arguments.next(),
            other if other.starts_with('-') => {}
            other => other.clone_into(&mut filter),
        }
    }
    let kinds: Vec<Kind> =
        [Kind::NatsServer, Kind::Ours].into_iter().filter(|kind| only.as_ref().is_none_or(|only| only == kind.name())).collect();
    let mut failed = false;
    for kind in kinds {
        failed |= !runtime.block_on(run(kind, &filter));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs all tests against one kind of server. True when all went as expected.
async fn run(kind: Kind, filter: &str) -> bool {
    println!("async-nats against {}", kind.name());
    let shared = match Server::start(kind).await {
        Ok(server) => Arc::new(server),
        Err(error) => {
            println!("cannot start {}: {error}", kind.name());
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
            return false;
        }
    };
    let mut running = tokio::task::JoinSet::new();
    for test in all().into_iter().filter(|test| test.name.contains(filter)) {
        let shared = Arc::clone(&shared);
        running.spawn(async move {
            let server = if test.own_server {
                match Server::start(kind).await {
                    Ok(server) => Arc::new(server),
                    Err(error) => return (test.name, Err(error)),
                }
            } else {
                shared
            };
            let outcome = match tokio::time::timeout(TIMEOUT, tokio::spawn((test.run)(server))).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err(panic.to_string().into()),
                Err(_) => Err(format!("not done within {} s", TIMEOUT.as_secs()).into()),
            };
            (test.name, outcome)
        });
    }
    let mut outcomes = Vec::new();
    while let Some(done) = running.join_next().await {
        outcomes.extend(done);
    }
    outcomes.sort_by_key(|(name, _)| *name);
    let (mut passed, mut failed, mut report) = (0, 0, String::new());
    for (name, outcome) in outcomes {
        let known = DIFFERENCES.iter().find(|(of, test, _)| *of == kind && *test == name);
        let line = match (outcome, known) {
            (Ok(()), None) => {
                passed += 1;
                format!("test {name} ... ok")
            }
            (Err(error), Some((.., why))) => {
                passed += 1;
                format!("test {name} ... differs, as known: {why} ({error})")
            }
            (Ok(()), Some(_)) => {
                failed += 1;
                format!("test {name} ... FAILED: it passes, so take it off the list of differences")
            }
            (Err(error), None) => {
                failed += 1;
                format!("test {name} ... FAILED: {error}")
            }
        };
        let _ = writeln!(report, "{line}");
    }
    print!("{report}");
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    failed == 0
}
