//! A sealed segment: compressed blocks, then a table of contents that answers what a start and a filter ask without reading a block.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::block::{self, Block};
use super::operation::Operation;
use super::record::{MAX_PAYLOAD, MAX_TEXT};
use super::segment::{self, Form, HEADER_LEN};
use super::varint::{self, Reader};
use super::vfs::{self, VFile, Vfs};
use crate::store::{MESSAGE_OVERHEAD, Stored};

const TRAILER_LEN: usize = 32;
const TRAILER_MAGIC: &[u8; 8] = b"BARTZEND";
/// Content of a block before it is compressed. Larger compresses better; whoever reads one message unpacks this much.
pub(crate) const BLOCK_CONTENT: usize = 256 * 1024;
/// More than any message counts against byte limits.
const MAX_SIZE: u64 = (MAX_PAYLOAD + 3 * MAX_TEXT) as u64;
/// Largest table of contents believed in.
const MAX_TABLE: usize = 1 << 30;

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRef {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) count: u32,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) max_time_ns: i64,
}

/// What a sealed segment has of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubjectEntry {
    pub(crate) subject: String,
    pub(crate) count: u64,
    pub(crate) last_seq: u64,
    /// Which blocks, ascending.
    pub(crate) blocks: Vec<u32>,
}

/// The table of contents.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) end_seq: u64,
    pub(crate) bytes: u64,
    pub(crate) first_time_ns: i64,
    pub(crate) max_time_ns: i64,
    /// Time of the message with the last sequence, which may be deleted.
    pub(crate) last_time_ns: i64,
    /// When the records were written before they were sealed, Unix ns.
    pub(crate) written_ns: i64,
    /// Sequences, counted from the segment's first, that have no message.
    pub(crate) absent: RoaringBitmap,
    pub(crate) blocks: Vec<BlockRef>,
    /// In order of the subject.
    pub(crate) subjects: Vec<SubjectEntry>,
    pub(crate) operations: Vec<Operation>,
}

