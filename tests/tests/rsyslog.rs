//! From a real reverse shell to a real rsyslogd, with either end going down in the middle.

use std::collections::BTreeMap;
use std::fs;

use bartizan_tests::{Attacker, Folder, Kind, Rsyslog, Sensor, wait_until};
use serde_json::Value;

/// Runs `count` reverse shells, one after the other, each to its end.
#[track_caller]
fn shells(sensor: &Sensor, round: &str, count: usize) {
    let kind = Kind::named("bash");
    for number in 0..count {
        let work = sensor.folder().join(format!("{round}-{number}"));
        fs::create_dir(&work).unwrap_or_else(|error| panic!("cannot make {}: {error}", work.display()));
        let attacker = Attacker::listen(kind.line, &work, "line");
        let _group = kind.launch(&attacker, &work);
        let mut session = attacker.accept();
        session.ask_id();
        session.say_exit();
    }
}

/// An alert without its place in the stream.
fn bare(alert: &Value) -> Value {
    let mut alert = alert.clone();
    if let Some(fields) = alert.as_object_mut() {
        fields.remove("seq");
    }
    alert
}

/// Alerts by id and revision; the same one twice must be the same in every word.
#[track_caller]
fn by_key(alerts: &[Value]) -> BTreeMap<String, Value> {
    let mut by_key = BTreeMap::new();
    for alert in alerts.iter().map(bare) {
        let key = format!("{}/{}", alert["id"], alert["revision"]);
        if let Some(before) = by_key.insert(key.clone(), alert.clone()) {
            assert_eq!(before, alert, "{key} came twice with different words");
        }
    }
    by_key
}

/// Waits until the receiver has stored all that `alerts --json` shows, and compares every word.
#[track_caller]
fn assert_delivered(sensor: &mut Sensor, rsyslog: &Rsyslog, count: usize) {
    sensor.settle();
    let told = by_key(&sensor.alerts_json());
    assert!(told.len() >= count, "{count} shells gave {} alerts", told.len());
    wait_until("every alert at the receiver", || {
        let stored = by_key(&rsyslog.alerts());
        told.keys().all(|key| stored.contains_key(key))
    });
    assert_eq!(by_key(&rsyslog.alerts()), told);
}

fn start(folder: &Folder) -> (Sensor, Rsyslog) {
    let rsyslog = Rsyslog::new(folder.path());
    let config = format!(
        "[[forward]]\nname = \"siem\"\ntype = \"syslog\"\naddress = \"{}\"\nconfirm_after = \"2s\"\nretry_min = \"50ms\"\nretry_max = \"400ms\"\n",
        rsyslog.address()
    );
    (Sensor::with().config(&config).start(), rsyslog)
}

#[test]
fn a_receiver_that_is_down_killed_and_restarted_misses_nothing() {
    let folder = Folder::new();
    let (mut sensor, mut rsyslog) = start(&folder);
    shells(&sensor, "receiver-down", 2);
    sensor.settle();
    wait_until("a status that names the sink", || {
        let (code, status) = sensor.status();
        code == Some(1) && status["sinks"][0]["state"] != "connected" && status["sinks"][0]["lag"].as_u64() >= Some(2)
    });
    rsyslog.start();
    assert_delivered(&mut sensor, &rsyslog, 2);

    shells(&sensor, "before-the-kill", 2);
    rsyslog.kill9();
    shells(&sensor, "after-the-kill", 2);
    rsyslog.start();
    assert_delivered(&mut sensor, &rsyslog, 6);

    rsyslog.terminate();
    shells(&sensor, "after-the-stop", 1);
    rsyslog.start();
    assert_delivered(&mut sensor, &rsyslog, 7);
    wait_until("a status that is content", || sensor.status().0 == Some(0));
}

#[test]
fn a_sensor_that_is_killed_in_the_middle_delivers_the_rest_later() {
    let folder = Folder::new();
    let (mut sensor, mut rsyslog) = start(&folder);
    rsyslog.start();
    shells(&sensor, "before", 2);
    assert_delivered(&mut sensor, &rsyslog, 2);

    // Killed with alerts that are stored and not sent, or sent and not confirmed.
    shells(&sensor, "unsent", 3);
    sensor.settle();
    sensor.crash_and_restart();
    assert_delivered(&mut sensor, &rsyslog, 5);

    // Killed while the receiver is down too.
    rsyslog.kill9();
    shells(&sensor, "both-down", 2);
    sensor.settle();
    sensor.kill9();
    rsyslog.start();
    sensor.start_again();
    assert_delivered(&mut sensor, &rsyslog, 7);

    sensor.terminate();
    sensor.start_again();
    shells(&sensor, "at-last", 1);
    assert_delivered(&mut sensor, &rsyslog, 8);
}
