//! Looking at the host: everything that `examine` judges. Nothing is changed.

use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bartizan_bus::budget::Disk;

use super::{Clock, Data, Facts, Hooks, Kernel, Sink, Sshd, User};
use crate::capture::btf::{Btf, VMLINUX};
use crate::capture::{LoadConfig, load, offsets};
use crate::config::Config;
use crate::control::ClientError;
use crate::daemon::INITIAL_PID_NAMESPACE;
use crate::host::kernel_release;
use crate::redact::{KEY_FILE, Key};
use crate::report::{blind, hook_status};
use crate::status::StatusReport;

/// Longest wait for a receiver.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest run of `sshd -T`.
const SSHD: Duration = Duration::from_secs(10);

/// Folders that hold administrators' programs; a user's own PATH often lacks them.
const PROGRAM_FOLDERS: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];

/// Folders of the dynamic linker, for Debian's and Red Hat's layout.
const LIBRARY_FOLDERS: &[&str] =
    &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib", "/lib", "/usr/local/lib"];

/// Looks at this host. `running`: what the Bartizan of the data folder says.
pub fn gather(config: &Config, running: Result<StatusReport, ClientError>) -> Facts {
    let root = nix::unistd::geteuid().is_root();
    Facts {
        user: User {
            root,
            capabilities: procfs::process::Process::myself().and_then(|process| process.status()).ok().map(|status| status.capeff),
            host_pids: fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino() == INITIAL_PID_NAMESPACE),
        },
        kernel: kernel(),
        hooks: hooks(config, root, running),
        data: data(config, root),
        clock: clock(),
        sshd: sshd(),
        libpam: library("libpam.so.0"),
        sinks: config.forward.iter().map(sink).collect(),
    }
}

fn kernel() -> Kernel {
    let text = |path: &str| fs::read_to_string(path).ok();
    let lockdown = text("/sys/kernel/security/lockdown");
    Kernel {
        release: kernel_release(),
        machine: nix::sys::utsname::uname().map_or_else(|_| String::new(), |names| names.machine().to_string_lossy().into_owned()),
        btf: Btf::read(Path::new(VMLINUX))
            .map_err(|error| error.to_string())
            .and_then(|btf| offsets::resolve(&btf).map(drop).map_err(|error| error.to_string())),
        lockdown: lockdown.as_deref().and_then(lockdown_mode),
        lsms: text("/sys/kernel/security/lsm").map(|list| list.trim().split(',').map(str::to_owned).collect()),
        bpf_stats: text("/proc/sys/kernel/bpf_stats_enabled").map(|value| value.trim() == "1"),
        tracefs: tracefs(),
        // The root of a bpffs may be empty; its type tells it.
        bpffs: nix::sys::statfs::statfs("/sys/fs/bpf").is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC),
    }
}

/// Whether tracepoints can be seen; only root may look into tracefs.
fn tracefs() -> Option<bool> {
    let looks =
        ["/sys/kernel/tracing/events/syscalls", "/sys/kernel/debug/tracing/events/syscalls"].map(|path| Path::new(path).try_exists());
    if looks.iter().any(|look| matches!(look, Ok(true))) {
        return Some(true);
    }
    looks.iter().all(Result::is_ok).then_some(false)
}

/// The mode in brackets: `none [integrity] confidentiality`.
pub(super) fn lockdown_mode(text: &str) -> Option<String> {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(mode, _)| mode.to_owned())
}

fn hooks(config: &Config, root: bool, running: Result<StatusReport, ClientError>) -> Hooks {
    match running {
        Ok(StatusReport { pid, hooks, blind, .. }) => Hooks::Running { pid, hooks, blind },
        Err(ClientError::NotRunning { .. }) if root => try_hooks(config),
        Err(ClientError::NotRunning { .. }) => Hooks::Untried("this is not root".to_owned()),
        Err(error) => Hooks::Untried(error.to_string()),
    }
}

