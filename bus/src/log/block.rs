//! One block of a sealed segment: some hundred messages, compressed together.
//!
//! Inside a block the numbers stand in columns and the contents are grouped by subject, those that are CBOR taken apart by [`shred`]:
//! what is alike lies side by side, which is what a compressor wants.

use std::cell::RefCell;

use bytes::Bytes;

use super::shred;
use super::varint::{self, Reader};
use crate::store::Stored;
use crate::subject::is_subject;

/// Fixed part before the compressed bytes.
pub(crate) const HEADER_LEN: usize = 40;
const MAGIC: [u8; 4] = *b"BLK3";
/// Blocks without contents taken apart, as they were written before.
const MAGIC_2: [u8; 4] = *b"BLK2";
/// How the contents of a subject are kept: as they are, or taken apart.
const WHOLE: u8 = 0;
const SHREDDED: u8 = 1;
/// Largest content of a block: a message of the largest size and its neighbours.
const MAX_CONTENT: usize = 16 * 1024 * 1024;

/// With what stands between the contents.
const MOST_CONTENT: usize = MAX_CONTENT + MAX_CONTENT / 2;

/// What stands before a block's compressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) compressed_len: u32,
    pub(crate) content_len: u32,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) count: u32,
    /// It says of each subject how its contents are kept.
    shreds: bool,
}

/// Makes one block after the other; what zstd and the buffers need is asked of the kernel once.
pub(crate) struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    content: Vec<u8>,
    compressed: Vec<u8>,
    out: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn new(level: i32) -> std::io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level)?;
        Ok(Self { compressor, content: Vec::new(), compressed: Vec::new(), out: Vec::new() })
    }

    /// Header and compressed content.
    pub(crate) fn pack(&mut self, messages: &[Stored]) -> std::io::Result<&[u8]> {
        let Self { compressor, content, compressed, out } = self;
        content_of(messages, content);
        compressed.clear();
        compressed.reserve(zstd::zstd_safe::compress_bound(content.len()));
        compressor.compress_to_buffer(content, compressed)?;
        out.clear();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
        out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        out.extend_from_slice(&messages.first().map_or(0, |message| message.seq).to_le_bytes());
        out.extend_from_slice(&messages.last().map_or(0, |message| message.seq).to_le_bytes());
        out.extend_from_slice(&(messages.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(compressed);
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }
}

/// Header and compressed content of one block alone.
#[cfg(test)]
pub(crate) fn encode(messages: &[Stored], level: i32) -> std::io::Result<Vec<u8>> {
    Packer::new(level)?.pack(messages).map(<[u8]>::to_vec)
}

fn content_of(messages: &[Stored], content: &mut Vec<u8>) {
    let mut subjects: Vec<&str> = messages.iter().map(Stored::subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let place = |message: &Stored| subjects.binary_search(&message.subject()).unwrap_or_default();
    let places: Vec<usize> = messages.iter().map(place).collect();
    let mut groups: Vec<Vec<&Stored>> = vec![Vec::new(); subjects.len()];
    messages.iter().zip(&places).for_each(|(message, place)| groups[*place].push(message));
    let shredded: Vec<Option<Vec<u8>>> = groups
        .iter()
        .map(|group| {
            let payloads: Vec<&[u8]> = group.iter().map(|message| message.payload()).collect();
            let times: Vec<i64> = group.iter().map(|message| message.time_ns).collect();
            shred::shred(&payloads, &times)
        })
        .collect();
    let mut columns = Vec::new();
    varint::put(&mut columns, subjects.len() as u64);
    subjects.iter().for_each(|subject| varint::put_bytes(&mut columns, subject.as_bytes()));
    columns.extend(shredded.iter().map(|shredded| if shredded.is_some() { SHREDDED } else { WHOLE }));
    let mut before = messages.first().map_or(0, |message| message.seq);
    for message in messages {
        varint::put(&mut columns, message.seq - before);
        before = message.seq;
    }
    let mut before = 0;
    for message in messages {
        varint::put_signed(&mut columns, message.time_ns.wrapping_sub(before));
        before = message.time_ns;
    }
    places.iter().for_each(|place| varint::put(&mut columns, *place as u64));
    messages.iter().for_each(|message| varint::put(&mut columns, message.headers().len() as u64));
    // Contents that are taken apart know their lengths themselves.
    let whole = messages.iter().zip(&places).filter(|(_, place)| shredded[**place].is_none());
    whole.for_each(|(message, _)| varint::put(&mut columns, message.payload().len() as u64));

    content.clear();
    content.reserve(columns.len() + 8 + messages.iter().map(|message| message.size() as usize).sum::<usize>());
    varint::put_bytes(content, &columns);
    for (group, shredded) in groups.iter().zip(&shredded) {
        for message in group {
            content.extend_from_slice(message.headers());
            if shredded.is_none() {
                content.extend_from_slice(message.payload());
            }
        }
        if let Some(shredded) = shredded {
            varint::put_bytes(content, shredded);
        }
    }
}

thread_local! {
    /// zstd's working memory, for all blocks that a thread reads.
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Content of `len` bytes.
fn unpack(compressed: &[u8], len: usize) -> std::io::Result<Vec<u8>> {
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        unpacker.decompress(compressed, len)
    })
}

/// Reads and checks a block's header; `None` where there is none.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_LEN)?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let header = Header {
        compressed_len: u32_at(8)?,
        content_len: u32_at(12)?,
        first_seq: u64_at(16)?,
        last_seq: u64_at(24)?,
        count: u32_at(32)?,
        shreds: bytes[..4] == MAGIC,
    };
    ((header.shreds || bytes[..4] == MAGIC_2) && header.content_len as usize <= MOST_CONTENT).then_some(header)
}

