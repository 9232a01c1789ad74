//! What is done to the kernel itself, on a real kernel: a trigger, the event that it must give field by field, and twins that differ in one
//! property. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

use bartizan_tests::trigger::{call_32, low_page};
use bartizan_tests::uring::{URING_WRITE, uring};
use bartizan_tests::{ControlGroup, Sensor, SensorConfig, bpf};
use nix::libc;
use serde_json::{Value, json};

/// Beginnings of the hooks that these tests are about.
const HOOKS: &[&str] = &["kernel_"];

/// Calls of a 32-bit caller: write, bpf, setsockopt.
const WRITE_32: u32 = 4;
const BPF_32: u32 = 357;
const SETSOCKOPT_32: u32 = 366;

/// Hooks that have a fallback tier, by their best one.
const BEST_TIERS: [&str; 4] = ["kernel_bpf_load:fexit", "kernel_bpf_attach:fexit", "kernel_socket_filter:fexit", "kernel_probe:fexit"];

/// A sensor with the best tiers that this kernel has, and one held to the fallback tiers.
fn both() -> [SensorConfig; 2] {
    let fallback = BEST_TIERS.iter().fold(Sensor::with().hooks(HOOKS), |sensor, tier| sensor.arg("--disable-hook").arg(tier));
    [Sensor::with().hooks(HOOKS), fallback]
}

/// The tier that carries `hook`.
fn tier(sensor: &Sensor, hook: &str) -> String {
    let status = sensor.status_json();
    let hooks = status["hooks"].as_array().cloned().unwrap_or_default();
    let hook = hooks.into_iter().find(|report| report["name"] == hook).expect("a hook");
    hook["tier"].as_str().unwrap_or_default().to_owned()
}

/// Events of one kind that this test's own process caused.
fn own(sensor: &Sensor, kind: &str) -> Vec<Value> {
    sensor.events_json(&["--kind", kind, "--pid", &std::process::id().to_string()])
}

/// Runs `act` in a thread with namespaces of its own, so that nothing of this machine changes.
fn apart<T: Send>(namespaces: libc::c_int, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the flags are numbers, and concern this thread alone.
            assert_eq!(unsafe { libc::unshare(namespaces) }, 0, "{}", io::Error::last_os_error());
            act()
        });
        thread.join().expect("the thread")
    })
}

#[test]
fn a_sysctl_that_is_written_is_told_with_both_values() {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    // Reading is none. The same value again, so that nothing of this machine changes.
    let before = fs::read_to_string(PATTERN).expect("a core pattern");
    fs::write(PATTERN, &before).expect("root may write it");
    sensor.settle();
    let told = own(&sensor, "kernel.sysctl");
    let [event] = &told[..] else { panic!("one write, told as {told:#?}") };
    let pattern = before.trim_end_matches('\n');
    let expected = json!({
        "name": "kernel.core_pattern", "old": pattern, "new": pattern, "position": 0,
        "name_truncated": false, "old_truncated": false, "new_truncated": false,
    });
    assert_eq!((&event["body"], &event["severity"], &event["outcome"]), (&expected, &json!("low"), &json!("unknown")), "{event:#}");
}

#[test]
fn a_sysctl_is_told_whatever_call_wrote_it_and_whatever_became_of_it() {
    const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let uring_works = apart(libc::CLONE_NEWNET, || {
        let file = File::options().write(true).open(FORWARD).expect("a network namespace");
        fs::write(FORWARD, "1\n").expect("write");
        let low = low_page(b"0");
        assert_eq!(call_32(WRITE_32, &[file.as_raw_fd().cast_unsigned(), low, 1, 0, 0]), 1);
        let file = File::options().write(true).open(FORWARD).expect("again");
        let by_ring = uring(URING_WRITE, file.as_fd(), b"1");
        if let Ok(result) = &by_ring {
            assert_eq!(*result, 1, "the ring's own result");
        }
        // The kernel takes neither.
        assert_eq!(fs::write(FORWARD, "many").map_err(|error| error.raw_os_error()), Err(Some(libc::EINVAL)));
        let file = File::options().write(true).open(FORWARD).expect("again");
        // What becomes of a write that does not begin at 0 is the kernel's.
        let _ = file.write_at(b"0", 1);
        by_ring.is_ok()
    });
    sensor.settle();
    let mut expected = vec![json!(["0", "1", 0]), json!(["1", "0", 0])];
    if uring_works {
        expected.push(json!(["0", "1", 0]));
    }
    let last = if uring_works { "1" } else { "0" };
    expected.extend([json!([last, "many", 0]), json!([last, "0", 1])]);
    let events = own(&sensor, "kernel.sysctl");
    let told: Vec<Value> =
        events.iter().map(|event| json!([event["body"]["old"], event["body"]["new"], event["body"]["position"]])).collect();
    assert_eq!(told, expected, "{events:#?}");
    for event in &events {
        assert_eq!((&event["body"]["name"], &event["severity"]), (&json!("net.ipv4.ip_forward"), &json!("medium")), "{event:#}");
    }
}

