//! `cargo xtask vm`: one program, or one test target of the workspace, on a stock Debian cloud kernel.
//!
//! Emulated (qemu TCG), because the machines that build this project have no usable `/dev/kvm`: times measured inside mean nothing.
//! The guest sees an initramfs and a loopback device, nothing of the host.

mod console;
mod cpio;
mod extra;
mod initramfs;
mod kernel;
mod libraries;
mod needs;
mod qemu;
mod target;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::project::Project;
use crate::step::{self, Steps};
use crate::stream::{End, follow, show};
use crate::{build, command};

pub(crate) use console::{Console, Verdict};
pub(crate) use extra::Extra;
pub(crate) use kernel::Kernel;

/// Where the guest has the `bartizan` binary; also in its environment as `BARTIZAN_BIN`.
pub(crate) const GUEST_BINARY: &str = "/usr/bin/bartizan";

/// What the guest is.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Guest {
    /// Series of Debian's cloud kernel, such as 6.1 or 6.12 (what the host's apt sources offer).
    #[arg(long, default_value = "6.1", value_name = "SERIES")]
    pub(crate) kernel: String,
    /// Memory of the guest, MiB.
    #[arg(long, default_value_t = 2048, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..))]
    pub(crate) memory: u32,
    /// Seconds until a guest that has not ended is killed: 1800 for a test target, else 300.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Another program of the host for the guest, at the same path, with its libraries: a path, or a name to be found (repeatable).
    #[arg(long = "with", value_name = "PROGRAM")]
    pub(crate) with: Vec<PathBuf>,
    /// A file or a whole folder of the host for the guest, at the same path or at GUEST; an ELF file brings its libraries (repeatable).
    #[arg(long = "file", value_name = "PATH[=GUEST]")]
    pub(crate) files: Vec<Extra>,
    /// A variable for the program's environment (repeatable).
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) environment: Vec<String>,
}

/// Longest time for a program, seconds.
const LONGEST: u64 = 300;
/// Longest time for a test target, seconds: emulation is some ten times slower than this machine.
const LONGEST_TEST: u64 = 30 * 60;

impl Guest {
    /// A guest of `kernel` for the workspace's tests.
    ///
    /// # Errors
    /// Those of [`Guest::with_needs`].
    pub(crate) fn for_tests(kernel: &str) -> Result<Self> {
        let bare = Self { kernel: kernel.to_owned(), memory: 2048, timeout: None, with: vec![], files: vec![], environment: vec![] };
        bare.with_needs()
    }

    /// The same with what the workspace's tests need there. What was asked for by hand comes after it and wins.
    ///
    /// # Errors
    /// A program that they need is not on this machine.
    fn with_needs(mut self) -> Result<Self> {
        let (mut with, mut files) = (Vec::new(), Vec::new());
        needs::add(&mut with, &mut files)?;
        with.append(&mut self.with);
        files.append(&mut self.files);
        Ok(Self { with, files, timeout: self.timeout.or(Some(LONGEST_TEST)), ..self })
    }
}

/// Options of `cargo xtask vm`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: Guest,
    #[command(flatten)]
    build: build::Args,
    /// Run a test target instead of a program: an integration test's name, or a crate's for its unit tests.
    #[arg(long, value_name = "TARGET")]
    test: Option<String>,
    /// The package of that test target, where two have one of the same name.
    #[arg(long, short, value_name = "PACKAGE", requires = "test")]
    package: Option<String>,
    /// The program on this host, run as root in the guest, and its arguments; with --test, the arguments alone.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM [ARGUMENTS]")]
    words: Vec<OsString>,
}

/// The verb: exits with the program's own code.
///
/// # Errors
/// Whatever keeps the program from running to its end in the guest.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let project = Project::locate()?;
    // Before the build, which takes minutes: a mistyped option or name must not be told after it.
    let asked = asked(&project, args)?;
    let built = build::build(&project, args.build.release, &mut Steps::new(build::STEPS))?;
    let guest = args.guest.clone();
    let (guest, program, arguments) = match asked {
        Asked::Program(program, arguments) => (guest, program, arguments),
        Asked::Target(target, arguments) => (guest.with_needs()?, target.build(&project)?, arguments),
    };
    let kernel = kernel(&project, &guest.kernel)?;
    let code = boot(&guest, &kernel, &built.binary, &program, arguments, show)?;
    Ok(ExitCode::from(code))
}

