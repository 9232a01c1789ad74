//! What the programs share.

pub(crate) mod call;
pub(crate) mod emit;
pub(crate) mod family;
pub(crate) mod fd;
pub(crate) mod flow;
pub(crate) mod ignore;
pub(crate) mod image;
pub(crate) mod maps;
pub(crate) mod mode;
pub(crate) mod object;
pub(crate) mod path;
pub(crate) mod tail;
pub(crate) mod task;
pub(crate) mod watch;

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use bartizan_sensor_ebpf::abi::Header;

/// Reads a value of the kernel at `address`; zeros when it cannot be read.
#[inline(always)]
pub(crate) fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of `value`, with zeros when the address faults, and `T` is an integer or an array of
    // integers at every call site.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// Copies `len` bytes (a constant at every call site) of the kernel to `to`; zeros when they cannot be read.
///
/// # Safety
/// `to` must be valid for `len` bytes of writing.
#[inline(always)]
pub(crate) unsafe fn copy(to: *mut u8, len: u32, address: u64) {
    // SAFETY: by contract.
    unsafe { bpf_probe_read_kernel(to.cast(), len, address as *const _) };
}

/// Copies a string of the kernel to `to`, cut at `N` bytes with its NUL; empty when it cannot be read.
///
/// # Safety
/// `to` must be valid for `N` bytes of writing.
#[inline(always)]
pub(crate) unsafe fn kernel_string<const N: usize>(to: *mut u8, address: u64) {
    // SAFETY: by contract.
    unsafe {
        if bpf_probe_read_kernel_str(to.cast(), N as u32, address as *const _) < 0 {
            to.write(0);
        }
    }
}

/// Zeroes `T` word by word: a struct assignment would become a byte loop.
///
/// # Safety
/// `to` must be valid for writing a `T`, whose size and alignment are multiples of eight.
#[inline(always)]
pub(crate) unsafe fn zero<T>(to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    for index in 0..size_of::<T>() / 8 {
        // SAFETY: by contract; volatile, so that it stays word by word.
        unsafe { to.cast::<u64>().add(index).write_volatile(0) };
    }
}

/// Zeroes a record word by word, but for its header.
///
/// # Safety
/// `record` must be valid for writing a `T`, which begins with a header.
#[inline(always)]
pub(crate) unsafe fn zero_body<T>(record: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    for index in size_of::<Header>() / 8..size_of::<T>() / 8 {
        // SAFETY: by contract; volatile, as above.
        unsafe { record.cast::<u64>().add(index).write_volatile(0) };
    }
}

/// `value & MASK`, done where LLVM cannot optimise it away and the verifier can see it.
#[inline(always)]
pub(crate) fn bound<const MASK: u32>(value: u64) -> u64 {
    let mut bounded = value;
    // SAFETY: arithmetic on one register.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) bounded, const MASK, options(pure, nomem, nostack)) };
    bounded
}

/// Reads one slot of the offsets.
#[inline(always)]
pub(crate) fn slot(slot: *const u16) -> u64 {
    // SAFETY: `offset!` passes a field of a global; the read is volatile because user space patches it before load.
    u64::from(unsafe { slot.read_volatile() })
}

/// Loads one slot of [`OFFSETS`](maps::OFFSETS) as a constant of the verifier.
macro_rules! offset {
    ($slot:ident) => {
        crate::kernel::slot(&raw const crate::kernel::maps::OFFSETS.$slot)
    };
}
pub(crate) use offset;

/// Reads a member of an [`Object`](object::Object): of an address by the helper, of what the verifier knows by a load.
macro_rules! field {
    ($base:expr, $slot:ident) => {
        crate::kernel::object::Object::member($base, crate::kernel::offset!($slot))
    };
}
pub(crate) use field;

/// Inode number of the namespace that `$holder` points to by its member `$pointer`; 0 of a task that has left its namespaces behind at
/// its end.
macro_rules! namespace {
    ($holder:expr, $pointer:ident, $inum:ident) => {{
        let namespace = crate::kernel::object::same(&$holder, crate::kernel::field!($holder, $pointer));
        crate::kernel::field!(namespace, $inum)
    }};
}
pub(crate) use namespace;
