//! From the rules to the files and folders that are there now.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bartizan_sensor_ebpf::abi::{WANT_ENTRIES, WANT_TREE};

use super::rules::{Rule, Rules, matches};

/// Files and folders that are watched, at most: the room in the kernel's map (`WATCH` in the kernel's maps.rs).
pub const WATCHED_MAX: usize = 8192;
/// Levels of folders below a watched one.
const DEPTH: usize = 16;

/// A file or folder to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The rule's text; empty for a folder that only leads to what a rule names.
    pub(super) rule: String,
    /// `WANT_*`.
    pub(super) want: u32,
}

/// Everything to watch.
#[derive(Debug, Default)]
pub(super) struct Listing<'a> {
    /// What is left out.
    ignored: Option<(&'a Rules, &'a Path)>,
    /// By path.
    pub(super) found: BTreeMap<PathBuf, Found>,
    /// Rules for which nothing is there now.
    pub(super) missing: usize,
    /// Files and folders for which there is no room.
    pub(super) beyond: u64,
    /// What could not be looked at, with the reason.
    pub(super) refused: BTreeMap<PathBuf, String>,
}

/// Files and folders that are there now and that the rules name, each with its rule's place, and without what is below them.
pub(super) fn places(rules: &Rules, root: &Path) -> Vec<(usize, PathBuf)> {
    let mut places = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let mut now = vec![root.to_owned()];
        for component in rule.components() {
            let below = |at: PathBuf| -> Vec<PathBuf> {
                if !component.contains('*') {
                    return vec![at.join(component)];
                }
                let names = fs::read_dir(at).into_iter().flatten().flatten();
                names
                    .filter(|entry| entry.file_name().to_str().is_some_and(|name| matches(component, name)))
                    .map(|entry| entry.path())
                    .collect()
            };
            now = now.into_iter().flat_map(below).filter(|path| path.exists() && !is_somebodys_link(path)).collect();
        }
        places.extend(now.into_iter().map(|path| (index, path)));
    }
    places
}

/// Whether it is a link of somebody other than root: whoever made it would say what is watched, or of what nothing is told.
fn is_somebodys_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink() && meta.uid() != 0)
}

/// Looks for what the rules name, below `root` (`/`, but for tests), but for what is `ignored`.
pub(super) fn list<'a>(rules: &Rules, ignored: &'a Rules, root: &'a Path) -> Listing<'a> {
    let mut listing = Listing { ignored: (!ignored.is_empty()).then_some((ignored, root)), ..Listing::default() };
    // Those that name one thing come first: what others can fill does not take their room.
    let (open, plain): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| rule.components().any(|component| component.contains('*')));
    for rule in plain.into_iter().chain(open) {
        let components: Vec<&str> = rule.components().collect();
        if !listing.descend(rule, root, &components) {
            listing.missing += 1;
        }
    }
    listing
}

