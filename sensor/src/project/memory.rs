//! `process.memfd`, `process.memory_exec`.

use bartizan_bus::event::{self, Body};
use bartizan_sensor_ebpf::abi::{Memfd, MemoryExec};

use super::{Act, What, calls, text};

pub(super) fn project_memfd(record: &Memfd) -> What {
    let Memfd { header, inode, flags, fd, call, pad: _, name } = record;
    let secret = calls::name(header, *call) == "memfd_secret";
    let body = event::Memfd { name: text::name(name), flags: *flags, fd: *fd, inode: *inode, secret };
    Act::done(Body::Memfd(body)).into()
}

pub(super) fn project_memory_exec(record: &MemoryExec) -> What {
    let MemoryExec { header, start, len, inode, device, nlink, before, after, call, times } = record;
    let file = *inode != 0;
    let body = event::MemoryExec {
        call: calls::name(header, *call),
        start: *start,
        len: *len,
        before: if *before == 0 { String::new() } else { letters(*before) },
        after: letters(*after),
        inode: file.then_some(*inode),
        device: file.then_some(*device),
        nameless: file && *nlink == 0,
        times: *times,
    };
    Act::done(Body::MemoryExec(body)).into()
}

/// As `/proc/<pid>/maps` has them; include/linux/mm.h.
fn letters(flags: u32) -> String {
    [(1, 'r', '-'), (2, 'w', '-'), (4, 'x', '-'), (8, 's', 'p')]
        .iter()
        .map(|(bit, yes, no)| if flags & bit != 0 { *yes } else { *no })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_proc_writes_them() {
        assert_eq!([7, 3, 13].map(letters), ["rwxp", "rw-p", "r-xs"]);
    }
}
