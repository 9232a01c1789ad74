//! `bartizan doctor`: what this kernel and this host allow, what each missing piece costs, and what to do about it.
//!
//! Invariants worth naming:
//!
//! - **Judging is pure**: [`examine`] takes [`Facts`] and gives [`Check`]s. Only `gather` touches the system.
//! - **Nothing stays behind.** Programs are tried and detached; nothing is mounted, made or changed.
//! - **What could not be looked at is said**, and is never "all well".
//! - **Hooks come from [`hooks`](crate::capture::hooks())**, through the same report that `status` has: a new one appears here by itself.
//! - **A remedy is a sentence with what to type in it**, or says that there is nothing to type. docs/doctor.md has each of them, and where
//!   it was tried.

mod gather;
mod hooks;
mod host;
mod kernel;
mod logins;
mod remedies;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use gather::gather;

use crate::status::{Blind, HookStatus};
use bartizan_bus::budget::{Budget, Disk};

/// How a check came out, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Unknown,
    /// It can be better, by what the remedy says.
    Warn,
    /// Something is not seen.
    Blind,
    /// Bartizan cannot run here.
    Stop,
}

impl Grade {
    /// The word on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warn => "WARN",
            Self::Blind => "BLIND",
            Self::Stop => "STOP",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `<part>.<what>`; stable, for scripts.
    pub id: String,
    /// How it came out.
    pub grade: Grade,
    /// What was found.
    pub finding: String,
    /// What that costs in detection; empty when it is OK.
    pub costs: Vec<String>,
    /// What to do.
    pub remedies: Vec<String>,
}

impl Check {
    fn new(id: &str, grade: Grade, finding: impl Into<String>) -> Self {
        Self { id: id.to_owned(), grade, finding: finding.into(), costs: Vec::new(), remedies: Vec::new() }
    }

    fn ok(id: &str, finding: impl Into<String>) -> Self {
        Self::new(id, Grade::Ok, finding)
    }

    fn costs(mut self, cost: impl Into<String>) -> Self {
        self.costs.push(cost.into());
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }
}

/// What the whole comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything is OK.
    Well,
    /// Something can be better, is not seen, or could not be looked at.
    Improvable,
    /// Bartizan cannot run.
    CannotRun,
}

/// The verdict over the checks.
pub fn verdict(checks: &[Check]) -> Verdict {
    match checks.iter().map(|check| check.grade).max() {
        None | Some(Grade::Ok) => Verdict::Well,
        Some(Grade::Unknown | Grade::Warn | Grade::Blind) => Verdict::Improvable,
        Some(Grade::Stop) => Verdict::CannotRun,
    }
}

/// What was found of this host. `None` and `Err` are what could not be looked at.
#[derive(Debug)]
pub struct Facts {
    /// Who asks.
    pub user: User,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its hooks.
    pub hooks: Hooks,
    /// The data folder.
    pub data: Data,
    /// Its clock.
    pub clock: Option<Clock>,
    /// Its login server.
    pub sshd: Sshd,
    /// Path of libpam.
    pub libpam: Option<String>,
    /// Its receivers.
    pub sinks: Vec<Sink>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Effective uid 0.
    pub root: bool,
    /// Effective capabilities, the kernel's bit mask.
    pub capabilities: Option<u64>,
    /// In the initial pid namespace.
    pub host_pids: Option<bool>,
}

/// The kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Release, such as `6.1.0-32-cloud-amd64`.
    pub release: String,
    /// Processor, such as `x86_64`.
    pub machine: String,
    /// Whether its type information can be read and knows what the programs need; else why not.
    pub btf: Result<(), String>,
    /// Lockdown mode: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// Active security modules.
    pub lsms: Option<Vec<String>>,
    /// `kernel.bpf_stats_enabled`.
    pub bpf_stats: Option<bool>,
    /// tracefs is mounted where tracepoints are looked for.
    pub tracefs: Option<bool>,
    /// bpffs is mounted.
    pub bpffs: bool,
}

/// What each hook gets.
#[derive(Debug)]
pub enum Hooks {
    /// A running Bartizan says so.
    Running {
        /// Its pid.
        pid: u32,
        /// Its hooks.
        hooks: Vec<HookStatus>,
        /// What it does not see.
        blind: Vec<Blind>,
    },
    /// They were attached for this, and detached.
    Tried {
        /// The hooks.
        hooks: Vec<HookStatus>,
        /// What would not be seen.
        blind: Vec<Blind>,
    },
    /// Nothing could be loaded at all.
    Refused(String),
    /// They were not tried.
    Untried(String),
}

/// The data folder and its disk.
#[derive(Debug)]
pub struct Data {
    /// The folder.
    pub folder: String,
    /// Owner and mode when somebody else than root could write there.
    pub foreign: Option<(u32, u32)>,
    /// Its disk; else why it cannot be asked.
    pub disk: Result<Disk, String>,
    /// Budget of EVENTS.
    pub budget: Budget,
    /// Bytes that the streams hold already.
    pub held: u64,
    /// Most bytes of the other streams together.
    pub others: u64,
    /// Redaction: `Ok(false)` when it is turned off; else why its key cannot be used.
    pub redaction: Result<bool, String>,
}

/// The clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The kernel was told by a time service that it is right.
    pub synchronized: bool,
    /// Seconds since 1970.
    pub unix_s: i64,
}

/// The login server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sshd {
    /// There is none.
    Absent,
    /// `sshd -T` did not say.
    Unknown(String),
    /// Its effective settings, as `sshd -T` writes them: lower-case name and value.
    Settings(Vec<(String, String)>),
}

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Name from the configuration.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// A connection was made; else why not.
    pub reached: Result<(), String>,
}

/// Every check, in the order of the page.
pub fn examine(facts: &Facts) -> Vec<Check> {
    let Facts { user, kernel, hooks, data, clock, sshd, libpam, sinks } = facts;
    let mut checks = host::user(user);
    checks.extend(kernel::kernel(kernel));
    checks.extend(hooks::hooks(hooks, kernel));
    checks.extend(host::data(data));
    checks.push(host::clock(*clock));
    checks.extend(logins::sshd(sshd));
    checks.push(logins::libpam(libpam.as_deref(), sshd));
    checks.extend(sinks.iter().map(host::sink));
    checks
}
