//! `process.seed`: the argument vector lies in another process's memory and is added from /proc.

use bartizan_sensor_ebpf::abi::{Bytes, Seed};

use super::{What, exec, fd};

pub(super) fn project(record: &Seed, bytes: Bytes<'_>) -> What {
    let Seed { header, image, stdio, relay, own } = record;
    let mut image = exec::image(header, image, stdio, relay, bytes);
    image.sockets = fd::sockets(own);
    What::Seed(Box::new(image))
}
