//! Whether what was read of some bytes is a beginning of what was read of more of them.

use std::fmt::Debug;

use crate::Parsed;
use crate::dns::{Data, Message, Record};
use crate::http1::{Request, Response};
use crate::ssh::Identification;
use crate::tls::{ClientHello, ServerHello};

/// What can be read in part.
pub(crate) trait Beginning: Debug + PartialEq {
    /// `self` could have been read of fewer bytes than `whole`.
    fn begins(&self, whole: &Self) -> bool;
}

/// Checks that the answer of `parse` to the first `at` bytes agrees with that to all of them: a final answer stays, another is a beginning.
///
/// # Panics
/// It does not.
pub(crate) fn check<T: Beginning>(parse: impl Fn(&[u8]) -> Parsed<T>, bytes: &[u8], at: usize) {
    let (part, whole) = (parse(&bytes[..at]), parse(bytes));
    let agree = match (&part, &whole) {
        (Parsed::NotThis(_), after) => matches!(after, Parsed::NotThis(_)),
        (Parsed::Complete(part), Parsed::Complete(whole)) => part == whole,
        (Parsed::Complete(_), _) => false,
        (Parsed::Incomplete(Some(part)), Parsed::Complete(whole) | Parsed::Incomplete(Some(whole))) => part.begins(whole),
        (Parsed::Incomplete(Some(_)), Parsed::Incomplete(None)) => false,
        (Parsed::Incomplete(_), Parsed::NotThis(_)) | (Parsed::Incomplete(None), _) => true,
    };
    assert!(agree, "{at} of {} bytes gave {part:?}, and all of them {whole:?}", bytes.len());
}

/// Not read yet, or as it stays.
fn unset_or<T: PartialEq + Default>(part: &T, whole: &T) -> bool {
    *part == T::default() || part == whole
}

impl Beginning for Message {
    fn begins(&self, whole: &Self) -> bool {
        let header = |message: &Self| {
            let flags = [message.response, message.authoritative, message.tc, message.recursion_desired, message.recursion_available];
            (message.id, message.opcode, message.rcode & 0xf, flags, message.announced)
        };
        let last = !self.additionals.is_empty() || !self.authorities.is_empty();
        header(self) == header(whole)
            && whole.questions.starts_with(&self.questions)
            && records(&self.answers, &whole.answers, last)
            && records(&self.authorities, &whole.authorities, !self.additionals.is_empty())
            && records(&self.additionals, &whole.additionals, false)
            && self.left_out <= whole.left_out
            && (self.malformed.is_none() || self.malformed == whole.malformed)
    }
}

/// The records of a section; the last that was read may have been cut within its data, unless others `follow`.
fn records(part: &[Record], whole: &[Record], follow: bool) -> bool {
    let Some((last, before)) = part.split_last() else { return true };
    let Some(same) = whole.get(before.len()) else { return false };
    let cut = Record { data: Data::Cut, ..same.clone() };
    whole.starts_with(before) && (last == same || (!follow && *last == cut))
}

impl Beginning for ClientHello {
    fn begins(&self, whole: &Self) -> bool {
        self.record_version == whole.record_version
            && unset_or(&self.version, &whole.version)
            && unset_or(&self.session_id_len, &whole.session_id_len)
            && whole.cipher_suites.starts_with(&self.cipher_suites)
            && whole.compression.starts_with(&self.compression)
            && whole.extensions.starts_with(&self.extensions)
            && unset_or(&self.server_name, &whole.server_name)
            && whole.alpn.starts_with(&self.alpn)
            && whole.supported_versions.starts_with(&self.supported_versions)
            && whole.groups.starts_with(&self.groups)
            && whole.point_formats.starts_with(&self.point_formats)
            && whole.signature_algorithms.starts_with(&self.signature_algorithms)
            && whole.key_shares.starts_with(&self.key_shares)
            && (self.ech.is_none() || self.ech == whole.ech)
            && self.truncated
            && self.malformed.is_none()
    }
}

impl Beginning for ServerHello {
    fn begins(&self, whole: &Self) -> bool {
        self.record_version == whole.record_version
            && unset_or(&self.version, &whole.version)
            && unset_or(&self.selected_version, &whole.selected_version)
            && unset_or(&self.session_id_len, &whole.session_id_len)
            && unset_or(&self.cipher_suite, &whole.cipher_suite)
            && unset_or(&self.compression, &whole.compression)
            && whole.extensions.starts_with(&self.extensions)
            && unset_or(&self.alpn, &whole.alpn)
            && unset_or(&self.group, &whole.group)
            && unset_or(&self.hello_retry_request, &whole.hello_retry_request)
            && self.truncated
            && self.malformed.is_none()
    }
}

impl Beginning for Request {
    fn begins(&self, whole: &Self) -> bool {
        self.method == whole.method
            && (self.target == whole.target || (self.minor.is_none() && whole.target.starts_with(&self.target)))
            && unset_or(&self.minor, &whole.minor)
            && unset_or(&self.host, &whole.host)
            && unset_or(&self.user_agent, &whole.user_agent)
            && unset_or(&self.content_length, &whole.content_length)
            && unset_or(&self.content_type, &whole.content_type)
            && self.headers <= whole.headers
            && self.truncated
            && self.malformed.is_none()
    }
}

impl Beginning for Response {
    fn begins(&self, whole: &Self) -> bool {
        self.minor == whole.minor
            && unset_or(&self.status, &whole.status)
            && unset_or(&self.reason, &whole.reason)
            && unset_or(&self.server, &whole.server)
            && unset_or(&self.content_length, &whole.content_length)
            && unset_or(&self.content_type, &whole.content_type)
            && self.headers <= whole.headers
            && self.truncated
            && self.malformed.is_none()
    }
}

impl Beginning for Identification {
    fn begins(&self, _whole: &Self) -> bool {
        // It is read when its line is whole, and not before.
        false
    }
}
