//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Longer than anything here takes on a loaded machine: a test that comes to it hangs.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, for [`DEADLINE`] at most. `what` completes "… did not come about".
///
/// # Panics
/// It was not found in time.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_for_within(DEADLINE, what, look)
}

/// As [`wait_for`], with a deadline of one's own.
///
/// # Panics
/// It was not found in time.
#[track_caller]
pub fn wait_for_within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        // A last look after the end: this thread may not have run for long.
        let late = Instant::now() > end;
        if let Some(found) = look() {
            return found;
        }
        assert!(!late, "{what} did not come about within {} s", deadline.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// Waits until `holds`.
///
/// # Panics
/// It does not in time.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_returned_and_what_is_not_is_named() {
        let mut looks = 0;
        let found = wait_for("the third look", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
        let missed = std::panic::catch_unwind(|| wait_for_within(Duration::ZERO, "a miracle", || None::<()>));
        let said = missed.expect_err("never found").downcast::<String>().expect("a sentence");
        assert_eq!(*said, "a miracle did not come about within 0 s");
    }
}
