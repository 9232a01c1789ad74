//! What a server chose.

use std::collections::BTreeSet;

use super::client::MAX_SESSION_ID;
use super::{extension, handshake};
use crate::Parsed;
use crate::cursor::Cursor;

/// Type of the message.
const SERVER_HELLO: u8 = 2;
/// Random of a ServerHello that asks for another ClientHello: the SHA-256 of "HelloRetryRequest" (RFC 8446 §4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
    0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a server chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// Version of the first record.
    pub record_version: u16,
    /// Legacy version: 0x0303 also of TLS 1.3.
    pub version: u16,
    /// Version of the extension of TLS 1.3.
    pub selected_version: Option<u16>,
    /// Bytes of the session id.
    pub session_id_len: u8,
    /// The cipher suite.
    pub cipher_suite: Option<u16>,
    /// The compression method.
    pub compression: Option<u8>,
    /// Numbers of the extensions in their order.
    pub extensions: Vec<u16>,
    /// The protocol of the ALPN extension, as bytes; show it by [`crate::escape`]. A server of TLS 1.3 encrypts it.
    pub alpn: Option<Vec<u8>>,
    /// The group of the key exchange, which a server of TLS 1.3 names here.
    pub group: Option<u16>,
    /// The client is to begin again, with another key share.
    pub hello_retry_request: bool,
    /// Not all of the hello was there. No fingerprint can be taken.
    pub truncated: bool,
    /// What is wrong, when the content of an extension is not what its number demands: the first such.
    pub malformed: Option<&'static str>,
}

impl ServerHello {
    /// The version that is spoken from here on.
    pub fn negotiated(&self) -> u16 {
        self.selected_version.unwrap_or(self.version)
    }

    /// The first thing that is wrong. What is only cut is not wrong.
    fn note(&mut self, what: &'static str) {
        if !self.truncated {
            self.malformed.get_or_insert(what);
        }
    }
}

/// The ServerHello that a server's direction begins with.
pub fn server_hello(stream: &[u8]) -> Parsed<ServerHello> {
    let begin = |record_version, truncated| ServerHello { record_version, truncated, ..ServerHello::default() };
    handshake::hello(stream, SERVER_HELLO, begin, fields)
}

/// Reads into `hello`. `Ok(None)`: the bytes ended before the extensions.
fn fields(body: &[u8], hello: &mut ServerHello) -> Result<Option<()>, &'static str> {
    let mut cursor = Cursor::new(body);
    let Some(version) = cursor.u16() else { return Ok(None) };
    if version >> 8 != 3 {
        return Err("a hello of no version of TLS");
    }
    hello.version = version;
    let Some(random) = cursor.take(32) else { return Ok(None) };
    hello.hello_retry_request = random == RETRY;
    let Some(length) = cursor.u8() else { return Ok(None) };
    if length > MAX_SESSION_ID {
        return Err("a session id longer than 32 bytes");
    }
    hello.session_id_len = length;
    if cursor.take(length.into()).is_none() {
        return Ok(None);
    }
    let Some(suite) = cursor.u16() else { return Ok(None) };
    hello.cipher_suite = Some(suite);
    let Some(method) = cursor.u8() else { return Ok(None) };
    hello.compression = Some(method);
    if cursor.is_empty() {
        return Ok(Some(()));
    }
    let Some(length) = cursor.u16() else {
        hello.note("bytes behind a hello");
        return Ok(Some(()));
    };
    let mut list = Cursor::new(cursor.take_some(length.into()));
    if list.rest().len() < usize::from(length) || !cursor.is_empty() {
        hello.note("extensions of another length than they say");
    }
    let mut seen = BTreeSet::new();
    while !list.is_empty() {
        let (Some(number), Some(length)) = (list.u16(), list.u16()) else {
            hello.note("an extension without a number and a length");
            break;
        };
        hello.extensions.push(number);
        let content = list.take_some(length.into());
        if content.len() < usize::from(length) {
            hello.note("an extension longer than the hello");
        } else if !seen.insert(number) {
            hello.note("an extension that is there twice");
        } else if read_extension(number, content, hello).is_none() {
            hello.note("an extension's content is not what its number demands");
        }
    }
    Ok(Some(()))
}

/// Reads the content of an extension that is of interest; `None` if it is not what it should be.
fn read_extension(number: u16, content: &[u8], hello: &mut ServerHello) -> Option<()> {
    let mut cursor = Cursor::new(content);
    match number {
        extension::SUPPORTED_VERSIONS => hello.selected_version = Some(cursor.u16()?),
        extension::ALPN => {
            // A list of exactly one.
            cursor.u16()?;
            let length = cursor.u8()?;
            hello.alpn = Some(cursor.take(length.into())?.to_vec());
        }
        extension::KEY_SHARE => {
            // The group alone in a retry; else a key of this group behind it.
            hello.group = Some(cursor.u16()?);
            if !hello.hello_retry_request {
                let length = cursor.u16()?;
                cursor.take(length.into())?;
            }
        }
        _ => return Some(()),
    }
    cursor.is_empty().then_some(())
}
