//! Programs started and waited for.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// The smallest program that every host has.
const PROGRAM: &str = "/bin/true";

/// One program. The standard library starts it with `posix_spawn`, which a command without settings allows.
pub(super) fn each(_thread: u64, _index: u64) -> Result<()> {
    let status = Command::new(PROGRAM).status().with_context(|| format!("{PROGRAM} could not be started"))?;
    if !status.success() {
        bail!("{PROGRAM} ended with {status}");
    }
    Ok(())
}
