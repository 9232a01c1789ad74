//! What is spoken on a connection, by its first bytes.

/// Bytes that [`classify`] looks at. Who has that many gets an answer that is not [`Protocol::Incomplete`].
pub const MAX_CLASSIFIED: usize = 512;
/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Methods of the IANA "HTTP Method Registry" that are in use, and those of UPnP.
const METHODS: [&[u8]; 34] = [
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LINK",
    b"LOCK",
    b"M-SEARCH",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"NOTIFY",
    b"OPTIONS",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SUBSCRIBE",
    b"TRACE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

/// What the first bytes of one direction of a TCP connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A TLS record with a hello or an alert: see [`crate::tls`].
    Tls,
    /// A request or a response: see [`crate::http1`].
    Http1,
    /// A client's preface. What a server of HTTP/2 begins with is not recognised.
    Http2,
    /// An identification string: see [`crate::ssh`]. A server that sends other lines before it is not recognised.
    Ssh,
    /// A client's request for a connection.
    Socks4,
    /// A client's greeting.
    Socks5,
    /// None of them.
    Unknown,
    /// More bytes are needed to tell.
    Incomplete,
}

/// Names the protocol of a connection from what one side sent first. An answer other than [`Protocol::Incomplete`] stays the same whatever follows.
///
/// ```
/// use bartizan_wire::{Protocol, classify};
///
/// assert_eq!(classify(b"\x16\x03\x01\x02\x00\x01"), Protocol::Tls);
/// assert_eq!(classify(b"GET / HTTP/1.1\r\n"), Protocol::Http1);
/// assert_eq!(classify(b"SSH-2.0-Go\r\n"), Protocol::Ssh);
/// assert_eq!(classify(b"GE"), Protocol::Incomplete);
/// ```
pub fn classify(first_bytes: &[u8]) -> Protocol {
    let bytes = first_bytes.get(..MAX_CLASSIFIED).unwrap_or(first_bytes);
    match bytes.first() {
        None => Protocol::Incomplete,
        Some(0x14..=0x18) => tls(bytes),
        Some(4) => socks4(bytes),
        Some(5) => socks5(bytes),
        Some(_) => text(bytes),
    }
}

/// A record header (RFC 8446 §5.1) with the first byte of a hello, or an alert.
fn tls(bytes: &[u8]) -> Protocol {
    let of = |index: usize, right: fn(u8) -> bool| bytes.get(index).copied().map(right);
    let alert = bytes.first() == Some(&0x15);
    // Of a record in the clear at most 2^14 bytes; of an alert two.
    let length: [fn(u8) -> bool; 2] = if alert { [|high| high == 0, |low| low == 2] } else { [|high| high <= 0x40, |_| true] };
    let checks = [
        of(0, |kind| matches!(kind, 0x15 | 0x16)),
        of(1, |major| major == 3),
        of(2, |minor| minor <= 4),
        of(3, length[0]),
        of(4, length[1]),
        // client_hello, server_hello; an alert's level is 1 or 2 as well.
        of(5, |kind| matches!(kind, 1 | 2)),
    ];
    for check in checks {
        match check {
            Some(true) => {}
            Some(false) => return Protocol::Unknown,
            None => return Protocol::Incomplete,
        }
    }
    Protocol::Tls
}

/// Version 4, CONNECT or BIND, port, address, user id, NUL.
fn socks4(bytes: &[u8]) -> Protocol {
    match bytes.get(1) {
        Some(1 | 2) => {}
        Some(_) => return Protocol::Unknown,
        None => return Protocol::Incomplete,
    }
    let user = bytes.get(8..).unwrap_or_default();
    match user.iter().position(|byte| !(b' '..=b'~').contains(byte)) {
        Some(end) if user.get(end) == Some(&0) => Protocol::Socks4,
        Some(_) => Protocol::Unknown,
        None if bytes.len() < MAX_CLASSIFIED => Protocol::Incomplete,
        None => Protocol::Unknown,
    }
}

/// Version 5, a number of methods, the methods, each once (RFC 1928 §3).
fn socks5(bytes: &[u8]) -> Protocol {
    let Some(&count) = bytes.get(1) else { return Protocol::Incomplete };
    let methods = bytes.get(2..).unwrap_or_default();
    let methods = methods.get(..count.into()).unwrap_or(methods);
    let twice = methods.iter().enumerate().any(|(index, method)| methods.iter().skip(index + 1).any(|other| other == method));
    // 0xff is the server's "none of them".
    if count == 0 || twice || methods.contains(&0xff) {
        return Protocol::Unknown;
    }
    if methods.len() < usize::from(count) { Protocol::Incomplete } else { Protocol::Socks5 }
}

