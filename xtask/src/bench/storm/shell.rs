//! Pipelines of small programs, each with words of its own: what scripts and builds do all day.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where the words come from: names of real programs.
const NAMES: &str = "/usr/bin";

/// Shells whose command lines differ from one to the next.
#[derive(Debug)]
pub(super) struct Shells {
    names: Vec<String>,
}

impl Shells {
    pub(super) fn new() -> Result<Self> {
        let entries = std::fs::read_dir(NAMES).with_context(|| format!("{NAMES} cannot be read"))?;
        let plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(plain).collect();
        names.sort_unstable();
        if names.is_empty() {
            bail!("{NAMES} has no files");
        }
        Ok(Self { names })
    }

    /// One pipeline of three programs.
    pub(super) fn each(&self, index: u64) -> Result<()> {
        let name = &self.names[index as usize % self.names.len()];
        let script = format!("ls -l {NAMES}/{name} | cut -c1-80 | grep -c '{}'", index % 997);
        let status = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("`sh -c {script:?}` could not be started"))?;
        // 1: grep found nothing, which is no failure here.
        if status.code().is_none_or(|code| code > 1) {
            bail!("`sh -c {script:?}` ended with {status}");
        }
        Ok(())
    }
}
