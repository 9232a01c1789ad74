//! What processes do to each other, on a real kernel: a trigger, the event that it must give field by field, and twins that differ in one
//! property. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use bartizan_tests::trigger::{Waiting, call, in_child};
use bartizan_tests::{Scene, Sensor, play, scenes, wait_for};
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

/// A `siginfo_t` as a sender may write it.
fn claiming(code: i32) -> [i32; 32] {
    let mut info = [0; 32];
    (info[0], info[2]) = (libc::SIGTERM, code);
    info
}

/// What both tiers must tell.
const SCENES: &[(&str, Scene)] = scenes![
    a_signal_to_another_process_is_told_whatever_call_sent_it,
    signals_that_programs_talk_with_are_told_across_users_only_and_those_to_oneself_never,
    whoever_reaches_into_another_process_is_told_and_whoever_only_looks_is_not,
    who_may_not_reach_into_another_process_is_told_with_the_refusal,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().without("fexit", &["process_access"]).start(), SCENES);
}

fn a_signal_to_another_process_is_told_whatever_call_sent_it(sensor: &mut Sensor) {
    let sleepers: Vec<Sleeper> = (0..6).map(|_| Sleeper::start(None)).collect();
    let pids: Vec<libc::c_long> = sleepers.iter().map(|sleeper| sleeper.pid().into()).collect();
    let term = libc::c_long::from(libc::SIGTERM);
    assert_eq!(call(libc::SYS_kill, &[pids[0], term, 0, 0]), 0);
    assert_eq!(call(libc::SYS_tkill, &[pids[1], term, 0, 0]), 0);
    assert_eq!(call(libc::SYS_tgkill, &[pids[2], pids[2], libc::SIGKILL.into(), 0]), 0);
    let queued = claiming(-1);
    assert_eq!(call(libc::SYS_rt_sigqueueinfo, &[pids[3], term, queued.as_ptr() as libc::c_long, 0]), 0);
    // A twin that claims to be a timer.
    let forged = claiming(-2);
    assert_eq!(call(libc::SYS_rt_sigqueueinfo, &[pids[4], term, forged.as_ptr() as libc::c_long, 0]), 0);
    let pidfd = call(libc::SYS_pidfd_open, &[pids[5], 0, 0, 0]);
    assert!(pidfd >= 0);
    assert_eq!(call(libc::SYS_pidfd_send_signal, &[pidfd, term, 0, 0]), 0);
    assert_eq!(call(libc::SYS_close, &[pidfd, 0, 0, 0]), 0);
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

fn signals_that_programs_talk_with_are_told_across_users_only_and_those_to_oneself_never(sensor: &mut Sensor) {
    let (own, other) = (Sleeper::start(None), Sleeper::start(Some(NOBODY)));
    let usr1 = libc::c_long::from(libc::SIGUSR1);
    assert_eq!(call(libc::SYS_kill, &[own.pid().into(), usr1, 0, 0]), 0);
    assert_eq!(call(libc::SYS_kill, &[other.pid().into(), usr1, 0, 0]), 0);
    // To oneself, and a question that sends nothing.
    assert_eq!(call(libc::SYS_kill, &[std::process::id().into(), libc::SIGCONT.into(), 0, 0]), 0);
    let asked = Sleeper::start(None);
    assert_eq!(call(libc::SYS_kill, &[asked.pid().into(), 0, 0, 0]), 0);
    sensor.settle();
    let me = std::process::id();
    let mut events = sensor.events_json(&["--kind", "process.signal", "--pid", &me.to_string()]);
    // Earlier scenes have signalled others.
    let of_this_scene = [json!(own.pid()), json!(other.pid()), json!(asked.pid()), json!(me)];
    events.retain(|event| of_this_scene.contains(&event["target"]["pid"]));
    let told: Vec<(&Value, &Value)> = events.iter().map(|event| (&event["target"]["pid"], &event["body"]["signal"])).collect();
    assert_eq!(told, [(&json!(other.pid()), &json!("SIGUSR1"))], "{events:#?}");
    assert_eq!(events[0]["target"]["uid"], NOBODY);
}

/// `[how, error, target's pid]` of what `pid` did to others, in its order.
fn accesses(sensor: &Sensor, pid: u32) -> Vec<Value> {
    let events = sensor.events_json(&["--kind", "process.access", "--pid", &pid.to_string()]);
    events.iter().map(|event| json!([event["body"]["how"], event["body"]["error"], event["target"]["pid"]])).collect()
}

fn whoever_reaches_into_another_process_is_told_and_whoever_only_looks_is_not(sensor: &mut Sensor) {
    let victim = Waiting::start();
    let pid = libc::c_long::from(victim.pid());
    let of_victim = CString::new(format!("/proc/{pid}/status")).expect("no NUL");
    let mut word = 7_u64;
    let own = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let own = &raw const own as libc::c_long;
    let attach = libc::c_long::from(libc::PTRACE_ATTACH);
    let actor = in_child(|| {
        assert_eq!(call(libc::SYS_ptrace, &[attach, pid]), 0);
        assert_eq!(call(libc::SYS_wait4, &[pid, 0, libc::__WALL.into(), 0]), pid);
        assert_eq!(call(libc::SYS_ptrace, &[libc::PTRACE_DETACH.into(), pid]), 0);
        assert_eq!(call(libc::SYS_process_vm_writev, &[pid, own, 1, own, 1, 0]), 8);
        assert_eq!(call(libc::SYS_process_vm_readv, &[pid, own, 1, own, 1, 0]), 8);
        let pidfd = call(libc::SYS_pidfd_open, &[pid, 0]);
        assert!(call(libc::SYS_pidfd_getfd, &[pidfd, 0, 0]) >= 0);
        // Twins: the actor's own memory, and a look at what everybody may see.
        assert_eq!(call(libc::SYS_process_vm_writev, &[std::process::id().into(), own, 1, own, 1, 0]), 8);
        assert!(call(libc::SYS_open, &[of_victim.as_ptr() as libc::c_long, 0]) >= 0);
    });
    let traced = in_child(|| assert_eq!(call(libc::SYS_ptrace, &[libc::PTRACE_TRACEME.into()]), 0));
    sensor.settle();
    let expected = ["ptrace_attach", "vm_write", "vm_read", "get_fd"].map(|how| json!([how, null, pid]));
    assert_eq!(accesses(sensor, actor), expected);
    assert_eq!(accesses(sensor, traced), [json!(["ptrace_traceme", null, std::process::id()])]);
}

fn who_may_not_reach_into_another_process_is_told_with_the_refusal(sensor: &mut Sensor) {
    let victim = Waiting::start();
    let pid = libc::c_long::from(victim.pid());
    let actor = in_child(|| {
        assert_eq!(call(libc::SYS_setuid, &[NOBODY.into()]), 0);
        assert_eq!(call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE.into(), pid]), -libc::c_long::from(libc::EPERM));
    });
    sensor.settle();
    assert_eq!(accesses(sensor, actor), [json!(["ptrace_seize", libc::EPERM, pid])]);
}
