//! Every hook on a real kernel: a trigger, and exactly the event that it must give. Runs on this kernel and, by
//! `cargo xtask vm`, on others; it needs nothing but a shell and `/proc`.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use bartizan_tests::{ControlGroup, Folder, Group, Sensor, SensorConfig, need_root, victim, wait_for, wait_until};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use serde_json::Value;

/// Beginnings of the hooks that these tests are about.
const HOOKS: &[&str] = &["process_", "network_"];

/// Makes `capture` run as the program whose threads all end at once; see [`one_process_ends_once`].
const MANY_THREADS: &str = "BARTIZAN_TEST_MANY_THREADS";

const ENOENT: i64 = 2;
const EACCES: i64 = 13;
const ENETUNREACH: i64 = 101;
const ECONNREFUSED: i64 = 111;

/// Hooks that have a fallback tier, by their best one.
const BEST_TIERS: [&str; 3] = ["process_exec_failed:fexit", "network_connect_tcp_early:fexit", "network_connect_udp:fexit"];

/// A sensor with the best tiers that this kernel has, and one held to the fallback tiers.
fn both() -> [SensorConfig; 2] {
    let fallback = BEST_TIERS.iter().fold(Sensor::with().hooks(HOOKS), |sensor, tier| sensor.arg("--disable-hook").arg(tier));
    [Sensor::with().hooks(HOOKS), fallback]
}

fn of_pid(events: &[Value], pid: u32) -> Vec<&Value> {
    events.iter().filter(|event| event["process"]["pid"] == pid).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// This process's own image id, from its seed.
fn own_exec_id(sensor: &Sensor) -> String {
    let pid = std::process::id().to_string();
    let seeds = sensor.events_json(&["--kind", "process.seed", "--pid", &pid]);
    text(&seeds.last().expect("this process was not seeded")["process"]["exec_id"]).to_owned()
}

#[test]
fn an_exec_tells_its_image_its_parent_and_its_end() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let folder = sensor.folder().path().canonicalize().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exit 7", "capture marker", "", "\u{1b}[2J"]).current_dir(&folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    sensor.settle();

    let events = sensor.events_json(&[]);
    let fork = events.iter().find(|event| event["kind"] == "process.fork" && event["body"]["child"]["pid"] == pid).expect("no fork");
    assert_eq!(fork["process"]["pid"], std::process::id());
    let mut mine = of_pid(&events, pid);
    // What was executed for the first time is read by another thread, sooner or later.
    mine.retain(|event| event["kind"] != "process.hash");
    let [exec, exit] = mine[..] else { panic!("expected exec and exit, got {mine:#?}") };
    assert_eq!((text(&exec["kind"]), text(&exec["outcome"])), ("process.exec", "success"));
    let process = &exec["process"];
    assert_eq!(process["argv"], serde_json::json!(["/bin/sh", "-c", "exit 7", "capture marker", "", "\u{1b}[2J"]));
    assert_eq!(exec["body"]["requested"], "/bin/sh");
    assert_eq!(process["exe"]["path"], *fs::canonicalize("/bin/sh").unwrap().to_string_lossy());
    assert_eq!(process["cwd"], *folder.to_string_lossy());
    assert_eq!((process["uid"].as_u64(), text(&process["user"])), (Some(0), "root"));
    assert_eq!(process["ppid"], std::process::id());
    assert_eq!(text(&process["parent"]), own_exec_id(&sensor), "the parent is the image that forked");
    let ends: Vec<&str> = exec["body"]["stdio"].as_array().unwrap().iter().map(|fd| text(&fd["end"]["type"])).collect();
    assert_eq!(ends, ["device", "pipe", "device"]);
    assert_eq!(exec["body"]["relay"]["fds"], serde_json::json!([1]), "the pipe's other end is here");
    assert_eq!((exit["kind"].as_str(), exit["body"]["code"].as_i64()), (Some("process.exit"), Some(7)));
    assert_eq!(exit["process"]["exec_id"], process["exec_id"]);
    let seqs: Vec<u64> = [fork, exec, exit].iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(seqs.is_sorted(), "fork, exec, exit came as {seqs:?}");
}

#[test]
fn a_signal_and_a_thread_s_exec_are_told_as_such() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let mut group = Group::start(victim("/bin/sleep", &sensor.folder().join("log-sleep")).arg("600"));
    let pid = group.pid();
    group.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(group.wait().signal(), Some(9));
    // The child of a thread is a child of the process.
    let threaded = std::thread::spawn(|| {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    });
    let threaded = threaded.join().unwrap();
    sensor.settle();
    let events = sensor.events_json(&[]);
    let exit = of_pid(&events, pid).into_iter().find(|event| event["kind"] == "process.exit").expect("no exit").clone();
    assert_eq!((exit["body"]["signal"].as_i64(), exit["body"]["code"].as_i64()), (Some(9), None));
    let exec = of_pid(&events, threaded).into_iter().find(|event| event["kind"] == "process.exec").expect("no exec").clone();
    assert_eq!(exec["process"]["ppid"], std::process::id());
}

