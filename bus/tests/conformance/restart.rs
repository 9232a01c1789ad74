//! What a SIGKILL leaves.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, PullConsumer};
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::Config;
use futures_util::{StreamExt, TryStreamExt};

use crate::server::Server;
use crate::{Outcome, Test, check, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    use crate::restart;
    tests!(true: restart::streams_consumers_and_buckets_survive_a_kill, restart::a_client_comes_back, restart::duplicates_are_known_after_a_kill)
}

pub(crate) async fn streams_consumers_and_buckets_survive_a_kill(server: Arc<Server>) -> Outcome {
    let context = server.jetstream().await?;
    let stream = context
        .create_stream(Config { name: "KEEP".into(), subjects: vec!["keep.>".into()], max_messages_per_subject: 2, ..Config::default() })
        .await?;
    for n in 0..50 {
        context.publish(format!("keep.{}", n % 5), n.to_string().into()).await?.await?;
    }
    stream.delete_message(42).await?;
    let consumer: PullConsumer =
        stream.create_consumer(consumer::pull::Config { durable_name: Some("d".into()), ..Default::default() }).await?;
    let messages: Vec<_> = consumer.fetch().max_messages(5).messages().await?.try_collect().await?;
    for message in &messages[..3] {
        message.double_ack().await?;
    }
    let kv = context.create_key_value(kv::Config { bucket: "keep".into(), ..Default::default() }).await?;
    for n in 0..20 {
        kv.put(format!("k{}", n % 4), n.to_string().into()).await?;
    }
    // Consumers' places follow within moments.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.kill()?;
    server.run().await?;
    let context = server.jetstream().await?;
    let mut stream = context.get_stream("KEEP").await?;
    let state = &stream.info().await?.state;
    same!((state.messages, state.first_sequence, state.last_sequence, state.subjects_count), (9, 41, 50, 5));
    let mut consumer: PullConsumer = stream.get_consumer("d").await?;
    let info = consumer.info().await?;
    same!((info.num_ack_pending, info.delivered.stream_sequence, info.num_pending), (2, 46, 4));
    let kv = context.get_key_value("keep").await?;
    for n in 16..20 {
        same!(kv.get(format!("k{}", n % 4)).await?.as_deref(), Some(n.to_string().as_bytes()));
    }
    same!(kv.status().await?.values(), 4);
    same!(context.publish("keep.x", "x".into()).await?.await?.sequence, 51);
    Ok(())
}

pub(crate) async fn a_client_comes_back(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let mut sub = client.subscribe("back.x").await?;
    client.flush().await?;
    server.kill()?;
    server.run().await?;
    let other = server.client().await?;
    let end = std::time::Instant::now() + Duration::from_secs(15);
    loop {
        other.publish("back.x", "again".into()).await?;
        other.flush().await?;
        if let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), sub.next()).await {
            same!(&message.payload[..], b"again");
            return Ok(());
        }
        check!(std::time::Instant::now() < end, "the subscription is not back");
    }
}

pub(crate) async fn duplicates_are_known_after_a_kill(server: Arc<Server>) -> Outcome {
    let context = server.jetstream().await?;
    context.create_stream(Config { name: "DUPS".into(), subjects: vec!["dups.>".into()], ..Config::default() }).await?;
    let publish = |context: async_nats::jetstream::Context| async move {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "once");
        Ok::<_, crate::Failure>(context.publish_with_headers("dups.x", headers, "x".into()).await?.await?)
    };
    same!(publish(context).await?.duplicate, false);
    server.kill()?;
    server.run().await?;
    let again = publish(server.jetstream().await?).await?;
    same!((again.duplicate, again.sequence), (true, 1));
    Ok(())
}
