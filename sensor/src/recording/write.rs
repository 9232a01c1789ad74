//! Writing a recording.

use std::io::{self, Write};

use super::codec::encode;
use super::containers::Containers;
use super::format::{BLOCK_BYTES, BlockKind, HEADER_MAX, Header, LEVEL, PLAIN_MAX, block_head, prelude};
use super::totals::Totals;
use crate::capture::rings::record_time;
use crate::enrich::container::known::Request;
use crate::enrich::environment::Listed;
use crate::hash::Wanted;
use crate::intake::{Input, Sink};

/// Why a recording ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk is full, say.
    #[error("cannot be written to: {0}")]
    Io(#[from] io::Error),
    /// An input that no block has room for.
    #[error("one input has {0} bytes, and a block holds {PLAIN_MAX} at most: please report it")]
    TooLarge(usize),
    /// An input that cannot be put into bytes.
    #[error("an input cannot be encoded: {0}: please report it")]
    Encode(String),
}

/// A [`Sink`] that writes what it takes.
pub struct Writer<W> {
    out: W,
    /// Inputs of the block that is not written yet.
    plain: Vec<u8>,
    blocks: u64,
    bytes: u64,
    totals: Totals,
    /// Latest time of a record, and up to which time records were said to have their place.
    newest: u64,
    due: u64,
    /// What waits may be older than that: it was gathered.
    gathered: bool,
    containers: Containers,
    /// Variables that are written of the environments in exec records; the others are wiped.
    listed: Listed,
    failed: Option<WriteError>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn new(mut out: W, header: &Header) -> Result<Self, WriteError> {
        let header = minicbor::to_vec(header).map_err(|error| WriteError::Encode(error.to_string()))?;
        if header.len() > HEADER_MAX {
            return Err(WriteError::TooLarge(header.len()));
        }
        let prelude = prelude(&header);
        out.write_all(&prelude)?;
        out.write_all(&header)?;
        let bytes = (prelude.len() + header.len()) as u64;
        Ok(Self {
            out,
            plain: Vec::new(),
            blocks: 0,
            bytes,
            totals: Totals::default(),
            newest: 0,
            due: 0,
            gathered: false,
            containers: Containers::default(),
            listed: Listed::default(),
            failed: None,
        })
    }

    /// Writes variables whose names are listed; without this, none.
    pub fn keeping(self, listed: Listed) -> Self {
        Self { listed, ..self }
    }

    /// Ends the recording with its end mark. Gives what was written to, the numbers, and the bytes.
    ///
    /// # Errors
    /// [`WriteError`], now or before: the recording then has no end mark, and holds what was written before.
    pub fn finish(mut self) -> Result<(W, Totals, u64), WriteError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.flush()?;
        let end = minicbor::to_vec(self.totals.inputs).map_err(|error| WriteError::Encode(error.to_string()))?;
        self.block(BlockKind::End, &end)?;
        self.out.flush()?;
        Ok((self.out, self.totals, self.bytes))
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let mut plain = std::mem::take(&mut self.plain);
        let written = self.block(BlockKind::Inputs, &plain);
        plain.clear();
        // Memory that one large input took is given back.
        plain.shrink_to(2 * BLOCK_BYTES);
        self.plain = plain;
        written
    }

    fn block(&mut self, kind: BlockKind, plain: &[u8]) -> Result<(), WriteError> {
        let stored = zstd::bulk::compress(plain, LEVEL)?;
        let head = block_head(kind, &stored, plain.len(), self.blocks);
        // In one write, so that a recorder that is killed leaves whole blocks.
        let block = [head.as_slice(), &stored].concat();
        self.out.write_all(&block)?;
        self.blocks += 1;
        self.bytes += block.len() as u64;
        Ok(())
    }

    fn put(&mut self, input: &Input<'_>) -> Result<(), WriteError> {
        match input {
            // Said by the header.
            Input::Begin { .. } => return Ok(()),
            // Nothing waits.
            Input::Due(_) if self.newest <= self.due && !self.gathered => return Ok(()),
            Input::Due(limit) => {
                (self.due, self.gathered) = (*limit, false);
                self.containers.due(*limit);
            }
            Input::FileDeed(deed) => self.newest = self.newest.max(deed.now),
            Input::Writes { .. } | Input::UdpFlow(..) | Input::Syn(..) => self.gathered = true,
            Input::Record(record) => {
                self.newest = self.newest.max(record_time(record).unwrap_or_default());
                self.containers.record(record);
            }
            Input::Seed(found) => self.containers.seed(found),
            Input::Container { now, request, answer } => self.containers.answer(request, answer, *now),
            Input::Probe(_, gathered) => self.newest = self.newest.max(gathered.last),
            _ => {}
        }
        let before = self.plain.len();
        let wiped = match input {
            Input::Record(record) => self.listed.wiped(record),
            _ => None,
        };
        let wiped = wiped.as_deref().map(Input::Record);
        encode(wiped.as_ref().unwrap_or(input), &mut self.plain).map_err(|error| WriteError::Encode(error.to_string()))?;
        let added = self.plain.len() - before;
        if self.plain.len() > PLAIN_MAX {
            return Err(WriteError::TooLarge(added));
        }
        self.totals.count(input);
        // What a second brought is not left in memory, so that a kill costs no more.
        if self.plain.len() >= BLOCK_BYTES || matches!(input, Input::Second) { self.flush() } else { Ok(()) }
    }
}

impl<W: Write + Send> Sink for Writer<W> {
    fn take(&mut self, input: Input<'_>) -> bool {
        if self.failed.is_none() {
            self.failed = self.put(&input).err();
        }
        self.failed.is_none()
    }

    fn next_container(&mut self) -> Option<Request> {
        self.containers.next()
    }

    fn waits(&self) -> bool {
        false
    }

    fn is_broken(&self) -> bool {
        self.failed.is_some()
    }

    fn wanted(&mut self) -> Vec<Wanted> {
        Vec::new()
    }
}
