//! Connections over loopback, accepted or refused.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, bail};

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

/// A loopback port on which nobody listens. Another program could take it meanwhile; the storm then says so.
pub(super) fn closed_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no listener on 127.0.0.1")?;
    listener.local_addr().context("a listener has no address")
}

/// One connection that must be refused.
pub(super) fn refused(closed: SocketAddr) -> Result<()> {
    match TcpStream::connect(closed) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => bail!("{closed} answered with {error} in place of a refusal"),
        Ok(_) => bail!("somebody listens on {closed} now: try again"),
    }
}
