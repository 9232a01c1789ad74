//! One event on one line.

mod access;
mod acts;
mod files;
mod flows;
mod kernel;
mod peers;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use bartizan_bus::event::{
    Body, Connect, ExeHash, Exec, ExecId, Exit, Gap, InetSocket, Loss, NotHashed, Process, Relay, SecurityEvent, Severity, Start, Stdio,
    StdioEnd, Transport,
};
use jiff::tz::TimeZone;

use super::clock::{local, uptime};
use super::escape::{command_line, escape, quote};
use super::paint::Paint;

/// Process names remembered for naming parents.
const NAMES: usize = 65_536;

/// Width of the kind column: the longest kind.
const KIND_WIDTH: usize = 20;

/// Width of the user column.
const USER_WIDTH: usize = 8;

/// Width of the process column; longer ones push the rest of their line.
const PROCESS_WIDTH: usize = 32;

/// Renders events, and remembers names from the ones it saw.
pub(crate) struct EventLines {
    paint: Paint,
    zone: TimeZone,
    names: Names,
}

impl EventLines {
    pub(crate) fn new(paint: Paint, zone: TimeZone) -> Self {
        Self { paint, zone, names: Names::default() }
    }

    /// To be called with every event of the stream in order, also with those that are not shown.
    pub(crate) fn observe(&mut self, event: &SecurityEvent) {
        if let Some(process) = &event.process {
            self.names.insert(process);
        }
        if let Body::Fork(fork) = &event.body {
            self.names.insert(&fork.child);
        }
    }

    /// The line, without its line feed.
    pub(crate) fn render(&self, event: &SecurityEvent) -> String {
        let Self { paint, zone, names } = self;
        let user = event.process.as_deref().map(user).unwrap_or_default();
        let process = match &event.process {
            Some(process) => process_cell(process, names),
            None => escape(event.no_subject.as_deref().unwrap_or("-")),
        };
        let what = self.what(event);
        let target = event.target.as_ref().map(|target| format!(" → {}", target_cell(target, event.target_tid))).unwrap_or_default();
        let kind = format!("{:<KIND_WIDTH$}", event.kind());
        let kind = match event.severity {
            Severity::Info => paint.cyan(&kind),
            severity => paint.severity(severity, &kind),
        };
        let container = event.process.as_deref().and_then(container);
        let container = container.map(|container| paint.dim(&format!("  [container {container}]"))).unwrap_or_default();
        let line = format!(
            "{} {} {kind} {user:<USER_WIDTH$} {process:<PROCESS_WIDTH$} {what}{target}{container}",
            paint.dim(&local(event.time.wall_ns, zone)),
            icon(&event.body),
        );
        line.trim_end().to_owned()
    }

