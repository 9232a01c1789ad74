//! What an exec and a fork tell of the new image, on a real kernel: scripts, environments, where the file lies and what it contains, and twins
//! that differ in one property. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bartizan_tests::trigger::{self, call};
use bartizan_tests::{Group, Sensor, run, victim, wait_for};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde_json::{Value, json};

/// Beginnings of the hooks that these tests are about.
const HOOKS: &[&str] = &["process_"];

/// A sensor that hashes small files only: others that run, this test's own program among them, keep a debug build busy for long.
fn hashing() -> Sensor {
    Sensor::with().hooks(HOOKS).config("[sensor]\nhash_max = \"4 MiB\"\n").start()
}

/// What a child ends with that did not become another image.
const NO_IMAGE: i32 = 99;

/// Waits for a child that became another image.
#[track_caller]
fn reap(pid: u32) -> u32 {
    let ended = waitpid(Pid::from_raw(pid.cast_signed()), None).expect("a child of ours");
    assert!(!matches!(ended, WaitStatus::Exited(_, NO_IMAGE)), "the exec failed");
    pid
}

/// A child that does `act`, which is to become another image; returns its pid when that has ended.
#[track_caller]
fn image(act: impl FnOnce()) -> u32 {
    // SAFETY: the child makes system calls, allocates, and becomes another image.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            act();
            // SAFETY: ends this process without running what belongs to the parent.
            unsafe { libc::_exit(NO_IMAGE) }
        }
        ForkResult::Parent { child } => reap(child.as_raw().cast_unsigned()),
    }
}

/// NUL-terminated strings, and a vector of their addresses with the null at its end.
struct Vector {
    _texts: Vec<CString>,
    addresses: Vec<libc::c_long>,
}

impl Vector {
    fn of(texts: &[&str]) -> Self {
        let texts: Vec<CString> = texts.iter().map(|text| CString::new(*text).expect("no NUL")).collect();
        let addresses = texts.iter().map(|text| text.as_ptr() as libc::c_long).chain([0]).collect();
        Self { _texts: texts, addresses }
    }

    fn address(&self) -> libc::c_long {
        self.addresses.as_ptr() as libc::c_long
    }
}

/// `execveat`. Comes back only when it failed.
fn exec_at(folder: i32, path: &str, argv: &[&str], flags: i32) {
    let path = CString::new(path).expect("no NUL");
    let (argv, envp) = (Vector::of(argv), Vector::of(&[]));
    call(libc::SYS_execveat, &[folder.into(), path.as_ptr() as libc::c_long, argv.address(), envp.address(), flags.into()]);
}

/// The exec of `pid` that succeeded; the last one.
#[track_caller]
fn exec_of(sensor: &Sensor, pid: u32) -> Value {
    let events = sensor.events_json(&["--kind", "process.exec", "--pid", &pid.to_string()]);
    events.into_iter().rfind(|event| event["outcome"] == "success").unwrap_or_else(|| panic!("no exec of {pid}"))
}

/// SHA-256 by somebody else's program.
fn sha256sum(path: impl AsRef<Path>) -> String {
    let outcome = run(Command::new("sha256sum").arg(path.as_ref())).ok();
    outcome.stdout.split_whitespace().next().expect("a sum").to_owned()
}

/// What `process.hash` says of the file that `pid` runs.
fn hash_of(sensor: &Sensor, pid: u32) -> Value {
    let mut looks = 0;
    wait_for("the hash of an executable", || {
        looks += 1;
        if looks % 20 == 0 {
            eprintln!("look {looks} for the hash of {pid}: {:#}", sensor.status_json()["hashes"]);
        }
        sensor.events_json(&["--kind", "process.hash", "--pid", &pid.to_string()]).into_iter().next()
    })
}

/// Runs `program` to its end.
#[track_caller]
fn play(command: &mut Command) -> u32 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program");
    child.wait().expect("its end");
    child.id()
}

