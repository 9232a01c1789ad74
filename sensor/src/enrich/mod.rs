//! From observations to events: who a pid is, its lineage link, names of users, containers, wall time.
//!
//! Invariants worth naming:
//!
//! - **A record that is older than what is known changes no state**, but is told: seeds are taken after the hooks are
//!   attached, so the rings may still hold the forks and execs of what was seeded.
//! - **What is not known stays `None`.** A subject that was never seen is its pid, its start and its credentials.
//! - **Secrets are replaced first** ([`crate::redact`]): the table and what comes of it never hold them.
//! - **Nothing here reads a clock or a file**, except [`users`], [`clock`] and [`container::reader`], which the caller drives: the same
//!   observations give the same events, live and from a recording.

mod accounts;
pub mod auth;
pub mod clock;
pub mod container;
mod domains;
pub mod environment;
mod streams;
pub mod table;
pub mod users;

use std::collections::HashMap;
use std::sync::Arc;

use bartizan_bus::event::{
    Body, BootId, Cgroup, EventId, ExeFile, ExeHash, Exec, ExecId, Fork, NotHashed, Outcome, Process, ProcessNamespaces, Relay,
    SecurityEvent, Seed, Severity,
};
use bartizan_sensor_ebpf::abi::Kind;

use accounts::Writers;

use crate::hash::{Answer, Hashes, Unhashed, Wanted};
use crate::project::{Act, Child, ExeInode, Image, NO_CPU, Observation, Subject, Target, What, wire};
use crate::redact::Redactor;
use auth::{Caller, Step, Transactions, Who};
use container::Known;
use domains::Domains;
use environment::Listed;
use streams::{Read, Streams};
use table::{Entry, Table, Told};
use users::Names;

/// Sequence numbers of the sensor's own events; the upper half, because seeds from /proc use pids in the lower.
const OWN_SEQUENCES: u32 = 1 << 31;

/// Why an event of incoming packets has no subject: whoever runs on the CPU then has nothing to do with them.
const SOFTIRQ: &str = "softirq";

/// Why an event of a socket has no subject: it is older than the sensor, so nobody noted whose it is.
const UNKNOWN_OWNER: &str = "unknown_owner";

/// Why an event of the accounts has no subject: who wrote the file was not seen, or it was another file.
const UNSEEN_WRITER: &str = "unseen_writer";

/// Ancestors in which a PAM handle is looked for.
const HANDLE_ANCESTORS: usize = 8;

/// Turns observations into events.
#[derive(Debug)]
pub struct Enricher {
    boot: BootId,
    host: Arc<str>,
    wall_offset: i64,
    table: Table,
    users: Names,
    containers: Known,
    redactor: Option<Redactor>,
    listed: Listed,
    hashes: Hashes,
    own: u32,
    transactions: Transactions,
    /// Logins of processes that an earlier run of the sensor knew, by pid and start in ticks: taken by their seeds.
    known_logins: HashMap<(u32, u64), EventId>,
    /// Some process was put into a login: there is something to remember for the next run.
    any_login: bool,
    /// Connections whose first bytes are being read.
    streams: Streams,
    /// Names of addresses.
    domains: Domains,
    /// Who wrote the files of the host's accounts.
    account_writers: Writers,
    /// Events behind the last one, of the same observation.
    more: Vec<SecurityEvent>,
}

impl Enricher {
    /// An enricher with an empty table for at most `max_processes`.
    pub fn new(boot: BootId, host: String, wall_offset: i64, max_processes: usize) -> Self {
        Self {
            boot,
            host: host.into(),
            wall_offset,
            table: Table::new(max_processes),
            users: Names::new(),
            containers: Known::default(),
            redactor: None,
            listed: Listed::default(),
            hashes: Hashes::default(),
            own: OWN_SEQUENCES,
            transactions: Transactions::default(),
            known_logins: HashMap::new(),
            any_login: false,
            streams: Streams::default(),
            domains: Domains::default(),
            account_writers: Writers::default(),
            more: Vec::new(),
        }
    }

    /// Replaces secrets before anything else sees an observation. `None` where the operator has turned that off.
    pub fn redacting(self, redactor: Option<Redactor>) -> Self {
        Self { redactor, ..self }
    }

    /// Keeps variables of new images' environments whose names are listed.
    pub fn keeping(self, listed: Listed) -> Self {
        Self { listed, ..self }
    }

