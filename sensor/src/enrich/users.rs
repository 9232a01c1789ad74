//! User names, from the host's `/etc/passwd`.
//!
//! Not through NSS: a lookup there may go to a directory server and block the capture. Accounts that only a directory knows
//! keep their number.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// Names by user id, re-read when the file changes.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    read_at: Option<SystemTime>,
    names: HashMap<u32, String>,
}

impl Users {
    /// The names in the file at `path`. A missing file is an empty one.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut users = Self { path: path.into(), read_at: None, names: HashMap::new() };
        users.refresh();
        users
    }

    /// Reads the file again if it changed.
    pub fn refresh(&mut self) {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_some() && modified == self.read_at {
            return;
        }
        self.read_at = modified;
        self.names = fs::read(&self.path).map(|bytes| parse(&bytes)).unwrap_or_default();
    }

    /// Name of `uid`.
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.names.get(&uid).map(String::as_str)
    }
}

/// `name:password:uid:...`, one account a line; the first entry of an id counts, as in getpwuid(3).
fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(uid))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_name_of_an_id_counts_and_junk_is_passed_over() {
        let names = parse(b"root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:/bin/sh\n#comment\nwww-data:x:33:33::/:/x\nbad:x:abc:1\n");
        assert_eq!(names.get(&0).unwrap(), "root");
        assert_eq!(names.get(&33).unwrap(), "www-data");
        assert_eq!(names.len(), 2);
    }

    proptest! {
        #[test]
        fn any_file_is_read(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