impl Table {
    pub(crate) fn encode(&self, first_seq: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        varint::put(&mut out, self.end_seq);
        varint::put(&mut out, self.bytes);
        varint::put_signed(&mut out, self.first_time_ns);
        varint::put_signed(&mut out, self.max_time_ns);
        varint::put_signed(&mut out, self.last_time_ns);
        varint::put_signed(&mut out, self.written_ns);
        let mut absent = Vec::new();
        self.absent.serialize_into(&mut absent)?;
        varint::put_bytes(&mut out, &absent);
        varint::put(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            varint::put(&mut out, block.offset);
            varint::put(&mut out, block.len.into());
            varint::put(&mut out, block.count.into());
            varint::put(&mut out, block.first_seq - first_seq);
            varint::put(&mut out, block.last_seq - block.first_seq);
            varint::put_signed(&mut out, block.max_time_ns);
        }
        varint::put(&mut out, self.subjects.len() as u64);
        for SubjectEntry { subject, count, last_seq, blocks } in &self.subjects {
            varint::put_bytes(&mut out, subject.as_bytes());
            varint::put(&mut out, *count);
            varint::put(&mut out, last_seq - first_seq);
            varint::put(&mut out, blocks.len() as u64);
            let mut before = 0;
            for block in blocks {
                varint::put(&mut out, (block - before).into());
                before = *block;
            }
        }
        varint::put(&mut out, self.operations.len() as u64);
        for operation in &self.operations {
            varint::put_bytes(&mut out, operation.subject().as_bytes());
            varint::put_bytes(&mut out, &operation.encode());
        }
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8], first_seq: u64) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (end_seq, size) = (reader.number()?, reader.number()?);
        let (first_time_ns, max_time_ns) = (reader.signed()?, reader.signed()?);
        let (last_time_ns, written_ns) = (reader.signed()?, reader.signed()?);
        let absent = RoaringBitmap::deserialize_from(reader.bytes()?).ok()?;
        let mut blocks = Vec::new();
        for _ in 0..reader.count()? {
            let (offset, len, count) = (reader.number()?, u32::try_from(reader.number()?).ok()?, u32::try_from(reader.number()?).ok()?);
            let first = first_seq.checked_add(reader.number()?)?;
            let last_seq = first.checked_add(reader.number()?)?;
            blocks.push(BlockRef { offset, len, count, first_seq: first, last_seq, max_time_ns: reader.signed()? });
        }
        let mut subjects = Vec::new();
        for _ in 0..reader.count()? {
            let subject = reader.text()?.to_owned();
            let (count, last_seq) = (reader.number()?, first_seq.checked_add(reader.number()?)?);
            let mut of_blocks = Vec::new();
            let mut before = 0_u32;
            for _ in 0..reader.count()? {
                before = before.checked_add(u32::try_from(reader.number()?).ok()?)?;
                of_blocks.push(before);
            }
            subjects.push(SubjectEntry { subject, count, last_seq, blocks: of_blocks });
        }
        let mut operations = Vec::new();
        for _ in 0..reader.count()? {
            let subject = reader.text()?;
            operations.push(Operation::decode(subject, reader.bytes()?)?);
        }
        let ordered = blocks.windows(2).all(|pair| pair[0].last_seq < pair[1].first_seq);
        let known = subjects.iter().flat_map(|entry| &entry.blocks).all(|block| (*block as usize) < blocks.len());
        let within = blocks.iter().all(|block| block.last_seq < end_seq)
            && subjects.iter().all(|entry| entry.last_seq < end_seq)
            && operations.iter().all(|operation| operation.behind_seq() <= end_seq);
        // Every sequence either has no message or is counted, in its block and in its subject.
        let places = u32::try_from(end_seq.checked_sub(first_seq)?).ok()?;
        let messages = u64::from(places).checked_sub(absent.len()).filter(|_| absent.max().is_none_or(|last| last < places))?;
        let in_blocks = blocks.iter().try_fold(0_u64, |sum, block| sum.checked_add(block.count.into()));
        let in_subjects = subjects.iter().try_fold(0_u64, |sum, entry| sum.checked_add(entry.count));
        let counted = (in_blocks, in_subjects) == (Some(messages), Some(messages));
        let sized = (messages * MESSAGE_OVERHEAD..=messages * MAX_SIZE).contains(&size);
        let fits = reader.0.is_empty() && ordered && known && within && counted && sized;
        fits.then_some(Self {
            end_seq,
            bytes: size,
            first_time_ns,
            max_time_ns,
            last_time_ns,
            written_ns,
            absent,
            blocks,
            subjects,
            operations,
        })
    }
}

/// Writes a sealed segment block by block.
pub(crate) struct Sealer {
    first_seq: u64,
    file: Arc<dyn VFile>,
    offset: u64,
    level: i32,
    packer: block::Packer,
    pending: Vec<Stored>,
    pending_bytes: usize,
    table: Table,
    subjects: BTreeMap<String, SubjectEntry>,
    next_seq: u64,
}

impl Sealer {
    /// Begins at the head of an empty file.
    pub(crate) fn new(file: Arc<dyn VFile>, stream: &str, first_seq: u64, level: i32) -> io::Result<Self> {
        file.write_at(&segment::encode_header(Form::Sealed, stream, first_seq), 0)?;
        Ok(Self {
            first_seq,
            file,
            offset: HEADER_LEN,
            level,
            packer: block::Packer::new(level)?,
            pending: Vec::new(),
            pending_bytes: 0,
            table: Table::default(),
            subjects: BTreeMap::new(),
            next_seq: first_seq,
        })
    }

    /// Adds the next message, in order of sequence.
    pub(crate) fn push(&mut self, message: Stored) -> io::Result<()> {
        self.pass_to(message.seq);
        self.next_seq = message.seq + 1;
        self.table.bytes += message.size();
        if self.subjects.is_empty() {
            (self.table.first_time_ns, self.table.max_time_ns) = (message.time_ns, message.time_ns);
        }
        self.table.max_time_ns = self.table.max_time_ns.max(message.time_ns);
        let block = self.table.blocks.len() as u32;
        match self.subjects.get_mut(message.subject()) {
            Some(entry) => {
                entry.count += 1;
                entry.last_seq = message.seq;
                if entry.blocks.last() != Some(&block) {
                    entry.blocks.push(block);
                }
            }
            None => {
                let subject = message.subject().to_owned();
                self.subjects.insert(subject.clone(), SubjectEntry { subject, count: 1, last_seq: message.seq, blocks: vec![block] });
            }
        }
        self.pending_bytes += message.size() as usize;
        self.pending.push(message);
        if self.pending_bytes >= BLOCK_CONTENT { self.end_block() } else { Ok(()) }
    }

