//! Medians, ranges and percentiles of a few measurements.

use std::time::Duration;

/// A summary of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    /// The middle one; the mean of the two middle ones of an even count.
    pub(super) median: f64,
    /// The least.
    pub(super) min: f64,
    /// The greatest.
    pub(super) max: f64,
}

/// Sums up; `None` of no numbers.
pub(super) fn summary(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
    let sorted = sorted(values);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let median = if sorted.len() % 2 == 1 { upper } else { (sorted.get(middle - 1)? + upper) / 2.0 };
    Some(Summary { median, min, max })
}

/// The value that `percent` of the numbers do not exceed (nearest rank); `None` of no numbers.
pub(super) fn percentile(values: impl IntoIterator<Item = f64>, percent: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied()
}

/// Nanoseconds as microseconds for one of `operations`.
pub(super) fn each(total: Duration, operations: u64) -> f64 {
    total.as_nanos() as f64 / 1000.0 / operations.max(1) as f64
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(summary([3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(summary([4.0, 1.0, 2.0, 3.0]).map(|summary| summary.median), Some(2.5));
        assert_eq!(summary([]), None);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred = || (1..=100).map(f64::from);
        assert_eq!(percentile(hundred(), 50.0), Some(50.0));
        assert_eq!(percentile(hundred(), 99.0), Some(99.0));
        assert_eq!(percentile([7.0], 99.0), Some(7.0));
        assert_eq!(percentile([], 50.0), None);
    }

    #[test]
    fn shares_are_in_microseconds() {
        assert!((each(Duration::from_millis(6), 3) - 2000.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn all_lie_within_the_range(values in proptest::collection::vec(-1e9_f64..1e9, 1..50), percent in 0.0_f64..100.0) {
            let Summary { median, min, max } = summary(values.iter().copied()).unwrap();
            let at = percentile(values.iter().copied(), percent).unwrap();
            prop_assert!(min <= median && median <= max && min <= at && at <= max);
        }
    }
}
