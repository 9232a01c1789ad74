//! `process.credentials`.

use bartizan_bus::event::{self, Body, Ids};
use bartizan_sensor_ebpf::abi::{Credentials, TaskIds};

use super::{Act, What, calls};

pub(super) fn project(record: &Credentials) -> What {
    let Credentials { header, call, pad: _, old, new } = record;
    Act::done(Body::Credentials(event::Credentials { call: calls::name(header, *call), old: ids(old), new: ids(new) })).into()
}

fn ids(ids: &TaskIds) -> Ids {
    let TaskIds { uid, euid, suid, fsuid, gid, egid, sgid, fsgid } = *ids;
    Ids { uid, euid, suid, fsuid, gid, egid, sgid, fsgid }
}
