//! The files of a stream: `docs/bus-format.md` in code.
//!
//! Invariants worth naming:
//!
//! - **Inside a segment sequences are dense**: the n-th record has the segment's first sequence plus n. Holes exist only between
//!   segments, so that a sequence that does not fit is damage.
//! - **A record counts only with its whole batch.** All records of a batch but the last carry the "continues" flag; recovery cuts
//!   off a batch without its end, and a reader of a live file holds it back until the end is there.
//! - **Recovery cuts off only what no acknowledged record follows.** Damage with whole records behind it stays where it is, the
//!   segment is closed, and readers name file and offset.
//! - **Decoding knows no files** (`record`), files know no clock; the boot id is passed in.

pub(crate) mod meta;
mod reader;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod scan;
pub(crate) mod segment;

use std::path::{Path, PathBuf};

pub use reader::LogReader;

use crate::config::StreamName;

/// `<data>/streams/<NAME>`.
pub(crate) fn stream_dir(data_dir: &Path, name: StreamName) -> PathBuf {
    data_dir.join("streams").join(name.as_str())
}
