//! One look at each thing.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;

use super::{Area, Check, Finding};
use crate::command;
use crate::mounts;
use crate::privilege::Privilege;
use crate::project::Project;
use crate::test::{VM_KERNELS, packages};
use crate::toolchain::Toolchain;
use crate::{bpf_linker, rust_src, step, vm};

/// Free space under which a build from nothing fails before it ends: both profiles, the tests and the kernels took 5 GiB.
const LEAST_SPACE: u64 = 6 << 30;
/// Free space under which a checkout that is built cannot be built again.
const LEAST_SPACE_BUILT: u64 = 2 << 30;
/// Memory for a guest and qemu itself, MiB.
const LEAST_MEMORY: u64 = 2048 + 512;

/// Looks at everything.
pub(super) fn all(project: &Project) -> Vec<Check> {
    let mut found = Found(Vec::new());
    build(project, &mut found);
    run(&mut found);
    test(&mut found);
    emulated(project, &mut found);
    bench(&mut found);
    found.0
}

struct Found(Vec<Check>);

impl Found {
    fn add(&mut self, area: Area, thing: &str, finding: Finding) {
        self.0.push(Check { area, thing: thing.to_owned(), finding });
    }
}

/// An error's whole sentence, which ends with its remedy.
fn missing(error: &anyhow::Error) -> Finding {
    Finding::Missing(format!("{error:#}"))
}

fn there_or(there: bool, what: &str, otherwise: Finding) -> Finding {
    if there { Finding::There(what.to_owned()) } else { otherwise }
}

fn build(project: &Project, found: &mut Found) {
    let architecture = std::env::consts::ARCH;
    let other = Finding::Missing(format!("Bartizan knows x86_64 only, and this machine is {architecture}: use another"));
    found.add(Area::Build, "processor", there_or(architecture == "x86_64", architecture, other));
    match Toolchain::find() {
        Ok(toolchain) => {
            found.add(Area::Build, "rustc", Finding::There(toolchain.info.release_text.clone()));
            let llvm = toolchain.llvm_library();
            let major = toolchain.info.llvm_major;
            found.add(
                Area::Build,
                "its LLVM",
                llvm.map_or_else(|e| missing(&e), |_| Finding::There(format!("{major}, as a shared library"))),
            );
            let by_rustup = if command::find_program("rustup").is_some() {
                Finding::Later("`cargo xtask build` adds it with rustup".to_owned())
            } else {
                Finding::Missing("rustup is not on this machine: install Rust from https://rustup.rs, or rustc's source package".to_owned())
            };
            found.add(Area::Build, "source of core (rust-src)", there_or(rust_src::is_there(&toolchain), "in the toolchain", by_rustup));
            let linker = there_or(
                bpf_linker::is_there(project, &toolchain),
                &format!("{} for this rustc, in .tools/", bpf_linker::VERSION),
                Finding::Later("`cargo xtask build` builds it into .tools/ in about a minute".to_owned()),
            );
            found.add(Area::Build, "bpf-linker", linker);
        }
        Err(error) => found.add(Area::Build, "rustc", missing(&error)),
    }
    found.add(Area::Build, "C linker", program("cc", "run `apt-get install gcc` (or your distribution's)"));
    let built = project.binary(false).exists() || project.binary(true).exists();
    found.add(Area::Build, "disk space", space(project, built));
}

/// Where a program is, or what to do.
fn program(name: &str, remedy: &str) -> Finding {
    match command::find_program(name) {
        Some(path) => Finding::There(path.display().to_string()),
        None => Finding::Missing(format!("`{name}` is not on this machine: {remedy}")),
    }
}

fn space(project: &Project, built: bool) -> Finding {
    let least = if built { LEAST_SPACE_BUILT } else { LEAST_SPACE };
    let place = if project.target.exists() { &project.target } else { &project.root };
    match statvfs(place.as_path()) {
        Ok(stat) => enough_space(stat.blocks_available().saturating_mul(stat.fragment_size()), least, place),
        Err(error) => Finding::Missing(format!("{} cannot be asked for its free space ({error}): check that it exists", place.display())),
    }
}

