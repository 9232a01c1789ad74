//! The first bytes of a direction of a TCP connection, cut anywhere.

use super::beginning::check;
use super::{cut, is_safe};
use crate::{Protocol, classify, http1 as http, ssh as secure_shell, tls as hello};

/// TLS records with a hello of either side.
pub fn tls(data: &[u8]) {
    let Some((bytes, at)) = cut(data) else { return };
    stays(bytes, at);
    check(hello::client_hello, bytes, at);
    check(hello::server_hello, bytes, at);
    if let Some(hello) = hello::client_hello(bytes).read() {
        let listed =
            2 * (hello.cipher_suites.len() + hello.groups.len() + hello.signature_algorithms.len() + hello.supported_versions.len());
        assert!(listed + 4 * hello.extensions.len() + hello.compression.len() + hello.point_formats.len() <= bytes.len());
        assert!(hello.server_name.as_deref().is_none_or(is_safe));
        assert_eq!(hello.truncated, hello.ja3().is_none());
        let ja4 = hello.ja4();
        assert_eq!(hello.truncated, ja4.is_none());
        assert!(ja4.is_none_or(|ja4| ja4.len() == 36 && is_safe(&ja4)));
    }
    if let Some(hello) = hello::server_hello(bytes).read() {
        assert!(4 * hello.extensions.len() <= bytes.len());
        assert_eq!(hello.truncated, hello.ja3s().is_none());
    }
}

/// Heads of requests and responses.
pub fn http1(data: &[u8]) {
    let Some((bytes, at)) = cut(data) else { return };
    stays(bytes, at);
    check(http::request, bytes, at);
    check(http::response, bytes, at);
    if let Some(request) = http::request(bytes).read() {
        assert!(request.headers <= http::MAX_HEAD / 3);
        for text in
            [&request.host, &request.user_agent, &request.content_type].into_iter().flatten().chain([&request.method, &request.target])
        {
            assert!(is_safe(text) && text.len() <= 4 * http::MAX_HEAD);
        }
    }
    if let Some(response) = http::response(bytes).read() {
        for text in [&response.server, &response.content_type].into_iter().flatten().chain([&response.reason]) {
            assert!(is_safe(text) && text.len() <= 4 * http::MAX_HEAD);
        }
    }
}

/// Identification strings.
pub fn ssh(data: &[u8]) {
    let Some((bytes, at)) = cut(data) else { return };
    stays(bytes, at);
    check(secure_shell::identification, bytes, at);
    if let Some(peer) = secure_shell::identification(bytes).read() {
        assert!(peer.before.len() <= secure_shell::MAX_LINES);
        for text in peer.before.iter().chain(&peer.comments).chain([&peer.protocol, &peer.software]) {
            assert!(is_safe(text) && text.len() <= 4 * secure_shell::MAX_BYTES);
        }
    }
}

/// The protocol's name stays when it was told, and is told in the end.
fn stays(bytes: &[u8], at: usize) {
    let (part, whole) = (classify(&bytes[..at]), classify(bytes));
    assert!(part == Protocol::Incomplete || part == whole, "{at} bytes gave {part:?}, and all of them {whole:?}");
    assert!(whole != Protocol::Incomplete || bytes.len() < crate::MAX_CLASSIFIED);
}