    fn what(&self, event: &SecurityEvent) -> String {
        let (paint, process) = (self.paint, event.process.as_deref());
        match &event.body {
            Body::Exec(Exec { requested, error: Some(error), requested_truncated, .. }) => {
                let path = requested.as_deref().map_or_else(|| "an unknown path".to_owned(), quote);
                let more = if *requested_truncated { "..." } else { "" };
                paint.red(&format!("{path}{more}: failed, {}", error.name()))
            }
            Body::Exec(Exec { error: None, stdio, relay, environment, .. }) => {
                self.image(process, stdio, relay.as_ref()) + &self.environment(environment)
            }
            Body::Seed(seed) => self.image(process, &seed.stdio, seed.relay.as_ref()),
            Body::Fork(fork) => format!("→ {}({}){}", escape(&fork.child.name), fork.child.pid, acts::made(&fork.namespaces)),
            Body::ExeHash(hash) => self.exe_hash(process, hash),
            Body::Exit(exit) => self.exit(exit),
            Body::Connect(connect) => self.connect(connect),
            Body::Start(start) => self.start(start),
            Body::Stop(stop) => escape(&stop.reason),
            Body::Heartbeat(heartbeat) => format!("up {}", uptime(heartbeat.uptime_s)),
            Body::Loss(loss) => paint.red(&lost(loss)),
            Body::Gap(gap) => paint.yellow(&self.gap(gap)),
            Body::Accept(body) => access::accept(body),
            Body::Listen(body) => access::listen(body),
            Body::Probe(body) => access::probe(body),
            Body::Syn(body) => access::syn(body),
            Body::UnixConnect(body) => peers::unix_connect(body),
            Body::VsockConnect(body) => peers::vsock_connect(body),
            Body::VsockAccept(body) => peers::vsock_accept(body),
            Body::Credentials(body) => access::credentials(body),
            Body::Signal(body) => acts::signal(body),
            Body::Access(body) => acts::access(body),
            Body::Namespaces(body) => acts::namespaces(body),
            Body::Rename(body) => acts::rename(body),
            Body::Chroot(body) => acts::chroot(body),
            Body::Seccomp(body) => acts::seccomp(body),
            Body::Memfd(body) => acts::memfd(body),
            Body::MemoryExec(body) => acts::memory_exec(body),
            Body::Prctl(body) => acts::prctl(body),
            Body::IoUring(body) => acts::io_uring(body),
            Body::IoUringOp(body) => acts::io_uring_op(body),
            Body::CgroupMove(body) => acts::cgroup_move(body),
            Body::Capabilities(body) => acts::capabilities(body),
            Body::Bind(body) => flows::bind(body),
            Body::FlowEnd(body) => flows::flow_end(body),
            Body::RawSocket(body) => flows::raw_socket(body),
            Body::Dns(body) => wire::dns(body),
            Body::Tls(body) => wire::tls(body),
            Body::Http(body) => wire::http(body),
            Body::Ssh(body) => wire::ssh(body),
            Body::UdpFlow(body) => wire::udp_flow(body),
            Body::Sysctl(body) => kernel::sysctl(body),
            Body::BpfLoad(body) | Body::BpfUnload(body) => kernel::bpf_program(body),
            Body::BpfAttach(body) => kernel::bpf_attach(body),
            Body::Module(body) => kernel::module(body),
            Body::Kexec(body) => kernel::kexec(body),
            Body::Lockdown(body) => kernel::lockdown(body),
            Body::KernelProbe(body) => kernel::probe(body),
            Body::Helper(body) => kernel::helper(body),
            Body::Health(body) => kernel::health(body, paint),
            Body::AccountChange(body) => access::account_change(body),
            Body::Groups(body) => access::groups(body),
            Body::FileOpen(body) => files::open(body),
            Body::FileCreate(body) => files::create(body),
            Body::FileRename(body) => files::rename(body),
            Body::FileUnlink(body) => files::unlink(body),
            Body::FileLink(body) => files::link(body),
            Body::FileAttributes(body) => files::attributes(body),
            Body::FileXattr(body) => files::xattr(body),
            Body::Mount(body) => files::mount(body),
            Body::Umount(body) => files::umount(body),
            Body::FileWrite(body) => files::write(body),
            Body::AuthStart(body)
            | Body::Authenticate(body)
            | Body::Account(body)
            | Body::SessionOpen(body)
            | Body::SessionClose(body)
            | Body::PasswordChange(body)
            | Body::InvalidUser(body) => access::auth(body, event.outcome, paint),
        }
    }

    fn image(&self, process: Option<&Process>, stdio: &[Stdio], relay: Option<&Relay>) -> String {
        let mut out = process.map(|process| self.command(process)).unwrap_or_default();
        if let Some(network) = stdio_network(stdio) {
            out.push_str("  ");
            out.push_str(&self.paint.yellow(&network));
        }
        if let Some(relay) = relay {
            let fds = relay.fds.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
            // One entry a descriptor: a relay that duplicated its socket has it several times.
            let mut sockets: Vec<String> = Vec::new();
            for socket in relay.sockets.iter().map(socket) {
                if !sockets.contains(&socket) {
                    sockets.push(socket);
                }
            }
            let sockets = sockets.join(", ");
            out.push_str("  ");
            out.push_str(&self.paint.yellow(&format!("fd {fds} held by {} with {sockets}", relay.pid)));
        }
        out
    }

