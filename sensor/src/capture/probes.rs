//! Takes what the kernel gathered of packets to closed ports out of its map.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd};
use bartizan_sensor_ebpf::abi::{ProbeGathered, ProbeSource};

/// Sources taken at once, at most: the map holds no more (`PROBES` in the kernel's maps.rs).
const SOURCES: usize = 8192;

/// Takes out everything, one entry a source. Each entry is read and removed in one step, so no packet is counted twice or lost in
/// between, but for those that a CPU is just adding to an entry that is being removed.
///
/// # Errors
/// The errno of the first call that failed for another reason than the end of the map. What was taken until then is lost to the caller.
pub fn take(map: &MapData) -> io::Result<Vec<(ProbeSource, ProbeGathered)>> {
    let mut taken = Vec::new();
    for _ in 0..SOURCES {
        let Some(key) = first_key(map)? else { break };
        match take_one(map, &key)? {
            Some(value) if value.packets > 0 => taken.push((key, value)),
            // Somebody else was faster, or it was sent the moment before.
            Some(_) | None => {}
        }
    }
    Ok(taken)
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<bool> {
    // SAFETY: the attribute is filled by the callers below with pointers that live across the call and are as long as the map says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if result >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(false) } else { Err(error) }
}

/// Sets map, key and value of the attribute of a map command.
fn element(map: &MapData, key: u64, value: u64) -> bpf_attr {
    // SAFETY: a plain C union for which zero bytes are valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the member that map commands read; integers only.
    let fields = unsafe { &mut attr.__bindgen_anon_2 };
    fields.map_fd = map.fd().as_fd().as_raw_fd() as u32;
    fields.key = key;
    fields.__bindgen_anon_1.value = value;
    attr
}

/// Any key: what was taken is gone, so the first one is always another.
fn first_key(map: &MapData) -> io::Result<Option<ProbeSource>> {
    let mut key = ProbeSource { source: [0; 16], protocol: 0, family: 0, flags: 0 };
    let mut attr = element(map, 0, (&raw mut key) as u64);
    Ok(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr)?.then_some(key))
}

fn take_one(map: &MapData, key: &ProbeSource) -> io::Result<Option<ProbeGathered>> {
    // SAFETY: integers only, for which zero bytes are valid.
    let mut value: ProbeGathered = unsafe { std::mem::zeroed() };
    let mut attr = element(map, std::ptr::from_ref(key) as u64, (&raw mut value) as u64);
    Ok(bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr)?.then_some(value))
}
