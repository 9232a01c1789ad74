//! A NATS server of one's own: core NATS and JetStream, nothing else of Bartizan. `bartizan bus serve` is this with credentials.
//!
//! `cargo run -p bartizan-bus --example serve -- --port 4222 --data-dir /tmp/bus`

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use bartizan_bus::edge::{Edge, EdgeConfig};
use bartizan_bus::nats::ServerConfig;
use bartizan_bus::{FolderLock, SyncPolicy};
use tokio::signal::unix::{SignalKind, signal};

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = argument("--port").map_or(Ok(4222), |port| port.parse())?;
    let dir = PathBuf::from(argument("--data-dir").ok_or("--data-dir is missing: where the streams are kept")?);
    let sync = match argument("--sync").as_deref() {
        Some("always") => SyncPolicy::Always,
        Some("os") => SyncPolicy::Os,
        _ => SyncPolicy::Interval(Duration::from_millis(200)),
    };
    let server = ServerConfig { listen: (Ipv4Addr::LOCALHOST, port).into(), ..ServerConfig::default() };
    let _lock = FolderLock::take(&dir)?;
    let edge = Edge::start(EdgeConfig { server, sync, keep_sensor_names: false }, &dir, None)?;
    println!("listening on {}", edge.server().local_addr());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    edge.close().await?;
    Ok(())
}
