//! Reads a `BPF_MAP_TYPE_RINGBUF`, whose layout is documented in Documentation/bpf/ringbuf.rst and kernel/bpf/ringbuf.c.
//!
//! Of our own, because aya's reader maps the data twice in a row, so that a record that wraps around is whole: every page of the ring then
//! counts twice in the sensor's memory. Here a record that wraps (once a round of the ring) is copied.

use std::io;
use std::mem::size_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

use super::rings::{Aligned, record_time};

/// `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT` and `BPF_RINGBUF_HDR_SZ`, include/uapi/linux/bpf.h.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: usize = 8;

/// What [`Ring::read`] took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Records handed over.
    pub records: usize,
    /// Kernel time of the last one, nanoseconds of the boot clock.
    pub last: Option<u64>,
    /// Something may be left, finished or not.
    pub left: bool,
}

/// The reader of one ring. There is one in all: its position is the ring's.
pub struct Ring {
    behind: Behind,
    /// One page: up to where is read. Written here.
    consumer: Mapping,
    /// One page that says up to where is reserved, then the data.
    producer: Mapping,
    page: usize,
    /// Bytes of the data, a power of two.
    bytes: usize,
    /// Up to where is read: counts on, modulo `bytes` where it is.
    position: usize,
    /// A record that wraps around.
    whole: Aligned,
}

impl Ring {
    /// The reader of the ring `map`.
    ///
    /// # Errors
    /// The kernel does not tell its size, or it cannot be mapped.
    pub fn of(map: MapData) -> io::Result<Self> {
        let bytes = map.info().map_err(io::Error::other)?.max_entries();
        Self::new(Behind::Map(map), bytes as usize)
    }

