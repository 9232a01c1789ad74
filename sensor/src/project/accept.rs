//! `network.accept` and `network.listen`.

use bartizan_bus::event::{self, Body};
use bartizan_sensor_ebpf::abi::{Accept, Listen};

use super::{Act, What, fd};

pub(super) fn project(record: &Accept) -> What {
    let Accept { header: _, socket } = record;
    let mut socket = fd::socket(socket);
    // In accept(2) the state may be behind it already (the peer has closed): it was a connection.
    socket.connected = true;
    Act::done(Body::Accept(event::Accept { socket })).into()
}

pub(super) fn project_listen(record: &Listen) -> What {
    let Listen { header: _, socket, backlog, pad: _ } = record;
    let mut socket = fd::socket(socket);
    (socket.connected, socket.peer_ip, socket.peer_port) = (false, None, None);
    Act::done(Body::Listen(event::Listen { socket, backlog: *backlog })).into()
}
