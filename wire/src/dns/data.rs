//! The data of resource records, by type.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{self, NameError};
use crate::cursor::Cursor;
use crate::text::escape;

/// Characters of a TXT record's text that are kept, before escapes: enough to recognise what it is for; how long all of it is says [`Data::Txt`].
pub const MAX_TXT: usize = 256;
/// Addresses of an HTTPS or SVCB record's hints that are kept.
pub const MAX_HINTS: usize = 16;

/// Types that are read (IANA "Resource Record (RR) TYPEs").
pub(super) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
}
/// Keys of service parameters (RFC 9460 §14.3.2).
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;

/// What a resource record says. Names are in presentation form, as [`super`] describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A: an IPv4 address.
    A(Ipv4Addr),
    /// AAAA: an IPv6 address.
    Aaaa(Ipv6Addr),
    /// CNAME: the name that this one is an alias of.
    Cname(String),
    /// NS: a name server.
    Ns(String),
    /// PTR: the name that an address or a service type points to.
    Ptr(String),
    /// MX: a mail exchange.
    Mx {
        /// Lower is asked first.
        preference: u16,
        /// The host.
        exchange: String,
    },
    /// TXT: text, which tunnels carry data in.
    Txt {
        /// Character strings.
        strings: usize,
        /// Bytes of all of them together.
        len: usize,
        /// The first [`MAX_TXT`] bytes of them, one string behind the other, escaped.
        text: String,
    },
    /// SRV: where a service is.
    Srv {
        /// Lower is asked first.
        priority: u16,
        /// Share among those of one priority.
        weight: u16,
        /// TCP or UDP port.
        port: u16,
        /// The host.
        target: String,
    },
    /// SVCB or HTTPS (RFC 9460).
    Svcb {
        /// 0: an alias.
        priority: u16,
        /// The host; `.` is the record's own name.
        target: String,
        /// Addresses of `ipv4hint` and `ipv6hint`, up to [`MAX_HINTS`], to which a client may connect without having asked for them.
        hints: Vec<IpAddr>,
        /// Addresses that are not kept because of [`MAX_HINTS`].
        left_out: usize,
    },
    /// A type that is not read here; [`super::Record::rtype`] has its number.
    Other,
    /// The message was cut within the data; [`super::Record::len`] says how long they were.
    Cut,
    /// The data are not what the type demands. Says why.
    Malformed(&'static str),
}

/// Reads the data of a record of this type, which lie at `start..end` of the message.
pub(super) fn read(message: &[u8], rtype: u16, start: usize, end: usize) -> Data {
    // Names within the data may point back to anywhere in the message, but not go beyond the data.
    let Some(message) = message.get(..end) else { return Data::Malformed("the record's data end outside of the message") };
    let Some(bytes) = message.get(start..) else { return Data::Malformed("the record's data begin outside of the message") };
    let mut cursor = Cursor::new(bytes);
    let whole_name = |at: usize| match name::read(message, at) {
        Ok((name, after)) if after == end => Ok(name),
        Ok(_) => Err("bytes follow the name in the record's data"),
        Err(NameError::Cut) => Err("the record's data end within a name"),
        Err(NameError::Malformed(why)) => Err(why),
    };
    let read = match rtype {
        rtype::A => <[u8; 4]>::try_from(bytes).map(|bytes| Data::A(bytes.into())).map_err(|_| "an address that is not 4 bytes"),
        rtype::AAAA => <[u8; 16]>::try_from(bytes).map(|bytes| Data::Aaaa(bytes.into())).map_err(|_| "an address that is not 16 bytes"),
        rtype::CNAME => whole_name(start).map(Data::Cname),
        rtype::NS => whole_name(start).map(Data::Ns),
        rtype::PTR => whole_name(start).map(Data::Ptr),
        rtype::MX => match cursor.u16() {
            Some(preference) => whole_name(start + 2).map(|exchange| Data::Mx { preference, exchange }),
            None => Err("the record's data end within its numbers"),
        },
        rtype::SRV => match (cursor.u16(), cursor.u16(), cursor.u16()) {
            (Some(priority), Some(weight), Some(port)) => whole_name(start + 6).map(|target| Data::Srv { priority, weight, port, target }),
            _ => Err("the record's data end within its numbers"),
        },
        rtype::TXT => txt(cursor),
        rtype::SVCB | rtype::HTTPS => svcb(message, start, cursor),
        _ => Ok(Data::Other),
    };
    read.unwrap_or_else(Data::Malformed)
}

/// Character strings, each behind a byte of length.
fn txt(mut cursor: Cursor<'_>) -> Result<Data, &'static str> {
    let (mut strings, mut len, mut shown) = (0, 0, Vec::new());
    while let Some(length) = cursor.u8() {
        let string = cursor.take(length.into()).ok_or("the record's data end within a character string")?;
        strings += 1;
        len += string.len();
        shown.extend_from_slice(string.get(..MAX_TXT - shown.len()).unwrap_or(string));
    }
    Ok(Data::Txt { strings, len, text: escape(&shown) })
}

/// Priority, target and parameters of RFC 9460 §2.2.
fn svcb(message: &[u8], start: usize, mut cursor: Cursor<'_>) -> Result<Data, &'static str> {
    let priority = cursor.u16().ok_or("the record's data end within its numbers")?;
    let (target, after) = name::read(message, start + 2).map_err(|error| match error {
        NameError::Cut => "the record's data end within a name",
        NameError::Malformed(why) => why,
    })?;
    let mut params = Cursor::new(message.get(after..).unwrap_or_default());
    let mut hints: Vec<IpAddr> = Vec::new();
    while !params.is_empty() {
        let (Some(key), Some(length)) = (params.u16(), params.u16()) else {
            return Err("the record's data end within a service parameter");
        };
        let value = params.take(length.into()).ok_or("the record's data end within a service parameter")?;
        match key {
            IPV4HINT => hints.extend(value.as_chunks::<4>().0.iter().map(|bytes| IpAddr::from(*bytes))),
            IPV6HINT => hints.extend(value.as_chunks::<16>().0.iter().map(|bytes| IpAddr::from(*bytes))),
            _ => {}
        }
    }
    let left_out = hints.len().saturating_sub(MAX_HINTS);
    hints.truncate(MAX_HINTS);
    Ok(Data::Svcb { priority, target, hints, left_out })
}
