//! Times as the operator gives and reads them. The present is passed in; only [`now_ns`] and [`boot_ns`] read clocks.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::units::parse_duration;

/// `--since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// That long ago.
    Ago(Duration),
    /// At this Unix time in nanoseconds.
    At(i64),
    /// When this machine came up.
    Boot,
}

impl Since {
    /// Unix time in nanoseconds. `boot` is when the machine came up.
    pub(crate) fn resolve(self, now: i64, boot: i64) -> i64 {
        match self {
            Self::Ago(duration) => now.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
            Self::At(time) => time,
            Self::Boot => boot,
        }
    }

    /// The same, with the clocks of this moment.
    pub(crate) fn resolve_now(self) -> i64 {
        self.resolve(now_ns(), boot_ns())
    }
}

/// Reads `5m`, `2h`, `7d`, an RFC 3339 time, or `boot`.
pub(crate) fn parse_since(text: &str) -> Result<Since, String> {
    if text == "boot" {
        return Ok(Since::Boot);
    }
    if let Ok(duration) = parse_duration(text) {
        return Ok(Since::Ago(duration));
    }
    let out_of_range = || "this time does not fit in 64 bits of nanoseconds: use one between the years 1678 and 2262".to_owned();
    match text.parse::<Timestamp>() {
        Ok(time) => i64::try_from(time.as_nanosecond()).map(Since::At).map_err(|_| out_of_range()),
        Err(_) => Err("use a duration such as 5m, 2h or 7d, an RFC 3339 time such as 2026-01-31T08:00:00Z, or `boot`".to_owned()),
    }
}

/// Unix time in nanoseconds.
pub(crate) fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Unix time in nanoseconds at which this machine came up (time asleep counts).
fn boot_ns() -> i64 {
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(0, |up| up.tv_sec() * 1_000_000_000 + up.tv_nsec());
    now_ns().saturating_sub(up)
}

/// `2026-11-23 16:53:57.123` in `zone`.
pub(crate) fn local(time_ns: i64, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(i128::from(time_ns)) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string(),
        Err(_) => format!("{time_ns} ns"),
    }
}

/// `2d 03:04:05`, or `03:04:05`.
pub(crate) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hours:02}:{minutes:02}:{rest:02}");
    if days > 0 { format!("{days}d {clock}") } else { clock }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn since_takes_durations_times_and_boot() {
        let resolve = |text: &str| parse_since(text).map(|since| since.resolve(1_000_000_000_000, 7));
        assert_eq!(resolve("5m"), Ok(700_000_000_000));
        assert_eq!(resolve("boot"), Ok(7));
        assert_eq!(resolve("1970-01-01T00:00:01Z"), Ok(1_000_000_000));
        assert_eq!(resolve("1970-01-01T02:00:01.5+02:00"), Ok(1_500_000_000));
        for text in ["", "yesterday", "5", "2026-13-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_local_with_milliseconds() {
        assert_eq!(local(1_700_000_000_123_456_789, &TimeZone::UTC), "2023-11-14 22:13:20.123");
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(local(1_700_000_000_000_000_000, &berlin), "2023-11-14 23:13:20.000");
    }

    #[test]
    fn uptimes() {
        assert_eq!(uptime(59), "00:00:59");
        assert_eq!(uptime(2 * 86_400 + 3 * 3600 + 4 * 60 + 5), "2d 03:04:05");
    }

    proptest! {
        #[test]
        fn any_time_prints_and_any_text_is_read_or_refused(time: i64, text in ".*") {
            prop_assert!(!local(time, &TimeZone::UTC).is_empty());
            let _ = parse_since(&text);
        }
    }
}
