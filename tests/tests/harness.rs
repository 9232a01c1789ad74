//! The harness itself: a sensor starts, settles, survives a crash, and ends in good order.

use bartizan_tests::Sensor;

#[test]
fn a_sensor_starts_settles_crashes_and_ends() {
    let mut sensor = Sensor::start();
    let first = sensor.settle();
    assert_eq!(sensor.status().0, Some(0), "{:#}", sensor.status_json());
    sensor.crash_and_restart();
    let second = sensor.settle();
    assert!(second > first, "sequences go on over a crash: {first}, then {second}");
    assert!(sensor.our_alerts().is_empty());
    sensor.terminate();
    assert_eq!(sensor.verb("status", &[]).code, Some(2));
    assert_eq!(sensor.events_json(&["--kind", "sensor.start"]).len(), 2);
    assert_eq!(sensor.events_json(&["--kind", "sensor.stop"]).len(), 1);
}