#[test]
fn a_long_value_is_cut_and_says_so_and_a_refused_open_is_no_write() {
    const HOST: &str = "/proc/sys/kernel/hostname";
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    apart(libc::CLONE_NEWUTS, || {
        // What the kernel makes of the rest is its own.
        let _ = fs::write(HOST, "x".repeat(300));
        // SAFETY: ids of this thread alone.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
        assert!(fs::write(HOST, "refused").is_err());
    });
    sensor.settle();
    let events = own(&sensor, "kernel.sysctl");
    let [event] = &events[..] else { panic!("{events:#?}") };
    let body = &event["body"];
    assert_eq!((&body["new"], &body["new_truncated"]), (&json!("x".repeat(255)), &json!(true)), "{event:#}");
    assert_eq!((&body["name"], &body["old_truncated"], &event["severity"]), (&json!("kernel.hostname"), &json!(false), &json!("info")));
}

/// `enum bpf_prog_type` and `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const SOCKET_FILTER: u32 = 1;
const CGROUP_SKB: u32 = 8;
const RAW_TRACEPOINT: u32 = 17;
const CGROUP_INET_EGRESS: u32 = 1;

#[test]
fn a_bpf_program_is_told_when_it_is_loaded_and_when_it_goes() {
    for config in both() {
        let mut sensor = config.start();
        let best = tier(&sensor, "kernel_bpf_load") == "fexit";
        let code = bpf::returns(0);
        let program = bpf::load(SOCKET_FILTER, 0, &code, "harmless").expect("root may load it");
        let (id, tag) = (bpf::id(program.as_fd()), bpf::tag(program.as_fd()));
        // The verifier's no is no load.
        assert!(bpf::load(SOCKET_FILTER, 0, &code[..1], "endless").is_err());
        // A twin by a 32-bit call.
        let (low, licence) = (low_page(&code.map(u64::to_le_bytes).concat()), low_page(b"GPL"));
        let place = (low.into(), 2);
        let attributes = bpf::load_attributes(SOCKET_FILTER, 0, place, licence.into(), "compat");
        let attributes = low_page(&attributes.map(u64::to_le_bytes).concat());
        let compat = call_32(BPF_32, &[bpf::PROG_LOAD, attributes, 72, 0, 0]);
        assert!(compat >= 0, "{}", io::Error::from_raw_os_error(-compat));
        // SAFETY: a new descriptor, and nobody else's.
        let compat = unsafe { OwnedFd::from_raw_fd(compat) };
        let compat_id = bpf::id(compat.as_fd());
        drop(program);
        drop(compat);
        sensor.settle();
        let told = own(&sensor, "kernel.bpf_load");
        let short = |event: &Value| json!([event["body"]["id"], event["body"]["name"], event["body"]["program_type"]]);
        let mut expected = vec![json!([id, "harmless", "socket_filter"])];
        if best {
            expected.push(json!([compat_id, "compat", "socket_filter"]));
        }
        assert_eq!(told.iter().map(short).collect::<Vec<_>>(), expected, "{told:#?}");
        let body = &told[0]["body"];
        assert_eq!((&body["attach_type"], &body["function"], &body["classic_instructions"]), (&json!(null), &json!(null), &json!(null)));
        assert_eq!(body["tag"], tag, "as the kernel itself tells it");
        // Whoever lets the last hold on it go may be a thread of the kernel.
        let gone = sensor.events_json(&["--kind", "kernel.bpf_unload"]);
        let gone: Vec<&Value> = gone.iter().map(|event| &event["body"]["id"]).filter(|gone| **gone == id || **gone == compat_id).collect();
        assert_eq!(gone.len(), if best { 2 } else { 0 }, "{gone:?}");
        let status = sensor.status_json();
        let kinds = status["kinds"].as_array().cloned().unwrap_or_default();
        let row = kinds.iter().find(|row| row["kind"] == "kernel.bpf_load").expect("a row");
        assert!(row["filtered_self"].as_u64() > Some(0), "Bartizan's own programs are counted: {row:#}");
        let blind = status["blind"].as_array().is_some_and(|blind| blind.iter().any(|blind| blind["hook"] == "kernel_bpf_load"));
        assert_eq!(blind, !best, "what is not seen is said");
    }
}

