//! What an operator meets: mistakes that are answered in one sentence, exit codes, hooks turned off, and a terminal that
//! nobody else draws on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use bartizan_tests::{Attacker, DEADLINE, Folder, Group, Kind, Outcome, Sensor, bartizan, need, need_root, run, victim, wait_until};
use serde_json::Value;

/// Exit codes of `docs/cli.md`.
const FAILED: Option<i32> = Some(1);
const NOT_RUNNING: Option<i32> = Some(2);
const UNKNOWN: Option<i32> = Some(3);
const USAGE: Option<i32> = Some(64);

/// Runs the program to its end; a `run` that does not fail is ended by the deadline and fails the test.
#[track_caller]
fn bartizan_with(args: &[&str]) -> Outcome {
    ended(Command::new(bartizan()).args(args))
}

#[track_caller]
fn ended(command: &mut Command) -> Outcome {
    let mut limited = Command::new("timeout");
    limited.args(["--kill-after=5", &DEADLINE.as_secs().to_string()]).arg(command.get_program()).args(command.get_args());
    let outcome = run(&mut limited);
    assert_ne!(outcome.code, Some(124), "it did not end: {outcome}");
    outcome
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// One line on standard error that begins with `bartizan: ` and holds every word; nothing on standard output.
#[track_caller]
fn assert_says(outcome: &Outcome, code: Option<i32>, words: &[&str]) {
    let sentence = outcome.sentence();
    for word in words {
        assert!(sentence.contains(word), "it should say {word:?}: {outcome}");
    }
    assert_eq!(outcome.code, code, "{outcome}");
    assert!(outcome.stdout.is_empty(), "{outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

#[test]
fn a_wrong_configuration_is_one_sentence_with_file_line_and_key() {
    let folder = Folder::new();
    let data = text(&folder.join("data"));
    let cases: [(&str, &[&str]); 6] = [
        ("[streams.events]\nmax_agee = \"1d\"\n", &["line 2", "streams.events.max_agee", "did you mean `max_age`"]),
        ("[sensor]\nring_priority = \"5 bananas\"\n", &["line 2", "sensor.ring_priority", "5 bananas"]),
        ("[sensor]\nheartbeat = 7\n", &["line 2", "sensor.heartbeat"]),
        ("\n[sensor\n", &["line 2"]),
        ("[[forward]]\nname = \"siem\"\ntype = \"syslog\"\naddress = \"nowhere\"\n", &["line 4", "forward.address", "nowhere"]),
        ("[sensor]\ndisable_hooks = [\"nosuch\"]\n", &["nosuch", "process_exec"]),
    ];
    for (config, words) in cases {
        let file = text(&folder.write("config.toml", config));
        let outcome = bartizan_with(&["run", "--config", &file, "--data-dir", &data]);
        assert_says(&outcome, USAGE, words);
    }
    let missing = text(&folder.join("missing.toml"));
    assert_says(&bartizan_with(&["run", "--config", &missing, "--data-dir", &data]), USAGE, &[&missing]);
    assert_says(&bartizan_with(&["run", "--data-dir", &data, "--disable-hook", "nosuch"]), USAGE, &["nosuch", "network_connect_udp:fexit"]);
    assert_eq!(bartizan_with(&["frobnicate"]).code, USAGE);
    assert!(!folder.join("data").exists(), "a run that is refused writes nothing");
}

#[test]
fn a_detector_setting_that_cannot_be_used_is_a_wrong_configuration() {
    let folder = Folder::new();
    let file = text(&folder.write("config.toml", "[detectors.runtime_watcher.reverse_shell]\nextra_login_services = [\"sshd\"]\n"));
    let outcome = bartizan_with(&["run", "--config", &file, "--data-dir", &text(&folder.join("data"))]);
    assert_says(&outcome, USAGE, &["extra_login_services", "sshd"]);
    assert!(!outcome.stderr.contains("is ready"), "{outcome}");
}

#[test]
fn a_data_folder_that_cannot_be_used_is_one_sentence() {
    need_root();
    let folder = Folder::new();
    let file = text(&folder.write("file", "no folder"));
    for verb in ["run", "events", "alerts"] {
        assert_says(&bartizan_with(&[verb, "--data-dir", &file]), FAILED, &[&file]);
    }
    assert_says(&bartizan_with(&["status", "--data-dir", &file]), NOT_RUNNING, &[&file]);

    let fixed = folder.join("read-only");
    fs::create_dir(&fixed).unwrap_or_else(|error| panic!("cannot make {}: {error}", fixed.display()));
    let fixed = text(&fixed);
    let outcome = in_mounts(&format!("mount -t tmpfs -o ro,mode=700 none {fixed}"), &["run", "--data-dir", &fixed]);
    assert_says(&outcome, FAILED, &[&fixed, "Read-only"]);

    let nothing = text(&folder.join("nothing"));
    assert_says(&bartizan_with(&["events", "--data-dir", &nothing]), FAILED, &[&nothing]);
    assert_says(&bartizan_with(&["status", "--data-dir", &nothing]), NOT_RUNNING, &[&nothing]);
}

/// Runs `bartizan` in a mount namespace of its own, after `mount` changed it.
#[track_caller]
fn in_mounts(mount: &str, args: &[&str]) -> Outcome {
    need("unshare", "util-linux");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"]).arg(bartizan()).args(args);
    ended(&mut command)
}

#[test]
fn a_kernel_without_type_information_is_one_sentence() {
    need_root();
    let folder = Folder::new();
    let outcome = in_mounts("mount -t tmpfs none /sys/kernel/btf", &["run", "--data-dir", &text(&folder.join("data"))]);
    assert_says(&outcome, FAILED, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"]);
}

/// Runs a copy of `bartizan`, which everybody may execute, as nobody.
#[track_caller]
fn as_nobody(folder: &Folder, args: &[&str]) -> Outcome {
    let copy = folder.join("bartizan");
    if !copy.exists() {
        fs::copy(bartizan(), &copy).unwrap_or_else(|error| panic!("cannot copy bartizan to {}: {error}", copy.display()));
    }
    need("setpriv", "util-linux");
    ended(Command::new("setpriv").args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy).args(args))
}

#[test]
fn a_user_who_may_not_is_told_so_in_one_sentence() {
    let sensor = Sensor::start();
    let folder = Folder::new();
    let theirs = text(&folder.join("theirs"));
    assert_says(&as_nobody(&folder, &["run", "--data-dir", &theirs]), FAILED, &["root"]);
    let data = text(&sensor.data_dir());
    assert_says(&as_nobody(&folder, &["run", "--data-dir", &data]), FAILED, &["root"]);
    for verb in ["events", "alerts"] {
        assert_says(&as_nobody(&folder, &[verb, "--data-dir", &data]), FAILED, &[&data, "ermission"]);
    }
    assert_says(&as_nobody(&folder, &["status", "--data-dir", &data]), UNKNOWN, &[&data, "ermission"]);
    let mode = fs::metadata(sensor.data_dir()).map(|metadata| metadata.permissions().mode() & 0o777);
    assert_eq!(mode.unwrap_or_else(|error| panic!("{data}: {error}")), 0o700, "argument vectors of all users are in {data}");
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let mut sensor = Sensor::start();
    let data = text(&sensor.data_dir());
    let outcome = bartizan_with(&["run", "--data-dir", &data]);
    assert_says(&outcome, FAILED, &[&data]);
    sensor.settle();
    assert_eq!(sensor.status().0, Some(0), "{:#}", sensor.status_json());
    sensor.terminate();
    assert_says(&sensor.verb("status", &[]), NOT_RUNNING, &[&data]);
    sensor.start_again();
    assert_eq!(sensor.status().0, Some(0));
}

/// Connects once by UDP and once by TCP, each to a peer of the test's own; returns their ports.
fn connect_both(sensor: &Sensor) -> (u16, u16) {
    let udp = UdpSocket::bind("127.0.0.1:0").and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
    let tcp = TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    let ((udp, _socket), (tcp, _listener)) = match (udp, tcp) {
        (Ok(udp), Ok(tcp)) => (udp, tcp),
        (udp, tcp) => panic!("cannot listen: {:?} {:?}", udp.err(), tcp.err()),
    };
    let script = format!("exec 5<>/dev/udp/127.0.0.1/{udp} 6<>/dev/tcp/127.0.0.1/{tcp}");
    let status = Group::start(victim("bash", &sensor.folder().join("connect.log")).args(["-c", &script])).wait();
    assert!(status.success(), "the connects failed: {status}");
    (udp, tcp)
}

/// Whether a connect to `port` is among the events.
fn connected(sensor: &Sensor, port: u16) -> bool {
    let events = sensor.events_json(&["--kind", "network.connect"]);
    events.iter().any(|event| event["body"]["socket"]["peer_port"] == port)
}

fn hook<'a>(status: &'a Value, name: &str) -> &'a Value {
    let hooks = status["hooks"].as_array().into_iter().flatten();
    hooks.into_iter().find(|hook| hook["name"] == name).unwrap_or_else(|| panic!("no hook {name} in {status:#}"))
}

fn reasons(status: &Value) -> String {
    let reasons = status["reasons"].as_array().into_iter().flatten();
    reasons.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_disabled_hook_is_named_and_only_its_kinds_stop() {
    let mut whole = Sensor::start();
    let (udp, tcp) = connect_both(&whole);
    whole.settle();
    assert!(connected(&whole, udp) && connected(&whole, tcp), "with all hooks both connects are seen");
    let status = whole.status();
    assert_eq!(status.0, Some(0), "{:#}", status.1);
    drop(whole);

    let mut sensor = Sensor::with().arg("--disable-hook").arg("network_connect_udp").start();
    let (udp, tcp) = connect_both(&sensor);
    sensor.settle();
    assert!(!connected(&sensor, udp), "the disabled hook still tells");
    assert!(connected(&sensor, tcp), "another hook went with the disabled one");
    let (code, status) = sensor.status();
    assert_eq!((code, &status["verdict"]), (FAILED, &Value::from("degraded")), "{status:#}");
    assert_eq!(hook(&status, "network_connect_udp")["state"], "disabled");
    assert_eq!(hook(&status, "network_connect_tcp")["state"], "active");
    assert!(reasons(&status).contains("network_connect_udp"), "{status:#}");
    let page = sensor.verb("status", &[]);
    assert!(page.code == FAILED && page.stdout.contains("network_connect_udp"), "{page}");
}

#[test]
fn hooks_that_share_a_program_stop_each_by_itself() {
    let listens = |sensor: &Sensor, port: u16| {
        let events = sensor.events_json(&["--kind", "network.listen"]);
        events.iter().filter(|event| event["body"]["socket"]["local_port"] == port).count()
    };
    let without_tcp = Sensor::with().arg("--disable-hook").arg("network_connect_tcp");
    let mut sensor = without_tcp.arg("--disable-hook").arg("network_connect_tcp_early").start();
    let (udp, tcp) = connect_both(&sensor);
    sensor.settle();
    assert!(connected(&sensor, udp) && !connected(&sensor, tcp));
    assert_eq!(listens(&sensor, tcp), 1, "the state of a socket is still looked at");
    drop(sensor);

    let mut sensor = Sensor::with().arg("--disable-hook").arg("network_listen").start();
    let (udp, tcp) = connect_both(&sensor);
    sensor.settle();
    assert!(connected(&sensor, udp) && connected(&sensor, tcp));
    assert_eq!(listens(&sensor, tcp), 0);
}

#[test]
fn a_disabled_tier_is_named_and_the_next_one_takes_over() {
    let mut sensor = Sensor::with().arg("--disable-hook").arg("process_seed:iter").start();
    sensor.settle();
    let (code, status) = sensor.status();
    assert_eq!(code, FAILED, "{status:#}");
    assert_eq!(hook(&status, "process_seed")["tier"], "procfs", "{status:#}");
    assert!(reasons(&status).contains("iter"), "{status:#}");
    let seeds = sensor.events_json(&["--kind", "process.seed", "--pid", &std::process::id().to_string()]);
    assert_eq!(seeds.len(), 1, "this test is older than the sensor: {seeds:?}");
    assert_eq!(seeds[0]["process"]["approximate"], true);
}

#[test]
fn every_tier_of_a_hook_disabled_is_the_hook_disabled() {
    let both = Sensor::with().arg("--disable-hook").arg("network_connect_udp:fexit").arg("--disable-hook");
    let mut sensor = both.arg("network_connect_udp:syscall_tracepoint").start();
    let (udp, tcp) = connect_both(&sensor);
    sensor.settle();
    assert!(!connected(&sensor, udp) && connected(&sensor, tcp));
    let (code, status) = sensor.status();
    assert_eq!((code, &hook(&status, "network_connect_udp")["state"]), (FAILED, &Value::from("disabled")), "{status:#}");
}

#[test]
fn events_are_picked_by_kind_process_time_and_number() {
    let mut sensor = Sensor::start();
    let folder = sensor.folder().path().to_owned();
    let mut group = Group::start(victim("/bin/sh", &folder.join("log")).args(["-c", "/bin/true; exit 3"]));
    let pid = group.pid().to_string();
    group.wait();
    sensor.settle();

    let kinds = |args: &[&str]| -> Vec<String> {
        let events = sensor.events_json(args);
        events.iter().filter_map(|event| event["kind"].as_str().map(str::to_owned)).collect()
    };
    let of_pid = kinds(&["--pid", &pid]);
    assert_eq!(of_pid.first().map(String::as_str), Some("process.fork"), "the fork that made it comes first: {of_pid:?}");
    assert_eq!(of_pid.last().map(String::as_str), Some("process.exit"), "{of_pid:?}");
    assert_eq!(kinds(&["--pid", &pid, "--kind", "process.exec"]), ["process.exec"]);
    assert_eq!(kinds(&["--pid", &pid, "--kind", "process.exit", "--kind", "network"]), ["process.exit"]);
    let exit = sensor.events_json(&["--pid", &pid, "--kind", "process.exit"]);
    assert_eq!(exit[0]["body"]["code"], 3, "{exit:?}");
    let all = kinds(&["--kind", "process"]);
    assert!(!all.is_empty() && all.iter().all(|kind| kind.starts_with("process.")), "{all:?}");
    assert_eq!(kinds(&["--limit", "3"]).len(), 3);
    assert_eq!(kinds(&["--since", "2200-01-01T00:00:00Z"]), Vec::<String>::new());
    assert!(kinds(&["--since", "1h", "--pid", &pid]).contains(&"process.exec".to_owned()));
    assert!(kinds(&["--since", "boot", "--pid", &pid]).contains(&"process.exec".to_owned()));
    assert_eq!(sensor.verb("events", &["--kind", "nonsense"]).code, USAGE);
    assert_eq!(sensor.verb("events", &["--since", "yesterday-ish"]).code, USAGE);

    // The compact view has a line for each of the same events.
    let page = sensor.verb("events", &["--pid", &pid, "--kind", "process.exec"]).ok();
    assert_eq!(page.stdout.lines().count(), 1, "{page}");
    assert!(page.stdout.contains("process.exec") && page.stdout.contains(&format!("sh({pid})")), "{page}");
}

#[test]
fn following_shows_what_comes() {
    let mut sensor = Sensor::start();
    let mut follow = sensor.command("events");
    follow.args(["--json", "--follow", "--kind", "process.exec"]).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut follow = Group::start(&mut follow);
    let pipe = follow.child().stdout.take().unwrap_or_else(|| unreachable!("asked for as a pipe"));
    let (line, lines) = mpsc::channel();
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    let seq = sensor.settle();
    wait_until("the marker's exec from --follow", || lines.try_iter().any(|line| line.contains(&format!("\"seq\":{seq},"))));
    assert!(!follow.ended(), "it should go on");
}

/// What a terminal could take for more than text.
fn acts(text: &str) -> Vec<char> {
    let acts = |c: &char| {
        (c.is_control() && *c != '\n') || matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    text.chars().filter(acts).collect()
}

#[test]
fn an_argument_vector_cannot_draw_on_the_terminal() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}cipot\u{2066}\r\n\u{2028}\u{8}end";
    let mut sensor = Sensor::start();
    let work = sensor.folder().join("work");
    fs::create_dir(&work).unwrap_or_else(|error| panic!("cannot make {}: {error}", work.display()));
    // As an argument of a program, and of a reverse shell's ancestor.
    let mut group = Group::start(victim("sh", &work.join("log")).args(["-c", "exit 0", EVIL]));
    let pid = group.pid().to_string();
    group.wait();
    let kind = Kind::named("bash");
    let attacker = Attacker::listen(kind.line, &work, "line");
    let call = attacker.place(kind.attack[2], &work);
    let shell = Group::start(victim("sh", &work.join("log")).args(["-c", "bash -c \"$1\"; exit", EVIL, &call]));
    let mut session = attacker.accept();
    session.ask_id();
    session.say_exit();
    drop(shell);
    let alerts = sensor.settled_alerts();
    assert_eq!(alerts.len(), 1);
    let told = |value: &Value| value.to_string().contains(&Value::from(EVIL).to_string());
    assert!(alerts[0]["lineage"].as_array().into_iter().flatten().any(told_in(&told)), "JSON holds the text as it was: {}", alerts[0]);
    let exec = sensor.events_json(&["--pid", &pid, "--kind", "process.exec"]);
    assert!(exec.iter().any(told), "JSON holds the text as it was: {exec:?}");

    for (verb, args) in [("events", &["--pid", pid.as_str()][..]), ("events", &[]), ("alerts", &[]), ("status", &[])] {
        let page = sensor.verb(verb, args);
        assert_eq!(acts(&page.stdout), [], "{verb} to a pipe: no colour, no control character: {page}");
        assert_eq!(acts(&page.stderr), [], "{verb}: {page}");
    }
    for verb in ["events", "alerts"] {
        let page = sensor.verb(verb, &["--color", "always"]).ok();
        assert!(page.stdout.contains("\u{1b}["), "{verb} --color always is colourful: {page}");
        // Colours are `ESC [ digits ; digits m`; with them taken away nothing acts.
        assert_eq!(acts(&without_colours(&page.stdout)), [], "{verb} --color always: {page}");
        assert!(page.stdout.contains("\\x1b[2J"), "{verb} shows the escapes as text: {page}");
        let plain = sensor.verb(verb, &["--color", "always", "--no-color"]);
        assert!(plain.code == USAGE || acts(&plain.stdout).is_empty(), "{plain}");
    }
}

/// `told`, for an entry.
fn told_in(told: &impl Fn(&Value) -> bool) -> impl Fn(&Value) -> bool + '_ {
    move |entry| told(&entry["argv"])
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match rest.strip_prefix('m') {
            Some(rest) => plain.push_str(rest),
            None => plain.push_str(&format!("\u{1b}[{part}")),
        }
    }
    plain
}