/// A block that was read and unpacked.
#[derive(Debug)]
pub(crate) struct Block {
    content: Bytes,
    subjects: Vec<Bytes>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    seq: u64,
    time_ns: i64,
    subject: u32,
    headers_len: u32,
    start: u32,
    end: u32,
}

/// Puts headers and contents of all messages one behind the other, and notes where each is.
fn assemble(bodies: &mut Reader<'_>, by_subject: &[usize], ways: &[u8], entries: &mut [Entry], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = by_subject;
    while let Some(first) = rest.first() {
        let subject = entries[*first].subject;
        let group;
        (group, rest) = rest.split_at(rest.iter().take_while(|n| entries[**n].subject == subject).count());
        let way = *ways.get(subject as usize)?;
        let parts: Vec<&[u8]> = group.iter().map(|n| bodies.take(entries[*n].end as usize)).collect::<Option<_>>()?;
        let times: Vec<i64> = group.iter().map(|n| entries[*n].time_ns).collect();
        let mut append = |n: usize, parts: [&[u8]; 2]| {
            let start = u32::try_from(out.len()).ok()?;
            parts.iter().for_each(|part| out.extend_from_slice(part));
            let end = u32::try_from(out.len()).ok().filter(|end| *end as usize <= MOST_CONTENT)?;
            (entries[n].start, entries[n].end) = (start, end);
            Some(())
        };
        let mut messages = group.iter().zip(parts);
        if way == WHOLE {
            messages.try_for_each(|(n, part)| append(*n, [part, &[]]))?;
        } else {
            shred::unshred(bodies.bytes()?, &times, |payload| {
                let (n, headers) = messages.next()?;
                append(*n, [headers, payload])
            })?;
        }
    }
    bodies.0.is_empty().then_some(())
}

