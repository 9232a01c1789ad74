//! BPF programs that are loaded and put at their places, by anybody but Bartizan.
//!
//! Best tier: fexit on what every way goes through, 32-bit calls and light skeletons too: `perf_event_bpf_event` (the id is there, the
//! descriptor not yet), `bpf_link_prime` for links, `cgroup_bpf_prog_attach`, `__perf_event_set_bpf_prog`, `__sk_attach_prog`. Fallback: the
//! exit of bpf(2), whose result is a descriptor of the new program or link, and of setsockopt(2), after which the socket has the filter:
//! both are the kernel's own objects. Only `BPF_PROG_ATTACH` leaves nothing but its arguments in the caller's memory.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{BPF_PLACE_MAX, BpfAttach, BpfLoad, BpfProgram, BpfUnload, BpfWay, FLAG_FROM_CALLER, Kind, Ring};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::call::at_exit;
use crate::kernel::{copy, emit, fd, field, offset, read, task, zero_body};

/// include/uapi/linux/perf_event.h.
const PERF_BPF_EVENT_PROG_LOAD: u32 = 1;
const PERF_BPF_EVENT_PROG_UNLOAD: u32 = 2;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const RAW_TRACEPOINT_OPEN: u32 = 17;
const LINK_CREATE: u32 = 28;

/// `enum bpf_link_type`.
const LINK_RAW_TRACEPOINT: u32 = 1;
const LINK_CGROUP: u32 = 3;
const LINK_XDP: u32 = 6;
const LINK_PERF_EVENT: u32 = 7;
const LINK_TCX: u32 = 11;

/// include/uapi/asm-generic/socket.h.
const SOL_SOCKET: u32 = 1;
const SO_ATTACH_FILTER: u32 = 26;
const SO_ATTACH_BPF: u32 = 50;

/// No value.
const NONE: u32 = u32::MAX;

/// Describes the program at `prog` in `out`, all of it.
///
/// # Safety
/// `out` must be valid for writing.
#[inline(always)]
unsafe fn describe(out: *mut BpfProgram, prog: u64) {
    let aux: u64 = field!(prog, prog_aux);
    let orig: u64 = field!(prog, prog_orig);
    let function: u64 = field!(aux, aux_function);
    let classic: u16 = if orig == 0 { 0 } else { field!(orig, fprog_len) };
    // SAFETY: by contract.
    unsafe {
        (*out).id = field!(aux, aux_id);
        (*out).program_type = field!(prog, prog_type);
        (*out).attach_type = field!(prog, prog_attach_type);
        (*out).instructions = field!(prog, prog_len);
        (*out).classic = u32::from(classic);
        (*out).attach_btf_id = field!(aux, aux_attach_btf_id);
        copy((&raw mut (*out).tag).cast(), 8, prog + offset!(prog_tag));
        copy((&raw mut (*out).name).cast(), 16, aux + offset!(aux_name));
        // What is behind the NUL is the ring's old bytes; a fault leaves an empty text.
        (&raw mut (*out).function).cast::<u8>().write_volatile(0);
        if function != 0 {
            bpf_probe_read_kernel_str((&raw mut (*out).function).cast(), BPF_PLACE_MAX as u32, function as *const _);
        }
    }
}

fn loaded(prog: u64) {
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::BpfLoad, Ring::Priority, task::current(), |record: *mut BpfLoad| describe(&raw mut (*record).program, prog));
    }
}

/// Where a program was put, without the program.
struct Place {
    way: BpfWay,
    link: u64,
    link_id: u32,
    attach_type: u32,
    cgroup: u64,
    perf_event: u64,
    sock: u64,
    flags: u16,
}

impl Place {
    const fn new(way: BpfWay) -> Self {
        Self { way, link: 0, link_id: 0, attach_type: NONE, cgroup: 0, perf_event: 0, sock: 0, flags: 0 }
    }
}

