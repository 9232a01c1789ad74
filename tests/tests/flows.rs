//! What goes over sockets, on a real kernel: a trigger, the event that it must give field by field, and twins that differ in one property.
//! Runs on this kernel and, by `cargo xtask vm`, on others; it needs nothing but bash.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread;

use bartizan_tests::{Scene, Sensor, play, scenes, wait_for};
use nix::libc;
use serde_json::{Value, json};

const ECONNRESET: i64 = 104;
/// Loopback addresses of this file's own servers: their ports are free there.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 53, 0, 1);
const SITE: Ipv4Addr = Ipv4Addr::new(127, 53, 0, 2);

/// What every tier must tell.
const SCENES: &[(&str, Scene)] = scenes![
    a_connection_ends_with_what_went_over_it,
    what_had_to_be_sent_again_is_counted,
    a_reset_is_told_to_who_was_reset,
    a_connection_belongs_to_who_made_it_however_it_ends,
    udp_is_gathered_by_peer,
    a_name_that_was_asked_for_is_told_with_the_connection_that_follows,
    dns_over_tcp_is_read_whatever_its_segments,
    a_request_is_read_at_both_ends_and_its_secrets_are_not,
    names_that_are_asked_of_everybody_are_told,
    a_client_hello_is_read_at_both_ends,
    a_server_hello_is_read_at_both_ends,
    both_sides_of_ssh_name_themselves,
    a_bind_tells_the_port_that_was_got,
    sockets_that_see_more_than_their_own_are_told,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().without("fexit", &["network_accept", "network_raw_socket"]).start(), SCENES);
}

/// What was told since the beginning of a scene.
struct Since<'a> {
    sensor: &'a mut Sensor,
    seq: u64,
}

impl<'a> Since<'a> {
    /// The scene begins now.
    fn now(sensor: &'a mut Sensor) -> Self {
        let seq = sensor.settle();
        Self { sensor, seq }
    }

    fn settle(&mut self) {
        self.sensor.settle();
    }

    /// Events of one kind.
    fn all(&self, kind: &str) -> Vec<Value> {
        let mut events = self.sensor.events_json(&["--kind", kind]);
        events.retain(|event| event["seq"].as_u64() > Some(self.seq));
        events
    }

    /// Those of this process.
    fn own(&self, kind: &str) -> Vec<Value> {
        let mut events = self.all(kind);
        events.retain(|event| event["process"]["pid"] == std::process::id());
        events
    }
}

/// Those whose socket has this port on this host's side or the peer's.
fn with_port(events: &[Value], side: &str, port: u16) -> Vec<Value> {
    events.iter().filter(|event| event["body"]["socket"][side] == port).cloned().collect()
}

/// Both ends of a TCP connection over `address`.
fn pair(address: IpAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    (client, server)
}

/// Reads until the peer has closed.
fn rest(stream: &mut TcpStream) -> usize {
    stream.read_to_end(&mut Vec::new()).unwrap()
}

/// The end of the connection as `local` saw it.
fn end_at(since: &Since<'_>, local: SocketAddr, peer: SocketAddr) -> Value {
    let events = since.own("network.flow_end");
    let found: Vec<Value> = with_port(&with_port(&events, "local_port", local.port()), "peer_port", peer.port());
    let [event] = &found[..] else { panic!("one end of {local} to {peer}, not {found:#?}") };
    event.clone()
}

