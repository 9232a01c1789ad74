//! A process replaced its image.
//!
//! `tp_btf/sched_process_exec` fires after the new image is in place: argv is read from the new mm, where only the new
//! image can change it, and `linux_binprm.filename` is the kernel's own copy of the requested path. The environment lies there as well: its
//! first bytes and its last, so that padding at one end hides nothing at the other.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{ENVIRONMENT_MAX, EXE_INTERPRETER_TRUNCATED, Exec, FLAG_ARGV_TRUNCATED, FLAG_NAME_TRUNCATED, Kind, Ring};

use crate::kernel::maps::EXEC_SCRATCH;
use crate::kernel::object::Known;
use crate::kernel::{emit, field, image, tail, task, zero};

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(ctx: BtfTracePointContext) -> u32 {
    // (struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
    let (executes, binprm) = (Known::new(ctx.arg(0)), Known::new(ctx.arg(2)));
    let Some(scratch) = EXEC_SCRATCH.get_ptr_mut(0) else { return 0 };
    let record = scratch.cast::<Exec>();
    let fixed = size_of::<Exec>();
    // SAFETY: `record` is the beginning of the scratch, which is larger; every offset into the tail is masked.
    unsafe {
        zero(record);
        let header = &raw mut (*record).header;
        task::subject(header, executes);
        if emit::is_self(Kind::Exec, (*header).tgid) {
            return 0;
        }
        image::credentials(&raw mut (*record).image, executes);
        image::streams(scratch, header, &raw mut (*record).stdio, &raw mut (*record).relay, executes);

        tail::begin(scratch);
        let requested: u64 = field!(binprm, binprm_filename);
        if tail::kernel_string(scratch, fixed, requested) {
            (*header).flags |= FLAG_NAME_TRUNCATED;
        }
        (*record).requested = tail::span(scratch, fixed, 0);
        // The kernel makes a copy of its own when it goes on with another program, and else leaves both the same.
        let interpreter: u64 = field!(binprm, binprm_interp);
        if interpreter != requested {
            let from = tail::used(scratch);
            if tail::kernel_string(scratch, fixed, interpreter) {
                (*record).image.exe_flags |= EXE_INTERPRETER_TRUNCATED;
            }
            (*record).interpreter = tail::span(scratch, fixed, from);
        }

        let mm: Known = field!(executes, task_mm);
        let (start, end): (u64, u64) = (field!(mm, mm_arg_start), field!(mm, mm_arg_end));
        let from = tail::used(scratch);
        // Cut, or its page is not resident: said as truncated either way.
        if !tail::user_bytes(scratch, fixed, start, end.wrapping_sub(start)) {
            (*header).flags |= FLAG_ARGV_TRUNCATED;
        }
        (*record).argv = tail::span(scratch, fixed, from);
        image::paths(scratch, header, &raw mut (*record).image, fixed, executes);

        // Behind the paths: a long environment must not take their room.
        let (start, end): (u64, u64) = (field!(mm, mm_env_start), field!(mm, mm_env_end));
        let len = end.wrapping_sub(start);
        (*record).environment_len = if len > u64::from(u32::MAX) { u32::MAX } else { len as u32 };
        let from = tail::used(scratch);
        tail::user_bytes(scratch, fixed, start, len);
        (*record).environment = tail::span(scratch, fixed, from);
        let most = ENVIRONMENT_MAX as u64;
        if len > most {
            let last = if len - most > most { most } else { len - most };
            let from = tail::used(scratch);
            tail::user_bytes(scratch, fixed, end - last, last);
            (*record).environment_end = tail::span(scratch, fixed, from);
        }
        let total = tail::total(scratch, fixed);
        emit::stamp(header, Kind::Exec, total as u32);
        emit::send(Ring::Priority, scratch, Kind::Exec, total);
    }
    0
}
