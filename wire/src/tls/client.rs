//! What a client offers.

use std::collections::BTreeSet;

use super::{extension, handshake};
use crate::Parsed;
use crate::cursor::Cursor;
use crate::text::escape;

/// Type of the message.
const CLIENT_HELLO: u8 = 1;
/// Bytes of a session id (RFC 5246 §7.4.1.2).
pub(super) const MAX_SESSION_ID: u8 = 32;
/// Kind of a server name: a host's.
const HOST_NAME: u8 = 0;

/// What a client offers, in the order in which it does, GREASE included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Version of the first record.
    pub record_version: u16,
    /// Legacy version: 0x0303 of all that offer TLS 1.2 or newer.
    pub version: u16,
    /// Bytes of the session id.
    pub session_id_len: u8,
    /// Numbers of cipher suites.
    pub cipher_suites: Vec<u16>,
    /// Compression methods; since TLS 1.3 only 0.
    pub compression: Vec<u8>,
    /// Numbers of the extensions.
    pub extensions: Vec<u16>,
    /// Host of the SNI extension, escaped.
    pub server_name: Option<String>,
    /// Protocols of the ALPN extension, as bytes: show them by [`escape`].
    pub alpn: Vec<Vec<u8>>,
    /// Versions of the extension of TLS 1.3.
    pub supported_versions: Vec<u16>,
    /// Groups for the key exchange ("elliptic curves").
    pub groups: Vec<u16>,
    /// Formats of points on elliptic curves.
    pub point_formats: Vec<u8>,
    /// Numbers of signature algorithms.
    pub signature_algorithms: Vec<u16>,
    /// Groups that a key share was sent for.
    pub key_shares: Vec<u16>,
    /// Encrypted ClientHello: the name in [`Self::server_name`] is then that of the provider, not of the site.
    pub ech: Option<Ech>,
    /// Not all of the hello was there. No fingerprint can be taken.
    pub truncated: bool,
    /// Why reading stopped, or what was left out, when the content of an extension is not what its number demands: the first such.
    pub malformed: Option<&'static str>,
}

/// What kind of Encrypted ClientHello extension was sent (RFC 9849 §5). One that carries random bytes, for GREASE, looks like `Outer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ech {
    /// There is an encrypted hello inside, or that is what it shall look like.
    Outer,
    /// This is an inner hello in the clear.
    Inner,
}

/// The ClientHello that a client's direction begins with.
pub fn client_hello(stream: &[u8]) -> Parsed<ClientHello> {
    let begin = |record_version, truncated| ClientHello { record_version, truncated, ..ClientHello::default() };
    handshake::hello(stream, CLIENT_HELLO, begin, fields)
}

/// Reads into `hello`. `Ok(None)`: the bytes ended before the extensions.
fn fields(body: &[u8], hello: &mut ClientHello) -> Result<Option<()>, &'static str> {
    let mut cursor = Cursor::new(body);
    let mut extensions = match before_extensions(&mut cursor, hello)? {
        Some(()) => cursor,
        None => return Ok(None),
    };
    if extensions.is_empty() {
        // SSL 3 and TLS 1.0 know none, and a hello that is cut here does not say.
        return Ok(Some(()));
    }
    let Some(length) = extensions.u16() else {
        hello.note("bytes behind a hello");
        return Ok(Some(()));
    };
    let mut rest = extensions;
    let mut list = Cursor::new(rest.take_some(length.into()));
    if !hello.truncated && (list.rest().len() < usize::from(length) || !rest.is_empty()) {
        hello.note("extensions of another length than they say");
    }
    let mut seen = BTreeSet::new();
    while !list.is_empty() {
        let (Some(number), Some(length)) = (list.u16(), list.u16()) else {
            hello.note("an extension without a number and a length");
            break;
        };
        let first = seen.insert(number);
        hello.extensions.push(number);
        let content = list.take_some(length.into());
        let whole = content.len() == usize::from(length);
        if !whole {
            hello.note("an extension longer than the hello");
        }
        // Of two with one number, which RFC 8446 §4.2 forbids, the first counts.
        if !first {
            hello.note("an extension that is there twice");
        } else if read_extension(number, content, hello).is_none() {
            hello.note("an extension's content is not what its number demands");
        }
    }
    Ok(Some(()))
}

