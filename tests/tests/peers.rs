//! Who asks whom: attempts to connect that come in, and peers on UNIX and VM sockets. A trigger, the event that it must give field by field, and
//! twins that differ in one property. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use bartizan_tests::trigger::{call, in_child};
use bartizan_tests::{Scene, Sensor, play, scenes, wait_for};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, VsockAddr, accept, bind, connect, listen, socket};
use serde_json::{Value, json};

/// What every tier must tell.
const SCENES: &[(&str, Scene)] = scenes![
    a_half_open_scan_is_told_by_source_and_connections_are_not,
    half_open_and_whole_ones_of_one_source_are_counted_apart,
    a_flood_of_sources_is_told_by_the_worst_and_the_rest_together,
    a_unix_connection_tells_who_listens_and_repeats_are_counted,
    names_without_a_file_and_sequenced_packets_are_told_too,
    a_listener_in_another_pid_namespace_is_told_for_each_process,
    the_socket_of_a_container_engine_is_told_for_each_process,
    a_refusal_is_told_for_each_process_and_other_failures_once,
    vm_sockets_tell_both_ends,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    let without = ["network_unix_connect:fexit", "network_vsock:fexit"];
    play(without.iter().fold(Sensor::with(), |sensor, tier| sensor.arg("--disable-hook").arg(tier)).start(), SCENES);
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
    use nix::sys::socket::SockaddrIn;
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

/// A child that listens on a socket until its owner goes.
struct Listening(nix::unistd::Pid);

impl Listening {
    /// `flags` are those of clone(2); `uid` is set before it listens.
    fn start(socket: &OwnedFd, flags: libc::c_int, uid: u32) -> Self {
        let (ready, tell) = nix::unistd::pipe().unwrap();
        let pid = call(libc::SYS_clone, &[i64::from(flags | libc::SIGCHLD), 0, 0, 0, 0]);
        assert!(pid >= 0, "clone: {pid}");
        if pid == 0 {
            become_user(uid);
            call(libc::SYS_listen, &[socket.as_raw_fd().into(), 64]);
            call(libc::SYS_write, &[tell.as_raw_fd().into(), c"x".as_ptr().addr().cast_signed() as i64, 1]);
            loop {
                call(libc::SYS_pause, &[]);
            }
        }
        let child = Self(nix::unistd::Pid::from_raw(pid as i32));
        drop(tell);
        assert_eq!(nix::unistd::read(&ready, &mut [0]), Ok(1), "the child listens");
        child
    }

    fn pid(&self) -> i32 {
        self.0.as_raw()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It is ours and not waited for yet, so the pid is its own.
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.0, None);
    }
}

fn become_user(uid: u32) {
    if uid != 0 {
        let id = i64::from(uid);
        assert_eq!(call(libc::SYS_setresgid, &[id, id, id]), 0);
        assert_eq!(call(libc::SYS_setresuid, &[id, id, id]), 0);
    }
}

/// A UNIX socket that is bound and does not listen yet.
fn bound(kind: SockType, address: &UnixAddr) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), address).unwrap();
    fd
}

/// Connects to that address, in a process of its own and as this user; the errno, or 0.
fn connect_in_child(kind: SockType, address: &UnixAddr, uid: u32) -> u32 {
    in_child(|| {
        become_user(uid);
        let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let _ = connect(fd.as_raw_fd(), address);
    })
}

/// What was told of this address since `seq`, by path or name.
fn to(sensor: &mut Sensor, seq: u64, field: &str, address: &str) -> Vec<Value> {
    sensor.settle();
    let mut events = since(sensor, seq, "network.unix_connect");
    events.retain(|event| event["body"][field] == address);
    events
}

/// Who did it and how often by then.
fn who(events: &[Value]) -> Vec<(u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    events.iter().map(|event| (number(&event["process"]["pid"]), number(&event["body"]["times"]))).collect()
}

/// Whether the hook is in its best tier.
fn in_best_tier(sensor: &Sensor, hook: &str) -> bool {
    let started = sensor.events_json(&["--kind", "sensor.start"]);
    let hooks = started.iter().flat_map(|event| event["body"]["hooks"].as_array().into_iter().flatten());
    hooks.filter_map(Value::as_str).any(|told| told.contains(hook) && told.contains("fexit"))
}

