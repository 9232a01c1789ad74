//! How long events were on their way from the kernel to the bus: a histogram that costs a shift and an addition for each.

/// Buckets of each doubling: a bucket's limit is at most an eighth above what is in it.
const STEPS: u64 = 8;
/// Bits of [`STEPS`].
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Enough for every `u64` of microseconds.
const BUCKETS: usize = (STEPS * (64 - STEP_BITS as u64 + 1)) as usize;

/// Delays of many events.
#[derive(Debug, Clone)]
pub struct Delays {
    counts: [u64; BUCKETS],
    /// The longest, microseconds.
    longest: u64,
}

/// What they sum up to, microseconds. Percentiles are a bucket's upper limit: up to an eighth too long and never too short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// Half of the events took no longer.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// The longest.
    pub longest: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], longest: 0 }
    }
}

impl Delays {
    /// Counts one, nanoseconds.
    pub fn add(&mut self, nanoseconds: u64) {
        let took = nanoseconds / 1000;
        if let Some(count) = self.counts.get_mut(bucket(took)) {
            *count += 1;
        }
        self.longest = self.longest.max(took);
    }

    /// Sums up.
    pub fn summary(&self) -> Summary {
        let events: u64 = self.counts.iter().sum();
        let percentile = |percent: u64| {
            let rank = (events * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            found.map_or(0, |bucket| limit(bucket).min(self.longest))
        };
        Summary { events, p50: percentile(50), p99: percentile(99), longest: self.longest }
    }
}

/// Where a value belongs: itself while small, then its highest bits and how far they are shifted.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The greatest value of a bucket.
fn limit(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let high = bucket - shift * STEPS;
    (high << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_no_shorter_than_what_was_counted() {
        assert_eq!(Delays::default().summary(), Summary::default());
        let mut delays = Delays::default();
        (0..98).for_each(|_| delays.add(3_000));
        (0..2).for_each(|_| delays.add(2_000_000));
        assert_eq!(delays.summary(), Summary { events: 100, p50: 3, p99: 2000, longest: 2000 });
    }

    proptest! {
        #[test]
        fn a_value_is_within_an_eighth_of_its_buckets_limit(value in any::<u64>()) {
            for value in [value, value >> 20, value >> 40, value >> 55] {
                let bucket = bucket(value);
                prop_assert!(bucket < BUCKETS);
                let limit = limit(bucket);
                prop_assert!(limit >= value && limit - value <= value / STEPS, "{value} in {bucket} up to {limit}");
            }
        }

        #[test]
        fn greater_values_are_in_no_lower_bucket(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(bucket(a.min(b)) <= bucket(a.max(b)));
        }
    }
}
