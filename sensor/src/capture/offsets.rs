//! Resolves [`KernelOffsets`] from the running kernel's types.

use bartizan_sensor_ebpf::layout::{ABSENT, KernelOffsets, Lookup, Slot};

use super::btf::Btf;

/// Structure members that this kernel lacks and the programs cannot do without.
#[derive(Debug, thiserror::Error)]
#[error(
    "this kernel's type information has no {}: Bartizan does not know this kernel's layout and does not guess; please report the kernel version", missing.join(", ")
)]
pub struct OffsetsError {
    missing: Vec<String>,
}

/// [`KernelOffsets`] as bytes that aya may copy into the object.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Offsets(pub KernelOffsets);

// SAFETY: `KernelOffsets` is `#[repr(C)]`, made of `u16`s only: no padding, every bit pattern valid.
unsafe impl aya::Pod for Offsets {}

/// Looks up every slot.
///
/// # Errors
/// [`OffsetsError`] names every mandatory member that is not there.
pub fn resolve(btf: &Btf) -> Result<Offsets, OffsetsError> {
    let mut offsets = KernelOffsets::UNRESOLVED;
    let mut missing = Vec::new();
    for slot in KernelOffsets::SLOTS {
        match slot.lookups.iter().find_map(|lookup| look_up(btf, *lookup)) {
            Some(value) => set(&mut offsets, slot, value),
            None if slot.optional => {}
            None => missing.push(slot.lookups.iter().map(name).collect::<Vec<_>>().join(" or ")),
        }
    }
    if missing.is_empty() { Ok(Offsets(offsets)) } else { Err(OffsetsError { missing }) }
}

fn look_up(btf: &Btf, lookup: Lookup) -> Option<u16> {
    let value = match lookup {
        Lookup::Member(structure, member) => i64::from(btf.member(structure, member)?),
        Lookup::Size(structure) => i64::from(btf.size(structure)?),
        Lookup::Enumerator(label) => btf.enumerator(label)?,
    };
    u16::try_from(value).ok().filter(|value| *value != ABSENT)
}

fn name(lookup: &Lookup) -> String {
    match lookup {
        Lookup::Member(structure, member) => format!("{structure}.{member}"),
        Lookup::Size(structure) => format!("struct {structure}"),
        Lookup::Enumerator(label) => (*label).to_owned(),
    }
}

fn set(offsets: &mut KernelOffsets, slot: &Slot, value: u16) {
    const SLOTS: usize = size_of::<KernelOffsets>() / 2;
    assert!(slot.index < SLOTS, "slot {} lies outside KernelOffsets", slot.name);
    // SAFETY: `KernelOffsets` is an array of `u16`s in all but name, and the index was just checked.
    unsafe { (&raw mut *offsets).cast::<u16>().add(slot.index).write(value) };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::capture::btf::VMLINUX;

    #[test]
    fn every_slot_of_this_kernel_is_resolved_and_stands_where_its_field_is() {
        let btf = Btf::read(Path::new(VMLINUX)).unwrap();
        let Offsets(offsets) = resolve(&btf).unwrap();
        assert_eq!(u32::from(offsets.task_tgid), btf.member("task_struct", "tgid").unwrap());
        assert_eq!(u32::from(offsets.syscall_exit_ret), btf.member("syscall_tp_t", "ret").unwrap());
        assert_eq!(KernelOffsets::SLOTS.len() * 2, size_of::<KernelOffsets>());
    }

    #[test]
    fn a_foreign_kernel_is_refused_by_name() {
        let empty = [&0xeb9f_u16.to_le_bytes()[..], &[1, 0, 24, 0, 0, 0], &[0; 16], &[0]].concat();
        let error = resolve(&Btf::parse(empty).unwrap()).unwrap_err().to_string();
        assert!(error.contains("task_struct.tgid"), "{error}");
    }
}
