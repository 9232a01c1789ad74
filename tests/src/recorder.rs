//! A running `bartizan record`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary::bartizan;
use crate::need::need_root;
use crate::wait::{wait_for, wait_for_within};

/// On standard error when everything that happens is recorded.
const READY: &str = "bartizan records into";
/// Longest time to that line: the kernel verifies every program first.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A `bartizan record FILE`. It is killed when the owner goes.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Recorder {
    /// Starts it and waits until it records. What it says goes into files beside `file`.
    ///
    /// # Panics
    /// It does not come so far; its log is shown.
    #[track_caller]
    pub fn start(file: &Path, args: &[&str]) -> Self {
        need_root();
        let (out, log) = (file.with_extension("out"), file.with_extension("log"));
        let open = |path: &Path| fs::File::create(path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        // Killed by the kernel with the thread that started it, so that not even a killed test leaves a recorder behind.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(bartizan()).arg("record").arg(file).args(args);
        command.stdin(Stdio::null()).stdout(open(&out)).stderr(open(&log));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?} (apt-get install util-linux): {error}"));
        let mut recorder = Self { child, out, log };
        wait_for_within(READY_DEADLINE, "a recorder that is ready", || {
            let ended = recorder.child.try_wait().unwrap_or_else(|error| panic!("cannot wait for the recorder: {error}"));
            if recorder.log().contains(READY) {
                return Some(());
            }
            assert!(ended.is_none(), "the recorder ended ({ended:?}) before it was ready:\n{}", recorder.log());
            None
        });
        recorder
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as Ctrl-C does, and gives what it says of the recording: it must end with 0.
    ///
    /// # Panics
    /// It hangs, or ends with another code; its log is shown.
    #[track_caller]
    pub fn finish(mut self) -> String {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGINT).unwrap_or_else(|error| panic!("cannot send SIGINT to the recorder (pid {pid}): {error}"));
        let child = &mut self.child;
        let status = wait_for("the end of the recorder", || {
            child.try_wait().unwrap_or_else(|error| panic!("cannot wait for the recorder: {error}"))
        });
        assert!(status.success(), "after SIGINT the recorder ended with {status}:\n{}", self.log());
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Ends it as a crash would: SIGKILL.
    pub fn kill9(self) {
        // `Drop` does it.
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
