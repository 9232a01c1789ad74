//! Opening a stream's folder: what is whole stays, what is torn is cut off, what is damaged is named, and the next sequence is one
//! that nobody has ever seen.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use crate::config::StreamName;
use crate::error::OpenError;
use crate::files;
use crate::log::meta::{self, Meta};
use crate::log::record;
use crate::log::scan::{Scanned, Scanner};
use crate::log::segment::{self, Damage, FORMAT_VERSION, HeaderError, SEGMENT_HEADER_LEN, Segment, SegmentState};

/// A stream ready to be appended to.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Oldest first; the last one is appended to.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// The last segment's file.
    pub(crate) active: File,
    /// Sequence of the next message.
    pub(crate) next_seq: u64,
    /// As stored on disk now.
    pub(crate) meta: Meta,
    /// What had to be done.
    pub(crate) report: Report,
}

/// What opening found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Bytes of a torn tail that were cut off.
    pub(crate) truncated_bytes: u64,
    /// Sequences between the last message on disk and the next one.
    pub(crate) skipped_sequences: u64,
    /// Messages known to have stood behind the last one that can be read; `missing_sequences` has them too.
    pub(crate) lost_at_end: u64,
    /// Sequences inside closed segments that cannot be read.
    pub(crate) missing_sequences: u64,
}

/// The stream that is opened.
struct Opening<'a> {
    dir: &'a Path,
    stream: StreamName,
    report: Report,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// Opens the folder, creating it when it is missing.
///
/// `boot_id` tells whether the machine was restarted since the last run: if not, the page cache has kept all that was written.
/// `block` is how many sequences are reserved ahead.
pub(crate) fn recover(dir: &Path, stream: StreamName, boot_id: &str, block: u64) -> Result<Recovered, OpenError> {
    files::create_private_dir(dir).map_err(io_error("create folder", dir))?;
    remove_temporaries(dir).map_err(io_error("clean up", dir))?;
    let mut opening = Opening { dir, stream, report: Report::default() };
    let stored = Meta::load(dir, stream)?;
    let names = segment::list(dir).map_err(io_error("list folder", dir))?;
    let had_segments = !names.is_empty();

    let mut meta = stored.clone().unwrap_or_else(|| Meta::new(stream));
    let reserved_before = if stored.is_some() { meta.reserved } else { u64::MAX };
    let mut segments: VecDeque<Arc<Segment>> = VecDeque::new();
    let mut floor = 1;
    let mut lost_behind_last = 0;
    for (at, &first_seq) in names.iter().enumerate() {
        let is_last = at + 1 == names.len();
        floor = floor.max(first_seq);
        let found = opening.open_segment(first_seq, is_last, &meta, reserved_before)?;
        if let Some((state, lost)) = found {
            lost_behind_last = lost;
            segments.push_back(Arc::new(Segment::new(dir, first_seq, state)));
        }
    }

    let last_seq = segments.back().map_or(0, |last| last.end_seq() - 1);
    let damaged_end = segments.back().is_some_and(|last| last.state().damage.is_some());
    let floor = floor.max(last_seq + 1);
    let next_seq = match &stored {
        None if !had_segments => 1,
        None => floor + block,
        Some(meta) if meta.clean_last_seq == Some(last_seq) && !damaged_end => floor,
        Some(meta) if meta.clean_last_seq.is_none() && !boot_id.is_empty() && meta.boot_id == boot_id && !damaged_end => floor,
        Some(meta) => floor.max(meta.reserved + 1),
    };
    opening.report.skipped_sequences = next_seq - last_seq - 1;
    opening.report.lost_at_end = lost_behind_last;
    opening.report.missing_sequences += lost_behind_last;
    meta.add_gap(last_seq + lost_behind_last + 1, next_seq - 1);
    for (before, after) in segments.iter().zip(segments.iter().skip(1)) {
        if before.state().damage.is_some() {
            opening.report.missing_sequences += meta::count_outside(&meta.gaps, before.end_seq(), after.first_seq - 1);
        }
    }

    let reusable = segments.back().filter(|last| last.end_seq() == next_seq && last.state().damage.is_none());
    let active = match reusable {
        Some(last) => files::open_private(&last.path).map_err(io_error("open", &last.path))?,
        None => {
            let file = segment::create(dir, stream, next_seq).map_err(io_error("create a segment in", dir))?;
            segments.push_back(Arc::new(Segment::new(dir, next_seq, SegmentState::empty())));
            file
        }
    };
    active.sync_all().map_err(io_error("sync", dir))?;
    boot_id.clone_into(&mut meta.boot_id);
    meta.clean_last_seq = None;
    meta.reserved = meta.reserved.max(next_seq - 1 + block);
    meta.store(dir).map_err(io_error("write", &Meta::path(dir)))?;
    if opening.report != Report::default() {
        let Report { truncated_bytes, skipped_sequences, lost_at_end, missing_sequences } = opening.report;
        warn!(%stream, truncated_bytes, skipped_sequences, lost_at_end, missing_sequences, "the stream did not end in good order");
    }
    Ok(Recovered { segments, active, next_seq, meta, report: opening.report })
}

