//! Sizes and durations as people write them: `2 GiB`, `7d`, `1h30m`.

use std::time::Duration;

/// Text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write a whole number with a unit, such as \"500ms\", \"1s\", \"5m\", \"2h\", \"7d\", \"1w\" or \"1h30m\""
)]
pub struct DurationError {
    text: String,
}

/// Text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: write whole bytes, or a whole number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as \"2 GiB\"")]
pub struct SizeError {
    text: String,
}

/// Splits the leading digits off `text`, and the letters after them (spaces around the unit are allowed).
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text.get(..digits)?.parse().ok()?;
    let rest = text.get(digits..)?.trim_start_matches(' ');
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, rest.get(..letters)?, rest.get(letters..)?.trim_start_matches(' ')))
}

/// Reads a duration: one or more `<whole number><unit>`, units `ms`, `s`, `m` (`min`), `h`, `d` (24 h) and `w`.
///
/// # Errors
/// [`DurationError`] for anything else, and for durations beyond what nanoseconds in 63 bits hold (292 years).
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(error)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(error()),
        };
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(error)?;
        rest = after;
    }
    // Callers subtract durations from nanosecond clocks of 64 bits: refuse here what would overflow there.
    if total_ms > i64::MAX as u64 / 1_000_000 { Err(error()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// Reads a size in bytes: `<whole number>[ ]<unit>`, where no unit means bytes. Upper and lower case are not told apart,
/// but `MB` is a million and `MiB` is 2^20.
///
/// # Errors
/// [`SizeError`] for anything else, and for sizes beyond 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError { text: text.to_owned() };
    let (number, unit, after) = number_and_unit(text.trim()).ok_or_else(error)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(error()),
    };
    if after.is_empty() { number.checked_mul(factor).ok_or_else(error) } else { Err(error()) }
}

/// The shortest exact form of a size, for messages and status: `2 GiB`, `1500 B`.
pub fn format_bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift << shift == bytes && bytes >> shift > 0) {
        Some((unit, shift)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// A size for reading, cut to a tenth: `31.0 MiB`.
pub(crate) fn about_bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{}.{} {unit}", bytes >> shift, ((bytes >> (shift - 10)) % 1024) * 10 / 1024),
        None => format!("{bytes} B"),
    }
}

/// The shortest exact form of a duration, for messages: `7d`, `90s`, `1500ms`. Parts below a millisecond are cut.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_that_people_write() {
        for (text, seconds) in
            [("1s", 1), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1w", 604_800), ("1h30m", 5400), ("1h 30 min", 5400)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn durations_that_are_refused() {
        for text in ["", "5", "s", "-5m", "1.5h", "5 parsecs", "5M", "99999999999w", "5m!", "\u{0665}m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_that_people_write() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("2 GiB", 2 << 30), ("256MiB", 256 << 20), ("1 kB", 1000), ("3 tib", 3 << 40)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_refused() {
        for text in ["", "GiB", "-1", "1.5 GiB", "2 G", "2 GiB 3", "99999999999 TiB", "18446744073709551616"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse_duration(&text);
            let _ = parse_bytes(&text);
        }

        #[test]
        fn sizes_read_back(bytes: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }

        #[test]
        fn durations_read_back(ms in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
