//! What is done to the kernel itself that this machine's kernel does not have, or that would concern everybody on it: in the VM alone.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use bartizan_tests::trigger::{call_32, low_page};
use bartizan_tests::{Sensor, SensorConfig, bpf, wait_for};
use nix::libc;
use serde_json::{Value, json};

/// Beginnings of the hooks that these tests are about.
const HOOKS: &[&str] = &["kernel_"];

/// A module of the guest's kernel: xtask/src/vm/initramfs.rs. `/lib` is a link.
const MODULE: &str = "/lib/modules/dummy.ko";
const MODULE_PATH: &str = "/usr/lib/modules/dummy.ko";
/// Its name.
const NAME: &str = "dummy";
/// Calls of a 32-bit caller.
const FINIT_MODULE_32: u32 = 350;
const KEXEC_LOAD_32: u32 = 283;
/// include/uapi/linux/kexec.h: what a 32-bit caller must say.
const KEXEC_ARCH_X86_64: u32 = 62 << 16;
/// A protocol family that the guest's kernel has no code for: `AF_X25`.
const NO_FAMILY: libc::c_int = 9;
const SOCKET_FILTER: u32 = 1;

fn call(number: libc::c_long, arguments: [libc::c_long; 5]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the calls of this file take numbers, or addresses of values that outlive them.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn address<T: ?Sized>(value: *const T) -> libc::c_long {
    value.cast::<u8>().addr().cast_signed() as libc::c_long
}

fn load_file(file: &File, args: &CStr) -> io::Result<libc::c_long> {
    call(libc::SYS_finit_module, [file.as_raw_fd().into(), address(args.as_ptr()), 0, 0, 0])
}

fn unload() {
    call(libc::SYS_delete_module, [address(c"dummy".as_ptr()), 0, 0, 0, 0]).expect("it is unloaded");
}

fn load_memory(bytes: &[u8]) -> io::Result<libc::c_long> {
    call(libc::SYS_init_module, [address(bytes.as_ptr()), bytes.len().cast_signed() as libc::c_long, address(c"".as_ptr()), 0, 0])
}

fn own(sensor: &Sensor, kind: &str) -> Vec<Value> {
    sensor.events_json(&["--kind", kind, "--pid", &std::process::id().to_string()])
}

/// A sensor with the best tiers, and one held to the fallback tiers.
fn both() -> [(SensorConfig, bool); 2] {
    let best = ["kernel_module:fexit", "kernel_kexec:fexit"];
    let fallback = best.iter().fold(Sensor::with().hooks(HOOKS), |sensor, tier| sensor.arg("--disable-hook").arg(tier));
    [(Sensor::with().hooks(HOOKS), true), (fallback, false)]
}

#[test]
fn a_module_is_told_when_it_comes_and_when_it_goes_and_where_it_came_from() {
    let bytes = fs::read(MODULE).expect("a module in the guest");
    let file = File::open(MODULE).expect("a module in the guest");
    let inode = file.metadata().expect("its inode").ino();
    for (config, best) in both() {
        let mut sensor = config.start();
        load_file(&file, c"numdummies=2").expect("it is loaded");
        unload();
        load_memory(&bytes).expect("it is loaded");
        unload();
        // A twin by a 32-bit call.
        let args = low_page(b"");
        assert_eq!(call_32(FINIT_MODULE_32, &[file.as_raw_fd().cast_unsigned(), args, 0, 0, 0]), 0);
        unload();
        // What is no module, and what its own code refuses.
        assert!(load_memory(&[0; 4096]).is_err());
        sensor.settle();
        let events = own(&sensor, "kernel.module");
        let short = |event: &Value| {
            let body = &event["body"];
            json!([body["act"], body["name"], body["file"], body["inode"], body["from_memory"], body["args"], event["outcome"]])
        };
        let told: Vec<Value> = events.iter().map(short).collect();
        let (path, inode) = if best { (json!(MODULE_PATH), json!(inode)) } else { (json!(null), json!(null)) };
        let gone = json!(["unload", NAME, null, null, false]);
        let load = |path: &Value, inode: &Value, memory: bool, args: Value| json!(["load", NAME, path, inode, memory, args, "success"]);
        let is_gone = |event: &Value| event.as_array().is_some_and(|event| event[..5] == gone.as_array().expect("an array")[..]);
        let loads: Vec<Value> = told.iter().filter(|event| !is_gone(event)).cloned().collect();
        let mut expected = vec![
            load(&path, &inode, false, json!("numdummies=2")),
            load(&json!(null), &json!(null), best, json!(null)),
            load(&path, &inode, false, json!(null)),
        ];
        if best {
            expected.push(json!(["load_failed", null, null, null, true, null, "failure"]));
        }
        assert_eq!(loads, expected, "{events:#?}");
        assert_eq!(told.iter().filter(|event| is_gone(event)).count(), 3, "{told:#?}");
        let body = &events[0]["body"];
        let unsigned = body["taints"].as_array().is_some_and(|taints| taints.contains(&json!("unsigned")));
        assert_eq!(body["signed"], json!(!unsigned), "{body:#}");
        if best {
            assert_eq!(events.last().expect("an event")["body"]["error"], libc::ENOEXEC);
        }
    }
}

#[test]
fn the_kernel_s_own_wishes_are_told_with_who_caused_them() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    // SAFETY: numbers.
    assert_eq!(unsafe { libc::socket(NO_FAMILY, libc::SOCK_SEQPACKET, 0) }, -1);
    sensor.settle();
    let asked = own(&sensor, "kernel.module");
    let asked: Vec<Value> = asked.iter().map(|event| json!([event["body"]["act"], event["body"]["name"]])).collect();
    assert!(asked.contains(&json!(["request", "net-pf-9"])), "{asked:#?}");
    let helpers = own(&sensor, "kernel.helper");
    let modprobe = fs::read_to_string("/proc/sys/kernel/modprobe").expect("its path");
    let modprobe = modprobe.trim_end();
    let expected = json!({ "path": modprobe, "argv": [modprobe, "-q", "--", "net-pf-9"], "argv_truncated": false });
    assert!(helpers.iter().any(|event| event["body"] == expected), "{helpers:#?}");
}

