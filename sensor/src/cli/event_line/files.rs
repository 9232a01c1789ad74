//! What is done to files: `file.*`.

use bartizan_bus::event::{
    Change, File, FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileWrite, FileXattr, Mount, Umount,
};

use super::super::escape::{escape, quote};

/// The path, or the inode where no path is known.
fn place(file: &File) -> String {
    let File { path, path_truncated: _, inode, .. } = file;
    match (path, inode) {
        (Some(path), _) => quote(path),
        (None, Some(inode)) => format!("inode {inode}"),
        (None, None) => "a file".to_owned(),
    }
}

fn place_of(path: Option<&str>) -> String {
    path.map_or_else(|| "an unknown path".to_owned(), quote)
}

/// `/etc/shadow read`, `/etc/cron.d/x created, written`.
pub(super) fn open(body: &FileOpen) -> String {
    let FileOpen { file, read, write, created, flags: _ } = body;
    let words = [(created, "created"), (read, "for reading"), (write, "for writing")];
    let words: Vec<&str> = words.into_iter().filter(|(is, _)| **is == Some(true)).map(|(_, word)| word).collect();
    let system = file.file_system.as_deref().filter(|_| file.device.is_none()).map(|system| format!(" ({})", escape(system)));
    format!("{} {}{}", place(file), words.join(", "), system.unwrap_or_default())
}

/// `/dev/x char device 1:5`, `/srv/new folder`.
pub(super) fn create(body: &FileCreate) -> String {
    let FileCreate { file, node } = body;
    let number = node.map(|node| format!(" {}:{}", node >> 20, node & 0xf_ffff)).unwrap_or_default();
    // include/uapi/linux/stat.h.
    let what = match file.mode.map(|mode| mode & 0o170_000) {
        Some(0o040_000) => "folder",
        Some(0o020_000) => "character device",
        Some(0o060_000) => "block device",
        Some(0o010_000) => "named pipe",
        Some(0o140_000) => "socket",
        Some(_) | None => "file",
    };
    format!("{} {what}{number}", place(file))
}

/// `/a → /b`.
pub(super) fn rename(body: &FileRename) -> String {
    let FileRename { file, old_path, replaced_inode, exchanged } = body;
    let replaced = match (exchanged, replaced_inode) {
        (Some(true), _) => ", exchanged",
        (_, Some(_)) => ", replacing a file",
        (_, None) => "",
    };
    format!("{} → {}{replaced}", place_of(old_path.as_deref()), place(file))
}

pub(super) fn unlink(body: &FileUnlink) -> String {
    let FileUnlink { file, folder } = body;
    format!("{}{}", place(file), if *folder { " (folder)" } else { "" })
}

/// `/new → /old`, `/new → text (symbolic)`.
pub(super) fn link(body: &FileLink) -> String {
    let FileLink { file, to, symbolic } = body;
    format!("{} → {}{}", place(file), place_of(to.as_deref()), if *symbolic { " (symbolic)" } else { "" })
}

/// `/x mode 644 → 4755, owner 0 → 1000`.
pub(super) fn attributes(body: &FileAttributes) -> String {
    let FileAttributes { file, mode, owner, group, size, times_set } = body;
    let octal = |Change { from, to }: &Change| {
        let from = from.map(|from| format!("{from:o} → ")).unwrap_or_default();
        format!("mode {from}{to:o}")
    };
    let number = |what: &str, change: &Option<Change>| {
        change.as_ref().map(|Change { from, to }| format!("{what} {}{to}", from.map(|from| format!("{from} → ")).unwrap_or_default()))
    };
    let times = times_set.then(|| "times set".to_owned());
    let parts = [mode.as_ref().map(octal), number("owner", owner), number("group", group), number("size", size), times];
    format!("{} {}", place(file), parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

pub(super) fn xattr(body: &FileXattr) -> String {
    let FileXattr { file, name, size, removed } = body;
    let size = size.map(|size| format!(", {size} bytes")).unwrap_or_default();
    let name = name.as_deref().map_or_else(|| "an attribute".to_owned(), escape);
    format!("{} {name}{}{size}", place(file), if *removed { " removed" } else { "" })
}

/// `bind /a on /b (ext4)`.
pub(super) fn mount(body: &Mount) -> String {
    let Mount { action, source, target, file_system, flags, error, from_caller: _ } = body;
    let system = file_system.as_deref().map(|system| format!(" ({})", escape(system))).unwrap_or_default();
    let source = source.as_deref().map(|source| format!(" {}", quote(source))).unwrap_or_default();
    let flags = flags.filter(|flags| *flags != 0).map(|flags| format!(" flags {flags:#x}")).unwrap_or_default();
    let error = error.map(|error| format!(": failed, {}", error.name())).unwrap_or_default();
    format!("{}{source} on {}{system}{flags}{error}", escape(action), place_of(target.as_deref()))
}

pub(super) fn umount(body: &Umount) -> String {
    let Umount { target, flags: _, error, from_caller: _ } = body;
    let error = error.map(|error| format!(": failed, {}", error.name())).unwrap_or_default();
    format!("{}{error}", place_of(target.as_deref()))
}

/// `/x 4 pages, 16384 bytes, 56.70 of 64 bytes distinct`.
pub(super) fn write(body: &FileWrite) -> String {
    let FileWrite { file, pages, bytes, span_ns: _, samples: _, distinct_bytes, magic: _ } = body;
    let distinct = distinct_bytes.map(|mean| format!(", {}.{:02} of 64 bytes distinct", mean / 100, mean % 100)).unwrap_or_default();
    format!("{} {pages} pages, {bytes} bytes{distinct}", place(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_path_is_named_by_its_inode() {
        let file = File { inode: Some(7), ..File::default() };
        let open_of = |file: &File| open(&FileOpen { file: file.clone(), read: Some(true), ..FileOpen::default() });
        assert_eq!(open_of(&file), "inode 7 for reading");
        assert_eq!(open_of(&File { path: Some("/a b".to_owned()), ..file }), format!("{} for reading", quote("/a b")));
    }

    #[test]
    fn changes_tell_both_values_in_the_form_that_tools_use() {
        let body = FileAttributes {
            file: File { path: Some("/x".to_owned()), ..File::default() },
            mode: Some(Change { from: Some(0o644), to: 0o4755 }),
            owner: Some(Change { from: None, to: 1000 }),
            ..FileAttributes::default()
        };
        assert_eq!(attributes(&body), "/x mode 644 → 4755, owner 1000");
    }
}