#[inline(always)]
fn attached(prog: u64, place: Place) {
    // SAFETY: every field is written: all of the record behind the header is zeroed first.
    unsafe {
        emit::fixed(Kind::BpfAttach, Ring::Priority, task::current(), |record: *mut BpfAttach| {
            zero_body(record);
            (*record).header.flags |= place.flags;
            describe(&raw mut (*record).program, prog);
            (*record).way = place.way as u32;
            (*record).link_id = place.link_id;
            (*record).attach_type = place.attach_type;
            (*record).cgroup = place.cgroup;
            (*record).perf_type = NONE;
            if place.link != 0 {
                link(record, place.link);
            }
            if place.perf_event != 0 {
                perf(record, place.perf_event);
            }
            if place.sock != 0 {
                (*record).family = field!(place.sock, sock_family);
                (*record).socket_type = field!(place.sock, sock_type);
                (*record).protocol = field!(place.sock, sock_protocol);
                (*record).socket_inode = fd::socket_inode(place.sock);
            }
        });
    }
}

/// What the link at `link` says of its place.
#[inline(always)]
unsafe fn link(record: *mut BpfAttach, link: u64) {
    let link_type: u32 = field!(link, link_type);
    // SAFETY: by contract, here and below. Every kind of link begins with its `bpf_link`.
    unsafe {
        (*record).link_type = link_type;
        if link_type == LINK_RAW_TRACEPOINT {
            let btp: u64 = field!(link, raw_link_btp);
            let tracepoint: u64 = field!(btp, btp_tp);
            let name: u64 = field!(tracepoint, tracepoint_name);
            bpf_probe_read_kernel_str((&raw mut (*record).place).cast(), BPF_PLACE_MAX as u32, name as *const _);
        } else if link_type == LINK_CGROUP && offset!(cgroup_link_cgroup) != u64::from(ABSENT) {
            let cgroup: u64 = field!(link, cgroup_link_cgroup);
            let node: u64 = field!(cgroup, cgroup_kn);
            (*record).cgroup = field!(node, kn_id);
        } else if link_type == LINK_PERF_EVENT && offset!(perf_link_file) != u64::from(ABSENT) {
            let file: u64 = field!(link, perf_link_file);
            perf(record, field!(file, file_private));
        } else if link_type == LINK_XDP && offset!(xdp_link_dev) != u64::from(ABSENT) {
            let device: u64 = field!(link, xdp_link_dev);
            (*record).ifindex = field!(device, netdev_ifindex);
        } else if link_type == LINK_TCX && offset!(tcx_link_dev) != u64::from(ABSENT) {
            let device: u64 = field!(link, tcx_link_dev);
            (*record).ifindex = field!(device, netdev_ifindex);
        }
    }
}

#[inline(always)]
unsafe fn perf(record: *mut BpfAttach, event: u64) {
    if offset!(perf_event_type) == u64::from(ABSENT) || offset!(perf_event_config) == u64::from(ABSENT) {
        return;
    }
    // SAFETY: by contract.
    unsafe {
        (*record).perf_type = field!(event, perf_event_type);
        (*record).perf_config = field!(event, perf_event_config);
    }
}

#[fexit]
fn fexit_bpf_event(ctx: FExitContext) -> i32 {
    // (struct bpf_prog *prog, enum perf_bpf_event_type type, u16 flags), no result
    let prog = ctx.arg::<*const u8>(0) as u64;
    match ctx.arg::<u32>(1) {
        PERF_BPF_EVENT_PROG_LOAD => loaded(prog),
        // SAFETY: every field is written.
        PERF_BPF_EVENT_PROG_UNLOAD => unsafe {
            emit::fixed(Kind::BpfUnload, Ring::Priority, task::current(), |record: *mut BpfUnload| {
                describe(&raw mut (*record).program, prog);
            });
        },
        _ => {}
    }
    0
}

#[fexit]
fn fexit_bpf_link(ctx: FExitContext) -> i32 {
    // (struct bpf_link *link, struct bpf_link_primer *primer), then the result
    let (link, primer) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
    if ctx.arg::<i32>(2) == 0 {
        let link_id = field!(primer, primer_id);
        attached(field!(link, link_prog), Place { link, link_id, ..Place::new(BpfWay::Link) });
    }
    0
}

