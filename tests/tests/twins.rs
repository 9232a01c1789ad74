//! The same deed by the table of 64-bit calls and by that of 32-bit ones (`int 0x80`), on a real kernel: the events are the same, or the tier
//! says that it is blind to 32-bit callers. Runs on this kernel and, by `cargo xtask vm`, on others.

use std::fs;
use std::ptr;

use bartizan_tests::trigger::{Numbers, Table, Waiting, call, in_child, low_page};
use bartizan_tests::{Scene, Sensor, play, scenes};
use nix::libc::{self, c_long};
use serde_json::{Value, json};

/// Hooks of this file that have a fallback.
const HOOKS: [&str; 9] = [
    "process_access",
    "process_credentials",
    "process_namespaces",
    "process_capabilities",
    "process_seccomp",
    "process_prctl",
    "process_memory_exec",
    "process_chroot",
    "file_mount",
];

/// What both tiers must tell.
const SCENES: &[(&str, Scene)] = scenes![
    signals,
    reaching_into_another_process,
    changes_of_ids,
    changes_of_capabilities,
    filters_of_system_calls,
    options_that_hide_or_rewrite,
    memory_that_becomes_executable,
    other_root_folders,
    mounts,
];

#[test]
fn in_the_best_tiers_of_this_kernel() {
    play(Sensor::start(), SCENES);
}

#[test]
fn in_the_fallback_tiers() {
    play(Sensor::with().without("fexit", &HOOKS).start(), SCENES);
}

/// Asserts that the second process, which did by 32-bit calls what the first did by 64-bit ones, is told the same, and not at all where the
/// tier of `hook` says that it is blind to it. Returns what is told.
#[track_caller]
fn twins(sensor: &Sensor, hook: &str, kind: &str, [wide, narrow]: [u32; 2], places: &[&str]) -> Vec<Value> {
    let (wide, narrow) = (sensor.told(kind, wide, places), sensor.told(kind, narrow, places));
    let expected = if sensor.sees(hook, "32-bit") { wide.as_slice() } else { &[] };
    assert_eq!(narrow, expected, "{kind} of a 32-bit caller");
    wide
}

/// The bytes of 32-bit words.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A low page with this text.
fn text(text: &str) -> u32 {
    low_page(&[text.as_bytes(), &[0]].concat())
}

const KILL: Numbers = Numbers(libc::SYS_kill, 37);
const TGKILL: Numbers = Numbers(libc::SYS_tgkill, 270);
const RT_SIGQUEUEINFO: Numbers = Numbers(libc::SYS_rt_sigqueueinfo, 178);
const SIGTERM: u32 = libc::SIGTERM as u32;

fn signals(sensor: &mut Sensor) {
    // si_signo, si_errno, si_code: the same places in both tables.
    let claim = low_page(&words(&[SIGTERM, 0, (-2_i32).cast_unsigned()]));
    let victims = Table::BOTH.map(|_| [(); 3].map(|()| Waiting::start()));
    let all = || Table::BOTH.into_iter().zip(&victims);
    let pids: Vec<u32> = all()
        .map(|(table, victims)| {
            let [a, b, c] = [0, 1, 2].map(|index: usize| victims[index].pid().cast_unsigned());
            in_child(|| {
                assert_eq!(table.call(KILL, &[a, SIGTERM]), 0);
                assert_eq!(table.call(TGKILL, &[b, b, SIGTERM]), 0);
                assert_eq!(table.call(RT_SIGQUEUEINFO, &[c, SIGTERM, claim]), 0);
            })
        })
        .collect();
    sensor.settle();
    let places = ["/body/signal", "/body/code", "/body/to_thread", "/body/result", "/outcome"];
    let told_of = twins(sensor, "process_signal", "process.signal", [pids[0], pids[1]], &places);
    let expected = [(0, false), (-6, true), (-2, false)].map(|(code, thread)| json!(["SIGTERM", code, thread, "delivered", "success"]));
    assert_eq!(told_of, expected);
    for ((_, victims), pid) in all().zip(pids) {
        assert_eq!(sensor.told("process.signal", pid, &["/target/pid"]), [0, 1, 2].map(|index: usize| json!([victims[index].pid()])));
    }
}

