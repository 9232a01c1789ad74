//! Looking at a stream's files without opening it: what `bartizan bus inspect` and `verify` say.

use std::path::Path;

use serde::Serialize;

use super::meta::Meta;
use super::scan;
use super::sealed;
use super::segment::{self, Form};
use super::stream_dir;
use super::vfs::{Disk, VFile, Vfs};
use crate::error::ReadError;

/// A stream's files.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Inspection {
    /// The stream.
    pub stream: String,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInspection>,
    /// Bytes that recovery cut off, kept beside their segments.
    pub torn_bytes: u64,
    /// Files set aside because they do not read.
    pub set_aside: Vec<String>,
    /// Sequences that no message ever had.
    pub gaps: Vec<(u64, u64)>,
    /// Messages that were lost to damage found before.
    pub lost: u64,
}

/// One segment.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentInspection {
    /// Its file.
    pub file: String,
    /// Whether it is compressed.
    pub sealed: bool,
    /// Its first sequence.
    pub first_seq: u64,
    /// The sequence behind its last one.
    pub end_seq: u64,
    /// Messages in the file; some may be deleted by operations elsewhere.
    pub messages: u64,
    /// Operations in it.
    pub operations: u64,
    /// Distinct subjects.
    pub subjects: u64,
    /// Size of the file.
    pub disk_bytes: u64,
    /// What its messages count against byte limits.
    pub bytes: u64,
    /// What does not read, in words.
    pub damage: Vec<String>,
    /// The end of a segment that is being written, or was when the machine or the process died.
    pub torn: Option<String>,
}

impl Inspection {
    /// Whether everything reads back.
    pub fn is_sound(&self) -> bool {
        self.segments.iter().all(|segment| segment.damage.is_empty())
    }
}

/// Names of all streams in a data folder.
///
/// # Errors
/// What the system said.
pub fn stream_names(data_dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    match std::fs::read_dir(data_dir.join("streams")) {
        Ok(entries) => {
            for entry in entries {
                names.extend(entry?.file_name().into_string());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    names.sort_unstable();
    Ok(names)
}

/// Looks at a stream's files; with `deep` every block of sealed segments is unpacked and checked (raw ones always are).
///
/// # Errors
/// [`ReadError::NoStream`], [`ReadError::Io`].
pub fn inspect(data_dir: &Path, stream: &str, deep: bool) -> Result<Inspection, ReadError> {
    let dir = stream_dir(data_dir, stream);
    let names = match Disk.list(&dir) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(ReadError::NoStream { path: dir }),
        Err(source) => return Err(ReadError::Io { path: dir, source }),
    };
    let mut found = Inspection { stream: stream.to_owned(), ..Inspection::default() };
    let mut segments = Vec::new();
    for name in names {
        if let Some((first_seq, form)) = segment::parse_file_name(&name) {
            segments.push((first_seq, form, name));
        } else if name.ends_with(".torn") {
            found.torn_bytes += std::fs::metadata(dir.join(&name)).map_or(0, |file| file.len());
        } else if name.ends_with(".damaged") {
            found.set_aside.push(name);
        }
    }
    segments.sort_unstable_by_key(|(first_seq, form, _)| (*first_seq, std::cmp::Reverse(*form)));
    segments.dedup_by_key(|(first_seq, ..)| *first_seq);
    if let Ok(Some(meta)) = Meta::load(&Disk, &dir, stream) {
        found.lost = meta.unreadable.iter().map(|lost| (lost.last + 1).saturating_sub(lost.first)).sum();
        found.gaps = meta.gaps;
    }
    for (first_seq, form, file) in segments {
        let path = dir.join(&file);
        let io_error = |source| ReadError::Io { path: path.clone(), source };
        let opened = match std::fs::File::open(&path) {
            Ok(opened) => opened,
            // Retention or sealing was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(io_error(source)),
        };
        found.segments.push(look(&opened, stream, first_seq, form, file, deep).map_err(io_error)?);
    }
    Ok(found)
}

fn look(file: &std::fs::File, stream: &str, first_seq: u64, form: Form, name: String, deep: bool) -> std::io::Result<SegmentInspection> {
    let disk_bytes = VFile::len(file)?;
    let mut seen = SegmentInspection {
        file: name,
        sealed: form == Form::Sealed,
        first_seq,
        end_seq: first_seq,
        messages: 0,
        operations: 0,
        subjects: 0,
        disk_bytes,
        bytes: 0,
        damage: Vec::new(),
        torn: None,
    };
    if let Err(error) = segment::read_header(file, form, stream, first_seq)? {
        seen.damage.push(error.reason());
    }
    match form {
        Form::Raw => {
            let scan = scan::scan(file, first_seq, disk_bytes, u64::MAX)?;
            let mut subjects: Vec<&str> = scan.messages.iter().map(|message| message.subject.as_str()).collect();
            subjects.sort_unstable();
            subjects.dedup();
            (seen.end_seq, seen.messages, seen.subjects) = (scan.end_seq, scan.messages.len() as u64, subjects.len() as u64);
            seen.operations = scan.operations.len() as u64;
            seen.bytes = scan.messages.iter().map(|message| message.size).sum();
            let words = |(offset, reason, _, missing): &(u64, &str, u64, u64)| format!("byte {offset}: {reason}, {missing} messages lost");
            seen.damage.extend(scan.damage.iter().map(words));
            seen.torn = scan.torn.map(|(offset, reason)| format!("byte {offset}: {reason}"));
        }
        Form::Sealed => {
            let table = match sealed::read_table(file, first_seq)? {
                Ok(table) => table,
                Err(reason) => {
                    seen.damage.push(reason.to_owned());
                    sealed::rebuild_table(file, first_seq)?.0
                }
            };
            seen.end_seq = table.end_seq;
            seen.messages = (table.end_seq - first_seq) - table.absent.len();
            (seen.operations, seen.subjects, seen.bytes) = (table.operations.len() as u64, table.subjects.len() as u64, table.bytes);
            for block in table.blocks.iter().filter(|_| deep) {
                if let Err(reason) = sealed::read_block(file, block)? {
                    seen.damage.push(format!("byte {}: {reason}, {} messages lost", block.offset, block.count));
                }
            }
        }
    }
    Ok(seen)
}