    /// The names of the variables that were kept.
    fn environment(&self, environment: &[String]) -> String {
        let names: Vec<String> =
            environment.iter().map(|variable| escape(variable.split_once('=').map_or(variable.as_str(), |(name, _)| name))).collect();
        if names.is_empty() { String::new() } else { self.paint.dim(&format!("  env {}", names.join(","))) }
    }

    /// `/usr/bin/x sha256 ab...`.
    fn exe_hash(&self, process: Option<&Process>, hash: &ExeHash) -> String {
        let ExeHash { sha256, size, not_hashed } = hash;
        let path = process.and_then(Process::exe_path).map(quote).unwrap_or_default();
        match (sha256, not_hashed) {
            (Some(sha256), _) => format!("{path} sha256 {}", escape(sha256)),
            (None, Some(NotHashed::TooLarge)) => format!("{path} is not hashed: its {size} bytes are too many"),
            (None, None) => format!("{path} is not hashed"),
        }
    }

    fn command(&self, process: &Process) -> String {
        let path = process.exe_path();
        let mut out = match process.argv.is_empty() {
            false => command_line(&process.argv, process.argv_truncated),
            true => path.map(quote).unwrap_or_default(),
        };
        if let Some(path) = path
            && process.argv.first().is_some_and(|argv0| argv0 != path)
        {
            out.push_str(&self.paint.dim(&format!("  exe {}", quote(path))));
        }
        if process.exe.as_ref().is_some_and(|exe| exe.deleted) {
            out.push_str("  ");
            out.push_str(&self.paint.yellow("(deleted file)"));
        }
        out
    }

    fn exit(&self, exit: &Exit) -> String {
        match exit {
            Exit { code, signal: Some(signal), core_dumped } => {
                let name = nix::sys::signal::Signal::try_from(*signal).map(|signal| format!(" {}", signal.as_str())).unwrap_or_default();
                let core = if *core_dumped { ", core dumped" } else { "" };
                let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
                self.paint.yellow(&format!("signal {signal}{name}{core}{code}"))
            }
            Exit { code: Some(code), signal: None, core_dumped: _ } => format!("code {code}"),
            Exit { code: None, signal: None, core_dumped: _ } => "how is not known".to_owned(),
        }
    }

    fn connect(&self, connect: &Connect) -> String {
        let Connect { socket: ends, error, duration_ns, peer_from_caller, domain } = connect;
        let result = match error {
            None => self.paint.green("ok"),
            Some(error) => self.paint.red(&error.name()),
        };
        let took = duration_ns.map(|ns| format!(" {}", milliseconds(ns))).unwrap_or_default();
        let doubt = if *peer_from_caller { self.paint.dim(" (peer as the caller said it)") } else { String::new() };
        let domain = domain.as_deref().map(|name| format!(" ({})", escape(name))).unwrap_or_default();
        format!("{}{domain} {result}{took}{doubt}", socket(ends))
    }

    fn start(&self, start: &Start) -> String {
        let Start { version, kernel, hooks, blind } = start;
        let list = |items: &[String]| items.iter().map(|item| escape(item)).collect::<Vec<_>>().join(", ");
        let mut out = format!("version {} on kernel {}, hooks: {}", escape(version), escape(kernel), list(hooks));
        if !blind.is_empty() {
            out.push_str(&self.paint.yellow(&format!("; blind: {}", list(blind))));
        }
        out
    }

    fn gap(&self, gap: &Gap) -> String {
        let Gap { reason, from_wall_ns, to_wall_ns, missing_sequences } = gap;
        let mut out = format!("nothing is known here: {}", escape(reason));
        if let Some(from) = from_wall_ns {
            out.push_str(&format!(", from {}", local(*from, &self.zone)));
        }
        if let Some(to) = to_wall_ns {
            out.push_str(&format!(", until {}", local(*to, &self.zone)));
        }
        if let Some(missing) = missing_sequences {
            out.push_str(&format!(", {missing} sequences missing"));
        }
        out
    }
}

