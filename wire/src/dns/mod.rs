//! DNS messages (RFC 1035) with EDNS (RFC 6891), multicast DNS (RFC 6762), and DNS over TCP (RFC 7766).
//!
//! A message that was cut gives what could be read, with [`Message::truncated`], of the record where it was cut all but the data ([`Data::Cut`]);
//! data of a record that are not what its type demands are [`Data::Malformed`], and the rest of the message is read all the same. Names are in presentation form: labels with dots between them, `.` for
//! the root and no dot at the end otherwise, in lower case, a dot or backslash within a label behind a backslash, and bytes that are no visible
//! ASCII as `\DDD` (RFC 4343).
//!
//! Why not a library: `simple-dns` 0.11 gives an error for the whole message when one record is cut or wrong, and keeps its record parser to
//! itself; `hickory-proto` 0.26 reads record by record, but stops for good at one with wrong data, has no bound on how many records it keeps, and
//! brings 51 crates. What is needed here is the part below, without the resolver around it.
//!
//! ```
//! use bartizan_wire::dns;
//!
//! // A query for the address of example.com.
//! let payload = b"\x2a\x17\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07Example\x03com\x00\x00\x01\x00\x01";
//! let message = dns::message(payload).expect("DNS");
//! assert_eq!((message.id, message.response), (0x2a17, false));
//! assert_eq!(message.questions[0].name, "example.com");
//!
//! // The same, cut by whoever copied it.
//! let message = dns::message(&payload[..20]).expect("DNS");
//! assert!(message.truncated && message.questions.is_empty());
//! ```

mod data;
mod name;
#[cfg(test)]
mod tests;

use crate::Parsed;
use crate::cursor::Cursor;
use data::rtype;
pub use data::{Data, MAX_HINTS, MAX_TXT};
use name::NameError;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use name::{from_wire, to_wire};

/// Questions of a message that are kept. Resolvers ask one; multicast DNS a few.
pub const MAX_QUESTIONS: usize = 32;
/// Records of a message that are kept, of all sections together.
pub const MAX_RECORDS: usize = 128;
/// Options of EDNS that are kept.
pub const MAX_OPTIONS: usize = 16;
/// Bytes of a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;
/// The top bit of a class in multicast DNS: unicast answer wanted, or cache flush (RFC 6762 §18.12, §18.13).
const TOP_BIT: u16 = 0x8000;

/// A DNS message, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Chosen by who asks, repeated by who answers.
    pub id: u16,
    /// A response (QR), not a query.
    pub response: bool,
    /// What is asked for; 0: a standard query.
    pub opcode: u8,
    /// The answer is from an authority (AA).
    pub authoritative: bool,
    /// The sender left something out for lack of room (TC), and asks to be asked over TCP.
    pub tc: bool,
    /// Recursion desired (RD).
    pub recursion_desired: bool,
    /// Recursion available (RA).
    pub recursion_available: bool,
    /// Response code, with the upper eight bits from EDNS where there are any; 0: no error, 3: no such name.
    pub rcode: u16,
    /// Numbers of questions, answers, authorities and additional records that the header announces.
    pub announced: [u16; 4],
    /// Up to [`MAX_QUESTIONS`].
    pub questions: Vec<Question>,
    /// Up to [`MAX_RECORDS`] together with the two below.
    pub answers: Vec<Record>,
    /// Of the authority section.
    pub authorities: Vec<Record>,
    /// Of the additional section, without OPT.
    pub additionals: Vec<Record>,
    /// EDNS (RFC 6891), if an OPT record was read.
    pub edns: Option<Edns>,
    /// Questions and records that were read and are not kept, because of [`MAX_QUESTIONS`] and [`MAX_RECORDS`].
    pub left_out: usize,
    /// The bytes end before what the header announces does: what is here was read, and more was sent. That the sender left something out is [`Self::tc`].
    pub truncated: bool,
    /// Why reading stopped before the end, when what follows is no question or record.
    pub malformed: Option<&'static str>,
    /// Bytes behind the last record.
    pub trailing: usize,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In presentation form.
    pub name: String,
    /// Number of the type asked for; 255: any.
    pub qtype: u16,
    /// Number of the class asked for; 1: Internet, 255: any.
    pub qclass: u16,
    /// Multicast DNS: the answer may come by unicast.
    pub unicast: bool,
}

/// A resource record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// In presentation form.
    pub name: String,
    /// Number of the type.
    pub rtype: u16,
    /// Number of the class; 1: Internet.
    pub class: u16,
    /// Multicast DNS: the records of this name and type that were known before are to be forgotten.
    pub cache_flush: bool,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    /// Bytes of the data.
    pub len: u16,
    /// The data.
    pub data: Data,
}

