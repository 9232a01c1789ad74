//! bpf-linker, built against the LLVM that rustc itself ships, into `.tools/`.
//!
//! The bitcode that rustc writes can be read only by an LLVM that is not older; rustc's own library is the one that always fits, and
//! it spares the machine an LLVM development package.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::project::Project;
use crate::toolchain::{SUPPORTED_LLVM, Toolchain};

/// The pinned version.
pub(crate) const VERSION: &str = "0.13.0";

/// Makes sure that a bpf-linker for this very compiler is there. Returns its path and a phrase that says what was done.
///
/// # Errors
/// An unsupported LLVM, no C linker, or a failed build.
pub(crate) fn ensure(project: &Project, toolchain: &Toolchain) -> Result<(PathBuf, String)> {
    let (program, stamp_file) = places(project);
    let stamp = stamp(&project.tools, toolchain);
    if is_current(&program, &stamp_file, &stamp) {
        return Ok((program, format!("bpf-linker {VERSION} for this rustc is already in .tools/")));
    }
    let llvm = toolchain.llvm_library()?;
    if command::find_program("cc").is_none() {
        bail!("building bpf-linker needs a C linker and `cc` is not on this machine: run `apt-get install gcc` (or your distribution's)");
    }
    eprintln!("      building bpf-linker {VERSION} against {}", llvm.display());
    let prefix = link_llvm(&project.tools, &llvm)?;
    let build = project.tools.join("build");
    let mut install = command::cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{SUPPORTED_LLVM}"), "--root"])
        .arg(&project.tools)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", &prefix)
        .current_dir(&project.root);
    spare_the_path_warning(&mut install, &project.tools);
    command::run(&mut install, "read the compiler's message above; without network, see docs/building.md (\"Offline\")")?;
    let said = command::capture(
        Command::new(&program).arg("--version").env_remove("LD_LIBRARY_PATH"),
        "the LLVM library it was built against cannot be loaded; remove .tools/ and try again",
    )?;
    write(&stamp_file, &stamp)?;
    // Some 200 MB that are needed again only when rustc changes, and then not reusable.
    fs::remove_dir_all(&build).with_context(|| format!("{} cannot be removed: check who owns it", build.display()))?;
    Ok((program, format!("built {} into .tools/bin", said.trim())))
}

/// Whether a bpf-linker for this very compiler is there.
pub(crate) fn is_there(project: &Project, toolchain: &Toolchain) -> bool {
    let (program, stamp_file) = places(project);
    is_current(&program, &stamp_file, &stamp(&project.tools, toolchain))
}

/// The program, and the file that says what it was built for.
fn places(project: &Project) -> (PathBuf, PathBuf) {
    (project.tools.join("bin/bpf-linker"), project.tools.join("bpf-linker.stamp"))
}

/// cargo advises to put the folder into `PATH` unless it is there; nobody needs it there.
fn spare_the_path_warning(install: &mut Command, tools: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Ok(path) = std::env::join_paths(std::env::split_paths(&path).chain([tools.join("bin")])) {
        install.env("PATH", path);
    }
}

/// What the tool depends on: its version, its place (the library path inside it is absolute) and the compiler.
fn stamp(tools: &Path, toolchain: &Toolchain) -> String {
    format!("bpf-linker {VERSION}\n{}\n{}\n{}", tools.display(), toolchain.sysroot.display(), toolchain.verbose)
}

fn is_current(program: &Path, stamp_file: &Path, stamp: &str) -> bool {
    command::is_executable(program) && fs::read_to_string(stamp_file).is_ok_and(|found| found == stamp)
}

/// Lays out `<tools>/llvm/lib` as bpf-linker's build script expects a prefix: `libLLVM.so` to link against. The library's own name is
/// there too, because the folder becomes the program's RUNPATH: so it starts without `LD_LIBRARY_PATH`.
fn link_llvm(tools: &Path, llvm: &Path) -> Result<PathBuf> {
    let prefix = tools.join("llvm");
    let folder = prefix.join("lib");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed: check who owns it", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made: check who owns the checkout", folder.display()))?;
    let own_name = llvm.file_name().context("the LLVM library has no file name")?;
    for name in ["libLLVM.so".as_ref(), own_name] {
        let link = folder.join(name);
        symlink(llvm, &link).with_context(|| format!("{} cannot be made: check who owns the checkout", link.display()))?;
    }
    Ok(prefix)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{} cannot be written: check who owns the checkout", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::RustcInfo;

    fn toolchain(verbose: &str) -> Toolchain {
        let info = RustcInfo { release: (1, 95), release_text: "1.95.0".into(), llvm_major: 22 };
        Toolchain { info, verbose: verbose.into(), sysroot: "/s".into() }
    }

    #[test]
    fn current_means_same_compiler_same_place_and_a_program() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (program, file) = (folder.path().join("bpf-linker"), folder.path().join("stamp"));
        let now = stamp(folder.path(), &toolchain("rustc A"));
        assert!(!is_current(&program, &file, &now));
        write(&file, &now)?;
        assert!(!is_current(&program, &file, &now), "a stamp without the program");
        fs::copy("/bin/true", &program)?;
        assert!(is_current(&program, &file, &now));
        assert!(!is_current(&program, &file, &stamp(folder.path(), &toolchain("rustc B"))));
        assert!(!is_current(&program, &file, &stamp(Path::new("/moved"), &toolchain("rustc A"))));
        Ok(())
    }

    #[test]
    fn prefix_has_both_names_and_is_made_anew() -> Result<()> {
        let tools = tempfile::tempdir()?;
        let library = tools.path().join("libLLVM.so.22.1-rust");
        write(&library, "elf")?;
        for _ in 0..2 {
            let prefix = link_llvm(tools.path(), &library)?;
            assert_eq!(fs::read_link(prefix.join("lib/libLLVM.so"))?, library);
            assert_eq!(fs::read_link(prefix.join("lib/libLLVM.so.22.1-rust"))?, library);
        }
        Ok(())
    }
}
