//! What a test cannot do without.

use std::path::{Path, PathBuf};

/// Folders that are searched for a program: those of root, whatever `PATH` the test was given.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The path of `program`, which Debian's `package` brings.
///
/// # Panics
/// It is not here.
#[track_caller]
pub fn need(program: &str, package: &str) -> PathBuf {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("this test needs the real {program}, which is not here: apt-get install {package}"))
}

/// Fails where the test is not root.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn need_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test loads eBPF programs and must be root: run it with `cargo xtask test`");
}
