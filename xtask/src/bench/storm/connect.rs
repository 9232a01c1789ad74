//! Connections over loopback, accepted or refused.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

/// Listeners of each thread. A closed connection keeps its pair of ports for a minute (TIME_WAIT), and one listener has some 28,000 of them:
/// with fewer listeners a storm would run out of ports.
const LISTENERS: u64 = 16;

/// Where the connections of a storm go to.
#[derive(Debug)]
pub(super) struct Listeners {
    /// For each thread its own, so that a thread accepts what it has connected.
    by_thread: Vec<Vec<(TcpListener, SocketAddr)>>,
}

impl Listeners {
    pub(super) fn new(threads: u64) -> Result<Self> {
        let listener = |_| -> Result<(TcpListener, SocketAddr)> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no listener on 127.0.0.1")?;
            let address = listener.local_addr().context("a listener has no address")?;
            Ok((listener, address))
        };
        let by_thread = (0..threads).map(|_| (0..LISTENERS).map(listener).collect()).collect::<Result<_>>()?;
        Ok(Self { by_thread })
    }

    /// One connection. Over loopback it stands before it is accepted, so that one thread does both and no scheduler is measured.
    pub(super) fn each(&self, thread: u64, index: u64) -> Result<()> {
        let listeners = self.by_thread.get(thread as usize).context("a thread without listeners")?;
        let (listener, address) = listeners.get((index % LISTENERS) as usize).context("a thread without listeners")?;
        let client = TcpStream::connect(address).with_context(|| format!("no connection to {address}"))?;
        let (server, _) = listener.accept().context("a connection was not accepted")?;
        drop(client);
        drop(server);
        Ok(())
    }
}

/// A loopback port on which nobody listens, nor can while this is kept: a socket that is bound and does not listen.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) address: SocketAddr,
    _bound: OwnedFd,
}

impl Closed {
    pub(super) fn new() -> Result<Self> {
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("no socket")?;
        bind(bound.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))).context("no port on 127.0.0.1")?;
        let address: SockaddrIn = getsockname(bound.as_raw_fd()).context("a socket has no address")?;
        Ok(Self { address: SocketAddrV4::from(address).into(), _bound: bound })
    }
}

/// One connection that must be refused.
pub(super) fn refused(closed: SocketAddr) -> Result<()> {
    match TcpStream::connect(closed) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => bail!("{closed} answered with {error} in place of a refusal"),
        Ok(_) => bail!("{closed} took a connection, though nobody listens there"),
    }
}
