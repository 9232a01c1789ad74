//! What the machine calls itself.

/// Host name, as the kernel has it.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Kernel release, such as `6.1.0-32-cloud-amd64`.
pub(crate) fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| "unknown".to_owned(), |names| names.release().to_string_lossy().into_owned())
}
