//! Where things are.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The folders of this checkout.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The workspace root.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, wherever the user's settings put it.
    pub(crate) target: PathBuf,
    /// Build tools that belong to this checkout alone.
    pub(crate) tools: PathBuf,
}

impl Project {
    /// Asks cargo, so that `CARGO_TARGET_DIR` and the user's cargo settings count.
    ///
    /// # Errors
    /// When cargo cannot read the workspace.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        let mut query = command::cargo();
        query.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
        let text = command::capture(&mut query, "this checkout was moved or its Cargo.toml is broken; repair it, then run `cargo clean`")?;
        let (root, target) = folders(&text)?;
        Ok(Self { tools: root.join(".tools"), root, target })
    }

    /// Cargo, at work on this workspace's host crates.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = command::cargo();
        cargo.current_dir(&self.root);
        // The build script of `bartizan` looks for the kernel object in the workspace's own target/. It is told otherwise only when it
        // must be: a variable that plain `cargo build` lacks would rebuild the binary at every change between the two.
        if self.target != self.root.join("target") {
            cargo.env("BARTIZAN_BPF_OBJECT", self.kernel_object());
        }
        cargo
    }

    /// Folder of the kernel object's own build, apart from the host's so that neither invalidates the other.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The kernel object that the binary embeds.
    pub(crate) fn kernel_object(&self) -> PathBuf {
        self.bpf_target().join("bartizan-ebpf.o")
    }

    /// The `bartizan` binary of a profile.
    pub(crate) fn binary(&self, release: bool) -> PathBuf {
        self.target.join(if release { "release" } else { "debug" }).join("bartizan")
    }

    /// A name under the target folder that nobody else has, for a folder of files that are gone when we are.
    ///
    /// # Errors
    /// The target folder cannot be made.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.target).with_context(|| format!("{} cannot be made", self.target.display()))?;
        Ok(self.target.join(format!("{name}-{}", std::process::id())))
    }

    /// Kernels and initramfs images.
    pub(crate) fn vm_cache(&self) -> PathBuf {
        self.target.join("vm")
    }
}

fn folders(metadata: &str) -> Result<(PathBuf, PathBuf)> {
    let value: serde_json::Value = serde_json::from_str(metadata).context("`cargo metadata` did not write JSON: update cargo")?;
    let field = |name: &str| {
        let text = value.get(name).and_then(|v| v.as_str());
        text.map(PathBuf::from).with_context(|| format!("`cargo metadata` has no field {name}: update cargo"))
    };
    Ok((field("workspace_root")?, field("target_directory")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_from_cargo() {
        let found = folders(r#"{"workspace_root":"/w","target_directory":"/elsewhere/t","packages":[]}"#).ok();
        assert_eq!(found, Some(("/w".into(), "/elsewhere/t".into())));
        assert!(folders("{}").is_err_and(|e| e.to_string().contains("workspace_root")));
        assert!(folders("no").is_err());
    }
}
