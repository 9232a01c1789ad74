//! Who comes in and who becomes whom: `auth.*`, `network.accept`, `network.listen`, `network.probe`, `network.syn`,
//! `process.credentials`.

use bartizan_bus::event::{
    Accept, AccountAction, AccountChange, AccountField, AccountFile, Auth, AuthSource, Credentials, Groups, Ids, InetSocket, Listen,
    Outcome, Probe, Syn, Transport,
};

use super::super::escape::escape;
use super::super::paint::Paint;
use super::{end, socket};

/// Ports that are named before the rest is only counted.
const PORTS_SHOWN: usize = 8;

/// `tcp 10.0.0.5:22 ← 192.0.2.7:4711`.
pub(super) fn accept(accept: &Accept) -> String {
    let Accept { socket: ends } = accept;
    socket(ends).replacen('→', "←", 1)
}

/// `tcp *:22, backlog 128`.
pub(super) fn listen(listen: &Listen) -> String {
    let Listen { socket, backlog } = listen;
    format!("{}, backlog {backlog}", local(socket))
}

/// `tcp *:22`, `udp 127.0.0.1:53`: where a socket without a peer is.
pub(super) fn local(socket: &InetSocket) -> String {
    let port = socket.local_port.map_or_else(|| "?".to_owned(), |port| port.to_string());
    let at = socket.local_ip.map_or_else(|| format!("*:{port}"), |ip| end(Some(ip), socket.local_port));
    format!("{} {at}", protocol(socket.transport))
}

/// `tcp SYN from 192.0.2.7 at 10.0.0.5, 32 closed ports: 1 2 3 4 5 6 7 8 ..., 40 packets`.
pub(super) fn probe(probe: &Probe) -> String {
    let Probe { transport, source_ip, local_ip, ports, packets, span_ns: _, tcp_flags } = probe;
    let shown: Vec<String> = ports.iter().take(PORTS_SHOWN).map(u16::to_string).collect();
    let more = if ports.len() > PORTS_SHOWN { " ..." } else { "" };
    let flags = if *transport == Transport::Tcp { format!(" {}", tcp_flag_names(*tcp_flags)) } else { String::new() };
    let (s, p) = (if ports.len() == 1 { "" } else { "s" }, if *packets == 1 { "" } else { "s" });
    format!(
        "{}{flags} from {source_ip} at {local_ip}, {} closed port{s}: {}{more}, {packets} packet{p}",
        protocol(*transport),
        ports.len(),
        shown.join(" ")
    )
}

/// `192.0.2.7 at 10.0.0.5, 40 attempts, 2 completed, 3 ports: 22 80 443`.
pub(super) fn syn(syn: &Syn) -> String {
    let Syn { source_ip, sources, local_ip, ports, more_ports, attempts, completed, span_ns: _ } = syn;
    let source = source_ip.map_or_else(|| format!("{sources} and more sources"), |ip| ip.to_string());
    let shown: Vec<String> = ports.iter().take(PORTS_SHOWN).map(u16::to_string).collect();
    let more = if *more_ports || ports.len() > PORTS_SHOWN { " ..." } else { "" };
    let (a, p) = (if *attempts == 1 { "" } else { "s" }, if ports.len() == 1 { "" } else { "s" });
    let many = if *more_ports { "more than " } else { "" };
    format!(
        "{source} at {local_ip}, {attempts} attempt{a}, {completed} completed, {many}{} port{p}: {}{more}",
        ports.len(),
        shown.join(" ")
    )
}

pub(super) fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Other => "ip",
    }
}

fn tcp_flag_names(flags: u8) -> String {
    let names: Vec<&str> = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0)
        .map(|(_, name)| name)
        .collect();
    if names.is_empty() { "no flags".to_owned() } else { names.join("+") }
}

/// `setresuid uid 1000→0 euid 1000→0`.
pub(super) fn credentials(credentials: &Credentials) -> String {
    let Credentials { call, old, new } = credentials;
    let mut out = escape(call);
    for ((name, old), (_, new)) in named(old).into_iter().zip(named(new)) {
        if old != new {
            out.push_str(&format!(" {name} {old}→{new}"));
        }
    }
    out
}

