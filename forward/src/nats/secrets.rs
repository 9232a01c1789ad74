//! Files with secrets: read at each connection, refused when everybody on this host can read them too.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::config::FilePath;
use crate::sink::SinkError;

/// Longest secret in bytes. A credentials file has about one thousand.
const MAX_BYTES: u64 = 64 * 1024;

/// Permission bits of those who are neither owner nor group.
const OTHERS: u32 = 0o007;

fn refused(key: &str, file: &FilePath, why: impl std::fmt::Display) -> SinkError {
    SinkError::Config { reason: format!("{key} {file} {why}") }
}

fn open(key: &str, file: &FilePath) -> Result<File, SinkError> {
    let refuse = |why: String| refused(key, file, why);
    let opened =
        File::open(file.as_path()).map_err(|error| refuse(format!("cannot be read: {error}: name a file that Bartizan can read")))?;
    let meta = opened.metadata().map_err(|error| refuse(format!("cannot be examined: {error}")))?;
    if !meta.is_file() {
        return Err(refuse("is not a regular file: name a file with the secret in it".to_owned()));
    }
    if meta.permissions().mode() & OTHERS != 0 {
        let mode = meta.mode() & 0o7777;
        return Err(refuse(format!("has mode {mode:04o}, which lets every user of this host at a secret: run `chmod o= {file}`")));
    }
    Ok(opened)
}

/// Checks that a file which another reads is there and is private.
pub(super) fn check(key: &str, file: &FilePath) -> Result<(), SinkError> {
    open(key, file).map(drop)
}

/// Reads a secret; space and line ends around it are not part of it.
pub(super) fn read(key: &str, file: &FilePath) -> Result<String, SinkError> {
    let mut text = String::new();
    let count = open(key, file)?.take(MAX_BYTES + 1).read_to_string(&mut text);
    match count {
        Err(error) => Err(refused(key, file, format_args!("cannot be read as text: {error}"))),
        Ok(count) if count as u64 > MAX_BYTES => {
            Err(refused(key, file, format_args!("has more than {MAX_BYTES} bytes: that is no secret")))
        }
        Ok(_) if text.trim().is_empty() => Err(refused(key, file, "is empty: put the secret into it")),
        Ok(_) => Ok(text.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(dir: &tempfile::TempDir, content: &[u8], mode: u32) -> FilePath {
        let path = dir.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        FilePath::try_from(path.to_str().unwrap().to_owned()).unwrap()
    }

    #[test]
    fn what_others_can_read_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o640, 0o400] {
            assert_eq!(read("token_file", &file(&dir, b" s3cr3t \n", mode)), Ok("s3cr3t".to_owned()));
        }
        for mode in [0o644, 0o604, 0o602] {
            let file = file(&dir, b"s3cr3t", mode);
            let error = read("token_file", &file).unwrap_err().to_string();
            assert!(error.contains(&format!("token_file {file} has mode {mode:04o}")) && error.contains("chmod o="), "{error}");
            assert_eq!(check("token_file", &file).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn errors_name_key_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = FilePath::try_from(dir.path().to_str().unwrap().to_owned()).unwrap();
        let absent = FilePath::try_from(format!("{folder}/absent")).unwrap();
        let cases = [
            (read("creds_file", &absent), "cannot be read: No such file"),
            (read("creds_file", &file(&dir, b"\n", 0o600)), "is empty"),
            (read("creds_file", &file(&dir, b"\xff\xfe", 0o600)), "as text"),
            (read("creds_file", &file(&dir, &vec![b'x'; MAX_BYTES as usize + 1], 0o600)), "more than 65536 bytes"),
        ];
        for (result, expected) in cases {
            let error = result.unwrap_err();
            assert!(matches!(error, SinkError::Config { .. }));
            let error = error.to_string();
            assert!(error.starts_with("creds_file /") && error.contains(expected), "{error}");
        }
        let mut open = fs::metadata(dir.path()).unwrap().permissions();
        open.set_mode(0o700);
        fs::set_permissions(dir.path(), open).unwrap();
        assert!(read("creds_file", &folder).unwrap_err().to_string().contains("is not a regular file"));
    }
}
