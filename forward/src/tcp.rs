//! A TCP connection to a receiver that never answers: writing with deadlines, watching the read half, and asking the
//! kernel what was acknowledged.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep_until, timeout, timeout_at};

use crate::config::Address;
use crate::confirm::Confirm;
use crate::sink::SinkError;

/// An idle connection is probed after this, then every [`KEEPALIVE_INTERVAL_S`], and given up after [`KEEPALIVE_PROBES`].
const KEEPALIVE_IDLE_S: u32 = 30;
/// Seconds between probes.
const KEEPALIVE_INTERVAL_S: u32 = 10;
/// Probes without an answer.
const KEEPALIVE_PROBES: u32 = 3;

/// Deadlines of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Longest wait for name resolution, and for a connection to one address.
    pub connect_timeout: Duration,
    /// Longest time without an acknowledged byte while some wait. Also `TCP_USER_TIMEOUT`.
    pub write_timeout: Duration,
    /// How long the connection must stay healthy after the receiver's kernel acknowledged a frame before it is confirmed.
    pub confirm_after: Duration,
}

mod ioctl {
    // The request is called TIOCOUTQ for terminals and SIOCOUTQ for sockets (linux/sockios.h); the number is the same.
    nix::ioctl_read_bad!(siocoutq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

/// A connection and what is not confirmed on it.
#[derive(Debug)]
pub(crate) struct TcpLink {
    stream: TcpStream,
    peer: SocketAddr,
    confirm: Confirm,
    options: TcpOptions,
}

impl TcpLink {
    /// Connects to the first address of `address` that answers.
    pub(crate) async fn connect(address: &Address, options: TcpOptions) -> Result<Self, SinkError> {
        let limit = options.connect_timeout;
        let failed = |why: &dyn std::fmt::Display| SinkError::retry(format!("cannot connect to {address}: {why}"));
        let resolved = match timeout(limit, lookup_host((address.host(), address.port()))).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => return Err(failed(&format_args!("the name does not resolve: {error}"))),
            Err(_) => return Err(failed(&format_args!("no answer from the resolver in {limit:?}"))),
        };
        let mut last = failed(&"the name has no address");
        for peer in resolved {
            match timeout(limit, TcpStream::connect(peer)).await {
                Ok(Ok(stream)) => match Self::prepare(stream, peer, options) {
                    Ok(link) => return Ok(link),
                    Err(error) => last = failed(&format_args!("{peer}: {error}")),
                },
                Ok(Err(error)) => last = failed(&format_args!("{peer}: {error}")),
                Err(_) => last = failed(&format_args!("{peer}: no answer in {limit:?}")),
            }
        }
        Err(last)
    }

    fn prepare(stream: TcpStream, peer: SocketAddr, options: TcpOptions) -> io::Result<Self> {
        // While a receiver on this host is down and its port lies in the ephemeral range, the kernel may pick that very
        // port for our end and connect the socket to itself. It would acknowledge everything.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there (the socket met itself)"));
        }
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
        let user_timeout = u32::try_from(options.write_timeout.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&stream, sockopt::TcpUserTimeout, &user_timeout)?;
        let confirm = Confirm::new(options.confirm_after, options.write_timeout, Instant::now());
        Ok(Self { stream, peer, confirm, options })
    }

    fn lost(&self, why: &dyn std::fmt::Display) -> SinkError {
        SinkError::retry(format!("{} {why}; {} alerts were not confirmed and are sent again", self.peer, self.confirm.unconfirmed()))
    }

    /// Registers a frame that the next [`write`](Self::write) contains.
    pub(crate) fn queue(&mut self, seq: u64, bytes: usize) {
        self.confirm.queue(seq, bytes, Instant::now());
    }

