//! Each way in beside its benign twin.

use bartizan_bus::event::{Alert, Confidence, Entity, EventId, SecurityEvent};
use proptest::prelude::*;

use super::*;
use crate::lineage::Lineage;
use crate::testing::{Client, Host, login_id, run};

const PEER: &str = "203.0.113.9";
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const AUTH_ERR: i32 = 7;

fn module() -> AuthFortress {
    AuthFortress::new(&AuthFortressConfig::default())
}

fn with(text: &str) -> AuthFortress {
    AuthFortress::new(&toml::from_str(text).expect("settings"))
}

fn alerts_of(module: &mut AuthFortress, events: &[SecurityEvent]) -> Vec<Alert> {
    run(module, &mut Lineage::new(1_000), 1, events)
}

/// Rule and revision of each alert.
fn told(alerts: &[Alert]) -> Vec<(&str, u32)> {
    alerts.iter().map(|alert| (alert.rule.strip_prefix("auth_fortress.").expect("of this module"), alert.revision)).collect()
}

fn server() -> Host {
    let mut host = Host::new();
    host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
    host.seed(50, 1, "/usr/sbin/sshd", &["sshd: /usr/sbin/sshd -D"]);
    host
}

/// One connection of its own per attempt, `gap` apart; the process of each is forked by the server. Returns the next number.
fn guess(host: &mut Host, first: u32, user: &str, rhost: &str, times: u32, gap: u64) -> u32 {
    for number in first..first + times {
        host.advance(gap);
        host.fork(50, 1_000 + number);
        host.pam(1_000 + number, &Client::ssh(number.into(), user, rhost), AUTH_ERR);
        host.exit(1_000 + number);
    }
    first + times
}

/// A connection that gives the right password and gets a session.
fn log_in(host: &mut Host, number: u32, user: &str, rhost: &str) {
    host.fork(50, 1_000 + number);
    let client = Client::ssh(number.into(), user, rhost);
    host.pam(1_000 + number, &client, 0);
    host.session(1_000 + number, &client);
}

#[test]
fn ten_failures_a_minute_are_a_brute_force() {
    let mut host = server();
    guess(&mut host, 0, "root", PEER, 10, 4 * SECOND);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1)]);
    let alert = &alerts[0];
    assert_eq!((alert.severity, alert.confidence), (Severity::Medium, Confidence::High));
    assert_eq!(alert.entities, [Entity::Host { ip: PEER.parse().expect("ip") }, Entity::Account { name: "root".into() }]);
    assert_eq!((alert.evidence.len(), alert.login, alert.attack[0].technique.as_str()), (10, None, "T1110.001"));
    assert!(alert.explanation.starts_with("10 failures in 37s, from 203.0.113.9 at sshd, for root (10)."), "{}", alert.explanation);
    assert_eq!(alert.lineage.len(), 3, "the connection's process, sshd, init");
}

#[test]
fn the_same_number_in_more_time_is_none_and_neither_are_many_connections_of_many() {
    let mut host = server();
    guess(&mut host, 0, "root", PEER, 10, 8 * SECOND);
    // Ten failures in a minute, each from somewhere else.
    for number in 0..10 {
        guess(&mut host, 100 + number, "root", &format!("198.51.100.{number}"), 1, SECOND);
    }
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
}

#[test]
fn an_attack_that_goes_on_is_one_alert_in_bounded_revisions() {
    let mut host = server();
    guess(&mut host, 0, "root", PEER, 2_500, SECOND / 2);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1), ("brute_force", 2), ("brute_force", 3)]);
    assert!(alerts.iter().all(|alert| alert.id == alerts[0].id));
    assert!(alerts[2].title.starts_with("Brute force: 1000 failures"), "{}", alerts[2].title);
    assert!(alerts[2].evidence.len() <= 32);
}

