//! The guest's whole file system: busybox, the programs with their libraries, and an `/init` that runs one of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::{Archive, Entry};
use super::{Extra, GUEST_BINARY, libraries};
use crate::command;

/// Where the guest has the program that is run. Its name is kept: a test may look for itself by name.
const PROGRAM_FOLDER: &str = "/root";

/// Where it has modules of its kernel.
const GUEST_MODULES: &str = "/lib/modules";

/// What the guest is to do.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The `bartizan` binary.
    pub(crate) bartizan: &'a Path,
    /// The program to run.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) arguments: &'a [OsString],
    /// Further programs, kept at their paths.
    pub(crate) with: &'a [PathBuf],
    /// Further files and folders.
    pub(crate) files: &'a [Extra],
    /// `NAME=VALUE` for the program.
    pub(crate) environment: &'a [String],
    /// Modules of the guest's kernel, by name.
    pub(crate) modules: Vec<(&'static str, Vec<u8>)>,
    /// Begins the line that names the exit code.
    pub(crate) marker: &'a str,
}

/// Builds the archive.
///
/// # Errors
/// A program or library that cannot be read, an argument that a script cannot hold.
pub(crate) fn build(job: &Job<'_>) -> Result<Vec<u8>> {
    let busybox = command::find_program("busybox").context("busybox is not on this machine: run `apt-get install busybox-static`")?;
    let mut tree = Tree::new();
    tree.skeleton();
    let name = job.program.file_name().with_context(|| format!("{} names no program", job.program.display()))?.to_string_lossy();
    let place = format!("{PROGRAM_FOLDER}/{name}");
    tree.program(&busybox, "/usr/bin/busybox")?;
    tree.program(job.bartizan, GUEST_BINARY)?;
    tree.program(job.program, &place)?;
    for extra in job.with {
        let found = named(extra).with_context(|| format!("--with {}: give an absolute path, or the name of a program", extra.display()))?;
        let path = found.to_str().with_context(|| format!("--with {}: give a path in UTF-8", found.display()))?;
        tree.program(&found, path)?;
    }
    for (name, module) in &job.modules {
        tree.put(&format!("{GUEST_MODULES}/{name}"), Entry::File(0o644, module.clone()));
    }
    for extra in job.files {
        extra.place(&mut tree)?;
    }
    tree.applets(&command::capture(Command::new(&busybox).arg("--list-full"), "run `apt-get install busybox-static`")?);
    tree.put("/init", Entry::File(0o755, init(job, &place)?));
    tree.archive()
}

/// A program by its absolute path, or by its name.
fn named(program: &Path) -> Option<PathBuf> {
    if program.is_absolute() {
        return Some(program.to_owned());
    }
    program.to_str().filter(|name| !name.contains('/')).and_then(command::find_program)
}

/// The script that is process 1.
fn init(job: &Job<'_>, place: &str) -> Result<Vec<u8>> {
    let mut script = Vec::from(
        "#!/bin/sh\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root SHELL=/bin/sh TERM=dumb LANG=C.UTF-8\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mkdir -p /dev/pts /dev/shm\n\
         mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts\n\
         mount -t tmpfs tmpfs /dev/shm\n\
         mount -t tmpfs -o mode=1777 tmpfs /tmp\n\
         mount -t tmpfs -o mode=755 tmpfs /run\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         mount -t tracefs tracefs /sys/kernel/tracing\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t securityfs securityfs /sys/kernel/security\n\
         ip link set lo up\n\
         hostname guest\n\
         ulimit -l unlimited\n\
         cd /root\n",
    );
    let fixed = [format!("BARTIZAN_BIN={GUEST_BINARY}"), "BARTIZAN_VM=1".to_owned(), "RUST_BACKTRACE=1".to_owned()];
    for pair in fixed.iter().chain(job.environment) {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| is_variable(name)) else {
            bail!("--env {pair:?} is not NAME=VALUE: give a name of letters, digits and underscores");
        };
        script.extend_from_slice(format!("export {name}=").as_bytes());
        quote(value.as_bytes(), &mut script)?;
        script.push(b'\n');
    }
    quote(place.as_bytes(), &mut script)?;
    for argument in job.arguments {
        script.push(b' ');
        quote(argument.as_bytes(), &mut script)?;
    }
    // stty sets attributes only after all output is sent: what was printed is out before the power goes.
    script.extend_from_slice(b" </dev/null\ncode=$?\necho\necho ");
    quote(job.marker.as_bytes(), &mut script)?;
    script.extend_from_slice(b" $code\nstty sane </dev/console\npoweroff -f\n");
    Ok(script)
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// One word for a POSIX shell, whatever it holds.
fn quote(word: &[u8], script: &mut Vec<u8>) -> Result<()> {
    if word.contains(&0) {
        bail!("{:?} holds a NUL byte, which no argument can", String::from_utf8_lossy(word));
    }
    script.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => script.extend_from_slice(br"'\''"),
            other => script.push(*other),
        }
    }
    script.push(b'\'');
    Ok(())
}

