//! A NATS server of one's own: core NATS and JetStream, nothing else of Bartizan.
//!
//! `cargo run -p bartizan-bus --example serve -- --port 4222 --data-dir /tmp/bus`

use std::net::Ipv4Addr;

use bartizan_bus::nats::{Server, ServerConfig};

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next();
    arguments.next()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = argument("--port").map_or(Ok(4222), |port| port.parse())?;
    let server = Server::start(ServerConfig { listen: (Ipv4Addr::LOCALHOST, port).into(), ..ServerConfig::default() }).await?;
    println!("listening on {}", server.local_addr());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
