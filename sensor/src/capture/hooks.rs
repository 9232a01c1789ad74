//! The hooks: what each one sees, and the tiers it can be carried by, best first.

use super::btf::Btf;

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// BTF-typed raw tracepoint; the argument types it must have, so that a changed signature is refused, not misread.
    TpBtf(&'static str, &'static [&'static str]),
    /// Return of a kernel function; its parameter types.
    Fexit(&'static str, &'static [&'static str]),
    /// A system call's tracepoint: category and name.
    Tracepoint(&'static str, &'static str),
    /// Task iterator.
    IterTask,
}

/// One program of a tier.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSpec {
    /// Name in the kernel object.
    pub program: &'static str,
    /// Where it goes.
    pub attach: Attach,
    /// Only where the kernel has it (32-bit entry points): its absence does not fail the tier.
    pub optional: bool,
}

/// One way to carry a hook.
#[derive(Debug, Clone, Copy)]
pub struct Tier {
    /// Name for status and `--disable-hook`: `tp_btf`, `fexit`, `syscall_tracepoint`, `iter`, `procfs`.
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
    ProgramSpec { program, attach, optional: false }
}

const fn optional(program: &'static str, attach: Attach) -> ProgramSpec {
    ProgramSpec { program, attach, optional: true }
}

const TASK: &str = "struct task_struct *";
const SOCK: &str = "struct sock *";
const ADDRESS: &[&str] = &[SOCK, "struct sockaddr *", "int"];
const REGS: &[&str] = &["struct pt_regs *"];

/// Every hook.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "process_exec",
        kinds: &["process.exec"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("sched_process_exec", Attach::TpBtf("sched_process_exec", &[TASK, "pid_t", "struct linux_binprm *"]))],
            blind: None,
        }],
        without: "new program images",
        costs: &["runtime_watcher.reverse_shell"],
    },
    Hook {
        name: "process_exec_failed",
        kinds: &["process.exec"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_execve", Attach::Fexit("__x64_sys_execve", REGS)),
                    program("fexit_execveat", Attach::Fexit("__x64_sys_execveat", REGS)),
                    optional("fexit_compat_execve", Attach::Fexit("__ia32_compat_sys_execve", REGS)),
                    optional("fexit_compat_execveat", Attach::Fexit("__ia32_compat_sys_execveat", REGS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    program("sys_exit_execve", Attach::Tracepoint("syscalls", "sys_exit_execve")),
                    program("sys_exit_execveat", Attach::Tracepoint("syscalls", "sys_exit_execveat")),
                ],
                blind: Some("failed execs by 32-bit (int 0x80) callers"),
            },
        ],
        without: "failed execs",
        costs: &[],
    },
    Hook {
        name: "process_fork",
        kinds: &["process.fork"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("sched_process_fork", Attach::TpBtf("sched_process_fork", &[TASK, TASK]))],
            blind: None,
        }],
        without: "processes that never exec, and the exact parent of those that do",
        costs: &["lineage of every alert", "runtime_watcher.reverse_shell (relays inherited across fork)"],
    },
    Hook {
        name: "process_exit",
        kinds: &["process.exit"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("sched_process_exit", Attach::TpBtf("sched_process_exit", &[TASK]))],
            blind: None,
        }],
        without: "the end of processes (tables are then cleaned by asking /proc)",
        costs: &[],
    },
    Hook {
        name: "network_connect_tcp",
        kinds: &["network.connect"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("inet_sock_set_state", Attach::TpBtf("inet_sock_set_state", &[SOCK, "int", "int"]))],
            blind: None,
        }],
        without: "TCP connections and their results",
        costs: &["runtime_watcher.reverse_shell (direction of the socket, relays by a sibling process)"],
    },
    Hook {
        name: "network_connect_tcp_early",
        kinds: &["network.connect"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_tcp_v4_connect", Attach::Fexit("tcp_v4_connect", ADDRESS)),
                    program("fexit_tcp_v6_connect", Attach::Fexit("tcp_v6_connect", ADDRESS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[program("sys_exit_connect_tcp", Attach::Tracepoint("syscalls", "sys_exit_connect"))],
                blind: Some("TCP attempts that fail before their first packet, by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "TCP attempts that fail before their first packet (no route, no free port)",
        costs: &[],
    },
    Hook {
        name: "network_connect_udp",
        kinds: &["network.connect"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_ip4_datagram_connect", Attach::Fexit("__ip4_datagram_connect", ADDRESS)),
                    program("fexit_ip6_datagram_connect", Attach::Fexit("__ip6_datagram_connect", ADDRESS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[program("sys_exit_connect_udp", Attach::Tracepoint("syscalls", "sys_exit_connect"))],
                blind: Some("UDP connects by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "connected UDP sockets",
        costs: &["runtime_watcher.reverse_shell (direction of UDP sockets)"],
    },
    Hook {
        name: "process_seed",
        kinds: &["process.seed"],
        tiers: &[
            Tier { name: "iter", programs: &[program("seed", Attach::IterTask)], blind: None },
            Tier {
                name: "procfs",
                programs: &[],
                blind: Some("exact start times and image counts of processes older than the sensor (read from /proc in 10 ms ticks)"),
            },
        ],
        without: "processes older than the sensor",
        costs: &["lineage of every alert", "runtime_watcher.reverse_shell (shells that started while the sensor was down)"],
    },
];

/// What `--disable-hook` takes: a hook, or one tier of it as `hook:tier` (then the next tier is tried).
pub fn is_hook_name(name: &str) -> bool {
    HOOKS.iter().any(|hook| name == hook.name || hook.tiers.iter().any(|tier| name == format!("{}:{}", hook.name, tier.name)))
}

/// Every name that `--disable-hook` takes.
pub fn hook_names() -> Vec<String> {
    let tiers = |hook: &Hook| hook.tiers.iter().map(|tier| format!("{}:{}", hook.name, tier.name)).collect::<Vec<_>>();
    HOOKS.iter().flat_map(|hook| std::iter::once(hook.name.to_owned()).chain(tiers(hook))).collect()
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
        Attach::IterTask => (!btf.has_function("bpf_iter_task")).then(|| "this kernel has no task iterator".to_owned()),
        Attach::Tracepoint(..) => None,
    }
}

/// `sockaddr_unsized` is what Linux 6.19 calls the `sockaddr` of these functions: the same bytes.
fn same(have: &str, want: &str) -> bool {
    have == want || (want == "struct sockaddr *" && have == "struct sockaddr_unsized *")
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
            assert!(HOOKS.iter().any(|hook| hook.kinds.contains(&kind.name)), "no hook makes {}", kind.name);
        }
    }
}