/// What an OPT record says (RFC 6891 §6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edns {
    /// Bytes of UDP payload that the sender can take.
    pub udp_payload: u16,
    /// 0.
    pub version: u8,
    /// DNSSEC records are wanted (DO).
    pub dnssec: bool,
    /// Code and length in bytes of each option, up to [`MAX_OPTIONS`].
    pub options: Vec<(u16, u16)>,
    /// Options that are not kept because of [`MAX_OPTIONS`].
    pub left_out: usize,
}

/// The payload of a UDP packet from or to port 53, which may have been cut at its end.
///
/// # Errors
/// It is no DNS message: says why. Then something else is spoken on that port.
pub fn message(payload: &[u8]) -> Result<Message, &'static str> {
    read(payload, Kind::Unicast)
}

/// The payload of a UDP packet from or to port 5353, which may have been cut at its end.
///
/// # Errors
/// It is no DNS message: says why. Then something else is spoken on that port.
pub fn multicast(payload: &[u8]) -> Result<Message, &'static str> {
    read(payload, Kind::Multicast)
}

/// The messages of one direction of a TCP connection from or to port 53, from its first byte on, each behind two bytes of length. Ends behind the
/// first that is not complete.
pub fn tcp(stream: &[u8]) -> Messages<'_> {
    Messages { rest: Some(stream) }
}

/// See [`tcp`].
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    /// What was not read yet, unless the last message was not complete.
    rest: Option<&'a [u8]>,
}

impl Iterator for Messages<'_> {
    type Item = Parsed<Message>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut cursor = Cursor::new(self.rest.take()?);
        if cursor.is_empty() {
            return None;
        }
        let Some(length) = cursor.u16().map(usize::from) else { return Some(Parsed::Incomplete(None)) };
        if length < HEADER {
            return Some(Parsed::NotThis("a length that no DNS message has"));
        }
        let payload = cursor.take_some(length);
        if payload.len() < length {
            // Not enough for a header is no message yet; what else is wrong with a header is wrong whatever follows.
            return Some(match (payload.len() < HEADER, message(payload)) {
                (true, _) => Parsed::Incomplete(None),
                (false, Ok(part)) => Parsed::Incomplete(Some(part)),
                (false, Err(why)) => Parsed::NotThis(why),
            });
        }
        Some(match message(payload) {
            Ok(whole) => {
                self.rest = Some(cursor.rest());
                Parsed::Complete(whole)
            }
            Err(why) => Parsed::NotThis(why),
        })
    }
}

/// Whether the top bit of a class has its meaning in multicast DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unicast,
    Multicast,
}

impl Kind {
    /// Class, and whether the top bit was set.
    fn class(self, class: u16) -> (u16, bool) {
        match self {
            Self::Unicast => (class, false),
            Self::Multicast => (class & !TOP_BIT, class & TOP_BIT != 0),
        }
    }
}

/// The header, then its sections until something stops that.
fn read(bytes: &[u8], kind: Kind) -> Result<Message, &'static str> {
    let mut message = header(bytes)?;
    let mut at = HEADER;
    match sections(bytes, kind, &mut message, &mut at) {
        Ok(()) => message.trailing = bytes.len().saturating_sub(at),
        Err(NameError::Cut) => message.truncated = true,
        // Not one name was right: this is something else, of which twelve bytes looked like a header.
        Err(NameError::Malformed(why)) if at == HEADER => return Err(why),
        Err(NameError::Malformed(why)) => message.malformed = Some(why),
    }
    Ok(message)
}

/// A message that has only its header yet.
fn header(bytes: &[u8]) -> Result<Message, &'static str> {
    let mut cursor = Cursor::new(bytes);
    let mut next = || cursor.u16().ok_or("shorter than the header of a DNS message");
    let (id, flags) = (next()?, next()?);
    let announced = [next()?, next()?, next()?, next()?];
    let bit = |bit: u32| flags & (1 << bit) != 0;
    // Four bits at 11, of which the values 0, 1, 2, 4, 5 and 6 are assigned (IANA "DNS OpCodes").
    let opcode = (flags >> 11 & 0xf) as u8;
    if opcode == 3 || opcode > 6 {
        return Err("an operation that DNS does not have");
    }
    if announced == [0; 4] && bytes.len() > HEADER {
        return Err("bytes behind a header that announces nothing");
    }
    Ok(Message {
        id,
        response: bit(15),
        opcode,
        authoritative: bit(10),
        tc: bit(9),
        recursion_desired: bit(8),
        recursion_available: bit(7),
        rcode: flags & 0xf,
        announced,
        questions: Vec::new(),
        answers: Vec::new(),
        authorities: Vec::new(),
        additionals: Vec::new(),
        edns: None,
        left_out: 0,
        truncated: false,
        malformed: None,
        trailing: 0,
    })
}

