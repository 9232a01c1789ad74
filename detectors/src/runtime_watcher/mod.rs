//! Module `runtime_watcher`: what processes do that programs in their right mind do not.

mod invocation;
mod judge;
mod loops;
mod processes;
mod programs;
mod report;
mod reverse_shell;
mod sanctions;
mod sockets;

#[cfg(test)]
mod reverse_shell_tests;

use bartizan_bus::event::{SecurityEvent, Severity};

pub use self::reverse_shell::RULE as REVERSE_SHELL;
pub use self::sanctions::LOGIN_SERVICES;
use crate::config::RuntimeWatcherConfig;
use crate::detector::{Context, Description, Detector, Findings, RestoreError, RuleDescription, StateInfo};
use reverse_shell::ReverseShell;

/// Id of the module.
pub const ID: &str = "runtime_watcher";

/// The module: its rules, each with a state of its own.
pub struct RuntimeWatcher {
    reverse_shell: Option<ReverseShell>,
}

impl RuntimeWatcher {
    /// With the rules that the configuration leaves on.
    pub fn new(config: &RuntimeWatcherConfig) -> Self {
        let rule = &config.reverse_shell;
        Self { reverse_shell: rule.enabled.then(|| ReverseShell::new(rule)) }
    }
}

impl Detector for RuntimeWatcher {
    fn describe(&self) -> Description {
        Description {
            id: ID,
            title: "Watches what processes do at run time",
            rules: vec![RuleDescription {
                id: REVERSE_SHELL,
                title: "A shell or interpreter takes its commands from a network connection",
                attack: &[
                    ("TA0002", "T1059"),
                    ("TA0002", "T1059.001"),
                    ("TA0002", "T1059.004"),
                    ("TA0002", "T1059.006"),
                    ("TA0002", "T1059.007"),
                    ("TA0011", "T1095"),
                ],
                severity: Severity::Critical,
                knobs: &[
                    "enabled",
                    "extra_shells",
                    "extra_interpreters",
                    "extra_login_services",
                    "services",
                    "max_processes",
                    "max_connections",
                    "max_reports",
                ],
            }],
            kinds: &["process.exec", "process.fork", "process.exit", "process.seed", "network.connect"],
        }
    }

    fn observe(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        if let Some(rule) = &mut self.reverse_shell {
            rule.observe(event, context, out);
        }
    }

    fn tick(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        if let Some(rule) = &mut self.reverse_shell {
            rule.settle(event, context, out);
        }
    }

    fn state(&self) -> StateInfo {
        self.reverse_shell.as_ref().map(ReverseShell::state).unwrap_or_default()
    }

    fn save(&self) -> Vec<u8> {
        self.reverse_shell.as_ref().map(ReverseShell::save).unwrap_or_default()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        match &mut self.reverse_shell {
            Some(rule) => rule.restore(bytes),
            None => Ok(()),
        }
    }
}
