//! A stock Debian cloud kernel: fetched with apt, unpacked without root, kept under `target/vm/`.

use std::cmp::Ordering;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::privilege::Privilege;

const OFFLINE: &str = "check the network and the apt sources (`apt-get update`)";

/// A kernel that qemu can boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Name of its package.
    pub(crate) package: String,
    /// The compressed kernel.
    pub(crate) image: PathBuf,
}

/// Modules for tests: one that does no harm and needs no other, and VM sockets with a way to oneself.
const MODULES: &[&str] = &[
    "kernel/drivers/net/dummy.ko",
    "kernel/net/vmw_vsock/vsock.ko",
    "kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko",
    "kernel/net/vmw_vsock/vsock_loopback.ko",
];

impl Kernel {
    /// These modules of this kernel's own with their names, decompressed, as far as the package has them.
    ///
    /// # Errors
    /// One cannot be read or decompressed.
    pub(crate) fn modules(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let Some(package) = self.image.ancestors().nth(2) else { return Ok(Vec::new()) };
        let Ok(releases) = fs::read_dir(package.join("lib/modules")) else { return Ok(Vec::new()) };
        let releases: Vec<PathBuf> = releases.filter_map(Result::ok).map(|release| release.path()).collect();
        let mut found = Vec::new();
        for path in MODULES {
            let name = path.rsplit('/').next().unwrap_or(path);
            for release in &releases {
                if let Some(bytes) = module(&release.join(path))? {
                    found.push((name, bytes));
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// The module at `plain`, or the packed one beside it.
fn module(plain: &Path) -> Result<Option<Vec<u8>>> {
    if plain.is_file() {
        return fs::read(plain).map(Some).with_context(|| format!("{} cannot be read", plain.display()));
    }
    let packed = plain.with_extension("ko.xz");
    if !packed.is_file() {
        return Ok(None);
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(&packed).output();
    let output = output.context("xz is not on this machine: run `apt-get install xz-utils`")?;
    if !output.status.success() {
        bail!("{} cannot be decompressed: {}", packed.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(Some(output.stdout))
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.package)
    }
}

/// The newest kernel of `series` in the cache, else the newest that apt offers.
///
/// # Errors
/// No such kernel on offer, no Debian tools, or no network.
pub(crate) fn ensure(cache: &Path, series: &str) -> Result<Kernel> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the VM needs an x86_64 host (Debian's cloud kernels for amd64), and this one is {}", std::env::consts::ARCH);
    }
    if let Some(kernel) = in_cache(cache, series)? {
        return Ok(kernel);
    }
    if names()?.is_empty() {
        eprintln!("      apt knows no kernel yet: reading the package lists");
        refresh()?;
    }
    fs::create_dir_all(cache).with_context(|| format!("{} cannot be made: check who owns target/", cache.display()))?;
    let mut package = offered(series)?;
    if let Err(error) = fetch(cache, &package) {
        // Lists that are older than the archive's last update name files that are gone.
        eprintln!("      {error}");
        eprintln!("      reading the package lists anew, in case they are stale");
        refresh()?;
        package = offered(series)?;
        fetch(cache, &package)?;
    }
    unpacked(cache, package.clone()).with_context(|| format!("the package {package} holds no boot/vmlinuz-*: remove {}", cache.display()))
}

/// The newest kernel of `series` in the cache.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn in_cache(cache: &Path, series: &str) -> Result<Option<Kernel>> {
    Ok(newest(cached(cache)?, series).and_then(|package| unpacked(cache, package)))
}

/// Package names in the cache: one folder each.
fn cached(cache: &Path) -> Result<Vec<String>> {
    if !cache.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(cache).with_context(|| format!("{} cannot be read: check who owns target/", cache.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

fn unpacked(cache: &Path, package: String) -> Option<Kernel> {
    let boot = fs::read_dir(cache.join(&package).join("boot")).ok()?;
    let image = boot.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")) && path.metadata().is_ok_and(|m| m.len() > 0)
    })?;
    Some(Kernel { package, image })
}

/// Cloud kernels that apt has heard of.
fn names() -> Result<Vec<String>> {
    let mut names = Command::new("apt-cache");
    names.args(["pkgnames", "linux-image-"]);
    let names = command::capture(&mut names, "the VM's kernel comes from Debian packages, so run this on Debian")?;
    Ok(names.lines().filter(|name| name.contains("-cloud-amd64")).map(str::to_owned).collect())
}

/// The newest package of the series that can be downloaded: `pkgnames` alone also lists what is merely mentioned.
fn offered(series: &str) -> Result<String> {
    let of_series: Vec<String> = names()?.into_iter().filter(|name| version(name, series).is_some()).collect();
    let listed = match of_series.as_slice() {
        [] => String::new(),
        some => command::capture(Command::new("apt-cache").arg("madison").args(some), OFFLINE)?,
    };
    newest(listed.lines().filter_map(|line| Some(line.split('|').next()?.trim().to_owned())).collect(), series).with_context(|| {
        format!(
            "this machine's apt sources offer no linux-image-{series}.*-cloud-amd64: see `apt-cache search cloud-amd64`, then give --kernel"
        )
    })
}

fn refresh() -> Result<()> {
    let root = Privilege::find("Reading the package lists (`apt-get update`)", "run `apt-get update` as root once")?;
    command::run(root.command("apt-get").args(["update", "-q"]), OFFLINE)
}

fn fetch(cache: &Path, package: &str) -> Result<()> {
    eprintln!("      fetching {package}");
    // Into a place of its own first: a folder with the package's name is complete by construction.
    let place = Partial::new(cache)?;
    let partial = &place.0;
    let mut download = Command::new("apt-get");
    // apt's own sandbox user may not write into a checkout.
    download.args(["download", "-q", "-o", "APT::Sandbox::User=root", package]).current_dir(partial);
    command::run(&mut download, OFFLINE)?;
    let deb = fs::read_dir(partial)
        .ok()
        .and_then(|mut entries| entries.find_map(|entry| Some(entry.ok()?.path()).filter(|p| p.extension().is_some_and(|e| e == "deb"))))
        .with_context(|| format!("apt-get downloaded no .deb into {}: {OFFLINE}", partial.display()))?;
    let root = partial.join("root");
    command::run(Command::new("dpkg").arg("-x").arg(&deb).arg(&root), "the package is damaged; try again")?;
    let to = cache.join(package);
    let moved = if to.exists() { fs::remove_dir_all(&to) } else { Ok(()) }.and_then(|()| fs::rename(&root, &to));
    moved.with_context(|| format!("{} cannot be written: check who owns target/", to.display()))
}

/// A folder that goes when it is done with, whatever came of it.
#[derive(Debug)]
struct Partial(PathBuf);

impl Partial {
    fn new(cache: &Path) -> Result<Self> {
        let folder = cache.join(format!("partial-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made: check who owns target/", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What stays is only a few megabytes under target/, which `cargo clean` removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn newest(packages: Vec<String>, series: &str) -> Option<String> {
    let mut known: Vec<(Vec<u64>, String)> = packages.into_iter().filter_map(|name| Some((version(&name, series)?, name))).collect();
    // Of one version the signed package (the shorter name) last: it is what machines run.
    known.sort_by(|(a, a_name), (b, b_name)| a.cmp(b).then_with(|| longer_first(a_name, b_name)));
    known.pop().map(|(_, name)| name)
}

fn longer_first(a: &str, b: &str) -> Ordering {
    b.len().cmp(&a.len())
}

/// The numbers that order packages of one series: `linux-image-6.1.0-56-cloud-amd64` has 6, 1, 0, 56. None for another series, for debug
/// symbols and for metapackages, which have no number beyond the series.
fn version(package: &str, series: &str) -> Option<Vec<u64>> {
    let body = package.strip_prefix("linux-image-")?;
    let body = body.strip_suffix("-unsigned").unwrap_or(body).strip_suffix("-cloud-amd64")?;
    let rest = body.strip_prefix(series)?;
    if !rest.starts_with('.') {
        return None;
    }
    body.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn newest_is_by_number_and_signed() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "initramfs-1.cpio",
        ]
        .map(str::to_owned);
        assert_eq!(newest(names.to_vec(), "6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(names.to_vec(), "6.12").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(names.to_vec(), "5.10"), None);
    }

    #[test]
    fn a_cached_kernel_needs_its_image() -> Result<()> {
        let cache = tempfile::tempdir()?;
        let name = "linux-image-6.1.0-1-cloud-amd64";
        let boot = cache.path().join(name).join("boot");
        fs::create_dir_all(&boot)?;
        assert!(unpacked(cache.path(), name.to_owned()).is_none());
        fs::write(boot.join("vmlinuz-6.1.0-1-cloud-amd64"), "kernel")?;
        assert_eq!(ensure(cache.path(), "6.1")?.package, name, "no apt is asked");
        Ok(())
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "(linux-image-)?[0-9.+a-z-]{0,40}(-cloud-amd64)?", series in "[0-9.]{0,6}") {
            let _ = version(&name, &series);
        }
    }
}