/// All of one width (two cells) and without variation selectors, so that columns stay aligned.
fn icon(body: &Body) -> &'static str {
    match body {
        Body::Exec(Exec { error: Some(_), .. }) => "🚫",
        Body::Exec(Exec { error: None, .. }) => "🚀",
        Body::Fork(_) => "🌱",
        Body::ExeHash(_) => "🧬",
        Body::Exit(_) => "💥",
        Body::Seed(_) => "📌",
        Body::Connect(_) => "🔌",
        Body::Start(_) => "🟢",
        Body::Stop(_) => "🔴",
        Body::Heartbeat(_) => "💓",
        Body::Loss(_) => "🚨",
        Body::Gap(_) => "🚧",
        Body::Accept(_) => "📥",
        Body::Listen(_) => "👂",
        Body::Probe(_) => "🔎",
        Body::Syn(_) => "🌊",
        Body::UnixConnect(_) => "🧷",
        Body::VsockConnect(_) | Body::VsockAccept(_) => "🛸",
        Body::Credentials(_) => "🎭",
        Body::Signal(_) => "🔔",
        Body::Access(_) => "💉",
        Body::Namespaces(_) => "🌐",
        Body::Rename(_) => "📛",
        Body::Chroot(_) => "📦",
        Body::Seccomp(_) => "🧱",
        Body::Memfd(_) => "👥",
        Body::MemoryExec(_) => "🧨",
        Body::Prctl(_) => "🔧",
        Body::IoUring(_) | Body::IoUringOp(_) => "💍",
        Body::CgroupMove(_) => "🚚",
        Body::Capabilities(_) => "🎩",
        Body::Bind(_) => "📎",
        Body::FlowEnd(_) => "🏁",
        Body::RawSocket(_) => "📡",
        Body::Dns(_) => "📖",
        Body::Tls(_) => "🔐",
        Body::Http(_) => "🌍",
        Body::Ssh(_) => "🐚",
        Body::UdpFlow(_) => "📮",
        Body::Sysctl(_) => "🔩",
        Body::BpfLoad(_) => "🐝",
        Body::BpfUnload(_) => "🍂",
        Body::BpfAttach(_) => "🪝",
        Body::Module(_) => "🧩",
        Body::Kexec(_) => "🔁",
        Body::Lockdown(_) => "⛔",
        Body::KernelProbe(_) => "📍",
        Body::Helper(_) => "🤖",
        Body::Health(_) => "🩺",
        Body::FileOpen(_) => "📂",
        Body::FileCreate(_) => "📁",
        Body::FileRename(_) => "📛",
        Body::FileUnlink(_) => "🧹",
        Body::FileLink(_) => "🔗",
        Body::FileAttributes(_) => "🔧",
        Body::FileXattr(_) => "📎",
        Body::Mount(_) => "💾",
        Body::Umount(_) => "💿",
        Body::FileWrite(_) => "📝",
        Body::AuthStart(_) => "🚪",
        Body::Authenticate(_) => "🔑",
        Body::Account(_) => "🪪",
        Body::SessionOpen(_) => "🔓",
        Body::SessionClose(_) => "🔒",
        Body::PasswordChange(_) => "🔏",
        Body::AccountChange(_) => "👥",
        Body::Groups(_) => "🧑",
        Body::InvalidUser(_) => "👻",
    }
}

fn user(process: &Process) -> String {
    let name = process.user.as_deref().map_or_else(|| process.uid.to_string(), escape);
    if process.euid == process.uid { name } else { format!("{name}→{}", process.euid) }
}

fn process_cell(process: &Process, names: &Names) -> String {
    let cell = format!("{}({})", escape(&process.name), process.pid);
    match (process.parent.as_ref().and_then(|parent| names.get(parent)), process.ppid) {
        (Some(name), Some(ppid)) => format!("{cell} ← {}({ppid})", escape(name)),
        (Some(name), None) => format!("{cell} ← {}", escape(name)),
        (None, Some(ppid)) => format!("{cell} ← {ppid}"),
        (None, None) => cell,
    }
}