/// What is to run in the guest, with its arguments.
enum Asked<'a> {
    Program(PathBuf, &'a [OsString]),
    Target(target::Target, &'a [OsString]),
}

fn asked<'a>(project: &Project, args: &'a Args) -> Result<Asked<'a>> {
    if let Some(name) = &args.test {
        return Ok(Asked::Target(target::find(project, name, args.package.as_deref())?, &args.words));
    }
    let (program, arguments) =
        args.words.split_first().context("nothing to run in the guest: name a program, or a test target with --test")?;
    // What clap does not know as an option it takes for the program.
    if program.as_bytes().starts_with(b"-") {
        bail!("{} is no option of `cargo xtask vm`: see `cargo xtask vm --help`", program.to_string_lossy());
    }
    Ok(Asked::Program(PathBuf::from(program), arguments))
}

/// The newest kernel of `series`, from the cache under `target/vm/` or, the first time, from apt.
///
/// # Errors
/// Those of [`kernel::ensure`].
pub(crate) fn kernel(project: &Project, series: &str) -> Result<Kernel> {
    Steps::new(1).step(&format!("Debian cloud kernel {series}"), || {
        let kernel = kernel::ensure(&project.vm_cache(), series)?;
        let phrase = format!("{kernel}");
        Ok((kernel, phrase))
    })
}

/// The package name of the newest kernel of `series` in the cache, if there is one.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn cached_kernel(project: &Project, series: &str) -> Result<Option<String>> {
    kernel::in_cache(&project.vm_cache(), series).map(|kernel| kernel.map(|kernel| kernel.package))
}

/// Boots `kernel`, runs `program` in the guest and hands every byte of the console to `watch`. Returns the program's exit code.
///
/// # Errors
/// No qemu, a kernel panic, a guest that ends or hangs without naming an exit code.
pub(crate) fn boot(
    guest: &Guest,
    kernel: &Kernel,
    bartizan: &Path,
    program: &Path,
    arguments: &[OsString],
    mut watch: impl FnMut(&[u8]),
) -> Result<u8> {
    let mut steps = Steps::new(2);
    // So that output of the program itself is not taken for the exit line.
    let marker = format!("BARTIZAN-VM-EXIT-{}-{}", std::process::id(), kernel.package);
    let image = steps.step("Initramfs", || {
        let job = initramfs::Job {
            bartizan,
            program,
            arguments,
            with: &guest.with,
            files: &guest.files,
            environment: &guest.environment,
            modules: kernel.modules()?,
            marker: &marker,
        };
        let bytes = initramfs::build(&job)?;
        // The kernel holds the image and its unpacked copy at the same time.
        let needed = 2 * (bytes.len() as u64 >> 20) + 128;
        if needed > u64::from(guest.memory) {
            bail!("the guest needs at least {needed} MiB for its files and has {}: give --memory {}", guest.memory, needed * 2);
        }
        Ok((in_memory(&bytes)?, step::bytes(bytes.len() as u64)))
    })?;
    steps.step("Guest", || {
        let words: Vec<&OsStr> = std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str)).collect();
        eprintln!("      running `{}` (its console follows)", command::words(&words));
        let mut console = Console::new(&marker);
        let mut qemu = qemu::command(&kernel.image, &image, guest.memory)?;
        let timeout = guest.timeout.unwrap_or(LONGEST);
        let end = follow(&mut qemu, Some(Duration::from_secs(timeout)), "run `apt-get install qemu-system-x86`", |piece| {
            watch(piece);
            if console.feed(piece) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        println!();
        let code = verdict(&end, &console, timeout)?;
        Ok((code, format!("exit code {code}")))
    })
}

fn verdict(end: &End, console: &Console, timeout: u64) -> Result<u8> {
    match (console.verdict(), end) {
        (Some(Verdict::Exit(code)), End::Exited(_) | End::Stopped | End::TimedOut) => Ok(*code),
        (Some(Verdict::Panic(said)), _) => bail!("the guest's kernel panicked: {said:?}; its trace is in the console output above"),
        (None, End::TimedOut) => {
            bail!(
                "the guest did not end within {timeout} s and was killed; give --timeout if it only was slow. Its last lines:\n{}",
                console.tail()
            )
        }
        (None, End::Exited(status)) => {
            bail!(
                "qemu ended ({status}) before the program named its exit code; read qemu's message and the last lines:\n{}",
                console.tail()
            )
        }
        (None, End::Stopped) => bail!("the guest was stopped without a verdict; its last lines:\n{}", console.tail()),
    }
}

/// A file without a name that qemu inherits: an image of tens of megabytes is gone with the run, however that ends.
fn in_memory(bytes: &[u8]) -> Result<File> {
    const REMEDY: &str = "free some memory and try again";
    // Without MFD_CLOEXEC, for the child to have it.
    let fd = memfd_create("initramfs", MFdFlags::empty()).with_context(|| format!("the initramfs gets no memory file: {REMEDY}"))?;
    let mut file = File::from(fd);
    file.write_all(bytes)
        .with_context(|| format!("the initramfs of {} does not fit into memory: {REMEDY}", step::bytes(bytes.len() as u64)))?;
    Ok(file)
}
