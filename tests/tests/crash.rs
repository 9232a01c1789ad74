//! `kill -9` in the middle of a reverse shell, at every point: nothing is missing afterwards, nothing is doubled, and what
//! was acknowledged stays so.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use bartizan_tests::{Attacker, Group, KINDS, Kind, Sensor, Session, lineage, peers, wait_until};
use serde_json::Value;

const RULE: &str = "runtime_watcher.reverse_shell";

/// A reverse shell that lives.
struct Shell {
    name: &'static str,
    /// The attacker that it called.
    peer: SocketAddr,
    session: Session,
    group: Group,
}

/// A folder of the shell's own, and the attacker in it.
#[track_caller]
fn attacker(sensor: &Sensor, kind: &Kind) -> (PathBuf, Attacker, SocketAddr) {
    let work = sensor.folder().join(kind.name);
    fs::create_dir(&work).unwrap_or_else(|error| panic!("cannot make {}: {error}", work.display()));
    let attacker = Attacker::listen(kind.line, &work, "line");
    let peer = attacker.address().expect("attackers are on the network");
    (work, attacker, peer)
}

impl Shell {
    /// Starts one, and waits until it answers: then its exec has happened.
    #[track_caller]
    fn start(sensor: &Sensor, kind: &Kind) -> Self {
        let (work, attacker, peer) = attacker(sensor, kind);
        let group = kind.launch(&attacker, &work);
        Self::answering(kind, peer, attacker, group)
    }

    #[track_caller]
    fn answering(kind: &Kind, peer: SocketAddr, attacker: Attacker, group: Group) -> Self {
        let mut session = attacker.accept();
        session.ask_id();
        Self { name: kind.name, peer, session, group }
    }

    /// Runs a command once more: a shell that is known by what its children do is seen then.
    #[track_caller]
    fn work(&mut self, round: u32) {
        // The answer is not in the question, which a terminal echoes.
        self.session.ask(&format!("/usr/bin/expr 7000 + {round}"), &(7000 + round).to_string());
    }
}

/// Each shell has exactly one alert, which names its peer and a process of the attack; nothing else has any; no id and no
/// sequence is there twice.
#[track_caller]
fn assert_one_each(alerts: &[Value], shells: &[Shell], when: &str) {
    let mut wrong = Vec::new();
    for Shell { name, peer, session: _, group } in shells {
        let own: Vec<&Value> = alerts.iter().filter(|alert| peers(alert).contains(peer)).collect();
        let [alert] = own[..] else {
            wrong.push(format!("{name} (peer {peer}) has {} alerts: {own:?}", own.len()));
            continue;
        };
        if alert["rule"] != RULE || !lineage(alert).contains(&u64::from(group.pid())) {
            wrong.push(format!("the alert for {name} (pid {}) names another rule or process: {alert}", group.pid()));
        }
    }
    let stray = alerts.iter().filter(|alert| !shells.iter().any(|shell| peers(alert).contains(&shell.peer)));
    wrong.extend(stray.map(|alert| format!("an alert that belongs to no shell: {alert}")));
    for key in ["id", "seq"] {
        let unique: BTreeSet<String> = alerts.iter().map(|alert| alert[key].to_string()).collect();
        if unique.len() != alerts.len() {
            wrong.push(format!("a doubled {key} among {} alerts", alerts.len()));
        }
    }
    assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
}

/// What must outlive a crash.
struct Before {
    /// Ids of all events by sequence.
    events: Vec<(u64, String)>,
    /// Up to here the detectors had acknowledged when they started: that was on disk. What they acknowledged since may be in
    /// memory for half a second, and is then taken again and found to be known.
    resumed_after: Option<u64>,
}

fn ids(sensor: &Sensor) -> Vec<(u64, String)> {
    let id = |event: &Value| Some((event["seq"].as_u64()?, event["id"].as_str()?.to_owned()));
    sensor.events_json(&[]).iter().filter_map(id).collect()
}

fn resumed_after(sensor: &Sensor) -> Option<u64> {
    sensor.status_json()["detectors"]["recovery"]["resumed_after"].as_u64()
}

impl Before {
    fn note(sensor: &Sensor) -> Self {
        Self { events: ids(sensor), resumed_after: resumed_after(sensor) }
    }

    /// The history is there, in its order; sequences grew; the detectors took up where they were.
    #[track_caller]
    fn assert_outlived(&self, sensor: &Sensor, when: &str) {
        let now = ids(sensor);
        assert_eq!(now.get(..self.events.len()), Some(&self.events[..]), "{when}: the history must be what it was");
        assert!(now.windows(2).all(|pair| pair[0].0 < pair[1].0), "{when}: sequences must grow");
        let unique: BTreeSet<&String> = now.iter().map(|(_, id)| id).collect();
        assert_eq!(unique.len(), now.len(), "{when}: an event id must be there once");
        let resumed = resumed_after(sensor);
        assert!(resumed >= self.resumed_after, "{when}: it resumed after {:?} before, and after {resumed:?} now", self.resumed_after);
    }
}

/// A sensor that has run, acknowledged and ended in good order once: its acknowledgements are on disk.
fn seasoned() -> Sensor {
    let mut sensor = Sensor::start();
    let marker = sensor.settle();
    sensor.terminate();
    sensor.start_again();
    assert!(resumed_after(&sensor) >= Some(marker), "an orderly end acknowledges all: {marker}, {:?}", resumed_after(&sensor));
    sensor
}

