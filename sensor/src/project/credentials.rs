//! `process.credentials`.

use bartizan_bus::event::{self, Body, Ids};
use bartizan_sensor_ebpf::abi::{Credentials, TaskIds};

use super::{Act, What};

pub(super) fn project(record: &Credentials) -> What {
    let Credentials { header: _, call, pad: _, old, new } = record;
    Act::done(Body::Credentials(event::Credentials { call: name(*call), old: ids(old), new: ids(new) })).into()
}

/// arch/x86/entry/syscalls/syscall_64.tbl.
fn name(call: u32) -> String {
    let name = match call {
        105 => "setuid",
        106 => "setgid",
        113 => "setreuid",
        114 => "setregid",
        117 => "setresuid",
        119 => "setresgid",
        122 => "setfsuid",
        123 => "setfsgid",
        other => return format!("system call {other}"),
    };
    name.to_owned()
}

fn ids(ids: &TaskIds) -> Ids {
    let TaskIds { uid, euid, suid, fsuid, gid, egid, sgid, fsgid } = *ids;
    Ids { uid, euid, suid, fsuid, gid, egid, sgid, fsgid }
}
