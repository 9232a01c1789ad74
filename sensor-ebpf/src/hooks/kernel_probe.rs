//! A probe was put on a function of the kernel or on a file that programs run.
//!
//! Best tier: fexit where every way ends: tracefs, perf_event_open, BPF, modules. Fallback: perf_event_open(2), whose result is a descriptor
//! of the event; what it is on is only in the caller's memory.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{FLAG_FROM_CALLER, KERNEL_PROBE_NAME_MAX, KernelProbe, Kind, ProbeAct, Ring};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::call::{at_exit, errno};
use crate::kernel::{emit, fd, field, offset, read, task, zero_body};

/// include/linux/err.h, `MAX_ERRNO`.
const MAX_ERRNO: u64 = 4095;
/// First four letters of the names of the event sources.
const UPROBE: u32 = u32::from_le_bytes(*b"upro");
const KPROBE: u32 = u32::from_le_bytes(*b"kpro");

/// Where the name of a place is.
enum Name {
    Kernel(u64),
    User(u64),
}

/// A place without its name.
struct Place {
    act: ProbeAct,
    error: u32,
    address: u64,
    offset: u64,
    inode: u64,
}

#[inline(always)]
fn report(place: Place, name: Name) {
    // SAFETY: every field is written: all behind the header is zeroed first.
    unsafe {
        emit::fixed(Kind::KernelProbe, Ring::Priority, task::current(), |record: *mut KernelProbe| {
            zero_body(record);
            let Place { act, error, address, offset, inode } = place;
            (*record).act = act as u32;
            (*record).error = error;
            (*record).address = address;
            (*record).offset = offset;
            if inode != 0 {
                let sb: u64 = field!(inode, inode_sb);
                (*record).inode = field!(inode, inode_ino);
                (*record).device = field!(sb, sb_dev);
            }
            let to = (&raw mut (*record).name).cast();
            match name {
                Name::Kernel(0) => {}
                Name::Kernel(address) => {
                    bpf_probe_read_kernel_str(to, KERNEL_PROBE_NAME_MAX as u32, address as *const _);
                }
                Name::User(address) => {
                    (*record).header.flags |= FLAG_FROM_CALLER;
                    bpf_probe_read_user_str(to, KERNEL_PROBE_NAME_MAX as u32, address as *const _);
                }
            }
        });
    }
}

#[fexit]
fn fexit_kprobe(ctx: FExitContext) -> i32 {
    // (struct kprobe *p), then the result
    let (probe, result) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<i32>(1));
    let offset: u32 = field!(probe, kprobe_offset);
    let error = errno(result.into());
    let place = Place { act: ProbeAct::Kernel, error, address: field!(probe, kprobe_addr), offset: offset.into(), inode: 0 };
    report(place, Name::Kernel(field!(probe, kprobe_symbol)));
    0
}

/// Name of a file by one of its directory entries; 0 where it has none.
#[inline(always)]
fn name_of(inode: u64) -> u64 {
    let alias: u64 = field!(inode, inode_dentry);
    if alias == 0 { 0 } else { read(alias - offset!(dentry_alias) + offset!(dentry_name)) }
}

#[inline(always)]
fn user(inode: u64, offset: u64, error: u32) {
    report(Place { act: ProbeAct::User, error, address: 0, offset, inode }, Name::Kernel(name_of(inode)));
}

#[fexit]
fn fexit_uprobe_result(ctx: FExitContext) -> i32 {
    // (struct inode *inode, loff_t offset, loff_t ref_ctr_offset, struct uprobe_consumer *uc), then the result
    let result = ctx.arg::<i32>(4);
    let error = errno(result.into());
    user(ctx.arg::<*const u8>(0) as u64, ctx.arg::<u64>(1), error);
    0
}

#[fexit]
fn fexit_uprobe(ctx: FExitContext) -> i32 {
    // The same, and the result is the probe or an error in its place.
    let result = ctx.arg::<u64>(4);
    let error = if result >= 0_u64.wrapping_sub(MAX_ERRNO) { 0_u64.wrapping_sub(result) as u32 } else { 0 };
    user(ctx.arg::<*const u8>(0) as u64, ctx.arg::<u64>(1), error);
    0
}

#[tracepoint]
fn sys_exit_perf_event_open(ctx: TracePointContext) -> u32 {
    let (_, result) = at_exit(&ctx);
    if result < 0 || offset!(perf_event_pmu) == u64::from(ABSENT) || offset!(pmu_name) == u64::from(ABSENT) {
        return 0;
    }
    let file = fd::file_of(task::current(), result as u32);
    if file == 0 {
        return 0;
    }
    let event: u64 = field!(file, file_private);
    let pmu: u64 = field!(event, perf_event_pmu);
    let source: u64 = field!(pmu, pmu_name);
    let act = match read::<u32>(source) {
        UPROBE => ProbeAct::UserByPerf,
        KPROBE => ProbeAct::KernelByPerf,
        _ => return 0,
    };
    let place = Place { act, error: 0, address: 0, offset: field!(event, perf_event_offset), inode: 0 };
    report(place, Name::User(field!(event, perf_event_path)));
    0
}
