//! Who comes in and who becomes whom, on a real kernel: a trigger, and exactly the events that it must give, in each tier. Runs on this
//! kernel and, by `cargo xtask vm`, on others.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bartizan_tests::pam::{self, LIBPAM, PAM_AUTH_ERR, PAM_AUTHTOK, PAM_RHOST, PAM_RUSER, PAM_TTY, PAM_USER, Pam};
use bartizan_tests::{Folder, Sensor, SensorConfig, wait_for};
use nix::libc;
use serde_json::{Value, json};

/// Beginnings of the hooks that these tests are about.
const HOOKS: &[&str] = &["process_", "network_", "auth_"];

/// Makes this test run as the program that is watched; its value says which.
const ROLE: &str = "BARTIZAN_TEST_ROLE";
/// The folder of the role's files.
const FOLDER: &str = "BARTIZAN_TEST_FOLDER";
/// The libpam that the role loads.
const LIBRARY: &str = "BARTIZAN_TEST_LIBPAM";
/// Set in the guest of `cargo xtask vm`.
const GUEST: &str = "BARTIZAN_VM";

/// A sensor with the best tiers that this kernel has, and one held to the fallback tiers.
fn both() -> [SensorConfig; 2] {
    let best = ["network_accept:fexit", "process_credentials:fexit"];
    let fallback = best.iter().fold(Sensor::with().hooks(HOOKS), |sensor, tier| sensor.arg("--disable-hook").arg(tier));
    [Sensor::with().hooks(HOOKS), fallback]
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// This test's program in another role, not yet run.
fn role(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "the_other_roles", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(FOLDER, folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Runs a role to its end; returns its pid.
#[track_caller]
fn play(name: &str, folder: &Path) -> u32 {
    let child = role(name, folder).spawn().expect("this program again");
    let pid = child.id();
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    pid
}

#[test]
fn the_other_roles() {
    let Ok(name) = std::env::var(ROLE) else { return };
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let library = std::env::var_os(LIBRARY).unwrap_or(LIBPAM.into());
    let start = |service: &str, user: &str| Pam::start(Path::new(&library), &folder, service, user);
    match name.as_str() {
        "login" => {
            let pam = start("bz-permit", "alice");
            for (item, value) in [(PAM_RHOST, "192.0.2.7"), (PAM_TTY, "ssh"), (PAM_RUSER, "eve")] {
                pam.set(item, value);
            }
            // libpam takes passwords of its modules only; the call is made all the same.
            pam.try_set(PAM_AUTHTOK, "hunter2-secret");
            assert_eq!(pam.call(c"pam_authenticate"), 0);
            assert_eq!(pam.call(c"pam_acct_mgmt"), 0);
            assert_eq!(pam.call(c"pam_open_session"), 0);
            // Two levels below the session.
            assert!(Command::new("/bin/sh").args(["-c", "/bin/true below; exit 0"]).status().expect("a shell").success());
            assert_eq!(pam.call(c"pam_close_session"), 0);
            pam.end();
        }
        "refused" => {
            let pam = start("bz-deny", "bob");
            pam.set(PAM_RHOST, "attacker.example.net");
            assert_eq!(pam.call(c"pam_authenticate"), PAM_AUTH_ERR);
            pam.set(PAM_USER, "carol");
            assert_eq!(pam.call(c"pam_authenticate"), PAM_AUTH_ERR);
            pam.end();
        }
        // As sshd does for keyboard-interactive: the child of the process that began it authenticates.
        "forked" => {
            let pam = start("bz-permit", "alice");
            pam.set(PAM_RHOST, "192.0.2.9");
            // SAFETY: this program has one thread besides libtest's, which sleeps; the child only calls libpam and ends.
            match unsafe { libc::fork() } {
                0 => {
                    let result = pam.call(c"pam_authenticate");
                    // SAFETY: ends the child without libtest's own end.
                    unsafe { libc::_exit(result) };
                }
                child => {
                    let mut status = 0;
                    // SAFETY: a valid place for the status.
                    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                    assert_eq!(status, 0);
                }
            }
            assert_eq!(pam.call(c"pam_open_session"), 0);
            pam.end();
        }
        // Loads the library, says so, waits for a line, authenticates.
        "waiting" => {
            let pam = start("bz-permit", "dave");
            println!("loaded");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).expect("a line");
            assert_eq!(pam.call(c"pam_authenticate"), 0);
        }
        "sshd" => {
            // SAFETY: a NUL-terminated name.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"sshd".as_ptr()) };
            say(c"%.500s", c"Failed publickey for root from 192.0.2.7 port 4711 ssh2: ED25519 SHA256:x");
            say(c"%.500s", c"Invalid user x from 10.0.0.1 port 1 from 192.0.2.7 port 4712");
            say(c"%s", c"Failed publickey for other from 192.0.2.7 port 4713 ssh2");
            say(c"%.500s", c"Connection closed by 192.0.2.7 port 4714 [preauth]");
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"notsshd".as_ptr()) };
            say(c"%.500s", c"Failed publickey for other from 192.0.2.7 port 4715 ssh2");
            // SAFETY: as above; plain calls.
            unsafe {
                libc::prctl(libc::PR_SET_NAME, c"sshd".as_ptr());
                assert_eq!(libc::setuid(65534), 0);
            }
            say(c"%.500s", c"Failed publickey for other from 192.0.2.7 port 4716 ssh2");
        }
        // Opens a session, starts something below it, and stays until it is told to go.
        "stays" => {
            let pam = start("bz-permit", "alice");
            assert_eq!(pam.call(c"pam_open_session"), 0);
            let mut below = Command::new("/bin/sleep").arg("602").spawn().expect("sleep");
            // libtest has begun the line.
            println!("\nbelow {}", below.id());
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).expect("a line");
            below.kill().expect("its end");
            below.wait().expect("its end");
        }
        "ids" => change_ids(),
        other => panic!("no role {other}"),
    }
}

