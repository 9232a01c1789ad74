//! Authentication as programs do it: their calls into libpam.
//!
//! The handle is opaque, so everything is taken from the arguments: the user and the service from `pam_start`, later changes from
//! `pam_set_item`. Passwords are items too; those are never read. User space puts the calls of one handle together and follows it across
//! fork.
//!
//! Any user may call into libpam and so make these records: those of callers without effective uid 0 travel in the bulk ring, where
//! they crowd out nothing that matters.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use bartizan_sensor_ebpf::abi::{
    Count, FLAG_NAME_TRUNCATED, Header, Kind, PAM_ITEM_MAX, PAM_NAME_MAX, PamAccount, PamAuthenticate, PamEnd, PamItem, PamPassword,
    PamSessionClose, PamSessionOpen, PamStart, Ring,
};

use crate::kernel::call::thread;
use crate::kernel::maps::{PAM_CALLS, PAM_STARTS, PamCall, PamStarting};
use crate::kernel::{emit, field, task};

/// Items that are no secrets, security/_pam_types.h: PAM_SERVICE, PAM_USER, PAM_TTY, PAM_RHOST, PAM_RUSER. 6 and 7 are passwords.
const PAM_SERVICE: u32 = 1;
const PAM_USER: u32 = 2;
const PAM_TTY: u32 = 3;
const PAM_RHOST: u32 = 4;
const PAM_RUSER: u32 = 8;

const _: () = assert!(
    size_of::<PamAuthenticate>() == size_of::<PamAccount>()
        && size_of::<PamAuthenticate>() == size_of::<PamSessionOpen>()
        && size_of::<PamAuthenticate>() == size_of::<PamSessionClose>()
        && size_of::<PamAuthenticate>() == size_of::<PamPassword>(),
    "one program makes them all"
);

/// Where records of the running task go.
#[inline(always)]
fn ring() -> Ring {
    let cred = task::cred(task::current());
    let euid: u32 = field!(cred, cred_euid);
    if euid == 0 { Ring::Priority } else { Ring::Bulk }
}

/// The pointer at `address` of the caller's memory.
#[inline(always)]
fn user_pointer(address: u64) -> u64 {
    let mut value = 0_u64;
    // SAFETY: eight bytes for a `u64`.
    unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const _) };
    value
}

/// Copies a string of the caller; returns its bytes with the NUL, 0 for none, and notes a cut in the header.
///
/// # Safety
/// `to` must be valid for `max` bytes.
#[inline(always)]
unsafe fn user_string(header: *mut Header, to: *mut u8, max: u32, address: u64) -> u32 {
    if address == 0 {
        return 0;
    }
    // SAFETY: by contract.
    let written = unsafe { bpf_probe_read_user_str(to.cast(), max, address as *const _) };
    if written <= 0 {
        return 0;
    }
    if written >= i64::from(max) {
        // SAFETY: by contract.
        unsafe { (*header).flags |= FLAG_NAME_TRUNCATED };
    }
    written as u32
}

/// Reserves a record of the running task, fills its subject and hands it to `fill`, then sends it.
macro_rules! send {
    ($kind:ident as $layout:ty, |$record:ident| $fill:block) => {{
        let ring = ring();
        match emit::of(ring).reserve::<$layout>(0) {
            None => emit::count(Kind::$kind, Count::RingFull),
            Some(mut entry) => {
                let $record = entry.as_mut_ptr();
                // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
                unsafe {
                    task::subject(&raw mut (*$record).header, task::current());
                    $fill
                    emit::stamp(&raw mut (*$record).header, Kind::$kind, size_of::<$layout>() as u32);
                }
                entry.submit(emit::wakeup(ring));
                emit::count(Kind::$kind, Count::Emitted);
            }
        }
    }};
}

#[inline(always)]
fn starting(ctx: &ProbeContext, out: usize) -> u32 {
    let argument = |n| ctx.arg::<u64>(n).unwrap_or(0);
    let starting = PamStarting { service: argument(0), user: argument(1), out: argument(out) };
    if PAM_STARTS.insert(&thread(), &starting, 0).is_err() {
        emit::count(Kind::PamStart, Count::TableFull);
    }
    0
}

