//! Judgements over given facts.

use bartizan_bus::budget::{Budget, Disk};
use proptest::prelude::*;

use super::gather::{lockdown_mode, sshd_settings};
use super::*;
use crate::capture::hooks;
use crate::status::HookState;

const GIB: u64 = 1 << 30;

fn hook(name: &str) -> HookStatus {
    HookStatus {
        name: name.into(),
        kinds: vec!["process.exec".into()],
        tier: "tp_btf".into(),
        best: true,
        state: HookState::Active,
        reason: None,
        runs: None,
        recursion_misses: 0,
    }
}

fn blind(name: &str, expected: bool) -> Blind {
    Blind {
        hook: name.into(),
        what: "32-bit callers".into(),
        why: "EPERM".into(),
        costs: vec!["runtime_watcher.reverse_shell".into()],
        expected,
    }
}

/// A host on which all is well.
fn facts() -> Facts {
    Facts {
        user: User { root: true, capabilities: Some(u64::MAX), host_pids: Some(true) },
        kernel: Kernel {
            release: "6.1.0-32-cloud-amd64".into(),
            machine: "x86_64".into(),
            btf: Ok(()),
            lockdown: Some("integrity".into()),
            lsms: Some(vec!["lockdown".into(), "bpf".into()]),
            bpf_stats: Some(false),
            tracefs: Some(true),
            bpffs: true,
        },
        hooks: Hooks::Tried { hooks: hooks().map(|known| hook(known.name)).collect(), blind: Vec::new() },
        data: Data {
            folder: "/var/lib/bartizan".into(),
            foreign: None,
            disk: Ok(Disk { total: 100 * GIB, available: 50 * GIB }),
            budget: Budget::new(None, Some(100 * GIB)),
            held: 0,
            others: GIB,
            redaction: Ok(true),
        },
        clock: Some(Clock { synchronized: true, unix_s: 1_800_000_000 }),
        sshd: Sshd::Settings(sshd_settings("usepam yes\nloglevel VERBOSE\nmaxauthtries 6\n")),
        libpam: Some("/lib/libpam.so.0".into()),
        sinks: vec![Sink { name: "siem".into(), address: "127.0.0.1:514".into(), reached: Ok(()) }],
    }
}

/// The check of this id after a change, and the verdict.
fn judged(id: &str, change: impl FnOnce(&mut Facts)) -> (Check, Verdict) {
    let mut facts = facts();
    change(&mut facts);
    let checks = examine(&facts);
    let verdict = verdict(&checks);
    (checks.into_iter().find(|check| check.id == id).unwrap_or_else(|| panic!("no check {id}")), verdict)
}

#[test]
fn a_host_where_all_is_well() {
    let checks = examine(&facts());
    let bad: Vec<&Check> = checks.iter().filter(|check| check.grade != Grade::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(verdict(&checks), Verdict::Well);
    for hook in hooks() {
        assert!(checks.iter().any(|check| check.id == format!("hook.{}", hook.name)), "{} has no check", hook.name);
    }
    let mut ids: Vec<&str> = checks.iter().map(|check| check.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), checks.len());
}

type Change = fn(&mut Facts);

#[test]
fn what_stops_bartizan() {
    let stops: [(&str, Change); 9] = [
        ("kernel.version", |facts| facts.kernel.release = "5.10.0-32-amd64".into()),
        ("kernel.machine", |facts| facts.kernel.machine = "aarch64".into()),
        ("kernel.btf", |facts| facts.kernel.btf = Err("cannot read".into())),
        ("kernel.lockdown", |facts| facts.kernel.lockdown = Some("confidentiality".into())),
        ("user.capabilities", |facts| facts.user.capabilities = Some(1 << 39)),
        ("user.pid_namespace", |facts| facts.user.host_pids = Some(false)),
        ("hooks", |facts| facts.hooks = Hooks::Refused("the kernel refused Bartizan's maps".into())),
        ("data.folder", |facts| facts.data.foreign = Some((1000, 0o777))),
        ("data.redaction", |facts| facts.data.redaction = Err("the redaction key has mode 0644".into())),
    ];
    for (id, change) in stops {
        let (check, verdict) = judged(id, change);
        assert_eq!((check.grade, verdict), (Grade::Stop, Verdict::CannotRun), "{check:?}");
        assert!(!check.remedies.is_empty(), "{check:?}");
    }
}

