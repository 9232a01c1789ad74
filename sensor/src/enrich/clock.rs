//! The two clocks of an event.

use std::fs;

use bartizan_bus::event::{BootId, EventTime};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_BOOTTIME`, the clock of kernel records.
pub fn boot_now() -> u64 {
    nanoseconds(ClockId::CLOCK_BOOTTIME) as u64
}

/// Processor time that this process has used, all threads, nanoseconds.
pub fn own_cpu() -> u64 {
    nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID) as u64
}

/// What has to be added to the boot clock to get Unix time, in nanoseconds. Changes when the wall clock steps.
pub fn wall_offset() -> i64 {
    // The boot clock is read on both sides, so that a pause between the readings halves its error.
    let before = nanoseconds(ClockId::CLOCK_BOOTTIME);
    let wall = nanoseconds(ClockId::CLOCK_REALTIME);
    let after = nanoseconds(ClockId::CLOCK_BOOTTIME);
    wall - (before + (after - before) / 2)
}

fn nanoseconds(clock: ClockId) -> i64 {
    // These clocks exist on every Linux; the call has no other error.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// A time of the boot clock on both clocks.
pub fn event_time(boot_ns: u64, wall_offset: i64) -> EventTime {
    EventTime { boot_ns, wall_ns: (boot_ns as i64).saturating_add(wall_offset) }
}

/// The kernel's boot id.
///
/// # Errors
/// A sentence when it cannot be read or is no UUID.
pub fn boot_id() -> Result<BootId, String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).map_err(|error| format!("cannot read {PATH}: {error}; is /proc mounted?"))?;
    text.parse().map_err(|error| format!("{PATH}: {error}"))
}
