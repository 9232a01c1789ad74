//! `kernel.bpf_stats_enabled`, switched on for a while.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// While this lives, the kernel times every eBPF program of the machine. Afterwards the setting is what it was, also when we are killed: a
/// shell that waits for the end of our pipe restores it, in a process group of its own that Ctrl-C does not reach.
#[derive(Debug)]
pub(super) struct Counting {
    watcher: Child,
}

impl Counting {
    pub(super) fn begin() -> Result<Self> {
        let before = fs::read_to_string(SETTING).with_context(|| format!("{SETTING} cannot be read: this kernel is older than 5.1"))?;
        let mut watcher = Command::new("sh");
        watcher.args(["-c", "cat >/dev/null; printf %s \"$1\" >\"$2\"", "sh", before.trim(), SETTING]);
        let watcher = watcher.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn().context("sh could not be started")?;
        let counting = Self { watcher };
        fs::write(SETTING, "1").with_context(|| format!("{SETTING} cannot be written: root is needed"))?;
        Ok(counting)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        if !self.watcher.wait().is_ok_and(|status| status.success()) {
            eprintln!("      warning: {SETTING} may still be 1: `cat {SETTING}`, and set it by hand");
        }
    }
}
