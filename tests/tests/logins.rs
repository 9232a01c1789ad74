//! Logins over the whole path: a real sshd with PAM, a real hydra and real clients on another host, and the alerts of the two detectors
//! that a guessed password concerns; each attack beside the benign twin of the same actor.

use bartizan_tests::{Account, LoginServer, LoginServerConfig, Namespace, Sensor, run, wait_for};
use serde_json::Value;

const ALICE: Account = Account { name: "alice", password: "correct-horse" };
const BOB: Account = Account { name: "bob", password: "battery-staple" };

const BRUTE_FORCE: &str = "auth_fortress.brute_force";
const SPRAY: &str = "auth_fortress.spray";
const SUCCESS: &str = "auth_fortress.success_after_failures";
const HAMMERING: &str = "network_guardian.login_hammering";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn server(sensor: &Sensor, at: &Namespace, lines: &str) -> LoginServer {
    let config = LoginServerConfig { accounts: &[ALICE, BOB], address: &at.host().to_string(), lines };
    LoginServer::start(sensor.folder().path(), &config)
}

/// Alerts of a rule that name this source, each once in its newest revision.
fn alerts(sensor: &mut Sensor, rule: &str, source: &Namespace) -> Vec<Value> {
    sensor.settle();
    let source = source.guest().to_string();
    let names = |alert: &Value| {
        let entities = alert["entities"].as_array().into_iter().flatten();
        entities.filter(|entity| entity["type"] == "host").any(|entity| entity["ip"] == source)
    };
    let mut newest: Vec<Value> = Vec::new();
    for alert in sensor.alerts_json().into_iter().filter(|alert| alert["rule"] == rule && names(alert)) {
        newest.retain(|known| known["id"] != alert["id"]);
        newest.push(alert);
    }
    newest
}

/// Every login alert of this source.
fn login_rules(sensor: &mut Sensor, source: &Namespace) -> Vec<String> {
    let rules = [BRUTE_FORCE, SPRAY, SUCCESS, HAMMERING];
    rules.iter().flat_map(|rule| alerts(sensor, rule, source)).map(|alert| text(&alert["rule"]).to_owned()).collect()
}

/// Authentications of the server that were told, as (user, method or `pam`, outcome).
fn told(sensor: &mut Sensor) -> Vec<(String, String, String)> {
    sensor.settle();
    let events = sensor.events_json(&["--kind", "auth.authenticate"]);
    let of_sshd = events.iter().filter(|event| event["body"]["service"] == "sshd");
    of_sshd
        .map(|event| {
            let method = event["body"]["method"].as_str().unwrap_or("pam");
            (text(&event["body"]["user"]).to_owned(), method.to_owned(), text(&event["outcome"]).to_owned())
        })
        .collect()
}

/// Passwords for one account in hydra's hand, twice and more what the rule asks for: hydra gives a guess up when its connection is cut,
/// three of fourteen on a loaded machine.
const GUESSES: usize = 24;
/// `failures` of the rule's defaults: so many of the guesses have to reach the server.
const ENOUGH: usize = 10;

fn words(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("guess-{number}")).collect()
}

#[test]
fn hydra_is_one_alert_and_each_of_its_guesses_is_told_once() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let server = server(&sensor, &other, "");
    let guesses = words(GUESSES);
    let guesses: Vec<&str> = guesses.iter().map(String::as_str).collect();
    server.hydra(Some(&other), &[ALICE.name], &guesses, 4);
    let failures = told(&mut sensor);
    assert!(server.attempts() >= ENOUGH, "hydra made {} guesses", server.attempts());
    assert_eq!(failures.len(), server.attempts(), "each guess once, whoever spoke of it: {failures:#?}");
    assert!(failures.iter().all(|told| *told == ("alice".into(), "pam".into(), "failure".into())), "{failures:#?}");
    let found = alerts(&mut sensor, BRUTE_FORCE, &other);
    let [alert] = &found[..] else { panic!("expected one alert, got {found:#?}") };
    assert!(text(&alert["explanation"]).contains(&other.guest().to_string()), "{alert:#}");
    assert!(!alert["evidence"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(login_rules(&mut sensor, &other), [BRUTE_FORCE], "a failure is no success, and one account is no spray");
}

#[test]
fn one_password_for_many_users_is_a_spray() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let server = server(&sensor, &other, "");
    let users = ["alice", "bob", "oracle", "postgres", "git", "jenkins", "deploy", "test", "admin"];
    server.hydra(Some(&other), &users, &["Winter2026!"], 3);
    assert_eq!(alerts(&mut sensor, SPRAY, &other).len(), 1, "{:#?}", told(&mut sensor));
}

