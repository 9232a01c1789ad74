//! Who becomes whom, and who may: the real sudo, su, login, passwd and account tools of Debian, with accounts that only the test has. They and
//! the sensor have a copy of `/etc` in a mount namespace of their own, so that nobody can log in by what is made here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bartizan_tests::{Folder, Sensor, Session, need, need_root, run, wait_for};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

const PASSWORD: &str = "Correct-horse-1";

/// A copy of `/etc` over the real one, for this thread and what it starts; it goes with the owner.
struct Etc {
    _folder: Folder,
}

impl Etc {
    fn copied() -> Self {
        need_root();
        let folder = Folder::new();
        let copy = folder.join("etc");
        run(Command::new(need("cp", "coreutils")).arg("-a").arg("/etc").arg(&copy)).ok();
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("mounts of its own");
        mount(Some(&copy), "/etc", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("the copy over the real one");
        Self { _folder: folder }
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = umount2("/etc", MntFlags::MNT_DETACH);
    }
}

/// An account of the copy.
struct Throwaway(String);

impl Throwaway {
    fn named(name: &str) -> Self {
        let name = format!("bz{name}{}", std::process::id() % 100_000);
        run(Command::new(need("useradd", "passwd")).args(["-M", "-d", "/tmp", "-s", "/bin/sh", &name])).ok();
        let this = Self(name);
        this.give_password(PASSWORD);
        this
    }

    fn give_password(&self, password: &str) {
        said(Command::new(need("chpasswd", "passwd")).stdin(Stdio::piped()), &format!("{}:{password}\n", self.0), true);
    }

