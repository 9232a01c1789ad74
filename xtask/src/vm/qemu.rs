//! The emulator's command line.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// What the guest's kernel is told. BPF LSM is compiled into Debian's kernels and off unless `lsm=` names it; `panic=-1` with
/// `-no-reboot` ends qemu at a panic.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet lsm=lockdown,capability,landlock,bpf panic=-1 oops=panic random.trust_cpu=on rdinit=/init";

/// qemu with this kernel and initramfs (an open file that the child inherits), its serial console on stdout.
///
/// # Errors
/// qemu is not on this machine.
pub(crate) fn command(kernel: &Path, initramfs: &File, memory_mib: u32) -> Result<Command> {
    let program = command::find_program("qemu-system-x86_64")
        .context("qemu-system-x86_64 is not on this machine: run `apt-get install qemu-system-x86`")?;
    let mut qemu = Command::new(program);
    command::clean(&mut qemu);
    // TCG always: a /dev/kvm that is there but hangs (nested virtualisation) cannot be told from one that works.
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", &memory_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(format!("/proc/self/fd/{}", initramfs.as_raw_fd()))
        .args(["-append", KERNEL_ARGUMENTS]);
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_asks_for_kvm() {
        let image = File::open("/dev/null");
        if let Some(qemu) = image.ok().and_then(|image| command(Path::new("/k"), &image, 512).ok()) {
            let line = command::words(&qemu.get_args().collect::<Vec<_>>());
            assert!(line.contains("-accel tcg") && !line.contains("kvm"), "{line}");
        }
        assert!(KERNEL_ARGUMENTS.contains("bpf"));
    }
}
