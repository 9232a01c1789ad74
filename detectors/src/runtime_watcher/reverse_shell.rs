//! Rule `runtime_watcher.reverse_shell`: a shell or interpreter takes its commands from a network connection.
//!
//! Four ways are known, in the order of directness: its own standard streams are the socket; another process relays
//! the socket to its terminal or pipes; its pipes run in a loop through a connected process; its children read from
//! and write to a socket that it holds. `docs/detectors.md` tells each with what it misses.
//!
//! Invariants worth naming:
//!
//! - One process is reported once, and one connection is reported once: whoever else sits on it is counted, not told.
//! - A login service is believed only as a root-owned file at an exact path that still exists.
//! - A process is judged at exec and at seed by the same code, so a shell that is older than the sensor is found too.

use std::collections::{BTreeMap, VecDeque};

use bartizan_bus::event::{Body, BootId, Connect, EventId, Exec, InetSocket, Process, Relay, SecurityEvent, Seed, Stdio, StdioEnd};
use minicbor::{Decode, Encode};

use super::invocation::{self, Commands, Invocation};
use super::loops;
use super::processes::{Feed, MAX_SOCKETS, Proc, Processes, RelayState, SavedProcesses, SocketUse};
use super::programs::{Program, Programs, file_name};
use super::report::{Case, How};
use super::sanctions::Sanctions;
use super::sockets::{Connections, Opened, add_socket, all_among, same_socket};
use crate::config::ReverseShellConfig;
use crate::detector::{Context, Findings, ProcessKey, RestoreError, StateInfo, TableInfo};
use crate::lineage::Lineage;

/// The rule's id.
pub const RULE: &str = "runtime_watcher.reverse_shell";

/// How long a verdict waits for the relay's own seed when the relay is not known yet (the sensor is starting): event
/// time, nanoseconds.
const RELAY_WAIT_NS: u64 = 3_000_000_000;
/// Most verdicts that wait. Beyond, the oldest is given without waiting longer.
const MAX_WAITING: usize = 256;
/// Most FIFO paths remembered.
const MAX_FIFOS: usize = 64;
/// Longest FIFO path remembered, bytes (PATH_MAX).
const MAX_FIFO_PATH: usize = 4096;

/// A reported process and the connections that its report named.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Report {
    #[n(0)]
    sockets: Vec<InetSocket>,
    #[n(1)]
    stamp: u64,
}

/// What was not told, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Counters {
    #[n(0)]
    reported: u64,
    #[n(1)]
    same_process: u64,
    #[n(2)]
    same_connection: u64,
    #[n(3)]
    login_service: u64,
    #[n(4)]
    configured_service: u64,
    #[n(5)]
    waited: u64,
    #[n(6)]
    reports_evicted: u64,
    #[n(7)]
    waiting_cut: u64,
    #[n(8)]
    fifos_evicted: u64,
    #[n(9)]
    uses_evicted: u64,
    #[n(10)]
    relay_truncated: u64,
}

/// Saved form of the rule's state.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(0)]
    procs: SavedProcesses,
    #[n(1)]
    connections: Connections,
    #[n(2)]
    reports: BTreeMap<ProcessKey, Report>,
    #[n(3)]
    waiting: VecDeque<(u64, ProcessKey)>,
    #[n(4)]
    fifos: VecDeque<String>,
    #[n(5)]
    counters: Counters,
    #[n(6)]
    stamp: u64,
    #[n(7)]
    boot: Option<BootId>,
}

/// The rule and its state.
pub(super) struct ReverseShell {
    programs: Programs,
    sanctions: Sanctions,
    max_processes: usize,
    max_connections: usize,
    max_reports: usize,
    procs: Processes,
    connections: Connections,
    reports: BTreeMap<ProcessKey, Report>,
    /// (deadline in boot time, process) of those whose relay is not known yet.
    waiting: VecDeque<(u64, ProcessKey)>,
    fifos: VecDeque<String>,
    counters: Counters,
    stamp: u64,
    boot: Option<BootId>,
}

