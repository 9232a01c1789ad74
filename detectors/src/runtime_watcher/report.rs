//! What the rule says when it found something.

use bartizan_bus::event::{Attack, Confidence, Entity, EventId, InetSocket, LineageEntry, Process, Severity, StdioEnd};

use super::loops::Link;
use super::processes::Proc;
use super::reverse_shell::RULE;
use super::sockets::{Opened, peer_text, socket_text};
use crate::detector::{EntityKey, Finding, ProcessKey};

/// How the shell hangs on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// Its own standard streams are the socket.
    Direct,
    /// Another process stands between.
    Relay { by: String, pid: u32, inherited: bool },
    /// Its pipes run in a loop through a connected process.
    Loop { path: Vec<(String, u32)>, connector: (String, u32), weakest: Link },
    /// Its children read from and write to a socket that it holds.
    Children { connected_itself: bool },
}

/// All that a report is made of.
pub(super) struct Case<'a> {
    pub(super) key: ProcessKey,
    pub(super) proc: &'a Proc,
    /// The process as the lineage table knows it.
    pub(super) process: Option<&'a Process>,
    pub(super) how: How,
    /// The connections, at least one.
    pub(super) sockets: &'a [InetSocket],
    /// Of those, the first that was seen being made.
    pub(super) opened: Option<(&'a InetSocket, &'a Opened)>,
    /// Trigger first.
    pub(super) evidence: Vec<EventId>,
}

/// `fd 0, 1 and 2`
fn fds_text(fds: &[u8]) -> String {
    let words: Vec<String> = fds.iter().map(u8::to_string).collect();
    match words.split_last() {
        None => "no fd".to_owned(),
        Some((only, [])) => format!("fd {only}"),
        Some((last, rest)) => format!("fd {} and {last}", rest.join(", ")),
    }
}

