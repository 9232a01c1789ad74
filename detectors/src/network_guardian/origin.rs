//! Whose connections are counted together.
//!
//! A scan need not be one process: `for p in $(seq 1024); do nc -z host $p; done` is a thousand. So connections are counted by login, or
//! outside of every login by session leader, and by program. The login is the outermost one, so that neither `setsid` nor `sudo` for each
//! probe begins anew. The program is part of it, so that a browser's many good connections do not hide a scanner of the same login.

use bartizan_bus::event::{EventId, Process};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::config::HealthChecker;
use crate::detector::ProcessKey;
use crate::lineage::{Lineage, MAX_DEPTH, Node};

/// A login or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) enum Group {
    /// The outermost login.
    #[n(0)]
    Login(#[n(0)] EventId),
    /// The session leader, or the oldest known process of its session.
    #[n(1)]
    Session(#[n(0)] ProcessKey),
}

/// A program within a login or session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub(super) struct Origin {
    #[n(0)]
    group: Group,
    /// First bytes of SHA-256 of the executed file's path; zero when it is not known.
    #[n(1)]
    exe: u64,
}

impl Origin {
    pub(super) fn of(process: &Process, lineage: &Lineage) -> Self {
        let mut login = process.login;
        let mut leader = ProcessKey::from(&process.exec_id);
        let mut climbing = process.sid.is_some() && process.sid != Some(process.pid);
        for node in ancestry(process, lineage) {
            login = node.process.login.or(login);
            // A daemon calls setsid() after its exec was told: its own number tells better than its session then.
            let leads = process.sid == Some(node.process.pid);
            climbing &= leads || node.process.sid == process.sid;
            if climbing {
                leader = ProcessKey::from(&node.process.exec_id);
                climbing = !leads;
            }
        }
        let group = login.map_or(Group::Session(leader), Group::Login);
        Self { group, exe: process.exe_path().map_or(0, digest) }
    }

    /// As bytes of an alert's identity.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let Self { group, exe } = self;
        let mut bytes = exe.to_be_bytes().to_vec();
        match group {
            Group::Login(id) => bytes.extend_from_slice(&id.0),
            Group::Session(ProcessKey { boot, pid, start_ticks }) => {
                bytes.extend_from_slice(&boot.0.to_be_bytes());
                bytes.extend_from_slice(&pid.to_be_bytes());
                bytes.extend_from_slice(&start_ticks.to_be_bytes());
            }
        }
        bytes
    }

    /// What is counted together, for people.
    pub(super) fn text(&self) -> String {
        match &self.group {
            Group::Login(_) => "one login".to_owned(),
            Group::Session(leader) => format!("the session of pid {}", leader.pid),
        }
    }
}

fn digest(path: &str) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(path.as_bytes())[..8]);
    u64::from_be_bytes(first)
}

/// The ancestors of `process` as far as they are known, the parent first.
fn ancestry<'a>(process: &Process, lineage: &'a Lineage) -> impl Iterator<Item = &'a Node> {
    let own = lineage.get(&process.exec_id);
    let parent = own.and_then(|node| node.parent).or(process.parent);
    let next = |node: &&'a Node| lineage.get(&node.parent?);
    std::iter::successors(parent.and_then(|id| lineage.get(&id)), next).take(MAX_DEPTH)
}

/// Whether `process` is, or runs under, one of `checkers` that may connect to this peer.
pub(super) fn excepted(
    checkers: &[HealthChecker],
    process: &Process,
    lineage: &Lineage,
    peer_ip: std::net::IpAddr,
    peer_port: Option<u16>,
) -> bool {
    checkers.iter().any(|checker| {
        let HealthChecker { name: _, program, targets } = checker;
        let target = targets.is_empty() || targets.iter().any(|net| net.contains(peer_ip.to_canonical(), peer_port));
        let runs = |process: &Process| process.exe_path() == Some(program) || process.argv.get(1) == Some(program);
        target && (runs(process) || ancestry(process, lineage).any(|node| runs(&node.process)))
    })
}
