//! Pauses between attempts: doubling, capped, with jitter from a seed that is passed in.

use std::time::Duration;

/// Doubling pauses with jitter. Attempt n waits between half and all of `min * 2^n`, at most `max`, so that many hosts
/// that lost one receiver together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
    random: u64,
}

impl Backoff {
    /// Pauses from `min` to `max`; the same `seed` gives the same pauses.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        // xorshift has one fixed point, zero.
        Self { min, max: max.max(min), attempt: 0, random: if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed } }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.min.saturating_mul(1_u32.checked_shl(self.attempt.min(31)).unwrap_or(u32::MAX)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        // Marsaglia's xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let share = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
        full.mul_f64(0.5 + share / 2.0)
    }

    /// The receiver works: the next pause is a first one again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_within_half_and_all_of_the_doubling(seed: u64, attempts in 0_usize..80) {
            let (min, max) = (Duration::from_secs(1), Duration::from_secs(30));
            let mut backoff = Backoff::new(min, max, seed);
            let mut full = min;
            for _ in 0..attempts {
                let pause = backoff.next_pause();
                prop_assert!(pause >= full / 2 && pause <= full, "{pause:?} for {full:?}");
                full = (full * 2).min(max);
            }
            backoff.reset();
            prop_assert!(backoff.next_pause() <= min);
        }

        #[test]
        fn the_seed_decides(seed: u64) {
            let pauses = |seed| {
                let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), seed);
                (0..8).map(|_| backoff.next_pause()).collect::<Vec<_>>()
            };
            prop_assert_eq!(pauses(seed), pauses(seed));
        }
    }
}
