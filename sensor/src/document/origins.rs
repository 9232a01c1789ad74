//! How kinds arise that no hook tells, or no hook alone.

/// Kind, and what makes its events.
pub(super) const ORIGINS: &[(&str, &str)] = &[
    (
        "process.seed",
        "The list of processes is taken when the hooks are attached, and once more, every ten seconds at most, when records of execs or forks were \
         lost. Argument vectors are read from `/proc/<pid>/cmdline` in both tiers.",
    ),
    (
        "process.hash",
        "No hook: a thread of its own reads the file of an exec or seed that is not hashed yet, through `/proc/<pid>/exe` or by its path, and only \
         where inode, device, change time and size are those that the kernel had at the exec. It reads `sensor.hash_rate` bytes a second, nothing of \
         files larger than `sensor.hash_max`, and nothing while Bartizan is at its CPU ceiling. Recordings have no such event.",
    ),
    (
        "auth.account_change",
        "No hook: once a second, and when a file was written that may be one of them, the sensor looks whether `/etc/passwd`, `/etc/group` and \
         `/etc/shadow` are others than before, reads those, and compares them with what they said. Who wrote is taken from the `file.*` events.",
    ),
    ("network.probe", "The kernel side gathers packets by source; an event comes when 32 ports are together, else once a second."),
    (
        "network.syn",
        "The kernel side counts attempts and what came of them by source. User space looks once a second and tells sources that have been quiet for a \
         second, that have gone on for ten, or after one second those of whose attempts most are unfinished; never those all of whose attempts came to \
         a connection.",
    ),
    (
        "network.udp_flow",
        "The kernel side counts packets by process, peer and ports; an event comes after two seconds without a packet, and every 60 s while they go on.",
    ),
    (
        "network.dns",
        "Messages of UDP come as one packet; those of TCP are put together from the first bytes of the connection in user space, and both are read there.",
    ),
    ("network.tls", "The first bytes of the connection, at most 4,096 in 256 segments, are put together and read in user space."),
    ("network.http", "As `network.tls`, at most 1,024 bytes."),
    ("network.ssh", "As `network.tls`, at most 512 bytes."),
    (
        "file.write",
        "The kernel side counts pages by process and file. An event comes within a second of the first, then at longer and longer intervals, up to a \
         minute.",
    ),
    (
        "kernel.lockdown",
        "Refusals come from the hook. The mode is looked at every two seconds in `/sys/kernel/security/lockdown`, and told when it is another; without \
         securityfs it is not.",
    ),
    ("sensor.start", "No hook: the sensor tells it when its hooks are attached, before all that they see."),
    ("sensor.stop", "No hook: the last event of an orderly stop."),
    ("sensor.heartbeat", "No hook: every `sensor.heartbeat`, 10 s by default."),
    ("sensor.loss", "No hook: once a second while a counter of losses grows, with what it grew by."),
    ("sensor.gap", "No hook: at a start, when EVENTS holds something. It begins at the last stored event."),
    (
        "sensor.health",
        "No hook: every two seconds the sensor looks at `kernel.ftrace_enabled`, and tells when that silences its programs and when it ends.",
    ),
];
