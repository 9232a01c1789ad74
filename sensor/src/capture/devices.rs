//! Devices of files as the kernel's programs see them: that of the super block.
//!
//! For most file systems `st_dev` is the same. A btrfs subvolume and some files of an overlay say another one, which nothing in the kernel's
//! inode says: there it is the device of the mount. Subvolumes of one file system number their inodes each by themselves, so a file that has
//! the number of a watched one in another subvolume is taken for it by the kernel's programs, and told with its own path.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bartizan_sensor_ebpf::abi::WatchKey;
use procfs::process::MountInfo;

/// Devices of mounts.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    by_mount: HashMap<u64, u32>,
    /// By `st_dev`, once a mount has answered for it: many files share one, and the mounts of another namespace are not known here.
    by_stat: HashMap<u32, u32>,
}

impl Devices {
    /// Those of the mounts that this process sees; none where they cannot be read.
    pub(crate) fn read() -> Self {
        let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
        mounts.map_or_else(|_| Self::default(), |mounts| Self::of(mounts.iter()))
    }

    /// Those of these mounts.
    pub(crate) fn of<'a>(mounts: impl Iterator<Item = &'a MountInfo>) -> Self {
        let by_mount = mounts.filter_map(|mount| Some((u64::try_from(mount.mnt_id).ok()?, number(&mount.majmin)?))).collect();
        Self { by_mount, by_stat: HashMap::new() }
    }

    /// What the kernel's programs look the file at `path` up by, links followed.
    pub(crate) fn key(&mut self, path: &Path, meta: &Metadata) -> WatchKey {
        let by_stat = kernel_device(meta.dev());
        if !self.by_stat.contains_key(&by_stat) {
            let is_mounts = self.by_mount.values().any(|device| *device == by_stat);
            let by_mount = || self.by_mount.get(&mount_id(path)?).copied();
            let device = if is_mounts { Some(by_stat) } else { by_mount() };
            self.by_stat.extend(device.map(|device| (by_stat, device)));
        }
        self.known_key(meta)
    }

    /// The same for a file of any mount namespace, by what was looked up before.
    pub(crate) fn known_key(&self, meta: &Metadata) -> WatchKey {
        let by_stat = kernel_device(meta.dev());
        WatchKey { inode: meta.ino(), device: self.by_stat.get(&by_stat).copied().unwrap_or(by_stat), pad: 0 }
    }
}

/// `st_dev` as the kernel keeps it: major << 20 | minor (include/linux/kdev_t.h).
pub(crate) fn kernel_device(device: u64) -> u32 {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    (major as u32) << 20 | minor as u32
}

/// `8:1` as the kernel keeps it.
pub(crate) fn number(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once(':')?;
    Some(major.parse::<u32>().ok()?.checked_shl(20)? | minor.parse::<u32>().ok()?)
}

/// The mount that the file is in (Linux 5.8).
fn mount_id(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: a NUL-terminated path, and room for one `struct statx`.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_MNT_ID, stat.as_mut_ptr()) };
    // SAFETY: zeros are a `struct statx`, which the kernel has filled.
    let stat = unsafe { stat.assume_init() };
    (result == 0 && stat.stx_mask & libc::STATX_MNT_ID != 0).then_some(stat.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_numbered_as_the_kernel_numbers_them() {
        assert_eq!(kernel_device(nix::sys::stat::makedev(254, 3)), 254 << 20 | 3);
        assert_eq!(number("254:3"), Some(254 << 20 | 3));
        assert_eq!([number("254"), number("a:3"), number("")], [None; 3]);
    }

    #[test]
    fn a_file_whose_own_device_no_mount_has_is_looked_up_by_that_of_its_mount() {
        let file = Path::new("/proc/self/exe");
        let meta = std::fs::metadata(file).unwrap();
        let by_stat = WatchKey { inode: meta.ino(), device: kernel_device(meta.dev()), pad: 0 };
        assert_eq!(Devices::default().key(file, &meta), by_stat);
        // As a subvolume has it: the mount says another device than the file.
        let mount = mount_id(file).unwrap();
        let devices = |mounts: &[(u64, u32)]| Devices { by_mount: mounts.iter().copied().collect(), by_stat: HashMap::new() };
        let mut subvolume = devices(&[(mount, 7)]);
        assert_eq!(subvolume.known_key(&meta), by_stat);
        assert_eq!(subvolume.key(file, &meta), WatchKey { device: 7, ..by_stat });
        assert_eq!(subvolume.known_key(&meta), WatchKey { device: 7, ..by_stat });
        assert_eq!(devices(&[(mount, 7), (mount + 1, by_stat.device)]).key(file, &meta), by_stat);
    }
}
