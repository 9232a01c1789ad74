//! The hooks: what each one sees, and the tiers it can be carried by, best first. One file per area.

mod auth;
mod file;
mod kernel;
mod network;
mod process;

use super::btf::Btf;
use super::libraries::Library;

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// BTF-typed raw tracepoint; the argument types it must have, so that a changed signature is refused, not misread.
    TpBtf(&'static str, &'static [&'static str]),
    /// Return of a kernel function; its parameter types.
    Fexit(&'static str, &'static [&'static str]),
    /// Entry of a kernel function; the types of its leading parameters.
    Fentry(&'static str, &'static [&'static str]),
    /// The root of the unified cgroup hierarchy: every process of the host.
    Cgroup(CgroupPlace),
    /// A system call's tracepoint: category and name.
    Tracepoint(&'static str, &'static str),
    /// No program: events of the one fanotify group, `FAN_*`.
    Fanotify(u64),
    /// Task iterator.
    IterTask,
    /// Entry or return (the program says which) of a function of a shared library, in every process.
    Uprobe {
        /// The library.
        library: Library,
        /// The function.
        symbol: &'static str,
        /// What the program is told about the place.
        cookie: Option<u64>,
    },
}

/// What passes a program of [`Attach::Cgroup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupPlace {
    /// Reads and writes of `/proc/sys`.
    Sysctl,
    /// Packets that come in to a socket.
    Ingress,
    /// Packets that go out of a socket.
    Egress,
    /// New INET sockets.
    SockCreate,
    /// Sockets that were bound to an IPv4 address; the program says so.
    PostBind4,
    /// Sockets that were bound to an IPv6 address; the program says so.
    PostBind6,
}

/// One program of a tier.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSpec {
    /// Name in the kernel object.
    pub program: &'static str,
    /// Where it goes.
    pub attach: Attach,
    /// Only where the kernel has it (32-bit entry points, another signature): its absence does not fail the tier, unless no program is left.
    pub optional: bool,
    /// What this hook has of a program that others share: `PART_*`; 0 where it is this hook's alone.
    pub part: u32,
}

/// One way to carry a hook.
#[derive(Debug, Clone, Copy)]
pub struct Tier {
    /// Name for status and `--disable-hook`: `tp_btf`, `fexit`, `cgroup`, `syscall_tracepoint`, `fanotify`, `uprobe`, `iter`, `procfs`.
    pub name: &'static str,
    /// Programs; all that are not optional must attach.
    pub programs: &'static [ProgramSpec],
    /// What this tier cannot see that the best one can.
    pub blind: Option<&'static str>,
}

/// One activity.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Name for status and `--disable-hook`.
    pub name: &'static str,
    /// Kinds of event it makes.
    pub kinds: &'static [&'static str],
    /// Best first.
    pub tiers: &'static [Tier],
    /// What is not seen without it.
    pub without: &'static str,
    /// Detections that get weaker without it.
    pub costs: &'static [&'static str],
}

const fn program(program: &'static str, attach: Attach) -> ProgramSpec {
    ProgramSpec { program, attach, optional: false, part: 0 }
}

const fn optional(program: &'static str, attach: Attach) -> ProgramSpec {
    ProgramSpec { program, attach, optional: true, part: 0 }
}

const fn syscall(program: &'static str, name: &'static str) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Tracepoint("syscalls", name), optional: false, part: 0 }
}

/// A part of a program that others share.
const fn part(part: u32, shared: ProgramSpec) -> ProgramSpec {
    ProgramSpec { part, ..shared }
}

const TASK: &str = "struct task_struct *";
const SOCK: &str = "struct sock *";
const ADDRESS: &[&str] = &[SOCK, "struct sockaddr *", "int"];
const REGS: &[&str] = &["struct pt_regs *"];
const SOCKET: &str = "struct socket *";
/// Of the function behind connect(): `sockaddr_storage` is a macro, include/linux/socket.h.
const FILE_ADDRESS: &[&str] = &["struct file *", "struct __kernel_sockaddr_storage *", "int", "int"];
/// Of the functions that connect a socket.
const SOCKET_ADDRESS: &[&str] = &[SOCKET, "struct sockaddr *", "int", "int"];
const SOCKET_CREATED: &[&str] = &[SOCKET, "int", "int", "int", "int"];
const CRED: &str = "struct cred *";
const CREDS: &[&str] = &[CRED, CRED, "int"];

