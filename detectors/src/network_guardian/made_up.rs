//! A made-up network around the made-up host. For this module's tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bartizan_bus::event::{
    Accept, Alert, Auth, AuthSource, Body, Connect, Errno, EventId, InetSocket, Outcome, PROBE_PORTS, Probe, SecurityEvent, Transport,
};

use super::{NetworkGuardian, NetworkGuardianConfig};
use crate::lineage::Lineage;
use crate::testing::{Host, run, tcp};

pub(super) const REFUSED: Option<i32> = Some(111);
pub(super) const TIMEOUT: Option<i32> = Some(110);

pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const SSHD: u32 = 50;
pub(super) const SHELL: u32 = 100;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) struct Net {
    pub(super) host: Host,
    events: Vec<SecurityEvent>,
    /// Session of each process that has one.
    sessions: BTreeMap<u32, u32>,
    next_login: u64,
    client_port: u16,
}

impl Net {
    pub(super) fn new() -> Self {
        Self::with_boot(1 << 32)
    }

    /// Event ids begin with the upper half of `boot`.
    pub(super) fn with_boot(boot: u64) -> Self {
        let mut host = Host::with_boot(boot);
        host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
        host.seed(SSHD, 1, "/usr/sbin/sshd", &["sshd"]);
        host.seed(SHELL, SSHD, "/usr/bin/bash", &["-bash"]);
        let sessions = BTreeMap::from([(SHELL, SHELL)]);
        Self { host, events: Vec::new(), sessions, next_login: 0, client_port: 33_000 }
    }

    /// A child of `parent` runs `exe`, in its session.
    pub(super) fn start(&mut self, parent: u32, pid: u32, exe: &str, argv: &[&str]) {
        if let Some(session) = self.sessions.get(&parent) {
            self.sessions.insert(pid, *session);
        }
        self.host.fork(parent, pid);
        self.host.exec(pid, exe, argv);
    }

    /// `pid` leads a session of its own.
    pub(super) fn setsid(&mut self, pid: u32) {
        self.take_over();
        self.sessions.insert(pid, pid);
    }

    fn take_over(&mut self) {
        let sessions = &self.sessions;
        let events = self.host.take().into_iter().map(|mut event| {
            if let Some(process) = &mut event.process {
                Arc::make_mut(process).sid = sessions.get(&process.pid).copied();
            }
            if let Body::Fork(fork) = &mut event.body {
                Arc::make_mut(&mut fork.child).sid = sessions.get(&fork.child.pid).copied();
            }
            event
        });
        self.events.extend(events);
    }

    pub(super) fn events(&mut self) -> Vec<SecurityEvent> {
        self.take_over();
        std::mem::take(&mut self.events)
    }

    /// Time passes, with a heartbeat each minute.
    pub(super) fn wait(&mut self, seconds: u64) {
        let (minutes, rest) = (seconds / 60, seconds % 60);
        for _ in 0..minutes {
            self.host.advance(60 * SECOND);
            self.host.heartbeat();
        }
        self.host.advance(rest * SECOND);
    }

    fn probe(&mut self, transport: Transport, source: &str, ports: &[u16], packets: u64, tcp_flags: u8) {
        let body = Body::Probe(Probe {
            transport,
            source_ip: ip(source),
            local_ip: ip("10.0.0.5"),
            ports: ports.to_vec(),
            packets,
            span_ns: 1,
            tcp_flags,
        });
        self.host.publish(None, Outcome::Unknown, body);
    }

    /// TCP packets to closed ports, gathered as the sensor does.
    pub(super) fn tcp(&mut self, source: &str, ports: &[u16], flags: u8) {
        for ports in ports.chunks(PROBE_PORTS) {
            self.probe(Transport::Tcp, source, ports, ports.len() as u64, flags);
        }
    }

    /// UDP packets to closed ports.
    pub(super) fn udp(&mut self, source: &str, ports: &[u16]) {
        for ports in ports.chunks(PROBE_PORTS) {
            self.probe(Transport::Udp, source, ports, ports.len() as u64, 0);
        }
    }

    /// `packets` of `source` to these ports of ours.
    pub(super) fn answers(&mut self, source: &str, ports: &[u16], packets: u64, flags: u8) {
        self.probe(Transport::Tcp, source, ports, packets, flags);
    }

    /// `pid` takes a connection of `peer` to `port`.
    pub(super) fn accept(&mut self, pid: u32, port: u16, peer: &str) {
        self.client_port = if self.client_port == 60_000 { 33_000 } else { self.client_port + 1 };
        let socket = tcp(port, peer, self.client_port);
        self.host.publish(Some(pid), Outcome::Success, Body::Accept(Accept { socket }));
    }

    /// `pid` tries to connect; `errno` says how that ended.
    pub(super) fn connect(&mut self, pid: u32, peer: &str, port: u16, errno: Option<i32>) {
        let socket = InetSocket { connected: errno.is_none(), ..tcp(40_000, peer, port) };
        self.connect_socket(pid, socket, errno);
    }

    pub(super) fn connect_socket(&mut self, pid: u32, socket: InetSocket, errno: Option<i32>) {
        let outcome = if errno.is_none() { Outcome::Success } else { Outcome::Failure };
        let body = Connect { socket, error: errno.map(Errno), duration_ns: Some(1), peer_from_caller: false, domain: None };
        self.host.publish(Some(pid), outcome, Body::Connect(body));
    }

    /// A login of `peer` at sshd, as `source` tells it.
    pub(super) fn login(&mut self, peer: &str, source: AuthSource, outcome: Outcome) {
        self.next_login += 1;
        let mut login = [0; 20];
        login[..8].copy_from_slice(&self.next_login.to_be_bytes());
        let auth = Auth { peer_ip: Some(ip(peer)), ..Auth::of(source, EventId(login)) };
        self.host.publish(Some(SSHD), outcome, Body::Authenticate(auth.clone()));
        if outcome == Outcome::Success && source == AuthSource::Pam {
            self.host.publish(Some(SSHD), outcome, Body::SessionOpen(auth));
        }
    }

    pub(super) fn alerts(&mut self) -> Vec<Alert> {
        self.alerts_with("")
    }

    pub(super) fn alerts_with(&mut self, config: &str) -> Vec<Alert> {
        let config: NetworkGuardianConfig = toml::from_str(config).expect("configuration");
        let events = self.events();
        run(&mut NetworkGuardian::new(&config), &mut Lineage::new(1000), 1, &events)
    }
}

/// (rule without its module, revision) of each alert.
pub(super) fn told(alerts: &[Alert]) -> Vec<(&str, u32)> {
    let rule = |alert: &'_ Alert| -> usize { alert.detector.len() + 1 };
    alerts.iter().map(|alert| (&alert.rule[rule(alert)..], alert.revision)).collect()
}

/// So many ports from `first` on.
pub(super) fn ports(first: u16, number: u16) -> Vec<u16> {
    (first..first + number).collect()
}
