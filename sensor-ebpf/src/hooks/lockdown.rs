//! Lockdown refused something: fexit on the question itself, whoever asks it.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{Kind, Lockdown, Ring};

use crate::kernel::{emit, task};

#[fexit]
fn fexit_locked_down(ctx: FExitContext) -> i32 {
    // (enum lockdown_reason what), then the result
    let result = ctx.arg::<i32>(1);
    if result >= 0 {
        return 0;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Lockdown, Ring::Priority, task::current(), |record: *mut Lockdown| {
            (*record).reason = ctx.arg::<u32>(0);
            (*record).error = result.unsigned_abs();
        });
    }
    0
}
