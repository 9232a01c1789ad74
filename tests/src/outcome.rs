//! A command run to its end.

use std::fmt;
use std::process::{Command, Output, Stdio};

/// How a command ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command, for messages.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "{command} ended with {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

impl Outcome {
    /// This outcome, which must be a success.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The one line of standard error that begins with `bartizan: `, of a run that failed. More lines of context may
    /// follow it, indented or framed as a picture of the configuration's line.
    ///
    /// # Panics
    /// The run succeeded, or there is none or more than one.
    #[track_caller]
    pub fn sentence(&self) -> &str {
        assert!(self.code.is_some_and(|code| code != 0), "this should have failed: {self}");
        let said: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("bartizan: ")).collect();
        assert_eq!(said.len(), 1, "exactly one line should begin with `bartizan: `: {self}");
        said[0]
    }

    /// Each line of standard output as JSON.
    ///
    /// # Panics
    /// One is none.
    #[track_caller]
    pub fn ndjson(&self) -> Vec<serde_json::Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is no JSON ({error}): {self}"));
        self.stdout.lines().map(read).collect()
    }
}

/// Runs `command` to its end, with nothing to read.
///
/// # Panics
/// It cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let text = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run {text}: {error}"));
    let Output { status, stdout, stderr } = output;
    let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { command: text, code: status.code(), stdout: text_of(stdout), stderr: text_of(stderr) }
}
