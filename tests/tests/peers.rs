//! Who asks whom: attempts to connect that come in, and peers on UNIX and VM sockets. A trigger, the event that it must give field by field, and
//! twins that differ in one property. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bartizan_tests::{Scene, Sensor, play, scenes, wait_for};
use nix::libc;
use serde_json::{Value, json};

/// What every tier must tell.
const SCENES: &[(&str, Scene)] = scenes![
    a_half_open_scan_is_told_by_source_and_connections_are_not,
    half_open_and_whole_ones_of_one_source_are_counted_apart,
    a_flood_of_sources_is_told_by_the_worst_and_the_rest_together,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

/// Events of one kind since `seq`.
fn since(sensor: &Sensor, seq: u64, kind: &str) -> Vec<Value> {
    let mut events = sensor.events_json(&["--kind", kind]);
    events.retain(|event| event["seq"].as_u64() > Some(seq));
    events
}

/// Two seconds of the sensor's are over: what was gathered of those who pause is told.
fn gathered(sensor: &mut Sensor) {
    let before = sensor.settle();
    wait_for("three heartbeats", || (since(sensor, before, "sensor.heartbeat").len() >= 3).then_some(()));
    sensor.settle();
}

/// A raw socket that sends TCP segments; IPv4 headers are ours.
fn raw(family: libc::c_int) -> OwnedFd {
    let (level, option, value) = match family {
        libc::AF_INET => (libc::IPPROTO_IP, libc::IP_HDRINCL, 1),
        // Where the kernel puts the checksum.
        _ => (libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, 16),
    };
    // SAFETY: a call that takes numbers, and one that reads an integer which outlives it; the descriptor is owned from here on.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP);
        assert!(fd >= 0, "a raw socket: {}", io::Error::last_os_error());
        let fd = OwnedFd::from_raw_fd(fd);
        let value: libc::c_int = value;
        let set = libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4);
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        fd
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A SYN without options (RFC 9293 §3.1), its checksum left out.
fn syn(from: u16, to: u16, flags: u8) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]].concat()
}

/// Sends one SYN and no more: the kernel, which has no socket for it, resets what is answered.
fn half_open(socket: &OwnedFd, source: Ipv4Addr, to: SocketAddrV4, from: u16) {
    let mut segment = syn(from, to.port(), 2);
    let ends = [source.octets(), to.ip().octets()].concat();
    let sum = checksum(&[&ends[..], &[0, 6, 0, 20], &segment].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    // The kernel fills in length, identification and checksum (raw(7)).
    let packet = [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0][..], &ends, &segment].concat();
    send(socket, &packet, SocketAddr::V4(SocketAddrV4::new(*to.ip(), 0)));
}

fn send(socket: &OwnedFd, bytes: &[u8], to: SocketAddr) {
    let to = nix::sys::socket::SockaddrStorage::from(to);
    let sent = nix::sys::socket::sendto(socket.as_raw_fd(), bytes, &to, nix::sys::socket::MsgFlags::empty());
    assert_eq!(sent, Ok(bytes.len()));
}

/// Connects from this address, and both ends close.
fn connect_from(source: Ipv4Addr, listener: &TcpListener, port: u16) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0))).unwrap();
    connect(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))).unwrap();
    listener.accept().unwrap();
}

