//! A recording of a real kernel, replayed: what was seen live is found again, each time the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bartizan_tests::{Attacker, Folder, Kind, Outcome, Recorder, Sensor, bartizan, lineage, run, wait_for, wait_until};
use serde_json::Value;

const RULE: &str = "runtime_watcher.reverse_shell";
/// Exit codes of `docs/cli.md`.
const FAILED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(64);
/// Bytes of a recording before its header's CBOR, and of a block before its content (`docs/recording.md`).
const PRELUDE: usize = 20;
const BLOCK_HEAD: usize = 24;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// `bartizan run --replay FILE` with further arguments.
#[track_caller]
fn replay(file: &Path, args: &[&str]) -> Outcome {
    run(Command::new(bartizan()).arg("run").arg("--replay").arg(file).args(args))
}

/// What a reading verb prints of a data folder, as JSON.
#[track_caller]
fn stored(verb: &str, data: &Path, args: &[&str]) -> Outcome {
    run(Command::new(bartizan()).arg(verb).arg("--data-dir").arg(data).arg("--json").args(args)).ok()
}

/// Runs a program to its end, whatever that is, and gives its pid.
#[track_caller]
fn act(program: &str, args: &[&str]) -> u32 {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    child.wait().unwrap_or_else(|error| panic!("cannot wait for {program}: {error}"));
    child.id()
}

/// Returns when the recording has so many blocks more: each second that brings something closes one.
#[track_caller]
fn wait_for_blocks(file: &Path, more: u32) {
    let len = || fs::metadata(file).map_or(0, |metadata| metadata.len());
    let (mut before, mut grown) = (len(), 0);
    wait_until("more of the recording", || {
        let now = len();
        grown += u32::from(now > before);
        before = now;
        grown >= more
    });
}

/// What does not depend on which sensor saw it: counters of its own are in an id, its readings of the clocks in times, and when it
/// read a file in a hash.
fn comparable(event: &Value) -> Value {
    let mut event = event.clone();
    for name in ["id", "seq", "time", "boot_ns"] {
        event.as_object_mut().expect("an object").remove(name);
    }
    for process in ["/process", "/body/child"] {
        if let Some(process) = event.pointer_mut(process).and_then(Value::as_object_mut) {
            process.remove("start_wall_ns");
            // A recorder hashes nothing, and the sensor has a hash when its file was read.
            if let Some(file) = process.get_mut("exe").and_then(Value::as_object_mut) {
                file.remove("sha256");
            }
        }
    }
    event["body"].as_object_mut().expect("an object").remove("duration_ns");
    event
}

/// What happened to a process, by kind.
fn of_process(events: &[Value], pid: u32) -> BTreeMap<String, Vec<Value>> {
    let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let kind = |event: &Value| event["kind"].as_str().unwrap_or_default().to_owned();
    let compared = |event: &&Value| event["process"]["pid"] == pid && event["kind"] != "process.seed" && event["kind"] != "process.hash";
    for event in events.iter().filter(compared) {
        kinds.entry(kind(event)).or_default().push(comparable(event));
    }
    kinds
}

