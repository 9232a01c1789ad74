//! `process.fork`.

use bartizan_sensor_ebpf::abi::Fork;

use super::{Child, What, isolation, text};

pub(super) fn project(record: &Fork) -> What {
    let Fork { header: _, child_start_boottime, flags, child_tgid, child_exec_id, comm } = record;
    What::Fork(Child {
        tgid: *child_tgid,
        start_boottime: *child_start_boottime,
        exec_id: *child_exec_id,
        name: text::name(comm),
        namespaces: isolation::asked_for(*flags),
    })
}
