//! Control groups, as container runtimes make them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wait::wait_for;

/// A control group of the unified hierarchy that goes with its owner.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes one of this name below the root of the hierarchy.
    ///
    /// # Panics
    /// The hierarchy is not mounted, or the group is there already.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_else(|error| panic!("cannot read the mounts: {error}"));
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (path, kind) = (fields.nth(1)?, fields.next()?);
            (kind == "cgroup2").then(|| path.to_owned())
        });
        Self::make(PathBuf::from(root.expect("no cgroup2 file system is mounted")).join(name))
    }

    /// Makes one in this one.
    ///
    /// # Panics
    /// It is there already.
    #[track_caller]
    pub fn within(&self, name: &str) -> Self {
        Self::make(self.0.join(name))
    }

    #[track_caller]
    fn make(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The kernel's id of it.
    ///
    /// # Panics
    /// It is gone.
    #[track_caller]
    pub fn id(&self) -> u64 {
        fs::metadata(&self.0).unwrap_or_else(|error| panic!("cannot look at {}: {error}", self.0.display())).ino()
    }

    /// Moves the process `pid` into it.
    ///
    /// # Panics
    /// The kernel refuses.
    #[track_caller]
    pub fn take(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap_or_else(|error| panic!("cannot move {pid}: {error}"));
    }

    /// Has `command` begin in it.
    pub fn begins<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let procs = self.0.join("cgroup.procs");
        // SAFETY: between fork and exec, only a file is written: no lock of another thread is taken.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The kernel empties it a moment after its last process ended.
        wait_for("the control group's end", || fs::remove_dir(&self.0).ok());
    }
}
