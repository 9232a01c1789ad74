//! Peers that are not of the internet: the bodies of `network.unix_connect`, `network.vsock_connect` and `network.vsock_accept`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// Body of `network.unix_connect`: a process connected a UNIX stream or sequenced-packet socket to one that listens, or tried to. The target is who
/// listens, as the kernel noted it when it began to: of a socket that another process was given, as systemd gives them, it is who made it.
///
/// Most such connections are counted and not told. Told once for each process image, address and outcome: a listener in another pid namespace,
/// the sockets of container engines and of other daemons that do what root may do, and refusals (`EACCES`, `EPERM`). Told once for each program,
/// user, address and outcome: all others that succeed. Told once for each program, user and errno: all others that fail. Each of these is told
/// again at the second, fourth, eighth ... time, with its number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct UnixConnect {
    /// Path that the listener is bound to, as it said it: one that is relative stays so. On failure, what was asked for.
    #[n(0)]
    pub path: Option<String>,
    /// Name of an address without a file, without the NUL in front.
    #[n(1)]
    pub abstract_name: Option<String>,
    /// `SOCK_STREAM` or `SOCK_SEQPACKET`.
    #[n(2)]
    pub socket_type: String,
    /// Why it failed; `None` on success.
    #[n(3)]
    pub error: Option<Errno>,
    /// The address was read from the caller's memory after the call and could have been changed by another thread.
    #[n(4)]
    pub address_from_caller: bool,
    /// Process id of who listens; also where it has ended since. `None` on failure.
    #[n(5)]
    pub peer_pid: Option<u32>,
    /// Its effective user id when it began to listen.
    #[n(6)]
    pub peer_uid: Option<u32>,
    /// Its effective group id then.
    #[n(7)]
    pub peer_gid: Option<u32>,
    /// It is another user than the one that connects (its effective user id).
    #[n(8)]
    pub other_user: bool,
    /// It is in another pid namespace: another container, or one side is in none.
    #[n(9)]
    pub other_pid_namespace: bool,
    /// How often by now, this time included: of the image or of the program, as above.
    #[n(10)]
    pub times: u64,
    /// Inode of the socket that was connected, as in `/proc/<pid>/fd`.
    #[n(11)]
    pub inode: Option<u64>,
}

/// A VM socket. Contexts: 0 is the hypervisor, 1 this machine itself, 2 the host, others are virtual machines (include/uapi/linux/vm_sockets.h). Where
/// the kernel has VM sockets as a module, only the peer of `network.vsock_connect` is known.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct VsockSocket {
    /// Context id of this side.
    #[n(0)]
    pub local_cid: Option<u32>,
    /// Port of this side.
    #[n(1)]
    pub local_port: Option<u32>,
    /// Context id of the other side.
    #[n(2)]
    pub peer_cid: Option<u32>,
    /// Port of the other side.
    #[n(3)]
    pub peer_port: Option<u32>,
    /// `SOCK_STREAM` or `SOCK_SEQPACKET`.
    #[n(4)]
    pub socket_type: String,
    /// Inode of the socket, as in `/proc/<pid>/fd`.
    #[n(5)]
    pub inode: Option<u64>,
}

/// Body of `network.vsock_connect`: a process connected a VM socket, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct VsockConnect {
    /// The socket.
    #[n(0)]
    pub socket: VsockSocket,
    /// Why it failed; `None` on success. `EINPROGRESS`: what came of it is not told.
    #[n(1)]
    pub error: Option<Errno>,
    /// The peer was read from the caller's memory after the call and could have been changed by another thread.
    #[n(2)]
    pub peer_from_caller: bool,
}

/// Body of `network.vsock_accept`: a process took a connection to a VM socket.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct VsockAccept {
    /// The new socket.
    #[n(0)]
    pub socket: VsockSocket,
}
