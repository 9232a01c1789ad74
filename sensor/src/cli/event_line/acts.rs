//! What processes do to each other and to their own world: `process.signal`, `process.access`, `process.namespaces` and the like. The target
//! is told behind these.

use bartizan_bus::event::{
    Access, AccessHow, Capabilities, CgroupMove, Chroot, Errno, IoUring, IoUringOp, Memfd, MemoryExec, NamespaceKind, Namespaces, Prctl,
    Rename, Seccomp, SeccompMode, Signal, SignalResult,
};

use super::super::escape::{escape, quote};

/// `SIGKILL`, `SIGTERM to one thread, ignored`.
pub(super) fn signal(signal: &Signal) -> String {
    let Signal { signal, code: _, result, to_thread } = signal;
    let thread = if *to_thread { " to one thread" } else { "" };
    let result = match result {
        SignalResult::Delivered => "",
        SignalResult::Ignored => ", ignored",
        SignalResult::AlreadyPending => ", pending already",
        SignalResult::Overflow => ", refused: too many wait",
        SignalResult::LostInfo => ", without its data: too many wait",
    };
    format!("{}{thread}{result}", escape(signal))
}

/// `: failed, EPERM`, or nothing.
fn failed(error: Option<Errno>) -> String {
    error.map(|error| format!(": failed, {}", error.name())).unwrap_or_default()
}

/// `ptrace attach`, `writes memory: failed, EPERM`.
pub(super) fn access(access: &Access) -> String {
    let Access { how, error, asked_pid, is_32_bit: _ } = access;
    let how = match how {
        AccessHow::PtraceAttach => "ptrace attach",
        AccessHow::PtraceSeize => "ptrace seize",
        AccessHow::PtraceTraceme => "ptrace, lets itself be traced",
        AccessHow::Ptrace => "ptrace",
        AccessHow::VmRead => "reads memory",
        AccessHow::VmWrite => "writes memory",
        AccessHow::Open => "opens memory",
        AccessHow::GetFd => "takes a descriptor",
        AccessHow::Other => "asks to trace",
    };
    let pid = asked_pid.map(|pid| format!(" of pid {pid}")).unwrap_or_default();
    format!("{how}{pid}{}", failed(*error))
}

fn kind(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Mnt => "mnt",
        NamespaceKind::Pid => "pid",
        NamespaceKind::Net => "net",
        NamespaceKind::Uts => "uts",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::User => "user",
        NamespaceKind::Time => "time",
    }
}

/// `unshare user 4026531837→4026532263`.
pub(super) fn namespaces(namespaces: &Namespaces) -> String {
    let Namespaces { call, asked, changed, error } = namespaces;
    let mut out = escape(call);
    if error.is_some() {
        asked.iter().for_each(|asked| out.push_str(&format!(" {}", kind(*asked))));
    }
    changed.iter().for_each(|change| out.push_str(&format!(" {} {}→{}", kind(change.namespace), change.from, change.to)));
    out + &failed(*error)
}

/// ` in new net, mnt`, or nothing.
pub(super) fn made(namespaces: &[NamespaceKind]) -> String {
    let names: Vec<&str> = namespaces.iter().map(|namespace| kind(*namespace)).collect();
    if names.is_empty() { String::new() } else { format!(" in new {}", names.join(", ")) }
}

/// `bash → kworker/0:1`.
pub(super) fn rename(rename: &Rename) -> String {
    let Rename { from, to } = rename;
    format!("{} → {}", escape(from), escape(to))
}

/// `chroot /srv/jail`.
pub(super) fn chroot(chroot: &Chroot) -> String {
    let Chroot { call, path, path_truncated, inode: _, device: _, error } = chroot;
    let path = path.as_deref().map_or_else(|| "an unknown path".to_owned(), quote);
    let more = if *path_truncated { "..." } else { "" };
    format!("{} {path}{more}{}", escape(call), failed(*error))
}

/// `filter of 12 instructions, 3 in force`.
pub(super) fn seccomp(seccomp: &Seccomp) -> String {
    let Seccomp { mode, filters, instructions, flags: _, listener, error } = seccomp;
    let mode = match mode {
        SeccompMode::None => "no filter".to_owned(),
        SeccompMode::Strict => "strict".to_owned(),
        SeccompMode::Filter => format!("filter of {instructions} instructions, {filters} in force"),
        SeccompMode::Unknown => "a mode of its own".to_owned(),
    };
    let listener = listener.map(|fd| format!(", answered through fd {fd}")).unwrap_or_default();
    format!("{mode}{listener}{}", failed(*error))
}

