//! Programs at the root of the unified cgroup hierarchy.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSock, CgroupSysctl, Program, ProgramError};

use super::hooks::CgroupPlace;

/// Why programs cannot be put at the root.
#[derive(Debug, thiserror::Error)]
pub(super) enum RootError {
    /// The mounts cannot be read.
    #[error("cannot read the mounts of this process: {0}")]
    Mounts(#[from] procfs::ProcError),
    /// Not mounted.
    #[error("the unified cgroup hierarchy is not mounted (mount -t cgroup2 none /sys/fs/cgroup)")]
    NotMounted,
    /// Mounted, and cannot be opened.
    #[error("cannot open {0}: {1}")]
    Open(PathBuf, #[source] io::Error),
}

/// Where the root folder is: `/sys/fs/cgroup`, or below it where version 1 has that place.
///
/// # Errors
/// [`RootError`].
pub(super) fn place() -> Result<PathBuf, RootError> {
    let mounts = procfs::process::Process::myself()?.mountinfo()?;
    let place = mounts.into_iter().filter(|mount| mount.fs_type == "cgroup2" && Path::new(&mount.root) == Path::new("/"));
    place.map(|mount| mount.mount_point).next().ok_or(RootError::NotMounted)
}

/// The root folder.
///
/// # Errors
/// [`RootError`].
pub(super) fn root() -> Result<File, RootError> {
    let place = place()?;
    File::open(&place).map_err(|error| RootError::Open(place, error))
}

/// Loads `program` and puts it at `root` beside those of others.
///
/// # Errors
/// The kernel's, or the program is of another type.
pub(super) fn attach<'a>(program: &'a mut Program, place: CgroupPlace, root: &File) -> Result<BorrowedFd<'a>, ProgramError> {
    use aya::programs::CgroupSkbAttachType::{Egress, Ingress};
    use std::os::fd::AsFd;
    // Links live beside those of others by themselves; the kernel refuses the flag that says so.
    let mode = CgroupAttachMode::Single;
    Ok(match place {
        CgroupPlace::Sysctl => {
            let program: &mut CgroupSysctl = program.try_into()?;
            program.load()?;
            program.attach(root, mode)?;
            program.fd()?.as_fd()
        }
        CgroupPlace::Ingress | CgroupPlace::Egress => {
            let program: &mut CgroupSkb = program.try_into()?;
            program.load()?;
            program.attach(root, if place == CgroupPlace::Ingress { Ingress } else { Egress }, mode)?;
            program.fd()?.as_fd()
        }
        CgroupPlace::SockCreate | CgroupPlace::PostBind4 | CgroupPlace::PostBind6 => {
            let program: &mut CgroupSock = program.try_into()?;
            program.load()?;
            program.attach(root, mode)?;
            program.fd()?.as_fd()
        }
    })
}
