//! The examples do what their first lines say. They run as a reader would run them: as programs.

use std::path::{Path, PathBuf};
use std::process::Command;

type Failure = Box<dyn std::error::Error>;

fn built(name: &str) -> Result<PathBuf, Failure> {
    let profile = std::env::current_exe()?.parent().and_then(Path::parent).ok_or("no target folder")?.join("examples");
    let path = profile.join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: cargo build -p bartizan-bus --examples", path.display()).into()) }
}

/// What it prints, in a folder of its own.
fn run(name: &str, folder: &Path) -> Result<String, Failure> {
    let output = Command::new(built(name)?).arg(folder).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn embedded() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let expected = "subscription: 1 is sensor.heartbeat\n\
                    consumer: 1\nconsumer: 2\n\
                    consumer after a restart: 3\n\
                    log: 2 settings.size=8\nlog: 3 settings.colour=blue\n";
    assert_eq!(run("embedded", folder.path())?, expected);
    Ok(())
}

#[test]
fn with_nats_clients() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let expected = "client: sec.alerts.high.example 11\n\
                    bucket: Some(b\"blue\")\n\
                    process: 2 sec.alerts.low.scanner\n";
    assert_eq!(run("with_nats_clients", folder.path())?, expected);
    Ok(())
}
