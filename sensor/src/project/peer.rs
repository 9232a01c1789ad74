//! `network.unix_connect`, `network.vsock_connect` and `network.vsock_accept`.

use bartizan_bus::event::{self, Body, VsockSocket};
use bartizan_sensor_ebpf::abi::{FLAG_FROM_CALLER, UnixConnect, VSOCK_ANY, Vsock, VsockAccept, VsockConnect};

use super::flow::socket_type;
use super::{Act, What, errno, text};

pub(super) fn unix_connect(record: &UnixConnect) -> What {
    let UnixConnect {
        header,
        target,
        inode,
        times,
        socket_type: kind,
        error,
        peer_pid,
        peer_uid,
        peer_gid,
        other_pid_ns,
        name_len,
        pad: _,
        name,
    } = record;
    let name = name.get(..*name_len as usize).unwrap_or(name);
    let (path, abstract_name) = match name {
        [] => (None, None),
        // Callers that give the whole structure have NULs behind the name, which the kernel takes for a part of it.
        [0, rest @ ..] => (None, Some(text::escape_bytes(&rest[..rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]))),
        path => (Some(text::name(path)), None),
    };
    let known = *peer_pid != 0;
    let body = event::UnixConnect {
        path,
        abstract_name,
        socket_type: socket_type(*kind),
        error: errno(*error),
        address_from_caller: header.flags & FLAG_FROM_CALLER != 0,
        peer_pid: known.then_some(*peer_pid),
        peer_uid: known.then_some(*peer_uid),
        peer_gid: known.then_some(*peer_gid),
        other_user: known && *peer_uid != header.euid,
        other_pid_namespace: *other_pid_ns != 0,
        times: *times,
        inode: (*inode != 0).then_some(*inode),
    };
    Act::ended(Body::UnixConnect(body), -i64::from(*error)).to(target).into()
}

fn socket(socket: &Vsock, kind: u32) -> VsockSocket {
    let Vsock { inode, local_cid, local_port, peer_cid, peer_port } = *socket;
    let known = |number: u32| (number != VSOCK_ANY).then_some(number);
    VsockSocket {
        local_cid: known(local_cid),
        local_port: known(local_port),
        peer_cid: known(peer_cid),
        peer_port: known(peer_port),
        socket_type: socket_type(kind),
        inode: (inode != 0).then_some(inode),
    }
}

pub(super) fn vsock_connect(record: &VsockConnect) -> What {
    let VsockConnect { header, socket: ends, socket_type: kind, error } = record;
    let body =
        event::VsockConnect { socket: socket(ends, *kind), error: errno(*error), peer_from_caller: header.flags & FLAG_FROM_CALLER != 0 };
    Act::ended(Body::VsockConnect(body), -i64::from(*error)).into()
}

pub(super) fn vsock_accept(record: &VsockAccept) -> What {
    let VsockAccept { header: _, socket: ends, socket_type: kind, pad: _ } = record;
    Act::done(Body::VsockAccept(event::VsockAccept { socket: socket(ends, *kind) })).into()
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::Outcome;
    use bartizan_sensor_ebpf::abi::Target;
    use zerocopy::FromZeros;

    use super::*;

    fn named(bytes: &[u8], len: u32) -> UnixConnect {
        let mut record = UnixConnect::new_zeroed();
        record.name[..bytes.len()].copy_from_slice(bytes);
        (record.name_len, record.socket_type) = (len, 1);
        record
    }

    fn act(what: What) -> (Act, event::UnixConnect) {
        let What::Act(act) = what else { panic!("{what:?}") };
        let Body::UnixConnect(body) = act.body.clone() else { panic!("{act:?}") };
        (*act, body)
    }

    #[test]
    fn an_address_is_a_path_a_name_or_none() {
        let of = |bytes: &[u8], len| {
            let (_, body) = act(unix_connect(&named(bytes, len)));
            (body.path, body.abstract_name)
        };
        assert_eq!(of(b"/run/a\0old", 10), (Some("/run/a".into()), None));
        assert_eq!(of(b"\0name", 20), (None, Some("name".into())));
        assert_eq!(of(b"\0a\0b", 4), (None, Some("a\0b".into())));
        assert_eq!(of(b"\0", 1), (None, Some(String::new())));
        assert_eq!(of(b"", 0), (None, None));
        // More than there is.
        assert_eq!(of(b"x", 4000), (Some("x".into()), None));
    }

    #[test]
    fn who_listens_is_the_target_while_it_lives_and_a_number_afterwards() {
        let mut record = named(b"/run/a", 6);
        (record.peer_pid, record.peer_uid, record.peer_gid, record.times) = (7, 0, 8, 2);
        (record.header.uid, record.header.euid) = (0, 1000);
        let (gone, body) = act(unix_connect(&record));
        assert_eq!((gone.target, gone.outcome), (None, Outcome::Success));
        assert_eq!((body.peer_pid, body.peer_uid, body.peer_gid, body.other_user, body.times), (Some(7), Some(0), Some(8), true, 2));
        record.target = Target { tgid: 7, start_boottime: 5, ..Target::default() };
        record.header.euid = 0;
        let (alive, body) = act(unix_connect(&record));
        assert_eq!((alive.target.map(|target| target.tgid), body.other_user), (Some(7), false));
        let mut failed = named(b"/run/a", 6);
        failed.error = 13;
        let (failed, body) = act(unix_connect(&failed));
        assert_eq!(
            (failed.outcome, body.error.map(|error| error.0), body.peer_uid, body.other_user),
            (Outcome::Failure, Some(13), None, false)
        );
    }

    #[test]
    fn an_unknown_end_of_a_vm_socket_is_none() {
        let mut record = VsockConnect::new_zeroed();
        record.socket = Vsock { inode: 0, local_cid: VSOCK_ANY, local_port: VSOCK_ANY, peer_cid: 2, peer_port: 1024 };
        let What::Act(act) = vsock_connect(&record) else { panic!("an act") };
        let Body::VsockConnect(body) = act.body else { panic!("a connect") };
        assert_eq!((body.socket.local_cid, body.socket.peer_cid, body.socket.peer_port), (None, Some(2), Some(1024)));
    }
}
