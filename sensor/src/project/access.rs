//! `process.access`.

use bartizan_bus::event::{self, AccessHow, Body};
use bartizan_sensor_ebpf::abi::Access;

use super::{Act, What, calls, errno};

/// include/uapi/linux/ptrace.h.
const PTRACE_TRACEME: u64 = 0;
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;

pub(super) fn project(record: &Access) -> What {
    let Access { header, target, request, call, error, mode: _, pid } = record;
    let how = match calls::name(header, *call).as_str() {
        "ptrace" => match *request {
            PTRACE_TRACEME => AccessHow::PtraceTraceme,
            PTRACE_ATTACH => AccessHow::PtraceAttach,
            PTRACE_SEIZE => AccessHow::PtraceSeize,
            _ => AccessHow::Ptrace,
        },
        "process_vm_readv" => AccessHow::VmRead,
        "process_vm_writev" => AccessHow::VmWrite,
        "open" | "openat" | "openat2" => AccessHow::Open,
        "pidfd_getfd" => AccessHow::GetFd,
        _ => AccessHow::Other,
    };
    let body =
        event::Access { how, error: errno(*error), asked_pid: Some(*pid).filter(|pid| *pid != 0), is_32_bit: calls::is_32_bit(header) };
    Act::ended(Body::Access(body), -i64::from(*error)).to(target).or_pid(*pid).into()
}
