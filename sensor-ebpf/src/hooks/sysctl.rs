//! A process writes a sysctl.
//!
//! A cgroup program at the root of the unified hierarchy, where every process is, on every kernel. The kernel calls it with its own copy of
//! the name and of what is written, whatever call that was (write, io_uring, 32-bit), before the value is taken: the result is not known.

use aya_ebpf::bindings::bpf_sysctl;
use aya_ebpf::helpers::generated::{bpf_sysctl_get_current_value, bpf_sysctl_get_name, bpf_sysctl_get_new_value};
use aya_ebpf::macros::cgroup_sysctl;
use aya_ebpf::programs::SysctlContext;
use bartizan_sensor_ebpf::abi::{Kind, Ring, SYSCTL_MAX, Sysctl};

use crate::kernel::{emit, task};

/// What the program answers: the kernel goes on. 0 would refuse.
const ALLOW: i32 = 1;

#[cgroup_sysctl]
fn sysctl(ctx: SysctlContext) -> i32 {
    // SAFETY: the context's own members.
    let (write, position) = unsafe { ((*ctx.sysctl).write, (*ctx.sysctl).file_pos) };
    if write != 0 {
        written(ctx.sysctl, position);
    }
    ALLOW
}

#[inline(always)]
fn written(ctx: *mut bpf_sysctl, position: u32) {
    // Whoever makes a user namespace may write these as often as he likes, and must not crowd out what must not be lost.
    let mut head = [0_u8; 8];
    // SAFETY: eight bytes; a longer name is cut.
    unsafe { bpf_sysctl_get_name(ctx, head.as_mut_ptr().cast(), 8, 0) };
    let [a, b, c, d, e, ..] = head;
    let ring = if [a, b, c, d] == *b"net/" || [a, b, c, d, e] == *b"user/" { Ring::Bulk } else { Ring::Priority };
    // SAFETY: every field is written: the helpers fill what they are given with zeros behind the text, and without one too.
    unsafe {
        emit::fixed(Kind::Sysctl, ring, task::current(), |record: *mut Sysctl| {
            (*record).position = position;
            (*record).name_len = bpf_sysctl_get_name(ctx, (&raw mut (*record).name).cast(), SYSCTL_MAX as u64, 0) as i32;
            (*record).old_len = bpf_sysctl_get_current_value(ctx, (&raw mut (*record).old).cast(), SYSCTL_MAX as u64) as i32;
            (*record).new_len = bpf_sysctl_get_new_value(ctx, (&raw mut (*record).new).cast(), SYSCTL_MAX as u64) as i32;
        });
    }
}
