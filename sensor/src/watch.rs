//! What the sensor needs of the kernel while it runs: whether ftrace still calls its programs, and the mode of lockdown.
//!
//! `kernel.ftrace_enabled` at 0 takes every fentry and fexit program out of the kernel's code while their links stay: nothing else tells that
//! they are silent. The programs of other types (tp_btf, cgroup, tracepoints, uprobes) go on.

use std::fs;
use std::io;

use bartizan_bus::event::{Body, Health, Lockdown, LockdownAct, Severity};

const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// What is told of ftrace by its name.
const CHECK: &str = "ftrace";

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// `kernel.ftrace_enabled`; `None` where the kernel has no such setting.
    pub ftrace: Option<bool>,
    /// Mode of lockdown; `None` where there is none, or securityfs is not mounted.
    pub lockdown: Option<String>,
}

impl Reading {
    /// Looks.
    pub fn now() -> Self {
        Self { ftrace: fs::read_to_string(FTRACE).ok().map(|text| text.trim() != "0"), lockdown: lockdown(fs::read_to_string(LOCKDOWN)) }
    }
}

/// The mode in brackets of `none [integrity] confidentiality`.
fn lockdown(text: io::Result<String>) -> Option<String> {
    let text = text.ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// What is known of the kernel.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<Reading>,
    silent: bool,
}

impl Watch {
    /// What has changed since the last look, as events; `traced` are the hooks that ftrace calls.
    pub fn look(&mut self, reading: Reading, traced: &[&'static str]) -> Vec<(Severity, Body)> {
        let mut events = Vec::new();
        let silent = reading.ftrace == Some(false) && !traced.is_empty();
        if silent != self.silent {
            self.silent = silent;
            let severity = if silent { Severity::Critical } else { Severity::Medium };
            let text = if silent {
                SILENCED
            } else {
                "kernel.ftrace_enabled is 1 again: the programs that ftrace calls see what happens from here on"
            };
            let hooks = traced.iter().map(|hook| (*hook).to_owned()).collect();
            events.push((severity, Body::Health(Health { check: CHECK.to_owned(), works: !silent, text: text.to_owned(), hooks })));
        }
        if let Some(last) = self.last.as_ref().filter(|last| last.lockdown != reading.lockdown) {
            let body = Lockdown { act: LockdownAct::Mode, reason: None, mode: reading.lockdown.clone(), old_mode: last.lockdown.clone() };
            events.push((Severity::Medium, Body::Lockdown(body)));
        }
        self.last = Some(reading);
        events
    }

    /// Whether the programs that ftrace calls are silent.
    pub fn silent(&self) -> bool {
        self.silent
    }

    /// Mode of lockdown.
    pub fn lockdown(&self) -> Option<&str> {
        self.last.as_ref()?.lockdown.as_deref()
    }
}

/// What to say and do.
pub const SILENCED: &str = "kernel.ftrace_enabled is 0, so the kernel calls none of the programs below: type `sysctl -w kernel.ftrace_enabled=1`, and find out who wrote it (kernel.sysctl events)";

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(ftrace: Option<bool>, lockdown: Option<&str>) -> Reading {
        Reading { ftrace, lockdown: lockdown.map(str::to_owned) }
    }

    #[test]
    fn silence_is_told_once_and_its_end_once() {
        let mut watch = Watch::default();
        let hooks = ["kernel_module"];
        let mut told = |ftrace| {
            let events = watch.look(reading(ftrace, None), &hooks);
            events.into_iter().map(|(severity, _)| severity).collect::<Vec<_>>()
        };
        assert!(told(Some(true)).is_empty());
        assert_eq!(told(Some(false)), [Severity::Critical]);
        assert!(told(Some(false)).is_empty());
        assert_eq!(told(Some(true)), [Severity::Medium]);
        assert!(told(None).is_empty());
    }

    #[test]
    fn without_programs_that_ftrace_calls_nothing_is_silent() {
        let mut watch = Watch::default();
        assert!(watch.look(reading(Some(false), None), &[]).is_empty());
        assert!(!watch.silent());
        assert_eq!(watch.look(reading(Some(false), None), &["x"]).len(), 1, "and silent from the start with them");
    }

    #[test]
    fn another_mode_of_lockdown_is_told() {
        let mut watch = Watch::default();
        assert!(watch.look(reading(None, Some("none")), &[]).is_empty(), "the first look is no change");
        let events = watch.look(reading(None, Some("integrity")), &[]);
        let [(_, Body::Lockdown(body))] = &events[..] else { panic!("{events:?}") };
        assert_eq!((body.old_mode.as_deref(), body.mode.as_deref()), (Some("none"), Some("integrity")));
        assert_eq!(watch.lockdown(), Some("integrity"));
    }

    #[test]
    fn the_mode_stands_in_brackets() {
        let mode = |text: &str| lockdown(Ok(text.to_owned()));
        assert_eq!(mode("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!((mode(""), mode("none ]["), mode("[none")), (None, None, None));
    }
}
