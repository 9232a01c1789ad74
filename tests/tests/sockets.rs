//! Sockets by every way in, on a real kernel: the calls of 64-bit programs, those of 32-bit ones (`int 0x80`), `socketcall`, and io_uring with
//! and without a thread of the kernel that takes what is queued. The events are the same, or the tier says that it is blind to the way. Runs
//! on this kernel and, by `cargo xtask vm`, on others.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use bartizan_tests::trigger::{Numbers, Table, call_32, in_child, low_page};
use bartizan_tests::uring::{Submission, URING_SQPOLL, submit};
use bartizan_tests::{Scene, Sensor, kernel_is_at_least, play, scenes};
use nix::libc;
use serde_json::{Value, json};

/// Hooks of this file that have a fallback.
const HOOKS: [&str; 5] =
    ["network_connect_tcp_early", "network_connect_udp", "network_accept", "network_raw_socket", "network_unix_connect"];

/// What both tiers must tell.
const SCENES: &[(&str, Scene)] = scenes![
    a_connection_with_itself,
    an_attempt_that_fails_before_its_first_packet,
    a_connected_datagram_socket,
    a_unix_connection,
    sockets_that_see_more_than_their_own,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().without("fexit", &HOOKS).start(), SCENES);
}

/// How a process comes to its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A call of one of the two tables.
    Call(Table),
    /// `socketcall`, which the 32-bit table alone has.
    Socketcall,
    /// io_uring, with these `IORING_SETUP_*`.
    Ring(u32),
}

const WAYS: [Way; 5] = [Way::Call(Table::Wide), Way::Call(Table::Narrow), Way::Socketcall, Way::Ring(0), Way::Ring(URING_SQPOLL)];

/// A deed in each of its guises.
struct Deed {
    numbers: Numbers,
    /// First argument of `socketcall`: include/uapi/linux/net.h.
    sub: u32,
}

const SOCKET: Deed = Deed { numbers: Numbers(libc::SYS_socket, 359), sub: 1 };
const BIND: Deed = Deed { numbers: Numbers(libc::SYS_bind, 361), sub: 2 };
const CONNECT: Deed = Deed { numbers: Numbers(libc::SYS_connect, 362), sub: 3 };
const LISTEN: Deed = Deed { numbers: Numbers(libc::SYS_listen, 363), sub: 4 };
const ACCEPT: Deed = Deed { numbers: Numbers(libc::SYS_accept4, 364), sub: 18 };
const GETSOCKNAME: Deed = Deed { numbers: Numbers(libc::SYS_getsockname, 367), sub: 6 };

/// `IORING_OP_*`, include/uapi/linux/io_uring.h.
const OP_ACCEPT: u8 = 13;
const OP_CONNECT: u8 = 16;
const OP_SOCKET: u8 = 45;
const OP_BIND: u8 = 56;
const OP_LISTEN: u8 = 57;
/// The kernel that has the last two.
const HAS_BIND: (u32, u32) = (6, 11);

impl Way {
    /// What the blind tiers call those that come this way.
    fn callers(self) -> Option<&'static str> {
        match self {
            Self::Call(Table::Wide) => None,
            Self::Call(Table::Narrow) | Self::Socketcall => Some("32-bit"),
            Self::Ring(_) => Some("io_uring"),
        }
    }

    /// The deed by its call, or as a submission where it comes by a ring. Addresses are those of low pages.
    fn act(self, deed: &Deed, arguments: &[u32], submission: Submission) -> i32 {
        match self {
            Self::Call(table) => table.call(deed.numbers, arguments),
            Self::Socketcall => {
                let words: Vec<u8> = arguments.iter().flat_map(|word| word.to_ne_bytes()).collect();
                call_32(102, &[deed.sub, low_page(&words)])
            }
            Self::Ring(setup) => submit(setup, submission).expect("a ring"),
        }
    }

    fn socket(self, family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> i32 {
        let [family, kind, protocol] = [family, kind, protocol].map(libc::c_int::cast_unsigned);
        let submission =
            Submission { opcode: OP_SOCKET, fd: family.cast_signed(), off: kind.into(), len: protocol, ..Submission::default() };
        self.act(&SOCKET, &[family, kind, protocol], submission)
    }

    /// Where a ring cannot do it, by the call.
    fn bind(self, fd: i32, address: Address) -> i32 {
        let way = if kernel_is_at_least(HAS_BIND.0, HAS_BIND.1) { self } else { self.without_rings() };
        way.act(&BIND, &[fd.cast_unsigned(), address.at, address.len], address.submission(OP_BIND, fd))
    }

    /// Likewise.
    fn listen(self, fd: i32) -> i32 {
        let way = if kernel_is_at_least(HAS_BIND.0, HAS_BIND.1) { self } else { self.without_rings() };
        way.act(&LISTEN, &[fd.cast_unsigned(), 4], Submission { opcode: OP_LISTEN, fd, len: 4, ..Submission::default() })
    }

    fn connect(self, fd: i32, address: Address) -> i32 {
        self.act(&CONNECT, &[fd.cast_unsigned(), address.at, address.len], address.submission(OP_CONNECT, fd))
    }

    fn accept(self, fd: i32) -> i32 {
        self.act(&ACCEPT, &[fd.cast_unsigned(), 0, 0, 0], Submission { opcode: OP_ACCEPT, fd, ..Submission::default() })
    }

    fn without_rings(self) -> Self {
        if matches!(self, Self::Ring(_)) { Self::Call(Table::Wide) } else { self }
    }
}