    /// Tells the contents of executables by what is known of them.
    pub fn hashing(self, hashes: Hashes) -> Self {
        Self { hashes, ..self }
    }

    /// What is known of executables, and wanted.
    pub fn hashes(&mut self) -> &mut Hashes {
        &mut self.hashes
    }

    /// A file was hashed at `ktime`, or will never be: an event for each process that waited for it and is still remembered.
    pub fn hashed(&mut self, ktime: u64, answer: &Answer) -> Vec<SecurityEvent> {
        let told = self.hashes.answer(answer);
        told.into_iter().filter_map(|id| self.exe_hash(ktime, &id, answer)).collect()
    }

    fn exe_hash(&mut self, ktime: u64, id: &ExecId, answer: &Answer) -> Option<SecurityEvent> {
        let Answer { file, result } = answer;
        let entry = self.table.get_mut(id)?;
        let images = [Some(&mut entry.process), entry.previous.as_mut()];
        let process = images.into_iter().flatten().find(|process| process.exec_id.exec == id.exec)?;
        let sha256 = result.as_ref().ok().cloned();
        if let Some(exe) = &mut Arc::make_mut(process).exe {
            exe.sha256.clone_from(&sha256);
        }
        let process = Arc::clone(process);
        let not_hashed = match result {
            Ok(_) => None,
            Err(Unhashed::TooLarge) => Some(NotHashed::TooLarge),
            Err(Unhashed::Unreachable) => return None,
        };
        let event = self.own(ktime, Severity::Info, Body::ExeHash(ExeHash { sha256, size: file.size, not_hashed }));
        Some(SecurityEvent { process: Some(process), no_subject: None, outcome: Outcome::Success, ..event })
    }

