//! One file per hook activity.

mod accept;
mod connect;
mod credentials;
mod exec;
mod exec_failed;
mod exit;
mod fork;
mod listen;
mod pam;
mod probe;
mod seed;
mod signal;
mod sshd_log;