fn a_connection_ends_with_what_went_over_it(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let before = segments_sent_again();
    let mut ends = Vec::new();
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let (mut client, mut server) = pair(address);
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        client.write_all(&[b'a'; 1000]).unwrap();
        // Half closed: what comes after is counted all the same.
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut server), 1000);
        server.write_all(&[b'b'; 2000]).unwrap();
        drop(server);
        assert_eq!(rest(&mut client), 2000);
        drop(client);
        ends.push((local, peer));
    }
    since.settle();
    // A guest can be so slow that the kernel takes a segment for lost.
    let sent_again = segments_sent_again() - before;
    for (local, peer) in ends {
        for (event, direction, sent, received) in
            [(end_at(&since, local, peer), "outgoing", 1000, 2000), (end_at(&since, peer, local), "incoming", 2000, 1000)]
        {
            let body = &event["body"];
            let told = [&body["direction"], &body["bytes_sent"], &body["bytes_received"], &body["error"]];
            assert_eq!(told.map(Value::clone), [json!(direction), json!(sent), json!(received), json!(null)], "{event:#}");
            assert!(body["retransmitted"].as_u64().is_some_and(|told| told <= sent_again), "of {sent_again}: {event:#}");
            assert_eq!((&body["socket"]["local_ip"], &body["socket"]["transport"]), (&json!(local.ip()), &json!("tcp")), "{event:#}");
            assert!(body["packets_sent"].as_u64() >= Some(3) && body["packets_received"].as_u64() >= Some(3), "{event:#}");
            assert!(body["duration_ns"].as_u64() > Some(0) && body["socket"]["inode"].as_u64() > Some(0), "{event:#}");
            assert_eq!(event["outcome"], "success");
        }
    }
}

/// TCP segments that this network namespace sent again (RFC 4022, `tcpRetransSegs`).
fn segments_sent_again() -> u64 {
    let counters = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut tcp = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RetransSegs");
    found.unwrap().1.parse().unwrap()
}

fn what_had_to_be_sent_again_is_counted(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // One connection fills it; whoever asks then is not answered and asks again after a second.
    // SAFETY: numbers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let first = TcpStream::connect(address).unwrap();
    let second = thread::spawn(move || TcpStream::connect(address).unwrap());
    let before = segments_sent_again();
    wait_for("the second one asking again", || (segments_sent_again() > before).then_some(()));
    drop((listener.accept().unwrap(), first));
    let second = second.join().unwrap();
    let (local, peer) = (second.local_addr().unwrap(), second.peer_addr().unwrap());
    drop((listener.accept().unwrap(), second));
    since.settle();
    let event = end_at(&since, local, peer);
    assert!(event["body"]["retransmitted"].as_u64() >= Some(1), "{event:#}");
}

fn a_reset_is_told_to_who_was_reset(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let (client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
    let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let abort = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's own structure, which outlives the call.
    let set = unsafe {
        let (value, size) = ((&raw const abort).cast(), size_of::<libc::linger>() as u32);
        libc::setsockopt(client.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size)
    };
    assert_eq!(set, 0);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap_err().raw_os_error().map(i64::from), Some(ECONNRESET));
    drop(server);
    since.settle();
    let (reset, by) = (end_at(&since, peer, local), end_at(&since, local, peer));
    assert_eq!((&reset["body"]["error"], &reset["outcome"]), (&json!(ECONNRESET), &json!("failure")), "{reset:#}");
    assert_eq!((&by["body"]["error"], &by["outcome"]), (&json!(null), &json!("success")), "{by:#}");
}

/// A bash that connects to `port` and starts a child that holds the connection, too.
fn connected_bash(port: u16) -> Child {
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; sleep 600 & echo $!; wait");
    let bash = Command::new("/bin/bash").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    bash.expect("bash")
}

fn a_connection_belongs_to_who_made_it_however_it_ends(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut bash = connected_bash(port);
    let (server, peer) = listener.accept().unwrap();
    let mut line = [0_u8; 16];
    let length = bash.stdout.as_mut().unwrap().read(&mut line).unwrap();
    let child: i32 = std::str::from_utf8(&line[..length]).unwrap().trim().parse().unwrap();
    let pid = bash.id().to_string();
    bash.kill().unwrap();
    bash.wait().unwrap();
    since.settle();
    let ends = |since: &Since<'_>| with_port(&since.all("network.flow_end"), "local_port", peer.port());
    assert_eq!(ends(&since), Vec::<Value>::new(), "the child holds it");
    // SAFETY: a number.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    // Only one side closed: a kernel that was busy with the socket keeps it for tcp_fin_timeout (60 s) in wait of the other's FIN.
    drop(server);
    let told = wait_for("the connection's end", || Some(ends(&since)).filter(|events| !events.is_empty()));
    assert_eq!((told.len(), told[0]["process"]["pid"].to_string(), &told[0]["process"]["name"]), (1, pid, &json!("bash")), "{told:#?}");
}

