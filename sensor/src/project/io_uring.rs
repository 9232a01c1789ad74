//! `process.io_uring`, `process.io_uring_op`.

use bartizan_bus::event::{self, Body};
use bartizan_sensor_ebpf::abi::{IoUring, IoUringOp};

use super::{Act, What, text};

pub(super) fn project(record: &IoUring) -> What {
    let IoUring { header: _, entries, flags } = record;
    Act::done(Body::IoUring(event::IoUring { entries: *entries, flags: *flags })).into()
}

pub(super) fn project_op(record: &IoUringOp) -> What {
    let IoUringOp { header: _, opcode, fd, path, other } = record;
    let body = event::IoUringOp { op: name(*opcode), fd: *fd as i32, path: text::string(Some(path)), to: text::string(Some(other)) };
    Act::of_unknown_result(Body::IoUringOp(body)).into()
}

/// include/uapi/linux/io_uring.h, `IORING_OP_*`.
fn name(opcode: u32) -> String {
    let name = match opcode {
        13 => "ACCEPT",
        16 => "CONNECT",
        18 => "OPENAT",
        28 => "OPENAT2",
        35 => "RENAMEAT",
        36 => "UNLINKAT",
        37 => "MKDIRAT",
        38 => "SYMLINKAT",
        39 => "LINKAT",
        41 => "FSETXATTR",
        42 => "SETXATTR",
        45 => "SOCKET",
        46 => "URING_CMD",
        55 => "FTRUNCATE",
        56 => "BIND",
        57 => "LISTEN",
        other => return format!("operation {other}"),
    };
    name.to_owned()
}
