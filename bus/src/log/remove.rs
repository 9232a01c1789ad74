//! Deleting: by limit, by age, by sequence, by subject.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::{Body, Core, NOWHERE, Segment};
use super::operation::Operation;
use super::sealed;
use super::segment::{self, Form};
use super::{Log, Retention, lock};
use crate::pattern::Filter;
use crate::store::{Hint, Limits, Purge, Store, StoreError};

/// A segment ends after this share of the stream's `max_age`, so that age retention has something to delete.
const AGE_SHARES: i64 = 8;
/// A purged segment of at least so many bytes is closed, so that its file can go.
const ROLL_WHEN_PURGED: u64 = 1024 * 1024;
/// So many messages are deleted under one hold of the lock.
const AT_ONCE: usize = 1000;

fn ns(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Log {
    /// Counts a message out whose size and subject are known, and moves the head if it was there.
    pub(super) fn remove_known(&self, core: &mut Core, seq: u64, subject: &str, size: u64) -> bool {
        let removed = core.remove(seq, subject, size);
        if removed && seq == core.first_seq {
            self.advance(core);
        }
        removed
    }

    /// Moves the head to the first message held, and finds out its time.
    pub(super) fn advance(&self, core: &mut Core) {
        core.advance_head();
        core.first_time_ns = self.time_of_head(core);
    }

    /// Deletes the oldest messages while there are too many.
    pub(super) fn enforce_size(&self, core: &mut Core) {
        let Retention::Exact = self.config.retention else { return };
        let Limits { max_msgs, max_bytes, .. } = core.limits;
        while core.messages > 0 && (max_msgs.is_some_and(|max| core.messages > max) || max_bytes.is_some_and(|max| core.bytes > max)) {
            self.remove_first(core);
        }
    }

    /// Deletes the oldest message.
    fn remove_first(&self, core: &mut Core) {
        let seq = core.first_seq;
        match self.read_locked(core, seq) {
            Ok(Some(message)) => {
                let size = message.size();
                core.remove(seq, message.subject(), size);
            }
            Ok(None) | Err(_) => {
                // It cannot be read, so its subject keeps a count too many until the segment is gone.
                if core.has(seq) {
                    core.remove(seq, "", 0);
                }
            }
        }
        core.head_moved = true;
        self.advance(core);
    }

    pub(super) fn delete_messages(&self, seqs: &[u64]) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for some in seqs.chunks(AT_ONCE) {
            let mut core = lock(&self.core);
            if core.closed {
                return Err(StoreError::Closed);
            }
            let mut by_subject: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
            for seq in some {
                if let Some(message) = self.read_locked(&core, *seq)? {
                    by_subject.entry(message.subject().to_owned()).or_default().push((*seq, message.size()));
                }
            }
            for (subject, mut messages) in by_subject {
                messages.sort_unstable();
                messages.dedup();
                for (seq, size) in &messages {
                    deleted += u64::from(self.remove_known(&mut core, *seq, &subject, *size));
                }
                core.operate(Operation::Delete { subject, messages }, false);
            }
        }
        Ok(deleted)
    }

    pub(super) fn purge_messages(&self, purge: &Purge) -> Result<u64, StoreError> {
        let Purge { filter, below, keep } = purge;
        if filter.is_all() && below.is_none() && *keep == 0 {
            return self.purge_all();
        }
        if let Some(below) = below.filter(|_| filter.is_all() && *keep == 0) {
            let mut core = lock(&self.core);
            if core.closed {
                return Err(StoreError::Closed);
            }
            let (before, below) = (core.messages, below.min(core.next_seq));
            self.cut_below(&mut core, below);
            self.advance(&mut core);
            core.note_head();
            return Ok(before - core.messages);
        }
        let end = below.unwrap_or(u64::MAX);
        let mut matching = Vec::new();
        let mut from = 1;
        let mut hint = Hint::default();
        while let Some(message) = self.next(from, filter, &mut hint)?.filter(|message| message.seq < end) {
            from = message.seq + 1;
            matching.push(message.seq);
        }
        matching.truncate(matching.len().saturating_sub(usize::try_from(*keep).unwrap_or(usize::MAX)));
        self.delete_messages(&matching)
    }

    fn purge_all(&self) -> Result<u64, StoreError> {
        // What is appended and not written yet is purged too: written first, so that the order in the log is the true one.
        self.write_out()?;
        let mut core = lock(&self.core);
        if core.closed {
            return Err(StoreError::Closed);
        }
        let purged = core.messages;
        let next_seq = core.next_seq;
        self.cut_below(&mut core, next_seq);
        if core.buffer.is_empty() && core.buffer_at > ROLL_WHEN_PURGED {
            core.roll();
        }
        self.advance(&mut core);
        core.note_head();
        Ok(purged)
    }

    /// Deletes everything before `seq`; the head is for the caller to advance.
    pub(super) fn cut_below(&self, core: &mut Core, seq: u64) {
        while let Some(segment) = core.segments.iter().find(|segment| segment.live() > 0 && segment.end_seq <= seq) {
            let name = segment.first_seq;
            self.empty(core, name);
        }
        if let Some(segment) = core.segments.iter().find(|segment| segment.first_seq < seq && segment.live() > 0) {
            let mut next = segment.next_live(segment.first_seq);
            let first_seq = segment.first_seq;
            while let Some(at) = next.filter(|next| *next < seq) {
                let (subject, size) = match self.read_locked(core, at) {
                    Ok(Some(message)) => (message.subject().to_owned(), message.size()),
                    Ok(None) | Err(_) => (String::new(), 0),
                };
                core.remove(at, &subject, size);
                next = core.by_first_seq(first_seq).and_then(|segment| segment.next_live(at + 1));
            }
        }
        core.first_seq = core.first_seq.max(seq);
    }

    /// Finds out where an opened log begins.
    pub(super) fn advance_from_start(&self, core: &mut Core) {
        core.advance_head();
        core.first_time_ns = self.time_of_head(core);
    }

    fn time_of_head(&self, core: &Core) -> i64 {
        match self.read_locked(core, core.first_seq) {
            Ok(Some(message)) => message.time_ns,
            // Damage is told to whoever reads the message; age goes by the segment until then.
            Ok(None) | Err(_) => core.segment_at(core.first_seq).map_or(0, |at| core.segments[at].first_time_ns),
        }
    }

    /// From now on every subject's sequences are kept.
    fn track_subjects(&self) -> Result<(), StoreError> {
        let mut core = lock(&self.core);
        let mut held = Vec::new();
        let mut seq = core.first_seq;
        while seq < core.next_seq {
            if let Some(message) = self.read_locked(&core, seq)? {
                held.push((message.subject().to_owned(), seq, message.size()));
            }
            seq += 1;
        }
        core.subjects.start_tracking();
        for (subject, seq, size) in held {
            core.subjects.track_sealed(&subject, seq, size);
        }
        Ok(())
    }

    /// Counts all messages of a segment out.
    fn empty(&self, core: &mut Core, first_seq: u64) {
        let Core { segments, subjects, messages, bytes, removals, .. } = core;
        let Ok(at) = segments.binary_search_by_key(&first_seq, |segment| segment.first_seq) else { return };
        let segment = &mut segments[at];
        let live = segment.live();
        match &segment.body {
            Body::Raw(raw) => {
                for (n, slot) in raw.slots.iter().enumerate() {
                    let seq = segment.first_seq + n as u64;
                    if *slot != NOWHERE && segment.has(seq) {
                        let name = subjects.get(*slot).name.clone();
                        subjects.remove(&name, seq);
                    }
                }
            }
            Body::Sealed(sealed) if segment.deleted.len() == sealed.absent.len() && !subjects.tracks() => {
                match sealed::read_table(&*sealed.opened.file, first_seq) {
                    Ok(Ok(table)) => table.subjects.iter().for_each(|entry| subjects.remove_many(&entry.subject, entry.count)),
                    Ok(Err(_)) | Err(_) => tracing::warn!(
                        stream = self.config.name,
                        first_seq,
                        "cannot tell the subjects of a deleted segment: their counts stay too high until restart"
                    ),
                }
            }
            Body::Sealed(sealed) => {
                let blocks: Vec<_> = sealed.blocks.clone();
                for at in &blocks {
                    let Ok(Ok(block)) = sealed::read_block(&*sealed.opened.file, at) else { continue };
                    for n in 0..block.len() {
                        if segment.has(block.seq(n)) {
                            subjects.remove(block.subject(n), block.seq(n));
                        }
                    }
                }
            }
        }
        *messages -= live;
        *bytes = bytes.saturating_sub(segment.bytes);
        *removals += live;
        segment.bytes = 0;
        let end = segment.place(segment.end_seq);
        Arc::make_mut(&mut segment.deleted).insert_range(0..end);
        self.counters.deleted.fetch_add(live, Ordering::Relaxed);
    }

    pub(super) fn change_limits(&self, limits: Limits) -> Result<(), StoreError> {
        let mut core = lock(&self.core);
        // What the old limits deleted must not come back with wider ones.
        core.note_head();
        core.limits = limits;
        if limits.max_msgs_per_subject.is_some() && !core.subjects.tracks() {
            drop(core);
            self.track_subjects()?;
            core = lock(&self.core);
        }
        self.enforce_subjects(&mut core);
        self.enforce_size(&mut core);
        drop(core);
        self.write_out()
    }

    /// Deletes the oldest messages of subjects that have too many.
    pub(super) fn enforce_subjects(&self, core: &mut Core) {
        let Some(max) = core.limits.max_msgs_per_subject else { return };
        let mut gone: Vec<(String, Vec<(u64, u64)>)> = Vec::new();
        for subject in core.subjects.matching(&Filter::all()) {
            let beyond = subject.messages.len().saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
            if beyond > 0 {
                let messages = subject.messages.iter().take(beyond).map(|(seq, size)| (*seq, u64::from(*size))).collect();
                gone.push((subject.name.to_string(), messages));
            }
        }
        for (subject, messages) in gone {
            for (seq, size) in &messages {
                self.remove_known(core, *seq, &subject, *size);
            }
            // A record has a largest size.
            for some in messages.chunks(AT_ONCE) {
                core.operate(Operation::Delete { subject: subject.clone(), messages: some.to_vec() }, false);
            }
        }
    }

    /// Deletes by age, exactly or by whole segments.
    pub(super) fn expire_at(&self, now_ns: i64) -> Result<(), StoreError> {
        let Some(max_age) = lock(&self.core).limits.max_age.map(ns) else { return Ok(()) };
        match self.config.retention {
            Retention::Exact => self.expire_exactly(now_ns.saturating_sub(max_age)),
            Retention::WholeSegments { .. } => self
                .retain_segments(Some((now_ns, max_age)))
                .map_err(|source| self.refused("delete old segments of", self.dir.clone(), source)),
        }
    }

    fn expire_exactly(&self, limit_ns: i64) -> Result<(), StoreError> {
        loop {
            let mut core = lock(&self.core);
            if core.closed {
                return Ok(());
            }
            for _ in 0..AT_ONCE {
                if core.messages == 0 || core.first_time_ns >= limit_ns {
                    return Ok(());
                }
                self.remove_first(&mut core);
            }
        }
    }

    /// Deletes whole segments, oldest first, never the one that is written: beyond the size, and (told the time) beyond the age.
    pub(super) fn retain_segments(&self, time: Option<(i64, i64)>) -> io::Result<()> {
        let Retention::WholeSegments { max_disk_bytes } = self.config.retention else { return Ok(()) };
        if let Some((now_ns, max_age_ns)) = time {
            // On a quiet stream no append would ever close the segment, and it could never be deleted.
            let mut core = lock(&self.core);
            if let Some(active) = core.segments.back().filter(|active| active.live() > 0) {
                let spans_share = active.max_time_ns.saturating_sub(active.first_time_ns) > max_age_ns / AGE_SHARES;
                let quiet = now_ns.saturating_sub(self.newest_ns(active)?) > max_age_ns / AGE_SHARES;
                if (spans_share || quiet) && core.buffer.is_empty() && !core.closed {
                    core.roll();
                }
            }
        }
        loop {
            let mut core = lock(&self.core);
            if core.closed || core.segments.len() < 2 {
                break;
            }
            let disk: u64 = core.segments.iter().map(|segment| segment.disk_len).sum();
            let Some(oldest) = core.segments.front() else { break };
            let too_old = match time {
                Some((now_ns, max_age_ns)) => now_ns.saturating_sub(self.newest_ns(oldest)?) > max_age_ns,
                None => false,
            };
            if !too_old && disk <= max_disk_bytes {
                break;
            }
            let (first_seq, end_seq) = (oldest.first_seq, oldest.end_seq);
            self.empty(&mut core, first_seq);
            core.first_seq = core.first_seq.max(end_seq);
            self.advance(&mut core);
            // An empty one that is older than all messages goes even if the head had passed it before.
            core.drop_dead_front();
            if core.segments.front().is_some_and(|front| front.first_seq == first_seq) {
                break;
            }
        }
        self.delete_garbage()
    }

    /// What a segment's age counts from: its newest message, and no earlier than its last write, so that events of a host whose clock
    /// stood wrong, or old events that are replayed into the bus, are kept as long as others.
    fn newest_ns(&self, segment: &Segment) -> io::Result<i64> {
        let form = match &segment.body {
            Body::Raw(raw) if raw.file.is_none() => return Ok(segment.max_time_ns),
            Body::Raw(_) => Form::Raw,
            Body::Sealed(_) => return Ok(segment.max_time_ns.max(segment.written_ns)),
        };
        match self.vfs.modified_ns(&self.dir.join(segment::file_name(segment.first_seq, form))) {
            Ok(written_ns) => Ok(segment.max_time_ns.max(written_ns)),
            // Somebody else deleted it: nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(segment.max_time_ns),
            Err(error) => Err(error),
        }
    }

    /// Deletes files that nothing needs any more.
    pub(super) fn delete_garbage(&self) -> io::Result<()> {
        let garbage = std::mem::take(&mut lock(&self.core).garbage);
        let mut result = Ok(());
        for name in garbage {
            let path = self.dir.join(&name);
            for path in [path.with_added_extension("torn"), path] {
                match self.vfs.remove(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        lock(&self.core).garbage.push(name.clone());
                        result = Err(io::Error::new(error.kind(), format!("cannot delete {}: {error}", path.display())));
                    }
                }
            }
        }
        result
    }
}
