//! Handing records to the rings, and counting those that did not make it.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::maps::RingBuf;
use bartizan_sensor_ebpf::abi::{ABI_VERSION, COUNTS, Count, Header, Kind, Ring};

use super::maps::{ASLEEP, BULK, BULK_WAKEUP, COUNTERS, PARTS, PRIORITY, SCRATCH, SELF_TGID, SEQUENCE, SHED, Scratch};
use super::object::Object;
use super::{bound, field, ignore, task};

/// Counts one record of `kind`.
#[inline(always)]
pub(crate) fn count(kind: Kind, what: Count) {
    count_raw(kind as u16, what);
}

/// [`count`], where the kind is not known before the program runs.
#[inline(always)]
pub(crate) fn count_raw(kind: u16, what: Count) {
    if let Some(counter) = COUNTERS.get_ptr_mut(u32::from(kind) * COUNTS as u32 + what as u32) {
        // SAFETY: a map value is aligned and lives for ever. Atomic, because a softirq may interrupt a program that counts.
        unsafe { add_one(counter) };
    }
}

/// Adds one atomically. core has no atomic addition for this target; the machine has.
///
/// # Safety
/// `counter` must be aligned and valid.
#[inline(always)]
pub(crate) unsafe fn add_one(counter: *mut u64) {
    // SAFETY: by contract.
    unsafe { add(counter, 1) };
}

/// Adds `value` atomically.
///
/// # Safety
/// `counter` must be aligned and valid.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: by contract.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) value, options(nostack)) };
}

/// Whether records of the bulk kind `kind` are left out now, because Bartizan is at its CPU ceiling; if so it is counted.
#[inline(always)]
pub(crate) fn is_shed(kind: Kind) -> bool {
    is_shed_raw(kind as u16)
}

/// [`is_shed`], where the kind is not known before the program runs.
#[inline(always)]
pub(crate) fn is_shed_raw(kind: u16) -> bool {
    // SAFETY: a map value is aligned and lives for ever.
    let shed = SHED.get_ptr(0).is_some_and(|word| unsafe { word.read_volatile() } != 0);
    if shed {
        count_raw(kind, Count::Shed);
    }
    shed
}

/// Which parts of the program that is running are attached: `PART_*`.
#[inline(always)]
pub(crate) fn parts() -> u32 {
    // SAFETY: a map value is aligned and lives for ever.
    PARTS.get_ptr(0).map_or(0, |word| unsafe { word.read_volatile() })
}

/// Whether `tgid` is Bartizan itself; if so the record is counted as filtered.
#[inline(always)]
pub(crate) fn is_self(kind: Kind, tgid: u32) -> bool {
    // SAFETY: as in `offset!`.
    let own = unsafe { core::ptr::read_volatile(&raw const SELF_TGID) };
    let filtered = own != 0 && own == tgid;
    if filtered {
        count(kind, Count::FilteredSelf);
    }
    filtered
}

/// Whether the configuration leaves records of `kind` by the task at `current` out, whatever their peer; if so it is counted.
#[inline(always)]
pub(crate) fn is_ignored(kind: Kind, current: impl Object) -> bool {
    let entries = ignore::without_peer(kind as u16);
    entries != 0 && counted(kind as u16, ignore::leave_out(entries, entries & ignore::met_by(current)))
}

/// Whether the configuration leaves a record of `kind` out whose owner met the conditions of `met`, and whose peer is the one of the socket
/// `sk`; if so it is counted.
#[inline(always)]
pub(crate) fn is_ignored_socket(kind: u16, met: u64, sk: impl Object) -> bool {
    let entries = ignore::of_kind(kind);
    entries != 0 && counted(kind, ignore::leave_out(entries, ignore::with_socket(entries & met, sk.address())))
}

/// Likewise, where the peer's address is at hand (IPv4 in the first four bytes).
#[inline(always)]
pub(crate) fn is_ignored_peer(kind: u16, met: u64, peer: &[u8; 16], is_v6: bool) -> bool {
    let entries = ignore::of_kind(kind);
    entries != 0 && counted(kind, ignore::leave_out(entries, ignore::with_peer(entries & met, peer, is_v6)))
}

/// Counts a record as filtered, when it is left out.
#[inline(always)]
fn counted(kind: u16, left_out: bool) -> bool {
    if left_out {
        count_raw(kind, Count::Filtered);
    }
    left_out
}

/// Sends a record without a tail about `current`, unless it is Bartizan itself, or left out by configuration, or a bulk record
/// while those are left out. `fill` gets the record with its subject filled in and the rest not; it must write every field that is left.
///
/// # Safety
/// `fill` must initialise all of the record behind its header.
#[inline(always)]
pub(crate) unsafe fn fixed<T: 'static>(kind: Kind, ring: Ring, current: impl Object, fill: impl FnOnce(*mut T)) {
    let tgid: u32 = field!(current, task_tgid);
    if is_self(kind, tgid) || is_ignored(kind, current) || (matches!(ring, Ring::Bulk) && is_shed(kind)) {
        return;
    }
    // SAFETY: by contract.
    unsafe { fixed_of_any(kind, ring, current, fill) };
}

