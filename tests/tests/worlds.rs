//! What a process does to the world that it sees, on a real kernel: namespaces, root folders, filters of system calls, capabilities, control
//! groups, memory and names. A trigger, the event that it must give field by field in each tier, and twins that differ in one property.
//! Runs on this kernel and, by `cargo xtask vm`, on others.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use bartizan_tests::trigger::{Waiting, call, call_32, in_child, low_page};
use bartizan_tests::uring::{URING_OPENAT, uring};
use bartizan_tests::{ControlGroup, Scene, Sensor, play, scenes};
use nix::libc::{self, c_long};
use serde_json::{Value, json};

/// Hooks of this file that have a fallback.
const HOOKS: [&str; 8] = [
    "process_namespaces",
    "process_chroot",
    "process_seccomp",
    "process_memfd",
    "process_memory_exec",
    "process_capabilities",
    "process_groups",
    "process_prctl",
];

/// What both tiers must tell.
const SCENES: &[(&str, Scene)] = scenes![
    other_namespaces_are_told_by_what_changed,
    another_root_folder_is_told_as_the_kernel_sees_it,
    filters_of_system_calls_are_told_whichever_call_set_them,
    capabilities_are_told_before_and_after,
    other_groups_are_told_and_the_same_ones_are_not,
    a_process_that_is_moved_into_another_control_group_is_the_target,
    files_that_live_in_memory_are_told_with_the_kernel_s_name,
    memory_that_becomes_executable_is_told_and_what_loaders_do_is_not,
    a_compiler_that_goes_on_and_on_is_told_at_powers_of_two,
    names_that_processes_give_themselves_and_others_are_told,
    prctl_is_told_where_it_hides_or_rewrites,
    what_goes_through_io_uring_is_told_though_no_system_call_opens_it,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().without("fexit", &HOOKS).start(), SCENES);
}

/// Bodies of the events of `kind` that `pid` caused, in their order.
fn told(sensor: &Sensor, kind: &str, pid: u32) -> Vec<Value> {
    let events = sensor.events_json(&["--kind", kind, "--pid", &pid.to_string()]);
    events.iter().map(|event| event["body"].clone()).collect()
}

fn namespace(kind: &str) -> u64 {
    fs::metadata(format!("/proc/self/ns/{kind}")).expect("a namespace").ino()
}

const UTS: c_long = libc::CLONE_NEWUTS as c_long;
/// 32-bit table, arch/x86/entry/syscalls/syscall_32.tbl.
const UNSHARE_32: u32 = 310;

fn other_namespaces_are_told_by_what_changed(sensor: &mut Sensor) {
    let file = fs::File::open("/proc/self/ns/uts").expect("this one");
    let fd = c_long::from(std::os::fd::AsRawFd::as_raw_fd(&file));
    let pid = in_child(|| {
        assert_eq!(call(libc::SYS_unshare, &[UTS | libc::CLONE_FS as c_long]), 0);
        assert_eq!(call(libc::SYS_setns, &[fd, UTS]), 0);
        // Twins: to go where one is already, and what is no namespace.
        assert_eq!(call(libc::SYS_setns, &[fd, UTS]), 0);
        assert_eq!(call(libc::SYS_unshare, &[libc::CLONE_FS as c_long]), 0);
        assert_eq!(call(libc::SYS_setns, &[-1, 0]), -c_long::from(libc::EBADF));
    });
    let narrow = in_child(|| assert_eq!(call_32(UNSHARE_32, &[UTS as u32]), 0));
    sensor.settle();
    let bodies = told(sensor, "process.namespaces", pid);
    let home = namespace("uts");
    assert_eq!(bodies.len(), 3, "{bodies:#?}");
    let made = bodies[0]["changed"][0]["to"].clone();
    assert_ne!(made, home);
    let change = |from: &Value, to: &Value| json!([{ "namespace": "uts", "from": from, "to": to }]);
    assert_eq!(bodies[0], json!({ "call": "unshare", "asked": ["uts"], "changed": change(&json!(home), &made), "error": null }));
    assert_eq!(bodies[1], json!({ "call": "setns", "asked": ["uts"], "changed": change(&made, &json!(home)), "error": null }));
    assert_eq!(bodies[2], json!({ "call": "setns", "asked": [], "changed": [], "error": libc::EBADF }));
    let expected = usize::from(sensor.sees("process_namespaces", "32-bit"));
    assert_eq!(told(sensor, "process.namespaces", narrow).len(), expected, "a 32-bit caller");
}

