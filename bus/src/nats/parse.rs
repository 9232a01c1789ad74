//! The client protocol's operations, read from bytes without copying any.
//!
//! As lenient as nats-server: operations in any case, any run of blanks between arguments, a bare line feed as the end of a line.

/// Longest operation name and what may stand before it.
const LONGEST_OP: usize = 8;

/// What a client asked for, in the bytes it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Connect(&'a [u8]),
    Ping,
    Pong,
    Pub {
        subject: &'a [u8],
        reply: Option<&'a [u8]>,
        /// Empty for `PUB`.
        headers: &'a [u8],
        payload: &'a [u8],
    },
    Sub {
        subject: &'a [u8],
        queue: Option<&'a [u8]>,
        sid: &'a [u8],
    },
    Unsub {
        sid: &'a [u8],
        max: Option<u64>,
    },
    /// `+OK`, `INFO`: what only servers say.
    Ignored,
}

/// What is wrong, and what nats-server does about it: all of these close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// Not an operation, or a payload that is not followed by an end of line.
    UnknownOperation,
    /// Arguments that do not make sense: closed without a word.
    BadArguments,
    LineTooLong,
    PayloadTooLarge,
}

/// What the front of the bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// An operation, and how many bytes it takes.
    Op(Op<'a>, usize),
    /// At least so many bytes are needed.
    Incomplete(usize),
}

/// Reads the operation at the front of `bytes`.
pub(crate) fn parse(bytes: &[u8], max_line: usize, max_payload: usize) -> Result<Parsed<'_>, ParseError> {
    // So far, and no farther: a line is refused at the same length whether its end has come already or not.
    let longest = max_line + LONGEST_OP + 1;
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(longest)]) else {
        if bytes.len() >= longest {
            return Err(ParseError::LineTooLong);
        }
        // What cannot become an operation is refused before its line ends.
        return match bytes.first() {
            Some(first) if !b"cCpPsSuUhHiI+-".contains(first) => Err(ParseError::UnknownOperation),
            _ => Ok(Parsed::Incomplete(bytes.len() + 1)),
        };
    };
    let line = &bytes[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let name_len = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (name, arguments) = line.split_at(name_len);
    if arguments.trim_ascii_start().len() > max_line {
        return Err(ParseError::LineTooLong);
    }
    let behind = end + 1;
    if arguments.is_empty() && ["PUB", "HPUB", "SUB", "UNSUB"].iter().any(|op| name.eq_ignore_ascii_case(op.as_bytes())) {
        // Their names end with a blank.
        return Err(ParseError::UnknownOperation);
    }
    let op = match name.len() {
        3 if name.eq_ignore_ascii_case(b"PUB") => return publication(bytes, arguments, behind, false, max_payload),
        4 if name.eq_ignore_ascii_case(b"HPUB") => return publication(bytes, arguments, behind, true, max_payload),
        3 if name.eq_ignore_ascii_case(b"SUB") => {
            let mut words = words(arguments);
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some(subject), Some(sid), None, _) => Op::Sub { subject, queue: None, sid },
                (Some(subject), Some(queue), Some(sid), None) => Op::Sub { subject, queue: Some(queue), sid },
                _ => return Err(ParseError::BadArguments),
            }
        }
        5 if name.eq_ignore_ascii_case(b"UNSUB") => {
            let mut words = words(arguments);
            match (words.next(), words.next(), words.next()) {
                (Some(sid), None, _) => Op::Unsub { sid, max: None },
                (Some(sid), Some(max), None) => Op::Unsub { sid, max: Some(number(max).unwrap_or(0) as u64) },
                _ => return Err(ParseError::BadArguments),
            }
        }
        7 if name.eq_ignore_ascii_case(b"CONNECT") => Op::Connect(arguments.trim_ascii()),
        4 if name.eq_ignore_ascii_case(b"INFO") => Op::Ignored,
        // A client that was told something it cannot bear.
        4 if name.eq_ignore_ascii_case(b"-ERR") => return Err(ParseError::BadArguments),
        // Nothing behind these three is looked at.
        4.. if name[..4].eq_ignore_ascii_case(b"PING") => Op::Ping,
        4.. if name[..4].eq_ignore_ascii_case(b"PONG") => Op::Pong,
        3.. if name[..3].eq_ignore_ascii_case(b"+OK") => Op::Ignored,
        _ => return Err(ParseError::UnknownOperation),
    };
    Ok(Parsed::Op(op, behind))
}

/// Arguments of all but PUB and HPUB: there a carriage return is no blank.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty())
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0_usize, |value, digit| digit.is_ascii_digit().then(|| value * 10 + usize::from(digit - b'0')))
}

