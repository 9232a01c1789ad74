//! From observations to events: who a pid is, its lineage link, names of users, containers, wall time.
//!
//! Invariants worth naming:
//!
//! - **A record that is older than what is known changes no state**, but is told: seeds are taken after the hooks are
//!   attached, so the rings may still hold the forks and execs of what was seeded.
//! - **What is not known stays `None`.** A subject that was never seen is its pid, its start and its credentials.
//! - **Secrets are replaced first** ([`crate::redact`]): the table and what comes of it never hold them.
//! - **Nothing here reads a clock or a file**, except [`users`] and [`clock`], which the caller drives: the same observations give the same
//!   events, live and from a recording.

pub mod auth;
pub mod clock;
pub mod container;
pub mod table;
pub mod users;

use std::collections::HashMap;

use bartizan_bus::event::{
    Body, BootId, Cgroup, EventId, ExeFile, Exec, ExecId, Fork, Outcome, Process, Relay, SecurityEvent, Seed, Severity,
};

use crate::project::{Act, Child, Image, NO_CPU, Observation, Subject, Target, What};
use crate::redact::Redactor;
use auth::{Caller, Step, Transactions, Who};
use table::Table;
use users::Names;

/// Sequence numbers of the sensor's own events; the upper half, because seeds from /proc use pids in the lower.
const OWN_SEQUENCES: u32 = 1 << 31;

/// Why an event of incoming packets has no subject: whoever runs on the CPU then has nothing to do with them.
const SOFTIRQ: &str = "softirq";

/// Ancestors in which a PAM handle is looked for.
const HANDLE_ANCESTORS: usize = 8;

/// Turns observations into events.
#[derive(Debug)]
pub struct Enricher {
    boot: BootId,
    host: String,
    wall_offset: i64,
    table: Table,
    users: Names,
    redactor: Option<Redactor>,
    own: u32,
    transactions: Transactions,
    /// Logins of processes that an earlier run of the sensor knew, by pid and start in ticks: taken by their seeds.
    known_logins: HashMap<(u32, u64), EventId>,
    /// Some process was put into a login: there is something to remember for the next run.
    any_login: bool,
}

impl Enricher {
    /// An enricher with an empty table for at most `max_processes`.
    pub fn new(boot: BootId, host: String, wall_offset: i64, max_processes: usize) -> Self {
        Self {
            boot,
            host,
            wall_offset,
            table: Table::new(max_processes),
            users: Names::new(),
            redactor: None,
            own: OWN_SEQUENCES,
            transactions: Transactions::default(),
            known_logins: HashMap::new(),
            any_login: false,
        }
    }

    /// Replaces secrets before anything else sees an observation. `None` where the operator has turned that off.
    pub fn redacting(self, redactor: Option<Redactor>) -> Self {
        Self { redactor, ..self }
    }

    /// The wall clock moved: later events are told by the new offset.
    pub fn set_wall_offset(&mut self, offset: i64) {
        self.wall_offset = offset;
    }

    /// User names are these from now on.
    pub fn set_users(&mut self, names: Names) {
        self.users = names;
    }

    /// The process table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Authentications that are under way.
    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// Takes the logins that an earlier run left: the seeds of their processes will belong to them.
    pub fn remember_logins(&mut self, logins: impl IntoIterator<Item = (ExecId, EventId)>) {
        let boot = self.boot;
        let of_this_boot = logins.into_iter().filter(|(id, _)| id.boot == boot);
        self.known_logins.extend(of_this_boot.map(|(id, login)| ((id.pid, id.start_ticks()), login)));
        self.any_login |= !self.known_logins.is_empty();
    }

    /// Every living process that belongs to a login, for the next run; `None` while there never was one.
    pub fn logins(&self) -> Option<Vec<(ExecId, EventId)>> {
        let of = |id: ExecId| self.table.get(&id).and_then(|entry| Some((id, entry.process.login?)));
        self.any_login.then(|| self.table.living().into_iter().filter_map(of).collect())
    }

    /// Marks processes as ended whose exit was never seen.
    pub fn forget(&mut self, gone: &[ExecId]) {
        for id in gone {
            self.table.exit(id);
            self.transactions.forget(who(id));
        }
    }

