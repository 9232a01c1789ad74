//! Processes of the tests: attackers' tools, victims, servers.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// `PATH` of everything that the tests start: the distribution's programs, not a developer's shims.
pub const VICTIM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with an environment of its own, that reads nothing and writes to `log`.
///
/// # Panics
/// `log` cannot be opened.
#[track_caller]
pub fn victim(program: impl AsRef<std::ffi::OsStr>, log: &Path) -> Command {
    let open = || {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(log);
        opened.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()))
    };
    let mut command = Command::new(program);
    command.env_clear().env("PATH", VICTIM_PATH).env("HOME", "/").env("LC_ALL", "C.UTF-8").env("TERM", "dumb");
    command.stdin(Stdio::null()).stdout(open()).stderr(open());
    command
}

/// A process with its children in a process group of its own, killed when the owner goes.
#[derive(Debug)]
pub struct Group {
    child: Child,
    what: String,
}

impl Group {
    /// Starts `command` in a new process group.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Self { child, what }
    }

    /// Pid of its first process, which is the group's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first process; its pipes can be taken.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the end of the first process.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let Self { child, what } = self;
        let look = || child.try_wait().unwrap_or_else(|error| panic!("cannot wait for {what}: {error}"));
        wait_for(&format!("the end of {what}"), look)
    }

    /// Whether the first process has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends `signal` to the whole group. That it has ended already is no error.
    ///
    /// # Panics
    /// It may not be signalled.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        match killpg(Pid::from_raw(self.pid().cast_signed()), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("cannot send {signal} to {}: {error}", self.what),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group id cannot have been given to others while its first process is not waited for, or a member lives.
        // After a wait with no member left it can; pids go around only after tens of thousands of forks.
        let _ = killpg(Pid::from_raw(self.pid().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
