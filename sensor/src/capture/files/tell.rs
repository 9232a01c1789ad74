//! From fanotify's events to what happened.

use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan_bus::event::{Body, File, FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileXattr};
use bartizan_sensor_ebpf::abi::WANT_READ;

use super::event::{Event, Handle, Name, inode_of};
use super::state::{Difference, State};
use super::{FileDeed, FileWatch, Told};
use crate::capture::devices::kernel_device;
use crate::project::escape_bytes;

/// Numbers of observations made here: above those of seeds from /proc (pids), below the sensor's own.
pub(super) const SEQUENCES: u32 = 1 << 30;
/// What only a writer does.
const WRITTEN: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
/// Processes with a watched file open to write that are remembered; all are forgotten when there are more: they are told once more.
const WRITING_MAX: usize = 4096;
/// File systems stamp with a clock that is at most a tick behind: 10 ms with CONFIG_HZ=100.
const COARSE: Duration = Duration::from_millis(20);
/// Descriptors of a process that are looked through for the one it just opened.
const DESCRIPTORS_MAX: usize = 1024;

impl FileWatch {
    /// Adds what `event` says to `told`.
    pub(super) fn observe(&mut self, event: &Event, now: u64, shed: bool, told: &mut Told) {
        let Event { mask, pid, target, name, old, new } = event;
        let watched = target.as_ref().is_some_and(|target| self.watched.contains_key(target))
            || [name, old, new].into_iter().flatten().any(|name| self.watched.contains_key(&name.folder));
        if shed && !watched {
            told.shed += 1;
            return;
        }
        let mut event = event.clone();
        if mask & WRITTEN != 0
            && mask & libc::FAN_CREATE == 0
            && let Some(target) = target
            && self.is_born(target, *mask, told)
        {
            event.mask &= !WRITTEN;
            // It was closed: who opens it the next time is told again.
            self.writing.remove(&(*pid, target.clone()));
        }
        let event = &event;
        let mut deeds = Vec::new();
        if mask & libc::FAN_RENAME != 0 {
            deeds.extend(self.renamed(event));
        }
        if mask & (libc::FAN_DELETE_SELF | libc::FAN_MOVE_SELF) != 0 {
            self.stale = true;
        }
        if watched {
            deeds.extend(self.used(event));
        }
        if mask & libc::FAN_DELETE != 0 {
            deeds.extend(self.removed(event));
        }
        for body in deeds {
            let listed = target.as_ref().is_some_and(|target| self.watched.get(target).is_some_and(|watched| !watched.rule.is_empty()));
            if !listed && self.is_ignored(&body) {
                *told.ignored.entry(body.kind()).or_default() += 1;
                continue;
            }
            if let (Body::FileOpen(FileOpen { created: Some(true), .. }), Some(target)) = (&body, target) {
                self.born.insert(target.clone(), told.deeds.len());
            }
            self.sequence = SEQUENCES | (self.sequence.wrapping_add(1) & (SEQUENCES - 1));
            told.deeds.push(FileDeed { now, pid: pid.cast_unsigned(), seq: self.sequence, body });
        }
    }

    /// Whether it is the creation told just before of this file that is gone on with: then that says that the file was written.
    fn is_born(&self, target: &Handle, mask: u64, told: &mut Told) -> bool {
        let place = self.born.get(target).and_then(|place| told.deeds.get_mut(*place));
        let Some(FileDeed { body: Body::FileOpen(open), .. }) = place else { return false };
        open.write = Some(true);
        // Who has it open still is remembered as a writer.
        mask & libc::FAN_CLOSE_WRITE != 0
    }

    /// The path of a name, and whether its beginning is not known.
    fn path(&mut self, name: &Name) -> (PathBuf, bool) {
        let leaf = Path::new(std::ffi::OsStr::from_bytes(&name.name));
        let folder = self.watched.get(&name.folder).map(|watched| watched.path.clone()).or_else(|| self.paths.folder(&name.folder));
        match folder {
            Some(folder) if name.name == b"." => (folder, false),
            Some(folder) => (folder.join(leaf), false),
            None => (Path::new("...").join(leaf), true),
        }
    }

    /// What is known of the file behind `path`.
    fn file(&self, path: &Path, truncated: bool, meta: Option<&Metadata>, target: Option<&Handle>) -> File {
        let text = text(path);
        let rule = if truncated { None } else { self.rule(&text).map(str::to_owned) };
        let by_inode =
            target.and_then(|target| self.watched.get(target)).map(|watched| watched.rule.clone()).filter(|rule| !rule.is_empty());
        let mut file = match meta {
            Some(meta) => File {
                inode: Some(meta.ino()),
                device: Some(kernel_device(meta.dev())),
                mode: Some(meta.mode()),
                owner: Some(meta.uid()),
                group: Some(meta.gid()),
                links: u32::try_from(meta.nlink()).ok(),
                size: Some(meta.size()),
                ..File::default()
            },
            None => File { inode: target.and_then(inode_of), ..File::default() },
        };
        file.path = Some(text);
        file.path_truncated = truncated;
        file.file_system = target.and_then(|target| self.paths.kind(target)).map(str::to_owned);
        file.watch = by_inode.or(rule);
        file
    }

