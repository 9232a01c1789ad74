//! A NATS server of one's own: core NATS and JetStream, nothing else of Bartizan.
//!
//! `cargo run -p bartizan-bus --example serve -- --port 4222 --data-dir /tmp/bus`

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use bartizan_bus::SyncPolicy;
use bartizan_bus::jetstream::{FileMeta, FileStores, JetStream};
use bartizan_bus::nats::{Server, ServerConfig};

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next();
    arguments.next()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = argument("--port").map_or(Ok(4222), |port| port.parse())?;
    let server = Server::bind(ServerConfig { listen: (Ipv4Addr::LOCALHOST, port).into(), ..ServerConfig::default() })?;
    let jetstream = match argument("--data-dir") {
        None => None,
        Some(dir) => {
            let dir = Path::new(&dir);
            let sync = match argument("--sync").as_deref() {
                Some("always") => SyncPolicy::Always,
                Some("os") => SyncPolicy::Os,
                _ => SyncPolicy::Interval(Duration::from_millis(200)),
            };
            let meta = FileMeta::open(&dir.join("jetstream"))?;
            server.set_jetstream(true);
            Some(JetStream::start(server.router(), server.name(), Box::new(FileStores::new(dir, sync)), Box::new(meta))?)
        }
    };
    server.serve();
    println!("listening on {}", server.local_addr());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    if let Some(jetstream) = jetstream {
        jetstream.close()?;
    }
    server.shutdown().await;
    Ok(())
}
