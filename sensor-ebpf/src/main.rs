//! The kernel programs. One file per hook activity under `hooks/`; what they share is under `kernel/`.
//!
//! Verifier rules that this code keeps:
//!
//! - Kernel memory is read through [`kernel::read`] only: a fault gives zeros, so no path needs an error branch.
//! - Records with a tail are built in a per-CPU scratch that belongs to one program. tp_btf and fexit programs have a
//!   recursion guard per program and CPU, so a nested run is skipped (and counted by the kernel as `recursion_misses`)
//!   instead of tearing the record.
//! - Offsets into the scratch are masked in assembly (`kernel::bound`), because LLVM removes a mask that it can prove
//!   redundant and the verifier cannot follow the proof.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key or value that moves into a map helper is first copied on a stack of 512 bytes"
)]

mod hooks;
mod kernel;

/// The kernel compares this with its list of GPL-compatible licences, letter by letter.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No program panics: there is no indexing and no arithmetic that checks. The linker drops this.
    loop {}
}