impl Block {
    /// Checks and unpacks header and compressed bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = header(bytes).ok_or("block header is damaged")?;
        let whole = bytes.get(..HEADER_LEN + header.compressed_len as usize).ok_or("block is cut off")?;
        if crc32fast::hash(&whole[8..]).to_le_bytes() != whole[4..8] {
            return Err("checksum of the block does not match");
        }
        let content = unpack(&whole[HEADER_LEN..], header.content_len as usize).map_err(|_| "block does not decompress")?;
        Self::from_content(content.into(), &header).ok_or("block content does not fit its header")
    }

    fn from_content(content: Bytes, header: &Header) -> Option<Self> {
        let mut reader = Reader(&content);
        let mut columns = Reader(reader.bytes()?);
        let bodies_at = content.len() - reader.0.len();
        let mut subjects = Vec::new();
        for _ in 0..columns.count()? {
            let text = columns.text().filter(|text| is_subject(text))?;
            let at = text.as_ptr() as usize - content.as_ptr() as usize;
            subjects.push(content.slice(at..at + text.len()));
        }
        let ways = if header.shreds { columns.take(subjects.len())? } else { &vec![WHOLE; subjects.len()] };
        let count = header.count as usize;
        if count > columns.0.len() {
            return None;
        }
        let mut entries = Vec::with_capacity(count);
        let mut seq = header.first_seq;
        for n in 0..count {
            let step = columns.number()?;
            if (n == 0) != (step == 0) {
                return None;
            }
            seq = seq.checked_add(step)?;
            entries.push(Entry { seq, time_ns: 0, subject: 0, headers_len: 0, start: 0, end: 0 });
        }
        let mut time_ns = 0_i64;
        for entry in &mut entries {
            time_ns = time_ns.wrapping_add(columns.signed()?);
            entry.time_ns = time_ns;
        }
        for entry in &mut entries {
            entry.subject = u32::try_from(columns.number()?).ok().filter(|subject| (*subject as usize) < subjects.len())?;
        }
        for entry in &mut entries {
            entry.headers_len = u32::try_from(columns.number()?).ok()?;
        }
        for entry in &mut entries {
            // For now: the length of headers and payload; of headers alone where the contents are taken apart.
            let payload = match ways[entry.subject as usize] {
                WHOLE => u32::try_from(columns.number()?).ok()?,
                SHREDDED => 0,
                _ => return None,
            };
            entry.end = entry.headers_len.checked_add(payload)?;
        }
        let mut by_subject: Vec<usize> = (0..entries.len()).collect();
        by_subject.sort_by_key(|n| entries[*n].subject);
        let whole = columns.0.is_empty() && entries.last().is_none_or(|last| last.seq == header.last_seq);
        if !whole {
            return None;
        }
        if ways.contains(&SHREDDED) {
            // With the subjects in front, so that nothing keeps the bytes that were unpacked.
            let mut out: Vec<u8> = subjects.concat();
            assemble(&mut Reader(&content[bodies_at..]), &by_subject, ways, &mut entries, &mut out)?;
            out.shrink_to_fit();
            let content = Bytes::from(out);
            let mut at = 0;
            for subject in &mut subjects {
                let end = at + subject.len();
                *subject = content.slice(at..end);
                at = end;
            }
            return Some(Self { content, subjects, entries });
        }
        let mut at = u32::try_from(bodies_at).ok()?;
        for n in by_subject {
            let entry = &mut entries[n];
            entry.start = at;
            at = at.checked_add(entry.end)?;
            entry.end = at;
        }
        (at as usize == content.len()).then_some(Self { content, subjects, entries })
    }

    /// How many messages it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes it holds in memory.
    pub(crate) fn memory(&self) -> usize {
        self.content.len() + self.entries.len() * size_of::<Entry>() + self.subjects.len() * size_of::<Bytes>()
    }

    /// The place of the first message with this or a later sequence; [`Block::len`] when there is none.
    pub(crate) fn place(&self, seq: u64) -> usize {
        self.entries.partition_point(|entry| entry.seq < seq)
    }

    /// The sequence of the n-th message.
    pub(crate) fn seq(&self, n: usize) -> u64 {
        self.entries[n].seq
    }

    /// The subject of the n-th message.
    pub(crate) fn subject(&self, n: usize) -> &str {
        std::str::from_utf8(&self.subjects[self.entries[n].subject as usize]).unwrap_or_default()
    }

    /// What the n-th message counts against byte limits.
    pub(crate) fn size(&self, n: usize) -> u64 {
        let Entry { subject, start, end, .. } = self.entries[n];
        self.subjects[subject as usize].len() as u64 + u64::from(end - start) + crate::store::MESSAGE_OVERHEAD
    }

    /// Time of the n-th message.
    pub(crate) fn time_ns(&self, n: usize) -> i64 {
        self.entries[n].time_ns
    }

    /// The n-th message; its content is shared with the block.
    pub(crate) fn get(&self, n: usize) -> Option<Stored> {
        let Entry { seq, time_ns, subject, headers_len, start, end } = *self.entries.get(n)?;
        let body = self.content.slice(start as usize..end as usize);
        Stored::from_parts(seq, time_ns, self.subjects[subject as usize].clone(), body, headers_len as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Put;

    fn messages() -> impl Strategy<Value = Vec<Stored>> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
        // Bytes, or a version and a map.
        let cbor = (any::<u16>(), bytes(20)).prop_map(|(number, tail)| {
            let head = [&[1, 0xa2, 0, 0x19][..], &number.max(0x100).to_be_bytes(), &[1, 0x40 | tail.len() as u8]].concat();
            [head, tail].concat()
        });
        let payload = prop_oneof![bytes(200).boxed(), cbor.boxed()];
        let one = (1u64..5, any::<i64>(), "[a-c](\\.[a-c]){0,2}", bytes(20), payload);
        proptest::collection::vec(one, 1..40).prop_map(|ones| {
            let mut seq = 0;
            let made = ones.iter().map(|(step, time_ns, subject, headers, payload)| {
                seq += step;
                Stored::copy_of(seq, &Put { subject, headers, payload, time_ns: *time_ns })
            });
            made.collect()
        })
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written(messages in messages()) {
            let bytes = encode(&messages, 1).expect("compressed");
            let block = Block::decode(&bytes).expect("whole");
            prop_assert_eq!(block.len(), messages.len());
            for (n, message) in messages.iter().enumerate() {
                prop_assert_eq!(block.get(n), Some(message.clone()));
                prop_assert_eq!((block.size(n), block.place(message.seq), block.subject(n)), (message.size(), n, message.subject()));
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(messages in messages(), bit in any::<prop::sample::Index>()) {
            let mut bytes = encode(&messages, 1).expect("compressed");
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Block::decode(&bytes).is_err());
        }

        #[test]
        fn foreign_content_never_panics(content in proptest::collection::vec(any::<u8>(), 0..200), count in 0u32..50, seqs in any::<(u64, u64)>()) {
            let shreds = seqs.0 % 2 == 0;
            let header = Header { compressed_len: 0, content_len: 0, first_seq: seqs.0, last_seq: seqs.1, count, shreds };
            if let Some(block) = Block::from_content(content.into(), &header) {
                for n in 0..block.len() {
                    prop_assert!(block.get(n).is_some());
                }
            }
        }
    }
}
