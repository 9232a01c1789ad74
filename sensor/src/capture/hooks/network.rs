//! Connections and packets.

use super::{ADDRESS, Attach, Hook, SOCK, SOCKET, Tier, optional, program, syscall};

/// In the order of the status page.
pub(super) const HOOKS: &[Hook] = &[
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
];