#[test]
fn another_kernel_is_told_when_it_is_loaded() {
    for (config, best) in both() {
        let mut sensor = config.start();
        let text = sensor.folder().write("no_kernel", "no kernel at all");
        let file = File::open(&text).expect("what was written");
        // Nothing is loaded: that takes out what was there, and is allowed.
        call(libc::SYS_kexec_load, [0, 0, 0, 0, 0]).expect("root may");
        // A twin by a 32-bit call.
        assert_eq!(call_32(KEXEC_LOAD_32, &[0, 0, 0, KEXEC_ARCH_X86_64]), 0);
        // KEXEC_FILE_NO_INITRAMFS, and one that has only a NUL as its command line.
        let refused = call(libc::SYS_kexec_file_load, [file.as_raw_fd().into(), -1, 1, address(c"".as_ptr()), 4]).expect_err("it is none");
        sensor.settle();
        let events = own(&sensor, "kernel.kexec");
        let short = |event: &Value| {
            let body = &event["body"];
            json!([body["act"], body["segments"], body["flags"], body["file"], body["error"], event["outcome"], body["from_caller"]])
        };
        let told: Vec<Value> = events.iter().map(short).collect();
        let nothing = json!(["load", 0, 0, null, null, "success", false]);
        let path = text.canonicalize().expect("its path");
        let file = json!(["load_file", null, 4, path.to_string_lossy(), refused.raw_os_error(), "failure", !best]);
        let twin = json!(["load", 0, KEXEC_ARCH_X86_64, null, null, "success", false]);
        let expected = if best { vec![nothing, twin, file] } else { vec![nothing, file] };
        assert_eq!(told, expected, "{events:#?}");
    }
}

#[test]
fn a_probe_on_the_kernel_is_told_by_its_symbol() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let tracing = |name: &str| format!("/sys/kernel/tracing/{name}");
    fs::write(tracing("kprobe_events"), "p:bartizan_test do_unlinkat\n").expect("root may");
    fs::write(tracing("events/kprobes/bartizan_test/enable"), "1").expect("root may");
    fs::write(tracing("events/kprobes/bartizan_test/enable"), "0").expect("root may");
    // To open it like this takes all probes of the file away.
    fs::write(tracing("kprobe_events"), "").expect("root may");
    fs::write(tracing("uprobe_events"), "p:bartizan_user /usr/bin/busybox:0x1000\n").expect("root may");
    fs::write(tracing("events/uprobes/bartizan_user/enable"), "1").expect("root may");
    fs::write(tracing("events/uprobes/bartizan_user/enable"), "0").expect("root may");
    fs::write(tracing("uprobe_events"), "").expect("root may");
    sensor.settle();
    let events = own(&sensor, "kernel.probe");
    let told: Vec<Value> = events.iter().map(|event| json!([event["body"]["act"], event["body"]["name"], event["outcome"]])).collect();
    assert_eq!(told, [json!(["kernel", "do_unlinkat", "success"]), json!(["user", "busybox", "success"])], "{events:#?}");
    assert_eq!(events[1]["body"]["inode"], fs::metadata("/usr/bin/busybox").expect("busybox").ino());
    assert_eq!((&events[1]["body"]["offset"], &events[0]["body"]["offset"]), (&json!(0x1000), &json!(0)));
}

