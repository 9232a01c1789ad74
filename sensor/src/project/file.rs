//! `file.*`.

use bartizan_bus::event::{self, Body, Change, Errno, File};
use bartizan_sensor_ebpf::abi::{
    Bytes, FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, FLAG_PATH_IN_FILE_SYSTEM, FileAttributes, FileCreate, FileInfo, FileLink, FileOpen,
    FileRename, FileUnlink, FileWrite, FileXattr, Header, MOUNT_ATTACH, MOUNT_PIVOT, Mount, Span, Umount,
};

use super::{Act, What, text};

/// include/linux/fs.h.
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
const FMODE_CREATED: u32 = 0x10_0000;
const ATTR_MODE: u32 = 1;
const ATTR_UID: u32 = 2;
const ATTR_GID: u32 = 4;
const ATTR_SIZE: u32 = 8;
const ATTR_ATIME_SET: u32 = 0x80;
const ATTR_MTIME_SET: u32 = 0x100;
/// include/uapi/linux/fs.h.
const RENAME_EXCHANGE: u32 = 2;
/// include/uapi/linux/mount.h.
const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_PROPAGATION: u64 = (1 << 17) | (1 << 18) | (1 << 19) | (1 << 20);

/// What a record says of a file, without its path.
fn info(info: &FileInfo) -> File {
    let FileInfo { inode, size, device, mode, owner, group, links, wanted: _ } = *info;
    File {
        inode: Some(inode),
        device: Some(device),
        mode: Some(mode),
        owner: Some(owner),
        group: Some(group),
        links: Some(links),
        size: Some(size),
        ..File::default()
    }
}

fn path(header: &Header, bytes: Bytes<'_>, span: Span) -> (Option<String>, bool) {
    let truncated = header.flags & FLAG_NAME_TRUNCATED != 0;
    (text::path(bytes.get(span), truncated), truncated)
}

fn file(header: &Header, fixed: &FileInfo, bytes: Bytes<'_>, span: Span) -> File {
    let (path, path_truncated) = path(header, bytes, span);
    File { path, path_truncated, ..info(fixed) }
}

/// The deed, with where its paths begin.
fn done(header: &Header, body: Body) -> What {
    Act { in_file_system: header.flags & FLAG_PATH_IN_FILE_SYSTEM != 0, ..Act::done(body) }.into()
}

pub(super) fn open(record: &FileOpen, bytes: Bytes<'_>) -> What {
    let FileOpen { header, file: fixed, flags, mode, file_system, path, pad: _ } = record;
    let system = text::name(file_system);
    let file = File { file_system: (!system.is_empty()).then_some(system), ..file(header, fixed, bytes, *path) };
    done(
        header,
        Body::FileOpen(event::FileOpen {
            file,
            read: Some(mode & FMODE_READ != 0),
            write: Some(mode & FMODE_WRITE != 0),
            created: Some(mode & FMODE_CREATED != 0),
            flags: Some(*flags),
        }),
    )
}

pub(super) fn create(record: &FileCreate, bytes: Bytes<'_>) -> What {
    let FileCreate { header, folder: FileInfo { device, .. }, mode, node, path: span, pad: _ } = record;
    let (path, path_truncated) = path(header, bytes, *span);
    let file = File { path, path_truncated, device: Some(*device), mode: Some(*mode), ..File::default() };
    done(header, Body::FileCreate(event::FileCreate { file, node: (*node != 0).then_some(*node) }))
}

pub(super) fn rename(record: &FileRename, bytes: Bytes<'_>) -> What {
    let FileRename { header, file: fixed, replaced, flags, old, new, pad: _ } = record;
    done(
        header,
        Body::FileRename(event::FileRename {
            file: file(header, fixed, bytes, *new),
            old_path: path(header, bytes, *old).0,
            replaced_inode: (*replaced != 0).then_some(*replaced),
            exchanged: Some(flags & RENAME_EXCHANGE != 0),
        }),
    )
}

pub(super) fn unlink(record: &FileUnlink, bytes: Bytes<'_>) -> What {
    let FileUnlink { header, file: fixed, path, folder } = record;
    done(header, Body::FileUnlink(event::FileUnlink { file: file(header, fixed, bytes, *path), folder: *folder != 0 }))
}

pub(super) fn link(record: &FileLink, bytes: Bytes<'_>) -> What {
    let FileLink { header, file: fixed, path: span, to, symbolic, pad: _ } = record;
    let symbolic = *symbolic != 0;
    let file = if symbolic {
        let (path, path_truncated) = path(header, bytes, *span);
        File { path, path_truncated, device: Some(fixed.device), ..File::default() }
    } else {
        file(header, fixed, bytes, *span)
    };
    let to = if symbolic { text::string(bytes.get(*to)) } else { path(header, bytes, *to).0 };
    done(header, Body::FileLink(event::FileLink { file, to, symbolic }))
}