fn a_unix_connection_tells_who_listens_and_repeats_are_counted(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let (others, own) = (sensor.folder().join("others"), sensor.folder().join("own"));
    let socket = bound(SockType::Stream, &UnixAddr::new(&others).unwrap());
    let child = Listening::start(&socket, 0, 1234);
    let _own = UnixListener::bind(&own).unwrap();
    let streams: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(&others).unwrap()).collect();
    let stream = UnixStream::connect(&own).unwrap();
    let inode = |stream: &UnixStream| std::fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino();
    let told = to(sensor, seq, "path", &others.to_string_lossy());
    let pid = u64::from(std::process::id());
    assert_eq!(who(&told), [(pid, 1), (pid, 2), (pid, 4)], "{told:#?}");
    for (event, stream) in told.iter().zip([&streams[0], &streams[1], &streams[3]]) {
        let mut body = event["body"].clone();
        body["times"] = json!(0);
        let expected = json!({
            "path": others, "abstract_name": null, "socket_type": "SOCK_STREAM", "error": null, "address_from_caller": false,
            "peer_pid": child.pid(), "peer_uid": 1234, "peer_gid": 1234, "other_user": true, "other_pid_namespace": false, "times": 0,
            "inode": inode(stream),
        });
        assert_eq!((body, &event["outcome"]), (expected, &json!("success")));
        assert_eq!((&event["target"]["pid"], &event["target"]["uid"]), (&json!(child.pid()), &json!(1234)), "{event:#}");
    }
    let told = to(sensor, seq, "path", &own.to_string_lossy());
    let [event] = &told[..] else { panic!("one event, not {told:#?}") };
    let fields = ["peer_pid", "peer_uid", "other_user", "inode"].map(|field| event["body"][field].clone());
    assert_eq!(fields, [json!(pid), json!(0), json!(false), json!(inode(&stream))], "{event:#}");
    assert_eq!(event["target"]["pid"], pid);
    // Who listened has ended, and another process holds the socket: its number is known, and nothing else of it.
    drop(child);
    let folder = sensor.folder().join("gone");
    let socket = bound(SockType::Stream, &UnixAddr::new(&folder).unwrap());
    let child = Listening::start(&socket, 0, 1234);
    let gone = child.pid();
    drop(child);
    UnixStream::connect(&folder).unwrap();
    let told = to(sensor, seq, "path", &folder.to_string_lossy());
    assert_eq!((told.len(), &told[0]["target"], &told[0]["body"]["peer_pid"]), (1, &json!(null), &json!(gone)), "{told:#?}");
}