/// `nginx(123)`, `nginx(123) thread 124`.
fn target_cell(target: &Process, tid: Option<u32>) -> String {
    let thread = tid.map(|tid| format!(" thread {tid}")).unwrap_or_default();
    format!("{}({}){thread}", escape(&target.name), target.pid)
}

/// The container's name, behind its pod's where it has one, and its short id: `shop/web-1/nginx 0123456789ab`.
fn container(process: &Process) -> Option<String> {
    let id = escape(&short(process.container.as_deref()?));
    let Some(info) = process.container_info.as_deref() else { return Some(id) };
    let pod = info.pod.as_ref().map(|pod| [pod.namespace.as_deref(), pod.name.as_deref()]).unwrap_or_default();
    let names: Vec<String> = pod.into_iter().chain([info.name.as_deref()]).flatten().map(escape).collect();
    Some(if names.is_empty() { id } else { format!("{} {id}", names.join("/")) })
}

/// The first twelve characters of a container id, as container tools show it.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// `tcp 10.0.0.1:5 → 1.2.3.4:443`.
pub(crate) fn socket(socket: &InetSocket) -> String {
    let InetSocket { transport, local_ip, local_port, peer_ip, peer_port, connected: _, inode: _ } = socket;
    let protocol = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Other => "ip",
    };
    match (local_ip, local_port) {
        (None, None) => format!("{protocol} → {}", end(*peer_ip, *peer_port)),
        _ => format!("{protocol} {} → {}", end(*local_ip, *local_port), end(*peer_ip, *peer_port)),
    }
}

/// `1.234 ms`.
pub(crate) fn milliseconds(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000)
}

/// `1.2.3.4:443`, `[::1]:443`; `?` for what is not known.
pub(crate) fn end(ip: Option<IpAddr>, port: Option<u16>) -> String {
    let ip = match ip {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        None => "?".to_owned(),
    };
    port.map_or_else(|| format!("{ip}:?"), |port| format!("{ip}:{port}"))
}

/// `fd 0,1,2 tcp 10.0.0.1:5 → 1.2.3.4:443` for the standard streams that are INET sockets.
fn stdio_network(stdio: &[Stdio]) -> Option<String> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for Stdio { fd, end } in stdio {
        if let StdioEnd::Inet { socket: inet } = end {
            let text = socket(inet);
            match groups.iter_mut().find(|(known, _)| *known == text) {
                Some((_, fds)) => fds.push(fd.to_string()),
                None => groups.push((text, vec![fd.to_string()])),
            }
        }
    }
    let parts: Vec<String> = groups.iter().map(|(socket, fds)| format!("fd {} {socket}", fds.join(","))).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn lost(loss: &Loss) -> String {
    let parts: Vec<String> =
        loss.lost.iter().map(|lost| format!("{} {} ({})", lost.count, escape(&lost.kind), escape(&lost.reason))).collect();
    format!("lost {}", parts.join(", "))
}

/// Names by image; the oldest make room.
#[derive(Default)]
struct Names {
    by_id: HashMap<ExecId, String>,
    order: VecDeque<ExecId>,
}

