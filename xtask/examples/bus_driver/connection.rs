//! A blocking socket and what was read from it and not yet taken.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A server that says nothing for so long, while something is due, has lost it.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);
/// One read. More than a socket on loopback holds.
const READ: usize = 512 << 10;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("nobody listens on {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self { stream, buffer: vec![0; READ], start: 0, end: 0 })
    }

    /// Sends.
    ///
    /// # Errors
    /// The server closed, or takes nothing.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the server takes no more bytes")
    }

    /// What was read and not yet taken.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes these bytes away.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more, and waits for it.
    ///
    /// # Errors
    /// The server closed, or is silent.
    pub(crate) fn fill(&mut self) -> Result<usize> {
        match self.fill_or_give_up()? {
            Some(read) => Ok(read),
            None => bail!("the server sent nothing for {} s while something is due: it lost it", SILENCE.as_secs()),
        }
    }

    /// From now on [`Connection::fill_or_give_up`] waits no longer than this.
    ///
    /// # Errors
    /// The socket broke.
    pub(crate) fn wait_at_most(&mut self, time: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(time)).context("the connection broke")
    }

    /// Reads more; `None` when nothing came in time.
    ///
    /// # Errors
    /// The server closed.
    pub(crate) fn fill_or_give_up(&mut self) -> Result<Option<usize>> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => {
                    self.end += read;
                    return Ok(Some(read));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error).context("the connection broke"),
            }
        }
    }
}
