//! A made-up host whose doings become the events that the sensor would publish. For this crate's tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bartizan_bus::event::{
    Alert, Auth, AuthSource, Body, BootId, Connect, EventId, EventTime, ExeFile, Exec, ExecId, Exit, Fork, Heartbeat, InetSocket, Outcome,
    Process, Relay, SecurityEvent, Seed, Severity, Stdio, StdioEnd, Transport,
};

use crate::config::Config;
use crate::detector::{Context, Detector, step};
use crate::lineage::Lineage;
use crate::panel::Panel;

/// Wall clock minus boot clock of the made-up host.
const WALL_OFFSET: i64 = 1_700_000_000_000_000_000;

pub(crate) fn exec_id(pid: u32, exec: u32) -> ExecId {
    ExecId { boot: BootId(1), start_ns: 0, pid, exec }
}

#[derive(Clone)]
struct Known {
    start_ns: u64,
    exec: u32,
    parent: Option<ExecId>,
    ppid: Option<u32>,
    exe: String,
    argv: Vec<String>,
    owner: u32,
    deleted: bool,
}

pub(crate) struct Host {
    boot: BootId,
    now: u64,
    sequence: u32,
    known: BTreeMap<u32, Known>,
    events: Vec<SecurityEvent>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with_boot(1)
    }

    pub(crate) fn with_boot(boot: u64) -> Self {
        Self { boot: BootId(boot), now: 1_000_000_000, sequence: 0, known: BTreeMap::new(), events: Vec::new() }
    }

    pub(crate) fn take(&mut self) -> Vec<SecurityEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn advance(&mut self, ns: u64) {
        self.now += ns;
    }

    pub(crate) fn id(&mut self, pid: u32) -> ExecId {
        let boot = self.boot;
        let known = self.known(pid, 0);
        ExecId { boot, start_ns: known.start_ns, pid, exec: known.exec }
    }

    fn known(&mut self, pid: u32, ppid: u32) -> &mut Known {
        // Starts are a tick apart, off the tick's own boundary.
        self.now += 20_000_000;
        let start_ns = self.now / 10_000_000 * 10_000_000 + 1_234_567;
        let boot = self.boot;
        let parent = self.known.get(&ppid).filter(|_| ppid != pid).map(|known| ExecId {
            boot,
            start_ns: known.start_ns,
            pid: ppid,
            exec: known.exec,
        });
        self.known.entry(pid).or_insert_with(|| Known {
            start_ns,
            exec: 1,
            parent,
            ppid: (ppid != 0).then_some(ppid),
            exe: format!("/bin/unknown{pid}"),
            argv: vec!["unknown".to_owned()],
            owner: 0,
            deleted: false,
        })
    }

    fn process(&mut self, pid: u32) -> Process {
        let exec_id = self.id(pid);
        let known = self.known(pid, 0).clone();
        Process {
            parent: known.parent,
            ppid: known.ppid,
            name: known.exe.rsplit('/').next().unwrap_or_default().chars().take(15).collect(),
            exe: Some(ExeFile { path: known.exe, inode: Some(1), owner: Some(known.owner), deleted: known.deleted, ..ExeFile::default() }),
            argv: known.argv,
            cwd: Some("/tmp".to_owned()),
            uid: 1000,
            euid: 1000,
            user: Some("eve".to_owned()),
            ..Process::of(exec_id)
        }
    }

    fn push(&mut self, process: Option<Process>, body: Body) -> EventId {
        self.now += 1_000_000;
        self.sequence += 1;
        let id = EventId::from_kernel(self.boot, self.now, 0, self.sequence);
        let wall_ns = WALL_OFFSET + i64::try_from(self.now).unwrap_or(i64::MAX);
        self.events.push(SecurityEvent {
            id,
            time: EventTime { boot_ns: self.now, wall_ns },
            host: "testhost".into(),
            severity: Severity::Info,
            outcome: Outcome::Success,
            process: process.map(Arc::new),
            no_subject: None,
            tid: None,
            target_tid: None,
            body,
            target: None,
        });
        id
    }

    fn image(&mut self, pid: u32, ppid: u32, exe: &str, argv: &[&str]) {
        let known = self.known(pid, ppid);
        known.exe = exe.to_owned();
        known.argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    }

    pub(crate) fn seed(&mut self, pid: u32, ppid: u32, exe: &str, argv: &[&str]) {
        self.seed_with(pid, ppid, exe, argv, &[], None);
    }

    pub(crate) fn seed_with(&mut self, pid: u32, ppid: u32, exe: &str, argv: &[&str], stdio: &[StdioEnd], relay: Option<Relay>) -> EventId {
        self.image(pid, ppid, exe, argv);
        let process = self.process(pid);
        self.push(Some(process), Body::Seed(Seed { stdio: stdio_of(stdio), relay, sockets: Vec::new() }))
    }

    /// A seed from `/proc`: start in whole ticks, no count of images, the present parent, argv as it is now.
    pub(crate) fn seed_approximate(&mut self, pid: u32, ppid: u32, exe: &str, argv: &[&str]) {
        self.seed_approximate_with(pid, ppid, exe, argv, &[], None);
    }

    pub(crate) fn seed_approximate_with(
        &mut self,
        pid: u32,
        ppid: u32,
        exe: &str,
        argv: &[&str],
        stdio: &[StdioEnd],
        relay: Option<Relay>,
    ) {
        let mut process = {
            self.known(pid, ppid);
            self.process(pid)
        };
        process.approximate = true;
        process.exec_id.exec = 0;
        process.exec_id.start_ns -= process.exec_id.start_ns % 10_000_000;
        process.ppid = (ppid != 0).then_some(ppid);
        process.parent = (ppid != 0 && ppid != pid).then(|| self.id(ppid));
        process.argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        if let Some(file) = &mut process.exe {
            file.path = exe.to_owned();
        }
        self.push(Some(process), Body::Seed(Seed { stdio: stdio_of(stdio), relay, sockets: Vec::new() }));
    }

    /// Sets owner and link count of the program that `pid` runs.
    pub(crate) fn file(&mut self, pid: u32, owner: u32, deleted: bool) {
        let known = self.known(pid, 0);
        known.owner = owner;
        known.deleted = deleted;
    }

    pub(crate) fn fork(&mut self, parent: u32, child: u32) {
        let image = self.known(parent, 0).clone();
        self.known.remove(&child);
        let known = self.known(child, parent);
        known.exe = image.exe;
        known.argv = image.argv;
        known.owner = image.owner;
        known.deleted = image.deleted;
        let (subject, child) = (self.process(parent), self.process(child));
        self.push(Some(subject), Body::Fork(Fork { child: child.into(), namespaces: Vec::new() }));
    }

    pub(crate) fn exec(&mut self, pid: u32, exe: &str, argv: &[&str]) {
        self.exec_with(pid, exe, argv, &[], None);
    }

    pub(crate) fn exec_with(&mut self, pid: u32, exe: &str, argv: &[&str], stdio: &[StdioEnd], relay: Option<Relay>) -> EventId {
        self.exec_as(pid, exe, exe, argv, stdio, relay)
    }

    pub(crate) fn exec_as(
        &mut self,
        pid: u32,
        exe: &str,
        requested: &str,
        argv: &[&str],
        stdio: &[StdioEnd],
        relay: Option<Relay>,
    ) -> EventId {
        self.image(pid, 0, exe, argv);
        let known = self.known(pid, 0);
        known.exec += 1;
        (known.owner, known.deleted) = (0, false);
        let process = self.process(pid);
        let body = Exec { requested: Some(requested.to_owned()), error: None, stdio: stdio_of(stdio), relay, ..Exec::default() };
        self.push(Some(process), Body::Exec(body))
    }

    pub(crate) fn exit(&mut self, pid: u32) {
        let process = self.process(pid);
        self.push(Some(process), Body::Exit(Exit { code: Some(0), signal: None, core_dumped: false }));
    }

    /// The pid is given to another process.
    pub(crate) fn restart_pid(&mut self, pid: u32) {
        self.known.remove(&pid);
    }

    pub(crate) fn connect(&mut self, pid: u32, socket: InetSocket) -> EventId {
        let process = self.process(pid);
        self.push(Some(process), Body::Connect(Connect { socket, error: None, duration_ns: None, peer_from_caller: false, domain: None }))
    }

    /// A step of an authentication in process `pid`.
    /// A service of root's, which belongs to the login whose session it opens.
    fn service(&mut self, pid: u32, outcome: Outcome, body: &Body) -> Process {
        let login = match body {
            Body::SessionOpen(auth) if outcome == Outcome::Success => Some(auth.login),
            _ => None,
        };
        Process { euid: 0, login, ..self.process(pid) }
    }

    /// As a service of root's tells it.
    pub(crate) fn auth(&mut self, pid: u32, outcome: Outcome, body: Body) -> EventId {
        let process = self.service(pid, outcome, &body);
        let id = self.push(Some(process), body);
        if let Some(event) = self.events.last_mut() {
            event.outcome = outcome;
        }
        id
    }

    /// What PAM answers to the password that `who` gives in process `pid`: `result` as in `security/_pam_types.h`.
    pub(crate) fn pam(&mut self, pid: u32, who: &Client<'_>, result: i32) -> EventId {
        let auth = Auth { service: Some(who.service.to_owned()), pam_result: Some(result), ..who.auth(AuthSource::Pam) };
        self.auth(pid, if result == 0 { Outcome::Success } else { Outcome::Failure }, Body::Authenticate(auth))
    }

    /// What sshd logs of an attempt.
    pub(crate) fn sshd_log(&mut self, pid: u32, who: &Client<'_>, method: &str, outcome: Outcome) -> EventId {
        let auth = Auth { method: Some(method.to_owned()), ..who.auth(AuthSource::SshdLog) };
        self.auth(pid, outcome, Body::Authenticate(auth))
    }

    /// PAM opens the session of a login in process `pid`.
    pub(crate) fn session(&mut self, pid: u32, who: &Client<'_>) -> EventId {
        let auth = Auth { service: Some(who.service.to_owned()), pam_result: Some(0), ..who.auth(AuthSource::Pam) };
        self.auth(pid, Outcome::Success, Body::SessionOpen(auth))
    }

    pub(crate) fn heartbeat(&mut self) {
        self.push(None, Body::Heartbeat(Heartbeat { uptime_s: 1 }));
    }

    pub(crate) fn relay(&mut self, by: u32, fds: &[u8], sockets: &[InetSocket]) -> Option<Relay> {
        Some(Relay { by: Some(self.id(by)), pid: by, fds: fds.to_vec(), sockets: sockets.to_vec(), truncated: false })
    }
}