    /// The same, with the metadata that is there now, where that is still the same file.
    fn file_now(&self, path: &Path, truncated: bool, target: Option<&Handle>) -> (File, Option<Metadata>) {
        let meta = if truncated { None } else { fs::symlink_metadata(path).ok() };
        let inode = target.and_then(inode_of);
        let meta = meta.filter(|meta| inode.is_none_or(|inode| inode == meta.ino()));
        (self.file(path, truncated, meta.as_ref(), target), meta)
    }

    fn renamed(&mut self, event: &Event) -> Option<Body> {
        let (old, new) = (event.old.as_ref()?, event.new.as_ref()?);
        let ((old_path, _), (new_path, truncated)) = (self.path(old), self.path(new));
        if event.mask & libc::FAN_ONDIR != 0 {
            self.paths.forget();
        }
        let (file, _) = self.file_now(&new_path, truncated, event.target.as_ref());
        let (old_text, new_text) = (text(&old_path), text(&new_path));
        self.touched(&old_text);
        self.touched(&new_text);
        let watch = file.watch.clone().or_else(|| self.rule(&old_text).map(str::to_owned));
        if watch.is_none() && !self.everywhere {
            return None;
        }
        // What lost its name to this one was watched under it.
        let replaced = self.watched.values().find(|watched| watched.path == new_path && Some(watched.state.inode) != file.inode);
        let replaced_inode = replaced.map(|watched| watched.state.inode);
        let body = FileRename { file: File { watch, ..file }, old_path: Some(old_text), replaced_inode, exchanged: None };
        Some(Body::FileRename(body))
    }

    fn removed(&mut self, event: &Event) -> Option<Body> {
        let (path, truncated) = self.path(event.name.as_ref()?);
        let folder = event.mask & libc::FAN_ONDIR != 0;
        if folder {
            self.paths.forget();
        }
        let mut file = self.file(&path, truncated, None, event.target.as_ref());
        if let Some(watched) = event.target.as_ref().and_then(|target| self.watched.get(target)) {
            file = File {
                path: file.path,
                path_truncated: file.path_truncated,
                file_system: file.file_system,
                watch: file.watch,
                ..watched.state.file()
            };
        }
        self.touched(&text(&path));
        if file.watch.is_none() && !self.everywhere {
            return None;
        }
        Some(Body::FileUnlink(FileUnlink { file, folder }))
    }

    /// Opens, writes, creations and changed attributes of what is watched.
    fn used(&mut self, event: &Event) -> Vec<Body> {
        let Event { mask, pid, target, name, old: _, new: _ } = event;
        let mut deeds = Vec::new();
        let own = target.as_ref().and_then(|target| self.watched.get(target));
        let by_folder = name.as_ref().and_then(|name| self.watched.get(&name.folder));
        let want = own.or(by_folder).map_or(0, |watched| watched.want);
        let (path, truncated) = match (name, own) {
            (Some(name), _) => self.path(name),
            (None, Some(own)) => (own.path.clone(), false),
            (None, None) => return deeds,
        };
        let on_folder = mask & libc::FAN_ONDIR != 0;
        let created = mask & libc::FAN_CREATE != 0;
        if created {
            self.touched(&text(&path));
        }
        let (file, meta) = self.file_now(&path, truncated, target.as_ref());
        if file.watch.is_none() {
            // A neighbour of what is watched.
            return deeds;
        }
        let made = if created { self.made(target.as_ref(), &file, meta.as_ref(), &path, on_folder) } else { None };
        let is_new = created && made.is_none();
        deeds.extend(made);
        if !on_folder {
            deeds.extend(self.opened(*pid, *mask, target.as_ref(), want, &file, &path, is_new));
        }
        if mask & libc::FAN_ATTRIB != 0 {
            deeds.extend(self.changed(target.as_ref(), &file, meta.as_ref(), &path));
        }
        deeds
    }

    #[expect(clippy::too_many_arguments, reason = "an event's parts, each looked at once by the caller")]
    fn opened(&mut self, pid: i32, mask: u64, target: Option<&Handle>, want: u32, file: &File, path: &Path, created: bool) -> Option<Body> {
        let closed = mask & libc::FAN_CLOSE_WRITE != 0;
        let mut write = (mask & (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE) != 0).then_some(true);
        let read = mask & libc::FAN_OPEN != 0 && want & WANT_READ != 0;
        let mut told_before = false;
        if let (Some(true), Some(target)) = (write, target) {
            let key = (pid, target.clone());
            if closed {
                told_before = self.writing.remove(&key);
            } else {
                if self.writing.len() >= WRITING_MAX {
                    self.writing.clear();
                }
                told_before = !self.writing.insert(key);
            }
        }
        let mut flags = None;
        if write.is_none() && read {
            if mask & libc::FAN_CLOSE_NOWRITE != 0 {
                write = Some(false);
            } else if let Some(inode) = file.inode {
                flags = open_flags(pid, inode);
                write = flags.map(|flags| flags & libc::O_ACCMODE.cast_unsigned() != libc::O_RDONLY.cast_unsigned());
                if let (Some(true), Some(target)) = (write, target) {
                    self.writing.insert((pid, target.clone()));
                }
            }
        }
        if !created && !read && (write != Some(true) || told_before) {
            return None;
        }
        // By its close alone it is not known whether a writer reads as well.
        let read = match (mask & libc::FAN_CLOSE_NOWRITE != 0, flags) {
            (true, _) => Some(true),
            (false, Some(flags)) => Some(flags & libc::O_ACCMODE.cast_unsigned() != libc::O_WRONLY.cast_unsigned()),
            (false, None) => None,
        };
        let created = if created { Some(true) } else { None };
        if let Some(watched) = target.and_then(|target| self.watched.get_mut(target))
            && let (Some(size), Ok(meta)) = (file.size, fs::metadata(path))
        {
            watched.state.size = size;
            watched.state.modified = (meta.mtime(), meta.mtime_nsec());
        }
        let body = FileOpen { file: file.clone(), read, write, created, flags };
        Some(Body::FileOpen(body))
    }

