//! The kernel's audit, switched on for auditd while it is measured, and back to what it was afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// What Debian sets at auditd's start: `-b 8192`, `--backlog_wait_time 60000` and `-f 1` of /etc/audit/rules.d/audit.rules.
const LIMITS: &[&str] = &["-b", "8192", "--backlog_wait_time", "60000", "-f", "1"];

/// The only rule that may be there when we begin, because it is what we leave behind.
const NEVER: &str = "-a never,task";

/// Puts everything back: no rules, off, the limits as they were. Audit that was ever on makes every new task keep the slow way into system
/// calls (`audit_ever_enabled` in kernel/auditsc.c), for which there is no switch, but a rule that spares new tasks.
const RESTORE: &str = "cat >/dev/null; set -e; auditctl -D >/dev/null; \
                       auditctl -e 0 -b \"$1\" --backlog_wait_time \"$2\" -f \"$3\" >/dev/null; auditctl -a never,task >/dev/null";

/// The settings of auditd as Debian has them, except where its log is and that this grows without an end.
fn config(folder: &Path) -> String {
    let (log, plugins) = (folder.join("audit.log"), folder.join("plugins.d"));
    format!(
        "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_group = root\nlog_format = ENRICHED\nflush = INCREMENTAL_ASYNC\n\
         freq = 50\nmax_log_file = 8\nmax_log_file_action = IGNORE\npriority_boost = 4\nname_format = NONE\nspace_left = 75\n\
         space_left_action = SYSLOG\nadmin_space_left = 50\nadmin_space_left_action = SUSPEND\ndisk_full_action = SUSPEND\n\
         disk_error_action = SUSPEND\ndistribute_network = no\nq_depth = 2000\noverflow_action = SYSLOG\nplugin_dir = {}\n",
        log.display(),
        plugins.display()
    )
}

/// Rules for programs, connections, and files below `watched` that are opened for writing or changed.
fn rules(watched: &Path) -> Vec<Vec<String>> {
    let watched = format!("dir={}", watched.display());
    let rule = |rest: &[&str], key: &str| {
        let words = ["-a", "always,exit", "-F", "arch=b64"].iter().chain(rest).copied().chain(["-k", key]);
        words.map(str::to_owned).collect()
    };
    vec![
        rule(&["-S", "execve", "-S", "execveat"], EXEC),
        rule(&["-S", "connect"], CONNECT),
        rule(&["-S", "open", "-S", "openat", "-S", "openat2", "-F", &watched, "-F", "perm=wa"], OPEN),
    ]
}

const EXEC: &str = "bartizan-exec";
const CONNECT: &str = "bartizan-connect";
const OPEN: &str = "bartizan-open";

/// What `auditctl -s` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// 0: off, 1: on, 2: on and locked.
    enabled: u64,
    failure: u64,
    /// Of the daemon; 0 is none.
    pub(super) pid: u64,
    backlog_limit: u64,
    backlog_wait_time: u64,
    /// Records that were lost since the machine started.
    pub(super) lost: u64,
}

impl Status {
    /// Asks the kernel.
    ///
    /// # Errors
    /// auditctl is missing, or this kernel has no audit.
    pub(super) fn ask() -> Result<Self> {
        let text = command::capture(&mut auditctl(&["-s"]), "this kernel has no audit, or we may not control it")?;
        Self::read(&text).with_context(|| format!("`auditctl -s` said {text:?}"))
    }

    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            rest.trim().parse().ok()
        };
        Some(Self {
            enabled: field("enabled")?,
            failure: field("failure")?,
            pid: field("pid")?,
            backlog_limit: field("backlog_limit")?,
            backlog_wait_time: field("backlog_wait_time")?,
            lost: field("lost")?,
        })
    }
}

fn auditctl(words: &[&str]) -> Command {
    let mut auditctl = Command::new(command::find_program("auditctl").unwrap_or_else(|| PathBuf::from("auditctl")));
    command::clean(&mut auditctl).args(words);
    auditctl
}

/// Why auditd cannot be measured here; `None` when it can.
pub(super) fn obstacle() -> Option<String> {
    if command::find_program("auditd").is_none() {
        return Some("auditd is not on this machine: `apt-get install --no-install-recommends auditd`".to_owned());
    }
    let look = || -> Result<Option<String>> {
        let status = Status::ask()?;
        let rules = command::capture(&mut auditctl(&["-l"]), "its rules cannot be listed")?;
        Ok(in_use(&status, &rules))
    };
    look().unwrap_or_else(|error| Some(format!("{error:#}")))
}

/// A machine whose audit is in use is left as it is: its rules would be in every column, and our end would remove them.
fn in_use(status: &Status, rules: &str) -> Option<String> {
    let Status { enabled, pid, failure: _, backlog_limit: _, backlog_wait_time: _, lost: _ } = status;
    let ours = rules.lines().all(|line| line.trim() == NEVER || line.trim() == "No rules");
    (*enabled != 0 || *pid != 0 || !ours)
        .then(|| format!("audit is in use on this machine (enabled {enabled}, daemon {pid}) and stays as it is"))
}

/// While this lives, audit belongs to us. Afterwards it is what it was, also when we are killed: a shell that waits for the end of our pipe
/// restores it, in a process group of its own that Ctrl-C does not reach.
#[derive(Debug)]
pub(super) struct Audit {
    watcher: Child,
}