/// Who proves to be whom from where, in one connection or one call of `su`.
#[derive(Clone)]
pub(crate) struct Client<'a> {
    pub(crate) login: u64,
    pub(crate) service: &'a str,
    pub(crate) user: &'a str,
    pub(crate) rhost: &'a str,
    pub(crate) ruser: &'a str,
    pub(crate) tty: &'a str,
}

impl<'a> Client<'a> {
    pub(crate) fn ssh(login: u64, user: &'a str, rhost: &'a str) -> Self {
        Self { login, service: "sshd", user, rhost, ruser: "", tty: "ssh" }
    }

    pub(crate) fn local(login: u64, service: &'a str, user: &'a str, ruser: &'a str) -> Self {
        Self { login, service, user, rhost: "", ruser, tty: "/dev/pts/3" }
    }

    fn auth(&self, source: AuthSource) -> Auth {
        Auth {
            user: Some(self.user.to_owned()),
            rhost: Some(self.rhost.to_owned()),
            peer_ip: self.rhost.parse().ok(),
            ruser: Some(self.ruser.to_owned()),
            tty: Some(self.tty.to_owned()),
            ..Auth::of(source, login_id(self.login))
        }
    }
}

/// The id of the made-up login of this number.
pub(crate) fn login_id(number: u64) -> EventId {
    EventId::from_kernel(BootId(1), number, 7, 0)
}

