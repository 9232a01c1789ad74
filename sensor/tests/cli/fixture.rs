//! A data folder filled through the bus, and the real program run on it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bartizan_bus::event::{
    Alert, AlertId, Attack, Body, BootId, Confidence, Connect, Entity, EventId, EventTime, Exec, ExecId, Exit, Fork, InetSocket,
    LineageEntry, Outcome, Process, SecurityEvent, Severity, Status, Transport, encode_alert, encode_event,
};
use bartizan_bus::{Bus, BusConfig, Message, StreamName};

/// For anything that is awaited: only a hang meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A data folder with an open bus.
pub(crate) struct Host {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) bus: Bus,
    config: BusConfig,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(BusConfig::default())
    }

    pub(crate) fn with(config: BusConfig) -> Self {
        let temp = tempfile::tempdir().expect("temp folder");
        let bus = Bus::open(&temp.path().join("data"), &config).expect("bus");
        Self { temp, bus, config }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    /// The bus closed and opened again: everything is in files.
    pub(crate) fn reopened(self) -> Self {
        let Self { temp, bus, config } = self;
        bus.close().expect("close");
        drop(bus);
        let bus = Bus::open(&temp.path().join("data"), &config).expect("bus");
        Self { temp, bus, config }
    }

    pub(crate) fn event(&self, event: &SecurityEvent) {
        self.raw(StreamName::Events, event.time.wall_ns, encode_event(event));
    }

    pub(crate) fn alert(&self, alert: &Alert) {
        self.raw(StreamName::Alerts, alert.time.wall_ns, encode_alert(alert));
    }

    pub(crate) fn raw(&self, stream: StreamName, time_ns: i64, payload: Vec<u8>) {
        let subject = "sec.test".parse().expect("subject");
        self.bus.stream(stream).append(Message { subject, msg_id: None, time_ns, payload: payload.into() }).expect("append");
    }

    /// `bartizan <args> --data-dir <this>`, in UTC and with no environment that changes its output.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bartizan(args);
        command.arg("--data-dir").arg(self.data_dir());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }
}

/// The program, with a clean environment.
pub(crate) fn bartizan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    command.args(args).env("TZ", "UTC").env_remove("RUST_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// What a finished run said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Standard output as NDJSON: every line is one object.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let objects: Vec<_> = self.stdout.lines().map(parse).collect();
        assert!(objects.iter().all(serde_json::Value::is_object));
        objects
    }

    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.json().iter().map(|object| object["seq"].as_u64().expect("a sequence")).collect()
    }
}

/// A run that goes on; ended when dropped.
pub(crate) struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends, and closes the pipe, when the test no longer wants lines.
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line comes")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 2023-11-14 22:13:20 UTC plus `seconds`.
pub(crate) fn at(seconds: u32) -> EventTime {
    let offset = u64::from(seconds) * 1_000_000_000;
    EventTime { boot_ns: offset, wall_ns: 1_700_000_000_000_000_000 + i64::try_from(offset).expect("fits") }
}

fn exec_id(pid: u32) -> ExecId {
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

pub(crate) fn event(seconds: u32, process: Process, body: Body) -> SecurityEvent {
    SecurityEvent {
        id: EventId([7; 20]),
        time: at(seconds),
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

pub(crate) fn exec(seconds: u32, pid: u32, argv: &[&str]) -> SecurityEvent {
    event(seconds, process(pid, argv[0], argv), Body::Exec(Exec::default()))
}

pub(crate) fn fork(seconds: u32, parent: u32, child: u32) -> SecurityEvent {
    event(seconds, process(parent, "sh", &["sh"]), Body::Fork(Fork { child: process(child, "sh", &["sh"]).into(), namespaces: Vec::new() }))
}

pub(crate) fn exit(seconds: u32, pid: u32) -> SecurityEvent {
    event(seconds, process(pid, "sh", &["sh"]), Body::Exit(Exit { code: Some(0), ..Exit::default() }))
}

pub(crate) fn connect(seconds: u32, pid: u32) -> SecurityEvent {
    let socket = peer();
    event(
        seconds,
        process(pid, "curl", &["curl"]),
        Body::Connect(Connect { socket, error: None, duration_ns: None, peer_from_caller: false, domain: None }),
    )
}

fn peer() -> InetSocket {
    InetSocket {
        transport: Transport::Tcp,
        local_ip: Some("10.0.0.1".parse().expect("address")),
        local_port: Some(5555),
        peer_ip: Some("203.0.113.9".parse().expect("address")),
        peer_port: Some(443),
        connected: true,
        inode: None,
    }
}

fn ancestor(pid: u32, name: &str) -> LineageEntry {
    let Process { exec_id, argv, uid, user, .. } = process(pid, name, &[name, "-i"]);
    LineageEntry { exec_id, pid, name: name.to_owned(), exe: None, argv, uid, user, tty: None, exited: false, approximate: false }
}

pub(crate) fn alert(seconds: u32, id: u8, revision: u32, severity: Severity) -> Alert {
    Alert {
        id: AlertId([id; 16]),
        revision,
        time: at(seconds),
        host: "host1".to_owned(),
        detector: "runtime_watcher".to_owned(),
        rule: "runtime_watcher.reverse_shell".to_owned(),
        title: format!("Reverse shell {id}"),
        severity,
        confidence: Confidence::High,
        attack: vec![Attack { tactic: "TA0002".to_owned(), technique: "T1059.004".to_owned() }],
        entities: vec![Entity::Socket { socket: peer() }],
        evidence: vec![EventId([7; 20])],
        trigger_seq: 1,
        lineage: vec![ancestor(300, "bash"), ancestor(200, "python3"), ancestor(100, "sshd")],
        explanation: "bash talks to 203.0.113.9:443.".to_owned(),
        next_steps: vec!["Isolate the host.".to_owned()],
        status: Status::Open,
        login: None,
    }
}

/// Runs `command` as a user who owns nothing. As root that is uid 65534, with a copy of the program that it can reach; else
/// it is this user, and the caller takes the permissions away.
pub(crate) fn as_nobody(args: &[&str], place: &Path) -> Command {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        return bartizan(args);
    }
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    let copy = place.join("bartizan");
    // Not copied by this process: a child that another test forks meanwhile would hold the copy open for writing (ETXTBSY).
    let copied = Command::new("install").args(["-m", "755", env!("CARGO_BIN_EXE_bartizan")]).arg(&copy).status().expect("install");
    assert!(copied.success());
    let mut command = Command::new(copy);
    command.args(args).env("TZ", "UTC").uid(65_534).gid(65_534).current_dir("/").stdin(Stdio::null());
    command
}
