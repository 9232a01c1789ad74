//! Families of sockets (include/linux/socket.h) and protocols of the INET ones (include/uapi/linux/in.h).

pub(crate) const AF_UNSPEC: u16 = 0;
pub(crate) const AF_UNIX: u16 = 1;
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const AF_VSOCK: u16 = 40;

pub(crate) const IPPROTO_TCP: u16 = 6;
pub(crate) const IPPROTO_UDP: u16 = 17;
pub(crate) const IPPROTO_UDPLITE: u16 = 136;

/// Whether a socket of this family is an INET one.
#[inline(always)]
pub(crate) fn is_inet(family: u16) -> bool {
    family == AF_INET || family == AF_INET6
}