    /// Notes that sequences before this one have no message.
    fn pass_to(&mut self, seq: u64) {
        if seq > self.next_seq {
            let place = |seq: u64| u32::try_from(seq - self.first_seq).unwrap_or(u32::MAX);
            self.table.absent.insert_range(place(self.next_seq)..place(seq));
            self.next_seq = seq;
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.pending.first(), self.pending.last()) else { return Ok(()) };
        let bytes = self.packer.pack(&self.pending)?;
        let len = bytes.len();
        self.file.write_at(bytes, self.offset)?;
        self.table.blocks.push(BlockRef {
            offset: self.offset,
            len: len as u32,
            count: self.pending.len() as u32,
            first_seq: first.seq,
            last_seq: last.seq,
            max_time_ns: self.pending.iter().map(|message| message.time_ns).max().unwrap_or_default(),
        });
        self.offset += len as u64;
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Writes the table of contents and syncs the file.
    pub(crate) fn finish(
        mut self,
        end_seq: u64,
        last_time_ns: i64,
        written_ns: i64,
        operations: Vec<Operation>,
    ) -> io::Result<(Table, u64)> {
        self.end_block()?;
        self.pass_to(end_seq);
        self.table.end_seq = end_seq;
        self.table.last_time_ns = last_time_ns;
        self.table.written_ns = written_ns;
        self.table.subjects = std::mem::take(&mut self.subjects).into_values().collect();
        self.table.operations = operations;
        let table = self.table.encode(self.first_seq)?;
        let compressed = zstd::bulk::compress(&table, self.level)?;
        let mut trailer = Vec::with_capacity(TRAILER_LEN);
        trailer.extend_from_slice(&self.offset.to_le_bytes());
        trailer.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
        trailer.extend_from_slice(&(table.len() as u32).to_le_bytes());
        trailer.extend_from_slice(&crc32fast::hash(&compressed).to_le_bytes());
        let crc = crc32fast::hash(&trailer);
        trailer.extend_from_slice(&crc.to_le_bytes());
        trailer.extend_from_slice(TRAILER_MAGIC);
        let end = self.offset + compressed.len() as u64;
        self.file.write_at(&compressed, self.offset)?;
        self.file.write_at(&trailer, end)?;
        self.file.sync()?;
        Ok((self.table, end + TRAILER_LEN as u64))
    }
}

/// Reads the table of contents; the inner error says what is damaged.
pub(crate) fn read_table(file: &dyn VFile, first_seq: u64) -> io::Result<Result<Table, &'static str>> {
    let len = file.len()?;
    let mut trailer = [0; TRAILER_LEN];
    if len < HEADER_LEN + TRAILER_LEN as u64 || file.read_at(&mut trailer, len - TRAILER_LEN as u64)? < TRAILER_LEN {
        return Ok(Err("sealed segment is cut off"));
    }
    if trailer[24..] != *TRAILER_MAGIC || crc32fast::hash(&trailer[..20]).to_le_bytes() != trailer[20..24] {
        return Ok(Err("end of the sealed segment is damaged"));
    }
    let number = |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
    let offset = u64::from(number(0)) | u64::from(number(4)) << 32;
    let (compressed_len, table_len) = (number(8) as usize, number(12) as usize);
    if offset.checked_add(compressed_len as u64 + TRAILER_LEN as u64) != Some(len) || table_len > MAX_TABLE {
        return Ok(Err("end of the sealed segment does not fit its length"));
    }
    let mut compressed = vec![0; compressed_len];
    if file.read_at(&mut compressed, offset)? < compressed_len {
        return Ok(Err("sealed segment is cut off"));
    }
    if crc32fast::hash(&compressed) != number(16) {
        return Ok(Err("checksum of the table of contents does not match"));
    }
    let table = zstd::bulk::decompress(&compressed, table_len).ok().and_then(|table| Table::decode(&table, first_seq));
    Ok(table.ok_or("table of contents is damaged"))
}