fn udp_is_gathered_by_peer(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let [one, other] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let (first, second) = (one.local_addr().unwrap(), other.local_addr().unwrap());
    let unconnected = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let from = unconnected.local_addr().unwrap();
    for _ in 0..3 {
        unconnected.send_to(&[0; 100], first).unwrap();
    }
    unconnected.send_to(&[0; 7], second).unwrap();
    other.send_to(&[0; 70], from).unwrap();
    let mut buffer = [0; 200];
    for _ in 0..3 {
        assert_eq!(one.recv(&mut buffer).unwrap(), 100);
    }
    assert_eq!((other.recv(&mut buffer).unwrap(), unconnected.recv(&mut buffer).unwrap()), (7, 70));
    let connected = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let sink = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    connected.connect(sink.local_addr().unwrap()).unwrap();
    send_many(&connected, 5, 20);
    let flow = |local: SocketAddr, peer: SocketAddr| {
        let told = wait_for("a UDP flow", || {
            let events = with_port(&since.own("network.udp_flow"), "local_port", local.port());
            let events = with_port(&events, "peer_port", peer.port());
            Some(events).filter(|events| !events.is_empty())
        });
        let [event] = &told[..] else { panic!("{told:#?}") };
        let body = &event["body"];
        let fields = ["direction", "packets_sent", "bytes_sent", "packets_received", "bytes_received"];
        assert_eq!((&body["socket"]["local_ip"], &body["socket"]["peer_ip"]), (&json!(local.ip()), &json!(peer.ip())));
        Value::from(fields.map(|field| body[field].clone()).to_vec())
    };
    assert_eq!(flow(from, first), json!(["outgoing", 3, 300, 0, 0]));
    assert_eq!(flow(first, from), json!(["incoming", 0, 0, 3, 300]));
    assert_eq!(flow(from, second), json!(["outgoing", 1, 7, 1, 70]));
    let (local, peer) = (connected.local_addr().unwrap(), sink.local_addr().unwrap());
    assert_eq!(flow(local, peer), json!(["outgoing", 5, 100, 0, 0]));
    since.settle();
}

/// `sendmmsg` of `count` datagrams of `size` bytes.
fn send_many(socket: &UdpSocket, count: u32, size: usize) {
    let bytes = vec![0_u8; size];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: size };
    // SAFETY: plain C structures for which zeros are valid; the call reads what they name, which outlives it.
    let sent = unsafe {
        let mut message: libc::mmsghdr = std::mem::zeroed();
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (&raw mut part, 1);
        let mut messages: Vec<libc::mmsghdr> = (0..count).map(|_| message).collect();
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0)
    };
    assert_eq!(sent, count.cast_signed());
}

/// A DNS question for the address of `name` (RFC 1035 §4).
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Its answer.
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut message = question.to_vec();
    (message[2], message[3], message[7]) = (0x81, 0x80, 1);
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
    message.extend(address.octets());
    message
}

/// What events of `network.dns` say.
fn dns(event: &Value) -> Value {
    let body = &event["body"];
    let data: Vec<&Value> = body["answers"].as_array().unwrap().iter().map(|answer| &answer["data"]).collect();
    json!([body["socket"]["transport"], body["outgoing"], body["response"], body["questions"], data])
}

fn a_name_that_was_asked_for_is_told_with_the_connection_that_follows(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let resolver = UdpSocket::bind((RESOLVER, 53)).unwrap();
    let site = TcpListener::bind((SITE, 0)).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.send_to(&question(7, "www.flows.example"), (RESOLVER, 53)).unwrap();
    let mut buffer = [0; 512];
    let (length, from) = resolver.recv_from(&mut buffer).unwrap();
    resolver.send_to(&answer(&buffer[..length], SITE), from).unwrap();
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(buffer[length - 4..length], SITE.octets());
    let connection = TcpStream::connect(site.local_addr().unwrap()).unwrap();
    // Another address, of which nothing was said.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nameless = TcpStream::connect(other.local_addr().unwrap()).unwrap();
    since.settle();
    let asked = json!([{"name": "www.flows.example", "record_type": "A"}]);
    let said: Vec<Value> = since.own("network.dns").iter().map(dns).collect();
    assert_eq!(
        said,
        [json!(["udp", true, false, asked, []]), json!(["udp", false, true, asked, [SITE.to_string()]])],
        "each message once, at who asks"
    );
    let connects = since.own("network.connect");
    let domain = |stream: &TcpStream| with_port(&connects, "local_port", stream.local_addr().unwrap().port())[0]["body"]["domain"].clone();
    assert_eq!((domain(&connection), domain(&nameless)), (json!("www.flows.example"), json!(null)));
}

