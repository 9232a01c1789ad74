//! The kernel object: `sensor-ebpf`'s programs, compiled to eBPF by stable rustc.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

use crate::command;
use crate::project::Project;
use crate::step;

const TARGET: &str = "bpfel-unknown-none";
const BIN: &str = "bartizan-ebpf";
/// ELF header: 64-bit, little endian, `e_machine` = EM_BPF (247, linux/elf-em.h).
const EM_BPF: u16 = 247;

/// Builds the object and puts it where the binary's build script embeds it from. Returns a phrase that says what came of it.
///
/// # Errors
/// The programs do not compile or link, or what came out is not an eBPF object.
pub(crate) fn build(project: &Project, linker: &Path) -> Result<String> {
    let mut cargo = cargo(project, linker, "build");
    cargo.args(["--bin", BIN]);
    command::run(&mut cargo, "read the compiler's message above")?;
    let built = project.bpf_target().join(TARGET).join("release").join(BIN);
    let bytes = read(&built)?;
    check_elf(&bytes).with_context(|| format!("{} is not a kernel object", built.display()))?;
    let bytes = without_dwarf(&bytes).with_context(|| format!("{} cannot be rewritten", built.display()))?;
    check_elf(&bytes).context("what came of the kernel object is none")?;
    let published = publish(&bytes, &project.kernel_object())?;
    let what = if published { "is new" } else { "is unchanged" };
    Ok(format!("{} of eBPF, {what}", step::bytes(bytes.len() as u64)))
}

/// Lints the kernel programs for their own target, which no host lint sees.
///
/// # Errors
/// A warning, or clippy cannot run.
pub(crate) fn clippy(project: &Project, linker: &Path) -> Result<()> {
    let mut cargo = cargo(project, linker, "clippy");
    cargo.args(["--bin", BIN, "--", "-D", "warnings"]);
    command::run(&mut cargo, "repair what clippy names above (kernel programs)")
}

/// `cargo <verb>` for the kernel programs. The profile is given here and not in Cargo.toml because the workspace's release profile is the
/// host binary's; eBPF needs whole-program optimisation to be verifiable at all.
fn cargo(project: &Project, linker: &Path, verb: &str) -> Command {
    let mut cargo = command::cargo();
    cargo
        .args([verb, "--release", "--package", "bartizan-sensor-ebpf", "--no-default-features", "--features", "programs"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(project.bpf_target())
        .current_dir(&project.root)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(linker))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        // `-Z build-std` on a stable compiler. For this child alone: elsewhere it would let unstable features in unseen.
        .env("RUSTC_BOOTSTRAP", "1");
    for name in ["RUSTFLAGS", "RUSTC", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Flags, separated as `CARGO_ENCODED_RUSTFLAGS` wants them, so that a path may hold spaces.
fn rustflags(linker: &Path) -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker);
    // BTF comes from the debug information; aya needs it for maps and global data.
    flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf");
    // What a BPF program sees of the host: register names in pt_regs.
    flags.push(format!("\x1f--cfg\x1fbpf_target_arch=\"{}\"", std::env::consts::ARCH));
    flags
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read although cargo built it: check who owns target/", path.display()))
}

fn check_elf(bytes: &[u8]) -> Result<()> {
    let machine = bytes.get(18..20).and_then(|two| Some(u16::from_le_bytes(two.try_into().ok()?)));
    let little_64 = bytes.starts_with(b"\x7fELF\x02\x01");
    if !little_64 || machine != Some(EM_BPF) {
        bail!("it does not begin with a 64-bit little-endian eBPF ELF header: remove target/bpf and build again");
    }
    Ok(())
}

/// The object without DWARF, which is two thirds of it and which nobody reads: type information and line numbers for the verifier are in
/// `.BTF` and `.BTF.ext`. All of the rest would be mapped, and counted as memory, where the sensor runs.
fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes)?;
    for section in &mut object.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    object.delete_orphans();
    // LLVM puts names of sections and symbols into one table; the writer wants two.
    if !object.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = object.sections.add();
        (names.name, names.sh_type, names.data) = (b".shstrtab".as_slice().into(), SHT_STRTAB, SectionData::SectionString);
    }
    let mut rest = Vec::new();
    object.write(&mut rest)?;
    Ok(rest)
}

