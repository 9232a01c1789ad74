//! User names, from the host's `/etc/passwd`.
//!
//! Not through NSS: a lookup there may go to a directory server and block the capture. Accounts that only a directory knows
//! keep their number.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::accounts::{SIZE_MAX, open_regular};

/// Names by user id.
pub type Names = BTreeMap<u32, String>;

/// The file of names, re-read when it changes.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    read_at: Option<SystemTime>,
    names: Names,
}

impl Users {
    /// The names in the file at `path`, which [`refresh`](Self::refresh) reads.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read_at: None, names: Names::new() }
    }

    /// Reads the file if it changed; gives the names where they are others now. A missing file is an empty one.
    pub fn refresh(&mut self) -> Option<Names> {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_some() && modified == self.read_at {
            return None;
        }
        self.read_at = modified;
        let mut bytes = Vec::new();
        let read = open_regular(&self.path).and_then(|(file, _)| file.take(SIZE_MAX).read_to_end(&mut bytes));
        let names = read.map(|_| parse(&bytes)).unwrap_or_default();
        (names != self.names).then(|| {
            self.names.clone_from(&names);
            names
        })
    }
}

/// `name:password:uid:...`, one account a line; the first entry of an id counts, as in getpwuid(3).
fn parse(bytes: &[u8]) -> Names {
    let mut names = Names::new();
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
    fn names_are_told_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        let mut users = Users::new(&path);
        assert_eq!(users.refresh(), None, "no file, no names");
        fs::write(&path, "root:x:0:0\n").unwrap();
        assert_eq!(users.refresh(), Some(Names::from([(0, "root".to_owned())])));
        assert_eq!(users.refresh(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(users.refresh(), Some(Names::new()));
    }

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
