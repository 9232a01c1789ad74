//! `bartizan bus serve`: NATS clients on the streams of a data folder, without a sensor.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use bartizan_bus::edge::{Credentials, Edge, Folder};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::super::Common;
use super::super::exit::{Exit, Failure, chain};
use super::super::out::Stop;
use crate::config::nats::Sync;
use crate::metrics::{self, Numbers};

/// Serve NATS clients (core NATS and JetStream) without a sensor, until SIGTERM. SIGUSR2 asks clients to leave first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen [default: nats.listen of the configuration, else 127.0.0.1:4222]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// Ask nobody for a credential; only on a loopback address
    #[arg(long)]
    no_auth: bool,

    /// When streams that clients make are synced [default: nats.sync of the configuration, else interval]
    #[arg(long, value_name = "WHEN", value_enum)]
    sync: Option<Sync>,

    /// Serve numbers for Prometheus here, as `GET /metrics` [default: metrics.listen of the configuration, else nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

fn failed(error: &dyn std::error::Error) -> Stop {
    Stop::Failed(Failure::new(Exit::Failed, chain(error)))
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    crate::allocator::give_memory_back();
    let config = common.config().map_err(Stop::Failed)?;
    let mut nats = config.nats.clone();
    nats.listen = args.listen.unwrap_or(nats.listen);
    nats.no_auth |= args.no_auth;
    nats.sync = args.sync.unwrap_or(nats.sync);
    nats.validate().map_err(|error| Stop::Failed(Failure::usage(error)))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_name("bartizan-bus").enable_all().build().map_err(|error| failed(&error))?;
    // Where a sensor has stored something, that is served too.
    let folder = Folder::open(&config.data_dir, &config.bus(&config.events_budget())).map_err(|error| failed(&error))?;
    let edge = nats.edge(&config.data_dir).map_err(|error| failed(&error))?;
    let result = runtime.block_on(async {
        let metrics = args.metrics.or(config.metrics.listen).map(metrics::bind).transpose().map_err(|error| failed(&error))?;
        let edge = Edge::start(edge, &config.data_dir, folder.bus()).map_err(|error| failed(&error))?;
        let listen = |kind| signal(kind).map_err(|error| failed(&error));
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let mut lame_duck = listen(SignalKind::user_defined2())?;
        let credential = if nats.no_auth {
            "no credential needed".to_owned()
        } else {
            format!("credential in {}", Credentials::path(&config.data_dir).display())
        };
        let edge = Arc::new(edge);
        let (stop, stopping) = watch::channel(false);
        if let Some(listener) = metrics {
            let _ = writeln!(std::io::stderr().lock(), "metrics on http://{}/metrics", listener.address);
            let edge = Arc::clone(&edge);
            tokio::spawn(metrics::serve(listener, Arc::new(move || Numbers { report: None, edge: Some(edge.stats()) }), stopping));
        }
        let address = edge.server().local_addr();
        // Standard error may be full or gone: that is no reason to stop.
        let _ = writeln!(std::io::stderr().lock(), "listening on {address}, {credential}, data in {}", config.data_dir.display());
        let closed = tokio::select! {
            _ = terminate.recv() => edge.close().await,
            _ = interrupt.recv() => edge.close().await,
            _ = lame_duck.recv() => tokio::select! {
                closed = edge.lame_duck() => closed,
                _ = terminate.recv() => edge.close().await,
                _ = interrupt.recv() => edge.close().await,
            },
        };
        // The metrics may have ended by themselves.
        let _ = stop.send(true);
        closed.map_err(|error| failed(&error))
    });
    folder.close().map_err(|error| failed(&error))?;
    result.map(|()| Exit::Ok)
}
