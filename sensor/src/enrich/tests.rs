use bartizan_bus::event::{Exit, Heartbeat};
use bartizan_sensor_ebpf::abi::Kind;

use super::*;
use crate::project::{Child, Environment, ExeInode};

fn enricher() -> Enricher {
    Enricher::new(BootId(9), "host".into(), 1_000, 64)
}

fn subject(ktime: u64, tgid: u32, start: u64, exec_id: u32) -> Subject {
    Subject {
        ktime,
        cpu: 0,
        seq: ktime as u32,
        tgid,
        tid: tgid,
        start_boottime: start,
        exec_id,
        uid: 0,
        euid: 0,
        ppid: 1,
        cgroup_id: 1,
        kernel_thread: false,
    }
}

fn image(exe: &str) -> Box<Image> {
    Box::new(Image { name: exe.into(), exe: Some(exe.into()), ..Image::default() })
}

fn executed(image: Box<Image>, requested: &str) -> What {
    What::Exec {
        image,
        requested: Some(requested.into()),
        requested_truncated: false,
        interpreter: None,
        interpreter_truncated: false,
        environment: Environment::default(),
    }
}

fn exec(subject: Subject, exe: &str) -> Observation {
    Observation { kind: Kind::Exec, subject, what: executed(image(exe), exe) }
}

fn seed(subject: Subject, exe: &str) -> Observation {
    Observation { kind: Kind::Seed, subject, what: What::Seed(image(exe)) }
}

fn fork(subject: Subject, tgid: u32, start: u64) -> Observation {
    let child = Child { tgid, start_boottime: start, exec_id: subject.exec_id, name: "c".into(), namespaces: Vec::new() };
    Observation { kind: Kind::Fork, subject, what: What::Fork(child) }
}

#[test]
fn a_child_keeps_its_parent_s_image_at_the_fork() {
    let mut enricher = enricher();
    enricher.event(exec(subject(10, 5, 1, 2), "/bin/bash"), false);
    enricher.event(fork(subject(20, 5, 1, 2), 6, 19), false);
    enricher.event(exec(subject(25, 5, 1, 3), "/bin/other"), false);
    let event = enricher.event(exec(subject(30, 6, 19, 3), "/bin/ls"), false).unwrap();
    let process = event.process.unwrap();
    assert_eq!(process.parent.unwrap(), enricher.exec_id(5, 1, 2), "the image that forked, not the one that came after");
    assert_eq!(process.exe_path(), Some("/bin/ls"));
}

#[test]
fn a_secret_is_in_no_event_and_not_in_the_table() {
    use crate::redact::{Key, RedactionConfig, Redactor};
    let redactor = Redactor::new(&RedactionConfig::default(), Key::from_bytes([7; 32])).unwrap();
    let mut enricher = enricher().redacting(Some(redactor));
    let with_secret = |what: fn(Box<Image>) -> What| {
        let image = Image { argv: vec!["mysql".into(), "-phunter2".into()], ..Image::default() };
        Observation { kind: Kind::Exec, subject: subject(10, 5, 1, 2), what: what(Box::new(image)) }
    };
    let exec = |image| executed(image, "https://u:hunter2@h/x");
    let events = [
        enricher.event(with_secret(exec), false),
        enricher.event(fork(subject(20, 5, 1, 2), 6, 19), false),
        enricher.event(with_secret(What::Seed), false),
    ];
    for event in events {
        let text = format!("{event:?}");
        assert!(text.contains("[redacted:") && !text.contains("hunter2"), "{text}");
    }
    assert!(!format!("{:?}", enricher.table()).contains("hunter2"));
}