/// Writes `bytes` to `to` only when they differ: the binary's build script watches the file's time. Atomic, so that a build that runs at
/// the same time never embeds a torn object.
fn publish(bytes: &[u8], to: &Path) -> Result<bool> {
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let mut temporary = PathBuf::from(to);
    temporary.set_extension(format!("o.{}", std::process::id()));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, to));
    written.with_context(|| format!("{} cannot be written: check who owns target/ and that the disk has room", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_bytes_are_written() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let to = folder.path().join("x.o");
        assert!(publish(b"one", &to)?);
        let before = fs::metadata(&to)?.modified()?;
        assert!(!publish(b"one", &to)?);
        assert_eq!(fs::metadata(&to)?.modified()?, before);
        assert!(publish(b"two", &to)?);
        assert_eq!(fs::read(&to)?, b"two");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1, "no temporary file is left");
        Ok(())
    }

    #[test]
    fn dwarf_goes_and_nothing_else() -> Result<()> {
        let mut object = Builder::new(object::Endianness::Little, true);
        object.header.e_machine = EM_BPF;
        let bytes = |name: &[u8]| [name, b" of the object"].concat();
        let kept: [&[u8]; 3] = [b".text", b".BTF", b"license"];
        for name in kept.into_iter().chain([b".debug_info".as_slice(), b".debug_str"]) {
            let section = object.sections.add();
            section.name = name.into();
            section.sh_type = object::elf::SHT_PROGBITS;
            section.data = SectionData::Data(bytes(name).into());
        }
        let names = object.sections.add();
        (names.name, names.sh_type, names.data) = (b".shstrtab".as_slice().into(), SHT_STRTAB, SectionData::SectionString);
        let mut built = Vec::new();
        object.write(&mut built)?;
        let rest = without_dwarf(&built)?;
        check_elf(&rest)?;
        let rest = Builder::read(rest.as_slice())?;
        let found = |name: &[u8]| rest.sections.iter().find(|section| section.name.as_slice() == name);
        for name in kept {
            let SectionData::Data(data) = &found(name).context("a section is gone")?.data else { bail!("another kind of section") };
            assert_eq!(data.as_slice(), bytes(name));
        }
        assert!(found(b".debug_info").is_none() && found(b".debug_str").is_none());
        Ok(())
    }

    #[test]
    fn a_host_program_is_not_a_kernel_object() -> Result<()> {
        assert!(check_elf(&fs::read("/proc/self/exe")?).is_err());
        assert!(check_elf(b"").is_err());
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(18, 0);
        header.extend_from_slice(&EM_BPF.to_le_bytes());
        assert!(check_elf(&header).is_ok());
        Ok(())
    }

    #[test]
    fn a_linker_path_with_spaces_stays_one_flag() {
        let flags = rustflags(Path::new("/a b/bpf-linker"));
        let flags = flags.to_string_lossy();
        let flags: Vec<&str> = flags.split('\x1f').collect();
        assert_eq!(flags[0], "-Clinker=/a b/bpf-linker");
        assert!(flags.contains(&"-Clink-arg=--btf"));
        assert_eq!(flags.len(), 5);
    }

    #[test]
    fn bootstrap_reaches_this_child_alone() {
        let project = Project { root: "/r".into(), target: "/t".into(), tools: "/r/.tools".into() };
        let set = |c: &Command| c.get_envs().any(|(name, value)| name == "RUSTC_BOOTSTRAP" && value.is_some());
        assert!(set(&cargo(&project, Path::new("/l"), "build")));
        assert!(!set(&command::cargo()));
    }
}
