//! What processes are and do.

use super::{Attach, CREDS, Hook, REGS, TASK, Tier, optional, program, syscall};

/// In the order of the status page.
pub(super) const HOOKS: &[Hook] = &[
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
        name: "process_signal",
        kinds: &["process.signal"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program(
                "signal_generate",
                Attach::TpBtf("signal_generate", &["int", "struct kernel_siginfo *", TASK, "int", "int"]),
            )],
            blind: None,
        }],
        without: "signals that processes send to each other",
        costs: &[],
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
