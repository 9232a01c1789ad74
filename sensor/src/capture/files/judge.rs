//! What is told of files: the list that capture keeps, and what of the kernel's records it leaves. No I/O: it is on the near side of
//! [`Input`](crate::intake::Input), so that a replay judges as the host did.

use std::collections::HashMap;
use std::path::Path;

use bartizan_bus::event::{Body, File, FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileWrite, FileXattr};
use bartizan_sensor_ebpf::abi::{WatchKey, WriteGathered, WriteKey};
use minicbor::{Decode, Encode};

use super::rules::Rules;
use super::writes::Writes;
use crate::project::{Act, Observation, What};

/// The watched files, as capture found them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WatchList {
    /// The entries of the configuration.
    #[n(0)]
    pub rules: Vec<String>,
    /// Renames, removals and hard links of files that are not watched are told too.
    #[n(1)]
    pub everywhere: bool,
    /// Inode number, device, and place in `rules` of each file.
    #[n(2)]
    pub files: Vec<(u64, u32, u32)>,
    /// Devices of file systems, and where they are mounted.
    #[n(3)]
    pub mounts: Vec<(u32, String)>,
}

/// Knows the list, and joins what was written.
#[derive(Debug, Default)]
pub struct Judge {
    rules: Rules,
    everywhere: bool,
    /// By the kernel programs' name of a file: the rule.
    by_key: HashMap<WatchKey, String>,
    mounts: HashMap<u32, String>,
    writes: Writes,
}

impl Judge {
    /// The list is this one from now on.
    pub fn set(&mut self, list: WatchList) {
        let WatchList { rules, everywhere, files, mounts } = list;
        let key = |inode, device| WatchKey { inode, device, pad: 0 };
        let files = files.into_iter().filter_map(|(inode, device, rule)| Some((key(inode, device), rules.get(rule as usize)?.clone())));
        self.by_key = files.collect();
        self.rules = Rules::named(&rules);
        self.everywhere = everywhere;
        self.mounts = mounts.into_iter().collect();
    }

    /// The rule that a path belongs to.
    fn rule(&self, path: &str) -> Option<&str> {
        self.rules.covering(path).map(|rule| rule.text.as_str())
    }

    /// What of all that was written is to be told at `now` (boot clock, nanoseconds): what is due, or all. `gathered`: what was written since.
    pub fn written(&mut self, gathered: Vec<(WriteKey, WriteGathered)>, now: u64, all: bool) -> Vec<Observation> {
        self.writes.join(gathered, now, all)
    }

    /// What is left of a record of the kernel's programs: they tell more of names than the list wants, because they do not compare paths.
    /// Says which rule a file belongs to.
    pub fn judge(&mut self, mut observation: Observation) -> Option<Observation> {
        let What::Act(act) = &mut observation.what else { return Some(observation) };
        let Act { body, in_file_system, .. } = act.as_mut();
        if std::mem::take(in_file_system) {
            complete(body, |device| self.mounts.get(&device).map(Path::new));
        }
        // What fanotify told has been judged.
        if observation.subject.is_number_only() {
            return Some(observation);
        }
        if let Body::FileWrite(FileWrite { file, pages, .. }) = body {
            if *pages > 0 {
                // From `written`.
                return Some(observation);
            }
            self.note(file);
            let key = WriteKey { inode: file.inode.unwrap_or(0), device: file.device.unwrap_or(0), tgid: observation.subject.tgid };
            self.writes.begin(key, observation);
            return None;
        }
        let is_wanted = match body {
            Body::FileOpen(FileOpen { file, .. }) => {
                self.note(file);
                // Created where a watched name may appear, and it is another one: unless it is told for its own sake.
                file.watch.is_some() || is_telling(file)
            }
            Body::FileCreate(FileCreate { file, .. }) => {
                self.note(file);
                file.watch.is_some() || file.mode.is_some_and(is_device)
            }
            Body::FileLink(FileLink { file, to, symbolic }) => {
                self.note(file);
                if let (None, false, false, Some(to)) = (&file.watch, *symbolic, file.path_truncated, to) {
                    file.watch = self.rule(to).map(str::to_owned);
                }
                file.watch.is_some() || (self.everywhere && !*symbolic)
            }
            Body::FileRename(FileRename { file, old_path, .. }) => {
                self.note(file);
                if let (None, false, Some(old)) = (&file.watch, file.path_truncated, old_path.as_deref()) {
                    file.watch = self.rule(old).map(str::to_owned);
                }
                file.watch.is_some() || self.everywhere
            }
            Body::FileUnlink(FileUnlink { file, .. }) => {
                self.note(file);
                file.watch.is_some() || self.everywhere
            }
            Body::FileAttributes(FileAttributes { file, .. }) | Body::FileXattr(FileXattr { file, .. }) => {
                self.note(file);
                true
            }
            _ => true,
        };
        is_wanted.then_some(observation)
    }

    /// Says which rule a file belongs to, by its inode or its path.
    fn note(&self, file: &mut File) {
        let key = file.inode.zip(file.device).map(|(inode, device)| WatchKey { inode, device, pad: 0 });
        let by_inode = key.and_then(|key| self.by_key.get(&key)).cloned();
        let path = file.path.clone().filter(|_| !file.path_truncated);
        file.watch = by_inode.or_else(|| self.rule(&path?).map(str::to_owned));
    }
}

