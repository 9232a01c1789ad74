//! Who acts, and on whom: the processes that an event names, out of the table and what the record says of them.

use std::sync::Arc;

use bartizan_bus::event::{Body, Cgroup, ExecId, Outcome, Process};
use bartizan_sensor_ebpf::abi::Kind;

use super::auth::{Caller, Step, Who};
use super::table::{Entry, Told};
use super::{Enricher, HANDLE_ANCESTORS, clock};
use crate::project::{NO_CPU, Subject, Target};

/// A process as the key of its PAM handles.
pub(super) fn who(id: &ExecId) -> Who {
    (id.pid, id.start_ns)
}

/// The acting thread, where it is not the process's first one.
pub(super) fn other_thread(subject: &Subject) -> Option<u32> {
    Some(subject.tid).filter(|tid| *tid != 0 && *tid != subject.tgid)
}

impl Enricher {
    /// The subject with all that is known of it, where its source named it by number only. Given back when that number is not known.
    pub(super) fn named(&self, subject: Subject) -> Result<Subject, Subject> {
        if !subject.is_number_only() {
            return Ok(subject);
        }
        let Some(Entry { process, .. }) = self.table.last_of_pid(subject.tgid) else { return Err(subject) };
        Ok(Subject {
            start_boottime: process.exec_id.start_ns,
            exec_id: process.exec_id.exec,
            uid: process.uid,
            euid: process.euid,
            ppid: process.ppid.unwrap_or(0),
            cgroup_id: process.cgroup.as_ref().map_or(0, |cgroup| cgroup.id),
            kernel_thread: process.kernel_thread,
            ..subject
        })
    }

    /// Who calls into libpam, or into syslog.
    pub(super) fn caller(&self, subject: &Subject, id: &ExecId) -> Caller {
        let parent = |id: &ExecId| self.table.get(id)?.process.parent;
        let ancestors = std::iter::successors(parent(id), parent).take(HANDLE_ANCESTORS);
        Caller { who: who(id), ancestors: ancestors.map(|id| who(&id)).collect(), euid: subject.euid }
    }

    /// A step of a login: from a login on, the process belongs to it.
    pub(super) fn step(&mut self, kind: Kind, subject: &Subject, id: ExecId, step: Step) -> (Arc<Process>, Outcome, Body) {
        let Step { body, outcome, logs_in } = step;
        if let Some(login) = logs_in {
            self.any_login = true;
            if let Some(entry) = self.table.get_mut(&id) {
                Arc::make_mut(&mut entry.process).login = Some(login);
            }
        }
        let mut process = self.acting(kind, subject, id);
        if logs_in.is_some() && logs_in != process.login {
            Arc::make_mut(&mut process).login = logs_in;
        }
        (process, outcome, body)
    }

    pub(super) fn exec_id(&self, pid: u32, start_ns: u64, exec: u32) -> ExecId {
        ExecId { boot: self.boot, start_ns, pid, exec }
    }

    /// Puts `process` into the table unless something newer is known of it.
    pub(super) fn replace(&mut self, process: &Arc<Process>, ktime: u64) {
        if self.table.get(&process.exec_id).is_none_or(|known| known.ktime <= ktime) {
            self.table.put(Arc::clone(process), ktime);
        }
    }

    /// The process of a record that it made as it acted, as [`Self::subject`]; the users that it acts as are kept for sources that name it
    /// by its number only. A record about a connection says who its owner was when the connection was begun or accepted, which may be
    /// long ago: it changes nothing.
    pub(super) fn acting(&mut self, kind: Kind, subject: &Subject, id: ExecId) -> Arc<Process> {
        let earlier = matches!(kind, Kind::Connect | Kind::FlowEnd) || subject.cpu == NO_CPU;
        if let Some(entry) = self.table.get_mut(&id)
            && !earlier
            && (entry.process.approximate || entry.process.exec_id.exec == id.exec)
            && (entry.process.uid, entry.process.euid) != (subject.uid, subject.euid)
        {
            let process = Arc::make_mut(&mut entry.process);
            (process.uid, process.euid) = (subject.uid, subject.euid);
        }
        self.subject(subject, id)
    }

