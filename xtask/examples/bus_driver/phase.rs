//! When a stretch of work ends.

use std::time::{Duration, Instant};

/// By the clock, by a count, or by whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    /// No new work from then on.
    until: Instant,
    /// No more than this.
    most: u64,
}

impl Phase {
    /// For so long from now on.
    pub(crate) fn lasting(time: Duration) -> Self {
        Self { until: Instant::now() + time, most: u64::MAX }
    }

    /// So many.
    pub(crate) fn counting(most: u64) -> Self {
        // A day: a server that is slower is a failure elsewhere.
        Self { until: Instant::now() + Duration::from_secs(86_400), most }
    }

    /// How many more may begin now that `begun` have.
    pub(crate) fn left(&self, begun: u64, now: Instant) -> u64 {
        if now >= self.until { 0 } else { self.most.saturating_sub(begun) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_clock_or_count() {
        let now = Instant::now();
        assert_eq!(Phase::counting(5).left(3, now), 2);
        assert_eq!(Phase::counting(5).left(7, now), 0);
        let phase = Phase::lasting(Duration::from_secs(1));
        assert_eq!(phase.left(3, now), u64::MAX - 3);
        assert_eq!(phase.left(3, now + Duration::from_secs(2)), 0);
    }
}
