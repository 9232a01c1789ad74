//! Domain names: from the wire, through compression pointers, to presentation form.

/// Bytes of a name on the wire, length bytes and the root's included (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
/// The two high bits of a length byte that is half of a pointer (RFC 1035 §4.1.4).
const POINTER: u8 = 0b1100_0000;

/// Why a name could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameError {
    /// The bytes end within it.
    Cut,
    /// It is not a name: says why.
    Malformed(&'static str),
}

/// Reads the name at `at` in `message`. Gives it in presentation form, and where the bytes after it begin.
///
/// Each pointer must go to a place before every label that was read so far: that is what "a prior occurrence" of RFC 1035 §4.1.4 means, and why
/// following them ends.
///
/// # Errors
/// The message ends within the name, or it is not one.
pub(super) fn read(message: &[u8], at: usize) -> Result<(String, usize), NameError> {
    let mut text = String::new();
    let mut at = at;
    // Every pointer's target lies before this.
    let mut before = at;
    let mut length = 1;
    let mut after = None;
    loop {
        let &first = message.get(at).ok_or(NameError::Cut)?;
        match first & POINTER {
            0 if first == 0 => {
                let end = after.unwrap_or(at + 1);
                if text.is_empty() {
                    text.push('.');
                }
                return Ok((text, end));
            }
            0 => {
                let label = message.get(at + 1..at + 1 + usize::from(first)).ok_or(NameError::Cut)?;
                length += 1 + label.len();
                if length > MAX_NAME {
                    return Err(NameError::Malformed("a name is longer than 255 bytes"));
                }
                if !text.is_empty() {
                    text.push('.');
                }
                push_label(&mut text, label);
                at += 1 + label.len();
            }
            POINTER => {
                let &second = message.get(at + 1).ok_or(NameError::Cut)?;
                let target = usize::from(u16::from_be_bytes([first & !POINTER, second]));
                if target >= before {
                    return Err(NameError::Malformed("a compression pointer does not go back"));
                }
                after.get_or_insert(at + 2);
                before = target;
                at = target;
            }
            _ => return Err(NameError::Malformed("a label of an unknown type")),
        }
    }
}

/// Appends a label in presentation form: lower case, since names are compared without case; a dot or backslash within it behind a backslash, and
/// what is not a visible ASCII character as `\DDD` in decimal (RFC 4343 §2.1).
fn push_label(text: &mut String, label: &[u8]) {
    for &byte in label {
        match byte {
            b'.' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'!'..=b'~' => text.push(char::from(byte.to_ascii_lowercase())),
            other => {
                text.push('\\');
                for digit in [other / 100, other / 10 % 10, other % 10] {
                    text.push(char::from(b'0' + digit));
                }
            }
        }
    }
}

/// The bytes of a name in presentation form, without pointers; `None` if it is none.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn to_wire(text: &str) -> Option<Vec<u8>> {
    let mut labels = vec![Vec::new()];
    let mut characters = text.bytes();
    while let Some(character) = characters.next() {
        let byte = match character {
            b'.' => {
                labels.push(Vec::new());
                continue;
            }
            b'\\' => match characters.next()? {
                first @ b'0'..=b'9' => {
                    let number = [first, characters.next()?, characters.next()?];
                    std::str::from_utf8(&number).ok()?.parse().ok()?
                }
                itself => itself,
            },
            itself => itself,
        };
        labels.last_mut()?.push(byte);
    }
    let mut wire = Vec::new();
    for label in labels.iter().filter(|_| text != ".") {
        wire.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        wire.extend(label);
    }
    wire.push(0);
    Some(wire)
}

/// The name that these bytes are, all of them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn from_wire(bytes: &[u8]) -> Option<String> {
    read(bytes, 0).ok().filter(|(_, after)| *after == bytes.len()).map(|(name, _)| name)
}