#[test]
fn a_script_is_told_with_its_interpreter_whatever_argv_says() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let folder = sensor.folder().path().canonicalize().expect("a folder");
    let inner = sensor.folder().program("inner", "#!/bin/sh\nexit 0\n");
    let outer = sensor.folder().program("outer", format!("#!{} an argument\n", inner.display()));
    let opened = fs::File::open(&inner).expect("the script");
    // A descriptor that outlives the exec, as a script's must.
    let kept = call(libc::SYS_dup, &[opened.as_raw_fd().into()]) as i32;
    let opened = fs::File::open(&folder).expect("the folder");
    let kept_folder = call(libc::SYS_dup, &[opened.as_raw_fd().into()]) as i32;

    let plain = play(Command::new(&inner).arg0("kworker/0:1"));
    let nested = play(&mut Command::new(&outer));
    let relative = play(Command::new("./inner").current_dir(&folder));
    let by_descriptor = image(|| exec_at(kept, "", &["sshd"], libc::AT_EMPTY_PATH));
    let in_folder = image(|| exec_at(kept_folder, "inner", &["sshd"], 0));
    let binary = play(Command::new("/bin/true").arg0(&inner));
    sensor.settle();

    let (inner, outer) = (inner.to_string_lossy(), outer.to_string_lossy());
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    for (pid, script, argv) in [
        (plain, inner.to_string(), Some(json!(["/bin/sh", inner]))),
        (nested, outer.to_string(), Some(json!(["/bin/sh", inner, "an argument", outer]))),
        (relative, format!("{}/inner", folder.display()), Some(json!(["/bin/sh", "./inner"]))),
        (by_descriptor, format!("/dev/fd/{kept}"), None),
        (in_folder, format!("/dev/fd/{kept_folder}/inner"), None),
    ] {
        let exec = exec_of(&sensor, pid);
        assert_eq!((&exec["body"]["interpreter"], &exec["body"]["script"]), (&json!("/bin/sh"), &json!(script)), "{exec:#}");
        assert_eq!((&exec["process"]["exe"]["path"], &exec["body"]["interpreter_truncated"]), (&json!(shell), &json!(false)));
        if let Some(argv) = argv {
            assert_eq!(exec["process"]["argv"], argv);
        }
    }
    let exec = exec_of(&sensor, binary);
    assert_eq!((&exec["body"]["interpreter"], &exec["body"]["script"]), (&Value::Null, &Value::Null), "only argv[0] says so");
}

#[test]
fn listed_variables_are_told_and_others_are_not_wherever_they_stand() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let run = |variables: &[(&str, &str)]| play(Command::new("/bin/true").env_clear().envs(variables.iter().copied()));
    let (long, longer) = ("x".repeat(5000), "x".repeat(20_000));
    let listed = ("LD_PRELOAD", "/no/such.so");
    let plain = run(&[("B_OTHER", "1"), listed, ("XLD_PRELOAD", "no"), ("http_proxy", "http://me:hunter2@192.0.2.1:3128")]);
    // Variables come in the order of their names.
    let behind = run(&[("A", &long), listed]);
    let far_behind = run(&[("A", &longer), listed]);
    let before = run(&[listed, ("Z", &longer)]);
    let between = run(&[("A", &longer), listed, ("Z", &longer)]);
    let none = run(&[]);
    let mut other = Sensor::with().hooks(HOOKS).config("[sensor]\nenvironment = [\"B_ONLY*\"]\n").start();
    let only = run(&[("B_ONLY_THIS", "2"), listed]);
    sensor.settle();
    other.settle();

    let told = |sensor: &Sensor, pid| {
        let body = &exec_of(sensor, pid)["body"];
        (body["environment"].clone(), body["environment_truncated"] == true)
    };
    let (environment, cut) = told(&sensor, plain);
    assert_eq!((&environment[0], environment.as_array().map(Vec::len), cut), (&json!("LD_PRELOAD=/no/such.so"), Some(2), false));
    let proxy = environment[1].as_str().unwrap_or_default();
    assert!(proxy.starts_with("http_proxy=http://me:[redacted:") && proxy.ends_with("@192.0.2.1:3128"), "{proxy}");
    let listed = json!(["LD_PRELOAD=/no/such.so"]);
    assert_eq!(told(&sensor, behind), (listed.clone(), false), "8 KiB are looked at as a whole");
    assert_eq!(told(&sensor, far_behind), (listed.clone(), true));
    assert_eq!(told(&sensor, before), (listed, true));
    assert_eq!(told(&sensor, between), (json!([]), true), "the middle of a long one is not looked at, and that is said");
    assert_eq!(told(&sensor, none), (json!([]), false));
    assert_eq!(told(&other, only), (json!(["B_ONLY_THIS=2"]), false));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn an_exec_by_the_32_bit_table_tells_the_same() {
    use bartizan_tests::trigger::{call_32, low_page};
    /// `execve`, arch/x86/entry/syscalls/syscall_32.tbl.
    const EXECVE: u32 = 11;

    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let texts = *b"/bin/true\0LD_AUDIT=/no/such.so\0";
    let page = low_page(&texts);
    let envp = [page + 10, 0];
    let words: Vec<u8> = [page, 0].iter().chain(&envp).flat_map(|word| word.to_le_bytes()).collect();
    let vectors = low_page(&words);
    let pid = image(|| {
        // What the loader says of it is nobody's business.
        call(libc::SYS_close, &[2]);
        call_32(EXECVE, &[page, vectors, vectors + 8]);
    });
    sensor.settle();
    let exec = exec_of(&sensor, pid);
    assert_eq!((&exec["process"]["argv"], &exec["body"]["environment"]), (&json!(["/bin/true"]), &json!(["LD_AUDIT=/no/such.so"])));
}