#[test]
fn after_a_quiet_time_it_is_another_attack() {
    let mut host = server();
    let next = guess(&mut host, 0, "root", PEER, 12, 2 * SECOND);
    host.advance(50 * MINUTE);
    let next = guess(&mut host, next, "root", PEER, 12, 2 * SECOND);
    host.advance(70 * MINUTE);
    guess(&mut host, next, "root", PEER, 12, 2 * SECOND);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1), ("brute_force", 1)]);
    assert_ne!(alerts[0].id, alerts[1].id);
}

#[test]
fn a_guesser_below_the_fast_threshold_is_found_by_the_slow_one_and_told_once() {
    let mut host = server();
    guess(&mut host, 0, "root", PEER, 80, 5 * MINUTE);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1)]);
    assert_eq!(alerts[0].confidence, Confidence::Medium);
    assert!(alerts[0].title.starts_with("Brute force: 30 slow failures"), "{}", alerts[0].title);
}

#[test]
fn a_busy_address_with_as_many_mistakes_over_the_day_is_silent() {
    let mut host = server();
    // An office behind one address: somebody mistypes every half hour and then gets in.
    for number in 0..40u32 {
        let user = format!("user{}", number % 20);
        guess(&mut host, number * 10, &user, PEER, 1, 30 * MINUTE);
        log_in(&mut host, number * 10 + 1, &user, PEER);
        host.heartbeat();
    }
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
}

#[test]
fn su_guessing_is_a_brute_force_from_inside() {
    let mut host = server();
    host.seed(70, 1, "/usr/bin/bash", &["bash"]);
    for number in 0..10 {
        host.advance(3 * SECOND);
        host.fork(70, 200 + number);
        host.exec(200 + number, "/usr/bin/su", &["su"]);
        host.pam(200 + number, &Client::local(number.into(), "su", "root", "eve"), AUTH_ERR);
    }
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1)]);
    assert_eq!(alerts[0].severity, Severity::High);
    assert_eq!(alerts[0].entities[0], Entity::User { uid: 1000, name: Some("eve".into()) });
    assert!(alerts[0].explanation.contains("by eve on pts/3 at su, for root (10)"), "{}", alerts[0].explanation);
}

#[test]
fn many_users_a_few_times_each_are_a_spray() {
    let mut host = server();
    for number in 0..20 {
        guess(&mut host, number, &format!("user{number}"), PEER, 1, 20 * SECOND);
    }
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("spray", 1), ("spray", 2)]);
    assert_eq!(alerts[0].id, alerts[1].id);
    assert_eq!(alerts[0].attack[0].technique, "T1110.003");
    assert_eq!(alerts[1].entities.len(), 17);
}

#[test]
fn a_slow_spray_is_found_over_a_day() {
    let mut host = server();
    for number in 0..16 {
        guess(&mut host, number, &format!("user{number}"), PEER, 1, 40 * MINUTE);
    }
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("spray", 1)]);
    assert_eq!(alerts[0].confidence, Confidence::Medium);
}

#[test]
fn mistakes_of_an_office_that_end_in_logins_are_no_spray_and_neither_is_one_user() {
    let mut host = server();
    for number in 0..12u32 {
        let user = format!("user{number}");
        guess(&mut host, number * 10, &user, PEER, 1, 20 * SECOND);
        log_in(&mut host, number * 10 + 1, &user, PEER);
    }
    for number in 0..7 {
        guess(&mut host, 500 + number, &format!("name{number}"), "198.51.100.7", 1, 20 * SECOND);
    }
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
}

#[test]
fn a_success_after_five_failures_is_told_with_its_login_and_its_session() {
    let mut host = server();
    let number = guess(&mut host, 0, "alice", PEER, 5, 7 * SECOND);
    log_in(&mut host, number, "alice", PEER);
    let owner = host.id(1_000 + number);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("success_after_failures", 1), ("success_after_failures", 2)]);
    assert_eq!(alerts[0].id, alerts[1].id);
    for alert in &alerts {
        assert_eq!((alert.login, alert.severity, alert.confidence), (Some(login_id(number.into())), Severity::High, Confidence::High));
        assert_eq!(alert.entities, [Entity::Host { ip: PEER.parse().expect("ip") }, Entity::Account { name: "alice".into() }]);
    }
    assert_eq!(alerts[0].evidence.len(), 6);
    assert_eq!(alerts[1].lineage[0].exec_id, owner);
    assert!(alerts[1].explanation.contains("A session was opened by it"), "{}", alerts[1].explanation);
}