fn enough_space(free: u64, least: u64, place: &Path) -> Finding {
    if free >= least {
        return Finding::There(format!("{} free at {}", step::bytes(free), place.display()));
    }
    let (free, least) = (step::bytes(free), step::bytes(least));
    Finding::Missing(format!("{free} free at {} where {least} are needed: make room, or set CARGO_TARGET_DIR", place.display()))
}

fn run(found: &mut Found) {
    let root = match Privilege::find("Loading eBPF programs", "become root") {
        Ok(Privilege::Root) => Finding::There("this user is root".to_owned()),
        Ok(Privilege::Sudo) => Finding::There("through sudo, which may ask for a password".to_owned()),
        Err(error) => missing(&error),
    };
    let may_mount = !matches!(root, Finding::Missing(_));
    found.add(Area::Run, "root", root);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    found.add(Area::Run, "kernel", kernel(release.trim()));
    let btf =
        Finding::Missing("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): use a distribution's kernel, or `cargo xtask vm`".to_owned());
    found.add(Area::Run, "BTF", there_or(Path::new("/sys/kernel/btf/vmlinux").exists(), "/sys/kernel/btf/vmlinux", btf));
    for mounts::State { kind, place, purpose, mounted, possible } in mounts::look() {
        let absent = match (possible, may_mount) {
            (true, true) => Finding::Later(format!("`cargo xtask run` mounts it ({purpose})")),
            (true, false) => Finding::Missing(format!("mount it as root: `mount -t {kind} {kind} {place}`")),
            (false, _) => Finding::Without(format!("this kernel has none ({purpose}); `bartizan status` names what that costs")),
        };
        found.add(Area::Run, kind, there_or(mounted, &format!("mounted on {place}"), absent));
    }
}

/// Bartizan's programs call `bpf_loop`, which 5.17 brought.
fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < (5, 17) => {
            Finding::Missing(format!("{release} is older than 5.17, which Bartizan needs: boot a newer one, or use `cargo xtask vm`"))
        }
        (Some(_), Some(_)) => Finding::There(release.to_owned()),
        _ => Finding::Without(format!("{release:?} is no version that is understood; Bartizan needs 5.17 or newer")),
    }
}

fn test(found: &mut Found) {
    let apt = command::find_program("apt-get").is_some();
    let root = Privilege::find("Installing packages", "install them by hand").is_ok();
    let by_apt = Finding::Missing("this is no Debian: install the programs below by hand, what counts is the program".to_owned());
    let lacking = packages::lacking();
    // Without apt nothing is amiss as long as all programs are there.
    let by_apt = if lacking.is_empty() { Finding::Without("not needed: every program is here".to_owned()) } else { by_apt };
    found.add(Area::Test, "apt-get", there_or(apt, "installs what is missing", by_apt));
    for packages::Needed { program, package, reason } in packages::NEEDED {
        let finding = match command::find_program(program) {
            Some(path) => Finding::There(format!("{} ({reason})", path.display())),
            None if apt && root => Finding::Later(format!("`cargo xtask test packages` installs {package} ({reason})")),
            None => {
                Finding::Missing(format!("install it as root (Debian: `apt-get install --no-install-recommends {package}`), for {reason}"))
            }
        };
        found.add(Area::Test, program, finding);
    }
    for packages::Needed { program: name, package, reason } in packages::FOR_FUZZ {
        let later = match apt && root {
            true => Finding::Later(format!("`cargo xtask soak` installs {package} ({reason})")),
            false => Finding::Without(format!("no fuzz targets, give `cargo xtask soak` `--fuzz-minutes 0`: {package} is for {reason}")),
        };
        found.add(
            Area::Test,
            name,
            command::find_program(name).map_or(later, |path| Finding::There(format!("{} ({reason})", path.display()))),
        );
    }
    for (component, verb) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let mut ask = command::cargo();
        ask.args([verb, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let there = ask.status().is_ok_and(|status| status.success());
        let remedy = Finding::Missing(format!("run `rustup component add {component}`"));
        found.add(Area::Test, component, there_or(there, &format!("cargo {verb}"), remedy));
    }
}

fn emulated(project: &Project, found: &mut Found) {
    let tools = ["apt-cache", "apt-get", "dpkg"];
    let can_fetch = tools.iter().all(|tool| command::find_program(tool).is_some());
    for series in VM_KERNELS {
        let finding = match vm::cached_kernel(project, series) {
            Ok(Some(package)) => Finding::There(format!("{package}, in target/vm/")),
            Ok(None) if can_fetch => Finding::Later("the VM fetches it with apt".to_owned()),
            Ok(None) => {
                Finding::Missing(format!("{} are not all here: fetch it on a Debian machine and copy target/vm/", tools.join(", ")))
            }
            Err(error) => missing(&error),
        };
        found.add(Area::Vm, &format!("Debian kernel {series}"), finding);
    }
    found.add(Area::Vm, "ldd", program("ldd", "run `apt-get install libc-bin`"));
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_mib(&text));
    let finding = match available {
        Some(mib) if mib >= LEAST_MEMORY => Finding::There(format!("{mib} MiB available")),
        Some(mib) => Finding::Missing(format!("{mib} MiB available where {LEAST_MEMORY} are needed: end something, or give --memory")),
        None => Finding::Without("/proc/meminfo does not say; the VM takes 2048 MiB".to_owned()),
    };
    found.add(Area::Vm, "memory", finding);
}