/// Makes a table of contents anew from the blocks that read back: what a damaged one is replaced with. Deletions and operations that
/// only the table knew are lost. Gives it with how many bytes could not be read.
pub(crate) fn rebuild_table(file: &dyn VFile, first_seq: u64) -> io::Result<(Table, u64)> {
    let len = file.len()?;
    let mut table = Table { end_seq: first_seq, ..Table::default() };
    let mut subjects: BTreeMap<String, SubjectEntry> = BTreeMap::new();
    let (mut offset, mut unread) = (HEADER_LEN, 0);
    while offset < len {
        let mut head = [0; block::HEADER_LEN];
        let read = file.read_at(&mut head, offset)?;
        let near = |seq: u64| seq.checked_sub(first_seq).is_some_and(|place| place < u64::from(u32::MAX));
        let found = block::header(&head[..read]).filter(|header| header.first_seq >= table.end_seq && near(header.last_seq));
        let Some(header) = found else {
            offset += 1;
            unread += 1;
            continue;
        };
        let whole = block::HEADER_LEN + header.compressed_len as usize;
        let block_ref = BlockRef {
            offset,
            len: u32::try_from(whole).unwrap_or(u32::MAX),
            count: header.count,
            first_seq: header.first_seq,
            last_seq: header.last_seq,
            max_time_ns: 0,
        };
        let Ok(block) = read_block(file, &block_ref)? else {
            offset += 1;
            unread += 1;
            continue;
        };
        let n_of_block = table.blocks.len() as u32;
        let place = |seq: u64| u32::try_from(seq - first_seq).unwrap_or(u32::MAX);
        for n in 0..block.len() {
            let seq = block.seq(n);
            if seq > table.end_seq {
                table.absent.insert_range(place(table.end_seq)..place(seq));
            }
            if table.blocks.is_empty() && n == 0 {
                (table.first_time_ns, table.max_time_ns) = (block.time_ns(0), block.time_ns(0));
            }
            table.max_time_ns = table.max_time_ns.max(block.time_ns(n));
            table.last_time_ns = block.time_ns(n);
            table.end_seq = seq + 1;
            table.bytes += block.size(n);
            let subject = block.subject(n);
            let entry = subjects.entry(subject.to_owned()).or_insert_with(|| SubjectEntry {
                subject: subject.to_owned(),
                count: 0,
                last_seq: 0,
                blocks: Vec::new(),
            });
            entry.count += 1;
            entry.last_seq = seq;
            if entry.blocks.last() != Some(&n_of_block) {
                entry.blocks.push(n_of_block);
            }
        }
        let max_time_ns = (0..block.len()).map(|n| block.time_ns(n)).max().unwrap_or_default();
        table.blocks.push(BlockRef { max_time_ns, ..block_ref });
        offset += whole as u64;
    }
    table.subjects = subjects.into_values().collect();
    Ok((table, unread))
}

/// Reads one block; the inner error says what is damaged.
pub(crate) fn read_block(file: &dyn VFile, at: &BlockRef) -> io::Result<Result<Block, &'static str>> {
    let len = file.len()?;
    if at.offset.checked_add(at.len.into()).is_none_or(|end| end > len) {
        return Ok(Err("block is cut off"));
    }
    let mut bytes = vec![0; at.len as usize];
    if file.read_at(&mut bytes, at.offset)? < bytes.len() {
        return Ok(Err("block is cut off"));
    }
    Ok(Block::decode(&bytes).and_then(|block| {
        let fits = block.len() == at.count as usize
            && block.len() > 0
            && block.seq(0) == at.first_seq
            && block.seq(block.len() - 1) == at.last_seq;
        if fits { Ok(block) } else { Err("block is another than the table of contents says") }
    }))
}

