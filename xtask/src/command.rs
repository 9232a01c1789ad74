//! Running other programs: what was run is part of every error, and so is what to do about it.

use std::env;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// What `cargo run` sets for us and a child must not inherit: it describes this crate, not the one the child builds or is.
/// <https://doc.rust-lang.org/cargo/reference/environment-variables.html>
const LEFT_BY_CARGO_RUN: &[&str] = &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_NAME", "CARGO_BIN_", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];

/// The program and its arguments as a shell would show them; long ones are cut, for they only name the command in a sentence.
pub(crate) fn describe(command: &Command) -> String {
    const LONGEST: usize = 240;
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}...", &line[..cut]),
        None => line,
    }
}

/// Removes from `command`'s environment what `cargo run` put there for us.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if LEFT_BY_CARGO_RUN.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    // Cargo points the loader at the build's own folders; nothing we start is linked against them.
    command.env_remove("LD_LIBRARY_PATH")
}

/// The cargo that runs us, or the one on `PATH`.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    clean(&mut command);
    command
}

fn not_started(command: &Command, error: &std::io::Error, remedy: &str) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("`{}` is not on this machine: {remedy}", command.get_program().to_string_lossy()),
        _ => anyhow!("`{}` could not be started ({error}): {remedy}", describe(command)),
    }
}

/// Runs `command` with its output on our stderr (our stdout carries results only).
///
/// # Errors
/// When it cannot be started or ends with anything but 0; the message ends with `remedy`.
pub(crate) fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let stderr = std::io::stderr();
    let copy = nix::unistd::dup(&stderr).context("standard error is closed: start xtask with it open")?;
    let status = command.stdout(Stdio::from(copy)).status().map_err(|e| not_started(command, &e, remedy))?;
    if !status.success() {
        bail!("`{}` failed ({status}): {remedy}", describe(command));
    }
    Ok(())
}

/// Runs `command` and returns its stdout; its stderr is part of the error.
///
/// # Errors
/// When it cannot be started, ends with anything but 0, or writes what is not UTF-8; the message ends with `remedy`.
pub(crate) fn capture(command: &mut Command, remedy: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| not_started(command, &e, remedy))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}; it said {:?}): {remedy}", describe(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` wrote bytes that are not UTF-8: {remedy}", describe(command)))
}

/// Like [`capture`], with the command's stderr shown as it comes instead of kept: for builds, whose progress is there.
///
/// # Errors
/// As [`capture`].
pub(crate) fn capture_shown(command: &mut Command, remedy: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|e| not_started(command, &e, remedy))?;
    if !output.status.success() {
        bail!("`{}` failed ({}): {remedy}", describe(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` wrote bytes that are not UTF-8: {remedy}", describe(command)))
}

/// Where a program of this name is: `PATH` first, then the folders of system daemons that a user's `PATH` often lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    find_in(name, env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]))
}

fn find_in(name: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| is_executable(path))
}

/// A regular file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Puts `--` style arguments into a printable list.
pub(crate) fn words<S: AsRef<OsStr>>(words: &[S]) -> String {
    words.iter().map(|w| w.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_and_the_remedy() {
        let error = run(Command::new("false").arg("x"), "do this").map_err(|e| e.to_string());
        assert_eq!(error, Err("`false x` failed (exit status: 1): do this".to_owned()));
        let error = run(&mut Command::new("bartizan-no-such-program"), "install it").map_err(|e| e.to_string());
        assert_eq!(error, Err("`bartizan-no-such-program` is not on this machine: install it".to_owned()));
    }

    #[test]
    fn captured_failure_quotes_stderr() {
        let error = capture(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), "fix it").map_err(|e| e.to_string());
        let error = error.err().unwrap_or_default();
        assert!(error.contains("\"why\"") && error.contains("exit status: 3") && error.ends_with("fix it"), "{error}");
    }

    #[test]
    fn programs_are_files_that_can_be_executed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for place in [&first, &second] {
            std::fs::create_dir(place)?;
            std::fs::write(place.join("tool"), "")?;
        }
        let look = || find_in("tool", [first.clone(), second.clone()].into_iter());
        assert_eq!(look(), None);
        std::fs::set_permissions(second.join("tool"), std::fs::Permissions::from_mode(0o755))?;
        assert_eq!(look(), Some(second.join("tool")));
        std::fs::create_dir(first.join("other"))?;
        assert_eq!(find_in("other", std::iter::once(first.clone())), None, "a folder is no program");
        Ok(())
    }

    #[test]
    fn long_commands_are_cut_on_a_character() {
        let mut command = Command::new("p");
        command.arg("ä".repeat(500));
        assert!(describe(&command).ends_with("ä..."));
    }
}
