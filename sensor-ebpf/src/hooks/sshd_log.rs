//! What sshd tells syslog.
//!
//! PAM never sees a public key, and sshd's binary is stripped: its words to syslog(3) are the source. sshd formats each message itself
//! and hands it over as `"%.500s"` with the text as the only argument, so the text can be read at the entry of libc's function, whether a
//! syslog daemon listens or not. Only processes named sshd with effective uid 0 are heard: the name is anybody's to choose, root is not.

use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use bartizan_sensor_ebpf::abi::{Count, FLAG_NAME_TRUNCATED, Kind, Ring, SYSLOG_MAX, SshdLog};

use crate::kernel::maps::PRIORITY;
use crate::kernel::{emit, field, task};

/// `sshd`, and `sshd-session` and `sshd-auth` of OpenSSH 9.8 and newer.
const SSHD: u32 = u32::from_le_bytes(*b"sshd");
/// log.c: `syslog(pri, "%.500s", fmtbuf)`.
const FORMAT: u64 = u64::from_le_bytes(*b"%.500s\0\0");

#[inline(always)]
fn said(format: u64, text: u64) -> u32 {
    let current = task::current();
    let comm: u32 = field!(current, task_comm);
    if comm != SSHD {
        return 0;
    }
    let cred = task::cred(current);
    let euid: u32 = field!(cred, cred_euid);
    let mut begin = 0_u64;
    // SAFETY: at most eight bytes for a `u64`.
    unsafe { bpf_probe_read_user_str((&raw mut begin).cast(), 8, format as *const _) };
    if euid != 0 || begin != FORMAT {
        return 0;
    }
    let Some(mut entry) = PRIORITY.reserve::<SshdLog>(0) else {
        emit::count(Kind::SshdLog, Count::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        task::subject(&raw mut (*record).header, current);
        let written = bpf_probe_read_user_str((&raw mut (*record).text).cast(), SYSLOG_MAX as u32, text as *const _);
        (*record).len = if written > 0 { written as u32 } else { 0 };
        (*record).pad = 0;
        if written >= SYSLOG_MAX as i64 {
            (*record).header.flags |= FLAG_NAME_TRUNCATED;
        }
        emit::stamp(&raw mut (*record).header, Kind::SshdLog, size_of::<SshdLog>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Priority));
    emit::count(Kind::SshdLog, Count::Emitted);
    0
}

/// syslog(int priority, const char *format, ...).
#[uprobe]
fn syslog(ctx: ProbeContext) -> u32 {
    said(ctx.arg::<u64>(1).unwrap_or(0), ctx.arg::<u64>(2).unwrap_or(0))
}

/// __syslog_chk(int priority, int flag, const char *format, ...): what a fortified program calls instead.
#[uprobe]
fn syslog_chk(ctx: ProbeContext) -> u32 {
    said(ctx.arg::<u64>(2).unwrap_or(0), ctx.arg::<u64>(3).unwrap_or(0))
}