#[test]
fn a_file_in_memory_alone_is_told_from_one_that_is_only_named_so() {
    let mut sensor = hashing();
    let bytes = fs::read("/bin/sleep").expect("a program");
    let memory = memfd_create(c"bartizan-image", MFdFlags::empty()).expect("a memfd");
    let mut memory = fs::File::from(memory);
    memory.write_all(&bytes).expect("its contents");
    let named_so = sensor.folder().program("memfd:bartizan-image", &bytes);

    // Living, so that it can be read.
    let mut group = Group::start(&mut {
        let mut command = victim(format!("/proc/self/fd/{}", memory.as_raw_fd()), &sensor.folder().join("log-memfd"));
        command.arg0("sleep").arg("600");
        command
    });
    let by_link = group.pid();
    let descriptor = memory.as_raw_fd();
    let by_descriptor = image(|| exec_at(descriptor, "", &["sleep", "0"], libc::AT_EMPTY_PATH));
    let twin = play(Command::new(&named_so).arg0("sleep").arg("0"));
    let hash = hash_of(&sensor, by_link);
    sensor.settle();
    group.signal(nix::sys::signal::Signal::SIGKILL);
    group.wait();

    for pid in [by_link, by_descriptor] {
        let exe = &exec_of(&sensor, pid)["process"]["exe"];
        assert_eq!(
            (&exe["path"], &exe["memfd"], &exe["deleted"], &exe["filesystem"], &exe["size"]),
            (&json!("/memfd:bartizan-image"), &json!(true), &json!(true), &json!("tmpfs"), &json!(bytes.len()))
        );
    }
    assert_eq!(hash["process"]["exe"]["sha256"], json!(sha256sum("/bin/sleep")), "{hash:#}");
    let exe = &exec_of(&sensor, twin)["process"]["exe"];
    assert_eq!((&exe["memfd"], &exe["deleted"], &exe["upper"]), (&json!(false), &json!(false), &json!(false)));
}

#[test]
fn an_executable_is_hashed_once_and_again_when_it_changed() {
    let mut sensor = hashing();
    let program = sensor.folder().program("hashed", fs::read("/bin/true").expect("a program"));
    let first = play(&mut Command::new(&program));
    let hash = hash_of(&sensor, first);
    let expected = json!(sha256sum(&program));
    assert_eq!((&hash["body"]["sha256"], &hash["process"]["exe"]["sha256"]), (&expected, &expected), "{hash:#}");
    assert_eq!(hash["process"]["exe"]["path"], json!(program));
    assert_eq!(hash["body"]["not_hashed"], Value::Null);
    let second = play(&mut Command::new(&program));
    sensor.settle();
    assert_eq!(exec_of(&sensor, first)["process"]["exe"]["sha256"], Value::Null, "nobody waits for it");
    assert_eq!(exec_of(&sensor, second)["process"]["exe"]["sha256"], expected);

    let mut file = fs::OpenOptions::new().append(true).open(&program).expect("the program");
    file.write_all(b"\0").expect("a byte more");
    drop(file);
    let changed = play(&mut Command::new(&program));
    let hash = hash_of(&sensor, changed);
    assert_eq!(hash["body"]["sha256"], json!(sha256sum(&program)));
    assert_ne!(hash["body"]["sha256"], expected);
    // Another mode is another change time and the same contents.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("another mode");
    let mode = play(&mut Command::new(&program));
    assert_eq!(hash_of(&sensor, mode)["body"]["sha256"], hash["body"]["sha256"]);
    // Sizes and sums are taken once a second.
    wait_for("the count of hashed files in the status", || (sensor.status_json()["hashes"]["hashed"].as_u64() >= Some(3)).then_some(()));
}

