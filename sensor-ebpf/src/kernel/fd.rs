//! Open files: what descriptors 0-2 are, and whether the parent holds their other ends.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use bartizan_sensor_ebpf::abi::{Fd, FdKind, RELAY_FDS, RELAY_SOCKETS, Relay, STDIO};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::family::{AF_INET6, AF_UNIX, is_inet};
use super::mode::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK};
use super::object::Object;
use super::{bound, copy, field, offset, read};

/// `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT`, include/net/tcp_states.h. A connected UDP socket says established too; a peer
/// that has sent all its commands and closed its half leaves the shell in close-wait.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
/// include/linux/fs.h.
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// Documentation/admin-guide/devices.txt: consoles and serial lines, the alternates (`/dev/tty`, `ptmx`), UNIX98 slaves.
const TTY_MAJOR: u32 = 4;
const TTYAUX_MAJOR: u32 = 5;
const PTS_MAJOR_FIRST: u32 = 136;
const PTS_MAJOR_LAST: u32 = 143;
const PTMX: u32 = (TTYAUX_MAJOR << 20) | 2;

/// Fills `out` from an INET socket.
///
/// # Safety
/// `out` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn inet<O: Object>(out: *mut Fd, sk: O, family: u16) {
    let peer_port: u16 = field!(sk, sock_dport);
    // SAFETY: `out` is valid by contract.
    unsafe {
        (*out).state = field!(sk, sock_state);
        (*out).protocol = field!(sk, sock_protocol);
        (*out).local_port = field!(sk, sock_num);
        (*out).peer_port = u16::from_be(peer_port);
        (*out).inode = socket_inode(sk);
        if family == AF_INET6 && offset!(sock_v6_daddr) != u64::from(ABSENT) {
            (*out).kind = FdKind::Inet6 as u8;
            address((&raw mut (*out).local).cast(), sk, offset!(sock_v6_rcv_saddr));
            address((&raw mut (*out).peer).cast(), sk, offset!(sock_v6_daddr));
        } else {
            (*out).kind = FdKind::Inet4 as u8;
            (&raw mut (*out).local).cast::<u32>().write(field!(sk, sock_rcv_saddr));
            (&raw mut (*out).peer).cast::<u32>().write(field!(sk, sock_daddr));
        }
    }
}

/// Copies the IPv6 address at `offset` of `sk`.
///
/// # Safety
/// `out` must be valid for two words.
#[inline(always)]
pub(crate) unsafe fn address<O: Object>(out: *mut u64, sk: O, offset: u64) {
    // SAFETY: by contract.
    unsafe {
        out.write(sk.member(offset));
        out.add(1).write(sk.member(offset + 8));
    }
}

/// Inode of the socket file over `sk`; 0 when there is none.
#[inline(always)]
pub(crate) fn socket_inode<O: Object>(sk: O) -> u64 {
    let socket: u64 = field!(sk, sock_socket);
    if socket == 0 {
        return 0;
    }
    socket_inode_of(socket)
}

/// Inode of the file of a `struct socket`.
#[inline(always)]
pub(crate) fn socket_inode_of(socket: u64) -> u64 {
    read(socket - offset!(socket_alloc_socket) + offset!(socket_alloc_inode) + offset!(inode_ino))
}

/// Address of the `tty_struct` behind a terminal file.
#[inline(always)]
fn tty_of(file: u64) -> u64 {
    let private: u64 = field!(file, file_private);
    if private == 0 { 0 } else { field!(private, tty_private_tty) }
}

/// Address of the `sock` behind a file; 0 where it is no socket.
#[inline(always)]
pub(crate) fn socket_of(file: u64) -> u64 {
    let inode: u64 = field!(file, file_inode);
    let mode: u16 = field!(inode, inode_mode);
    if mode & S_IFMT == S_IFSOCK { sock_of(file) } else { 0 }
}

/// Address of the `sock` behind a socket file.
#[inline(always)]
pub(crate) fn sock_of(file: u64) -> u64 {
    let socket: u64 = field!(file, file_private);
    if socket == 0 { 0 } else { field!(socket, socket_sk) }
}

/// Address of descriptor `fd`'s `struct file` in `task`; 0 when it is not open.
#[inline(always)]
pub(crate) fn file_of<O: Object>(task: O, fd: u32) -> u64 {
    let files: O = field!(task, task_files);
    if files.is_null() {
        return 0;
    }
    let table: O = field!(files, files_fdt);
    let max: u32 = field!(table, fdt_max_fds);
    if fd >= max {
        return 0;
    }
    let array: u64 = field!(table, fdt_fd);
    read(array + u64::from(fd) * 8)
}

