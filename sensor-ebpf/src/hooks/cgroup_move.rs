//! A process was moved into another control group.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{ACT_NAME_MAX, CgroupMove, Kind, Ring};

use crate::kernel::{emit, field, kernel_string, task};

#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> u32 {
    // (struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)
    let (cgroup, path, moved) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64, ctx.arg::<*const u8>(2) as u64);
    let node: u64 = field!(cgroup, cgroup_kn);
    // SAFETY: every field is written, of the path as much as counts.
    unsafe {
        emit::fixed(Kind::CgroupMove, Ring::Priority, task::current(), |record: *mut CgroupMove| {
            task::target(&raw mut (*record).target, moved);
            (*record).cgroup = field!(node, kn_id);
            kernel_string::<ACT_NAME_MAX>((&raw mut (*record).path).cast(), path);
        });
    }
    0
}