/// Paths of the guest, without the leading slash. Sorted, so that a folder comes before what is in it.
#[derive(Debug)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Folders, links and files of a merged-/usr system, as Debian's are: /bin/x and /usr/bin/x are one file.
    fn skeleton(&mut self) {
        for folder in ["bin", "sbin", "lib", "lib64"] {
            self.put(&format!("/usr/{folder}"), Entry::Directory(0o755));
            self.0.insert(folder.to_owned(), Entry::Symlink(format!("usr/{folder}")));
        }
        for folder in ["/proc", "/sys", "/dev", "/run", "/etc", "/var/lib", "/var/log", "/mnt"] {
            self.put(folder, Entry::Directory(0o755));
        }
        self.put("/root", Entry::Directory(0o700));
        self.put("/tmp", Entry::Directory(0o1777));
        // Process 1 gets its stdio from here, before devtmpfs is mounted.
        self.put("/dev/console", Entry::Device(0o600, 5, 1));
        self.put("/dev/null", Entry::Device(0o666, 1, 3));
        let files = [
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nsshd:x:100:65534:sshd:/run/sshd:/bin/false\n\
                 nobody:x:65534:65534:nobody:/:/bin/false\n",
            ),
            ("/etc/group", "root:x:0:\ntty:x:5:\nshadow:x:42:\nnogroup:x:65534:\n"),
            ("/etc/hosts", "127.0.0.1 localhost guest\n::1 localhost\n"),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ];
        for (path, text) in files {
            self.put(path, Entry::File(0o644, text.into()));
        }
        // Nobody has a password; PAM's modules want the file.
        self.put(
            "/etc/shadow",
            Entry::File(0o600, "root:*:19000::::::\ndaemon:*:19000::::::\nsshd:!:19000::::::\nnobody:*:19000::::::\n".into()),
        );
    }

    /// Puts an entry at an absolute path, with the folders above it, in place of what was there.
    pub(super) fn put(&mut self, path: &str, entry: Entry) {
        let path = merged(path);
        for (slash, _) in path.match_indices('/') {
            self.0.entry(path[..slash].to_owned()).or_insert(Entry::Directory(0o755));
        }
        self.0.insert(path, entry);
    }

    /// Copies a host's program and its libraries.
    fn program(&mut self, host: &Path, guest: &str) -> Result<()> {
        self.copy(host, guest)?;
        self.libraries(host)
    }

    /// Copies the libraries of a host's program or library, at their paths.
    pub(super) fn libraries(&mut self, host: &Path) -> Result<()> {
        for library in libraries::of(host)? {
            let path = library.to_str().with_context(|| format!("{} is not UTF-8", library.display()))?;
            self.copy(&library, path)?;
        }
        Ok(())
    }

    /// Copies a host's file.
    pub(super) fn copy(&mut self, host: &Path, guest: &str) -> Result<()> {
        if guest.split('/').any(|part| part == "..") {
            bail!("{guest}: give the path without `..`");
        }
        let content = fs::read(host).with_context(|| format!("{} cannot be read for the guest: check the path", host.display()))?;
        let mode = fs::metadata(host).map(|meta| meta.permissions().mode() & 0o777).unwrap_or(0o755);
        self.put(guest, Entry::File(mode, content));
        Ok(())
    }

    /// Links of busybox's commands, except where a real program was put. `listing` is what `busybox --list-full` wrote.
    fn applets(&mut self, listing: &str) {
        for path in listing.lines().map(str::trim).filter(|path| path.contains('/') && !path.contains("..")) {
            let path = merged(path);
            if !self.0.contains_key(&path) {
                self.put(&path, Entry::Symlink("/usr/bin/busybox".to_owned()));
            }
        }
    }

    /// What is at a path, given without the leading slash.
    #[cfg(test)]
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    /// All paths, without the leading slash.
    #[cfg(test)]
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        self.0.iter().try_for_each(|(path, entry)| archive.append(path, entry))?;
        archive.finish()
    }
}

