//! The lineage table: which process made which, bounded, built from `process.*` events alone.
//!
//! Invariants worth naming:
//!
//! - A seed (`/proc` read at the sensor's start) fills blanks and never replaces a parent or an argv that the kernel told.
//! - An image that something was started from stays as long as what was started does; when the table is full, ended
//!   leaves go first, then the oldest, and each is counted. Of ended leaves the last ones
//!   are kept, a part of the table, whether it is full or not: that is no eviction.
//! - The table is a function of the events it was fed: a saved and restored table behaves as the one that was saved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bartizan_bus::event::{Body, BootId, EventId, Exec, ExecId, LineageEntry, Process, SecurityEvent, shared};
use minicbor::{Decode, Encode};

use crate::detector::{ProcessKey, RestoreError, TableInfo};

/// Most ancestors that a lineage names.
pub const MAX_DEPTH: usize = 64;
/// Most arguments kept of one image.
const MAX_ARGS: usize = 64;
/// Most bytes of arguments kept of one image.
const MAX_ARGV_BYTES: usize = 2048;

/// Of ended images that nothing was started from, one in so many places of the table is kept, and so many at least: they are told in what
/// comes late, and a host that starts a thousand programs a second must not fill the table with them.
const ENDED_PART: usize = 4;
const ENDED_LEAST: usize = 64;

/// One image in the table.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Node {
    /// The process as last told, shared with the event that told it as long as nothing is added to it or cut.
    #[n(0)]
    #[cbor(with = "shared::whole")]
    pub process: Arc<Process>,
    /// Image that this process was made from.
    #[n(1)]
    pub parent: Option<ExecId>,
    /// The process has ended.
    #[n(2)]
    pub exited: bool,
    /// The process has replaced this image by another.
    #[n(3)]
    pub superseded: bool,
    /// Order of arrival.
    #[n(4)]
    stamp: u64,
    /// Nodes that count this one as their parent.
    #[n(5)]
    children: u32,
    /// Counted among its parent's children.
    #[n(6)]
    linked: bool,
}

impl Node {
    fn evictable(&self) -> bool {
        (self.exited || self.superseded) && self.children == 0
    }

    /// As a lineage names it.
    pub fn entry(&self) -> LineageEntry {
        entry(&self.process, self.exited)
    }
}

/// A process as a lineage names it.
pub(crate) fn entry(process: &Process, exited: bool) -> LineageEntry {
    LineageEntry {
        exec_id: process.exec_id,
        pid: process.pid,
        name: process.name.clone(),
        exe: process.exe_path().map(str::to_owned),
        argv: clip(&process.argv),
        uid: process.uid,
        user: process.user.clone(),
        tty: process.tty.clone(),
        exited,
        approximate: process.approximate,
    }
}

/// Saved form of the table.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(0)]
    nodes: Vec<Node>,
    #[n(1)]
    stamp: u64,
    #[n(2)]
    boot: Option<BootId>,
    #[n(3)]
    evicted: u64,
    #[n(4)]
    evicted_live: u64,
}

/// Bounded table of process images by [`ExecId`].
#[derive(Debug)]
pub struct Lineage {
    max: usize,
    nodes: BTreeMap<ExecId, Node>,
    /// Current image of each known process.
    current: BTreeMap<ProcessKey, ExecId>,
    /// Process that owns a pid now.
    live: BTreeMap<u32, ProcessKey>,
    /// Nodes that may go first, oldest first.
    evictable: BTreeSet<(u64, ExecId)>,
    /// All nodes, oldest first.
    order: BTreeSet<(u64, ExecId)>,
    stamp: u64,
    boot: Option<BootId>,
    evicted: u64,
    evicted_live: u64,
}

