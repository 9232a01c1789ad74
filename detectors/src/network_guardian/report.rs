//! What the rules say when they found something.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use bartizan_bus::event::{Attack, Confidence, Entity, ExecId, LineageEntry, Severity};

use super::episode::Episode;
use super::hammering::{self, Source, Told};
use super::origin::Origin;
use super::packets::{way, ways_text};
use super::{raw_out, scan_in, scan_out};
use crate::detector::{Context, EntityKey, Finding};
use crate::lineage::Node;
use crate::period::duration_text;

/// Hosts that an alert carries as entities, at most.
const MAX_ENTITIES: usize = 32;
/// Ports and hosts that a sentence names, at most.
const MAX_NAMED: usize = 20;

/// `22, 23, 80 and 17 more`
fn list<T: Display>(items: impl Iterator<Item = T>, all: u64) -> String {
    let named: Vec<String> = items.take(MAX_NAMED).map(|item| item.to_string()).collect();
    let more = all.saturating_sub(named.len() as u64);
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

/// `1 port`, `20 ports`
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn hosts_count(episode: &Episode) -> String {
    let least = if episode.hosts_over > 0 { "at least " } else { "" };
    format!("{least}{}", episode.hosts.len())
}

fn span(episode: &Episode) -> String {
    duration_text(episode.last_ns.saturating_sub(episode.first_ns))
}

fn attack(references: &[(&str, &str)]) -> Vec<Attack> {
    references.iter().map(|(tactic, technique)| Attack { tactic: (*tactic).to_owned(), technique: (*technique).to_owned() }).collect()
}

/// The address belongs to no public network: loopback, private, link-local or unique local (RFC 1918, 3927, 4193, 4291, 6598).
fn is_inside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || (ip.to_bits() >> 22) == (0x6440_0000 >> 22),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

fn host_entities(first: IpAddr, hosts: &BTreeSet<IpAddr>) -> Vec<Entity> {
    let others = hosts.iter().filter(|ip| **ip != first);
    std::iter::once(&first).chain(others).take(MAX_ENTITIES).map(|ip| Entity::Host { ip: *ip }).collect()
}

/// Stands for a process that the lineage table may no longer have.
fn bare(exec_id: ExecId, name: &str, uid: u32) -> LineageEntry {
    LineageEntry {
        exec_id,
        pid: exec_id.pid,
        name: name.to_owned(),
        exe: None,
        argv: Vec::new(),
        uid,
        user: None,
        tty: None,
        exited: false,
        approximate: false,
    }
}

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Finding of `port_scan_in`.
pub(super) fn scan_in(scan: &scan_in::Scan) -> Finding {
    let scan_in::Scan { episode, source, ways, local, proven, crowd } = scan;
    let ports = episode.ports.len();
    let several = episode.hosts.len() > 1;
    let who = if several { format!("{} sources", hosts_count(episode)) } else { source.to_string() };
    let form = if episode.slow { "slowly, " } else { "" };
    let title = format!("Port scan: {who} probed {} of this host", count(ports, "port"));
    let mut explanation = format!(
        "{form}{who} sent {} to {} of {}, on which nothing listens or which took the connection, within {}: {}. Kinds: {}.",
        count(episode.attempts, "packet"),
        count(ports, "port"),
        list(local.iter(), local.len() as u64),
        span(episode),
        list(episode.ports.iter(), ports),
        ways_text(*ways),
    );
    if let Some(first) = explanation.get(..1).map(str::to_uppercase) {
        explanation.replace_range(..1, &first);
    }
    if several {
        let others = episode.hosts.iter().filter(|ip| *ip != source);
        let more = episode.hosts.len() as u64 - 1;
        let same = if *crowd { "probed this host" } else { "probed the same ports" };
        explanation.push_str(&format!(
            " {source} was found first; {} {same} within the same time: {}. Source addresses of packets are not proven: all of them but one may be forged (decoys, nmap -D), or one scanner uses them all.",
            count(more, "other source"),
            list(others, more),
        ));
    }
    if proven.is_empty() {
        explanation.push_str(" No connection was completed, so nothing proves the address.");
    } else {
        explanation.push_str(&format!(
            " Complete connections came from {}: a real host, that scans or that a scanner hides behind.",
            list(proven.iter(), proven.len() as u64)
        ));
    }
    if *crowd {
        explanation.push_str(" More sources scan at once than are told apart; they stand here together.");
    }
    // An ACK or a datagram to a closed port has other explanations than a scan; a SYN, or flags that no stack sends, hardly.
    let sure = ways & (way::SYN | way::STEALTH) != 0 && !episode.slow;
    Finding {
        rule: scan_in::RULE,
        entity: EntityKey::parts(&[&ip_bytes(*source), &episode.opened.0]),
        revision: episode.revision,
        title,
        severity: Severity::Medium,
        confidence: if sure { Confidence::High } else { Confidence::Medium },
        attack: attack(if is_inside(*source) { &[("TA0007", "T1046")] } else { &[("TA0043", "T1595")] }),
        entities: host_entities(*source, &episode.hosts),
        evidence: episode.evidence.ids(),
        process: None,
        login: None,
        explanation,
        next_steps: vec![
            format!("Find out what {source} is. If it is yours, look there for the program that scans."),
            "List what listens on this host (ss -ltnup) and close or filter what the network need not reach.".to_owned(),
            "Look for logins, connections and alerts of the same source after the scan.".to_owned(),
            "If this is your own monitoring scanner, name it in detectors.network_guardian.excepted_sources.".to_owned(),
        ],
    }
}

/// Finding of `port_scan_out` or `sweep_out`.
pub(super) fn scan_out(rule: &'static str, origin: &Origin, scan: &scan_out::Scan) -> Finding {
    let scan_out::Scan { episode, exec_id, name, uid, host, port, refused, reached } = scan;
    let (ports, hosts) = (episode.ports.len(), episode.hosts.len() as u64);
    let sweep = rule == scan_out::SWEEP;
    let pid = exec_id.pid;
    let (title, what) = if sweep {
        let on = if ports == 1 { format!("port {port}") } else { count(ports, "port") };
        (format!("Network sweep: {name} tried {} hosts on {on}", hosts_count(episode)), "the hosts on a port")
    } else {
        let of = if hosts == 1 { host.to_string() } else { format!("{} hosts", hosts_count(episode)) };
        (format!("Port scan out of this host: {name} tried {} of {of}", count(ports, "port")), "the ports of a host")
    };
    let slow = if episode.slow { " (slow form)" } else { "" };
    let silent = episode.attempts.saturating_sub(*refused);
    let mut explanation = format!(
        "{name} (pid {pid}) and what else runs the same program in {} made {} within {}{slow}: {refused} refused, {silent} without an answer. Most of {what} failed. Hosts: {}. Ports: {}.",
        origin.text(),
        count(episode.attempts, "connection attempt") + " that failed",
        span(episode),
        list(episode.hosts.iter(), hosts + episode.hosts_over),
        list(episode.ports.iter(), ports),
    );
    if !reached.is_empty() {
        let ends = reached.iter().map(|(ip, port)| SocketAddr::new(*ip, *port));
        explanation.push_str(&format!(" Reached: {}.", list(ends, reached.len() as u64)));
    }
    let confidence = match (*refused, episode.slow) {
        (0, _) if reached.is_empty() => {
            explanation.push_str(" Nothing answered at all: a network that is down looks the same.");
            Confidence::Low
        }
        (_, true) => Confidence::Medium,
        // Twice any threshold that one misconfigured client reaches.
        (_, false) if ports.max(hosts) >= 40 => Confidence::High,
        (_, false) => Confidence::Medium,
    };
    let mut entities = vec![Entity::Process { exec_id: *exec_id, pid }];
    entities.extend(host_entities(*host, &episode.hosts));
    Finding {
        rule,
        entity: EntityKey::parts(&[&origin.to_bytes(), &episode.opened.0]),
        revision: episode.revision,
        title,
        severity: Severity::High,
        confidence,
        attack: attack(if sweep { &[("TA0007", "T1018"), ("TA0007", "T1046")] } else { &[("TA0007", "T1046")] }),
        entities,
        evidence: episode.evidence.ids(),
        process: Some(bare(*exec_id, name, *uid)),
        login: None,
        explanation,
        next_steps: vec![
            format!("Look at pid {pid} and its lineage: who started {name}, and from where it came to this host."),
            "If nobody means to scan from here, stop the program, and look for what it did after it found open ports.".to_owned(),
            "Look on the hosts that answered for logins from this host.".to_owned(),
            "If this is a health checker or a peer-to-peer program of yours, name it in [[detectors.network_guardian.health_checkers]]."
                .to_owned(),
        ],
    }
}

/// Finding of `raw_scan_out`.
pub(super) fn raw_out(ip: IpAddr, episode: &Episode) -> Finding {
    let ports = episode.ports.len();
    // Above this many the late packets of old connections are out of the question; a forged address still is not.
    let many = episode.attempts >= 100;
    Finding {
        rule: raw_out::RULE,
        entity: EntityKey::parts(&[&ip_bytes(ip), &episode.opened.0]),
        revision: episode.revision,
        title: format!("Answers of {ip} to packets that no socket of this host sent"),
        severity: Severity::Medium,
        confidence: if many { Confidence::Medium } else { Confidence::Low },
        attack: attack(&[("TA0007", "T1046")]),
        entities: vec![Entity::Host { ip }],
        evidence: episode.evidence.ids(),
        process: None,
        login: None,
        explanation: format!(
            "{ip} sent {} (RST or SYN+ACK) within {} to {} of this host that no socket has: {}. Either a program here scans {ip} with raw sockets (nmap -sS as root), or somebody elsewhere writes the address of this host into packets to {ip}. Which of the two, these packets do not tell.",
            count(episode.attempts, "answer"),
            span(episode),
            count(ports, "port"),
            list(episode.ports.iter(), ports),
        ),
        next_steps: vec![
            "Look for processes with raw or packet sockets: ss -0pa and ss -wpa; and for nmap, masscan or zmap among what was executed at that time.".to_owned(),
            format!("If there is none, ask whoever runs {ip} for packets with the address of this host: it is being forged."),
            "If this is your own scanner, name its target in detectors.network_guardian.excepted_sources.".to_owned(),
        ],
    }
}

/// Finding of `login_hammering`, when the source is told.
pub(super) fn hammering(ip: IpAddr, source: &Source, context: &Context<'_>) -> Option<Finding> {
    let Told { opened, revision, tally, first_ns, .. } = source.told.as_ref()?;
    let (logins, failures) = (tally.logins(), tally.failures());
    let port = source.socket.local_port.map_or_else(|| "a login service".to_owned(), |port| format!("port {port}"));
    let by = source.acceptor.as_ref().map(|(id, name, uid)| {
        let known = context.lineage.get(id).map(Node::entry);
        known.unwrap_or_else(|| bare(*id, name, *uid))
    });
    let taken = by.as_ref().map(|entry| format!(", taken by {} (pid {})", entry.name, entry.pid)).unwrap_or_default();
    let told = match failures {
        0 => " No failed login of it was told: the service may not tell, or nothing was tried.".to_owned(),
        _ => format!(" {} of it were told.", count(failures, "failed login")),
    };
    let mut entities = vec![Entity::Host { ip }];
    entities.extend(by.as_ref().map(|entry| Entity::Process { exec_id: entry.exec_id, pid: entry.pid }));
    entities.push(Entity::Socket { socket: source.socket });
    Some(Finding {
        rule: hammering::RULE,
        entity: EntityKey::parts(&[&ip_bytes(ip), &opened.0]),
        revision: *revision,
        title: format!("Login hammering: {ip} made {} to {port}, with {}", count(tally.connections, "connection"), count(logins, "login")),
        severity: Severity::Medium,
        confidence: if failures > 0 { Confidence::High } else { Confidence::Medium },
        attack: attack(&[("TA0006", "T1110.001")]),
        entities,
        evidence: source.evidence.ids(),
        process: by,
        login: None,
        explanation: format!(
            "{ip} made {} to login services of this host within {}, the last to {port}{taken}; {} followed.{told} A password guesser that waits between its attempts does that.",
            count(tally.connections, "connection"),
            duration_text(source.last_ns.saturating_sub(*first_ns)),
            count(logins, "successful login"),
        ),
        next_steps: vec![
            format!("Look which accounts {ip} tried (bartizan events --kind auth.authenticate, or the service's own log), and whether a login succeeded."),
            format!("Cut {ip} off at the firewall, or let the service answer only where it must."),
            "If this is a load balancer or a monitor that only opens and closes the port, name it with the port in detectors.network_guardian.excepted_sources.".to_owned(),
        ],
    })
}
