//! Root, where root is needed: directly, or through sudo. Never for anything that writes into `target/`.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// How this process gets something done as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// It already is root.
    Root,
    /// Through `sudo`, which may ask for a password on the terminal.
    Sudo,
}

impl Privilege {
    /// Finds the way to root.
    ///
    /// # Errors
    /// Not root and no sudo; the sentence begins with `why` and ends with `instead`.
    pub(crate) fn find(why: &str, instead: &str) -> Result<Self> {
        Self::choose(nix::unistd::geteuid().is_root(), command::find_program("sudo").is_some(), why, instead)
    }

    fn choose(root: bool, sudo: bool, why: &str, instead: &str) -> Result<Self> {
        match (root, sudo) {
            (true, _) => Ok(Self::Root),
            (false, true) => Ok(Self::Sudo),
            (false, false) => bail!("{why} needs root, and this machine has no sudo: install sudo, or {instead}"),
        }
    }

    /// A command that runs `program` as root, with a clean environment.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut built = match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg("--").arg(program);
                sudo
            }
        };
        command::clean(&mut built);
        built
    }
}

/// Says so when root runs a build on a user's behalf, because the files it leaves are root's.
pub(crate) fn warn_if_under_sudo() {
    if nix::unistd::geteuid().is_root() && std::env::var_os("SUDO_USER").is_some() {
        eprintln!(
            "note: started through sudo, so the files in target/ will belong to root. \
             Run `cargo xtask` as yourself: it uses sudo where it must."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_needs_no_sudo() {
        assert_eq!(Privilege::choose(true, false, "x", "y").ok(), Some(Privilege::Root));
        assert_eq!(Privilege::choose(false, true, "x", "y").ok(), Some(Privilege::Sudo));
    }

    #[test]
    fn neither_is_a_sentence() {
        let error = Privilege::choose(false, false, "Loading eBPF programs", "become root").map_err(|e| e.to_string());
        assert_eq!(error, Err("Loading eBPF programs needs root, and this machine has no sudo: install sudo, or become root".to_owned()));
    }

    #[test]
    fn sudo_ends_its_own_options_first() {
        assert_eq!(command::describe(&Privilege::Sudo.command("/x/--y")), "sudo -- /x/--y");
        assert_eq!(command::describe(&Privilege::Root.command("/x/y")), "/x/y");
    }
}
