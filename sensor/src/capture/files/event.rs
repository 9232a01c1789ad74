//! fanotify's events as the kernel writes them, read with nothing trusted.
//!
//! Layout: include/uapi/linux/fanotify.h, `struct fanotify_event_metadata` and the information records behind it.

/// A file as the kernel names it to user space: identity of the file system and the file's handle in it. Equal handles are one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Handle {
    /// As `statfs.f_fsid`.
    pub(super) fsid: [u8; 8],
    /// `handle_type`: what `bytes` are.
    pub(super) kind: i32,
    /// `f_handle`.
    pub(super) bytes: Vec<u8>,
}

impl Handle {
    /// One that the kernel never gives: for files of file systems without handles.
    pub(super) fn of_inode(inode: u64, device: u64) -> Self {
        Self { fsid: device.to_ne_bytes(), kind: -1, bytes: inode.to_ne_bytes().to_vec() }
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// The folder.
    pub(super) folder: Handle,
    /// The name, not necessarily UTF-8. `.` is the folder itself.
    pub(super) name: Vec<u8>,
}

/// One event. The kernel merges events of one process about one file: the mask may have several bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// `FAN_*`.
    pub(super) mask: u64,
    /// Thread-group id in the initial namespace.
    pub(super) pid: i32,
    /// The file that it happened to.
    pub(super) target: Option<Handle>,
    /// By which name.
    pub(super) name: Option<Name>,
    /// Of a rename: the old name.
    pub(super) old: Option<Name>,
    /// Of a rename: the new name.
    pub(super) new: Option<Name>,
}

/// `FANOTIFY_METADATA_VERSION`.
const VERSION: u8 = 3;
/// `sizeof(struct fanotify_event_metadata)`.
const METADATA: usize = 24;
/// `FAN_EVENT_INFO_TYPE_*`.
const FID: u8 = 1;
const DFID_NAME: u8 = 2;
const DFID: u8 = 3;
const OLD_DFID_NAME: u8 = 10;
const NEW_DFID_NAME: u8 = 12;
/// Information header, file-system id, `struct file_handle` without its bytes.
const INFO: usize = 4 + 8 + 8;

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Reads the events of one read(2). `Err` is the events that came before something that is none: the rest cannot be found.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Vec<Event>, Vec<Event>> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let Some((event, rest)) = one(bytes) else { return Err(events) };
        events.push(event);
        bytes = rest;
    }
    Ok(events)
}

fn one(bytes: &[u8]) -> Option<(Event, &[u8])> {
    let len = u32::from_ne_bytes(number(bytes, 0)?) as usize;
    let header = usize::from(u16::from_ne_bytes(number(bytes, 6)?));
    if *bytes.get(4)? != VERSION || header < METADATA || len < header {
        return None;
    }
    let (record, rest) = bytes.split_at_checked(len)?;
    let mask = u64::from_ne_bytes(number(record, 8)?);
    let pid = i32::from_ne_bytes(number(record, 20)?);
    let mut event = Event { mask, pid, target: None, name: None, old: None, new: None };
    let mut infos = record.get(header..)?;
    while !infos.is_empty() {
        let len = usize::from(u16::from_ne_bytes(number(infos, 2)?));
        if len < 4 {
            return None;
        }
        let (info, after) = infos.split_at_checked(len)?;
        match *info.first()? {
            FID => event.target = Some(handle(info)?.0),
            DFID_NAME => event.name = Some(name(info)?),
            DFID => event.name = Some(Name { folder: handle(info)?.0, name: b".".to_vec() }),
            OLD_DFID_NAME => event.old = Some(name(info)?),
            NEW_DFID_NAME => event.new = Some(name(info)?),
            // What a later kernel adds.
            _ => {}
        }
        infos = after;
    }
    Some((event, rest))
}

/// The handle in an information record, and what stands behind it.
fn handle(info: &[u8]) -> Option<(Handle, &[u8])> {
    let fsid = number(info, 4)?;
    let len = u32::from_ne_bytes(number(info, 12)?) as usize;
    let kind = i32::from_ne_bytes(number(info, 16)?);
    let (bytes, behind) = info.get(INFO..)?.split_at_checked(len)?;
    Some((Handle { fsid, kind, bytes: bytes.to_vec() }, behind))
}