/// A `sockaddr` in a low page.
#[derive(Clone, Copy)]
struct Address {
    at: u32,
    len: u32,
}

impl Address {
    fn of(bytes: &[u8]) -> Self {
        Self { at: low_page(bytes), len: bytes.len() as u32 }
    }

    /// `struct sockaddr_in`.
    fn inet(ip: [u8; 4], port: u16) -> Self {
        Self::of(&[&(libc::AF_INET as u16).to_ne_bytes()[..], &port.to_be_bytes(), &ip, &[0; 8]].concat())
    }

    /// `struct sockaddr_un`.
    fn unix(path: &Path) -> Self {
        Self::of(&[&(libc::AF_UNIX as u16).to_ne_bytes()[..], path.as_os_str().as_bytes(), &[0]].concat())
    }

    fn submission(self, opcode: u8, fd: i32) -> Submission {
        Submission { opcode, fd, addr: self.at.into(), off: self.len.into(), ..Submission::default() }
    }
}

/// Asserts that this is told of who came that way, and nothing where the tier of `hook` says that it is blind to it.
#[track_caller]
fn assert_told(sensor: &Sensor, hook: &str, kind: &str, (way, pid): (Way, u32), places: &[&str], expected: &[Value]) {
    let sees = way.callers().is_none_or(|callers| sensor.sees(hook, callers));
    let expected = if sees { expected } else { &[] };
    assert_eq!(sensor.told(kind, pid, places), expected, "{kind} by {way:?}");
}

/// Operations that were handed over by rings.
fn operations(sensor: &Sensor, pid: u32) -> Vec<Value> {
    sensor.told("process.io_uring_op", pid, &["/body/op"]).into_iter().map(|told| told[0].clone()).collect()
}

/// One child for each way; the pids.
fn by_each_way(act: impl Fn(Way)) -> [(Way, u32); 5] {
    WAYS.map(|way| (way, in_child(|| act(way))))
}

const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

fn a_connection_with_itself(sensor: &mut Sensor) {
    let children = by_each_way(|way| {
        let (address, len) = (Address::inet(LOCALHOST, 0), low_page(&16_u32.to_ne_bytes()));
        let server = way.socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(way.bind(server, address), 0);
        assert_eq!(way.listen(server), 0);
        // Which port it is, is now in the address.
        assert_eq!(way.without_rings().act(&GETSOCKNAME, &[server.cast_unsigned(), address.at, len], Submission::default()), 0);
        let client = way.socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(way.connect(client, address), 0);
        assert!(way.accept(server) > client);
    });
    sensor.settle();
    for child @ (way, pid) in children {
        let bound = sensor.told("network.bind", pid, &["/body/socket/local_ip", "/body/socket/local_port", "/body/socket/transport"]);
        let [bound] = bound.as_slice() else { panic!("binds by {way:?}: {bound:#?}") };
        let port = bound[1].clone();
        assert!(port.as_u64() > Some(0), "{bound:#}");
        assert_eq!(*bound, json!(["127.0.0.1", port, "tcp"]), "{way:?}");
        let places = ["/body/socket/local_ip", "/body/socket/local_port", "/body/backlog"];
        assert_eq!(sensor.told("network.listen", pid, &places), [json!(["127.0.0.1", port, 4])], "{way:?}");
        let places = ["/body/socket/peer_ip", "/body/socket/peer_port", "/body/error", "/outcome"];
        assert_eq!(sensor.told("network.connect", pid, &places), [json!(["127.0.0.1", port, null, "success"])], "{way:?}");
        let from = sensor.told("network.connect", pid, &["/body/socket/local_port"])[0][0].clone();
        let places = ["/body/socket/local_ip", "/body/socket/local_port", "/body/socket/peer_ip", "/body/socket/peer_port"];
        let expected = json!(["127.0.0.1", port, "127.0.0.1", from]);
        assert_told(sensor, "network_accept", "network.accept", child, &places, &[expected]);
        let handed: &[&str] = match way {
            Way::Ring(_) if kernel_is_at_least(HAS_BIND.0, HAS_BIND.1) => &["SOCKET", "BIND", "LISTEN", "SOCKET", "CONNECT", "ACCEPT"],
            Way::Ring(_) => &["SOCKET", "SOCKET", "CONNECT", "ACCEPT"],
            Way::Call(_) | Way::Socketcall => &[],
        };
        assert_eq!(operations(sensor, pid), handed, "{way:?}");
        let rings: &[Value] = if let Way::Ring(setup) = way { &vec![json!([1, setup]); handed.len()] } else { &[] };
        assert_eq!(sensor.told("process.io_uring", pid, &["/body/entries", "/body/flags"]), rings, "{way:?}");
    }
}