/// Version, random, session id, cipher suites, compression methods.
fn before_extensions(cursor: &mut Cursor<'_>, hello: &mut ClientHello) -> Result<Option<()>, &'static str> {
    let Some(version) = cursor.u16() else { return Ok(None) };
    if version >> 8 != 3 {
        return Err("a hello of no version of TLS");
    }
    hello.version = version;
    if cursor.take(32).is_none() {
        return Ok(None);
    }
    let Some(length) = cursor.u8() else { return Ok(None) };
    if length > MAX_SESSION_ID {
        return Err("a session id longer than 32 bytes");
    }
    hello.session_id_len = length;
    if cursor.take(length.into()).is_none() {
        return Ok(None);
    }
    let Some(length) = cursor.u16().map(usize::from) else { return Ok(None) };
    if !length.is_multiple_of(2) {
        return Err("half a cipher suite");
    }
    let suites = cursor.take_some(length);
    hello.cipher_suites = numbers(suites);
    if suites.len() < length {
        return Ok(None);
    }
    let Some(length) = cursor.u8().map(usize::from) else { return Ok(None) };
    let methods = cursor.take_some(length);
    hello.compression = methods.to_vec();
    Ok((methods.len() == length).then_some(()))
}

impl ClientHello {
    /// The first thing that is wrong. What is only cut is not wrong.
    fn note(&mut self, what: &'static str) {
        if !self.truncated {
            self.malformed.get_or_insert(what);
        }
    }
}

/// Reads the content of an extension that is of interest; `None` if it is not what it should be. Of what was cut it gives the items that are whole.
fn read_extension(number: u16, content: &[u8], hello: &mut ClientHello) -> Option<()> {
    let mut cursor = Cursor::new(content);
    // All but one are a list behind its length.
    let length = match number {
        extension::SUPPORTED_VERSIONS | extension::EC_POINT_FORMATS => cursor.u8()?.into(),
        extension::SERVER_NAME | extension::ALPN | extension::SUPPORTED_GROUPS | extension::SIGNATURE_ALGORITHMS | extension::KEY_SHARE => {
            usize::from(cursor.u16()?)
        }
        extension::ENCRYPTED_CLIENT_HELLO => {
            hello.ech = match cursor.u8()? {
                0 => Some(Ech::Outer),
                1 => Some(Ech::Inner),
                _ => None,
            };
            return hello.ech.map(|_| ());
        }
        _ => return Some(()),
    };
    let mut list = Cursor::new(cursor.take_some(length));
    let exact = list.rest().len() == length && cursor.is_empty();
    let mut even = true;
    match number {
        extension::SERVER_NAME => {
            // It has one name in practice: the first host's counts.
            while !list.is_empty() {
                let kind = list.u8()?;
                let length = list.u16()?;
                let name = list.take(length.into())?;
                if kind == HOST_NAME && hello.server_name.is_none() {
                    hello.server_name = Some(escape(name));
                }
            }
        }
        extension::ALPN => {
            while !list.is_empty() {
                let length = list.u8()?;
                hello.alpn.push(list.take(length.into())?.to_vec());
            }
        }
        extension::KEY_SHARE => {
            while !list.is_empty() {
                hello.key_shares.push(list.u16()?);
                let length = list.u16()?;
                list.take(length.into())?;
            }
        }
        extension::EC_POINT_FORMATS => hello.point_formats = list.rest().to_vec(),
        _ => {
            even = length.is_multiple_of(2);
            let numbers = numbers(list.rest());
            match number {
                extension::SUPPORTED_VERSIONS => hello.supported_versions = numbers,
                extension::SUPPORTED_GROUPS => hello.groups = numbers,
                _ => hello.signature_algorithms = numbers,
            }
        }
    }
    (exact && even).then_some(())
}

/// Two bytes each; half of one is left out.
fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_be_bytes(*bytes)).collect()
}
