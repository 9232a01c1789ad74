//! A test target of the workspace, by name.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::project::Project;
use crate::test::binaries;

/// What `cargo test` calls the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A file of `tests/`.
    Integration,
    /// The unit tests of a library.
    Library,
    /// The unit tests of a program.
    Program,
}

/// A target that `cargo test` can build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    package: String,
    name: String,
    kind: Kind,
}

impl Target {
    /// Builds it. Returns the executable.
    ///
    /// # Errors
    /// It does not compile.
    pub(super) fn build(&self, project: &Project) -> Result<PathBuf> {
        let Self { package, name, kind } = self;
        let mut cargo = project.cargo();
        cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics", "--package", package]);
        match kind {
            Kind::Integration => cargo.args(["--test", name]),
            Kind::Library => cargo.arg("--lib"),
            Kind::Program => cargo.args(["--bin", name]),
        };
        let built = binaries::parse(&command::capture_shown(&mut cargo, "read the compiler's message above")?);
        let found = built.into_iter().find(|binary| binary.name == *name).map(|binary| binary.path);
        found.with_context(|| format!("cargo built the tests {name} of {package} and named no executable: update cargo"))
    }
}

/// Finds the target called `name`, in `package` when one is named. A crate's own name stands for its unit tests: the library's, where a
/// program has the same name.
///
/// # Errors
/// There is none, or more than one.
pub(super) fn find(project: &Project, name: &str, package: Option<&str>) -> Result<Target> {
    let mut query = project.cargo();
    query.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = command::capture(&mut query, "repair the workspace's Cargo.toml")?;
    choose(targets(&text)?, name, package)
}

fn choose(targets: Vec<Target>, name: &str, package: Option<&str>) -> Result<Target> {
    let in_package = |target: &&Target| package.is_none_or(|package| target.package == package);
    let mut found: Vec<&Target> = targets.iter().filter(|target| target.name == name).filter(in_package).collect();
    let best = found.iter().map(|target| target.kind).min();
    found.retain(|target| Some(target.kind) == best);
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let mut known: Vec<String> = targets.iter().filter(in_package).map(describe).collect();
            known.sort();
            match package.filter(|_| known.is_empty()) {
                Some(package) => bail!("the workspace has no package {package} with tests"),
                None => bail!("there is no test target {name}: the workspace has {}", known.join(", ")),
            }
        }
        _ => {
            let packages: Vec<String> = found.into_iter().map(describe).collect();
            bail!("more than one test target is called {name} ({}): add --package", packages.join(", "))
        }
    }
}

fn describe(target: &Target) -> String {
    format!("{} ({})", target.name, target.package)
}

/// Reads `cargo metadata`'s list.
fn targets(metadata: &str) -> Result<Vec<Target>> {
    let value: serde_json::Value = serde_json::from_str(metadata).context("`cargo metadata` did not write JSON: update cargo")?;
    let packages = value.get("packages").and_then(|packages| packages.as_array());
    let packages = packages.context("`cargo metadata` has no field packages: update cargo")?;
    let read = |package: &serde_json::Value| -> Option<Vec<Target>> {
        let owner = package.get("name")?.as_str()?;
        let listed = package.get("targets")?.as_array()?;
        Some(listed.iter().filter_map(|target| read_target(owner, target)).collect())
    };
    Ok(packages.iter().filter_map(read).flatten().collect())
}

fn read_target(package: &str, target: &serde_json::Value) -> Option<Target> {
    if target.get("test").and_then(serde_json::Value::as_bool) != Some(true) {
        return None;
    }
    let kind = match target.get("kind")?.as_array()?.first()?.as_str()? {
        "test" => Kind::Integration,
        "bin" => Kind::Program,
        "lib" | "rlib" => Kind::Library,
        _ => return None,
    };
    Some(Target { package: package.to_owned(), name: target.get("name")?.as_str()?.to_owned(), kind })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METADATA: &str = r#"{"packages":[
        {"name":"bartizan-tests","targets":[{"name":"capture","kind":["test"],"test":true},{"name":"rsyslog","kind":["test"],"test":true}]},
        {"name":"bartizan-forward","targets":[{"name":"rsyslog","kind":["test"],"test":true},{"name":"bartizan_forward","kind":["lib"],"test":true}]},
        {"name":"bartizan","targets":[{"name":"build-script-build","kind":["custom-build"],"test":false},{"name":"bartizan","kind":["bin"],"test":true}]}]}"#;

    fn found(name: &str, package: Option<&str>) -> Result<(String, Kind), String> {
        let chosen = targets(METADATA).and_then(|targets| choose(targets, name, package));
        chosen.map(|target| (target.package, target.kind)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_name_is_enough_where_one_target_has_it() {
        assert_eq!(found("capture", None), Ok(("bartizan-tests".into(), Kind::Integration)));
        assert_eq!(found("bartizan_forward", None), Ok(("bartizan-forward".into(), Kind::Library)));
        assert_eq!(found("bartizan", None), Ok(("bartizan".into(), Kind::Program)));
        assert_eq!(found("rsyslog", Some("bartizan-forward")), Ok(("bartizan-forward".into(), Kind::Integration)));
    }

    #[test]
    fn none_and_two_are_sentences_that_name_the_choices() {
        let none = found("captur", None).err().unwrap_or_default();
        assert!(none.contains("captur:") && none.contains("capture (bartizan-tests)"), "{none}");
        let two = found("rsyslog", None).err().unwrap_or_default();
        assert!(two.contains("bartizan-tests") && two.contains("bartizan-forward") && two.contains("--package"), "{two}");
        let nobody = found("rsyslog", Some("nobody")).err().unwrap_or_default();
        assert!(nobody.contains("no package nobody"), "{nobody}");
    }

    #[test]
    fn this_workspace_has_the_targets_that_the_vm_stage_runs() -> Result<()> {
        let project = Project::locate()?;
        assert_eq!(find(&project, "capture", None)?.package, "bartizan-tests");
        Ok(())
    }

    proptest! {
        #[test]
        fn no_metadata_makes_it_panic(text in "\\PC{0,100}", name in "[a-z]{0,8}") {
            let _ = targets(&text);
            let _ = targets(&format!(r#"{{"packages":[{{"name":"{name}","targets":[{{"{name}":1}}]}}]}}"#));
        }
    }
}