/// The path below the root, through the links /bin, /sbin, /lib and /lib64.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    match path.split('/').next() {
        Some("bin" | "sbin" | "lib" | "lib64") if path.contains('/') => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    fn job<'a>(arguments: &'a [OsString], environment: &'a [String]) -> Job<'a> {
        Job {
            bartizan: Path::new("/b"),
            program: Path::new("/p"),
            arguments,
            with: &[],
            files: &[],
            environment,
            modules: Vec::new(),
            marker: "MARK",
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut tree = Tree::new();
        tree.skeleton();
        tree.put("/lib/x/y/z.so", Entry::File(0o644, vec![]));
        let mut seen = std::collections::BTreeSet::from([String::new()]);
        for (path, entry) in &tree.0 {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            assert!(seen.contains(parent), "{path} has no folder");
            if matches!(entry, Entry::Directory(_)) {
                seen.insert(path.clone());
            }
        }
        assert!(tree.0.contains_key("usr/lib/x/y/z.so"));
        assert_eq!(tree.0.get("lib"), Some(&Entry::Symlink("usr/lib".into())));
    }

    #[test]
    fn a_real_program_wins_over_an_applet() {
        let mut tree = Tree::new();
        tree.put("/bin/nc", Entry::File(0o755, b"real".to_vec()));
        tree.applets("bin/nc\nusr/bin/nc\nbin/ls\nlinuxrc\n../evil/x\n");
        assert_eq!(tree.0.get("usr/bin/nc"), Some(&Entry::File(0o755, b"real".to_vec())));
        assert_eq!(tree.0.get("usr/bin/ls"), Some(&Entry::Symlink("/usr/bin/busybox".into())));
        assert_eq!(tree.0.len(), 4, "{:?}", tree.0.keys());
    }

    #[test]
    fn names_that_are_no_variables_are_refused() {
        for bad in ["A", "=x", "A B=1", "1A=1", "A;reboot=1"] {
            assert!(init(&job(&[], &[bad.to_owned()]), "/p").is_err(), "{bad}");
        }
        assert!(init(&job(&[], &["A_1=any; thing".to_owned()]), "/p").is_ok());
    }

    #[test]
    fn the_script_is_one_that_a_shell_accepts() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("init");
        fs::write(&path, init(&job(&["it's $HOME `x` \\ \n".into()], &[]), "/root/a b")?)?;
        assert!(Command::new("sh").arg("-n").arg(&path).status()?.success());
        Ok(())
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() -> Result<()> {
        for word in ["", "plain", "it's", "$(reboot)", "a\\b", "tab\tnewline\nend", "''", "-n", "ä€"] {
            let mut script = b"printf %s ".to_vec();
            quote(word.as_bytes(), &mut script)?;
            let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output()?;
            assert_eq!(output.stdout, word.as_bytes(), "{word:?}");
        }
        assert!(quote(b"a\0b", &mut Vec::new()).is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn quoting_never_lets_a_word_out(word in proptest::collection::vec(1_u8.., 0..60)) {
            let mut script = Vec::new();
            quote(&word, &mut script).unwrap();
            // A reader of single-quoted strings: only `\'` may stand between two of them.
            let (mut read, mut inside, mut bytes) = (Vec::new(), false, script.iter().copied());
            while let Some(byte) = bytes.next() {
                match (inside, byte) {
                    (_, b'\'') => inside = !inside,
                    (true, other) => read.push(other),
                    (false, b'\\') => {
                        prop_assert_eq!(bytes.next(), Some(b'\''));
                        read.push(b'\'');
                    }
                    (false, other) => prop_assert!(false, "byte {} outside quotes", other),
                }
            }
            prop_assert!(!inside);
            prop_assert_eq!(read, word);
        }
    }
}