impl ReverseShell {
    pub(super) fn new(config: &ReverseShellConfig) -> Self {
        Self {
            programs: Programs::new(&config.extra_shells, &config.extra_interpreters),
            sanctions: Sanctions::new(config),
            max_processes: config.max_processes,
            max_connections: config.max_connections,
            max_reports: config.max_reports,
            procs: Processes::new(config.max_processes),
            connections: Connections::new(),
            reports: BTreeMap::new(),
            waiting: VecDeque::new(),
            fifos: VecDeque::new(),
            counters: Counters::default(),
            stamp: 0,
            boot: None,
        }
    }

    pub(super) fn observe(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        let Some(process) = &event.process else { return };
        self.enter_boot(process.exec_id.boot);
        self.settle(event, context, out);
        match &event.body {
            Body::Exec(Exec { requested, error: None, stdio, relay }) => {
                self.image(event, process, requested.as_deref(), stdio, relay.as_ref(), false, context.lineage);
                self.judge_all(event, ProcessKey::from(&process.exec_id), context, out);
            }
            Body::Seed(Seed { stdio, relay }) => {
                self.image(event, process, None, stdio, relay.as_ref(), true, context.lineage);
                self.judge_all(event, ProcessKey::from(&process.exec_id), context, out);
            }
            Body::Fork(fork) => self.fork(event, process, &fork.child),
            Body::Exit(_) => self.exit(event, process, context, out),
            Body::Connect(Connect { socket, error: None, .. }) => {
                self.connect(event, process, socket);
                self.judge_loop(event, ProcessKey::from(&process.exec_id), context, out);
            }
            Body::Exec(_) | Body::Connect(_) => {}
            Body::Start(_) | Body::Stop(_) | Body::Heartbeat(_) | Body::Loss(_) | Body::Gap(_) => {}
        }
    }

    /// Gives the verdicts that waited for a relay which is known by now, or long enough.
    pub(super) fn settle(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        for _ in 0..self.waiting.len() {
            let Some((deadline, key)) = self.waiting.pop_front() else { return };
            let known = self
                .procs
                .get(&key)
                .and_then(|proc| proc.relay.as_ref())
                .is_none_or(|relay| relay_process(&relay.relay, context.lineage).is_some());
            if known || deadline <= event.time.boot_ns {
                self.judge_relay(event, key, context, out, true);
            } else {
                self.waiting.push_back((deadline, key));
            }
        }
    }

    pub(super) fn state(&self) -> StateInfo {
        let Counters {
            reported,
            same_process,
            same_connection,
            login_service,
            configured_service,
            waited,
            reports_evicted,
            waiting_cut,
            fifos_evicted,
            uses_evicted,
            relay_truncated,
        } = self.counters;
        StateInfo {
            tables: vec![
                self.procs.table(),
                self.connections.table(self.max_connections),
                TableInfo { name: "reports", entries: self.reports.len(), bound: self.max_reports, evicted: reports_evicted },
                TableInfo { name: "waiting", entries: self.waiting.len(), bound: MAX_WAITING, evicted: waiting_cut },
                TableInfo { name: "fifos", entries: self.fifos.len(), bound: MAX_FIFOS, evicted: fifos_evicted },
            ],
            counters: BTreeMap::from([
                ("reported", reported),
                ("folded_same_process", same_process),
                ("folded_same_connection", same_connection),
                ("sanctioned_login_service", login_service),
                ("sanctioned_configured_service", configured_service),
                ("waited_for_relay", waited),
                ("socket_uses_evicted", uses_evicted),
                ("relay_truncated", relay_truncated),
            ]),
        }
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let saved = Saved {
            procs: self.procs.save(),
            connections: self.connections.clone(),
            reports: self.reports.clone(),
            waiting: self.waiting.clone(),
            fifos: self.fifos.clone(),
            counters: self.counters.clone(),
            stamp: self.stamp,
            boot: self.boot,
        };
        match minicbor::to_vec(&saved) {
            Ok(bytes) => bytes,
            // Writing to memory has no failing operation, and no field has a failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
    }

    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let Saved { procs, mut connections, reports, waiting, fifos, counters, stamp, boot } =
            minicbor::decode(bytes).map_err(RestoreError::cbor(RULE))?;
        connections.shrink(self.max_connections);
        self.procs = Processes::restore(procs, self.max_processes);
        (self.connections, self.reports, self.waiting, self.fifos) = (connections, reports, waiting, fifos);
        (self.counters, self.stamp, self.boot) = (counters, stamp, boot);
        self.shrink_reports();
        Ok(())
    }