#[test]
fn a_login_after_two_typos_is_silent_in_one_connection_and_in_three() {
    let mut host = server();
    let typing = Client::ssh(9, "alice", PEER);
    host.fork(50, 60);
    host.pam(60, &typing, AUTH_ERR);
    host.advance(5 * SECOND);
    host.pam(60, &typing, AUTH_ERR);
    host.pam(60, &typing, 0);
    host.session(60, &typing);
    let number = guess(&mut host, 10, "bob", PEER, 2, 5 * SECOND);
    log_in(&mut host, number, "bob", PEER);
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
}

#[test]
fn guesses_of_one_connection_count_each_and_the_login_is_that_connection_s() {
    let mut host = server();
    let client = Client::ssh(9, "alice", PEER);
    host.fork(50, 60);
    for _ in 0..6 {
        host.advance(3 * SECOND);
        host.pam(60, &client, AUTH_ERR);
    }
    host.pam(60, &client, 0);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("success_after_failures", 1)]);
    assert_eq!(alerts[0].login, Some(login_id(9)));
}

#[test]
fn another_account_and_another_address_are_not_blamed() {
    let mut host = server();
    let number = guess(&mut host, 0, "root", PEER, 40, SECOND);
    // Bob works behind the same address; root works somewhere else.
    log_in(&mut host, number, "bob", PEER);
    log_in(&mut host, number + 1, "root", "198.51.100.7");
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), [("brute_force", 1)]);
}

#[test]
fn failures_of_half_an_hour_ago_and_answered_ones_are_no_longer_counted() {
    let mut host = server();
    let number = guess(&mut host, 0, "alice", PEER, 6, SECOND);
    host.advance(31 * MINUTE);
    log_in(&mut host, number, "alice", PEER);
    let number = guess(&mut host, number + 1, "alice", PEER, 4, SECOND);
    log_in(&mut host, number, "alice", PEER);
    let number = guess(&mut host, number + 1, "alice", PEER, 4, SECOND);
    log_in(&mut host, number, "alice", PEER);
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
}

#[test]
fn the_brute_force_that_got_in_is_told_again_before_the_success() {
    let mut host = server();
    let number = guess(&mut host, 0, "alice", PEER, 15, SECOND);
    log_in(&mut host, number, "alice", PEER);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1), ("brute_force", 2), ("success_after_failures", 1), ("success_after_failures", 2)]);
    assert_eq!((alerts[1].severity, alerts[1].trigger_seq), (Severity::High, alerts[2].trigger_seq));
    assert!(alerts[1].explanation.contains("It got into alice."), "{}", alerts[1].explanation);
}

#[test]
fn one_success_of_a_spray_is_enough_and_so_is_the_next_login() {
    let mut host = server();
    for number in 0..9 {
        guess(&mut host, number, &format!("user{number}"), PEER, 1, 20 * SECOND);
    }
    log_in(&mut host, 20, "user3", PEER);
    log_in(&mut host, 21, "user3", PEER);
    log_in(&mut host, 22, "bystander", PEER);
    let alerts = alerts_of(&mut module(), &host.take());
    let success = [("success_after_failures", 1), ("success_after_failures", 2)];
    assert_eq!(told(&alerts), [&[("spray", 1), ("spray", 2)], &success[..], &success[..]].concat());
    assert_eq!((alerts[2].login, alerts[2].confidence), (Some(login_id(20)), Confidence::Medium));
    assert_eq!(alerts[4].login, Some(login_id(21)));
    assert_eq!(alerts[1].entities[1], Entity::Account { name: "user3".into() }, "whom it got stands first");
}

