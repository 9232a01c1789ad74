//! The HTTP side: `GET /metrics` and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Numbers;
use crate::clients;

/// Media type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// For a client to ask and to take the answer; a connection is for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives the numbers now.
pub(crate) type Provider = Arc<dyn Fn() -> Numbers + Send + Sync>;

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve metrics on {address}: {source}; choose another address with metrics.listen (or --metrics), or end what listens there"
)]
pub(crate) struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Listener {
    inner: TcpListener,
    pub(crate) address: SocketAddr,
}

/// Binds the address; port 0 takes a free one. Must be called within a tokio runtime.
///
/// # Errors
/// [`BindError`].
pub(crate) fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    let make = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let inner = TcpListener::from_std(listener)?;
        let address = inner.local_addr()?;
        Ok(Listener { inner, address })
    };
    make().map_err(|source| BindError { address, source })
}

/// Answers until `stopping` becomes true or its sender is gone.
pub(crate) async fn serve(listener: Listener, provider: Provider, stopping: watch::Receiver<bool>) {
    let router = Router::new().route("/metrics", get(move || async move { scrape(&provider) }));
    clients::serve("metrics", &listener.inner, |stream| client(stream, router.clone()), stopping).await;
}

async fn client(stream: TcpStream, router: Router) -> io::Result<()> {
    let mut builder = http1::Builder::new();
    let builder = builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::time::timeout(PATIENCE, serving).await?.map_err(io::Error::other)
}

fn scrape(provider: &Provider) -> Response {
    match provider().text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the numbers cannot be written: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answer");
        answer
    }

    #[tokio::test]
    async fn one_page_and_nothing_else() {
        let listener = bind(([127, 0, 0, 1], 0).into()).expect("bind");
        let address = listener.address;
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, Arc::new(Numbers::default), stopping));
        let page = ask(address, "GET /metrics HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains(OPEN_METRICS) && page.ends_with("\r\n\r\n# EOF\n"), "{page}");
        assert!(ask(address, "GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\nhost: h\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "\u{1}\u{2}\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let error = bind(address).expect_err("it is taken").to_string();
        assert!(error.starts_with(&format!("cannot serve metrics on {address}: ")) && error.contains("metrics.listen"), "{error}");
        stop.send(true).expect("it listens");
        serving.await.expect("ends");
    }
}
