//! Bytes to send, prepared before anything is measured.

use std::ops::Range;

/// Least bytes in a set of frames: larger than what a server could know by heart, small enough for the processor's outer cache.
const LEAST_BYTES: usize = 1 << 20;
/// Least frames in a set: more than are ever in flight, so that each has a number of its own.
pub(crate) const LEAST_FRAMES: usize = 4096;

/// Frames of equal length, one behind the other, sent round and round.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    len: usize,
    count: usize,
}

impl Frames {
    /// Makes frames of `one(number, payload)`, which must all have the same length. Payloads are random bytes: nothing compresses them.
    pub(crate) fn new(size: usize, seed: u64, mut one: impl FnMut(usize, &[u8]) -> Vec<u8>) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut payload = vec![0; size];
        let (mut bytes, mut len, mut count) = (Vec::new(), 0, 0);
        while count < LEAST_FRAMES || bytes.len() < LEAST_BYTES {
            random.fill(&mut payload);
            let frame = one(count, &payload);
            len = frame.len();
            bytes.extend_from_slice(&frame);
            count += 1;
        }
        debug_assert_eq!(bytes.len(), len * count);
        Self { bytes, len, count }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Up to `most` frames from number `from` on, without turning round: their bytes and how many they are.
    pub(crate) fn slice(&self, from: usize, most: usize) -> (&[u8], usize) {
        let first = from % self.count;
        let number = most.min(self.count - first);
        let place: Range<usize> = first * self.len..(first + number) * self.len;
        (&self.bytes[place], number)
    }
}

/// xorshift64*: fast, and the same in every run.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Fills with random bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_turn_round_and_never_tear() {
        let frames = Frames::new(16, 1, |number, payload| [format!("{number:06} ").as_bytes(), payload].concat());
        let count = frames.count();
        assert!(count >= LEAST_FRAMES);
        let (bytes, number) = frames.slice(count - 2, 10);
        assert_eq!((bytes.len(), number), (2 * 23, 2));
        assert!(bytes.starts_with(format!("{:06} ", count - 2).as_bytes()));
        assert!(frames.slice(count, 1).0.starts_with(b"000000 "));
    }

    #[test]
    fn payloads_differ() {
        let frames = Frames::new(16, 7, |_, payload| payload.to_vec());
        assert_ne!(frames.slice(0, 1).0, frames.slice(1, 1).0);
    }
}