fn say(format: &std::ffi::CStr, message: &std::ffi::CStr) {
    // SAFETY: each format takes one string.
    unsafe { libc::syslog(libc::LOG_INFO, format.as_ptr(), message.as_ptr()) };
}

/// Every call of the family once, by system call, so that libc's other threads stay out of it.
fn change_ids() {
    const SAME: libc::c_long = -1;
    let call = |number: libc::c_long, a: libc::c_long, b: libc::c_long, c: libc::c_long| {
        // SAFETY: these calls take numbers.
        unsafe { libc::syscall(number, a, b, c) }
    };
    assert_eq!(call(libc::SYS_setfsgid, 7, 0, 0), 0);
    assert_eq!(call(libc::SYS_setfsuid, 7, 0, 0), 0);
    assert_eq!(call(libc::SYS_setresgid, SAME, 8, SAME), 0);
    assert_eq!(call(libc::SYS_setregid, SAME, 9, 0), 0);
    assert_eq!(call(libc::SYS_setgid, 10, 0, 0), 0);
    // Nothing changes: not told.
    assert_eq!(call(libc::SYS_setgid, 10, 0, 0), 0);
    assert_eq!(call(libc::SYS_setreuid, 12, SAME, 0), 0);
    assert_eq!(call(libc::SYS_setresuid, 12, 13, 0), 0);
    // Not allowed without privilege: not told.
    assert_eq!(call(libc::SYS_setuid, 77, 0, 0), -1);
    assert_eq!(call(libc::SYS_setuid, 12, 0, 0), 0);
}

#[test]
fn every_change_of_ids_is_told_with_old_and_new_in_every_tier() {
    for config in both() {
        let mut sensor = config.start();
        let pid = play("ids", sensor.folder().path());
        sensor.settle();
        let events = sensor.events_json(&["--kind", "process.credentials", "--pid", &pid.to_string()]);
        let told: Vec<(&str, Value)> = events.iter().map(|event| (text(&event["body"]["call"]), changes(&event["body"]))).collect();
        let expected = [
            ("setfsgid", json!({"fsgid": [0, 7]})),
            ("setfsuid", json!({"fsuid": [0, 7]})),
            ("setresgid", json!({"egid": [0, 8], "fsgid": [7, 8]})),
            ("setregid", json!({"egid": [8, 9], "sgid": [0, 9], "fsgid": [8, 9]})),
            ("setgid", json!({"gid": [0, 10], "egid": [9, 10], "sgid": [9, 10], "fsgid": [9, 10]})),
            ("setreuid", json!({"uid": [0, 12], "fsuid": [7, 0]})),
            ("setresuid", json!({"euid": [0, 13], "fsuid": [0, 13]})),
            ("setuid", json!({"euid": [13, 12], "fsuid": [13, 12]})),
        ];
        assert_eq!(told, expected.map(|(call, changes)| (call, changes)), "{events:#?}");
    }
}

