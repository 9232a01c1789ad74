//! The system call that the running task is in.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::programs::TracePointContext;
use bartizan_sensor_ebpf::abi::{FLAG_32_BIT, Header};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::object::{Known, Object};
use super::{field, offset, read, task};

/// arch/x86/include/asm/thread_info.h: the task came in by `int 0x80` or another 32-bit entry.
const TS_COMPAT: u32 = 2;

/// Kernel-internal restart codes, include/linux/errno.h.
pub(crate) const ERESTARTSYS: i64 = 512;
pub(crate) const ERESTART_RESTARTBLOCK: i64 = 516;

/// Registers of the running task at its system call.
#[inline(always)]
pub(crate) fn registers() -> Known {
    // SAFETY: helpers without side effects on the running task; both return pointers of which the verifier knows the type.
    Known::new(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8)
}

/// Result and saved registers at a system call's exit tracepoint. The layout is `syscall_tp_t`, not the format file's.
#[inline(always)]
pub(crate) fn at_exit(ctx: &TracePointContext) -> (Known, i64) {
    // `<VERIFIER>` A context may be dereferenced at constant offsets only, and this one comes from the kernel's BTF.
    let result: i64 = read(ctx.as_ptr() as u64 + offset!(syscall_exit_ret));
    (registers(), result)
}

/// The errno in a result of the kernel, positive; 0 for success.
#[inline(always)]
pub(crate) fn errno(result: i64) -> u32 {
    if result < 0 { (-result) as u32 } else { 0 }
}

/// The running thread, as a key for what waits between the beginning of its call and the end.
#[inline(always)]
pub(crate) fn thread() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The call that the running task came in with.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    regs: Known,
    compat: bool,
}

/// Calls that make a new image, arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
const EXECVE: u32 = 59;
const EXECVEAT: u32 = 322;
const EXECVE_32: u32 = 11;
const EXECVEAT_32: u32 = 358;

impl Call {
    /// The call of the running task. Of a kernel thread it is nothing.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        let status: u32 = if offset!(task_thread_status) == u64::from(ABSENT) { 0 } else { field!(task::current(), task_thread_status) };
        Self { regs: registers(), compat: status & TS_COMPAT != 0 }
    }

    /// Its number, in the table of [`Self::is_32_bit`].
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        let number: u64 = field!(self.regs, regs_orig_ax);
        number as u32
    }

    /// Whether number and arguments are those of the 32-bit table.
    #[inline(always)]
    pub(crate) fn is_32_bit(self) -> bool {
        self.compat
    }

    /// Says in `header` which table its number is of.
    ///
    /// # Safety
    /// `header` must be valid for writing, and its flags be set.
    #[inline(always)]
    pub(crate) unsafe fn mark(self, header: *mut Header) {
        if self.compat {
            // SAFETY: by contract.
            unsafe { (*header).flags |= FLAG_32_BIT };
        }
    }

    /// Whether it makes a new image.
    #[inline(always)]
    pub(crate) fn is_exec(self) -> bool {
        let number = self.number();
        if self.compat { matches!(number, EXECVE_32 | EXECVEAT_32) } else { matches!(number, EXECVE | EXECVEAT) }
    }

    /// Argument `N`, 0 to 4, as the registers still have it: an address in it may lead to memory that another thread has changed.
    #[inline(always)]
    pub(crate) fn argument<const N: usize>(self) -> u64 {
        const { assert!(N < 5) };
        let wide = match N {
            0 => offset!(regs_di),
            1 => offset!(regs_si),
            2 => offset!(regs_dx),
            3 => offset!(regs_r10),
            _ => offset!(regs_r8),
        };
        let narrow = match N {
            0 => offset!(regs_bx),
            1 => offset!(regs_cx),
            2 => offset!(regs_dx),
            3 => offset!(regs_si),
            _ => offset!(regs_di),
        };
        if self.compat {
            let value: u32 = self.regs.member(narrow);
            u64::from(value)
        } else {
            self.regs.member(wide)
        }
    }
}
