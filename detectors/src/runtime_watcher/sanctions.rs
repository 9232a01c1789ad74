//! Who may put a shell on a connection: login services, and the services that the configuration names.

use bartizan_bus::event::{InetSocket, Process};

use super::processes::Proc;
use super::sockets::Connections;
use crate::config::{ReverseShellConfig, Service};

/// Programs that give a shell to whoever logs in: exact paths as the kernel resolves them.
pub const LOGIN_SERVICES: &[&str] = &[
    "/usr/sbin/sshd",
    "/usr/lib/openssh/sshd-session",
    "/usr/lib/ssh/sshd-session",
    "/usr/libexec/sshd-session",
    "/usr/libexec/openssh/sshd-session",
    "/usr/sbin/dropbear",
    "/usr/sbin/dropbearmulti",
    "/usr/bin/dropbearmulti",
    "/usr/sbin/in.telnetd",
    "/usr/sbin/telnetd",
    "/usr/libexec/telnetd",
    "/usr/sbin/in.rlogind",
    "/usr/sbin/in.rshd",
    "/usr/bin/mosh-server",
    "/usr/bin/etserver",
];

/// The exceptions in force.
#[derive(Debug, Clone)]
pub(super) struct Sanctions {
    login: Vec<String>,
    services: Vec<Service>,
}

impl Sanctions {
    pub(super) fn new(config: &ReverseShellConfig) -> Self {
        let login = LOGIN_SERVICES.iter().map(|path| (*path).to_owned()).chain(config.extra_login_services.iter().cloned()).collect();
        Self { login, services: config.services.clone() }
    }

    /// Whether `relay` is a login service on a connection that came in. It must be the very file, owned by root and
    /// still there; a program that only calls itself so is not.
    pub(super) fn login(&self, relay: &Process, sockets: &[InetSocket], connections: &Connections) -> bool {
        let Some(exe) = &relay.exe else { return false };
        // A session may also carry forwarded connections that go out, so one that came in is enough.
        let came_in = sockets.iter().any(|socket| connections.opened(socket).is_none());
        let genuine = exe.owner == Some(0) && !exe.deleted && !exe.path_truncated;
        genuine && came_in && self.login.contains(&exe.path)
    }

    /// Whether a configured service puts `proc` on `sockets`. `exe` is its executed file; `parent` the executed file
    /// of its parent, or of the relay.
    pub(super) fn service(
        &self,
        proc: &Proc,
        exe: Option<&str>,
        parent: Option<&str>,
        sockets: &[InetSocket],
        connections: &Connections,
    ) -> bool {
        self.services.iter().any(|service| {
            let Service { name: _, program, local_port, parent: under, outbound_peers } = service;
            let handler = [exe, proc.requested.as_deref(), proc.script.as_deref()].contains(&Some(program.as_str()));
            let below = under.as_deref().is_none_or(|under| parent == Some(under));
            handler
                && below
                && sockets.iter().all(|socket| {
                    let port = local_port.is_none() || *local_port == socket.local_port;
                    let outbound = connections.opened(socket).is_some();
                    let peer = || socket.peer_ip.is_some_and(|ip| outbound_peers.iter().any(|peer| peer.contains(ip, socket.peer_port)));
                    port && (!outbound || peer())
                })
        })
    }
}
