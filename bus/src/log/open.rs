//! Opening a log's folder: what is whole stays, what is torn is cut off, what is damaged is named, and the next sequence is one
//! that nobody has ever seen.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::append::RESERVE;
use super::core::{Body, Core, NOWHERE, Opened, Raw, Segment, Unreadable};
use super::meta::Meta;
use super::operation::Operation;
use super::scan::{self, Scan};
use super::sealed;
use super::segment::{self, FORMAT_VERSION, Form, HEADER_LEN, HeaderError};
use super::subjects::Subjects;
use super::vfs::{VFile, Vfs};
use super::{Log, LogConfig, Report, record};
use crate::error::OpenError;
use crate::store::MESSAGE_OVERHEAD;

/// A log put together from its folder.
pub(super) struct Opening<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    config: &'a LogConfig,
    next_file: u64,
    pub(super) report: Report,
}

pub(super) struct Found {
    pub(super) core: Core,
    pub(super) meta: Meta,
    pub(super) report: Report,
    pub(super) next_file: u64,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// Opens the folder, creating it when it is missing.
///
/// `boot_id` tells whether the machine was restarted since the last run: if not, the page cache has kept all that was written.
pub(super) fn open(vfs: &dyn Vfs, dir: &Path, config: &LogConfig, boot_id: &str) -> Result<Found, OpenError> {
    vfs.create_dir(dir).map_err(io_error("create folder", dir))?;
    let mut opening = Opening { vfs, dir, config, next_file: 1, report: Report::default() };
    let names = opening.files()?;
    let stored = Meta::load(vfs, dir, &config.name)?;
    let had_segments = !names.is_empty();
    let mut meta = stored.clone().unwrap_or_else(|| Meta::new(&config.name));
    let reserved_before = if stored.is_some() { meta.reserved } else { u64::MAX };

    let mut core = opening.empty_core();
    let mut operations = Vec::new();
    let mut floor = 1;
    let last_name = names.keys().next_back().copied();
    for (&first_seq, forms) in &names {
        floor = floor.max(first_seq);
        let found = opening.open_segment(&mut core, first_seq, forms, Some(first_seq) == last_name, reserved_before)?;
        if let Some((segment, of_segment)) = found {
            core.segments.push_back(segment);
            operations.extend(of_segment);
        }
    }
    for lost in &meta.unreadable {
        if lost.first <= lost.last && !core.unreadable.iter().any(|known| known.first == lost.first) {
            opening.report.missing_sequences += lost.last + 1 - lost.first;
            let (first, last, path, offset) = (lost.first, lost.last, dir.join(&lost.file), lost.offset);
            core.unreadable.push(Unreadable { first, last, path, offset, reason: "damage that was found before" });
        }
    }
    core.messages = core.segments.iter().map(Segment::live).sum();
    core.bytes = core.segments.iter().map(|segment| segment.bytes).sum();

    let last_seq = core.segments.iter().map(|segment| segment.end_seq).max().unwrap_or(1) - 1;
    // Sequences of a gap are never used, also when nothing was written behind it.
    let behind_gaps = meta.gaps.last().map_or(1, |(_, last)| last + 1);
    // Nor those that an operation names: it would be done to the new messages, too.
    let behind_operations = operations.iter().map(Operation::behind_seq).max().unwrap_or(1);
    let floor = floor.max(last_seq + 1).max(behind_gaps).max(behind_operations);
    let next_seq = match &stored {
        None if !had_segments => 1,
        None => floor + RESERVE,
        Some(meta) if meta.clean_last_seq == Some(floor - 1) => floor,
        Some(meta) if meta.clean_last_seq.is_none() && !boot_id.is_empty() && meta.boot_id == boot_id => floor,
        Some(meta) => floor.max(meta.reserved + 1),
    };
    // The segment that is appended to: the last one where it can go on, else a new one.
    let reusable = core.segments.back().is_some_and(|last| {
        let has_room = matches!(&last.body, Body::Raw(raw) if raw.len < config.segment_bytes || last.end_seq == last.first_seq);
        last.end_seq == next_seq && has_room && !opening.report.close_last
    });
    // A last segment without messages that is closed for good has the name that the next one would get.
    let taken = !reusable && core.segments.back().is_some_and(|last| last.first_seq == next_seq);
    let skipped = next_seq - floor;
    let next_seq = next_seq + u64::from(taken);
    opening.report.skipped_sequences = skipped;
    meta.add_gap(last_seq.max(behind_gaps - 1) + 1, next_seq - 1);
    core.next_seq = next_seq;
    core.taken_seq = next_seq;
    core.written_seq = next_seq - 1;
    core.gaps = meta.gaps.clone();
    core.first_seq = core.segments.iter().find(|segment| segment.live() > 0).map_or(next_seq, |segment| segment.first_seq);
    core.last_time_ns =
        core.segments.iter().rev().find(|segment| segment.end_seq > segment.first_seq).map_or(0, |segment| segment.last_time_ns);

    if reusable && let Some(Segment { body: Body::Raw(raw), .. }) = core.segments.back() {
        core.buffer_at = raw.len;
    } else {
        core.segments.push_back(Segment::raw(next_seq));
        core.buffer_at = HEADER_LEN;
    }

    boot_id.clone_into(&mut meta.boot_id);
    meta.clean_last_seq = None;
    meta.reserved = meta.reserved.max(next_seq - 1 + RESERVE);
    meta.store(vfs, dir).map_err(io_error("write", &Meta::path(dir)))?;
    let report = opening.report;
    if !report.is_clean() {
        let Report { truncated_bytes, skipped_sequences, missing_sequences, .. } = report;
        warn!(stream = config.name, truncated_bytes, skipped_sequences, missing_sequences, "the stream did not end in good order");
    }
    core.pending_operations = operations;
    Ok(Found { core, meta, report, next_file: opening.next_file })
}

impl Opening<'_> {
    fn empty_core(&self) -> Core {
        Core {
            segments: VecDeque::new(),
            subjects: Subjects::new(self.config.limits.max_msgs_per_subject.is_some()),
            limits: self.config.limits,
            next_seq: 1,
            first_seq: 1,
            first_time_ns: 0,
            last_time_ns: 0,
            messages: 0,
            bytes: 0,
            removals: 0,
            buffer: Vec::new(),
            buffer_at: HEADER_LEN,
            taken_seq: 1,
            tail: VecDeque::new(),
            tail_bytes: 0,
            written_seq: 0,
            unwritten: VecDeque::new(),
            unwritten_operations: Vec::new(),
            head_moved: false,
            head_on_disk: 0,
            head_written: 0,
            head_synced: 0,
            gaps: Vec::new(),
            unreadable: Vec::new(),
            garbage: Vec::new(),
            dir_dirty: true,
            closed: false,
            pending_operations: Vec::new(),
        }
    }

