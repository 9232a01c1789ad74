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
mod images;
mod streams;
mod subjects;
pub mod table;
pub mod users;

use std::collections::HashMap;
use std::sync::Arc;

use bartizan_bus::event::{Body, BootId, EventId, ExeHash, Exec, ExecId, Fork, NotHashed, Outcome, Process, SecurityEvent, Seed, Severity};

use crate::hash::{Answer, Hashes, Unhashed, Wanted};
use crate::project::{Act, Image, NO_CPU, Observation, Subject, What, wire};
use crate::redact::Redactor;
use accounts::Writers;
use auth::Transactions;
use container::Known;
use domains::Domains;
use environment::Listed;
use streams::{Read, Streams};
use subjects::{other_thread, who};
use table::Table;
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
}

/// `path` as the kernel finds it from `folder`. Links and `..` are left as they are.
fn behind(folder: Option<&str>, path: &str) -> String {
    match folder {
        Some(folder) if !path.starts_with('/') => format!("{}/{}", folder.trim_end_matches('/'), path.trim_start_matches("./")),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