fn dns_over_tcp_is_read_whatever_its_segments(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let listener = TcpListener::bind((RESOLVER, 53)).unwrap();
    let mut client = TcpStream::connect((RESOLVER, 53)).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    let asked = [framed(question(1, "one.flows.example")), framed(question(2, "two.flows.example"))].concat();
    for part in [&asked[..1], &asked[1..20], &asked[20..]] {
        client.write_all(part).unwrap();
        server.read_exact(&mut vec![0; part.len()]).unwrap();
    }
    let answered = framed(answer(&question(2, "two.flows.example"), SITE));
    for part in answered.chunks(answered.len() / 2 + 1) {
        server.write_all(part).unwrap();
        client.read_exact(&mut vec![0; part.len()]).unwrap();
    }
    since.settle();
    let said: Vec<Value> = since.own("network.dns").iter().map(dns).collect();
    let name = |name: &str| json!([{"name": name, "record_type": "A"}]);
    assert_eq!(
        said,
        [
            json!(["tcp", true, false, name("one.flows.example"), []]),
            json!(["tcp", true, false, name("two.flows.example"), []]),
            json!(["tcp", false, true, name("two.flows.example"), [SITE.to_string()]]),
        ]
    );
}

/// Multicast DNS (RFC 6762 §3).
const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

/// A socket at `address` whose multicast goes over the loopback device. Others may have the same address.
fn multicast_socket(address: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let set = |level: libc::c_int, option: libc::c_int, value: [u8; 4]| {
        // SAFETY: four bytes, an integer or an address, that outlive the call.
        assert_eq!(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), 4) }, 0);
    };
    set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1_i32.to_ne_bytes());
    set(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, Ipv4Addr::LOCALHOST.octets());
    let at = nix::sys::socket::SockaddrIn::from(std::net::SocketAddrV4::new(address.0, address.1));
    nix::sys::socket::bind(socket.as_raw_fd(), &at).unwrap();
    socket.into()
}

fn names_that_are_asked_of_everybody_are_told(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let asks = multicast_socket((Ipv4Addr::LOCALHOST, MDNS.1));
    let hears = multicast_socket(MDNS);
    hears.join_multicast_v4(&MDNS.0, &Ipv4Addr::LOCALHOST).unwrap();
    // The top bit of the class asks for an answer by unicast, or says that what was known before is to be forgotten (RFC 6762 §18.12).
    let mut asked = question(0, "printer.flows.local");
    let class = asked.len() - 2;
    asked[class] = 0x80;
    asks.send_to(&asked, MDNS).unwrap();
    let mut buffer = [0; 512];
    let (length, from) = hears.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&asked[..], asks.local_addr().unwrap()));
    let mut answered = answer(&asked, SITE);
    let class = answered.len() - 12;
    assert_eq!(answered[class..class + 2], [0, 1]);
    answered[class] = 0x80;
    hears.send_to(&answered, from).unwrap();
    assert_eq!(asks.recv(&mut buffer).unwrap(), answered.len());
    // A twin, to another port of the same group.
    let other = multicast_socket((MDNS.0, 0));
    other.join_multicast_v4(&MDNS.0, &Ipv4Addr::LOCALHOST).unwrap();
    let nobody_s = multicast_socket((Ipv4Addr::LOCALHOST, 0));
    nobody_s.send_to(&asked, (MDNS.0, other.local_addr().unwrap().port())).unwrap();
    assert_eq!(other.recv(&mut buffer).unwrap(), asked.len());
    since.settle();
    let said: Vec<Value> = since.own("network.dns").iter().map(dns).collect();
    let name = json!([{"name": "printer.flows.local", "record_type": "A"}]);
    let both = |response: bool, data: Value| [true, false].map(|outgoing| json!(["udp", outgoing, response, name, data]));
    assert_eq!(said, [both(false, json!([])), both(true, json!([SITE.to_string()]))].concat(), "each message at both ends");
    drop(hears);
}

