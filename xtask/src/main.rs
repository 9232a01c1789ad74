//! `cargo xtask`: everything a person does with this repository, one file per verb.
//!
//! Invariants worth naming:
//!
//! - **`target/` and `.tools/` stay the user's.** Nothing that writes there runs as root: only the finished binary, mounts,
//!   package installation and test binaries go through `sudo`.
//! - **Nothing outside the project is changed silently.** What is (the `rust-src` component, Debian packages that the tests need,
//!   mounts) is named on stderr before it happens.
//! - **Every failure is one sentence with its remedy** and a non-zero exit; no step reports success that it did not see.
//! - **The environment of a child is explicit.** `RUSTC_BOOTSTRAP` reaches the kernel-object build alone; what `cargo run` leaves in
//!   our own environment reaches nobody ([`command::cargo`]).
//! - **Steps talk on stderr, test results on stdout**, so that either can be redirected.

mod bench;
mod bpf_linker;
mod build;
mod command;
mod doctor;
mod fuzz;
mod kernel_object;
mod mounts;
mod privilege;
mod project;
mod run;
mod rust_src;
mod soak;
mod step;
mod stream;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Builds, runs and tests Bartizan.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
enum Cli {
    /// Build the kernel object and the `bartizan` binary, installing the build tools that are missing.
    Build(build::Args),
    /// Build, mount what is missing and start `bartizan run` as root.
    Run(run::Args),
    /// Say what this machine has of what building, running, testing and measuring need, and how to get the rest.
    Doctor(doctor::Args),
    /// Run every test: units, this machine's kernel, end to end, and Debian's 6.1 and 6.12 kernels in a VM.
    Test(test::Args),
    /// Run one program, or one test target, on a stock Debian cloud kernel under qemu.
    Vm(vm::Args),
    /// Measure what the sensor costs, into docs/performance.md.
    Bench(bench::Args),
    /// Repeat the randomised tests and the storm tests for longer than `test` does, and run the fuzz targets.
    Soak(soak::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli::Build(args) => build::run(&args),
        Cli::Run(args) => run::run(&args),
        Cli::Doctor(args) => doctor::run(&args),
        Cli::Test(args) => test::run(&args),
        Cli::Vm(args) => vm::run(&args),
        Cli::Bench(args) => bench::run(&args),
        Cli::Soak(args) => soak::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("       because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_verb_can_be_asked_for_help() {
        Cli::command().debug_assert();
        for verb in Cli::command().get_subcommands() {
            let asked = Cli::try_parse_from(["xtask", verb.get_name(), "--help"]);
            assert!(asked.is_err_and(|said| said.kind() == clap::error::ErrorKind::DisplayHelp), "{}", verb.get_name());
        }
    }

    #[test]
    fn arguments_after_two_dashes_are_the_programs() {
        let cli = Cli::try_parse_from(["xtask", "run", "--release", "--", "--data-dir", "/d"]);
        assert!(matches!(cli, Ok(Cli::Run(_))), "{cli:?}");
        let cli = Cli::try_parse_from(["xtask", "vm", "--kernel", "6.12", "--", "/t/capture", "--test-threads=1"]);
        assert!(matches!(cli, Ok(Cli::Vm(_))), "{cli:?}");
    }
}
