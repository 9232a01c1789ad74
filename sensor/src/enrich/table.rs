//! The process table: who every pid is now, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bartizan_bus::event::{ExecId, Process};

/// Ended processes that are kept for records that come late (a connection's result), at most.
const EXITED_KEPT: usize = 4096;

/// One process.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As it is now; events share it.
    pub process: Arc<Process>,
    /// Boot clock of the record that said so; older records change nothing.
    pub ktime: u64,
    /// It ended.
    pub exited: bool,
    /// The image that it ran before: records that come late (a connection's result) may be about that one.
    pub previous: Option<Arc<Process>>,
    /// What an event said of it last that is not in `process`: a record may be older than that.
    pub told: Option<Told>,
}

/// A process with what a record said of it: the next event that says the same shares it.
#[derive(Debug, Clone)]
pub struct Told {
    /// The process that it was made from.
    pub of: Arc<Process>,
    /// As the events tell it.
    pub as_told: Arc<Process>,
}

/// Processes by pid.
#[derive(Debug)]
pub struct Table {
    entries: HashMap<u32, Entry, foldhash::fast::RandomState>,
    /// Ended ones, in the order of their end. May name entries that are gone or reused.
    exited: VecDeque<ExecId>,
    /// Living ones, in the order of their arrival, for eviction. May name entries that are gone.
    arrived: VecDeque<ExecId>,
    max: usize,
    evicted: u64,
}

impl Table {
    /// An empty table for at most `max` processes.
    pub fn new(max: usize) -> Self {
        Self { entries: HashMap::default(), exited: VecDeque::new(), arrived: VecDeque::new(), max: max.max(2), evicted: 0 }
    }

    /// The process with this pid and start.
    pub fn get(&self, id: &ExecId) -> Option<&Entry> {
        self.entries.get(&id.pid).filter(|entry| entry.process.exec_id.same_process(id))
    }

    /// The living process with this pid.
    pub fn by_pid(&self, pid: u32) -> Option<&Entry> {
        self.entries.get(&pid).filter(|entry| !entry.exited)
    }

    /// The process with this pid and start, to change.
    pub fn get_mut(&mut self, id: &ExecId) -> Option<&mut Entry> {
        self.entries.get_mut(&id.pid).filter(|entry| entry.process.exec_id.same_process(id))
    }

    /// The process that had this pid last, exited or not.
    pub fn last_of_pid(&self, pid: u32) -> Option<&Entry> {
        self.entries.get(&pid)
    }

    /// Puts in what `process` is at `ktime`. Makes room first.
    pub fn put(&mut self, process: Arc<Process>, ktime: u64) {
        let id = process.exec_id;
        let known = self.get(&id).is_some();
        if !known {
            if self.entries.len() >= self.max && !self.entries.contains_key(&id.pid) {
                self.make_room();
            }
            self.arrived.push_back(id);
            if self.arrived.len() > self.max * 4 {
                self.compact();
            }
        }
        let previous = self.entries.remove(&id.pid).filter(|entry| entry.process.exec_id.same_process(&id)).and_then(|entry| {
            let replaced = entry.process.exec_id.exec != id.exec && !entry.process.approximate;
            if replaced { Some(entry.process) } else { entry.previous }
        });
        self.entries.insert(id.pid, Entry { process, ktime, exited: false, previous, told: None });
    }

    /// Marks a process as ended.
    pub fn exit(&mut self, id: &ExecId) {
        if let Some(entry) = self.get_mut(id)
            && !entry.exited
        {
            entry.exited = true;
            entry.told = None;
            self.exited.push_back(*id);
        }
        while self.exited.len() > EXITED_KEPT.min(self.max / 2) {
            self.drop_oldest_exited();
        }
    }

    /// Processes held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Most that are held.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Living processes that had to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Ids of the processes that have not ended, as far as is known.
    pub fn living(&self) -> Vec<ExecId> {
        self.entries.values().filter(|entry| !entry.exited).map(|entry| entry.process.exec_id).collect()
    }

    fn drop_oldest_exited(&mut self) -> bool {
        while let Some(id) = self.exited.pop_front() {
            if self.get(&id).is_some_and(|entry| entry.exited) {
                self.entries.remove(&id.pid);
                return true;
            }
        }
        false
    }

    fn make_room(&mut self) {
        if self.drop_oldest_exited() {
            return;
        }
        while let Some(id) = self.arrived.pop_front() {
            if self.get(&id).is_some() {
                self.entries.remove(&id.pid);
                self.evicted += 1;
                return;
            }
        }
    }

    fn compact(&mut self) {
        let entries = &self.entries;
        self.arrived.retain(|id| entries.get(&id.pid).is_some_and(|entry| entry.process.exec_id.same_process(id)));
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::BootId;
    use proptest::prelude::*;

    use super::*;

    fn id(pid: u32, start_ns: u64) -> ExecId {
        ExecId { boot: BootId(1), start_ns, pid, exec: 0 }
    }

    fn process(pid: u32, start_ns: u64) -> Arc<Process> {
        Arc::new(Process::of(id(pid, start_ns)))
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut table = Table::new(8);
        table.put(process(7, 10_000_000), 1);
        table.put(process(7, 990_000_000), 2);
        assert!(table.get(&id(7, 10_000_000)).is_none());
        assert!(table.get(&id(7, 990_000_000)).is_some());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_ended_make_room_before_the_living() {
        let mut table = Table::new(4);
        for pid in 1..=4 {
            table.put(process(pid, 0), 1);
        }
        table.exit(&id(3, 0));
        table.put(process(5, 0), 2);
        assert!(table.get(&id(3, 0)).is_none());
        assert_eq!((table.len(), table.evicted()), (4, 0));
        table.put(process(6, 0), 3);
        assert_eq!((table.len(), table.evicted()), (4, 1));
    }

    proptest! {
        #[test]
        fn the_bound_holds_whatever_comes(steps in proptest::collection::vec((0_u32..50, 0_u64..3, any::<bool>()), 0..500), max in 2_usize..20) {
            let mut table = Table::new(max);
            for (pid, start, exit) in steps {
                let id = id(pid, start * 20_000_000);
                if exit { table.exit(&id) } else { table.put(Arc::new(Process::of(id)), 0) }
                prop_assert!(table.len() <= max);
                prop_assert!(table.arrived.len() <= max * 4 + 1);
            }
        }
    }
}