fn another_root_folder_is_told_as_the_kernel_sees_it(sensor: &mut Sensor) {
    let jail = sensor.folder().join("jail");
    fs::create_dir(&jail).expect("a folder");
    // By a symbolic link: the event names where it leads.
    let link = sensor.folder().join("link");
    std::os::unix::fs::symlink(&jail, &link).expect("a link");
    let wanted = std::ffi::CString::new(link.to_str().expect("UTF-8")).expect("no NUL");
    let nowhere = c"/no/such/folder";
    let pid = in_child(|| {
        assert_eq!(call(libc::SYS_chroot, &[nowhere.as_ptr() as c_long]), -c_long::from(libc::ENOENT));
        assert_eq!(call(libc::SYS_chroot, &[wanted.as_ptr() as c_long]), 0);
    });
    sensor.settle();
    let bodies = told(sensor, "process.chroot", pid);
    let meta = fs::metadata(&jail).expect("a folder");
    let [failed, done] = bodies.as_slice() else { panic!("{bodies:#?}") };
    assert_eq!(failed["path"], "/no/such/folder");
    assert_eq!((&failed["error"], &failed["inode"]), (&json!(libc::ENOENT), &Value::Null));
    assert_eq!((&done["call"], &done["error"], &done["inode"]), (&json!("chroot"), &Value::Null, &json!(meta.ino())));
    let path = done["path"].as_str().expect("a path");
    assert_eq!(path, fs::canonicalize(&jail).expect("a folder").to_str().expect("UTF-8"));
}

/// `struct sock_filter`: return `SECCOMP_RET_ALLOW`.
const ALLOW: [libc::sock_filter; 1] = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }];

fn filters_of_system_calls_are_told_whichever_call_set_them(sensor: &mut Sensor) {
    let pid = in_child(|| {
        let mut filter = ALLOW;
        let program = libc::sock_fprog { len: 1, filter: filter.as_mut_ptr() };
        let program = &raw const program as c_long;
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS.into(), 1]), 0);
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_SET_SECCOMP.into(), 2, program]), 0);
        assert_eq!(call(libc::SYS_seccomp, &[1, 0, program]), 0);
        // A twin that asks for what there is, and one that is refused.
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_GET_SECCOMP.into()]), 2);
        assert_eq!(call(libc::SYS_seccomp, &[1, 0, 0]), -c_long::from(libc::EFAULT));
    });
    sensor.settle();
    let bodies = told(sensor, "process.seccomp", pid);
    let told: Vec<Value> = bodies.iter().map(|body| json!([body["mode"], body["filters"], body["error"]])).collect();
    assert_eq!(told, [json!(["filter", 1, null]), json!(["filter", 2, null]), json!(["filter", 2, libc::EFAULT])], "{bodies:#?}");
}

/// include/uapi/linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_MODULE: u32 = 16;

fn capabilities_are_told_before_and_after(sensor: &mut Sensor) {
    let pid = in_child(|| {
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_CAPBSET_DROP.into(), CAP_SYS_MODULE.into()]), 0);
        // struct __user_cap_header_struct (version 3, this thread) and two __user_cap_data_struct.
        let header: [u32; 2] = [0x2008_0522, 0];
        let mut data = [0_u32; 6];
        let (header, at) = (header.as_ptr() as c_long, data.as_mut_ptr());
        assert_eq!(call(libc::SYS_capget, &[header, at as c_long]), 0);
        // SAFETY: the first word of `data`, which the kernel reads and writes by this address too.
        unsafe { *at &= !(1 << CAP_SYS_PTRACE) };
        let at = at as c_long;
        assert_eq!(call(libc::SYS_capset, &[header, at]), 0);
        // A twin that changes nothing.
        assert_eq!(call(libc::SYS_capset, &[header, at]), 0);
    });
    sensor.settle();
    let bodies = told(sensor, "process.capabilities", pid);
    let [dropped, set] = bodies.as_slice() else { panic!("{bodies:#?}") };
    let gone = |body: &Value, of: &str| {
        let number = |side: &str| body[side][of].as_u64().expect("a set");
        number("old") ^ number("new")
    };
    assert_eq!((&dropped["call"], gone(dropped, "bounding"), gone(dropped, "effective")), (&json!("prctl"), 1 << CAP_SYS_MODULE, 0));
    assert_eq!((&set["call"], gone(set, "effective"), gone(set, "permitted")), (&json!("capset"), 1 << CAP_SYS_PTRACE, 0));
}

/// arch/x86/entry/syscalls/syscall_32.tbl.
const SETGROUPS_32: u32 = 206;

