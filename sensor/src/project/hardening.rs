//! `kernel.lockdown`, `kernel.probe` and `kernel.helper`.

use bartizan_bus::event::{self, Body, LockdownAct, Outcome};
use bartizan_sensor_ebpf::abi::{FLAG_FROM_CALLER, HELPER_ARGS, Helper, KernelProbe, Lockdown, ProbeAct};

use super::{Act, What, errno, text};

/// `enum lockdown_reason`, include/linux/security.h: the same from 6.1 to 6.18.
const REASONS: &[&str] = &[
    "none",
    "module_signature",
    "dev_mem",
    "efi_test",
    "kexec",
    "hibernation",
    "pci_access",
    "ioport",
    "msr",
    "acpi_tables",
    "device_tree",
    "pcmcia_cis",
    "tiocsserial",
    "module_parameters",
    "mmiotrace",
    "debugfs",
    "xmon_wr",
    "bpf_write_user",
    "dbg_write_kernel",
    "rtas_error_injection",
    "xen_user_actions",
    "integrity_max",
    "kcore",
    "kprobes",
    "bpf_read_kernel",
    "dbg_read_kernel",
    "perf",
    "tracefs",
    "xmon_rw",
    "xfrm_secret",
    "confidentiality_max",
];

pub(super) fn project_lockdown(record: &Lockdown) -> What {
    let Lockdown { header: _, reason, error } = record;
    let word = REASONS.get(*reason as usize).map_or_else(|| reason.to_string(), |word| (*word).to_owned());
    let body = event::Lockdown { act: LockdownAct::Refused, reason: Some(word), mode: None, old_mode: None };
    Act::ended(Body::Lockdown(body), -i64::from(*error)).into()
}

pub(super) fn project_probe(record: &KernelProbe) -> What {
    let KernelProbe { header, address, offset, inode, device, act, error, pad: _, name } = record;
    let act = match ProbeAct::from_raw(*act) {
        Some(ProbeAct::Kernel | ProbeAct::KernelByPerf) => event::ProbeAct::Kernel,
        Some(ProbeAct::User | ProbeAct::UserByPerf) => event::ProbeAct::User,
        None => event::ProbeAct::Other,
    };
    let body = event::KernelProbe {
        act,
        name: text::string(Some(name)),
        offset: *offset,
        address: (*address != 0).then_some(*address),
        inode: (*inode != 0).then_some(*inode),
        device: (*inode != 0).then_some(*device),
        error: errno(*error),
        from_caller: header.flags & FLAG_FROM_CALLER != 0,
    };
    Act::ended(Body::KernelProbe(body), -i64::from(*error)).into()
}

pub(super) fn project_helper(record: &Helper) -> What {
    let Helper { header: _, path, args, count, more } = record;
    let args = &args[..(*count as usize).min(HELPER_ARGS)];
    // A text that fills its place has no room for more: it was cut, or just fits.
    let cut = args.iter().any(|arg| text::until_nul(arg).len() + 1 >= arg.len());
    let argv = args.iter().map(|arg| text::name(arg)).collect();
    let body = event::Helper { path: text::name(path), argv, argv_truncated: cut || *more != 0 };
    Act { outcome: Outcome::Unknown, ..Act::done(Body::Helper(body)) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_stand_at_the_kernel_s_numbers() {
        assert_eq!(
            [1, 4, 21, 27, 30].map(|number| REASONS[number]),
            ["module_signature", "kexec", "integrity_max", "tracefs", "confidentiality_max"]
        );
    }
}
