//! `cargo xtask run`: build, mount what is missing, become `bartizan run` as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::privilege::{self, Privilege};
use crate::project::Project;
use crate::step::{self, Steps};
use crate::{build, command, mounts};

/// Options of `cargo xtask run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    build: build::Args,
    /// Arguments for `bartizan run`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// The verb. Returns only when something fails: on success this process has become the sensor (or sudo, which hands on signals and the
/// exit code), so that Ctrl-C and exit codes are Bartizan's own.
///
/// # Errors
/// No way to root, a failed build, or a binary that cannot be started.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    privilege::warn_if_under_sudo();
    let project = Project::locate()?;
    let binary = project.binary(args.build.release);
    // Before the build: a minute of compiling must not end in a refusal that was certain from the start.
    let instead = format!("build with `cargo xtask build` and start `{} run` as root", binary.display());
    let privilege = Privilege::find("Loading eBPF programs", &instead)?;
    let mut steps = Steps::new(build::STEPS + 1);
    let built = build::build(&project, args.build.release, &mut steps)?;
    steps.step("Kernel file systems", || Ok(((), mounts::ensure(privilege))))?;
    let mut start = privilege.command(&built.binary);
    start.arg("run").args(&args.arguments);
    eprintln!("ready in {}; starting `{}` (stop with Ctrl-C)", step::seconds(steps.elapsed()), command::describe(&start));
    let error = start.exec();
    Err(anyhow!("`{}` could not be started ({error}): check that the file system is not mounted noexec", command::describe(&start)))
}
