//! What was read from files last, shared by all readers of a log.

use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;

/// How much is kept.
const CACHE_BYTES: usize = 3 * 1024 * 1024;

/// Part of a raw segment, or an unpacked block of a sealed one.
#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Chunk(Bytes),
    Block(Arc<Block>),
}

impl Cached {
    fn memory(&self) -> usize {
        match self {
            Self::Chunk(bytes) => bytes.len(),
            Self::Block(block) => block.memory(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    file: u64,
    offset: u64,
    used: u64,
    cached: Cached,
}

/// The entries used last, few and large.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: Vec<Entry>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    /// A block that begins exactly here.
    pub(crate) fn block(&mut self, file: u64, offset: u64) -> Option<Arc<Block>> {
        self.clock += 1;
        let entry = self.entries.iter_mut().find(|entry| entry.file == file && entry.offset == offset)?;
        entry.used = self.clock;
        match &entry.cached {
            Cached::Block(block) => Some(Arc::clone(block)),
            Cached::Chunk(_) => None,
        }
    }

    /// A chunk with at least `len` bytes from here on; what it has from here on.
    pub(crate) fn chunk(&mut self, file: u64, offset: u64, len: usize) -> Option<Bytes> {
        self.clock += 1;
        self.entries.iter_mut().filter(|entry| entry.file == file && entry.offset <= offset).find_map(|entry| {
            let Cached::Chunk(bytes) = &entry.cached else { return None };
            let at = usize::try_from(offset - entry.offset).ok()?;
            (at.checked_add(len)? <= bytes.len()).then(|| {
                entry.used = self.clock;
                bytes.slice(at..)
            })
        })
    }

    pub(crate) fn insert(&mut self, file: u64, offset: u64, cached: Cached) {
        self.clock += 1;
        self.bytes += cached.memory();
        self.entries.push(Entry { file, offset, used: self.clock, cached });
        while self.bytes > CACHE_BYTES && self.entries.len() > 1 {
            let Some(oldest) = (0..self.entries.len()).min_by_key(|n| self.entries[*n].used) else { break };
            let gone = self.entries.swap_remove(oldest);
            self.bytes -= gone.cached.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut cache = Cache::default();
        let part = CACHE_BYTES / 4;
        for n in 0..4 {
            cache.insert(n, 64, Cached::Chunk(vec![n as u8; part].into()));
        }
        assert_eq!(cache.chunk(0, 74, part - 10).map(|bytes| bytes.len()), Some(part - 10));
        assert!(cache.chunk(0, 74, part - 9).is_none() && cache.chunk(0, 63, 1).is_none() && cache.block(0, 64).is_none());
        cache.insert(9, 0, Cached::Chunk(vec![0; part].into()));
        assert!(cache.chunk(0, 64, 1).is_some() && cache.chunk(1, 64, 1).is_none() && cache.chunk(9, 0, 1).is_some());
    }
}