pub(super) fn attributes(record: &FileAttributes, bytes: Bytes<'_>) -> What {
    let FileAttributes { header, file: before, size, valid, mode, owner, group, path, pad: _ } = record;
    let change = |bit: u32, from: u64, to: u64| (valid & bit != 0).then_some(Change { from: Some(from), to });
    let narrow = |bit: u32, from: u32, to: u32| change(bit, from.into(), to.into());
    let mut file = file(header, before, bytes, *path);
    let body = event::FileAttributes {
        mode: narrow(ATTR_MODE, before.mode & 0o7777, mode & 0o7777),
        owner: narrow(ATTR_UID, before.owner, *owner),
        group: narrow(ATTR_GID, before.group, *group),
        size: change(ATTR_SIZE, before.size, *size),
        times_set: valid & (ATTR_ATIME_SET | ATTR_MTIME_SET) != 0,
        file: File::default(),
    };
    let after = |change: &Option<Change>| change.as_ref().and_then(|change| u32::try_from(change.to).ok());
    if let Some(mode) = after(&body.mode) {
        file.mode = Some(before.mode & !0o7777 | mode);
    }
    file.owner = after(&body.owner).or(file.owner);
    file.group = after(&body.group).or(file.group);
    file.size = body.size.as_ref().map(|change| change.to).or(file.size);
    done(header, Body::FileAttributes(event::FileAttributes { file, ..body }))
}

pub(super) fn xattr(record: &FileXattr, bytes: Bytes<'_>) -> What {
    let FileXattr { header, file: fixed, size, name, path, removed } = record;
    let (name, removed) = (text::name(name), *removed != 0);
    done(
        header,
        Body::FileXattr(event::FileXattr {
            file: file(header, fixed, bytes, *path),
            name: (!name.is_empty()).then_some(name),
            size: (!removed).then_some(*size),
            removed,
        }),
    )
}

/// Who begins to write to which file; how much is counted in a map.
pub(super) fn write(record: &FileWrite, bytes: Bytes<'_>) -> What {
    let FileWrite { header, file: fixed, path, pad: _ } = record;
    let mut file = file(header, fixed, bytes, *path);
    // A file without a name has an empty path, which is that of a root elsewhere.
    file.path = file.path.filter(|_| path.len > 0);
    done(header, Body::FileWrite(event::FileWrite { file, ..event::FileWrite::default() }))
}

/// What a call of mount(2) does, by its flags (fs/namespace.c, `path_mount`, in its order).
fn action(action: u32, flags: u64) -> &'static str {
    match action {
        MOUNT_ATTACH => "attach",
        MOUNT_PIVOT => "pivot_root",
        _ if flags & MS_REMOUNT != 0 => "remount",
        _ if flags & MS_BIND != 0 => "bind",
        _ if flags & MS_PROPAGATION != 0 => "propagation",
        _ if flags & MS_MOVE != 0 => "move",
        _ => "mount",
    }
}

/// A path as the record has it: walked by the kernel, or as it stood in the caller's memory.
fn place(header: &Header, bytes: Bytes<'_>, span: Span) -> (Option<String>, bool) {
    match header.flags & FLAG_FROM_CALLER != 0 {
        true => (text::string(bytes.get(span)), true),
        false => (path(header, bytes, span).0, false),
    }
}

fn failure(error: u32) -> Option<Errno> {
    (error != 0).then(|| Errno(error.cast_signed()))
}

pub(super) fn mount(record: &Mount, bytes: Bytes<'_>) -> What {
    let Mount { header, flags, action: number, error, source, target, file_system, pad: _ } = record;
    let (target, from_caller) = place(header, bytes, *target);
    let body = event::Mount {
        action: action(*number, *flags).to_owned(),
        source: text::string(bytes.get(*source)),
        target,
        file_system: text::string(bytes.get(*file_system)),
        flags: Some(*flags),
        error: failure(*error),
        from_caller,
    };
    Act::ended(Body::Mount(body), -i64::from(*error)).into()
}

pub(super) fn umount(record: &Umount, bytes: Bytes<'_>) -> What {
    let Umount { header, target, flags, error, done } = record;
    let (target, from_caller) = place(header, bytes, *target);
    let body = Body::Umount(event::Umount { target, flags: Some(*flags), error: failure(*error), from_caller });
    let act = Act::ended(body, -i64::from(*error));
    if *done == 0 { Act { outcome: event::Outcome::Unknown, ..act } } else { act }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_does_is_told_by_its_flags_in_the_kernels_order() {
        let flags = [0, 1, MS_REMOUNT | MS_BIND, MS_BIND, 1 << 18, MS_MOVE];
        assert_eq!(flags.map(|flags| action(0, flags)), ["mount", "mount", "remount", "bind", "propagation", "move"]);
        assert_eq!([MOUNT_ATTACH, MOUNT_PIVOT].map(|number| action(number, 4)), ["attach", "pivot_root"]);
    }
}
