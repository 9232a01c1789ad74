//! Reading: from memory where the bytes are still there, else from a segment's file, through the cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cache::Cached;
use super::core::{Body, Core, NOWHERE, Opened, Sealed, Segment, Unreadable};
use super::record::{self, Decoded};
use super::sealed::{self, BlockRef, Table};
use super::segment::{self, Form};
use super::{Log, block, lock};
use crate::error::ReadError;
use crate::pattern::Filter;
use crate::store::Stored;

/// Bytes read at once by who reads on, and by who reads one message.
const READ_AHEAD: usize = 128 * 1024;
const READ_ONE: usize = 4 * 1024;

/// Where the next message is.
enum Found {
    Here(Stored),
    InFile { segment: u64, seq: u64, offset: u64, len: u64, opened: Opened },
    InSealed { segment: u64, end_seq: u64, sealed: Arc<Sealed>, deleted: Arc<roaring::RoaringBitmap> },
    Nothing,
}

/// Whether no message of this block is held: deleted, or found damaged before. It is not read, so that damage is met once.
fn is_gone(segment: u64, block: &BlockRef, deleted: &roaring::RoaringBitmap) -> bool {
    let place = |seq: u64| u32::try_from(seq - segment).unwrap_or(u32::MAX);
    deleted.contains_range(place(block.first_seq)..=place(block.last_seq))
}