/// Sends `bytes` in segments of `size`, each when the one before was read.
fn trickle(client: &mut TcpStream, server: &mut TcpStream, bytes: &[u8], size: usize) {
    for part in bytes.chunks(size) {
        client.write_all(part).unwrap();
        server.read_exact(&mut vec![0; part.len()]).unwrap();
    }
}

fn a_request_is_read_at_both_ends_and_its_secrets_are_not(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let request = b"GET /a?password=hunter2hunter2&x=1 HTTP/1.1\r\nHost: flows.example\r\nUser-Agent: test/1\r\n\r\n";
    let mut ports = Vec::new();
    for size in [request.len(), 1] {
        let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
        trickle(&mut client, &mut server, request, size);
        // A second one on the same connection is not told.
        trickle(&mut client, &mut server, b"GET /second HTTP/1.1\r\n\r\n", 100);
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        client.read_exact(&mut [0; 19]).unwrap();
        ports.push(client.local_addr().unwrap().port());
    }
    // A twin that begins with a letter and goes on as something else.
    let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
    trickle(&mut client, &mut server, b"EHLO flows.example\r\n", 100);
    trickle(&mut client, &mut server, b"QUIT\r\n", 100);
    since.settle();
    let events = since.own("network.http");
    assert_eq!(events.len(), 4, "{events:#?}");
    for port in ports {
        for (side, direction, outgoing) in [("local_port", "outgoing", true), ("peer_port", "incoming", false)] {
            let found = with_port(&events, side, port);
            let [event] = &found[..] else { panic!("{found:#?}") };
            let body = &event["body"];
            let told = ["direction", "outgoing", "method", "version", "host", "user_agent", "truncated"].map(|field| body[field].clone());
            let expected = json!([direction, outgoing, "GET", "HTTP/1.1", "flows.example", "test/1", false]);
            assert_eq!(Value::from(told.to_vec()), expected, "{event:#}");
            let target = body["target"].as_str().unwrap();
            assert!(target.starts_with("/a?password=[redacted:") && target.ends_with("&x=1"), "{target}");
        }
    }
}

/// A ClientHello for `name` (RFC 8446 §4.1.2), with ALPN h2, as an OpenSSL client of TLS 1.2 and 1.3 could send it.
fn client_hello(name: &str) -> Vec<u8> {
    let list = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let extension = |number: u16, bytes: &[u8]| [&number.to_be_bytes()[..], &list(bytes)].concat();
    let extensions = [
        extension(0, &list(&[&[0][..], &list(name.as_bytes())].concat())),
        extension(10, &list(&[0, 29, 0, 23])),
        extension(11, &[1, 0]),
        extension(13, &list(&[4, 3, 8, 4])),
        extension(16, &list(b"\x02h2")),
        extension(43, &[4, 3, 4, 3, 3]),
        // Enough that it takes more than one segment of any size.
        extension(21, &[0; 1700]),
    ]
    .concat();
    let suites = list(&[0x13, 0x01, 0xc0, 0x2f]);
    let body = [&[3, 3][..], &[7; 32], &[0], &suites, &[1, 0], &list(&extensions)].concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &list(&message)].concat()
}

/// By md5sum of `771,4865-49199,0-10-11-13-16-43-21,29-23,0`.
const JA3: &str = "de1651ed902fe731db9048373a88ae5d";
/// By sha256sum of `1301,c02f`, and of `000a,000b,000d,0015,002b_0403,0804`.
const JA4: &str = "t13d0207h2_c1929292aa6b_dc49850d21d7";
/// By md5sum of `771,4865,43-51`.
const JA3S: &str = "f4febc55ea12b31ae17cfb7e614afda8";

