//! `bartizan doctor`.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::fixture::{Run, as_nobody, bartizan};

/// The checks of a run by id.
fn checks(run: &Run) -> Vec<(String, String)> {
    let json = run.json();
    assert_eq!(json.len(), 1, "{}", run.stdout);
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_else(|| panic!("{check} has no {key}")).to_owned();
    json[0]["checks"].as_array().expect("checks").iter().map(|check| (text(check, "id"), text(check, "grade"))).collect()
}

fn grade(checks: &[(String, String)], id: &str) -> String {
    checks.iter().find(|(known, _)| known == id).unwrap_or_else(|| panic!("no {id} in {checks:?}")).1.clone()
}

#[test]
fn it_looks_and_changes_nothing() {
    let temp = tempfile::tempdir().expect("temp folder");
    let data_dir = temp.path().join("data");
    let run = |args: &[&str]| Run::of(bartizan(&[&["doctor"], args].concat()).arg("--data-dir").arg(&data_dir));
    let page = run(&[]);
    let all = run(&["--json"]);
    assert_eq!(page.code, all.code);
    let checks = checks(&all);
    // Whatever this machine is, code and verdict go together.
    let verdict = all.json()[0]["verdict"].as_str().map(str::to_owned);
    let expected = match verdict.as_deref() {
        Some("well") => 0,
        Some("improvable") => 1,
        Some("cannot_run") => 2,
        other => panic!("no verdict {other:?}"),
    };
    assert_eq!(all.code, Some(expected), "{}", all.stderr);
    for part in ["Kernel", "Hooks", "Data folder", "Clock", "Logins"] {
        assert!(page.stdout.contains(&format!("\n{part}\n")), "{part} is not in {}", page.stdout);
    }
    assert!(["ok", "warn"].contains(&grade(&checks, "data.disk").as_str()));
    assert!(!data_dir.exists(), "a look makes no folder");
}

#[test]
fn a_folder_that_others_can_write_stops_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let temp = tempfile::tempdir().expect("temp folder");
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).expect("permissions");
    let run = Run::of(bartizan(&["doctor", "--json", "--data-dir"]).arg(temp.path()));
    assert_eq!((run.code, grade(&checks(&run), "data.folder").as_str()), (Some(2), "stop"), "{}", run.stderr);
}

#[test]
fn who_is_not_root_is_told_what_was_not_looked_at() {
    let temp = tempfile::tempdir().expect("temp folder");
    let run = Run::of(as_nobody(&["doctor", "--json", "--data-dir"], temp.path()).arg(temp.path().join("data")));
    let checks = checks(&run);
    assert_eq!((grade(&checks, "user.root").as_str(), grade(&checks, "hooks").as_str()), ("unknown", "unknown"), "{}", run.stdout);
    assert!(run.code == Some(1) || run.code == Some(2), "{}", run.stderr);
}

#[test]
fn a_receiver_that_is_not_there_is_named() {
    let temp = tempfile::tempdir().expect("temp folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let open = listener.local_addr().expect("address").port();
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port that is free again").port();
    let sink = |name: &str, port: u16| format!("[[forward]]\nname = \"{name}\"\ntype = \"syslog\"\naddress = \"127.0.0.1:{port}\"\n");
    let config = temp.path().join("config.toml");
    std::fs::write(&config, sink("there", open) + &sink("gone", closed)).expect("write");
    let run = Run::of(bartizan(&["doctor", "--json", "--config"]).arg(&config).arg("--data-dir").arg(temp.path().join("data")));
    let checks = checks(&run);
    assert_eq!((grade(&checks, "forward.there").as_str(), grade(&checks, "forward.gone").as_str()), ("ok", "warn"), "{}", run.stdout);
}