/// The sensor sees it live, the recorder beside it writes it down, two replays find it again, and a third without root.
#[test]
fn what_was_live_is_found_again_in_each_replay() {
    let mut sensor = Sensor::start();
    let folder = Folder::new();
    let file = folder.join("field.rec");
    let config = text(&sensor.folder().join("config.toml"));
    let recorder = Recorder::start(&file, &["--config", &config, "--data-dir", &text(&folder.join("nothing"))]);

    let kind = Kind::named("bash");
    let attacker = Attacker::listen(kind.line, folder.path(), "line");
    let group = kind.launch(&attacker, folder.path());
    let mut session = attacker.accept();
    session.ask_id();
    let shell = session.ask_pid();
    let live = wait_for("the alert", || sensor.our_alerts().into_iter().next());
    let first = group.pid();
    session.say_exit();
    drop(group);
    session.wait_end();
    let acts = [act("/bin/true", &["one", "two words"]), act("/bin/sh", &["-c", "/nowhere/at/all; exit 3"]), first, shell];
    // A heartbeat is among them.
    wait_for_blocks(&file, 3);
    sensor.settle();
    let live_events = sensor.events_json(&[]);
    assert_eq!(live["rule"], RULE, "{live:#}");

    let said = recorder.finish();
    assert!(said.contains("process.exec: ") && said.contains("processes that ran already"), "{said}");
    assert!(said.contains(&format!("bartizan run --replay {}", file.display())), "{said}");
    assert_eq!(fs::metadata(&file).expect("the recording").permissions().mode() & 0o7777, 0o600);
    assert!(!folder.join("nothing").exists(), "a recorder makes no data folder");
    sensor.terminate();

    let [a, b] = ["a", "b"].map(|name| {
        let data = folder.join(name);
        let outcome = replay(&file, &["--config", &config, "--data-dir", &text(&data)]).ok();
        assert!(outcome.stderr.contains("the recording is at its end: "), "{outcome}");
        let shown: Vec<&str> = outcome.stdout.lines().collect();
        assert!(shown.iter().any(|line| line.contains(RULE) && line.contains(live["id"].as_str().expect("an id"))), "{outcome}");
        (stored("events", &data, &[]).stdout, stored("alerts", &data, &[]).stdout)
    });
    assert_eq!(a.1, b.1, "alerts of two replays");
    assert!(a.0 == b.0, "the events of two replays are not the same, byte by byte: see {}", folder.path().display());

    let alerts: Vec<Value> = a.1.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let again = alerts.iter().find(|alert| alert["id"] == live["id"]).unwrap_or_else(|| panic!("{} is not in {alerts:#?}", live["id"]));
    for field in ["rule", "title", "severity", "confidence", "revision", "explanation", "entities", "attack"] {
        assert_eq!(again[field], live[field], "{field}");
    }
    assert_eq!(lineage(again), lineage(&live));
    let events: Vec<Value> = a.0.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let evidence = |alert: &Value, events: &[Value]| -> Vec<Value> {
        let ids = alert["evidence"].as_array().expect("evidence").clone();
        ids.iter().filter_map(|id| events.iter().find(|event| event["id"] == *id)).map(comparable).collect()
    };
    assert_eq!(evidence(again, &events), evidence(&live, &live_events), "what proves it is the same events");
    assert!(!evidence(again, &events).is_empty());
    for pid in acts {
        let (replayed, live) = (of_process(&events, pid), of_process(&live_events, pid));
        assert!(live.contains_key("process.exec"), "{pid}: {live:#?}");
        assert_eq!(replayed, live, "pid {pid}");
    }
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("sensor.start"), count("sensor.stop")), (1, 1));
    assert!(count("sensor.heartbeat") > 0, "time goes on in a replay");

    without_root(&folder, &file, &config, &a.1);
}

/// A user who may read the file needs nothing else.
#[track_caller]
fn without_root(folder: &Folder, file: &Path, config: &str, alerts: &str) {
    let (program, copy, data) = (folder.join("bartizan"), folder.join("copy.rec"), folder.join("nobody"));
    fs::copy(bartizan(), &program).expect("a copy of the program");
    fs::copy(file, &copy).expect("a copy of the recording");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("readable");
    fs::create_dir(&data).expect("a folder");
    std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).expect("nobody's");
    let config_copy = folder.join("nobody.toml");
    fs::copy(config, &config_copy).expect("a copy of the configuration");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).arg("run").arg("--replay").arg(&copy);
    run(command.arg("--config").arg(&config_copy).arg("--data-dir").arg(&data)).ok();
    assert_eq!(stored("alerts", &data, &[]).stdout, alerts);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).arg("record").arg(data.join("b.rec"));
    let refused = run(command.arg("--config").arg(&config_copy));
    assert!(refused.sentence().contains("bartizan record must be root") && refused.code == FAILED, "{refused}");
    assert!(!data.join("b.rec").exists(), "a refused recorder makes no file");
}