/// The protocols that begin with a line.
fn text(bytes: &[u8]) -> Protocol {
    let begun = |with: &[u8]| match (bytes.starts_with(with), with.starts_with(bytes)) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    };
    let mut undecided = false;
    for (with, protocol) in [(HTTP2_PREFACE, Protocol::Http2), (b"SSH-", Protocol::Ssh), (b"HTTP/1.", Protocol::Http1)] {
        match begun(with) {
            Some(true) => return protocol,
            Some(false) => {}
            None => undecided = true,
        }
    }
    for method in METHODS {
        match (begun(method), bytes.get(method.len())) {
            (Some(true), Some(b' ')) => return request_line(bytes),
            (Some(true) | None, None) => undecided = true,
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
    if undecided { Protocol::Incomplete } else { Protocol::Unknown }
}

/// A line that begins with a method and a space: other protocols have such lines too (RTSP, SIP, Redis), and name themselves, or nothing, at its end.
fn request_line(bytes: &[u8]) -> Protocol {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = bytes.get(..end).unwrap_or(bytes);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
                true => Protocol::Http1,
                false => Protocol::Unknown,
            }
        }
        None if bytes.len() < MAX_CLASSIFIED => Protocol::Incomplete,
        // A long target: of the protocols with such lines it is HTTP that has them.
        None => Protocol::Http1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First bytes of each, as they are on the wire.
    const KNOWN: [(&[u8], Protocol); 22] = [
        (b"\x16\x03\x01\x01\x4f\x01\x00\x01\x4b\x03\x03", Protocol::Tls),
        (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", Protocol::Tls),
        (b"\x15\x03\x03\x00\x02\x02\x28", Protocol::Tls),
        (b"GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n", Protocol::Http1),
        (b"CONNECT example.com:443 HTTP/1.0\n\n", Protocol::Http1),
        (b"M-SEARCH * HTTP/1.1\r\n", Protocol::Http1),
        (b"HTTP/1.1 200 OK\r\n", Protocol::Http1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12", Protocol::Http2),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", Protocol::Ssh),
        (b"\x04\x01\x00\x50\xc0\x00\x02\x09user\0", Protocol::Socks4),
        (b"\x04\x02\x00\x50\xc0\x00\x02\x09\0", Protocol::Socks4),
        (b"\x05\x01\x00", Protocol::Socks5),
        (b"\x05\x03\x00\x01\x02", Protocol::Socks5),
        (b"OPTIONS rtsp://a/ RTSP/1.0\r\n", Protocol::Unknown),
        (b"GET key\r\n", Protocol::Unknown),
        (b"220 mail.example.test ESMTP\r\n", Protocol::Unknown),
        (b"\x16\x03\x01\x01\x4f\x0b", Protocol::Unknown),
        (b"\x17\x03\x03\x00\x20\x01", Protocol::Unknown),
        (b"\x05\x00", Protocol::Unknown),
        (b"\x05\x02\x00\x00", Protocol::Unknown),
        (b"\x04\x01\x00\x50\xc0\x00\x02\x09us\xffr\0", Protocol::Unknown),
        (b"\0\0\0", Protocol::Unknown),
    ];

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (bytes, protocol) in KNOWN {
            assert_eq!(classify(bytes), protocol, "{bytes:?}");
        }
    }

    #[test]
    fn a_beginning_is_incomplete_until_it_is_told_and_stays() {
        for (bytes, protocol) in KNOWN {
            let answers: Vec<_> = (0..=bytes.len()).map(|at| classify(&bytes[..at])).collect();
            let told = answers.iter().position(|answer| *answer != Protocol::Incomplete).expect("told in the end");
            assert!(told > 0 && answers[told..].iter().all(|answer| *answer == protocol), "{bytes:?}: {answers:?}");
        }
    }

    #[test]
    fn who_has_enough_bytes_gets_an_answer() {
        let long = |begin: &[u8]| [begin, &[b'a'; MAX_CLASSIFIED]].concat();
        assert_eq!(classify(&long(b"GET /")), Protocol::Http1);
        assert_eq!(classify(&long(b"GET /")[..MAX_CLASSIFIED - 1]), Protocol::Incomplete);
        assert_eq!(classify(&long(b"\x04\x01\x00\x50\xc0\x00\x02\x09")), Protocol::Unknown);
        // 255 methods are more than there are without one of them twice.
        assert_eq!(classify(&[&[5, 255][..], &(0..=255).collect::<Vec<u8>>()].concat()), Protocol::Socks5);
    }
}
