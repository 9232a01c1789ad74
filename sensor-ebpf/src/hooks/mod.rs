//! One file per hook activity.

mod connect;
mod exec;
mod exec_failed;
mod exit;
mod fork;
mod seed;
