//! Peers that are not of the internet: `network.unix_connect`, `network.vsock_connect`, `network.vsock_accept`.

use bartizan_bus::event::{Errno, UnixConnect, VsockAccept, VsockConnect, VsockSocket};

use super::super::escape::escape;

fn result(error: Option<Errno>) -> String {
    error.map_or_else(|| "ok".to_owned(), Errno::name)
}

/// `/run/docker.sock ok, listener pid 7 uid 0 (another user, another pid namespace), 2 times`.
pub(super) fn unix_connect(connect: &UnixConnect) -> String {
    let UnixConnect {
        path,
        abstract_name,
        socket_type: _,
        error,
        address_from_caller,
        peer_pid,
        peer_uid,
        peer_gid: _,
        other_user,
        other_pid_namespace,
        times,
        inode: _,
    } = connect;
    let address = match (path, abstract_name) {
        (Some(path), _) => escape(path),
        (None, Some(name)) => format!("@{}", escape(name)),
        (None, None) => "?".to_owned(),
    };
    let mut out = format!("{address} {}", result(*error));
    if *address_from_caller {
        out.push_str(" (address as the caller said it)");
    }
    if let (Some(pid), Some(uid)) = (peer_pid, peer_uid) {
        out.push_str(&format!(", listener pid {pid} uid {uid}"));
    }
    let other = match (other_user, other_pid_namespace) {
        (true, true) => " (another user, another pid namespace)",
        (true, false) => " (another user)",
        (false, true) => " (another pid namespace)",
        (false, false) => "",
    };
    out.push_str(other);
    if *times > 1 {
        out.push_str(&format!(", {times} times"));
    }
    out
}

/// `vsock 3:1024 → 2:9999`.
fn ends(socket: &VsockSocket, arrow: &str) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let VsockSocket { local_cid, local_port, peer_cid, peer_port, socket_type: _, inode: _ } = socket;
    let [a, b, c, d] = [*local_cid, *local_port, *peer_cid, *peer_port].map(number);
    format!("vsock {a}:{b} {arrow} {c}:{d}")
}

/// `vsock 3:1024 → 2:9999 ENODEV`.
pub(super) fn vsock_connect(connect: &VsockConnect) -> String {
    let VsockConnect { socket, error, peer_from_caller } = connect;
    let doubt = if *peer_from_caller { " (peer as the caller said it)" } else { "" };
    format!("{} {}{doubt}", ends(socket, "→"), result(*error))
}

/// `vsock 2:9999 ← 3:1024`.
pub(super) fn vsock_accept(accept: &VsockAccept) -> String {
    let VsockAccept { socket } = accept;
    ends(socket, "←")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_who_listens_and_what_differs() {
        let connect = UnixConnect {
            path: Some("/run/docker.sock".into()),
            abstract_name: None,
            socket_type: "SOCK_STREAM".into(),
            error: None,
            address_from_caller: false,
            peer_pid: Some(7),
            peer_uid: Some(0),
            peer_gid: Some(0),
            other_user: true,
            other_pid_namespace: true,
            times: 2,
            inode: None,
        };
        assert_eq!(unix_connect(&connect), "/run/docker.sock ok, listener pid 7 uid 0 (another user, another pid namespace), 2 times");
        let refused = UnixConnect {
            path: None,
            abstract_name: Some("x".into()),
            error: Some(Errno(111)),
            peer_pid: None,
            peer_uid: None,
            other_user: false,
            other_pid_namespace: false,
            times: 1,
            ..connect
        };
        assert_eq!(unix_connect(&refused), "@x ECONNREFUSED");
        let socket = VsockSocket {
            local_cid: Some(3),
            local_port: None,
            peer_cid: Some(2),
            peer_port: Some(9),
            socket_type: String::new(),
            inode: None,
        };
        let told = VsockConnect { socket: socket.clone(), error: Some(Errno(19)), peer_from_caller: true };
        assert_eq!(vsock_connect(&told), "vsock 3:? → 2:9 ENODEV (peer as the caller said it)");
        assert_eq!(vsock_accept(&VsockAccept { socket }), "vsock 3:? ← 2:9");
    }
}
