//! Files that are telling wherever they are, and that no list names: the memory of processes, the kernel's own insides, executables that
//! appear. Each beside a twin that differs in one property and is not told. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bartizan_tests::trigger::{Waiting, call, in_child};
use bartizan_tests::{Folder, Scene, Sensor, play, scenes, ways};
use nix::libc::{self, c_long};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// What both tiers must tell.
const SCENES: &[(&str, Scene)] = scenes![
    the_memory_of_a_process_that_is_opened_to_be_written_is_told,
    what_changes_tracing_or_debugging_is_told,
    an_executable_that_appears_is_told_wherever_it_is,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().without("fexit", &["file_open", "process_access"]).start(), SCENES);
}

/// Whether `hook` is in its best tier.
fn is_best(sensor: &Sensor, hook: &str) -> bool {
    let hooks = sensor.status_json()["hooks"].clone();
    let found = hooks.as_array().and_then(|hooks| hooks.iter().find(|found| found["name"] == hook)).expect("the hook").clone();
    found["tier"] == "fexit"
}

/// Files that `pid` was told to open: path, file system, whether to read, to write, and whether they are new.
fn opened(sensor: &Sensor, pid: u32) -> Vec<Value> {
    let events = sensor.events_json(&["--kind", "file.open", "--pid", &pid.to_string()]);
    let told = |event: &Value| {
        let body = &event["body"];
        json!([body["file"]["path"], body["file"]["file_system"], body["read"], body["write"], body["created"]])
    };
    events.iter().map(told).collect()
}

fn open(path: &CString, flags: i32) -> c_long {
    call(libc::SYS_openat, &[libc::AT_FDCWD.into(), path.as_ptr() as c_long, flags.into(), 0o755])
}

fn name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

fn the_memory_of_a_process_that_is_opened_to_be_written_is_told(sensor: &mut Sensor) {
    let victim = Waiting::start();
    let of_victim = format!("/proc/{}/mem", victim.pid());
    let (others, own) = (name(Path::new(&of_victim)), name(Path::new("/proc/self/mem")));
    let maps = name(Path::new(&format!("/proc/{}/maps", victim.pid())));
    let actor = in_child(|| {
        assert!(open(&others, libc::O_RDWR) >= 0);
        assert!(open(&own, libc::O_WRONLY) >= 0);
        // Twins: to look is no open file, but with the others' memory an access.
        assert!(open(&others, libc::O_RDONLY) >= 0);
        assert!(open(&maps, libc::O_RDONLY) >= 0);
        assert!(ways::open_by_int80(Path::new("/proc/self/mem"), libc::O_RDWR).is_ok());
    });
    sensor.settle();
    let of_actor = format!("/proc/{actor}/mem");
    let mut expected = vec![json!([of_victim, "proc", true, true, false]), json!([of_actor, "proc", false, true, false])];
    if is_best(sensor, "file_open") {
        expected.push(json!([of_actor, "proc", true, true, false]));
    }
    assert_eq!(opened(sensor, actor), expected);
    let accesses = sensor.events_json(&["--kind", "process.access", "--pid", &actor.to_string()]);
    let told: Vec<Value> = accesses.iter().map(|event| json!([event["body"]["how"], event["target"]["pid"]])).collect();
    let expected = vec![json!(["open", victim.pid()]); if is_best(sensor, "process_access") { 2 } else { 0 }];
    assert_eq!(told, expected);
}

/// A file system of the kernel's own, mounted for a test.
struct Mounted(Folder);

impl Mounted {
    fn new(kind: &str) -> Self {
        let folder = Folder::new();
        mount(Some("none"), folder.path(), Some(kind), MsFlags::empty(), None::<&str>).unwrap_or_else(|error| panic!("{kind}: {error}"));
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn what_changes_tracing_or_debugging_is_told(sensor: &mut Sensor) {
    // Lockdown refuses debugfs to everybody.
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|modes| !modes.contains("[none]"));
    let insides = [("tracefs", "tracing_on"), ("debugfs", "sched/features")];
    for (kind, file) in insides.into_iter().filter(|(kind, _)| !lockdown || *kind == "tracefs") {
        let mounted = Mounted::new(kind);
        let path = mounted.0.join(file);
        let at = name(&path);
        let actor = in_child(|| {
            assert!(open(&at, libc::O_WRONLY) >= 0);
            // The twin only looks.
            assert!(open(&at, libc::O_RDONLY) >= 0);
        });
        sensor.settle();
        assert_eq!(opened(sensor, actor), [json!([path, kind, false, true, false])]);
    }
}

fn an_executable_that_appears_is_told_wherever_it_is(sensor: &mut Sensor) {
    let folder = Folder::new();
    let (program, note) = (folder.join("program"), folder.join("note"));
    let [at, twin] = [&program, &note].map(|path| name(path));
    let actor = in_child(|| {
        assert!(open(&at, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL) >= 0);
        let plain = [libc::AT_FDCWD.into(), twin.as_ptr() as c_long, (libc::O_WRONLY | libc::O_CREAT).into(), 0o644];
        assert!(call(libc::SYS_openat, &plain) >= 0);
        // There already: it does not appear.
        assert!(open(&at, libc::O_WRONLY | libc::O_CREAT) >= 0);
    });
    sensor.settle();
    let told = opened(sensor, actor);
    let [appeared] = &told[..] else { panic!("{told:#?}") };
    assert_eq!((&appeared[0], &appeared[2], &appeared[3], &appeared[4]), (&json!(program), &json!(false), &json!(true), &json!(true)));
}