#[fexit]
fn fexit_bpf_cgroup(ctx: FExitContext) -> i32 {
    // (const union bpf_attr *attr, enum bpf_prog_type ptype, struct bpf_prog *prog), then the result. The attributes are the kernel's copy:
    // target_fd, attach_bpf_fd, attach_type.
    let (attr, prog) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(2) as u64);
    if ctx.arg::<i32>(3) == 0 {
        let cgroup = folder(read(attr));
        attached(prog, Place { attach_type: read(attr + 8), cgroup, ..Place::new(BpfWay::Attach) });
    }
    0
}

#[fexit]
fn fexit_bpf_perf(ctx: FExitContext) -> i32 {
    // (struct perf_event *event, struct bpf_prog *prog, u64 bpf_cookie), then the result
    if ctx.arg::<i32>(3) == 0 {
        let (perf_event, prog) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
        attached(prog, Place { perf_event, ..Place::new(BpfWay::PerfEvent) });
    }
    0
}

#[fexit]
fn fexit_socket_filter(ctx: FExitContext) -> i32 {
    // (struct bpf_prog *prog, struct sock *sk), then the result
    if ctx.arg::<i32>(2) == 0 {
        let (prog, sock) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
        attached(prog, Place { sock, ..Place::new(BpfWay::SocketFilter) });
    }
    0
}

/// Inode of the folder at descriptor `number` of the caller: the id of a cgroup. 0 where there is none.
#[inline(always)]
fn folder(number: u32) -> u64 {
    let file = fd::file_of(task::current(), number);
    if file == 0 {
        return 0;
    }
    let inode: u64 = field!(file, file_inode);
    field!(inode, inode_ino)
}

/// Private data of the file at descriptor `number` of the caller: the program or link behind it.
#[inline(always)]
fn object(number: u32) -> u64 {
    let file = fd::file_of(task::current(), number);
    if file == 0 { 0 } else { field!(file, file_private) }
}

#[tracepoint]
fn sys_exit_bpf_load(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let command: u64 = field!(regs, regs_di);
    if command as u32 == PROG_LOAD && result >= 0 {
        let prog = object(result as u32);
        if prog != 0 {
            loaded(prog);
        }
    }
    0
}

#[tracepoint]
fn sys_exit_bpf_attach(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let command: u64 = field!(regs, regs_di);
    match command as u32 {
        LINK_CREATE | RAW_TRACEPOINT_OPEN if result >= 0 => {
            let link = object(result as u32);
            if link != 0 {
                attached(field!(link, link_prog), Place { link, link_id: field!(link, link_id), ..Place::new(BpfWay::Link) });
            }
        }
        PROG_ATTACH if result == 0 => by_number(field!(regs, regs_si)),
        _ => {}
    }
    0
}

/// `BPF_PROG_ATTACH`, by its arguments in the caller's memory.
#[inline(always)]
fn by_number(attr: u64) {
    // target_fd, attach_bpf_fd, attach_type
    let mut words = [0_u32; 3];
    // SAFETY: twelve bytes for three words.
    if unsafe { bpf_probe_read_user(words.as_mut_ptr().cast(), 12, attr as *const _) } != 0 {
        return;
    }
    let [target, prog, attach_type] = words;
    let prog = object(prog);
    if prog != 0 {
        let place = Place { attach_type, cgroup: folder(target), flags: FLAG_FROM_CALLER, ..Place::new(BpfWay::Attach) };
        attached(prog, place);
    }
}

#[tracepoint]
fn sys_exit_setsockopt(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let (level, option): (u64, u64) = (field!(regs, regs_si), field!(regs, regs_dx));
    if !matches!(option as u32, SO_ATTACH_FILTER | SO_ATTACH_BPF) || level as u32 != SOL_SOCKET || result != 0 {
        return 0;
    }
    let number: u64 = field!(regs, regs_di);
    let file = fd::file_of(task::current(), number as u32);
    if file == 0 {
        return 0;
    }
    let sock = fd::sock_of(file);
    let filter: u64 = field!(sock, sock_filter);
    if filter != 0 {
        attached(field!(filter, sock_filter_prog), Place { sock, ..Place::new(BpfWay::SocketFilter) });
    }
    0
}