impl Audit {
    /// Takes audit over.
    ///
    /// # Errors
    /// Somebody uses it, or it cannot be set.
    pub(super) fn begin() -> Result<Self> {
        if let Some(obstacle) = obstacle() {
            bail!("{obstacle}");
        }
        let Status { backlog_limit, backlog_wait_time, failure, enabled: _, pid: _, lost: _ } = Status::ask()?;
        let mut watcher = Command::new("sh");
        let before = [backlog_limit, backlog_wait_time, failure].map(|value| value.to_string());
        watcher.args(["-c", RESTORE, "sh"]).args(before);
        let watcher = watcher.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn().context("sh could not be started")?;
        let audit = Self { watcher };
        command::capture(&mut auditctl(LIMITS), "audit's limits cannot be set")?;
        Ok(audit)
    }

    /// Loads the rules in place of what is there.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(super) fn load(&self, watched: &Path) -> Result<()> {
        command::capture(&mut auditctl(&["-D"]), "audit's rules cannot be removed")?;
        for rule in rules(watched) {
            let words: Vec<&str> = rule.iter().map(String::as_str).collect();
            command::capture(&mut auditctl(&words), "audit refuses the rule")?;
        }
        Ok(())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        if !self.watcher.wait().is_ok_and(|status| status.success()) {
            eprintln!("      warning: audit may still be on: `auditctl -D; auditctl -e 0; auditctl -a never,task`");
        }
    }
}

/// Writes auditd's settings into `folder`; the command that starts it there, in the foreground.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn daemon(mut command: Command, folder: &Path) -> Result<Command> {
    let written = fs::create_dir(folder.join("plugins.d")).and_then(|()| fs::write(folder.join("auditd.conf"), config(folder)));
    written.with_context(|| format!("{} cannot be written", folder.display()))?;
    let auditd = command::find_program("auditd").context("auditd is not on this machine")?;
    command.arg(auditd).arg("-n").arg("-c").arg(folder);
    Ok(command)
}

/// The kernel's thread that hands records to the daemon.
pub(super) fn thread() -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?;
    let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // A kernel thread has no command line.
        read("comm").trim() == "kauditd" && read("cmdline").is_empty()
    })
}

/// Counts the records of auditd's log by what they tell: of the rules' by our kinds, others by their type.
///
/// # Errors
/// The log cannot be read.
pub(super) fn count(mut log: impl BufRead) -> Result<BTreeMap<String, u64>> {
    let (mut counts, mut line) = (BTreeMap::<String, u64>::new(), Vec::new());
    while log.read_until(b'\n', &mut line)? > 0 {
        if let Some(kind) = kind(&String::from_utf8_lossy(&line)) {
            match counts.get_mut(kind) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(kind.to_owned(), 1);
                }
            }
        }
        line.clear();
    }
    Ok(counts)
}

fn kind(line: &str) -> Option<&str> {
    let kind = line.strip_prefix("type=")?.split(' ').next()?;
    if kind != "SYSCALL" {
        return Some(kind);
    }
    let key = line.split_once(" key=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    Some(match key {
        EXEC => "process.exec",
        CONNECT => "network.connect",
        OPEN => "file.open",
        _ => kind,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAID: &str = "enabled 0\nfailure 1\npid 0\nrate_limit 0\nbacklog_limit 64\nlost 3\nbacklog 0\nbacklog_wait_time 15000\n\
                        backlog_wait_time_actual 0\nloginuid_immutable 0 unlocked\n";

    #[test]
    fn status_is_read_by_name() {
        let status = Status { enabled: 0, failure: 1, pid: 0, backlog_limit: 64, backlog_wait_time: 15_000, lost: 3 };
        assert_eq!(Status::read(SAID), Some(status));
        assert_eq!(Status::read("enabled 0\n"), None);
    }

    #[test]
    fn audit_that_somebody_uses_is_left_alone() {
        let free = Status::read(SAID).unwrap();
        assert_eq!(in_use(&free, "No rules\n"), None);
        assert_eq!(in_use(&free, "-a never,task\n"), None);
        assert!(in_use(&free, "-w /etc/passwd -p wa\n").is_some());
        assert!(in_use(&Status { enabled: 1, ..free }, "No rules\n").is_some());
        assert!(in_use(&Status { pid: 7, ..free }, "No rules\n").is_some());
    }

    #[test]
    fn records_are_counted_by_the_rule_that_made_them() -> Result<()> {
        let log = "type=SYSCALL msg=audit(1.2:3): arch=c000003e syscall=59 comm=\"true\" key=\"bartizan-exec\"\x1dARCH=x86_64\n\
                   type=EXECVE msg=audit(1.2:3): argc=1\ntype=SYSCALL msg=audit(1.2:4): syscall=42 key=\"bartizan-connect\"\n\
                   type=SYSCALL msg=audit(1.2:5): syscall=257 key=\"bartizan-open\"\ntype=SYSCALL msg=audit(1.2:6): key=(null)\nnonsense\n";
        let counts = count(log.as_bytes())?;
        let expected = [("process.exec", 1), ("EXECVE", 1), ("network.connect", 1), ("file.open", 1), ("SYSCALL", 1)];
        assert_eq!(counts, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
        Ok(())
    }

    #[test]
    fn the_rules_are_complete_commands() {
        let rules = rules(Path::new("/w"));
        assert_eq!(rules[0].join(" "), "-a always,exit -F arch=b64 -S execve -S execveat -k bartizan-exec");
        assert!(rules.iter().any(|rule| rule.join(" ").contains("-F dir=/w -F perm=wa")));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(type=|enabled |pid )?[A-Z]{0,9} ?[0-9]{0,30}( key=\"[a-z]{0,5}\"?)?\n") {
            let _ = count(bytes.as_slice());
            let _ = count(text.as_bytes());
            let _ = Status::read(&text);
        }
    }
}
