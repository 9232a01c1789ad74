//! The live processes, each with what its standard streams are, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bartizan_bus::event::{EventId, ExecId, InetSocket, Relay, Stdio, StdioEnd};
use minicbor::{Decode, Encode};

use super::invocation::Commands;
use super::programs::Program;
use super::sockets::{add_socket, same_socket};
use crate::detector::{ProcessKey, TableInfo};

/// Most sockets remembered in one place (the standard streams have three; a relay names four).
pub(super) const MAX_SOCKETS: usize = 4;

/// A one-way path of bytes between processes, named so that both ends agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channel {
    /// A pipe or FIFO, by inode.
    Pipe(u64),
    /// Into the UNIX socket of this inode.
    Unix(u64),
}

/// Whether a process passes on what it reads from a named file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Feed {
    /// It was given no file.
    #[n(0)]
    No,
    /// It was given a file or some other word.
    #[n(1)]
    Operand,
    /// It was given a file that was made as a FIFO before.
    #[n(2)]
    Fifo,
}

/// A relay between standard streams and the network, and the streams that it serves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct RelayState {
    /// As the kernel told it, connected sockets only.
    #[n(0)]
    pub(super) relay: Relay,
    /// The streams 0..3 that it serves, where they were first seen.
    #[n(1)]
    pub(super) ends: Vec<Stdio>,
    /// The event that told it.
    #[n(2)]
    pub(super) event: EventId,
    /// A login service or a configured service: no finding.
    #[n(3)]
    pub(super) sanctioned: bool,
}

/// A connection that a process made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Made {
    #[n(0)]
    pub(super) socket: InetSocket,
    #[n(1)]
    pub(super) event: EventId,
}

/// What children of a shell use a socket for that is not the shell's own standard stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct SocketUse {
    #[n(0)]
    pub(super) socket: InetSocket,
    /// Last child that reads it as standard input.
    #[n(1)]
    pub(super) input: Option<(ProcessKey, EventId)>,
    /// Last child that writes it as standard output or error.
    #[n(2)]
    pub(super) output: Option<(ProcessKey, EventId)>,
}

/// One live process.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Proc {
    #[n(0)]
    pub(super) exec_id: ExecId,
    #[n(1)]
    pub(super) parent: Option<ProcessKey>,
    /// Process that executed the image this one runs: itself, or the one that it is a forked copy of.
    #[n(2)]
    pub(super) image_root: ProcessKey,
    #[n(3)]
    pub(super) program: Option<Program>,
    #[n(4)]
    pub(super) commands: Commands,
    #[n(5)]
    pub(super) interactive: bool,
    /// File name of the program, for people.
    #[n(6)]
    pub(super) name: String,
    /// Path that the exec asked for.
    #[n(7)]
    pub(super) requested: Option<String>,
    /// Script that the interpreter was given.
    #[n(8)]
    pub(super) script: Option<String>,
    /// Streams 0, 1, 2 at exec or seed.
    #[n(9)]
    pub(super) stdio: Vec<Stdio>,
    /// The exec or seed.
    #[n(10)]
    pub(super) event: EventId,
    #[n(11)]
    pub(super) relay: Option<RelayState>,
    /// Sockets on which a configured service put this process.
    #[n(12)]
    pub(super) sanctioned: Vec<InetSocket>,
    #[n(13)]
    pub(super) made: Vec<Made>,
    #[n(14)]
    pub(super) uses: Vec<SocketUse>,
    #[n(15)]
    pub(super) feed: Feed,
    /// Its streams take part in the search for loops: they are its own image's, not a copy before redirection.
    #[n(16)]
    pub(super) indexed: bool,
    /// Order of arrival in the table.
    #[n(17)]
    pub(super) stamp: u64,
    #[n(18)]
    pub(super) uid: u32,
}

