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

/// What needs no tier: the programs at packets and at state changes.
const ATTEMPTS: &[(&str, Scene)] = scenes![attempts_that_come_to_no_connection_are_told_by_source];

/// What every tier must tell.
const PEERS: &[(&str, Scene)] = scenes![
    a_unix_connection_tells_who_listens_and_repeats_are_counted,
    names_without_a_file_and_sequenced_packets_are_told_too,
    a_listener_in_another_pid_namespace_is_told_for_each_process,
    the_socket_of_a_container_engine_is_told_for_each_process,
    a_refusal_is_told_for_each_process_and_other_failures_once,
    vm_sockets_tell_both_ends,
];

/// An emulated machine is slow: nothing is to be left out for that.
const NEVER_SHED: &str = "[sensor]\ncpu_limit = 0\n";

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::with().config(NEVER_SHED).start(), &[ATTEMPTS, PEERS].concat());
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().config(NEVER_SHED).without("fexit", &["network_unix_connect", "network_vsock"]).start(), PEERS);
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

/// RFC 9293 §3.1.
const SYN: u8 = 2;

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
    let mut segment = syn(from, to.port(), SYN);
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

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// The one event about a source.
fn of_source(events: &[Value], source: IpAddr) -> Value {
    let found: Vec<&Value> = events.iter().filter(|event| event["body"]["source_ip"] == json!(source)).collect();
    let [event] = found[..] else { panic!("one event of {source}, not {found:#?}") };
    event.clone()
}

/// Some fields of its body.
fn fields<const N: usize>(event: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| event["body"][name].clone())
}

/// So many that the kernel's table has no room for all.
const SOURCES: u16 = 4500;

