//! Programs inside the kernel: the bodies of `kernel.bpf_load`, `kernel.bpf_unload` and `kernel.bpf_attach`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// A BPF program: the body of `kernel.bpf_load` and `kernel.bpf_unload`. What Bartizan loads itself is not told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct BpfProgram {
    /// Its id until it is unloaded; `None` for a classic filter, which has none.
    #[n(0)]
    pub id: Option<u32>,
    /// Its type in the kernel's words: `kprobe`, `cgroup_skb`; `classic` for a classic filter, a number for what is newer than this
    /// list.
    #[n(1)]
    pub program_type: String,
    /// What it was loaded for, likewise: `trace_fentry`, `cgroup_inet4_connect`. `None` where its type says it all.
    #[n(2)]
    pub attach_type: Option<String>,
    /// Name that its loader gave it; `None` without one.
    #[n(3)]
    pub name: Option<String>,
    /// Hash of its instructions as they were loaded, in hexadecimal digits: equal programs have equal ones. `None` for a classic filter.
    #[n(4)]
    pub tag: Option<String>,
    /// Instructions after the kernel's own rewriting.
    #[n(5)]
    pub instructions: u32,
    /// Instructions of the classic filter that it was made from.
    #[n(6)]
    pub classic_instructions: Option<u32>,
    /// The kernel function or tracepoint that it was loaded for.
    #[n(7)]
    pub function: Option<String>,
    /// BTF id of that.
    #[n(8)]
    pub function_btf_id: Option<u32>,
}

/// How a program came to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum BpfWay {
    /// By a link: the program stays as long as somebody holds that.
    #[n(0)]
    Link,
    /// By `BPF_PROG_ATTACH`: it stays when its loader is gone.
    #[n(1)]
    Attach,
    /// As the filter of a socket.
    #[n(2)]
    SocketFilter,
    /// On a perf event, by ioctl or as a part of a link (which is then told, too).
    #[n(3)]
    PerfEvent,
    /// In a way that this build does not know.
    #[n(4)]
    Other,
}

/// A socket with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct BpfSocket {
    /// Address family: 2 `AF_INET`, 10 `AF_INET6`, 16 `AF_NETLINK`, 17 `AF_PACKET`.
    #[n(0)]
    pub family: u16,
    /// 1 `SOCK_STREAM`, 2 `SOCK_DGRAM`, 3 `SOCK_RAW`.
    #[n(1)]
    pub socket_type: u16,
    /// Its protocol; of a packet socket the kernel tells 0.
    #[n(2)]
    pub protocol: u16,
    /// Inode of its file.
    #[n(3)]
    pub inode: Option<u64>,
}

/// A perf event with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct PerfEvent {
    /// `perf_event_attr.type`: 1 software, 2 tracepoint; kprobes and uprobes have numbers of each boot
    /// (`/sys/bus/event_source/devices/kprobe/type`).
    #[n(0)]
    pub event_type: u32,
    /// `perf_event_attr.config`: of a tracepoint its id.
    #[n(1)]
    pub config: u64,
}

/// Body of `kernel.bpf_attach`. What is put on network devices by netlink (tc, XDP) is not told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct BpfAttach {
    /// The program.
    #[n(0)]
    pub program: BpfProgram,
    /// How.
    #[n(1)]
    pub way: BpfWay,
    /// Type of the link in the kernel's words: `raw_tracepoint`, `cgroup`, `perf_event`, `xdp`, or a number.
    #[n(2)]
    pub link_type: Option<String>,
    /// Its id.
    #[n(3)]
    pub link_id: Option<u32>,
    /// What it is attached as, where that is said anew.
    #[n(4)]
    pub attach_type: Option<String>,
    /// The tracepoint.
    #[n(5)]
    pub tracepoint: Option<String>,
    /// Id of the cgroup.
    #[n(6)]
    pub cgroup_id: Option<u64>,
    /// Index of the network device.
    #[n(7)]
    pub ifindex: Option<u32>,
    /// The perf event.
    #[n(8)]
    pub perf_event: Option<PerfEvent>,
    /// The socket.
    #[n(9)]
    pub socket: Option<BpfSocket>,
    /// Which program it is and where it went was read from the caller's memory after the call, and could have been changed by another
    /// thread.
    #[n(10)]
    pub from_caller: bool,
}