impl Names {
    fn insert(&mut self, process: &Process) {
        if self.by_id.insert(process.exec_id, process.name.clone()).is_none() {
            self.order.push_back(process.exec_id);
        }
        if self.order.len() > NAMES
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    fn get(&self, id: &ExecId) -> Option<&str> {
        self.by_id.get(id).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bartizan_bus::event::{ContainerInfo, Errno, ExeFile, Fork, Heartbeat, KindLoss, Pod, Seed, Stop};

    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::cli::samples::{event, exec_id, inet, process};

    fn lines() -> EventLines {
        EventLines::new(Paint::new(ColorChoice::Never, false, None), TimeZone::UTC)
    }

    fn render(event: &SecurityEvent) -> String {
        let mut lines = lines();
        lines.observe(event);
        lines.render(event)
    }

    #[test]
    fn an_exec_with_its_parent() {
        let mut lines = lines();
        lines.observe(&event(process(100, "sshd", &["sshd"]), Body::Seed(Seed::default())));
        let mut bash = process(200, "bash", &["bash", "-c", "echo 'hi there' | wc"]);
        bash.parent = Some(exec_id(100));
        bash.ppid = Some(100);
        bash.exe = Some(ExeFile { path: "/usr/bin/bash".into(), ..ExeFile::default() });
        assert_eq!(
            lines.render(&event(bash, Body::Exec(Exec::default()))),
            "2023-11-14 22:13:20.000 🚀 process.exec         alice    bash(200) ← sshd(100)            bash -c $'echo \\'hi there\\' | wc'  exe /usr/bin/bash"
        );
    }

    #[test]
    fn a_failed_exec_says_what_and_why() {
        let exec = Exec { requested: Some("/root/no such".into()), error: Some(Errno(13)), ..Exec::default() };
        assert_eq!(
            render(&event(process(200, "sh", &["sh"]), Body::Exec(exec))),
            "2023-11-14 22:13:20.000 🚫 process.exec         alice    sh(200)                          '/root/no such': failed, EACCES"
        );
    }

    #[test]
    fn sockets_as_standard_streams_are_shown() {
        let stdio = |fd| Stdio { fd, end: StdioEnd::Inet { socket: inet("10.0.0.1", 5, "1.2.3.4", 443) } };
        let exec = Exec { stdio: vec![stdio(0), stdio(1), stdio(2)], ..Exec::default() };
        assert!(render(&event(process(2, "sh", &["sh"]), Body::Exec(exec))).ends_with("sh  fd 0,1,2 tcp 10.0.0.1:5 → 1.2.3.4:443"));
        let relay = Relay { by: None, pid: 9, fds: vec![0, 1], sockets: vec![inet("::1", 5, "::2", 80); 2], truncated: false };
        let seed = Seed { stdio: Vec::new(), relay: Some(relay), sockets: Vec::new() };
        assert!(render(&event(process(2, "sh", &["sh"]), Body::Seed(seed))).ends_with("sh  fd 0,1 held by 9 with tcp [::1]:5 → [::2]:80"));
    }

    #[test]
    fn connects_with_their_result() {
        let connect = |error, local: bool| {
            let mut socket = inet("10.0.0.1", 5, "1.2.3.4", 443);
            if !local {
                (socket.local_ip, socket.local_port) = (None, None);
            }
            let body = Body::Connect(Connect { socket, error, duration_ns: Some(1_234_567), peer_from_caller: !local, domain: None });
            render(&event(process(3, "curl", &["curl"]), body))
        };
        assert!(connect(None, true).ends_with("curl(3)                          tcp 10.0.0.1:5 → 1.2.3.4:443 ok 1.234 ms"));
        assert!(connect(Some(Errno(111)), false).ends_with("tcp → 1.2.3.4:443 ECONNREFUSED 1.234 ms (peer as the caller said it)"));
    }

    #[test]
    fn ends_of_processes() {
        let exit = |exit| render(&event(process(4, "x", &[]), Body::Exit(exit)));
        assert!(
            exit(Exit { code: Some(3), ..Exit::default() })
                .ends_with("💥 process.exit         alice    x(4)                             code 3")
        );
        assert!(exit(Exit { signal: Some(11), core_dumped: true, ..Exit::default() }).ends_with("signal 11 SIGSEGV, core dumped"));
        assert!(exit(Exit::default()).ends_with("how is not known"));
    }

    #[test]
    fn what_the_sensor_says_of_itself() {
        let own = |body| {
            let mut event = event(process(1, "x", &[]), body);
            (event.process, event.no_subject) = (None, Some("sensor".into()));
            render(&event)
        };
        assert!(own(Body::Heartbeat(Heartbeat { uptime_s: 61 })).ends_with("up 00:01:01"));
        assert!(own(Body::Stop(Stop { reason: "SIGTERM".into() })).ends_with("SIGTERM"));
        let loss = Loss { lost: vec![KindLoss { kind: "process.exec".into(), reason: "ring_full".into(), count: 7 }] };
        assert!(own(Body::Loss(loss)).ends_with("lost 7 process.exec (ring_full)"));
        let gap = Gap { reason: "it was off".into(), from_wall_ns: Some(0), to_wall_ns: None, missing_sequences: Some(4) };
        assert!(own(Body::Gap(gap)).ends_with("nothing is known here: it was off, from 1970-01-01 00:00:00.000, 4 sequences missing"));
        let start = Start { version: "1".into(), kernel: "6.1".into(), hooks: vec!["exec (tp_btf)".into()], blind: vec!["UDP".into()] };
        assert!(own(Body::Start(start)).ends_with("version 1 on kernel 6.1, hooks: exec (tp_btf); blind: UDP"));
    }

    #[test]
    fn forks_containers_and_set_user_ids() {
        let mut parent = process(5, "runc", &[]);
        parent.container = Some("0123456789abcdef".into());
        (parent.user, parent.euid) = (None, 0);
        let line = render(&event(parent, Body::Fork(Fork { child: process(6, "runc", &[]).into(), namespaces: Vec::new() })));
        assert!(line.contains(" 1000→0 ") && line.ends_with("→ runc(6)  [container 0123456789ab]"), "{line}");
        let named = |pod: Option<Pod>| {
            let mut inside = process(7, "sh", &["sh"]);
            inside.container = Some("0123456789abcdef".into());
            inside.container_info = Some(Arc::new(ContainerInfo { name: Some("web".into()), pod, ..ContainerInfo::default() }));
            render(&event(inside, Body::Exit(Exit::default())))
        };
        assert!(named(None).ends_with("[container web 0123456789ab]"), "{}", named(None));
        let pod = Pod { name: Some("web-1".into()), namespace: Some("shop".into()), uid: None };
        assert!(named(Some(pod)).ends_with("[container shop/web-1/web 0123456789ab]"));
    }

    #[test]
    fn no_string_of_an_event_can_draw() {
        let evil = "\u{1b}]0;owned\u{7}\n\u{202e}\u{9b}2J";
        let mut bad = process(7, evil, &[evil, evil]);
        (bad.user, bad.container) = (Some(evil.into()), Some(evil.into()));
        let pod = Pod { name: Some(evil.into()), namespace: Some(evil.into()), uid: None };
        bad.container_info = Some(Arc::new(ContainerInfo { name: Some(evil.into()), pod: Some(pod), ..ContainerInfo::default() }));
        let mut lines = lines();
        let mut child = process(8, evil, &[evil]);
        (child.parent, child.ppid) = (Some(exec_id(7)), Some(7));
        let bodies = [
            Body::Exec(Exec::default()),
            Body::Exec(Exec { requested: Some(evil.into()), error: Some(Errno(2)), ..Exec::default() }),
            Body::Fork(Fork { child: bad.clone().into(), namespaces: Vec::new() }),
            Body::Stop(Stop { reason: evil.into() }),
            Body::Gap(Gap { reason: evil.into(), ..Gap::default() }),
            Body::Loss(Loss { lost: vec![KindLoss { kind: evil.into(), reason: evil.into(), count: 1 }] }),
            Body::Start(Start { version: evil.into(), kernel: evil.into(), hooks: vec![evil.into()], blind: vec![evil.into()] }),
        ];
        lines.observe(&event(bad.clone(), Body::Exec(Exec::default())));
        for body in bodies {
            for subject in [bad.clone(), child.clone()] {
                let line = lines.render(&event(subject, body.clone()));
                assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
            }
        }
    }

    #[test]
    fn remembered_names_are_bounded() {
        let mut names = Names::default();
        for pid in 0..=u32::try_from(NAMES).expect("fits") {
            names.insert(&process(pid, "x", &[]));
        }
        assert_eq!((names.by_id.len(), names.order.len()), (NAMES, NAMES));
        assert_eq!(names.get(&exec_id(0)), None);
    }
}