impl Opening<'_> {
    /// Looks into one segment; `None` when there was nothing in it to keep. Also gives how many sequences are known to be lost
    /// behind its last record.
    fn open_segment(
        &mut self,
        first_seq: u64,
        is_last: bool,
        meta: &Meta,
        reserved: u64,
    ) -> Result<Option<(SegmentState, u64)>, OpenError> {
        let path = self.dir.join(segment::file_name(first_seq));
        let file = files::open_private(&path).map_err(io_error("open", &path))?;
        let len = file.metadata().map_err(io_error("look at", &path))?.len();
        match segment::read_header(&file, self.stream, first_seq).map_err(io_error("read", &path))? {
            Ok(()) => {}
            Err(HeaderError::Version(found)) => {
                return Err(OpenError::Version { path, found: found.into(), supported: FORMAT_VERSION.into() });
            }
            Err(other) => return self.damaged_header(&path, &file, first_seq, is_last, reserved, &other),
        }
        let known = meta.segments.iter().find(|summary| summary.first_seq == first_seq && summary.len == len);
        if let Some(state) = known.map(|summary| summary.state()).filter(SegmentState::plausible)
            && (!is_last || meta.clean_last_seq.is_some())
        {
            return Ok(Some((state, 0)));
        }

        let (mut state, failure) =
            scan(file.try_clone().map_err(io_error("open", &path))?, first_seq, len).map_err(io_error("read", &path))?;
        file.sync_data().map_err(io_error("sync", &path))?;
        let Some(failure) = failure else { return Ok(Some((state, 0))) };
        if is_last {
            let tail = read_tail(&file, state.len, len).map_err(io_error("read", &path))?;
            let behind = tail.get((failure.offset - state.len) as usize + 1..).unwrap_or_default();
            match record::highest_whole_record(behind, first_seq + state.count..=reserved) {
                None => {
                    self.cut_off(&path, &file, state.len, &tail).map_err(io_error("cut the torn tail off", &path))?;
                    return Ok(Some((state, 0)));
                }
                Some(highest) => {
                    let lost = highest + 1 - (first_seq + state.count);
                    warn!(path = %path.display(), offset = failure.offset, reason = failure.reason, "segment is damaged before its end");
                    state.damage = Some(failure);
                    return Ok(Some((state, lost)));
                }
            }
        }
        warn!(path = %path.display(), offset = failure.offset, reason = failure.reason, "segment is damaged");
        state.damage = Some(failure);
        Ok(Some((state, 0)))
    }

    /// A segment whose header does not read: a power cut right after its creation, or damage.
    fn damaged_header(
        &mut self,
        path: &Path,
        file: &File,
        first_seq: u64,
        is_last: bool,
        reserved: u64,
        error: &HeaderError,
    ) -> Result<Option<(SegmentState, u64)>, OpenError> {
        let len = file.metadata().map_err(io_error("look at", path))?.len();
        let bytes = read_tail(file, 0, len).map_err(io_error("read", path))?;
        let highest = record::highest_whole_record(&bytes, first_seq..=reserved);
        if is_last && highest.is_none() {
            self.cut_off(path, file, 0, &bytes).map_err(io_error("cut the torn tail off", path))?;
            std::fs::remove_file(path).map_err(io_error("remove", path))?;
            return Ok(None);
        }
        warn!(path = %path.display(), reason = error.reason(), "segment is damaged");
        let mut state = SegmentState::empty();
        state.damage = Some(Damage { offset: 0, reason: error.reason() });
        let lost = if is_last { highest.map_or(0, |highest| highest + 1 - first_seq) } else { 0 };
        Ok(Some((state, lost)))
    }

    /// Cuts the file off at `len`, keeping what is cut off in a file beside it unless it is all zeros.
    fn cut_off(&mut self, path: &Path, file: &File, len: u64, tail: &[u8]) -> io::Result<()> {
        if tail.iter().any(|byte| *byte != 0) {
            let mut torn = files::append_private(&path.with_added_extension("torn"))?;
            torn.write_all(tail)?;
            torn.sync_all()?;
        }
        file.set_len(len)?;
        file.sync_all()?;
        self.report.truncated_bytes += tail.len() as u64;
        Ok(())
    }
}

/// What an interrupted `replace` left behind.
fn remove_temporaries(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn read_tail(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Reads a segment to its end. The state covers whole batches only; the failure says where and why reading ended early.
fn scan(file: File, first_seq: u64, len: u64) -> io::Result<(SegmentState, Option<Damage>)> {
    let mut scanner = Scanner::new(file, first_seq);
    let mut state = SegmentState::empty();
    let mut batch: Vec<(u64, u64, i64)> = Vec::new();
    loop {
        let offset = scanner.offset();
        let reason = match scanner.next(len)? {
            Scanned::Record { record, offset, continues } => {
                batch.push((record.seq, offset, record.time_ns));
                if !continues {
                    for (seq, offset, time_ns) in batch.drain(..) {
                        state.note_offset(seq, offset);
                        state.add(time_ns);
                    }
                    state.len = scanner.offset();
                }
                continue;
            }
            Scanned::End if offset == state.len.max(SEGMENT_HEADER_LEN) => return Ok((state, None)),
            Scanned::End => "batch is cut off",
            Scanned::Incomplete => "record is cut off",
            Scanned::Bad { reason } => reason,
        };
        return Ok((state, Some(Damage { offset, reason: reason.to_owned() })));
    }
}
