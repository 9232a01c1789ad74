//! The Rust compiler in use, and the LLVM library that it ships.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// LLVM majors that the pinned bpf-linker has a feature for.
pub(crate) const SUPPORTED_LLVM: u32 = 22;

/// What `rustc -vV` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RustcInfo {
    /// Major and minor of the compiler.
    pub(crate) release: (u32, u32),
    /// Full release, such as `1.95.0`.
    pub(crate) release_text: String,
    /// Major of the LLVM inside.
    pub(crate) llvm_major: u32,
}

/// The active compiler.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// What it says about itself.
    pub(crate) info: RustcInfo,
    /// All that `rustc -vV` wrote: identifies the compiler in stamps.
    pub(crate) verbose: String,
    /// `rustc --print sysroot`.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// Finds the compiler and checks that it is new enough for this workspace.
    ///
    /// # Errors
    /// No rustc, one older than the workspace's `rust-version`, or one with an LLVM that the pinned bpf-linker does not know.
    pub(crate) fn find() -> Result<Self> {
        const REMEDY: &str = "install Rust from https://rustup.rs, or repair it with `rustup update stable`";
        let rustc = || {
            let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            command::clean(&mut rustc);
            rustc
        };
        let verbose = command::capture(rustc().arg("-vV"), REMEDY)?;
        let info = parse_rustc(&verbose)?;
        let needed = parse_release(env!("CARGO_PKG_RUST_VERSION")).context("the workspace's rust-version is not a version")?;
        if info.release < needed {
            let (major, minor) = needed;
            bail!("rustc {} is too old; this workspace needs {major}.{minor} or newer: run `rustup update stable`", info.release_text);
        }
        let sysroot = PathBuf::from(command::capture(rustc().args(["--print", "sysroot"]), REMEDY)?.trim_end());
        Ok(Self { info, verbose, sysroot })
    }

    /// The shared library of the LLVM that this compiler uses.
    ///
    /// # Errors
    /// Another LLVM major than the pinned bpf-linker supports, or no such library in the sysroot.
    pub(crate) fn llvm_library(&self) -> Result<PathBuf> {
        let major = self.info.llvm_major;
        if major != SUPPORTED_LLVM {
            bail!(
                "rustc {} uses LLVM {major}, and bpf-linker {} can be built against LLVM {SUPPORTED_LLVM} only: \
                 use a toolchain with LLVM {SUPPORTED_LLVM}, such as `rustup toolchain install 1.95.0` and `cargo +1.95.0 xtask ...`",
                self.info.release_text,
                crate::bpf_linker::VERSION
            );
        }
        let folder = self.sysroot.join("lib");
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("{} cannot be read: reinstall the toolchain with rustup", folder.display()))?;
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        let found = names.iter().filter(|name| is_llvm_name(name, major)).map(|name| folder.join(name)).find(|path| is_elf(path));
        found.with_context(|| {
            format!(
                "{} has no shared LLVM {major} library (libLLVM*.so*), so this rustc was not built the way rustup ships it: \
                 install stable Rust from https://rustup.rs",
                folder.display()
            )
        })
    }
}

/// `1.95`, `1.95.0` or `1.98.0-nightly` to (1, 95).
fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn parse_rustc(verbose: &str) -> Result<RustcInfo> {
    let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let release_text = field("release:").context("`rustc -vV` names no release: install Rust from https://rustup.rs")?;
    let release = parse_release(release_text).with_context(|| {
        format!("`rustc -vV` names the release {release_text:?}, which is no version: install Rust from https://rustup.rs")
    })?;
    let llvm = field("LLVM version:").and_then(|text| text.split('.').next()?.parse().ok());
    let llvm_major = llvm.context("`rustc -vV` names no LLVM version, so it cannot make eBPF: install Rust from https://rustup.rs")?;
    Ok(RustcInfo { release, release_text: release_text.to_owned(), llvm_major })
}

/// Names under which rustup has shipped it: `libLLVM.so.22.1-rust-1.95.0-stable`, `libLLVM-22-rust-1.95.0-stable.so`.
fn is_llvm_name(name: &str, major: u32) -> bool {
    let rest = name.strip_prefix("libLLVM.so.").or_else(|| name.strip_prefix("libLLVM-").filter(|rest| rest.contains(".so")));
    let Some(rest) = rest else { return false };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse() == Ok(major)
}

/// One of the two names is a linker script that points at the other; only the ELF file can be loaded at run time.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAID: &str =
        "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn reads_what_rustc_says() {
        let expected = RustcInfo { release: (1, 95), release_text: "1.95.0".into(), llvm_major: 22 };
        assert_eq!(parse_rustc(SAID).ok(), Some(expected));
        assert!(parse_rustc(&SAID.replace("LLVM", "GCC")).is_err_and(|e| e.to_string().contains("LLVM")));
        assert_eq!(parse_release("1.98.0-nightly"), Some((1, 98)));
        assert_eq!(parse_release("1"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_release("1.100") > parse_release("1.95"));
    }

    #[test]
    fn the_library_is_the_elf_file_of_the_right_major() -> Result<()> {
        let sysroot = tempfile::tempdir()?;
        let lib = sysroot.path().join("lib");
        std::fs::create_dir(&lib)?;
        let info = parse_rustc(SAID)?;
        let toolchain = Toolchain { info, verbose: SAID.into(), sysroot: sysroot.path().into() };
        assert!(toolchain.llvm_library().is_err());
        std::fs::write(lib.join("libLLVM-22-rust-1.95.0-stable.so"), "INPUT(libLLVM.so.22.1-rust-1.95.0-stable)")?;
        std::fs::write(lib.join("libLLVM.so.21.1-rust-1.94.0-stable"), b"\x7fELF....")?;
        std::fs::write(lib.join("libLLVMsomething.so"), b"\x7fELF....")?;
        assert!(toolchain.llvm_library().is_err(), "a linker script and another major are not it");
        std::fs::write(lib.join("libLLVM.so.22.1-rust-1.95.0-stable"), b"\x7fELF....")?;
        assert_eq!(toolchain.llvm_library()?, lib.join("libLLVM.so.22.1-rust-1.95.0-stable"));
        Ok(())
    }

    #[test]
    fn another_llvm_is_a_sentence() -> Result<()> {
        let info = RustcInfo { llvm_major: 23, ..parse_rustc(SAID)? };
        let toolchain = Toolchain { info, verbose: String::new(), sysroot: "/".into() };
        let error = toolchain.llvm_library().map_err(|e| e.to_string()).err().unwrap_or_default();
        assert!(error.contains("LLVM 23") && error.contains("rustup toolchain install"), "{error}");
        Ok(())
    }

    #[test]
    fn this_machines_compiler_is_found() -> Result<()> {
        let toolchain = Toolchain::find()?;
        assert!(toolchain.sysroot.join("lib").is_dir());
        Ok(())
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}", major in 0_u32..40) {
            let _ = parse_rustc(&text);
            let _ = parse_release(&text);
            let _ = is_llvm_name(&format!("libLLVM-{text}"), major);
        }

        #[test]
        fn any_release_and_llvm_are_read_back(minor in 0_u32..1000, patch in 0_u32..100, llvm in 0_u32..100) {
            let info = parse_rustc(&format!("release: 1.{minor}.{patch}\nLLVM version: {llvm}.1.0\n")).unwrap();
            prop_assert_eq!((info.release, info.llvm_major), ((1, minor), llvm));
        }
    }
}
