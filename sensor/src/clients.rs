//! Clients of a small service: a few at a time, until it stops.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

/// Clients served at once; further ones wait in the listener's queue.
const MAX_CLIENTS: usize = 8;

/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that clients come to.
pub(crate) trait Listen: Sync {
    type Client: Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Client>> + Send;
}

impl Listen for TcpListener {
    type Client = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Listen for UnixListener {
    type Client = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Accepts and serves until `stopping` becomes true or its sender is gone. Clients that are being served then are cut off.
pub(crate) async fn serve<L: Listen, Serving: Future<Output = io::Result<()>> + Send + 'static>(
    service: &'static str,
    listener: &L,
    client: impl Fn(L::Client) -> Serving,
    mut stopping: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            Some(_) = clients.join_next(), if !clients.is_empty() => continue,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await?, slot))
            } => accepted,
        };
        match accepted {
            Ok((accepted, slot)) => {
                let serving = client(accepted);
                clients.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = serving.await {
                        tracing::debug!(service, %error, "a client went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(service, %error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
