//! `cargo xtask build`: from a fresh machine with stable Rust to `target/<profile>/bartizan`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::project::Project;
use crate::step::{self, Steps};
use crate::toolchain::Toolchain;
use crate::{bpf_linker, command, kernel_object, privilege, rust_src};

/// Steps that [`build`] takes from its caller's sequence.
pub(crate) const STEPS: usize = 5;

/// Options of `cargo xtask build`.
#[derive(Debug, Clone, clap::Args)]
// Flattened into other verbs' options, whose clap group has the same name.
#[group(skip)]
pub(crate) struct Args {
    /// Optimise the binary (the kernel object always is).
    #[arg(long)]
    pub(crate) release: bool,
}

/// What a build leaves.
#[derive(Debug)]
pub(crate) struct Built {
    /// The `bartizan` binary.
    pub(crate) binary: PathBuf,
    /// The bpf-linker, for lints of the kernel programs.
    pub(crate) linker: PathBuf,
}

/// The verb.
///
/// # Errors
/// Those of [`build`].
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    privilege::warn_if_under_sudo();
    let project = Project::locate()?;
    let mut steps = Steps::new(STEPS);
    let built = build(&project, args.release, &mut steps)?;
    eprintln!("built {} in {}", built.binary.display(), step::seconds(steps.elapsed()));
    Ok(ExitCode::SUCCESS)
}

/// Builds everything that `bartizan` is made of.
///
/// # Errors
/// The first step that fails, with its remedy.
pub(crate) fn build(project: &Project, release: bool, steps: &mut Steps) -> Result<Built> {
    let toolchain = steps.step("Rust compiler", || {
        let toolchain = Toolchain::find()?;
        let phrase = format!("rustc {} with LLVM {}", toolchain.info.release_text, toolchain.info.llvm_major);
        Ok((toolchain, phrase))
    })?;
    steps.step("Source of `core` (rust-src), to compile it for eBPF", || Ok(((), rust_src::ensure(&toolchain)?)))?;
    let linker =
        steps.step("bpf-linker, built against rustc's own LLVM (about a minute, once)", || bpf_linker::ensure(project, &toolchain))?;
    steps.step("Kernel object (sensor-ebpf)", || Ok(((), kernel_object::build(project, &linker)?)))?;
    let title = if release { "bartizan binary (release: several minutes the first time)" } else { "bartizan binary" };
    let binary = steps.step(title, || {
        let mut cargo = project.cargo();
        cargo.args(["build", "--package", "bartizan"]);
        if release {
            cargo.arg("--release");
        }
        command::run(&mut cargo, "read the compiler's message above")?;
        let binary = project.binary(release);
        if !command::is_executable(&binary) {
            bail!("cargo built bartizan, but {} is not there: unset CARGO_BUILD_TARGET and try again", binary.display());
        }
        let size = binary.metadata().map(|meta| step::bytes(meta.len())).unwrap_or_default();
        let phrase = format!("{} ({size})", binary.display());
        Ok((binary, phrase))
    })?;
    Ok(Built { binary, linker })
}
