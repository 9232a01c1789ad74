//! The layout of a recording: a header, then blocks. All numbers are little-endian.

use bartizan_bus::event::{BootId, Start};
use bartizan_sensor_ebpf::abi::ABI_VERSION;
use minicbor::{Decode, Encode};

/// What every recording begins with.
pub(crate) const MAGIC: [u8; 8] = *b"BTZNREC\n";
/// Raised when this layout, the header's meaning or that of an input changes. Records inside have a version of their own
/// ([`ABI_VERSION`]).
pub const FORMAT: u16 = 1;
/// Bytes before the header's CBOR.
pub(crate) const PRELUDE: usize = 20;
/// Bytes before a block's content.
pub(crate) const BLOCK_HEAD: usize = 24;
/// Longest header, bytes: its longest part is the list of what the sensor is blind to.
pub(crate) const HEADER_MAX: usize = 1 << 20;
/// Most bytes that a block's content has before compression: every process of the largest pid space (4,194,304) in one
/// [`Alive`](crate::intake::Input::Alive) stays below.
pub(crate) const PLAIN_MAX: usize = 64 << 20;
/// Most bytes that a block's content has in the file: zstd makes what cannot be compressed longer by less than 1 in 128.
pub(crate) const STORED_MAX: usize = PLAIN_MAX + PLAIN_MAX / 128;
/// A block is closed when its content has reached this many bytes.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
/// zstd level: that of the bus's segments.
pub(crate) const LEVEL: i32 = 3;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    /// Inputs, one after the other.
    Inputs = 1,
    /// The end mark: how many inputs there were.
    End = 2,
}

impl BlockKind {
    pub(crate) const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Inputs),
            2 => Some(Self::End),
            _ => None,
        }
    }
}

/// What a replay must know before the first input.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Header {
    /// Boot of the recorded host: part of every id.
    #[n(0)]
    pub boot: BootId,
    /// Its name.
    #[n(1)]
    pub host: String,
    /// What has to be added to its boot clock to get Unix time, nanoseconds, at the beginning.
    #[n(2)]
    pub wall_offset: i64,
    /// Boot clock at the beginning, nanoseconds.
    #[n(3)]
    pub started: u64,
    /// The recorder's version, the kernel's release, active hooks with their tiers, and what it is blind to.
    #[n(4)]
    pub start: Start,
    /// Key that hashes secrets in a replay: random, so that each replay of this file redacts alike and the host's own key stays where it is.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub key: [u8; 32],
}

/// The bytes before a header of these bytes.
pub(crate) fn prelude(header: &[u8]) -> [u8; PRELUDE] {
    prelude_of(FORMAT, ABI_VERSION, header)
}

/// As [`prelude`], with versions.
pub(crate) fn prelude_of(format: u16, abi: u16, header: &[u8]) -> [u8; PRELUDE] {
    let mut bytes = [0; PRELUDE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&format.to_le_bytes());
    bytes[10..12].copy_from_slice(&abi.to_le_bytes());
    // Bounded by `HEADER_MAX`.
    bytes[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
    let sum = checksum(&bytes[..16], header);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The bytes before a block's content.
pub(crate) fn block_head(kind: BlockKind, stored: &[u8], plain: usize, number: u64) -> [u8; BLOCK_HEAD] {
    let mut bytes = [0; BLOCK_HEAD];
    bytes[0] = kind as u8;
    // Both are bounded by `STORED_MAX`.
    bytes[4..8].copy_from_slice(&(stored.len() as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&(plain as u32).to_le_bytes());
    bytes[12..20].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(&bytes[..20], stored);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// CRC-32 (IEEE) of both, as in the bus's segments.
pub(crate) fn checksum(head: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(content);
    hasher.finalize()
}

/// Four bytes at `at`; zero where there are none, which no caller asks for.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// Two bytes, likewise.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u16::from_le_bytes(*chunk))
}

/// Eight bytes, likewise.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