fn attempts_that_come_to_no_connection_are_told_by_source(sensor: &mut Sensor) {
    let address = |number| Ipv4Addr::new(127, 66, 0, number);
    let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let listeners: Vec<TcpListener> = (0..20).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let ports: Vec<u16> = listeners.iter().map(port_of).collect();
    let closed = port_of(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    // Takes IPv4 as well.
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let dual = port_of(&both);
    let (raw4, raw6) = (raw(libc::AF_INET), raw(libc::AF_INET6));
    let [scanner, few, whole, shut, mixed] = [1, 2, 3, 4, 5].map(address);
    // The same attempts, once with what follows and once without.
    for ((listener, port), from) in listeners.iter().zip(&ports).zip(40_000..) {
        connect_from(whole, listener, *port);
        half_open(&raw4, scanner, at(*port), from);
    }
    // The same packets, to a port that listens and to one that does not.
    for from in 40_000..40_003 {
        half_open(&raw4, shut, at(closed), from);
        half_open(&raw4, few, at(ports[0]), from);
    }
    // Of one source some and some, by both protocols.
    let six = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0).into();
    half_open(&raw4, mixed, at(dual), 40_000);
    for from in 40_002..40_005 {
        send(&raw6, &syn(from, dual, SYN), six);
    }
    for _ in 0..2 {
        connect_from(mixed, &both, dual);
        let _client = TcpStream::connect((Ipv6Addr::LOCALHOST, dual)).unwrap();
        both.accept().unwrap();
    }
    // No attempt, though it has the flag.
    for flags in [SYN | 16, SYN | 1, SYN | 4] {
        send(&raw6, &syn(40_001, dual, flags), six);
    }
    // More sources than are told by themselves.
    let flooded = ports[19];
    for number in 1..=SOURCES {
        half_open(&raw4, Ipv4Addr::new(127, 67, (number >> 8) as u8, number as u8), at(flooded), 40_000);
    }
    let sum = |events: &[&Value], field: &str| events.iter().filter_map(|event| event["body"][field].as_u64()).sum::<u64>();
    // Who came first is told first, or has no more to tell.
    let events = wait_for("all of the flood", || {
        let events = sensor.events_json(&["--kind", "network.syn"]);
        let flood: Vec<&Value> = events.iter().filter(|event| event["body"]["ports"] == json!([flooded])).collect();
        (sum(&flood, "attempts") >= u64::from(SOURCES)).then_some(events)
    });
    let event = of_source(&events, scanner.into());
    let expected = [json!(1), json!("127.0.0.1"), json!(&ports[..16]), json!(true), json!(20), json!(0)];
    assert_eq!(fields(&event, ["sources", "local_ip", "ports", "more_ports", "attempts", "completed"]), expected, "{event:#}");
    assert!(event["body"]["span_ns"].as_u64() > Some(0), "{event:#}");
    assert_eq!((&event["process"], &event["no_subject"]), (&json!(null), &json!("softirq")), "{event:#}");
    let event = of_source(&events, few.into());
    let expected = [json!([ports[0]]), json!(false), json!(3), json!(0)];
    assert_eq!(fields(&event, ["ports", "more_ports", "attempts", "completed"]), expected, "{event:#}");
    for (source, local, attempts) in [(IpAddr::from(mixed), "127.0.0.1", 3), (Ipv6Addr::LOCALHOST.into(), "::1", 5)] {
        let event = of_source(&events, source);
        let expected = [json!(local), json!([dual]), json!(attempts), json!(2)];
        assert_eq!(fields(&event, ["local_ip", "ports", "attempts", "completed"]), expected, "{event:#}");
    }
    let others = [whole, shut].map(|source| json!(source));
    assert!(
        !events.iter().any(|event| others.contains(&event["body"]["source_ip"])),
        "connections and closed ports are told by other kinds"
    );
    // The seconds of the sensor may cut the flood in pieces.
    let flood: Vec<&Value> = events.iter().filter(|event| event["body"]["ports"] == json!([flooded])).collect();
    let together = flood.iter().filter(|event| event["body"]["source_ip"].is_null()).count();
    assert!((1..=12).contains(&together) && flood.len() <= together * 257 + 256, "{} events, {together} of many", flood.len());
    assert_eq!((sum(&flood, "attempts"), sum(&flood, "completed")), (u64::from(SOURCES), 0));
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

/// All that was told of UNIX connections.
fn unix(sensor: &mut Sensor) -> Vec<Value> {
    sensor.settle();
    sensor.events_json(&["--kind", "network.unix_connect"])
}

/// What was told of a path.
fn to(events: &[Value], path: impl AsRef<Path>) -> Vec<Value> {
    let path = json!(path.as_ref());
    events.iter().filter(|event| event["body"]["path"] == path).cloned().collect()
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
    let (others, own) = (sensor.folder().join("others"), sensor.folder().join("own"));
    let socket = bound(SockType::Stream, &UnixAddr::new(&others).unwrap());
    let child = Listening::start(&socket, 0, 1234);
    let _own = UnixListener::bind(&own).unwrap();
    let streams: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(&others).unwrap()).collect();
    let stream = UnixStream::connect(&own).unwrap();
    let inode = |stream: &UnixStream| std::fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino();
    // Who listened has ended, and another process holds the socket: its number is known, and nothing else of it.
    let left = sensor.folder().join("left");
    let socket = bound(SockType::Stream, &UnixAddr::new(&left).unwrap());
    let gone = Listening::start(&socket, 0, 1234).pid();
    UnixStream::connect(&left).unwrap();
    let events = unix(sensor);
    let told = to(&events, &others);
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
    let told = to(&events, &own);
    let [event] = &told[..] else { panic!("one event, not {told:#?}") };
    let expected = [json!(pid), json!(0), json!(false), json!(inode(&stream))];
    assert_eq!(fields(event, ["peer_pid", "peer_uid", "other_user", "inode"]), expected, "{event:#}");
    assert_eq!(event["target"]["pid"], pid);
    let told = to(&events, &left);
    let [event] = &told[..] else { panic!("one event, not {told:#?}") };
    assert_eq!((&event["target"], &event["body"]["peer_pid"]), (&json!(null), &json!(gone)), "{event:#}");
}

fn names_without_a_file_and_sequenced_packets_are_told_too(sensor: &mut Sensor) {
    let name = format!("bz-peers-{}-{}", std::process::id(), sensor.pid());
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
    let events = unix(sensor);
    let told: Vec<&Value> = events.iter().filter(|event| event["body"]["abstract_name"] == name).collect();
    let [event] = &told[..] else { panic!("one event, not {told:#?}") };
    assert_eq!((&event["body"]["path"], &event["body"]["socket_type"]), (&json!(null), &json!("SOCK_SEQPACKET")), "{event:#}");
    assert_eq!(to(&events, &path), Vec::<Value>::new());
    drop(receiver);
}

