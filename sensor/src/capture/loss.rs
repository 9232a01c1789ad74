//! What the kernel side emitted and could not emit, and which program runs it skipped.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray};
use bartizan_sensor_ebpf::abi::{COUNTS, Count, KINDS};

use super::load::{HookReport, program_counters};
use crate::status::SKIPPED;

/// Losses since start, by kind (or hook) and reason.
pub type Losses = BTreeMap<(String, &'static str), u64>;

/// One reading of all kernel-side counters.
#[derive(Debug, Clone, Default)]
pub struct KernelCounts {
    /// Records handed to a ring, by kind.
    pub emitted: BTreeMap<&'static str, u64>,
    /// Records that Bartizan itself caused and that were left out, by kind.
    pub filtered_self: BTreeMap<&'static str, u64>,
    /// Records that were left out as the configuration says, by kind.
    pub filtered: BTreeMap<&'static str, u64>,
    /// Attempts that were told at once without their result, because too many were pending.
    pub pending_full: u64,
    /// Losses.
    pub lost: Losses,
}

/// Reads them.
///
/// # Errors
/// The map cannot be read.
pub fn read(counters: &PerCpuArray<MapData, u64>, hooks: &[HookReport]) -> Result<KernelCounts, MapError> {
    let mut counts = KernelCounts::default();
    let sum = |kind: usize, count: Count| -> Result<u64, MapError> {
        Ok(counters.get(&((kind * COUNTS + count as usize) as u32), 0)?.iter().sum())
    };
    for info in KINDS {
        let kind = info.kind as usize;
        *counts.emitted.entry(info.name).or_default() += sum(kind, Count::Emitted)?;
        *counts.filtered_self.entry(info.name).or_default() += sum(kind, Count::FilteredSelf)?;
        *counts.filtered.entry(info.name).or_default() += sum(kind, Count::Filtered)?;
        counts.pending_full += sum(kind, Count::PendingFull)?;
        for (count, reason) in
            [(Count::RingFull, "ring_full"), (Count::NoResult, "no_result"), (Count::TableFull, "table_full"), (Count::Shed, "shed")]
        {
            let lost = sum(kind, count)?;
            if lost > 0 {
                *counts.lost.entry((info.name.to_owned(), reason)).or_default() += lost;
            }
        }
    }
    for hook in hooks {
        for (program, fd) in &hook.programs {
            // A program that was just detached has no counters; its hook's state says so.
            let misses = program_counters(fd).map_or(0, |counters| counters.recursion_misses);
            if misses > 0 {
                counts.lost.insert(((*program).to_owned(), SKIPPED), misses);
            }
        }
    }
    Ok(counts)
}

/// What grew since `before`.
pub fn since(before: &Losses, now: &Losses) -> Losses {
    now.iter()
        .filter_map(|(key, count)| {
            let grown = count.saturating_sub(before.get(key).copied().unwrap_or(0));
            (grown > 0).then(|| (key.clone(), grown))
        })
        .collect()
}
