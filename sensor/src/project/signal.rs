//! `process.signal`.

use bartizan_bus::event::{self, Body, Outcome, SignalResult};
use bartizan_sensor_ebpf::abi::Signal;
use nix::sys::signal;

use super::{Act, What};

/// First real-time signal of the kernel, include/uapi/asm-generic/signal.h. glibc keeps two of them for itself and calls the third SIGRTMIN.
const SIGRTMIN: u32 = 32;
/// Those that glibc keeps.
const KEPT: u32 = 2;

pub(super) fn project(record: &Signal) -> What {
    let Signal { header: _, target, signal, code, result, group } = record;
    let result = outcome(*result);
    let body = event::Signal { signal: name(*signal), code: *code, result, to_thread: *group == 0 };
    let outcome = match result {
        SignalResult::Delivered | SignalResult::AlreadyPending | SignalResult::LostInfo => Outcome::Success,
        SignalResult::Ignored | SignalResult::Overflow => Outcome::Failure,
    };
    Act { outcome, ..Act::done(Body::Signal(body)).to(target) }.into()
}

fn name(number: u32) -> String {
    let known = i32::try_from(number).ok().and_then(|number| signal::Signal::try_from(number).ok());
    match (known, number.checked_sub(SIGRTMIN + KEPT)) {
        (Some(signal), _) => signal.as_str().to_owned(),
        (None, Some(0)) => "SIGRTMIN".to_owned(),
        (None, Some(above)) => format!("SIGRTMIN+{above}"),
        (None, None) => format!("signal {number}"),
    }
}

/// include/trace/events/signal.h, `TRACE_SIGNAL_*`.
fn outcome(result: u32) -> SignalResult {
    match result {
        0 => SignalResult::Delivered,
        1 => SignalResult::Ignored,
        2 => SignalResult::AlreadyPending,
        3 => SignalResult::Overflow,
        _ => SignalResult::LostInfo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_c_library() {
        assert_eq!([9, 19, 32, 34, 36, 0].map(name), ["SIGKILL", "SIGSTOP", "signal 32", "SIGRTMIN", "SIGRTMIN+2", "signal 0"]);
    }
}