#[test]
fn whoever_guessed_it_comes_back_with_it_and_is_told_eight_times() {
    let mut host = server();
    let number = guess(&mut host, 0, "alice", PEER, 6, SECOND);
    for again in 0..20 {
        host.advance(60 * SECOND);
        log_in(&mut host, number + again, "alice", PEER);
    }
    host.advance(31 * MINUTE);
    log_in(&mut host, number + 50, "alice", PEER);
    let mut module = module();
    let alerts = alerts_of(&mut module, &host.take());
    let logins: Vec<_> = alerts.iter().filter(|alert| alert.revision == 1).map(|alert| alert.login).collect();
    let expected: Vec<_> = (0..8).map(|again| Some(login_id(u64::from(number + again)))).collect();
    assert_eq!((logins, alerts.len()), (expected, 16));
    assert_eq!(module.state().counters["logins_untold"], 12);
}

#[test]
fn a_success_that_pam_and_the_log_both_tell_is_one() {
    let mut host = server();
    let number = guess(&mut host, 0, "alice", PEER, 6, SECOND);
    let client = Client::ssh(number.into(), "alice", PEER);
    host.pam(50, &client, 0);
    host.sshd_log(50, &Client { login: 900, ..client.clone() }, "password", Outcome::Success);
    // A second factor of the same login.
    host.pam(50, &client, 0);
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), [("success_after_failures", 1)]);
}

#[test]
fn an_agent_with_five_keys_and_an_automation_key_are_silent() {
    let mut host = server();
    for number in 0..40u32 {
        let client = Client::ssh(number.into(), "deploy", PEER);
        host.advance(2 * SECOND);
        host.fork(50, 1_000 + number);
        // An agent offers its keys one by one; the last opens.
        for _ in 0..5 {
            host.sshd_log(1_000 + number, &client, "publickey", Outcome::Failure);
        }
        host.sshd_log(1_000 + number, &client, "publickey", Outcome::Success);
        host.session(1_000 + number, &client);
    }
    // A person whose agent offers five keys before the password.
    let client = Client::ssh(900, "alice", PEER);
    host.fork(50, 60);
    for _ in 0..5 {
        host.sshd_log(60, &client, "publickey", Outcome::Failure);
    }
    host.pam(60, &client, AUTH_ERR);
    host.pam(60, &client, 0);
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
}

#[test]
fn keys_that_open_nothing_count_once_a_connection() {
    let mut host = server();
    for number in 0..10u32 {
        let client = Client::ssh(number.into(), "root", PEER);
        host.advance(2 * SECOND);
        host.fork(50, 1_000 + number);
        for _ in 0..5 {
            host.sshd_log(1_000 + number, &client, "publickey", Outcome::Failure);
        }
    }
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("brute_force", 1)]);
    assert_eq!(alerts[0].trigger_seq, 2 + 9 * 6 + 2, "the first key of the tenth connection");
}

#[test]
fn a_key_that_opens_is_no_guessed_password() {
    let mut host = server();
    let number = guess(&mut host, 0, "deploy", PEER, 8, 10 * SECOND);
    // The automation behind the same address goes on working, and answers nothing.
    let client = Client::ssh(number.into(), "deploy", PEER);
    host.sshd_log(50, &client, "publickey", Outcome::Success);
    host.session(50, &client);
    log_in(&mut host, number + 1, "deploy", PEER);
    let alerts = alerts_of(&mut module(), &host.take());
    assert_eq!(told(&alerts), [("success_after_failures", 1), ("success_after_failures", 2)]);
    assert_eq!(alerts[0].login, Some(login_id(u64::from(number) + 1)));
}

