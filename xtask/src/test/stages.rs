//! What each stage of `cargo xtask test` does.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::binaries::TestBinary;
use super::libtest::{Counts, Tally};
use super::{binaries, packages};
use crate::build::{self, Built};
use crate::privilege::Privilege;
use crate::project::Project;
use crate::step::Steps;
use crate::stream::{End, show, stream};
use crate::{command, kernel_object, vm};

/// Kernels of the VM stage: Debian 12's own, and the one that Debian 13 and 12's security archive have.
pub(crate) const VM_KERNELS: &[&str] = &["6.1", "6.12"];

/// The stages, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Stage {
    /// Install the Debian packages that the tests start programs of, and fetch a current nats-server.
    Packages,
    /// Everything that `cargo xtask build` does.
    Build,
    /// `cargo fmt --check`, and whether the fuzz targets' lock file has what the crates need.
    Format,
    /// Clippy on every crate, and on the kernel programs for their own target; warnings fail.
    Clippy,
    /// Unit, property and doc tests of all crates.
    Unit,
    /// On-kernel and end-to-end tests on this machine, as root.
    Kernel,
    /// On-kernel tests on stock Debian kernels under qemu.
    Vm,
}

impl Stage {
    /// Its name on the command line and in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Build => "build",
            Self::Format => "format",
            Self::Clippy => "clippy",
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::Vm => "vm",
        }
    }

    /// What it is for, in a line.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Packages => "packages that the tests start programs of; installed or fetched when missing",
            Self::Build => "kernel object and binary, as `cargo xtask build`",
            Self::Format => "cargo fmt --all --check, and the lock file of the fuzz targets",
            Self::Clippy => "clippy on every crate, and on the kernel programs for their own target; warnings fail",
            Self::Unit => "unit, property and doc tests of all crates",
            Self::Kernel => "on-kernel and end-to-end tests on this machine, as root",
            Self::Vm => "on-kernel tests on stock Debian 6.1 and 6.12 kernels under qemu",
        }
    }

    /// Stages without which it cannot run.
    pub(crate) fn needs(self) -> &'static [Self] {
        match self {
            Self::Packages | Self::Build | Self::Format => &[],
            Self::Clippy => &[Self::Build],
            Self::Unit | Self::Kernel | Self::Vm => &[Self::Packages, Self::Build],
        }
    }
}

/// A part of a stage that has counts of its own, such as one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name.
    pub(crate) name: String,
    /// Tests that ran; they are in the stage's counts too.
    pub(crate) counts: Counts,
    /// All went well.
    pub(crate) passed: bool,
    /// How long it took.
    pub(crate) took: Duration,
}

/// What a stage leaves: counts of tests, and a sentence for each thing that went wrong.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Tests that ran.
    pub(crate) counts: Counts,
    /// The parts that it consists of, where it has any.
    pub(crate) parts: Vec<Part>,
    /// What went wrong; empty when the stage passed.
    pub(crate) trouble: Vec<String>,
}

impl Report {
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.trouble.push(sentence(&error));
        }
    }
}

/// An error with its causes on one line.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("; because: ")
}

/// What later stages need from earlier ones.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The checkout.
    pub(crate) project: Project,
    /// Test the optimised binary.
    pub(crate) release: bool,
    /// What the build stage left.
    pub(crate) built: Option<Built>,
}

impl Bench {
    fn built(&self) -> Result<&Built> {
        self.built.as_ref().context("the build stage left no binary: run the stage `build` first")
    }

    /// Runs one stage.
    pub(crate) fn run(&mut self, stage: Stage) -> Report {
        let mut report = Report::default();
        let result = match stage {
            Stage::Packages => packages::ensure(&self.project).map(|done| eprintln!("      {done}")),
            Stage::Build => build::build(&self.project, self.release, &mut Steps::new(build::STEPS)).map(|built| self.built = Some(built)),
            Stage::Format => self.format(&mut report),
            Stage::Clippy => self.clippy(&mut report),
            Stage::Unit => self.unit(&mut report),
            Stage::Kernel => self.kernel(&mut report),
            Stage::Vm => self.vm(&mut report),
        };
        report.note(result);
        report
    }