#[test]
fn a_script_is_told_behind_its_folder_with_the_listed_variables() {
    let mut enricher = enricher().keeping(Listed::new(&["LD_*".to_owned()]));
    let told = |enricher: &mut Enricher, requested: &str, interpreter: Option<&str>| {
        let image = Image { cwd: Some("/srv".into()), ..*image("/bin/sh") };
        let what = What::Exec {
            image: Box::new(image),
            requested: Some(requested.into()),
            requested_truncated: false,
            interpreter: interpreter.map(str::to_owned),
            interpreter_truncated: false,
            environment: Environment { head: b"A=1\0LD_PRELOAD=x\0".to_vec(), end: Vec::new(), len: 17 },
        };
        let event = enricher.event(Observation { kind: Kind::Exec, subject: subject(10, 5, 1, 2), what }, false).unwrap();
        let Body::Exec(exec) = event.body else { panic!("another kind") };
        assert_eq!((exec.environment, exec.environment_truncated), (vec!["LD_PRELOAD=x".to_owned()], false));
        exec.script
    };
    assert_eq!(told(&mut enricher, "./a.sh", Some("/bin/sh")).as_deref(), Some("/srv/a.sh"));
    assert_eq!(told(&mut enricher, "/dev/fd/5", Some("/bin/sh")).as_deref(), Some("/dev/fd/5"));
    assert_eq!(told(&mut enricher, "./a.out", None), None);
}

#[test]
fn a_hash_is_told_late_and_later_execs_have_it() {
    let mut enricher = enricher().hashing(Hashes::new(true));
    let with_file = || {
        let file = ExeInode {
            inode: 1,
            device: 2,
            mode: 0o100_755,
            owner: 0,
            nlink: 1,
            size: 3,
            changed: (4, 5),
            magic: 0xef53,
            upper: false,
            alone: false,
        };
        executed(Box::new(Image { exe_file: Some(file), ..*image("/bin/x") }), "x")
    };
    let exec = |ktime, pid| Observation { kind: Kind::Exec, subject: subject(ktime, pid, 1, 2), what: with_file() };
    let first = enricher.event(exec(10, 5), false).unwrap().process.unwrap().exe.clone().unwrap();
    assert_eq!((first.sha256, first.filesystem.as_deref(), first.changed_ns), (None, Some("ext4"), Some(4_000_000_005)));
    let [wanted] = enricher.hashes().take_wanted().try_into().unwrap();
    assert_eq!((wanted.pid, wanted.ppid, wanted.path.as_str()), (5, Some(1), "/bin/x"));
    let events = enricher.hashed(20, &Answer { file: wanted.file, result: Ok("ab".into()) });
    let [event] = events.try_into().unwrap();
    assert_eq!(event.body, Body::ExeHash(ExeHash { sha256: Some("ab".into()), size: 3, not_hashed: None }));
    assert_eq!(event.process.unwrap().exe.as_ref().unwrap().sha256.as_deref(), Some("ab"));
    for pid in [5, 6] {
        let later = enricher.event(exec(30, pid), false).unwrap().process.unwrap();
        assert_eq!(later.exe.as_ref().unwrap().sha256.as_deref(), Some("ab"));
    }
}

#[test]
fn an_old_record_is_told_but_does_not_undo_a_seed() {
    let mut enricher = enricher();
    enricher.event(seed(subject(100, 5, 1, 7), "/bin/new"), false);
    let event = enricher.event(exec(subject(50, 5, 1, 6), "/bin/old"), false).unwrap();
    assert_eq!(event.process.unwrap().exe_path(), Some("/bin/old"));
    let known = enricher.table().get(&enricher.exec_id(5, 1, 7)).unwrap();
    assert_eq!(known.process.exe_path(), Some("/bin/new"));
}

#[test]
fn what_proc_seeded_is_merged_when_the_kernel_names_it() {
    let mut enricher = enricher();
    enricher.event(seed(subject(100, 5, 20_000_000, 0), "/bin/old"), true);
    let exit = Observation { kind: Kind::Exit, subject: subject(200, 5, 23_456_789, 4), what: What::Exit(Exit::default()) };
    let process = enricher.event(exit, false).unwrap().process.unwrap();
    assert_eq!(process.exe_path(), Some("/bin/old"));
    assert_eq!((process.exec_id.start_ns, process.approximate), (23_456_789, false));
}

