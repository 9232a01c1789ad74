//! File systems that capture needs and a bare system may lack.

use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Where the kernel shows its tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Mounts tracefs when no tracepoint can be found, which the fallback tier needs. Returns what was done, for the log.
pub fn ensure_tracefs() -> Option<String> {
    if Path::new(TRACEFS).join("events/syscalls").exists() || Path::new("/sys/kernel/debug/tracing/events/syscalls").exists() {
        return None;
    }
    match mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None::<&str>) {
        Ok(()) => Some(format!("mounted tracefs at {TRACEFS}")),
        Err(error) => Some(format!("cannot mount tracefs at {TRACEFS}: {error}; hooks that need system-call tracepoints will be missing")),
    }
}
