//! What a Redis server sends (RESP2), cut into values. No I/O. <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use anyhow::{Result, bail};

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// `+` or `:`.
    Simple(&'a [u8]),
    /// `-`.
    Error(&'a [u8]),
    /// `$`; `None` for none.
    Bulk(Option<&'a [u8]>),
    /// `*`; empty for none.
    Array(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    /// The bytes of a bulk or simple string.
    ///
    /// # Errors
    /// It is an error of the server's, or another kind.
    pub(crate) fn bytes(&self) -> Result<&'a [u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(Some(bytes)) => Ok(bytes),
            Self::Error(text) => bail!("Redis says {}", String::from_utf8_lossy(text)),
            Self::Bulk(None) | Self::Array(_) => bail!("Redis sent another kind of value"),
        }
    }

    /// The values of an array.
    ///
    /// # Errors
    /// As [`Value::bytes`].
    pub(crate) fn array(&self) -> Result<&[Self]> {
        match self {
            Self::Array(values) => Ok(values),
            Self::Bulk(None) => Ok(&[]),
            Self::Error(text) => bail!("Redis says {}", String::from_utf8_lossy(text)),
            Self::Simple(_) | Self::Bulk(Some(_)) => bail!("Redis sent another kind of value"),
        }
    }
}

/// Nested no deeper than any answer here.
const DEEPEST: usize = 8;

/// The first value and how many bytes it has; `None` when it is not there as a whole.
///
/// # Errors
/// It is none that a server sends.
pub(crate) fn next(bytes: &[u8]) -> Result<Option<(Value<'_>, usize)>> {
    value(bytes, DEEPEST)
}

/// How many bytes the first value has, without reading it; `None` when it is not there as a whole.
///
/// # Errors
/// As [`next`].
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let (mut at, mut left) = (0, 1_u64);
    while left > 0 {
        let Some((line, behind)) = line(&bytes[at..]) else { return Ok(None) };
        left -= 1;
        at += behind;
        match line {
            [b'$', rest @ ..] => at += size(rest)?.map_or(0, |size| size + 2),
            [b'*', rest @ ..] => left += size(rest)?.unwrap_or(0) as u64,
            _ => {}
        }
        if at > bytes.len() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), end + 1))
}

/// A size; `None` for -1.
fn size(digits: &[u8]) -> Result<Option<usize>> {
    if digits == b"-1" { Ok(None) } else { super::scan::number(digits).map(Some) }
}

fn value(bytes: &[u8], deepest: usize) -> Result<Option<(Value<'_>, usize)>> {
    let Some((line, behind)) = line(bytes) else { return Ok(None) };
    Ok(match line {
        [b'+' | b':', rest @ ..] => Some((Value::Simple(rest), behind)),
        [b'-', rest @ ..] => Some((Value::Error(rest), behind)),
        [b'$', rest @ ..] => match size(rest)? {
            None => Some((Value::Bulk(None), behind)),
            Some(size) => {
                let whole = behind + size + 2;
                (bytes.len() >= whole).then(|| (Value::Bulk(Some(&bytes[behind..behind + size])), whole))
            }
        },
        [b'*', rest @ ..] if deepest > 0 => {
            let (mut values, mut at) = (Vec::new(), behind);
            for _ in 0..size(rest)?.unwrap_or(0) {
                let Some((inner, len)) = value(&bytes[at..], deepest - 1)? else { return Ok(None) };
                values.push(inner);
                at += len;
            }
            Some((Value::Array(values), at))
        }
        _ => bail!("the server sent {:?}, which is no RESP2", String::from_utf8_lossy(&line[..line.len().min(80)])),
    })
}

/// Adds a command of these words.
pub(crate) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read_and_measured() {
        let bytes = b"*2\r\n$1\r\na\r\n*2\r\n:7\r\n$-1\r\n+OK\r\n";
        let (value, len) = next(bytes).unwrap().unwrap();
        assert_eq!(value.array().unwrap()[0].bytes().unwrap(), b"a");
        assert_eq!(value.array().unwrap()[1], Value::Array(vec![Value::Simple(b"7"), Value::Bulk(None)]));
        assert_eq!((len, length(bytes).unwrap()), (24, Some(24)));
        assert!(next(b"-ERR no\r\n").unwrap().unwrap().0.bytes().is_err());
        assert!(next(b"?\r\n").is_err());
    }

    #[test]
    fn a_command_reads_back() {
        let mut out = Vec::new();
        command(&mut out, &[b"XADD", b"\r\n", b""]);
        assert_eq!(next(&out).unwrap().unwrap().0.array().unwrap().len(), 3);
    }

    proptest! {
        #[test]
        fn reading_and_measuring_agree(bytes in "([*]2\r\n|[*]0\r\n|[$]3\r\nabc\r\n|:1\r\n|[$]-1\r\n|[+-]x\r\n){0,12}", cut in 0_usize..80) {
            let bytes = &bytes.as_bytes()[..cut.min(bytes.len())];
            if let (Ok(read), Ok(measured)) = (next(bytes), length(bytes)) {
                prop_assert_eq!(read.map(|(_, len)| len), measured);
            }
        }
    }
}
