//! Sealing a closed segment, and rewriting one that has lost most of its messages: compressed, without what is deleted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::core::{Body, Core, NOWHERE, Opened, Sealed, Segment};
use super::operation::Operation;
use super::record::{self, Decoded};
use super::scan::Window;
use super::sealed::{self, Sealer};
use super::segment::{self, Form};
use super::{Log, lock};

/// What is rewritten, as it was when the work began.
struct Job {
    first_seq: u64,
    end_seq: u64,
    last_time_ns: i64,
    written_ns: i64,
    source: Source,
    deleted: Arc<roaring::RoaringBitmap>,
    operations: Vec<Operation>,
}

enum Source {
    Raw { opened: Opened, len: u64, offsets: Vec<u32> },
    Sealed(Arc<Sealed>),
}

impl Log {
    /// Rewrites what is worth it, on a thread of its own, one segment at a time.
    pub(super) fn start_rewriting(&self) {
        let Some(level) = self.config.compression else { return };
        if self.choose(&lock(&self.core)).is_none() || self.rewriting.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = self.me.clone();
        let started = std::thread::Builder::new().name(format!("seal {}", self.config.name)).spawn(move || {
            let Some(log) = me.upgrade() else { return };
            while !log.stopping.load(Ordering::Acquire) {
                if !log.rewrite_one(level) {
                    break;
                }
            }
            log.rewriting.store(false, Ordering::Release);
        });
        match started {
            Ok(thread) => {
                let before = lock(&self.rewriter).replace(thread);
                if let Some(before) = before.filter(std::thread::JoinHandle::is_finished)
                    && before.join().is_err()
                {
                    warn!(stream = self.config.name, "the sealing thread had panicked");
                }
            }
            Err(error) => {
                self.rewriting.store(false, Ordering::Release);
                warn!(stream = self.config.name, %error, "cannot start the sealing thread: trying again later");
            }
        }
    }

    /// Seals and compacts everything that is worth it, before it returns.
    pub(super) fn rewrite_all(&self) {
        if let Some(level) = self.config.compression {
            while self.rewrite_one(level) {}
        }
    }

    /// The oldest segment that is worth rewriting. One whose last messages are still being written is not: what is read of its file would
    /// miss them.
    pub(super) fn choose(&self, core: &Core) -> Option<u64> {
        let last = core.segments.len().saturating_sub(1);
        let worth = |segment: &&Segment| {
            let tried = segment.tried_at == Some(segment.deleted.len());
            let worth = match &segment.body {
                Body::Raw(raw) => raw.file.is_some() && segment.end_seq <= core.written_seq + 1,
                Body::Sealed(sealed) => {
                    let physical = (segment.end_seq - segment.first_seq) - sealed.absent.len();
                    segment.live() * 2 < physical || (physical == 0 && segment.has_operations())
                }
            };
            worth && !tried
        };
        core.segments.iter().take(last).find(worth).map(|segment| segment.first_seq)
    }

    /// Rewrites one segment; false when there is none worth it.
    fn rewrite_one(&self, level: i32) -> bool {
        // Files that are to go are gone before what says that their messages are deleted may go: the folder is synced with the new file.
        if let Err(error) = self.delete_garbage() {
            warn!(stream = self.config.name, %error, "cannot delete an old segment: nothing is rewritten before it is gone");
            return false;
        }
        let job = {
            let mut core = lock(&self.core);
            let Some(first_seq) = self.choose(&core) else { return false };
            let operations = self.operations_of(&core, first_seq);
            let Ok(at) = core.segments.binary_search_by_key(&first_seq, |segment| segment.first_seq) else { return false };
            let operations: Vec<Operation> = match operations {
                Ok(operations) => operations.into_iter().filter_map(|operation| needed(&core, first_seq, operation)).collect(),
                Err(error) => {
                    warn!(stream = self.config.name, first_seq, %error, "cannot read a segment's operations: it is left as it is");
                    let segment = &mut core.segments[at];
                    segment.tried_at = Some(segment.deleted.len());
                    return true;
                }
            };
            // The last file of all stays: it tells how far the sequences came.
            let others_behind = core.segments.iter().skip(at + 1).any(Segment::is_on_disk);
            let segment = &mut core.segments[at];
            segment.tried_at = Some(segment.deleted.len());
            let nothing_left = segment.live() == 0 && Vec::<Operation>::is_empty(&operations) && others_behind;
            if nothing_left {
                core.forget(first_seq);
                None
            } else {
                let source = match &segment.body {
                    Body::Raw(raw) => match &raw.file {
                        Some(opened) => Source::Raw { opened: opened.clone(), len: raw.len, offsets: raw.offsets.clone() },
                        None => return false,
                    },
                    Body::Sealed(sealed) => Source::Sealed(Arc::clone(sealed)),
                };
                let (end_seq, written_ns, deleted) = (segment.end_seq, segment.written_ns, Arc::clone(&segment.deleted));
                let last_time_ns = segment.last_time_ns;
                Some(Job { first_seq, end_seq, last_time_ns, written_ns, source, deleted, operations })
            }
        };
        if let Some(job) = job
            && let Err(error) = self.rewrite(job, level)
        {
            warn!(stream = self.config.name, %error, "cannot seal a segment: it stays as it is until the next start");
        }
        if let Err(error) = self.delete_garbage() {
            warn!(stream = self.config.name, %error, "cannot delete a segment that was rewritten: trying again with the next sync");
        }
        true
    }

