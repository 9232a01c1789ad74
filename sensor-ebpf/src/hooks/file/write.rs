//! What processes write to files, gathered by process and file.
//!
//! `tp_btf/writeback_dirty_folio` on every kernel: it fires once for every page that becomes dirty, in the writer's thread, whichever way it
//! writes, stores into a mapping among them. A page that is dirty already is written again for nothing here. Not seen: tmpfs and other file
//! systems without write-back, and O_DIRECT.
//!
//! Contents are sampled from the caller's memory where the running call is one that names it (write, pwrite64, writev, pwritev): the kernel
//! has just copied it from there. A mapping's store comes after its page became dirty, and io_uring's buffers are not at hand: pages without a
//! sample.

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_user};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Count, FLAG_NAME_TRUNCATED, FileWrite, Kind, SAMPLE, WriteGathered, WriteKey};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::{Program, path_of, scratch};
use crate::kernel::call::registers;
use crate::kernel::maps::{BPF_NOEXIST, WRITES};
use crate::kernel::mode::{S_IFMT, S_IFREG};
use crate::kernel::object::Known;
use crate::kernel::task::{PF_IO_WORKER, PF_KTHREAD};
use crate::kernel::{emit, fd, field, offset, path, read, tail, task, watch};

const PAGE: u64 = 4096;
/// arch/x86/entry/syscalls/syscall_64.tbl.
const WRITE: u64 = 1;
const PWRITE: u64 = 18;
const WRITEV: u64 = 20;
const PWRITEV: u64 = 296;
const PWRITEV2: u64 = 328;
/// The first pages of a file in a second are sampled each, then one of sixteen.
const SAMPLED_FIRST: u64 = 8;
const SAMPLED_EVERY: u64 = 16;

/// (struct folio *folio, struct address_space *mapping)
#[btf_tracepoint(function = "writeback_dirty_folio")]
fn writeback_dirty_folio(ctx: BtfTracePointContext) -> u32 {
    let (folio, mapping) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
    let inode: u64 = if mapping == 0 { 0 } else { field!(mapping, mapping_host) };
    if inode == 0 {
        return 0;
    }
    // Metadata belongs to the inode of a block device.
    let mode: u16 = field!(inode, inode_mode);
    if mode & S_IFMT != S_IFREG {
        return 0;
    }
    let current = task::current();
    let sb: u64 = field!(inode, inode_sb);
    let key = WriteKey { inode: field!(inode, inode_ino), device: field!(sb, sb_dev), tgid: field!(current, task_tgid) };
    let gathered = match WRITES.get_ptr_mut(&key) {
        Some(gathered) => gathered,
        None => {
            if is_ignored(inode)
                || emit::is_self(Kind::FileWrite, key.tgid)
                || emit::is_ignored(Kind::FileWrite, current)
                || emit::is_shed(Kind::FileWrite)
            {
                return 0;
            }
            // SAFETY: the helper takes nothing.
            let now = unsafe { bpf_ktime_get_boot_ns() };
            let fresh = WriteGathered { first: now, last: now, pages: 0, distinct: 0, samples: 0, magic: 0, has_magic: 0 };
            // Somebody else may have put it there meanwhile: as good.
            let _ = WRITES.insert(&key, &fresh, BPF_NOEXIST);
            let Some(gathered) = WRITES.get_ptr_mut(&key) else {
                emit::count(Kind::FileWrite, Count::TableFull);
                return 0;
            };
            begins(inode, current);
            gathered
        }
    };
    let regs = registers();
    let flags: u32 = field!(current, task_flags);
    // Neither has a caller behind it.
    let call: u64 = if flags & (PF_KTHREAD | PF_IO_WORKER) != 0 { u64::MAX } else { field!(regs, regs_orig_ax) };
    let (buffer, len) = buffer(regs, call);
    let mut pages = pages(folio);
    if buffer != 0 && pages > len / PAGE + 2 {
        // Of a folio of many pages the call cannot have written more.
        pages = len / PAGE + 2;
    }
    // SAFETY: a map value lives for ever; the map is preallocated.
    unsafe {
        let before = (&raw const (*gathered).pages).read_volatile();
        emit::add(&raw mut (*gathered).pages, pages);
        (*gathered).last = bpf_ktime_get_boot_ns();
        if buffer != 0 && len >= SAMPLE as u64 && (before < SAMPLED_FIRST || before % SAMPLED_EVERY == 0) {
            sample(gathered, buffer, len, before);
        }
        let index: u64 = field!(folio, folio_index);
        if index == 0 && buffer != 0 && len >= 8 && position(current, regs, call) == 0 {
            let mut magic = 0_u64;
            if bpf_probe_read_user((&raw mut magic).cast(), 8, buffer as *const _) == 0 {
                (*gathered).magic = magic;
                (*gathered).has_magic = 1;
            }
        }
    }
    0
}

/// Whether the inode at this address has a name of which nothing is told.
#[inline(always)]
fn is_ignored(inode: u64) -> bool {
    let alias: u64 = field!(inode, inode_dentry);
    alias != 0 && watch::is_ignored(Kind::FileWrite, alias - offset!(dentry_alias))
}

