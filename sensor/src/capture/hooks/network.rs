//! Connections and packets.

use bartizan_sensor_ebpf::abi::{
    PART_ACCEPT_INET, PART_ACCEPT_VSOCK, PART_CONNECT_TCP, PART_CONNECT_UDP, PART_CONNECT_UNIX, PART_CONNECT_VSOCK, PART_STATE_CONNECT,
    PART_STATE_LISTEN,
};

use super::{
    ADDRESS, Attach, CgroupPlace, FILE_ADDRESS, Hook, ProgramSpec, SOCK, SOCKET, SOCKET_ADDRESS, SOCKET_CREATED, Tier, optional, part,
    program, syscall,
};

/// Programs that several of these share.
const SOCK_STATE: ProgramSpec = program("inet_sock_set_state", Attach::TpBtf("inet_sock_set_state", &[SOCK, "int", "int"]));
const CONNECT_EXIT: ProgramSpec = syscall("sys_exit_connect", "sys_exit_connect");
const ACCEPT_EXIT: ProgramSpec = syscall("sys_exit_accept", "sys_exit_accept");
const ACCEPT4_EXIT: ProgramSpec = syscall("sys_exit_accept", "sys_exit_accept4");

/// In the order of the status page.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        name: "network_connect_tcp",
        kinds: &["network.connect", "network.flow_end"],
        tiers: &[Tier { name: "tp_btf", programs: &[part(PART_STATE_CONNECT, SOCK_STATE)], blind: None }],
        without: "TCP connections, their results and how they end (and every attempt of network.syn counts as unfinished)",
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
                programs: &[part(PART_CONNECT_TCP, CONNECT_EXIT)],
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
                programs: &[part(PART_CONNECT_UDP, CONNECT_EXIT)],
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
                programs: &[part(PART_ACCEPT_INET, ACCEPT_EXIT), part(PART_ACCEPT_INET, ACCEPT4_EXIT)],
                blind: Some("connections accepted by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "connections that programs accept",
        costs: &["network_guardian.port_scan_in (open ports)", "network_guardian.login_hammering"],
    },
    Hook {
        name: "network_listen",
        kinds: &["network.listen"],
        tiers: &[Tier { name: "tp_btf", programs: &[part(PART_STATE_LISTEN, SOCK_STATE)], blind: None }],
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
        name: "network_packets",
        kinds: &["network.dns", "network.tls", "network.http", "network.ssh", "network.udp_flow", "network.syn"],
        tiers: &[Tier {
            name: "cgroup",
            programs: &[
                program("packets_in", Attach::Cgroup(CgroupPlace::Ingress)),
                program("packets_out", Attach::Cgroup(CgroupPlace::Egress)),
            ],
            blind: None,
        }],
        without: "DNS, the names and fingerprints of TLS, requests of HTTP, banners of SSH, UDP traffic, and attempts to connect that nobody completes",
        costs: &[],
    },
    Hook {
        name: "network_bind",
        kinds: &["network.bind"],
        tiers: &[Tier {
            name: "cgroup",
            programs: &[
                program("post_bind4", Attach::Cgroup(CgroupPlace::PostBind4)),
                program("post_bind6", Attach::Cgroup(CgroupPlace::PostBind6)),
            ],
            blind: None,
        }],
        without: "sockets that are bound to a port",
        costs: &[],
    },
    Hook {
        name: "network_socket_create",
        kinds: &["network.raw_socket"],
        tiers: &[Tier { name: "cgroup", programs: &[program("sock_create", Attach::Cgroup(CgroupPlace::SockCreate))], blind: None }],
        without: "raw INET sockets, and whose UDP packets are",
        costs: &[],
    },
    Hook {
        name: "network_raw_socket",
        kinds: &["network.raw_socket"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[program("fexit_socket_post_create", Attach::Fexit("security_socket_post_create", SOCKET_CREATED))],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[syscall("sys_exit_socket", "sys_exit_socket")],
                blind: Some("packet, netlink, vsock and crypto sockets made by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "packet, netlink, vsock and crypto sockets",
        costs: &[],
    },
    Hook {
        name: "network_unix_connect",
        kinds: &["network.unix_connect"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[program("fexit_unix_stream_connect", Attach::Fexit("unix_stream_connect", SOCKET_ADDRESS))],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[part(PART_CONNECT_UNIX, CONNECT_EXIT)],
                blind: Some("UNIX connections by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "connections to UNIX stream sockets and who listens there",
        costs: &[],
    },
    Hook {
        name: "network_vsock",
        kinds: &["network.vsock_connect", "network.vsock_accept"],
        tiers: &[
            Tier {
                name: "fexit",
                programs: &[
                    program("fexit_sys_connect_file", Attach::Fexit("__sys_connect_file", FILE_ADDRESS)),
                    program("fexit_sock_graft", Attach::Fexit("security_sock_graft", &[SOCK, SOCKET])),
                ],
                blind: None,
            },
            Tier {
                name: "syscall_tracepoint",
                programs: &[
                    part(PART_CONNECT_VSOCK, CONNECT_EXIT),
                    part(PART_ACCEPT_VSOCK, ACCEPT_EXIT),
                    part(PART_ACCEPT_VSOCK, ACCEPT4_EXIT),
                ],
                blind: Some("VM socket connections by io_uring or 32-bit (int 0x80) callers"),
            },
        ],
        without: "connections over VM sockets",
        costs: &[],
    },
];
