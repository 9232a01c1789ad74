//! How each kind is evaded, and what covers that.

/// How every kind that can be left out by configuration is evaded, in the form of [`EVASIONS`].
pub(super) const LEFT_OUT: (&str, &str, &str) = (
    "",
    "being, or running inside of, what an entry of `sensor.ignore` names for this kind",
    "the exec and the identity of the process are always told; `status` counts what is left out",
);

/// Kind, how it is evaded, and what still tells of it.
pub(super) const EVASIONS: &[(&str, &str, &str)] = &[
    (
        "process.exec",
        "code that is loaded into a running process (memfd, ptrace, dlopen)",
        "`process.memfd`, `process.memory_exec`, `process.access`",
    ),
    ("process.exec", "an argument vector that is rewritten afterwards", "the event has what the kernel was given"),
    ("process.exec", "a name or link that hides the program", "`exe` is walked from the inode; `requested` is told beside it"),
    ("process.fork", "threads (`CLONE_THREAD`)", "they are no processes; what they do is told as their process's"),
    (
        "process.credentials",
        "an exploit that writes the credentials in the kernel",
        "the next event of the process has other ids than the one before; nothing names it yet",
    ),
    ("process.credentials", "`io_uring` personalities", "not told"),
    ("process.credentials", "supplementary groups (`setgroups`)", "not told, and no event has them"),
    (
        "auth.authenticate",
        "a password that is changed (`pam_chauthtok`)",
        "no event of its own: `auth.start`, and what is done to `/etc/shadow`",
    ),
    (
        "process.signal",
        "killing by `cgroup.kill`, by memory pressure or by the terminal",
        "the exit of the target says which signal ended it",
    ),
    ("process.access", "injecting by shared memory, or by a library that is preloaded", "`process.memory_exec`"),
    ("process.access", "`PTRACE_O_TRACE*` on a traced process's children", "not told: the first attach is"),
    ("process.namespaces", "walking into `/proc/<pid>/root` without `setns`", "paths of what is executed there"),
    ("process.namespaces", "`clone` with `CLONE_NEW*`", "the namespaces that `process.exec` and `process.seed` tell"),
    ("process.chroot", "a new mount over the old root in the same namespace", "not told yet"),
    ("process.seccomp", "a filter that is inherited", "the fork; the filter was told when it was set"),
    (
        "process.memfd",
        "a file in /dev/shm, or one that is deleted after it was opened",
        "`exe.deleted` of the exec, `nameless` of `process.memory_exec`",
    ),
    (
        "process.memory_exec",
        "two mappings of one memfd, one to write and one to execute",
        "told: executable memory of a file without a name",
    ),
    (
        "process.memory_exec",
        "code that is written through `/proc/self/mem`",
        "best tier of `process.access` for others' memory; one's own is not told",
    ),
    ("process.rename", "an argument vector that is overwritten in place", "no call at all; `argv` of the exec stays"),
    ("process.io_uring_op", "operations that are not in the list (read, write)", "the open of the file"),
    ("file.open", "another name of the file: links, bind mounts, `/proc/<pid>/root`, descriptors", "told: it is the inode that is watched"),
    ("file.open", "`io_uring`, 32-bit calls, `open_by_handle_at`", "told: the hook is below all of them"),
    ("file.open", "a descriptor that was opened before the sensor started, or was handed over", "`file.write` tells who makes pages dirty"),
    ("file.open", "the block device below the file system", "told: an open of a block device"),
    ("file.write", "direct I/O, and file systems on the other side of a network", "the open of a watched file"),
    ("file.rename", "a copy, and the removal of the original", "the removal; the new file, where it is watched or executable"),
    ("file.attributes", "times set by `debugfs` or on the block device", "told: an open of a block device"),
    ("file.mount", "a mount in another mount namespace", "told; paths are those of that namespace"),
    ("network.connect", "sockets of `AF_PACKET` or raw ones", "`network.raw_socket`"),
    ("network.listen", "a program that takes packets without a socket (a filter on a raw socket)", "`network.raw_socket`"),
    ("network.bind", "a port that the kernel chooses (a connection, the first datagram)", "`network.connect`, `network.udp_flow`"),
    ("network.flow_end", "a connection that another process was given", "told: its owner is who connected or accepted it"),
    (
        "network.flow_end",
        "a connection whose other side is never closed",
        "told when the kernel gives up waiting, `net.ipv4.tcp_fin_timeout` later at the latest",
    ),
    ("network.flow_end", "a connection that is older than the sensor", "told without a subject (`unknown_owner`)"),
    ("network.udp_flow", "packets of packet and XDP sockets, fragments from the second on", "`network.raw_socket`"),
    ("network.raw_socket", "a packet socket that was inherited or passed", "told when it was made"),
    (
        "network.dns",
        "DNS over HTTPS, over TLS or over another port; resolvers that are asked by other means than DNS",
        "`network.tls`, `network.udp_flow`",
    ),
    ("network.tls", "an Encrypted ClientHello, QUIC, TLS behind STARTTLS", "`ech` says so; `network.udp_flow`; not told"),
    ("network.tls", "a first segment that comes out of order, more than 4,096 bytes or 256 segments", "told as far as it came in order"),
    ("network.http", "a second request on the same connection, HTTP/2 and HTTP/3", "not told; `network.tls`, `network.udp_flow`"),
    ("network.ssh", "lines before a server's identification", "that side is not told"),
    ("network.syn", "forged source addresses", "told: beyond 256 sources at once together, with their number"),
    ("network.syn", "IPv6 extension headers before the SYN", "not told; the connection that comes of it is"),
    (
        "network.unix_connect",
        "a connected descriptor that is inherited or passed; datagram sockets",
        "told when it was connected; not told",
    ),
    ("network.unix_connect", "a connection that its program made before", "counted; told at every power of two"),
    ("network.vsock_connect", "datagrams over VM sockets", "`network.raw_socket` tells the socket"),
    ("auth.authenticate", "programs that check passwords without libpam", "not told"),
];
