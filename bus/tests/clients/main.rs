//! Conformance in other languages: nats-py and nats.js, unmodified, do the same things to a real nats-server and to Bartizan's.
//!
//! The libraries are in `target/clients/`, where `cargo xtask test packages` puts them.

#[path = "../conformance/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use server::{Kind, Server};

/// Why the suites cannot run.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn libraries(of: &str) -> Result<PathBuf, Failure> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let path = target.join("clients").join(of);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: run `cargo xtask test packages`", path.display()).into()) }
}

async fn run() -> Result<bool, Failure> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let suites = [("nats-py", "python3", "suite.py", libraries("python")?), ("nats.js", "node", "suite.mjs", libraries("node")?)];
    let mut good = true;
    for kind in [Kind::NatsServer, Kind::Ours] {
        for (client, program, suite, libraries) in &suites {
            let server = Server::start(kind).await?;
            println!("{client} against {}", kind.name());
            let ended = Command::new(program).arg(here.join(suite)).arg(server.url()).arg(libraries).status()?;
            good &= ended.success();
        }
    }
    Ok(good)
}

fn main() -> ExitCode {
    let ran =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::from).and_then(|runtime| runtime.block_on(run()));
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
            ExitCode::FAILURE
        }
    }
}
