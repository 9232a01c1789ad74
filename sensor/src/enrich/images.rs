//! What a new image is: processes as execs, forks and seeds make them.

use bartizan_bus::event::{Cgroup, EventId, ExeFile, ExecId, Process, ProcessNamespaces, Relay};

use super::{Enricher, clock, container};
use crate::project::{Child, ExeInode, Image, Subject};

/// Seconds and nanoseconds as nanoseconds; the ends of the range for what is beyond it.
fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds))
}

impl Enricher {
    /// The child of `parent`: its image under another id.
    pub(super) fn child(&self, parent: &Process, child: &Child) -> Process {
        let exec_id = self.exec_id(child.tgid, child.start_boottime, child.exec_id);
        Process {
            exec_id,
            parent: Some(parent.exec_id),
            pid: child.tgid,
            ppid: Some(parent.pid),
            start_wall_ns: Some(clock::event_time(child.start_boottime, self.wall_offset).wall_ns),
            name: child.name.clone(),
            approximate: false,
            ..parent.clone()
        }
    }

    /// A process as an exec or seed record tells it.
    pub(super) fn image(&mut self, subject: &Subject, exec_id: ExecId, image: &Image, approximate: bool) -> Process {
        let by_record = || {
            let parent = self.exec_id(subject.ppid, image.parent_start_boottime, image.parent_exec_id);
            // /proc does not count images: what is known of the parent does.
            let known = self.table.get(&parent).map(|entry| entry.process.exec_id);
            (subject.ppid != 0).then(|| if approximate { known.unwrap_or(parent) } else { parent })
        };
        // The link that fork made is older and better than the real parent now, which may be a reaper.
        let parent = self.table.get(&exec_id).and_then(|entry| entry.process.parent).or_else(by_record);
        let cgroup = Cgroup { id: subject.cgroup_id, path: image.cgroup.clone() };
        let place = image.cgroup.as_deref().and_then(container::of_path);
        let container_info = place.as_ref().map(|place| self.containers.info(place, subject.ktime));
        Process {
            exec_id,
            parent,
            pid: subject.tgid,
            ppid: Some(subject.ppid).filter(|ppid| *ppid != 0),
            start_wall_ns: Some(clock::event_time(subject.start_boottime, self.wall_offset).wall_ns),
            name: image.name.clone(),
            exe: image.exe.as_ref().map(|path| ExeFile {
                path: path.clone(),
                inode: image.exe_file.map(|file| file.inode),
                device: image.exe_file.map(|file| file.device),
                mode: image.exe_file.map(|file| file.mode),
                owner: image.exe_file.map(|file| file.owner),
                deleted: image.exe_file.is_some_and(|file| file.nlink == 0),
                path_truncated: image.exe_truncated,
                sha256: None,
                filesystem: image.exe_file.as_ref().and_then(ExeInode::filesystem),
                // The kernel names it so, mm/memfd.c; a file of that name in a folder is not alone.
                memfd: image.exe_file.is_some_and(|file| file.alone) && path.starts_with("/memfd:"),
                upper: image.exe_file.is_some_and(|file| file.upper),
                size: image.exe_file.map(|file| file.size),
                changed_ns: image.exe_file.map(|file| nanoseconds(file.changed)),
            }),
            argv: image.argv.clone(),
            argv_truncated: image.argv_truncated,
            cwd: image.cwd.clone(),
            uid: subject.uid,
            euid: subject.euid,
            gid: Some(image.gid),
            user: self.users.get(&subject.uid).cloned(),
            loginuid: image.loginuid,
            audit_session: image.audit_session,
            tty: image.tty.clone(),
            sid: Some(image.sid),
            cap_effective: Some(image.cap_effective),
            container: place.map(|place| place.id),
            cgroup: Some(cgroup).filter(|cgroup| cgroup.id != 0 || cgroup.path.is_some()),
            mnt_ns: Some(image.mnt_ns).filter(|ns| *ns != 0),
            pid_ns: Some(image.pid_ns).filter(|ns| *ns != 0),
            kernel_thread: subject.kernel_thread,
            approximate,
            login: self.login(&exec_id, parent.as_ref()),
            namespaces: Some(image.namespaces).filter(|namespaces| *namespaces != ProcessNamespaces::default()),
            container_info,
        }
    }

    /// The login that a process belongs to: its own as far as it is known, its parent's when the fork was not seen, or what an earlier run
    /// of the sensor left.
    pub(super) fn login(&self, id: &ExecId, parent: Option<&ExecId>) -> Option<EventId> {
        match self.table.get(id) {
            Some(entry) => entry.process.login,
            None => {
                let of_parent = || self.table.get(parent?)?.process.login;
                self.known_logins.get(&(id.pid, id.start_ticks())).copied().or_else(of_parent)
            }
        }
    }

    pub(super) fn relay(&self, relay: crate::project::Relay) -> Relay {
        let crate::project::Relay { tgid, start_boottime, exec_id, fds, sockets, truncated } = relay;
        Relay { by: Some(self.exec_id(tgid, start_boottime, exec_id)), pid: tgid, fds, sockets, truncated }
    }
}