    /// An event of the sensor itself.
    pub fn own(&mut self, ktime: u64, severity: Severity, body: Body) -> SecurityEvent {
        self.own = self.own.wrapping_add(1) | OWN_SEQUENCES;
        SecurityEvent {
            id: EventId::from_sensor(self.boot, ktime, self.own),
            time: clock::event_time(ktime, self.wall_offset),
            host: self.host.clone(),
            severity,
            outcome: Outcome::Unknown,
            process: None,
            no_subject: Some("sensor".to_owned()),
            body,
            target: None,
        }
    }

    /// The event of an observation; `None` when it only adds to what later ones will say. `approximate` marks seeds that come from /proc.
    pub fn event(&mut self, observation: Observation, approximate: bool) -> Option<SecurityEvent> {
        let Observation { kind: _, subject, mut what } = observation;
        if let Some(redactor) = &self.redactor {
            redactor.what(&mut what);
        }
        let Some(subject) = self.named(subject) else {
            // A process that was never seen and is gone, or had to make room.
            let What::Act(act) = what else { return None };
            let Act { body, outcome, target: _, severity, in_file_system: _ } = *act;
            let event = self.own(subject.ktime, severity, body);
            return Some(SecurityEvent { outcome, no_subject: Some(format!("process {} is not known", subject.tgid)), ..event });
        };
        let id = self.exec_id(subject.tgid, subject.start_boottime, subject.exec_id);
        let event_id = EventId::from_kernel(self.boot, subject.ktime, subject.cpu, subject.seq);
        let (mut target, mut severity) = (None, Severity::Info);
        let (process, outcome, body) = match what {
            What::Exec { image, requested, requested_truncated } => {
                let process = self.image(&subject, id, &image, false);
                self.replace(&process, subject.ktime);
                self.transactions.forget(who(&id));
                let Image { stdio, relay, .. } = *image;
                let relay = relay.map(|relay| self.relay(relay));
                let body = Exec { requested, error: None, stdio, relay, requested_truncated };
                (process, Outcome::Success, Body::Exec(body))
            }
            What::ExecFailed { requested, requested_truncated, error } => {
                let process = self.subject(&subject, id);
                let body = Exec { requested, error: Some(error), requested_truncated, ..Exec::default() };
                (process, Outcome::Failure, Body::Exec(body))
            }
            What::Fork(child) => {
                let process = self.subject(&subject, id);
                let child = self.child(&process, &child);
                self.replace(&child, subject.ktime);
                (process, Outcome::Success, Body::Fork(Fork { child }))
            }
            What::Exit(exit) => {
                let process = self.subject(&subject, id);
                self.table.exit(&id);
                self.transactions.forget(who(&id));
                (process, Outcome::Unknown, Body::Exit(exit))
            }
            What::Seed(image) => {
                let process = self.image(&subject, id, &image, approximate);
                self.replace(&process, subject.ktime);
                let Image { stdio, relay, sockets, .. } = *image;
                let relay = relay.map(|relay| self.relay(relay));
                (process, Outcome::Unknown, Body::Seed(Seed { stdio, relay, sockets }))
            }
            What::Act(act) => {
                let Act { body, outcome, target: acted_on, severity: by_itself, in_file_system: _ } = *act;
                severity = by_itself;
                target = acted_on.and_then(|target| self.target(&target));
                (self.subject(&subject, id), outcome, body)
            }
            What::Probe(probe) => {
                let event = self.own(subject.ktime, Severity::Info, Body::Probe(probe));
                // What was taken out of the kernel's map is no record of the kernel's and has an id of the sensor's own.
                let id = if subject.cpu == NO_CPU { event.id } else { event_id };
                return Some(SecurityEvent { id, no_subject: Some(SOFTIRQ.to_owned()), ..event });
            }
            What::Pam(pam) => {
                let caller = self.caller(&subject, &id);
                let step = self.transactions.pam(pam, &caller, event_id)?;
                self.step(&subject, id, step)
            }
            What::SshdLog { text, truncated } => {
                let caller = self.caller(&subject, &id);
                let step = self.transactions.sshd_log(&text, truncated, &caller, event_id)?;
                self.step(&subject, id, step)
            }
        };
        Some(SecurityEvent {
            id: event_id,
            time: clock::event_time(subject.ktime, self.wall_offset),
            host: self.host.clone(),
            severity,
            outcome,
            process: Some(process),
            no_subject: None,
            body,
            target,
        })
    }

