//! Progress for a person: which step of how many, what it is for, what came of it and how long it took.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A numbered sequence of steps, told on stderr.
#[derive(Debug)]
pub(crate) struct Steps {
    total: usize,
    current: usize,
    began: Instant,
}

impl Steps {
    /// A sequence of `total` steps that begins now.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, current: 0, began: Instant::now() }
    }

    /// Runs one step. `work` returns its value and a phrase that says what came of it.
    ///
    /// # Errors
    /// Those of `work`, unchanged; the step is reported as failed.
    pub(crate) fn step<T, D: Display>(&mut self, title: &str, work: impl FnOnce() -> Result<(T, D)>) -> Result<T> {
        self.current += 1;
        let label = format!("[{}/{}]", self.current, self.total);
        eprintln!("{label} {title} ...");
        let began = Instant::now();
        match work() {
            Ok((value, outcome)) => {
                eprintln!("{:width$} ok: {outcome} ({})", "", seconds(began.elapsed()), width = label.len());
                Ok(value)
            }
            Err(error) => {
                eprintln!("{:width$} failed after {}", "", seconds(began.elapsed()), width = label.len());
                Err(error)
            }
        }
    }

    /// Time since the sequence began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A duration as a person reads it: `0.2 s`, `3 min 07 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    let whole = duration.as_secs();
    format!("{} min {:02} s", whole / 60, whole % 60)
}

/// A size in bytes as a person reads it.
pub(crate) fn bytes(size: u64) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{:.1} KiB", size as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", size as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", size as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        assert_eq!(seconds(Duration::from_millis(240)), "0.2 s");
        assert_eq!(seconds(Duration::from_secs(59)), "59.0 s");
        assert_eq!(seconds(Duration::from_secs(187)), "3 min 07 s");
    }

    #[test]
    fn sizes_read_like_speech() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(2048), "2.0 KiB");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(bytes(5 << 29), "2.5 GiB");
    }

    #[test]
    fn a_step_hands_back_value_and_error() {
        let mut steps = Steps::new(2);
        assert_eq!(steps.step("one", || Ok((7, "seven"))).ok(), Some(7));
        let failed = steps.step("two", || -> Result<((), &str)> { anyhow::bail!("no") });
        assert_eq!(failed.map_err(|e| e.to_string()), Err("no".to_owned()));
    }
}
