//! What the bench starts: the driver, and the servers that can be had.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Args;
use super::server::{Kind, Program};
use crate::project::Project;
use crate::step::Steps;
use crate::test::{nats_server, packages};
use crate::{build, command};

/// Options of `bartizan`.
const BINARY: &str = "bus serve --listen 127.0.0.1:{port} --no-auth --sync {sync} --data-dir {dir}";
/// Options of the example `serve`.
const EXAMPLE: &str = "--port {port} --data-dir {dir} --sync {sync}";

/// Built or found.
#[derive(Debug)]
pub(super) struct Needs {
    /// The load.
    pub(super) driver: PathBuf,
    /// In the order of their turns.
    pub(super) servers: Vec<Program>,
    /// The bench of the bus in its own process, where the crate has it.
    pub(super) in_process: Option<PathBuf>,
}

impl Needs {
    /// Builds and finds.
    ///
    /// # Errors
    /// The driver cannot be built, a server that was named cannot be had, or there is none at all.
    pub(super) fn get(project: &Project, args: &Args) -> Result<Self> {
        let mut steps = Steps::new(3);
        let driver = steps.step("The load (release: some minutes the first time)", || {
            let path = example(project, "bartizan-xtask", "bus_driver")?;
            Ok((path.clone(), path.display().to_string()))
        })?;
        let servers = steps.step("Servers", || {
            let servers = servers(project, args)?;
            let phrase = servers.iter().map(|program| program.version.as_str()).collect::<Vec<_>>().join(", ");
            Ok((servers, phrase))
        })?;
        let in_process = steps.step("The bus in its own process", || {
            if !has_example(project, "bench_inprocess") {
                return Ok((None, "left out: bartizan-bus has no example bench_inprocess".to_owned()));
            }
            let path = example(project, "bartizan-bus", "bench_inprocess")?;
            let phrase = path.display().to_string();
            Ok((Some(path), phrase))
        })?;
        Ok(Self { driver, servers, in_process })
    }
}

fn servers(project: &Project, args: &Args) -> Result<Vec<Program>> {
    let named = |kind: Kind| args.servers.contains(&kind);
    let mut found = Vec::new();
    for kind in Kind::value_variants().iter().copied().filter(|kind| args.servers.is_empty() || named(*kind)) {
        match server(project, args, kind) {
            Ok(program) => found.push(program),
            Err(error) if named(kind) => return Err(error.context(format!("{} was named and cannot be had", kind.title()))),
            Err(error) => eprintln!("      note: without {}: {error:#}", kind.title()),
        }
    }
    if found.is_empty() {
        bail!("no server can be had: read the notes above");
    }
    Ok(found)
}

fn server(project: &Project, args: &Args, kind: Kind) -> Result<Program> {
    let text = |path: PathBuf| path.to_str().map(str::to_owned).with_context(|| format!("{} is no UTF-8", path.display()));
    let (words, version) = match kind {
        Kind::Nats => {
            let path = nats_server::ensure(&project.target).map(|_| nats_server::binary(&project.target))?;
            let said = command::capture(Command::new(&path).arg("--version"), "this machine cannot run it")?;
            (vec![text(path)?], said.trim().replace("nats-server: v", "nats-server "))
        }
        Kind::Redis => {
            packages::ensure_for_bench()?;
            let path = command::find_program("redis-server").context("redis-server is not on this machine")?;
            let said = command::capture(Command::new(&path).arg("--version"), "this machine cannot run it")?;
            let version = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("of unknown version");
            (vec![text(path)?], format!("Redis {version}"))
        }
        Kind::Ours => {
            let (program, options) = match &args.ours {
                Some(command) => (None, command.as_str()),
                None if args.example => (Some(example(project, "bartizan-bus", "serve")?), EXAMPLE),
                None => (Some(build::build(project, true, &mut Steps::new(build::STEPS))?.binary), BINARY),
            };
            let words = program.map(text).transpose()?.into_iter().chain(options.split_whitespace().map(str::to_owned)).collect();
            let which = if args.example { " (example `serve`)" } else { "" };
            (words, format!("Bartizan {}{which}", env!("CARGO_PKG_VERSION")))
        }
    };
    let metadata = (kind == Kind::Ours).then(|| args.ours_metadata.clone()).flatten();
    Ok(Program { kind, words, version, metadata })
}

fn has_example(project: &Project, name: &str) -> bool {
    project.root.join("bus/examples").join(name).with_extension("rs").exists()
}

/// Builds an example, optimised; its path.
fn example(project: &Project, package: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--release", "--package", package, "--example", name]);
    command::run(&mut cargo, "read the compiler's message above")?;
    let path = project.target.join("release/examples").join(name);
    if !command::is_executable(&path) {
        bail!("cargo built {name}, but {} is not there: unset CARGO_BUILD_TARGET and try again", path.display());
    }
    Ok(path)
}
