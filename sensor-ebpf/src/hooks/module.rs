//! Kernel modules that are loaded, refused, unloaded and asked for.
//!
//! `tp_btf/module_load` fires when the module is in its place and before its own code runs: it cannot hide from that. Best tier: fexit also
//! tells which file it came from, or that it came from memory (`security_kernel_read_file`, `security_kernel_load_data`: in the same thread
//! before), and loads that fail (`load_module`).

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use bartizan_sensor_ebpf::abi::{
    FLAG_ARGV_TRUNCATED, FLAG_NAME_TRUNCATED, Kind, MODULE_ARGS_MAX, MODULE_FROM_MEMORY, MODULE_NAME_MAX, MODULE_SIGNED, MODULE_UNSIGNED,
    Module, ModuleAct, Ring,
};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::call::{Call, thread};
use crate::kernel::maps::{KERNEL_READS, KERNEL_SCRATCH, KernelRead, Scratch};
use crate::kernel::{copy, emit, field, offset, path, tail, task, zero, zero_body};

/// arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
const INIT_MODULE: u32 = 175;
const FINIT_MODULE: u32 = 313;
const INIT_MODULE_32: u32 = 128;
const FINIT_MODULE_32: u32 = 350;

/// Indices of the programs' scratches.
const LOAD: u32 = 0;
const LOAD_FAILED: u32 = 1;
const UNLOAD: u32 = 2;
/// Of `hooks/kexec.rs`.
pub(super) const KEXEC: u32 = 3;
pub(super) const KEXEC_FILE: u32 = 4;
pub(super) const KEXEC_FILE_32: u32 = 5;

/// Remembers which file the running thread has the kernel read; 0 for memory.
#[inline(always)]
pub(super) fn remember(file: u64) {
    let (mut inode, mut device) = (0, 0);
    if file != 0 {
        let node: u64 = field!(file, file_inode);
        let sb: u64 = field!(node, inode_sb);
        let number: u32 = field!(sb, sb_dev);
        (inode, device) = (field!(node, inode_ino), u64::from(number));
    }
    let _ = KERNEL_READS.insert(&thread(), &KernelRead { file, inode, device, name: [0; 7] }, 0);
}

/// Appends the path of a file that was read, leaf first, unless its place is another file's by now. Returns whether it was cut.
#[inline(always)]
pub(super) fn path_of(scratch: *mut Scratch, fixed: usize, file: u64, inode: u64) -> bool {
    let node: u64 = field!(file, file_inode);
    let now: u64 = field!(node, inode_ino);
    now == inode && path::walk(scratch, fixed as u64, file + offset!(file_path)) != 0
}

/// Begins a record in `scratch`; `None` for Bartizan's own.
#[inline(always)]
fn begin(index: u32, act: ModuleAct) -> Option<*mut Scratch> {
    let scratch = KERNEL_SCRATCH.get_ptr_mut(index)?;
    let record = scratch.cast::<Module>();
    // SAFETY: `record` is the beginning of the scratch, which is larger.
    unsafe {
        zero(record);
        task::subject(&raw mut (*record).header, task::current());
        if emit::is_self(Kind::Module, (*record).header.tgid) {
            return None;
        }
        (*record).act = act as u32;
    }
    tail::begin(scratch);
    Some(scratch)
}

/// Puts what the thread had read into the record.
#[inline(always)]
unsafe fn origin(scratch: *mut Scratch, known: *mut KernelRead) {
    let record = scratch.cast::<Module>();
    let fixed = size_of::<Module>();
    // SAFETY: the map is preallocated: a reused entry is a wrong number at worst.
    unsafe {
        let KernelRead { file, inode, device, name: _ } = *known;
        if file == 0 {
            (*record).known |= MODULE_FROM_MEMORY;
            return;
        }
        (*record).inode = inode;
        (*record).device = device as u32;
        if path_of(scratch, fixed, file, inode) {
            (*record).header.flags |= FLAG_NAME_TRUNCATED;
        }
        (*record).path = tail::span(scratch, fixed, 0);
    }
}

#[inline(always)]
fn send(scratch: *mut Scratch) {
    let record = scratch.cast::<Module>();
    let total = tail::total(scratch, size_of::<Module>());
    // SAFETY: the scratch begins with the record.
    unsafe { emit::stamp(&raw mut (*record).header, Kind::Module, total as u32) };
    emit::send(Ring::Priority, scratch, Kind::Module, total);
}

/// What the module itself says.
#[inline(always)]
unsafe fn describe(record: *mut Module, module: u64) {
    // SAFETY: by contract.
    unsafe {
        copy((&raw mut (*record).name).cast(), MODULE_NAME_MAX as u32, module + offset!(module_name));
        (*record).taints = field!(module, module_taints);
        if offset!(module_sig_ok) != u64::from(ABSENT) {
            let signed: u8 = field!(module, module_sig_ok);
            (*record).known |= if signed != 0 { MODULE_SIGNED } else { MODULE_UNSIGNED };
        }
    }
}