#[test]
fn a_deleted_executable_is_hashed_while_it_runs_and_a_large_one_is_not() {
    let sensor = hashing();
    let mut bytes = fs::read("/bin/sleep").expect("a program");
    let small = sensor.folder().program("small", &bytes);
    bytes.resize(5 << 20, 0);
    let large = sensor.folder().program("large", &bytes);
    let expected = json!(sha256sum(&small));
    // Deleted before it is executed: a link that goes afterwards changes the inode, and then it is not the file of the exec any more.
    let opened = fs::File::open(&small).expect("the program");
    fs::remove_file(&small).expect("its only link");
    let kept = call(libc::SYS_dup, &[opened.as_raw_fd().into()]);
    let mut sleep = victim(format!("/proc/self/fd/{kept}"), &sensor.folder().join("log-small"));
    let mut group = Group::start(sleep.arg0("sleep").arg("600"));
    let hash = hash_of(&sensor, group.pid());
    assert_eq!(hash["body"]["sha256"], expected);
    let too_large = play(Command::new(&large).arg0("sleep").arg("0"));
    let told = hash_of(&sensor, too_large);
    assert_eq!(told["body"], json!({ "sha256": null, "size": 5 << 20, "not_hashed": "too_large" }));
    group.signal(nix::sys::signal::Signal::SIGKILL);
    group.wait();
}

/// `struct clone_args`, include/uapi/linux/sched.h, its first version.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// A child of `clone3` that becomes `/bin/true`; returns its pid when that has ended.
fn clone3(flags: libc::c_int) -> u32 {
    let arguments = CloneArguments { flags: flags as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArguments::default() };
    let size = size_of::<CloneArguments>() as libc::c_long;
    match call(libc::SYS_clone3, &[&raw const arguments as libc::c_long, size]) {
        0 => {
            exec_at(libc::AT_FDCWD, "/bin/true", &["true"], 0);
            // SAFETY: as in `image`.
            unsafe { libc::_exit(NO_IMAGE) }
        }
        child => reap(u32::try_from(child).expect("a pid")),
    }
}

/// What a child that shares the memory of its parent is to become: made before there is one.
struct Program {
    path: &'static CStr,
    argv: Vector,
    envp: Vector,
}

/// A child that shares our memory, while we wait, until it becomes `/bin/true`; returns its pid when that has ended.
fn vfork() -> u32 {
    extern "C" fn child(program: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the parent's own, which waits.
        let Program { path, argv, envp } = unsafe { &*program.cast::<Program>() };
        call(libc::SYS_execve, &[path.as_ptr() as libc::c_long, argv.address(), envp.address()]);
        NO_IMAGE
    }
    let mut program = Program { path: c"/bin/true", argv: Vector::of(&["true", "vforked"]), envp: Vector::of(&[]) };
    let mut stack = vec![0_u128; 4096];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: a stack of its own, and everything lives until the child has let go of our memory, which is what the call waits for.
    let pid = unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut program).cast()) };
    reap(u32::try_from(pid).expect("a child"))
}