#[test]
fn a_failed_exec_is_told_with_its_errno_in_every_tier() {
    for config in both() {
        let mut sensor = config.start();
        let missing = sensor.folder().join("no-such-program");
        let forbidden = sensor.folder().write("not-executable", "#!/bin/sh\n");
        assert!(Command::new(&missing).spawn().is_err());
        let long = format!("/{}", "long/".repeat(300));
        assert!(Command::new(&long).spawn().is_err());
        assert!(Command::new(&forbidden).spawn().is_err());
        sensor.settle();
        let events = sensor.events_json(&["--kind", "process.exec"]);
        let cut = events.iter().find(|event| event["body"]["requested_truncated"] == true).expect("the long path was not cut");
        assert!(text(&cut["body"]["requested"]).len() > 200 && long.starts_with(text(&cut["body"]["requested"])), "{cut:#?}");
        for (path, errno) in [(&missing, ENOENT), (&forbidden, EACCES)] {
            let failed: Vec<&Value> = events.iter().filter(|event| event["body"]["requested"] == *path.to_string_lossy()).collect();
            let [event] = failed[..] else { panic!("expected one failed exec of {}, got {failed:#?}", path.display()) };
            assert_eq!((text(&event["outcome"]), event["body"]["error"].as_i64()), ("failure", Some(errno)));
        }
    }
}

#[test]
fn what_is_too_long_or_deleted_or_not_utf8_is_said() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let long = "x".repeat(3000);
    let run = |command: &mut Command| {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let cut = run(Command::new("/bin/true").args([&long, &long]));
    let bytes = run(Command::new("/bin/true").arg(OsStr::from_bytes(b"a\xffb")));
    // An executable whose last link goes while it is being executed.
    let copy = sensor.folder().join("deleted");
    fs::copy("/bin/true", &copy).unwrap();
    let file = fs::File::open(&copy).unwrap();
    fs::remove_file(&copy).unwrap();
    let deleted = run(&mut Command::new(format!("/proc/self/fd/{}", keep(&file))));
    sensor.settle();
    let events = sensor.events_json(&["--kind", "process.exec"]);
    let process = |pid| of_pid(&events, pid).last().expect("no exec")["process"].clone();
    assert_eq!(process(cut)["argv_truncated"], true);
    assert!(process(cut)["argv"][1].as_str().is_some_and(|first| first.len() == 3000));
    assert_eq!(process(bytes)["argv"][1], "a\\xffb");
    assert_eq!(
        (&process(deleted)["exe"]["deleted"], &process(deleted)["exe"]["path"]),
        (&true.into(), &copy.to_string_lossy().as_ref().into())
    );
}

/// Lets a descriptor survive exec; returns its number.
fn keep(file: &fs::File) -> i32 {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    file.as_raw_fd()
}