/// Turns ftrace on again, whatever becomes of the test.
struct Ftrace;

impl Ftrace {
    const SETTING: &str = "/proc/sys/kernel/ftrace_enabled";

    fn off() -> Self {
        fs::write(Self::SETTING, "0").expect("root may");
        Self
    }
}

impl Drop for Ftrace {
    fn drop(&mut self) {
        let _ = fs::write(Self::SETTING, "1");
    }
}

/// Loads a program under `name` and lets it go.
fn load_program(name: &str) {
    drop(bpf::load(SOCKET_FILTER, 0, &bpf::returns(0), name).expect("root may load it"));
}

#[test]
fn a_sensor_whose_programs_are_silenced_says_so() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let silenced = |sensor: &Sensor| !sensor.status_json()["kernel_state"]["silenced"].as_array().is_none_or(Vec::is_empty);
    assert!(!silenced(&sensor));
    load_program("before");
    let off = Ftrace::off();
    load_program("meanwhile");
    wait_for("a sensor that knows that it is blind", || silenced(&sensor).then_some(()));
    let (code, status) = sensor.status();
    assert_eq!(code, Some(1), "degraded: {status:#}");
    let hooks = status["kernel_state"]["silenced"].as_array().cloned().unwrap_or_default();
    assert!(hooks.contains(&json!("kernel_bpf_load")) && !hooks.contains(&json!("kernel_sysctl")), "{hooks:?}");
    drop(off);
    wait_for("a sensor that sees again", || (!silenced(&sensor)).then_some(()));
    load_program("after");
    sensor.settle();
    let loads: Vec<Value> = own(&sensor, "kernel.bpf_load").iter().map(|event| event["body"]["name"].clone()).collect();
    assert_eq!(loads, ["before", "after"], "ftrace off takes the programs out of the kernel's code");
    let health: Vec<Value> = sensor
        .events_json(&["--kind", "sensor.health"])
        .iter()
        .map(|event| json!([event["severity"], event["body"]["works"], event["body"]["check"]]))
        .collect();
    assert_eq!(health, [json!(["critical", false, "ftrace"]), json!(["medium", true, "ftrace"])]);
    let writes: Vec<Value> =
        own(&sensor, "kernel.sysctl").iter().map(|event| json!([event["severity"], event["body"]["name"], event["body"]["new"]])).collect();
    assert_eq!(writes, [json!(["critical", "kernel.ftrace_enabled", "0"]), json!(["high", "kernel.ftrace_enabled", "1"])]);
}

/// The last by its name: what it does cannot be taken back.
#[test]
fn z_what_lockdown_refuses_is_told_and_its_mode_too() {
    const MODE: &str = "/sys/kernel/security/lockdown";
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    assert_eq!(sensor.status_json()["kernel_state"]["lockdown"], "none");
    fs::write(MODE, "integrity").expect("root may");
    wait_for("the new mode", || (sensor.status_json()["kernel_state"]["lockdown"] == "integrity").then_some(()));
    // LOCKDOWN_KEXEC.
    let refused = call(libc::SYS_kexec_load, [0, 0, 0, 0, 0]).expect_err("not in this mode");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    sensor.settle();
    let events = sensor.events_json(&["--kind", "kernel.lockdown"]);
    let told: Vec<Value> = events
        .iter()
        .filter(|event| event["process"].is_null() || event["process"]["pid"] == std::process::id())
        .map(|event| {
            json!([event["body"]["act"], event["body"]["reason"], event["body"]["mode"], event["body"]["old_mode"], event["outcome"]])
        })
        .collect();
    assert!(told.contains(&json!(["mode", null, "integrity", "none", "unknown"])), "{told:#?}");
    assert!(told.contains(&json!(["refused", "kexec", null, null, "failure"])), "{told:#?}");
}

#[test]
fn in_the_best_tiers_no_system_call_is_traced() {
    let status = |sensor: &Sensor| {
        let hooks = sensor.status_json()["hooks"].clone();
        let hooks = hooks.as_array().expect("hooks").clone();
        hooks.iter().filter(|hook| hook["tier"] == "syscall_tracepoint").map(|hook| hook["name"].clone()).collect::<Vec<_>>()
    };
    let best = Sensor::start();
    assert_eq!((bpf::tracepoint_links_of(best.pid()), status(&best)), (0, Vec::new()));
    drop(best);
    // A twin with one hook in its fallback: the kernel does say where programs are.
    let other = Sensor::with().arg("--disable-hook").arg("process_groups:fexit").start();
    assert_eq!((bpf::tracepoint_links_of(other.pid()), status(&other)), (2, vec![json!("process_groups")]));
}
