//! The host's own key: without it nobody can try passwords against the hashes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Name of the key file in the data folder.
pub const KEY_FILE: &str = "redaction.key";

/// Bytes of the key: the block that the hash's own strength needs, and no more (RFC 2104).
const KEY_BYTES: usize = 32;

/// Bits of group and others.
const OTHERS: u32 = 0o077;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the redaction key {}: {source}; make it readable for the user that runs Bartizan", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot make the redaction key {}: {source}; secrets in command lines could not be redacted, so nothing is captured", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others can read it, or have made it.
    #[error(
        "the redaction key {} belongs to uid {owner} and has mode {mode:04o}: whoever reads it can guess the redacted secrets. If nobody \
         else had it, `chown {uid} {0}; chmod 600 {0}`; else delete it, and a new one is made (old and new hashes then never match)", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode bits.
        mode: u32,
        /// Who should own it.
        uid: u32,
    },
    /// It is no key.
    #[error("the redaction key {} is no file of {KEY_BYTES} bytes: delete it, and a new one is made (old and new hashes then never match)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// A key of [`KEY_BYTES`] bytes. It is not shown.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        // A key of any length is taken by HMAC; this one fits its block, so that the error cannot come.
        Self(Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::from(padded(bytes))))
    }

    /// The host's key in `data_dir`, made when there is none. The caller holds the folder's lock: two makers would overwrite each other.
    ///
    /// # Errors
    /// [`KeyError`]; nothing is captured then, rather than captured unredacted.
    pub fn of_host(data_dir: &Path) -> Result<Self, KeyError> {
        let path = data_dir.join(KEY_FILE);
        match read(&path)? {
            Some(key) => Ok(key),
            None => {
                let make = |source| KeyError::Make { path: path.clone(), source };
                let mut bytes = [0; KEY_BYTES];
                getrandom::fill(&mut bytes).map_err(|error| make(io::Error::other(error.to_string())))?;
                write(&path, &bytes).map_err(make)?;
                Ok(Self::from_bytes(bytes))
            }
        }
    }

    /// First 8 bytes of HMAC-SHA256, as 16 hexadecimal digits.
    pub(super) fn hash(&self, value: &str) -> String {
        use std::fmt::Write;
        let mut mac = self.0.clone();
        mac.update(value.as_bytes());
        let mut text = String::with_capacity(16);
        for byte in mac.finalize().into_bytes().iter().take(8) {
            // Writing into a `String` has no failure.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// HMAC pads a shorter key with zeros to the hash's block (64 bytes, FIPS 198-1).
fn padded(bytes: [u8; KEY_BYTES]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..KEY_BYTES].copy_from_slice(&bytes);
    block
}

/// The key in the file; `None` where there is no file.
fn read(path: &Path) -> Result<Option<Key>, KeyError> {
    let error = |source| KeyError::Read { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) if source.raw_os_error() == Some(libc::ELOOP) => return Err(KeyError::NoKey { path: path.to_owned() }),
        Err(source) => return Err(error(source)),
    };
    let metadata = file.metadata().map_err(error)?;
    let (owner, mode, uid) = (metadata.uid(), metadata.mode() & 0o7777, nix::unistd::geteuid().as_raw());
    if !metadata.is_file() {
        return Err(KeyError::NoKey { path: path.to_owned() });
    }
    if owner != uid || mode & OTHERS != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), owner, mode, uid });
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(error)?;
    match <[u8; KEY_BYTES]>::try_from(bytes) {
        Ok(bytes) => Ok(Some(Key::from_bytes(bytes))),
        Err(_) => Err(KeyError::NoKey { path: path.to_owned() }),
    }
}

/// Writes the key so that a crash leaves it as a whole or not at all.
fn write(path: &Path, bytes: &[u8; KEY_BYTES]) -> io::Result<()> {
    let temporary = path.with_added_extension("tmp");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // RFC 4231, test case 2 has a key of 4 bytes; zeros behind it change nothing.
        let mut key = [0; KEY_BYTES];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(Key::from_bytes(key).hash("what do ya want for nothing?"), "5bdcc146bf60754e");
    }

    #[test]
    fn a_host_keeps_its_key_and_another_has_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let hash = |folder: &tempfile::TempDir| Key::of_host(folder.path()).unwrap().hash("hunter2");
        assert_eq!(hash(&one), hash(&one));
        assert_ne!(hash(&one), hash(&two));
        let mode = std::fs::metadata(one.path().join(KEY_FILE)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        assert_eq!(std::fs::read(one.path().join(KEY_FILE)).unwrap().len(), KEY_BYTES);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        Key::of_host(folder.path()).unwrap();
        let path = folder.path().join(KEY_FILE);
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Key::of_host(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")) && error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_used_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        for bytes in [&b""[..], &[7; 31], &[7; 33]] {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Key::of_host(folder.path()), Err(KeyError::NoKey { .. })));
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(Key::of_host(folder.path()), Err(KeyError::NoKey { .. })));
    }
}
