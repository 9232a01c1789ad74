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
    in_range::<D::Error, MIN, MAX>(deserializer.deserialize_any(Size)?)
}

/// A size between `MIN` and `MAX` bytes, or `"auto"`, which is `None`.
pub(super) fn size_or_auto<'de, D: Deserializer<'de>, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Auto<const MIN: u64, const MAX: u64>;

    impl<const MIN: u64, const MAX: u64> Visitor<'_> for Auto<MIN, MAX> {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"auto\", a size such as \"2 GiB\", or whole bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            if text == "auto" {
                return Ok(None);
            }
            let bytes = parse_bytes(text).map_err(|error| E::custom(format_args!("{error}; or write \"auto\"")))?;
            in_range::<E, MIN, MAX>(bytes).map(Some)
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<Self::Value, E> {
            in_range::<E, MIN, MAX>(bytes).map(Some)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<Self::Value, E> {
            let whole = u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))?;
            in_range::<E, MIN, MAX>(whole).map(Some)
        }
    }

    deserializer.deserialize_any(Auto::<MIN, MAX>)
}

fn in_range<E: Error, const MIN: u64, const MAX: u64>(bytes: u64) -> Result<u64, E> {
    if (MIN..=MAX).contains(&bytes) {
        return Ok(bytes);
    }
    let [bytes, min, max] = [bytes, MIN, MAX].map(format_bytes);
    Err(E::custom(format_args!("{bytes} is out of range: {min} to {max} are allowed")))
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
