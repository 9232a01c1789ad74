//! Small files of the data folder that are read and replaced as a whole: what one run leaves for the next.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The bytes of the file at `path`, `max` at most; `None` when there is no file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Puts a file of these bytes, its owner's alone, in the place of the one at `path`; `synced`: they are on the disk before that.
///
/// # Errors
/// The folder takes no more, say.
pub(crate) fn replace(path: &Path, bytes: &[u8], synced: bool) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    if synced {
        file.sync_all()?;
    }
    fs::rename(&beside, path)
}
