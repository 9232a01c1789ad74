//! The CPU ceiling: when Bartizan's own threads use more than they may, bulk kinds are left out in the kernel until the average is
//! below the ceiling again.
//!
//! A token bucket: credit grows with time at the rate of the limit, up to what a burst may take, and processor time is paid from it.
//! While the credit is gone, bulk kinds (connections, failed execs, writes of files) are left out, and counted as `shed`. What must not be lost never is.
//! The time that the kernel programs take is that of the workload's own threads and is not in this account.

use std::time::Duration;

/// How long a burst may use one whole limit beyond the limit: a storm of some seconds is taken in full.
const BURST: Duration = Duration::from_secs(10);

/// The account. Times are nanoseconds.
#[derive(Debug, Clone)]
pub struct Governor {
    /// Percent of one processor; `None` sets no ceiling.
    limit: Option<u32>,
    credit: i64,
    last: Option<(u64, u64)>,
    shedding: bool,
    /// Percent of one processor in the last step.
    used: u32,
}

/// What the status says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GovernorReport {
    /// The ceiling, percent of one processor; 0 is none.
    pub limit: u32,
    /// Use in the last second, likewise.
    pub used: u32,
    /// Bulk kinds are left out now.
    pub shedding: bool,
}

impl Governor {
    /// With a full account. `limit` is percent of one processor, 0 for none.
    pub fn new(limit: usize) -> Self {
        let limit = u32::try_from(limit).ok().filter(|limit| *limit > 0);
        Self { limit, credit: limit.map_or(0, Self::full), last: None, shedding: false, used: 0 }
    }

    fn full(limit: u32) -> i64 {
        share(BURST.as_nanos() as u64, limit)
    }

    /// Takes the time and the processor time used so far. Returns whether bulk kinds are to be left out from now on, when that changed.
    pub fn step(&mut self, now: u64, cpu: u64) -> Option<bool> {
        let (then, before) = self.last.replace((now, cpu))?;
        let (passed, spent) = (now.saturating_sub(then), cpu.saturating_sub(before));
        if passed == 0 {
            return None;
        }
        self.used = u32::try_from(u128::from(spent) * 100 / u128::from(passed)).unwrap_or(u32::MAX);
        let limit = self.limit?;
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(share(passed, limit)).saturating_sub(spent).clamp(-Self::full(limit), Self::full(limit));
        let shed = self.credit < 0;
        (std::mem::replace(&mut self.shedding, shed) != shed).then_some(shed)
    }

    /// What the status says.
    pub fn report(&self) -> GovernorReport {
        GovernorReport { limit: self.limit.unwrap_or(0), used: self.used, shedding: self.shedding }
    }
}

/// `percent` of `time`.
fn share(time: u64, percent: u32) -> i64 {
    i64::try_from(u128::from(time) * u128::from(percent) / 100).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_burst_is_taken_and_a_flood_is_shed_until_the_average_is_right() {
        let mut governor = Governor::new(50);
        let (mut now, mut cpu) = (0, 0);
        governor.step(now, cpu);
        let mut step = |ms: u64, used: u64| {
            now += ms * MS;
            cpu += used * MS;
            governor.step(now, cpu)
        };
        assert_eq!(step(5_000, 5_000), None, "five seconds of a whole processor fit into the burst");
        assert_eq!(step(6_000, 6_000), Some(true));
        assert_eq!(step(1_000, 100), None, "not yet paid back");
        assert_eq!(step(1_000, 100), Some(false));
        assert_eq!(governor.report(), GovernorReport { limit: 50, used: 10, shedding: false });
    }

    #[test]
    fn without_a_limit_nothing_is_shed() {
        let mut governor = Governor::new(0);
        assert_eq!((1..100).find_map(|second| governor.step(second * 1000 * MS, second * 8000 * MS)), None);
        assert_eq!(governor.report().used, 800);
    }

    proptest! {
        #[test]
        fn any_clock_is_survived(limit in 0_usize..10_000, steps in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..50)) {
            let mut governor = Governor::new(limit);
            for (now, cpu) in steps {
                let _ = governor.step(now, cpu);
            }
        }
    }
}