/// Reads all sections. `at` is behind the last question or record that was read.
fn sections(bytes: &[u8], kind: Kind, message: &mut Message, at: &mut usize) -> Result<(), NameError> {
    let [questions, answers, authorities, additionals] = message.announced;
    for _ in 0..questions {
        let (question, after) = question(bytes, kind, *at)?;
        if message.questions.len() < MAX_QUESTIONS {
            message.questions.push(question);
        } else {
            message.left_out += 1;
        }
        *at = after;
    }
    let mut kept = 0;
    for (section, count) in [(Section::Answer, answers), (Section::Authority, authorities), (Section::Additional, additionals)] {
        for _ in 0..count {
            let raw = raw(bytes, *at)?;
            *at = raw.end.min(bytes.len());
            // Behind a record that was cut the next one finds no byte.
            message.truncated |= raw.end > bytes.len();
            if raw.rtype == rtype::OPT && section == Section::Additional && message.edns.is_none() {
                let (edns, upper) = edns(&raw, bytes);
                message.edns = Some(edns);
                message.rcode |= upper;
                continue;
            }
            if kept == MAX_RECORDS {
                message.left_out += 1;
                continue;
            }
            kept += 1;
            let records = match section {
                Section::Answer => &mut message.answers,
                Section::Authority => &mut message.authorities,
                Section::Additional => &mut message.additionals,
            };
            records.push(record(raw, bytes, kind));
        }
    }
    Ok(())
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// The question at `at`, and where the next begins.
fn question(bytes: &[u8], kind: Kind, at: usize) -> Result<(Question, usize), NameError> {
    let (name, after) = name::read(bytes, at)?;
    let mut cursor = Cursor::new(bytes.get(after..).unwrap_or_default());
    let (Some(qtype), Some(class)) = (cursor.u16(), cursor.u16()) else { return Err(NameError::Cut) };
    let (qclass, unicast) = kind.class(class);
    Ok((Question { name, qtype, qclass, unicast }, after + 4))
}

/// A record whose data are not read yet.
struct Raw {
    name: String,
    rtype: u16,
    class: u16,
    ttl: u32,
    len: u16,
    /// Where the data begin in the message.
    start: usize,
    /// Where they end, which is beyond the message if that was cut.
    end: usize,
}

/// The record at `at`.
fn raw(bytes: &[u8], at: usize) -> Result<Raw, NameError> {
    let (name, after) = name::read(bytes, at)?;
    let mut cursor = Cursor::new(bytes.get(after..).unwrap_or_default());
    let (Some(rtype), Some(class), Some(ttl), Some(len)) = (cursor.u16(), cursor.u16(), cursor.u32(), cursor.u16()) else {
        return Err(NameError::Cut);
    };
    let start = after + 10;
    Ok(Raw { name, rtype, class, ttl, len, start, end: start + usize::from(len) })
}

/// With its data.
fn record(raw: Raw, bytes: &[u8], kind: Kind) -> Record {
    let Raw { name, rtype, class, ttl, len, start, end } = raw;
    let (class, cache_flush) = kind.class(class);
    let data = if end > bytes.len() { Data::Cut } else { data::read(bytes, rtype, start, end) };
    Record { name, rtype, class, cache_flush, ttl, len, data }
}

/// What an OPT record says, and the upper bits of the response code.
fn edns(raw: &Raw, bytes: &[u8]) -> (Edns, u16) {
    let [upper, version, flags, _] = raw.ttl.to_be_bytes();
    let mut edns = Edns { udp_payload: raw.class, version, dnssec: flags & 0x80 != 0, options: Vec::new(), left_out: 0 };
    let mut cursor = Cursor::new(bytes.get(raw.start..raw.end.min(bytes.len())).unwrap_or_default());
    while let (Some(code), Some(length)) = (cursor.u16(), cursor.u16()) {
        if edns.options.len() < MAX_OPTIONS {
            edns.options.push((code, length));
        } else {
            edns.left_out += 1;
        }
        cursor.take_some(length.into());
    }
    (edns, u16::from(upper) << 4)
}
