//! ClientHello and ServerHello (RFC 8446 §4.1, RFC 5246 §7.4.1) out of the record streams of a TCP connection, and their fingerprints.
//!
//! A hello may lie in one record or in several, of which the last may not be there yet: [`client_hello`] and [`server_hello`] give
//! [`Incomplete`](crate::Parsed::Incomplete) with what they could read until then. Values that a peer sends to keep others honest (GREASE, RFC 8701)
//! stay in the lists as they were sent; fingerprints leave them out ([`is_grease`]).
//!
//! Out of scope: QUIC and DTLS, which have hellos in other wrappings; a hello in the form of SSL 2; what stands behind the hello; everything that is
//! encrypted, as the ALPN that a server of TLS 1.3 chooses is.
//!
//! Why not `tls-parser` 0.12: it takes a hello in one piece only, and gives nothing of one that is cut, as a hello with a post-quantum key share is
//! in 2 KiB; it brings 25 crates for the two messages below.
//!
//! ```
//! use bartizan_wire::{Parsed, tls};
//!
//! // TLS 1.2 and one cipher suite, no extensions: what no browser sends.
//! let mut bytes = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03".to_vec();
//! bytes.extend([7; 32]);
//! bytes.extend(b"\x00\x00\x02\xc0\x2f\x01\x00");
//! let Parsed::Complete(hello) = tls::client_hello(&bytes) else { panic!("a hello") };
//! assert_eq!(hello.cipher_suites, [0xc02f]);
//! assert_eq!(hello.ja3_text().as_deref(), Some("771,49199,,,"));
//! assert_eq!(hello.ja4().as_deref(), Some("t12i010000_f06271c2b022_000000000000"));
//! assert!(matches!(tls::client_hello(&bytes[..40]), Parsed::Incomplete(_)));
//! ```

mod client;
mod fingerprint;
mod handshake;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientHello, Ech, client_hello};
pub use server::{ServerHello, server_hello};

/// Numbers of extensions that are read (IANA "TLS ExtensionType Values").
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const EC_POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const ALPN: u16 = 16;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const KEY_SHARE: u16 = 51;
    pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
}

/// One of the sixteen values of RFC 8701 for cipher suites, extensions, groups, signature algorithms and versions: 0x0a0a, 0x1a1a … 0xfafa.
pub fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}