/// The parameters, from the caller's memory: of the kernel's own copy its parser has made many texts by now.
#[inline(always)]
unsafe fn arguments(record: *mut Module) {
    let call = Call::now();
    let args = match (call.is_32_bit(), call.number()) {
        (false, INIT_MODULE) | (true, INIT_MODULE_32) => call.argument::<2>(),
        (false, FINIT_MODULE) | (true, FINIT_MODULE_32) => call.argument::<1>(),
        _ => return,
    };
    // SAFETY: by contract.
    unsafe {
        let len = bpf_probe_read_user_str((&raw mut (*record).args).cast(), MODULE_ARGS_MAX as u32, args as *const _);
        if len >= MODULE_ARGS_MAX as i64 {
            (*record).header.flags |= FLAG_ARGV_TRUNCATED;
        }
    }
}

#[btf_tracepoint(function = "module_load")]
fn module_load(ctx: BtfTracePointContext) -> u32 {
    // (struct module *mod)
    loaded(ctx.arg::<*const u8>(0) as u64);
    0
}

#[inline(always)]
fn loaded(module: u64) {
    let Some(scratch) = begin(LOAD, ModuleAct::Load) else { return };
    let record = scratch.cast::<Module>();
    // SAFETY: the scratch begins with the record; the map is preallocated.
    unsafe {
        describe(record, module);
        arguments(record);
        if let Some(known) = KERNEL_READS.get_ptr_mut(&thread()) {
            copy((&raw mut (*known).name).cast(), MODULE_NAME_MAX as u32, module + offset!(module_name));
            origin(scratch, known);
        }
    }
    send(scratch);
}

#[btf_tracepoint(function = "module_free")]
fn module_free(ctx: BtfTracePointContext) -> u32 {
    // (struct module *mod)
    let module = ctx.arg::<*const u8>(0) as u64;
    let Some(scratch) = begin(UNLOAD, ModuleAct::Unload) else { return 0 };
    // SAFETY: the scratch begins with the record.
    unsafe { describe(scratch.cast(), module) };
    send(scratch);
    0
}

#[btf_tracepoint(function = "module_request")]
fn module_request(ctx: BtfTracePointContext) -> u32 {
    // (char *name, bool wait, unsigned long ip)
    let name = ctx.arg::<*const u8>(0) as u64;
    // SAFETY: every field is written: all behind the header is zeroed first.
    unsafe {
        emit::fixed(Kind::Module, Ring::Bulk, task::current(), |record: *mut Module| {
            zero_body(record);
            (*record).act = ModuleAct::Request as u32;
            bpf_probe_read_kernel_str((&raw mut (*record).name).cast(), MODULE_NAME_MAX as u32, name as *const _);
        });
    }
    0
}

#[fexit]
fn fexit_module_file(ctx: FExitContext) -> i32 {
    // (struct file *file, enum kernel_read_file_id id, bool contents), then the result
    if u64::from(ctx.arg::<u32>(1)) == offset!(reading_module) {
        remember(ctx.arg::<*const u8>(0) as u64);
    }
    0
}

#[fexit]
fn fexit_module_memory(ctx: FExitContext) -> i32 {
    // (enum kernel_load_data_id id, bool contents), then the result
    if u64::from(ctx.arg::<u32>(0)) == offset!(loading_module) {
        remember(0);
    }
    0
}

#[fexit]
fn fexit_load_module(ctx: FExitContext) -> i32 {
    // (struct load_info *info, const char *uargs, int flags), then the result
    let result = ctx.arg::<i32>(3);
    if result < 0 {
        refused(result.unsigned_abs());
    }
    let _ = KERNEL_READS.remove(&thread());
    0
}

#[inline(always)]
fn refused(error: u32) {
    let Some(scratch) = begin(LOAD_FAILED, ModuleAct::LoadFailed) else { return };
    let record = scratch.cast::<Module>();
    // SAFETY: the scratch begins with the record; the map is preallocated.
    unsafe {
        (*record).error = error;
        if let Some(known) = KERNEL_READS.get_ptr_mut(&thread()) {
            // One that was in its place has a name: its own code said no.
            for index in 0..MODULE_NAME_MAX / 8 {
                let word = (&raw const (*known).name).cast::<u64>().add(index).read();
                (&raw mut (*record).name).cast::<u64>().add(index).write(word);
            }
            origin(scratch, known);
        }
    }
    send(scratch);
}

const _: () = assert!(core::mem::offset_of!(Module, name) % 8 == 0);
