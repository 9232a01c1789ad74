//! `bartizan status`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bartizan_sensor::control;
use bartizan_sensor::status::{HookState, HookStatus, KindCount, ProcessTable, SelfUsage, StatusReport};
use tokio::sync::watch;

use crate::fixture::{Run, as_nobody, bartizan};

fn report(state: HookState) -> StatusReport {
    StatusReport {
        version: "0.1.0".into(),
        pid: 1,
        host: "host1".into(),
        kernel: "6.1.0".into(),
        data_dir: "/d".into(),
        started: "2026-01-31T08:00:00Z".into(),
        uptime_s: 5,
        hooks: vec![HookStatus {
            name: "exec".into(),
            kinds: vec!["process.exec".into()],
            tier: if state == HookState::Active { "tp_btf" } else { "none" }.into(),
            best: true,
            state,
            reason: None,
            runs: None,
            recursion_misses: 0,
        }],
        blind: Vec::new(),
        kinds: vec![KindCount { received: 3, ..KindCount::new("process.exec") }],
        recent_loss: 0,
        recent_skipped: BTreeMap::new(),
        problems: Vec::new(),
        streams: Vec::new(),
        consumers: Vec::new(),
        subscriptions: Vec::new(),
        detectors: serde_json::json!({}),
        correlation: serde_json::json!({}),
        sinks: serde_json::json!([]),
        budget: None,
        redaction: None,
        nats: serde_json::Value::Null,
        metrics: None,
        process_table: ProcessTable::default(),
        containers: Default::default(),
        libraries: Vec::new(),
        files: Default::default(),
        ignore: Default::default(),
        auth: Default::default(),
        hashes: Default::default(),
        cpu: Default::default(),
        kernel_state: Default::default(),
        kernel_to_bus: Default::default(),
        self_usage: SelfUsage::default(),
    }
}

/// A daemon's control socket in this process, on `data_dir`.
struct Daemon {
    _runtime: tokio::runtime::Runtime,
    _stop: watch::Sender<bool>,
}

impl Daemon {
    fn start(data_dir: &Path, state: HookState) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let (stop, stopped) = watch::channel(false);
        let listener = {
            let _inside = runtime.enter();
            control::bind(data_dir).expect("bind")
        };
        runtime.spawn(control::serve(listener, Arc::new(move || report(state)), stopped));
        Self { _runtime: runtime, _stop: stop }
    }
}

fn status(data_dir: &Path, args: &[&str]) -> Run {
    Run::of(bartizan(&[&["status"], args].concat()).arg("--data-dir").arg(data_dir))
}

#[test]
fn working_is_0() {
    let temp = tempfile::tempdir().expect("temp folder");
    let _daemon = Daemon::start(temp.path(), HookState::Active);
    let text = status(temp.path(), &[]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    assert!(text.stdout.starts_with("Bartizan works as well as this kernel allows."), "{}", text.stdout);
    let json = status(temp.path(), &["--json"]).json();
    assert_eq!((json.len(), &json[0]["verdict"], &json[0]["hooks"][0]["state"]), (1, &"working".into(), &"active".into()));
}

#[test]
fn degraded_is_1_with_its_reasons() {
    let temp = tempfile::tempdir().expect("temp folder");
    let _daemon = Daemon::start(temp.path(), HookState::Disabled);
    let text = status(temp.path(), &[]);
    assert_eq!(text.code, Some(1));
    assert!(text.stdout.contains("- Hook exec (process.exec) is not attached"), "{}", text.stdout);
    let json = status(temp.path(), &["--json"]);
    assert_eq!((json.code, &json.json()[0]["verdict"]), (Some(1), &"degraded".into()));
}

#[test]
fn not_running_is_2_and_says_where_and_how_to_start() {
    let temp = tempfile::tempdir().expect("temp folder");
    for data_dir in [temp.path().to_owned(), temp.path().join("none")] {
        let run = status(&data_dir, &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
        let place = data_dir.to_str().expect("UTF-8");
        assert!(run.stderr.contains(&format!("not running on data folder {place}")), "{}", run.stderr);
        assert!(run.stderr.contains("bartizan run --data-dir"), "{}", run.stderr);
    }
}

#[test]
fn who_may_not_ask_is_told_3() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().expect("temp folder");
    let data_dir = temp.path().join("data");
    std::fs::create_dir(&data_dir).expect("folder");
    let _daemon = Daemon::start(&data_dir, HookState::Active);
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o000)).expect("permissions");
    let run = Run::of(as_nobody(&["status", "--data-dir"], temp.path()).arg(&data_dir));
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("no permission") && run.stderr.contains("root"), "{}", run.stderr);
    std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o700)).expect("permissions");
}
