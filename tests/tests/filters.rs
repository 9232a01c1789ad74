//! What `sensor.ignore` leaves out, on a real kernel: by executable, user, cgroup and network, with twins that differ in the one property and
//! are told. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bartizan_tests::{ControlGroup, Folder, Sensor, wait_for, wait_until};
use serde_json::Value;

const BASH: &str = "/bin/bash";
/// Users without a name, who run nothing else.
const LEFT_OUT: u32 = 64_999;
const ONLY_THERE: u32 = 64_998;

/// A sensor that leaves out what the test does by `left-out`, by `later` (which is not there yet), as [`LEFT_OUT`], in `group`, and towards
/// 127.77/16; of [`ONLY_THERE`] what goes to 127.78/16.
struct Stage {
    sensor: Sensor,
    folder: Folder,
    group: ControlGroup,
    listener: TcpListener,
}

impl Stage {
    #[track_caller]
    fn start() -> Self {
        let folder = Folder::new();
        fs::create_dir_all(folder.join("watched/cache/deep")).expect("a folder");
        fs::copy(BASH, folder.join("left-out")).expect("a copy of bash");
        let name = format!("bz-ignore-{}", std::process::id());
        let path = folder.path().display();
        let config = format!(
            "[files]\nextra_watch = [\"{path}/watched\"]\nignore = [\"{path}/*/cache\", \"{path}/nowhere\"]\n\
             [[sensor.ignore]]\nkinds = [\"*\"]\nexe = [\"{path}/left-out\", \"{path}/later\"]\n\
             [[sensor.ignore]]\nkinds = [\"network.*\"]\nuid = [{LEFT_OUT}]\n\
             [[sensor.ignore]]\nkinds = [\"network.*\"]\ncgroup = [\"/{name}\"]\n\
             [[sensor.ignore]]\nkinds = [\"network.connect\", \"network.flow_end\", \"network.probe\"]\nnetwork = [\"127.77.0.0/16\"]\n\
             [[sensor.ignore]]\nkinds = [\"network.connect\"]\nuid = [{ONLY_THERE}]\nnetwork = [\"127.78.0.0/16\"]\n"
        );
        Self::in_folder(folder, ControlGroup::new(&name), &config)
    }

    /// A sensor with this configuration.
    #[track_caller]
    fn with(config: &str) -> Self {
        Self::in_folder(Folder::new(), ControlGroup::new(&format!("bz-only-{}", std::process::id())), config)
    }