/// Threads that end together must not be told as two ends.
#[test]
fn one_process_ends_once() {
    if std::env::var_os(MANY_THREADS).is_some() {
        for _ in 0..7 {
            std::thread::spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
        }
        // Ends all of them at once, on all processors.
        std::process::exit(0);
    }
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let own = std::env::current_exe().unwrap();
    let pids: Vec<u32> = (0..40)
        .map(|_| {
            let mut command = Command::new(&own);
            command.args(["--exact", "one_process_ends_once", "--test-threads=1"]).env(MANY_THREADS, "1");
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            child.wait().unwrap();
            child.id()
        })
        .collect();
    sensor.settle();
    let exits = sensor.events_json(&["--kind", "process.exit"]);
    for pid in pids {
        assert_eq!(of_pid(&exits, pid).len(), 1, "exits of {pid}");
    }
}

/// One attempt of a connection matrix: where to, and what must be told of it.
struct Attempt {
    peer: SocketAddr,
    transport: &'static str,
    error: Option<i64>,
}

#[test]
fn every_connection_attempt_is_told_once_with_its_result_in_every_tier() {
    for config in both() {
        let mut sensor = config.start();
        let mut attempts = Vec::new();
        let mut tcp = |peer: SocketAddr, error: Option<i64>| {
            let result = TcpStream::connect(peer);
            assert_eq!(result.err().and_then(|error| error.raw_os_error().map(i64::from)), error, "{peer}");
            attempts.push(Attempt { peer, transport: "tcp", error });
        };
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        tcp(four.local_addr().unwrap(), None);
        tcp(six.local_addr().unwrap(), None);
        tcp((Ipv4Addr::LOCALHOST, closed_port(true)).into(), Some(ECONNREFUSED));
        tcp((Ipv6Addr::LOCALHOST, closed_port(false)).into(), Some(ECONNREFUSED));
        // Fails before its first packet: no connection leads to a broadcast address.
        tcp((Ipv4Addr::BROADCAST, 7).into(), Some(ENETUNREACH));

        // IPv4 through an IPv6 socket is told as IPv4, once.
        let mapped = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mapped_listener = TcpListener::bind(mapped).unwrap();
        let through_six = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), mapped.port()));
        connect(through_six.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        attempts.push(Attempt { peer: mapped, transport: "tcp", error: None });

        // MPTCP is one attempt, though two sockets change their state.
        let multipath = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let multipath_peer = multipath.local_addr().unwrap();
        // SAFETY: no pointers; the descriptor is owned at once.
        let multipath_socket = unsafe {
            let fd = nix::libc::socket(nix::libc::AF_INET, nix::libc::SOCK_STREAM | nix::libc::SOCK_CLOEXEC, nix::libc::IPPROTO_MPTCP);
            assert!(fd >= 0, "this kernel has no MPTCP: {}", std::io::Error::last_os_error());
            <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd)
        };
        connect(multipath_socket.as_raw_fd(), &SockaddrStorage::from(multipath_peer)).unwrap();
        attempts.push(Attempt { peer: multipath_peer, transport: "tcp", error: None });

        // Without blocking: the result comes when nobody waits in connect().
        let later = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = later.local_addr().unwrap();
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let nonblocking = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let result = connect(nonblocking.as_raw_fd(), &SockaddrStorage::from(peer));
        assert!(matches!(result, Ok(()) | Err(Errno::EINPROGRESS)), "{result:?}");
        attempts.push(Attempt { peer, transport: "tcp", error: None });

        let mut udp = |peer: SocketAddr| {
            let unspecified: SocketAddr =
                if peer.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
            UdpSocket::bind(unspecified).unwrap().connect(peer).unwrap();
            attempts.push(Attempt { peer, transport: "udp", error: None });
        };
        udp((Ipv4Addr::LOCALHOST, closed_port(true)).into());
        udp((Ipv6Addr::LOCALHOST, closed_port(false)).into());
        sensor.settle();

        let pid = std::process::id();
        let events = sensor.events_json(&["--kind", "network.connect", "--pid", &pid.to_string()]);
        for Attempt { peer, transport, error } in &attempts {
            let is_it = |event: &&Value| {
                let socket = &event["body"]["socket"];
                socket["peer_ip"] == *peer.ip().to_string() && socket["peer_port"] == peer.port() && socket["transport"] == *transport
            };
            let told: Vec<&Value> = events.iter().filter(is_it).collect();
            let [event] = told[..] else { panic!("expected one {transport} attempt to {peer}, got {told:#?} of {events:#?}") };
            assert_eq!(event["body"]["error"].as_i64(), *error, "{transport} to {peer}: {event:#?}");
            assert_eq!(text(&event["outcome"]), if error.is_none() { "success" } else { "failure" });
            assert_eq!(event["process"]["exec_id"], *own_exec_id(&sensor), "a result in softirq still has its owner");
            if error.is_none() {
                assert!(event["body"]["socket"]["local_port"].as_u64().is_some_and(|port| port > 0), "{event:#?}");
            }
        }
        assert_eq!(events.len(), attempts.len(), "more was told than was tried: {events:#?}");
        drop((through_six, nonblocking, mapped_listener, multipath_socket));
    }
}