fn names_without_a_file_and_sequenced_packets_are_told_too(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let name = format!("bz-peers-{}-{seq}", std::process::id());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let server = bound(SockType::SeqPacket, &address);
    listen(&server, nix::sys::socket::Backlog::new(4).unwrap()).unwrap();
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(client.as_raw_fd(), &address).unwrap();
    // Datagrams, which have no connection, are not told.
    let path = sensor.folder().join("datagrams");
    let receiver = bound(SockType::Datagram, &UnixAddr::new(&path).unwrap());
    let sender = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(sender.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let told = to(sensor, seq, "abstract_name", &name);
    let [event] = &told[..] else { panic!("one event, not {told:#?}") };
    assert_eq!((&event["body"]["path"], &event["body"]["socket_type"]), (&json!(null), &json!("SOCK_SEQPACKET")), "{event:#}");
    assert_eq!(to(sensor, seq, "path", &path.to_string_lossy()), Vec::<Value>::new());
    drop(receiver);
}

fn a_listener_in_another_pid_namespace_is_told_for_each_process(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let (inside, outside) = (sensor.folder().join("inside"), sensor.folder().join("outside"));
    let addresses = [&inside, &outside].map(|path| UnixAddr::new(path).unwrap());
    let sockets = addresses.map(|address| bound(SockType::Stream, &address));
    let children = [Listening::start(&sockets[0], libc::CLONE_NEWPID, 0), Listening::start(&sockets[1], 0, 0)];
    let pids = addresses.map(|address| [(); 3].map(|()| u64::from(connect_in_child(SockType::Stream, &address, 0))));
    let told = to(sensor, seq, "path", &inside.to_string_lossy());
    assert_eq!(who(&told), pids[0].map(|pid| (pid, 1)), "{told:#?}");
    for event in &told {
        let body = &event["body"];
        let fields = ["other_pid_namespace", "other_user", "peer_pid"].map(|field| body[field].clone());
        assert_eq!(fields, [json!(true), json!(false), json!(children[0].pid())], "{event:#}");
        assert_eq!(event["target"]["pid"], children[0].pid(), "{event:#}");
    }
    let told = to(sensor, seq, "path", &outside.to_string_lossy());
    assert_eq!(who(&told), [(pids[1][0], 1), (pids[1][1], 2)], "{told:#?}");
    assert!(told.iter().all(|event| event["body"]["other_pid_namespace"] == false), "{told:#?}");
}

fn the_socket_of_a_container_engine_is_told_for_each_process(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let [engine, other] = ["/run/docker.sock", "/run/locker.sock"];
    // In a mount namespace of its own, where `/run` is empty.
    in_child(|| {
        assert_eq!(call(libc::SYS_unshare, &[libc::CLONE_NEWNS.into()]), 0);
        let none: Option<&str> = None;
        nix::mount::mount(none, "/", none, nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE, none).unwrap();
        nix::mount::mount(Some("none"), "/run", Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
        let addresses = [engine, other].map(|path| UnixAddr::new(path).unwrap());
        let _listen = addresses.map(|address| {
            let fd = bound(SockType::Stream, &address);
            listen(&fd, nix::sys::socket::Backlog::new(8).unwrap()).unwrap();
            fd
        });
        for address in addresses.into_iter().cycle().take(6) {
            connect_in_child(SockType::Stream, &address, 0);
        }
    });
    let times = |events: &[Value]| who(events).into_iter().map(|(_, times)| times).collect::<Vec<_>>();
    let told = to(sensor, seq, "path", engine);
    assert_eq!(times(&told), [1, 1, 1], "{told:#?}");
    let told = to(sensor, seq, "path", other);
    assert_eq!(times(&told), [1, 2], "{told:#?}");
}

fn a_refusal_is_told_for_each_process_and_other_failures_once(sensor: &mut Sensor) {
    let seq = sensor.settle();
    let best = in_best_tier(sensor, "network_unix_connect");
    // Where everybody may go.
    let folder = std::env::temp_dir().join(format!("bz-peers-{}-{seq}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let [closed, open, stale] = ["closed", "open", "stale"].map(|name| folder.join(name));
    let _listeners = [&closed, &open].map(|path| UnixListener::bind(path).unwrap());
    drop(UnixListener::bind(&stale).unwrap());
    for (path, mode) in [(&closed, 0o600), (&open, 0o666), (&stale, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let uid = 4321;
    let connect = |path: &Path| u64::from(connect_in_child(SockType::Stream, &UnixAddr::new(path).unwrap(), uid));
    let refused = [connect(&closed), connect(&closed)];
    let allowed = connect(&open);
    let absent: Vec<_> = ["a", "b", "c"].map(|name| folder.join(name)).into_iter().map(|path| (connect(&path), path)).collect();
    let dead = connect(&stale);
    let told = |sensor: &mut Sensor, path: &Path| to(sensor, seq, "path", &path.to_string_lossy());
    let error = |events: &[Value]| events.iter().map(|event| event["body"]["error"].clone()).collect::<Vec<_>>();
    let events = told(sensor, &closed);
    assert_eq!((who(&events), error(&events)), (refused.map(|pid| (pid, 1)).to_vec(), vec![json!(13), json!(13)]), "{events:#?}");
    for event in &events {
        let fields = ["address_from_caller", "peer_pid", "peer_uid", "other_user"].map(|field| event["body"][field].clone());
        assert_eq!(fields, [json!(!best), json!(null), json!(null), json!(false)], "{event:#}");
        assert_eq!((&event["outcome"], &event["target"], &event["process"]["uid"]), (&json!("failure"), &json!(null), &json!(uid)));
    }
    let events = told(sensor, &open);
    assert_eq!((who(&events), error(&events)), (vec![(allowed, 1)], vec![json!(null)]), "{events:#?}");
    let counts: Vec<_> = absent.iter().map(|(_, path)| told(sensor, path)).collect();
    assert_eq!(counts.iter().map(|events| error(events)).collect::<Vec<_>>(), [vec![json!(2)], vec![json!(2)], vec![]]);
    assert_eq!([who(&counts[0]), who(&counts[1])], [vec![(absent[0].0, 1)], vec![(absent[1].0, 2)]]);
    let events = told(sensor, &stale);
    assert_eq!((who(&events), error(&events)), (vec![(dead, 1)], vec![json!(111)]), "{events:#?}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Modules of the guest's kernel, in the order in which they need each other: xtask/src/vm/kernel.rs.
const VSOCK_MODULES: [&str; 3] =
    ["/lib/modules/vsock.ko", "/lib/modules/vmw_vsock_virtio_transport_common.ko", "/lib/modules/vsock_loopback.ko"];
/// include/uapi/linux/vm_sockets.h: this machine itself.
const VMADDR_CID_LOCAL: u32 = 1;

fn vm_sockets_tell_both_ends(sensor: &mut Sensor) {
    for module in VSOCK_MODULES {
        if let Ok(bytes) = std::fs::read(module) {
            let address = |at: *const u8| at.addr().cast_signed() as i64;
            let result = call(libc::SYS_init_module, &[address(bytes.as_ptr()), bytes.len() as i64, address(c"".as_ptr().cast())]);
            assert!(result == 0 || result == -i64::from(libc::EEXIST), "{module}: {result}");
        }
    }
    let modules = std::fs::exists("/sys/module/vsock_loopback").unwrap();
    let best = in_best_tier(sensor, "network_vsock");
    let seq = sensor.settle();
    let new = || socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("this kernel has VM sockets");
    let pid = u64::from(std::process::id());
    let port = 7_000_000 + std::process::id();
    let own = |sensor: &Sensor, kind: &str| {
        let mut events = since(sensor, seq, kind);
        events.retain(|event| event["process"]["pid"] == pid);
        events
    };
    let server = new();
    bind(server.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port)).unwrap();
    listen(&server, nix::sys::socket::Backlog::new(4).unwrap()).unwrap();
    let (client, twin) = (new(), new());
    let made = connect(client.as_raw_fd(), &VsockAddr::new(VMADDR_CID_LOCAL, port));
    let nobody = connect(twin.as_raw_fd(), &VsockAddr::new(VMADDR_CID_LOCAL, port + 1));
    assert_eq!((made.is_ok(), nobody.is_ok()), (modules, false), "{made:?} {nobody:?}");
    let taken = if modules { Some(accept(server.as_raw_fd()).unwrap()) } else { None };
    sensor.settle();
    let events = own(sensor, "network.vsock_connect");
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let (body, ends) = (&event["body"], &event["body"]["socket"]);
            let fields = [&ends["peer_cid"], &ends["peer_port"], &ends["socket_type"], &body["error"], &event["outcome"]];
            fields.map(Value::clone)
        })
        .collect();
    let errno = |result: Result<(), nix::errno::Errno>| result.err().map(|errno| errno as i32);
    let outcome = |result: Result<(), nix::errno::Errno>| if result.is_ok() { "success" } else { "failure" };
    let expected = [(port, made), (port + 1, nobody)]
        .map(|(port, result)| [json!(VMADDR_CID_LOCAL), json!(port), json!("SOCK_STREAM"), json!(errno(result)), json!(outcome(result))]);
    assert_eq!(told, expected, "{events:#?}");
    let inode = std::fs::metadata(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap().ino();
    assert_eq!(events[0]["body"]["socket"]["inode"], inode, "{events:#?}");
    // A module's sockets hide their addresses.
    assert_eq!(events[0]["body"]["peer_from_caller"], json!(modules && !best), "{events:#?}");
    let events = own(sensor, "network.vsock_accept");
    assert_eq!(events.len(), usize::from(modules), "{events:#?}");
    if let (Some(event), Some(fd)) = (events.first(), taken) {
        let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        assert_eq!((&event["body"]["socket"]["inode"], &event["body"]["socket"]["peer_port"]), (&json!(inode), &json!(null)), "{event:#}");
    }
}
