//! Ports.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A TCP port that nobody listens on, below the range that the kernel takes for outgoing connections: while its server is
/// down, no other connection gets it.
///
/// # Panics
/// All of them are taken.
#[track_caller]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time begin at different places.
    let base = 20_000 + (std::process::id() % 500) as u16 * 20;
    let mut ports = (0..10_000).map(|_| base + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok() && TcpListener::bind(("::1", *port)).is_ok();
    ports.find(free).unwrap_or_else(|| panic!("no port from {base} on is free on 127.0.0.1 and ::1"))
}
