//! Subject patterns: NATS wildcards over dot-separated tokens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::subject::is_subject;

/// A subject in which a token `*` stands for one token and a last token `>` for one or more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    text: Arc<str>,
    literal: bool,
}

/// Text that is not a subject pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a subject pattern: tokens must be non-empty, separated by dots and without white space, and `>` may only be the last"
)]
pub struct PatternError(String);

impl Pattern {
    /// Everything.
    pub fn all() -> Self {
        Self { text: ">".into(), literal: false }
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no wildcard.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// Whether it is `>`.
    pub fn is_all(&self) -> bool {
        &*self.text == ">"
    }

    /// Whether a concrete subject matches.
    pub fn matches(&self, subject: &str) -> bool {
        if self.literal { &*self.text == subject } else { wildcard_matches(&self.text, subject) }
    }

    /// Whether some concrete subject matches both.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let (mut a, mut b) = (self.text.split('.'), other.text.split('.'));
        loop {
            match (a.next(), b.next()) {
                (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
                (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
                (Some(x), Some(y)) if x == y => {}
                _ => return false,
            }
        }
    }

    /// Whether every concrete subject that matches `other` matches this one too.
    pub fn covers(&self, other: &Pattern) -> bool {
        let (mut a, mut b) = (self.text.split('.'), other.text.split('.'));
        loop {
            match (a.next(), b.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (_, Some(">")) => return false,
                (Some("*"), Some(_)) => {}
                (Some(x), Some(y)) if x == y => {}
                _ => return false,
            }
        }
    }
}

fn wildcard_matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(x), Some(y)) if x == y => {}
            _ => return false,
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut literal = true;
        let mut ended = false;
        if !is_subject(text) {
            return Err(PatternError(text.to_owned()));
        }
        for token in text.split('.') {
            if ended {
                return Err(PatternError(text.to_owned()));
            }
            ended = token == ">";
            literal &= token != "*" && token != ">";
        }
        Ok(Self { text: text.into(), literal })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which subjects are meant: all, or those that match any of some patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<Pattern>);

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self(Vec::new())
    }

    /// What matches any of these; everything when there are none.
    pub fn any_of(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let patterns: Vec<Pattern> = patterns.into_iter().collect();
        if patterns.iter().any(Pattern::is_all) { Self::all() } else { Self(patterns) }
    }

    /// Whether it lets everything through.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns; none means everything.
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }

    /// Whether a concrete subject passes.
    pub fn matches(&self, subject: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(subject))
    }
}

impl From<Pattern> for Filter {
    fn from(pattern: Pattern) -> Self {
        Self::any_of([pattern])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn wildcards_stand_for_tokens() {
        for (pattern, yes, no) in [
            ("a.b", &["a.b"][..], &["a", "a.b.c", "a.c"][..]),
            ("a.*", &["a.b", "a.*"], &["a", "a.b.c", "b.a"]),
            ("a.>", &["a.b", "a.b.c"], &["a", "b.a"]),
            ("*.b.>", &["a.b.c", "x.b.c.d"], &["a.b", "a.c.d"]),
            (">", &["a", "a.b"], &[]),
            ("a.b*r", &["a.b*r"], &["a.bar"]),
        ] {
            assert!(yes.iter().all(|subject| p(pattern).matches(subject)), "{pattern}");
            assert!(!no.iter().any(|subject| p(pattern).matches(subject)), "{pattern}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>.b", "a b", "a\tb", "a\r\n"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn overlap_is_mutual_and_covering_is_not() {
        for (a, b, overlaps, covers) in [
            ("a.>", "a.b", true, true),
            ("a.*", "a.>", true, false),
            ("a.*", "*.b", true, false),
            ("a", "a.>", false, false),
            ("a.*.c", "a.b", false, false),
            (">", "*", true, true),
            ("*.*", "a.b", true, true),
        ] {
            assert_eq!((p(a).overlaps(&p(b)), p(b).overlaps(&p(a))), (overlaps, overlaps), "{a} {b}");
            assert_eq!(p(a).covers(&p(b)), covers, "{a} {b}");
        }
    }
}