#[test]
fn a_late_record_is_about_the_image_that_acted() {
    let mut enricher = enricher();
    enricher.event(exec(subject(10, 5, 1, 2), "/usr/bin/python3"), false);
    enricher.event(exec(subject(20, 5, 1, 3), "/bin/sleep"), false);
    let late = |exec_id| Observation { kind: Kind::Exit, subject: subject(30, 5, 1, exec_id), what: What::Exit(Exit::default()) };
    assert_eq!(enricher.event(late(2), false).unwrap().process.unwrap().exe_path(), Some("/usr/bin/python3"));
    assert_eq!(enricher.event(late(1), false).unwrap().process.unwrap().exe_path(), None, "an image that nobody remembers is not guessed");
}

#[test]
fn events_share_a_process_until_a_record_says_something_else_of_it() {
    let mut enricher = enricher();
    enricher.event(exec(subject(10, 5, 1, 2), "/bin/bash"), false);
    let id = enricher.exec_id(5, 1, 2);
    let forks = |enricher: &mut Enricher, child, acting| enricher.event(fork(acting, child, u64::from(child)), false).unwrap();
    let threads = [5, 99, 98].map(|tid| forks(&mut enricher, 20 + tid, Subject { tid, ..subject(20, 5, 1, 2) }));
    assert_eq!(threads.each_ref().map(|event| event.tid), [None, Some(99), Some(98)]);
    let known = Arc::clone(&enricher.table().get(&id).unwrap().process);
    assert!(threads.iter().all(|event| Arc::ptr_eq(event.process.as_ref().unwrap(), &known)));
    // Its parent ended.
    let adopted = [30, 31].map(|child| forks(&mut enricher, child, Subject { ppid: 7, ..subject(30, 5, 1, 2) }).process.unwrap());
    assert!(Arc::ptr_eq(&adopted[0], &adopted[1]) && adopted[0].ppid == Some(7));
    assert_eq!(enricher.table().get(&id).unwrap().process.ppid, Some(1), "what says so may be an old record");
    let other = forks(&mut enricher, 32, Subject { ppid: 8, ..subject(30, 5, 1, 2) }).process.unwrap();
    assert_eq!((other.ppid, other.exe_path()), (Some(8), Some("/bin/bash")));
}

#[test]
fn a_connection_s_owner_as_of_its_begin_changes_nothing_of_the_process_now() {
    let mut enricher = enricher();
    enricher.event(exec(subject(10, 5, 1, 2), "/usr/sbin/nginx"), false);
    let id = enricher.exec_id(5, 1, 2);
    let user = |enricher: &Enricher| enricher.table().get(&id).unwrap().process.uid;
    let as_www = |ktime| Subject { uid: 33, euid: 33, ..subject(ktime, 5, 1, 2) };
    enricher.event(fork(as_www(20), 6, 2), false);
    assert_eq!(user(&enricher), 33);
    let end = |subject| Observation { kind: Kind::FlowEnd, subject, what: Act::done(Body::Heartbeat(Heartbeat::default())).into() };
    let ended = enricher.event(end(subject(30, 5, 1, 2)), false).unwrap().process.unwrap();
    assert_eq!((ended.uid, user(&enricher)), (0, 33), "it was root's when it was made");
}

#[test]
fn a_late_record_of_a_dead_process_leaves_the_living_one_alone() {
    let mut enricher = enricher();
    enricher.event(exec(subject(100, 5, 90_000_000, 2), "/bin/living"), false);
    let late = Observation { kind: Kind::Exit, subject: subject(200, 5, 10_000_000, 9), what: What::Exit(Exit::default()) };
    assert_eq!(enricher.event(late, false).unwrap().process.unwrap().exe_path(), None);
    let living = enricher.exec_id(5, 90_000_000, 2);
    assert_eq!(enricher.table().get(&living).unwrap().process.exe_path(), Some("/bin/living"));
}

#[test]
fn an_unknown_subject_is_its_id_and_nothing_else() {
    let mut enricher = enricher();
    let exit = Observation { kind: Kind::Exit, subject: subject(5, 77, 3, 0), what: What::Exit(Exit::default()) };
    let event = enricher.event(exit, false).unwrap();
    let process = event.process.unwrap();
    assert_eq!((process.pid, process.exe.as_ref(), process.user.as_ref()), (77, None, None));
    assert_eq!(event.time.wall_ns, 1_005);
}
