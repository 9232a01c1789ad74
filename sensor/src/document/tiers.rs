//! What a tier of a hook needs of the kernel, and which fields it cannot fill.
//!
//! The programs of all tiers are of types that came before [`FLOOR`], and are loaded as one object: below that nothing runs. What stands here are
//! the tiers whose functions or tracepoints came, or took the parameters that the programs read, later than that.

/// The oldest kernel on which Bartizan starts: `bpf_loop`.
pub(super) const FLOOR: &str = "5.17";

/// One tier of one hook, where there is something to say of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TierNote {
    /// The hook.
    pub(super) hook: &'static str,
    /// The tier.
    pub(super) tier: &'static str,
    /// The oldest kernel that carries it, and why not an older one; `None` is [`FLOOR`].
    pub(super) floor: Option<&'static str>,
    /// Fields that it cannot fill, or fills from a worse source than the best tier.
    pub(super) fields: Option<&'static str>,
}

/// What there is to say of a tier.
pub(super) fn note(hook: &str, tier: &str) -> Option<&'static TierNote> {
    NOTES.iter().find(|note| note.hook == hook && note.tier == tier)
}

const fn floor(hook: &'static str, tier: &'static str, floor: &'static str) -> TierNote {
    TierNote { hook, tier, floor: Some(floor), fields: None }
}

const fn fields(hook: &'static str, tier: &'static str, fields: &'static str) -> TierNote {
    TierNote { hook, tier, floor: None, fields: Some(fields) }
}

/// Each tier at most once.
pub(super) const NOTES: &[TierNote] = &[
    floor("process_io_uring_op", "tp_btf", "6.0 (`io_uring_submit_sqe` gives the request; from 6.4 on `io_uring_submit_req` does)"),
    floor("file_attributes", "fexit", "6.0 (`security_inode_setattr` got its first parameter)"),
    floor("kernel_bpf_attach", "fexit", "6.16, and what stable series have had since June 2025 (`__perf_event_set_bpf_prog`)"),
    floor("network_probe", "tp_btf", "5.17 (`kfree_skb` says why); for IPv6 5.18"),
    floor("network_accept", "fexit", "5.17 (`inet_accept` with four parameters; from 6.10 on with three)"),
    floor("kernel_probe", "fexit", "5.17 (`__uprobe_register`; from 6.12 on `uprobe_register`)"),
    TierNote {
        hook: "process_memory_exec",
        tier: "syscall_tracepoint",
        floor: Some("5.17 (`bpf_find_vma`)"),
        fields: Some(
            "`start` of an mmap is what was asked for, mostly 0; `before` is empty while another thread holds the memory map; attempts that fail are \
             told like the others",
        ),
    },
    TierNote {
        hook: "file_open",
        tier: "fanotify",
        floor: Some("5.17 (`FAN_REPORT_TARGET_FID`)"),
        fields: Some(
            "`flags`, and with them `read` and `write`, where the file was closed again; the subject's thread, and its image at that moment",
        ),
    },
    TierNote {
        hook: "file_rename",
        tier: "fanotify",
        floor: Some("5.17 (`FAN_RENAME`)"),
        fields: Some("`exchanged`; the subject's thread, and its image at that moment"),
    },
    TierNote {
        hook: "file_unlink",
        tier: "fanotify",
        floor: Some("5.17 (`FAN_REPORT_TARGET_FID`)"),
        fields: Some(
            "of unwatched files all of `file` but path, file system and inode; the subject's thread, and its image at that moment",
        ),
    },
    TierNote {
        hook: "file_link",
        tier: "fanotify",
        floor: Some("5.17 (`FAN_REPORT_TARGET_FID`)"),
        fields: Some("`to` of a hard link to an unwatched file; the subject's thread, and its image at that moment"),
    },
    TierNote {
        hook: "file_attributes",
        tier: "fanotify",
        floor: Some("5.17 (`FAN_REPORT_TARGET_FID`)"),
        fields: Some("`size`; `from` of files that are watched by their folder alone; the subject's thread, and its image at that moment"),
    },
    fields(
        "file_mount",
        "fexit",
        "`source`, `file_system` and `flags` of what `move_mount` and `pivot_root` do; `error` of an unmount and of a `pivot_root`, which are told when they are permitted and may still fail, and not where the target is none",
    ),
    fields("file_mount", "syscall_tracepoint", "paths, which come from the caller's memory (`from_caller`)"),
    fields(
        "file_write",
        "tp_btf",
        "`pages` and `bytes` of large folios on kernels that keep their size elsewhere (5.18 does, 6.1 does not): each counts as a page",
    ),
    fields("network_vsock", "fexit", "the socket's addresses where VM sockets are a module, but for the peer of a connect"),
    fields("network_vsock", "syscall_tracepoint", "likewise; and the peer comes from the caller's memory then (`peer_from_caller`)"),
    fields("network_connect_tcp_early", "syscall_tracepoint", "the peer, which comes from the caller's memory (`peer_from_caller`)"),
    fields(
        "network_connect_udp",
        "syscall_tracepoint",
        "the peer of a failed one, which comes from the caller's memory (`peer_from_caller`)",
    ),
    fields("network_socket_create", "cgroup", "`inode`: the socket has no file yet"),
    fields("network_unix_connect", "syscall_tracepoint", "the address of a failed one, which comes from the caller's memory"),
    fields(
        "process_access",
        "syscall_tracepoint",
        "the target of what failed, and of `process_vm_*`, which is whoever has the pid that the caller gave (`asked_pid`)",
    ),
    fields(
        "kernel_bpf_attach",
        "syscall_tracepoint",
        "program and place of a `BPF_PROG_ATTACH`, which come from the caller's memory (`from_caller`)",
    ),
    fields("kernel_kexec", "syscall_tracepoint", "the file, which is the one at the caller's descriptor after the call (`from_caller`)"),
    fields(
        "kernel_probe",
        "syscall_tracepoint",
        "`address`, `inode`, `device`, `error`: probes that are refused are not told; `name` comes from the caller's memory (`from_caller`)",
    ),
    fields("kernel_module", "tp_btf", "`file`, `inode`, `device`, `from_memory`"),
];
