//! How the C library's allocator keeps freed memory.

/// Freed buffers of this size and more go back to the kernel at once, bytes. glibc begins with this value, and raises it up to 32 MiB
/// when such a buffer is freed (`mallopt(3)`, "dynamic mmap threshold"), after which buffers for sealing segments stay resident.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 128 * 1024;

/// Free memory at the top of the heap beyond this goes back to the kernel, bytes. Half of glibc's first value, which it raises likewise.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 64 * 1024;

/// Heaps; glibc makes up to eight for each processor, and each keeps its own free memory. The main one alone grows in steps of 128 KiB;
/// any other is made writable page by page, which is a system call for nearly every program that starts. Threads have small caches of their own.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 1;

/// For processes that stay: memory that is free goes back to the kernel, at the price of more system calls for large buffers.
/// Call it before threads are started. Without glibc it does nothing.
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in
        [(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD), (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD), (libc::M_ARENA_MAX, ARENAS)]
    {
        // SAFETY: mallopt takes two numbers and may be called at any time; a refused setting leaves the allocator as it was.
        unsafe { libc::mallopt(setting, value) };
    }
}
