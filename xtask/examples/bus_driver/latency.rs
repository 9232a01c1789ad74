//! Times of single messages.

use std::time::Duration;

/// Nanoseconds each.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    /// One more.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// All of another's.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Nanoseconds that `percent` of them do not exceed (nearest rank); `None` of none.
    pub(crate) fn percentiles<const N: usize>(mut self, percent: [f64; N]) -> Option<[u64; N]> {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1)?;
        let at = |percent: f64| (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        Some(percent.map(|percent| self.0[at(percent).saturating_sub(1).min(last)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|ns| latencies.push(Duration::from_nanos(ns)));
        latencies.append(Latencies::default());
        assert_eq!(latencies.percentiles([50.0, 99.0, 100.0]), Some([50, 99, 100]));
        assert_eq!(Latencies::default().percentiles([50.0]), None);
    }
}