/// Writes a whole sealed segment under its name, synced. Nothing is there under that name until it is whole.
pub(crate) fn write(
    vfs: &dyn Vfs,
    path: &Path,
    sealer: impl FnOnce(Arc<dyn VFile>) -> io::Result<(Table, u64)>,
) -> io::Result<(Table, u64, Arc<dyn VFile>)> {
    let temporary = vfs::temporary(path);
    let file = vfs.create(&temporary)?;
    let result = sealer(Arc::clone(&file));
    let (table, len) = match result {
        Ok(written) => written,
        Err(error) => {
            // What is left of it is deleted at the next start if not now.
            let _ = vfs.remove(&temporary);
            return Err(error);
        }
    };
    vfs.rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        vfs.sync_dir(dir)?;
    }
    Ok((table, len, file))
}

#[cfg(test)]
mod tests {
    use super::super::vfs::Disk;
    use super::*;
    use crate::store::Put;

    fn sealed(dir: &Path, count: u64) -> (Table, Arc<dyn VFile>, Vec<Stored>) {
        let messages: Vec<Stored> = (0..count)
            .map(|n| {
                let subject = format!("a.{}", n % 7);
                let payload = format!("{n}").repeat(1 + (n % 90) as usize);
                Stored::copy_of(
                    10 + n + n / 5,
                    &Put { subject: &subject, headers: b"", payload: payload.as_bytes(), time_ns: n as i64 * 7 },
                )
            })
            .collect();
        let operations = vec![Operation::Head { first_seq: 4 }];
        let (table, len, file) = write(&Disk, &dir.join("x.sealed"), |file| {
            let mut sealer = Sealer::new(file, "S", 8, 1)?;
            messages.iter().cloned().try_for_each(|message| sealer.push(message))?;
            sealer.finish(10 + count + count / 5 + 3, 78, 77, operations)
        })
        .expect("written");
        assert_eq!(file.len().expect("length"), len);
        (table, file, messages)
    }

    fn all(file: &dyn VFile, table: &Table) -> Vec<Stored> {
        let block = |at| read_block(file, at).expect("read").expect("whole");
        table
            .blocks
            .iter()
            .map(block)
            .flat_map(|block| (0..block.len()).map(move |n| block.get(n).expect("there")).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn the_table_reads_back_and_finds_every_message() {
        let dir = tempfile::tempdir().expect("folder");
        let (table, file, messages) = sealed(dir.path(), 20_000);
        assert!(table.blocks.len() > 3);
        let read = read_table(&*file, 8).expect("read").expect("whole");
        assert_eq!(read, table);
        assert_eq!(all(&*file, &read), messages);
        assert_eq!(read.end_seq - 8 - read.absent.len(), messages.len() as u64);
        assert_eq!(read.subjects.iter().map(|entry| entry.count).sum::<u64>(), messages.len() as u64);
        assert!(read.absent.contains(0) && read.absent.contains(1) && !read.absent.contains(2));
    }

    #[test]
    fn a_damaged_table_is_made_anew_from_the_blocks() {
        let dir = tempfile::tempdir().expect("folder");
        let (table, file, messages) = sealed(dir.path(), 5_000);
        let len = file.len().expect("length");
        for (at, what) in [(len - 3, "end"), (len - 20, "end"), (len - 40, "checksum of the table")] {
            let mut byte = [0];
            file.read_at(&mut byte, at).expect("read");
            file.write_at(&[byte[0] ^ 4], at).expect("write");
            let error = read_table(&*file, 8).expect("read").expect_err("damaged");
            assert!(error.contains(what), "{error}");
            file.write_at(&byte, at).expect("write");
        }
        file.set_len(len - 10).expect("cut");
        assert!(read_table(&*file, 8).expect("read").is_err());
        let (rebuilt, _) = rebuild_table(&*file, 8).expect("rebuilt");
        assert_eq!(all(&*file, &rebuilt), messages);
        assert_eq!((&rebuilt.blocks, &rebuilt.subjects, rebuilt.bytes), (&table.blocks, &table.subjects, table.bytes));
    }
}
