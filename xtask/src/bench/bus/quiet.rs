//! Waiting for the others: a measurement begins when the machine is idle, and one that was disturbed is made again.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::run::Run;

/// Processors that others may use: the kernel's own threads write to the disk for whoever asked.
pub(super) const BEARABLE: f64 = 0.3;
/// Tries in all.
const TRIES: usize = 3;
/// One look.
const WINDOW: Duration = Duration::from_millis(300);

/// Busy and all ticks of all processors since the machine started.
/// <https://man7.org/linux/man-pages/man5/proc_stat.5.html>
fn ticks(stat: &str) -> (u64, u64) {
    let ticks: Vec<u64> = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).take(8).collect();
    let all = ticks.iter().sum();
    (all - ticks.iter().skip(3).take(2).sum::<u64>(), all)
}

/// Processors in use during a window.
fn in_use() -> f64 {
    let look = || ticks(&fs::read_to_string("/proc/stat").unwrap_or_default());
    let (busy, all) = look();
    std::thread::sleep(WINDOW);
    let (busy, all) = (look().0.saturating_sub(busy), look().1.saturating_sub(all));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    busy as f64 / all.max(1) as f64 * processors as f64
}

/// Waits until the machine is idle, and no longer than `patience`.
pub(super) fn wait(patience: Duration) {
    let began = Instant::now();
    while in_use() > BEARABLE && began.elapsed() < patience {}
}

/// Measures while nobody disturbs, where that can be had: again when others used more than [`BEARABLE`], and the least disturbed of
/// these. The result has no say in the choice.
///
/// # Errors
/// Those of `measure`, at once.
pub(super) fn undisturbed(patience: Duration, mut measure: impl FnMut() -> Result<Run>) -> Result<Run> {
    let mut best: Option<Run> = None;
    for _ in 0..if patience.is_zero() { 1 } else { TRIES } {
        wait(patience);
        let run = measure()?;
        if best.as_ref().is_none_or(|best| run.others() < best.others()) {
            best = Some(run);
        }
        if best.as_ref().is_some_and(|best| best.others() <= BEARABLE) {
            break;
        }
    }
    best.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that others disturbed by so many processors.
    fn run(others: f64, messages: u64) -> Run {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Run { idle: 1.0 - others / processors, wall: Duration::from_secs(1), messages, ..Run::default() }
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        assert_eq!(ticks("cpu  10 20 30 400 500 6 7 8 9 10\ncpu0 1"), (81, 981));
        assert_eq!(ticks(""), (0, 0));
    }

    #[test]
    fn a_disturbed_one_is_made_again_and_the_least_disturbed_counts() -> Result<()> {
        let patience = Duration::from_nanos(1);
        let mut turns = [run(0.9, 1), run(0.1, 2)].into_iter();
        assert_eq!(undisturbed(patience, || Ok(turns.next().unwrap_or_default()))?.messages, 2);
        assert!(turns.next().is_none());
        let mut turns = [run(0.9, 1), run(0.5, 2), run(0.7, 3), run(0.0, 4)].into_iter();
        assert_eq!(undisturbed(patience, || Ok(turns.next().unwrap_or_default()))?.messages, 2);
        let mut turns = [run(0.9, 1), run(0.1, 2)].into_iter();
        assert_eq!(undisturbed(Duration::ZERO, || Ok(turns.next().unwrap_or_default()))?.messages, 1);
        Ok(())
    }
}