#[test]
fn what_pam_and_the_log_both_tell_counts_once() {
    let mut host = server();
    for number in 0..9u32 {
        let client = Client::ssh(number.into(), "root", PEER);
        host.advance(2 * SECOND);
        host.pam(50, &client, AUTH_ERR);
        host.sshd_log(50, &Client { login: 500 + u64::from(number), ..client }, "password", Outcome::Failure);
    }
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), []);
    // A server without PAM: the log alone.
    for number in 0..10u32 {
        host.advance(2 * SECOND);
        host.sshd_log(50, &Client::ssh(number.into(), "root", PEER), "password", Outcome::Failure);
    }
    assert_eq!(told(&alerts_of(&mut module(), &host.take())), [("brute_force", 1)]);
}

#[test]
fn clients_that_go_away_and_a_directory_that_is_down_are_no_guesses() {
    let mut host = server();
    for number in 0..40u32 {
        host.advance(SECOND);
        // PAM_CONV_ERR, PAM_AUTHINFO_UNAVAIL
        host.pam(50, &Client::ssh(number.into(), "root", PEER), if number % 2 == 0 { 19 } else { 9 });
    }
    let mut module = module();
    assert_eq!(told(&alerts_of(&mut module, &host.take())), []);
    assert_eq!(module.state().counters["not_judged"], 40);
}

#[test]
fn excepted_networks_accounts_and_services_are_silent_and_counted() {
    let mut host = server();
    guess(&mut host, 0, "root", "192.0.2.50", 30, SECOND);
    guess(&mut host, 100, "healthcheck", PEER, 30, SECOND);
    let mut module = with(
        "[[exceptions]]\nname = \"scanner\"\nsources = [\"192.0.2.0/24\"]\n\
         [[exceptions]]\nname = \"health\"\naccounts = [\"healthcheck\"]\nservices = [\"sshd\"]",
    );
    assert_eq!(told(&alerts_of(&mut module, &host.take())), []);
    assert_eq!(module.state().counters["excepted"], 60);
}

#[test]
fn rules_can_be_off_and_thresholds_moved() {
    let mut host = server();
    let number = guess(&mut host, 0, "alice", PEER, 12, SECOND);
    log_in(&mut host, number, "alice", PEER);
    let events = host.take();
    let off = "[brute_force]\nenabled = false\n[spray]\nenabled = false\n[success_after_failures]\nenabled = false";
    assert_eq!(told(&alerts_of(&mut with(off), &events)), []);
    let high = "[brute_force]\nfailures = 13\n[success_after_failures]\nfailures = 13";
    assert_eq!(told(&alerts_of(&mut with(high), &events)), []);
    let low = "[brute_force]\nfailures = 3\nwindow = \"10s\"\n[success_after_failures]\nenabled = false";
    assert_eq!(alerts_of(&mut with(low), &events)[0].trigger_seq, 2 + 3 * 3 - 1);
}

#[test]
fn another_boot_begins_anew() {
    let mut first = server();
    guess(&mut first, 0, "root", PEER, 9, SECOND);
    let mut second = Host::with_boot(99);
    second.seed(50, 1, "/usr/sbin/sshd", &["sshd"]);
    guess(&mut second, 20, "root", PEER, 9, SECOND);
    let events = [first.take(), second.take()].concat();
    assert_eq!(told(&alerts_of(&mut module(), &events)), []);
}

#[test]
fn many_sources_stay_within_the_bounds_and_are_counted() {
    let mut module = with("max_sources = 64\nmax_entries = 1024");
    let mut host = server();
    for number in 0..200u32 {
        guess(&mut host, number * 20, "root", &format!("198.51.100.{number}"), 20, 20 * SECOND);
    }
    alerts_of(&mut module, &host.take());
    let tables = module.state().tables;
    assert!(tables[0].entries <= 64 && tables[1].entries <= 1024, "{tables:?}");
    assert_eq!(tables[0].entries as u64 + tables[0].evicted, 200);
}