fn a_listener_in_another_pid_namespace_is_told_for_each_process(sensor: &mut Sensor) {
    let (inside, outside) = (sensor.folder().join("inside"), sensor.folder().join("outside"));
    let addresses = [&inside, &outside].map(|path| UnixAddr::new(path).unwrap());
    let sockets = addresses.map(|address| bound(SockType::Stream, &address));
    let children = [Listening::start(&sockets[0], libc::CLONE_NEWPID, 0), Listening::start(&sockets[1], 0, 0)];
    let pids = addresses.map(|address| [(); 3].map(|()| u64::from(connect_in_child(SockType::Stream, &address, 0))));
    let events = unix(sensor);
    let told = to(&events, &inside);
    assert_eq!(who(&told), pids[0].map(|pid| (pid, 1)), "{told:#?}");
    for event in &told {
        let expected = [json!(true), json!(false), json!(children[0].pid())];
        assert_eq!(fields(event, ["other_pid_namespace", "other_user", "peer_pid"]), expected, "{event:#}");
        assert_eq!(event["target"]["pid"], children[0].pid(), "{event:#}");
    }
    let told = to(&events, &outside);
    assert_eq!(who(&told), [(pids[1][0], 1), (pids[1][1], 2)], "{told:#?}");
    assert!(told.iter().all(|event| event["body"]["other_pid_namespace"] == false), "{told:#?}");
}

fn the_socket_of_a_container_engine_is_told_for_each_process(sensor: &mut Sensor) {
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
    let events = unix(sensor);
    let told = to(&events, engine);
    assert_eq!(times(&told), [1, 1, 1], "{told:#?}");
    let told = to(&events, other);
    assert_eq!(times(&told), [1, 2], "{told:#?}");
}

fn a_refusal_is_told_for_each_process_and_other_failures_once(sensor: &mut Sensor) {
    let best = in_best_tier(sensor, "network_unix_connect");
    // Where everybody may go.
    let folder = std::env::temp_dir().join(format!("bz-peers-{}-{}", std::process::id(), sensor.pid()));
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
    let events = unix(sensor);
    let told = |path: &Path| to(&events, path);
    let error = |events: &[Value]| events.iter().map(|event| event["body"]["error"].clone()).collect::<Vec<_>>();
    let found = told(&closed);
    assert_eq!((who(&found), error(&found)), (refused.map(|pid| (pid, 1)).to_vec(), vec![json!(13), json!(13)]), "{found:#?}");
    for event in &found {
        let expected = [json!(!best), json!(null), json!(null), json!(false)];
        assert_eq!(fields(event, ["address_from_caller", "peer_pid", "peer_uid", "other_user"]), expected, "{event:#}");
        assert_eq!((&event["outcome"], &event["target"], &event["process"]["uid"]), (&json!("failure"), &json!(null), &json!(uid)));
    }
    let found = told(&open);
    assert_eq!((who(&found), error(&found)), (vec![(allowed, 1)], vec![json!(null)]), "{found:#?}");
    let counts: Vec<_> = absent.iter().map(|(_, path)| told(path)).collect();
    assert_eq!(counts.iter().map(|events| error(events)).collect::<Vec<_>>(), [vec![json!(2)], vec![json!(2)], vec![]]);
    assert_eq!([who(&counts[0]), who(&counts[1])], [vec![(absent[0].0, 1)], vec![(absent[1].0, 2)]]);
    let found = told(&stale);
    assert_eq!((who(&found), error(&found)), (vec![(dead, 1)], vec![json!(111)]), "{found:#?}");
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
    let new = || socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("this kernel has VM sockets");
    let pid = u64::from(std::process::id());
    let port = 7_000_000 + std::process::id();
    let own = |sensor: &Sensor, kind: &str| {
        let mut events = sensor.events_json(&["--kind", kind]);
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
