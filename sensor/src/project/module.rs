//! `kernel.module` and `kernel.kexec`.

use bartizan_bus::event::{self, Body, Outcome, Severity};
use bartizan_sensor_ebpf::abi::{
    Bytes, FLAG_ARGV_TRUNCATED, FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, Kexec, KexecAct, MODULE_FROM_MEMORY, MODULE_SIGNED, MODULE_UNSIGNED,
    Module, ModuleAct,
};

use super::{Act, What, errno, text};

/// Taints that a module can bring, by bit: include/linux/panic.h.
const TAINTS: &[(u32, &str)] = &[
    (0, "proprietary"),
    (1, "forced"),
    (3, "forced_removal"),
    (10, "staging"),
    (12, "out_of_tree"),
    (13, "unsigned"),
    (15, "live_patch"),
    (16, "auxiliary"),
    (18, "test"),
];

/// Those that nothing of the distribution's own brings.
const FOREIGN: u64 = 1 << 1 | 1 << 12 | 1 << 13;

pub(super) fn project(record: &Module, bytes: Bytes<'_>) -> What {
    let Module { header, taints, inode, device, act, error, known, path, pad: _, name, args } = record;
    let act = match ModuleAct::from_raw(*act) {
        Some(ModuleAct::Load) => event::ModuleAct::Load,
        Some(ModuleAct::LoadFailed) => event::ModuleAct::LoadFailed,
        Some(ModuleAct::Unload) => event::ModuleAct::Unload,
        Some(ModuleAct::Request) => event::ModuleAct::Request,
        None => event::ModuleAct::Other,
    };
    let from_memory = known & MODULE_FROM_MEMORY != 0;
    let file_truncated = header.flags & FLAG_NAME_TRUNCATED != 0;
    let file = (path.len != 0).then(|| text::path(bytes.get(*path), file_truncated)).flatten();
    let body = event::Module {
        act,
        name: text::string(Some(name)),
        file,
        file_truncated,
        inode: (*inode != 0).then_some(*inode),
        device: (*inode != 0).then_some(*device),
        from_memory,
        args: text::string(Some(args)),
        args_truncated: header.flags & FLAG_ARGV_TRUNCATED != 0,
        taints: words(*taints),
        signed: match known & (MODULE_SIGNED | MODULE_UNSIGNED) {
            0 => None,
            known => Some(known & MODULE_SIGNED != 0),
        },
        error: errno(*error),
    };
    let severity = match act {
        event::ModuleAct::Load if from_memory || taints & FOREIGN != 0 => Severity::Medium,
        event::ModuleAct::LoadFailed => Severity::Low,
        _ => Severity::Info,
    };
    let outcome = match act {
        event::ModuleAct::LoadFailed => Outcome::Failure,
        event::ModuleAct::Request | event::ModuleAct::Other => Outcome::Unknown,
        event::ModuleAct::Load | event::ModuleAct::Unload => Outcome::Success,
    };
    Act { outcome, severity, ..Act::done(Body::Module(body)) }.into()
}

fn words(taints: u64) -> Vec<String> {
    let word = |bit: u32| TAINTS.iter().find(|(known, _)| *known == bit).map_or_else(|| bit.to_string(), |(_, word)| (*word).to_owned());
    (0..u64::BITS).filter(|bit| taints >> bit & 1 == 1).map(word).collect()
}

pub(super) fn project_kexec(record: &Kexec, bytes: Bytes<'_>) -> What {
    let Kexec { header, flags, inode, device, act, error, segments, path, pad: _ } = record;
    let act = match KexecAct::from_raw(*act) {
        Some(KexecAct::Load) => event::KexecAct::Load,
        Some(KexecAct::LoadFile) => event::KexecAct::LoadFile,
        Some(KexecAct::Execute) => event::KexecAct::Execute,
        None => event::KexecAct::Other,
    };
    let file_truncated = header.flags & FLAG_NAME_TRUNCATED != 0;
    let body = event::Kexec {
        act,
        file: (path.len != 0).then(|| text::path(bytes.get(*path), file_truncated)).flatten(),
        file_truncated,
        inode: (*inode != 0).then_some(*inode),
        device: (*inode != 0).then_some(*device),
        flags: *flags,
        segments: (act == event::KexecAct::Load).then_some(*segments),
        error: errno(*error),
        from_caller: header.flags & FLAG_FROM_CALLER != 0,
    };
    let severity = if act == event::KexecAct::Execute { Severity::High } else { Severity::Medium };
    Act { severity, ..Act::ended(Body::Kexec(body), -i64::from(*error)) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_told_in_words_and_new_ones_by_number() {
        assert_eq!(words(1 << 12 | 1 << 13), ["out_of_tree", "unsigned"]);
        assert_eq!(words(1 << 40), ["40"]);
        assert!(words(0).is_empty());
    }
}
