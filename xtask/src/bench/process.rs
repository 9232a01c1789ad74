//! What the kernel says about a running process: time, memory, and the eBPF programs and maps that it holds.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Processor time so far of all threads of a process, the ended ones too, to the nanosecond (`/proc/PID/stat` has steps of 10 ms).
///
/// # Errors
/// There is no such process.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).with_context(|| format!("process {pid} has no clock: it ended"))?;
    Ok(Duration::from(clock.now().with_context(|| format!("the clock of process {pid} cannot be read"))?))
}

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, of no file and not shared: what no other process could use.
    pub(crate) anonymous: u64,
    /// Most that was resident.
    pub(crate) peak: u64,
    /// In the kernel, for its eBPF maps.
    pub(crate) maps: u64,
}

/// Reads a process's memory.
///
/// # Errors
/// There is no such process, or it is another user's.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: the process ended"))?;
    let kib = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let maps = bpf(pid)?.maps;
    Ok(Memory { rss: kib("VmRSS") << 10, anonymous: kib("RssAnon") << 10, peak: kib("VmHWM") << 10, maps })
}

/// The eBPF objects of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bpf {
    /// Programs by id.
    pub(crate) programs: BTreeMap<u64, Runs>,
    /// Memory of the maps, bytes.
    pub(crate) maps: u64,
}

/// How often and how long a program ran. Counted only while `kernel.bpf_stats_enabled` is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Time inside the program: entering it is not in it.
    pub(crate) time: Duration,
    /// Runs.
    pub(crate) count: u64,
}

impl Bpf {
    /// Sums over all programs.
    pub(crate) fn total(&self) -> Runs {
        let add = |sum: Runs, runs: &Runs| Runs { time: sum.time + runs.time, count: sum.count + runs.count };
        self.programs.values().fold(Runs::default(), add)
    }
}

/// Reads what a process's file descriptors say about eBPF (`bpf_prog_show_fdinfo` and `bpf_map_show_fdinfo` in the kernel's
/// kernel/bpf/syscall.c).
///
/// # Errors
/// There is no such process, or it is another user's.
pub(crate) fn bpf(pid: u32) -> Result<Bpf> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("{folder} cannot be read: the process ended, or root is needed"))?;
    let mut maps = BTreeMap::new();
    let mut found = Bpf::default();
    for entry in entries.filter_map(Result::ok) {
        // Descriptors that were closed meanwhile.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        match read_fdinfo(&text) {
            Some(Object::Program(id, runs)) => {
                found.programs.insert(id, runs);
            }
            Some(Object::Map(id, bytes)) => {
                maps.insert(id, bytes);
            }
            None => {}
        }
    }
    found.maps = maps.values().sum();
    Ok(found)
}

/// Processes other than ours that hold eBPF programs: name and pid. Their programs run in every measurement.
pub(crate) fn others_with_programs() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let with_programs = pids.filter(|pid| bpf(*pid).is_ok_and(|bpf| !bpf.programs.is_empty()));
    let name = |pid: u32| format!("{}({pid})", fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim());
    with_programs.map(name).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Object {
    Program(u64, Runs),
    Map(u64, u64),
}

/// Reads one file of fdinfo; links name a program too and have no counts.
fn read_fdinfo(text: &str) -> Option<Object> {
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().parse().ok()
    };
    if let (Some(id), Some(time), Some(count)) = (field("prog_id"), field("run_time_ns"), field("run_cnt")) {
        return Some(Object::Program(id, Runs { time: Duration::from_nanos(time), count }));
    }
    Some(Object::Map(field("map_id")?, field("memlock")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn programs_and_maps_are_told_from_links_and_files() {
        let program = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_id:\t9\nrun_time_ns:\t1500\nrun_cnt:\t3\nmemlock:\t4096\n";
        let runs = Runs { time: Duration::from_nanos(1500), count: 3 };
        assert_eq!(read_fdinfo(program), Some(Object::Program(9, runs)));
        let map = "pos:\t0\nmap_type:\t27\nmemlock:\t16855368\nmap_id:\t4\nfrozen:\t0\n";
        assert_eq!(read_fdinfo(map), Some(Object::Map(4, 16_855_368)));
        assert_eq!(read_fdinfo("link_type:\ttracing\nlink_id:\t1\nprog_id:\t9\n"), None);
        assert_eq!(read_fdinfo("pos:\t0\nflags:\t0100000\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() -> Result<()> {
        let own = std::process::id();
        let Memory { rss, anonymous, peak, maps } = memory(own)?;
        assert!(anonymous > 0 && rss >= anonymous && peak >= rss && maps == 0, "{rss} {anonymous} {peak} {maps}");
        assert!(cpu(own)? > Duration::ZERO);
        assert!(cpu((i32::MAX - 1).cast_unsigned()).is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((prog_id|map_id|memlock|run_cnt|run_time_ns|x):[\t -]?[0-9a-f]{0,22}\n){0,6}") {
            let _ = read_fdinfo(&text);
        }
    }
}
