//! Programs attached to functions of shared libraries: which files they are, and what happens when a file is replaced.
//!
//! A uprobe belongs to one inode. A package upgrade puts another file in the place of the old one, and what already runs goes on with
//! the old one; a container has a file of its own. So every file is attached to that is installed in a usual place, and every one that
//! a process has mapped. [`Libraries::refresh`] looks again: at the usual places each time, which costs a few stat(2), and at all
//! processes when it is told to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope};

use super::hooks::{Attach, ProgramSpec};

/// A shared library with functions to attach to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Linux-PAM.
    Pam,
    /// The GNU C library; of running processes only sshd's own is looked for.
    C,
}

impl Library {
    /// File name.
    pub fn soname(self) -> &'static str {
        match self {
            Self::Pam => "libpam.so.0",
            Self::C => "libc.so.6",
        }
    }

    /// Whether files that this process has mapped are of interest.
    fn of_interest(self, process: &Path) -> bool {
        match self {
            Self::Pam => true,
            Self::C => fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("sshd")),
        }
    }

    /// Whether a mapped file of this name is the library: `libpam.so.0`, or what that links to, such as `libpam.so.0.85.1`. A file that
    /// was replaced carries ` (deleted)` behind its name.
    fn is_named(self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = name.split(' ').next().unwrap_or_default();
        // dpkg unpacks beside the old file and renames it afterwards.
        let name = name.split(".dpkg-").next().unwrap_or_default();
        name.strip_prefix(self.soname()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// Where distributions put it on x86-64.
const PLACES: &[&str] =
    &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// Files of one library that are attached to at once, at most: the oldest that is not installed any more makes room.
const FILES: usize = 16;

/// One file, by what the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A file as it was found: what to open, and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    id: FileId,
    open: PathBuf,
    shown: String,
}

/// A hook that wants a library.
struct Wanted {
    hook: &'static str,
    library: Library,
    programs: &'static [ProgramSpec],
}

/// A file with programs on it.
struct Attached {
    hook: &'static str,
    library: Library,
    id: FileId,
    shown: String,
    links: Vec<(&'static str, UProbeLinkId)>,
}

/// One file, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryReport {
    /// Hook whose programs are on it.
    pub hook: &'static str,
    /// The file's name when it was found.
    pub path: String,
    /// Its inode number.
    pub inode: u64,
    /// Why nothing could be attached; `None` when it is.
    pub problem: Option<String>,
}

/// All files with programs on them.
#[derive(Default)]
pub struct Libraries {
    wanted: Vec<Wanted>,
    attached: Vec<Attached>,
    /// Files that could not be attached to, with the reason: not tried again.
    refused: Vec<(&'static str, FileId, String, String)>,
    /// Files that made room.
    dropped: u64,
}

impl Libraries {
    /// Notes that `hook` wants its (loaded) programs on every file of the library.
    pub fn want(&mut self, hook: &'static str, programs: &'static [ProgramSpec]) {
        let library = programs.iter().find_map(|spec| match spec.attach {
            Attach::Uprobe { library, .. } => Some(library),
            _ => None,
        });
        if let Some(library) = library {
            self.wanted.push(Wanted { hook, library, programs });
        }
    }

    /// Attaches to what is there and was not attached to yet; with `processes` also to what running processes have mapped. Returns a
    /// sentence for each change.
    pub fn refresh(&mut self, ebpf: &mut Ebpf, processes: bool) -> Vec<String> {
        let mut changes = Vec::new();
        for index in 0..self.wanted.len() {
            let Wanted { hook, library, programs } = self.wanted[index];
            let mut files = installed(library);
            if processes {
                files.extend(mapped(library));
            }
            for file in files {
                let known = self.attached.iter().any(|attached| attached.hook == hook && attached.id == file.id)
                    || self.refused.iter().any(|(of, id, _, _)| *of == hook && *id == file.id);
                if known {
                    continue;
                }
                let Found { id, open, shown } = file;
                match attach(ebpf, programs, &open) {
                    Ok(links) => {
                        changes.push(format!("{hook} is attached to {shown} (inode {})", id.inode));
                        self.attached.push(Attached { hook, library, id, shown, links });
                    }
                    Err(reason) => {
                        changes.push(format!("{hook} cannot be attached to {shown}: {reason}"));
                        self.refused.push((hook, id, shown, reason));
                        self.refused.truncate(4 * FILES);
                    }
                }
            }
            self.make_room(ebpf, hook, library);
        }
        changes
    }

    /// Detaches from the oldest files beyond the bound, but for those that are installed.
    fn make_room(&mut self, ebpf: &mut Ebpf, hook: &str, library: Library) {
        while self.attached.iter().filter(|attached| attached.hook == hook && attached.library == library).count() > FILES {
            let installed: Vec<FileId> = installed(library).into_iter().map(|file| file.id).collect();
            let oldest = self.attached.iter().position(|attached| attached.hook == hook && !installed.contains(&attached.id));
            let Some(oldest) = oldest else { return };
            detach(ebpf, self.attached.remove(oldest).links);
            self.dropped += 1;
        }
    }

    /// Whether `hook` is on any file.
    pub fn is_attached(&self, hook: &str) -> bool {
        self.attached.iter().any(|attached| attached.hook == hook)
    }

    /// Every file.
    pub fn report(&self) -> Vec<LibraryReport> {
        let attached = self.attached.iter().map(|Attached { hook, library: _, id, shown, links: _ }| LibraryReport {
            hook,
            path: shown.clone(),
            inode: id.inode,
            problem: None,
        });
        let refused = self.refused.iter().map(|(hook, id, path, reason)| LibraryReport {
            hook,
            path: path.clone(),
            inode: id.inode,
            problem: Some(reason.clone()),
        });
        attached.chain(refused).collect()
    }
}

/// The files in the usual places, each once.
fn installed(library: Library) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for place in PLACES {
        let path = Path::new(place).join(library.soname());
        if let Ok(id) = FileId::of(&path)
            && !found.iter().any(|other| other.id == id)
        {
            found.push(Found { id, shown: path.display().to_string(), open: path });
        }
    }
    found
}

/// The files that running processes have mapped, each once. They are opened through the mapping itself, so neither a container's own
/// tree nor a deleted name matters.
fn mapped(library: Library) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    for process in processes.flatten().map(|entry| entry.path()) {
        let is_process = process.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        if !is_process || !library.of_interest(&process) {
            continue;
        }
        // Processes end while they are looked at.
        let Ok(maps) = fs::read_to_string(process.join("maps")) else { continue };
        for (range, path) in maps.lines().filter_map(executable) {
            if !library.is_named(path) {
                continue;
            }
            let open = process.join("map_files").join(range);
            if let Ok(id) = FileId::of(&open)
                && !found.iter().any(|other| other.id == id)
            {
                found.push(Found { id, open, shown: path.to_owned() });
            }
        }
    }
    found
}