fn publication<'a>(
    bytes: &'a [u8],
    arguments: &'a [u8],
    behind: usize,
    with_headers: bool,
    max_payload: usize,
) -> Result<Parsed<'a>, ParseError> {
    let mut found: [&[u8]; 5] = [b""; 5];
    let mut count = 0;
    for word in arguments.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()) {
        *found.get_mut(count).ok_or(ParseError::BadArguments)? = word;
        count += 1;
    }
    let sizes = if with_headers { 2 } else { 1 };
    let reply = match count.checked_sub(sizes) {
        Some(1) => None,
        Some(2) => Some(found[1]),
        _ => return Err(ParseError::BadArguments),
    };
    let total = number(found[count - 1]).ok_or(ParseError::BadArguments)?;
    let headers_len = if with_headers { number(found[count - 2]).ok_or(ParseError::BadArguments)? } else { 0 };
    if headers_len > total {
        return Err(ParseError::BadArguments);
    }
    if total > max_payload {
        return Err(ParseError::PayloadTooLarge);
    }
    let end = behind + total;
    let Some(content) = bytes.get(behind..end + 2) else { return Ok(Parsed::Incomplete(end + 2)) };
    if content[total..] != *b"\r\n" {
        return Err(ParseError::UnknownOperation);
    }
    let (headers, payload) = content[..total].split_at(headers_len);
    Ok(Parsed::Op(Op::Pub { subject: found[0], reply, headers, payload }, end + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(bytes: &[u8]) -> Result<Parsed<'_>, ParseError> {
        parse(bytes, 4096, 1000)
    }

    #[test]
    fn reads_what_clients_say_and_is_as_lenient_as_the_server() {
        let publication = |subject, reply, headers, payload| Op::Pub { subject, reply, headers, payload };
        for (bytes, op) in [
            (&b"PING\r\n"[..], Op::Ping),
            (b"ping foo\n", Op::Ping),
            (b"PUB foo 2\nhi\r\n", publication(b"foo", None, b"", b"hi")),
            (b"pub  foo \t bar 0\r\n\r\n", publication(b"foo", Some(b"bar"), b"", b"")),
            (b"HPUB a b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", publication(b"a", Some(b"b"), b"NATS/1.0\r\n\r\n", b"hi")),
            (b"SUB a.> 1\r\n", Op::Sub { subject: b"a.>", queue: None, sid: b"1" }),
            (b"SUB a q 1\r\n", Op::Sub { subject: b"a", queue: Some(b"q"), sid: b"1" }),
            (b"UNSUB 1 5\r\n", Op::Unsub { sid: b"1", max: Some(5) }),
            (b"CONNECT {} \r\n", Op::Connect(b"{}")),
        ] {
            assert_eq!(one(bytes), Ok(Parsed::Op(op, bytes.len())), "{}", bytes.escape_ascii());
        }
        for (bytes, error) in [
            (&b"\r\n"[..], ParseError::UnknownOperation),
            (b"FOO\r\n", ParseError::UnknownOperation),
            (b"GET / HTTP/1.1", ParseError::UnknownOperation),
            (b"PUB foo 2\r\nhix\r\n", ParseError::UnknownOperation),
            (b"PUB foo\r\n", ParseError::BadArguments),
            (b"PUB foo x\r\n", ParseError::BadArguments),
            (b"PUB a b c 1\r\n", ParseError::BadArguments),
            (b"HPUB a 5 4\r\n", ParseError::BadArguments),
            (b"PUB a 1001\r\n", ParseError::PayloadTooLarge),
            (b"SUB a\r\n", ParseError::BadArguments),
        ] {
            assert_eq!(one(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        let long = [b"SUB ", &[b'a'; 5000][..]].concat();
        assert_eq!(one(&long), Err(ParseError::LineTooLong));
        assert_eq!(one(&[&long[..4110], b" 1\r\n"].concat()), Err(ParseError::LineTooLong));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, 20, 100);
        }

        #[test]
        fn every_prefix_is_incomplete(subject in "[a-z.]{1,9}", payload in proptest::collection::vec(any::<u8>(), 0..50), headers in any::<bool>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = if headers { format!("HPUB {subject} 12 {}\r\nNATS/1.0\r\n\r\n", payload.len() + 12) } else { format!("PUB {subject} {}\r\n", payload.len()) }.into_bytes();
            bytes.extend(&payload);
            bytes.extend(b"\r\n");
            let whole = bytes.len();
            match one(&bytes[..cut.index(whole)]) {
                Ok(Parsed::Incomplete(needed)) => prop_assert!(needed <= whole),
                other => prop_assert!(false, "{:?}", other),
            }
            match one(&bytes) {
                Ok(Parsed::Op(Op::Pub { payload: found, .. }, len)) => prop_assert_eq!((found, len), (&payload[..], whole)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
