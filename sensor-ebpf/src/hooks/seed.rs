//! What already runs: the task iterator writes one record per process into its own file, so nothing can be lost to a ring.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use bartizan_sensor_ebpf::abi::{Kind, Seed};

use crate::kernel::maps::{SCRATCH, SEED_SCRATCH};
use crate::kernel::{bound, emit, field, image, tail, task, zero};

// aya-ebpf 0.2.1 has no macro for iterators.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
extern "C" fn seed(ctx: *mut c_void) -> i32 {
    // SAFETY: `struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; }`, both eight bytes by
    // definition (include/linux/bpf.h); the first member of the meta is the seq_file.
    let (seq, task_address) = unsafe {
        let meta = *ctx.cast::<*const *mut c_void>();
        (*meta, *ctx.cast::<*const c_void>().add(1) as u64)
    };
    if task_address == 0 {
        return 0;
    }
    let (pid, tgid): (u32, u32) = (field!(task_address, task_pid), field!(task_address, task_tgid));
    if pid != tgid {
        return 0;
    }
    let Some(scratch) = SEED_SCRATCH.get_ptr_mut(0) else { return 0 };
    let record = scratch.cast::<Seed>();
    let fixed = size_of::<Seed>();
    // SAFETY: as in the exec hook.
    unsafe {
        zero(record);
        let header = &raw mut (*record).header;
        task::subject(header, task_address);
        image::credentials(&raw mut (*record).image, task_address);
        image::streams(scratch, header, &raw mut (*record).stdio, &raw mut (*record).relay, task_address);
        image::own_sockets(scratch, &raw mut (*record).own, task_address);
        tail::begin(scratch);
        image::paths(scratch, header, &raw mut (*record).image, fixed, task_address);
        let total = bound::<{ SCRATCH as u32 - 1 }>(tail::total(scratch, fixed));
        emit::stamp(header, Kind::Seed, total as u32);
        bpf_seq_write(seq.cast(), scratch.cast(), total as u32);
    }
    0
}
