//! Heads of HTTP/1 requests and responses (RFC 9112), by `httparse` but for a request's first line.
//!
//! Any line of a head that is wrong ends it with `malformed`; what stood before is given. The body is not looked at, and neither is a second
//! message on the same connection.
//!
//! ```
//! use bartizan_wire::{Parsed, http1};
//!
//! let Parsed::Complete(request) = http1::request(b"GET /admin HTTP/1.1\r\nHost: Example.com\r\nUser-Agent: curl/8.1\r\n\r\n") else {
//!     panic!("a request")
//! };
//! assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/admin"));
//! assert_eq!(request.host.as_deref(), Some("Example.com"));
//!
//! let Parsed::Incomplete(Some(part)) = http1::request(b"GET /admin?x=y") else { panic!("a request that was cut") };
//! assert_eq!(part.target, "/admin?x=y");
//! ```

use httparse::{EMPTY_HEADER, Header, Status};

use crate::Parsed;
use crate::text::escape;

/// Bytes of a head that are looked at: servers' usual limit. A head that goes on behind them is given as far as it was read, with `truncated`.
pub const MAX_HEAD: usize = 8192;

/// A request's head. Where a header is there several times, the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// As it was sent: a path with its query, or an absolute address, or a host and port, or `*`; escaped.
    pub target: String,
    /// 1: HTTP/1.1; 0: HTTP/1.0. `None`: cut before it.
    pub minor: Option<u8>,
    /// `Host`.
    pub host: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Content-Length`, if it is a number.
    pub content_length: Option<u64>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Header lines that were read.
    pub headers: usize,
    /// The head goes on behind the bytes that were read.
    pub truncated: bool,
    /// Why reading stopped before the head's end, when a line of it is no header.
    pub malformed: Option<&'static str>,
}

/// A response's head. Where a header is there several times, the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// 1: HTTP/1.1; 0: HTTP/1.0.
    pub minor: u8,
    /// Status code. `None`: cut before it.
    pub status: Option<u16>,
    /// The words behind it, which may be empty.
    pub reason: String,
    /// `Server`.
    pub server: Option<String>,
    /// `Content-Length`, if it is a number.
    pub content_length: Option<u64>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Header lines that were read.
    pub headers: usize,
    /// The head goes on behind the bytes that were read.
    pub truncated: bool,
    /// Why reading stopped before the head's end, when a line of it is no header.
    pub malformed: Option<&'static str>,
}

/// What a client sends, from its first byte on.
pub fn request(bytes: &[u8]) -> Parsed<Request> {
    let head = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let line = match request_line(head) {
        Ok(Some(line)) => line,
        Ok(None) if head.len() < MAX_HEAD => return Parsed::Incomplete(None),
        Ok(None) => return Parsed::NotThis("no end of a method"),
        Err(why) => return Parsed::NotThis(why),
    };
    let mut request = Request {
        method: escape(line.method),
        target: escape(line.target),
        minor: line.version.map(|(minor, _)| minor),
        ..Request::default()
    };
    let mut room = room(head);
    let ended = line.version.map(|(_, lines)| httparse::parse_headers(lines, &mut room).map(|status| status.is_complete()));
    let headers = read_headers(&room);
    request.host = text(headers, "Host");
    request.user_agent = text(headers, "User-Agent");
    request.content_length = length(headers);
    request.content_type = text(headers, "Content-Type");
    request.headers = headers.len();
    match ended {
        Some(Ok(true)) => Parsed::Complete(request),
        Some(Err(error)) => Parsed::Complete(Request { malformed: Some(words(error)), ..request }),
        None | Some(Ok(false)) if head.len() < MAX_HEAD => Parsed::Incomplete(Some(Request { truncated: true, ..request })),
        None | Some(Ok(false)) => Parsed::Complete(Request { truncated: true, ..request }),
    }
}

/// A request's first line, as far as it is there.
struct Line<'a> {
    method: &'a [u8],
    target: &'a [u8],
    /// Minor version, and the lines behind this one.
    version: Option<(u8, &'a [u8])>,
}

/// `Ok(None)`: not even the method is there.
///
/// `httparse` would refuse a target that is not UTF-8, with which a scanner could hide from us what servers take.
fn request_line(head: &[u8]) -> Result<Option<Line<'_>>, &'static str> {
    let line = after_empty_lines(head);
    let end = line.iter().position(|byte| !is_token(*byte));
    let Some(end) = end else { return Ok(None) };
    let (method, rest) = line.split_at(end);
    let Some(rest) = rest.strip_prefix(b" ").filter(|_| !method.is_empty()) else {
        // A carriage return may begin an empty line.
        return if line == b"\r" { Ok(None) } else { Err("no method of HTTP") };
    };
    let end = rest.iter().position(|byte| !matches!(byte, b'!'..=b'~' | 0x80..));
    let Some(end) = end else { return Ok(Some(Line { method, target: rest, version: None })) };
    let (target, rest) = rest.split_at(end);
    let Some(rest) = rest.strip_prefix(b" ").filter(|_| !target.is_empty()) else { return Err("no target and version of HTTP/1") };
    for (version, minor) in [(&b"HTTP/1.1\r\n"[..], 1), (b"HTTP/1.1\n", 1), (b"HTTP/1.0\r\n", 0), (b"HTTP/1.0\n", 0)] {
        if let Some(lines) = rest.strip_prefix(version) {
            return Ok(Some(Line { method, target, version: Some((minor, lines)) }));
        }
        if version.starts_with(rest) {
            return Ok(Some(Line { method, target, version: None }));
        }
    }
    Err("no version of HTTP/1")
}

/// What is behind the line ends that some clients send before a request (RFC 9112 §2.2).
fn after_empty_lines(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(b"\r\n").or_else(|| head.strip_prefix(b"\n")) {
        head = rest;
    }
    head
}

/// A character of a method (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a server sends, from its first byte on.
pub fn response(bytes: &[u8]) -> Parsed<Response> {
    let head = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut room = room(head);
    let mut raw = httparse::Response::new(&mut room);
    let ended = raw.parse(head);
    let Some(minor) = raw.version else {
        return match ended {
            Ok(_) if head.len() < MAX_HEAD => Parsed::Incomplete(None),
            Ok(_) => Parsed::NotThis("no version of HTTP/1"),
            Err(_) => Parsed::NotThis("no version and status of HTTP/1"),
        };
    };
    let headers = read_headers(raw.headers);
    let response = Response {
        minor,
        status: raw.code,
        reason: escape(raw.reason.unwrap_or_default().as_bytes()),
        server: text(headers, "Server"),
        content_length: length(headers),
        content_type: text(headers, "Content-Type"),
        headers: headers.len(),
        truncated: false,
        malformed: None,
    };
    match ended {
        Ok(Status::Complete(_)) => Parsed::Complete(response),
        Ok(Status::Partial) if head.len() < MAX_HEAD => Parsed::Incomplete(Some(Response { truncated: true, ..response })),
        Ok(Status::Partial) => Parsed::Complete(Response { truncated: true, ..response }),
        Err(_) if raw.code.is_none() => Parsed::NotThis("no version and status of HTTP/1"),
        Err(error) => Parsed::Complete(Response { malformed: Some(words(error)), ..response }),
    }
}

/// Room for the headers: one has at least a line.
fn room(head: &[u8]) -> Vec<Header<'_>> {
    vec![EMPTY_HEADER; head.iter().filter(|byte| **byte == b'\n').count() + 1]
}

/// Those that were read before the end or the error: `httparse` leaves the others empty, and no header has an empty name.
fn read_headers<'a, 'b>(room: &'a [Header<'b>]) -> &'a [Header<'b>] {
    let read = room.iter().take_while(|header| !header.name.is_empty()).count();
    room.get(..read).unwrap_or(room)
}

/// The first header of this name.
fn find<'b>(headers: &[Header<'b>], name: &str) -> Option<&'b [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Its value, escaped.
fn text(headers: &[Header<'_>], name: &str) -> Option<String> {
    find(headers, name).map(escape)
}

/// `Content-Length`, if it is a number.
fn length(headers: &[Header<'_>]) -> Option<u64> {
    let digits = std::str::from_utf8(find(headers, "Content-Length")?).ok()?;
    // The parser of numbers takes a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What is wrong with a line.
fn words(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a byte that no header's name has",
        httparse::Error::HeaderValue => "a byte that no header's value has",
        httparse::Error::NewLine => "a line that ends wrongly",
        httparse::Error::Status => "a byte that no reason has",
        httparse::Error::Token | httparse::Error::TooManyHeaders | httparse::Error::Version => "a line that is no header",
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing;

    /// Copied from the wire.
    const CURL: &[u8] =
        b"GET /index.html?a=b HTTP/1.1\r\nHost: 127.0.0.1:46941\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nX-Test: 1\r\n\r\n";
    const WGET: &[u8] = b"GET /$%7Bjndi:ldap://x%7D HTTP/1.1\r\nHost: 127.0.0.1:46775\r\nUser-Agent: Wget/1.21.3\r\nAccept: */*\r\n\
        Accept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n";
    /// Of Python's http.server, copied from the wire; the body follows.
    const PYTHON: &[u8] = b"HTTP/1.0 404 File not found\r\nServer: SimpleHTTP/0.6 Python/3.11.7\r\nDate: Sat, 28 Nov 2026 00:44:24 GMT\r\n\
        Connection: close\r\nContent-Type: text/html;charset=utf-8\r\nContent-Length: 335\r\n\r\n<!DOCTYPE HTML>\n<html";

    fn whole(bytes: &[u8]) -> Request {
        match request(bytes) {
            Parsed::Complete(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read() {
        let curl = whole(CURL);
        assert_eq!((curl.method.as_str(), curl.target.as_str(), curl.minor, curl.headers), ("GET", "/index.html?a=b", Some(1), 4));
        assert_eq!((curl.host.as_deref(), curl.user_agent.as_deref()), (Some("127.0.0.1:46941"), Some("curl/7.88.1")));
        assert_eq!((curl.content_length, curl.content_type, curl.truncated, curl.malformed), (None, None, false, None));
        assert_eq!(whole(WGET).target, "/$%7Bjndi:ldap://x%7D");
        let post = whole(b"POST / HTTP/1.0\ncontent-length: 12\nCONTENT-TYPE: text/plain\ncontent-length: 13\n\n");
        assert_eq!((post.minor, post.content_length, post.content_type.as_deref()), (Some(0), Some(12), Some("text/plain")));
        for wrong in ["+1", "1 2", "99999999999999999999", "-1"] {
            let wrong = whole(format!("POST / HTTP/1.1\r\nContent-Length: {wrong}\r\n\r\n").as_bytes());
            assert_eq!((wrong.content_length, wrong.headers), (None, 1));
        }
    }

    #[test]
    fn a_response_is_read() {
        let Parsed::Complete(python) = response(PYTHON) else { panic!("a response") };
        assert_eq!((python.minor, python.status, python.reason.as_str(), python.headers), (0, Some(404), "File not found", 5));
        assert_eq!(python.server.as_deref(), Some("SimpleHTTP/0.6 Python/3.11.7"));
        assert_eq!((python.content_length, python.content_type.as_deref()), (Some(335), Some("text/html;charset=utf-8")));
        assert!(matches!(response(CURL), Parsed::NotThis(_)));
        assert!(matches!(request(PYTHON), Parsed::NotThis(_)));
    }

    #[test]
    fn every_cut_gives_a_beginning() {
        for bytes in [CURL, WGET, PYTHON] {
            for at in 0..=bytes.len() {
                fuzzing::http1(&fuzzing::with_cut(bytes, at));
            }
        }
        assert!((0..CURL.len()).all(|at| matches!(request(&CURL[..at]), Parsed::Incomplete(_))));
        let Parsed::Incomplete(Some(part)) = request(&CURL[..60]) else { panic!("in part") };
        // Within the user agent.
        assert_eq!((part.host.as_deref(), part.user_agent, part.truncated), (Some("127.0.0.1:46941"), None, true));
    }

    #[test]
    fn a_head_of_more_than_the_limit_is_given_as_far_as_it_was_read() {
        let long = [b"GET /", &[b'a'; MAX_HEAD][..]].concat();
        let cut = whole(&long);
        assert!(cut.truncated);
        assert_eq!((cut.target.len(), cut.minor), (MAX_HEAD - 4, None));
        assert!(matches!(request(&long[..MAX_HEAD - 1]), Parsed::Incomplete(Some(_))));
        let many = [b"GET / HTTP/1.1\r\n", &b"a:\n".repeat(MAX_HEAD)[..]].concat();
        assert_eq!((whole(&many).headers, whole(&many).truncated), ((MAX_HEAD - 16) / 3, true));
        assert!(matches!(request(&[b'A'; MAX_HEAD]), Parsed::NotThis(_)));
    }

    #[test]
    fn a_wrong_line_ends_the_head_and_leaves_what_stood_before() {
        let wrong = whole(b"GET / HTTP/1.1\r\nHost: a\r\nno header\r\nUser-Agent: b\r\n\r\n");
        assert_eq!((wrong.host.as_deref(), wrong.headers, wrong.user_agent), (Some("a"), 1, None));
        assert_eq!(wrong.malformed, Some("a byte that no header's name has"));
    }

    #[test]
    fn bytes_that_are_no_ascii_hide_nothing_and_steer_nothing() {
        let request = whole(b"\r\n\nGET /\xff/\xe2\x80\xae HTTP/1.1\r\nUser-Agent: \xe2\x80\xae\r\n\r\n");
        assert_eq!((request.target.as_str(), request.user_agent.as_deref()), (r"/\xff/\xe2\x80\xae", Some(r"\xe2\x80\xae")));
    }

    #[test]
    fn what_is_no_request_is_told() {
        for bytes in [
            &b"SSH-2.0-Go\r\n"[..],
            b"\x16\x03\x01",
            b"GET / RTSP/1.0\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"GET /\r\n",
            b"GET  / HTTP/1.1\r\n",
            b"\rGET / HTTP/1.1\r\n",
            b" GET",
            b"GET / HTTP/1.1 \r\n",
        ] {
            assert!(matches!(request(bytes), Parsed::NotThis(_)), "{bytes:?}: {:?}", request(bytes));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..400)) {
            fuzzing::http1(&bytes);
        }

        #[test]
        fn captured_heads_with_other_bytes_in_them_are_taken(
            which in 0..3_usize, at in any::<prop::sample::Index>(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
        ) {
            let mut bytes = [CURL, WGET, PYTHON][which].to_vec();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            fuzzing::http1(&fuzzing::with_cut(&bytes, at.index(bytes.len() + 1)));
        }
    }
}
