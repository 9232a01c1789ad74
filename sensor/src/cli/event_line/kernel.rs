//! What is done to the kernel itself: `kernel.*`.

use bartizan_bus::event::{
    BpfAttach, BpfProgram, BpfSocket, BpfWay, Health, Helper, KernelProbe, Kexec, KexecAct, Lockdown, LockdownAct, Module, ModuleAct,
    PerfEvent, ProbeAct, Sysctl,
};

use super::super::escape::{command_line, escape, quote};
use super::super::paint::Paint;

/// `kernel.core_pattern: core → '|/tmp/x %p'`.
pub(super) fn sysctl(body: &Sysctl) -> String {
    let Sysctl { name, old, new, name_truncated, old_truncated, new_truncated, position } = body;
    let more = |cut: &bool| if *cut { "..." } else { "" };
    let value = |value: &Option<String>, cut: &bool| match value {
        Some(value) => format!("{}{}", quote(value), more(cut)),
        None => "?".to_owned(),
    };
    let at = if *position == 0 { String::new() } else { format!(" at byte {position}") };
    format!("{}{}: {} → {}{at}", escape(name), more(name_truncated), value(old, old_truncated), value(new, new_truncated))
}

/// `12 tracing my_program trace_fexit of do_unlinkat, 30 instructions`.
pub(super) fn bpf_program(body: &BpfProgram) -> String {
    let BpfProgram { id, program_type, attach_type, name, tag, instructions, classic_instructions, function, function_btf_id: _ } = body;
    let mut out = id.map(|id| format!("{id} ")).unwrap_or_default() + &escape(program_type);
    if let Some(name) = name {
        out += &format!(" {}", escape(name));
    }
    if let Some(attach_type) = attach_type {
        out += &format!(" {}", escape(attach_type));
    }
    if let Some(function) = function {
        out += &format!(" of {}", escape(function));
    }
    out += &match classic_instructions {
        Some(classic) => format!(", {classic} instructions"),
        None => format!(", {instructions} instructions"),
    };
    out + &tag.as_deref().map(|tag| format!(", tag {}", escape(tag))).unwrap_or_default()
}

/// The program, and where it went.
pub(super) fn bpf_attach(body: &BpfAttach) -> String {
    let BpfAttach { program, way, link_type, link_id, attach_type, tracepoint, cgroup_id, ifindex, perf_event, socket, from_caller } = body;
    let way = match way {
        BpfWay::Link => "link",
        BpfWay::Attach => "attached",
        BpfWay::SocketFilter => "filter of a socket",
        BpfWay::PerfEvent => "on a perf event",
        BpfWay::Other => "at its place",
    };
    let mut parts = vec![way.to_owned()];
    parts.extend(link_id.map(|id| id.to_string()));
    parts.extend(link_type.as_deref().map(escape));
    parts.extend(attach_type.as_deref().map(escape));
    parts.extend(tracepoint.as_deref().map(|name| format!("tracepoint {}", escape(name))));
    parts.extend(cgroup_id.map(|id| format!("cgroup {id}")));
    parts.extend(ifindex.map(|index| format!("device {index}")));
    parts.extend(perf_event.map(|PerfEvent { event_type, config }| format!("event {event_type}:{config}")));
    parts
        .extend(socket.map(|BpfSocket { family, socket_type, protocol, inode: _ }| {
            format!("family {family} type {socket_type} protocol {protocol}")
        }));
    let doubt = if *from_caller { " (as the caller said it)" } else { "" };
    format!("{}: {}{doubt}", parts.join(" "), bpf_program(program))
}