    /// The acting process, with the image that the record names. What is not known is not put into the table: a late record of
    /// a dead process must not take the place of the living one that has its pid now.
    pub(super) fn subject(&mut self, subject: &Subject, id: ExecId) -> Arc<Process> {
        let known = self.table.get_mut(&id).and_then(|entry| {
            if entry.process.approximate && entry.process.exec_id != id {
                // The kernel names what /proc had seeded: from now on by its exact id.
                let process = Arc::make_mut(&mut entry.process);
                (process.exec_id, process.approximate) = (id, false);
            }
            let images = [Some(&entry.process), entry.previous.as_ref()];
            images.into_iter().flatten().find(|process| process.exec_id.exec == id.exec).map(Arc::clone)
        });
        let mut process = known.unwrap_or_else(|| {
            Arc::new(Process {
                start_wall_ns: Some(clock::event_time(id.start_ns, self.wall_offset).wall_ns),
                kernel_thread: subject.kernel_thread,
                ..Process::of(id)
            })
        });
        if process.cgroup.as_ref().is_some_and(|cgroup| cgroup.id != 0 && cgroup.id != subject.cgroup_id) {
            // It was moved since its exec: where to is known by number only.
            let process = Arc::make_mut(&mut process);
            process.cgroup = Some(Cgroup { id: subject.cgroup_id, path: None });
            (process.container, process.container_info) = (None, None);
        }
        self.tell_container(&mut process, id, subject.ktime);
        let (ppid, user) = (Some(subject.ppid).filter(|ppid| *ppid != 0), self.users.get(&subject.uid));
        let as_it_is = (process.ppid, process.uid, process.euid, process.user.as_ref());
        if as_it_is != (ppid, subject.uid, subject.euid, user) {
            let mut entry = self.table.get_mut(&id).filter(|entry| Arc::ptr_eq(&entry.process, &process));
            let told = entry.as_ref().and_then(|entry| entry.told.as_ref()).filter(|told| {
                let as_told = (told.as_told.ppid, told.as_told.uid, told.as_told.euid, told.as_told.user.as_ref());
                Arc::ptr_eq(&told.of, &process) && as_told == (ppid, subject.uid, subject.euid, user)
            });
            if let Some(told) = told {
                return Arc::clone(&told.as_told);
            }
            let of = Arc::clone(&process);
            let changed = Arc::make_mut(&mut process);
            (changed.ppid, changed.uid, changed.euid) = (ppid, subject.uid, subject.euid);
            changed.user = user.cloned();
            if let Some(entry) = &mut entry {
                entry.told = Some(Told { of, as_told: Arc::clone(&process) });
            }
        }
        process
    }

    /// The process that something is done to, as far as it is known; `None` where only a pid was told and nobody is known by it.
    pub(super) fn target(&self, target: &Target) -> Option<Process> {
        if target.start_boottime == 0 {
            let named = self.table.by_pid(target.tgid)?;
            return Some(Process::clone(&named.process));
        }
        let id = self.exec_id(target.tgid, target.start_boottime, target.exec_id);
        let known = self.table.get(&id).map(|entry| Process::clone(&entry.process));
        let process = known.unwrap_or_else(|| Process {
            start_wall_ns: Some(clock::event_time(id.start_ns, self.wall_offset).wall_ns),
            ..Process::of(id)
        });
        Some(Process { uid: target.uid, user: self.users.get(&target.uid).cloned(), ..process })
    }

    /// Adds to a process in a container what was found of it since the process began.
    pub(super) fn tell_container(&mut self, process: &mut Arc<Process>, id: ExecId, now: u64) {
        let (Some(container), Some(held)) = (&process.container, &process.container_info) else { return };
        let Some(found) = self.containers.found(container, held, now) else { return };
        // Its children have it then, and it outlives the table of containers.
        if let Some(entry) = self.table.get_mut(&id).filter(|entry| entry.process.exec_id == id) {
            Arc::make_mut(&mut entry.process).container_info = Some(Arc::clone(&found));
        }
        Arc::make_mut(process).container_info = Some(found);
    }
}