    /// Gives `bytes` to the kernel, watching the read half meanwhile.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), SinkError> {
        let limit = self.options.write_timeout;
        let mut deadline = Instant::now() + limit;
        while !bytes.is_empty() {
            // A receiver that closed is found here and not by the write, which a half-closed connection still takes.
            self.look_at_read_half()?;
            match self.stream.try_write(bytes) {
                Ok(count) => {
                    self.confirm.wrote(count);
                    bytes = &bytes[count..];
                    deadline = Instant::now() + limit;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.lost(&format_args!("cannot be written to: {error}"))),
            }
            match timeout_at(deadline.into(), self.stream.ready(Interest::READABLE | Interest::WRITABLE)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.lost(&format_args!("failed: {error}"))),
                Err(_) => return Err(self.lost(&format_args!("took no byte in {limit:?}"))),
            }
        }
        Ok(())
    }

    /// Waits for the next confirmations. Ends with an error when the receiver closes, resets or stalls; on an idle
    /// connection waits for just that.
    pub(crate) async fn confirmed(&mut self) -> Result<Vec<u64>, SinkError> {
        loop {
            // The order matters: `now` and the count are older than the look at the read half, so a connection that ended
            // in the grace period confirms nothing.
            let now = Instant::now();
            let unacked = self.unacked()?;
            self.look_at_read_half()?;
            self.confirm.observe(unacked, now);
            let confirmed = self.confirm.take_confirmed(now);
            if !confirmed.is_empty() {
                return Ok(confirmed);
            }
            if self.confirm.stalled(now) {
                return Err(self.lost(&format_args!("acknowledged no byte in {:?}", self.options.write_timeout)));
            }
            let readable = match self.confirm.next_look(now) {
                Some(at) => tokio::select! {
                    ready = self.stream.readable() => ready,
                    () = sleep_until(at.into()) => Ok(()),
                },
                None => self.stream.readable().await,
            };
            if let Err(error) = readable {
                return Err(self.lost(&format_args!("failed: {error}")));
            }
        }
    }

    /// Bytes given to the kernel that the receiver's kernel has not acknowledged.
    fn unacked(&self) -> Result<u64, SinkError> {
        let mut count: nix::libc::c_int = 0;
        // SAFETY: the descriptor is an open socket that `self.stream` owns, and SIOCOUTQ writes one int to `count`.
        match unsafe { ioctl::siocoutq(self.stream.as_raw_fd(), &mut count) } {
            Ok(_) => Ok(u64::try_from(count).unwrap_or(0)),
            Err(errno) => Err(self.lost(&format_args!("cannot be asked for unacknowledged bytes: {errno}"))),
        }
    }

    /// Reads what is there. A syslog receiver sends nothing; what it sends all the same is discarded. End of file and
    /// errors are the only way to learn that the receiver went away.
    fn look_at_read_half(&self) -> Result<(), SinkError> {
        let mut discarded = [0; 512];
        loop {
            match self.stream.try_read(&mut discarded) {
                Ok(0) => return Err(self.lost(&"closed the connection")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.lost(&format_args!("broke the connection: {error}"))),
            }
        }
    }

    /// Says goodbye (FIN).
    pub(crate) async fn close(mut self) {
        // Nothing depends on it: what is unconfirmed is sent again by whoever comes next.
        let _best_effort = self.stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpSocket;

    const OPTIONS: TcpOptions = TcpOptions {
        connect_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(10),
        confirm_after: Duration::from_millis(50),
    };

    #[tokio::test]
    async fn a_socket_that_met_itself_is_refused() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        let error = TcpLink::prepare(stream, own, OPTIONS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn what_the_kernel_acknowledged_is_counted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::try_from(listener.local_addr().unwrap().to_string()).unwrap();
        let mut link = TcpLink::connect(&address, OPTIONS).await.unwrap();
        let (_peer, _) = listener.accept().await.unwrap();
        link.queue(5, 3);
        link.queue(6, 2);
        link.write(b"abcde").await.unwrap();
        let mut confirmed = Vec::new();
        while confirmed.len() < 2 {
            confirmed.extend(link.confirmed().await.unwrap());
        }
        assert_eq!(confirmed, [5, 6]);
    }

    #[tokio::test]
    async fn an_idle_connection_reports_its_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::try_from(listener.local_addr().unwrap().to_string()).unwrap();
        let mut link = TcpLink::connect(&address, OPTIONS).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"chatter is discarded").await.unwrap();
        drop(peer);
        let error = link.confirmed().await.unwrap_err();
        assert!(error.to_string().contains("clos") || error.to_string().contains("broke"), "{error}");
    }

    #[tokio::test]
    async fn errors_name_the_receiver() {
        // Bound and not listening: nobody else can take the port, and connecting to it is refused.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let text = socket.local_addr().unwrap().to_string();
        let error = TcpLink::connect(&Address::try_from(text.clone()).unwrap(), OPTIONS).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot connect to {text}: ")), "{error}");
        let error = TcpLink::connect(&Address::try_from("name.invalid:514".to_owned()).unwrap(), OPTIONS).await.unwrap_err().to_string();
        assert!(error.contains("name.invalid:514"), "{error}");
    }
}