const PTRACE: Numbers = Numbers(libc::SYS_ptrace, 26);
const PROCESS_VM_WRITEV: Numbers = Numbers(libc::SYS_process_vm_writev, 348);

fn reaching_into_another_process(sensor: &mut Sensor) {
    let word = low_page(&[7; 8]);
    let ranges = Table::BOTH.map(|table| low_page(&[table.address(word), table.address(8)].concat()));
    // Has the same pages.
    let victim = Waiting::start();
    let pid = victim.pid().cast_unsigned();
    let actors = [0, 1].map(|index: usize| {
        let (table, range) = (Table::BOTH[index], ranges[index]);
        in_child(|| {
            assert_eq!(table.call(PTRACE, &[libc::PTRACE_ATTACH, pid]), 0);
            assert_eq!(call(libc::SYS_wait4, &[pid.into(), 0, libc::__WALL.into(), 0]), c_long::from(pid));
            assert_eq!(table.call(PTRACE, &[libc::PTRACE_DETACH, pid]), 0);
            assert_eq!(table.call(PROCESS_VM_WRITEV, &[pid, range, 1, range, 1, 0]), 8);
        })
    });
    let traced = Table::BOTH.map(|table| in_child(|| assert_eq!(table.call(PTRACE, &[libc::PTRACE_TRACEME]), 0)));
    sensor.settle();
    let places = ["/body/how", "/body/error", "/target/pid"];
    let told_of = twins(sensor, "process_access", "process.access", actors, &places);
    assert_eq!(told_of, ["ptrace_attach", "vm_write"].map(|how| json!([how, null, pid])));
    let told_of = twins(sensor, "process_access", "process.access", traced, &places);
    assert_eq!(told_of, [json!(["ptrace_traceme", null, std::process::id()])]);
    let narrow = sensor.told("process.access", actors[1], &["/body/is_32_bit"]);
    assert!(narrow.iter().all(|place| *place == json!([true])), "{narrow:?}");
    assert_eq!(sensor.told("process.access", actors[0], &["/body/is_32_bit"]), [json!([false]), json!([false])]);
}

/// -1: an id that stays.
const SAME: u32 = u32::MAX;

fn changes_of_ids(sensor: &mut Sensor) {
    let pids = Table::BOTH.map(|table| {
        in_child(|| {
            assert_eq!(table.call(Numbers(libc::SYS_setgid, 214), &[10]), 0);
            assert_eq!(table.call(Numbers(libc::SYS_setresuid, 208), &[SAME, 13, SAME]), 0);
            assert_eq!(table.call(Numbers(libc::SYS_setuid, 213), &[0]), 0);
            // The 32-bit table has another one for ids of 16 bits.
            assert_eq!(table.call(Numbers(libc::SYS_setuid, 23), &[12]), 0);
        })
    });
    sensor.settle();
    let ids = ["/body/call", "/body/old/uid", "/body/new/uid", "/body/old/euid", "/body/new/euid", "/body/old/egid", "/body/new/egid"];
    let told_of = twins(sensor, "process_credentials", "process.credentials", pids, &ids);
    let expected = [
        json!(["setgid", 0, 0, 0, 0, 0, 10]),
        json!(["setresuid", 0, 0, 0, 13, 10, 10]),
        json!(["setuid", 0, 0, 13, 0, 10, 10]),
        json!(["setuid", 0, 12, 0, 12, 10, 10]),
    ];
    assert_eq!(told_of, expected);
}

