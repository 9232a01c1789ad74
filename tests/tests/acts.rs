//! What processes do to each other, on a real kernel: a trigger, the event that it must give field by field, and twins that differ in one
//! property. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use bartizan_tests::{Sensor, wait_for};
use nix::libc;
use serde_json::{Value, json};

/// Somebody else's user id: that of `nobody`.
const NOBODY: u32 = 65534;

/// A process that waits; it is killed with its owner.
struct Sleeper(Child);

impl Sleeper {
    fn start(user: Option<u32>) -> Self {
        let mut command = Command::new("/bin/sleep");
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(user) = user {
            command.uid(user);
        }
        let sleeper = Self(command.spawn().expect("/bin/sleep"));
        // The kernel lets the parent go on before the new image is told.
        let stat = format!("/proc/{}/stat", sleeper.pid());
        wait_for("a process that sleeps", || std::fs::read_to_string(&stat).ok().filter(|stat| stat.contains("(sleep) S ")));
        sleeper
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Most have gone by then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One system call with numbers only; what it returns.
fn call(number: libc::c_long, arguments: [libc::c_long; 4]) -> libc::c_long {
    let [a, b, c, d] = arguments;
    // SAFETY: the calls of this file take numbers, or addresses of values that outlive them.
    unsafe { libc::syscall(number, a, b, c, d) }
}

/// A `siginfo_t` as a sender may write it.
fn claiming(code: i32) -> [i32; 32] {
    let mut info = [0; 32];
    (info[0], info[2]) = (libc::SIGTERM, code);
    info
}

#[test]
fn a_signal_to_another_process_is_told_whatever_call_sent_it() {
    let mut sensor = Sensor::start();
    let sleepers: Vec<Sleeper> = (0..6).map(|_| Sleeper::start(None)).collect();
    let pids: Vec<libc::c_long> = sleepers.iter().map(|sleeper| sleeper.pid().into()).collect();
    let term = libc::c_long::from(libc::SIGTERM);
    assert_eq!(call(libc::SYS_kill, [pids[0], term, 0, 0]), 0);
    assert_eq!(call(libc::SYS_tkill, [pids[1], term, 0, 0]), 0);
    assert_eq!(call(libc::SYS_tgkill, [pids[2], pids[2], libc::SIGKILL.into(), 0]), 0);
    let queued = claiming(-1);
    assert_eq!(call(libc::SYS_rt_sigqueueinfo, [pids[3], term, queued.as_ptr() as libc::c_long, 0]), 0);
    // A twin that claims to be a timer.
    let forged = claiming(-2);
    assert_eq!(call(libc::SYS_rt_sigqueueinfo, [pids[4], term, forged.as_ptr() as libc::c_long, 0]), 0);
    let pidfd = call(libc::SYS_pidfd_open, [pids[5], 0, 0, 0]);
    assert!(pidfd >= 0);
    assert_eq!(call(libc::SYS_pidfd_send_signal, [pidfd, term, 0, 0]), 0);
    assert_eq!(call(libc::SYS_close, [pidfd, 0, 0, 0]), 0);
    sensor.settle();
    let own = std::process::id().to_string();
    let events = sensor.events_json(&["--kind", "process.signal", "--pid", &own]);
    let told: Vec<Value> = events
        .iter()
        .map(|event| {
            let body = &event["body"];
            let target = &event["target"];
            json!([target["pid"], body["signal"], body["code"], body["to_thread"], body["result"], target["name"], event["outcome"]])
        })
        .collect();
    let expected = [
        ("SIGTERM", 0, false),
        ("SIGTERM", -6, true),
        ("SIGKILL", -6, true),
        ("SIGTERM", -1, false),
        ("SIGTERM", -2, false),
        ("SIGTERM", 0, false),
    ];
    let expected: Vec<Value> = pids
        .iter()
        .zip(expected)
        .map(|(pid, (signal, code, to_thread))| json!([pid, signal, code, to_thread, "delivered", "sleep", "success"]))
        .collect();
    assert_eq!(told, expected, "{events:#?}");
    for event in &events {
        let target = &event["target"];
        assert_eq!((&target["argv"], &target["uid"]), (&json!(["/bin/sleep", "600"]), &json!(0)), "its image is known: {event:#}");
        assert_ne!(target["exec_id"], event["process"]["exec_id"]);
    }
}

#[test]
fn signals_that_programs_talk_with_are_told_across_users_only_and_those_to_oneself_never() {
    let mut sensor = Sensor::start();
    let (own, other) = (Sleeper::start(None), Sleeper::start(Some(NOBODY)));
    let usr1 = libc::c_long::from(libc::SIGUSR1);
    assert_eq!(call(libc::SYS_kill, [own.pid().into(), usr1, 0, 0]), 0);
    assert_eq!(call(libc::SYS_kill, [other.pid().into(), usr1, 0, 0]), 0);
    // To oneself, and a question that sends nothing.
    assert_eq!(call(libc::SYS_kill, [std::process::id().into(), libc::SIGCONT.into(), 0, 0]), 0);
    let asked = Sleeper::start(None);
    assert_eq!(call(libc::SYS_kill, [asked.pid().into(), 0, 0, 0]), 0);
    sensor.settle();
    let own = std::process::id().to_string();
    let events = sensor.events_json(&["--kind", "process.signal", "--pid", &own]);
    let told: Vec<(&Value, &Value)> = events.iter().map(|event| (&event["target"]["pid"], &event["body"]["signal"])).collect();
    assert_eq!(told, [(&json!(other.pid()), &json!("SIGUSR1"))], "{events:#?}");
    assert_eq!(events[0]["target"]["uid"], NOBODY);
}