/// What was told of one source since `seq`.
fn of_source(sensor: &Sensor, seq: u64, source: IpAddr) -> Vec<Value> {
    let mut events = since(sensor, seq, "network.syn");
    events.retain(|event| event["body"]["source_ip"] == json!(source));
    events
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn a_half_open_scan_is_told_by_source_and_connections_are_not(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let listeners: Vec<TcpListener> = (0..20).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let ports: Vec<u16> = listeners.iter().map(port_of).collect();
    let closed = port_of(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let socket = raw(libc::AF_INET);
    let [scanner, few, whole, shut] = [1, 2, 3, 4].map(|number| Ipv4Addr::new(127, 66, 0, number));
    for (port, from) in ports.iter().zip(40_000..) {
        half_open(&socket, scanner, SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port), from);
    }
    for from in 40_000..40_003 {
        half_open(&socket, few, SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports[0]), from);
        half_open(&socket, shut, SocketAddrV4::new(Ipv4Addr::LOCALHOST, closed), from);
    }
    for (listener, port) in listeners.iter().zip(&ports) {
        connect_from(whole, listener, *port);
    }
    gathered(sensor);
    let told = |source: Ipv4Addr| of_source(sensor, seq, source.into());
    let [event] = &told(scanner)[..] else { panic!("one event, not {:#?}", told(scanner)) };
    let body = &event["body"];
    let fields = ["sources", "local_ip", "ports", "more_ports", "attempts", "completed"].map(|field| body[field].clone());
    assert_eq!(fields, [json!(1), json!("127.0.0.1"), json!(&ports[..16]), json!(true), json!(20), json!(0)], "{event:#}");
    assert!(body["span_ns"].as_u64() > Some(0), "{event:#}");
    assert_eq!((&event["process"], &event["no_subject"]), (&json!(null), &json!("softirq")), "{event:#}");
    let [event] = &told(few)[..] else { panic!("one event, not {:#?}", told(few)) };
    let body = &event["body"];
    let fields = ["ports", "more_ports", "attempts", "completed"].map(|field| body[field].clone());
    assert_eq!(fields, [json!([ports[0]]), json!(false), json!(3), json!(0)], "{event:#}");
    assert_eq!((told(whole), told(shut)), (vec![], vec![]), "connections, and ports that do not listen, are told by other kinds");
}

fn half_open_and_whole_ones_of_one_source_are_counted_apart(sensor: &mut Sensor) {
    let seq = sensor.settle();
    // Takes IPv4 as well.
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let port = port_of(&both);
    let four = Ipv4Addr::new(127, 66, 0, 9);
    let (raw4, raw6) = (raw(libc::AF_INET), raw(libc::AF_INET6));
    half_open(&raw4, four, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), 40_000);
    // No attempt, though it has the flag.
    for flags in [2 | 16, 2 | 1, 2 | 4] {
        send(&raw6, &syn(40_001, port, flags), SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0).into());
    }
    for from in [40_002, 40_003, 40_004] {
        send(&raw6, &syn(from, port, 2), SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0).into());
    }
    for _ in 0..2 {
        connect_from(four, &both, port);
        let _client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        both.accept().unwrap();
    }
    gathered(sensor);
    for (source, local, attempts) in [(IpAddr::from(four), "127.0.0.1", 3), (Ipv6Addr::LOCALHOST.into(), "::1", 5)] {
        let told = of_source(sensor, seq, source);
        let [event] = &told[..] else { panic!("one event of {source}, not {told:#?}") };
        let fields = ["local_ip", "ports", "attempts", "completed"].map(|field| event["body"][field].clone());
        assert_eq!(fields, [json!(local), json!([port]), json!(attempts), json!(2)], "{event:#}");
    }
}

fn a_flood_of_sources_is_told_by_the_worst_and_the_rest_together(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port_of(&listener));
    let socket = raw(libc::AF_INET);
    let sources = 6000_u16;
    let address = |number: u16| Ipv4Addr::new(127, 67, (number >> 8) as u8, number as u8);
    for number in 1..=sources {
        half_open(&socket, address(number), to, 40_000);
    }
    half_open(&socket, address(1), to, 40_001);
    gathered(sensor);
    let mut events = since(sensor, seq, "network.syn");
    events.retain(|event| event["body"]["ports"] == json!([to.port()]));
    let sum = |field: &str| events.iter().filter_map(|event| event["body"][field].as_u64()).sum::<u64>();
    assert_eq!((sum("attempts"), sum("completed")), (u64::from(sources) + 1, 0));
    // The seconds of the sensor may cut the flood in pieces.
    let together = events.iter().filter(|event| event["body"]["source_ip"].is_null()).count();
    assert!((1..=8).contains(&together) && events.len() <= together * 257 + 256, "{} events, {together} of them of many", events.len());
    assert!(sum("sources") >= 4096, "{}", sum("sources"));
}
