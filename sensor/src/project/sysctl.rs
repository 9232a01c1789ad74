//! `kernel.sysctl`.

use bartizan_bus::event::{self, Body, Outcome, Severity};
use bartizan_sensor_ebpf::abi::Sysctl;

use super::{Act, What, text};

/// `E2BIG`: what the kernel's helpers return for a text that they cut.
const E2BIG: i32 = 7;

/// At 0 the kernel calls no fentry or fexit program any more, Bartizan's own among them.
const FTRACE: &str = "kernel.ftrace_enabled";

/// Settings that say which program the kernel starts as root, that take a defence of the kernel away for everybody, or that blind who
/// watches it.
const GRAVE: &[&str] = &[
    "kernel.core_pattern",
    "kernel.modprobe",
    "kernel.hotplug",
    "kernel.poweroff_cmd",
    "kernel.usermodehelper.bset",
    "kernel.usermodehelper.inheritable",
    FTRACE,
    "kernel.unprivileged_bpf_disabled",
    "kernel.randomize_va_space",
    "vm.mmap_min_addr",
];

/// Settings that weaken the kernel or open the host, or that end its service.
const WEIGHTY: &[&str] = &[
    "kernel.yama.ptrace_scope",
    "kernel.kptr_restrict",
    "kernel.dmesg_restrict",
    "kernel.perf_event_paranoid",
    "kernel.modules_disabled",
    "kernel.kexec_load_disabled",
    "kernel.kexec_load_limit_panic",
    "kernel.kexec_load_limit_reboot",
    "kernel.io_uring_disabled",
    "kernel.io_uring_group",
    "kernel.bpf_stats_enabled",
    "kernel.sysrq",
    "kernel.unprivileged_userns_clone",
    "kernel.unprivileged_userns_apparmor_policy",
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.core_uses_pid",
    "kernel.core_pipe_limit",
    "fs.suid_dumpable",
    "vm.unprivileged_userfaultfd",
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
    "net.core.bpf_jit_kallsyms",
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.forwarding",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv6.conf.all.accept_redirects",
    "net.ipv4.conf.all.accept_source_route",
    "net.ipv6.conf.all.accept_source_route",
    "net.ipv4.tcp_syncookies",
];

/// Likewise, all that begin like this.
const WEIGHTY_PREFIXES: &[&str] = &["fs.protected_", "user.max_"];

pub(super) fn project(record: &Sysctl) -> What {
    let Sysctl { header: _, name_len, old_len, new_len, position, name, old, new } = record;
    let (name, name_truncated) = value(name, *name_len);
    let (old, old_truncated) = value(old, *old_len);
    let (new, new_truncated) = value(new, *new_len);
    let name = dotted(&name.unwrap_or_default());
    let unchanged = old.is_some() && old == new && !old_truncated && !new_truncated;
    let blinds = name == FTRACE && new.as_deref().is_some_and(|value| value.trim() == "0");
    let severity = if blinds { Severity::Critical } else { severity(&name, unchanged) };
    let body = event::Sysctl { name, old, new, name_truncated, old_truncated, new_truncated, position: *position };
    Act { outcome: Outcome::Unknown, severity, ..Act::done(Body::Sysctl(body)) }.into()
}

/// A text of which the helper says that it has `len` bytes, without the line feed at its end, and whether it was cut. `None` where the
/// helper had nothing to give.
fn value(bytes: &[u8], len: i32) -> (Option<String>, bool) {
    let (bytes, cut) = match usize::try_from(len) {
        Ok(len) => (&bytes[..len.min(bytes.len())], len > bytes.len()),
        Err(_) if len == -E2BIG => (text::until_nul(bytes), true),
        Err(_) => return (None, false),
    };
    let bytes = if cut { bytes } else { bytes.strip_suffix(b"\n").unwrap_or(bytes) };
    // `write(fd, "1\0", 2)` is a way to write 1.
    (Some(text::escape_bytes(text::until_nul(bytes))), cut)
}

/// A path below `/proc/sys` as sysctl(8) spells it: dots and slashes change places.
fn dotted(path: &str) -> String {
    let swap = |letter| match letter {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    path.chars().map(swap).collect()
}

fn severity(name: &str, unchanged: bool) -> Severity {
    let grave = GRAVE.contains(&name);
    let weighty = WEIGHTY.contains(&name) || WEIGHTY_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    match (grave, weighty) {
        (false, false) => Severity::Info,
        // Whoever puts the settings of a file in place again changes nothing.
        _ if unchanged => Severity::Low,
        (true, _) => Severity::High,
        (false, true) => Severity::Medium,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_spelled_as_the_command_does() {
        assert_eq!(dotted("kernel/core_pattern"), "kernel.core_pattern");
        assert_eq!(dotted("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    }

    #[test]
    fn a_text_says_whether_it_was_cut() {
        let mut bytes = [0; 256];
        bytes[..5].copy_from_slice(b"core\n");
        assert_eq!(value(&bytes, 5), (Some("core".to_owned()), false));
        assert_eq!(value(&bytes, 4), (Some("core".to_owned()), false));
        assert_eq!(value(&bytes, 0), (Some(String::new()), false));
        assert_eq!(value(&bytes, -22), (None, false));
        let long = [b'x'; 256];
        assert_eq!(value(&[&long[..255], &[0]].concat(), -7), (Some("x".repeat(255)), true));
    }

    #[test]
    fn what_changes_a_defence_stands_out() {
        assert_eq!(severity("kernel.core_pattern", false), Severity::High);
        assert_eq!(severity("kernel.yama.ptrace_scope", false), Severity::Medium);
        assert_eq!(severity("fs.protected_symlinks", false), Severity::Medium);
        assert_eq!(severity("kernel.core_pattern", true), Severity::Low);
        assert_eq!(severity("kernel.hostname", false), Severity::Info);
        assert_eq!(severity("kernel.core_pattern_of_mine", false), Severity::Info);
    }

    proptest! {
        #[test]
        fn no_record_of_the_kernel_makes_it_panic(bytes: [u8; 32], len: i32) {
            let (text, cut) = value(&bytes, len);
            prop_assert!(text.is_some() || !cut);
        }
    }
}
