//! The four judges of the rule: each looks at one process and reports it, or does not.

use bartizan_bus::event::{EventId, InetSocket, Process, Relay, SecurityEvent, StdioEnd};

use super::invocation::Commands;
use super::loops;
use super::processes::{MAX_SOCKETS, Proc, SocketUse};
use super::programs::Program;
use super::report::{Case, How};
use super::reverse_shell::{MAX_WAITING, RELAY_WAIT_NS, Report, ReverseShell, name_of};
use super::sockets::{Opened, add_socket, all_among, same_socket};
use crate::detector::{Context, Findings, ProcessKey};
use crate::lineage::Lineage;

impl ReverseShell {
    pub(super) fn judge_all(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        self.judge_direct(key, context, out);
        self.judge_relay(event, key, context, out, false);
        self.judge_loop(event, key, context, out);
        self.judge_child(event, key, context, out);
    }

    /// Whether a configured service puts `proc` on `sockets`.
    fn excepted(&self, proc: &Proc, sockets: &[InetSocket], lineage: &Lineage) -> bool {
        let node = lineage.get(&proc.exec_id);
        let exe = node.and_then(|node| node.process.exe_path());
        let parent = node.and_then(|node| lineage.get(&node.parent?)).and_then(|node| node.process.exe_path());
        self.sanctions.service(proc, exe, parent, sockets, &self.connections)
    }

    /// The standard streams themselves.
    fn judge_direct(&mut self, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        let Some(proc) = self.procs.get(&key) else { return };
        let sockets = proc.sockets();
        if sockets.is_empty() {
            return;
        }
        if all_among(&sockets, &proc.sanctioned) {
            self.counters.configured_service += u64::from(proc.program.is_some());
            return;
        }
        if self.excepted(proc, &sockets, context.lineage) {
            self.counters.configured_service += u64::from(proc.program.is_some());
            self.procs.change(&key, |proc| proc.sanctioned = sockets);
            return;
        }
        if proc.program.is_some() {
            let evidence = vec![proc.event];
            self.report(key, How::Direct, &sockets, evidence, context, out);
        }
    }

    /// A process between the network and the standard streams.
    pub(super) fn judge_relay(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings, now: bool) {
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
        self.report(key, how, &sockets, evidence, context, out);
    }

    /// Pipes in a loop.
    pub(super) fn judge_loop(&mut self, event: &SecurityEvent, key: ProcessKey, context: &Context<'_>, out: &mut Findings) {
        let Some(found) = loops::find(&self.procs, &key) else { return };
        let (Some(shell), Some(connector)) = (self.procs.get(&found.shell), self.procs.get(&found.connector)) else { return };
        let named = |key: &ProcessKey| self.procs.get(key).map(|proc| (proc.name.clone(), key.pid));
        let path = found.path.iter().filter_map(named).collect();
        let mut sockets = Vec::new();
        connector.made.iter().for_each(|made| add_socket(&mut sockets, &made.socket, MAX_SOCKETS));
        if self.excepted(shell, &sockets, context.lineage) {
            self.counters.configured_service += 1;
            return;
        }
        let mut evidence = vec![event.id];
        let others = [shell.event, connector.event].into_iter().chain(connector.made.iter().map(|made| made.event));
        others.for_each(|id| {
            if !evidence.contains(&id) {
                evidence.push(id);
            }
        });
        let how = How::Loop { path, connector: (connector.name.clone(), found.connector.pid), weakest: found.weakest };
        self.report(found.shell, how, &sockets, evidence, context, out);
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
                if self.procs.get(&root_key).is_some_and(|root| self.excepted(root, &[socket], context.lineage)) {
                    self.counters.configured_service += 1;
                    return;
                }
                let connected_itself = made.is_some();
                let evidence = [Some(event.id), other, made.map(|made| made.event)].into_iter().flatten().collect();
                return self.report(root_key, How::Children { connected_itself }, &[socket], evidence, context, out);
            }
            return;
        }
    }

    fn report(
        &mut self,
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
        // A report of another boot, such as an older state file holds, says nothing about the sockets of this one.
        let mut this_boot = self.reports.iter().filter(|(reported, _)| reported.boot == key.boot);
        if this_boot.any(|(_, report)| all_among(sockets, &report.sockets)) {
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
        let process = context.lineage.get(&proc.exec_id).map(|node| &*node.process);
        out.push(Case { key, proc, process, how, sockets, opened, evidence }.finding());
        self.counters.reported += 1;
        self.stamp += 1;
        self.reports.insert(key, Report { sockets: sockets.to_vec(), stamp: self.stamp });
        self.shrink_reports();
    }
}

/// The relay as the lineage table knows it, with the file that it runs; `None` when that is not known.
pub(super) fn relay_process<'a>(relay: &Relay, lineage: &'a Lineage) -> Option<&'a Process> {
    let node = match &relay.by {
        Some(id) => lineage.get(id),
        None => lineage.by_pid(relay.pid),
    };
    node.map(|node| &*node.process).filter(|process| process.exe.is_some())
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
