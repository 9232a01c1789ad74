//! What is known of a socket while it lives: whose it is, since when it is established, and how much of its first bytes was looked at.
//!
//! Packets and most state changes come in softirq, where `current` is somebody else: the owner is noted where the socket's own process
//! acts on it (connect, listen, accept, the creation of a datagram socket). The kernel keeps it with the socket (`BPF_MAP_TYPE_SK_STORAGE`):
//! no address is taken for another socket's, none is pushed out, and it goes with the socket.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_sk_storage_get};
use bartizan_sensor_ebpf::abi::{FLOW_IN, FLOW_OUT, Header};

use super::maps::{ACCEPTED, FLOWS};
use super::object::Known;
use super::{fd, ignore, task};

/// [`Flow::state`]: the connection is Bartizan's own.
pub(crate) const OWN: u32 = 1 << 0;
/// [`Flow::state`]: the socket listens, and its connections begin with a copy of this.
pub(crate) const LISTENS: u32 = 1 << 1;
/// [`Flow::state`]: nobody has accepted the connection yet; the owner is that of the listening socket.
pub(crate) const NOT_ACCEPTED: u32 = 1 << 2;

/// What is known of one socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    /// Whose it is; the process is zero where that is not known.
    pub(crate) owner: Header,
    /// Boot clock when it was established, nanoseconds; 0 before.
    pub(crate) started: u64,
    /// Inode of the socket's file; 0 where that is not known.
    pub(crate) inode: u64,
    /// Entries of `sensor.ignore` and `sensor.only` whose conditions on processes the owner met (`kernel/ignore.rs`).
    pub(crate) met: u64,
    /// Address of the socket, where a program needed it as a number.
    pub(crate) address: u64,
    /// [`FLOW_OUT`], [`FLOW_IN`] or 0.
    pub(crate) direction: u32,
    /// [`OWN`], [`LISTENS`], [`NOT_ACCEPTED`].
    pub(crate) state: u32,
    /// First bytes of what comes in, and of what goes out.
    pub(crate) streams: Streams,
}

/// Both directions.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) incoming: Stream,
    pub(crate) outgoing: Stream,
}

/// How far the first bytes of one direction of a TCP connection were looked at. Zeros: not yet.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    /// Sequence number of its first byte.
    pub(crate) base: u32,
    /// Kind of the records that it gives, 0 before its first byte.
    pub(crate) kind: u16,
    /// 1 when nothing more of it is wanted.
    pub(crate) done: u16,
    /// Bytes that were sent up.
    pub(crate) taken: u32,
    /// Bytes that are wanted, at most.
    pub(crate) wanted: u32,
    /// Segments that were sent up.
    pub(crate) segments: u32,
    /// Zero.
    pub(crate) pad: u32,
}

impl Flow {
    /// Another connection begins on the socket.
    #[inline(always)]
    unsafe fn begin(flow: *mut Self) {
        // SAFETY: the caller's pointer is valid.
        unsafe {
            (*flow).started = 0;
            super::zero(&raw mut (*flow).streams);
        }
    }
}

/// Who accepted a connection: the value of [`ACCEPTED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) owner: Header,
    /// As [`Flow::met`].
    pub(crate) met: u64,
    /// Tells another socket at the same address.
    pub(crate) inode: u64,
}

/// Declares the map by its type information, as this kind of map must be (`map_flags` is what aya-ebpf's own declaration lacks).
#[repr(C)]
pub(crate) struct FlowMap {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Flow,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the loader reads the types of these pointers; nobody follows them.
unsafe impl Sync for FlowMap {}

impl FlowMap {
    /// The declaration.
    pub(crate) const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    /// What is known of `sk`, which the verifier must know as a socket; null when nothing is.
    #[inline(always)]
    pub(crate) fn get(&self, sk: *mut c_void) -> *mut Flow {
        self.find(sk, 0)
    }

    /// The same; begins with zeros where nothing is known. Null only without memory.
    #[inline(always)]
    pub(crate) fn get_or_begin(&self, sk: *mut c_void) -> *mut Flow {
        self.find(sk, BPF_SK_STORAGE_GET_F_CREATE.into())
    }

