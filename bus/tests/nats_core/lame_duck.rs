//! A server that is about to end.

use std::sync::Arc;
use std::time::Duration;

use bartizan_bus::nats::ServerConfig;

use crate::server::{Kind, Server, config};
use crate::wire::EOF;
use crate::{Outcome, Test, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    tests!(lame_duck::clients_are_told_and_nobody_else_comes, lame_duck::async_nats_is_told, lame_duck::the_end_comes_after_the_grace)
}

pub(crate) async fn clients_are_told_and_nobody_else_comes(kind: Kind) -> Outcome {
    let server = Arc::new(Server::start(kind, ServerConfig { lame_duck_grace: Duration::from_secs(30), ..config() }).await?);
    let (mut new, mut old) = (server.client(",\"protocol\":1").await?, server.client(",\"protocol\":0").await?);
    new.says("PING\r\n", "PONG\r\nINFO\r\n").await?;
    same!(new.info.get("ldm"), None);
    old.silent().await?;
    let ending = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.lame_duck().await }
    });
    new.expect("INFO\r\n").await?;
    same!(new.info["ldm"], true);
    // Those that are there go on until they leave.
    old.says("SUB a 1\r\nPING\r\n", "PONG\r\n").await?;
    new.says("PUB a 1\r\nx\r\nPING\r\n", "PONG\r\n").await?;
    old.expect("MSG a 1 1\r\nx\r\n").await?;
    let refused = server.wire().await.is_err();
    same!(refused, true);
    drop((new, old));
    ending.await?
}

pub(crate) async fn async_nats_is_told(kind: Kind) -> Outcome {
    let server = Arc::new(Server::start(kind, ServerConfig { lame_duck_grace: Duration::from_secs(30), ..config() }).await?);
    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let options = async_nats::ConnectOptions::new().event_callback(move |event| {
        let told = told.clone();
        async move {
            // Nobody listens any more when the test is over.
            let _ = told.send(event);
        }
    });
    let client = options.connect(server.address.to_string()).await?;
    client.flush().await?;
    let ending = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.lame_duck().await }
    });
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await?.ok_or("no events")?;
        if matches!(event, async_nats::Event::LameDuckMode) {
            break;
        }
    }
    drop(client);
    ending.await?
}

pub(crate) async fn the_end_comes_after_the_grace(kind: Kind) -> Outcome {
    let server = Arc::new(Server::start(kind, ServerConfig { lame_duck_grace: Duration::from_millis(300), ..config() }).await?);
    let mut wire = server.client(",\"protocol\":1").await?;
    wire.says("PING\r\n", "PONG\r\nINFO\r\n").await?;
    let ending = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.lame_duck().await }
    });
    wire.expect("INFO\r\n").await?;
    if kind == Kind::Ours {
        // nats-server spreads this over at least 30 s more.
        wire.expect(EOF).await?;
    }
    ending.await?
}