fn a_client_hello_is_read_at_both_ends(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let hello = client_hello("secret.flows.example");
    let mut ports = Vec::new();
    for size in [hello.len(), 100, 1000] {
        let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
        trickle(&mut client, &mut server, &hello, size);
        ports.push(client.local_addr().unwrap().port());
    }
    // A twin that ends in the middle.
    let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
    trickle(&mut client, &mut server, &hello[..300], 300);
    let cut = client.local_addr().unwrap().port();
    drop((client, server));
    since.settle();
    let events = since.own("network.tls");
    for port in ports {
        for (side, direction) in [("local_port", "outgoing"), ("peer_port", "incoming")] {
            let found = with_port(&events, side, port);
            let [event] = &found[..] else { panic!("{found:#?}") };
            let body = &event["body"];
            let fields = ["direction", "side", "version", "server_name", "alpn", "cipher_suites", "groups", "truncated", "malformed"];
            let expected = json!([direction, "client", "TLS 1.3", "secret.flows.example", ["h2"], [0x1301, 0xc02f], [29, 23], false, null]);
            assert_eq!(Value::from(fields.map(|field| body[field].clone()).to_vec()), expected, "{event:#}");
            assert_eq!((&body["ja3"], &body["ja4"]), (&json!(JA3), &json!(JA4)), "{event:#}");
        }
    }
    let partial = wait_for("what is known of a hello that was cut", || {
        let found = with_port(&since.own("network.tls"), "local_port", cut);
        found.into_iter().next()
    });
    assert_eq!((&partial["body"]["truncated"], &partial["body"]["ja3"]), (&json!(true), &json!(null)), "{partial:#}");
}

/// RFC 8446 §4.1.3: a ServerHello with this random is a HelloRetryRequest.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
    0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// A ServerHello of TLS 1.3 (RFC 8446 §4.1.3).
fn server_hello(random: [u8; 32]) -> Vec<u8> {
    let list = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let extension = |number: u16, bytes: &[u8]| [&number.to_be_bytes()[..], &list(bytes)].concat();
    let share = [&[0, 29][..], &list(&[9; 32])].concat();
    let extensions = [extension(43, &[3, 4]), extension(51, &share)].concat();
    let body = [&[3, 3][..], &random, &[0], &[0x13, 0x01], &[0], &list(&extensions)].concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[2][..], &length[1..], &body].concat();
    [&[22, 3, 3][..], &list(&message)].concat()
}

fn a_server_hello_is_read_at_both_ends(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let (asks, hello, again) = (client_hello("server.flows.example"), server_hello([8; 32]), server_hello(RETRY));
    // The last one, a twin, is an alert: the server will not.
    let answers = [(&hello[..], hello.len()), (&hello, 1), (&again, again.len()), (&[21, 3, 3, 0, 2, 2, 40], 7)];
    let ports = answers.map(|(bytes, size)| {
        let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
        trickle(&mut client, &mut server, &asks, asks.len());
        trickle(&mut server, &mut client, bytes, size);
        client.local_addr().unwrap().port()
    });
    since.settle();
    let mut events = since.own("network.tls");
    events.retain(|event| event["body"]["side"] == "server");
    for (port, retry) in ports.into_iter().zip([Some(false), Some(false), Some(true), None]) {
        for (side, direction, outgoing) in [("local_port", "outgoing", false), ("peer_port", "incoming", true)] {
            let told: Vec<Value> = with_port(&events, side, port)
                .iter()
                .map(|event| {
                    let fields = ["direction", "outgoing", "version", "cipher_suites", "extensions", "ja3", "ja4", "retry", "truncated"];
                    Value::from(fields.map(|field| event["body"][field].clone()).to_vec())
                })
                .collect();
            let expected = retry.map(|retry| json!([direction, outgoing, "TLS 1.3", [0x1301], [43, 51], JA3S, null, retry, false]));
            assert_eq!(told, Vec::from_iter(expected), "{events:#?}");
        }
    }
}

