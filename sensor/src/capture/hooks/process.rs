//! What processes are and do.

use super::{Attach, CRED, CREDS, Hook, ProgramSpec, REGS, TASK, Tier, optional, program, syscall};

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
            programs: &[program("task_newtask", Attach::TpBtf("task_newtask", &[TASK, "long unsigned int"]))],
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
        name: "process_groups",
        kinds: &["process.groups"],
        tiers: &[
            Tier { name: "fexit", programs: &[program("fentry_commit_groups", Attach::Fentry("commit_creds", &[CRED]))], blind: None },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_enter_setgroups", "sys_enter_setgroups"), syscall("sys_exit_setgroups", "sys_exit_setgroups")],
                blind: Some("changes of supplementary groups by 32-bit (int 0x80) callers"),
            },
        ],
        without: "changes of supplementary groups",
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
        name: "process_access",
        kinds: &["process.access"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_ptrace_may_access", Attach::Fexit("__ptrace_may_access", &[TASK, "unsigned int"])),
                    program("fexit_ptrace_traceme", Attach::Fexit("ptrace_traceme", &[])),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_exit_access", "sys_exit_ptrace"),
                    syscall("sys_exit_access", "sys_exit_process_vm_readv"),
                    syscall("sys_exit_access", "sys_exit_process_vm_writev"),
                    syscall("sys_exit_access", "sys_exit_pidfd_getfd"),
                ],
                blind: Some("/proc/<pid>/mem that is opened (to be written is told by file.open), and access by 32-bit (int 0x80) callers"),
            },
        ],
        without: "processes that trace others, write their memory or take their descriptors",
        costs: &[],
    },
    Hook {
        name: "process_namespaces",
        kinds: &["process.namespaces"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fentry_unshare", Attach::Fentry("ksys_unshare", &["long unsigned int"])),
                    program("fexit_unshare", Attach::Fexit("ksys_unshare", &["long unsigned int"])),
                    program("fentry_setns", Attach::Fentry("__x64_sys_setns", REGS)),
                    program("fexit_setns", Attach::Fexit("__x64_sys_setns", REGS)),
                    optional("fentry_setns_32", Attach::Fentry("__ia32_sys_setns", REGS)),
                    optional("fexit_setns_32", Attach::Fexit("__ia32_sys_setns", REGS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_enter_namespaces", "sys_enter_unshare"),
                    syscall("sys_enter_namespaces", "sys_enter_setns"),
                    syscall("sys_exit_namespaces", "sys_exit_unshare"),
                    syscall("sys_exit_namespaces", "sys_exit_setns"),
                ],
                blind: Some("changes of namespaces by 32-bit (int 0x80) callers"),
            },
        ],
        without: "processes that go into other namespaces",
        costs: &[],
    },
    Hook {
        name: "process_rename",
        kinds: &["process.rename"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("task_rename", Attach::TpBtf("task_rename", &[TASK, "char *"]))],
            blind: None,
        }],
        without: "processes that change their name",
        costs: &[],
    },
    Hook {
        name: "process_chroot",
        kinds: &["process.chroot"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_chroot", Attach::Fexit("__x64_sys_chroot", REGS)),
                    program("fexit_pivot_root", Attach::Fexit("__x64_sys_pivot_root", REGS)),
                    optional("fexit_chroot_32", Attach::Fexit("__ia32_sys_chroot", REGS)),
                    optional("fexit_pivot_root_32", Attach::Fexit("__ia32_sys_pivot_root", REGS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_chroot", "sys_exit_chroot"), syscall("sys_exit_chroot", "sys_exit_pivot_root")],
                blind: Some("new root folders of 32-bit (int 0x80) callers"),
            },
        ],
        without: "processes that get another root folder",
        costs: &[],
    },
    Hook {
        name: "process_seccomp",
        kinds: &["process.seccomp"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[program("fexit_seccomp", Attach::Fexit("do_seccomp", &["unsigned int", "unsigned int", "void *"]))],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_seccomp", "sys_exit_seccomp"), syscall("sys_exit_prctl_seccomp", "sys_exit_prctl")],
                blind: Some("filters of system calls that 32-bit (int 0x80) callers set"),
            },
        ],
        without: "filters of system calls",
        costs: &[],
    },
    Hook {
        name: "process_memfd",
        kinds: &["process.memfd"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_memfd_create", Attach::Fexit("__x64_sys_memfd_create", REGS)),
                    optional("fexit_memfd_create_32", Attach::Fexit("__ia32_sys_memfd_create", REGS)),
                    optional("fexit_memfd_secret", Attach::Fexit("__x64_sys_memfd_secret", REGS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_exit_memfd", "sys_exit_memfd_create"),
                    ProgramSpec { optional: true, ..syscall("sys_exit_memfd", "sys_exit_memfd_secret") },
                ],
                blind: Some("memfds of 32-bit (int 0x80) callers, until they are executed"),
            },
        ],
        without: "files that live in memory alone, until they are executed",
        costs: &[],
    },
    Hook {
        name: "process_memory_exec",
        kinds: &["process.memory_exec"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program(
                        "fexit_file_mprotect",
                        Attach::Fexit("security_file_mprotect", &["*", "long unsigned int", "long unsigned int"]),
                    ),
                    program(
                        "fexit_mmap_region",
                        Attach::Fexit(
                            "mmap_region",
                            &[
                                "struct file *",
                                "long unsigned int",
                                "long unsigned int",
                                "vm_flags_t",
                                "long unsigned int",
                                "struct list_head *",
                            ],
                        ),
                    ),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_enter_mprotect", "sys_enter_mprotect"),
                    ProgramSpec { optional: true, ..syscall("sys_enter_mprotect", "sys_enter_pkey_mprotect") },
                    syscall("sys_enter_mmap", "sys_enter_mmap"),
                ],
                blind: Some(
                    "memory made executable by 32-bit (int 0x80) callers, by READ_IMPLIES_EXEC, by shmat, and behind the first area of a range",
                ),
            },
        ],
        without: "memory that was written and becomes executable",
        costs: &[],
    },
    Hook {
        name: "process_capabilities",
        kinds: &["process.capabilities"],
        tiers: &[
            Tier { name: "fexit", programs: &[program("fentry_commit_creds", Attach::Fentry("commit_creds", &[CRED]))], blind: None },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_enter_capabilities", "sys_enter_capset"),
                    syscall("sys_enter_capabilities", "sys_enter_prctl"),
                    syscall("sys_enter_capabilities", "sys_enter_unshare"),
                    syscall("sys_enter_capabilities", "sys_enter_setns"),
                    syscall("sys_exit_capabilities", "sys_exit_capset"),
                    syscall("sys_exit_capabilities", "sys_exit_prctl"),
                    syscall("sys_exit_capabilities", "sys_exit_unshare"),
                    syscall("sys_exit_capabilities", "sys_exit_setns"),
                ],
                blind: Some("changes of capabilities by 32-bit (int 0x80) callers"),
            },
        ],
        without: "changes of capabilities",
        costs: &[],
    },
    Hook {
        name: "process_prctl",
        kinds: &["process.prctl"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_prctl", Attach::Fexit("__x64_sys_prctl", REGS)),
                    optional("fexit_prctl_32", Attach::Fexit("__ia32_sys_prctl", REGS)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_prctl", "sys_exit_prctl")],
                blind: Some("prctl by 32-bit (int 0x80) callers"),
            },
        ],
        without: "processes that rewrite what others see of them, or adopt orphans",
        costs: &[],
    },
    Hook {
        name: "process_io_uring",
        kinds: &["process.io_uring"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("io_uring_create", Attach::TpBtf("io_uring_create", &["int", "void *", "u32", "u32", "u32"]))],
            blind: None,
        }],
        without: "processes that use io_uring",
        costs: &[],
    },
    Hook {
        name: "process_io_uring_op",
        kinds: &["process.io_uring_op"],
        tiers: &[Tier {
            name: "tp_btf",
            // One of them: Linux 6.4 took the last parameter away.
            programs: &[
                optional("io_uring_submit_req", Attach::TpBtf("io_uring_submit_req", &["struct io_kiocb *"])),
                optional("io_uring_submit_sqe", Attach::TpBtf("io_uring_submit_sqe", &["struct io_kiocb *", "bool"])),
            ],
            blind: None,
        }],
        without: "what is opened, connected and renamed by io_uring",
        costs: &[],
    },
    Hook {
        name: "process_cgroup_move",
        kinds: &["process.cgroup_move"],
        tiers: &[Tier {
            name: "tp_btf",
            programs: &[program("cgroup_attach_task", Attach::TpBtf("cgroup_attach_task", &["struct cgroup *", "char *", TASK, "bool"]))],
            blind: None,
        }],
        without: "processes that are moved into other control groups",
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