    /// Nothing outlives a boot.
    fn enter_boot(&mut self, boot: BootId) {
        if self.boot.is_some_and(|known| known != boot) {
            self.procs.clear();
            self.connections = Connections::new();
            self.waiting.clear();
            self.fifos.clear();
        }
        self.boot = Some(boot);
    }

    fn fork(&mut self, event: &SecurityEvent, parent: &Process, child: &Process) {
        let (parent_key, key) = (ProcessKey::from(&parent.exec_id), ProcessKey::from(&child.exec_id));
        let proc = match self.procs.get(&parent_key) {
            Some(parent) => Proc {
                exec_id: child.exec_id,
                parent: Some(parent_key),
                made: Vec::new(),
                uses: Vec::new(),
                feed: Feed::No,
                // Pipes are put in place after the fork: the copy's streams say nothing yet.
                indexed: false,
                uid: child.uid,
                ..parent.clone()
            },
            None => {
                let mut proc = Proc::new(child.exec_id, Some(parent_key), event.id, name_of(child), child.uid);
                self.recognise(&mut proc, child, None);
                proc
            }
        };
        self.procs.insert(key, proc);
    }

    fn recognise(&self, proc: &mut Proc, process: &Process, requested: Option<&str>) {
        match self.programs.recognise(process, requested) {
            Some(recognised) => {
                let Invocation { commands, interactive, script } = invocation::read(process, recognised);
                proc.program = Some(recognised.program);
                (proc.commands, proc.interactive, proc.script) = (commands, interactive, script);
            }
            None => {
                (proc.program, proc.commands, proc.interactive, proc.script) = (None, Commands::Nothing, false, None);
            }
        }
    }

    /// A new image, or one that was there before the sensor.
    #[expect(clippy::too_many_arguments, reason = "the fields of Exec and of Seed, which are judged alike")]
    fn image(
        &mut self,
        event: &SecurityEvent,
        process: &Process,
        requested: Option<&str>,
        stdio: &[Stdio],
        relay: Option<&Relay>,
        seed: bool,
        lineage: &Lineage,
    ) {
        let key = ProcessKey::from(&process.exec_id);
        let before = self.procs.remove(&key);
        let parent = before.as_ref().and_then(|proc| proc.parent).or_else(|| {
            let id = lineage.get(&process.exec_id).and_then(|node| node.parent).or(process.parent)?;
            Some(ProcessKey::from(&id))
        });
        let mut proc = Proc::new(process.exec_id, parent, event.id, name_of(process), process.uid);
        self.recognise(&mut proc, process, requested);
        proc.requested = requested.map(str::to_owned);
        proc.stdio = stdio.iter().filter(|stdio| stdio.fd < 3).take(3).cloned().collect();
        proc.indexed = true;
        proc.feed = self.feed(process);
        self.note_fifo(process);
        let kept = before.as_ref().and_then(|before| before.relay.clone()).filter(|relay| same_ends(relay, &proc));
        proc.relay = match relay.and_then(|relay| self.relay_state(relay, &proc, event.id)) {
            Some(mut told) => {
                let known = kept.filter(|kept| kept.sanctioned && kept.relay.pid == told.relay.pid);
                told.sanctioned = known.is_some_and(|kept| all_among(&told.relay.sockets, &kept.relay.sockets));
                Some(told)
            }
            None => kept,
        };
        if let Some(before) = before {
            proc.sanctioned = before.sanctioned;
            if seed {
                proc.image_root = before.image_root;
                (proc.made, proc.uses) = (before.made, before.uses);
            }
        } else if seed && let Some(root) = self.forked_from(process, parent, lineage) {
            proc.image_root = root;
        }
        self.procs.insert(key, proc);
    }

    /// The image owner of the parent, when a seeded process looks like its forked copy: same file, same arguments.
    fn forked_from(&self, process: &Process, parent: Option<ProcessKey>, lineage: &Lineage) -> Option<ProcessKey> {
        let parent = self.procs.get(&parent?)?;
        let told = &lineage.get(&parent.exec_id)?.process;
        let copy = told.exe_path().is_some() && told.exe_path() == process.exe_path() && told.argv == process.argv;
        copy.then_some(parent.image_root)
    }