    #[track_caller]
    fn in_folder(folder: Folder, group: ControlGroup, config: &str) -> Self {
        let sensor = Sensor::with().config(config).start();
        // Every program of this kernel is loaded with all of it.
        let hooks = sensor.status_json()["hooks"].clone();
        assert!(hooks.as_array().is_some_and(|hooks| hooks.iter().all(|hook| hook["state"] != "failed")), "{hooks:#}");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a listener");
        Self { sensor, folder, group, listener }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// Runs `command`, which is to connect once and ask by HTTP; its pid.
    #[track_caller]
    fn asks(&self, mut command: Command) -> u32 {
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = child.id();
        let (mut stream, _) = self.listener.accept().expect("a connection");
        let mut request = Vec::new();
        // The other side closes when it has asked.
        stream.read_to_end(&mut request).expect("a request");
        assert!(request.starts_with(b"GET "), "{request:?}");
        drop(stream);
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{output:?}");
        pid
    }

    /// A command line for [`Self::asks`] by this shell.
    fn by(&self, shell: &Path, host: &str) -> Command {
        let mut command = Command::new(shell);
        let port = self.port();
        command.arg("-c").arg(format!("exec 3<>/dev/tcp/{host}/{port}; printf 'GET /x HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; exec 3>&-"));
        command
    }

    /// What is told of the process, of each of these kinds.
    #[track_caller]
    fn told<const N: usize>(&self, pid: u32, kinds: [&str; N]) -> [usize; N] {
        kinds.map(|kind| self.sensor.events_json(&["--kind", kind, "--pid", &pid.to_string()]).len())
    }

    fn filtered(&self, kind: &str) -> u64 {
        let status = self.sensor.status_json();
        let row = status["kinds"].as_array().into_iter().flatten().find(|row| row["kind"] == kind);
        row.and_then(|row| row["filtered"].as_u64()).unwrap_or_else(|| panic!("no row {kind}: {status:#}"))
    }
}

const KINDS: [&str; 4] = ["process.exec", "network.connect", "network.http", "network.flow_end"];

#[test]
fn what_is_left_out_is_not_told_but_counted_and_its_twin_is_told() {
    let mut stage = Stage::start();
    let left_out = stage.folder.join("left-out");
    let bash = Path::new(BASH);
    let user = |user: u32, host: &str| {
        let mut command = stage.by(bash, host);
        command.uid(user);
        command
    };
    let within = stage.group.within("below");
    let [mut in_group, mut below] = [(); 2].map(|()| stage.by(bash, "127.0.0.1"));
    stage.group.begins(&mut in_group);
    within.begins(&mut below);
    // Each with what is told of it: the exec always.
    let cases = [
        ("twin", stage.by(bash, "127.0.0.1"), [1, 1, 1, 1]),
        ("exe", stage.by(&left_out, "127.0.0.1"), [1, 0, 0, 0]),
        ("uid", user(LEFT_OUT, "127.0.0.1"), [1, 0, 0, 0]),
        ("cgroup", in_group, [1, 0, 0, 0]),
        ("cgroup above", below, [1, 0, 0, 0]),
        ("network", stage.by(bash, "127.77.1.2"), [1, 0, 1, 0]),
        ("one condition of two", user(ONLY_THERE, "127.0.0.1"), [1, 1, 1, 1]),
        ("both conditions", user(ONLY_THERE, "127.78.0.1"), [1, 0, 1, 1]),
    ];
    let done: Vec<(&str, u32, [usize; 4])> =
        cases.into_iter().map(|(name, command, expected)| (name, stage.asks(command), expected)).collect();
    // An IPv4 peer is one whichever family the socket has.
    for peer in ["127.77.0.1", "::ffff:127.77.0.1", "::ffff:127.0.0.1"] {
        let address: IpAddr = peer.parse().expect("an address");
        TcpStream::connect((address, stage.port())).expect("a connection").write_all(b"x").expect("a byte");
        drop(stage.listener.accept().expect("a connection"));
    }
    stage.sensor.settle();
    for (name, pid, expected) in done {
        assert_eq!(stage.told(pid, KINDS), expected, "{name}: {KINDS:?} of {pid}");
    }
    let own = stage.sensor.events_json(&["--kind", "network.connect", "--pid", &std::process::id().to_string()]);
    let ours: Vec<&Value> = own.iter().filter(|event| event["body"]["socket"]["peer_port"] == stage.port()).collect();
    assert_eq!(ours.len(), 1, "the one to 127.0.0.1: {ours:#?}");
    let [connects, requests, ends] = ["network.connect", "network.http", "network.flow_end"].map(|kind| stage.filtered(kind));
    assert!(connects >= 8 && requests >= 4 && ends >= 7, "{connects} connects, {requests} requests, {ends} ends");
    assert_eq!(stage.filtered("process.exec"), 0);
}

#[test]
fn an_executable_is_followed_when_it_comes_and_is_replaced() {
    let mut stage = Stage::start();
    let later = stage.folder.join("later");
    let missing = |stage: &Stage| stage.sensor.status_json()["ignore"][0]["missing"].as_array().map_or(0, Vec::len);
    assert_eq!(missing(&stage), 1, "{:#}", stage.sensor.status_json()["ignore"]);
    let page = stage.sensor.verb("status", &[]).stdout;
    assert!(page.contains(&format!("matches nothing now: exe {}", later.display())), "{page}");
    let place = |name: &str| -> PathBuf {
        let path = stage.folder.join(name);
        fs::copy(BASH, &path).expect("a copy of bash");
        path
    };
    let first = place("later");
    wait_until("the file that came", || missing(&stage) == 0);
    let mut pids = vec![stage.asks(stage.by(&first, "127.0.0.1"))];
    // Another inode under the same name; the old one is kept by its second name, and is told from then on.
    let old = stage.folder.join("old");
    fs::hard_link(&later, &old).expect("a second name");
    fs::rename(place("new"), &later).expect("a replaced file");
    let told = wait_for("the old file told", || {
        let pid = stage.asks(stage.by(&old, "127.0.0.1"));
        stage.sensor.settle();
        (stage.told(pid, ["network.connect"]) == [1]).then_some(pid)
    });
    pids.push(stage.asks(stage.by(&later, "127.0.0.1")));
    stage.sensor.settle();
    for pid in pids {
        assert_eq!(stage.told(pid, KINDS), [1, 0, 0, 0]);
    }
    assert_eq!(stage.told(told, KINDS), [1, 1, 1, 1]);
}

#[test]
fn files_and_datagrams_are_left_out_by_executable_too() {
    let mut stage = Stage::start();
    let writes = |shell: &Path, name: &str| {
        let file = stage.folder.join("watched").join(name);
        let script = format!("echo x > {}; echo y > /dev/udp/127.0.0.1/9; read line", file.display());
        // It stays, so that what fanotify tells of it can be judged.
        Command::new(shell).arg("-c").arg(script).stdin(Stdio::piped()).spawn().expect("a shell")
    };
    let mut left_out = writes(&stage.folder.join("left-out"), "left-out");
    wait_until("the open that is left out", || stage.filtered("file.open") > 0);
    let mut twin = writes(Path::new(BASH), "twin");
    let opens = |pid: u32| stage.told(pid, ["file.open"])[0];
    wait_until("the twin's open", || opens(twin.id()) > 0);
    for child in [&mut left_out, &mut twin] {
        drop(child.stdin.take());
        child.wait().expect("its end");
    }
    stage.sensor.settle();
    // Flows that ended are told a second later.
    wait_until("the twin's datagram", || stage.told(twin.id(), ["network.udp_flow"]) == [1]);
    assert_eq!(
        stage.told(left_out.id(), ["process.exec", "file.open", "file.write", "network.connect", "network.udp_flow"]),
        [1, 0, 0, 0, 0]
    );
    assert!(stage.filtered("network.udp_flow") >= 1);
}

#[test]
fn of_an_ignored_folder_nothing_is_told_but_what_goes_out_of_it() {
    let mut stage = Stage::start();
    let folder = |name: &str| stage.folder.join("watched").join(name);
    let deeds = |place: PathBuf| {
        let (file, next) = (place.join("file"), place.join("next"));
        fs::write(&file, "contents").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).expect("permissions");
        fs::create_dir(place.join("made")).expect("a folder");
        fs::rename(&file, &next).expect("a name");
        fs::hard_link(&next, &file).expect("a second name");
        fs::remove_file(&file).expect("one name less");
    };
    deeds(folder("cache/deep"));
    deeds(folder(""));
    fs::rename(folder("cache/deep/next"), folder("out")).expect("another place");
    stage.sensor.settle();
    let (root, cache) = (folder("").display().to_string(), folder("cache").display().to_string());
    let own = std::process::id().to_string();
    let told = || -> Vec<(Value, Value, Value)> {
        let events = stage.sensor.events_json(&["--kind", "file", "--pid", &own]);
        let parts = |event: &Value| (event["kind"].clone(), event["body"]["file"]["path"].clone(), event["body"]["old_path"].clone());
        events.iter().map(parts).filter(|(_, path, _)| path.as_str().is_some_and(|path| path.starts_with(&root))).collect()
    };
    wait_until("the rename out of it", || told().iter().any(|(_, path, _)| path.as_str().is_some_and(|path| path.ends_with("/out"))));
    let told = told();
    let inside = |value: &Value| value.as_str().is_some_and(|path| path.starts_with(&cache));
    let of_cache: Vec<_> = told.iter().filter(|(_, path, old)| inside(path) || inside(old)).collect();
    assert_eq!(of_cache.len(), 1, "the rename out of it alone: {told:#?}");
    assert_eq!(of_cache[0].0, "file.rename");
    for kind in ["file.open", "file.create", "file.rename", "file.unlink"] {
        assert!(told.iter().any(|(told, _, _)| told == kind), "the twin's {kind}: {told:#?}");
    }
    // Renames and removals of any file would have been told.
    assert!(stage.filtered("file.rename") >= 1 && stage.filtered("file.unlink") >= 1);
    let files = stage.sensor.status_json()["files"].clone();
    assert_eq!(files["ignored"], 1, "{files:#}");
    assert!(files["ignored_missing"][0].as_str().is_some_and(|path| path.ends_with("/nowhere")), "{files:#}");
}