/// Describes an open file in `out`, whose bytes must be zero. Returns what identifies the *other* end of it, to be compared
/// with the files of a relay: the pipe's inode, the pty master's tty, the UNIX peer's sock; 0 where there is no such end.
#[inline(never)]
pub(crate) fn describe(file: u64, out: *mut Fd) -> u64 {
    let inode: u64 = field!(file, file_inode);
    let mode: u16 = field!(inode, inode_mode);
    let format = mode & S_IFMT;
    // SAFETY: every caller passes a descriptor inside its scratch.
    unsafe {
        (*out).inode = field!(inode, inode_ino);
        if format == S_IFIFO {
            (*out).kind = FdKind::Pipe as u8;
            return inode;
        }
        if format == S_IFREG || format == S_IFDIR {
            (*out).kind = FdKind::File as u8;
            return 0;
        }
        if format == S_IFSOCK {
            let sk = sock_of(file);
            let family: u16 = field!(sk, sock_family);
            if is_inet(family) {
                inet(out, sk, family);
                return 0;
            }
            if family == AF_UNIX {
                (*out).kind = FdKind::Unix as u8;
                let peer: u64 = field!(sk, unix_peer);
                if peer != 0 {
                    (*out).other = socket_inode(peer);
                }
                return peer;
            }
            (*out).kind = FdKind::Other as u8;
            return 0;
        }
        if format == S_IFCHR || format == S_IFBLK {
            let device: u32 = field!(inode, inode_rdev);
            (*out).other = u64::from(device);
            let major = device >> 20;
            if format == S_IFCHR && (major == TTY_MAJOR || major == TTYAUX_MAJOR || (PTS_MAJOR_FIRST..=PTS_MAJOR_LAST).contains(&major)) {
                let tty = tty_of(file);
                if tty != 0 {
                    (*out).kind = FdKind::Tty as u8;
                    copy((&raw mut (*out).local).cast(), 16, tty + offset!(tty_name));
                    return field!(tty, tty_link);
                }
            }
            (*out).kind = FdKind::Device as u8;
            return 0;
        }
        (*out).kind = FdKind::Other as u8;
    }
    0
}

/// What [`relay`]'s loop works on.
struct Scan {
    /// Address of the table's files, by descriptor.
    array: u64,
    /// Address of the bitmap of those that are open.
    open: u64,
    /// Words of the bitmap, and how many were taken.
    words: u64,
    taken: u64,
    /// What is left of the last one.
    bits: u64,
    out: *mut Relay,
    ends: *mut u64,
}

/// Looks through the descriptors of `parent` for the other ends (the first three words of `ends`) and for connected INET
/// sockets; the following [`RELAY_SOCKETS`] words note which sockets were found, so that duplicated descriptors take one
/// slot. Returns whether there were more descriptors than [`RELAY_FDS`].
///
/// `<VERIFIER>` The loop is `bpf_loop` (Linux 5.17), which verifies its body once: unrolled by the verifier it cost 600,000
/// instructions and seconds of start-up.
#[inline(never)]
pub(crate) fn relay(parent: u64, out: *mut Relay, ends: *mut u64) -> u64 {
    let files: u64 = field!(parent, task_files);
    if files == 0 {
        return 0;
    }
    let table: u64 = field!(files, files_fdt);
    let max: u32 = field!(table, fdt_max_fds);
    // The table has room for a multiple of a word's bits.
    let words = u64::from(if max > RELAY_FDS as u32 { RELAY_FDS as u32 } else { max }) / WORD;
    let (array, open): (u64, u64) = (field!(table, fdt_fd), field!(table, fdt_open_fds));
    // <VERIFIER> Linux 6.1 verifies the body with what it begins with and no other time: with bits that are known to be none it would take the
    // half that follows them for dead, and remove it.
    let mut scan = Scan { array, open, words, taken: 1, bits: read(open), out, ends };
    // SAFETY: the callback has the signature that the helper asks for, and `scan` outlives the call.
    unsafe { bpf_loop(RELAY_FDS as u32 + RELAY_FDS as u32 / WORD as u32, relay_step as *mut _, (&raw mut scan).cast(), 0) };
    u64::from(max > RELAY_FDS as u32)
}