    fn relay_state(&mut self, relay: &Relay, proc: &Proc, event: EventId) -> Option<RelayState> {
        let mut sockets = Vec::new();
        for socket in relay.sockets.iter().filter(|socket| socket.connected) {
            add_socket(&mut sockets, socket, MAX_SOCKETS);
        }
        self.counters.relay_truncated += u64::from(relay.truncated);
        if sockets.is_empty() {
            return None;
        }
        let fds: Vec<u8> = relay.fds.iter().copied().filter(|fd| *fd < 3).take(3).collect();
        let ends = proc.stdio.iter().filter(|stdio| fds.contains(&stdio.fd)).cloned().collect();
        Some(RelayState { relay: Relay { fds, sockets, ..relay.clone() }, ends, event, sanctioned: false })
    }

    fn exit(&mut self, event: &SecurityEvent, process: &Process, context: &Context<'_>, out: &mut Findings) {
        let key = ProcessKey::from(&process.exec_id);
        if self.waiting.iter().any(|(_, waiting)| *waiting == key) {
            self.waiting.retain(|(_, waiting)| *waiting != key);
            self.judge_relay(event, key, context, out, true);
        }
        self.procs.remove(&key);
    }

    fn connect(&mut self, event: &SecurityEvent, process: &Process, socket: &InetSocket) {
        if socket.peer_ip.is_none() {
            return;
        }
        let key = ProcessKey::from(&process.exec_id);
        self.connections.add(socket, key, &process.name, event.id, self.max_connections);
        if self.procs.get(&key).is_none() {
            let parent = process.parent.as_ref().map(ProcessKey::from);
            let mut proc = Proc::new(process.exec_id, parent, event.id, name_of(process), process.uid);
            self.recognise(&mut proc, process, None);
            self.procs.insert(key, proc);
        }
        self.procs.change(&key, |proc| {
            // A forked copy that connects is past its redirections; what it inherited is the best that is known.
            proc.indexed = true;
            proc.add_made(*socket, event.id);
        });
    }

    fn judge_all(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        self.judge_direct(event, key, context, out);
        self.judge_relay(event, key, context, out, false);
        self.judge_loop(event, key, context, out);
        self.judge_child(event, key, context, out);
    }

    /// The standard streams themselves.
    fn judge_direct(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        let Some(proc) = self.procs.get(&key) else { return };
        let sockets = proc.sockets();
        if sockets.is_empty() {
            return;
        }
        if all_among(&sockets, &proc.sanctioned) {
            self.counters.configured_service += u64::from(proc.program.is_some());
            return;
        }
        let node = context.lineage.get(&proc.exec_id);
        let exe = node.and_then(|node| node.process.exe_path());
        let parent = node.and_then(|node| context.lineage.get(&node.parent?)).and_then(|node| node.process.exe_path());
        if self.sanctions.service(proc, exe, parent, &sockets, &self.connections) {
            self.counters.configured_service += u64::from(proc.program.is_some());
            self.procs.change(&key, |proc| proc.sanctioned = sockets);
            return;
        }
        if proc.program.is_some() {
            let evidence = vec![proc.event];
            self.report(event, key, How::Direct, &sockets, evidence, context, out);
        }
    }

    /// A process between the network and the standard streams.
    fn judge_relay(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings, now: bool) {
        let Some(proc) = self.procs.get(&key) else { return };
        let Some(state) = &proc.relay else { return };
        let takes_commands = proc.program.is_some() && proc.commands == Commands::Stdin;
        if state.sanctioned {
            return;
        }
        let relay = relay_process(&state.relay, context.lineage);
        let sockets = state.relay.sockets.clone();
        let exe = context.lineage.get(&proc.exec_id).and_then(|node| node.process.exe_path());
        let login = relay.is_some_and(|relay| self.sanctions.login(relay, &sockets, &self.connections));
        let service = || self.sanctions.service(proc, exe, relay.and_then(Process::exe_path), &sockets, &self.connections);
        if login || service() {
            self.counters.login_service += u64::from(login);
            self.counters.configured_service += u64::from(!login);
            self.procs.change(&key, |proc| {
                if let Some(state) = &mut proc.relay {
                    state.sanctioned = true;
                }
            });
            return;
        }
        let served = |fd: u8| state.relay.fds.contains(&fd);
        let on_terminal = matches!(proc.end(0), Some(StdioEnd::Tty { .. }));
        let both_ways = served(0) && (served(1) || (on_terminal && served(2)));
        if !takes_commands || !both_ways {
            return;
        }
        if relay.is_none() && !now {
            self.counters.waited += 1;
            if self.waiting.len() == MAX_WAITING
                && let Some((_, oldest)) = self.waiting.pop_front()
            {
                self.counters.waiting_cut += 1;
                self.judge_relay(event, oldest, context, out, true);
            }
            self.waiting.push_back((event.time.boot_ns.saturating_add(RELAY_WAIT_NS), key));
            return;
        }
        let by = relay.map_or_else(|| "a process that is not known".to_owned(), name_of);
        let evidence = if state.event == proc.event { vec![proc.event] } else { vec![proc.event, state.event] };
        let how = How::Relay { by, pid: state.relay.pid, inherited: state.event != proc.event };
        self.report(event, key, how, &sockets, evidence, context, out);
    }