/// Pages of a folio.
#[inline(always)]
fn pages(folio: u64) -> u64 {
    let absent = u64::from(ABSENT);
    if offset!(page_head) == absent || offset!(folio_pages) == absent {
        return 1;
    }
    let flags: u64 = field!(folio, folio_flags);
    if flags >> (offset!(page_head) & 63) & 1 == 0 {
        return 1;
    }
    u64::from(read::<u32>(folio + offset!(folio_pages)))
}

/// The memory that the running call writes from, and its length; 0 when it is no such call.
#[inline(always)]
fn buffer(regs: Known, call: u64) -> (u64, u64) {
    if call == WRITE || call == PWRITE {
        return (field!(regs, regs_si), field!(regs, regs_dx));
    }
    if call != WRITEV && call != PWRITEV && call != PWRITEV2 {
        return (0, 0);
    }
    let vector: u64 = field!(regs, regs_si);
    let mut first = [0_u64; 2];
    // SAFETY: room for one `struct iovec`.
    if unsafe { bpf_probe_read_user((&raw mut first).cast(), 16, vector as *const _) } != 0 {
        return (0, 0);
    }
    (first[0], first[1])
}

/// Where in the file the running call writes; not 0 where that is not known.
#[inline(always)]
fn position(current: Known, regs: Known, call: u64) -> u64 {
    if call == PWRITE {
        return field!(regs, regs_r10);
    }
    if call != WRITE && call != WRITEV {
        return 1;
    }
    let number: u64 = field!(regs, regs_di);
    let file = fd::file_of(current, number as u32);
    // The call moves the position when it is done.
    if file == 0 { 1 } else { field!(file, file_pos) }
}

/// Adds the number of distinct bytes in a piece of the caller's memory: another one for each page.
///
/// # Safety
/// `gathered` must be valid.
#[inline(always)]
unsafe fn sample(gathered: *mut WriteGathered, buffer: u64, len: u64, page: u64) {
    let mut bytes = [0_u8; SAMPLE];
    let at = page * PAGE % (len - SAMPLE as u64 + 1);
    // SAFETY: as long as is said.
    if unsafe { bpf_probe_read_user((&raw mut bytes).cast(), SAMPLE as u32, (buffer + at) as *const _) } != 0 {
        return;
    }
    let (mut a, mut b, mut c, mut d) = (0_u64, 0_u64, 0_u64, 0_u64);
    for index in 0..SAMPLE {
        // SAFETY: inside the array; volatile, so that it stays one byte after the other.
        let byte = u64::from(unsafe { (&raw const bytes).cast::<u8>().add(index).read_volatile() });
        let bit = 1_u64 << (byte & 63);
        match byte >> 6 {
            0 => a |= bit,
            1 => b |= bit,
            2 => c |= bit,
            _ => d |= bit,
        }
    }
    // SAFETY: by contract.
    unsafe {
        emit::add(&raw mut (*gathered).distinct, ones(a) + ones(b) + ones(c) + ones(d));
        emit::add(&raw mut (*gathered).samples, 1);
    }
}

/// Number of bits that are 1: the machine has no such instruction. Hacker's Delight, 5-1.
#[inline(always)]
fn ones(bits: u64) -> u64 {
    let bits = bits - (bits >> 1 & 0x5555_5555_5555_5555);
    let bits = (bits & 0x3333_3333_3333_3333) + (bits >> 2 & 0x3333_3333_3333_3333);
    ((bits + (bits >> 4)) & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(0x0101_0101_0101_0101) >> 56
}

/// Tells who begins to write to what.
#[inline(never)]
fn begins(inode: u64, current: Known) -> u64 {
    let Some(scratch) = scratch(Program::Write) else { return 0 };
    let record = scratch.cast::<FileWrite>();
    let fixed = size_of::<FileWrite>();
    // SAFETY: `record` is the beginning of the program's own scratch, which is larger; every offset into the tail is masked.
    unsafe {
        if !emit::begin::<FileWrite>(scratch, Kind::FileWrite, current, true) {
            return 0;
        }
        watch::describe(&raw mut (*record).file, inode, watch::of(inode));
        let file = written_file(current, inode);
        if file != 0 {
            if path::walk(scratch, fixed as u64, file + offset!(file_path)) != 0 {
                (*record).header.flags |= FLAG_NAME_TRUNCATED;
            }
            (*record).path = tail::span(scratch, fixed, 0);
        } else {
            let alias: u64 = field!(inode, inode_dentry);
            if alias != 0 {
                (*record).path = path_of(scratch, &raw mut (*record).header, fixed, alias - offset!(dentry_alias));
            }
        }
        emit::send_bulk::<FileWrite>(scratch, Kind::FileWrite);
    }
    0
}

/// The open file that the running call names first, where it is the one with this inode; else 0.
#[inline(always)]
fn written_file(current: Known, inode: u64) -> u64 {
    let regs = registers();
    let number: u64 = field!(regs, regs_di);
    if number > u64::from(u32::MAX) {
        return 0;
    }
    let file = fd::file_of(current, number as u32);
    if file == 0 {
        return 0;
    }
    let opened: u64 = field!(file, file_inode);
    if opened == inode { file } else { 0 }
}