fn other_groups_are_told_and_the_same_ones_are_not(sensor: &mut Sensor) {
    let many: Vec<u32> = (1000..1040).collect();
    let set = |gids: &[u32]| assert_eq!(call(libc::SYS_setgroups, &[gids.len() as c_long, gids.as_ptr() as c_long]), 0);
    let low = low_page(&7_u32.to_ne_bytes());
    let pid = in_child(|| {
        set(&[30, 10]);
        // A twin that changes nothing: the kernel sorts them.
        set(&[10, 30]);
        set(&many);
        set(&[]);
        assert_eq!(call_32(SETGROUPS_32, &[1, low]), 0);
    });
    sensor.settle();
    let mut bodies = told(sensor, "process.groups", pid);
    let narrow = sensor.sees("process_groups", "32-bit").then(|| bodies.pop().expect("what the 32-bit call did"));
    let [few, more, none] = bodies.as_slice() else { panic!("{bodies:#?}") };
    assert_eq!((&few["new"], &few["new_count"]), (&json!([10, 30]), &json!(2)));
    assert_eq!((&more["old"], &more["new"], &more["new_count"]), (&json!([10, 30]), &json!(many[..32]), &json!(40)));
    assert_eq!((&none["old_count"], &none["new"], &none["new_count"]), (&json!(40), &json!([]), &json!(0)));
    if let Some(narrow) = narrow {
        assert_eq!((&narrow["old"], &narrow["new"]), (&json!([]), &json!([7])));
    }
}

fn a_process_that_is_moved_into_another_control_group_is_the_target(sensor: &mut Sensor) {
    let name = format!("bartizan-test-{}", std::process::id());
    let group = ControlGroup::new(&name);
    let moved = Waiting::start();
    group.take(moved.pid());
    let (inode, pid) = (group.id(), moved.pid());
    drop((moved, group));
    sensor.settle();
    let events = sensor.events_json(&["--kind", "process.cgroup_move", "--pid", &std::process::id().to_string()]);
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!(event["body"], json!({ "cgroup": inode, "path": format!("/{name}") }));
    assert_eq!(event["target"]["pid"], pid);
}

fn files_that_live_in_memory_are_told_with_the_kernel_s_name(sensor: &mut Sensor) {
    let name = c"payload";
    let pid = in_child(|| assert!(call(libc::SYS_memfd_create, &[name.as_ptr() as c_long, libc::MFD_CLOEXEC.into()]) >= 0));
    let page = low_page(b"narrow\0");
    /// arch/x86/entry/syscalls/syscall_32.tbl.
    const MEMFD_CREATE_32: u32 = 356;
    let narrow = in_child(|| assert!(call_32(MEMFD_CREATE_32, &[page, 0]) >= 0));
    sensor.settle();
    let bodies = told(sensor, "process.memfd", pid);
    let [body] = bodies.as_slice() else { panic!("{bodies:#?}") };
    let fields = (&body["name"], &body["flags"], &body["secret"]);
    assert_eq!(fields, (&json!("memfd:payload"), &json!(libc::MFD_CLOEXEC), &json!(false)));
    assert!(body["inode"].as_u64().is_some_and(|inode| inode > 0), "{body:#}");
    let narrow = told(sensor, "process.memfd", narrow);
    let names: Vec<&Value> = narrow.iter().map(|body| &body["name"]).collect();
    let expected: &[&str] = if sensor.sees("process_memfd", "32-bit") { &["memfd:narrow"] } else { &[] };
    assert_eq!(names, expected, "a 32-bit caller");
}

/// New private memory of one page.
fn page(prot: i32, flags: i32, fd: c_long) -> c_long {
    let address = call(libc::SYS_mmap, &[0, 4096, prot.into(), flags.into(), fd, 0]);
    assert!(address > 0);
    address
}

fn memory_that_becomes_executable_is_told_and_what_loaders_do_is_not(sensor: &mut Sensor) {
    let (rw, rx, rwx) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC, 7);
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let program = fs::File::open("/bin/sleep").expect("a program");
    let program = c_long::from(std::os::fd::AsRawFd::as_raw_fd(&program));
    let name = c"code";
    let written = in_child(|| {
        let address = page(rw, private, -1);
        // SAFETY: the page is new and can be written.
        unsafe { (address as *mut u8).write(0xc3) };
        assert_eq!(call(libc::SYS_mprotect, &[address, 4096, rx.into()]), 0);
    });
    let both_ways = in_child(|| {
        page(rwx, private, -1);
    });
    let nameless = in_child(|| {
        let fd = call(libc::SYS_memfd_create, &[name.as_ptr() as c_long, 0]);
        assert_eq!(call(libc::SYS_ftruncate, &[fd, 4096]), 0);
        page(rx, libc::MAP_SHARED, fd);
    });
    // Twins: what a loader does with a file that has a name, and what never could be written.
    let loader = in_child(|| {
        page(rx, libc::MAP_PRIVATE, program);
        let data = page(rw, private, -1);
        assert_eq!(call(libc::SYS_mprotect, &[data, 4096, libc::PROT_READ.into()]), 0);
    });
    sensor.settle();
    let one = |pid: u32| {
        let bodies = told(sensor, "process.memory_exec", pid);
        let [body] = bodies.as_slice() else { panic!("{bodies:#?}") };
        json!([body["call"], body["before"], body["after"], body["len"], body["nameless"], body["times"]])
    };
    assert_eq!(one(written), json!(["mprotect", "rw-p", "r-xp", 4096, false, 1]));
    assert_eq!(one(both_ways), json!(["mmap", "", "rwxp", 4096, false, 1]));
    assert_eq!(one(nameless), json!(["mmap", "", "r-xs", 4096, true, 1]));
    assert_eq!(told(sensor, "process.memory_exec", loader), [] as [Value; 0]);
}

