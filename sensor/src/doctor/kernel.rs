//! What the kernel allows in general.

use super::{Check, Grade, Kernel, remedies};
use crate::capture::hooks;

/// The oldest kernel whose helpers suffice: `bpf_loop` came with 5.17.
const OLDEST: (u32, u32) = (5, 17);

/// How BPF LSM is turned on.
pub(super) const LSM: &str = "add `bpf` to the list behind `lsm=` on the kernel command line (the present list is in /sys/kernel/security/lsm; in \
     /etc/default/grub: GRUB_CMDLINE_LINUX, then `update-grub` and `reboot`)";

pub(super) fn kernel(kernel: &Kernel) -> Vec<Check> {
    let Kernel { release, machine, btf, lockdown, lsms, bpf_stats, tracefs, bpffs } = kernel;
    let mut checks = vec![version(release), self::machine(machine)];
    checks.push(match btf {
        Ok(()) => Check::ok("kernel.btf", "its type information is there and has all that the programs need"),
        Err(why) => Check::new("kernel.btf", Grade::Stop, why.clone()).remedy(
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y (`grep BTF /boot/config-$(uname -r)`); in a container, mount the host's /sys",
        ),
    });
    checks.push(match lockdown.as_deref() {
        Some("confidentiality") => {
            Check::new("kernel.lockdown", Grade::Stop, "lockdown is in confidentiality mode").remedy(remedies::CONFIDENTIALITY)
        }
        Some(mode) => Check::ok("kernel.lockdown", format!("lockdown mode {mode} does not hinder Bartizan")),
        None => Check::ok("kernel.lockdown", "no lockdown can be seen (no such module, or securityfs is not mounted)"),
    });
    // Whether a hook has such a tier is the table's to say.
    if hooks().any(|hook| hook.tiers.iter().any(|tier| tier.name == "lsm")) {
        checks.push(match lsms {
            Some(lsms) if lsms.iter().any(|lsm| lsm == "bpf") => Check::ok("kernel.bpf_lsm", "BPF LSM is active"),
            Some(_) => Check::new("kernel.bpf_lsm", Grade::Warn, "BPF LSM is not active")
                .costs("hooks with the tier `lsm` take their next one")
                .remedy(LSM),
            None => Check::new("kernel.bpf_lsm", Grade::Unknown, "securityfs is not mounted, so the security modules cannot be seen")
                .remedy("`mount -t securityfs securityfs /sys/kernel/security`"),
        });
    }
    checks.push(match bpf_stats {
        Some(true) => Check::ok(
            "kernel.bpf_stats",
            "the kernel counts and times every run of every program, which itself costs time: `sysctl -w kernel.bpf_stats_enabled=0` ends it",
        ),
        Some(false) => Check::ok(
            "kernel.bpf_stats",
            "the kernel does not count program runs, so `bartizan status` shows none: `sysctl -w kernel.bpf_stats_enabled=1` while you measure",
        ),
        None => Check::ok("kernel.bpf_stats", "this kernel does not say whether it counts program runs"),
    });
    checks.push(match tracefs {
        Some(true) => Check::ok("kernel.tracefs", "tracefs is mounted"),
        Some(false) => Check::new("kernel.tracefs", Grade::Warn, "tracefs is not mounted")
            .costs("hooks that fall back to system-call tracepoints are not there")
            .remedy(remedies::TRACEFS),
        None => {
            Check::new("kernel.tracefs", Grade::Unknown, "only root can see whether tracefs is mounted").remedy("`sudo bartizan doctor`")
        }
    });
    checks.push(Check::ok(
        "kernel.bpffs",
        if *bpffs { "bpffs is mounted" } else { "bpffs is not mounted; Bartizan pins nothing and does not need it" },
    ));
    checks
}

fn version(release: &str) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST => {
            Check::ok("kernel.version", format!("kernel {release} is new enough (5.17); 6.1, 6.12 and 6.18 are tested"))
        }
        (Some(Ok(_)), Some(Ok(_))) => Check::new("kernel.version", Grade::Stop, format!("kernel {release} is too old: Bartizan needs 5.17, for its bpf_loop helper"))
            .remedy("install a newer kernel: on Debian 11 `apt-get install -t bullseye-backports linux-image-amd64`, on Debian 12 `apt-get install linux-image-amd64`; then `reboot`"),
        _ => Check::new("kernel.version", Grade::Unknown, format!("kernel {release:?} has no version that can be read")),
    }
}

fn machine(machine: &str) -> Check {
    if machine == "x86_64" {
        Check::ok("kernel.machine", "x86-64")
    } else {
        Check::new("kernel.machine", Grade::Stop, format!("this is {machine}, and Bartizan runs on x86_64 only"))
            .remedy("nothing to type: run Bartizan on an x86-64 host")
    }
}