/// [`fixed`], whoever acts.
///
/// # Safety
/// As for [`fixed`].
#[inline(always)]
pub(crate) unsafe fn fixed_of_any<T: 'static>(kind: Kind, ring: Ring, current: impl Object, fill: impl FnOnce(*mut T)) {
    let Some(mut entry) = of(ring).reserve::<T>(0) else {
        count(kind, Count::RingFull);
        return;
    };
    let record: *mut T = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, which begins with its header; submitted below with nothing in between that could
    // leave.
    unsafe { task::subject(record.cast(), current) };
    fill(record);
    // SAFETY: as above.
    unsafe { stamp(record.cast(), kind, size_of::<T>() as u32) };
    entry.submit(wakeup(ring));
    count(kind, Count::Emitted);
}

/// The ring itself.
#[inline(always)]
pub(crate) fn of(ring: Ring) -> &'static RingBuf {
    match ring {
        Ring::Priority => &PRIORITY,
        Ring::Bulk => &BULK,
    }
}

/// Stamps time, CPU, sequence, kind and ABI.
///
/// # Safety
/// `header` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn stamp(header: *mut Header, kind: Kind, len: u32) {
    // SAFETY: by contract.
    unsafe { stamp_raw(header, kind as u16, len) };
}

/// [`stamp`], where the kind is not known before the program runs.
///
/// # Safety
/// `header` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn stamp_raw(header: *mut Header, kind: u16, len: u32) {
    let mut sequence = 0;
    if let Some(slot) = SEQUENCE.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own.
        unsafe {
            sequence = *slot;
            *slot = sequence.wrapping_add(1);
        }
    }
    // SAFETY: `header` is valid by contract; the helpers take no pointers.
    unsafe {
        (*header).len = len;
        (*header).kind = kind;
        (*header).abi = ABI_VERSION;
        (*header).cpu = bpf_get_smp_processor_id() as u16;
        (*header).seq = sequence;
        (*header).ktime = bpf_ktime_get_boot_ns();
    }
}

/// Begins a record with a tail in `scratch`: zeroed, its subject filled in. False when there is none to make: Bartizan itself acts, the
/// configuration leaves it out, or bulk records are left out. `must`: not this one, of the last.
///
/// # Safety
/// `scratch` must be the program's own.
#[inline(always)]
pub(crate) unsafe fn begin<T: 'static>(scratch: *mut Scratch, kind: Kind, current: impl Object, must: bool) -> bool {
    let tgid: u32 = field!(current, task_tgid);
    if is_self(kind, tgid) || is_ignored(kind, current) || (!must && is_shed(kind)) {
        return false;
    }
    // SAFETY: by contract; every record is smaller than a scratch and begins with its header.
    unsafe {
        super::zero(scratch.cast::<T>());
        task::subject(scratch.cast(), current);
    }
    super::tail::begin(scratch);
    true
}

/// Stamps the record with its tail and sends it to the bulk ring.
///
/// # Safety
/// `scratch` must hold a record that was begun.
#[inline(always)]
pub(crate) unsafe fn send_bulk<T: 'static>(scratch: *mut Scratch, kind: Kind) {
    let total = super::tail::total(scratch, size_of::<T>());
    // SAFETY: by contract.
    unsafe { stamp(scratch.cast(), kind, total as u32) };
    send(Ring::Bulk, scratch, kind, total);
}

/// Sends the first `len` bytes of `scratch` and counts the outcome.
#[inline(always)]
pub(crate) fn send(ring: Ring, scratch: *mut Scratch, kind: Kind, len: u64) {
    let len = bound::<{ SCRATCH as u32 - 1 }>(len);
    // SAFETY: `len` is below the size of the scratch.
    let record = unsafe { core::slice::from_raw_parts(scratch.cast::<u8>(), len as usize) };
    match of(ring).output::<[u8]>(record, wakeup(ring)) {
        Ok(()) => count(kind, Count::Emitted),
        Err(_) => count(kind, Count::RingFull),
    }
}

/// include/uapi/linux/bpf.h.
const BPF_RB_AVAIL_DATA: u64 = 0;
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;

/// How a record is handed over: silently while user space looks at the rings by itself. Where it sleeps, a record of the priority ring wakes
/// it, and one of the bulk ring where [`BULK_WAKEUP`] bytes wait.
///
/// A wake-up is an interrupt on this CPU, right inside the program (1 to 3 µs), and what is pending in softirq runs at its end: state changes
/// of other sockets, whose program runs the kernel would skip because this one still runs.
#[inline(always)]
pub(crate) fn wakeup(ring: Ring) -> u64 {
    // SAFETY: a map value is aligned and lives for ever.
    let asleep = ASLEEP.get_ptr(0).is_none_or(|word| unsafe { word.read_volatile() } != 0);
    if !asleep {
        return BPF_RB_NO_WAKEUP;
    }
    match ring {
        Ring::Priority => 0,
        Ring::Bulk => {
            // SAFETY: as in `offset!`.
            let enough = unsafe { core::ptr::read_volatile(&raw const BULK_WAKEUP) };
            if BULK.query(BPF_RB_AVAIL_DATA) > enough { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
        }
    }
}
