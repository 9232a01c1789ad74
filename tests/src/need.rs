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

/// Whether this kernel is of this version or a newer one.
///
/// # Panics
/// It does not say.
#[track_caller]
pub fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let (Some(Ok(has_major)), Some(Ok(has_minor))) = (numbers.next(), numbers.next()) else { panic!("not a version: {release}") };
    (has_major, has_minor) >= (major, minor)
}
