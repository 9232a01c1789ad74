//! Standard output of the verbs that print many lines, and their wait for more.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::exit::{Exit, Failure};

/// Between two looks at the log while following, milliseconds: where the system does not tell that it grew.
const LOOK_MS: u16 = 100;

/// Why no more can be printed.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The reader has gone (`| head`): that is its right, and no error.
    ReaderGone,
    /// Something failed.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(Failure::new(Exit::Failed, format_args!("cannot write to standard output: {error}"))),
        }
    }
}

/// Standard output, buffered.
pub(crate) struct Out {
    inner: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(crate) fn stdout() -> Self {
        Self { inner: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// Writes `text` and a line feed.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Stop> {
        self.inner.write_all(text.as_bytes())?;
        Ok(self.inner.write_all(b"\n")?)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        Ok(self.inner.flush()?)
    }

    /// Waits until `grew` can be read, or a moment. Ends early, with [`Stop::ReaderGone`], when nobody reads standard output any more: on a
    /// quiet host the next write, which would tell, can be far off.
    pub(crate) fn wait(&self, grew: Option<BorrowedFd<'_>>) -> Result<(), Stop> {
        let stdout = self.inner.get_ref();
        // No events are asked for: POLLERR and POLLHUP are always told.
        let mut watched = vec![PollFd::new(stdout.as_fd(), PollFlags::empty())];
        watched.extend(grew.map(|grew| PollFd::new(grew, PollFlags::POLLIN)));
        match nix::poll::poll(&mut watched, PollTimeout::from(LOOK_MS)) {
            Err(nix::errno::Errno::EINTR) => Ok(()),
            Ok(_) if watched.first().and_then(PollFd::any) == Some(true) => Err(Stop::ReaderGone),
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}
