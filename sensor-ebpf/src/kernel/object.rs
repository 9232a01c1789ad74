//! Objects of the kernel, and how their members are read.
//!
//! `bpf_probe_read_kernel` reads at any address, at the price of a call (15 to 25 ns); most records take a hundred members. Where the verifier
//! knows what a pointer points to (the arguments of programs at functions and BTF tracepoints, the running task, and every pointer among their
//! members) a member is one load, which the kernel mends when it faults: zero is read then, as the helper does.

use core::ffi::c_void;

use super::read;

/// Something of the kernel that has members.
pub(crate) trait Object: Copy {
    /// Its address.
    fn address(self) -> u64;

    /// The member at `offset`; zeros where it cannot be read. `T` is an integer, an array of integers, or the same kind of object.
    fn member<T: Copy>(self, offset: u64) -> T;

    /// Whether there is none.
    #[inline(always)]
    fn is_null(self) -> bool {
        self.address() == 0
    }
}

/// `member`, of the kind of object that `_holder` is.
#[inline(always)]
pub(crate) fn same<O: Object>(_holder: &O, member: O) -> O {
    member
}

/// An address: anything may be there.
impl Object for u64 {
    #[inline(always)]
    fn address(self) -> u64 {
        self
    }

    #[inline(always)]
    fn member<T: Copy>(self, offset: u64) -> T {
        read(self + offset)
    }
}

/// A pointer of which the verifier knows the type. A program that makes one of anything else is refused by the kernel.
///
/// `<VERIFIER>` Some members may be null as far as the kernel says (`mm_struct.exe_file`, and every `__rcu` member of a kernel whose types have
/// that tag, such as `task_struct.cred`): those are compared with null before anything is added to them. A member that the type does not have is refused: what is behind `struct sock` in a `struct tcp_sock` needs an address.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Known(*const u8);

impl Known {
    /// `pointer`, an argument of the program or what a helper returned with its type.
    #[inline(always)]
    pub(crate) fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The same as a map's key: storage that belongs to the object.
    #[inline(always)]
    pub(crate) fn key(self) -> *mut c_void {
        self.0.cast_mut().cast()
    }
}

impl Object for Known {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn member<T: Copy>(self, offset: u64) -> T {
        // SAFETY: the verifier checks that the object has a member there; volatile, so that the load stays of this size.
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }
}
