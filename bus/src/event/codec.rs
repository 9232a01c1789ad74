//! The stored form: one version byte, then CBOR.

use std::cell::RefCell;

use minicbor::{Decode, Encode};

use super::{Alert, PatternMatch, SecurityEvent};

/// Version of the stored encoding. Raised only when an old reader could misread (not when it merely skips) a record.
pub const SCHEMA_VERSION: u8 = 2;

/// A stored record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The record has no bytes.
    #[error("record is empty")]
    Empty,
    /// The record was written by a newer Bartizan.
    #[error("record has schema version {found}; this binary reads up to {SCHEMA_VERSION}: use the newer binary that wrote it")]
    Version {
        /// Version found.
        found: u8,
    },
    /// The bytes are not the CBOR that this schema describes.
    #[error("record is damaged: {0}")]
    Cbor(#[from] minicbor::decode::Error),
}

/// Room that a thread keeps for encoding, at most, bytes: a rare long record must not stay resident for ever.
const ROOM: usize = 64 * 1024;

thread_local! {
    /// Where a record grows: what leaves here is allocated once, in its length.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn encode(value: &impl Encode<()>) -> Vec<u8> {
    ENCODED.with_borrow_mut(|bytes| {
        bytes.clear();
        bytes.push(SCHEMA_VERSION);
        match minicbor::encode(value, &mut *bytes) {
            Ok(()) => {}
            // `Vec<u8>` as a writer has no failing operation, and no field of the schema has a failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
        let encoded = bytes.as_slice().to_vec();
        bytes.shrink_to(ROOM);
        encoded
    })
}

fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&found, _)) if found == 0 || found > SCHEMA_VERSION => Err(CodecError::Version { found }),
        Some((_, rest)) => Ok(minicbor::decode(rest)?),
    }
}

/// Encodes an event for the log.
pub fn encode_event(event: &SecurityEvent) -> Vec<u8> {
    encode(event)
}

/// Reads an event from the log.
///
/// # Errors
/// [`CodecError`] when the bytes are empty, from a newer schema, or damaged.
pub fn decode_event(bytes: &[u8]) -> Result<SecurityEvent, CodecError> {
    decode(bytes)
}

/// Encodes an alert for the log.
pub fn encode_alert(alert: &Alert) -> Vec<u8> {
    encode(alert)
}

/// Reads an alert from the log.
///
/// # Errors
/// [`CodecError`] when the bytes are empty, from a newer schema, or damaged.
pub fn decode_alert(bytes: &[u8]) -> Result<Alert, CodecError> {
    decode(bytes)
}

/// Encodes a match for the log.
pub fn encode_match(found: &PatternMatch) -> Vec<u8> {
    encode(found)
}

/// Reads a match from the log.
///
/// # Errors
/// [`CodecError`] when the bytes are empty, from a newer schema, or damaged.
pub fn decode_match(bytes: &[u8]) -> Result<PatternMatch, CodecError> {
    decode(bytes)
}
