//! Memory that a burst left free goes back to the kernel.
//!
//! glibc keeps what is freed below the top of its heaps, and a sensor lives for months: after one storm it would be as large as in it.

use std::time::Duration;

use tokio::sync::watch;

/// Between two times. Giving back takes some milliseconds, in which other threads wait that allocate.
const EVERY: Duration = Duration::from_secs(60);

/// Gives back until `stopping` says so.
pub(crate) async fn upkeep(mut stopping: watch::Receiver<bool>) {
    loop {
        // The first time at once: reading the kernel's types takes more than anything later does.
        if tokio::task::spawn_blocking(give_back).await.is_err() {
            tracing::warn!("free memory is no longer given back to the kernel");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: it may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}