fn named(ids: &Ids) -> [(&'static str, u32); 8] {
    let Ids { uid, euid, suid, fsuid, gid, egid, sgid, fsgid } = *ids;
    [("uid", uid), ("euid", euid), ("suid", suid), ("fsuid", fsuid), ("gid", gid), ("egid", egid), ("sgid", sgid), ("fsgid", fsgid)]
}

/// `groups 4,27→none`.
pub(super) fn groups(groups: &Groups) -> String {
    let Groups { old, new, old_count, new_count } = groups;
    let list = |gids: &[u32], count: u32| {
        let more = if (count as usize) > gids.len() { ",..." } else { "" };
        let gids: Vec<String> = gids.iter().map(u32::to_string).collect();
        if gids.is_empty() { "none".to_owned() } else { format!("{}{more}", gids.join(",")) }
    };
    format!("groups {}→{}", list(old, *old_count), list(new, *new_count))
}

/// `passwd ann added: uid 0, gid 0, home /, shell /bin/sh`, `shadow ann: password set→locked`.
pub(super) fn account_change(change: &AccountChange) -> String {
    let AccountChange { file, action, name, id: _, fields, more_fields } = change;
    let file = match file {
        AccountFile::Passwd => "passwd",
        AccountFile::Group => "group",
        AccountFile::Shadow => "shadow",
    };
    let (action, changed) = match action {
        AccountAction::Added => (" added", false),
        AccountAction::Removed => (" removed", false),
        AccountAction::Changed => ("", true),
    };
    let fields: Vec<String> = fields
        .iter()
        .map(|AccountField { name, old, new }| match (old, new) {
            (None, Some(new)) if changed => format!("{name} +{}", escape(new)),
            (Some(old), None) if changed => format!("{name} -{}", escape(old)),
            (Some(old), Some(new)) => format!("{name} {}→{}", escape(old), escape(new)),
            (one, other) => format!("{name} {}", escape(one.as_deref().or(other.as_deref()).unwrap_or_default())),
        })
        .collect();
    let more = if *more_fields > 0 { format!(", {more_fields} more") } else { String::new() };
    format!("{file} {}{action}: {}{more}", escape(name), fields.join(", "))
}

/// `sshd root from 192.0.2.7:4711 by publickey failed PAM_AUTH_ERR (sshd's log)`.
pub(super) fn auth(auth: &Auth, outcome: Outcome, paint: Paint) -> String {
    let Auth { source, login: _, service, user, rhost, peer_ip: _, peer_port, ruser, tty, method, pam_result: _, invalid_user, truncated } =
        auth;
    let mut parts = vec![service.as_deref().map_or_else(|| "?".to_owned(), escape)];
    parts.push(user.as_deref().map_or_else(|| "(no user yet)".to_owned(), escape));
    if *invalid_user {
        parts.push(paint.yellow("(no such user)"));
    }
    if let Some(rhost) = rhost {
        let port = peer_port.map(|port| format!(" port {port}")).unwrap_or_default();
        parts.push(format!("from {}{port}", escape(rhost)));
    }
    if let Some(ruser) = ruser.as_deref().filter(|ruser| !ruser.is_empty()) {
        parts.push(format!("asked by {}", escape(ruser)));
    }
    if let Some(tty) = tty {
        parts.push(format!("on {}", escape(tty)));
    }
    if let Some(method) = method {
        parts.push(format!("by {}", escape(method)));
    }
    match outcome {
        Outcome::Success => parts.push(paint.green("ok")),
        Outcome::Failure => parts.push(paint.red(&auth.pam_result_name().unwrap_or_else(|| "failed".to_owned()))),
        Outcome::Unknown => {}
    }
    if *source == AuthSource::SshdLog {
        parts.push(paint.dim("(sshd's log)"));
    }
    if *truncated {
        parts.push(paint.dim("(cut)"));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::EventId;

    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::cli::samples::inet;

    #[test]
    fn each_kind_reads_as_what_happened() {
        let paint = Paint::new(ColorChoice::Never, false, None);
        let failed = Auth {
            service: Some("sshd".into()),
            user: Some("ro\x1bot".into()),
            rhost: Some("192.0.2.7".into()),
            pam_result: Some(7),
            ..Auth::of(AuthSource::Pam, EventId([1; 20]))
        };
        assert_eq!(auth(&failed, Outcome::Failure, paint), "sshd ro\\x1bot from 192.0.2.7 PAM_AUTH_ERR");
        let ids = Ids { uid: 5, ..Ids::default() };
        assert_eq!(credentials(&Credentials { call: "setuid".into(), old: ids, new: Ids::default() }), "setuid uid 5→0");
        let scan = Probe {
            transport: Transport::Tcp,
            source_ip: [192, 0, 2, 7].into(),
            local_ip: [10, 0, 0, 1].into(),
            ports: (1..=10).collect(),
            packets: 12,
            span_ns: 5,
            tcp_flags: 2,
        };
        assert_eq!(probe(&scan), "tcp SYN from 192.0.2.7 at 10.0.0.1, 10 closed ports: 1 2 3 4 5 6 7 8 ..., 12 packets");
        assert!(accept(&Accept { socket: inet("10.0.0.1", 22, "192.0.2.7", 4000) }).contains(" ← 192.0.2.7:4000"));
        let mut open = inet("10.0.0.1", 22, "192.0.2.7", 4000);
        open.local_ip = None;
        assert_eq!(listen(&Listen { socket: open, backlog: 5 }), "tcp *:22, backlog 5");
    }

    #[test]
    fn what_became_of_accounts_and_groups_is_a_short_line() {
        let field = |name: &str, old: Option<&str>, new: Option<&str>| AccountField {
            name: name.into(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let change = |file, action, name: &str, fields| AccountChange { file, action, name: name.into(), id: None, fields, more_fields: 0 };
        let added = vec![field("uid", None, Some("0")), field("shell", None, Some("/bin/sh"))];
        assert_eq!(
            account_change(&change(AccountFile::Passwd, AccountAction::Added, "eve", added)),
            "passwd eve added: uid 0, shell /bin/sh"
        );
        let members = vec![field("member", Some("ann"), None), field("member", None, Some("eve"))];
        assert_eq!(
            account_change(&change(AccountFile::Group, AccountAction::Changed, "sudo", members)),
            "group sudo: member -ann, member +eve"
        );
        let password = vec![field("password", Some("set"), Some("locked"))];
        assert_eq!(
            account_change(&change(AccountFile::Shadow, AccountAction::Changed, "ann", password)),
            "shadow ann: password set→locked"
        );
        let all = Groups { old: vec![4, 27], new: Vec::new(), old_count: 40, new_count: 0 };
        assert_eq!(groups(&all), "groups 4,27,...→none");
    }
}
