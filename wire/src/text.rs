//! Text that a peer chose, made safe to store and to show.

use std::fmt::Write;

/// Printable ASCII as it is, every other byte as `\xNN`, so that nobody's terminal, log line or JSON is steered by it. A backslash stays one, so
/// that paths of Windows look like themselves; the result is for people and rules, not for getting the bytes back.
///
/// ```
/// assert_eq!(bartizan_wire::escape(b"curl/8.1 \x1b[31m"), r"curl/8.1 \x1b[31m");
/// ```
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                // A String takes all that is written to it.
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text
}