/// What a body changes: `{name: [old, new]}`.
fn changes(body: &Value) -> Value {
    let pairs = body["old"].as_object().into_iter().flatten().map(|(name, old)| (name.clone(), old, &body["new"][name]));
    pairs.filter(|(_, old, new)| old != new).map(|(name, old, new)| (name, json!([old, new]))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_listener_and_what_it_accepts_are_told_in_every_tier() {
    for config in both() {
        let mut sensor = config.start();
        let listeners: Vec<TcpListener> = ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"].map(|at| TcpListener::bind(at).expect("listens")).into();
        let mut clients = Vec::new();
        for listener in &listeners {
            let at = listener.local_addr().expect("bound");
            let to: SocketAddr = if at.is_ipv4() { (Ipv4Addr::LOCALHOST, at.port()).into() } else { at };
            let client = TcpStream::connect(to).expect("connects");
            let taken = listener.accept().expect("accepts");
            clients.push((to, client.local_addr().expect("connected"), client, taken));
        }
        // Nobody waits: no connection.
        listeners[0].set_nonblocking(true).expect("nonblocking");
        assert!(listeners[0].accept().is_err());
        sensor.settle();
        let pid = std::process::id().to_string();
        let listens = sensor.events_json(&["--kind", "network.listen", "--pid", &pid]);
        let ports: Vec<(Value, u64)> = listens
            .iter()
            .map(|event| (event["body"]["socket"]["local_ip"].clone(), event["body"]["backlog"].as_u64().unwrap_or(0)))
            .collect();
        assert_eq!(
            ports.iter().map(|(ip, _)| ip.clone()).collect::<Vec<_>>(),
            [json!("127.0.0.1"), json!("::1"), Value::Null],
            "{listens:#?}"
        );
        assert!(ports.iter().all(|(_, backlog)| *backlog > 0), "{listens:#?}");
        let accepts = sensor.events_json(&["--kind", "network.accept", "--pid", &pid]);
        assert_eq!(accepts.len(), clients.len(), "{accepts:#?}");
        for ((local, peer, _, _), event) in clients.iter().zip(&accepts) {
            let socket = &event["body"]["socket"];
            assert_eq!((text(&socket["local_ip"]), &socket["local_port"]), (local.ip().to_string().as_str(), &json!(local.port())));
            assert_eq!((text(&socket["peer_ip"]), &socket["peer_port"]), (peer.ip().to_string().as_str(), &json!(peer.port())));
            assert!(socket["inode"].as_u64().is_some_and(|inode| inode > 0), "the new socket's file is known: {event:#?}");
        }
    }
}

#[test]
fn packets_to_closed_ports_are_gathered_by_source_and_none_is_missing() {
    let sensor = Sensor::with().hooks(HOOKS).start();
    // Held, so that nobody else takes them, and closed, so that nobody listens.
    let closed: Vec<u16> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()).collect();
    for port in &closed {
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err());
    }
    let six = TcpListener::bind("[::1]:0").expect("a port").local_addr().expect("bound").port();
    assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, six)).is_err());
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let quiet = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    udp.send_to(b"x", quiet).expect("sent");

    let probed = |events: &[Value], ip: &str, transport: &str, ports: &BTreeSet<u16>| -> BTreeSet<u16> {
        let of = |event: &&Value| event["body"]["source_ip"] == ip && event["body"]["transport"] == transport;
        let all = events.iter().filter(of).flat_map(|event| event["body"]["ports"].as_array().into_iter().flatten());
        all.filter_map(|port| u16::try_from(port.as_u64()?).ok()).filter(|port| ports.contains(port)).collect()
    };
    let wanted: BTreeSet<u16> = closed.iter().copied().collect();
    let events = wait_for("every probed port", || {
        let events = sensor.events_json(&["--kind", "network.probe"]);
        let complete = probed(&events, "127.0.0.1", "tcp", &wanted) == wanted
            && probed(&events, "::1", "tcp", &BTreeSet::from([six])).len() == 1
            && probed(&events, "127.0.0.1", "udp", &BTreeSet::from([quiet.port()])).len() == 1;
        complete.then_some(events)
    });
    for event in &events {
        let body = &event["body"];
        assert_eq!((&event["process"], text(&event["no_subject"])), (&Value::Null, "softirq"));
        let ports = body["ports"].as_array().map_or(0, Vec::len) as u64;
        assert!((1..=32).contains(&ports) && body["packets"].as_u64().is_some_and(|packets| packets >= ports), "{event:#?}");
    }
    let syn = events.iter().filter(|event| event["body"]["tcp_flags"] == 2 && event["body"]["source_ip"] == "127.0.0.1");
    let packets: u64 = syn.filter_map(|event| event["body"]["packets"].as_u64()).sum();
    assert!(packets >= 40, "{packets} SYNs of 40 were counted: {events:#?}");
}