impl Lineage {
    /// An empty table for at most `max` images.
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            nodes: BTreeMap::new(),
            current: BTreeMap::new(),
            live: BTreeMap::new(),
            evictable: BTreeSet::new(),
            order: BTreeSet::new(),
            stamp: 0,
            boot: None,
            evicted: 0,
            evicted_live: 0,
        }
    }

    /// Takes one event. Every kind may carry a subject that was not known before.
    pub fn observe(&mut self, event: &SecurityEvent) {
        match &event.body {
            Body::Exec(Exec { error: None, .. }) => {
                if let Some(process) = &event.process {
                    self.exec(process);
                }
            }
            Body::Fork(fork) => {
                if let Some(process) = &event.process {
                    self.ensure(process);
                }
                self.ensure(&fork.child);
            }
            Body::Exit(_) => {
                if let Some(process) = &event.process {
                    self.ensure(process);
                    self.retire(&ProcessKey::from(&process.exec_id));
                }
            }
            Body::Seed(_) => {
                if let Some(process) = &event.process {
                    self.seed(process);
                }
            }
            Body::SessionOpen(auth) | Body::Authenticate(auth) => {
                if let Some(process) = &event.process {
                    self.ensure(process);
                    // The sensor says whether that made the process part of the login: not whoever calls libpam can do that.
                    if process.login == Some(auth.login) {
                        self.log_in(&process.exec_id, auth.login);
                    }
                }
            }
            // What a process does to others, or fails to do, changes nothing about who it is.
            _ => {
                if let Some(process) = &event.process {
                    self.ensure(process);
                }
            }
        }
    }

    /// The image `id`, or when the table does not have exactly that one, the current image of the same process.
    pub fn get(&self, id: &ExecId) -> Option<&Node> {
        self.resolve(id).and_then(|id| self.nodes.get(&id))
    }

    /// The current image of the process that owns `pid` now.
    pub fn by_pid(&self, pid: u32) -> Option<&Node> {
        self.live.get(&pid).and_then(|key| self.current.get(key)).and_then(|id| self.nodes.get(id))
    }

    /// The process and its ancestors up to the oldest known, at most [`MAX_DEPTH`]. Empty when the process is not known.
    pub fn chain(&self, id: &ExecId) -> Vec<LineageEntry> {
        let mut chain: Vec<LineageEntry> = Vec::new();
        let mut next = self.resolve(id);
        while let Some(node) = next.and_then(|id| self.nodes.get(&id)) {
            if chain.len() == MAX_DEPTH || chain.iter().any(|entry| entry.exec_id == node.process.exec_id) {
                break;
            }
            chain.push(node.entry());
            next = node.parent.and_then(|parent| self.resolve(&parent));
        }
        chain
    }

    /// Size, bound and evictions.
    pub fn tables(&self) -> Vec<TableInfo> {
        vec![
            TableInfo { name: "lineage", entries: self.nodes.len(), bound: self.max, evicted: self.evicted },
            TableInfo { name: "lineage_live", entries: self.live.len(), bound: self.max, evicted: self.evicted_live },
        ]
    }

    /// The whole table.
    pub fn save(&self) -> Vec<u8> {
        let saved = Saved {
            nodes: self.nodes.values().cloned().collect(),
            stamp: self.stamp,
            boot: self.boot,
            evicted: self.evicted,
            evicted_live: self.evicted_live,
        };
        match minicbor::to_vec(&saved) {
            Ok(bytes) => bytes,
            // Writing to memory has no failing operation, and no field has a failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
    }

    /// A table for at most `max` images, from a saved one.
    ///
    /// # Errors
    /// [`RestoreError`] when `bytes` are not a saved table.
    pub fn restore(bytes: &[u8], max: usize) -> Result<Self, RestoreError> {
        let Saved { nodes, stamp, boot, evicted, evicted_live } =
            minicbor::decode(bytes).map_err(RestoreError::cbor("the lineage table"))?;
        let mut table = Self { stamp, boot, evicted, evicted_live, ..Self::new(max) };
        for node in nodes {
            let id = node.process.exec_id;
            let key = ProcessKey::from(&id);
            if !node.superseded {
                table.current.insert(key, id);
                if !node.exited {
                    table.live.insert(id.pid, key);
                }
            }
            table.order.insert((node.stamp, id));
            if node.evictable() {
                table.evictable.insert((node.stamp, id));
            }
            table.nodes.insert(id, node);
        }
        table.make_room();
        Ok(table)
    }

    fn resolve(&self, id: &ExecId) -> Option<ExecId> {
        if self.nodes.contains_key(id) { Some(*id) } else { self.current.get(&ProcessKey::from(id)).copied() }
    }

    /// The parent of `process`: what the event says if that is known here, else what was known before, else by pid.
    fn parent_of(&self, process: &Process, before: Option<ExecId>) -> Option<ExecId> {
        let told = process.parent.and_then(|id| self.resolve(&id));
        let by_pid = || {
            let ppid = process.ppid.filter(|ppid| *ppid != process.pid)?;
            self.current.get(self.live.get(&ppid)?).copied()
        };
        before.or(told).or(process.parent).or_else(by_pid)
    }

    /// A new image in a known or unknown process.
    fn exec(&mut self, process: &Arc<Process>) {
        let key = ProcessKey::from(&process.exec_id);
        let previous = self.current.get(&key).copied();
        let before = previous.and_then(|id| self.nodes.get(&id)).and_then(|node| node.parent);
        let parent = self.parent_of(process, before);
        if let Some(previous) = previous
            && previous != process.exec_id
        {
            self.supersede(previous);
        }
        self.insert(process, parent);
    }

    /// Makes sure that `process` is known; what is known better stays.
    fn ensure(&mut self, process: &Arc<Process>) {
        if self.nodes.contains_key(&process.exec_id) {
            return;
        }
        let key = ProcessKey::from(&process.exec_id);
        match self.current.get(&key).copied() {
            None => {
                let parent = self.parent_of(process, None);
                self.insert(process, parent);
            }
            Some(current) => {
                let known_approximately = self.nodes.get(&current).is_some_and(|node| node.process.approximate);
                match (known_approximately, process.approximate) {
                    (true, false) => self.rename(current, process),
                    // Both are the kernel's word and differ in the image: the exec between them was lost.
                    (false, false) => self.exec(process),
                    (_, true) => {}
                }
            }
        }
    }

    fn seed(&mut self, process: &Arc<Process>) {
        let key = ProcessKey::from(&process.exec_id);
        let Some(current) = self.current.get(&key).copied() else {
            let parent = self.parent_of(process, None);
            self.insert(process, parent);
            return;
        };
        let Some(node) = self.nodes.get_mut(&current) else { return };
        let same_image = match (node.process.exe_path(), process.exe_path()) {
            (Some(known), Some(told)) => known == told,
            _ => true,
        };
        if !same_image {
            // It replaced its image while nobody looked.
            self.exec(process);
            return;
        }
        let known = Arc::make_mut(&mut node.process);
        if known.argv.is_empty() {
            known.argv = clip(&process.argv);
        }
        fill(&mut known.exe, &process.exe);
        fill(&mut known.user, &process.user);
        fill(&mut known.tty, &process.tty);
        fill(&mut known.cwd, &process.cwd);
        fill(&mut known.cgroup, &process.cgroup);
        fill(&mut known.container, &process.container);
        fill(&mut known.container_info, &process.container_info);
        fill(&mut known.login, &process.login);
        let (stamp, alive_again) = (node.stamp, std::mem::replace(&mut node.exited, false));
        let orphan = node.parent.is_none();
        if alive_again {
            self.evictable.remove(&(stamp, current));
        }
        if let Some(owner) = self.live.get(&key.pid).copied()
            && owner != key
        {
            self.retire(&owner);
        }
        self.live.insert(key.pid, key);
        if orphan {
            let parent = self.parent_of(process, None);
            self.link(current, parent);
        }
    }

    /// The kernel named exactly what was known from `/proc`: the node takes the exact id and keeps its place.
    fn rename(&mut self, old: ExecId, process: &Arc<Process>) {
        let Some(mut node) = self.nodes.remove(&old) else { return };
        let id = process.exec_id;
        self.order.remove(&(node.stamp, old));
        self.evictable.remove(&(node.stamp, old));
        for child in self.nodes.values_mut() {
            if child.parent == Some(old) {
                child.parent = Some(id);
            }
        }
        let known = std::mem::replace(&mut node.process, clipped(process));
        let named = Arc::make_mut(&mut node.process);
        if named.argv.is_empty() {
            named.argv.clone_from(&known.argv);
        }
        fill(&mut named.exe, &known.exe);
        fill(&mut named.user, &known.user);
        fill(&mut named.tty, &known.tty);
        fill(&mut named.login, &known.login);
        let parent = node.parent;
        self.order.insert((node.stamp, id));
        self.current.insert(ProcessKey::from(&id), id);
        self.nodes.insert(id, node);
        if parent.is_none() {
            let parent = self.parent_of(process, None);
            self.link(id, parent);
        }
    }

    fn insert(&mut self, process: &Arc<Process>, parent: Option<ExecId>) {
        let id = process.exec_id;
        let key = ProcessKey::from(&id);
        if self.boot.is_some_and(|boot| boot != id.boot) {
            let old: Vec<ProcessKey> = self.live.values().copied().filter(|key| key.boot != id.boot).collect();
            old.iter().for_each(|key| self.retire(key));
        }
        self.boot = Some(id.boot);
        if let Some(owner) = self.live.get(&key.pid).copied()
            && owner != key
        {
            // The pid was given out again, so its former owner has ended even if nobody saw it.
            self.retire(&owner);
        }
        let mut process = clipped(process);
        if process.login.is_none()
            && let Some(login) = self.login_above(&key, parent)
        {
            Arc::make_mut(&mut process).login = Some(login);
        }
        self.remove(&id);
        self.stamp += 1;
        let stamp = self.stamp;
        let node = Node { process, parent: None, exited: false, superseded: false, stamp, children: 0, linked: false };
        self.nodes.insert(id, node);
        self.order.insert((stamp, id));
        self.current.insert(key, id);
        self.live.insert(key.pid, key);
        self.link(id, parent);
        self.make_room();
    }

    /// A session was opened at the process: it and what it makes from now on belong to it.
    fn log_in(&mut self, id: &ExecId, login: EventId) {
        if let Some(node) = self.resolve(id).and_then(|id| self.nodes.get_mut(&id)) {
            Arc::make_mut(&mut node.process).login = Some(login);
        }
    }

    /// The login of the image that this process ran before, else of its parent: a sensor that came up in between does not know it.
    fn login_above(&self, key: &ProcessKey, parent: Option<ExecId>) -> Option<EventId> {
        let before = self.current.get(key).copied().or(parent.and_then(|parent| self.resolve(&parent)));
        before.and_then(|id| self.nodes.get(&id)).and_then(|node| node.process.login)
    }

    fn link(&mut self, id: ExecId, parent: Option<ExecId>) {
        let parent = parent.filter(|parent| *parent != id);
        let linked = match parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            Some(node) => {
                node.children += 1;
                let place = (node.stamp, node.process.exec_id);
                self.evictable.remove(&place);
                true
            }
            None => false,
        };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.parent = parent;
            node.linked = linked;
        }
    }

    /// The process has ended.
    fn retire(&mut self, key: &ProcessKey) {
        if self.live.get(&key.pid) == Some(key) {
            self.live.remove(&key.pid);
        }
        if let Some(node) = self.current.get(key).and_then(|id| self.nodes.get_mut(id)) {
            node.exited = true;
            if node.evictable() {
                self.evictable.insert((node.stamp, node.process.exec_id));
            }
        }
    }

    /// The process runs another image now. One that nothing was started from is of no further use.
    fn supersede(&mut self, id: ExecId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.superseded = true;
        if node.children == 0 {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &ExecId) {
        let Some(node) = self.nodes.remove(id) else { return };
        self.order.remove(&(node.stamp, *id));
        self.evictable.remove(&(node.stamp, *id));
        let key = ProcessKey::from(id);
        if self.current.get(&key) == Some(id) {
            self.current.remove(&key);
            if self.live.get(&key.pid) == Some(&key) {
                self.live.remove(&key.pid);
            }
        }
        if node.linked
            && let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent))
        {
            parent.children = parent.children.saturating_sub(1);
            if parent.evictable() {
                self.evictable.insert((parent.stamp, parent.process.exec_id));
            }
        }
    }

    fn make_room(&mut self) {
        let ended = (self.max / ENDED_PART).max(ENDED_LEAST);
        while self.evictable.len() > ended
            && let Some((_, id)) = self.evictable.first().copied()
        {
            // Nothing had to go for want of room.
            self.remove(&id);
        }
        while self.nodes.len() > self.max {
            let Some((_, id)) = self.evictable.first().or_else(|| self.order.first()).copied() else { return };
            let live = self.nodes.get(&id).is_some_and(|node| !node.exited && !node.superseded);
            self.evicted += 1;
            self.evicted_live += u64::from(live);
            self.remove(&id);
        }
    }
}

