//! What is done to the kernel itself.

use super::{Absent, Attach, CgroupPlace, Hook, REGS, SOCK, Tier, optional, program, syscall};

const PROG: &str = "struct bpf_prog *";
const MODULE: &[&str] = &["struct module *"];
const READ_FILE: &[&str] = &["struct file *", "enum kernel_read_file_id", "bool"];
const UPROBE: &[&str] = &["struct inode *", "loff_t", "loff_t", "struct uprobe_consumer *"];

/// Parts of the kernel that may not be compiled in.
pub(super) const ABSENT: &[Absent] = &[
    Absent { hook: "kernel_module", function: "load_module", why: "this kernel has no loadable modules" },
    Absent { hook: "kernel_kexec", function: "kernel_kexec", why: "this kernel has no kexec" },
];

/// In the order of the status page.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        name: "kernel_sysctl",
        kinds: &["kernel.sysctl"],
        tiers: &[Tier { name: "cgroup", programs: &[program("sysctl", Attach::Cgroup(CgroupPlace::Sysctl))], blind: None }],
        without: "writes of /proc/sys",
        costs: &[],
    },
    Hook {
        name: "kernel_bpf_load",
        kinds: &["kernel.bpf_load", "kernel.bpf_unload"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[program("fexit_bpf_event", Attach::Fexit("perf_event_bpf_event", &[PROG, "enum perf_bpf_event_type", "u16"]))],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_bpf_load", "sys_exit_bpf")],
                blind: Some("BPF programs that are unloaded, or loaded by 32-bit (int 0x80) callers or by other BPF programs"),
            },
        ],
        without: "BPF programs that are loaded and unloaded",
        costs: &[],
    },
    Hook {
        name: "kernel_bpf_attach",
        kinds: &["kernel.bpf_attach"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_bpf_link", Attach::Fexit("bpf_link_prime", &["struct bpf_link *", "struct bpf_link_primer *"])),
                    program("fexit_bpf_cgroup", Attach::Fexit("cgroup_bpf_prog_attach", &["union bpf_attr *", "enum bpf_prog_type", PROG])),
                    program("fexit_bpf_perf", Attach::Fexit("__perf_event_set_bpf_prog", &["struct perf_event *", PROG, "u64"])),
                ],
                blind: Some("programs put on network devices by netlink (tc, XDP), in socket maps and flow dissectors"),
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_bpf_attach", "sys_exit_bpf")],
                blind: Some(
                    "BPF programs that are attached by 32-bit (int 0x80) callers, by other BPF programs, by ioctl to a perf event or by netlink (tc, XDP)",
                ),
            },
        ],
        without: "places that BPF programs are attached to",
        costs: &[],
    },
    Hook {
        name: "kernel_socket_filter",
        kinds: &["kernel.bpf_attach"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[program("fexit_socket_filter", Attach::Fexit("__sk_attach_prog", &[PROG, SOCK]))],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_setsockopt", "sys_exit_setsockopt")],
                blind: Some("filters put on sockets by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "filters that are put on sockets",
        costs: &[],
    },
    Hook {
        name: "kernel_module",
        kinds: &["kernel.module"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("module_load", Attach::TpBtf("module_load", MODULE)),
                    program("module_free", Attach::TpBtf("module_free", MODULE)),
                    program("module_request", Attach::TpBtf("module_request", &["char *", "bool", "long unsigned int"])),
                    program("fexit_module_file", Attach::Fexit("security_kernel_read_file", READ_FILE)),
                    program("fexit_module_memory", Attach::Fexit("security_kernel_load_data", &["enum kernel_load_data_id", "bool"])),
                    program("fexit_load_module", Attach::Fexit("load_module", &["struct load_info *", "char *", "int"])),
                ],
                blind: None,
            },
            Tier {
                name: "tp_btf",
                programs: &[
                    program("module_load", Attach::TpBtf("module_load", MODULE)),
                    program("module_free", Attach::TpBtf("module_free", MODULE)),
                    program("module_request", Attach::TpBtf("module_request", &["char *", "bool", "long unsigned int"])),
                ],
                blind: Some("the file of a module that is loaded, whether it came from memory, and loads that fail"),
            },
        ],
        without: "kernel modules",
        costs: &[],
    },
    Hook {
        name: "kernel_kexec",
        kinds: &["kernel.kexec"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program(
                        "fexit_kexec_load",
                        Attach::Fexit(
                            "do_kexec_load",
                            &["long unsigned int", "long unsigned int", "struct kexec_segment *", "long unsigned int"],
                        ),
                    ),
                    optional("fexit_kexec_image", Attach::Fexit("security_kernel_read_file", READ_FILE)),
                    optional("fexit_kexec_file_load", Attach::Fexit("__x64_sys_kexec_file_load", REGS)),
                    optional("fexit_compat_kexec_file_load", Attach::Fexit("__ia32_sys_kexec_file_load", REGS)),
                    program("fentry_kernel_kexec", Attach::Fentry("kernel_kexec", &[])),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    syscall("sys_exit_kexec_load", "sys_exit_kexec_load"),
                    optional("sys_exit_kexec_file_load", Attach::Tracepoint("syscalls", "sys_exit_kexec_file_load")),
                    syscall("sys_enter_reboot", "sys_enter_reboot"),
                ],
                blind: Some("kexec by 32-bit (int 0x80) callers"),
            },
        ],
        without: "other kernels that are loaded and booted",
        costs: &[],
    },
    Hook {
        name: "kernel_lockdown",
        kinds: &["kernel.lockdown"],
        tiers: &[Tier {
            name: "fexit",
            programs: &[program("fexit_locked_down", Attach::Fexit("security_locked_down", &["enum lockdown_reason"]))],
            blind: None,
        }],
        without: "what lockdown refuses (its mode is looked at every two seconds)",
        costs: &[],
    },
    Hook {
        name: "kernel_probe",
        kinds: &["kernel.probe"],
        tiers: &[
            Tier {
                name: "fexit",
                // One of the two of user space: Linux 6.12 returns the probe itself.
                programs: &[
                    optional("fexit_kprobe", Attach::Fexit("register_kprobe", &["struct kprobe *"])),
                    optional("fexit_uprobe", Attach::Fexit("uprobe_register", UPROBE)),
                    optional("fexit_uprobe_result", Attach::Fexit("__uprobe_register", UPROBE)),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_perf_event_open", "sys_exit_perf_event_open")],
                blind: Some("probes put by tracefs, by BPF (uprobe_multi) or by 32-bit (int 0x80) callers"),
            },
        ],
        without: "probes on the kernel and on programs",
        costs: &[],
    },
    Hook {
        name: "kernel_helper",
        kinds: &["kernel.helper"],
        tiers: &[Tier {
            name: "fentry",
            programs: &[program("fentry_usermodehelper", Attach::Fentry("call_usermodehelper_exec", &["struct subprocess_info *"]))],
            blind: None,
        }],
        without: "for whom the kernel starts a program (its exec is told)",
        costs: &[],
    },
];
