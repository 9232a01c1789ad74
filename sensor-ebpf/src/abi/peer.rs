//! Peers that are not of the internet: parts of the records about UNIX and VM sockets.

/// Bytes of a UNIX address that are kept: `sun_path` has 108, include/uapi/linux/un.h; the rest is zero.
pub const UNIX_NAME_MAX: usize = 128;
/// A context or port that is not known, or any: `VMADDR_CID_ANY`, `VMADDR_PORT_ANY`, include/uapi/linux/vm_sockets.h.
pub const VSOCK_ANY: u32 = u32::MAX;

/// A VM socket.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Vsock {
    /// Inode of its file; 0 where that is not known.
    pub inode: u64,
    /// Context and port of this side, [`VSOCK_ANY`] where they are not known.
    pub local_cid: u32,
    /// Likewise.
    pub local_port: u32,
    /// Those of the other side, likewise.
    pub peer_cid: u32,
    /// Likewise.
    pub peer_port: u32,
}