fn fill<T: Clone>(known: &mut Option<T>, told: &Option<T>) {
    if known.is_none() {
        known.clone_from(told);
    }
}

fn clip(argv: &[String]) -> Vec<String> {
    let mut left = MAX_ARGV_BYTES;
    let mut kept = Vec::new();
    for arg in argv.iter().take(MAX_ARGS) {
        if arg.len() > left {
            let end = (0..=left).rev().find(|at| arg.is_char_boundary(*at)).unwrap_or(0);
            kept.push(arg[..end].to_owned());
            break;
        }
        left -= arg.len();
        kept.push(arg.clone());
    }
    kept
}

fn clipped(process: &Arc<Process>) -> Arc<Process> {
    let argv = &process.argv;
    if argv.len() <= MAX_ARGS && argv.iter().map(String::len).sum::<usize>() <= MAX_ARGV_BYTES {
        return Arc::clone(process);
    }
    Arc::new(Process { argv: clip(argv), argv_truncated: true, ..Process::clone(process) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Host, exec_id};

    #[test]
    fn chain_runs_from_the_process_to_the_oldest_known_ancestor() {
        let mut host = Host::new();
        host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
        host.seed(50, 1, "/usr/sbin/sshd", &["sshd"]);
        host.fork(50, 60);
        host.exec(60, "/usr/bin/bash", &["-bash"]);
        host.fork(60, 70);
        host.exec(70, "/usr/bin/id", &["id"]);
        let mut table = Lineage::new(100);
        host.take().iter().for_each(|event| table.observe(event));
        let chain: Vec<String> = table.chain(&host.id(70)).into_iter().filter_map(|entry| entry.exe).collect();
        assert_eq!(chain, ["/usr/bin/id", "/usr/bin/bash", "/usr/sbin/sshd", "/usr/lib/systemd/systemd"]);
    }

    #[test]
    fn seed_fills_blanks_and_never_replaces_what_the_kernel_told() {
        let mut host = Host::new();
        host.seed(1, 0, "/sbin/init", &["init"]);
        host.seed(40, 1, "/usr/bin/cron", &["cron"]);
        host.fork(40, 41);
        host.exec(41, "/usr/bin/sleep", &["sleep", "9"]);
        // Its parent ended, it was given to init, and it rewrote its command line; then the sensor restarted.
        host.exit(40);
        let id = host.id(41);
        host.seed_approximate(41, 1, "/usr/bin/sleep", &["harmless"]);
        let mut table = Lineage::new(100);
        host.take().iter().for_each(|event| table.observe(event));
        let chain = table.chain(&id);
        assert_eq!(chain[0].argv, ["sleep", "9"]);
        assert!(!chain[0].approximate);
        assert_eq!(chain[1].exe.as_deref(), Some("/usr/bin/cron"));
        assert!(chain[1].exited);
    }

    #[test]
    fn seed_of_another_image_is_a_new_image_with_the_old_parent() {
        let mut host = Host::new();
        host.seed(40, 0, "/usr/bin/cron", &["cron"]);
        host.fork(40, 41);
        host.exec(41, "/usr/bin/env", &["env", "sleep"]);
        host.seed_approximate(41, 40, "/usr/bin/sleep", &["sleep"]);
        let mut table = Lineage::new(100);
        host.take().iter().for_each(|event| table.observe(event));
        let chain = table.chain(&host.id(41));
        assert_eq!(chain[0].exe.as_deref(), Some("/usr/bin/sleep"));
        assert_eq!(chain[1].exe.as_deref(), Some("/usr/bin/cron"));
    }

    #[test]
    fn an_approximate_id_is_merged_when_the_kernel_names_the_process() {
        let mut host = Host::new();
        host.seed_approximate(40, 0, "/usr/bin/cron", &["cron"]);
        host.fork(40, 41);
        let mut table = Lineage::new(100);
        host.take().iter().for_each(|event| table.observe(event));
        let node = table.get(&host.id(40)).expect("known");
        assert_eq!(node.process.exec_id, host.id(40));
        assert!(!node.process.approximate);
        assert_eq!(table.nodes.len(), 2);
        assert_eq!(table.chain(&host.id(41)).len(), 2);
    }

    #[test]
    fn a_reused_pid_and_a_new_boot_end_the_former_owner() {
        let mut table = Lineage::new(100);
        let mut host = Host::new();
        host.seed(40, 0, "/usr/bin/cron", &["cron"]);
        let first = host.id(40);
        host.restart_pid(40);
        host.seed(40, 0, "/usr/bin/vi", &["vi"]);
        host.take().iter().for_each(|event| table.observe(event));
        assert!(table.get(&first).expect("kept").exited);
        assert_eq!(table.by_pid(40).and_then(|node| node.process.exe_path()), Some("/usr/bin/vi"));
        let second = host.id(40);
        let mut rebooted = Host::with_boot(99);
        rebooted.seed(1, 0, "/sbin/init", &["init"]);
        rebooted.take().iter().for_each(|event| table.observe(event));
        assert!(table.get(&second).expect("kept").exited);
        assert!(table.by_pid(40).is_none());
    }

    #[test]
    fn ended_leaves_go_before_ancestors_of_the_living() {
        let mut host = Host::new();
        host.seed(1, 0, "/sbin/init", &["init"]);
        host.fork(1, 2);
        host.exec(2, "/bin/launcher", &["launcher"]);
        host.fork(2, 3);
        host.exec(3, "/bin/worker", &["worker"]);
        host.exit(2);
        for pid in 100..200 {
            host.fork(1, pid);
            host.exec(pid, "/bin/true", &["true"]);
            host.exit(pid);
        }
        let mut table = Lineage::new(10);
        host.take().iter().for_each(|event| table.observe(event));
        assert_eq!(table.nodes.len(), 10);
        assert_eq!(table.evicted_live, 0);
        assert!(table.evicted > 80);
        let chain: Vec<String> = table.chain(&host.id(3)).into_iter().filter_map(|entry| entry.exe).collect();
        assert_eq!(chain, ["/bin/worker", "/bin/launcher", "/sbin/init"]);
    }

    #[test]
    fn ended_leaves_take_a_part_of_the_table_and_no_more() {
        let mut host = Host::new();
        host.seed(1, 0, "/sbin/init", &["init"]);
        host.fork(1, 2);
        host.exec(2, "/bin/worker", &["worker"]);
        for pid in 100..300 {
            host.fork(1, pid);
            host.exec(pid, "/bin/true", &["true"]);
            host.exit(pid);
        }
        host.fork(1, 300);
        let mut table = Lineage::new(400);
        host.take().iter().for_each(|event| table.observe(event));
        let ended = table.nodes.values().filter(|node| node.exited).count();
        assert_eq!((ended, table.evicted, table.evicted_live), (400 / ENDED_PART, 0, 0));
        assert!(table.get(&host.id(299)).is_some_and(|node| node.exited), "the last of them are kept");
        assert_eq!(table.chain(&host.id(2)).len(), 2);
    }

    #[test]
    fn argv_is_cut_and_says_so() {
        let long = "é".repeat(MAX_ARGV_BYTES);
        let mut host = Host::new();
        host.seed(5, 0, "/bin/echo", &["echo", &long, "rest"]);
        let mut table = Lineage::new(10);
        host.take().iter().for_each(|event| table.observe(event));
        let process = &table.get(&host.id(5)).expect("known").process;
        assert!(process.argv_truncated);
        assert!(process.argv.iter().map(String::len).sum::<usize>() <= MAX_ARGV_BYTES);
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let mut table = Lineage::new(10);
        let mut host = Host::new();
        host.seed(5, 6, "/bin/a", &["a"]);
        host.seed(6, 5, "/bin/b", &["b"]);
        host.take().iter().for_each(|event| table.observe(event));
        assert!(table.chain(&host.id(5)).len() <= 2);
        assert!(table.chain(&exec_id(77, 1)).is_empty());
    }

    proptest! {
        #[test]
        fn any_history_stays_within_the_bound_and_survives_save_and_restore(
            steps in prop::collection::vec((0u8..5, 1u32..12, 1u32..12), 0..120), cut in 0usize..120)
        {
            let mut host = Host::new();
            for (step, pid, other) in steps {
                match step {
                    0 => host.fork(pid, other),
                    1 => host.exec(pid, if other % 2 == 0 { "/bin/sh" } else { "/bin/ls" }, &["x"]),
                    2 => host.exit(pid),
                    3 => host.seed_approximate(pid, other, "/bin/sh", &["sh"]),
                    _ => host.restart_pid(pid),
                }
            }
            let events = host.take();
            let mut whole = Lineage::new(8);
            let mut restored = Lineage::new(8);
            for (index, event) in events.iter().enumerate() {
                whole.observe(event);
                restored.observe(event);
                if index == cut {
                    restored = Lineage::restore(&restored.save(), 8).expect("own bytes");
                }
                prop_assert!(whole.nodes.len() <= 8);
                prop_assert!(whole.current.len() <= 8 && whole.live.len() <= 8 && whole.order.len() == whole.nodes.len());
            }
            prop_assert_eq!(whole.save(), restored.save());
            for pid in 1..12 {
                let id = host.id(pid);
                prop_assert_eq!(whole.chain(&id), restored.chain(&id));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Lineage::restore(&bytes, 8);
        }
    }
}
