//! `[files]`: which files are watched.

use serde::Deserialize;

/// Files whose changes, and opens for writing, are told unless `files.watch` says otherwise: accounts and their rights, how programs are
/// started, found and authenticated, and the traces that attackers remove.
const WATCH: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/pam.conf",
    "/etc/pam.d",
    "/etc/security",
    "/etc/nsswitch.conf",
    "/etc/ssh",
    "/root/.ssh",
    "/home/*/.ssh",
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron",
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/root/.config/systemd/user",
    "/home/*/.config/systemd/user",
    "/etc/init.d",
    "/etc/rc.local",
    "/etc/inittab",
    "/etc/ld.so.preload",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/usr/lib/security",
    "/usr/lib/*/security",
    "/etc/modules",
    "/etc/modules-load.d",
    "/etc/modprobe.d",
    "/etc/udev/rules.d",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/environment",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/bash.bashrc",
    "/etc/update-motd.d",
    "/etc/xdg/autostart",
    "/home/*/.config/autostart",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/apt.conf.d",
    "/etc/yum.repos.d",
    "/root/.bashrc",
    "/root/.profile",
    "/root/.bash_profile",
    "/root/.bash_history",
    "/home/*/.bashrc",
    "/home/*/.profile",
    "/home/*/.bash_profile",
    "/home/*/.bash_history",
    "/var/log/wtmp",
    "/var/log/btmp",
    "/var/log/lastlog",
    "/var/log/auth.log",
    "/var/log/secure",
    "/var/log/audit",
    "/proc/sysrq-trigger",
];

/// Files that hold secrets: who reads them is told too, unless `files.read` says otherwise.
const READ: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/ssh/ssh_host_*_key",
    "/etc/krb5.keytab",
    "/root/.ssh",
    "/home/*/.ssh",
    "/root/.aws",
    "/home/*/.aws",
    "/root/.azure",
    "/home/*/.azure",
    "/root/.config/gcloud",
    "/home/*/.config/gcloud",
    "/root/.kube",
    "/home/*/.kube",
    "/root/.docker/config.json",
    "/home/*/.docker/config.json",
    "/root/.gnupg",
    "/home/*/.gnupg",
    "/root/.netrc",
    "/home/*/.netrc",
    "/root/.git-credentials",
    "/home/*/.git-credentials",
    "/root/.pgpass",
    "/home/*/.pgpass",
    "/root/.vault-token",
    "/home/*/.vault-token",
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/pki",
    "/var/lib/kubelet/pki",
    "/proc/kcore",
];

/// `[files]`: which files are watched. Paths may hold `*` for any characters of one component. A path that names a folder stands for
/// everything below it. What does not exist yet is watched for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// Changes of these, and opens for writing, are told.
    pub watch: Vec<String>,
    /// Further ones, besides `watch`.
    pub extra_watch: Vec<String>,
    /// Of these, who opens them to read is told besides.
    pub read: Vec<String>,
    /// Further ones, besides `read`.
    pub extra_read: Vec<String>,
    /// Nothing is told of these, nor of what is below them, whatever the other lists say.
    pub ignore: Vec<String>,
    /// Renames and removals of every other file are told too.
    pub everywhere: bool,
}

impl Default for FilesConfig {
    fn default() -> Self {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Self {
            watch: owned(WATCH),
            extra_watch: Vec::new(),
            read: owned(READ),
            extra_read: Vec::new(),
            ignore: Vec::new(),
            everywhere: true,
        }
    }
}

/// Entries of all lists together, at most.
const ENTRIES_MAX: usize = 1024;

impl FilesConfig {
    /// What is wrong, in a sentence.
    ///
    /// # Errors
    /// An entry is no absolute path without `.` and `..`, or there are too many.
    pub fn validate(&self) -> Result<(), String> {
        let Self { watch, extra_watch, read, extra_read, ignore, everywhere: _ } = self;
        for (key, paths) in [("watch", watch), ("extra_watch", extra_watch), ("read", read), ("extra_read", extra_read), ("ignore", ignore)]
        {
            for path in paths {
                let Some(relative) = path.strip_prefix('/') else {
                    return Err(format!("files.{key}: {path:?} is not an absolute path: begin it with /"));
                };
                if relative.is_empty() {
                    return Err(format!("files.{key}: \"/\" would name everything: name folders below it"));
                }
                if relative.split('/').any(|component| matches!(component, "" | "." | "..")) {
                    return Err(format!("files.{key}: {path:?} has an empty component, `.` or `..`: write the path without them"));
                }
                if path.contains('\0') {
                    return Err(format!("files.{key}: {path:?} holds a NUL byte, which no path can"));
                }
            }
        }
        let entries = watch.len() + extra_watch.len() + read.len() + extra_read.len() + ignore.len();
        if entries > ENTRIES_MAX {
            return Err(format!("[files] names {entries} paths and {ENTRIES_MAX} are allowed: name the folders above them"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_path_is_there_once() {
        let config = FilesConfig::default();
        assert_eq!(config.validate(), Ok(()));
        for mut list in [config.watch, config.read] {
            let count = list.len();
            list.sort();
            list.dedup();
            assert_eq!(list.len(), count);
        }
    }

    #[test]
    fn what_cannot_be_watched_is_refused_by_its_key() {
        for (path, expected) in
            [("etc/passwd", "not an absolute path"), ("/", "name everything"), ("/etc/../x", "`..`"), ("/a//b", "empty")]
        {
            let config = FilesConfig { extra_read: vec![path.to_owned()], ..FilesConfig::default() };
            let error = config.validate().unwrap_err();
            assert!(error.starts_with("files.extra_read") && error.contains(expected), "{error}");
        }
        let config = FilesConfig { extra_watch: vec!["/x".to_owned(); ENTRIES_MAX], ..FilesConfig::default() };
        assert!(config.validate().unwrap_err().contains("1024 are allowed"));
    }
}
