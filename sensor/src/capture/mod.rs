//! From kernel hooks to decoded records in the order of their time.
//!
//! Invariants worth naming:
//!
//! - **Attach first, then seed, then read**: records that arrive while the seeds are taken wait in the rings, so no process
//!   falls between the two.
//! - **A hook that cannot be had degrades by name**: next tier, or a blind spot with its reason. Nothing panics and nothing
//!   is guessed because a kernel lacks a hook.
//! - **Every record is accounted for**: what the kernel emitted = what was read; what it could not emit is in a counter.

pub mod btf;
mod cgroup;
mod devices;
mod drain;
pub mod files;
pub mod hooks;
pub mod ignore;
pub mod libraries;
pub mod load;
pub mod loss;
pub mod mounts;
pub mod offsets;
pub mod probes;
pub mod ring;
pub mod rings;
pub mod seed;
pub mod syns;
pub mod udp_flows;

pub use hooks::{hook_names, hooks, is_hook_name};
pub use load::{HookReport, HookState, LoadConfig, LoadError, Loaded, load};
