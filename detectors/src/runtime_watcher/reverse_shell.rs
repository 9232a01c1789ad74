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
use super::judge::relay_process;
use super::processes::{Feed, MAX_SOCKETS, Proc, Processes, RelayState, SavedProcesses};
use super::programs::{Programs, file_name};
use super::sanctions::Sanctions;
use super::sockets::{Connections, add_socket, all_among};
use crate::config::ReverseShellConfig;
use crate::detector::{Context, Findings, ProcessKey, RestoreError, StateInfo, TableInfo};
use crate::lineage::Lineage;

/// The rule's id.
pub const RULE: &str = "runtime_watcher.reverse_shell";

/// How long a verdict waits for the relay's own seed when the relay is not known yet (the sensor is starting): event
/// time, nanoseconds.
pub(super) const RELAY_WAIT_NS: u64 = 3_000_000_000;
/// Most verdicts that wait. Beyond, the oldest is given without waiting longer.
pub(super) const MAX_WAITING: usize = 256;
/// Most FIFO paths remembered.
const MAX_FIFOS: usize = 64;
/// Longest FIFO path remembered, bytes (PATH_MAX).
const MAX_FIFO_PATH: usize = 4096;

/// A reported process and the connections that its report named.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Report {
    #[n(0)]
    pub(super) sockets: Vec<InetSocket>,
    #[n(1)]
    pub(super) stamp: u64,
}

/// What was not told, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Counters {
    #[n(0)]
    pub(super) reported: u64,
    #[n(1)]
    pub(super) same_process: u64,
    #[n(2)]
    pub(super) same_connection: u64,
    #[n(3)]
    pub(super) login_service: u64,
    #[n(4)]
    pub(super) configured_service: u64,
    #[n(5)]
    pub(super) waited: u64,
    #[n(6)]
    pub(super) reports_evicted: u64,
    #[n(7)]
    pub(super) waiting_cut: u64,
    #[n(8)]
    pub(super) fifos_evicted: u64,
    #[n(9)]
    pub(super) uses_evicted: u64,
    #[n(10)]
    pub(super) relay_truncated: u64,
    /// Shells on a relay's terminal whose relay had more descriptors than were looked at, and no socket among those.
    #[n(11)]
    #[cbor(default)]
    pub(super) relay_truncated_unjudged: u64,
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
    pub(super) programs: Programs,
    pub(super) sanctions: Sanctions,
    pub(super) max_processes: usize,
    pub(super) max_connections: usize,
    pub(super) max_reports: usize,
    pub(super) procs: Processes,
    pub(super) connections: Connections,
    pub(super) reports: BTreeMap<ProcessKey, Report>,
    /// (deadline in boot time, process) of those whose relay is not known yet.
    pub(super) waiting: VecDeque<(u64, ProcessKey)>,
    pub(super) fifos: VecDeque<String>,
    pub(super) counters: Counters,
    pub(super) stamp: u64,
    pub(super) boot: Option<BootId>,
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
            Body::Exec(Exec { requested, error: None, stdio, relay, .. }) => {
                self.image(event, process, requested.as_deref(), stdio, relay.as_ref(), false, context.lineage);
                self.judge_all(event, ProcessKey::from(&process.exec_id), context, out);
            }
            Body::Seed(Seed { stdio, relay, sockets }) => {
                self.image(event, process, None, stdio, relay.as_ref(), true, context.lineage);
                let key = ProcessKey::from(&process.exec_id);
                // Whoever began these connections is not known, so they say nothing of direction; a loop needs none.
                for socket in sockets.iter().filter(|socket| socket.connected && socket.peer_ip.is_some()) {
                    self.procs.change(&key, |proc| proc.add_made(*socket, event.id));
                }
                self.judge_all(event, key, context, out);
            }
            Body::Fork(fork) => self.fork(event, process, &fork.child),
            Body::Exit(_) => self.exit(event, process, context, out),
            Body::Connect(Connect { socket, error: None, .. }) => {
                self.connect(event, process, socket);
                self.judge_loop(event, ProcessKey::from(&process.exec_id), context, out);
            }
            Body::Exec(_) | Body::Connect(_) => {}
            // The rest is not asked for: `describe`.
            _ => {}
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
            relay_truncated_unjudged,
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
                ("relay_truncated_unjudged", relay_truncated_unjudged),
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

    /// Nothing outlives a boot but the counters: no process does, and inode numbers begin anew.
    fn enter_boot(&mut self, boot: BootId) {
        if self.boot.is_some_and(|known| known != boot) {
            self.procs.clear();
            self.connections = Connections::new();
            self.reports.clear();
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
            None => {
                let unjudged = kept.is_none() && relay.is_some_and(|relay| unseen_socket(relay, &proc));
                self.counters.relay_truncated_unjudged += u64::from(unjudged);
                kept
            }
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

    pub(super) fn shrink_reports(&mut self) {
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

pub(super) fn name_of(process: &Process) -> String {
    process.exe_path().map_or_else(|| process.name.clone(), |path| file_name(path).to_owned())
}

/// Whether `proc` takes its commands from a terminal of a relay that may hold a socket where the kernel did not look.
fn unseen_socket(relay: &Relay, proc: &Proc) -> bool {
    let takes_commands = proc.program.is_some() && proc.commands == Commands::Stdin;
    let from_terminal = relay.fds.contains(&0) && matches!(proc.end(0), Some(StdioEnd::Tty { .. }));
    relay.truncated && takes_commands && from_terminal
}

/// Whether `proc` still has the streams that the relay serves.
fn same_ends(relay: &RelayState, proc: &Proc) -> bool {
    !relay.ends.is_empty() && relay.ends.iter().all(|end| proc.end(end.fd) == Some(&end.end))
}