/// Bits of a word of the bitmap.
const WORD: u64 = 64;

/// One step of the loop: the next word of the bitmap, or the next open descriptor of this one. Returns 1 to end it.
extern "C" fn relay_step(_index: u32, scan: *mut c_void) -> i64 {
    // SAFETY: `relay` passes its own `Scan`, whose pointers lie in the scratch.
    unsafe {
        let scan = scan.cast::<Scan>();
        if (*scan).bits == 0 {
            if (*scan).taken >= (*scan).words {
                return 1;
            }
            (*scan).bits = read((*scan).open + (*scan).taken * 8);
            (*scan).taken += 1;
            return 0;
        }
        let lowest = (*scan).bits & (*scan).bits.wrapping_neg();
        (*scan).bits ^= lowest;
        let descriptor = ((*scan).taken - 1) * WORD + place(lowest);
        let file: u64 = read((*scan).array + descriptor * 8);
        if file != 0 {
            relay_file(file, (*scan).out, (*scan).ends);
        }
    }
    0
}

/// Which bit of `bit` is the one that is set: the machine has no such instruction.
#[inline(always)]
fn place(bit: u64) -> u64 {
    let odd = |mask: u64, value: u64| if bit & mask != 0 { value } else { 0 };
    odd(0xffff_ffff_0000_0000, 32)
        + odd(0xffff_0000_ffff_0000, 16)
        + odd(0xff00_ff00_ff00_ff00, 8)
        + odd(0xf0f0_f0f0_f0f0_f0f0, 4)
        + odd(0xcccc_cccc_cccc_cccc, 2)
        + odd(0xaaaa_aaaa_aaaa_aaaa, 1)
}

/// Looks at one descriptor of the parent.
#[inline(always)]
unsafe fn relay_file(file: u64, out: *mut Relay, ends: *mut u64) {
    let inode: u64 = field!(file, file_inode);
    let mode: u16 = field!(inode, inode_mode);
    let format = mode & S_IFMT;
    if format == S_IFIFO {
        // A process's own inherited end of the same pipe is not the other end: the mode tells them apart.
        let modes: u32 = field!(file, file_mode);
        // SAFETY: by contract, here and below.
        unsafe { hold(out, ends, inode, modes) };
    } else if format == S_IFCHR {
        let device: u32 = field!(inode, inode_rdev);
        if device == PTMX {
            // SAFETY: as above.
            unsafe { hold(out, ends, tty_of(file), FMODE_READ | FMODE_WRITE) };
        }
    } else if format == S_IFSOCK {
        let sk = sock_of(file);
        let family: u16 = field!(sk, sock_family);
        if family == AF_UNIX {
            // SAFETY: as above.
            unsafe { hold(out, ends, sk, FMODE_READ | FMODE_WRITE) };
        } else if is_inet(family) {
            let state: u8 = field!(sk, sock_state);
            if state == ESTABLISHED || state == CLOSE_WAIT {
                // SAFETY: as above; the mask keeps the slot inside the arrays.
                unsafe {
                    let seen = ends.add(STDIO);
                    for slot in 0..RELAY_SOCKETS {
                        if seen.add(slot).read_volatile() == sk {
                            return;
                        }
                    }
                    let found = (&raw const (*out).sockets_found).read_volatile();
                    if found < RELAY_SOCKETS as u32 {
                        let slot = bound::<{ RELAY_SOCKETS as u32 - 1 }>(u64::from(found)) as usize;
                        seen.add(slot).write_volatile(sk);
                        inet((&raw mut (*out).sockets).cast::<Fd>().add(slot), sk, family);
                    }
                    (&raw mut (*out).sockets_found).write_volatile(found + 1);
                }
            }
        }
    }
}

/// Notes which of the `ends` the file `id` is.
#[inline(always)]
unsafe fn hold(out: *mut Relay, ends: *const u64, id: u64, modes: u32) {
    // SAFETY: by contract.
    unsafe {
        let mut held = 0;
        if id == ends.read_volatile() && modes & FMODE_WRITE != 0 {
            held |= 1;
        }
        if id == ends.add(1).read_volatile() && modes & FMODE_READ != 0 {
            held |= 2;
        }
        if id == ends.add(2).read_volatile() && modes & FMODE_READ != 0 {
            held |= 4;
        }
        if id != 0 && held != 0 {
            let before = (&raw const (*out).held).read_volatile();
            (&raw mut (*out).held).write_volatile(before | held);
        }
    }
}
