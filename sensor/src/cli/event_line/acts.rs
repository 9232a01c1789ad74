//! What processes do to each other and to their own world: `process.signal`.

use bartizan_bus::event::{Signal, SignalResult};

use super::super::escape::escape;

/// `SIGKILL`, `SIGTERM to one thread, ignored`.
pub(super) fn signal(signal: &Signal) -> String {
    let Signal { signal, code: _, result, to_thread } = signal;
    let thread = if *to_thread { " to one thread" } else { "" };
    let result = match result {
        SignalResult::Delivered => "",
        SignalResult::Ignored => ", ignored",
        SignalResult::AlreadyPending => ", pending already",
        SignalResult::Overflow => ", refused: too many wait",
        SignalResult::LostInfo => ", without its data: too many wait",
    };
    format!("{}{thread}{result}", escape(signal))
}
