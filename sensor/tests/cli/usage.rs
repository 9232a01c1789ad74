//! Usage, version, configuration errors, and their exit codes.

use crate::fixture::{Host, Run, as_nobody, bartizan};

fn run(args: &[&str]) -> Run {
    Run::of(&mut bartizan(args))
}

#[test]
fn no_verb_is_help() {
    let run = run(&[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for verb in ["Usage:", "run", "events", "alerts", "matches", "status", "doctor", "version", "completions"] {
        assert!(run.stdout.contains(verb), "{verb} is not in {}", run.stdout);
    }
}

#[test]
fn versions() {
    let text = run(&["version"]);
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.starts_with(&format!("bartizan {}", env!("CARGO_PKG_VERSION"))), "{}", text.stdout);
    let json = run(&["version", "--json"]).json();
    assert_eq!((json.len(), &json[0]["version"]), (1, &serde_json::Value::from(env!("CARGO_PKG_VERSION"))));
}

#[test]
fn completions_are_a_script_that_the_shell_reads() {
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let run = run(&["completions", shell]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(run.stdout.contains("bartizan") && run.stdout.contains("status"), "{shell}: {}", run.stdout);
        if shell == "bash" {
            let file = tempfile::NamedTempFile::new().expect("temp file");
            std::fs::write(file.path(), &run.stdout).expect("write");
            let checked = std::process::Command::new("bash").arg("-n").arg(file.path()).output().expect("bash");
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).code, Some(64));
}

#[test]
fn wrong_usage_is_64() {
    for args in [&["fly"][..], &["events", "--pid", "x"], &["events", "--since", "yesterday"], &["status", "--follow"], &["--data-dir"]] {
        let run = run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{args:?}");
        assert!(!run.stderr.is_empty());
    }
}

#[test]
fn an_unknown_kind_names_the_known_ones() {
    let run = run(&["events", "--kind", "process.exce"]);
    assert_eq!(run.code, Some(64));
    assert!(run.stderr.contains("process.exec, process.fork") && run.stderr.contains("network.connect"), "{}", run.stderr);
}

#[test]
fn a_wrong_log_filter_is_64() {
    let run = run(&["version", "--log", "bartizan=loud"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""));
    assert!(run.stderr.contains("bartizan=loud"), "{}", run.stderr);
}

#[test]
fn a_wrong_configuration_is_placed_and_64_for_every_verb() {
    let temp = tempfile::tempdir().expect("temp folder");
    let path = temp.path().join("config.toml");
    std::fs::write(&path, "[streams.events]\nmax_agee = \"1d\"\n").expect("write");
    let path = path.to_str().expect("UTF-8");
    for verb in ["run", "events", "alerts", "matches", "status", "doctor"] {
        let run = run(&[verb, "--config", path]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{verb}: {}", run.stderr);
        let expected = format!("bartizan: {path}, line 2, column 1, key `streams.events.max_agee`: unknown field `max_agee`");
        assert!(run.stderr.starts_with(&expected) && run.stderr.contains("did you mean `max_age`?"), "{verb}: {}", run.stderr);
    }
}

#[test]
fn a_configuration_that_is_named_must_exist() {
    let temp = tempfile::tempdir().expect("temp folder");
    let path = temp.path().join("none.toml");
    for verb in ["run", "events", "alerts", "matches", "status", "doctor"] {
        let run = run(&[verb, "--config", path.to_str().expect("UTF-8")]);
        assert_eq!(run.code, Some(64), "{verb}: {}", run.stderr);
        assert!(run.stderr.contains("none.toml does not exist"), "{}", run.stderr);
    }
}

#[test]
fn an_unknown_hook_is_64_and_names_the_known_ones() {
    let temp = tempfile::tempdir().expect("temp folder");
    let run = Run::of(bartizan(&["run", "--disable-hook", "no_such_hook", "--data-dir"]).arg(temp.path()));
    assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""));
    assert!(run.stderr.contains("no_such_hook") && run.stderr.contains("exec"), "{}", run.stderr);
}

#[test]
fn who_is_not_root_is_told_so() {
    let temp = tempfile::tempdir().expect("temp folder");
    let run = Run::of(as_nobody(&["run", "--data-dir"], temp.path()).arg(temp.path()));
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.lines().count()), (Some(1), "", 1), "{}", run.stderr);
    assert!(run.stderr.starts_with("bartizan: ") && run.stderr.contains("root"), "{}", run.stderr);
}

#[test]
fn a_second_instance_is_refused() {
    let host = Host::new();
    let run = host.run(&["run"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.lines().count()), (Some(1), "", 1), "{}", run.stderr);
    if nix::unistd::geteuid().is_root() {
        let holder = format!("is in use by process {}", std::process::id());
        assert!(run.stderr.contains(&holder), "{}", run.stderr);
    } else {
        assert!(run.stderr.contains("root"), "{}", run.stderr);
    }
}
