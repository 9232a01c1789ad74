//! Bytes of the kernel and of programs as text.

/// UTF-8 as it is, other bytes as `\xNN`. Not reversible: a text that spells `\xff` itself looks the same as the byte.
pub fn escape_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing into a `String` has no failure.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The part before the first NUL: fixed-size names carry stale bytes behind it.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

/// A fixed-size name.
pub(super) fn name(bytes: &[u8]) -> String {
    escape_bytes(until_nul(bytes))
}

/// A NUL-terminated string of a span; `None` when empty.
pub(super) fn string(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(until_nul).filter(|bytes| !bytes.is_empty()).map(escape_bytes)
}

/// An argument vector: each element ends with a NUL; empty elements count.
pub(super) fn argv(bytes: Option<&[u8]>) -> Vec<String> {
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Vec::new() };
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(escape_bytes).collect()
}

/// A path whose components come leaf first, each ending with a NUL. `truncated` ones get a leading `...` instead of `/`.
pub(super) fn path(bytes: Option<&[u8]>, truncated: bool) -> Option<String> {
    let bytes = bytes?;
    let mut components: Vec<&[u8]> = bytes.split(|byte| *byte == 0).filter(|component| !component.is_empty()).collect();
    components.reverse();
    let joined = components.iter().map(|component| escape_bytes(component)).collect::<Vec<_>>().join("/");
    match (joined.is_empty(), truncated) {
        (true, false) => Some("/".to_owned()),
        (_, false) => Some(format!("/{joined}")),
        (_, true) => Some(format!(".../{joined}")),
    }
}

/// The kernel's name of a terminal as users write it: `pts0` is `pts/0`.
pub(super) fn tty(bytes: &[u8]) -> Option<String> {
    let name = name(bytes);
    match name.strip_prefix("pts").filter(|number| number.chars().all(|c| c.is_ascii_digit())) {
        _ if name.is_empty() => None,
        Some(number) if !number.is_empty() => Some(format!("pts/{number}")),
        _ => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_turned_round() {
        assert_eq!(path(Some(b"bash\0bin\0usr\0"), false).unwrap(), "/usr/bin/bash");
        assert_eq!(path(Some(b""), false).unwrap(), "/");
        assert_eq!(path(Some(b"b\0a\0"), true).unwrap(), ".../a/b");
    }

    #[test]
    fn argv_keeps_empty_elements() {
        assert_eq!(argv(Some(b"sh\0-c\0\0")), ["sh", "-c", ""]);
        assert_eq!(argv(Some(b"cut-of")), ["cut-of"]);
    }

    #[test]
    fn terminals_are_named_as_users_name_them() {
        assert_eq!(tty(b"pts12\0garbage").unwrap(), "pts/12");
        assert_eq!(tty(b"tty1\0").unwrap(), "tty1");
        assert_eq!(tty(b"\0"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_that_still_tells_them(bytes: Vec<u8>) {
            let text = escape_bytes(&bytes);
            let expected: String = bytes.utf8_chunks().map(|chunk| {
                let invalid: String = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")).collect();
                format!("{}{invalid}", chunk.valid())
            }).collect();
            prop_assert_eq!(&text, &expected);
            if let Ok(valid) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(text, valid);
            }
        }
    }
}