    /// Puts the hash of its executable into `process`, or asks for it.
    fn look_up_hash(&mut self, process: &mut Process, image: &Image) {
        let (Some(exe), Some(file)) = (&mut process.exe, &image.exe_file) else { return };
        let wanted = || Wanted { file: file.file_id(), magic: file.magic, pid: process.pid, ppid: process.ppid, path: exe.path.clone() };
        exe.sha256 = self.hashes.look(process.exec_id, wanted, file.file_id());
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

    /// What is known of containers.
    pub fn containers(&self) -> &Known {
        &self.containers
    }

    /// The same, to take requests and to give answers.
    pub fn containers_mut(&mut self) -> &mut Known {
        &mut self.containers
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

    /// The id of an event that no record of the kernel stands for alone.
    fn own_id(&mut self, ktime: u64) -> EventId {
        self.own = self.own.wrapping_add(1) | OWN_SEQUENCES;
        EventId::from_sensor(self.boot, ktime, self.own)
    }

    /// An event of the sensor itself.
    pub fn own(&mut self, ktime: u64, severity: Severity, body: Body) -> SecurityEvent {
        SecurityEvent {
            id: self.own_id(ktime),
            time: clock::event_time(ktime, self.wall_offset),
            host: Arc::clone(&self.host),
            severity,
            outcome: Outcome::Unknown,
            process: None,
            no_subject: Some("sensor".to_owned()),
            tid: None,
            target_tid: None,
            body,
            target: None,
        }
    }

    /// The event of an observation; `None` when it only adds to what later ones will say. `approximate` marks seeds that come from /proc.
    pub fn event(&mut self, observation: Observation, approximate: bool) -> Option<SecurityEvent> {
        let Observation { kind, subject, mut what } = observation;
        if let Some(redactor) = &self.redactor {
            redactor.what(&mut what);
        }
        let (subject, what) = match what {
            What::Act(act) => match self.named(subject) {
                Ok(subject) => (subject, What::Act(act)),
                // A process that was never seen and is gone, or had to make room.
                Err(subject) => return Some(self.without_subject(&subject, *act, format!("process {} is not known", subject.tgid))),
            },
            what => (subject, what),
        };
        let id = self.exec_id(subject.tgid, subject.start_boottime, subject.exec_id);
        let mut event_id = EventId::from_kernel(self.boot, subject.ktime, subject.cpu, subject.seq);
        let (mut target, mut target_tid, mut severity) = (None, None, Severity::Info);
        let (process, outcome, body) = match what {
            What::Exec { image, requested, requested_truncated, interpreter, interpreter_truncated, environment } => {
                let mut process = self.image(&subject, id, &image, false);
                self.look_up_hash(&mut process, &image);
                let process = Arc::new(process);
                self.replace(&process, subject.ktime);
                self.transactions.forget(who(&id));
                let Image { stdio, relay, .. } = *image;
                let relay = relay.map(|relay| self.relay(relay));
                let script = interpreter.as_ref().and(requested.as_deref()).map(|path| behind(process.cwd.as_deref(), path));
                let (mut environment, environment_truncated) = self.listed.kept(&environment);
                if let Some(redactor) = &self.redactor {
                    environment.iter_mut().for_each(|variable| redactor.variable(variable));
                }
                let body = Exec {
                    requested,
                    error: None,
                    stdio,
                    relay,
                    requested_truncated,
                    interpreter,
                    interpreter_truncated,
                    script,
                    environment,
                    environment_truncated,
                };
                (process, Outcome::Success, Body::Exec(body))
            }
            What::ExecFailed { requested, requested_truncated, error } => {
                let process = self.acting(kind, &subject, id);
                let body = Exec { requested, error: Some(error), requested_truncated, ..Exec::default() };
                (process, Outcome::Failure, Body::Exec(body))
            }
            What::Fork(child) => {
                let process = self.acting(kind, &subject, id);
                let namespaces = child.namespaces.clone();
                let child = Arc::new(self.child(&process, &child));
                self.replace(&child, subject.ktime);
                (process, Outcome::Success, Body::Fork(Fork { child, namespaces }))
            }
            What::Exit(exit) => {
                let process = self.acting(kind, &subject, id);
                self.table.exit(&id);
                self.transactions.forget(who(&id));
                (process, Outcome::Unknown, Body::Exit(exit))
            }
            What::Seed(image) => {
                let mut process = self.image(&subject, id, &image, approximate);
                self.look_up_hash(&mut process, &image);
                let process = Arc::new(process);
                self.replace(&process, subject.ktime);
                let Image { stdio, relay, sockets, .. } = *image;
                let relay = relay.map(|relay| self.relay(relay));
                (process, Outcome::Unknown, Body::Seed(Seed { stdio, relay, sockets }))
            }
            What::Piece(piece) => {
                let told = self.streams.take(kind, &subject, *piece);
                let told: Vec<SecurityEvent> = told.into_iter().map(|read| self.read(read)).collect();
                self.more.extend(told);
                return None;
            }
            What::Act(act) if subject.tgid == 0 => return Some(self.without_subject(&subject, *act, UNKNOWN_OWNER.to_owned())),
            What::Act(act) => {
                let Act { mut body, outcome, target: acted_on, severity: by_itself, in_file_system: _ } = *act;
                severity = by_itself;
                if subject.cpu == NO_CPU {
                    // What was taken out of a map of the kernel is no record of it.
                    event_id = self.own_id(subject.ktime);
                }
                if let Body::Connect(connect) = &mut body
                    && let Some(ip) = connect.socket.peer_ip
                {
                    connect.domain = self.domains.name(subject.tgid, ip, subject.ktime).map(str::to_owned);
                }
                target = acted_on.as_ref().and_then(|target| self.target(target));
                target_tid = acted_on.filter(|target| target.start_boottime != 0 && target.tid != target.tgid).map(|target| target.tid);
                (self.acting(kind, &subject, id), outcome, body)
            }
            gathered @ (What::Probe(_) | What::Syn(_)) => {
                let body = match gathered {
                    What::Syn(syn) => Body::Syn(syn),
                    What::Probe(probe) => Body::Probe(probe),
                    _ => return None,
                };
                let event = self.own(subject.ktime, Severity::Info, body);
                // What was taken out of the kernel's map is no record of the kernel's and has an id of the sensor's own.
                let id = if subject.cpu == NO_CPU { event.id } else { event_id };
                return Some(SecurityEvent { id, no_subject: Some(SOFTIRQ.to_owned()), ..event });
            }
            What::Account(inode, change) => {
                let process = self.account_writers.of(change.file, inode);
                let event = self.own(subject.ktime, Severity::Info, Body::AccountChange(change));
                let no_subject = process.is_none().then(|| UNSEEN_WRITER.to_owned());
                return Some(SecurityEvent { process, no_subject, outcome: Outcome::Success, ..event });
            }
            What::Pam(pam) => {
                let caller = self.caller(&subject, &id);
                let step = self.transactions.pam(pam, &caller, event_id)?;
                self.step(kind, &subject, id, step)
            }
            What::SshdLog { text, truncated } => {
                let caller = self.caller(&subject, &id);
                let step = self.transactions.sshd_log(&text, truncated, &caller, event_id)?;
                self.step(kind, &subject, id, step)
            }
        };
        let event = SecurityEvent {
            id: event_id,
            time: clock::event_time(subject.ktime, self.wall_offset),
            host: Arc::clone(&self.host),
            severity,
            outcome,
            process: Some(process),
            no_subject: None,
            tid: other_thread(&subject),
            target_tid,
            body,
            target,
        };
        self.account_writers.note(&event);
        Some(event)
    }

    /// Takes what the last observation gave besides its event.
    pub fn more(&mut self) -> impl Iterator<Item = SecurityEvent> {
        self.more.drain(..)
    }

    /// What is told of connections whose first bytes did not become whole until `now` (boot clock, nanoseconds).
    pub fn unfinished(&mut self, now: u64) -> Vec<SecurityEvent> {
        let told = self.streams.expire(now);
        told.into_iter().map(|read| self.read(read)).collect()
    }

    /// The event of something that was read off the wire.
    fn read(&mut self, read: Read) -> SecurityEvent {
        let Read { subject, mut act, message } = read;
        if let Some(message) = message.filter(|message| message.response)
            && let Some(question) = message.questions.first()
        {
            for (ip, ttl) in wire::addresses(&message) {
                self.domains.learn(subject.tgid, ip, &question.name, ttl, subject.ktime);
            }
        }
        if let Some(redactor) = &self.redactor {
            redactor.body(&mut act.body);
        }
        if subject.tgid == 0 {
            return self.without_subject(&subject, act, UNKNOWN_OWNER.to_owned());
        }
        let Act { body, outcome, target: _, severity, in_file_system: _ } = act;
        let process = self.subject(&subject, self.exec_id(subject.tgid, subject.start_boottime, subject.exec_id));
        // A record may give several, and an act may come of several records: the id is the sensor's own.
        let event = self.own(subject.ktime, severity, body);
        SecurityEvent { outcome, process: Some(process), no_subject: None, tid: other_thread(&subject), ..event }
    }

    /// An act of which is not known who did it; `why` is what the event says of that.
    fn without_subject(&mut self, subject: &Subject, act: Act, why: String) -> SecurityEvent {
        let Act { body, outcome, target: _, severity, in_file_system: _ } = act;
        let event = self.own(subject.ktime, severity, body);
        SecurityEvent { outcome, no_subject: Some(why), ..event }
    }

    /// The subject with all that is known of it, where its source named it by number only. Given back when that number is not known.
    fn named(&self, subject: Subject) -> Result<Subject, Subject> {
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
    fn caller(&self, subject: &Subject, id: &ExecId) -> Caller {
        let parent = |id: &ExecId| self.table.get(id)?.process.parent;
        let ancestors = std::iter::successors(parent(id), parent).take(HANDLE_ANCESTORS);
        Caller { who: who(id), ancestors: ancestors.map(|id| who(&id)).collect(), euid: subject.euid }
    }

    /// A step of a login: from a login on, the process belongs to it.
    fn step(&mut self, kind: Kind, subject: &Subject, id: ExecId, step: Step) -> (Arc<Process>, Outcome, Body) {
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

    fn exec_id(&self, pid: u32, start_ns: u64, exec: u32) -> ExecId {
        ExecId { boot: self.boot, start_ns, pid, exec }
    }

    /// Puts `process` into the table unless something newer is known of it.
    fn replace(&mut self, process: &Arc<Process>, ktime: u64) {
        if self.table.get(&process.exec_id).is_none_or(|known| known.ktime <= ktime) {
            self.table.put(Arc::clone(process), ktime);
        }
    }

    /// The process of a record that it made as it acted, as [`Self::subject`]; the users that it acts as are kept for sources that name it
    /// by its number only. A record about a connection says who its owner was when the connection was begun or accepted, which may be
    /// long ago: it changes nothing.
    fn acting(&mut self, kind: Kind, subject: &Subject, id: ExecId) -> Arc<Process> {
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
    fn subject(&mut self, subject: &Subject, id: ExecId) -> Arc<Process> {
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
    fn target(&self, target: &Target) -> Option<Process> {
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
    fn tell_container(&mut self, process: &mut Arc<Process>, id: ExecId, now: u64) {
        let (Some(container), Some(held)) = (&process.container, &process.container_info) else { return };
        let Some(found) = self.containers.found(container, held, now) else { return };
        // Its children have it then, and it outlives the table of containers.
        if let Some(entry) = self.table.get_mut(&id).filter(|entry| entry.process.exec_id == id) {
            Arc::make_mut(&mut entry.process).container_info = Some(Arc::clone(&found));
        }
        Arc::make_mut(process).container_info = Some(found);
    }

    /// The child of `parent`: its image under another id.
    fn child(&self, parent: &Process, child: &Child) -> Process {
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
    fn image(&mut self, subject: &Subject, exec_id: ExecId, image: &Image, approximate: bool) -> Process {
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

/// `path` as the kernel finds it from `folder`. Links and `..` are left as they are.
fn behind(folder: Option<&str>, path: &str) -> String {
    match folder {
        Some(folder) if !path.starts_with('/') => format!("{}/{}", folder.trim_end_matches('/'), path.trim_start_matches("./")),
        _ => path.to_owned(),
    }
}

/// Seconds and nanoseconds as nanoseconds; the ends of the range for what is beyond it.
fn nanoseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds))
}

/// A process as the key of its PAM handles.
fn who(id: &ExecId) -> Who {
    (id.pid, id.start_ns)
}

/// The acting thread, where it is not the process's first one.
fn other_thread(subject: &Subject) -> Option<u32> {
    Some(subject.tid).filter(|tid| *tid != 0 && *tid != subject.tgid)
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{Exit, Heartbeat};

    use super::*;
    use crate::project::Environment;

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

    fn executed(image: Box<Image>, requested: &str) -> What {
        What::Exec {
            image,
            requested: Some(requested.into()),
            requested_truncated: false,
            interpreter: None,
            interpreter_truncated: false,
            environment: Environment::default(),
        }
    }

    fn exec(subject: Subject, exe: &str) -> Observation {
        Observation { kind: Kind::Exec, subject, what: executed(image(exe), exe) }
    }

    fn seed(subject: Subject, exe: &str) -> Observation {
        Observation { kind: Kind::Seed, subject, what: What::Seed(image(exe)) }
    }

    fn fork(subject: Subject, tgid: u32, start: u64) -> Observation {
        let child = Child { tgid, start_boottime: start, exec_id: subject.exec_id, name: "c".into(), namespaces: Vec::new() };
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
        let exec = |image| executed(image, "https://u:hunter2@h/x");
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
    fn a_script_is_told_behind_its_folder_with_the_listed_variables() {
        let mut enricher = enricher().keeping(Listed::new(&["LD_*".to_owned()]));
        let told = |enricher: &mut Enricher, requested: &str, interpreter: Option<&str>| {
            let image = Image { cwd: Some("/srv".into()), ..*image("/bin/sh") };
            let what = What::Exec {
                image: Box::new(image),
                requested: Some(requested.into()),
                requested_truncated: false,
                interpreter: interpreter.map(str::to_owned),
                interpreter_truncated: false,
                environment: Environment { head: b"A=1\0LD_PRELOAD=x\0".to_vec(), end: Vec::new(), len: 17 },
            };
            let event = enricher.event(Observation { kind: Kind::Exec, subject: subject(10, 5, 1, 2), what }, false).unwrap();
            let Body::Exec(exec) = event.body else { panic!("another kind") };
            assert_eq!((exec.environment, exec.environment_truncated), (vec!["LD_PRELOAD=x".to_owned()], false));
            exec.script
        };
        assert_eq!(told(&mut enricher, "./a.sh", Some("/bin/sh")).as_deref(), Some("/srv/a.sh"));
        assert_eq!(told(&mut enricher, "/dev/fd/5", Some("/bin/sh")).as_deref(), Some("/dev/fd/5"));
        assert_eq!(told(&mut enricher, "./a.out", None), None);
    }

    #[test]
    fn a_hash_is_told_late_and_later_execs_have_it() {
        let mut enricher = enricher().hashing(Hashes::new(true));
        let with_file = || {
            let file = ExeInode {
                inode: 1,
                device: 2,
                mode: 0o100_755,
                owner: 0,
                nlink: 1,
                size: 3,
                changed: (4, 5),
                magic: 0xef53,
                upper: false,
                alone: false,
            };
            executed(Box::new(Image { exe_file: Some(file), ..*image("/bin/x") }), "x")
        };
        let exec = |ktime, pid| Observation { kind: Kind::Exec, subject: subject(ktime, pid, 1, 2), what: with_file() };
        let first = enricher.event(exec(10, 5), false).unwrap().process.unwrap().exe.clone().unwrap();
        assert_eq!((first.sha256, first.filesystem.as_deref(), first.changed_ns), (None, Some("ext4"), Some(4_000_000_005)));
        let [wanted] = enricher.hashes().take_wanted().try_into().unwrap();
        assert_eq!((wanted.pid, wanted.ppid, wanted.path.as_str()), (5, Some(1), "/bin/x"));
        let events = enricher.hashed(20, &Answer { file: wanted.file, result: Ok("ab".into()) });
        let [event] = events.try_into().unwrap();
        assert_eq!(event.body, Body::ExeHash(ExeHash { sha256: Some("ab".into()), size: 3, not_hashed: None }));
        assert_eq!(event.process.unwrap().exe.as_ref().unwrap().sha256.as_deref(), Some("ab"));
        for pid in [5, 6] {
            let later = enricher.event(exec(30, pid), false).unwrap().process.unwrap();
            assert_eq!(later.exe.as_ref().unwrap().sha256.as_deref(), Some("ab"));
        }
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
    fn events_share_a_process_until_a_record_says_something_else_of_it() {
        let mut enricher = enricher();
        enricher.event(exec(subject(10, 5, 1, 2), "/bin/bash"), false);
        let id = enricher.exec_id(5, 1, 2);
        let forks = |enricher: &mut Enricher, child, acting| enricher.event(fork(acting, child, u64::from(child)), false).unwrap();
        let threads = [5, 99, 98].map(|tid| forks(&mut enricher, 20 + tid, Subject { tid, ..subject(20, 5, 1, 2) }));
        assert_eq!(threads.each_ref().map(|event| event.tid), [None, Some(99), Some(98)]);
        let known = Arc::clone(&enricher.table().get(&id).unwrap().process);
        assert!(threads.iter().all(|event| Arc::ptr_eq(event.process.as_ref().unwrap(), &known)));
        // Its parent ended.
        let adopted = [30, 31].map(|child| forks(&mut enricher, child, Subject { ppid: 7, ..subject(30, 5, 1, 2) }).process.unwrap());
        assert!(Arc::ptr_eq(&adopted[0], &adopted[1]) && adopted[0].ppid == Some(7));
        assert_eq!(enricher.table().get(&id).unwrap().process.ppid, Some(1), "what says so may be an old record");
        let other = forks(&mut enricher, 32, Subject { ppid: 8, ..subject(30, 5, 1, 2) }).process.unwrap();
        assert_eq!((other.ppid, other.exe_path()), (Some(8), Some("/bin/bash")));
    }

    #[test]
    fn a_connection_s_owner_as_of_its_begin_changes_nothing_of_the_process_now() {
        let mut enricher = enricher();
        enricher.event(exec(subject(10, 5, 1, 2), "/usr/sbin/nginx"), false);
        let id = enricher.exec_id(5, 1, 2);
        let user = |enricher: &Enricher| enricher.table().get(&id).unwrap().process.uid;
        let as_www = |ktime| Subject { uid: 33, euid: 33, ..subject(ktime, 5, 1, 2) };
        enricher.event(fork(as_www(20), 6, 2), false);
        assert_eq!(user(&enricher), 33);
        let end = |subject| Observation { kind: Kind::FlowEnd, subject, what: Act::done(Body::Heartbeat(Heartbeat::default())).into() };
        let ended = enricher.event(end(subject(30, 5, 1, 2)), false).unwrap().process.unwrap();
        assert_eq!((ended.uid, user(&enricher)), (0, 33), "it was root's when it was made");
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
        assert_eq!((process.pid, process.exe.as_ref(), process.user.as_ref()), (77, None, None));
        assert_eq!(event.time.wall_ns, 1_005);
    }
}