    /// Pipes in a loop.
    fn judge_loop(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        let Some(found) = loops::find(&self.procs, &key) else { return };
        let (Some(shell), Some(connector)) = (self.procs.get(&found.shell), self.procs.get(&found.connector)) else { return };
        let named = |key: &ProcessKey| self.procs.get(key).map(|proc| (proc.name.clone(), key.pid));
        let path = found.path.iter().filter_map(named).collect();
        let mut sockets = Vec::new();
        connector.made.iter().for_each(|made| add_socket(&mut sockets, &made.socket, MAX_SOCKETS));
        let mut evidence = vec![event.id];
        let others = [shell.event, connector.event].into_iter().chain(connector.made.iter().map(|made| made.event));
        others.for_each(|id| {
            if !evidence.contains(&id) {
                evidence.push(id);
            }
        });
        let how = How::Loop { path, connector: (connector.name.clone(), found.connector.pid), weakest: found.weakest };
        self.report(event, found.shell, how, &sockets, evidence, context, out);
    }

    /// A child that is no shell, on a socket that its shell holds.
    fn judge_child(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        let Some(child) = self.procs.get(&key).filter(|child| child.program.is_none()) else { return };
        let sockets = child.sockets();
        if sockets.is_empty() || all_among(&sockets, &child.sanctioned) {
            return;
        }
        let Some(parent_key) = child.parent else { return };
        let Some(parent) = self.procs.get(&parent_key) else { return };
        let root_key = if self.procs.get(&parent.image_root).is_some() { parent.image_root } else { parent_key };
        let Some(root) = self.procs.get(&root_key) else { return };
        let Some(program) = root.program else { return };
        for socket in sockets {
            // The shell's own streams were judged when it started.
            if root.sockets().iter().any(|own| same_socket(own, &socket)) {
                continue;
            }
            let at = |fd: u8| child.socket(fd).is_some_and(|there| same_socket(there, &socket));
            let (reads, writes) = (at(0), at(1) || at(2));
            let made = [root, parent].into_iter().flat_map(|proc| &proc.made).find(|made| same_socket(&made.socket, &socket)).cloned();
            let sighting = (key, child.event);
            let Some((other, evicted)) = self.procs.change(&root_key, |root| note_use(root, &socket, sighting, reads, writes)) else {
                return;
            };
            self.counters.uses_evicted += u64::from(evicted);
            let two_children = other.is_some() && (program == Program::Shell || made.is_some());
            if two_children || (reads && writes && made.is_some()) {
                let connected_itself = made.is_some();
                let evidence = [Some(event.id), other, made.map(|made| made.event)].into_iter().flatten().collect();
                return self.report(event, root_key, How::Children { connected_itself }, &[socket], evidence, context, out);
            }
            return;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a report needs comes from four judges")]
    fn report(
        &mut self,
        _event: &SecurityEvent,
        key: ProcessKey,
        how: How,
        sockets: &[InetSocket],
        mut evidence: Vec<EventId>,
        context: &Context<'_>,
        out: &mut Findings,
    ) {
        if self.reports.contains_key(&key) {
            self.counters.same_process += 1;
            return;
        }
        if self.reports.values().any(|report| all_among(sockets, &report.sockets)) {
            self.counters.same_connection += 1;
            return;
        }
        let Some(proc) = self.procs.get(&key) else { return };
        let opened: Option<(&InetSocket, &Opened)> =
            sockets.iter().find_map(|socket| self.connections.opened(socket).map(|opened| (socket, opened)));
        if let Some((_, opened)) = opened
            && !evidence.contains(&opened.event)
        {
            evidence.push(opened.event);
        }
        let process = context.lineage.get(&proc.exec_id).map(|node| &node.process);
        out.push(Case { key, proc, process, how, sockets, opened, evidence }.finding());
        self.counters.reported += 1;
        self.stamp += 1;
        self.reports.insert(key, Report { sockets: sockets.to_vec(), stamp: self.stamp });
        self.shrink_reports();
    }

    fn shrink_reports(&mut self) {
        while self.reports.len() > self.max_reports {
            let Some(oldest) = self.reports.iter().min_by_key(|(_, report)| report.stamp).map(|(key, _)| *key) else { return };
            self.reports.remove(&oldest);
            self.counters.reports_evicted += 1;
        }
    }

    /// Remembers the paths that `mkfifo` and `mknod` are given.
    fn note_fifo(&mut self, process: &Process) {
        let called = process.argv.iter().map(|arg| file_name(arg)).take(2).any(|name| matches!(name, "mkfifo" | "mknod"));
        let exe = process.exe_path().map(file_name);
        if !called || exe.is_none() {
            return;
        }
        for arg in process.argv.iter().skip(1).filter(|arg| !arg.starts_with('-')) {
            let path = absolute(arg, process.cwd.as_deref());
            if path.len() > MAX_FIFO_PATH || self.fifos.contains(&path) {
                continue;
            }
            if self.fifos.len() == MAX_FIFOS {
                self.fifos.pop_front();
                self.counters.fifos_evicted += 1;
            }
            self.fifos.push_back(path);
        }
    }

    fn feed(&self, process: &Process) -> Feed {
        let operands = || process.argv.iter().skip(1).map(|arg| arg.strip_prefix("if=").unwrap_or(arg)).filter(|arg| !arg.starts_with('-'));
        if operands().any(|arg| self.fifos.contains(&absolute(arg, process.cwd.as_deref()))) {
            Feed::Fifo
        } else if operands().next().is_some() {
            Feed::Operand
        } else {
            Feed::No
        }
    }
}

fn absolute(path: &str, cwd: Option<&str>) -> String {
    match cwd {
        Some(cwd) if !path.starts_with('/') => format!("{}/{}", cwd.trim_end_matches('/'), path.trim_start_matches("./")),
        _ => path.to_owned(),
    }
}

fn name_of(process: &Process) -> String {
    process.exe_path().map_or_else(|| process.name.clone(), |path| file_name(path).to_owned())
}

/// The relay as the lineage table knows it, with the file that it runs; `None` when that is not known.
fn relay_process<'a>(relay: &Relay, lineage: &'a Lineage) -> Option<&'a Process> {
    let node = match &relay.by {
        Some(id) => lineage.get(id),
        None => lineage.by_pid(relay.pid),
    };
    node.map(|node| &node.process).filter(|process| process.exe.is_some())
}