#[test]
fn what_can_be_better_costs_something_and_has_a_remedy() {
    let warnings: [(&str, Change); 12] = [
        ("kernel.tracefs", |facts| facts.kernel.tracefs = Some(false)),
        ("user.capabilities", |facts| facts.user.capabilities = Some(1 << 39 | 1 << 38)),
        ("data.disk", |facts| facts.data.disk = Ok(Disk { total: 100 * GIB, available: GIB })),
        ("data.redaction", |facts| facts.data.redaction = Ok(false)),
        ("host.clock", |facts| facts.clock = Some(Clock { synchronized: false, unix_s: 1_800_000_000 })),
        ("host.clock", |facts| facts.clock = Some(Clock { synchronized: true, unix_s: 1_000 })),
        ("sshd.loglevel", |facts| facts.sshd = Sshd::Settings(sshd_settings("loglevel INFO\nmaxauthtries 6\nusepam yes"))),
        ("sshd.loglevel", |facts| facts.sshd = Sshd::Settings(sshd_settings("LogLevel quiet\nusepam yes"))),
        ("sshd.usepam", |facts| facts.sshd = Sshd::Settings(sshd_settings("loglevel VERBOSE\nusepam no"))),
        ("pam.library", |facts| facts.libpam = None),
        ("forward.siem", |facts| facts.sinks[0].reached = Err("Connection refused".into())),
        ("hook.process_exec", |facts| {
            let Hooks::Tried { hooks, blind } = &mut facts.hooks else { panic!("another form") };
            hooks[0].reason = Some("fexit: this kernel refuses fexit_execve (EPERM)".into());
            blind.push(super::tests::blind("process_exec", true));
        }),
    ];
    for (id, change) in warnings {
        let (check, verdict) = judged(id, change);
        assert!(matches!(check.grade, Grade::Warn | Grade::Blind) && verdict == Verdict::Improvable, "{check:?}");
        assert!(!check.remedies.is_empty() && !check.costs.is_empty(), "{check:?}");
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_well() {
    let unknown: [(&str, Change); 9] = [
        ("kernel.tracefs", |facts| facts.kernel.tracefs = None),
        ("user.root", |facts| facts.user = User { root: false, ..facts.user }),
        ("user.pid_namespace", |facts| facts.user.host_pids = None),
        ("hooks", |facts| facts.hooks = Hooks::Untried("this is not root".into())),
        ("data.disk", |facts| facts.data.disk = Err("EACCES".into())),
        ("host.clock", |facts| facts.clock = None),
        ("sshd", |facts| facts.sshd = Sshd::Unknown("no hostkeys available".into())),
        ("sshd.loglevel", |facts| facts.sshd = Sshd::Settings(Vec::new())),
        ("kernel.version", |facts| facts.kernel.release = "strange".into()),
    ];
    for (id, change) in unknown {
        let (check, verdict) = judged(id, change);
        assert_eq!((check.grade, verdict), (Grade::Unknown, Verdict::Improvable), "{check:?}");
    }
}

#[test]
fn how_much_sshd_keeps_to_itself() {
    let level = |text: &str| {
        let check = judged("sshd.loglevel", |facts| facts.sshd = Sshd::Settings(sshd_settings(text))).0;
        (check.grade, check.costs.join(" "))
    };
    assert_eq!(level("loglevel DEBUG3").0, Grade::Ok);
    assert_eq!(level("loglevel INFO\nmaxauthtries 1").0, Grade::Ok, "each failure is the last one, which is logged");
    assert!(level("loglevel INFO\nmaxauthtries 6").1.contains("the first 3 failed publickey offers"));
    assert_eq!(level("loglevel FATAL").0, Grade::Blind);
    assert_eq!(judged("sshd", |facts| facts.sshd = Sshd::Absent).0.grade, Grade::Ok);
}

#[test]
fn the_disk_counts_what_the_streams_have_already() {
    let grade = |available: u64, held: u64| {
        judged("data.disk", |facts| {
            facts.data.disk = Ok(Disk { total: 100 * GIB, available });
            facts.data.held = held;
        })
        .0
        .grade
    };
    let remedy =
        |available: u64| judged("data.disk", |facts| facts.data.disk = Ok(Disk { total: 100 * GIB, available })).0.remedies.concat();
    assert!(remedy(2 * GIB).contains("`max_bytes = \"921 MiB\"`") && remedy(GIB).contains("a larger disk"), "{}", remedy(2 * GIB));
    assert_eq!((grade(5 * GIB, 0), grade(5 * GIB, 4 * GIB), grade(9 * GIB, 0)), (Grade::Warn, Grade::Ok, Grade::Ok));
}

#[test]
fn a_hook_says_why_what_it_costs_and_what_to_do() {
    let judge = |state: HookState, tier: &str, best: bool, reason: Option<&str>, unseen: bool| {
        let hook = HookStatus { state, tier: tier.into(), best, reason: reason.map(str::to_owned), ..hook("x") };
        let blind = if unseen { vec![blind("x", state == HookState::Active)] } else { Vec::new() };
        let (hooks, _) = judged("hook.x", |facts| facts.hooks = Hooks::Running { pid: 7, hooks: vec![hook], blind });
        hooks
    };
    let lesser = judge(HookState::Active, "syscall_tracepoint", false, Some("fexit: this kernel refuses y (EPERM)"), true);
    assert_eq!(lesser.grade, Grade::Blind);
    assert_eq!(lesser.costs, ["not seen: 32-bit callers", "weaker: runtime_watcher.reverse_shell"]);
    assert_eq!(lesser.remedies, [remedies::OTHER_KERNEL]);
    assert_eq!(judge(HookState::Active, "other", false, Some("fexit: z"), false).grade, Grade::Ok, "a lesser tier that misses nothing");
    let disabled = judge(HookState::Disabled, "none", false, Some("disabled by the operator"), true);
    assert!(disabled.grade == Grade::Warn && disabled.remedies[0].contains("disable_hooks"), "{disabled:?}");
    let failed = judge(HookState::Failed, "none", false, Some("tp_btf: the verifier rejects y (EINVAL): R1"), true);
    assert!(failed.grade == Grade::Warn && failed.remedies[0].contains("report"), "{failed:?}");
    assert_eq!(judge(HookState::Unavailable, "none", false, Some("tp_btf: this kernel has no tracepoint y"), true).grade, Grade::Blind);
}

#[test]
fn each_reason_of_loading_has_its_own_remedy() {
    for (reason, word) in [
        ("fexit: disabled by the operator", "disable_hooks"),
        ("syscall_tracepoint: sys_exit_execve: no such file (is tracefs mounted?)", "mount -t tracefs"),
        ("syscall_tracepoint: sys_exit_execve: tracefs not found", "mount -t tracefs"),
        ("tp_btf: tracepoint x takes (int) on this kernel, expected (long)", "newer Bartizan"),
        ("tp_btf: this kernel has no tracepoint x", "too old"),
        ("uprobe: libpam.so.0 was not found", "libpam0g"),
        ("lsm: this kernel refuses lsm_x (EINVAL)", "lsm="),
        ("fexit: this kernel refuses x (EPERM)", "hypervisor"),
        ("tp_btf: this kernel does not attach x (ENOTSUPP)", "hypervisor"),
        ("something new", "report it"),
    ] {
        let remedies = remedies::remedies(reason);
        assert!(remedies.len() == 1 && remedies[0].contains(word), "{reason}: {remedies:?}");
    }
    let both = remedies::remedies("fexit: this kernel refuses x (EPERM); syscall_tracepoint: sys_exit_x: tracefs not found");
    assert_eq!(both, [remedies::TRACEFS, remedies::OTHER_KERNEL], "what can be typed stands first");
}

#[test]
fn lockdown_is_the_word_in_brackets() {
    assert_eq!(lockdown_mode("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
    assert_eq!((lockdown_mode(""), lockdown_mode("none")), (None, None));
}

/// Every remedy stands in the document, word for word, with where it was tried.
#[test]
fn the_document_has_every_remedy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
    let document = std::fs::read_to_string(path).expect("docs/doctor.md");
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\|", "|");
    let document = plain(&document);
    let constants = [
        logins::VERBOSE,
        logins::USE_PAM,
        kernel::LSM,
        remedies::CONFIDENTIALITY,
        remedies::OTHER_KERNEL,
        remedies::TRACEFS,
        remedies::UNKNOWN,
    ];
    for remedy in remedies::REMEDIES.iter().map(|remedy| remedy.remedy).chain(constants) {
        assert!(document.contains(&plain(remedy)), "docs/doctor.md has not: {remedy}");
    }
}

proptest! {
    #[test]
    fn any_output_of_others_is_read(text in "(\\[|\\]|[a-z ]{0,8}|\n|=){0,24}") {
        let _ = (lockdown_mode(&text), remedies::remedies(&text));
        let (_, _) = judged("kernel.version", |facts| {
            facts.kernel.release = text.clone();
            facts.sshd = Sshd::Settings(sshd_settings(&text));
            facts.sinks[0].address = text;
            facts.sinks[0].reached = Err("no".into());
        });
    }
}