    /// A command of this user, by a real `su`.
    fn runs(&self, line: &str) -> Command {
        let mut command = Command::new(need("su", "util-linux"));
        command.args([&self.0, "-c", line]);
        command
    }
}

/// Runs `command` with `input` typed, and whether it succeeds.
#[track_caller]
fn said(command: &mut Command, input: &str, succeeds: bool) {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("room");
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.success(), succeeds, "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Events of this kind about `user`, with what asked for them: service, requesting user, outcome and PAM's result.
fn steps(sensor: &mut Sensor, kind: &str, service: &str, user: &str) -> Vec<Value> {
    sensor.settle();
    let mut events = sensor.events_json(&["--kind", kind]);
    events.retain(|event| event["body"]["service"] == service && event["body"]["user"] == user);
    events
}

fn verdicts(events: &[Value]) -> Vec<(&Value, &Value, &Value)> {
    events.iter().map(|event| (&event["body"]["ruser"], &event["outcome"], &event["body"]["pam_result"])).collect()
}

#[test]
fn su_sudo_and_login_tell_who_asked_and_what_runs_below_them() {
    let sudo = need("sudo", "sudo");
    let _etc = Etc::copied();
    let mut sensor = Sensor::start();
    let ann = Throwaway::named("ann");
    // Refused: a wrong password to sudo, and to su.
    said(&mut ann.runs(&format!("{} -S -k -p '' /bin/true", sudo.display())), "wrong-1\nwrong-2\nwrong-3\n", false);
    said(&mut ann.runs("su root -c /bin/true"), "wrong-4\n", false);
    // Granted: root asks for what root may.
    run(Command::new(&sudo).args(["-u", &ann.0, "/bin/echo", "under-sudo"])).ok();
    run(&mut ann.runs("/bin/echo below-su; /bin/true")).ok();

    let refused = steps(&mut sensor, "auth.authenticate", "sudo", &ann.0);
    assert_eq!(verdicts(&refused), [(&json!(ann.0), &json!("failure"), &json!(7)); 3], "PAM_AUTH_ERR, three times: {refused:#?}");
    let refused = steps(&mut sensor, "auth.authenticate", "su", "root");
    assert_eq!(verdicts(&refused), [(&json!(ann.0), &json!("failure"), &json!(7))], "{refused:#?}");
    for (service, echoed) in [("sudo", "under-sudo"), ("su", "below-su")] {
        let opened = steps(&mut sensor, "auth.session_open", service, &ann.0);
        let opened = opened.last().unwrap_or_else(|| panic!("a session by {service}"));
        assert_eq!(
            (&opened["outcome"], &opened["process"]["name"], &opened["body"]["ruser"]),
            (&json!("success"), &json!(service), &json!("root"))
        );
        let events = sensor.events_json(&["--kind", "process.exec"]);
        let ran = |event: &&Value| {
            event["process"]["argv"]
                .as_array()
                .is_some_and(|argv| argv.iter().any(|word| word.as_str().is_some_and(|word| word.contains(echoed))))
        };
        let ran: Vec<&Value> = events.iter().filter(ran).filter(|event| event["process"]["user"] == ann.0).collect();
        assert!(!ran.is_empty(), "{service} ran something as the user");
        for event in ran {
            assert_eq!(event["process"]["login"], opened["body"]["login"], "what runs below belongs to it: {event:#}");
        }
        let closed = steps(&mut sensor, "auth.session_close", service, &ann.0);
        assert!(closed.iter().any(|event| event["body"]["login"] == opened["body"]["login"]), "{service} closes it: {closed:#?}");
    }
}

#[test]
fn login_tells_the_terminal_and_the_refusal_before() {
    let (script, _) = (need("script", "bsdutils"), need("login", "login"));
    let _etc = Etc::copied();
    let mut sensor = Sensor::start();
    let ann = Throwaway::named("log");
    let mut child = Command::new(script)
        .args(["-qec", &format!("login {}", ann.0), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a terminal");
    let mut session = Session::new(Box::new(child.stdout.take().expect("a pipe")), Box::new(child.stdin.take().expect("a pipe")));
    let asked =
        |session: &Session, word: &str, times: usize| wait_for(word, || (session.heard().matches(word).count() >= times).then_some(()));
    asked(&session, "Password:", 1);
    session.say("wrong");
    asked(&session, "login:", 1);
    session.say(&ann.0);
    asked(&session, "Password:", 2);
    session.say(PASSWORD);
    // What is typed before login has hung up whoever had the terminal is gone with them.
    asked(&session, "$ ", 1);
    session.ask("echo in-$((40+2))", "in-42");
    session.say("exit");
    child.wait().expect("an end");

    let tried = steps(&mut sensor, "auth.authenticate", "login", &ann.0);
    let outcomes: Vec<&Value> = tried.iter().map(|event| &event["outcome"]).collect();
    assert_eq!(outcomes, ["failure", "success"], "{tried:#?}");
    let opened = steps(&mut sensor, "auth.session_open", "login", &ann.0);
    let [opened] = &opened[..] else { panic!("one session, not {opened:#?}") };
    let tty = opened["body"]["tty"].as_str().unwrap_or_default();
    assert!(tty.contains("pts/"), "{opened:#}");
    let shells = sensor.events_json(&["--kind", "process.exec"]);
    let shell = shells.iter().find(|event| event["process"]["user"] == ann.0 && event["process"]["name"] == "sh").expect("its shell");
    assert_eq!(shell["process"]["login"], opened["body"]["login"]);
}

#[test]
fn a_password_that_is_changed_or_is_to_be_is_told() {
    let _etc = Etc::copied();
    let mut sensor = Sensor::start();
    let ann = Throwaway::named("pw");
    let passwd = need("passwd", "passwd");
    said(Command::new(&passwd).arg(&ann.0), "Another-horse-2\nAnother-horse-2\n", true);
    said(Command::new(&passwd).arg(&ann.0), "Another-horse-3\nMistyped-horse\nx\ny\nx\ny\n", false);
    let changed = steps(&mut sensor, "auth.password_change", "passwd", &ann.0);
    let outcomes: Vec<(&Value, &Value)> = changed.iter().map(|event| (&event["outcome"], &event["process"]["name"])).collect();
    assert_eq!(outcomes, [(&json!("success"), &json!("passwd")), (&json!("failure"), &json!("passwd"))], "{changed:#?}");
    let given = steps(&mut sensor, "auth.password_change", "chpasswd", &ann.0);
    assert_eq!(given.len(), 1, "by chpasswd, too: {given:#?}");
    let all = sensor.verb("events", &["--json"]).ok();
    for secret in ["horse", "Mistyped"] {
        assert!(!all.stdout.contains(secret), "no password is told");
    }
}

/// Changes of accounts that are named `name`, in their order: file, action, fields and who did it.
fn account(sensor: &Sensor, name: &str) -> Vec<Value> {
    let mut events = sensor.events_json(&["--kind", "auth.account_change"]);
    events.retain(|event| event["body"]["name"] == name);
    let told = |event: &Value| json!([event["body"]["file"], event["body"]["action"], event["body"]["fields"], event["process"]["name"]]);
    events.iter().map(told).collect()
}

/// Whether it was told that `name` has got a password, by itself or with the account.
fn has_password(sensor: &Sensor, name: &str) -> bool {
    let is_set = |told: &Value| {
        told[2].as_array().is_some_and(|fields| fields.iter().any(|field| field["name"] == "password" && field["new"] == "set"))
    };
    account(sensor, name).iter().any(|told| told[0] == "shadow" && is_set(told))
}

/// Waits for the next change of `name` behind the first `known` ones.
#[track_caller]
fn next(sensor: &Sensor, name: &str, known: usize) -> Vec<Value> {
    wait_for("a change of the account", || Some(account(sensor, name).split_off(known)).filter(|new| !new.is_empty()))
}

fn field(name: &str, old: Option<&str>, new: Option<&str>) -> Value {
    json!({"name": name, "old": old, "new": new})
}

#[test]
fn whatever_account_tools_write_is_told_with_who_did_it() {
    let tool = |name: &str| Command::new(need(name, "passwd"));
    let _etc = Etc::copied();
    let mut sensor = Sensor::start();
    let ann = Throwaway::named("acc");
    let name = ann.0.as_str();
    let of = |sensor: &Sensor, file: &str| -> Vec<Value> { account(sensor, name).into_iter().filter(|told| told[0] == file).collect() };
    wait_for("the new user in all files", || {
        let is_there = |file| !of(&sensor, file).is_empty();
        (is_there("passwd") && is_there("group") && has_password(&sensor, name)).then_some(())
    });
    let added = of(&sensor, "passwd").remove(0);
    assert_eq!((&added[1], &added[3]), (&json!("added"), &json!("useradd")), "{added:#}");
    for expected in [field("home", None, Some("/tmp")), field("shell", None, Some("/bin/sh"))] {
        assert!(added[2].as_array().is_some_and(|fields| fields.contains(&expected)), "{added:#}");
    }

    let known = account(&sensor, name).len();
    run(tool("usermod").args(["-s", "/bin/false", name])).ok();
    assert_eq!(
        next(&sensor, name, known),
        [json!(["passwd", "changed", [field("shell", Some("/bin/sh"), Some("/bin/false"))], "usermod"])]
    );
    run(tool("usermod").args(["-L", name])).ok();
    let locked = field("password", Some("set"), Some("locked"));
    assert_eq!(next(&sensor, name, known + 1), [json!(["shadow", "changed", [locked], "usermod"])]);
    let groups = account(&sensor, "nogroup").len();
    run(tool("gpasswd").args(["-a", name, "nogroup"])).ok();
    assert_eq!(next(&sensor, "nogroup", groups), [json!(["group", "changed", [field("member", None, Some(name))], "gpasswd"])]);
    // A twin puts another file with the same lines in the place of the old one.
    let before = fs::metadata("/etc/shadow").expect("a file").ino();
    run(Command::new(need("cp", "coreutils")).args(["-a", "/etc/shadow", "/etc/shadow.twin"])).ok();
    fs::rename("/etc/shadow.twin", "/etc/shadow").expect("it takes the place");
    assert_ne!(fs::metadata("/etc/shadow").expect("a file").ino(), before);
    sensor.settle();

    run(tool("userdel").arg(name)).ok();
    wait_for("the removal from all files", || {
        let gone = account(&sensor, name).into_iter().filter(|told| told[1] == "removed" && told[3] == "userdel").count();
        (gone == 3).then_some(())
    });
    let left = account(&sensor, "nogroup").split_off(groups + 1);
    assert_eq!(left, [json!(["group", "changed", [field("member", Some(name), None)], "userdel"])]);
    let told = account(&sensor, name);
    assert_eq!(told.iter().filter(|told| told[3] == "usermod").count(), 2, "what changed nothing is not told: {told:#?}");
    let all = sensor.verb("events", &["--json", "--kind", "auth.account_change"]).ok();
    assert!(!all.stdout.contains("$y$") && !all.stdout.contains("$6$"), "no hash is told");
}

#[test]
fn a_line_that_a_shell_appends_is_told_as_what_a_tool_adds() {
    let _etc = Etc::copied();
    let mut sensor = Sensor::start();
    let line = "bzline";
    let append = format!("echo '{line}:x:64321:64321::/:/bin/sh' >> /etc/passwd");
    run(Command::new("/bin/sh").args(["-c", &append])).ok();
    let told = next(&sensor, line, 0);
    let fields = [("uid", "64321"), ("gid", "64321"), ("home", "/"), ("shell", "/bin/sh")].map(|(name, new)| field(name, None, Some(new)));
    assert_eq!(told, [json!(["passwd", "added", fields, "sh"])]);
    sensor.settle();
    let opens = sensor.events_json(&["--kind", "file.open"]);
    let path = PathBuf::from("/etc/passwd");
    assert!(
        opens.iter().any(|event| event["body"]["file"]["path"] == json!(path) && event["process"]["name"] == "sh"),
        "and the write itself"
    );
}

#[test]
fn what_became_of_accounts_while_no_sensor_ran_is_told_when_it_is_back() {
    let _etc = Etc::copied();
    let mut sensor = Sensor::start();
    let ann = Throwaway::named("gap");
    wait_for("the new user", || has_password(&sensor, &ann.0).then_some(()));
    sensor.settle();
    sensor.terminate();
    run(Command::new(need("usermod", "passwd")).args(["-s", "/bin/false", &ann.0])).ok();
    ann.give_password("Another-horse-5");
    sensor.start_again();
    let told = wait_for("both changes", || {
        let events = sensor.events_json(&["--kind", "auth.account_change"]);
        let found = events.into_iter().filter(|event| event["body"]["name"] == ann.0 && event["no_subject"] == "unseen_writer");
        let found: Vec<Value> = found.collect();
        (found.len() >= 2).then_some(found)
    });
    let fields: Vec<Value> = told.iter().map(|event| json!([event["body"]["file"], event["body"]["fields"]])).collect();
    let password = field("password", Some("set"), Some("set"));
    assert_eq!(fields, [json!(["passwd", [field("shell", Some("/bin/sh"), Some("/bin/false"))]]), json!(["shadow", [password]])]);
}
