//! What the workspace's own tests find in the guest besides busybox.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Extra;
use crate::command;

/// Programs of this machine: bash as a victim, setpriv with the options that busybox's lacks, su as a caller of libpam.
const PROGRAMS: &[&str] = &["bash", "setpriv", "su"];
/// What su and a test's own caller of libpam read.
const PAM: &[&str] = &["/etc/pam.d", "/etc/login.defs", "/etc/security"];
/// The library that the sensor attaches to; PAM's modules are in the folder `security` beside it.
const LIBPAM: &str = "libpam.so.0";

/// Adds the programs and PAM's files to what the guest gets.
///
/// # Errors
/// A program is not on this machine.
pub(super) fn add(with: &mut Vec<PathBuf>, files: &mut Vec<Extra>) -> Result<()> {
    for name in PROGRAMS {
        let found = command::find_program(name);
        with.push(found.with_context(|| format!("the tests in the VM need {name}: run `apt-get install bash util-linux`"))?);
    }
    let su = with.last().context("there are programs")?;
    let libpam = super::libraries::of(su)?.into_iter().find(|path| path.ends_with(LIBPAM));
    let libpam = libpam.with_context(|| format!("{} does not use {LIBPAM}, so the guest gets no PAM: install util-linux", su.display()))?;
    let modules = libpam.with_file_name("security");
    // Hosts differ in which of these they have; what is there comes along.
    let present = PAM.iter().map(Path::new).chain([libpam.as_path(), modules.as_path()]).filter(|path| path.exists());
    for path in present {
        files.push(Extra::same(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?)?);
    }
    Ok(())
}