#[test]
fn a_sweep_forgets_what_no_window_reaches() {
    let mut module = module();
    let mut host = server();
    guess(&mut host, 0, "root", PEER, 12, SECOND);
    host.advance(26 * 60 * MINUTE);
    host.heartbeat();
    alerts_of(&mut module, &host.take());
    let state = module.state();
    assert_eq!((state.tables[0].entries, state.tables[1].entries, state.tables[0].evicted), (0, 0, 0));
    assert_eq!(state.counters["attacks_over"], 1);
}

/// (what, user, source, seconds before it)
fn steps() -> impl Strategy<Value = Vec<(u8, u8, u8, u64)>> {
    prop::collection::vec((0u8..12, 0u8..10, 0u8..3, 0u64..12), 0..120)
}

fn play(steps: &[(u8, u8, u8, u64)]) -> Vec<SecurityEvent> {
    let mut host = server();
    for ((what, user, source, seconds), number) in steps.iter().zip(0u32..) {
        host.advance(seconds * SECOND);
        let (user, rhost) = (format!("user{}", user / 2), format!("198.51.100.{source}"));
        let client = Client::ssh((number / 3).into(), &user, &rhost);
        match what {
            0..=6 => drop(host.pam(50, &client, AUTH_ERR)),
            7 => drop(host.pam(50, &client, 0)),
            8 => drop(host.session(50, &client)),
            9 => drop(host.sshd_log(50, &client, "publickey", Outcome::Failure)),
            10 => drop(host.sshd_log(50, &client, "password", Outcome::Failure)),
            _ => {
                host.advance(20 * MINUTE * u64::from(*source));
                host.heartbeat();
            }
        }
    }
    host.take()
}

fn small() -> AuthFortress {
    let mut module = with("[brute_force]\nfailures = 4\nslow_failures = 8\n[spray]\nusers = 3\n[success_after_failures]\nfailures = 2");
    module.sources = Sources::new(2, 40);
    module.config.max_sources = 2;
    module.config.max_entries = 40;
    module
}

proptest! {
    #[test]
    fn bounds_hold_and_a_save_at_any_point_changes_nothing(steps in steps(), cut in any::<prop::sample::Index>()) {
        let events = play(&steps);
        let cut = cut.index(events.len() + 1);
        let (mut whole, mut lineage) = (small(), Lineage::new(100));
        let expected = run(&mut whole, &mut lineage, 1, &events);
        let (mut halved, mut lineage) = (small(), Lineage::new(100));
        let mut alerts = run(&mut halved, &mut lineage, 1, &events[..cut]);
        let bytes = halved.save();
        let mut restored = small();
        restored.restore(&bytes).expect("own bytes");
        prop_assert_eq!(restored.save(), bytes);
        alerts.extend(run(&mut restored, &mut lineage, 1 + cut as u64, &events[cut..]));
        prop_assert_eq!(&alerts, &expected);
        prop_assert_eq!(restored.save(), whole.save());
        for table in whole.state().tables {
            prop_assert!(table.entries <= table.bound, "{:?}", table);
        }
        // An id and a revision are never given twice.
        let mut ids: Vec<String> = expected.iter().map(Alert::msg_id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), expected.len());
    }

    /// The failures of one attack in any order: one alert.
    #[test]
    fn an_attack_is_found_in_any_order_of_arrival(order in any::<u64>()) {
        let mut host = server();
        let clients: Vec<Client<'_>> = (0..12).map(|number| Client::ssh(number, "root", PEER)).collect();
        for client in &clients {
            host.advance(4 * SECOND);
            host.pam(50, client, AUTH_ERR);
        }
        let mut events = host.take();
        let id = |event: &SecurityEvent| -> EventId { event.id };
        events[2..].sort_by_key(|event| u64::from(id(event).0[11] ^ id(event).0[10]).wrapping_add(1).wrapping_mul(order | 1).rotate_left(23));
        let alerts = alerts_of(&mut module(), &events);
        prop_assert_eq!(told(&alerts), [("brute_force", 1)]);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = module().restore(&bytes);
    }
}
