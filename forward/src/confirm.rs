//! When an alert counts as delivered over plain TCP: a state machine fed with byte counts and instants.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the kernel is asked for unacknowledged bytes while there are some. It has no event for it.
const POLL: Duration = Duration::from_millis(25);

/// Tracks which frames the receiver's kernel has acknowledged, and since when.
///
/// TCP has no acknowledgement by the application. A frame is confirmed when all its bytes were acknowledged by the
/// receiver's kernel and the connection then stayed healthy for `after`: a receiver that ends in that time, with bytes
/// unread, makes the caller's read fail, and nothing unconfirmed is confirmed any more.
#[derive(Debug)]
pub(crate) struct Confirm {
    after: Duration,
    stall: Duration,
    /// Bytes of all frames so far.
    queued: u64,
    /// Bytes given to the kernel so far.
    written: u64,
    /// Bytes the receiver's kernel had acknowledged when last asked.
    acked: u64,
    frames: VecDeque<Frame>,
    /// Last instant at which `acked` rose, or at which nothing was waiting.
    progress: Instant,
}

#[derive(Debug)]
struct Frame {
    seq: u64,
    /// Offset behind the frame's last byte.
    end: u64,
    acked_at: Option<Instant>,
}

impl Confirm {
    /// A new connection. `after`: see the type. `stall`: longest time without an acknowledged byte while some wait.
    pub(crate) fn new(after: Duration, stall: Duration, now: Instant) -> Self {
        Self { after, stall, queued: 0, written: 0, acked: 0, frames: VecDeque::new(), progress: now }
    }

    /// A frame of `bytes` bytes will be written next.
    pub(crate) fn queue(&mut self, seq: u64, bytes: usize, now: Instant) {
        if self.acked == self.queued {
            self.progress = now;
        }
        self.queued += bytes as u64;
        self.frames.push_back(Frame { seq, end: self.queued, acked_at: None });
    }

    /// The kernel took `bytes` bytes.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        debug_assert!(self.written <= self.queued);
    }

    /// The kernel says that `unacked` of the written bytes are not acknowledged yet.
    pub(crate) fn observe(&mut self, unacked: u64, now: Instant) {
        let acked = self.written.saturating_sub(unacked);
        if acked > self.acked || acked == self.queued {
            self.progress = now;
        }
        // Acknowledgements do not go back; a smaller number would be a socket that the kernel already took apart.
        self.acked = self.acked.max(acked);
        for frame in self.frames.iter_mut().filter(|frame| frame.acked_at.is_none()).take_while(|frame| frame.end <= self.acked) {
            frame.acked_at = Some(now);
        }
    }

    /// Takes the frames that are confirmed at `now`. `now` must not be later than the last look at the connection's health.
    pub(crate) fn take_confirmed(&mut self, now: Instant) -> Vec<u64> {
        let due = |frame: &Frame| frame.acked_at.is_some_and(|at| now.saturating_duration_since(at) >= self.after);
        let count = self.frames.iter().take_while(|frame| due(frame)).count();
        self.frames.drain(..count).map(|frame| frame.seq).collect()
    }

    /// Nothing was acknowledged for too long although something waits.
    pub(crate) fn stalled(&self, now: Instant) -> bool {
        self.acked < self.queued && now.saturating_duration_since(self.progress) >= self.stall
    }

    /// Frames that are not confirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.frames.len()
    }

    /// When to look again; `None` when nothing waits.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let front = self.frames.front()?;
        // Rounded up to a poll interval, so that many frames are confirmed by one look and one write of the cursor.
        Some(front.acked_at.filter(|_| self.acked == self.queued).map_or(now + POLL, |at| (at + self.after).max(now + POLL)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AFTER: Duration = Duration::from_secs(1);
    const STALL: Duration = Duration::from_secs(10);

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_frame_is_confirmed_a_grace_period_after_its_last_byte_was_acknowledged() {
        let start = Instant::now();
        let mut confirm = Confirm::new(AFTER, STALL, start);
        confirm.queue(1, 100, start);
        confirm.queue(2, 100, start);
        confirm.wrote(200);
        confirm.observe(1, ms(start, 10));
        confirm.observe(0, ms(start, 500));
        assert_eq!(confirm.take_confirmed(ms(start, 1009)), Vec::<u64>::new());
        assert_eq!(confirm.take_confirmed(ms(start, 1010)), vec![1]);
        assert_eq!(confirm.next_look(ms(start, 1010)), Some(ms(start, 1500)));
        assert_eq!(confirm.take_confirmed(ms(start, 1500)), vec![2]);
        assert_eq!(confirm.next_look(ms(start, 1500)), None);
    }

    #[test]
    fn bytes_that_were_never_written_are_not_acknowledged() {
        let start = Instant::now();
        let mut confirm = Confirm::new(AFTER, STALL, start);
        confirm.queue(1, 100, start);
        confirm.wrote(99);
        confirm.observe(0, start);
        assert_eq!(confirm.take_confirmed(ms(start, 60_000)), Vec::<u64>::new());
    }

    #[test]
    fn a_stall_counts_from_the_last_acknowledged_byte_and_not_over_idle_time() {
        let start = Instant::now();
        let mut confirm = Confirm::new(AFTER, STALL, start);
        assert!(!confirm.stalled(ms(start, 60_000)));
        confirm.queue(1, 100, ms(start, 60_000));
        assert!(!confirm.stalled(ms(start, 60_000)));
        confirm.wrote(100);
        confirm.observe(50, ms(start, 65_000));
        confirm.observe(50, ms(start, 74_999));
        assert!(!confirm.stalled(ms(start, 74_999)));
        confirm.observe(50, ms(start, 75_000));
        assert!(confirm.stalled(ms(start, 75_000)));
        confirm.observe(0, ms(start, 75_001));
        assert!(!confirm.stalled(ms(start, 200_000)));
    }

    proptest! {
        /// Whatever the kernel says: confirmations come in order, once each, and never before frame end and grace.
        #[test]
        fn confirmations_are_a_prefix_in_order(steps in prop::collection::vec((1_usize..500, 0_u64..600, 0_u64..700), 1..60)) {
            let start = Instant::now();
            let mut confirm = Confirm::new(AFTER, STALL, start);
            let mut now = start;
            let mut ends = Vec::new();
            let mut written = 0_u64;
            let mut acked_log: Vec<(Instant, u64)> = Vec::new();
            let mut next = 0;
            for (index, (bytes, unacked, wait)) in steps.into_iter().enumerate() {
                confirm.queue(index as u64, bytes, now);
                confirm.wrote(bytes);
                written += bytes as u64;
                ends.push(written);
                now += Duration::from_millis(wait);
                confirm.observe(unacked, now);
                acked_log.push((now, written.saturating_sub(unacked)));
                for seq in confirm.take_confirmed(now) {
                    prop_assert_eq!(seq, next);
                    let end = ends[seq as usize];
                    prop_assert!(acked_log.iter().any(|(at, acked)| *acked >= end && now.duration_since(*at) >= AFTER));
                    next += 1;
                }
            }
        }
    }
}