impl Proc {
    /// A process of which nothing but its identity is known.
    pub(super) fn new(exec_id: ExecId, parent: Option<ProcessKey>, event: EventId, name: String, uid: u32) -> Self {
        Self {
            exec_id,
            parent,
            image_root: ProcessKey::from(&exec_id),
            program: None,
            commands: Commands::Nothing,
            interactive: false,
            name,
            requested: None,
            script: None,
            stdio: Vec::new(),
            event,
            relay: None,
            sanctioned: Vec::new(),
            made: Vec::new(),
            uses: Vec::new(),
            feed: Feed::No,
            indexed: false,
            stamp: 0,
            uid,
        }
    }

    pub(super) fn end(&self, fd: u8) -> Option<&StdioEnd> {
        self.stdio.iter().find(|stdio| stdio.fd == fd).map(|stdio| &stdio.end)
    }

    /// The connected INET socket at `fd`.
    pub(super) fn socket(&self, fd: u8) -> Option<&InetSocket> {
        match self.end(fd) {
            Some(StdioEnd::Inet { socket }) if socket.connected => Some(socket),
            _ => None,
        }
    }

    /// The connected INET sockets among the standard streams, each once.
    pub(super) fn sockets(&self) -> Vec<InetSocket> {
        let mut sockets = Vec::new();
        (0..3).filter_map(|fd| self.socket(fd)).for_each(|socket| add_socket(&mut sockets, socket, MAX_SOCKETS));
        sockets
    }

    pub(super) fn reads(&self) -> Option<Channel> {
        match self.end(0)? {
            StdioEnd::Pipe { inode } => Some(Channel::Pipe(*inode)),
            StdioEnd::Unix { inode, peer_inode: Some(_) } => Some(Channel::Unix(*inode)),
            _ => None,
        }
    }

    fn writes_at(&self, fd: u8) -> Option<Channel> {
        match self.end(fd)? {
            StdioEnd::Pipe { inode } => Some(Channel::Pipe(*inode)),
            StdioEnd::Unix { inode: _, peer_inode: Some(peer) } => Some(Channel::Unix(*peer)),
            _ => None,
        }
    }

    /// Where standard output goes.
    pub(super) fn stdout(&self) -> Option<Channel> {
        self.writes_at(1)
    }

    /// Where standard output and error go.
    pub(super) fn writes(&self) -> impl Iterator<Item = Channel> {
        let (out, err) = (self.writes_at(1), self.writes_at(2));
        out.into_iter().chain(err.filter(|err| Some(*err) != out))
    }

    /// Remembers a connection that it made.
    pub(super) fn add_made(&mut self, socket: InetSocket, event: EventId) {
        self.made.retain(|made| !same_socket(&made.socket, &socket));
        if self.made.len() == MAX_SOCKETS {
            self.made.remove(0);
        }
        self.made.push(Made { socket, event });
    }
}

/// Saved form of the table.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedProcesses {
    #[n(0)]
    procs: Vec<Proc>,
    #[n(1)]
    stamp: u64,
    #[n(2)]
    evicted: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Processes {
    max: usize,
    procs: BTreeMap<ProcessKey, Proc>,
    order: BTreeSet<(u64, ProcessKey)>,
    by_pid: BTreeMap<u32, ProcessKey>,
    readers: BTreeMap<Channel, BTreeSet<ProcessKey>>,
    /// (parent, process) of those that pass a named file on to a channel.
    feeders: BTreeSet<(ProcessKey, ProcessKey)>,
    /// (peer, process) of those that made a connection and have a channel.
    connectors: BTreeSet<(IpAddr, ProcessKey)>,
    stamp: u64,
    evicted: u64,
}