    #[inline(always)]
    fn find(&self, sk: *mut c_void, flags: u64) -> *mut Flow {
        // SAFETY: the verifier checks both pointers; without an initial value the kernel begins with zeros.
        unsafe { bpf_sk_storage_get(core::ptr::from_ref(self).cast_mut().cast(), sk, core::ptr::null_mut(), flags).cast() }
    }
}

/// The running task begins to connect `sk`. `met`: as [`Flow::met`].
#[inline(always)]
pub(crate) fn connects(sk: *mut c_void, subject: &Header, inode: u64, own: bool, met: u64) {
    let flow = FLOWS.get_or_begin(sk);
    if flow.is_null() {
        return;
    }
    // SAFETY: the kernel keeps the value while the program runs.
    unsafe {
        copy_header(&raw mut (*flow).owner, subject);
        Flow::begin(flow);
        (*flow).inode = inode;
        (*flow).met = met;
        (*flow).direction = FLOW_OUT;
        (*flow).state = if own { OWN } else { 0 };
    }
}

/// The running task listens on `sk`.
#[inline(always)]
pub(crate) fn listens(sk: *mut c_void, own: bool) {
    let flow = FLOWS.get_or_begin(sk);
    if flow.is_null() {
        return;
    }
    // SAFETY: as in `connects`.
    unsafe {
        task::subject(&raw mut (*flow).owner, task::current());
        Flow::begin(flow);
        (*flow).inode = 0;
        (*flow).met = ignore::met_by(task::current());
        (*flow).direction = FLOW_IN;
        (*flow).state = LISTENS | NOT_ACCEPTED | if own { OWN } else { 0 };
    }
}

/// `sk` is established.
#[inline(always)]
pub(crate) fn established(sk: *mut c_void) {
    let flow = FLOWS.get(sk);
    if flow.is_null() {
        return;
    }
    // SAFETY: as in `connects`; the helper takes nothing.
    unsafe {
        (*flow).started = bpf_ktime_get_boot_ns();
        (*flow).state &= !LISTENS;
    }
}

/// The running task took the connection `sk`, the same as `known`, from its listening socket. `met`: as [`Flow::met`].
#[inline(always)]
pub(crate) fn accepted(sk: *mut c_void, known: Known, met: u64) {
    let flow = FLOWS.get_or_begin(sk);
    if flow.is_null() {
        return;
    }
    // SAFETY: as in `connects`.
    unsafe {
        task::subject(&raw mut (*flow).owner, task::current());
        (*flow).inode = fd::socket_inode(known);
        (*flow).met = met;
        (*flow).direction = FLOW_IN;
        (*flow).state &= OWN;
    }
}

/// The same, from a program that cannot reach the socket itself.
#[inline(always)]
pub(crate) fn accepted_by_address(address: u64, met: u64) {
    let mut accepted = core::mem::MaybeUninit::<Accepted>::uninit();
    // SAFETY: all bytes are written before they are read.
    let accepted = unsafe {
        super::zero(accepted.as_mut_ptr());
        task::subject(&raw mut (*accepted.as_mut_ptr()).owner, task::current());
        (*accepted.as_mut_ptr()).met = met;
        (*accepted.as_mut_ptr()).inode = fd::socket_inode(address);
        accepted.assume_init_ref()
    };
    let _ = ACCEPTED.insert(&address, accepted, 0);
}

/// Fills in whose connection `flow` of the socket at `address` is; when the connection ends, nothing of it stays behind.
///
/// # Safety
/// All pointers must be valid.
#[inline(always)]
pub(crate) unsafe fn owner(header: *mut Header, inode: *mut u64, flow: *const Flow, address: u64, ends: bool) {
    // SAFETY: by contract; the maps are preallocated, or the kernel keeps the value while the program runs.
    unsafe {
        copy_header(header, &raw const (*flow).owner);
        if (*flow).inode != 0 {
            *inode = (*flow).inode;
        }
        if (*flow).direction == FLOW_IN && (*flow).state & NOT_ACCEPTED != 0 {
            let Some(accepted) = ACCEPTED.get_ptr(&address) else { return };
            // A socket without a file has been closed by its process: what was accepted at this address was it, or came before it and
            // was told then.
            if *inode == 0 || *inode == (*accepted).inode {
                copy_header(header, &raw const (*accepted).owner);
                *inode = (*accepted).inode;
            }
            if ends {
                let _ = ACCEPTED.remove(&address);
            }
        }
    }
}

/// Entries of `sensor.ignore` and `sensor.only` whose conditions on processes the owner of `flow` met, of the socket at `address`. `flow` may be
/// null: then those of [`ignore::met_by_nobody`].
///
/// # Safety
/// `flow` must be null or valid.
#[inline(always)]
pub(crate) unsafe fn met(flow: *const Flow, address: u64) -> u64 {
    // SAFETY: by contract; the maps are preallocated, or the kernel keeps the value while the program runs.
    unsafe {
        if flow.is_null() {
            return ignore::met_by_nobody();
        }
        if (*flow).direction == FLOW_IN && (*flow).state & NOT_ACCEPTED != 0 {
            if let Some(accepted) = ACCEPTED.get_ptr(&address) {
                // As in `owner`.
                let inode = fd::socket_inode(address);
                if inode == 0 || inode == (*accepted).inode {
                    return (*accepted).met;
                }
            }
            // Who will take it is not known: it may be another one than who listens.
            return (*flow).met | ignore::only();
        }
        (*flow).met
    }
}

/// Word by word: a struct assignment would become a byte loop.
///
/// # Safety
/// Both must be valid headers.
#[inline(always)]
pub(crate) unsafe fn copy_header(to: *mut Header, from: *const Header) {
    for index in 0..size_of::<Header>() / 8 {
        // SAFETY: by contract.
        unsafe { to.cast::<u64>().add(index).write_volatile(from.cast::<u64>().add(index).read_volatile()) };
    }
}
