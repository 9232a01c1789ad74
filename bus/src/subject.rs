//! Bus subjects: validated NATS subjects, with constructors for Bartizan's own name space.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use crate::event::{Body, Severity};

/// A concrete NATS subject (no wildcards): dot-separated, non-empty tokens of printable characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

/// Text that is not a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subject: tokens must be non-empty, separated by dots, without spaces, `*` or `>`")]
pub struct SubjectError(String);

impl Subject {
    /// `sec.events.<category>.<action>` of a kind such as `process.exec`.
    pub(crate) fn event(kind: &str) -> Self {
        /// Every event has one of these.
        static KNOWN: LazyLock<HashMap<&str, Subject>> =
            LazyLock::new(|| Body::KINDS.iter().map(|kind| (*kind, Subject::of_kind(kind))).collect());
        KNOWN.get(kind).map_or_else(|| Self::of_kind(kind), Self::clone)
    }

    fn of_kind(kind: &str) -> Self {
        Self(format!("sec.events.{kind}").into())
    }

    /// `sec.alerts.<severity>.<detector>`.
    pub(crate) fn alert(severity: Severity, detector: &str) -> Self {
        Self(format!("sec.alerts.{}.{detector}", severity.as_str()).into())
    }

    /// `sec.matches.<pattern>` of a pattern such as `correlate.brute_force_to_shell`.
    pub(crate) fn pattern_match(pattern: &str) -> Self {
        Self(format!("sec.matches.{pattern}").into())
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let token_ok =
            |token: &str| !token.is_empty() && token != "*" && token != ">" && !token.chars().any(|c| c.is_whitespace() || c.is_control());
        if text.split('.').all(token_ok) { Ok(Self(text.into())) } else { Err(SubjectError(text.to_owned())) }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// NATS's rule for subjects, wildcards included: dot-separated non-empty tokens without white space.
pub(crate) fn is_subject(text: &str) -> bool {
    let (mut token, mut ok) = (false, true);
    for byte in text.bytes() {
        match byte {
            b'.' => {
                ok &= token;
                token = false;
            }
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c => ok = false,
            _ => token = true,
        }
    }
    ok && token
}
