//! The standard library's source, from which `core` is built for the eBPF target.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;
use crate::toolchain::Toolchain;

/// Makes sure that `rust-src` is in the sysroot. Returns a phrase that says what was done.
///
/// It is asked for by name because `RUSTUP_AUTO_INSTALL=0` is common on build machines and makes a toolchain file insufficient.
///
/// # Errors
/// It is missing and cannot be installed.
pub(crate) fn ensure(toolchain: &Toolchain) -> Result<&'static str> {
    if is_there(toolchain) {
        return Ok("already in the toolchain");
    }
    if command::find_program("rustup").is_none() {
        bail!(
            "the source of `core` (rust-src) is not in {} and rustup is not on this machine: install Rust from https://rustup.rs, \
             or with a distribution's rustc its source package (Debian: `apt-get install rust-src`)",
            toolchain.sysroot.display()
        );
    }
    let name = active_toolchain()?;
    eprintln!("      installing rust-src into the toolchain {name} with rustup");
    let mut rustup = Command::new("rustup");
    command::clean(&mut rustup).args(["component", "add", "rust-src", "--toolchain", &name]);
    command::run(&mut rustup, "check the network (rustup downloads from static.rust-lang.org or RUSTUP_DIST_SERVER), then try again")?;
    if !is_there(toolchain) {
        bail!(
            "rustup installed rust-src into {name}, but {} is still missing, so the rustc in use is another one: \
             check `which rustc` and the variable RUSTC",
            core_source(toolchain).display()
        );
    }
    Ok("installed with rustup")
}

/// Whether `rust-src` is in the sysroot.
pub(crate) fn is_there(toolchain: &Toolchain) -> bool {
    core_source(toolchain).is_file()
}

fn core_source(toolchain: &Toolchain) -> PathBuf {
    toolchain.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs")
}

/// The toolchain that rustup chose for us: in the environment when cargo was started through rustup, else asked for.
fn active_toolchain() -> Result<String> {
    if let Ok(name) = std::env::var("RUSTUP_TOOLCHAIN") {
        return Ok(name);
    }
    let text = command::capture(Command::new("rustup").args(["show", "active-toolchain"]), "run `rustup default stable`")?;
    match text.split_whitespace().next() {
        Some(name) => Ok(name.to_owned()),
        None => bail!("rustup has no active toolchain: run `rustup default stable`"),
    }
}
