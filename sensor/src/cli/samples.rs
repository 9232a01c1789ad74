//! Events and alerts for tests.

use std::net::IpAddr;
use std::sync::Arc;

use bartizan_bus::event::{
    Alert, AlertId, Attack, Body, BootId, Confidence, Entity, EventId, EventTime, ExecId, InetSocket, LineageEntry, MatchId, MatchStep,
    Outcome, PatternMatch, Process, SecurityEvent, Severity, Status, Transport,
};

/// 2023-11-14 22:13:20 UTC.
pub(crate) const TIME: EventTime = EventTime { boot_ns: 5_000_000_000, wall_ns: 1_700_000_000_000_000_000 };

pub(crate) fn exec_id(pid: u32) -> ExecId {
    ExecId { boot: BootId(7), start_ns: u64::from(pid) * 1_000_000_000, pid, exec: 1 }
}

pub(crate) fn process(pid: u32, name: &str, argv: &[&str]) -> Process {
    Process {
        name: name.to_owned(),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        uid: 1000,
        euid: 1000,
        user: Some("alice".to_owned()),
        ..Process::of(exec_id(pid))
    }
}

pub(crate) fn event(process: Process, body: Body) -> SecurityEvent {
    SecurityEvent {
        id: EventId([1; 20]),
        time: TIME,
        host: "host1".into(),
        severity: Severity::Info,
        outcome: Outcome::Success,
        process: Some(Arc::new(process)),
        no_subject: None,
        tid: None,
        target_tid: None,
        body,
        target: None,
    }
}

pub(crate) fn inet(local: &str, local_port: u16, peer: &str, peer_port: u16) -> InetSocket {
    let ip = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
    InetSocket {
        transport: Transport::Tcp,
        local_ip: ip(local),
        local_port: Some(local_port),
        peer_ip: ip(peer),
        peer_port: Some(peer_port),
        connected: true,
        inode: None,
    }
}

pub(crate) fn lineage(pid: u32, name: &str, argv: &[&str]) -> LineageEntry {
    let process = process(pid, name, argv);
    LineageEntry {
        exec_id: process.exec_id,
        pid,
        name: process.name,
        exe: Some(format!("/usr/bin/{name}")),
        argv: process.argv,
        uid: process.uid,
        user: process.user,
        tty: None,
        exited: false,
        approximate: false,
    }
}

pub(crate) fn alert() -> Alert {
    let socket = inet("10.0.0.1", 5555, "203.0.113.9", 443);
    Alert {
        id: AlertId([0xab; 16]),
        revision: 1,
        time: TIME,
        host: "host1".to_owned(),
        detector: "runtime_watcher".to_owned(),
        rule: "runtime_watcher.reverse_shell".to_owned(),
        title: "Reverse shell: bash talks to 203.0.113.9:443".to_owned(),
        severity: Severity::Critical,
        confidence: Confidence::High,
        attack: vec![Attack { tactic: "TA0002".to_owned(), technique: "T1059.004".to_owned() }],
        entities: vec![Entity::Process { exec_id: exec_id(300), pid: 300 }, Entity::Socket { socket }],
        evidence: vec![EventId([1; 20])],
        trigger_seq: 42,
        lineage: vec![lineage(300, "bash", &["bash", "-i"]), lineage(200, "python3", &["python3", "x.py"]), lineage(100, "sshd", &[])],
        explanation: "bash (pid 300) has a connected socket as its standard input.".to_owned(),
        next_steps: vec!["Isolate the host.".to_owned(), "Look at python3 (pid 200).".to_owned()],
        status: Status::Open,
        login: None,
    }
}

pub(crate) fn pattern_match() -> PatternMatch {
    let step = |number: u8, name: &str, rule: &str, title: &str, seconds: i64| MatchStep {
        name: name.to_owned(),
        alert: AlertId([number; 16]),
        revision: if number == 1 { 2 } else { 1 },
        alert_seq: u64::from(number) + 4,
        trigger_seq: u64::from(number) * 10,
        time: EventTime { wall_ns: TIME.wall_ns - seconds * 1_000_000_000, ..TIME },
        rule: rule.to_owned(),
        title: title.to_owned(),
    };
    PatternMatch {
        id: MatchId([0xcd; 16]),
        revision: 1,
        time: TIME,
        host: "host1".to_owned(),
        pattern: "correlate.brute_force_to_shell".to_owned(),
        title: "Guessed password, login, reverse shell: alice from 203.0.113.9".to_owned(),
        severity: Severity::Critical,
        confidence: Confidence::High,
        attack: vec![Attack { tactic: "TA0006".to_owned(), technique: "T1110.001".to_owned() }],
        entities: vec![Entity::Host { ip: [203, 0, 113, 9].into() }, Entity::Account { name: "alice".to_owned() }],
        login: Some(EventId([9; 20])),
        steps: vec![
            step(1, "guessing", "auth_fortress.brute_force", "Brute force", 1320),
            step(2, "success", "auth_fortress.success_after_failures", "alice logged in", 12),
            step(3, "shell", "runtime_watcher.reverse_shell", "Reverse shell", 0),
        ],
        explanation: "One after the other.".to_owned(),
        next_steps: vec!["Isolate the host.".to_owned()],
    }
}