/// `MemAvailable` of /proc/meminfo, MiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? >> 10)
}

fn bench(found: &mut Found) {
    for (name, package) in [("bash", "bash"), ("setpriv", "util-linux"), ("su", "util-linux")] {
        found.add(Area::Bench, name, program(name, &format!("run `apt-get install {package}`")));
    }
    let stats = Finding::Missing("this kernel cannot time eBPF programs (before 5.1, or without BPF): use another".to_owned());
    let setting = "/proc/sys/kernel/bpf_stats_enabled";
    found.add(Area::Bench, "bpf stats", there_or(Path::new(setting).exists(), setting, stats));
    let peer = match version("bpftrace") {
        Some(version) => Finding::There(version),
        None => Finding::Without("the table has a peer less: `apt-get install --no-install-recommends bpftrace`".to_owned()),
    };
    found.add(Area::Bench, "bpftrace", peer);
    for packages::Needed { program: name, package: _, reason } in packages::FOR_CAPTURE {
        let later = Finding::Later(format!("`cargo xtask bench` installs it, {reason}"));
        found.add(Area::Bench, name, command::find_program(name).map_or(later, |path| Finding::There(path.display().to_string())));
    }
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(command::find_program(program)?).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_little_space_says_how_much_and_what_to_do() {
        assert!(matches!(enough_space(7 << 30, LEAST_SPACE, Path::new("/t")), Finding::There(_)));
        let Finding::Missing(said) = enough_space(1 << 30, LEAST_SPACE, Path::new("/t")) else { panic!("1 GiB is enough?") };
        assert!(said.contains("1.0 GiB free at /t") && said.contains("CARGO_TARGET_DIR"), "{said}");
    }

    #[test]
    fn every_thing_is_looked_at_once() -> anyhow::Result<()> {
        let checks = all(&Project::locate()?);
        let mut names: Vec<(Area, &str)> = checks.iter().map(|check| (check.area, check.thing.as_str())).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        // We are being compiled, so this much is certain.
        let rustc = checks.iter().find(|check| check.thing == "rustc").map(|check| &check.finding);
        assert!(matches!(rustc, Some(Finding::There(_))), "{rustc:?}");
        for needed in packages::NEEDED {
            assert!(checks.iter().any(|check| check.area == Area::Test && check.thing == needed.program), "{}", needed.program);
        }
        Ok(())
    }

    #[test]
    fn kernels_compare_as_numbers() {
        assert!(matches!(kernel("6.18.44-fc-v657"), Finding::There(_)));
        assert!(matches!(kernel("5.17"), Finding::There(_)));
        assert!(matches!(kernel("5.4.0-100-generic"), Finding::Missing(_)));
        assert!(matches!(kernel("next"), Finding::Without(_)));
    }

    proptest! {
        #[test]
        fn memory_is_read_back_and_nothing_panics(kib in 0_u64..1 << 40, noise in "\\PC{0,30}") {
            prop_assert_eq!(available_mib(&format!("MemTotal: 1 kB\nMemAvailable:   {kib} kB\n")), Some(kib >> 10));
            let _ = available_mib(&format!("MemAvailable:{noise}"));
        }
    }
}
