//! The harness of the end-to-end tests: a real sensor on a real kernel, real attackers and real peers.
//!
//! Invariants worth naming:
//!
//! - **Silence is proven, not waited for.** [`Sensor::settle`] runs a marker program and waits until the detectors have
//!   acknowledged the marker's own exec event: whatever happened before it has been judged, and its alerts are on disk.
//! - **A deadline judges no speed.** [`wait_for`] ends early when what it waits for is there; its limit only ends a hang.
//! - **Nothing is left behind.** Every process that the harness starts ends with its owner, by pid or process group;
//!   every folder goes too, unless its test failed: then it stays and its place is printed.
//! - **What is missing fails the test**, in a sentence that names the package. Nothing is skipped.
//!
//! The harness is for tests, so what it cannot do makes it panic with a sentence that says what, where and why.

mod attacker;
mod binary;
pub mod bpf;
mod control_group;
mod folder;
mod hub;
mod login_server;
mod namespace;
mod need;
mod outcome;
pub mod pam;
mod port;
mod process;
mod recorder;
mod rsyslog;
mod scene;
mod sensor;
mod session;
mod settle;
mod shell;
mod sshd;
mod tier;
pub mod trigger;
pub mod uring;
mod wait;
pub mod ways;

pub use attacker::{Attacker, Line};
pub use binary::bartizan;
pub use control_group::ControlGroup;
pub use folder::Folder;
pub use hub::Hub;
pub use login_server::{Account, LoginServer, LoginServerConfig};
pub use namespace::Namespace;
pub use need::{kernel_is_at_least, need, need_root};
pub use outcome::{Outcome, run};
pub use port::free_port;
pub use process::{Group, VICTIM_PATH, victim};
pub use recorder::Recorder;
pub use rsyslog::Rsyslog;
pub use scene::{Scene, play};
pub use sensor::{Sensor, SensorConfig, lineage, peers};
pub use session::Session;
pub use shell::{Culprit, KINDS, Kind, Speech};
pub use sshd::Sshd;
pub use wait::{DEADLINE, wait_for, wait_for_within, wait_until};