    /// What came into being by another call than open(2); `None` for a regular file that is new.
    fn made(&mut self, target: Option<&Handle>, file: &File, meta: Option<&Metadata>, path: &Path, folder: bool) -> Option<Body> {
        let create = |node| Some(Body::FileCreate(FileCreate { file: file.clone(), node }));
        let link = |to, symbolic| Some(Body::FileLink(FileLink { file: file.clone(), to, symbolic }));
        if folder {
            return create(None);
        }
        let meta = meta?;
        let kind = meta.file_type();
        if kind.is_symlink() {
            return link(fs::read_link(path).ok().map(|to| escape_bytes(&to.into_os_string().into_vec())), true);
        }
        if kind.is_block_device() || kind.is_char_device() {
            return create(Some(kernel_device(meta.rdev())));
        }
        if !kind.is_file() {
            return create(None);
        }
        let target = target?;
        if let Some(known) = self.watched.get_mut(target)
            // By this name it was found itself, before its creation was read.
            && known.path != path
        {
            known.state.links = meta.nlink().try_into().unwrap_or(u32::MAX);
            return link(Some(text(&known.path)), false);
        }
        // A file that was there before, or has been told already, got a further name.
        let is_older = meta.created().is_ok_and(|created| created + COARSE < self.looked);
        if meta.nlink() > 1 && (is_older || self.born.contains_key(target)) {
            return link(None, false);
        }
        None
    }

    /// What an attribute event changed, against what the file was before.
    fn changed(&mut self, target: Option<&Handle>, file: &File, meta: Option<&Metadata>, path: &Path) -> Vec<Body> {
        let Some(meta) = meta else { return Vec::new() };
        let now = State::of(path, meta);
        let known = target.and_then(|target| self.watched.get_mut(target));
        // A file in a watched folder; what it was may not be known.
        let own_path = known.as_ref().map(|known| text(&known.path));
        let known = known.map(|known| &mut known.state);
        let Some(known) = known else {
            let change = |to: u32| Some(bartizan_bus::event::Change { from: None, to: to.into() });
            let body = FileAttributes {
                file: file.clone(),
                mode: change(now.mode & 0o7777),
                owner: change(now.owner),
                group: change(now.group),
                ..FileAttributes::default()
            };
            let mut deeds = vec![Body::FileAttributes(body)];
            deeds.extend(now.xattrs.iter().map(|(name, size)| {
                let body = FileXattr { file: file.clone(), name: Some(name.clone()), size: Some(*size), removed: false };
                Body::FileXattr(body)
            }));
            return deeds;
        };
        let Difference { mode, owner, group, linked, xattrs, times } = known.difference(&now);
        *known = now;
        let mut deeds = Vec::new();
        if mode.is_some() || owner.is_some() || group.is_some() || times {
            let body = FileAttributes { file: file.clone(), mode, owner, group, size: None, times_set: times };
            deeds.push(Body::FileAttributes(body));
        }
        for (name, size) in xattrs {
            let body = FileXattr { file: file.clone(), name: Some(name), removed: size.is_none(), size };
            deeds.push(Body::FileXattr(body));
        }
        // In a watched folder the new name is an event of its own.
        if linked && let Some(own_path) = own_path {
            // Somewhere it has another name now: where, only the folder of that name would have told.
            let body = FileLink { file: File { path: None, ..file.clone() }, to: Some(own_path), symbolic: false };
            deeds.push(Body::FileLink(body));
        }
        deeds
    }
}

/// `O_*` flags of the descriptor by which `pid` has the inode open, as the kernel shows them; `None` when it is closed already, when several
/// differ, or the process is gone.
fn open_flags(pid: i32, inode: u64) -> Option<u32> {
    let mut found = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten().take(DESCRIPTORS_MAX) {
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        if value("ino:").and_then(|text| text.parse().ok()) == Some(inode) {
            let flags = value("flags:").and_then(|text| u32::from_str_radix(text, 8).ok())?;
            if found.is_some_and(|other| other != flags) {
                return None;
            }
            found = Some(flags);
        }
    }
    found
}

fn text(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_bytes())
}
