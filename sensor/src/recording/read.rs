//! Reading a recording.

use std::io::{self, Read};

use bartizan_sensor_ebpf::abi::ABI_VERSION;

use super::codec::decode;
use super::format::{
    BLOCK_HEAD, BlockKind, FORMAT, HEADER_MAX, Header, MAGIC, PLAIN_MAX, PRELUDE, STORED_MAX, checksum, u16_at, u32_at, u64_at,
};
use super::totals::Totals;
use crate::intake::Input;

/// Why a recording, or the rest of it, cannot be read. Said behind the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk's fault.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Another file.
    #[error("is no recording: it does not begin as one; make one with `bartizan record FILE`")]
    NoRecording,
    /// A later layout.
    #[error(
        "is a recording of format {0}, and this bartizan reads format {FORMAT}: replay it with a bartizan as new as the one that made it"
    )]
    Format(u16),
    /// Records of another kernel object.
    #[error(
        "holds records of ABI {found}, made by bartizan {version}, and this bartizan {} reads ABI {ABI_VERSION}: replay it with bartizan \
         {version}",
        env!("CARGO_PKG_VERSION")
    )]
    Abi {
        /// ABI of the records.
        found: u16,
        /// Version of the recorder.
        version: String,
    },
    /// Nothing can be had.
    #[error("has a damaged header ({0}), without which nothing of it can be replayed: copy it again from where it was recorded")]
    Header(String),
    /// What follows cannot be had.
    #[error(
        "is damaged at byte {at} ({reason}): copy it again from where it was recorded, or replay what is before that with --allow-damaged"
    )]
    Damaged {
        /// Where the damaged block begins.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The file ends too early.
    #[error(
        "ends at byte {0} without its end mark, because it was cut, or its recorder was killed or still runs: copy it again from where it was \
         recorded, or replay what there is with --allow-damaged"
    )]
    Cut(u64),
}

impl ReadError {
    /// Whether what was read before it is good.
    pub fn leaves_the_rest(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Cut(_))
    }
}

/// Gives the inputs of a recording, in order.
pub struct Reader<R> {
    source: R,
    header: Header,
    /// Bytes read.
    offset: u64,
    blocks: u64,
    /// Where the block in `plain` begins in the file.
    block_at: u64,
    plain: Vec<u8>,
    /// Bytes of `plain` that were given.
    given: usize,
    totals: Totals,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn new(mut source: R) -> Result<Self, ReadError> {
        let prelude = take(&mut source, PRELUDE)?;
        if prelude.len() < PRELUDE || prelude[..MAGIC.len()] != MAGIC {
            return Err(ReadError::NoRecording);
        }
        let (format, abi, len) = (u16_at(&prelude, 8), u16_at(&prelude, 10), u32_at(&prelude, 12) as usize);
        if format != FORMAT {
            return Err(ReadError::Format(format));
        }
        if len > HEADER_MAX {
            return Err(ReadError::Header(format!("{len} bytes, of {HEADER_MAX} at most")));
        }
        let bytes = take(&mut source, len)?;
        if checksum(&prelude[..16], &bytes) != u32_at(&prelude, 16) {
            return Err(ReadError::Header("its checksum is wrong".to_owned()));
        }
        let header: Header = minicbor::decode(&bytes).map_err(|error| ReadError::Header(error.to_string()))?;
        if abi != ABI_VERSION {
            return Err(ReadError::Abi { found: abi, version: header.start.version });
        }
        let offset = (PRELUDE + len) as u64;
        let totals = Totals { last: header.started, ..Totals::default() };
        Ok(Self { source, header, offset, blocks: 0, block_at: offset, plain: Vec::new(), given: 0, totals, ended: false })
    }

    /// What a replay must know before the first input.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Numbers of what was given so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next input; `None` behind the last one. After an error there is no next one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_input(&mut self) -> Result<Option<Input<'_>>, ReadError> {
        while self.given >= self.plain.len() {
            if self.ended || !self.block().inspect_err(|_| self.ended = true)? {
                return Ok(None);
            }
        }
        match decode(&self.plain[self.given..]) {
            Ok((input, taken)) => {
                self.given += taken;
                self.totals.count(&input);
                Ok(Some(input))
            }
            Err(error) => {
                (self.ended, self.given) = (true, usize::MAX);
                Err(ReadError::Damaged { at: self.block_at, reason: format!("something in this block is no input: {error}") })
            }
        }
    }

    /// Reads the next block. No behind the last one.
    fn block(&mut self) -> Result<bool, ReadError> {
        let at = self.offset;
        let damaged = |reason: String| ReadError::Damaged { at, reason };
        let head = take(&mut self.source, BLOCK_HEAD)?;
        if head.len() < BLOCK_HEAD {
            return Err(ReadError::Cut(at + head.len() as u64));
        }
        let (stored_len, plain_len, number) = (u32_at(&head, 4) as usize, u32_at(&head, 8) as usize, u64_at(&head, 12));
        if stored_len > STORED_MAX || plain_len > PLAIN_MAX {
            return Err(damaged(format!("a block of {stored_len} bytes for {plain_len}, of {PLAIN_MAX} at most")));
        }
        let stored = take(&mut self.source, stored_len)?;
        self.offset = at + (BLOCK_HEAD + stored.len()) as u64;
        if stored.len() < stored_len {
            return Err(ReadError::Cut(self.offset));
        }
        if checksum(&head[..20], &stored) != u32_at(&head, 20) {
            return Err(damaged("the checksum is wrong".to_owned()));
        }
        if number != self.blocks {
            return Err(damaged(format!("block {number} stands where block {} should", self.blocks)));
        }
        let kind = BlockKind::from_raw(head[0]).ok_or_else(|| damaged(format!("a block of unknown kind {}", head[0])))?;
        let plain = zstd::bulk::decompress(&stored, plain_len).map_err(|error| damaged(format!("it cannot be decompressed: {error}")))?;
        if plain.len() != plain_len {
            return Err(damaged(format!("{} bytes where {plain_len} should be", plain.len())));
        }
        self.blocks += 1;
        match kind {
            BlockKind::Inputs => {
                (self.plain, self.given, self.block_at) = (plain, 0, at);
                Ok(true)
            }
            BlockKind::End => {
                let inputs: u64 = minicbor::decode(&plain).map_err(|error| damaged(format!("the end mark: {error}")))?;
                if inputs != self.totals.inputs {
                    return Err(damaged(format!("the end mark counts {inputs} inputs, and there are {}", self.totals.inputs)));
                }
                if !take(&mut self.source, 1)?.is_empty() {
                    return Err(ReadError::Damaged { at: self.offset, reason: "something stands behind the end mark".to_owned() });
                }
                self.ended = true;
                Ok(false)
            }
        }
    }
}

/// So many bytes, or what there is. Memory grows with what is there, not with what is asked for.
fn take(source: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
