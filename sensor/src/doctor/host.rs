//! Who asks, the data folder, the clock, the receivers.

use bartizan_bus::budget::{Budget, BudgetSource};

use super::{Check, Clock, Data, Grade, Sink, User};
use crate::config::units::about_bytes as about;

/// Bits of `include/uapi/linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// 2024-01-01 in Unix seconds: a clock before this has never been set.
const PLAUSIBLE_S: i64 = 1_704_067_200;

/// Where settings are changed.
const CONFIG: &str = "/etc/bartizan/config.toml";

pub(super) fn user(user: &User) -> Vec<Check> {
    let User { root, capabilities, host_pids } = *user;
    let mut checks = vec![if root {
        Check::ok("user.root", "this is root")
    } else {
        Check::new("user.root", Grade::Unknown, "this is not root: hooks are not tried, and other users' settings cannot be read")
            .remedy("`sudo bartizan doctor`; `bartizan run` must be root, too")
    }];
    if let Some(capabilities) = capabilities.filter(|_| root) {
        let has = |bit: u32| capabilities >> bit & 1 == 1;
        checks.push(if !(has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON))) {
            Check::new(
                "user.capabilities",
                Grade::Stop,
                "this root may not load eBPF programs: it has neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON",
            )
            .remedy(
                "run it outside of the container, or give the container `--cap-add BPF --cap-add PERFMON --cap-add SYS_PTRACE --pid=host`",
            )
        } else if !has(CAP_SYS_PTRACE) {
            Check::new("user.capabilities", Grade::Warn, "this root has no CAP_SYS_PTRACE")
                .costs("not seen: descriptors and paths of processes that are older than the sensor")
                .remedy("give the container `--cap-add SYS_PTRACE`, or the unit `CapabilityBoundingSet=` with it")
        } else {
            Check::ok("user.capabilities", "this root may load eBPF programs and read other processes")
        });
    }
    checks.push(match host_pids {
        Some(true) => Check::ok("user.pid_namespace", "this is the host's pid namespace"),
        Some(false) => Check::new(
            "user.pid_namespace",
            Grade::Stop,
            "this is a container's pid namespace, and the kernel names processes by the host's ids",
        )
        .remedy("run it outside of the container, or give the container the host's: `--pid=host`"),
        None => Check::new(
            "user.pid_namespace",
            Grade::Unknown,
            "whether this is the host's pid namespace cannot be seen: /proc is not mounted",
        )
        .remedy("`mount -t proc proc /proc`"),
    });
    checks
}

pub(super) fn data(data: &Data) -> Vec<Check> {
    let Data { folder, foreign, disk, budget, held, others, redaction } = data;
    let mut checks = vec![match foreign {
        None => Check::ok("data.folder", format!("the data folder is {folder}")),
        Some((owner, mode)) => Check::new(
            "data.folder",
            Grade::Stop,
            format!(
                "the data folder {folder} belongs to uid {owner} and has mode {mode:04o}: others could replace its files, so it is refused"
            ),
        )
        .remedy(format!("`chown root: {folder} && chmod 700 {folder}`, after a look at what is in it")),
    }];
    checks.push(match disk {
        Err(why) => Check::new("data.disk", Grade::Unknown, format!("the disk under {folder} cannot be asked: {why}")),
        Ok(disk) => {
            let Budget { bytes, source, disk: _ } = budget;
            let wanted = bytes.saturating_add(*others);
            let free = disk.available.saturating_add(*held);
            let by = if *source == BudgetSource::Configured { "configured" } else { "by the disk's size" };
            let text = format!(
                "EVENTS may take {} ({by}), all streams {}; the disk has {} free of {}",
                about(*bytes),
                about(wanted),
                about(disk.available),
                about(disk.total)
            );
            if wanted > free {
                Check::new("data.disk", Grade::Warn, text)
                    .costs("when the disk is full, events are lost, and counted; alerts wait for room")
                    .remedy(match (free.saturating_sub(*others) / 10 * 9) >> 20 {
                        // Not worth it: it would hold minutes.
                        0..64 => format!(
                            "make {} more room under {folder}, or set `data_dir` in {CONFIG} to a larger disk",
                            about(wanted - free)
                        ),
                        room => format!(
                            "make {} more room under {folder}, or put `max_bytes = \"{room} MiB\"` under [streams.events] in {CONFIG}",
                            about(wanted - free)
                        ),
                    })
            } else {
                Check::ok("data.disk", text)
            }
        }
    });
    checks.push(match redaction {
        Ok(true) => Check::ok("data.redaction", "secrets in command lines are redacted"),
        Ok(false) => Check::new("data.redaction", Grade::Warn, "redaction is turned off")
            .costs("no detection: command lines are stored and forwarded with the secrets in them")
            .remedy(format!("put `enabled = true` under [redaction] in {CONFIG}, then start Bartizan again")),
        Err(why) => Check::new("data.redaction", Grade::Stop, why.clone()).remedy("do what the sentence above says"),
    });
    checks
}

pub(super) fn clock(clock: Option<Clock>) -> Check {
    const SYNC: &str = "`apt-get install chrony`, or `timedatectl set-ntp true`; then `timedatectl` says `synchronized: yes`";
    match clock {
        None => Check::new("host.clock", Grade::Unknown, "the kernel does not say whether its clock is right"),
        Some(Clock { unix_s, .. }) if unix_s < PLAUSIBLE_S => {
            Check::new("host.clock", Grade::Warn, "the clock stands before 2024: it was never set")
                .costs("times of events and alerts are wrong, and retention by age keeps what it should delete")
                .remedy(SYNC)
        }
        Some(Clock { synchronized: true, .. }) => Check::ok("host.clock", "the clock is kept right by a time service"),
        Some(Clock { synchronized: false, .. }) => {
            Check::new("host.clock", Grade::Warn, "no time service has told the kernel that its clock is right")
                .costs("events cannot be laid beside those of other hosts; detections on this host use the boot clock and do not suffer")
                .remedy(SYNC)
        }
    }
}

pub(super) fn sink(sink: &Sink) -> Check {
    let Sink { name, address, reached } = sink;
    let id = format!("forward.{name}");
    match reached {
        Ok(()) => Check::ok(&id, format!("{address} takes connections")),
        Err(why) => {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            let host = host.trim_matches(['[', ']']);
            Check::new(&id, Grade::Warn, format!("{address} does not take a connection: {why}"))
                .costs("alerts wait on disk and nobody is told of them; ALERTS keeps 30 days or 256 MiB by default")
                .remedy(format!(
                    "start the receiver, or open the way to it, until `nc -vz {host} {port}` succeeds; or correct `address` in {CONFIG}"
                ))
        }
    }
}