    /// Segment files by first sequence; what an interrupted replacement left behind is deleted.
    fn files(&self) -> Result<BTreeMap<u64, Vec<Form>>, OpenError> {
        let mut found: BTreeMap<u64, Vec<Form>> = BTreeMap::new();
        for name in self.vfs.list(self.dir).map_err(io_error("list folder", self.dir))? {
            if name.ends_with(".tmp") {
                let path = self.dir.join(name);
                self.vfs.remove(&path).map_err(io_error("remove", &path))?;
            } else if let Some((first_seq, form)) = segment::parse_file_name(&name) {
                found.entry(first_seq).or_default().push(form);
            }
        }
        Ok(found)
    }

    fn opened(&mut self, file: Arc<dyn VFile>) -> Opened {
        self.next_file += 1;
        Opened { id: self.next_file, file }
    }

    /// Looks into one segment; `None` when there was nothing in it to keep.
    fn open_segment(
        &mut self,
        core: &mut Core,
        first_seq: u64,
        forms: &[Form],
        is_last: bool,
        reserved: u64,
    ) -> Result<Option<(Segment, Vec<Operation>)>, OpenError> {
        let raw_path = self.dir.join(segment::file_name(first_seq, Form::Raw));
        if forms.contains(&Form::Sealed) {
            let sealed = self.open_sealed(core, first_seq, forms.contains(&Form::Raw))?;
            if sealed.is_some() {
                // Sealed and not deleted before the end.
                if forms.contains(&Form::Raw) {
                    self.vfs.remove(&raw_path).map_err(io_error("remove", &raw_path))?;
                }
                return Ok(sealed);
            }
        }
        if forms.contains(&Form::Raw) { self.open_raw(core, first_seq, is_last, reserved) } else { Ok(None) }
    }

