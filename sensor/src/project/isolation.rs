//! `process.namespaces`, `process.chroot`, `process.seccomp`, `process.cgroup_move`, `process.capabilities`.

use bartizan_bus::event::{self, Body, NamespaceChange, NamespaceKind, SeccompMode};
use bartizan_sensor_ebpf::abi::{
    Bytes, Capabilities, CapabilitySets, CgroupMove, Chroot, FLAG_EXE_TRUNCATED, FLAG_NAME_TRUNCATED, NamespaceIds, Namespaces, Seccomp,
};

use super::{Act, What, calls, errno, text};

/// include/uapi/linux/sched.h.
const ASKED: [(u64, NamespaceKind); 8] = [
    (0x0002_0000, NamespaceKind::Mnt),
    (0x2000_0000, NamespaceKind::Pid),
    (0x4000_0000, NamespaceKind::Net),
    (0x0400_0000, NamespaceKind::Uts),
    (0x0800_0000, NamespaceKind::Ipc),
    (0x0200_0000, NamespaceKind::Cgroup),
    (0x1000_0000, NamespaceKind::User),
    (0x0000_0080, NamespaceKind::Time),
];

pub(super) fn project_namespaces(record: &Namespaces) -> What {
    let Namespaces { header, before, after, asked, call, error } = record;
    let body = event::Namespaces {
        call: calls::name(header, *call),
        asked: asked_for(*asked),
        changed: changes(before, after),
        error: errno(*error),
    };
    Act::ended(Body::Namespaces(body), -i64::from(*error)).into()
}

/// The namespaces that `flags` (`CLONE_NEW*`) name.
pub(super) fn asked_for(flags: u64) -> Vec<NamespaceKind> {
    ASKED.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, kind)| *kind).collect()
}

fn changes(before: &NamespaceIds, after: &NamespaceIds) -> Vec<NamespaceChange> {
    let list = |ids: &NamespaceIds| {
        let NamespaceIds { mnt, pid, net, uts, ipc, cgroup, user, time } = *ids;
        [mnt, pid, net, uts, ipc, cgroup, user, time]
    };
    let kinds = ASKED.map(|(_, kind)| kind);
    let pairs = list(before).into_iter().zip(list(after)).zip(kinds);
    pairs.filter(|((from, to), _)| from != to).map(|((from, to), namespace)| NamespaceChange { namespace, from, to }).collect()
}

pub(super) fn project_chroot(record: &Chroot, bytes: Bytes<'_>) -> What {
    let Chroot { header, inode, device, call, error, path } = record;
    let failed = *error != 0;
    let path = bytes.get(*path);
    let walked_short = header.flags & FLAG_EXE_TRUNCATED != 0;
    let body = event::Chroot {
        call: calls::name(header, *call),
        path: if failed { text::string(path) } else { text::path(path, walked_short) },
        path_truncated: walked_short || header.flags & FLAG_NAME_TRUNCATED != 0,
        inode: (!failed).then_some(*inode),
        device: (!failed).then_some(*device),
        error: errno(*error),
    };
    Act::ended(Body::Chroot(body), -i64::from(*error)).into()
}

pub(super) fn project_seccomp(record: &Seccomp) -> What {
    let Seccomp { header: _, call: _, operation: _, flags, error, mode, filters, instructions, listener } = record;
    let mode = match mode {
        0 => SeccompMode::None,
        1 => SeccompMode::Strict,
        2 => SeccompMode::Filter,
        _ => SeccompMode::Unknown,
    };
    let body = event::Seccomp {
        mode,
        filters: *filters,
        instructions: *instructions,
        flags: *flags,
        listener: Some(*listener).filter(|fd| *fd != 0),
        error: errno(*error),
    };
    Act::ended(Body::Seccomp(body), -i64::from(*error)).into()
}

pub(super) fn project_cgroup_move(record: &CgroupMove) -> What {
    let CgroupMove { header: _, target, cgroup, path } = record;
    let body = event::CgroupMove { cgroup: *cgroup, path: text::string(Some(path)) };
    Act::done(Body::CgroupMove(body)).to(target).into()
}

pub(super) fn project_capabilities(record: &Capabilities) -> What {
    let Capabilities { header, before, after, call, pad: _ } = record;
    let body = event::Capabilities { call: calls::name(header, *call), old: sets(before), new: sets(after) };
    Act::done(Body::Capabilities(body)).into()
}

fn sets(sets: &CapabilitySets) -> event::CapabilitySets {
    let CapabilitySets { effective, permitted, inheritable, bounding, ambient, securebits } = *sets;
    event::CapabilitySets { effective, permitted, inheritable, bounding, ambient, securebits }
}
