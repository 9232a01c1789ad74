//! Names of the system calls that records tell by number.

use bartizan_sensor_ebpf::abi::{FLAG_32_BIT, Header};

/// Number in arch/x86/entry/syscalls/syscall_64.tbl, in syscall_32.tbl, and the name.
const CALLS: &[(u32, u32, &str)] = &[
    (2, 5, "open"),
    (9, 192, "mmap"),
    (10, 125, "mprotect"),
    (30, 397, "shmat"),
    (56, 120, "clone"),
    (101, 26, "ptrace"),
    (105, 213, "setuid"),
    (106, 214, "setgid"),
    (113, 203, "setreuid"),
    (114, 204, "setregid"),
    (117, 208, "setresuid"),
    (119, 210, "setresgid"),
    (122, 215, "setfsuid"),
    (123, 216, "setfsgid"),
    (126, 185, "capset"),
    (155, 217, "pivot_root"),
    (157, 172, "prctl"),
    (161, 61, "chroot"),
    (250, 288, "keyctl"),
    (257, 295, "openat"),
    (272, 310, "unshare"),
    (308, 346, "setns"),
    (310, 347, "process_vm_readv"),
    (311, 348, "process_vm_writev"),
    (312, 349, "kcmp"),
    (317, 354, "seccomp"),
    (319, 356, "memfd_create"),
    (329, 380, "pkey_mprotect"),
    (435, 435, "clone3"),
    (437, 437, "openat2"),
    (438, 438, "pidfd_getfd"),
    (447, 447, "memfd_secret"),
];

/// Whether the call came in by the 32-bit table.
pub(super) fn is_32_bit(header: &Header) -> bool {
    header.flags & FLAG_32_BIT != 0
}

/// The name of call `number` of the table that `header` says.
pub(super) fn name(header: &Header, number: u32) -> String {
    let narrow = is_32_bit(header);
    let known = CALLS.iter().find(|(wide, other, _)| if narrow { *other == number } else { *wide == number });
    match (known, narrow) {
        (Some((_, _, name)), _) => (*name).to_owned(),
        (None, false) => format!("system call {number}"),
        (None, true) => format!("32-bit system call {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_name_in_each_table() {
        for (index, (wide, narrow, name)) in CALLS.iter().enumerate() {
            for (other_wide, other_narrow, other) in &CALLS[index + 1..] {
                assert!(wide != other_wide && narrow != other_narrow && name != other, "{name} and {other}");
            }
        }
    }
}