#[test]
fn whoever_makes_a_process_and_how_is_told_before_that_does_anything() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let plain = clone3(0);
    let isolated = clone3(libc::CLONE_NEWUTS | libc::CLONE_NEWNET);
    // One thread's memory and a parent that waits; and the C library's way, which may be the same.
    let vforked = vfork();
    let spawned = play(&mut Command::new("/bin/true"));
    // A thread that becomes the process.
    let threaded = image(|| {
        std::thread::spawn(|| exec_at(libc::AT_FDCWD, "/bin/true", &["true"], 0));
        // SAFETY: waits for the end that the thread's exec brings.
        unsafe { libc::pause() };
    });
    // A child that makes one in the place of its own parent, us.
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let maker = image(|| {
        let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
        match call(libc::SYS_clone, &[flags]) {
            0 => exec_at(libc::AT_FDCWD, "/bin/true", &["true"], 0),
            sibling => {
                let _ = writer.write_all(&(sibling as u32).to_le_bytes());
                exec_at(libc::AT_FDCWD, "/bin/true", &["true"], 0);
            }
        }
    });
    drop(writer);
    let mut sibling = [0; 4];
    std::io::Read::read_exact(&mut { reader }, &mut sibling).expect("its pid");
    let sibling = reap(u32::from_le_bytes(sibling));
    sensor.settle();

    let own = std::process::id();
    let forks = sensor.events_json(&["--kind", "process.fork"]);
    for (pid, by, namespaces, parent) in [
        (plain, own, json!([]), own),
        (isolated, own, json!(["net", "uts"]), own),
        (vforked, own, json!([]), own),
        (spawned, own, json!([]), own),
        (threaded, own, json!([]), own),
        (sibling, maker, json!([]), own),
    ] {
        let told: Vec<&Value> = forks.iter().filter(|event| event["body"]["child"]["pid"] == pid).collect();
        let [event] = told[..] else { panic!("expected one fork of {pid}, got {told:#?}") };
        assert_eq!((&event["process"]["pid"], &event["body"]["namespaces"]), (&json!(by), &namespaces), "{event:#}");
        let exec = exec_of(&sensor, pid);
        assert!(event["seq"].as_u64() < exec["seq"].as_u64(), "the fork comes first");
        assert_eq!((&exec["process"]["ppid"], &exec["process"]["parent"]), (&json!(parent), &event["process"]["exec_id"]));
    }
    assert_eq!(exec_of(&sensor, vforked)["process"]["argv"], json!(["true", "vforked"]));
    // The child's exec is not its parent's.
    let ours = sensor.events_json(&["--kind", "process.exec", "--pid", &own.to_string()]);
    assert_eq!(ours, [] as [Value; 0]);
}

/// Makes this test run as the program whose arguments are looked at; its value says whether that rewrites them.
const REWRITES: &str = "BARTIZAN_TEST_REWRITES";

/// Where the kernel put the arguments of this process (proc_pid_stat(5), `arg_start` and `arg_end`).
fn own_arguments() -> &'static mut [u8] {
    let stat = fs::read_to_string("/proc/self/stat").expect("of this process");
    // The name, in parentheses, is the only field that can hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let [start, end] = [45, 46].map(|field: usize| fields[field].parse::<usize>().expect("an address"));
    // SAFETY: the kernel put them there, and nobody looks at them meanwhile: the standard library has copied what was asked for.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(start), end - start) }
}

#[test]
fn an_argument_vector_stays_what_the_kernel_was_given() {
    if let Some(rewrites) = std::env::var_os(REWRITES) {
        if rewrites == "yes" {
            let arguments = own_arguments();
            arguments.fill(0);
            arguments[..8].copy_from_slice(b"[kswapd]");
        }
        let shown = fs::read("/proc/self/cmdline").expect("of this process");
        assert_eq!(shown.starts_with(b"[kswapd]\0"), rewrites == "yes");
        trigger::in_child(|| ());
        exec_at(libc::AT_FDCWD, "/no/such/program", &["no"], 0);
        return;
    }
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let own = std::env::current_exe().expect("own path");
    for rewrites in ["yes", "no"] {
        let mut command = Command::new(&own);
        command.args(["--exact", "an_argument_vector_stays_what_the_kernel_was_given", "--test-threads=1"]).env(REWRITES, rewrites);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("this program again");
        let pid = child.id();
        assert!(child.wait().expect("its end").success(), "{rewrites}");
        sensor.settle();
        let given = json!([own, "--exact", "an_argument_vector_stays_what_the_kernel_was_given", "--test-threads=1"]);
        assert_eq!(exec_of(&sensor, pid)["process"]["argv"], given, "{rewrites}");
        let mut later = sensor.events_json(&["--pid", &pid.to_string()]);
        // Its own fork is not its deed.
        later.retain(|event| event["process"]["pid"] == pid);
        for (kind, outcome, process) in
            [("process.exec", "failure", "/process"), ("process.fork", "success", "/body/child"), ("process.exit", "unknown", "/process")]
        {
            let event = later.iter().find(|event| event["kind"] == kind && event["outcome"] == outcome);
            let event = event.unwrap_or_else(|| panic!("no {kind}: {later:#?}"));
            assert_eq!(event.pointer(&format!("{process}/argv")), Some(&given), "{rewrites}: {event:#}");
        }
    }
}
