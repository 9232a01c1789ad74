//! Takes what the kernel gathered out of its maps.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Takes out every entry of `map` for which `is_due` says so, at most `most`. Each is read and removed in one step, so nothing is counted twice
/// or lost in between, but for what a CPU is just adding to an entry that is being removed.
///
/// # Errors
/// The errno of the first call that failed for another reason than the end of the map. What was taken until then is lost to the caller.
///
/// # Safety
/// `K` and `V` must be the map's own key and value types, made of integers without padding.
pub(super) unsafe fn take<K: Copy, V: Copy>(map: &MapData, most: usize, is_due: impl Fn(&V) -> bool) -> io::Result<Vec<(K, V)>> {
    let mut taken = Vec::new();
    // SAFETY: by contract, here and below.
    let mut next: Option<K> = unsafe { next_key(map, None)? };
    for _ in 0..most {
        let Some(key) = next else { break };
        // Asked for before the entry goes: behind one that is gone the kernel begins anew.
        // SAFETY: by contract.
        next = unsafe { next_key(map, Some(&key))? };
        // SAFETY: by contract.
        let Some(value) = (unsafe { value::<K, V>(map, &key, bpf_cmd::BPF_MAP_LOOKUP_ELEM)? }) else { continue };
        if !is_due(&value) {
            continue;
        }
        // SAFETY: by contract.
        if let Some(value) = unsafe { value_and_remove(map, &key)? } {
            taken.push((key, value));
        }
    }
    Ok(taken)
}

/// As [`take`], where somebody else may have been faster.
unsafe fn value_and_remove<K, V>(map: &MapData, key: &K) -> io::Result<Option<V>> {
    // SAFETY: by contract.
    unsafe { value(map, key, bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM) }
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

/// The key behind `previous`, or the first one.
unsafe fn next_key<K>(map: &MapData, previous: Option<&K>) -> io::Result<Option<K>> {
    let mut key = MaybeUninit::<K>::zeroed();
    let mut attr = element(map, previous.map_or(0, |key| std::ptr::from_ref(key) as u64), key.as_mut_ptr() as u64);
    // SAFETY: all of it is there, of integers.
    Ok(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr)?.then(|| unsafe { key.assume_init() }))
}

unsafe fn value<K, V>(map: &MapData, key: &K, command: bpf_cmd) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::zeroed();
    let mut attr = element(map, std::ptr::from_ref(key) as u64, value.as_mut_ptr() as u64);
    // SAFETY: as above.
    Ok(bpf(command, &mut attr)?.then(|| unsafe { value.assume_init() }))
}
