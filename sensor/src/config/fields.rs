//! Deserialisers that check a value's range while the TOML reader still knows its line and column.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::units::{format_bytes, format_duration, parse_bytes, parse_duration};

struct Size;

impl Visitor<'_> for Size {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"2 GiB\", or whole bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_bytes(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }
}

struct Span;

impl Visitor<'_> for Span {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit in quotes, such as \"1s\" or \"7d\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }
}

/// A size between `MIN` and `MAX` bytes.
pub(super) fn size<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = deserializer.deserialize_any(Size)?;
    if (MIN..=MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(D::Error::custom(format_args!(
            "{} is out of range: {} to {} are allowed",
            format_bytes(bytes),
            format_bytes(MIN),
            format_bytes(MAX)
        )))
    }
}

/// A power of two between `MIN` and `MAX` bytes: what the kernel takes for a ring buffer's size.
pub(super) fn ring<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<u32, D::Error> {
    let bytes = size::<D, MIN, MAX>(deserializer)?;
    match u32::try_from(bytes) {
        Ok(ring) if ring.is_power_of_two() => Ok(ring),
        _ => Err(D::Error::custom(format_args!(
            "{} is not a power of two, which the kernel's ring buffers must be: use {} or {}",
            format_bytes(bytes),
            format_bytes((bytes.next_power_of_two() / 2).max(MIN)),
            format_bytes(bytes.next_power_of_two().min(MAX))
        ))),
    }
}

/// A duration between `MIN` and `MAX` seconds.
pub(super) fn duration<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Duration, D::Error> {
    millis_between(deserializer, Duration::from_secs(MIN), Duration::from_secs(MAX))
}

/// A duration between `MIN` and `MAX` milliseconds.
pub(super) fn duration_ms<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Duration, D::Error> {
    millis_between(deserializer, Duration::from_millis(MIN), Duration::from_millis(MAX))
}

fn millis_between<'de, D: Deserializer<'de>>(deserializer: D, min: Duration, max: Duration) -> Result<Duration, D::Error> {
    let duration = deserializer.deserialize_any(Span)?;
    if (min..=max).contains(&duration) {
        Ok(duration)
    } else {
        Err(D::Error::custom(format_args!(
            "{} is out of range: {} to {} are allowed",
            format_duration(duration),
            format_duration(min),
            format_duration(max)
        )))
    }
}

/// A count between `MIN` and `MAX`.
pub(super) fn count<'de, D: Deserializer<'de>, const MIN: usize, const MAX: usize>(deserializer: D) -> Result<usize, D::Error> {
    let count = <usize as serde::Deserialize>::deserialize(deserializer)?;
    if (MIN..=MAX).contains(&count) {
        Ok(count)
    } else {
        Err(D::Error::custom(format_args!("{count} is out of range: {MIN} to {MAX} are allowed")))
    }
}