    fn operations_of(&self, core: &Core, first_seq: u64) -> io::Result<Vec<Operation>> {
        let Ok(at) = core.segments.binary_search_by_key(&first_seq, |segment| segment.first_seq) else { return Ok(Vec::new()) };
        match &core.segments[at].body {
            Body::Raw(raw) => Ok(raw.operations.clone()),
            Body::Sealed(sealed) if sealed.operations == 0 => Ok(Vec::new()),
            Body::Sealed(sealed) => match sealed::read_table(&*sealed.opened.file, first_seq)? {
                Ok(table) => Ok(table.operations),
                Err(reason) => Err(io::Error::other(reason)),
            },
        }
    }

    fn rewrite(&self, job: Job, level: i32) -> io::Result<()> {
        let Job { first_seq, end_seq, last_time_ns, written_ns, source, deleted, operations } = job;
        self.note_unreadable()?;
        let path = self.dir.join(segment::file_name(first_seq, Form::Sealed));
        let raw_path = self.dir.join(segment::file_name(first_seq, Form::Raw));
        let written_ns = match &source {
            Source::Raw { .. } => self.vfs.modified_ns(&raw_path).unwrap_or(written_ns),
            Source::Sealed(_) => written_ns,
        };
        let name = self.config.name.as_str();
        let (table, len, file) = sealed::write(&*self.vfs, &path, |file| {
            let mut sealer = Sealer::new(file, name, first_seq, level)?;
            match &source {
                Source::Raw { opened, len, offsets } => {
                    // Larger than any two messages, so that every message is found whole in one piece.
                    let mut window = Window::new(&*opened.file, *len);
                    for (n, offset) in offsets.iter().enumerate() {
                        let seq = first_seq + n as u64;
                        if *offset == NOWHERE || deleted.contains(n as u32) {
                            continue;
                        }
                        let mut want = record::HEADER_LEN;
                        loop {
                            let bytes = window.bytes((*offset).into(), want)?;
                            match record::decode(bytes, seq) {
                                Decoded::Record(found) => {
                                    if let Some(message) = found.to_stored(&bytes::Bytes::copy_from_slice(&bytes[..found.len])) {
                                        sealer.push(message)?;
                                    }
                                    break;
                                }
                                Decoded::Incomplete { needed } if needed > bytes.len() && u64::from(*offset) + needed as u64 <= *len => {
                                    want = needed
                                }
                                Decoded::Incomplete { .. } | Decoded::Bad { .. } => {
                                    warn!(stream = name, path = %raw_path.display(), offset, seq, "a message does not read back: its segment is sealed without it");
                                    break;
                                }
                            }
                        }
                    }
                }
                Source::Sealed(sealed) => {
                    for at in &sealed.blocks {
                        match sealed::read_block(&*sealed.opened.file, at)? {
                            Ok(block) => {
                                for n in 0..block.len() {
                                    let place = u32::try_from(block.seq(n) - first_seq).unwrap_or(u32::MAX);
                                    if !deleted.contains(place)
                                        && let Some(message) = block.get(n)
                                    {
                                        sealer.push(message)?;
                                    }
                                }
                            }
                            Err(reason) => {
                                warn!(stream = name, path = %path.display(), offset = at.offset, reason, "a block does not read back: its segment is rewritten without it")
                            }
                        }
                    }
                }
            }
            sealer.finish(end_seq, last_time_ns, written_ns, operations)
        })?;
        let opened = self.opened(file);
        let mut core = lock(&self.core);
        let Some(held) = core.by_first_seq(first_seq) else {
            // Retention was faster.
            core.garbage.push(segment::file_name(first_seq, Form::Sealed).into());
            return Ok(());
        };
        let before = held.deleted.len();
        let mut replacement = Segment::sealed(first_seq, opened, &table, len);
        let now_deleted = &*held.deleted | &*replacement.deleted;
        replacement.deleted = Arc::new(now_deleted);
        // Messages deleted while it was written are deleted still; their bytes are not counted.
        replacement.bytes = held.bytes;
        replacement.tried_at = Some(replacement.deleted.len());
        let lost = replacement.deleted.len() - before;
        let old = std::mem::replace(held, replacement);
        core.messages -= lost;
        core.removals += lost;
        self.counters.unreadable.fetch_add(lost, Ordering::Relaxed);
        if let Body::Raw(raw) = old.body {
            core.unreference(&raw);
            core.drop_chunks(first_seq);
            core.garbage.push(segment::file_name(first_seq, Form::Raw).into());
        }
        drop(core);
        self.counters.sealed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What of an operation must be kept: what it says of messages that are still in some file.
fn needed(core: &Core, first_seq: u64, operation: Operation) -> Option<Operation> {
    match operation {
        Operation::Head { first_seq: head } => (head >= core.head_synced).then_some(Operation::Head { first_seq: head }),
        Operation::Delete { subject, messages } => {
            let still_there = |seq: u64| {
                let Some(at) = core.segment_at(seq) else { return false };
                let segment = &core.segments[at];
                match &segment.body {
                    _ if segment.first_seq == first_seq || seq < segment.first_seq => false,
                    Body::Raw(_) => true,
                    Body::Sealed(sealed) => !sealed.absent.contains(segment.place(seq)),
                }
            };
            let messages: Vec<(u64, u64)> = messages.into_iter().filter(|(seq, _)| still_there(*seq)).collect();
            (!messages.is_empty()).then_some(Operation::Delete { subject, messages })
        }
    }
}
