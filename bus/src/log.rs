//! Reading a stream's files.

use std::path::Path;

use crate::config::StreamName;
use crate::error::ReadError;
use crate::message::Record;

/// Read-only view of a stream's files from any process.
#[derive(Debug)]
pub struct LogReader {}

impl LogReader {
    /// Opens the stream's folder.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open(data_dir: &Path, stream: StreamName) -> Result<LogReader, ReadError> {
        Err(ReadError::NoStream { path: data_dir.join("streams").join(stream.as_str()) })
    }

    /// To the first record with this or a later sequence.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seek_seq(&mut self, _seq: u64) -> Result<(), ReadError> {
        Ok(())
    }

    /// To the first record with this or a later time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seek_time(&mut self, _time_ns: i64) -> Result<(), ReadError> {
        Ok(())
    }

    /// Behind the last record.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seek_end(&mut self) -> Result<(), ReadError> {
        Ok(())
    }

    /// The next record; `None` at the present end.
    ///
    /// # Errors
    /// [`ReadError`].
    #[expect(clippy::should_implement_trait, reason = "None is not the end for ever, as an iterator's would be")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        Ok(None)
    }
}
