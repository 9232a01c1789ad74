//! The kernel itself starts a program: modprobe, a core dump's handler, a cgroup's release agent, a key's request.
//!
//! At the entry of `call_usermodehelper_exec`, in the context of whoever caused it. At its exit what it was given may be gone.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use bartizan_sensor_ebpf::abi::{HELPER_ARG_MAX, HELPER_ARGS, HELPER_PATH_MAX, Helper, Kind, Ring};

use crate::kernel::{emit, field, read, task, zero_body};

#[fentry]
fn fentry_usermodehelper(ctx: FEntryContext) -> i32 {
    // (struct subprocess_info *sub_info, int wait)
    let info = ctx.arg::<*const u8>(0) as u64;
    let (path, argv): (u64, u64) = (field!(info, helper_path), field!(info, helper_argv));
    // An empty path means that the operator has turned helpers off (CONFIG_STATIC_USERMODEHELPER_PATH, or an empty core_pattern).
    if path == 0 {
        return 0;
    }
    // SAFETY: every field is written: all behind the header is zeroed first.
    unsafe {
        emit::fixed(Kind::Helper, Ring::Priority, task::current(), |record: *mut Helper| {
            zero_body(record);
            bpf_probe_read_kernel_str((&raw mut (*record).path).cast(), HELPER_PATH_MAX as u32, path as *const _);
            let mut count = 0;
            for index in 0..HELPER_ARGS {
                let argument: u64 = read(argv + index as u64 * 8);
                if argument == 0 {
                    break;
                }
                let slot = (&raw mut (*record).args).cast::<[u8; HELPER_ARG_MAX]>().add(index);
                bpf_probe_read_kernel_str(slot.cast(), HELPER_ARG_MAX as u32, argument as *const _);
                count += 1;
            }
            (*record).count = count;
            if count == HELPER_ARGS as u32 {
                let next: u64 = read(argv + HELPER_ARGS as u64 * 8);
                (*record).more = u32::from(next != 0);
            }
        });
    }
    0
}
