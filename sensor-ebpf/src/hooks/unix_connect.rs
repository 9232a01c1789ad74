//! Connections to UNIX stream and sequenced-packet sockets, with who listens there: the kernel notes that in the caller's socket.
//!
//! Best tier: fexit on `unix_stream_connect`, whichever call it was. Fallback: the exit of connect(2).
//!
//! Every look-up of a name or user may be such a connection, so most are counted and not told. Once for each process image, address and
//! outcome: a listener in another pid namespace (another container), a daemon whose socket is as good as root ([`ROOTS`]), a refusal. Once for
//! each program, user, address and outcome: all else that succeeds. Once for each program, user and errno: all else that fails. What is told
//! once is told again at every power of two, with its number.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{FLAG_FROM_CALLER, Kind, Ring, Target, UNIX_NAME_MAX, UnixConnect};

use super::connect::is_no_attempt;
use crate::kernel::call::errno;
use crate::kernel::maps::{UNIX_SCRATCH, UNIX_TOLD, UnixTold};
use crate::kernel::object::Object;
use crate::kernel::{bound, emit, fd, field, offset, read, task, zero};

/// include/linux/net.h.
const SOCK_STREAM: u16 = 1;
const SOCK_SEQPACKET: u16 = 5;
/// Bytes of `sun_path`, and where it begins in a `sockaddr_un`: include/uapi/linux/un.h.
const PATH_MAX: u64 = 108;
const PATH_AT: u64 = 2;

const EPERM: u32 = 1;
const EACCES: u32 = 13;
/// Of an address that is none.
const EINVAL: i64 = 22;

/// [`UnixTold::of`].
const OF_IMAGE: u32 = 1;
const OF_PROGRAM: u32 = 2;

/// Words of a name that are compared: each of [`ROOTS`] ends within them.
const WORDS: usize = 6;
/// Sockets of daemons that do what root may do for whoever may connect.
static ROOTS: [[u64; WORDS]; 14] = [
    words(b"/run/docker.sock"),
    words(b"/var/run/docker.sock"),
    words(b"/run/containerd/containerd.sock"),
    words(b"/var/run/containerd/containerd.sock"),
    words(b"/run/k3s/containerd/containerd.sock"),
    words(b"/run/crio/crio.sock"),
    words(b"/var/run/crio/crio.sock"),
    words(b"/run/podman/podman.sock"),
    words(b"/run/systemd/private"),
    words(b"/run/snapd.socket"),
    words(b"/run/libvirt/libvirt-sock"),
    words(b"/var/lib/lxd/unix.socket"),
    words(b"/var/snap/lxd/common/lxd/unix.socket"),
    words(b"/var/lib/incus/unix.socket"),
];

