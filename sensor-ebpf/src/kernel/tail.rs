//! The variable part of a record that is built in a scratch.
//!
//! `<VERIFIER>` The fill of the tail lives in the scratch itself, not in a register: what comes back from map memory is an
//! unknown number each time, so the verifier does not follow every combination of string lengths as a state of its own
//! (450,000 instructions when it did).

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str};
use bartizan_sensor_ebpf::abi::{ARGV_MAX, COMPONENT_MAX, NAME_MAX, Span, TAIL_MAX};

use super::bound;
use super::maps::{SCRATCH, Scratch};

/// Where the fill is kept: behind everything a record can reach.
const FILL: usize = SCRATCH - 8;

/// Where it is noted that a program works in the scratch: before the words of [`super::image`].
const CLAIM: usize = SCRATCH - 128;

/// Takes the scratch; false when a program that this one interrupts works in it. Programs at functions can be interrupted by others, and
/// several of one hook share a scratch.
#[inline(always)]
pub(crate) fn claim(scratch: *mut Scratch) -> bool {
    // SAFETY: inside the scratch, and 8-aligned like it; a scratch is one CPU's own.
    unsafe {
        let claim = scratch.cast::<u8>().add(CLAIM).cast::<u64>();
        if claim.read_volatile() != 0 {
            return false;
        }
        claim.write_volatile(1);
    }
    true
}

/// Gives it back.
#[inline(always)]
pub(crate) fn release(scratch: *mut Scratch) {
    // SAFETY: as in `claim`.
    unsafe { scratch.cast::<u8>().add(CLAIM).cast::<u64>().write_volatile(0) };
}

#[inline(always)]
fn fill(scratch: *mut Scratch) -> *mut u64 {
    // SAFETY: inside the scratch, and 8-aligned like it.
    unsafe { scratch.cast::<u8>().add(FILL).cast() }
}

/// Begins an empty tail.
#[inline(always)]
pub(crate) fn begin(scratch: *mut Scratch) {
    // SAFETY: every scratch is the program's own.
    unsafe { fill(scratch).write_volatile(0) };
}

/// Bytes in the tail.
#[inline(always)]
pub(crate) fn used(scratch: *mut Scratch) -> u64 {
    // SAFETY: as in `begin`.
    bound::<{ TAIL_MAX as u32 * 2 - 1 }>(unsafe { fill(scratch).read_volatile() })
}

/// Notes `more` further bytes.
#[inline(always)]
fn grow(scratch: *mut Scratch, more: u64) {
    // SAFETY: as in `begin`.
    unsafe { fill(scratch).write_volatile(used(scratch) + more) };
}

/// Where the next bytes go. The scratch goes on for more than the longest piece behind it.
#[inline(always)]
fn end(scratch: *mut Scratch, fixed: u64) -> *mut u8 {
    // SAFETY: `fixed` is the constant size of a record, and the fill is masked.
    unsafe { scratch.cast::<u8>().add(fixed as usize).add(bound::<{ TAIL_MAX as u32 - 1 }>(used(scratch)) as usize) }
}

/// Whether `len` further bytes fit.
#[inline(always)]
fn fits(scratch: *mut Scratch, len: usize) -> bool {
    used(scratch) <= (TAIL_MAX - len) as u64
}

/// Span from `from` to the end of the tail.
#[inline(always)]
pub(crate) fn span(scratch: *mut Scratch, fixed: usize, from: u64) -> Span {
    Span { offset: (fixed as u64 + from) as u16, len: (used(scratch) - from) as u16 }
}

/// Length of the whole record, padded to eight bytes.
#[inline(always)]
pub(crate) fn total(scratch: *mut Scratch, fixed: usize) -> u64 {
    fixed as u64 + ((used(scratch) + 7) & !7)
}

/// Appends one name of the kernel with its NUL; false when the tail is full.
#[inline(always)]
pub(crate) fn name(scratch: *mut Scratch, fixed: u64, address: u64) -> bool {
    if !fits(scratch, COMPONENT_MAX) {
        return false;
    }
    // SAFETY: `end` leaves room for a component.
    let written = unsafe { bpf_probe_read_kernel_str(end(scratch, fixed).cast(), COMPONENT_MAX as u32, address as *const _) };
    if written > 0 {
        grow(scratch, written as u64);
    }
    true
}

/// Appends a string of the kernel with its NUL; true when it was cut.
#[inline(always)]
pub(crate) fn kernel_string(scratch: *mut Scratch, fixed: usize, address: u64) -> bool {
    // SAFETY: `end` leaves room for a name.
    let written = unsafe { bpf_probe_read_kernel_str(end(scratch, fixed as u64).cast(), NAME_MAX as u32, address as *const _) };
    if written > 0 {
        grow(scratch, written as u64);
    }
    written >= NAME_MAX as i64
}

/// Appends a string of the caller's memory with its NUL; true when it was cut.
#[inline(always)]
pub(crate) fn user_string(scratch: *mut Scratch, fixed: usize, address: u64) -> bool {
    // SAFETY: `end` leaves room for a name.
    let written = unsafe { bpf_probe_read_user_str(end(scratch, fixed as u64).cast(), NAME_MAX as u32, address as *const _) };
    if written > 0 {
        grow(scratch, written as u64);
    }
    written >= NAME_MAX as i64
}

/// Copies a string of the kernel with its NUL into `room` bytes (a constant at every call site): for one of known length.
///
/// # Safety
/// `to` must be valid for `room` bytes of writing.
#[inline(always)]
pub(crate) unsafe fn short_string(to: *mut u8, room: u32, address: u64) {
    // SAFETY: by contract.
    unsafe { bpf_probe_read_kernel_str(to.cast(), room, address as *const _) };
}

/// Appends `len` bytes of user memory, at most [`ARGV_MAX`]; false when they cannot be read (not resident), do not fit or were cut.
#[inline(always)]
pub(crate) fn user_bytes(scratch: *mut Scratch, fixed: usize, address: u64, len: u64) -> bool {
    let cut = len > ARGV_MAX as u64;
    let len = bound::<{ ARGV_MAX as u32 * 2 - 1 }>(if cut { ARGV_MAX as u64 } else { len });
    if len == 0 || len > ARGV_MAX as u64 {
        return !cut;
    }
    if !fits(scratch, ARGV_MAX) {
        return false;
    }
    // SAFETY: `end` leaves room for an argument vector.
    if unsafe { bpf_probe_read_user(end(scratch, fixed as u64).cast(), len as u32, address as *const _) } != 0 {
        return false;
    }
    grow(scratch, len);
    !cut
}
