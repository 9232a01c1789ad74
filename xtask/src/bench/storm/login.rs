//! PAM transactions by a real program.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// `su`, which as root authenticates by `pam_rootok` and asks nobody.
#[derive(Debug)]
pub(super) struct Su {
    program: PathBuf,
}

impl Su {
    pub(super) fn find() -> Result<Self> {
        let program = command::find_program("su").context("su is not on this machine: run `apt-get install util-linux`")?;
        if !nix::unistd::geteuid().is_root() {
            bail!("a storm of logins needs root, for which su asks no password: run it as root");
        }
        Ok(Self { program })
    }

    /// One transaction.
    pub(super) fn each(&self) -> Result<()> {
        let mut su = Command::new(&self.program);
        // Its own shell is named because that of `nobody` refuses to run anything.
        su.args(["-s", "/bin/true", "nobody"]).stdin(Stdio::null()).stdout(Stdio::null());
        let status = su.status().with_context(|| format!("{} could not be started", self.program.display()))?;
        if !status.success() {
            bail!("`su -s /bin/true nobody` ended with {status}: check that root may do it (/etc/pam.d/su with pam_rootok)");
        }
        Ok(())
    }
}
