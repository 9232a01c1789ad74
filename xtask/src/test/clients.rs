//! NATS client libraries of other languages for the bus's conformance tests, unpacked under `target/`. Nothing is installed into any
//! Python or Node.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// PyPI `nats-py`; its `nkeys` extra is not needed.
const NATS_PY: &str = "2.16.0";
/// npm `nats`, and what it needs: no package has install scripts.
const NATS_JS: &str = "2.29.3";

const REMEDY: &str = "check the network and the settings of pip and npm, then try again";

/// Fetches what is missing. Returns a phrase that says what was done.
///
/// # Errors
/// No pip or npm, or no network.
pub(super) fn ensure(target: &Path) -> Result<String> {
    let clients = target.join("clients");
    let mut done = Vec::new();
    for (name, version) in [("python", NATS_PY), ("node", NATS_JS)] {
        let folder = clients.join(name);
        let stamp = folder.join("version");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == version) {
            continue;
        }
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made: check who owns target/", folder.display()))?;
        let mut fetch = match name {
            "python" => {
                let mut pip = Command::new("pip3");
                pip.args(["install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-deps", "--target"]);
                pip.arg(&folder).arg(format!("nats-py=={version}"));
                pip
            }
            _ => {
                let mut npm = Command::new("npm");
                npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
                npm.arg(&folder).arg(format!("nats@{version}"));
                npm
            }
        };
        command::clean(&mut fetch);
        command::run(&mut fetch, REMEDY)?;
        fs::write(&stamp, version).with_context(|| format!("{} cannot be written", stamp.display()))?;
        done.push(format!("{name} {version}"));
    }
    Ok(if done.is_empty() { "NATS clients are here".to_owned() } else { format!("fetched NATS clients for {}", done.join(", ")) })
}