/// `load dummy from /lib/modules/dummy.ko numdummies=2 (out_of_tree, unsigned)`.
pub(super) fn module(body: &Module) -> String {
    let Module { act, name, file, file_truncated: _, inode: _, device: _, from_memory, args, args_truncated, taints, signed, error } = body;
    let act = match act {
        ModuleAct::Load => "load",
        ModuleAct::LoadFailed => "load failed:",
        ModuleAct::Unload => "unload",
        ModuleAct::Request => "request",
        ModuleAct::Other => "module",
    };
    let mut parts = vec![act.to_owned()];
    parts.extend(name.as_deref().map(escape));
    parts.extend(file.as_deref().map(|file| format!("from {}", quote(file))));
    parts.extend(from_memory.then(|| "from memory".to_owned()));
    parts.extend(args.as_deref().map(|args| format!("{}{}", escape(args), if *args_truncated { "..." } else { "" })));
    parts.extend((!taints.is_empty()).then(|| format!("({})", taints.iter().map(|taint| escape(taint)).collect::<Vec<_>>().join(", "))));
    parts.extend((*signed == Some(false)).then(|| "no good signature".to_owned()));
    parts.extend(error.map(|error| error.name()));
    parts.join(" ")
}

/// `load '/boot/vmlinuz': EPERM`.
pub(super) fn kexec(body: &Kexec) -> String {
    let Kexec { act, file, file_truncated: _, inode: _, device: _, flags, segments, error, from_caller } = body;
    let act = match act {
        KexecAct::Load => "load from memory",
        KexecAct::LoadFile => "load",
        KexecAct::Execute => "boot the loaded kernel",
        KexecAct::Other => "another kernel",
    };
    let mut parts = vec![act.to_owned()];
    parts.extend(file.as_deref().map(quote));
    parts.extend(segments.map(|segments| format!("{segments} segments")));
    parts.extend((*flags != 0).then(|| format!("flags {flags:#x}")));
    parts.extend(error.map(|error| error.name()));
    parts.extend(from_caller.then(|| "(file at the caller's descriptor)".to_owned()));
    parts.join(" ")
}

/// `refused: module_signature`, `none → integrity`.
pub(super) fn lockdown(body: &Lockdown) -> String {
    let Lockdown { act, reason, mode, old_mode } = body;
    let word = |word: &Option<String>| word.as_deref().map_or_else(|| "?".to_owned(), escape);
    match act {
        LockdownAct::Refused => format!("refused: {}", word(reason)),
        LockdownAct::Mode => format!("{} → {}", word(old_mode), word(mode)),
    }
}

/// `on do_unlinkat+0x10`, `on libc.so.6 at 0x1234`.
pub(super) fn probe(body: &KernelProbe) -> String {
    let KernelProbe { act, name, offset, address, inode, device: _, error, from_caller } = body;
    let place = match (name, address, inode) {
        (Some(name), ..) => escape(name),
        (None, Some(address), _) => format!("{address:#x}"),
        (None, None, Some(inode)) => format!("inode {inode}"),
        (None, None, None) => "?".to_owned(),
    };
    let at = match act {
        ProbeAct::Kernel if *offset == 0 => String::new(),
        ProbeAct::Kernel => format!("+{offset:#x}"),
        ProbeAct::User | ProbeAct::Other => format!(" at {offset:#x}"),
    };
    let doubt = if *from_caller { " (as the caller said it)" } else { "" };
    let error = error.map(|error| format!(": {}", error.name())).unwrap_or_default();
    format!("on {place}{at}{doubt}{error}")
}

/// The command line.
pub(super) fn helper(body: &Helper) -> String {
    let Helper { path, argv, argv_truncated } = body;
    format!("{}: {}", quote(path), command_line(argv, *argv_truncated))
}

/// The sentence.
pub(super) fn health(body: &Health, paint: Paint) -> String {
    let Health { check: _, works, text, hooks } = body;
    let hooks = if hooks.is_empty() {
        String::new()
    } else {
        format!(" ({})", hooks.iter().map(|hook| escape(hook)).collect::<Vec<_>>().join(", "))
    };
    let text = format!("{}{hooks}", escape(text));
    if *works { paint.green(&text) } else { paint.red(&text) }
}