fn stdio_of(ends: &[StdioEnd]) -> Vec<Stdio> {
    ends.iter().zip(0u8..).map(|(end, fd)| Stdio { fd, end: end.clone() }).collect()
}

pub(crate) fn tcp(local_port: u16, peer: &str, peer_port: u16) -> InetSocket {
    InetSocket {
        transport: Transport::Tcp,
        local_ip: "10.0.0.5".parse().ok(),
        local_port: Some(local_port),
        peer_ip: peer.parse::<IpAddr>().ok(),
        peer_port: Some(peer_port),
        connected: true,
        inode: Some(u64::from(local_port) + 100_000),
    }
}

pub(crate) fn inet(socket: InetSocket) -> StdioEnd {
    StdioEnd::Inet { socket }
}

pub(crate) fn pipe(inode: u64) -> StdioEnd {
    StdioEnd::Pipe { inode }
}

pub(crate) fn tty(name: &str) -> StdioEnd {
    StdioEnd::Tty { name: name.to_owned() }
}

pub(crate) fn unix(inode: u64, peer: u64) -> StdioEnd {
    StdioEnd::Unix { inode, peer_inode: Some(peer) }
}

pub(crate) fn null() -> StdioEnd {
    StdioEnd::Device { device: 0x103 }
}

/// Feeds `events` in order, as the engine does; sequences begin at 1.
pub(crate) fn run(detector: &mut dyn Detector, lineage: &mut Lineage, first_seq: u64, events: &[SecurityEvent]) -> Vec<Alert> {
    let (mut alerts, description) = (Vec::new(), detector.describe());
    for (event, seq) in events.iter().zip(first_seq..) {
        lineage.observe(event);
        alerts.extend(step(detector, &description, event, &Context { seq, lineage }));
    }
    alerts
}