/// Puts before paths where their file system is mounted.
pub(super) fn complete<'a>(body: &mut Body, place: impl Fn(u32) -> Option<&'a Path>) {
    let (file, other) = match body {
        Body::FileRename(FileRename { file, old_path, .. }) => (file, Some(old_path)),
        Body::FileLink(FileLink { file, to, symbolic: false }) => (file, Some(to)),
        Body::FileLink(FileLink { file, .. })
        | Body::FileCreate(FileCreate { file, .. })
        | Body::FileUnlink(FileUnlink { file, .. })
        | Body::FileAttributes(FileAttributes { file, .. })
        | Body::FileXattr(FileXattr { file, .. })
        | Body::FileWrite(FileWrite { file, .. }) => (file, None),
        _ => return,
    };
    let Some(place) = file.device.and_then(place) else {
        // Mounted in a namespace of somebody's own: the path is none of this host's, and belongs to no rule.
        file.path_truncated = true;
        return;
    };
    if place == Path::new("/") {
        return;
    }
    let place = place.to_string_lossy();
    for path in [Some(&mut file.path), other].into_iter().flatten().flatten().filter(|path| path.starts_with('/')) {
        path.insert_str(0, &place);
    }
}

/// Whether an open is told for the file's own sake, watched or not: an executable that was created, a block device or the memory's (the
/// programs of the kernel tell of no other), a pseudo file (which has no disk, so that its type is none of the local ones).
fn is_telling(file: &File) -> bool {
    let mode = file.mode.unwrap_or(0);
    is_device(mode)
        || (mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0)
        || file.file_system.as_deref().is_some_and(|system| PSEUDO.contains(&system))
}

/// File systems of the kernel's own insides.
const PSEUDO: &[&str] = &["bpf", "debugfs", "efivarfs", "proc", "securityfs", "tracefs"];

fn is_device(mode: u32) -> bool {
    matches!(mode & libc::S_IFMT, libc::S_IFBLK | libc::S_IFCHR)
}

#[cfg(test)]
mod tests {
    use bartizan_sensor_ebpf::abi::Kind;

    use super::*;
    use crate::project::Subject;

    fn judge() -> Judge {
        let mut judge = Judge::default();
        judge.set(WatchList {
            rules: vec!["/etc/passwd".into(), "/k/*_key".into()],
            everywhere: false,
            files: vec![(7, 1, 1)],
            mounts: vec![(1, "/mnt".into()), (2, "/".into())],
        });
        judge
    }

    fn unlink(path: &str, inode: u64, in_file_system: bool) -> Observation {
        let file = File { path: Some(path.into()), inode: Some(inode), device: Some(1), ..File::default() };
        let act = Act { in_file_system, ..Act::done(Body::FileUnlink(FileUnlink { file, folder: false })) };
        Observation { kind: Kind::FileUnlink, subject: Subject { start_boottime: 1, ..Subject::nobody(1) }, what: act.into() }
    }

    fn told(observation: Observation) -> Option<File> {
        match judge().judge(observation)?.what {
            What::Act(act) => match act.body {
                Body::FileUnlink(FileUnlink { file, .. }) => Some(file),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_belongs_to_its_rule_by_inode_or_by_path() {
        assert_eq!(told(unlink("/tmp/other_name", 7, false)).unwrap().watch.as_deref(), Some("/k/*_key"));
        assert_eq!(told(unlink("/etc/passwd", 8, false)).unwrap().watch.as_deref(), Some("/etc/passwd"));
        assert_eq!(told(unlink("/etc/passwd-", 8, false)), None);
    }

    #[test]
    fn a_path_of_a_file_system_begins_where_that_is_mounted() {
        assert_eq!(told(unlink("/x/y", 7, true)).unwrap().path.as_deref(), Some("/mnt/x/y"));
    }

    #[test]
    fn a_path_below_what_is_not_mounted_here_is_no_path_of_this_host() {
        let Observation { kind, subject, what: What::Act(mut act) } = unlink("/etc/passwd", 8, true) else { panic!("an act") };
        let Body::FileUnlink(FileUnlink { file, .. }) = &mut act.body else { panic!("a removal") };
        file.device = Some(3);
        assert_eq!(told(Observation { kind, subject, what: What::Act(act) }), None);
    }

    #[test]
    fn the_memory_s_device_is_told_and_a_plain_file_is_not() {
        let open = |mode| is_telling(&File { mode: Some(mode), file_system: Some("devtmpfs".into()), ..File::default() });
        assert!(open(libc::S_IFCHR | 0o640) && open(libc::S_IFBLK | 0o660) && !open(libc::S_IFREG | 0o644));
    }

    #[test]
    fn a_rule_that_is_not_there_names_nothing() {
        let mut judge = Judge::default();
        judge.set(WatchList { files: vec![(7, 1, 9)], ..WatchList::default() });
        assert!(judge.by_key.is_empty());
    }
}