/// pam_start(const char *service, const char *user, const struct pam_conv *, pam_handle_t **pamh).
#[uprobe]
fn pam_start(ctx: ProbeContext) -> u32 {
    starting(&ctx, 3)
}

/// pam_start_confdir(const char *service, const char *user, const struct pam_conv *, const char *confdir, pam_handle_t **pamh).
#[uprobe]
fn pam_start_confdir(ctx: ProbeContext) -> u32 {
    starting(&ctx, 4)
}

#[uretprobe]
fn pam_started(ctx: RetProbeContext) -> u32 {
    let thread = thread();
    let Some(starting) = PAM_STARTS.get_ptr(&thread) else { return 0 };
    // SAFETY: the map is preallocated, and the entry is this thread's own.
    let (service, user, out) = unsafe { ((*starting).service, (*starting).user, (*starting).out) };
    let _ = PAM_STARTS.remove(&thread);
    let result: u32 = ctx.ret();
    send!(PamStart as PamStart, |record| {
        let header = &raw mut (*record).header;
        (*record).handle = user_pointer(out);
        (*record).result = result;
        (*record).service_len = user_string(header, (&raw mut (*record).service).cast(), PAM_NAME_MAX as u32, service) as u16;
        (*record).user_len = user_string(header, (&raw mut (*record).user).cast(), PAM_NAME_MAX as u32, user) as u16;
    });
    0
}

/// pam_set_item(pam_handle_t *pamh, int item_type, const void *item).
#[uprobe]
fn pam_set_item(ctx: ProbeContext) -> u32 {
    let argument = |n| ctx.arg::<u64>(n).unwrap_or(0);
    let (handle, item, value) = (argument(0), argument(1) as u32, argument(2));
    if item != PAM_SERVICE && item != PAM_USER && item != PAM_TTY && item != PAM_RHOST && item != PAM_RUSER {
        return 0;
    }
    send!(PamItem as PamItem, |record| {
        (*record).handle = handle;
        (*record).item = item;
        (*record).len = user_string(&raw mut (*record).header, (&raw mut (*record).value).cast(), PAM_ITEM_MAX as u32, value);
    });
    0
}

/// Attached at the five calls that have a verdict, with the record's kind as the cookie: (pam_handle_t *pamh, int flags).
#[uprobe]
fn pam_call(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper reads the context.
    let kind = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let key = PamCall { thread: thread(), kind };
    if PAM_CALLS.insert(&key, &ctx.arg::<u64>(0).unwrap_or(0), 0).is_err() {
        emit::count(Kind::PamAuthenticate, Count::TableFull);
    }
    0
}

/// Attached at their return.
#[uretprobe]
fn pam_called(ctx: RetProbeContext) -> u32 {
    // SAFETY: the helper reads the context.
    let kind = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let key = PamCall { thread: thread(), kind };
    let Some(handle) = PAM_CALLS.get_ptr(&key) else { return 0 };
    // SAFETY: the map is preallocated, and the entry is this thread's own.
    let handle = unsafe { *handle };
    let _ = PAM_CALLS.remove(&key);
    let result: u32 = ctx.ret();
    macro_rules! verdict {
        ($kind:ident) => {
            send!($kind as $kind, |record| {
                (*record).handle = handle;
                (*record).result = result;
                (*record).pad = 0;
            })
        };
    }
    if kind == Kind::PamAuthenticate as u64 {
        verdict!(PamAuthenticate);
    } else if kind == Kind::PamAccount as u64 {
        verdict!(PamAccount);
    } else if kind == Kind::PamSessionOpen as u64 {
        verdict!(PamSessionOpen);
    } else if kind == Kind::PamPassword as u64 {
        verdict!(PamPassword);
    } else {
        verdict!(PamSessionClose);
    }
    0
}

/// pam_end(pam_handle_t *pamh, int status).
#[uprobe]
fn pam_end(ctx: ProbeContext) -> u32 {
    let handle = ctx.arg::<u64>(0).unwrap_or(0);
    send!(PamEnd as PamEnd, |record| {
        (*record).handle = handle;
    });
    0
}
