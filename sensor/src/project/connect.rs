//! `network.connect`.

use bartizan_bus::event::{self, Body, Errno};
use bartizan_sensor_ebpf::abi::{Connect, FLAG_FROM_CALLER, FLAG_RESULT_UNKNOWN};

use super::{Act, What, fd};

/// `EINPROGRESS`: how an attempt without a known result is told.
const EINPROGRESS: i32 = 115;

pub(super) fn project(record: &Connect) -> What {
    let Connect { header, socket, started, error, pad: _ } = record;
    let unknown = header.flags & FLAG_RESULT_UNKNOWN != 0;
    let error = match (*error, unknown) {
        (_, true) => Some(Errno(EINPROGRESS)),
        (0, false) => None,
        (error, false) => Some(Errno(error as i32)),
    };
    let mut socket = fd::socket(socket);
    // The state is only being changed when the record is made: the result says more.
    socket.connected = error.is_none();
    let body = event::Connect {
        socket,
        error,
        duration_ns: (!unknown).then(|| header.ktime.saturating_sub(*started)),
        peer_from_caller: header.flags & FLAG_FROM_CALLER != 0,
        domain: None,
    };
    let result = body.error.map_or(0, |error| -i64::from(error.0));
    Act::ended(Body::Connect(body), result).into()
}