impl Processes {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            procs: BTreeMap::new(),
            order: BTreeSet::new(),
            by_pid: BTreeMap::new(),
            readers: BTreeMap::new(),
            feeders: BTreeSet::new(),
            connectors: BTreeSet::new(),
            stamp: 0,
            evicted: 0,
        }
    }

    pub(super) fn get(&self, key: &ProcessKey) -> Option<&Proc> {
        self.procs.get(key)
    }

    /// Changes a process; what the search for loops knows of it follows.
    pub(super) fn change<R>(&mut self, key: &ProcessKey, change: impl FnOnce(&mut Proc) -> R) -> Option<R> {
        let mut proc = self.remove(key)?;
        let result = change(&mut proc);
        self.put(*key, proc);
        Some(result)
    }

    /// Puts a process, instead of what was there and of a former owner of its pid.
    pub(super) fn insert(&mut self, key: ProcessKey, mut proc: Proc) {
        self.remove(&key);
        if let Some(owner) = self.by_pid.get(&key.pid).copied() {
            self.remove(&owner);
        }
        self.stamp += 1;
        proc.stamp = self.stamp;
        self.put(key, proc);
        while self.procs.len() > self.max {
            let Some((_, oldest)) = self.order.first().copied() else { return };
            self.evicted += 1;
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &ProcessKey) -> Option<Proc> {
        let proc = self.procs.remove(key)?;
        self.order.remove(&(proc.stamp, *key));
        if self.by_pid.get(&key.pid) == Some(key) {
            self.by_pid.remove(&key.pid);
        }
        if let Some(channel) = proc.reads()
            && let Some(readers) = self.readers.get_mut(&channel)
        {
            readers.remove(key);
            if readers.is_empty() {
                self.readers.remove(&channel);
            }
        }
        if let Some(parent) = proc.parent {
            self.feeders.remove(&(parent, *key));
        }
        for made in &proc.made {
            if let Some(ip) = made.socket.peer_ip {
                self.connectors.remove(&(ip, *key));
            }
        }
        Some(proc)
    }

    pub(super) fn clear(&mut self) {
        *self = Self { stamp: self.stamp, evicted: self.evicted, ..Self::new(self.max) };
    }

    /// Who reads `channel` as standard input.
    pub(super) fn readers(&self, channel: &Channel) -> impl Iterator<Item = &ProcessKey> {
        self.readers.get(channel).into_iter().flatten()
    }

    /// Children of `parent` that pass a named file on to a channel.
    pub(super) fn feeders(&self, parent: &ProcessKey) -> impl Iterator<Item = &ProcessKey> {
        let parent = *parent;
        let first = ProcessKey { boot: bartizan_bus::event::BootId(0), pid: 0, start_ticks: 0 };
        self.feeders.range((parent, first)..).take_while(move |(of, _)| *of == parent).map(|(_, key)| key)
    }

    /// Processes with a channel that are connected to `peer`.
    pub(super) fn connectors(&self, peer: IpAddr) -> impl Iterator<Item = &ProcessKey> {
        let first = ProcessKey { boot: bartizan_bus::event::BootId(0), pid: 0, start_ticks: 0 };
        self.connectors.range((peer, first)..).take_while(move |(of, _)| *of == peer).map(|(_, key)| key)
    }

    pub(super) fn table(&self) -> TableInfo {
        TableInfo { name: "processes", entries: self.procs.len(), bound: self.max, evicted: self.evicted }
    }

    pub(super) fn save(&self) -> SavedProcesses {
        SavedProcesses { procs: self.procs.values().cloned().collect(), stamp: self.stamp, evicted: self.evicted }
    }

    pub(super) fn restore(saved: SavedProcesses, max: usize) -> Self {
        let SavedProcesses { procs, stamp, evicted } = saved;
        let mut table = Self { stamp, evicted, ..Self::new(max) };
        for proc in procs {
            table.put(ProcessKey::from(&proc.exec_id), proc);
        }
        while table.procs.len() > table.max {
            let Some((_, oldest)) = table.order.first().copied() else { break };
            table.evicted += 1;
            table.remove(&oldest);
        }
        table
    }

    fn put(&mut self, key: ProcessKey, proc: Proc) {
        self.order.insert((proc.stamp, key));
        self.by_pid.insert(key.pid, key);
        if proc.indexed {
            if let Some(channel) = proc.reads() {
                self.readers.entry(channel).or_default().insert(key);
            }
            if proc.feed != Feed::No
                && proc.stdout().is_some()
                && let Some(parent) = proc.parent
            {
                self.feeders.insert((parent, key));
            }
            if proc.writes().next().is_some() || proc.reads().is_some() {
                let peers = proc.made.iter().filter_map(|made| made.socket.peer_ip);
                self.connectors.extend(peers.map(|ip| (ip, key)));
            }
        }
        self.procs.insert(key, proc);
    }
}