/// `memfd:x as fd 3`.
pub(super) fn memfd(memfd: &Memfd) -> String {
    let Memfd { name, flags: _, fd, inode: _, secret } = memfd;
    let secret = if *secret { ", secret" } else { "" };
    format!("{} as fd {fd}{secret}", quote(name))
}

/// `mprotect rw-p → r-xp, 4096 bytes at 0x7f0000000000`.
pub(super) fn memory_exec(memory: &MemoryExec) -> String {
    let MemoryExec { call, start, len, before, after, inode, device: _, nameless, times } = memory;
    let before = if before.is_empty() { String::new() } else { format!("{} → ", escape(before)) };
    let file = match (inode, nameless) {
        (None, _) => "",
        (Some(_), false) => " of a file",
        (Some(_), true) => " of a file without a name",
    };
    let times = if *times > 1 { format!(", {times} times by now") } else { String::new() };
    format!("{} {before}{}, {len} bytes{file} at {start:#x}{times}", escape(call), escape(after))
}

/// `PR_SET_MM PR_SET_MM_EXE_FILE: failed, EBUSY`.
pub(super) fn prctl(prctl: &Prctl) -> String {
    let Prctl { option, part, arguments, error } = prctl;
    let what = part.as_deref().map_or_else(|| arguments.first().map(u64::to_string).unwrap_or_default(), escape);
    format!("{} {what}{}", escape(option), failed(*error))
}

/// `ring of 8 entries`.
pub(super) fn io_uring(ring: &IoUring) -> String {
    let IoUring { entries, flags } = ring;
    /// include/uapi/linux/io_uring.h.
    const IORING_SETUP_SQPOLL: u32 = 2;
    let polled = if flags & IORING_SETUP_SQPOLL != 0 { ", polled by the kernel" } else { "" };
    format!("ring of {entries} entries{polled}")
}

/// `OPENAT /etc/shadow`.
pub(super) fn io_uring_op(op: &IoUringOp) -> String {
    let IoUringOp { op, fd, path, to } = op;
    let what = path.as_deref().map_or_else(|| format!("fd {fd}"), quote);
    let to = to.as_deref().map(|to| format!(" → {}", quote(to))).unwrap_or_default();
    format!("{} {what}{to}", escape(op))
}

/// `to /system.slice/x.service`.
pub(super) fn cgroup_move(moved: &CgroupMove) -> String {
    let CgroupMove { cgroup, path } = moved;
    path.as_deref().map_or_else(|| format!("to control group {cgroup}"), |path| format!("to {}", quote(path)))
}

/// `capset effective -3, permitted -3`.
pub(super) fn capabilities(capabilities: &Capabilities) -> String {
    let Capabilities { call, old, new } = capabilities;
    let sets = [
        ("effective", old.effective, new.effective),
        ("permitted", old.permitted, new.permitted),
        ("inheritable", old.inheritable, new.inheritable),
        ("bounding", old.bounding, new.bounding),
        ("ambient", old.ambient, new.ambient),
        ("securebits", old.securebits, new.securebits),
    ];
    let changed = sets.iter().filter(|(_, old, new)| old != new).map(|(name, old, new)| format!("{name} {}", difference(*old, *new)));
    format!("{} {}", escape(call), changed.collect::<Vec<_>>().join(", "))
}

/// `+21 -3`: bits that came and went, by number; many are counted.
fn difference(old: u64, new: u64) -> String {
    /// Bits that are named before they are only counted.
    const NAMED: u32 = 6;
    let side = |sign: char, bits: u64| match bits.count_ones() {
        0 => None,
        1..=NAMED => Some((0..64).filter(|bit| bits & 1 << bit != 0).map(|bit| format!("{sign}{bit}")).collect::<Vec<_>>().join(" ")),
        many => Some(format!("{sign}({many} of them)")),
    };
    [side('+', new & !old), side('-', old & !new)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_told_by_what_came_and_went() {
        assert_eq!(difference(0b1001, 0b10), "+1 -0 -3");
        assert_eq!(difference(u64::MAX >> 23, 0), "-(41 of them)");
    }
}