impl Case<'_> {
    /// The bytes run both ways between the network and the shell.
    fn two_way(&self) -> bool {
        match &self.how {
            How::Direct => self.proc.socket(0).is_some() && (self.proc.socket(1).is_some() || self.proc.socket(2).is_some()),
            How::Relay { .. } | How::Loop { .. } | How::Children { .. } => true,
        }
    }

    fn confidence(&self) -> Confidence {
        match &self.how {
            How::Direct if self.two_way() => Confidence::High,
            How::Direct => Confidence::Medium,
            How::Relay { .. } if matches!(self.proc.end(0), Some(StdioEnd::Tty { .. })) => Confidence::High,
            How::Loop { weakest: Link::Pipe | Link::Fifo, .. } => Confidence::High,
            How::Relay { .. } | How::Loop { .. } | How::Children { .. } => Confidence::Medium,
        }
    }

    /// Critical needs all three: both ways, a connection that this host made, and direct evidence.
    fn severity(&self) -> (Severity, &'static str) {
        if matches!(self.how, How::Children { .. }) {
            return (Severity::High, "High: judged by what its children do with the socket.");
        }
        if !self.two_way() {
            return (Severity::High, "High: only one direction is on the network.");
        }
        match self.opened {
            Some(_) => (Severity::Critical, "Critical: both directions, over a connection that this host made."),
            None => (
                Severity::High,
                "High: both directions, but this host was not seen making the connection (it came in, or it is older than the sensor).",
            ),
        }
    }

    fn evidence_text(&self) -> String {
        let proc = self.proc;
        match &self.how {
            How::Direct => {
                let fds: Vec<u8> = (0..3).filter(|fd| proc.socket(*fd).is_some()).collect();
                format!("{} of {} (pid {}) is the connected socket", fds_text(&fds), proc.name, self.key.pid)
            }
            How::Relay { by, pid, inherited } => {
                let over = match proc.end(0) {
                    Some(StdioEnd::Tty { name }) => format!("the terminal {name}"),
                    Some(StdioEnd::Unix { .. }) => "UNIX sockets".to_owned(),
                    _ => "pipes".to_owned(),
                };
                let fds = proc.relay.as_ref().map(|relay| relay.relay.fds.clone()).unwrap_or_default();
                let kept = if *inherited { ", kept from the process that started it" } else { "" };
                format!(
                    "{} of {} (pid {}) run over {over} to {by} (pid {pid}), which holds the connection{kept}; the shell takes its commands from there",
                    fds_text(&fds),
                    proc.name,
                    self.key.pid
                )
            }
            How::Loop { path, connector, weakest } => {
                let mut names: Vec<String> = path.iter().map(|(name, pid)| format!("{name} (pid {pid})")).collect();
                names.extend(names.first().cloned());
                let remark = match weakest {
                    Link::Pipe => "",
                    Link::Fifo => ", one link being a FIFO that was made for it",
                    Link::MaybeFifo => ", one link being a file that one of them reads and another seems to write",
                    Link::Peer => ", closed by the peer, to which both ends are connected",
                };
                format!(
                    "standard streams run in a loop {}{remark}; {} (pid {}) holds the connection",
                    names.join(" -> "),
                    connector.0,
                    connector.1
                )
            }
            How::Children { connected_itself } => {
                let made = if *connected_itself { ", which it connected itself" } else { "" };
                format!("children of {} (pid {}) have one socket{made} as standard input and as standard output", proc.name, self.key.pid)
            }
        }
    }

    /// The finding.
    pub(super) fn finding(self) -> Finding {
        let (severity, reason) = self.severity();
        let confidence = self.confidence();
        let proc = self.proc;
        let first = self.opened.map_or(self.sockets.first(), |(socket, _)| Some(socket));
        let peer = first.map_or_else(|| "(unknown)".to_owned(), peer_text);
        let title = match self.opened {
            Some(_) => format!("Reverse shell: {} under the control of {peer}", proc.name),
            None => format!("Shell on a network connection: {} with peer {peer}", proc.name),
        };
        let connections: Vec<String> = self.sockets.iter().map(socket_text).collect();
        let who = match self.opened {
            Some((_, opened)) => format!(" {} (pid {}) made the connection.", opened.name, opened.by.pid),
            None => String::new(),
        };
        let explanation = format!("{}: {}.{who} {reason}", self.evidence_text(), connections.join(", "));

        let execution = proc.program.map(|program| program.attack());
        let control = Attack { tactic: "TA0011".to_owned(), technique: "T1095".to_owned() };
        let mut entities = vec![Entity::Process { exec_id: proc.exec_id, pid: self.key.pid }];
        entities.extend(self.sockets.iter().map(|socket| Entity::Socket { socket: *socket }));
        let user = self.process.and_then(|process| process.user.clone());
        entities.push(Entity::User { uid: proc.uid, name: user });
        if let Some(container) = self.process.and_then(|process| process.container.clone()) {
            entities.push(Entity::Container { id: container });
        }
        let pid = self.key.pid;
        Finding {
            rule: RULE,
            entity: EntityKey::process(&self.key),
            revision: 1,
            title,
            severity,
            confidence,
            attack: execution.into_iter().chain([control]).collect(),
            entities,
            evidence: self.evidence,
            process: Some(LineageEntry {
                exec_id: proc.exec_id,
                pid,
                name: proc.name.clone(),
                exe: None,
                argv: Vec::new(),
                uid: proc.uid,
                user: None,
                tty: None,
                exited: false,
                approximate: false,
            }),
            login: None,
            explanation,
            next_steps: vec![
                format!(
                    "Stop it without losing its memory and open files: kill -STOP {pid}, and its children; look at /proc/{pid}/fd, /proc/{pid}/environ and /proc/{pid}/cwd."
                ),
                format!("Cut the peer {peer} off at the firewall, and look for other hosts and processes that talk to it."),
                "Follow the lineage upwards to the program that let it in, and list what the shell's children did since.".to_owned(),
                "If this is a service of yours, name it in [[detectors.runtime_watcher.reverse_shell.services]].".to_owned(),
            ],
        }
    }
}
