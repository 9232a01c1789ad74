//! A span of event time, as settings give it.

use std::fmt;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::Deserialize;

/// A span of event time, written with its unit: `"30s"`, `"10m"`, `"24h"`, `"7d"`. From 1 s to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Period {
    secs: u32,
}

/// Longest period: 30 days, which is as long as alerts are kept.
const MAX_SECS: u32 = 30 * 24 * 3600;

/// Text that is not a [`Period`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a period: write whole seconds, minutes, hours or days from 1s to 30d, such as \"30s\", \"10m\", \"24h\" or \"7d\"")]
pub struct PeriodError(String);

impl Period {
    /// That many seconds, at least 1 and at most 30 days.
    pub const fn secs(secs: u32) -> Self {
        match secs {
            0 => Self { secs: 1 },
            1..=MAX_SECS => Self { secs },
            _ => Self { secs: MAX_SECS },
        }
    }

    /// That many minutes.
    pub const fn minutes(minutes: u32) -> Self {
        Self::secs(minutes.saturating_mul(60))
    }

    /// That many hours.
    pub const fn hours(hours: u32) -> Self {
        Self::minutes(hours.saturating_mul(60))
    }

    /// In nanoseconds.
    pub const fn ns(self) -> u64 {
        self.secs as u64 * 1_000_000_000
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        let span = text.parse::<Span>().ok();
        let exact = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let whole = exact.filter(|exact| exact.subsec_nanos() == 0).and_then(|exact| u32::try_from(exact.as_secs()).ok());
        whole.filter(|secs| (1..=MAX_SECS).contains(secs)).map(Self::secs).ok_or(PeriodError(text))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_text(self.ns()))
    }
}

/// A stretch of time for people, cut to whole seconds: `37s`, `1h 12m 5s`.
pub(crate) fn duration_text(ns: u64) -> String {
    let secs = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    format!("{:#}", SignedDuration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Period, PeriodError> {
        Period::try_from(text.to_owned())
    }

    #[test]
    fn periods_that_people_write() {
        for (text, secs) in [("1s", 1), ("90s", 90), ("10m", 600), ("24h", 86_400), ("1d", 86_400), ("1h30m", 5_400), ("2w", 1_209_600)] {
            assert_eq!(read(text), Ok(Period::secs(secs)), "{text}");
        }
        assert_eq!((Period::hours(24).to_string(), Period::minutes(10).to_string()), ("24h".to_owned(), "10m".to_owned()));
    }

    #[test]
    fn periods_that_are_refused() {
        for text in ["", "5", "0s", "500ms", "1.5s", "31d", "1y", "-5m", "5 parsecs"] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains("such as"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_prints_as_itself_and_the_rest_is_refused(text in "[0-9a-zPT. -]{0,12}") {
            if let Ok(period) = read(&text) {
                prop_assert_eq!(read(&period.to_string()), Ok(period));
            }
        }
    }
}
