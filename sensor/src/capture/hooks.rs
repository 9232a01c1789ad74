//! The hooks: what each one sees, and the tiers it can be carried by, best first.

use bartizan_sensor_ebpf::abi::Kind;

use super::btf::Btf;
use super::libraries::Library;

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

/// One program of a tier.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSpec {
    /// Name in the kernel object.
    pub program: &'static str,
    /// Where it goes.
    pub attach: Attach,
    /// Only where the kernel has it (32-bit entry points, another signature): its absence does not fail the tier, unless no program is left.
    pub optional: bool,
}

/// One way to carry a hook.
#[derive(Debug, Clone, Copy)]
pub struct Tier {
    /// Name for status and `--disable-hook`: `tp_btf`, `fexit`, `syscall_tracepoint`, `uprobe`, `iter`, `procfs`.
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

const fn syscall(program: &'static str, name: &'static str) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Tracepoint("syscalls", name), optional: false }
}

const fn pam(program: &'static str, symbol: &'static str) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Uprobe { library: Library::Pam, symbol, cookie: None }, optional: false }
}

/// A call into libpam whose verdict becomes a record of this kind.
const fn pam_verdict(program: &'static str, symbol: &'static str, kind: Kind) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Uprobe { library: Library::Pam, symbol, cookie: Some(kind as u64) }, optional: false }
}

const fn libc(program: &'static str, symbol: &'static str) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Uprobe { library: Library::C, symbol, cookie: None }, optional: false }
}

const TASK: &str = "struct task_struct *";
const SOCK: &str = "struct sock *";
const ADDRESS: &[&str] = &[SOCK, "struct sockaddr *", "int"];
const REGS: &[&str] = &["struct pt_regs *"];
const SOCKET: &str = "struct socket *";
const CRED: &str = "struct cred *";
const CREDS: &[&str] = &[CRED, CRED, "int"];

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
        name: "network_accept",
        kinds: &["network.accept"],
        tiers: &[
            Tier {
                name: "fexit",
                // One of them: Linux 6.10 put the last two parameters into one.
                programs: &[
                    optional("fexit_inet_accept", Attach::Fexit("inet_accept", &[SOCKET, SOCKET, "struct proto_accept_arg *"])),
                    optional("fexit_inet_accept_flags", Attach::Fexit("inet_accept", &[SOCKET, SOCKET, "int", "bool"])),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_accept", "sys_exit_accept"), syscall("sys_exit_accept", "sys_exit_accept4")],
                blind: Some("connections accepted by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "connections that programs accept",
        costs: &["network_guardian.port_scan_in (open ports)", "network_guardian.login_hammering"],
    },
    Hook {
        name: "network_listen",
        kinds: &["network.listen"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("inet_sock_set_state_listen", Attach::TpBtf("inet_sock_set_state", &[SOCK, "int", "int"]))],
            blind: None,
        }],
        without: "TCP sockets that begin to listen",
        costs: &[],
    },
    Hook {
        name: "network_probe",
        kinds: &["network.probe"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("kfree_skb", Attach::TpBtf("kfree_skb", &["struct sk_buff *", "void *", "enum skb_drop_reason"]))],
            blind: None,
        }],
        without: "packets to closed ports",
        costs: &["network_guardian.port_scan_in", "network_guardian.raw_scan_out"],
    },
    Hook {
        name: "process_credentials",
        kinds: &["process.credentials"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_task_fix_setuid", Attach::Fexit("security_task_fix_setuid", CREDS)),
                    program("fexit_task_fix_setgid", Attach::Fexit("security_task_fix_setgid", CREDS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_enter_setid", "sys_enter_setuid"),
                    syscall("sys_enter_setid", "sys_enter_setgid"),
                    syscall("sys_enter_setid", "sys_enter_setreuid"),
                    syscall("sys_enter_setid", "sys_enter_setregid"),
                    syscall("sys_enter_setid", "sys_enter_setresuid"),
                    syscall("sys_enter_setid", "sys_enter_setresgid"),
                    syscall("sys_enter_setid", "sys_enter_setfsuid"),
                    syscall("sys_enter_setid", "sys_enter_setfsgid"),
                    syscall("sys_exit_setid", "sys_exit_setuid"),
                    syscall("sys_exit_setid", "sys_exit_setgid"),
                    syscall("sys_exit_setid", "sys_exit_setreuid"),
                    syscall("sys_exit_setid", "sys_exit_setregid"),
                    syscall("sys_exit_setid", "sys_exit_setresuid"),
                    syscall("sys_exit_setid", "sys_exit_setresgid"),
                    syscall("sys_exit_setid", "sys_exit_setfsuid"),
                    syscall("sys_exit_setid", "sys_exit_setfsgid"),
                ],
                blind: Some("changes of ids by 32-bit (int 0x80) callers"),
            },
        ],
        without: "changes of user and group ids",
        costs: &[],
    },
    Hook {
        name: "auth_pam",
        kinds: &["auth.start", "auth.authenticate", "auth.account", "auth.session_open", "auth.session_close"],
        tiers: &[Tier {
            name: "uprobe",
            programs: &[
                pam("pam_start", "pam_start"),
                pam("pam_started", "pam_start"),
                // Linux-PAM 1.4 and newer.
                ProgramSpec { optional: true, ..pam("pam_start_confdir", "pam_start_confdir") },
                ProgramSpec { optional: true, ..pam("pam_started", "pam_start_confdir") },
                pam("pam_set_item", "pam_set_item"),
                pam_verdict("pam_call", "pam_authenticate", Kind::PamAuthenticate),
                pam_verdict("pam_called", "pam_authenticate", Kind::PamAuthenticate),
                pam_verdict("pam_call", "pam_acct_mgmt", Kind::PamAccount),
                pam_verdict("pam_called", "pam_acct_mgmt", Kind::PamAccount),
                pam_verdict("pam_call", "pam_open_session", Kind::PamSessionOpen),
                pam_verdict("pam_called", "pam_open_session", Kind::PamSessionOpen),
                pam_verdict("pam_call", "pam_close_session", Kind::PamSessionClose),
                pam_verdict("pam_called", "pam_close_session", Kind::PamSessionClose),
                pam("pam_end", "pam_end"),
            ],
            blind: None,
        }],
        without: "logins, sudo, su and every other authentication through PAM, and which processes belong to which login",
        costs: &[
            "auth_fortress.brute_force",
            "auth_fortress.spray",
            "auth_fortress.success_after_failures",
            "network_guardian.login_hammering (logins that succeed)",
            "correlate.brute_force_to_shell",
        ],
    },
    Hook {
        name: "auth_sshd_log",
        kinds: &["auth.authenticate", "auth.invalid_user"],
        tiers: &[Tier { name: "uprobe", programs: &[libc("syslog", "syslog"), libc("syslog_chk", "__syslog_chk")], blind: None }],
        without: "what PAM never sees of sshd: public keys, unknown users, and passwords of a server without PAM",
        costs: &["auth_fortress.brute_force (public keys)", "auth_fortress.spray (unknown users)", "auth_fortress.success_after_failures"],
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
        Attach::Uprobe { .. } => None,
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