fn an_attempt_that_fails_before_its_first_packet(sensor: &mut Sensor) {
    // No connection leads to a broadcast address.
    let address = Address::inet([255; 4], 7);
    let children = by_each_way(|way| {
        let fd = way.socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(way.connect(fd, address), -libc::ENETUNREACH);
    });
    sensor.settle();
    let places = ["/body/socket/transport", "/body/socket/peer_ip", "/body/socket/peer_port", "/body/error", "/outcome"];
    let expected = json!(["tcp", "255.255.255.255", 7, libc::ENETUNREACH, "failure"]);
    for child in children {
        assert_told(sensor, "network_connect_tcp_early", "network.connect", child, &places, std::slice::from_ref(&expected));
    }
}

fn a_connected_datagram_socket(sensor: &mut Sensor) {
    let address = Address::inet(LOCALHOST, 7);
    let children = by_each_way(|way| {
        let fd = way.socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        assert_eq!(way.connect(fd, address), 0);
    });
    sensor.settle();
    let places = ["/body/socket/transport", "/body/socket/peer_ip", "/body/socket/peer_port", "/body/error", "/outcome"];
    for child in children {
        let expected = json!(["udp", "127.0.0.1", 7, null, "success"]);
        assert_told(sensor, "network_connect_udp", "network.connect", child, &places, &[expected]);
    }
}

fn a_unix_connection(sensor: &mut Sensor) {
    // Each its own: what a program repeats is not told each time.
    let paths: Vec<_> = (0..WAYS.len()).map(|number| sensor.folder().join(format!("listener-{number}"))).collect();
    let _listeners: Vec<_> = paths.iter().map(|path| UnixListener::bind(path).expect("a listener")).collect();
    let place = |way: Way| WAYS.iter().position(|each| *each == way).expect("one of them");
    let children = by_each_way(|way| {
        let fd = way.socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        assert_eq!(way.connect(fd, Address::unix(&paths[place(way)])), 0);
    });
    sensor.settle();
    let places = ["/body/path", "/body/socket_type", "/body/peer_pid", "/body/error", "/body/times", "/target/pid"];
    let own = std::process::id();
    for child in children {
        let expected = json!([paths[place(child.0)], "SOCK_STREAM", own, null, 1, own]);
        assert_told(sensor, "network_unix_connect", "network.unix_connect", child, &places, &[expected]);
    }
}

fn sockets_that_see_more_than_their_own(sensor: &mut Sensor) {
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    let of_packets = by_each_way(|way| assert!(way.socket(libc::AF_PACKET, libc::SOCK_RAW, all) >= 0));
    let of_inet = by_each_way(|way| assert!(way.socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) >= 0));
    sensor.settle();
    let places = ["/body/family", "/body/socket_type", "/body/protocol_name"];
    for (packets, inet) in of_packets.into_iter().zip(of_inet) {
        let expected = json!(["AF_PACKET", "SOCK_RAW", "ETH_P_ALL"]);
        assert_told(sensor, "network_raw_socket", "network.raw_socket", packets, &places, &[expected]);
        // The kernel asks the control group's programs, whatever the way.
        let expected = json!(["AF_INET", "SOCK_RAW", "ICMP"]);
        assert_told(sensor, "network_socket_create", "network.raw_socket", inet, &places, &[expected]);
    }
}
