//! What the forwarder's tests share: a bus in a temporary folder, alerts with numbers, waiting for a condition.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bartizan_bus::event::{
    Alert, AlertId, AlertJson, Attack, BootId, Confidence, Entity, EventId, EventTime, ExecId, LineageEntry, Severity, Status, encode_alert,
};
use bartizan_bus::{Bus, BusConfig, Message, StreamName};
use bartizan_forward::{Address, DurationSetting, Protocol, SinkConfig, SinkName, SinkStatus, StatusHandle, SyslogConfig};

/// Longer than anything here takes on a loaded machine: a test that hits it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A port that is free and outside of the ephemeral range, so that while the receiver is down no other test's connection
/// gets it as its own end.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // A hundred for each process, all below 32768, where Linux's ephemeral range begins.
    let base = 20_000 + (std::process::id() % 127) as u16 * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn alert(number: u64) -> Alert {
    let mut id = [0xa1; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let exec_id = |pid: u32| ExecId { boot: BootId(0x5eed), start_ns: 1_000_000 * u64::from(pid), pid, exec: 1 };
    let entry = |pid: u32, name: &str, argv: &[&str]| LineageEntry {
        exec_id: exec_id(pid),
        pid,
        name: name.to_owned(),
        exe: Some(format!("/usr/bin/{name}")),
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        uid: 0,
        user: Some("root".to_owned()),
        tty: Some("pts/3".to_owned()),
        exited: false,
        approximate: false,
    };
    Alert {
        id: AlertId(id),
        revision: 1,
        time: EventTime { boot_ns: number, wall_ns: 1_795_417_921_000_000_000 + number as i64 },
        host: "web-01".to_owned(),
        detector: "runtime_watcher".to_owned(),
        rule: "runtime_watcher.reverse_shell".to_owned(),
        title: format!("Reverse shell {number}"),
        severity: [Severity::Low, Severity::Medium, Severity::High, Severity::Critical][number as usize % 4],
        confidence: Confidence::High,
        attack: vec![Attack { tactic: "TA0002".to_owned(), technique: "T1059.004".to_owned() }],
        entities: vec![Entity::Process { exec_id: exec_id(77), pid: 77 }, Entity::User { uid: 0, name: Some("root".to_owned()) }],
        evidence: vec![EventId([7; 20])],
        trigger_seq: number,
        lineage: vec![
            // What an attacker can put into an argument: line ends, quotes, brackets, escapes, controls, wide characters.
            entry(77, "bash", &["bash", "-c", "a\nb\r\0\"c\"\\]d\u{7f}\u{85}\u{2028}ü🐚 #012 <13>1 - - - - - - x", "]", "\u{feff}"]),
            entry(42, "sshd", &["sshd: root@pts/3"]),
            entry(1, "init", &["/sbin/init"]),
        ],
        explanation: "bash has 192.0.2.1:4444 as its standard input".to_owned(),
        next_steps: vec!["Look at the peer".to_owned()],
        status: Status::Open,
        login: None,
    }
}

/// The JSON that a receiver must see for the alert with this sequence.
pub(crate) fn expected_json(alert: &Alert, seq: u64) -> serde_json::Value {
    serde_json::to_value(AlertJson::new(alert, Some(seq))).unwrap()
}

pub(crate) fn message(alert: &Alert) -> Message {
    Message { subject: alert.subject(), msg_id: Some(alert.msg_id()), time_ns: alert.time.wall_ns, payload: encode_alert(alert).into() }
}

/// Publishes alerts with these numbers; returns the last sequence.
pub(crate) fn publish(bus: &Bus, numbers: std::ops::RangeInclusive<u64>) -> u64 {
    let messages = numbers.map(|number| message(&alert(number))).collect();
    bus.stream(StreamName::Alerts).append_batch(messages).unwrap().last().unwrap().seq
}

/// Opens the bus, waiting while a thread of the engine that was just dropped still holds it.
pub(crate) async fn open_bus(dir: &Path) -> Bus {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match Bus::open(dir, &BusConfig::default()) {
            Ok(bus) => return bus,
            Err(error) if tokio::time::Instant::now() > deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) fn ms(ms: u64) -> DurationSetting {
    DurationSetting(Duration::from_millis(ms))
}

/// A sink with short pauses, so that tests do not wait for nothing.
pub(crate) fn sink_config(name: &str, address: &str, protocol: Protocol) -> SinkConfig {
    let name = SinkName::try_from(name.to_owned()).unwrap();
    let address = Address::try_from(address.to_owned()).unwrap();
    SinkConfig { retry_min: ms(50), retry_max: ms(400), retry_config: ms(400), ..SinkConfig::new(name, address, protocol) }
}

/// A syslog sink with short pauses and a short grace period.
pub(crate) fn syslog_config(address: &str) -> SinkConfig {
    sink_config("siem", address, Protocol::Syslog(SyslogConfig { confirm_after: ms(300), ..SyslogConfig::default() }))
}

/// The part of a syslog sink that is its own.
pub(crate) fn syslog(config: &mut SinkConfig) -> &mut SyslogConfig {
    match &mut config.protocol {
        Protocol::Syslog(syslog) => syslog,
        Protocol::Nats(nats) => panic!("{nats:?} is no syslog sink"),
    }
}

/// Waits until `condition` holds for the status.
pub(crate) async fn until(status: &StatusHandle, what: &str, condition: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let now = status.snapshot();
        if condition(&now) {
            return now;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about: {now:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
