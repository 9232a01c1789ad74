//! How each kind is evaded, and what covers that.

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
    ("network.connect", "sockets of `AF_PACKET` or raw ones", "not told yet"),
    ("network.listen", "a program that takes packets without a socket (a filter on a raw socket)", "not told yet"),
    ("auth.authenticate", "programs that check passwords without libpam", "not told"),
];
