//! The first handshake message of a record stream, put together from its records.

use std::borrow::Cow;

use crate::Parsed;
use crate::cursor::Cursor;

/// Bytes of a record in the clear (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;
/// Bytes of a hello's body: 2 of version, 32 of random, session id, cipher suites, compression methods and extensions, each as long as its length
/// bytes can say.
const MAX_HELLO: usize = 2 + 32 + (1 + 32) + (2 + 0xffff) + (1 + 0xff) + (2 + 0xffff);
/// Content types of records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// A handshake message, as far as its bytes are there.
struct Handshake<'a> {
    /// Version of the first record, which says little: it is 0x0301 or 0x0303 whatever is offered.
    record_version: u16,
    /// Of the message, behind its type and length.
    body: Cow<'a, [u8]>,
    /// All of the body is there.
    whole: bool,
}

/// Reads the hello of type `wanted` that `stream` begins with. `begin` makes an empty one of the first record's version and whether it is cut;
/// `fields` reads the body into it, and answers `None` where the body ended before the extensions.
pub(super) fn hello<T>(
    stream: &[u8],
    wanted: u8,
    begin: impl FnOnce(u16, bool) -> T,
    fields: impl FnOnce(&[u8], &mut T) -> Result<Option<()>, &'static str>,
) -> Parsed<T> {
    let Handshake { record_version, body, whole } = match first(stream, wanted) {
        Ok(Some(message)) => message,
        Ok(None) => return Parsed::Incomplete(None),
        Err(why) => return Parsed::NotThis(why),
    };
    let mut hello = begin(record_version, !whole);
    match (fields(&body, &mut hello), whole) {
        (Err(why), _) => Parsed::NotThis(why),
        (Ok(Some(())), true) => Parsed::Complete(hello),
        (Ok(None), true) => Parsed::NotThis("a hello that ends within its fields"),
        (Ok(_), false) => Parsed::Incomplete(Some(hello)),
    }
}

/// Reads the message of type `wanted` that `stream` begins with. `Ok(None)`: not even its length is there.
///
/// # Errors
/// The stream begins with something else: says what.
fn first(stream: &[u8], wanted: u8) -> Result<Option<Handshake<'_>>, &'static str> {
    let mut records = Cursor::new(stream);
    let mut record_version = None;
    // The message with its type and length, and what it is as long as.
    let mut message = Cow::Borrowed(&[][..]);
    let mut end = None;
    while end.is_none_or(|end| message.len() < end) {
        let Some(record) = record(&mut records)? else { break };
        record_version.get_or_insert(record.version);
        if message.is_empty() {
            message = Cow::Borrowed(record.content);
        } else {
            message.to_mut().extend_from_slice(record.content);
        }
        end = length(&message, wanted)?;
        if !record.whole {
            break;
        }
    }
    let (Some(record_version), Some(end)) = (record_version, end) else { return Ok(None) };
    let whole = message.len() >= end;
    let body = match message {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(HEADER..end.min(bytes.len())).unwrap_or_default()),
        Cow::Owned(mut bytes) => {
            bytes.truncate(end);
            bytes.drain(..HEADER.min(bytes.len()));
            Cow::Owned(bytes)
        }
    };
    Ok(Some(Handshake { record_version, body, whole }))
}

/// Bytes of type and length before the body.
const HEADER: usize = 4;

/// Where the message ends that begins so, or `None` if its length is not there yet.
fn length(message: &[u8], wanted: u8) -> Result<Option<usize>, &'static str> {
    match message.first() {
        Some(kind) if *kind != wanted => return Err("a handshake that begins with another message"),
        Some(_) | None => {}
    }
    let Some((&[_, high, middle, low], _)) = message.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > MAX_HELLO {
        return Err("a hello longer than any can be");
    }
    Ok(Some(HEADER + length))
}

/// One record, as far as it is there.
struct Record<'a> {
    version: u16,
    content: &'a [u8],
    whole: bool,
}

/// The next record, or `None` if its header is not there yet. What is wrong with a header is told as soon as the byte is there.
fn record<'a>(stream: &mut Cursor<'a>) -> Result<Option<Record<'a>>, &'static str> {
    match stream.rest() {
        [HANDSHAKE, ..] | [] => {}
        [ALERT, ..] => return Err("an alert instead of a hello"),
        [_, ..] => return Err("not a handshake record"),
    }
    if matches!(stream.rest(), [_, major, ..] if *major != 3) {
        return Err("a record of no version of TLS");
    }
    let header = (stream.u8(), stream.u16(), stream.u16());
    let (Some(_), Some(version), Some(length)) = header else { return Ok(None) };
    let length = usize::from(length);
    if length == 0 || length > MAX_RECORD {
        return Err("a handshake record of a length that none has");
    }
    let content = stream.take_some(length);
    Ok(Some(Record { version, content, whole: content.len() == length }))
}