fn name(info: &[u8]) -> Option<Name> {
    let (folder, behind) = handle(info)?;
    let end = behind.iter().position(|byte| *byte == 0)?;
    Some(Name { folder, name: behind.get(..end)?.to_vec() })
}

/// The inode number in a handle, where its form is known: `FILEID_INO32_GEN` of ext4 and others (8 bytes), the same number of tmpfs (12
/// bytes: generation, low, high), `FILEID_INO64_GEN` of XFS, `FILEID_BTRFS_*`.
pub(super) fn inode_of(handle: &Handle) -> Option<u64> {
    let Handle { fsid: _, kind, bytes } = handle;
    let low = |at| number(bytes, at).map(u32::from_ne_bytes).map(u64::from);
    match (kind, bytes.len()) {
        (1, 8) => low(0),
        (1, 12) => Some(low(4)? | low(8)? << 32),
        (0x81 | 0x4d | 0x4e | 0x4f, _) => number(bytes, 0).map(u64::from_ne_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(kind: u8, name: &str) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend([9; 8]);
        out.extend(8_u32.to_ne_bytes());
        out.extend(1_i32.to_ne_bytes());
        out.extend([5, 0, 0, 0, 7, 7, 7, 7]);
        if !name.is_empty() {
            out.extend(name.as_bytes());
            out.push(0);
        }
        out.resize(out.len().next_multiple_of(4), 0);
        let len = (out.len() as u16).to_ne_bytes();
        out[2..4].copy_from_slice(&len);
        out
    }

    fn event(mask: u64, pid: i32, infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let mut out = ((METADATA + infos.len()) as u32).to_ne_bytes().to_vec();
        out.extend([VERSION, 0, METADATA as u8, 0]);
        out.extend(mask.to_ne_bytes());
        out.extend((-1_i32).to_ne_bytes());
        out.extend(pid.to_ne_bytes());
        out.extend(infos);
        out
    }

    #[test]
    fn a_rename_has_both_names_and_the_file() {
        let bytes = [
            event(0x20, 7, &[info(FID, "")]),
            event(0x1000_0000, 8, &[info(OLD_DFID_NAME, "a"), info(NEW_DFID_NAME, "bcd"), info(FID, "")]),
        ];
        let events = parse(&bytes.concat()).unwrap();
        let handle = Handle { fsid: [9; 8], kind: 1, bytes: vec![5, 0, 0, 0, 7, 7, 7, 7] };
        assert_eq!((events.len(), events[0].pid, events[0].target.as_ref(), &events[0].name), (2, 7, Some(&handle), &None));
        let name = |name: &str| Some(Name { folder: handle.clone(), name: name.into() });
        assert_eq!((&events[1].old, &events[1].new), (&name("a"), &name("bcd")));
        assert_eq!(inode_of(&handle), Some(5));
    }

    #[test]
    fn what_is_cut_off_leaves_what_came_before() {
        let bytes = [event(1, 7, &[]), event(2, 8, &[info(DFID_NAME, "x")])].concat();
        let before = parse(&bytes[..bytes.len() - 1]).unwrap_err();
        assert_eq!(before.iter().map(|event| event.mask).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_big_inode_of_tmpfs_is_put_together() {
        let bytes = [1_u32, 2, 3].into_iter().flat_map(u32::to_ne_bytes).collect();
        assert_eq!(inode_of(&Handle { fsid: [0; 8], kind: 1, bytes }), Some(2 | 3 << 32));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn damaged_events_are_read_or_refused(at in 0_usize..200, byte: u8) {
            let mut bytes = event(0x1000_0000, 8, &[info(OLD_DFID_NAME, "a"), info(NEW_DFID_NAME, "bcd"), info(FID, "")]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let events = parse(&bytes).unwrap_or_else(|events| events);
            for event in events {
                let _ = event.target.as_ref().map(inode_of);
            }
        }
    }
}
