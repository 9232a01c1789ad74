//! Knocking at login services, beside clients that log in.

use bartizan_bus::event::{AuthSource, Confidence, Entity, Outcome, Severity};

use super::made_up::{Net, SSHD, ip, told};

const GUESSER: &str = "203.0.113.9";

/// One connection each `seconds`; `login` says how each ends.
fn knocks(number: u32, seconds: u64, mut login: impl FnMut(&mut Net, u32)) -> Net {
    let mut net = Net::new();
    for round in 0..number {
        net.accept(SSHD, 22, GUESSER);
        net.host.advance(super::made_up::SECOND);
        login(&mut net, round);
        net.wait(seconds);
    }
    net
}

fn fails(net: &mut Net, _: u32) {
    net.login(GUESSER, AuthSource::SshdLog, Outcome::Failure);
}

#[test]
fn a_slow_guesser_is_found_by_its_connections() {
    let mut net = knocks(30, 120, fails);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("login_hammering", 1)]);
    let alert = &alerts[0];
    assert_eq!((alert.severity, alert.confidence), (Severity::Medium, Confidence::High));
    assert!(alert.title.contains("203.0.113.9 made 21 connections to port 22, with 0 logins"), "{}", alert.title);
    assert!(
        alert.explanation.contains("taken by sshd (pid 50)") && alert.explanation.contains("21 failed logins"),
        "{}",
        alert.explanation
    );
    assert_eq!(alert.entities[0], Entity::Host { ip: ip(GUESSER) });
    assert_eq!(alert.lineage.first().map(|entry| entry.pid), Some(SSHD));
    assert_eq!(alert.attack[0].technique, "T1110.001");
}

#[test]
fn without_a_word_of_the_service_it_is_found_with_less_confidence() {
    let alerts = knocks(30, 120, |_, _| {}).alerts();
    assert_eq!(told(&alerts), [("login_hammering", 1)]);
    assert_eq!(alerts[0].confidence, Confidence::Medium);
    assert!(alerts[0].explanation.contains("the service may not tell"), "{}", alerts[0].explanation);
}

#[test]
fn slower_than_the_threshold_is_silent() {
    assert_eq!(knocks(60, 195, fails).alerts(), [], "under twenty in an hour");
    assert_eq!(knocks(19, 60, fails).alerts(), []);
}

#[test]
fn an_automation_that_logs_in_is_silent_whoever_tells_its_logins() {
    for sources in [&[AuthSource::Pam][..], &[AuthSource::SshdLog], &[AuthSource::Pam, AuthSource::SshdLog]] {
        let mut net = knocks(120, 60, |net, _| sources.iter().for_each(|source| net.login(GUESSER, *source, Outcome::Success)));
        assert_eq!(net.alerts(), [], "{sources:?}");
    }
    // Many at once, the logins a little later.
    let mut net = Net::new();
    (0..50).for_each(|_| net.accept(SSHD, 22, GUESSER));
    net.wait(20);
    (0..50).for_each(|_| net.login(GUESSER, AuthSource::Pam, Outcome::Success));
    net.wait(600);
    assert_eq!(net.alerts(), []);
}

#[test]
fn one_login_among_many_failures_is_no_excuse_and_a_few_failures_of_a_busy_client_are_no_attack() {
    let logs_in = |every: u32| {
        move |net: &mut Net, round: u32| {
            let outcome = if round.is_multiple_of(every) { Outcome::Success } else { Outcome::Failure };
            net.login(GUESSER, AuthSource::Pam, outcome);
        }
    };
    assert_eq!(knocks(58, 60, logs_in(10)).alerts().len(), 1);
    // A third fails, 40 of 120: many, and yet most log in.
    let mut net = knocks(118, 25, |net, round| {
        let outcome = if round % 3 == 0 { Outcome::Failure } else { Outcome::Success };
        net.login(GUESSER, AuthSource::Pam, outcome);
    });
    assert_eq!(net.alerts(), []);
}

#[test]
fn a_login_that_both_pam_and_the_log_tell_counts_once() {
    // Twelve logins told twice must not excuse twenty-five failures.
    let mut net = knocks(40, 60, |net, round| {
        if round % 3 == 0 {
            net.login(GUESSER, AuthSource::Pam, Outcome::Success);
            net.login(GUESSER, AuthSource::SshdLog, Outcome::Success);
        }
    });
    assert_eq!(net.alerts().len(), 1);
}

#[test]
fn attempts_that_stop_at_the_threshold_are_told_by_the_next_heartbeat() {
    let mut net = Net::new();
    (0..20).for_each(|_| net.accept(SSHD, 22, GUESSER));
    net.wait(240);
    assert_eq!(told(&net.alerts()), [("login_hammering", 1)]);
}

#[test]
fn it_is_told_again_as_it_grows_and_at_its_end_and_later_anew() {
    let mut net = knocks(220, 30, fails);
    net.wait(2 * 3_600);
    for _ in 0..30 {
        net.accept(SSHD, 22, GUESSER);
        net.wait(60);
    }
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("login_hammering", 1), ("login_hammering", 2), ("login_hammering", 3), ("login_hammering", 1)]);
    assert!(alerts[2].title.contains("220 connections"), "{}", alerts[2].title);
    assert_eq!(alerts[0].id, alerts[2].id);
    assert_ne!(alerts[0].id, alerts[3].id);
}

#[test]
fn a_load_balancer_that_opens_and_closes_the_port_needs_its_exception() {
    let check = |config: &str| knocks(200, 10, |_, _| {}).alerts_with(config).len();
    assert_eq!(check("excepted_sources = [\"203.0.113.9:22\"]"), 0);
    assert!(check("excepted_sources = [\"203.0.113.9:23\"]") > 0);
}

#[test]
fn only_login_services_count_by_port_or_by_program() {
    let with = |pid, port, config: &str| {
        let mut net = Net::new();
        net.start(1, 60, "/opt/jump/gate", &["gate"]);
        (0..40).for_each(|_| net.accept(pid, port, GUESSER));
        net.wait(600);
        net.alerts_with(config).len()
    };
    assert_eq!(with(60, 443, ""), 0);
    assert_eq!(with(60, 3_389, ""), 1);
    assert_eq!(with(SSHD, 2_222, ""), 1, "sshd on another port");
    assert_eq!(with(60, 443, "[login_hammering]\nservices = [\"/opt/jump/gate\"]"), 1);
    assert_eq!(with(60, 443, "[login_hammering]\nports = [443]"), 1);
    assert_eq!(with(SSHD, 22, "[login_hammering]\nenabled = false"), 0);
}
