//! `kernel.bpf_load`, `kernel.bpf_unload` and `kernel.bpf_attach`.

use std::fmt::Write;

use bartizan_bus::event::{self, Body, BpfSocket, PerfEvent};
use bartizan_sensor_ebpf::abi::{BpfAttach, BpfLoad, BpfProgram, BpfUnload, BpfWay, FLAG_FROM_CALLER};

use super::{Act, What, text};

/// `enum bpf_prog_type`, include/uapi/linux/bpf.h, without its prefix; the first is no type.
const PROGRAM_TYPES: &[&str] = &[
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
];

/// `enum bpf_attach_type`, likewise.
const ATTACH_TYPES: &[&str] = &[
    "cgroup_inet_ingress",
    "cgroup_inet_egress",
    "cgroup_inet_sock_create",
    "cgroup_sock_ops",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "cgroup_device",
    "sk_msg_verdict",
    "cgroup_inet4_bind",
    "cgroup_inet6_bind",
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_sysctl",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "trace_raw_tp",
    "trace_fentry",
    "trace_fexit",
    "modify_return",
    "lsm_mac",
    "trace_iter",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname",
    "xdp_devmap",
    "cgroup_inet_sock_release",
    "xdp_cpumap",
    "sk_lookup",
    "xdp",
    "sk_skb_verdict",
    "sk_reuseport_select",
    "sk_reuseport_select_or_migrate",
    "perf_event",
    "trace_kprobe_multi",
    "lsm_cgroup",
    "struct_ops",
    "netfilter",
    "tcx_ingress",
    "tcx_egress",
    "trace_uprobe_multi",
    "cgroup_unix_connect",
    "cgroup_unix_sendmsg",
    "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername",
    "cgroup_unix_getsockname",
    "netkit_primary",
    "netkit_peer",
    "trace_kprobe_session",
    "trace_uprobe_session",
];

/// `enum bpf_link_type`, likewise.
const LINK_TYPES: &[&str] = &[
    "unspec",
    "raw_tracepoint",
    "tracing",
    "cgroup",
    "iter",
    "netns",
    "xdp",
    "perf_event",
    "kprobe_multi",
    "struct_ops",
    "netfilter",
    "tcx",
    "uprobe_multi",
    "netkit",
    "sockmap",
];

/// What the kernel's 0 of `expected_attach_type` stands for as well as for `cgroup_inet_ingress`: nothing.
const NOTHING: u32 = 0;
/// `BPF_PROG_TYPE_CGROUP_SKB`, the type for which it is a place.
const CGROUP_SKB: u32 = 8;

pub(super) fn project_load(record: &BpfLoad) -> What {
    let BpfLoad { header: _, program } = record;
    Act::done(Body::BpfLoad(self::program(program))).into()
}

pub(super) fn project_unload(record: &BpfUnload) -> What {
    let BpfUnload { header: _, program } = record;
    Act::done(Body::BpfUnload(self::program(program))).into()
}

pub(super) fn project_attach(record: &BpfAttach) -> What {
    let BpfAttach {
        header,
        program,
        way,
        link_type,
        link_id,
        attach_type,
        cgroup,
        perf_config,
        perf_type,
        ifindex,
        socket_inode,
        family,
        socket_type,
        protocol,
        pad: _,
        place,
    } = record;
    let way = match BpfWay::from_raw(*way) {
        Some(BpfWay::Link) => event::BpfWay::Link,
        Some(BpfWay::Attach) => event::BpfWay::Attach,
        Some(BpfWay::SocketFilter) => event::BpfWay::SocketFilter,
        Some(BpfWay::PerfEvent) => event::BpfWay::PerfEvent,
        None => event::BpfWay::Other,
    };
    let socket = BpfSocket { family: *family, socket_type: *socket_type, protocol: *protocol, inode: set(*socket_inode) };
    let body = event::BpfAttach {
        program: self::program(program),
        way,
        link_type: (*link_type != 0).then(|| word(LINK_TYPES, *link_type)),
        link_id: (*link_id != 0).then_some(*link_id),
        attach_type: (*attach_type != u32::MAX).then(|| word(ATTACH_TYPES, *attach_type)),
        tracepoint: text::string(Some(place)),
        cgroup_id: set(*cgroup),
        ifindex: (*ifindex != 0).then_some(*ifindex),
        perf_event: (*perf_type != u32::MAX).then_some(PerfEvent { event_type: *perf_type, config: *perf_config }),
        socket: (way == event::BpfWay::SocketFilter).then_some(socket),
        from_caller: header.flags & FLAG_FROM_CALLER != 0,
    };
    Act::done(Body::BpfAttach(body)).into()
}

fn set(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn program(program: &BpfProgram) -> event::BpfProgram {
    let BpfProgram { id, program_type, attach_type, instructions, classic, attach_btf_id, tag, name, function } = program;
    let is_classic = *id == 0;
    event::BpfProgram {
        id: (!is_classic).then_some(*id),
        program_type: if is_classic { "classic".to_owned() } else { word(PROGRAM_TYPES, *program_type) },
        attach_type: (*attach_type != NOTHING || *program_type == CGROUP_SKB).then(|| word(ATTACH_TYPES, *attach_type)),
        name: text::string(Some(name)),
        tag: (!is_classic).then(|| hexadecimal(tag)),
        instructions: *instructions,
        classic_instructions: (*classic != 0).then_some(*classic),
        function: text::string(Some(function)),
        function_btf_id: (*attach_btf_id != 0).then_some(*attach_btf_id),
    }
}

/// The word for `number`, or the number.
fn word(words: &[&str], number: u32) -> String {
    words.get(number as usize).map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a `String` has no failure.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_stand_at_the_kernel_s_numbers() {
        let at = |words: &[&str], number: usize| words[number].to_owned();
        // include/uapi/linux/bpf.h: BPF_PROG_TYPE_TRACING, _LSM, _NETFILTER; BPF_TRACE_FENTRY, BPF_LSM_MAC, BPF_PERF_EVENT, BPF_TCX_INGRESS.
        assert_eq!([26, 29, 32].map(|number| at(PROGRAM_TYPES, number)), ["tracing", "lsm", "netfilter"]);
        assert_eq!([24, 27, 41, 46].map(|number| at(ATTACH_TYPES, number)), ["trace_fentry", "lsm_mac", "perf_event", "tcx_ingress"]);
        assert_eq!([3, 7, 11].map(|number| at(LINK_TYPES, number)), ["cgroup", "perf_event", "tcx"]);
        assert_eq!(word(LINK_TYPES, 99), "99");
    }
}