#[test]
fn what_is_wrong_with_a_file_is_said_and_the_rest_can_be_had() {
    let folder = Folder::new();
    let file = folder.join("a.rec");
    let none = text(&folder.join("none.toml"));
    fs::write(&none, "[sensor]\nheartbeat = \"1s\"\n").expect("a configuration");
    let nothing = text(&folder.join("nothing"));
    let common = ["--config", &none, "--data-dir", &nothing];

    let recorder = Recorder::start(&file, &common);
    act("/bin/true", &["recorded"]);
    wait_for_blocks(&file, 2);
    let whole = recorder.finish();
    assert!(whole.contains("process.exec"), "{whole}");
    let bytes = fs::read(&file).expect("the recording");

    // It overwrites nothing, and says so before it loads anything.
    let again = run(Command::new(bartizan()).arg("record").arg(&file).args(common));
    assert_eq!(again.code, USAGE, "{again}");
    let is_there =
        format!("bartizan: {} is there already, and a recording overwrites nothing: name another file, or remove that one", text(&file));
    assert_eq!(again.sentence(), is_there);
    assert_eq!(fs::read(&file).expect("the recording"), bytes);

    let said = |name: &str, content: &[u8], words: &str| {
        let path = folder.write(name, content);
        let outcome = replay(&path, &common);
        assert_eq!(outcome.code, FAILED, "{outcome}");
        assert_eq!(outcome.sentence(), format!("bartizan: {} {words}", path.display()));
        assert!(outcome.stdout.is_empty() && !Path::new(&nothing).exists(), "a refused replay makes nothing: {outcome}");
        path
    };
    // In the block that holds the end of the records.
    let cut = last_block(&bytes) - 1;
    let cut = said(
        "cut.rec",
        &bytes[..cut],
        &format!(
            "ends at byte {cut} without its end mark, because it was cut, or its recorder was killed or still runs: copy it again from where \
             it was recorded, or replay what there is with --allow-damaged"
        ),
    );
    let mut damaged = bytes.clone();
    let at = bytes.len() - 1;
    damaged[at] ^= 1;
    let end_mark = last_block(&bytes);
    said(
        "damaged.rec",
        &damaged,
        &format!(
            "is damaged at byte {end_mark} (the checksum is wrong): copy it again from where it was recorded, or replay what is before that \
             with --allow-damaged"
        ),
    );
    said(
        "text.rec",
        b"nothing of ours, though it is long enough",
        "is no recording: it does not begin as one; make one with `bartizan record FILE`",
    );
    let mut foreign = bytes.clone();
    foreign[10..12].copy_from_slice(&999_u16.to_le_bytes());
    let sum = header_checksum(&foreign);
    foreign[16..20].copy_from_slice(&sum.to_le_bytes());
    let version = env!("CARGO_PKG_VERSION");
    let abi = u16::from_le_bytes([bytes[10], bytes[11]]);
    said(
        "foreign.rec",
        &foreign,
        &format!(
            "holds records of ABI 999, made by bartizan {version}, and this bartizan {version} reads ABI {abi}: replay it with bartizan {version}"
        ),
    );
    let missing = replay(&folder.join("missing.rec"), &common);
    assert!(missing.sentence().contains("missing.rec cannot be opened: ") && missing.code == FAILED, "{missing}");

    // What is before the damage.
    let data = text(&folder.join("part"));
    let part = replay(&cut, &["--allow-damaged", "--config", &none, "--data-dir", &data]).ok();
    assert!(part.stderr.contains("only in part, because ") && part.stderr.contains("cut.rec ends at byte"), "{part}");
    let events = stored("events", Path::new(&data), &[]).ndjson();
    assert!(events.iter().any(|event| event["kind"] == "process.seed"), "{part}");
    assert!(!events.iter().any(|event| event["kind"] == "sensor.stop"), "its end is not in it: {part}");
    let used = replay(&file, &["--config", &none, "--data-dir", &data]);
    assert!(used.sentence().contains("is not empty") && used.code == USAGE, "{used}");
    assert_eq!(replay(&file, &["--disable-hook", "process_exec"]).code, USAGE);
    assert_eq!(run(Command::new(bartizan()).args(["run", "--allow-damaged"])).code, USAGE);

    // Without a folder it names the one that it made.
    let fresh =
        run(Command::new(bartizan()).env("TMPDIR", folder.path()).arg("run").arg("--replay").arg(&file).args(["--config", &none])).ok();
    let made = fresh.stderr.lines().find_map(|line| line.strip_prefix("into ")).unwrap_or_else(|| panic!("no folder is named: {fresh}"));
    assert!(made.starts_with(&text(folder.path())), "{fresh}");
    assert_eq!(fs::metadata(made).expect("the folder").permissions().mode() & 0o7777, 0o700);
    assert!(!stored("events", Path::new(made), &[]).stdout.is_empty(), "{fresh}");
}

/// A recorder that is killed leaves whole blocks.
#[test]
fn what_a_killed_recorder_wrote_can_be_had() {
    let folder = Folder::new();
    let file = folder.join("killed.rec");
    let config = text(&folder.write("config.toml", "[sensor]\nheartbeat = \"1s\"\n"));
    let recorder = Recorder::start(&file, &["--config", &config, "--data-dir", &text(&folder.join("nothing"))]);
    let pid = act("/bin/true", &["before the kill"]);
    let data = folder.join("data");
    // What a second brought is in the file after it.
    wait_for_blocks(&file, 3);
    recorder.kill9();
    let refused = replay(&file, &["--config", &config]);
    assert!(refused.sentence().contains("without its end mark") && refused.code == FAILED, "{refused}");
    replay(&file, &["--allow-damaged", "--config", &config, "--data-dir", &text(&data)]).ok();
    let events = stored("events", &data, &["--pid", &pid.to_string(), "--kind", "process.exec"]).ndjson();
    assert!(events.iter().any(|event| event["process"]["argv"][1] == "before the kill"), "{events:#?}");
}

/// Where the last block begins.
fn last_block(bytes: &[u8]) -> usize {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let mut at = PRELUDE + number(12);
    loop {
        let next = at + BLOCK_HEAD + number(at + 4);
        if next >= bytes.len() {
            return at;
        }
        at = next;
    }
}

/// The header's checksum: CRC-32 (IEEE 802.3) of everything but itself.
fn header_checksum(bytes: &[u8]) -> u32 {
    let len = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let covered = bytes[..16].iter().chain(&bytes[PRELUDE..PRELUDE + len]);
    !covered.fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    })
}
