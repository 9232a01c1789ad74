//! `process.credentials` and `process.groups`.

use bartizan_bus::event::{self, Body, Ids};
use bartizan_sensor_ebpf::abi::{Credentials, GROUPS_MAX, GroupList, Groups, TaskIds};

use super::{Act, What, calls};

pub(super) fn project(record: &Credentials) -> What {
    let Credentials { header, call, pad: _, old, new } = record;
    Act::done(Body::Credentials(event::Credentials { call: calls::name(header, *call), old: ids(old), new: ids(new) })).into()
}

fn ids(ids: &TaskIds) -> Ids {
    let TaskIds { uid, euid, suid, fsuid, gid, egid, sgid, fsgid } = *ids;
    Ids { uid, euid, suid, fsuid, gid, egid, sgid, fsgid }
}

pub(super) fn project_groups(record: &Groups) -> What {
    let Groups { header: _, old, new } = record;
    let body = event::Groups { old: gids(old), new: gids(new), old_count: old.count, new_count: new.count };
    Act::done(Body::Groups(body)).into()
}

fn gids(list: &GroupList) -> Vec<u32> {
    let GroupList { count, gids } = list;
    gids[..GROUPS_MAX.min(*count as usize)].to_vec()
}