impl Listing<'_> {
    /// Follows the components below `at`, noting each folder on the way. Returns whether anything is there.
    fn descend(&mut self, rule: &Rule, at: &Path, components: &[&str]) -> bool {
        let Some((first, rest)) = components.split_first() else {
            self.take(rule, at, 0);
            return true;
        };
        if !first.contains('*') {
            let next = at.join(first);
            return if next.exists() && !self.is_refused_link(&next) {
                if rest.is_empty() {
                    self.leads(at);
                }
                self.descend(rule, &next, rest)
            } else {
                self.leads(at);
                false
            };
        }
        self.leads(at);
        let mut found = false;
        for entry in self.entries(at) {
            if entry.file_name().to_str().is_some_and(|name| matches(first, name)) && !self.is_refused_link(&entry.path()) {
                found |= self.descend(rule, &entry.path(), rest);
            }
        }
        found
    }

    fn is_refused_link(&mut self, path: &Path) -> bool {
        let refused = is_somebodys_link(path);
        if refused {
            self.refused.insert(path.to_owned(), "it is a link that is not root's, and is not followed".to_owned());
        }
        refused
    }

    fn is_ignored(&self, path: &Path) -> bool {
        let Some((ignored, root)) = self.ignored else { return false };
        path.strip_prefix(root).ok().and_then(Path::to_str).is_some_and(|path| ignored.covering(path).is_some())
    }

    fn entries(&mut self, folder: &Path) -> Vec<fs::DirEntry> {
        match fs::read_dir(folder) {
            Ok(entries) => entries.flatten().collect(),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound && error.kind() != std::io::ErrorKind::NotADirectory {
                    self.refused.insert(folder.to_owned(), error.to_string());
                }
                Vec::new()
            }
        }
    }

    /// A folder in which a watched name may appear.
    fn leads(&mut self, folder: &Path) {
        self.put(folder, "", WANT_ENTRIES);
    }

    /// What a rule names, and all below it: each file by itself, because other names may lead to it.
    fn take(&mut self, rule: &Rule, path: &Path, depth: usize) {
        if self.is_ignored(path) {
            return;
        }
        if !path.is_dir() {
            self.put(path, &rule.text, rule.want);
            return;
        }
        self.put(path, &rule.text, rule.want | WANT_TREE | WANT_ENTRIES);
        if depth == DEPTH || self.found.len() == WATCHED_MAX {
            return;
        }
        for entry in self.entries(path) {
            // What a link in a watched folder leads to is not watched for that.
            if entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_file()) {
                self.take(rule, &entry.path(), depth + 1);
            }
        }
    }

    fn put(&mut self, path: &Path, rule: &str, want: u32) {
        if let Some(found) = self.found.get_mut(path) {
            found.want |= want;
            if found.rule.is_empty() {
                found.rule = rule.to_owned();
            }
        } else if self.found.len() < WATCHED_MAX {
            self.found.insert(path.to_owned(), Found { rule: rule.to_owned(), want });
        } else {
            self.beyond += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use bartizan_sensor_ebpf::abi::{WANT_CHANGE, WANT_READ};

    use super::*;
    use crate::config::files::FilesConfig;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("home/a/.ssh/deep")).unwrap();
        fs::create_dir_all(at("home/b")).unwrap();
        fs::create_dir_all(at("etc")).unwrap();
        fs::write(at("etc/passwd"), "").unwrap();
        fs::write(at("home/a/.ssh/deep/key"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("home/a/.ssh/link")).unwrap();
        let own = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let config = FilesConfig { watch: own(&["/etc/passwd", "/etc/none/x"]), read: own(&["/home/*/.ssh"]), ..FilesConfig::default() };
        let (rules, nothing) = (Rules::new(&config), Rules::default());
        let listing = list(&rules, &nothing, temp.path());
        let want = |path: &str| listing.found.get(&at(path)).map(|found| (found.rule.as_str(), found.want));
        let secret = WANT_CHANGE | WANT_READ | WANT_TREE | WANT_ENTRIES;
        assert_eq!(want("etc/passwd"), Some(("/etc/passwd", WANT_CHANGE)));
        assert_eq!(want("etc"), Some(("", WANT_ENTRIES)), "its file may be replaced, and `none` may appear");
        assert_eq!(want("home"), Some(("", WANT_ENTRIES)));
        assert_eq!(want("home/b"), Some(("", WANT_ENTRIES)));
        assert_eq!(want("home/a/.ssh"), Some(("/home/*/.ssh", secret)));
        assert_eq!(want("home/a/.ssh/deep"), Some(("/home/*/.ssh", secret)));
        assert_eq!(want("home/a/.ssh/deep/key"), Some(("/home/*/.ssh", WANT_CHANGE | WANT_READ)));
        assert_eq!(want("home/a/.ssh/link"), None);
        assert_eq!((listing.missing, listing.beyond, listing.refused.len()), (1, 0, 0));
    }

    #[test]
    fn what_is_ignored_is_on_no_list() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("etc/a/cache/deep")).unwrap();
        fs::create_dir_all(at("etc/b/cache")).unwrap();
        fs::write(at("etc/a/file"), "").unwrap();
        fs::write(at("etc/a/cache/deep/file"), "").unwrap();
        let config = FilesConfig { watch: vec!["/etc".to_owned()], read: Vec::new(), ..FilesConfig::default() };
        let ignored = Rules::named(&["/etc/*/cache".to_owned(), "/none".to_owned()]);
        let rules = Rules::new(&config);
        let listing = list(&rules, &ignored, temp.path());
        let found: Vec<&Path> = listing.found.keys().filter_map(|path| path.strip_prefix(temp.path()).ok()).collect();
        assert_eq!(found, ["", "etc", "etc/a", "etc/a/file", "etc/b"].map(Path::new));
        let mut places = places(&ignored, temp.path());
        places.sort();
        assert_eq!(places, [(0, at("etc/a/cache")), (0, at("etc/b/cache"))]);
    }

    #[test]
    fn a_link_that_is_not_root_s_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("home/a/.cache")).unwrap();
        fs::create_dir_all(at("home/b")).unwrap();
        fs::create_dir_all(at("etc")).unwrap();
        std::os::unix::fs::symlink(at("etc"), at("home/b/.cache")).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(at("home/b/.cache"), Some(65534), None).unwrap();
        }
        let own = vec!["/home/*/.cache".to_owned()];
        assert_eq!(places(&Rules::named(&own), temp.path()), [(0, at("home/a/.cache"))]);
        let config = FilesConfig { watch: own, read: Vec::new(), ..FilesConfig::default() };
        let (rules, nothing) = (Rules::new(&config), Rules::default());
        let listing = list(&rules, &nothing, temp.path());
        assert!(listing.found.contains_key(&at("home/a/.cache")) && !listing.found.contains_key(&at("home/b/.cache")));
        assert!(listing.refused.contains_key(&at("home/b/.cache")));
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let temp = tempfile::tempdir().unwrap();
        for folder in 0..WATCHED_MAX + 10 {
            fs::create_dir_all(temp.path().join(format!("a/{folder}"))).unwrap();
        }
        let config = FilesConfig { watch: vec!["/a".to_owned()], read: Vec::new(), ..FilesConfig::default() };
        let (rules, nothing) = (Rules::new(&config), Rules::default());
        let listing = list(&rules, &nothing, temp.path());
        // The folder above `a`, `a` itself, and those in it.
        assert_eq!((listing.found.len(), listing.beyond), (WATCHED_MAX, 12));
    }
}