/// Range and path of an executable mapping of a file: `7f..-7f.. r-xp 0000a000 08:01 1234   /lib/libpam.so.0`, proc_pid_maps(5).
fn executable(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, modes) = (fields.next()?, fields.next()?);
    let path = line.get(line.find('/')?..)?;
    modes.contains('x').then_some((range, path))
}

/// Attaches all `programs` to the file, or none.
fn attach(ebpf: &mut Ebpf, programs: &[ProgramSpec], file: &Path) -> Result<Vec<(&'static str, UProbeLinkId)>, String> {
    let mut links = Vec::new();
    for ProgramSpec { program, attach, optional, part: _ } in programs {
        let Attach::Uprobe { library: _, symbol, cookie } = attach else { continue };
        let result = uprobe(ebpf, program).and_then(|probe| {
            let point = UProbeAttachPoint { location: UProbeAttachLocation::Symbol(symbol), cookie: *cookie };
            probe.attach(point, file, UProbeScope::AllProcesses).map_err(|error| sentence(symbol, &error))
        });
        match result {
            Ok(link) => links.push((*program, link)),
            Err(_) if *optional => {}
            Err(reason) => {
                detach(ebpf, links);
                return Err(reason);
            }
        }
    }
    Ok(links)
}

fn sentence(symbol: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{symbol}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn detach(ebpf: &mut Ebpf, links: Vec<(&'static str, UProbeLinkId)>) {
    for (program, link) in links {
        // One that is gone already is what was wanted.
        let _ = uprobe(ebpf, program).map(|probe| probe.detach(link));
    }
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut UProbe, String> {
    let probe = ebpf.program_mut(program).ok_or_else(|| format!("the kernel object has no program {program}"))?;
    probe.try_into().map_err(|error| format!("{program}: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mapped_libraries_are_known_by_name_also_when_replaced() {
        for path in [
            "/lib/x/libpam.so.0",
            "/usr/lib/libpam.so.0.85.1",
            "/usr/lib/libpam.so.0.85.1 (deleted)",
            "/l/libpam.so.0.85.1.dpkg-new (deleted)",
        ] {
            assert!(Library::Pam.is_named(path), "{path}");
        }
        for path in ["/lib/libpam_misc.so.0", "/lib/libpam.so.00", "/lib/libpam.so", "/libpam.so.0/x", ""] {
            assert!(!Library::Pam.is_named(path), "{path}");
        }
    }

    #[test]
    fn only_executable_mappings_of_files_count() {
        let line = "7f1c4000a000-7f1c40013000 r-xp 00003000 fe:00 1837 /usr/lib/a b/libpam.so.0.85.1 (deleted)";
        assert_eq!(executable(line), Some(("7f1c4000a000-7f1c40013000", "/usr/lib/a b/libpam.so.0.85.1 (deleted)")));
        assert_eq!(executable("7f1c4000a000-7f1c40013000 r--p 00003000 fe:00 1837 /lib/libpam.so.0"), None);
        assert_eq!(executable("7ffd8d9f1000-7ffd8da12000 rwxp 00000000 00:00 0 [stack]"), None);
    }

    #[test]
    fn this_process_s_own_libc_is_found_through_its_mapping() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let (range, path) = maps.lines().filter_map(executable).find(|(_, path)| Library::C.is_named(path)).unwrap();
        let open = Path::new("/proc/self/map_files").join(range);
        // Following the link takes CAP_CHECKPOINT_RESTORE; by its path it is the same file.
        if let Ok(id) = FileId::of(&open) {
            assert_eq!(id, FileId::of(Path::new(path)).unwrap());
        }
        assert!(installed(Library::C).iter().any(|found| found.id == FileId::of(Path::new(path)).unwrap()));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "\\PC{0,120}") {
            if let Some((_, path)) = executable(&line) {
                let _ = Library::Pam.is_named(path);
            }
        }
    }
}