#[test]
fn shells_that_start_while_the_sensor_is_down_are_found_once() {
    let mut sensor = seasoned();
    sensor.settle();
    let before = Before::note(&sensor);
    sensor.kill9();
    let mut shells: Vec<Shell> = KINDS.iter().map(|kind| Shell::start(&sensor, kind)).collect();
    sensor.start_again();
    shells.iter_mut().for_each(|shell| shell.work(1));
    let found = sensor.settled_alerts();
    assert_one_each(&found, &shells, "after the start");
    before.assert_outlived(&sensor, "after the start");

    sensor.crash_and_restart();
    shells.iter_mut().for_each(|shell| shell.work(2));
    assert_eq!(sensor.settled_alerts(), found, "after another crash");
    sensor.terminate();
    sensor.start_again();
    shells.iter_mut().for_each(|shell| shell.work(3));
    assert_eq!(sensor.settled_alerts(), found, "after a stop in good order");
}

#[test]
fn a_sensor_that_is_killed_right_after_the_exec_tells_each_shell_once() {
    let mut sensor = Sensor::start();
    let mut shells = Vec::new();
    // What is still in a ring dies with the sensor: then the seeds of the next one must tell.
    for kind in KINDS {
        shells.push(Shell::start(&sensor, kind));
        // The shell has only just answered: its exec may be in a ring, in the stream, or judged.
        sensor.kill9();
        sensor.start_again();
    }
    shells.iter_mut().for_each(|shell| shell.work(1));
    assert_one_each(&sensor.settled_alerts(), &shells, "after a crash for each shell");
}

#[test]
fn a_sensor_that_is_killed_after_the_alert_does_not_repeat_it() {
    let mut sensor = seasoned();
    let mut shells: Vec<Shell> = KINDS.iter().map(|kind| Shell::start(&sensor, kind)).collect();
    let told = sensor.settled_alerts();
    assert_one_each(&told, &shells, "before the crash");
    let before = Before::note(&sensor);
    sensor.crash_and_restart();
    shells.iter_mut().for_each(|shell| shell.work(1));
    assert_eq!(sensor.settled_alerts(), told, "after the crash");
    before.assert_outlived(&sensor, "after the crash");
}

#[test]
fn a_sensor_that_is_killed_while_a_shell_starts_tells_it_once() {
    let mut sensor = Sensor::start();
    let mut shells = Vec::new();
    for kind in KINDS {
        // The first process runs under the sensor, the shell comes after it: at an open gate the attack goes on.
        let gate = sensor.folder().join(format!("gate-{}", kind.name));
        let (work, attacker, peer) = attacker(&sensor, kind);
        let group = kind.launch_behind(&gate, &attacker, &work);
        let pid = group.pid().to_string();
        wait_until("the first process in EVENTS", || !sensor.events_json(&["--kind", "process.exec", "--pid", &pid]).is_empty());
        fs::write(&gate, "").unwrap_or_else(|error| panic!("cannot write {}: {error}", gate.display()));
        sensor.kill9();
        shells.push(Shell::answering(kind, peer, attacker, group));
        sensor.start_again();
    }
    shells.iter_mut().for_each(|shell| shell.work(1));
    let alerts = sensor.settled_alerts();
    assert_one_each(&alerts, &shells, "after a crash for each shell");
    let ourselves = u64::from(std::process::id());
    assert!(alerts.iter().all(|alert| lineage(alert).contains(&ourselves)), "every lineage reaches this test over the crashes: {alerts:?}");
}

/// What `from_wall_ns` and `to_wall_ns` count.
fn wall_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock that is right");
    i64::try_from(since.as_nanos()).expect("this century")
}

#[test]
fn the_time_without_a_sensor_is_told_as_a_gap() {
    let mut sensor = Sensor::start();
    let gaps = |sensor: &Sensor| sensor.events_json(&["--kind", "sensor.gap"]);
    assert_eq!(gaps(&sensor), Vec::<Value>::new(), "a first start has nothing before it");
    // The one that is killed says nothing at its end, the other one does.
    let ends: [fn(&mut Sensor); 2] = [Sensor::kill9, Sensor::terminate];
    for (before, end) in ends.into_iter().enumerate() {
        let alive = wall_ns();
        let marker = sensor.settle();
        end(&mut sensor);
        let unseen = std::process::Command::new("/bin/true").arg("while nobody looks").status().expect("/bin/true");
        assert!(unseen.success());
        let again = wall_ns();
        sensor.start_again();
        sensor.settle();
        let told = gaps(&sensor);
        assert_eq!(told.len(), before + 1, "one for each start: {told:#?}");
        let (gap, ready) = (&told[before], wall_ns());
        let [from, to] = ["from_wall_ns", "to_wall_ns"].map(|field| gap["body"][field].as_i64().expect("a time"));
        assert!((alive..=again).contains(&from) && (again..=ready).contains(&to), "{alive} {again} {ready}: {gap:#}");
        assert!(gap["body"]["reason"].as_str().is_some_and(|reason| reason.starts_with("the sensor was not running")), "{gap:#}");
        assert_eq!((&gap["body"]["missing_sequences"], &gap["severity"], &gap["process"]), (&Value::Null, &"low".into(), &Value::Null));
        // It stands between the two lives.
        let starts = sensor.events_json(&["--kind", "sensor.start"]);
        let start = starts.last().and_then(|start| start["seq"].as_u64());
        assert!(Some(marker) < gap["seq"].as_u64() && gap["seq"].as_u64() < start, "{gap:#}");
        assert!(!sensor.events_json(&["--kind", "process.exec"]).iter().any(|event| event["process"]["argv"][1] == "while nobody looks"));
    }
}
