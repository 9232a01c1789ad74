//! A process asked for another one's memory, registers or descriptors.
//!
//! Best tier: fexit on `__ptrace_may_access`, the one check that `ptrace`, `process_vm_readv`, `process_vm_writev`, `pidfd_getfd` and the
//! opening of `/proc/<pid>/mem` share; it sees attempts that are refused. Fallback: exits of the calls themselves.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Access, Kind, Ring, Target};

use crate::kernel::call::{Call, at_exit, errno};
use crate::kernel::object::{Known, Object};
use crate::kernel::{emit, fd, field, offset, read, task};

/// include/linux/ptrace.h: to look (`/proc/<pid>/environ`, `maps`) is `PTRACE_MODE_READ`; only what can change is told.
const PTRACE_MODE_ATTACH: u32 = 2;

/// include/uapi/linux/ptrace.h.
const PTRACE_TRACEME: u64 = 0;
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;

/// arch/x86/entry/syscalls/syscall_64.tbl.
const PTRACE: u32 = 101;
const PIDFD_GETFD: u32 = 438;
/// arch/x86/entry/syscalls/syscall_32.tbl.
const PTRACE_32: u32 = 26;

/// Sends one record; `target` is the address of a task, or 0 when only `pid` is known.
#[inline(always)]
fn report(call: Call, target: u64, pid: u32, request: u64, mode: u32, error: u32) {
    let current = task::current();
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Access, Ring::Priority, current, |record: *mut Access| {
            call.mark(&raw mut (*record).header);
            (*record).target = Target { start_boottime: 0, tgid: 0, tid: 0, exec_id: 0, uid: 0 };
            if target != 0 {
                task::target(&raw mut (*record).target, target);
            }
            (*record).request = request;
            (*record).call = call.number();
            (*record).error = error;
            (*record).mode = mode;
            (*record).pid = pid;
        });
    }
}

#[inline(always)]
fn is_ptrace(call: Call) -> bool {
    call.number() == if call.is_32_bit() { PTRACE_32 } else { PTRACE }
}

#[fexit]
fn fexit_ptrace_may_access(ctx: FExitContext) -> i32 {
    // (struct task_struct *task, unsigned int mode), then the result
    let mode = ctx.arg::<u32>(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    let other = ctx.arg::<*const u8>(0) as u64;
    let (own, others): (u32, u32) = (field!(task::current(), task_tgid), field!(other, task_tgid));
    if own == others {
        return 0;
    }
    let call = Call::now();
    let request = if is_ptrace(call) { call.argument::<0>() } else { 0 };
    let result = ctx.arg::<i32>(2);
    report(call, other, 0, request, mode, result.unsigned_abs());
    0
}

#[fexit]
fn fexit_ptrace_traceme(ctx: FExitContext) -> i32 {
    // (void), then the result
    let result = ctx.arg::<i32>(0);
    report(Call::now(), field!(task::current(), task_real_parent), 0, PTRACE_TRACEME, 0, result.unsigned_abs());
    0
}

/// The process that `current` began to trace last: `__ptrace_link` puts it at the head of the list.
#[inline(always)]
fn newest_tracee(current: Known) -> u64 {
    let head = current.address() + offset!(task_ptraced);
    let first: u64 = read(head);
    if first == 0 || first == head { 0 } else { first - offset!(task_ptrace_entry) }
}

/// The process behind a pidfd; 0 where it has ended.
#[inline(always)]
fn behind(pidfd: u64) -> u64 {
    let file = fd::file_of(task::current(), pidfd as u32);
    if file == 0 {
        return 0;
    }
    // Linux 6.9 gave pidfds inodes of their own and keeps the process there.
    let inode: u64 = field!(file, file_inode);
    let in_inode: u64 = field!(inode, inode_private);
    let pid: u64 = if in_inode != 0 { in_inode } else { field!(file, file_private) };
    task::leader_of(pid)
}

/// Attached at the exits of `ptrace`, `process_vm_readv`, `process_vm_writev` and `pidfd_getfd`.
#[tracepoint]
fn sys_exit_access(ctx: TracePointContext) -> u32 {
    let call = Call::now();
    let current = task::current();
    let (_, result) = at_exit(&ctx);
    let error = errno(result);
    if is_ptrace(call) {
        match call.argument::<0>() {
            PTRACE_TRACEME => report(call, field!(current, task_real_parent), 0, PTRACE_TRACEME, 0, error),
            request @ (PTRACE_ATTACH | PTRACE_SEIZE) => {
                let target = if error == 0 { newest_tracee(current) } else { 0 };
                report(call, target, call.argument::<1>() as u32, request, 0, error);
            }
            _ => {}
        }
        return 0;
    }
    let first = call.argument::<0>();
    if call.number() == PIDFD_GETFD {
        report(call, behind(first), 0, 0, 0, error);
        return 0;
    }
    let own: u32 = field!(current, task_tgid);
    if own != first as u32 {
        report(call, 0, first as u32, 0, 0, error);
    }
    0
}