#[test]
fn a_login_after_guesses_is_an_alert_about_that_login() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let server = server(&sensor, &other, "");
    for guess in words(6) {
        assert_ne!(run(server.with_password(Some(&other), ALICE.name, &guess).arg("true")).code, Some(0));
    }
    run(server.with_password(Some(&other), ALICE.name, ALICE.password).arg("/bin/true guessed")).ok();
    // Bob comes from the same address and was never guessed.
    run(server.with_password(Some(&other), BOB.name, BOB.password).arg("true")).ok();
    let found = alerts(&mut sensor, SUCCESS, &other);
    let [alert] = &found[..] else { panic!("expected one alert, got {found:#?} after {:#?}", told(&mut sensor)) };
    let events = sensor.events_json(&[]);
    let opened = events.iter().find(|event| event["kind"] == "auth.session_open" && event["body"]["user"] == "alice").expect("a session");
    assert_eq!(alert["login"], opened["body"]["login"], "the alert is about the login, not about the address");
    let ran = |event: &&Value| {
        event["kind"] == "process.exec" && event["process"]["argv"].as_array().is_some_and(|argv| argv.last() == Some(&"guessed".into()))
    };
    let program = events.iter().find(ran).expect("what ran in the session");
    assert_eq!(program["process"]["login"], alert["login"], "what runs in the session belongs to it: {program:#}");
}

#[test]
fn typos_keys_and_automation_are_silent() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let server = server(&sensor, &other, "");
    for typo in ["corect-horse", "correct-hrose"] {
        assert_ne!(run(server.with_password(Some(&other), ALICE.name, typo).arg("true")).code, Some(0));
    }
    run(server.with_password(Some(&other), ALICE.name, ALICE.password).arg("true")).ok();
    // An automation key, as often as hydra guesses.
    for _ in 0..24 {
        run(server.with_key(Some(&other), "root", &["user_key"]).arg("true")).ok();
    }
    // An agent that offers a key that is not known before the one that is.
    for _ in 0..3 {
        run(server.with_key(Some(&other), "root", &["other_key", "user_key"]).arg("true")).ok();
    }
    let told = told(&mut sensor);
    let keys = |outcome: &str| told.iter().filter(|(_, method, is)| method == "publickey" && is == outcome).count();
    assert_eq!((keys("success"), keys("failure")), (27, 3), "{told:#?}");
    assert_eq!(login_rules(&mut sensor, &other), [""; 0]);
}

#[test]
fn a_slow_guesser_is_below_one_detector_s_threshold_and_not_below_the_other_s() {
    // The window is counted in parts, and the one that goes on is not judged yet: a short window has short parts.
    let config = "[detectors.network_guardian.login_hammering]\nconnections = 6\nwindow = \"2m\"\ngrace = \"1s\"\n";
    let (mut sensor, other) = (Sensor::with().config(config).start(), Namespace::new());
    let server = server(&sensor, &other, "");
    for guess in words(8) {
        assert_ne!(run(server.with_password(Some(&other), ALICE.name, &guess).arg("true")).code, Some(0));
    }
    // Connections are judged when their time to log in is over: the heartbeat of the next seconds says so.
    wait_for("the network's alert", || (!alerts(&mut sensor, HAMMERING, &other).is_empty()).then_some(()));
    assert_eq!(login_rules(&mut sensor, &other), [HAMMERING]);
}

#[test]
fn what_sshd_says_of_keys_depends_on_its_log_level() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    for (level, expected) in [("VERBOSE", 1), ("INFO", 0)] {
        let server = server(&sensor, &other, &format!("LogLevel {level}"));
        let before = told(&mut sensor).len();
        assert_ne!(run(server.with_key(Some(&other), "root", &["other_key"]).arg("true")).code, Some(0));
        // The lower bound that the documents state.
        assert_eq!(told(&mut sensor).len() - before, expected, "LogLevel {level}: {:#?}", told(&mut sensor));
    }
}

#[test]
fn a_server_without_pam_is_known_by_its_log() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let server = server(&sensor, &other, "UsePAM no");
    // One connection each: without PAM the server keeps no count that hydra's guesses could be compared with.
    let guesses = words(ENOUGH + 1);
    for guess in &guesses {
        assert_ne!(run(server.with_password(Some(&other), ALICE.name, guess).arg("true")).code, Some(0));
    }
    run(server.with_password(Some(&other), ALICE.name, ALICE.password).arg("/bin/true without-pam")).ok();
    let told = told(&mut sensor);
    let count = |outcome: &str| told.iter().filter(|told| **told == ("alice".into(), "password".into(), outcome.into())).count();
    assert_eq!((count("failure"), count("success")), (guesses.len(), 1), "{told:#?}");
    assert_eq!(login_rules(&mut sensor, &other), [BRUTE_FORCE, SUCCESS]);
    let events = sensor.events_json(&[]);
    let ran = |event: &&Value| event["process"]["argv"].as_array().is_some_and(|argv| argv.last() == Some(&"without-pam".into()));
    let program = events.iter().find(ran).expect("what ran in the session");
    let accepted = events.iter().find(|event| event["kind"] == "auth.authenticate" && event["outcome"] == "success").expect("a success");
    assert_eq!(program["process"]["login"], accepted["body"]["login"]);
}