/// The result comes when the process runs another image: it is about the one that tried.
#[test]
fn a_result_after_an_exec_is_about_the_image_that_tried() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, closed_port(true)));
    let listener = TcpListener::bind(peer).unwrap();
    let mut command = Command::new("/bin/sleep");
    command.arg("0.01");
    // SAFETY: between fork and exec, only a socket is made and connected: no lock of another thread is taken.
    unsafe {
        command.pre_exec(move || {
            let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
            connect(fd.as_raw_fd(), &SockaddrStorage::from(peer))?;
            std::mem::forget(fd);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    child.wait().unwrap();
    sensor.settle();
    let events = sensor.events_json(&["--pid", &child.id().to_string()]);
    let connected = events.iter().find(|event| event["kind"] == "network.connect").expect("no connect");
    let exec = events.iter().find(|event| event["kind"] == "process.exec").expect("no exec");
    assert_ne!(connected["process"]["exec_id"], exec["process"]["exec_id"], "the image before the exec made it");
    assert_eq!(connected["process"]["exe"]["path"], *std::env::current_exe().unwrap().to_string_lossy(), "the forked copy of this test");
    drop(listener);
}

#[test]
fn what_is_no_attempt_of_its_own_is_not_told() {
    for config in both() {
        let mut sensor = config.start();
        // Refused while nobody waits; the program collects the error by a second connect().
        let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, closed_port(true)));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let collecting = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let address = SockaddrStorage::from(refused);
        let collected = wait_for("the refusal", || connect(collecting.as_raw_fd(), &address).err().filter(|e| *e != Errno::EINPROGRESS));
        assert_eq!(collected, Errno::ECONNREFUSED);
        // A UDP socket that is connected and then taken back.
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, closed_port(true)));
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        udp.connect(peer).unwrap();
        // SAFETY: zero bytes are a `sockaddr` of AF_UNSPEC, and its size is passed.
        let taken_back = unsafe {
            let nobody: nix::libc::sockaddr = std::mem::zeroed();
            nix::libc::connect(udp.as_raw_fd(), &raw const nobody, size_of::<nix::libc::sockaddr>() as u32)
        };
        assert_eq!(taken_back, 0);
        sensor.settle();
        let pid = std::process::id().to_string();
        let events = sensor.events_json(&["--kind", "network.connect", "--pid", &pid]);
        let ports: Vec<u64> = events.iter().filter_map(|event| event["body"]["socket"]["peer_port"].as_u64()).collect();
        assert_eq!(ports, [u64::from(refused.port()), u64::from(peer.port())], "{events:#?}");
        assert_eq!(events[0]["body"]["error"].as_i64(), Some(ECONNREFUSED));
    }
}