impl Host {
    /// Any event, by `pid` or by nobody.
    pub(crate) fn publish(&mut self, pid: Option<u32>, outcome: Outcome, body: Body) -> EventId {
        let process = pid.map(|pid| self.service(pid, outcome, &body));
        let id = self.push(process, body);
        self.events.iter_mut().filter(|event| event.id == id).for_each(|event| event.outcome = outcome);
        id
    }
}

/// What may follow a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Guessed, logged in, reverse shell in that login.
    Whole,
    /// The shell was there before the guessing was.
    ShellFirst,
    /// The shell is in the login of somebody else who comes from the same address.
    OtherLogin,
    /// A login after two typos, and a reverse shell in it.
    TwoTypos,
}

/// The events of `kind`, and the alerts that the detectors raise.
pub(crate) fn chain(kind: Chain) -> (Vec<SecurityEvent>, Vec<Alert>) {
    const PEER: &str = "203.0.113.9";
    let mut host = Host::new();
    host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
    host.seed(50, 1, "/usr/sbin/sshd", &["sshd"]);
    let shell = |host: &mut Host, below: u32, port: u16| {
        let socket = tcp(port, "198.51.100.66", 4444);
        let pid = below + 5;
        host.fork(below, pid);
        host.connect(pid, socket);
        host.exec_with(pid, "/usr/bin/bash", &["bash", "-i"], &[inet(socket), inet(socket), inet(socket)], None);
    };
    let log_in = |host: &mut Host, monitor: u32, client: &Client<'_>| {
        host.pam(monitor, client, 0);
        host.session(monitor, client);
        host.fork(monitor, monitor + 1);
        host.fork(monitor + 1, monitor + 2);
        host.exec(monitor + 2, "/usr/bin/bash", &["-bash"]);
    };
    if kind == Chain::ShellFirst {
        shell(&mut host, 50, 41_000);
    }
    for number in 0..if kind == Chain::TwoTypos { 2 } else { 12 } {
        host.advance(2_000_000_000);
        host.fork(50, 200 + number);
        host.pam(200 + number, &Client::ssh(number.into(), "alice", PEER), 7);
        host.exit(200 + number);
    }
    host.fork(50, 300);
    log_in(&mut host, 300, &Client::ssh(90, "alice", PEER));
    match kind {
        Chain::Whole | Chain::TwoTypos => shell(&mut host, 302, 42_000),
        Chain::ShellFirst => {}
        Chain::OtherLogin => {
            host.fork(50, 400);
            log_in(&mut host, 400, &Client::ssh(91, "bob", PEER));
            shell(&mut host, 402, 43_000);
        }
    }
    let events = host.take();
    let mut panel = Panel::new(&Config::default());
    let raised = events.iter().zip(1..).flat_map(|(event, seq)| panel.observe(seq, event));
    let alerts = raised.map(|raised| raised.alert).collect();
    (events, alerts)
}
