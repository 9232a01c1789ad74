//! Loops of pipes: a shell's output runs to a program on the network, whose output runs back to the shell.

use super::invocation::Commands;
use super::processes::{Feed, Processes};
use super::sockets::same_socket;
use crate::detector::ProcessKey;

/// Most processes in a loop.
const MAX_HOPS: usize = 4;
/// Most steps of one search. More readers of one pipe than this are no pipeline.
const MAX_STEPS: usize = 256;

/// How one process's output reaches the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Through a pipe or UNIX socket that both have as standard streams.
    Pipe,
    /// Through a pipe that nobody has as standard input, to a sibling that reads a FIFO made before.
    Fifo,
    /// The same, but the sibling's file is not known to be a FIFO.
    MaybeFifo,
    /// Through the peer: both are connected to it, on different ports.
    Peer,
}

/// A closed loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loop {
    /// The shell or interpreter that reads its commands from the loop.
    pub(super) shell: ProcessKey,
    /// The process that is connected.
    pub(super) connector: ProcessKey,
    /// All processes, in the direction of the bytes.
    pub(super) path: Vec<ProcessKey>,
    /// The weakest link.
    pub(super) weakest: Link,
}

/// Finds a loop through `start`, if there is one.
pub(super) fn find(procs: &Processes, start: &ProcessKey) -> Option<Loop> {
    let proc = procs.get(start)?;
    if !proc.indexed || (proc.reads().is_none() && proc.writes().next().is_none()) {
        return None;
    }
    let mut steps = 0;
    walk(procs, *start, &mut vec![*start], &mut Vec::new(), &mut steps)
}

fn walk(procs: &Processes, start: ProcessKey, path: &mut Vec<ProcessKey>, links: &mut Vec<Link>, steps: &mut usize) -> Option<Loop> {
    let at = *path.last()?;
    for (next, link) in next_of(procs, &at) {
        *steps += 1;
        if *steps > MAX_STEPS {
            return None;
        }
        links.push(link);
        if next == start {
            if let Some(found) = judge(procs, path, links) {
                return Some(found);
            }
        } else if path.len() < MAX_HOPS && !path.contains(&next) {
            path.push(next);
            let found = walk(procs, start, path, links, steps);
            path.pop();
            if found.is_some() {
                return found;
            }
        }
        links.pop();
    }
    None
}

fn next_of(procs: &Processes, at: &ProcessKey) -> Vec<(ProcessKey, Link)> {
    let Some(proc) = procs.get(at) else { return Vec::new() };
    let mut next: Vec<(ProcessKey, Link)> = Vec::new();
    for channel in proc.writes() {
        next.extend(procs.readers(&channel).take(MAX_STEPS).map(|key| (*key, Link::Pipe)));
    }
    if proc.made.is_empty() {
        return next;
    }
    let dangling = proc.stdout().is_some_and(|channel| procs.readers(&channel).next().is_none());
    if dangling && let Some(parent) = proc.parent {
        for key in procs.feeders(&parent).filter(|key| *key != at).take(MAX_STEPS) {
            match procs.get(key).map_or(Feed::No, |feeder| feeder.feed) {
                Feed::Fifo => next.push((*key, Link::Fifo)),
                Feed::Operand => next.push((*key, Link::MaybeFifo)),
                Feed::No => {}
            }
        }
    }
    if proc.reads().is_some() {
        for made in &proc.made {
            let Some(ip) = made.socket.peer_ip else { continue };
            for key in procs.connectors(ip).filter(|key| *key != at).take(MAX_STEPS) {
                let other_port = procs.get(key).is_some_and(|other| {
                    other.stdout().is_some()
                        && other.made.iter().any(|there| {
                            there.socket.peer_ip == Some(ip)
                                && there.socket.peer_port != made.socket.peer_port
                                && !same_socket(&there.socket, &made.socket)
                        })
                });
                if other_port {
                    next.push((*key, Link::Peer));
                }
            }
        }
    }
    next
}

fn judge(procs: &Processes, path: &[ProcessKey], links: &[Link]) -> Option<Loop> {
    let shell = path.iter().find(|key| {
        procs.get(key).is_some_and(|proc| proc.program.is_some() && proc.commands == Commands::Stdin && proc.reads().is_some())
    })?;
    let connector = path.iter().find(|key| *key != shell && procs.get(key).is_some_and(|proc| !proc.made.is_empty()))?;
    let rank = |link: &Link| match link {
        Link::Pipe => 0,
        Link::Fifo => 1,
        Link::Peer => 2,
        Link::MaybeFifo => 3,
    };
    let weakest = *links.iter().max_by_key(|link| rank(link))?;
    // A file that is not known to be a FIFO makes a loop only with a shell that was told to be interactive on a pipe:
    // `x=$(cat script | sh | nc host port)` has these very descriptors.
    if weakest == Link::MaybeFifo && !procs.get(shell)?.interactive {
        return None;
    }
    Some(Loop { shell: *shell, connector: *connector, path: path.to_vec(), weakest })
}