    fn open_sealed(&mut self, core: &mut Core, first_seq: u64, has_raw: bool) -> Result<Option<(Segment, Vec<Operation>)>, OpenError> {
        let path = self.dir.join(segment::file_name(first_seq, Form::Sealed));
        let file = self.vfs.open(&path).map_err(io_error("open", &path))?;
        let header = segment::read_header(&*file, Form::Sealed, &self.config.name, first_seq).map_err(io_error("read", &path))?;
        if let Err(HeaderError::Version(found)) = header {
            return Err(OpenError::Version { path, found: found.into(), supported: FORMAT_VERSION.into() });
        }
        let table = match (header, sealed::read_table(&*file, first_seq).map_err(io_error("read", &path))?) {
            (Ok(()), Ok(table)) => table,
            (header, table) => {
                let reason = header.err().map(|error| error.reason()).or(table.err().map(str::to_owned)).unwrap_or_default();
                if has_raw {
                    // Sealing was interrupted by a power cut; the original is there.
                    self.set_aside(&path)?;
                    return Ok(None);
                }
                let (table, unread) = sealed::rebuild_table(&*file, first_seq).map_err(io_error("read", &path))?;
                warn!(stream = self.config.name, path = %path.display(), reason, unread, "sealed segment is damaged: its table of contents is made anew from what reads back");
                self.report.damaged_segments += 1;
                if table.blocks.is_empty() {
                    self.set_aside(&path)?;
                    return Ok(None);
                }
                table
            }
        };
        for entry in &table.subjects {
            core.subjects.add_sealed(&entry.subject, entry.count, entry.last_seq);
        }
        if core.subjects.tracks() {
            track(core, &*file, &table.blocks).map_err(io_error("read", &path))?;
        }
        let disk_len = file.len().map_err(io_error("look at", &path))?;
        let opened = self.opened(file);
        Ok(Some((Segment::sealed(first_seq, opened, &table, disk_len), table.operations)))
    }

    fn set_aside(&mut self, path: &Path) -> Result<(), OpenError> {
        let aside = path.with_added_extension("damaged");
        self.vfs.rename(path, &aside).map_err(io_error("set aside", path))?;
        self.report.set_aside += 1;
        Ok(())
    }

    fn open_raw(
        &mut self,
        core: &mut Core,
        first_seq: u64,
        is_last: bool,
        reserved: u64,
    ) -> Result<Option<(Segment, Vec<Operation>)>, OpenError> {
        let path = self.dir.join(segment::file_name(first_seq, Form::Raw));
        let file = self.vfs.open(&path).map_err(io_error("open", &path))?;
        let len = file.len().map_err(io_error("look at", &path))?;
        match segment::read_header(&*file, Form::Raw, &self.config.name, first_seq).map_err(io_error("read", &path))? {
            Ok(()) => {}
            Err(HeaderError::Version(found)) => {
                return Err(OpenError::Version { path, found: found.into(), supported: FORMAT_VERSION.into() });
            }
            Err(error) => {
                // A power cut right after its creation, or damage.
                let bytes = read_tail(&*file, 0, len).map_err(io_error("read", &path))?;
                if record::find_whole_record(&bytes, first_seq..=reserved).is_none() {
                    self.keep_torn(&path, &bytes).map_err(io_error("cut the torn tail off", &path))?;
                    self.vfs.remove(&path).map_err(io_error("remove", &path))?;
                    return Ok(None);
                }
                warn!(stream = self.config.name, path = %path.display(), reason = error.reason(), "segment is damaged");
                self.report.damaged_segments += 1;
                // What comes next goes into a segment that is whole.
                self.report.close_last |= is_last;
            }
        }
        let found = scan::scan(&*file, first_seq, len, reserved).map_err(io_error("read", &path))?;
        if let Some((offset, reason)) = found.torn {
            let tail = read_tail(&*file, found.len, len).map_err(io_error("read", &path))?;
            self.keep_torn(&path, &tail).map_err(io_error("cut the torn tail off", &path))?;
            file.set_len(found.len).map_err(io_error("cut the torn tail off", &path))?;
            if !is_last {
                warn!(stream = self.config.name, path = %path.display(), offset, reason, "segment is damaged at its end");
                self.report.damaged_segments += 1;
            }
        }
        for (offset, reason, seq, missing) in &found.damage {
            warn!(stream = self.config.name, path = %path.display(), offset, reason, seq, missing, "segment is damaged");
            self.report.missing_sequences += missing;
            if *missing > 0 {
                let (first, last) = (*seq, seq + missing - 1);
                core.unreadable.push(Unreadable { first, last, path: path.clone(), offset: *offset, reason });
            }
            self.report.close_last |= is_last;
        }
        file.sync().map_err(io_error("sync", &path))?;
        let opened = self.opened(file);
        Ok(Some(indexed(core, first_seq, opened, found)))
    }