fn a_compiler_that_goes_on_and_on_is_told_at_powers_of_two(sensor: &mut Sensor) {
    let pid = in_child(|| {
        for _ in 0..100 {
            page(7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
        }
    });
    sensor.settle();
    let times: Vec<u64> = told(sensor, "process.memory_exec", pid).iter().filter_map(|body| body["times"].as_u64()).collect();
    assert_eq!(times, [1, 2, 4, 8, 16, 32, 64]);
}

fn names_that_processes_give_themselves_and_others_are_told(sensor: &mut Sensor) {
    let name = c"kworker/0:1";
    let pid = in_child(|| {
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_SET_NAME.into(), name.as_ptr() as c_long]), 0);
        // A twin that keeps its name.
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_SET_NAME.into(), name.as_ptr() as c_long]), 0);
    });
    // By the file of the same name; that of another process the kernel does not take.
    let other = Waiting::start();
    let written = in_child(|| {
        fs::write("/proc/self/comm", "kworker/0:2").expect("its own name");
        let refused = fs::write(format!("/proc/{}/comm", other.pid()), "kworker/0:3").map_err(|error| error.raw_os_error());
        assert_eq!(refused, Err(Some(libc::EINVAL)));
    });
    // Threads name themselves all the time.
    let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(|| {}).expect("a thread");
    thread.join().expect("its end");
    sensor.settle();
    let bodies = told(sensor, "process.rename", pid);
    let [body] = bodies.as_slice() else { panic!("{bodies:#?}") };
    assert_eq!(body["to"], "kworker/0:1");
    let events = sensor.events_json(&["--kind", "process.rename", "--pid", &written.to_string()]);
    let [event] = events.as_slice() else { panic!("{events:#?}") };
    assert_eq!((&event["body"]["from"], &event["body"]["to"], &event["target"]), (&body["from"], &json!("kworker/0:2"), &Value::Null));
    assert_eq!(told(sensor, "process.rename", std::process::id()), [] as [Value; 0]);
}

fn prctl_is_told_where_it_hides_or_rewrites(sensor: &mut Sensor) {
    let pid = in_child(|| {
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.into(), 0]), 0);
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_SET_CHILD_SUBREAPER.into(), 1]), 0);
        assert!(call(libc::SYS_prctl, &[libc::PR_SET_MM.into(), libc::PR_SET_MM_EXE_FILE.into(), -1, 0, 0]) < 0);
        // A twin that only asks.
        assert_eq!(call(libc::SYS_prctl, &[libc::PR_GET_DUMPABLE.into()]), 0);
    });
    sensor.settle();
    let bodies = told(sensor, "process.prctl", pid);
    let told: Vec<Value> = bodies.iter().map(|body| json!([body["option"], body["part"], body["error"].is_null()])).collect();
    let expected = [
        json!(["PR_SET_DUMPABLE", null, true]),
        json!(["PR_SET_CHILD_SUBREAPER", null, true]),
        json!(["PR_SET_MM", "PR_SET_MM_EXE_FILE", false]),
    ];
    assert_eq!(told, expected, "{bodies:#?}");
}

fn what_goes_through_io_uring_is_told_though_no_system_call_opens_it(sensor: &mut Sensor) {
    let path = c"/etc/hostname";
    // SAFETY: no descriptor: a path begins at the working directory.
    let here = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };
    // Whether the file is there makes no difference: the operation is handed over.
    let pid = in_child(|| {
        uring(URING_OPENAT, here, path.to_bytes_with_nul()).expect("a ring");
    });
    sensor.settle();
    let rings = told(sensor, "process.io_uring", pid);
    assert_eq!(rings, [json!({ "entries": 1, "flags": 0 })]);
    let operations = told(sensor, "process.io_uring_op", pid);
    assert_eq!(operations, [json!({ "op": "OPENAT", "fd": libc::AT_FDCWD, "path": "/etc/hostname", "to": null })]);
}