/// Every hook, by area, in the order of the status page.
const AREAS: &[&[Hook]] = &[process::HOOKS, file::HOOKS, network::HOOKS, auth::HOOKS, kernel::HOOKS];

/// Every hook.
pub fn hooks() -> impl Iterator<Item = &'static Hook> {
    AREAS.iter().copied().flatten()
}

/// What `--disable-hook` takes: a hook, or one tier of it as `hook:tier` (then the next tier is tried).
pub fn is_hook_name(name: &str) -> bool {
    hooks().any(|hook| name == hook.name || hook.tiers.iter().any(|tier| name == format!("{}:{}", hook.name, tier.name)))
}

/// Every name that `--disable-hook` takes.
pub fn hook_names() -> Vec<String> {
    let tiers = |hook: &Hook| hook.tiers.iter().map(|tier| format!("{}:{}", hook.name, tier.name)).collect::<Vec<_>>();
    hooks().flat_map(|hook| std::iter::once(hook.name.to_owned()).chain(tiers(hook))).collect()
}

/// Why there is nothing for a hook to see on this kernel; `None` where there is. A hook without anything to see is not blind.
pub fn absent(hook: &Hook, btf: &Btf) -> Option<&'static str> {
    kernel::ABSENT.iter().find(|absent| absent.hook == hook.name && !btf.has_function(absent.function)).map(|absent| absent.why)
}

/// A part of the kernel that may not be compiled in.
struct Absent {
    /// The hook that is for it.
    hook: &'static str,
    /// A function that is there with it, and not without it.
    function: &'static str,
    /// What to say without it.
    why: &'static str,
}

/// Why this kernel cannot carry a program, by its types alone; `None` when nothing speaks against it.
pub fn refused_by_types(attach: Attach, btf: &Btf) -> Option<String> {
    let mismatch = |what: &str, have: Option<Vec<String>>, want: &[&str]| match have {
        None => Some(format!("this kernel has no {what}")),
        // Leading arguments are stable; kernels append.
        Some(have) if have.len() >= want.len() && have.iter().zip(want).all(|(have, want)| same(have, want)) => None,
        Some(have) => Some(format!("{what} takes ({}) on this kernel, expected ({})", have.join(", "), want.join(", "))),
    };
    match attach {
        Attach::TpBtf(name, want) => mismatch(&format!("tracepoint {name}"), btf.tracepoint_arguments(name), want),
        Attach::Fexit(name, want) => {
            let have = btf.function_parameters(name);
            match &have {
                // The result stands right behind the parameters, so their number must be exact.
                Some(parameters) if parameters.len() != want.len() => {
                    Some(format!("function {name} takes ({}) on this kernel, expected ({})", parameters.join(", "), want.join(", ")))
                }
                _ => mismatch(&format!("function {name}"), have, want),
            }
        }
        Attach::Fentry(name, want) => mismatch(&format!("function {name}"), btf.function_parameters(name), want),
        Attach::Uprobe { .. } | Attach::Cgroup(_) | Attach::Fanotify(_) => None,
        Attach::IterTask => (!btf.has_function("bpf_iter_task")).then(|| "this kernel has no task iterator".to_owned()),
        Attach::Tracepoint(..) => None,
    }
}

/// What a parameter is called that no program reads: any pointer will do.
const ANY: &str = "*";

/// Types that are the same bytes: `sockaddr_unsized` is what Linux 6.19 calls the `sockaddr` of these functions, and clone flags became
/// a `u64` in 6.18.
fn same(have: &str, want: &str) -> bool {
    have == want
        || (want == ANY && have.ends_with('*'))
        || (want == "struct sockaddr *" && have == "struct sockaddr_unsized *")
        || (want == "long unsigned int" && have == "u64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_kind_of_the_abi_has_a_hook() {
        let names = hook_names();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        for kind in bartizan_sensor_ebpf::abi::KINDS {
            assert!(bartizan_bus::event::Body::KINDS.contains(&kind.name), "{} is no event kind", kind.name);
            assert!(hooks().any(|hook| hook.kinds.contains(&kind.name)), "no hook makes {}", kind.name);
        }
    }
}