/// `setsockopt(SOL_SOCKET)` with a value of any type.
fn set_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("small");
    // SAFETY: the kernel reads so many bytes of the value.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), len) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_bpf_program_is_told_wherever_it_is_attached() {
    for config in both() {
        let mut sensor = config.start();
        let cgroup = ControlGroup::new(&format!("bartizan-bpf-{}", std::process::id()));
        let folder = File::open(cgroup.folder()).expect("the cgroup");
        let cgroup_id = folder.metadata().expect("its inode").ino();
        let egress = bpf::load(CGROUP_SKB, CGROUP_INET_EGRESS, &bpf::returns(1), "egress").expect("a program");
        let raw = bpf::load(RAW_TRACEPOINT, 0, &bpf::returns(0), "raw").expect("a program");
        let link = bpf::link(folder.as_fd(), egress.as_fd(), CGROUP_INET_EGRESS).expect("a link");
        drop(link);
        let attached = bpf::attach(folder.as_fd(), egress.as_fd(), CGROUP_INET_EGRESS).expect("attached");
        drop(attached);
        drop(bpf::raw_tracepoint(raw.as_fd(), c"sched_process_hang").expect("a tracepoint"));
        // No such place: nothing is attached.
        assert!(bpf::raw_tracepoint(raw.as_fd(), c"no_such_tracepoint").is_err());
        sensor.settle();
        let events = own(&sensor, "kernel.bpf_attach");
        let short = |event: &Value| {
            let body = &event["body"];
            json!([
                body["way"],
                body["link_type"],
                body["program"]["name"],
                body["cgroup_id"],
                body["tracepoint"],
                body["program"]["attach_type"]
            ])
        };
        let told: Vec<Value> = events.iter().map(short).collect();
        let at = "cgroup_inet_egress";
        let expected = [
            json!(["link", "cgroup", "egress", cgroup_id, null, at]),
            json!(["attach", null, "egress", cgroup_id, null, at]),
            json!(["link", "raw_tracepoint", "raw", null, "sched_process_hang", null]),
        ];
        assert_eq!(told, expected, "{events:#?}");
        let (link, attach) = (&events[0]["body"], &events[1]["body"]);
        assert_eq!(link["program"]["id"], bpf::id(egress.as_fd()));
        assert!(link["link_id"].as_u64() > Some(0), "{link:#}");
        assert_eq!(attach["attach_type"], at);
        assert_eq!(attach["from_caller"], tier(&sensor, "kernel_bpf_attach") != "fexit");
    }
}