    /// The subject with all that is known of it, where its source named it by number only. `None` when that number is not known.
    fn named(&self, subject: Subject) -> Option<Subject> {
        if !subject.is_number_only() {
            return Some(subject);
        }
        let process = &self.table.last_of_pid(subject.tgid)?.process;
        Some(Subject {
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
    fn caller(&self, subject: &Subject, id: &ExecId) -> Caller {
        let parent = |id: &ExecId| self.table.get(id)?.process.parent;
        let ancestors = std::iter::successors(parent(id), parent).take(HANDLE_ANCESTORS);
        Caller { who: who(id), ancestors: ancestors.map(|id| who(&id)).collect(), euid: subject.euid }
    }

    /// A step of a login: from a login on, the process belongs to it.
    fn step(&mut self, subject: &Subject, id: ExecId, step: Step) -> (Process, Outcome, Body) {
        let Step { body, outcome, logs_in } = step;
        if let Some(login) = logs_in {
            self.any_login = true;
            if let Some(entry) = self.table.get_mut(&id) {
                entry.process.login = Some(login);
            }
        }
        let process = self.subject(subject, id);
        (Process { login: logs_in.or(process.login), ..process }, outcome, body)
    }

    fn exec_id(&self, pid: u32, start_ns: u64, exec: u32) -> ExecId {
        ExecId { boot: self.boot, start_ns, pid, exec }
    }

    /// Puts `process` into the table unless something newer is known of it.
    fn replace(&mut self, process: &Process, ktime: u64) {
        if self.table.get(&process.exec_id).is_none_or(|known| known.ktime <= ktime) {
            self.table.put(process.clone(), ktime);
        }
    }

    /// The acting process, with the image that the record names. What is not known is not put into the table: a late record of
    /// a dead process must not take the place of the living one that has its pid now.
    fn subject(&mut self, subject: &Subject, id: ExecId) -> Process {
        let known = self.table.get_mut(&id).and_then(|entry| {
            if entry.process.approximate && entry.process.exec_id != id {
                // The kernel names what /proc had seeded: from now on by its exact id.
                entry.process.exec_id = id;
                entry.process.approximate = false;
            }
            if subject.cpu != NO_CPU && entry.process.exec_id.exec == id.exec {
                // For sources that name a process by its number only.
                (entry.process.uid, entry.process.euid) = (subject.uid, subject.euid);
            }
            let images = [Some(&entry.process), entry.previous.as_deref()];
            images.into_iter().flatten().find(|process| process.exec_id.exec == id.exec).cloned()
        });
        let mut process = known.unwrap_or_else(|| Process {
            start_wall_ns: Some(clock::event_time(id.start_ns, self.wall_offset).wall_ns),
            kernel_thread: subject.kernel_thread,
            ..Process::of(id)
        });
        if process.cgroup.as_ref().is_some_and(|cgroup| cgroup.id != 0 && cgroup.id != subject.cgroup_id) {
            // It was moved since its exec: where to is known by number only.
            process.cgroup = Some(Cgroup { id: subject.cgroup_id, path: None });
            process.container = None;
        }
        process.tid = subject.tid;
        process.ppid = Some(subject.ppid).filter(|ppid| *ppid != 0);
        process.uid = subject.uid;
        process.euid = subject.euid;
        process.user = self.users.get(&subject.uid).cloned();
        process
    }

    /// The process that something is done to, as far as it is known; `None` where only a pid was told and nobody is known by it.
    fn target(&self, target: &Target) -> Option<Process> {
        if target.start_boottime == 0 {
            let named = self.table.by_pid(target.tgid)?;
            return Some(named.process.clone());
        }
        let id = self.exec_id(target.tgid, target.start_boottime, target.exec_id);
        let known = self.table.get(&id).map(|entry| entry.process.clone());
        let process = known.unwrap_or_else(|| Process {
            start_wall_ns: Some(clock::event_time(id.start_ns, self.wall_offset).wall_ns),
            ..Process::of(id)
        });
        Some(Process { tid: target.tid, uid: target.uid, user: self.users.get(&target.uid).cloned(), ..process })
    }

    /// The child of `parent`: its image under another id.
    fn child(&self, parent: &Process, child: &Child) -> Process {
        let exec_id = self.exec_id(child.tgid, child.start_boottime, child.exec_id);
        Process {
            exec_id,
            parent: Some(parent.exec_id),
            pid: child.tgid,
            tid: child.tgid,
            ppid: Some(parent.pid),
            start_wall_ns: Some(clock::event_time(child.start_boottime, self.wall_offset).wall_ns),
            name: child.name.clone(),
            approximate: false,
            ..parent.clone()
        }
    }

    /// A process as an exec or seed record tells it.
    fn image(&self, subject: &Subject, exec_id: ExecId, image: &Image, approximate: bool) -> Process {
        let by_record = || {
            let parent = self.exec_id(subject.ppid, image.parent_start_boottime, image.parent_exec_id);
            // /proc does not count images: what is known of the parent does.
            let known = self.table.get(&parent).map(|entry| entry.process.exec_id);
            (subject.ppid != 0).then(|| if approximate { known.unwrap_or(parent) } else { parent })
        };
        // The link that fork made is older and better than the real parent now, which may be a reaper.
        let parent = self.table.get(&exec_id).and_then(|entry| entry.process.parent).or_else(by_record);
        let cgroup = Cgroup { id: subject.cgroup_id, path: image.cgroup.clone() };
        Process {
            exec_id,
            parent,
            pid: subject.tgid,
            tid: subject.tid,
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
            container: image.cgroup.as_deref().and_then(container::container_id),
            cgroup: Some(cgroup).filter(|cgroup| cgroup.id != 0 || cgroup.path.is_some()),
            mnt_ns: Some(image.mnt_ns).filter(|ns| *ns != 0),
            pid_ns: Some(image.pid_ns).filter(|ns| *ns != 0),
            kernel_thread: subject.kernel_thread,
            approximate,
            login: self.login(&exec_id, parent.as_ref()),
        }
    }

    /// The login that a process belongs to: its own as far as it is known, its parent's when the fork was not seen, or what an earlier run
    /// of the sensor left.
    fn login(&self, id: &ExecId, parent: Option<&ExecId>) -> Option<EventId> {
        match self.table.get(id) {
            Some(entry) => entry.process.login,
            None => {
                let of_parent = || self.table.get(parent?)?.process.login;
                self.known_logins.get(&(id.pid, id.start_ticks())).copied().or_else(of_parent)
            }
        }
    }

    fn relay(&self, relay: crate::project::Relay) -> Relay {
        let crate::project::Relay { tgid, start_boottime, exec_id, fds, sockets, truncated } = relay;
        Relay { by: Some(self.exec_id(tgid, start_boottime, exec_id)), pid: tgid, fds, sockets, truncated }
    }
}

/// A process as the key of its PAM handles.
fn who(id: &ExecId) -> Who {
    (id.pid, id.start_ns)
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::Exit;
    use bartizan_sensor_ebpf::abi::Kind;

    use super::*;

    fn enricher() -> Enricher {
        Enricher::new(BootId(9), "host".into(), 1_000, 64)
    }

    fn subject(ktime: u64, tgid: u32, start: u64, exec_id: u32) -> Subject {
        Subject {
            ktime,
            cpu: 0,
            seq: ktime as u32,
            tgid,
            tid: tgid,
            start_boottime: start,
            exec_id,
            uid: 0,
            euid: 0,
            ppid: 1,
            cgroup_id: 1,
            kernel_thread: false,
        }
    }

    fn image(exe: &str) -> Box<Image> {
        Box::new(Image { name: exe.into(), exe: Some(exe.into()), ..Image::default() })
    }

    fn exec(subject: Subject, exe: &str) -> Observation {
        Observation {
            kind: Kind::Exec,
            subject,
            what: What::Exec { image: image(exe), requested: Some(exe.into()), requested_truncated: false },
        }
    }

    fn seed(subject: Subject, exe: &str) -> Observation {
        Observation { kind: Kind::Seed, subject, what: What::Seed(image(exe)) }
    }

    fn fork(subject: Subject, tgid: u32, start: u64) -> Observation {
        let child = Child { tgid, start_boottime: start, exec_id: subject.exec_id, name: "c".into() };
        Observation { kind: Kind::Fork, subject, what: What::Fork(child) }
    }

    #[test]
    fn a_child_keeps_its_parent_s_image_at_the_fork() {
        let mut enricher = enricher();
        enricher.event(exec(subject(10, 5, 1, 2), "/bin/bash"), false);
        enricher.event(fork(subject(20, 5, 1, 2), 6, 19), false);
        enricher.event(exec(subject(25, 5, 1, 3), "/bin/other"), false);
        let event = enricher.event(exec(subject(30, 6, 19, 3), "/bin/ls"), false).unwrap();
        let process = event.process.unwrap();
        assert_eq!(process.parent.unwrap(), enricher.exec_id(5, 1, 2), "the image that forked, not the one that came after");
        assert_eq!(process.exe_path(), Some("/bin/ls"));
    }

    #[test]
    fn a_secret_is_in_no_event_and_not_in_the_table() {
        use crate::redact::{Key, RedactionConfig, Redactor};
        let redactor = Redactor::new(&RedactionConfig::default(), Key::from_bytes([7; 32])).unwrap();
        let mut enricher = enricher().redacting(Some(redactor));
        let with_secret = |what: fn(Box<Image>) -> What| {
            let image = Image { argv: vec!["mysql".into(), "-phunter2".into()], ..Image::default() };
            Observation { kind: Kind::Exec, subject: subject(10, 5, 1, 2), what: what(Box::new(image)) }
        };
        let exec = |image| What::Exec { image, requested: Some("https://u:hunter2@h/x".into()), requested_truncated: false };
        let events = [
            enricher.event(with_secret(exec), false),
            enricher.event(fork(subject(20, 5, 1, 2), 6, 19), false),
            enricher.event(with_secret(What::Seed), false),
        ];
        for event in events {
            let text = format!("{event:?}");
            assert!(text.contains("[redacted:") && !text.contains("hunter2"), "{text}");
        }
        assert!(!format!("{:?}", enricher.table()).contains("hunter2"));
    }

    #[test]
    fn an_old_record_is_told_but_does_not_undo_a_seed() {
        let mut enricher = enricher();
        enricher.event(seed(subject(100, 5, 1, 7), "/bin/new"), false);
        let event = enricher.event(exec(subject(50, 5, 1, 6), "/bin/old"), false).unwrap();
        assert_eq!(event.process.unwrap().exe_path(), Some("/bin/old"));
        let known = enricher.table().get(&enricher.exec_id(5, 1, 7)).unwrap();
        assert_eq!(known.process.exe_path(), Some("/bin/new"));
    }

    #[test]
    fn what_proc_seeded_is_merged_when_the_kernel_names_it() {
        let mut enricher = enricher();
        enricher.event(seed(subject(100, 5, 20_000_000, 0), "/bin/old"), true);
        let exit = Observation { kind: Kind::Exit, subject: subject(200, 5, 23_456_789, 4), what: What::Exit(Exit::default()) };
        let process = enricher.event(exit, false).unwrap().process.unwrap();
        assert_eq!(process.exe_path(), Some("/bin/old"));
        assert_eq!((process.exec_id.start_ns, process.approximate), (23_456_789, false));
    }

    #[test]
    fn a_late_record_is_about_the_image_that_acted() {
        let mut enricher = enricher();
        enricher.event(exec(subject(10, 5, 1, 2), "/usr/bin/python3"), false);
        enricher.event(exec(subject(20, 5, 1, 3), "/bin/sleep"), false);
        let late = |exec_id| Observation { kind: Kind::Exit, subject: subject(30, 5, 1, exec_id), what: What::Exit(Exit::default()) };
        assert_eq!(enricher.event(late(2), false).unwrap().process.unwrap().exe_path(), Some("/usr/bin/python3"));
        assert_eq!(
            enricher.event(late(1), false).unwrap().process.unwrap().exe_path(),
            None,
            "an image that nobody remembers is not guessed"
        );
    }

    #[test]
    fn a_late_record_of_a_dead_process_leaves_the_living_one_alone() {
        let mut enricher = enricher();
        enricher.event(exec(subject(100, 5, 90_000_000, 2), "/bin/living"), false);
        let late = Observation { kind: Kind::Exit, subject: subject(200, 5, 10_000_000, 9), what: What::Exit(Exit::default()) };
        assert_eq!(enricher.event(late, false).unwrap().process.unwrap().exe_path(), None);
        let living = enricher.exec_id(5, 90_000_000, 2);
        assert_eq!(enricher.table().get(&living).unwrap().process.exe_path(), Some("/bin/living"));
    }

    #[test]
    fn an_unknown_subject_is_its_id_and_nothing_else() {
        let mut enricher = enricher();
        let exit = Observation { kind: Kind::Exit, subject: subject(5, 77, 3, 0), what: What::Exit(Exit::default()) };
        let event = enricher.event(exit, false).unwrap();
        let process = event.process.unwrap();
        assert_eq!((process.pid, process.exe, process.user), (77, None, None));
        assert_eq!(event.time.wall_ns, 1_005);
    }
}