/// A port that was free a moment ago.
fn closed_port(four: bool) -> u16 {
    let address: SocketAddr = if four { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
    TcpListener::bind(address).unwrap().local_addr().unwrap().port()
}

#[test]
fn processes_older_than_the_sensor_are_seeded_exactly_or_marked() {
    need_root();
    for (hook, approximate) in [(None, false), (Some("process_seed:iter"), true)] {
        let scratch = bartizan_tests::Folder::new();
        let mut older = Group::start(victim("/bin/sleep", &scratch.join("log")).arg("601").current_dir("/"));
        let pid = older.pid();
        let config = hook.into_iter().fold(Sensor::with(), |sensor, hook| sensor.arg("--disable-hook").arg(hook));
        let mut sensor = config.start();
        older.signal(nix::sys::signal::Signal::SIGTERM);
        older.wait();
        sensor.settle();
        let events = sensor.events_json(&["--pid", &pid.to_string()]);
        let seed = events.iter().find(|event| event["kind"] == "process.seed").expect("not seeded");
        let process = &seed["process"];
        assert_eq!(process["argv"].as_array().and_then(|argv| argv.last()), Some(&Value::from("601")));
        assert_eq!(process["exe"]["path"], *fs::canonicalize("/bin/sleep").unwrap().to_string_lossy());
        assert_eq!((process["ppid"].as_u64(), process["cwd"].as_str()), (Some(u64::from(std::process::id())), Some("/")));
        assert_eq!(process["approximate"], approximate);
        assert_eq!(text(&process["parent"]), own_exec_id(&sensor));
        let exit = events.iter().find(|event| event["kind"] == "process.exit").expect("no exit");
        assert_eq!(exit["body"]["signal"], 15);
        assert_eq!(exit["process"]["argv"], process["argv"], "the end is of the process that was seeded");
        if !approximate {
            assert_eq!(exit["process"]["exec_id"], process["exec_id"]);
        }
        let (code, status) = sensor.status();
        assert_eq!(code, Some(i32::from(approximate)), "{status:#}");
    }
}

#[test]
fn a_container_is_known_by_its_control_group_and_named_by_its_runtime_s_files() {
    let host = Folder::new();
    let id = "5eed".repeat(16);
    let state = host.join(format!("var/lib/docker/containers/{id}"));
    fs::create_dir_all(&state).unwrap();
    let file = format!(r#"{{"ID":"{id}","Name":"/web","Image":"sha256:ab","Config":{{"Image":"nginx:1.27","Labels":{{"a":"b"}}}}}}"#);
    fs::write(state.join("config.v2.json"), file).unwrap();
    let config = format!("[sensor]\nruntime_root = {:?}\n", host.path());
    let mut sensor = Sensor::with().hooks(HOOKS).config(&config).start();
    let group = ControlGroup::new(&format!("docker-{id}.scope"));
    let user = ControlGroup::new("user@1000.service");
    let imitation = user.within(&format!("docker-{id}.scope"));

    let in_group = |group: &ControlGroup| {
        let mut child = group.begins(&mut Command::new("/bin/true")).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let mut resident = Group::start(group.begins(victim("/bin/sleep", &sensor.folder().join("log-sleep")).arg("600")));
    wait_until("what Docker keeps of the container", || sensor.status_json()["containers"]["known"] == 1);
    let (later, other) = (in_group(&group), in_group(&imitation));
    resident.signal(nix::sys::signal::Signal::SIGTERM);
    resident.wait();
    sensor.settle();

    let events = sensor.events_json(&[]);
    let of_kind = |pid, kind: &str| of_pid(&events, pid).into_iter().rfind(|event| event["kind"] == kind).expect(kind)["process"].clone();
    let first = of_kind(resident.pid(), "process.exec");
    assert_eq!((&first["container"]["id"], &first["container"]["runtime"]), (&Value::from(id.as_str()), &Value::from("docker")));
    assert_eq!(first["container"]["name"], Value::Null, "nothing waits for the file: {first:#}");
    assert!(first["cgroup"]["path"].as_str().is_some_and(|path| path.ends_with(&format!("docker-{id}.scope"))), "{first:#}");
    assert_eq!(first["cgroup"]["id"].as_u64(), Some(group.id()));
    let expected = serde_json::json!({
        "id": id, "runtime": "docker", "name": "web", "image": "nginx:1.27", "image_id": "sha256:ab",
        "pod": null, "within": null, "user": null, "labels": null,
    });
    assert_eq!(of_kind(later, "process.exec")["container"], expected);
    assert_eq!(of_kind(resident.pid(), "process.exit")["container"], expected, "a process that began before");
    let imitated = of_kind(other, "process.exec");
    assert_eq!((&imitated["container"]["user"], &imitated["container"]["name"]), (&Value::from(1000), &Value::Null));
    let status = sensor.status_json();
    assert_eq!((&status["containers"]["failed"], &status["containers"]["dropped"]), (&Value::from(0), &Value::from(0)), "{status:#}");
}

/// The kernel's names of the namespaces.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Namespaces of a process, by /proc; null where the kernel has no such kind.
fn namespaces(pid: u32) -> Value {
    let one = |name: &&str| {
        let inode = fs::metadata(format!("/proc/{pid}/ns/{name}")).map(|data| std::os::unix::fs::MetadataExt::ino(&data));
        ((*name).to_owned(), inode.map_or(Value::Null, Value::from))
    };
    NAMESPACES.iter().map(one).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn every_namespace_of_an_image_is_told() {
    use nix::sched::{CloneFlags, unshare};
    let own = namespaces(std::process::id());
    assert!(own["net"].is_u64() && own["user"].is_u64(), "{own:#}");
    for config in [Sensor::with().hooks(HOOKS), Sensor::with().hooks(HOOKS).arg("--disable-hook").arg("process_seed:iter")] {
        let mut sensor = config.start();
        let mut alike = Group::start(victim("/bin/sleep", &sensor.folder().join("log-alike")).arg("600"));
        let mut apart = victim("/bin/sleep", &sensor.folder().join("log-apart"));
        let new = [CloneFlags::CLONE_NEWCGROUP, CloneFlags::CLONE_NEWIPC, CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWUTS];
        let flags =
            new.into_iter().chain([CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_NEWUSER]).fold(CloneFlags::empty(), |all, one| all | one);
        // SAFETY: one system call between fork and exec.
        unsafe { apart.arg("600").pre_exec(move || Ok(unshare(flags)?)) };
        let mut apart = Group::start(&mut apart);
        // The image is there when the spawn has returned, so these are what its exec found.
        let (of_alike, of_apart) = (namespaces(alike.pid()), namespaces(apart.pid()));
        assert_eq!(of_alike, own);
        for name in ["cgroup", "ipc", "mnt", "net", "user", "uts"] {
            assert_ne!(of_apart[name], own[name], "{name}: the test's process did not leave it");
        }
        for group in [&mut alike, &mut apart] {
            group.signal(nix::sys::signal::Signal::SIGKILL);
            group.wait();
        }
        sensor.settle();
        let events = sensor.events_json(&[]);
        let told = |pid, kind: &str| {
            of_pid(&events, pid).into_iter().rfind(|event| event["kind"] == kind).expect(kind)["process"]["namespaces"].clone()
        };
        assert_eq!(told(alike.pid(), "process.exec"), of_alike);
        assert_eq!(told(apart.pid(), "process.exec"), of_apart);
        assert_eq!(told(std::process::id(), "process.seed"), own);
    }
}

#[test]
fn the_tiers_are_the_best_of_this_kernel_and_status_says_so() {
    let mut sensor = Sensor::start();
    let (code, status) = sensor.status();
    assert_eq!(code, Some(0), "{status:#}");
    let hooks = status["hooks"].as_array().unwrap();
    let kernel = text(&status["kernel"]);
    // What a kernel has no place for, such as one without modules or without fexit, is unavailable with a reason.
    for hook in hooks {
        assert!(["active", "unavailable", "absent"].contains(&text(&hook["state"])), "{hook:#}");
    }
    if kernel.contains("cloud-amd64") {
        // A stock Debian kernel carries everything.
        assert!(hooks.iter().all(|hook| hook["state"] == "active" && hook["best"] == true), "{status:#}");
        // No tier of these hooks sees access control lists, writes to file systems without a disk, and programs that netlink and socket maps take.
        let blind: Vec<&str> = status["blind"].as_array().unwrap().iter().map(|blind| text(&blind["hook"])).collect();
        assert_eq!(blind, ["file_attributes", "file_write", "kernel_bpf_attach"], "{status:#}");
    }
    for hook in hooks.iter().filter(|hook| hook["best"] != true) {
        assert!(!text(&hook["reason"]).is_empty(), "a lesser tier has no reason: {hook:#}");
    }
    sensor.terminate();
    assert_eq!(sensor.verb("status", &[]).code, Some(2));
}
