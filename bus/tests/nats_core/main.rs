//! Core NATS over real sockets, to the byte: the same bytes go to a real nats-server and to Bartizan's, with the same settings, and both
//! must answer what the test says. A difference shows as a difference: either it is in [`DIFFERENCES`], with the reason, or the run fails.
//!
//! `cargo test -p bartizan-bus --test nats_core [-- [--server ours|nats-server] [FILTER]]`

mod auth;
mod differential;
mod exchanges;
mod lame_duck;
mod limits;
mod permissions;
mod server;
mod tls;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use server::Kind;

/// Why a test failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Outcome = Result<(), Failure>;

/// A test: its name, and what it does to a server of that kind.
pub(crate) struct Test {
    name: &'static str,
    run: fn(Kind) -> Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// Tests by the names of their functions.
macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$($crate::Test { name: concat!(stringify!($module), "::", stringify!($name)), run: |kind| Box::pin(crate::$module::$name(kind)) }),*]
    };
}
pub(crate) use tests;

/// Says what differs from what should be.
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
pub(crate) use same;

/// What one of the servers is known to do otherwise, and why. One that does as the test says after all must leave the list.
const DIFFERENCES: &[(Kind, &str, &str)] = &[
    (
        Kind::NatsServer,
        "permissions::no_way_round_by_a_reply",
        "the answer to a JetStream request is stored by a stream that has its reply subject",
    ),
    (Kind::NatsServer, "permissions::modules_are_kept_apart", "it knows users' subjects, and not whose a consumer or an inbox is"),
    (Kind::NatsServer, "permissions::no_wider_pattern", "who may subscribe to b.* may subscribe to b.>, and gets b.x.y"),
    (Kind::Ours, "exchange::pub_with_nine_digits", "zeros in front of a size are not repeated to the subscriber"),
    (Kind::Ours, "exchange::unknown_jetstream_request_has_no_answer", "it is answered with an error, so that nobody waits for a timeout"),
];

/// Longest time for one test.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Tests at a time: each starts a server.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build() {
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
    let mut failed = false;
    for kind in [Kind::NatsServer, Kind::Ours].into_iter().filter(|kind| only.as_ref().is_none_or(|only| only == kind.name())) {
        failed |= !runtime.block_on(run(kind, &filter));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs all tests against one kind of server. True when all went as expected.
async fn run(kind: Kind, filter: &str) -> bool {
    println!("raw sockets against {}", kind.name());
    let mut tests: Vec<Test> = Vec::new();
    tests.extend(auth::tests());
    tests.extend(permissions::tests());
    tests.extend(tls::tests());
    tests.extend(limits::tests());
    tests.extend(lame_duck::tests());
    let at_once = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    for test in tests.into_iter().filter(|test| test.name.contains(filter)) {
        let at_once = Arc::clone(&at_once);
        running.spawn(async move {
            let _turn = at_once.acquire().await;
            let outcome = match tokio::time::timeout(TIMEOUT, tokio::spawn((test.run)(kind))).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err(panic.to_string().into()),
                Err(_) => Err(format!("not done within {} s", TIMEOUT.as_secs()).into()),
            };
            (test.name.to_owned(), outcome)
        });
    }
    let mut outcomes = exchanges::run(kind, filter).await;
    if kind == Kind::Ours {
        outcomes.extend(differential::run(filter).await);
    }
    while let Some(done) = running.join_next().await {
        outcomes.extend(done);
    }
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (mut passed, mut failed) = (0, 0);
    for (name, outcome) in outcomes {
        let known = DIFFERENCES.iter().find(|(of, test, _)| *of == kind && *test == name);
        let (as_expected, line) = match (outcome, known) {
            (Ok(()), None) => (true, "ok".to_owned()),
            (Err(error), Some((.., why))) => (true, format!("differs, as known: {why} ({error})")),
            (Ok(()), Some(_)) => (false, "FAILED: it passes, so take it off the list of differences".to_owned()),
            (Err(error), None) => (false, format!("FAILED: {error}")),
        };
        println!("test {name} ... {line}");
        *(if as_expected { &mut passed } else { &mut failed }) += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    failed == 0
}
