//! From handles to paths and back: the file systems that handles belong to, and the folders that were found by them.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bartizan_sensor_ebpf::abi::WatchKey;

use super::event::Handle;
use crate::capture::devices::{self, Devices};

/// Longest handle, include/linux/exportfs.h `MAX_HANDLE_SZ`.
const HANDLE_MAX: usize = 128;
/// Folders remembered by handle; all are forgotten when there are more.
const FOLDERS: usize = 8192;
/// Types of file systems whose files are the host's own: names on them are worth telling, and a handle leads back to its file.
const LOCAL: &[&str] = &["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "vfat", "xfs", "zfs"];

#[repr(C)]
struct Raw {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_MAX],
}

/// A file system that is mounted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// As `statfs` says it.
    pub(super) fsid: [u8; 8],
    /// A place where its root, or a folder of it, is mounted.
    pub(super) place: PathBuf,
    /// Its type.
    pub(super) kind: String,
}

/// The kernel's id of the file system that `path` lies in.
///
/// # Errors
/// The errno of statfs(2).
fn fsid(path: &CString) -> io::Result<[u8; 8]> {
    // SAFETY: a plain C structure for which zero bytes are valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated, and the kernel fills the structure.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut stat) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fsid_t` is two integers of 32 bits, private in libc.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, [u8; 8]>(stat.f_fsid) })
}

/// The handle of the file behind `path`, links followed: what fanotify will call it.
///
/// # Errors
/// The errno of name_to_handle_at(2) or statfs(2).
pub(super) fn of(path: &Path) -> io::Result<Handle> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let ask = |flags: i32| {
        let mut raw = Raw { bytes: HANDLE_MAX as u32, kind: 0, handle: [0; HANDLE_MAX] };
        let mut mount = 0_i32;
        // SAFETY: the path is NUL-terminated; `raw` says how much room it has.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut raw,
                &raw mut mount,
                libc::AT_SYMLINK_FOLLOW | flags,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(raw) }
    };
    // What only names a file will do (Linux 6.5), also where a file system cannot find a file by it.
    let raw = ask(libc::AT_HANDLE_FID).or_else(|_| ask(0))?;
    let bytes = raw.handle.get(..raw.bytes as usize).unwrap_or_default().to_vec();
    Ok(Handle { fsid: fsid(&path)?, kind: raw.kind, bytes })
}

/// What is mounted, and folders that were looked up.
#[derive(Debug, Default)]
pub(super) struct Paths {
    systems: Vec<FileSystem>,
    /// The root's own folder: that file system is never unmounted. Others are opened for each look-up, because an open folder would keep
    /// them from being.
    root: Option<([u8; 8], File)>,
    folders: HashMap<Handle, PathBuf>,
    /// Where the whole of a device's file system is mounted.
    places: HashMap<u32, PathBuf>,
    devices: Devices,
}

impl Paths {
    /// Reads the mounts anew. Returns the local file systems, each once.
    pub(super) fn refresh(&mut self) -> io::Result<&[FileSystem]> {
        let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo()).map_err(io::Error::other)?;
        self.devices = Devices::of(mounts.iter());
        self.places.clear();
        for mount in mounts.iter().filter(|mount| mount.root == "/") {
            if let Some(device) = devices::number(&mount.majmin) {
                self.places.entry(device).or_insert_with(|| mount.mount_point.clone());
            }
        }
        let mut systems: Vec<FileSystem> = Vec::new();
        for mount in mounts.into_iter().filter(|mount| LOCAL.contains(&mount.fs_type.as_str())) {
            let Ok(path) = CString::new(mount.mount_point.as_os_str().as_bytes()) else { continue };
            let Ok(fsid) = fsid(&path) else { continue };
            match systems.iter_mut().find(|known| known.fsid == fsid) {
                // The whole of it rather than a part.
                Some(known) if mount.root == "/" && mount.mount_point.as_os_str().len() < known.place.as_os_str().len() => {
                    known.place = mount.mount_point;
                }
                Some(_) => {}
                None => systems.push(FileSystem { fsid, place: mount.mount_point, kind: mount.fs_type }),
            }
        }
        if systems != self.systems {
            self.folders.clear();
            self.root =
                systems.iter().find(|system| system.place == Path::new("/")).and_then(|system| Some((system.fsid, File::open("/").ok()?)));
            self.systems = systems;
        }
        Ok(&self.systems)
    }

    /// What the kernel's programs look a file up by.
    pub(super) fn key(&mut self, path: &Path, meta: &Metadata) -> WatchKey {
        self.devices.key(path, meta)
    }

    /// Every device with a file system whose root is mounted, and where.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.places.iter().map(|(device, path)| (*device, path.as_path()))
    }

    /// Where the file system of a device (major << 20 | minor) is mounted; `None` where it is in this mount namespace not.
    pub(super) fn place(&self, device: u32) -> Option<&Path> {
        self.places.get(&device).map(PathBuf::as_path)
    }

    /// Type of the file system that a handle belongs to.
    pub(super) fn kind(&self, handle: &Handle) -> Option<&str> {
        self.system(handle).map(|system| system.kind.as_str())
    }

    fn system(&self, handle: &Handle) -> Option<&FileSystem> {
        self.systems.iter().find(|system| system.fsid == handle.fsid)
    }

    /// A folder was renamed: whatever lay below it has another path now.
    pub(super) fn forget(&mut self) {
        self.folders.clear();
    }

    /// Notes the path of a folder that is known already.
    pub(super) fn know(&mut self, handle: &Handle, path: &Path) {
        if self.folders.len() >= FOLDERS {
            self.folders.clear();
        }
        self.folders.insert(handle.clone(), path.to_owned());
    }

    /// The path of a folder; `None` when it is gone or lies in no mounted file system.
    pub(super) fn folder(&mut self, handle: &Handle) -> Option<PathBuf> {
        if let Some(path) = self.folders.get(handle) {
            return Some(path.clone());
        }
        let path = self.look_up(handle).ok()?;
        self.know(handle, &path);
        Some(path)
    }

    fn look_up(&self, handle: &Handle) -> io::Result<PathBuf> {
        let system = self.system(handle).ok_or(io::ErrorKind::NotFound)?;
        let opened;
        let mount = match &self.root {
            Some((fsid, root)) if *fsid == handle.fsid => root,
            _ => {
                opened = File::open(&system.place)?;
                &opened
            }
        };
        let mut raw = Raw { bytes: handle.bytes.len() as u32, kind: handle.kind, handle: [0; HANDLE_MAX] };
        raw.handle.get_mut(..handle.bytes.len()).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&handle.bytes);
        // SAFETY: `raw` holds as many bytes as it says.
        let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut raw, libc::O_PATH | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let folder = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
        // fs/d_path.c: what is unlinked, and what cannot be reached from here.
        if !path.is_absolute() || path.as_os_str().as_bytes().ends_with(b" (deleted)") {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_one_handle_under_all_its_names() {
        let temp = tempfile::tempdir().unwrap();
        let name = |name| temp.path().join(name);
        fs::write(name("a"), "").unwrap();
        fs::write(name("b"), "").unwrap();
        fs::hard_link(name("a"), name("hard")).unwrap();
        std::os::unix::fs::symlink("a", name("soft")).unwrap();
        let of = |path| of(&name(path)).unwrap();
        assert_eq!((of("hard"), of("soft")), (of("a"), of("a")));
        assert_ne!(of("a"), of("b"));
    }
}
