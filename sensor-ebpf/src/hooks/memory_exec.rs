//! Memory that was or is written can be executed: W+X or anonymous X at `mmap`, W to X at `mprotect`.
//!
//! Best tier: fexit where the kernel has the final flags, 32-bit callers and `READ_IMPLIES_EXEC` included. Fallback: entries of the calls,
//! with the old flags looked up. Just-in-time compilers do this all day: an image is told at its first time and at every power of two.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_get_current_task_btf};
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Kind, MemoryExec, Ring};

use crate::kernel::call::Call;
use crate::kernel::maps::{MADE_EXECUTABLE, MadeExecutable};
use crate::kernel::object::Known;
use crate::kernel::{emit, field, task};

/// include/linux/mm.h.
const VM_WRITE: u64 = 2;
const VM_EXEC: u64 = 4;
const VM_SHARED: u64 = 8;
/// `VM_READ` to `VM_SHARED`.
const VM_TOLD: u64 = 15;
/// include/uapi/asm-generic/mman-common.h and include/uapi/linux/mman.h.
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_ANONYMOUS: u64 = 0x20;
/// Kernel results from here up are errno values, include/linux/err.h.
const MAX_ERRNO: u64 = 4095;

/// Memory, and how it changed.
struct Change {
    start: u64,
    len: u64,
    file: u64,
    before: u64,
    after: u64,
}

/// How often the running image did so by now, this time included; 0 when this time is not told.
#[inline(always)]
fn times(current: Known) -> u32 {
    let exec_id: u64 = field!(current, task_self_exec_id);
    let leader: Known = field!(current, task_group_leader);
    let key =
        MadeExecutable { start_boottime: field!(leader, task_start_boottime), tgid: field!(current, task_tgid), exec_id: exec_id as u32 };
    let Some(known) = MADE_EXECUTABLE.get_ptr_mut(&key) else {
        // Where there is no room it is told each time.
        let _ = MADE_EXECUTABLE.insert(&key, &1, 0);
        return 1;
    };
    // SAFETY: a map value is aligned and lives on; a lost step between two threads changes which times are told.
    let times = unsafe {
        let times = *known + 1;
        *known = times;
        times
    };
    if times & (times - 1) == 0 { times as u32 } else { 0 }
}

#[inline(always)]
fn report(change: &Change) {
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    if emit::is_self(Kind::MemoryExec, tgid) {
        return;
    }
    let times = times(current);
    if times == 0 {
        return;
    }
    let call = Call::now();
    let Change { start, len, file, before, after } = *change;
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::MemoryExec, Ring::Bulk, current, |record: *mut MemoryExec| {
            call.mark(&raw mut (*record).header);
            (*record).start = start;
            (*record).len = len;
            (*record).inode = 0;
            (*record).device = 0;
            (*record).nlink = 0;
            if file != 0 {
                let inode: u64 = field!(file, file_inode);
                let sb: u64 = field!(inode, inode_sb);
                (*record).inode = field!(inode, inode_ino);
                (*record).device = field!(sb, sb_dev);
                (*record).nlink = field!(inode, inode_nlink);
            }
            (*record).before = (before & VM_TOLD) as u32;
            (*record).after = (after & VM_TOLD) as u32;
            (*record).call = call.number();
            (*record).times = times;
        });
    }
}

#[fexit]
fn fexit_file_mprotect(ctx: FExitContext) -> i32 {
    // (struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot), then the result; the flags are still the old ones
    let (vma, prot) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<u64>(2));
    if prot & PROT_EXEC == 0 || ctx.arg::<i32>(3) != 0 {
        return 0;
    }
    let before: u64 = field!(vma, vma_flags);
    let (file, anon): (u64, u64) = (field!(vma, vma_file), field!(vma, vma_anon));
    if before & VM_EXEC != 0 || (before & VM_WRITE == 0 && anon == 0) {
        return 0;
    }
    let (start, end): (u64, u64) = (field!(vma, vma_start), field!(vma, vma_end));
    report(&Change { start, len: end - start, file, before, after: (prot & 7) | (before & VM_SHARED) });
    0
}

#[fexit]
fn fexit_mmap_region(ctx: FExitContext) -> i32 {
    // (struct file *file, unsigned long addr, unsigned long len, vm_flags_t vm_flags, unsigned long pgoff, struct list_head *uf), then
    // the address
    let flags = ctx.arg::<u64>(3);
    if flags & VM_EXEC == 0 {
        return 0;
    }
    let (file, address) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<u64>(6));
    let gone = file != 0 && flags & VM_WRITE == 0 && !is_nameless(file);
    if gone || address > u64::MAX - MAX_ERRNO {
        return 0;
    }
    report(&Change { start: address, len: ctx.arg::<u64>(2), file, before: 0, after: flags });
    0
}

/// Whether nobody can reach the file by a name: a memfd, or a deleted one.
#[inline(always)]
fn is_nameless(file: u64) -> bool {
    let inode: u64 = field!(file, file_inode);
    let links: u32 = field!(inode, inode_nlink);
    links == 0
}

/// What the look-up of the old memory finds.
struct Found {
    flags: u64,
    file: u64,
    anon: u64,
}

/// Called with the memory at the address; its task is the running one.
extern "C" fn found(_task: *mut c_void, vma: *mut c_void, found: *mut c_void) -> i64 {
    let vma = vma as u64;
    // SAFETY: `old` passes its own `Found`.
    unsafe {
        let found = found.cast::<Found>();
        (*found).flags = field!(vma, vma_flags);
        (*found).file = field!(vma, vma_file);
        (*found).anon = field!(vma, vma_anon);
    }
    0
}

/// Attached at the entries of `mprotect` and `pkey_mprotect`. What fails is told too: it is an attempt.
#[tracepoint]
fn sys_enter_mprotect(_ctx: TracePointContext) -> u32 {
    let call = Call::now();
    let (start, len, prot) = (call.argument::<0>(), call.argument::<1>(), call.argument::<2>());
    if prot & PROT_EXEC == 0 {
        return 0;
    }
    let mut old = Found { flags: 0, file: 0, anon: 0 };
    // SAFETY: the callback has the signature that the helper asks for, and `old` outlives the call.
    let looked = unsafe { bpf_find_vma(bpf_get_current_task_btf(), start, found as *mut _, (&raw mut old).cast(), 0) };
    // Where the memory map is locked by another thread nothing is known of before, which is told as such: 0.
    if looked == 0 && (old.flags & VM_EXEC != 0 || (old.flags & VM_WRITE == 0 && old.anon == 0)) {
        return 0;
    }
    report(&Change { start, len, file: old.file, before: old.flags, after: (prot & 7) | (old.flags & VM_SHARED) });
    0
}

/// Attached at the entry of `mmap`.
#[tracepoint]
fn sys_enter_mmap(_ctx: TracePointContext) -> u32 {
    let call = Call::now();
    let (prot, flags) = (call.argument::<2>(), call.argument::<3>());
    if prot & PROT_EXEC == 0 {
        return 0;
    }
    let mut file = 0;
    if flags & MAP_ANONYMOUS == 0 {
        file = crate::kernel::fd::file_of(task::current(), call.argument::<4>() as u32);
        if prot & PROT_WRITE == 0 && (file == 0 || !is_nameless(file)) {
            return 0;
        }
    }
    let shared = if flags & MAP_SHARED != 0 { VM_SHARED } else { 0 };
    report(&Change { start: call.argument::<0>(), len: call.argument::<1>(), file, before: 0, after: (prot & 7) | shared });
    0
}
