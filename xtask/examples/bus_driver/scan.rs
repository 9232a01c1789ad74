//! What a NATS server sends, cut into operations. No I/O: bytes in, operations with their places out.

use std::ops::Range;

use anyhow::{Result, bail};

/// One operation; ranges are places in the bytes that were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// `MSG`.
    Message { subject: Range<usize>, reply: Option<Range<usize>>, payload: Range<usize> },
    /// `HMSG`: headers, which begin with `NATS/1.0` and maybe a status, and the payload.
    WithHeaders { subject: Range<usize>, reply: Option<Range<usize>>, headers: Range<usize>, payload: Range<usize> },
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `INFO` or `+OK`.
    Other,
    /// `-ERR` with its text.
    Error(Range<usize>),
}

/// The first operation and how many bytes it has; `None` when it is not there as a whole.
///
/// # Errors
/// It is none that a server sends.
pub(crate) fn next(bytes: &[u8]) -> Result<Option<(Op, usize)>> {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let behind = end + 1;
    let op = match line {
        [b'M', b'S', b'G', b' ', ..] => return message(bytes, line, behind),
        [b'H', b'M', b'S', b'G', b' ', ..] => return with_headers(bytes, line, behind),
        b"PING" => Op::Ping,
        b"PONG" => Op::Pong,
        [b'-', b'E', b'R', b'R', ..] => Op::Error(4..line.len()),
        [b'+', b'O', b'K', ..] | [b'I', b'N', b'F', b'O', ..] => Op::Other,
        _ => bail!("the server sent {:?}, which is no NATS", String::from_utf8_lossy(&line[..line.len().min(80)])),
    };
    Ok(Some((op, behind)))
}

fn message(bytes: &[u8], line: &[u8], behind: usize) -> Result<Option<(Op, usize)>> {
    let mut words = Words { line, at: 4 };
    let (subject, _sid) = (words.word()?, words.word()?);
    let third = words.word()?;
    let (reply, size) = match words.optional() {
        Some(size) => (Some(third), size),
        None => (None, third),
    };
    let size = number(&line[size])?;
    let whole = behind + size + 2;
    Ok((bytes.len() >= whole).then(|| (Op::Message { subject, reply, payload: behind..behind + size }, whole)))
}

fn with_headers(bytes: &[u8], line: &[u8], behind: usize) -> Result<Option<(Op, usize)>> {
    let mut words = Words { line, at: 5 };
    let (subject, _sid) = (words.word()?, words.word()?);
    let (third, fourth) = (words.word()?, words.word()?);
    let (reply, head, total) = match words.optional() {
        Some(total) => (Some(third), fourth, total),
        None => (None, third, fourth),
    };
    let (head, total) = (number(&line[head])?, number(&line[total])?);
    if head > total {
        bail!("the server sent headers of {head} bytes in a message of {total}");
    }
    let (middle, whole) = (behind + head, behind + total + 2);
    let op = Op::WithHeaders { subject, reply, headers: behind..middle, payload: middle..behind + total };
    Ok((bytes.len() >= whole).then_some((op, whole)))
}

struct Words<'a> {
    line: &'a [u8],
    at: usize,
}

impl Words<'_> {
    fn optional(&mut self) -> Option<Range<usize>> {
        let start = self.at + self.line.get(self.at..)?.iter().position(|b| *b != b' ')?;
        let end = memchr::memchr(b' ', &self.line[start..]).map_or(self.line.len(), |len| start + len);
        self.at = end;
        Some(start..end)
    }

    fn word(&mut self) -> Result<Range<usize>> {
        match self.optional() {
            Some(word) => Ok(word),
            None => bail!("the server sent {:?}, which lacks a word", String::from_utf8_lossy(self.line)),
        }
    }
}

/// A decimal number.
///
/// # Errors
/// It is none, or longer than any that counts messages.
pub(crate) fn number(digits: &[u8]) -> Result<usize> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        bail!("the server sent {:?} where a number belongs", String::from_utf8_lossy(digits));
    }
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(mut bytes: &[u8]) -> (Vec<Op>, usize) {
        let mut found = Vec::new();
        while let Some((op, len)) = next(bytes).unwrap() {
            found.push(op);
            bytes = &bytes[len..];
        }
        (found, bytes.len())
    }

    #[test]
    fn each_operation_has_its_places() {
        let bytes = b"MSG a.b 1 _INBOX.x 2\r\nhi\r\nPING\r\n";
        assert_eq!(next(bytes).unwrap(), Some((Op::Message { subject: 4..7, reply: Some(10..18), payload: 22..24 }, 26)));
        let bytes = b"MSG a.b 1 2\r\nhi\r\n";
        assert_eq!(next(bytes).unwrap(), Some((Op::Message { subject: 4..7, reply: None, payload: 13..15 }, 17)));
        let bytes = b"HMSG r 1 16 18\r\nNATS/1.0 503\r\n\r\nhi\r\n";
        let expected = Op::WithHeaders { subject: 5..6, reply: None, headers: 16..32, payload: 32..34 };
        assert_eq!(next(bytes).unwrap(), Some((expected, 36)));
        assert_eq!(all(b"INFO {}\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'x'\r\nMSG").1, 3);
    }

    #[test]
    fn what_is_no_nats_is_an_error() {
        for bytes in ["HELLO\r\n", "MSG a\r\n", "MSG a 1 x\r\n", "HMSG a 1 5 4\r\n12345\r\n"] {
            assert!(next(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_makes_a_difference(sizes in proptest::collection::vec(0_usize..50, 1..8), cut in 0_usize..400) {
            let mut bytes = Vec::new();
            for size in &sizes {
                bytes.extend_from_slice(format!("MSG s 1 {size}\r\n{}\r\n", "x".repeat(*size)).as_bytes());
            }
            let cut = cut.min(bytes.len());
            let (first, left) = all(&bytes[..cut]);
            let (second, rest) = all(&bytes[cut - left..]);
            prop_assert_eq!((first.len() + second.len(), rest), (sizes.len(), 0));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in "(MSG|HMSG|PING|-ERR)?[ a1\r\n]{0,40}") {
            let _ = next(bytes.as_bytes());
        }
    }
}