/// The bodies of `kind` with this user, as (outcome, body, event).
fn auth<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_pam_login_is_told_step_by_step_and_its_processes_belong_to_it() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    pam::write_services(sensor.folder().path());
    let pid = play("login", sensor.folder().path());
    sensor.settle();
    let events = sensor.events_json(&[]);
    let steps: Vec<&Value> =
        events.iter().filter(|event| text(&event["kind"]).starts_with("auth.") && event["process"]["pid"] == pid).collect();
    let told: Vec<(&str, &str)> = steps.iter().map(|event| (text(&event["kind"]), text(&event["outcome"]))).collect();
    let kinds = ["auth.start", "auth.authenticate", "auth.account", "auth.session_open", "auth.session_close"];
    assert_eq!(told, kinds.map(|kind| (kind, "success")), "{steps:#?}");
    let login = &steps[0]["body"]["login"];
    assert_eq!(login, &steps[0]["id"]);
    for step in &steps {
        let body = &step["body"];
        assert_eq!((&body["login"], text(&body["service"]), text(&body["user"])), (login, "bz-permit", "alice"));
    }
    for step in &steps[1..] {
        let body = &step["body"];
        assert_eq!((text(&body["peer_ip"]), text(&body["tty"]), text(&body["ruser"])), ("192.0.2.7", "ssh", "eve"));
        assert_eq!(body["pam_result"], 0);
    }
    let below = events.iter().find(|event| event["kind"] == "process.exec" && event["process"]["argv"] == json!(["/bin/true", "below"]));
    let below = below.expect("the program below the session");
    assert_eq!(&below["process"]["login"], login, "{below:#}");
    let before = steps[0];
    assert_eq!(before["process"]["login"], Value::Null, "no session is open yet");
    assert!(!sensor.verb("events", &["--json"]).stdout.contains("hunter2-secret"), "a password is in the events");
}

#[test]
fn refusals_name_the_user_that_was_tried_then() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    pam::write_services(sensor.folder().path());
    let pid = play("refused", sensor.folder().path());
    sensor.settle();
    let events = sensor.events_json(&["--kind", "auth.authenticate", "--pid", &pid.to_string()]);
    let told: Vec<(&str, &str, &str, Option<i64>)> = events
        .iter()
        .map(|event| {
            let body = &event["body"];
            (text(&event["outcome"]), text(&body["user"]), text(&body["rhost"]), body["pam_result"].as_i64())
        })
        .collect();
    let host = "attacker.example.net";
    assert_eq!(told, [("failure", "bob", host, Some(7)), ("failure", "carol", host, Some(7))]);
    assert_eq!(events[0]["body"]["login"], events[1]["body"]["login"]);
    assert_eq!(events[0]["body"]["peer_ip"], Value::Null, "a name is no address");
}

#[test]
fn a_handle_is_followed_across_fork() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    pam::write_services(sensor.folder().path());
    let pid = play("forked", sensor.folder().path());
    sensor.settle();
    let events = sensor.events_json(&["--kind", "auth"]);
    let start = auth(&events, "auth.start").into_iter().find(|event| event["process"]["pid"] == pid).expect("a start");
    let tried = auth(&events, "auth.authenticate").into_iter().find(|event| event["process"]["ppid"] == pid).expect("the child's attempt");
    let open = auth(&events, "auth.session_open").into_iter().find(|event| event["process"]["pid"] == pid).expect("a session");
    assert_eq!((&tried["body"]["login"], &open["body"]["login"]), (&start["body"]["login"], &start["body"]["login"]));
    assert_eq!((text(&tried["body"]["user"]), text(&tried["body"]["peer_ip"])), ("alice", "192.0.2.9"));
}

/// A program that has loaded `library` and waits.
fn waiting(folder: &Path, library: &Path) -> Child {
    let mut child = role("waiting", folder).env(LIBRARY, library).spawn().expect("this program again");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("loaded"))));
    child
}

