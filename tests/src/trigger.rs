//! Deeds of our own: children that make system calls, by both tables of the kernel.

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// One system call with numbers only, or addresses of values that outlive it; what the kernel returns: an errno below zero.
pub fn call(number: libc::c_long, arguments: &[libc::c_long]) -> libc::c_long {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: by the callers' word, see above.
    let result = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
    if result < 0 { -libc::c_long::from(nix::errno::Errno::last_raw()) } else { result }
}

/// The same by `int 0x80`: number and arguments are those of the 32-bit table, addresses must lie below 4 GiB (see [`low_page`]).
#[cfg(target_arch = "x86_64")]
pub fn call_32(number: u32, arguments: &[u32]) -> i32 {
    let at = |index: usize| u64::from(arguments.get(index).copied().unwrap_or(0));
    let mut result = u64::from(number);
    // SAFETY: the kernel's other entry; it keeps every register but rax, and r8 to r11 on old kernels. LLVM keeps rbx and rbp for itself, so
    // the first argument and the last are put there for the moment of the call.
    unsafe {
        core::arch::asm!(
            "push rbx",
            "push rbp",
            "mov rbx, r8",
            "mov rbp, r9",
            "int 0x80",
            "pop rbp",
            "pop rbx",
            inout("rax") result,
            in("rcx") at(1),
            in("rdx") at(2),
            in("rsi") at(3),
            in("rdi") at(4),
            inout("r8") at(0) => _,
            inout("r9") at(5) => _,
            out("r10") _,
            out("r11") _,
        );
    }
    result as i32
}

/// One call's numbers in both tables: arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
#[derive(Debug, Clone, Copy)]
pub struct Numbers(pub libc::c_long, pub u32);

/// The table by which a call comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// That of 64-bit programs.
    Wide,
    /// That of 32-bit programs.
    Narrow,
}

#[cfg(target_arch = "x86_64")]
impl Table {
    /// The twins.
    pub const BOTH: [Self; 2] = [Self::Wide, Self::Narrow];

    /// A call with arguments that both tables take: numbers, and addresses of [`low_page`]s. Returns what the kernel does.
    pub fn call(self, Numbers(wide, narrow): Numbers, arguments: &[u32]) -> i32 {
        match self {
            Self::Wide => {
                let arguments: Vec<libc::c_long> = arguments.iter().map(|argument| argument.cast_signed().into()).collect();
                call(wide, &arguments) as i32
            }
            Self::Narrow => call_32(narrow, arguments),
        }
    }

    /// The bytes of an address, as this table has them in structures.
    pub fn address(self, address: u32) -> Vec<u8> {
        match self {
            Self::Wide => u64::from(address).to_ne_bytes().to_vec(),
            Self::Narrow => address.to_ne_bytes().to_vec(),
        }
    }
}

/// A page below 4 GiB that begins with `bytes`. It is never given back.
///
/// # Panics
/// The kernel has none, or `bytes` are more than a page.
pub fn low_page(bytes: &[u8]) -> u32 {
    assert!(bytes.len() <= 4096);
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: new memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
    assert!(page != libc::MAP_FAILED, "no page below 4 GiB");
    // SAFETY: the page is ours, and large enough.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.cast(), bytes.len()) };
    u32::try_from(page as usize).expect("MAP_32BIT gives addresses below 4 GiB")
}

/// Forks a child that does `act` and ends; returns its pid. `act` is to make system calls and nothing else: the child is a copy of one
/// thread of this process.
///
/// # Panics
/// No child can be made, or `act` panics.
#[track_caller]
pub fn in_child(act: impl FnOnce()) -> u32 {
    // SAFETY: by the callers' word, see above.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_ok();
            // SAFETY: ends this process without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(!done)) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)), "the child's deeds failed; see above");
            child.as_raw().cast_unsigned()
        }
    }
}

/// A child that waits for its end, with another user id if one is given.
#[derive(Debug)]
pub struct Waiting(Pid);

impl Waiting {
    /// Starts it.
    ///
    /// # Panics
    /// No child can be made.
    #[track_caller]
    pub fn start() -> Self {
        // SAFETY: the child calls nothing but `pause`.
        match unsafe { fork() }.expect("a child") {
            ForkResult::Child => loop {
                // SAFETY: as above.
                unsafe { libc::pause() };
            },
            ForkResult::Parent { child } => Self(child),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.0.as_raw()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It is ours and not waited for yet, so the pid is its own.
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
