//! `process.exit`.

use bartizan_bus::event;
use bartizan_sensor_ebpf::abi::Exit;

use super::What;

pub(super) fn project(record: &Exit) -> What {
    let Exit { header: _, status, pad: _ } = record;
    // The wait status of wait(2): low seven bits the signal, then the core flag, then the exit code.
    let signal = (status & 0x7f) as i32;
    What::Exit(event::Exit {
        code: (signal == 0).then_some(((status >> 8) & 0xff) as i32),
        signal: (signal != 0).then_some(signal),
        core_dumped: status & 0x80 != 0,
    })
}
