//! The test binaries of `bartizan-tests`: built by cargo as the user, run as root by us.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::libtest::{Counts, Tally};
use crate::command;
use crate::privilege::Privilege;
use crate::project::Project;
use crate::stream::{End, stream};

/// Test targets that run on the VM's kernel as well as on this one.
const ALSO_IN_VM: &[&str] =
    &["access", "acts", "capture", "files", "flows", "images", "insides", "kernel_acts", "peers", "sockets", "storm", "twins", "worlds"];
/// Prefix of test targets that run in the VM alone.
const ONLY_IN_VM: &str = "vm_";
/// Longest time for one test binary. Generous: it ends a hang, it judges nobody's speed.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Exit code of coreutils' timeout when it had to end the command.
const TIMEOUT_CODE: i32 = 124;

/// One compiled test target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// Name of the target.
    pub(crate) name: String,
    /// The executable.
    pub(crate) path: PathBuf,
}

impl TestBinary {
    /// Whether it runs on this machine's kernel.
    pub(crate) fn runs_here(&self) -> bool {
        !self.name.starts_with(ONLY_IN_VM)
    }

    /// Whether it runs in the VM.
    pub(crate) fn runs_in_vm(&self) -> bool {
        ALSO_IN_VM.contains(&self.name.as_str()) || self.name.starts_with(ONLY_IN_VM)
    }
}

/// Compiles the tests and lists their binaries.
///
/// # Errors
/// They do not compile.
pub(crate) fn build(project: &Project) -> Result<Vec<TestBinary>> {
    let mut cargo = project.cargo();
    cargo.args(["test", "--package", "bartizan-tests", "--no-run", "--message-format=json-render-diagnostics"]);
    Ok(parse(&command::capture_shown(&mut cargo, "read the compiler's message above")?))
}

/// Reads cargo's messages (<https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>). Lines that are none, or of
/// another kind, are passed over: cargo promises to add kinds.
pub(crate) fn parse(messages: &str) -> Vec<TestBinary> {
    let read = |line: &str| -> Option<TestBinary> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message.get("reason")? == "compiler-artifact" && message.get("profile")?.get("test")? == true;
        let path = message.get("executable")?.as_str().filter(|_| is_test)?;
        Some(TestBinary { name: message.get("target")?.get("name")?.as_str()?.to_owned(), path: path.into() })
    };
    messages.lines().filter_map(read).collect()
}

/// Runs one test binary as root on this kernel; `filter` is libtest's. Its output goes to stdout as it comes.
///
/// # Errors
/// It cannot be started.
pub(crate) fn run(
    project: &Project,
    binary: &TestBinary,
    bartizan: &Path,
    root: Privilege,
    filter: &[&str],
) -> Result<(Counts, Option<String>)> {
    run_for(project, binary, bartizan, root, filter, &[], LONGEST)
}

/// [`run`], with these variables (`NAME=value`), and killed after `longest`.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_for(
    project: &Project,
    binary: &TestBinary,
    bartizan: &Path,
    root: Privilege,
    filter: &[&str],
    variables: &[&str],
    longest: Duration,
) -> Result<(Counts, Option<String>)> {
    let mut variable = std::ffi::OsString::from("BARTIZAN_BIN=");
    variable.push(bartizan);
    let mut test = root.command("env");
    test.arg(variable).arg("RUST_BACKTRACE=1").args(variables);
    // In the foreground, so that Ctrl-C reaches the tests. As root itself, because a user may not signal what sudo started.
    test.args(["timeout", "--foreground", "--kill-after=10", &longest.as_secs().to_string()]);
    test.arg(&binary.path).arg("--test-threads=1").args(filter).current_dir(project.root.join("tests"));
    let mut tally = Tally::default();
    let end = stream(&mut test, None, "run `apt-get install coreutils`", |piece| {
        tally.feed(piece);
        ControlFlow::Continue(())
    })?;
    let counts = tally.counts();
    let trouble = match end {
        End::Exited(status) if status.success() => None,
        End::Exited(status) if status.code() == Some(TIMEOUT_CODE) => {
            Some(format!("{} did not end within {} s and was killed: its last line above names the test", binary.name, longest.as_secs()))
        }
        End::Exited(status) => Some(format!("{} failed ({status})", binary.name)),
        End::Stopped | End::TimedOut => bail!("{} was stopped without a deadline of ours", binary.name),
    };
    Ok((counts, trouble))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_test_executables_are_taken() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"bartizan"},"profile":{"test":false},"executable":"/t/bartizan"}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"capture"},"profile":{"test":true},"executable":"/t/capture-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(parse(messages), [TestBinary { name: "capture".into(), path: "/t/capture-1".into() }]);
    }

    #[test]
    fn each_binary_has_its_place() {
        let place = |name: &str| {
            let binary = TestBinary { name: name.into(), path: "/".into() };
            (binary.runs_here(), binary.runs_in_vm())
        };
        assert_eq!(place("capture"), (true, true));
        assert_eq!(place("reverse_shell"), (true, false));
        assert_eq!(place("vm_lsm"), (false, true));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(text in "\\PC{0,200}", name in "[a-z]{1,5}") {
            let _ = parse(&text);
            let _ = parse(&format!(r#"{{"reason":"compiler-artifact","{name}":[]}}"#));
        }
    }
}