    /// The reader of what is behind it, which has `bytes` bytes of data.
    fn new(behind: Behind, bytes: usize) -> io::Result<Self> {
        let page = page_size()?;
        if !bytes.is_power_of_two() || !bytes.is_multiple_of(page) {
            let problem = format!("a ring of {bytes} bytes: it must be a power of two and whole pages of {page}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let consumer = Mapping::new(behind.as_fd(), 0, page, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let producer = Mapping::new(behind.as_fd(), page, page + bytes, ProtFlags::PROT_READ)?;
        let mut ring = Self { behind, consumer, producer, page, bytes, position: 0, whole: Aligned::default() };
        ring.position = ring.consumer().load(Ordering::Relaxed);
        Ok(ring)
    }

    /// Hands over what is finished, in the order of reservation and `most` records at most. `each` gets a record's bytes, aligned to eight;
    /// its room is the kernel's again as soon as it returns.
    pub fn read(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> Taken {
        let mut taken = Taken::default();
        let mut reserved = self.reserved();
        while taken.records < most {
            if self.position == reserved {
                // What was read is known to the kernel before its position is looked at once more.
                fence(Ordering::SeqCst);
                reserved = self.reserved();
                if self.position == reserved {
                    return taken;
                }
            }
            let at = self.position & (self.bytes - 1);
            let word = self.header(at);
            if word & BUSY != 0 {
                break;
            }
            let len = (word & !DISCARDED) as usize;
            if word & DISCARDED == 0 {
                taken.records += 1;
                self.hand_over((at + HEADER) & (self.bytes - 1), len, |record| {
                    taken.last = record_time(record).or(taken.last);
                    each(record);
                });
            }
            self.position = self.position.wrapping_add((HEADER + len).next_multiple_of(HEADER));
            self.consumer().store(self.position, Ordering::Release);
        }
        Taken { left: true, ..taken }
    }

    /// Hands over the `len` bytes at `at`.
    fn hand_over(&mut self, at: usize, len: usize, each: impl FnOnce(&[u8])) {
        let (data, producer) = (self.page, &self.producer);
        // SAFETY: both parts lie in the mapped data, as `at` is below `bytes` and the kernel makes no record larger than the ring; a finished
        // record is not written any more until its room is given back, which is after this call.
        let part = |at: usize, len: usize| unsafe { std::slice::from_raw_parts(producer.at(data + at), len) };
        let first = len.min(self.bytes - at);
        if first == len {
            each(part(at, len));
        } else {
            let parts = [part(at, first), part(0, (len - first).min(self.bytes))];
            each(self.whole.join(parts));
        }
    }

    /// Whether something is there, finished or not.
    pub fn holds(&self) -> bool {
        self.position != self.reserved()
    }

    fn consumer(&self) -> &AtomicUsize {
        // SAFETY: the page begins with the position, which both sides use atomically, and is mapped as long as `self` lives.
        unsafe { AtomicUsize::from_ptr(self.consumer.at(0).cast()) }
    }

    /// Up to where the kernel has reserved. What it wrote before that is seen afterwards.
    fn reserved(&self) -> usize {
        // SAFETY: as above. The page is only readable: of atomics it carries loads of this size and `Relaxed` alone (std, "Atomic accesses to
        // read-only memory").
        let position = unsafe { &*self.producer.at(0).cast::<AtomicUsize>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        position
    }

    /// The first word of the record's header at `at` of the data: length and bits. What was written before it is seen afterwards.
    fn header(&self, at: usize) -> u32 {
        // SAFETY: as above; headers are aligned to eight and lie in the data.
        let word = unsafe { &*self.producer.at(self.page + at).cast::<AtomicU32>() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        word
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.behind.as_fd()
    }
}

/// Where the memory is.
enum Behind {
    /// The kernel's ring. Programs that are not loaded yet name it by this very descriptor.
    Map(MapData),
    /// A file, to which a test writes as the kernel does.
    #[cfg(test)]
    File(std::os::fd::OwnedFd),
}

impl AsFd for Behind {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Map(map) => map.fd().as_fd(),
            #[cfg(test)]
            Self::File(file) => file.as_fd(),
        }
    }
}

fn page_size() -> io::Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?;
    size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| io::Error::other("the size of a page is not known"))
}

/// Mapped memory of a file.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is memory and its size; whoever holds it may be any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, protection: ProtFlags) -> io::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, fd, offset)? };
        Ok(Self { start: start.cast(), len })
    }

    /// Address of its byte `at`.
    fn at(&self, at: usize) -> *mut u8 {
        debug_assert!(at + size_of::<usize>() <= self.len, "byte {at} of {}", self.len);
        self.start.as_ptr().wrapping_add(at)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more. It fails only for what was not mapped.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::unistd::ftruncate;
    use proptest::prelude::*;

    use super::*;

    /// The kernel's side of a ring in a file, by the rules of `__bpf_ringbuf_reserve`. (The real one is read by every test on a kernel.)
    struct Kernel {
        consumer: Mapping,
        producer: Mapping,
        page: usize,
        bytes: usize,
        at: usize,
    }

    /// Both sides.
    fn ring(bytes: usize) -> (Kernel, Ring) {
        let page = page_size().unwrap();
        let fd = memfd_create("ring", MFdFlags::empty()).unwrap();
        ftruncate(&fd, (2 * page + bytes) as i64).unwrap();
        let all = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let consumer = Mapping::new(fd.as_fd(), 0, page, all).unwrap();
        let producer = Mapping::new(fd.as_fd(), page, page + bytes, all).unwrap();
        (Kernel { consumer, producer, page, bytes, at: 0 }, Ring::new(Behind::File(fd), bytes).unwrap())
    }

    impl Kernel {
        fn word(&self, at: usize) -> &AtomicU32 {
            // SAFETY: in the mapping, aligned.
            unsafe { AtomicU32::from_ptr(self.producer.at(self.page + at % self.bytes).cast()) }
        }

        fn position(&self, of: &Mapping) -> &AtomicUsize {
            // SAFETY: in the mapping, aligned.
            unsafe { AtomicUsize::from_ptr(of.at(0).cast()) }
        }

        /// Reserves room; where. `None`: there is none.
        fn reserve(&mut self, len: usize) -> Option<usize> {
            let room = (HEADER + len).next_multiple_of(HEADER);
            if self.at + room - self.position(&self.consumer).load(Ordering::Relaxed) > self.bytes - 1 {
                return None;
            }
            let at = self.at;
            self.word(at).store(len as u32 | BUSY, Ordering::Relaxed);
            self.at += room;
            self.position(&self.producer).store(self.at, Ordering::Release);
            Some(at)
        }

        /// Finishes what was reserved at `at`.
        fn finish(&self, at: usize, content: Option<&[u8]>) {
            let len = self.word(at).load(Ordering::Relaxed) & !BUSY;
            for (index, byte) in content.into_iter().flatten().enumerate() {
                // SAFETY: in the mapping; nobody reads it before the length is stored.
                unsafe { self.producer.start.as_ptr().add(self.page + (at + HEADER + index) % self.bytes).write(*byte) };
            }
            self.word(at).store(if content.is_some() { len } else { len | DISCARDED }, Ordering::Release);
        }
    }

    fn all(ring: &mut Ring, most: usize) -> (Vec<Vec<u8>>, Taken) {
        let mut read = Vec::new();
        let taken = ring.read(most, |record| {
            assert_eq!(record.as_ptr() as usize % 8, 0, "aligned");
            read.push(record.to_vec());
        });
        (read, taken)
    }

    #[test]
    fn an_unfinished_record_holds_those_behind_it_back_and_a_discarded_one_is_passed_over() {
        let (mut kernel, mut ring) = ring(page_size().unwrap());
        assert_eq!(all(&mut ring, 9), (vec![], Taken::default()));
        let [first, second, third] = [20, 3, 8].map(|len| kernel.reserve(len).unwrap());
        kernel.finish(second, None);
        kernel.finish(third, Some(b"the last"));
        let left = Taken { left: true, ..Taken::default() };
        assert_eq!(all(&mut ring, 9), (vec![], left));
        let text = b"twenty bytes of text";
        kernel.finish(first, Some(text));
        let one = Taken { records: 1, last: record_time(text), left: true };
        assert_eq!(all(&mut ring, 1), (vec![text.to_vec()], one));
        assert_eq!(all(&mut ring, 9).0, [b"the last".to_vec()]);
    }

    #[test]
    fn sizes_that_no_ring_has_are_refused() {
        let fd = || memfd_create("ring", MFdFlags::empty()).unwrap();
        for bytes in [0, 100, 12_288] {
            assert_eq!(Ring::new(Behind::File(fd()), bytes).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_wherever_it_wraps(records in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..900), any::<bool>()), 0..200), most in 1_usize..9) {
            let (mut kernel, mut ring) = ring(page_size().unwrap());
            let (mut wanted, mut read) = (Vec::new(), Vec::new());
            for (content, discarded) in records {
                let at = loop {
                    match kernel.reserve(content.len()) {
                        Some(at) => break at,
                        None => read.extend(all(&mut ring, most).0),
                    }
                };
                kernel.finish(at, (!discarded).then_some(&content));
                wanted.extend((!discarded).then_some(content));
            }
            read.extend(all(&mut ring, usize::MAX).0);
            prop_assert_eq!(read, wanted);
        }
    }
}
