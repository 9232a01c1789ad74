//! Another host: a network namespace with a cable to this one.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::need::{need, need_root};
use crate::outcome::run;

/// A network namespace that is joined to this one by a veth pair. It goes with its owner.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    cable: String,
    host: Ipv4Addr,
    guest: Ipv4Addr,
}

impl Namespace {
    /// Makes one with addresses of its own, out of 198.18.0.0/15, which RFC 2544 sets aside for tests.
    ///
    /// # Panics
    /// The kernel or iproute2 refuses.
    #[track_caller]
    pub fn new() -> Self {
        need_root();
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = [198, 18 + (process % 2) as u8, (process / 2 % 250) as u8];
        let [a, b, c] = net;
        let base = (number % 4) * 64;
        let namespace = Self {
            name: format!("bz-{process}-{number}"),
            // Interface names have 15 bytes at most.
            cable: format!("bz{}x{number}", process % 100_000),
            host: Ipv4Addr::new(a, b, c, base + 1),
            guest: Ipv4Addr::new(a, b, c, base + 2),
        };
        let Self { name, cable, host, guest } = &namespace;
        let ip = |words: &str| run(Command::new(need("ip", "iproute2")).args(words.split(' '))).ok();
        ip(&format!("netns add {name}"));
        ip(&format!("link add {cable} type veth peer name eth0 netns {name}"));
        ip(&format!("addr add {host}/26 dev {cable}"));
        ip(&format!("link set {cable} up"));
        ip(&format!("-n {name} addr add {guest}/26 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        namespace
    }

    /// Gives the other host one more address of the cable's network, as if it were one more host; `number` is 3 to 62.
    ///
    /// # Panics
    /// iproute2 refuses.
    #[track_caller]
    pub fn add_address(&self, number: u8) -> Ipv4Addr {
        let [a, b, c, host] = self.host.octets();
        let address = Ipv4Addr::new(a, b, c, host - 1 + number);
        let words = format!("-n {} addr add {address}/32 dev eth0", self.name);
        run(Command::new(need("ip", "iproute2")).args(words.split(' '))).ok();
        address
    }

    /// This host, as the other one sees it.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// The other host, as this one sees it.
    pub fn guest(&self) -> Ipv4Addr {
        self.guest
    }

    /// `program` on the other host.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(need("ip", "iproute2"));
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with its end. What is gone already is what was wanted.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
        let _ = Command::new("ip").args(["link", "del", &self.cable]).output();
    }
}
