//! One file per hook activity.

mod accept;
mod access;
mod capabilities;
mod cgroup_move;
mod chroot;
mod connect;
mod credentials;
mod exec;
mod exec_failed;
mod exit;
mod fork;
mod io_uring;
mod listen;
mod memfd;
mod memory_exec;
mod namespaces;
mod pam;
mod prctl;
mod probe;
mod rename;
mod seccomp;
mod seed;
mod signal;
mod sshd_log;