const fn words(name: &[u8]) -> [u64; WORDS] {
    assert!(name.len() < WORDS * 8);
    let mut words = [0; WORDS];
    let mut at = 0;
    while at < name.len() {
        words[at / 8] |= (name[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    words
}

/// An address as it is looked up: zeros behind its end.
type Name = [u64; UNIX_NAME_MAX / 8];

/// Puts the `len` bytes at `from`, of the kernel or of the caller, into `name`, and returns how many there are: a path ends at its NUL.
#[inline(always)]
unsafe fn take(name: *mut Name, from: u64, len: u64, user: bool) -> u32 {
    let len = bound::<{ UNIX_NAME_MAX as u32 - 1 }>(if len < PATH_MAX { len } else { PATH_MAX });
    // SAFETY: by the caller; `len` is below the size of the name.
    unsafe {
        zero(name);
        let copied = if user {
            bpf_probe_read_user(name.cast(), len as u32, from as *const _)
        } else {
            bpf_probe_read_kernel(name.cast(), len as u32, from as *const _)
        };
        if copied != 0 || name.cast::<u8>().read_volatile() == 0 {
            return len as u32;
        }
        zero(name);
        let copied = if user {
            bpf_probe_read_user_str(name.cast(), len as u32 + 1, from as *const _)
        } else {
            bpf_probe_read_kernel_str(name.cast(), len as u32 + 1, from as *const _)
        };
        if copied > 0 { copied as u32 - 1 } else { 0 }
    }
}

/// Whether it is one of [`ROOTS`].
///
/// `<VERIFIER>` Read word by word where they lie: as constants of the program they took the whole stack.
#[inline(never)]
unsafe fn is_root(name: *const Name) -> u32 {
    let mut found = 0;
    for root in 0..ROOTS.len() {
        let mut differs = 0;
        for index in 0..WORDS {
            // SAFETY: by the caller; both are longer.
            unsafe {
                let wanted = (&raw const ROOTS).cast::<u64>().add(root * WORDS + index).read_volatile();
                differs |= name.cast::<u64>().add(index).read_volatile() ^ wanted;
            }
        }
        if differs == 0 {
            found = 1;
        }
    }
    found
}

/// Word by word.
#[inline(always)]
unsafe fn copy_name(to: *mut Name, from: *const Name) {
    for index in 0..UNIX_NAME_MAX / 8 {
        // SAFETY: by the caller.
        unsafe { to.cast::<u64>().add(index).write_volatile(from.cast::<u64>().add(index).read_volatile()) };
    }
}

/// The pid namespace that `pid` (an address) is deepest in, as an address.
#[inline(always)]
fn namespace_of(pid: u64) -> u64 {
    let level: u32 = field!(pid, pid_level);
    read(pid + offset!(pid_numbers) + u64::from(level) * offset!(upid_size) + offset!(upid_ns))
}

/// How often this was done by now; 0 when this time is not told.
#[inline(always)]
fn times(key: &UnixTold) -> u64 {
    let Some(known) = UNIX_TOLD.get_ptr_mut(key) else {
        // Where there is no room it is told each time.
        let _ = UNIX_TOLD.insert(key, &1, 0);
        return 1;
    };
    // SAFETY: a map value is aligned and lives on; a lost step between two threads changes which times are told.
    let times = unsafe {
        let times = *known + 1;
        *known = times;
        times
    };
    if times & (times - 1) == 0 { times } else { 0 }
}

/// connect() on `sk` returned `result`; `address` and `len` are what it was given.
#[inline(always)]
fn returned(sk: u64, result: i64, address: u64, len: u64, user: bool) {
    if is_no_attempt(-result) || -result == EINVAL {
        return;
    }
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    // Before it is counted how often: what is left out is not the first of what is told.
    if emit::is_self(Kind::UnixConnect, tgid) || emit::is_ignored(Kind::UnixConnect, current) || emit::is_shed(Kind::UnixConnect) {
        return;
    }
    let error = errno(result);
    let Some(scratch) = UNIX_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the map has this entry.
    let (key, name) = unsafe { (&raw mut (*scratch).key, &raw mut (*scratch).name) };
    let (name_len, pid, cred) = if error == 0 {
        // The other end has the address of who listens.
        let peer: u64 = field!(sk, unix_peer);
        let bound_to: u64 = field!(peer, unix_addr);
        let len: u32 = field!(bound_to, unix_address_len);
        let at = bound_to + offset!(unix_address_name) + PATH_AT;
        // SAFETY: as above.
        let taken = unsafe { take(name, at, u64::from(len).saturating_sub(PATH_AT), false) };
        (taken, field!(sk, sock_peer_pid), field!(sk, sock_peer_cred))
    } else {
        // SAFETY: as above.
        (unsafe { take(name, address + PATH_AT, (len & 0xffff_ffff).saturating_sub(PATH_AT), user) }, 0_u64, 0_u64)
    };
    // <VERIFIER> An address, for `namespace_of`: nothing unknown can be added to a pointer of known type.
    let own: u64 = read(current.address() + offset!(task_thread_pid));
    let other_pid_ns = u32::from(pid != 0 && namespace_of(pid) != namespace_of(own));

    let refused = error == EACCES || error == EPERM;
    // SAFETY: as above.
    let root = unsafe { is_root(name) } != 0;
    // SAFETY: as above.
    let times = unsafe {
        zero(key);
        (*key).error = error;
        if other_pid_ns != 0 || refused || root {
            let leader: u64 = field!(current, task_group_leader);
            let exec_id: u64 = field!(current, task_self_exec_id);
            (*key).of = OF_IMAGE;
            (*key).who = field!(leader, task_start_boottime);
            (*key).which = u64::from(tgid) << 32 | (exec_id & 0xffff_ffff);
        } else {
            let mm: u64 = field!(current, task_mm);
            let exe: u64 = field!(mm, mm_exe_file);
            let inode: u64 = field!(exe, file_inode);
            let sb: u64 = field!(inode, inode_sb);
            let device: u32 = field!(sb, sb_dev);
            let cred = task::cred(current);
            let euid: u32 = field!(cred, cred_euid);
            (*key).of = OF_PROGRAM;
            (*key).who = field!(inode, inode_ino);
            (*key).which = u64::from(device) << 32 | u64::from(euid);
        }
        if error == 0 || refused || root {
            copy_name(&raw mut (*key).name, name);
        }
        times(&*key)
    };
    if times == 0 {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed_of_any(Kind::UnixConnect, Ring::Bulk, current, |record: *mut UnixConnect| {
            if user && error != 0 {
                (*record).header.flags |= FLAG_FROM_CALLER;
            }
            zero::<Target>(&raw mut (*record).target);
            (*record).inode = fd::socket_inode(sk);
            (*record).times = times;
            let socket_type: u16 = field!(sk, sock_type);
            (*record).socket_type = u32::from(socket_type);
            (*record).error = error;
            (*record).peer_pid = 0;
            (*record).peer_uid = 0;
            (*record).peer_gid = 0;
            if pid != 0 {
                (*record).peer_pid = read(pid + offset!(pid_numbers) + offset!(upid_nr));
                (*record).peer_uid = field!(cred, cred_euid);
                (*record).peer_gid = field!(cred, cred_egid);
                let listens = task::leader_of(pid);
                if listens != 0 {
                    task::target(&raw mut (*record).target, listens);
                }
            }
            (*record).other_pid_ns = other_pid_ns;
            (*record).name_len = name_len;
            (*record).pad = 0;
            copy_name((&raw mut (*record).name).cast(), name);
        });
    }
}

/// (struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags), then the result.
#[fexit]
fn fexit_unix_stream_connect(ctx: FExitContext) -> i32 {
    let socket = ctx.arg::<*const u8>(0) as u64;
    let (address, len) = (ctx.arg::<*const u8>(1) as u64, ctx.arg::<u32>(2));
    returned(field!(socket, socket_sk), i64::from(ctx.arg::<i32>(4)), address, u64::from(len), false);
    0
}

/// connect(2) on the UNIX socket `sk` returned.
#[inline(always)]
pub(super) fn at_exit(sk: u64, result: i64, address: u64, len: u64) {
    let socket_type: u16 = field!(sk, sock_type);
    if socket_type == SOCK_STREAM || socket_type == SOCK_SEQPACKET {
        returned(sk, result, address, len, true);
    }
}