/// Whether `proc` still has the streams that the relay serves.
fn same_ends(relay: &RelayState, proc: &Proc) -> bool {
    !relay.ends.is_empty() && relay.ends.iter().all(|end| proc.end(end.fd) == Some(&end.end))
}

/// Notes that a child uses `socket`; returns the event of another child that uses it the other way, and whether an
/// older socket made room.
fn note_use(root: &mut Proc, socket: &InetSocket, sighting: (ProcessKey, EventId), reads: bool, writes: bool) -> (Option<EventId>, bool) {
    let mut evicted = false;
    let at = match root.uses.iter().position(|known| same_socket(&known.socket, socket)) {
        Some(at) => at,
        None => {
            if root.uses.len() == MAX_SOCKETS {
                root.uses.remove(0);
                evicted = true;
            }
            root.uses.push(SocketUse { socket: *socket, input: None, output: None });
            root.uses.len() - 1
        }
    };
    let SocketUse { socket: _, input, output } = &mut root.uses[at];
    let by_other = |known: &Option<(ProcessKey, EventId)>| known.filter(|(key, _)| *key != sighting.0).map(|(_, event)| event);
    let other = if reads { by_other(output) } else { None }.or(if writes { by_other(input) } else { None });
    if reads {
        *input = Some(sighting);
    }
    if writes {
        *output = Some(sighting);
    }
    (other, evicted)
}
