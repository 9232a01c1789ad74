//! The thread that reads executables: slowly, and not at all while Bartizan is at its CPU ceiling.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, WAITING, Wanted, file};

/// Between two looks whether the ceiling is left.
const PAUSE: Duration = Duration::from_millis(100);

/// The thread, as the capture thread sees it.
#[derive(Debug)]
pub struct Worker {
    requests: SyncSender<Wanted>,
    answers: Receiver<Answer>,
    paused: Arc<AtomicBool>,
}

impl Worker {
    /// Starts it. Files of more than `max` bytes are not read; `rate` is bytes a second. It ends after the file that it reads when this is
    /// dropped; nobody waits for it, since a disk may keep it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(max: u64, rate: u64) -> io::Result<Self> {
        // As many as can wait in `Hashes`: neither side ever waits for the other.
        let (requests, asked) = sync_channel::<Wanted>(WAITING);
        let (tell, answers) = sync_channel(WAITING);
        let paused = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&paused);
        thread::Builder::new().name("hash".to_owned()).spawn(move || {
            for wanted in asked {
                let (start, mut bytes) = (Instant::now(), 0);
                let result = file::hash(&wanted, max, |block| {
                    bytes += block as u64;
                    thread::sleep(due(bytes, rate).saturating_sub(start.elapsed()));
                    while held.load(Ordering::Relaxed) {
                        thread::sleep(PAUSE);
                    }
                });
                if tell.send(Answer { file: wanted.file, result }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, answers, paused })
    }

    /// Asks for a file. False when the thread is gone or its queue full.
    pub fn ask(&self, wanted: Wanted) -> bool {
        self.requests.try_send(wanted).is_ok()
    }

    /// What came since the last call.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.try_iter().collect()
    }

    /// Holds it, or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }
}

/// When so many bytes may have been read at `rate` bytes a second.
fn due(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        assert_eq!(due(32 << 20, 32 << 20), Duration::from_secs(1));
        assert_eq!(due(1, 1000), Duration::from_millis(1));
        assert_eq!(due(0, 0), Duration::ZERO);
    }
}