const PRCTL: Numbers = Numbers(libc::SYS_prctl, 172);
const CAPGET: Numbers = Numbers(libc::SYS_capget, 184);
const CAPSET: Numbers = Numbers(libc::SYS_capset, 185);
/// include/uapi/linux/capability.h.
const CAP_SYS_MODULE: u32 = 16;
const CAP_SYS_PTRACE: u32 = 19;

fn changes_of_capabilities(sensor: &mut Sensor) {
    // struct __user_cap_header_struct (version 3, this thread) and two __user_cap_data_struct.
    let header = low_page(&words(&[0x2008_0522, 0]));
    let sets = header + 8;
    let pids = Table::BOTH.map(|table| {
        in_child(|| {
            assert_eq!(table.call(PRCTL, &[libc::PR_CAPBSET_DROP.cast_unsigned(), CAP_SYS_MODULE]), 0);
            assert_eq!(table.call(CAPGET, &[header, sets]), 0);
            // SAFETY: inside of the page; the first word of the effective set.
            unsafe { *ptr::with_exposed_provenance_mut::<u32>(sets as usize) &= !(1 << CAP_SYS_PTRACE) };
            assert_eq!(table.call(CAPSET, &[header, sets]), 0);
        })
    });
    sensor.settle();
    let told_of = twins(sensor, "process_capabilities", "process.capabilities", pids, &["/body/call", "/body/old", "/body/new"]);
    let [dropped, set] = told_of.as_slice() else { panic!("{told_of:#?}") };
    let gone = |told: &Value, of: &str| {
        let number = |side: usize| told[side][of].as_u64().expect("a set");
        (told[0].clone(), number(1) ^ number(2))
    };
    assert_eq!(gone(dropped, "bounding"), (json!("prctl"), 1 << CAP_SYS_MODULE));
    assert_eq!(gone(set, "effective"), (json!("capset"), 1 << CAP_SYS_PTRACE));
}

const SECCOMP: Numbers = Numbers(libc::SYS_seccomp, 354);

fn filters_of_system_calls(sensor: &mut Sensor) {
    // struct sock_filter: return SECCOMP_RET_ALLOW.
    let filter = low_page(&words(&[6, 0x7fff_0000]));
    let pids = Table::BOTH.map(|table| {
        // struct sock_fprog: how many, and where, at the alignment of an address.
        let address = table.address(filter);
        let mut program = vec![0; address.len()];
        program[0] = 1;
        let program = low_page(&[program, address].concat());
        in_child(|| {
            assert_eq!(table.call(PRCTL, &[libc::PR_SET_SECCOMP.cast_unsigned(), libc::SECCOMP_MODE_FILTER, program]), 0);
            assert_eq!(table.call(SECCOMP, &[libc::SECCOMP_SET_MODE_FILTER, 0, program]), 0);
            assert_eq!(table.call(SECCOMP, &[libc::SECCOMP_SET_MODE_FILTER, 0, 0]), -libc::EFAULT);
        })
    });
    sensor.settle();
    let told_of = twins(sensor, "process_seccomp", "process.seccomp", pids, &["/body/mode", "/body/filters", "/body/error"]);
    let expected = [json!(["filter", 1, null]), json!(["filter", 2, null]), json!(["filter", 2, libc::EFAULT])];
    assert_eq!(told_of, expected);
}