    /// Keeps what is cut off in a file beside the segment, unless it is all zeros.
    fn keep_torn(&mut self, path: &Path, tail: &[u8]) -> io::Result<()> {
        if tail.iter().any(|byte| *byte != 0) {
            let torn: PathBuf = path.with_added_extension("torn");
            let file = match self.vfs.open(&torn) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.vfs.create(&torn)?,
                Err(error) => return Err(error),
            };
            let end = file.len()?;
            file.write_at(tail, end)?;
            file.sync()?;
        }
        self.report.truncated_bytes += tail.len() as u64;
        Ok(())
    }
}

fn read_tail(file: &dyn VFile, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    let read = file.read_at(&mut bytes, from)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Notes sequence and size of every message of a sealed segment, subject by subject.
pub(super) fn track(core: &mut Core, file: &dyn VFile, blocks: &[sealed::BlockRef]) -> io::Result<()> {
    for at in blocks {
        if let Ok(block) = sealed::read_block(file, at)? {
            for n in 0..block.len() {
                core.subjects.track_sealed(block.subject(n), block.seq(n), block.size(n));
            }
        }
    }
    Ok(())
}

/// A scanned segment with its index; its subjects are counted.
fn indexed(core: &mut Core, first_seq: u64, opened: Opened, found: Scan) -> (Segment, Vec<Operation>) {
    let Scan { messages, operations, len, end_seq, .. } = found;
    let mut segment = Segment::raw(first_seq);
    let mut raw = Raw { file: Some(opened), len, operations: operations.clone(), ..Raw::default() };
    let mut absent = roaring::RoaringBitmap::new();
    let mut next = first_seq;
    for message in messages {
        while next < message.seq {
            absent.insert(segment.place(next));
            raw.offsets.push(NOWHERE);
            raw.slots.push(NOWHERE);
            next += 1;
        }
        if segment.bytes == 0 {
            (segment.first_time_ns, segment.max_time_ns) = (message.time_ns, message.time_ns);
        }
        segment.max_time_ns = segment.max_time_ns.max(message.time_ns);
        segment.last_time_ns = message.time_ns;
        segment.bytes += message.size.max(MESSAGE_OVERHEAD);
        raw.offsets.push(u32::try_from(message.offset).unwrap_or(NOWHERE));
        raw.slots.push(core.subjects.add(&message.subject, message.seq, message.size));
        next = message.seq + 1;
    }
    while next < end_seq {
        absent.insert(segment.place(next));
        raw.offsets.push(NOWHERE);
        raw.slots.push(NOWHERE);
        next += 1;
    }
    segment.end_seq = end_seq;
    segment.deleted = Arc::new(absent);
    segment.disk_len = len;
    segment.body = Body::Raw(raw);
    (segment, operations)
}

impl Log {
    /// Does again what the log's operations say, then what its limits say.
    pub(super) fn apply(&self, core: &mut Core, operations: Vec<Operation>) {
        let mut head = 0;
        for operation in operations {
            match operation {
                Operation::Delete { subject, messages } => {
                    for (seq, size) in messages {
                        core.remove(seq, &subject, size);
                    }
                }
                Operation::Head { first_seq } => head = head.max(first_seq),
            }
        }
        (core.head_on_disk, core.head_written, core.head_synced) = (head, head, head);
        self.cut_below(core, head);
        self.advance_from_start(core);
        // A power cut may have taken deletions back.
        self.enforce_subjects(core);
        self.enforce_size(core);
        core.removals = 0;
    }
}
