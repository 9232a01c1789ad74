//! BPF programs of anybody, as records tell them.

/// Bytes of a program's name with its NUL: `BPF_OBJ_NAME_LEN`, include/uapi/linux/bpf.h.
pub const BPF_NAME_MAX: usize = 16;
/// Longest name of a function or tracepoint that is kept, bytes with the NUL. The kernel's symbols have up to 512, functions of C
/// rarely 64.
pub const BPF_PLACE_MAX: usize = 64;

/// One program.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct BpfProgram {
    /// Its id; 0 for a classic filter, which has none.
    pub id: u32,
    /// `enum bpf_prog_type`, include/uapi/linux/bpf.h; 0 for a classic filter.
    pub program_type: u32,
    /// `enum bpf_attach_type` that it was loaded for; 0 is also what a type without any says.
    pub attach_type: u32,
    /// Instructions, after the kernel's own rewriting.
    pub instructions: u32,
    /// Instructions of the classic filter that it was made from; 0 where it was none.
    pub classic: u32,
    /// BTF id of the function that it is for; 0 without one.
    pub attach_btf_id: u32,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// Name that the loader gave it.
    pub name: [u8; BPF_NAME_MAX],
    /// The function that it is for; empty without one.
    pub function: [u8; BPF_PLACE_MAX],
}

/// How a program came to its place.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfWay {
    /// By a link.
    Link = 1,
    /// `BPF_PROG_ATTACH`.
    Attach = 2,
    /// `SO_ATTACH_FILTER`, `SO_ATTACH_BPF`.
    SocketFilter = 3,
    /// `PERF_EVENT_IOC_SET_BPF`, or the link of a perf event on its way.
    PerfEvent = 4,
}

impl BpfWay {
    /// The way with this number; `None` for one that this build does not know.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Link),
            2 => Some(Self::Attach),
            3 => Some(Self::SocketFilter),
            4 => Some(Self::PerfEvent),
            _ => None,
        }
    }
}