fn options_that_hide_or_rewrite(sensor: &mut Sensor) {
    /// A descriptor that nobody has.
    const NONE: u32 = 1_000_000;
    let pids = Table::BOTH.map(|table| {
        let prctl = |option: libc::c_int, argument: u32, next: u32| table.call(PRCTL, &[option.cast_unsigned(), argument, next, 0, 0]);
        in_child(|| {
            assert_eq!(prctl(libc::PR_SET_DUMPABLE, 0, 0), 0);
            assert_eq!(prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0), 0);
            assert!(prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE.cast_unsigned(), NONE) < 0);
        })
    });
    sensor.settle();
    let places = ["/body/option", "/body/part", "/body/arguments", "/outcome", "/body/error"];
    let mut told_of = twins(sensor, "process_prctl", "process.prctl", pids, &places);
    // Which it is depends on what this root may do.
    let errors: Vec<Value> = told_of.iter_mut().filter_map(|told| told.as_array_mut()?.pop()).collect();
    assert!(errors[..2].iter().all(Value::is_null) && errors[2].is_u64(), "{errors:?}");
    let expected = [
        json!(["PR_SET_DUMPABLE", null, [0, 0, 0], "success"]),
        json!(["PR_SET_CHILD_SUBREAPER", null, [1, 0, 0], "success"]),
        json!(["PR_SET_MM", "PR_SET_MM_EXE_FILE", [libc::PR_SET_MM_EXE_FILE, NONE, 0], "failure"]),
    ];
    assert_eq!(told_of, expected);
}

const MPROTECT: Numbers = Numbers(libc::SYS_mprotect, 125);
/// Results from here up are errno values, include/linux/err.h.
const MAX_ERRNO: i32 = 4095;
/// `mmap2` in the 32-bit table.
const MMAP: Numbers = Numbers(libc::SYS_mmap, 192);

fn memory_that_becomes_executable(sensor: &mut Sensor) {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT).cast_unsigned();
    let rx = (libc::PROT_READ | libc::PROT_EXEC).cast_unsigned();
    let pids = Table::BOTH.map(|table| {
        in_child(|| {
            // Between two pages that nobody may touch: memory of its own.
            let reserved = call(libc::SYS_mmap, &[0, 3 * 4096, 0, flags.into(), -1, 0]);
            let written = u32::try_from(reserved).expect("memory") + 4096;
            assert_eq!(call(libc::SYS_mprotect, &[written.into(), 4096, (libc::PROT_READ | libc::PROT_WRITE).into()]), 0);
            // SAFETY: the page can be written now.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(written as usize).write(0xc3) };
            assert_eq!(table.call(MPROTECT, &[written, 4096, rx]), 0);
            let address = table.call(MMAP, &[0, 4096, 7, flags, SAME, 0]);
            // 32-bit programs have addresses above 2 GiB.
            assert!(!(-MAX_ERRNO..=0).contains(&address), "{address}");
        })
    });
    sensor.settle();
    let places = ["/body/call", "/body/before", "/body/after", "/body/len", "/body/nameless", "/body/times"];
    let told_of = twins(sensor, "process_memory_exec", "process.memory_exec", pids, &places);
    assert_eq!(told_of, [json!(["mprotect", "rw-p", "r-xp", 4096, false, 1]), json!(["mmap", "", "rwxp", 4096, false, 2])]);
}

const MOUNT: Numbers = Numbers(libc::SYS_mount, 21);
const UMOUNT2: Numbers = Numbers(libc::SYS_umount2, 52);
const CHROOT: Numbers = Numbers(libc::SYS_chroot, 61);
const PIVOT_ROOT: Numbers = Numbers(libc::SYS_pivot_root, 217);
const UNSHARE: Numbers = Numbers(libc::SYS_unshare, 310);

/// Puts the process into a mount namespace of its own, out of which nothing comes.
fn own_mounts(table: Table, root: u32) {
    assert_eq!(table.call(UNSHARE, &[libc::CLONE_NEWNS.cast_unsigned()]), 0);
    let flags = (libc::MS_REC | libc::MS_PRIVATE) as u32;
    assert_eq!(table.call(MOUNT, &[0, root, 0, flags, 0]), 0);
}