#[test]
fn alerts_are_picked_by_severity_rule_time_and_number() {
    let mut sensor = Sensor::start();
    assert_eq!(sensor.verb("alerts", &[]).ok().stdout, "");
    let kind = Kind::named("bash");
    for round in ["one", "two"] {
        let work = sensor.folder().join(round);
        fs::create_dir(&work).unwrap_or_else(|error| panic!("cannot make {}: {error}", work.display()));
        let attacker = Attacker::listen(kind.line, &work, "line");
        let _group = kind.launch(&attacker, &work);
        let mut session = attacker.accept();
        session.ask_id();
        session.say_exit();
    }
    assert_eq!(sensor.settled_alerts().len(), 2);
    let ours: Vec<String> = sensor.our_alerts().iter().map(|alert| alert["id"].to_string()).collect();
    // Others' alerts on this machine may be among what is asked for.
    let count = |args: &[&str]| {
        let alerts = sensor.verb("alerts", &[&["--json"], args].concat()).ok().ndjson();
        alerts.iter().filter(|alert| ours.contains(&alert["id"].to_string())).count()
    };
    assert_eq!(count(&["--severity", "critical"]), 2);
    assert_eq!(count(&["--severity", "info"]), 2);
    assert_eq!(count(&["--rule", "runtime_watcher"]), 2);
    assert_eq!(count(&["--rule", "runtime_watcher.reverse_shell"]), 2);
    assert_eq!(count(&["--rule", "network_guardian"]), 0);
    assert_eq!(count(&["--limit", "1"]), 1);
    assert_eq!(count(&["--since", "1h"]), 2);
    assert_eq!(count(&["--since", "2200-01-01T00:00:00Z"]), 0);
    assert_eq!(sensor.verb("alerts", &["--severity", "dreadful"]).code, USAGE);
    let page = sensor.verb("alerts", &[]).ok();
    for word in ["runtime_watcher.reverse_shell", "127.0.0.1:", &std::process::id().to_string()] {
        assert!(page.stdout.contains(word), "the page should name {word}: {page}");
    }
}
