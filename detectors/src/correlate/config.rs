//! Settings of correlation: the `[detectors.correlate]` table.

use serde::Deserialize;

use crate::config::ConfigError;
use crate::period::Period;

/// Settings of correlation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorrelateConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Longest time from the end of one step (its newest revision) to the beginning of the next.
    pub window: Period,
    /// Most alerts remembered for each step of each pattern.
    pub max_alerts: usize,
    /// Most logins remembered for which a pattern was told.
    pub max_matches: usize,
}

impl Default for CorrelateConfig {
    fn default() -> Self {
        Self { enabled: true, window: Period::hours(24), max_alerts: 1_024, max_matches: 4_096 }
    }
}

impl CorrelateConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { enabled: _, window: _, max_alerts, max_matches } = self;
        for (key, value) in [("correlate.max_alerts", *max_alerts), ("correlate.max_matches", *max_matches)] {
            if value < 16 {
                return Err(ConfigError::TooSmall { key, value: value as u64, least: 16 });
            }
        }
        Ok(())
    }
}