/// Only these are told of.
const TOLD: u32 = 64_997;

#[test]
fn of_some_kinds_only_what_is_named_is_told_and_the_rest_is_counted() {
    let config = format!(
        "[[sensor.only]]\nkinds = [\"network.*\"]\nuid = [{TOLD}]\n\
         [[sensor.only]]\nkinds = [\"network.*\"]\nnetwork = [\"127.79.0.0/16\"]\n\
         [[sensor.ignore]]\nkinds = [\"network.http\"]\nnetwork = [\"127.79.1.0/24\"]\n"
    );
    let mut stage = Stage::with(&config);
    let by = |stage: &Stage, user: u32, host: &str| {
        let mut command = stage.by(Path::new(BASH), host);
        command.uid(user);
        stage.asks(command)
    };
    let named = by(&stage, TOLD, "127.0.0.1");
    let other = by(&stage, ONLY_THERE, "127.0.0.1");
    let by_peer = by(&stage, ONLY_THERE, "127.79.0.1");
    let named_and_left_out = by(&stage, ONLY_THERE, "127.79.1.1");
    stage.sensor.settle();
    wait_until("the ends of the connections", || {
        stage.told(named, ["network.flow_end"]) == [1] && stage.told(by_peer, ["network.flow_end"]) == [1]
    });
    assert_eq!(stage.told(named, KINDS), [1, 1, 1, 1]);
    assert_eq!(stage.told(other, KINDS), [1, 0, 0, 0], "the exec is always told");
    assert_eq!(stage.told(by_peer, KINDS), [1, 1, 1, 1]);
    assert_eq!(stage.told(named_and_left_out, KINDS), [1, 1, 0, 1], "what is left out stays so");
    for kind in ["network.connect", "network.http", "network.flow_end"] {
        assert!(stage.filtered(kind) >= 1, "{kind}");
    }
    let status = stage.sensor.status_json();
    let entries: Vec<&Value> = status["ignore"].as_array().expect("entries").iter().map(|entry| &entry["only"]).collect();
    assert_eq!(entries, [false, true, true]);
}
