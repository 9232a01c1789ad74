//! Exit codes and the one form of an error message.

use std::fmt;
use std::process::ExitCode;

/// What a verb's exit code says. `status` and `doctor` have meanings of their own for 1 and 2, so that no other failure may use 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; for `status`: working as well as this kernel allows; for `doctor`: all is well.
    Ok,
    /// Something failed, or could not be read; for `status`: degraded; for `doctor`: something can be better.
    Failed,
    /// `status`: nothing runs on this data folder; `doctor`: Bartizan cannot run here.
    NotRunning,
    /// `status` only: whether something runs could not be found out (no permission, no answer).
    Unknown,
    /// Wrong usage or wrong configuration (`EX_USAGE` of sysexits.h).
    Usage,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::NotRunning => 2,
            Self::Unknown => 3,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a verb could not do its work: a code and a sentence.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }
}

/// `bartizan: <sentence>` on standard error. Nothing can be done when that is closed.
pub(crate) fn complain(message: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "bartizan: {message}");
}

/// An error and the causes that its own words do not already contain, as one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("all of it: {0}")]
    struct Told(#[source] Inner);

    #[test]
    fn causes_are_said_once() {
        assert_eq!(chain(&Outer(Inner)), "outer: inner");
        assert_eq!(chain(&Told(Inner)), "all of it: inner");
    }
}