    fn format(&self, report: &mut Report) -> Result<()> {
        // The fuzz targets are a workspace of their own, which no other stage looks at.
        let mut lock = self.project.cargo();
        lock.args(["update", "--workspace", "--locked", "--manifest-path"]).arg(self.project.root.join("fuzz/Cargo.toml"));
        report.note(command::run(&mut lock, "run `cargo update --workspace` in fuzz/, and commit its lock file"));
        command::run(self.project.cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
    }

    fn clippy(&self, report: &mut Report) -> Result<()> {
        let mut host = self.project.cargo();
        host.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        report.note(command::run(&mut host, "repair what clippy names above"));
        kernel_object::clippy(&self.project, &self.built()?.linker)
    }

    fn unit(&self, report: &mut Report) -> Result<()> {
        let mut cargo = self.project.cargo();
        cargo.args(["test", "--workspace", "--exclude", "bartizan-tests", "--no-fail-fast"]);
        let mut tally = Tally::default();
        let end = stream(&mut cargo, None, "install Rust from https://rustup.rs", |piece| {
            tally.feed(piece);
            ControlFlow::Continue(())
        })?;
        report.counts = tally.counts();
        match end {
            End::Exited(status) if status.success() => ran_some(report.counts),
            End::Exited(status) => bail!("`{}` failed ({status}): the failures are listed above", command::describe(&cargo)),
            End::Stopped | End::TimedOut => bail!("the unit tests were stopped without a deadline of ours"),
        }
    }

    fn kernel(&self, report: &mut Report) -> Result<()> {
        let bartizan = &self.built()?.binary;
        let root = Privilege::find("Running tests on the kernel", "run `cargo xtask test kernel` as root")?;
        for binary in binaries::build(&self.project)?.iter().filter(|binary| binary.runs_here()) {
            eprintln!("      {} on this kernel", binary.name);
            let (counts, trouble) = binaries::run(&self.project, binary, bartizan, root, &[])?;
            report.counts.add(counts);
            report.trouble.extend(trouble);
        }
        ran_some(report.counts)
    }

    fn vm(&self, report: &mut Report) -> Result<()> {
        let bartizan = &self.built()?.binary;
        let mut binaries = binaries::build(&self.project)?;
        binaries.retain(TestBinary::runs_in_vm);
        let mut kernels = Vec::new();
        for series in VM_KERNELS {
            kernels.push((series, vm::Guest::for_tests(series)?, vm::kernel(&self.project, series)));
        }
        // Emulated processors wait more than they work: two guests at a time take little longer than one.
        let done: Vec<_> = std::thread::scope(|scope| {
            let start = |(n, (_, guest, kernel)): (usize, &(_, vm::Guest, Result<vm::Kernel>))| {
                let (guest, kernel) = (guest.clone(), kernel.as_ref().ok().cloned());
                let binaries = &binaries;
                scope.spawn(move || kernel.map(|kernel| on_kernel(&guest, &kernel, bartizan, binaries, n == 0)))
            };
            let running: Vec<_> = kernels.iter().enumerate().map(start).collect();
            running.into_iter().map(|guest| guest.join().ok().flatten()).collect()
        });
        for ((series, _, kernel), ran) in kernels.into_iter().zip(done) {
            let OnKernel { counts, mut trouble, console, took } = ran.unwrap_or_default();
            let name = match kernel {
                Ok(kernel) => kernel.package,
                Err(error) => {
                    trouble.push(sentence(&error));
                    format!("Debian {series}")
                }
            };
            if !console.is_empty() {
                eprintln!("      what the guest of {name} said meanwhile:");
                show(&console);
            }
            // Without this a kernel on which nothing ran would hide behind another's counts.
            if let (true, Err(error)) = (trouble.is_empty(), ran_some(counts)) {
                trouble.push(sentence(&error));
            }
            report.counts.add(counts);
            report.parts.push(Part { name: name.clone(), counts, passed: trouble.is_empty() && counts.failed == 0, took });
            report.trouble.extend(trouble.into_iter().map(|said| format!("{name}: {said}")));
        }
        ran_some(report.counts)
    }
}

/// What came of the test binaries on one kernel.
#[derive(Debug, Default)]
struct OnKernel {
    counts: Counts,
    trouble: Vec<String>,
    /// What was not shown while it ran.
    console: Vec<u8>,
    took: Duration,
}

/// Runs the test binaries on one kernel, one after the other. Consoles are shown as they come, or kept.
fn on_kernel(guest: &vm::Guest, kernel: &vm::Kernel, bartizan: &Path, binaries: &[TestBinary], live: bool) -> OnKernel {
    let began = Instant::now();
    let mut on = OnKernel::default();
    for binary in binaries {
        let console = &mut on.console;
        let (counts, trouble) =
            in_guest(guest, kernel, bartizan, binary, |piece| if live { show(piece) } else { console.extend_from_slice(piece) });
        on.counts.add(counts);
        on.trouble.extend(trouble);
    }
    on.took = began.elapsed();
    on
}

/// Runs one test binary on one kernel.
fn in_guest(
    guest: &vm::Guest,
    kernel: &vm::Kernel,
    bartizan: &Path,
    binary: &TestBinary,
    mut watch: impl FnMut(&[u8]),
) -> (Counts, Option<String>) {
    let mut tally = Tally::default();
    let code = vm::boot(guest, kernel, bartizan, &binary.path, &["--test-threads=1".into()], |piece| {
        tally.feed(piece);
        watch(piece);
    });
    let trouble = match code {
        Ok(0) => None,
        Ok(code) => Some(format!("{} failed (exit code {code})", binary.name)),
        Err(error) => Some(format!("{}: {}", binary.name, sentence(&error))),
    };
    (tally.counts(), trouble)
}

/// A stage in which nothing ran is no success.
fn ran_some(counts: Counts) -> Result<()> {
    if counts.ran() == 0 {
        bail!("no test ran: the test targets were renamed or filtered away");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_stage_comes_after_what_it_needs() {
        for stage in Stage::value_variants() {
            assert!(stage.needs().iter().all(|needed| needed < stage), "{stage:?}");
            let shown = stage.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(shown.as_deref(), Some(stage.name()));
        }
    }

    #[test]
    fn nothing_ran_is_no_success() {
        assert!(ran_some(Counts { ignored: 5, ..Counts::default() }).is_err());
        assert!(ran_some(Counts { passed: 1, ..Counts::default() }).is_ok());
    }

    #[test]
    fn without_a_build_a_stage_says_so() {
        let project = Project { root: "/r".into(), target: "/t".into(), tools: "/r/.tools".into() };
        let report = Bench { project, release: false, built: None }.run(Stage::Vm);
        assert!(report.trouble.len() == 1 && report.trouble[0].contains("build"), "{:?}", report.trouble);
    }
}
