//! The control socket: how `bartizan status` asks a running Bartizan.
//!
//! Invariants worth naming:
//!
//! - **One line asks, one line answers**, both JSON: `{"request":"status"}` gives a [`StatusReport`], anything else gives
//!   `{"error":"…"}`. A connection may ask again.
//! - **Only the user that runs Bartizan may ask**: the socket's mode is 0600 from the moment it exists.
//! - **A client can cost little**: requests have a size, each step has a deadline, and so many clients are served at once.
//! - **The folder's lock is the truth about who runs.** Whoever binds holds it, so that a socket found here is a dead one.

mod client;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

pub use client::{ClientError, status};
pub use server::{BindError, Listener, Provider, bind, serve};

/// Name of the socket in the data folder.
pub const SOCKET_NAME: &str = "control.sock";

/// Longest request line, bytes.
const MAX_REQUEST: u64 = 4096;

/// Longest answer that the client reads, bytes: far above any report, so that a stranger on the socket cannot fill memory.
const MAX_REPLY: u64 = 16 << 20;

/// A path to the socket that fits the 108 bytes of `sun_path` however long the data folder's own path is. The folder must
/// stay open while the path is in use.
struct ShortPath {
    _folder: File,
    path: PathBuf,
}

impl ShortPath {
    fn new(data_dir: &Path, name: &str) -> io::Result<Self> {
        let folder = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { _folder: folder, path })
    }
}