#[test]
fn a_filter_on_a_socket_is_told_with_its_socket() {
    for config in both() {
        let mut sensor = config.start();
        let best = tier(&sensor, "kernel_socket_filter") == "fexit";
        let program = bpf::load(SOCKET_FILTER, 0, &bpf::returns(0), "on_socket").expect("a program");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        set_option(udp.as_fd(), libc::SO_ATTACH_BPF, &program.as_raw_fd());
        // SAFETY: numbers.
        let packet = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(packet >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a new descriptor, and nobody else's.
        let packet = unsafe { OwnedFd::from_raw_fd(packet) };
        // `ret 0`, three times.
        let mut filter = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }; 3];
        set_option(packet.as_fd(), libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: 3, filter: filter.as_mut_ptr() });
        // Another option, and a filter that is taken off: neither is one.
        set_option(udp.as_fd(), libc::SO_KEEPALIVE, &1_i32);
        set_option(packet.as_fd(), libc::SO_DETACH_FILTER, &0_i32);
        // A twin by a 32-bit call.
        let other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let value = low_page(&program.as_raw_fd().to_le_bytes());
        let option = [other.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_BPF].map(i32::cast_unsigned);
        assert_eq!(call_32(SETSOCKOPT_32, &[option[0], option[1], option[2], value, 4]), 0);
        sensor.settle();
        let events = own(&sensor, "kernel.bpf_attach");
        let short = |event: &Value| {
            let (body, socket) = (&event["body"], &event["body"]["socket"]);
            let program = &body["program"];
            json!([
                body["way"],
                program["program_type"],
                program["name"],
                program["classic_instructions"],
                socket["family"],
                socket["socket_type"]
            ])
        };
        let told: Vec<Value> = events.iter().map(short).collect();
        let mut expected =
            vec![json!(["socket_filter", "socket_filter", "on_socket", null, 2, 2]), json!(["socket_filter", "classic", null, 3, 17, 3])];
        if best {
            expected.push(expected[0].clone());
        }
        assert_eq!(told, expected, "{events:#?}");
        let inode = |fd: BorrowedFd<'_>| fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("a socket").ino();
        assert_eq!(events[0]["body"]["socket"]["inode"], inode(udp.as_fd()));
        assert_eq!(events[1]["body"]["socket"]["inode"], inode(packet.as_fd()));
    }
}

/// A probe on byte `offset` of a file, by perf_event_open(2).
fn probe(path: &CStr, offset: u64) -> io::Result<OwnedFd> {
    let source = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type").expect("this kernel has uprobes");
    // `struct perf_event_attr`, include/uapi/linux/perf_event.h: type and size; config1 is the path, config2 the offset.
    let mut attributes = [0_u64; 16];
    attributes[0] = source.trim().parse::<u64>().expect("a number") | 128 << 32;
    (attributes[7], attributes[8]) = (path.as_ptr().addr() as u64, offset);
    // SAFETY: the kernel reads as many bytes as the attributes say that they have: this process, any processor, no group, no flags.
    let event = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(event).expect("a descriptor")) })
}

#[test]
fn a_probe_on_a_program_is_told_and_another_event_is_none() {
    for config in both() {
        let mut sensor = config.start();
        let best = tier(&sensor, "kernel_probe") == "fexit";
        let copy = sensor.folder().join("probed");
        fs::copy("/bin/sleep", &copy).expect("a copy");
        let path = CString::new(copy.as_os_str().as_bytes()).expect("no NUL");
        drop(probe(&path, 0x1000).expect("root may"));
        // No such file: no probe. A software event, PERF_COUNT_SW_CPU_CLOCK, is none either.
        assert!(probe(c"/no/such/file", 0).is_err());
        let mut attributes = [0_u64; 16];
        attributes[0] = 1 | 128 << 32;
        // SAFETY: as in `probe`.
        let clock = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
        assert!(clock >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a new descriptor, and nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(clock).expect("a descriptor")) });
        sensor.settle();
        let events = own(&sensor, "kernel.probe");
        let [event] = &events[..] else { panic!("one probe, told as {events:#?}") };
        let body = &event["body"];
        let name = if best { "probed".to_owned() } else { copy.to_string_lossy().into_owned() };
        let inode = if best { json!(fs::metadata(&copy).expect("the copy").ino()) } else { json!(null) };
        assert_eq!((&body["name"], &body["inode"], &body["offset"]), (&json!(name), &inode, &json!(0x1000)), "{event:#}");
        assert_eq!((&body["act"], &body["from_caller"], &body["error"]), (&json!("user"), &json!(!best), &json!(null)), "{event:#}");
    }
}