/// Attaches every hook and detaches it again.
fn try_hooks(config: &Config) -> Hooks {
    // The rings only fill until they are dropped: the smallest will do.
    let loaded = load(&LoadConfig { ring_priority: 64 << 10, ring_bulk: 64 << 10, ..config.sensor.load(&config.files) });
    match loaded {
        Ok(loaded) => {
            let libraries = loaded.kernel.libraries.report();
            let hooks = loaded.hooks.iter().map(|report| hook_status(report, &libraries)).collect();
            Hooks::Tried { hooks, blind: blind(&loaded.hooks, &libraries) }
        }
        Err(error) => Hooks::Refused(error.to_string()),
    }
}

fn data(config: &Config, root: bool) -> Data {
    let folder = &config.data_dir;
    let metadata = fs::metadata(folder).ok();
    let foreign = metadata.map(|folder| (folder.uid(), folder.mode() & 0o7777)).filter(|(owner, mode)| *owner != 0 || mode & 0o022 != 0);
    let budget = config.events_budget();
    let bus = config.bus(&budget);
    let key = || match folder.join(KEY_FILE).try_exists() {
        // It is made at the first start, and not here.
        Ok(false) => Ok(true),
        // Of another user's folder nothing can be said.
        _ if !root => Ok(true),
        Ok(true) => Key::of_host(folder).map(|_| true).map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot look for {}: {error}", folder.join(KEY_FILE).display())),
    };
    Data {
        folder: folder.display().to_string(),
        foreign: foreign.filter(|_| root),
        disk: Disk::of(folder).map_err(|error| error.to_string()),
        budget,
        held: held(&folder.join("streams"), 3),
        others: bus.alerts.max_bytes + bus.matches.max_bytes + bus.responses.max_bytes,
        redaction: if config.redaction.enabled { key() } else { Ok(false) },
    }
}

/// Bytes of the files under a folder, so many levels deep; what cannot be read counts nothing.
fn held(folder: &Path, levels: u32) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && levels > 0 => held(&entry.path(), levels - 1),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn clock() -> Option<Clock> {
    // SAFETY: a plain C structure for which zero bytes are valid; with no mode set the call only reads.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of this frame.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    let unix_s = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).ok()?.tv_sec();
    (state >= 0).then_some(Clock { synchronized: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0, unix_s })
}

fn sshd() -> Sshd {
    let Some(program) = PROGRAM_FOLDERS.iter().map(|folder| Path::new(folder).join("sshd")).find(|path| path.is_file()) else {
        return Sshd::Absent;
    };
    match output(Command::new(program).arg("-T"), SSHD) {
        Ok(text) => Sshd::Settings(sshd_settings(&text)),
        Err(why) => Sshd::Unknown(why),
    }
}

/// Lines of a name and a value.
pub(super) fn sshd_settings(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// Standard output of a program that succeeds in time; else its last complaint.
fn output(command: &mut Command, patience: Duration) -> Result<String, String> {
    use std::io::Read;
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("it cannot be started: {error}"))?;
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // Settings are some kilobytes; a program gone mad is cut off.
            let _ = pipe.map(|pipe| pipe.take(1 << 20).read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = reader(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let stderr = reader(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < patience => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", patience.as_secs()));
            }
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if status.success() {
        return Ok(stdout);
    }
    let complaint = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(format!("{complaint} ({status})"))
}

fn library(name: &str) -> Option<String> {
    let paths = LIBRARY_FOLDERS.iter().map(|folder| PathBuf::from(folder).join(name));
    paths.filter_map(|path| path.canonicalize().ok()).find(|path| path.is_file()).map(|path| path.display().to_string())
}

fn sink(sink: &bartizan_forward::SinkConfig) -> Sink {
    let address = sink.address.to_string();
    let reached = reach(&address).map_err(|error| error.to_string());
    Sink { name: sink.name.to_string(), address, reached }
}

/// Makes a connection to one of the addresses, and ends it.
fn reach(address: &str) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