fn both_sides_of_ssh_name_themselves(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
    let port = client.local_addr().unwrap().port();
    trickle(&mut server, &mut client, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", 100);
    trickle(&mut client, &mut server, b"SSH-2.0-Go\r\n", 1);
    trickle(&mut client, &mut server, &[0; 100], 100);
    since.settle();
    let events = with_port(&since.own("network.ssh"), "local_port", port);
    let told: Vec<Value> = events
        .iter()
        .map(|event| {
            let body = &event["body"];
            json!([body["outgoing"], body["protocol"], body["software"], body["comments"]])
        })
        .collect();
    assert_eq!(told, [json!([false, "2.0", "OpenSSH_9.2p1", "Debian-2"]), json!([true, "2.0", "Go", null])]);
}

fn a_bind_tells_the_port_that_was_got(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = UdpSocket::bind(udp.local_addr().unwrap());
    assert!(taken.is_err(), "a twin that fails");
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // A twin that binds nothing: the kernel chooses a port when it connects.
    let unbound = TcpStream::connect(six.local_addr().unwrap()).unwrap();
    since.settle();
    let said: Vec<Value> = since
        .own("network.bind")
        .iter()
        .map(|event| {
            let socket = &event["body"]["socket"];
            json!([socket["transport"], socket["local_ip"], socket["local_port"], event["body"]["socket_type"]])
        })
        .collect();
    let port = |address: std::io::Result<SocketAddr>| address.unwrap().port();
    let expected = [
        json!(["udp", "127.0.0.1", port(udp.local_addr()), "SOCK_DGRAM"]),
        json!(["tcp", "::1", port(six.local_addr()), "SOCK_STREAM"]),
        json!(["udp", null, port(any.local_addr()), "SOCK_DGRAM"]),
    ];
    assert_eq!(said, expected);
    drop(unbound);
}

/// socket(2).
fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> OwnedFd {
    // SAFETY: numbers; the descriptor is nobody else's.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        assert!(fd >= 0, "{family} {kind} {protocol}: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

fn sockets_that_see_more_than_their_own_are_told(sensor: &mut Sensor) {
    let mut since = Since::now(sensor);
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    let told = [
        socket(libc::AF_PACKET, libc::SOCK_RAW, all),
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    ];
    let untold = [
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        socket(libc::AF_INET, libc::SOCK_STREAM, 0),
        socket(libc::AF_INET6, libc::SOCK_DGRAM, 0),
        socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0),
    ];
    since.settle();
    let events: Vec<Value> = since
        .own("network.raw_socket")
        .iter()
        .map(|event| {
            let body = &event["body"];
            json!([body["family"], body["socket_type"], body["protocol"], body["protocol_name"]])
        })
        .collect();
    let expected = [
        json!(["AF_PACKET", "SOCK_RAW", 3, "ETH_P_ALL"]),
        json!(["AF_INET", "SOCK_RAW", 1, "ICMP"]),
        json!(["AF_INET6", "SOCK_RAW", 58, "ICMPV6"]),
        json!(["AF_NETLINK", "SOCK_RAW", 9, "NETLINK_AUDIT"]),
    ];
    assert_eq!(events, expected);
    drop((told, untold));
}

#[test]
fn what_older_sockets_do_has_no_owner() {
    let (mut client, mut server) = pair(Ipv4Addr::LOCALHOST.into());
    let port = client.local_addr().unwrap().port();
    let mut sensor = Sensor::start();
    trickle(&mut client, &mut server, b"GET / HTTP/1.1\r\n\r\n", 100);
    // Both ends at once: each waits for the other's end.
    let other = thread::spawn(move || drop(server));
    drop(client);
    other.join().unwrap();
    sensor.settle();
    let events = with_port(&sensor.events_json(&["--kind", "network.flow_end"]), "local_port", port);
    let [event] = &events[..] else { panic!("{events:#?}") };
    let body = &event["body"];
    assert_eq!((&event["no_subject"], &event["process"]), (&json!("unknown_owner"), &json!(null)), "{event:#}");
    assert_eq!((&body["bytes_sent"], &body["direction"], &body["duration_ns"]), (&json!(18), &json!(null), &json!(null)), "{event:#}");
}
