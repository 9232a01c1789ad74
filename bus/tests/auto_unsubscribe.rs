//! A subscription identifier that got all it asked for is free for another subscription, as in nats-server: clients on raw sockets use it again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use bartizan_bus::nats::{Server, ServerConfig};

#[test]
fn a_spent_sid_is_free() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let server = runtime.block_on(Server::start(ServerConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..ServerConfig::default() }))?;
    let mut socket = TcpStream::connect(server.local_addr())?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.write_all(b"CONNECT {\"verbose\":false}\r\n")?;
    for round in 0..3 {
        socket.write_all(b"SUB in.x 9\r\nUNSUB 9 1\r\nPUB in.x 2\r\nhi\r\nPING\r\n")?;
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while !said.windows(6).any(|bytes| bytes == b"PONG\r\n") {
            let read = socket.read(&mut buffer)?;
            assert!(read > 0, "closed");
            said.extend_from_slice(&buffer[..read]);
        }
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("MSG in.x 9 2\r\nhi\r\n"), "round {round}: {said:?}");
    }
    runtime.block_on(server.shutdown());
    Ok(())
}