impl Log {
    /// The first message at or behind `from` that passes.
    pub(super) fn read_next(&self, from: u64, filter: &Filter) -> Result<Option<Stored>, ReadError> {
        let mut from = from;
        loop {
            let found = find(&lock(&self.core), from, filter);
            match found {
                Found::Here(message) => return Ok(Some(message)),
                Found::Nothing => return Ok(None),
                Found::InFile { segment, seq, offset, len, opened } => {
                    match self.read_raw(segment, seq, offset, len, &opened, READ_AHEAD) {
                        Err(ReadError::Io { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                            return Err(ReadError::Io { path, source });
                        }
                        other => return other.map(Some),
                    }
                }
                Found::InSealed { segment, end_seq, sealed, deleted } => {
                    match self.read_sealed(segment, &sealed, &deleted, from, filter)? {
                        Some(message) => return Ok(Some(message)),
                        None => from = end_seq,
                    }
                }
            }
        }
    }

    /// One message, with the lock held: for what must not change meanwhile.
    pub(super) fn read_locked(&self, core: &Core, seq: u64) -> Result<Option<Stored>, ReadError> {
        if !core.has(seq) {
            return Ok(None);
        }
        self.read_found(find(core, seq, &Filter::all()), seq)
    }

    /// One message.
    pub(super) fn read_one(&self, seq: u64) -> Result<Option<Stored>, ReadError> {
        let found = {
            let core = lock(&self.core);
            if !core.has(seq) {
                return Ok(None);
            }
            find(&core, seq, &Filter::all())
        };
        self.read_found(found, seq)
    }

    fn read_found(&self, found: Found, seq: u64) -> Result<Option<Stored>, ReadError> {
        let message = match found {
            Found::Here(message) => Some(message),
            Found::Nothing => None,
            Found::InFile { segment, seq, offset, len, opened } => Some(self.read_raw(segment, seq, offset, len, &opened, READ_ONE)?),
            Found::InSealed { segment, sealed, deleted, .. } => self.read_sealed(segment, &sealed, &deleted, seq, &Filter::all())?,
        };
        Ok(message.filter(|message| message.seq == seq))
    }

    fn read_raw(&self, segment: u64, seq: u64, offset: u64, len: u64, opened: &Opened, ahead: usize) -> Result<Stored, ReadError> {
        let path = || self.dir.join(segment::file_name(segment, Form::Raw));
        let mut want = record::HEADER_LEN;
        loop {
            let cached = lock(&self.cache).chunk(opened.id, offset, want);
            let bytes = match cached {
                Some(bytes) => bytes,
                None => {
                    let room = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
                    let mut buffer = vec![0; want.max(ahead).min(room)];
                    let read = opened.file.read_at(&mut buffer, offset).map_err(|source| ReadError::Io { path: path(), source })?;
                    buffer.truncate(read);
                    let bytes = bytes::Bytes::from(buffer);
                    lock(&self.cache).insert(opened.id, offset, Cached::Chunk(bytes.clone()));
                    bytes
                }
            };
            let reason = match record::decode(&bytes, seq) {
                Decoded::Record(found) => match found.to_stored(&bytes.slice(..found.len)) {
                    Some(message) => return Ok(message),
                    None => "record does not fit its lengths",
                },
                Decoded::Incomplete { needed } if needed > bytes.len() && offset + needed as u64 <= len => {
                    want = needed;
                    continue;
                }
                Decoded::Incomplete { .. } => "record is cut off",
                Decoded::Bad { reason } => reason,
            };
            return Err(self.unreadable(segment, seq..seq + 1, path(), offset, reason));
        }
    }

    fn read_sealed(
        &self,
        segment: u64,
        sealed: &Sealed,
        deleted: &roaring::RoaringBitmap,
        from: u64,
        filter: &Filter,
    ) -> Result<Option<Stored>, ReadError> {
        let first = sealed.blocks.partition_point(|block| block.last_seq < from);
        let candidates: Box<dyn Iterator<Item = usize>> = if filter.is_all() {
            Box::new(first..sealed.blocks.len())
        } else {
            let table = self.table(segment, sealed)?;
            let mut blocks: Vec<usize> = matching_blocks(&table, filter).filter(|block| *block >= first).collect();
            blocks.sort_unstable();
            blocks.dedup();
            Box::new(blocks.into_iter())
        };
        for n in candidates {
            if is_gone(segment, &sealed.blocks[n], deleted) {
                continue;
            }
            let block = self.block(segment, sealed, &sealed.blocks[n])?;
            for n in block.place(from)..block.len() {
                let place = u32::try_from(block.seq(n) - segment).unwrap_or(u32::MAX);
                if !deleted.contains(place) && filter.matches(block.subject(n)) {
                    return Ok(block.get(n));
                }
            }
        }
        Ok(None)
    }

    /// A block, unpacked.
    pub(super) fn block(&self, segment: u64, sealed: &Sealed, at: &BlockRef) -> Result<Arc<block::Block>, ReadError> {
        if let Some(block) = lock(&self.cache).block(sealed.opened.id, at.offset) {
            return Ok(block);
        }
        let path = || self.dir.join(segment::file_name(segment, Form::Sealed));
        match sealed::read_block(&*sealed.opened.file, at) {
            Ok(Ok(block)) => {
                let block = Arc::new(block);
                lock(&self.cache).insert(sealed.opened.id, at.offset, Cached::Block(Arc::clone(&block)));
                Ok(block)
            }
            Ok(Err(reason)) => Err(self.unreadable(segment, at.first_seq..at.last_seq + 1, path(), at.offset, reason)),
            Err(source) => Err(ReadError::Io { path: path(), source }),
        }
    }

    /// A sealed segment's table of contents; the last few are remembered.
    pub(super) fn table(&self, segment: u64, sealed: &Sealed) -> Result<Arc<Table>, ReadError> {
        const TABLES: usize = 4;
        if let Some((_, table)) = lock(&self.tables).iter().find(|(id, _)| *id == sealed.opened.id) {
            return Ok(Arc::clone(table));
        }
        let path = || self.dir.join(segment::file_name(segment, Form::Sealed));
        let table = match sealed::read_table(&*sealed.opened.file, segment) {
            Ok(Ok(table)) => Arc::new(table),
            // Read at start and damaged since: the blocks still tell.
            Ok(Err(_)) => match sealed::rebuild_table(&*sealed.opened.file, segment) {
                Ok((table, _)) => Arc::new(table),
                Err(source) => return Err(ReadError::Io { path: path(), source }),
            },
            Err(source) => return Err(ReadError::Io { path: path(), source }),
        };
        let mut tables = lock(&self.tables);
        tables.push_back((sealed.opened.id, Arc::clone(&table)));
        if tables.len() > TABLES {
            tables.pop_front();
        }
        Ok(table)
    }

    /// Bytes do not read back: these messages are passed over from now on, and counted.
    fn unreadable(
        &self,
        segment: u64,
        seqs: std::ops::Range<u64>,
        path: std::path::PathBuf,
        offset: u64,
        reason: &'static str,
    ) -> ReadError {
        // Whoever removes by the lock's holder reads under it: then the lock is taken already, and the damage is noted by the next reader.
        let Ok(mut core) = self.core.try_lock() else {
            return ReadError::Damaged { path, offset, reason: reason.to_owned(), missing: seqs.end - seqs.start };
        };
        let mut missing = 0;
        let core_ref = &mut *core;
        if let Some(found) = core_ref.segments.iter_mut().find(|held| held.first_seq == segment) {
            for seq in seqs.clone() {
                if found.has(seq) {
                    missing += 1;
                    if let Body::Raw(raw) = &found.body
                        && let Some(slot) = raw.slots.get((seq - segment) as usize).copied().filter(|slot| *slot != NOWHERE)
                    {
                        let name = core_ref.subjects.get(slot).name.clone();
                        core_ref.subjects.remove(&name, seq);
                    }
                    let place = found.place(seq);
                    Arc::make_mut(&mut found.deleted).insert(place);
                }
            }
        }
        core_ref.messages -= missing;
        core_ref.removals += missing;
        let damage = Unreadable { first: seqs.start, last: seqs.end - 1, path: path.clone(), offset, reason };
        if !core_ref.unreadable.iter().any(|known| known.first == damage.first) {
            core_ref.unreadable.push(damage);
        }
        if core_ref.first_seq >= seqs.start && core_ref.first_seq < seqs.end {
            core_ref.advance_head();
        }
        drop(core);
        self.counters.unreadable.fetch_add(missing, Ordering::Relaxed);
        tracing::warn!(stream = self.config.name, path = %path.display(), offset, reason, messages = missing, "segment is damaged");
        ReadError::Damaged { path, offset, reason: reason.to_owned(), missing }
    }

    /// The newest message that passes, up to `up_to`.
    pub(super) fn read_last(&self, filter: &Filter, up_to: u64) -> Result<Option<Stored>, ReadError> {
        if !filter.is_all() {
            let newest = {
                let core = lock(&self.core);
                let newest = core.subjects.matching(filter).map(|subject| subject.last_seq).max();
                match newest {
                    None => return Ok(None),
                    Some(newest) => (newest <= up_to && core.has(newest)).then_some(newest),
                }
            };
            if let Some(newest) = newest
                && let Some(message) = self.read_one(newest)?
            {
                return Ok(Some(message));
            }
        }
        self.find_backwards(filter, up_to)
    }

    fn find_backwards(&self, filter: &Filter, up_to: u64) -> Result<Option<Stored>, ReadError> {
        enum Step {
            Read(u64),
            Sealed { segment: u64, sealed: Arc<Sealed>, deleted: Arc<roaring::RoaringBitmap> },
            Nothing,
        }
        let mut end = up_to.saturating_add(1);
        loop {
            let step = {
                let core = lock(&self.core);
                let at = core.segments.partition_point(|segment| segment.first_seq < end);
                match at
                    .checked_sub(1)
                    .map(|at| &core.segments[at])
                    .filter(|segment| segment.end_seq > core.first_seq || segment.live() > 0)
                {
                    None => Step::Nothing,
                    Some(segment) => match &segment.body {
                        Body::Raw(raw) => {
                            let behind = end.min(segment.end_seq);
                            let found = (segment.first_seq..behind).rev().find(|seq| {
                                let slot = raw.slots[(seq - segment.first_seq) as usize];
                                segment.has(*seq) && slot != NOWHERE && filter.matches(&core.subjects.get(slot).name)
                            });
                            end = segment.first_seq;
                            match found {
                                Some(seq) => Step::Read(seq),
                                None => continue,
                            }
                        }
                        Body::Sealed(sealed) => {
                            Step::Sealed { segment: segment.first_seq, sealed: Arc::clone(sealed), deleted: Arc::clone(&segment.deleted) }
                        }
                    },
                }
            };
            match step {
                Step::Nothing => return Ok(None),
                Step::Read(seq) => {
                    if let Some(message) = self.read_one(seq)? {
                        return Ok(Some(message));
                    }
                    end = seq;
                }
                Step::Sealed { segment, sealed, deleted } => {
                    let table = if filter.is_all() { None } else { Some(self.table(segment, &sealed)?) };
                    let candidates: Vec<usize> = match &table {
                        None => (0..sealed.blocks.len()).rev().collect(),
                        Some(table) => {
                            let mut blocks: Vec<usize> = matching_blocks(table, filter).collect();
                            blocks.sort_unstable_by(|a, b| b.cmp(a));
                            blocks.dedup();
                            blocks
                        }
                    };
                    for n in candidates {
                        if sealed.blocks[n].first_seq >= end || is_gone(segment, &sealed.blocks[n], &deleted) {
                            continue;
                        }
                        let block = self.block(segment, &sealed, &sealed.blocks[n])?;
                        let passes = |n: &usize| {
                            let place = u32::try_from(block.seq(*n) - segment).unwrap_or(u32::MAX);
                            !deleted.contains(place) && filter.matches(block.subject(*n))
                        };
                        if let Some(n) = (0..block.place(end)).rev().find(passes) {
                            return Ok(block.get(n));
                        }
                    }
                    end = segment;
                }
            }
        }
    }

    /// The newest sequence of each subject that passes, up to `up_to`.
    pub(super) fn newest_of_each(&self, filter: &Filter, up_to: u64) -> Result<Vec<u64>, ReadError> {
        let mut seqs = Vec::new();
        let mut search = Vec::new();
        {
            let core = lock(&self.core);
            for subject in core.subjects.matching(filter) {
                if core.subjects.tracks() {
                    let behind = subject.messages.partition_point(|(seq, _)| *seq <= up_to);
                    seqs.extend(behind.checked_sub(1).map(|at| subject.messages[at].0));
                } else if subject.last_seq <= up_to && core.has(subject.last_seq) {
                    seqs.push(subject.last_seq);
                } else {
                    search.extend(subject.name.parse::<crate::pattern::Pattern>().ok());
                }
            }
        }
        for subject in search {
            seqs.extend(self.find_backwards(&subject.into(), up_to)?.map(|message| message.seq));
        }
        seqs.sort_unstable();
        Ok(seqs)
    }

    /// How many messages at or behind `from` pass.
    pub(super) fn count_passing(&self, from: u64, filter: &Filter) -> Result<u64, ReadError> {
        let mut count = 0;
        let mut sealed_parts = Vec::new();
        {
            let core = lock(&self.core);
            let from = from.max(core.first_seq);
            if filter.is_all() {
                return Ok(core
                    .segments
                    .iter()
                    .rev()
                    .take_while(|segment| segment.end_seq > from)
                    .map(|segment| segment.count_from(from))
                    .sum());
            }
            if from <= core.first_seq {
                return Ok(core.subjects.matching(filter).map(|subject| subject.count).sum());
            }
            if core.subjects.tracks() {
                let behind =
                    |subject: &super::subjects::Subject| subject.messages.len() - subject.messages.partition_point(|(seq, _)| *seq < from);
                return Ok(core.subjects.matching(filter).map(|subject| behind(subject) as u64).sum());
            }
            for segment in core.segments.iter().rev().take_while(|segment| segment.end_seq > from) {
                match &segment.body {
                    Body::Raw(raw) => {
                        let start = from.saturating_sub(segment.first_seq) as usize;
                        let passes = |(n, slot): (usize, &u32)| {
                            *slot != NOWHERE && segment.has(segment.first_seq + n as u64) && filter.matches(&core.subjects.get(*slot).name)
                        };
                        count += raw.slots.iter().enumerate().skip(start).filter(|(n, slot)| passes((*n, slot))).count() as u64;
                    }
                    Body::Sealed(sealed) => sealed_parts.push((segment.first_seq, Arc::clone(sealed), Arc::clone(&segment.deleted), from)),
                }
            }
        }
        for (segment, sealed, deleted, from) in sealed_parts {
            let table = self.table(segment, &sealed)?;
            if from <= segment && deleted.len() == sealed.absent.len() {
                count += table.subjects.iter().filter(|entry| filter.matches(&entry.subject)).map(|entry| entry.count).sum::<u64>();
                continue;
            }
            let first = sealed.blocks.partition_point(|block| block.last_seq < from);
            let mut blocks: Vec<usize> = matching_blocks(&table, filter).filter(|block| *block >= first).collect();
            blocks.sort_unstable();
            blocks.dedup();
            for n in blocks {
                if is_gone(segment, &sealed.blocks[n], &deleted) {
                    continue;
                }
                let block = self.block(segment, &sealed, &sealed.blocks[n])?;
                let passes = |n: &usize| {
                    let place = u32::try_from(block.seq(*n) - segment).unwrap_or(u32::MAX);
                    !deleted.contains(place) && filter.matches(block.subject(*n))
                };
                count += (block.place(from)..block.len()).filter(passes).count() as u64;
            }
        }
        Ok(count)
    }

    /// The first sequence whose message has this or a later time.
    pub(super) fn first_since(&self, time_ns: i64) -> Result<u64, ReadError> {
        let mut from = {
            let core = lock(&self.core);
            let before = core.segments.iter().find(|segment| segment.live() > 0 && segment.max_time_ns >= time_ns);
            match before {
                None => return Ok(core.next_seq),
                Some(segment) => match &segment.body {
                    Body::Raw(_) => segment.first_seq,
                    Body::Sealed(sealed) => {
                        let block = sealed.blocks.iter().find(|block| block.max_time_ns >= time_ns);
                        block.map_or(segment.first_seq, |block| block.first_seq)
                    }
                },
            }
        };
        let all = Filter::all();
        while let Some(message) = self.read_next(from, &all)? {
            if message.time_ns >= time_ns {
                return Ok(message.seq);
            }
            from = message.seq + 1;
        }
        Ok(lock(&self.core).next_seq)
    }
}

fn matching_blocks<'a>(table: &'a Table, filter: &'a Filter) -> impl Iterator<Item = usize> + 'a {
    let matching = table.subjects.iter().filter(|entry| filter.matches(&entry.subject));
    matching.flat_map(|entry| entry.blocks.iter().map(|block| *block as usize))
}

/// Looks for the first message at or behind `from` that passes, as far as memory tells.
fn find(core: &Core, from: u64, filter: &Filter) -> Found {
    let mut from = from.max(core.first_seq);
    loop {
        let Some(at) = core.segment_at(from) else { return Found::Nothing };
        let segment: &Segment = &core.segments[at];
        match &segment.body {
            Body::Raw(raw) => {
                let mut seq = from;
                while let Some(live) = segment.next_live(seq) {
                    let n = (live - segment.first_seq) as usize;
                    let (Some(&offset), Some(&slot)) = (raw.offsets.get(n), raw.slots.get(n)) else { break };
                    if filter.is_all() || filter.matches(&core.subjects.get(slot).name) {
                        if let Some(message) = core.in_memory(segment.first_seq, live, offset.into()) {
                            return Found::Here(message);
                        }
                        let Some(opened) = &raw.file else { return Found::Nothing };
                        let (opened, len) = (opened.clone(), raw.len);
                        return Found::InFile { segment: segment.first_seq, seq: live, offset: offset.into(), len, opened };
                    }
                    seq = live + 1;
                }
                from = segment.end_seq;
            }
            Body::Sealed(sealed) => {
                if segment.next_live(from).is_some() {
                    let (sealed, deleted) = (Arc::clone(sealed), Arc::clone(&segment.deleted));
                    return Found::InSealed { segment: segment.first_seq, end_seq: segment.end_seq, sealed, deleted };
                }
                from = segment.end_seq;
            }
        }
        if at + 1 >= core.segments.len() {
            return Found::Nothing;
        }
        // Sequences between two segments have no message.
        from = from.max(core.segments[at + 1].first_seq);
    }
}
