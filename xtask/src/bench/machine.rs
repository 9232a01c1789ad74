//! The machine that the numbers are of.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::process;
use crate::command;

/// What one must know to compare numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Processor model.
    pub(super) processor: String,
    /// Processors online.
    pub(super) processors: usize,
    /// Memory, MiB.
    pub(super) memory_mib: u64,
    /// Kernel release.
    pub(super) kernel: String,
    /// What it runs on, where it is a guest.
    pub(super) virtualised: Option<String>,
    /// Load averages at the start: 1, 5 and 15 minutes.
    pub(super) load: String,
    /// Other processes that hold eBPF programs at the start.
    pub(super) others: Vec<String>,
    /// The day, as YYYY-MM-DD in UTC.
    pub(super) day: String,
}

impl Machine {
    /// Looks at the one we run on.
    pub(super) fn look() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("{path} cannot be read"));
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
        let load = read("/proc/loadavg")?.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let day = command::capture(Command::new("date").args(["-u", "+%F"]), "run `apt-get install coreutils`")?;
        Ok(Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or_default() >> 10,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            virtualised: virtualised(&cpuinfo, &fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default()),
            load,
            others: process::others_with_programs(),
            day: day.trim().to_owned(),
        })
    }
}

/// The first value of `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name)).map(|(_, value)| value.trim())
}

/// A guest's processor has the flag `hypervisor`; the firmware may name who made the machine.
fn virtualised(cpuinfo: &str, vendor: &str) -> Option<String> {
    let guest = field(cpuinfo, "flags")?.split(' ').any(|flag| flag == "hypervisor");
    guest.then(|| if vendor.trim().is_empty() { "a hypervisor that does not say its name".to_owned() } else { vendor.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() -> Result<()> {
        let machine = Machine::look()?;
        assert!(machine.processors > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(machine.day.len() == 10 && machine.load.split(' ').count() == 3, "{machine:?}");
        Ok(())
    }

    #[test]
    fn a_guest_is_told_by_its_flag() {
        assert_eq!(virtualised("flags\t\t: fpu hypervisor sse\n", "QEMU\n"), Some("QEMU".to_owned()));
        assert!(virtualised("flags\t\t: fpu hypervisor\n", "").is_some());
        assert_eq!(virtualised("flags\t\t: fpu vme\n", "Dell"), None);
        assert_eq!(virtualised("", ""), None);
    }
}