fn let_go(mut child: Child) -> u32 {
    writeln!(child.stdin.as_mut().expect("a pipe"), "go").expect("it listens");
    let pid = child.id();
    // Its standard output is not read any more; libtest's last words fit into the pipe.
    assert!(child.wait().expect("its end").success());
    pid
}

#[test]
fn a_library_that_only_a_running_program_has_is_attached_to() {
    let folder = Folder::new();
    pam::write_services(folder.path());
    // As in a container, or after an upgrade: its file has no name any more.
    let copy = folder.join("libpam.so.0");
    fs::copy(LIBPAM, &copy).expect("the library can be copied");
    let child = waiting(folder.path(), &copy);
    fs::remove_file(&copy).expect("removed");
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let pid = let_go(child);
    sensor.settle();
    let events = sensor.events_json(&["--kind", "auth.authenticate", "--pid", &pid.to_string()]);
    // What was set before the sensor came up is not known.
    assert_eq!((events.len(), text(&events[0]["outcome"]), &events[0]["body"]["user"]), (1, "success", &Value::Null), "{events:#?}");
    let libraries = &sensor.status_json()["libraries"];
    let paths: Vec<&str> = libraries.as_array().into_iter().flatten().map(|library| text(&library["path"])).collect();
    assert!(paths.iter().any(|path| path.ends_with("libpam.so.0 (deleted)")), "{libraries:#}");
}

/// In the guest alone: there the library is nobody else's.
#[test]
fn a_library_that_an_upgrade_replaces_is_attached_to_anew() {
    if std::env::var_os(GUEST).is_none() {
        return;
    }
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    pam::write_services(sensor.folder().path());
    let place = fs::canonicalize(LIBPAM).expect("libpam is in the guest");
    // As dpkg does: unpack beside, rename over.
    let beside = place.with_extension("dpkg-new");
    fs::copy(&place, &beside).expect("copied");
    fs::rename(&beside, &place).expect("replaced");
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&place).expect("there"));
    wait_for("programs on the new file", || {
        let status = sensor.status_json();
        status["libraries"].as_array()?.iter().find(|library| library["inode"] == inode && library["problem"].is_null()).map(|_| ())
    });
    let pid = play("login", sensor.folder().path());
    sensor.settle();
    assert_eq!(sensor.events_json(&["--kind", "auth.authenticate", "--pid", &pid.to_string()]).len(), 1);
}

#[test]
fn sshd_s_words_are_heard_of_sshd_alone() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let pid = play("sshd", sensor.folder().path());
    sensor.settle();
    let events = sensor.events_json(&["--kind", "auth", "--pid", &pid.to_string()]);
    let [key, user] = &events[..] else { panic!("expected two events, got {events:#?}") };
    assert_eq!((text(&key["kind"]), text(&key["outcome"]), text(&key["body"]["source"])), ("auth.authenticate", "failure", "sshd_log"));
    let body = &key["body"];
    assert_eq!((text(&body["method"]), text(&body["user"]), text(&body["peer_ip"])), ("publickey", "root", "192.0.2.7"));
    assert_eq!(body["peer_port"], 4711);
    assert_eq!(
        (text(&user["kind"]), text(&user["body"]["peer_ip"])),
        ("auth.invalid_user", "192.0.2.7"),
        "the client's words are not sshd's"
    );
    assert_eq!(user["body"]["login"], body["login"], "one connection");
}

#[test]
fn a_session_is_known_to_the_next_run_of_the_sensor() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    pam::write_services(sensor.folder().path());
    // The session's own process and one below it live across the restart.
    let mut child = role("stays", sensor.folder().path()).spawn().expect("this program again");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let below: u32 = lines.find_map(|line| line.ok()?.strip_prefix("below ")?.parse().ok()).expect("the pid below");
    // Written once a second.
    let login = wait_for("the session in the events", || {
        let events = sensor.events_json(&["--kind", "auth.session_open", "--pid", &child.id().to_string()]);
        events.first().map(|event| event["body"]["login"].clone())
    });
    wait_for("the saved logins", || fs::metadata(sensor.data_dir().join("logins")).ok().filter(|file| file.len() > 20).map(|_| ()));
    sensor.crash_and_restart();
    writeln!(child.stdin.as_mut().expect("a pipe"), "go").expect("it listens");
    assert!(child.wait().expect("its end").success());
    sensor.settle();
    let exits = sensor.events_json(&["--kind", "process.exit", "--pid", &below.to_string()]);
    assert_eq!(exits.last().map(|event| &event["process"]["login"]), Some(&login), "{exits:#?}");
}
