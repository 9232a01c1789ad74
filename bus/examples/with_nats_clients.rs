//! The bus inside a program, with NATS clients of any language on its streams: the program publishes by a function call, and
//! async-nats, which knows nothing of Bartizan, consumes over a socket; then the other way round.
//!
//! `cargo run -p bartizan-bus --example with_nats_clients -- /tmp/with_nats_clients`

use std::net::Ipv4Addr;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use bartizan_bus::edge::{Credentials, Edge, EdgeConfig};
use bartizan_bus::nats::ServerConfig;
use bartizan_bus::nats::auth::Users;
use bartizan_bus::{Bus, BusConfig, Message, StreamName, SubscriptionConfig};
use futures_util::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = std::env::args().nth(1).ok_or("usage: with_nats_clients FOLDER, where the streams are kept")?;
    let dir = std::path::Path::new(&dir);
    let bus = Bus::open(dir, &BusConfig::default())?;
    // Made at the first start, readable by its owner only.
    let credentials = Credentials::of(dir)?;
    let users = Users(vec![credentials.to_user()]);
    let server = ServerConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), users, ..ServerConfig::default() };
    let edge = Edge::start(EdgeConfig { server, ..EdgeConfig::default() }, dir, Some(&bus))?;
    let address = format!("nats://{}", edge.server().local_addr());

    // In: a function call. Out: JetStream over a socket.
    let alerts = bus.stream(StreamName::Alerts);
    alerts.append(Message { subject: "sec.alerts.high.example".parse()?, msg_id: None, time_ns: 0, payload: "from within".into() })?;
    let client = async_nats::ConnectOptions::with_user_and_password(credentials.user, credentials.password).connect(&address).await?;
    let jetstream = jetstream::new(client.clone());
    let consumer: PullConsumer = jetstream
        .get_stream("ALERTS")
        .await?
        .create_consumer(pull::Config { durable_name: Some("siem".to_owned()), ..pull::Config::default() })
        .await?;
    let message = consumer.messages().await?.next().await.ok_or("the consumer ended")??;
    println!("client: {} {}", message.subject, message.payload.len());
    message.ack().await?;

    // In: a stream that the client makes for itself, with a key-value bucket on it.
    let bucket = jetstream.create_key_value(jetstream::kv::Config { bucket: "settings".to_owned(), ..Default::default() }).await?;
    bucket.put("colour", "blue".into()).await?;
    println!("bucket: {:?}", bucket.get("colour").await?);

    // And what a module publishes over a socket, a subscription within the process has.
    let mut subscription = alerts.subscribe("console", SubscriptionConfig::default());
    let alert = r#"{"title": "Odd binary", "rule": "scanner.odd"}"#;
    jetstream.publish("sec.alerts.low.scanner", alert.into()).await?.await?;
    let delivery = subscription.recv().await?;
    println!("process: {} {}", delivery.seq, delivery.subject);

    drop(client);
    edge.close().await?;
    bus.close()?;
    Ok(())
}
