//! The attacker: waits for a shell to call, and talks to it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;

use crate::session::Session;
use crate::wait::wait_for;

/// Where shells call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// 127.0.0.1.
    Tcp4,
    /// ::1.
    Tcp6,
    /// 127.0.0.1, in datagrams.
    Udp4,
    /// A UNIX socket: no network.
    Unix,
    /// Two FIFOs: no network.
    Fifos,
}

#[derive(Debug)]
enum Ear {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener),
    /// Reading end of `out`, writing end of `in`.
    Fifos(File, File),
}

/// Waits for one shell.
#[derive(Debug)]
pub struct Attacker {
    ear: Ear,
    path: PathBuf,
}

impl Attacker {
    /// Listens. UNIX sockets and FIFOs are made in `folder`, under `name`.
    ///
    /// # Panics
    /// It cannot listen.
    #[track_caller]
    pub fn listen(line: Line, folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        let ear = ear(line, &path).unwrap_or_else(|error| panic!("the attacker cannot listen on {line:?} {}: {error}", path.display()));
        Self { ear, path }
    }

    /// Its address; `None` where there is no network.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.ear {
            Ear::Tcp(listener) => listener.local_addr().ok(),
            Ear::Udp(socket) => socket.local_addr().ok(),
            Ear::Unix(_) | Ear::Fifos(..) => None,
        }
    }

    /// Puts this attacker's place into a command: `HOST`, `PORT`, `PATH` (the UNIX socket, or the folder with the FIFOs `in`
    /// and `out`), and `DIR` for a folder to work in.
    pub fn place(&self, command: &str, work: &Path) -> String {
        let (host, port) = self.address().map_or_else(Default::default, |at| (at.ip().to_string(), at.port().to_string()));
        let (path, work) = (self.path.to_string_lossy(), work.to_string_lossy());
        command.replace("HOST", &host).replace("PORT", &port).replace("PATH", &path).replace("DIR", &work)
    }

    /// Waits for the call and takes it.
    ///
    /// # Panics
    /// Nobody calls.
    #[track_caller]
    pub fn accept(self) -> Session {
        let (input, output) = wait_for("a call to the attacker", || match self.take() {
            Ok(ends) => Some(ends),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("the attacker cannot take a call: {error}"),
        });
        Session::new(input, output)
    }

    fn take(&self) -> io::Result<(Box<dyn Read + Send>, Box<dyn Write + Send>)> {
        match &self.ear {
            Ear::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Box::new(stream.try_clone()?), Box::new(stream)))
            }
            Ear::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Box::new(stream.try_clone()?), Box::new(stream)))
            }
            Ear::Udp(socket) => {
                let (_, from) = socket.peek_from(&mut [0; 1])?;
                socket.connect(from)?;
                socket.set_nonblocking(false)?;
                Ok((Box::new(Datagrams(socket.try_clone()?)), Box::new(Datagrams(socket.try_clone()?))))
            }
            Ear::Fifos(out, input) => Ok((Box::new(out.try_clone()?), Box::new(input.try_clone()?))),
        }
    }
}

fn ear(line: Line, path: &Path) -> io::Result<Ear> {
    match line {
        Line::Tcp4 | Line::Tcp6 => {
            let listener = TcpListener::bind(if line == Line::Tcp4 { "127.0.0.1:0" } else { "[::1]:0" })?;
            listener.set_nonblocking(true)?;
            Ok(Ear::Tcp(listener))
        }
        Line::Udp4 => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_nonblocking(true)?;
            Ok(Ear::Udp(socket))
        }
        Line::Unix => {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(Ear::Unix(listener))
        }
        Line::Fifos => {
            std::fs::create_dir(path)?;
            let fifo = |name: &str| {
                let path = path.join(name);
                nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600))?;
                // Both ways, so that neither open waits for the shell's.
                OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_CLOEXEC).open(path)
            };
            Ok(Ear::Fifos(fifo("out")?, fifo("in")?))
        }
    }
}

/// A connected UDP socket as a stream. A shell that reads byte by byte would lose the rest of a datagram, so each byte goes
/// in one of its own.
struct Datagrams(UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
}

impl Write for Datagrams {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.first().map_or(Ok(0), |byte| self.0.send(&[*byte]))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