fn other_root_folders(sensor: &mut Sensor) {
    let jail = sensor.folder().join("jail");
    fs::create_dir(&jail).expect("a folder");
    let jail = fs::canonicalize(jail).expect("a folder");
    let path = jail.to_str().expect("UTF-8");
    let [root, place, tmpfs, inner, old, nowhere] = ["/", path, "tmpfs", "/inner", "/inner/old", "/no/such/folder"].map(text);
    let pids = Table::BOTH.map(|table| {
        in_child(|| {
            own_mounts(table, root);
            assert_eq!(table.call(CHROOT, &[nowhere]), -libc::ENOENT);
            // The root of a guest cannot be replaced, what is mounted upon it can.
            assert_eq!(table.call(MOUNT, &[tmpfs, place, tmpfs, 0, 0]), 0);
            assert_eq!(table.call(CHROOT, &[place]), 0);
            fs::create_dir("/inner").expect("a folder");
            assert_eq!(table.call(MOUNT, &[tmpfs, inner, tmpfs, 0, 0]), 0);
            fs::create_dir("/inner/old").expect("a folder");
            assert_eq!(table.call(PIVOT_ROOT, &[nowhere, root]), -libc::ENOENT);
            assert_eq!(table.call(PIVOT_ROOT, &[inner, old]), 0);
            assert!(fs::exists("/old/inner").expect("the new root"));
        })
    });
    sensor.settle();
    let places = ["/body/call", "/body/path", "/body/error", "/outcome"];
    let told_of = twins(sensor, "process_chroot", "process.chroot", pids, &places);
    let expected = [
        json!(["chroot", "/no/such/folder", libc::ENOENT, "failure"]),
        json!(["chroot", path, null, "success"]),
        json!(["pivot_root", "/no/such/folder", libc::ENOENT, "failure"]),
        // The new root takes the place of the one before.
        json!(["pivot_root", path, null, "success"]),
    ];
    assert_eq!(told_of, expected);
    let roots = sensor.told("process.chroot", pids[0], &["/body/inode", "/body/device"]);
    assert!(roots[1] != roots[3] && roots[3][0].is_u64(), "two file systems: {roots:?}");
    let mut told_of = twins(sensor, "file_mount", "file.mount", pids, &["/body/action", "/body/error"]);
    // A tier at the calls tells those that fail as well.
    told_of.retain(|told| told[1].is_null());
    assert_eq!(told_of, ["propagation", "mount", "mount", "pivot_root"].map(|action| json!([action, null])));
}

fn mounts(sensor: &mut Sensor) {
    let place = sensor.folder().join("place");
    fs::create_dir(&place).expect("a folder");
    let place = fs::canonicalize(place).expect("a folder");
    let path = place.to_str().expect("UTF-8");
    let [root, at, tmpfs] = ["/", path, "tmpfs"].map(text);
    let (nosuid, bind) = (libc::MS_NOSUID as u32, libc::MS_BIND as u32);
    let pids = Table::BOTH.map(|table| {
        in_child(|| {
            own_mounts(table, root);
            assert_eq!(table.call(MOUNT, &[tmpfs, at, tmpfs, nosuid, 0]), 0);
            assert_eq!(table.call(MOUNT, &[root, at, 0, bind, 0]), 0);
            assert_eq!(table.call(UMOUNT2, &[at, libc::MNT_DETACH.cast_unsigned()]), 0);
            assert_eq!(table.call(UMOUNT2, &[at, 0]), 0);
        })
    });
    sensor.settle();
    let places = ["/body/action", "/body/source", "/body/target", "/body/file_system", "/body/flags", "/body/error", "/outcome"];
    let told_of = twins(sensor, "file_mount", "file.mount", pids, &places);
    let expected = [
        json!(["propagation", null, "/", null, libc::MS_REC | libc::MS_PRIVATE, null, "success"]),
        json!(["mount", "tmpfs", path, "tmpfs", libc::MS_NOSUID, null, "success"]),
        json!(["bind", "/", path, null, libc::MS_BIND, null, "success"]),
    ];
    assert_eq!(told_of, expected);
    let told_of = twins(sensor, "file_mount", "file.umount", pids, &["/body/target", "/body/flags"]);
    assert_eq!(told_of, [json!([path, libc::MNT_DETACH]), json!([path, 0])]);
}
