//! Consumers: pull, push, ordered.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, PushConsumer};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{AckKind, Context};
use futures_util::{StreamExt, TryStreamExt};

use crate::server::Server;
use crate::{Failure, Outcome, Test, check, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    use crate::consumers;
    tests!(false:
        consumers::fetch_and_acknowledge, consumers::messages_go_on, consumers::deliver_policies, consumers::filters,
        consumers::refused_messages_come_again, consumers::unacknowledged_messages_come_again, consumers::backoff_and_max_deliver,
        consumers::acknowledging_the_last_acknowledges_all, consumers::no_more_than_may_be_pending, consumers::double_acknowledgement,
        consumers::pull_expires_with_heartbeats, consumers::pull_by_bytes, consumers::push_to_a_subject, consumers::push_to_a_group,
        consumers::push_with_flow_control, consumers::ordered_push, consumers::ordered_pull, consumers::headers_only,
        consumers::pause_and_resume, consumers::ephemerals_end, consumers::described_listed_updated_deleted,
        consumers::what_is_deleted_is_not_delivered, consumers::several_pull_side_by_side, consumers::strict_creation,
    )
}

async fn filled(server: &Server, name: &str, count: u64) -> Result<(Context, Stream), Failure> {
    let context = server.jetstream().await?;
    let config = Config { name: name.to_owned(), subjects: vec![format!("{}.>", name.to_lowercase())], ..Config::default() };
    let stream = context.create_stream(config).await?;
    for n in 1..=count {
        context.publish(format!("{}.{}", name.to_lowercase(), n % 3), n.to_string().into()).await?.await?;
    }
    Ok((context, stream))
}

fn durable(name: &str) -> consumer::pull::Config {
    consumer::pull::Config { durable_name: Some(name.to_owned()), ..Default::default() }
}

async fn fetched(consumer: &PullConsumer, max: usize) -> Result<Vec<async_nats::jetstream::Message>, Failure> {
    consumer.fetch().max_messages(max).messages().await?.try_collect().await
}

/// What `consumer` has yet to deliver, once that is `expected` or two seconds are over: nats-server acknowledges a publish before it tells
/// its consumers (`signalConsumersLoop` in its `stream.go`).
async fn pending(consumer: &mut PullConsumer, expected: u64) -> Result<u64, Failure> {
    let mut pending = consumer.info().await?.num_pending;
    for _ in 0..100 {
        if pending == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        pending = consumer.info().await?.num_pending;
    }
    Ok(pending)
}

fn payloads(messages: &[async_nats::jetstream::Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

pub(crate) async fn fetch_and_acknowledge(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "FETCH", 10).await?;
    let mut consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let messages = fetched(&consumer, 4).await?;
    same!(payloads(&messages), ["1", "2", "3", "4"]);
    for (n, message) in messages.iter().enumerate() {
        let info = message.info()?;
        same!((info.stream_sequence, info.consumer_sequence, info.delivered, info.pending), (n as u64 + 1, n as u64 + 1, 1, 9 - n as u64));
        same!((info.stream, info.consumer), ("FETCH", "d"));
        message.ack().await?;
    }
    same!(payloads(&fetched(&consumer, 20).await?), ["5", "6", "7", "8", "9", "10"]);
    same!(fetched(&consumer, 5).await?.len(), 0);
    let info = consumer.info().await?;
    same!((info.num_pending, info.num_ack_pending, info.delivered.consumer_sequence), (0, 6, 10));
    same!((info.ack_floor.stream_sequence, info.ack_floor.consumer_sequence), (4, 4));
    Ok(())
}

pub(crate) async fn messages_go_on(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "GOON", 0).await?;
    let consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let mut messages = consumer.messages().await?;
    tokio::spawn(async move {
        for n in 0..1000 {
            let _ = context.publish("goon.x", n.to_string().into()).await;
        }
    });
    for n in 0..1000 {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?.ok_or("ended")??;
        same!(&message.payload[..], n.to_string().as_bytes());
        message.ack().await?;
    }
    Ok(())
}

pub(crate) async fn deliver_policies(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "POLICY", 9).await?;
    let time = stream.get_raw_message(7).await?.time;
    let cases: [(DeliverPolicy, &[&str]); 6] = [
        (DeliverPolicy::All, &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]),
        (DeliverPolicy::New, &["10"]),
        (DeliverPolicy::Last, &["9", "10"]),
        (DeliverPolicy::LastPerSubject, &["7", "8", "9", "10"]),
        (DeliverPolicy::ByStartSequence { start_sequence: 5 }, &["5", "6", "7", "8", "9", "10"]),
        (DeliverPolicy::ByStartTime { start_time: time }, &["7", "8", "9", "10"]),
    ];
    let mut consumers = Vec::new();
    for (n, (policy, expected)) in cases.into_iter().enumerate() {
        let config = consumer::pull::Config { deliver_policy: policy, filter_subject: "policy.>".to_owned(), ..durable(&format!("d{n}")) };
        consumers.push((stream.create_consumer(config).await?, expected));
    }
    context.publish("policy.new", "10".into()).await?.await?;
    for (consumer, expected) in &mut consumers {
        same!(pending(consumer, expected.len() as u64).await?, expected.len() as u64);
        let messages = fetched(consumer, 20).await?;
        same!(payloads(&messages), *expected);
        same!(messages.last().ok_or("none")?.info()?.pending, 0);
    }
    Ok(())
}

pub(crate) async fn filters(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "FILTER", 9).await?;
    let one: PullConsumer =
        stream.create_consumer(consumer::pull::Config { filter_subject: "filter.1".to_owned(), ..durable("one") }).await?;
    same!(payloads(&fetched(&one, 20).await?), ["1", "4", "7"]);
    let two = consumer::pull::Config { filter_subjects: vec!["filter.0".to_owned(), "filter.2".to_owned()], ..durable("two") };
    let two: PullConsumer = stream.create_consumer(two).await?;
    let messages = fetched(&two, 20).await?;
    same!(payloads(&messages), ["2", "3", "5", "6", "8", "9"]);
    same!(messages.iter().map(|message| message.info().map(|info| info.pending)).collect::<Result<Vec<_>, _>>()?, [5, 4, 3, 2, 1, 0]);
    let mut none: PullConsumer =
        stream.create_consumer(consumer::pull::Config { filter_subject: "filter.9".to_owned(), ..durable("none") }).await?;
    same!(fetched(&none, 20).await?.len(), 0);
    context.publish("filter.9", "late".into()).await?.await?;
    same!(pending(&mut none, 1).await?, 1);
    same!(payloads(&fetched(&none, 20).await?), ["late"]);
    Ok(())
}

pub(crate) async fn refused_messages_come_again(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "NAK", 3).await?;
    let mut consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let messages = fetched(&consumer, 3).await?;
    messages[0].ack_with(AckKind::Nak(None)).await?;
    messages[1].ack_with(AckKind::Nak(Some(Duration::from_millis(700)))).await?;
    messages[2].ack_with(AckKind::Term).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let again = fetched(&consumer, 3).await?;
    same!(payloads(&again), ["1"]);
    let info = again[0].info()?;
    same!((info.delivered, info.stream_sequence, info.consumer_sequence), (2, 1, 4));
    tokio::time::sleep(Duration::from_millis(900)).await;
    same!(payloads(&fetched(&consumer, 3).await?), ["2"]);
    same!(consumer.info().await?.num_ack_pending, 2);
    Ok(())
}

pub(crate) async fn unacknowledged_messages_come_again(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "WAIT", 2).await?;
    let config = consumer::pull::Config { ack_wait: Duration::from_millis(800), ..durable("d") };
    let consumer: PullConsumer = stream.create_consumer(config).await?;
    let messages = fetched(&consumer, 2).await?;
    same!(messages.len(), 2);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        messages[0].ack_with(AckKind::Progress).await?;
    }
    let again = fetched(&consumer, 2).await?;
    same!(payloads(&again), ["2"]);
    again[0].double_ack().await?;
    messages[0].double_ack().await?;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    same!(fetched(&consumer, 2).await?.len(), 0);
    Ok(())
}

pub(crate) async fn backoff_and_max_deliver(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "BACKOFF", 1).await?;
    let mut advisories = server.client().await?.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.BACKOFF.d").await?;
    let backoff = vec![Duration::from_millis(200), Duration::from_millis(400)];
    let config = consumer::pull::Config { backoff, max_deliver: 3, ..durable("d") };
    let consumer: PullConsumer = stream.create_consumer(config).await?;
    let mut deliveries = Vec::new();
    let mut messages = consumer.messages().await?;
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(1500), messages.next()).await {
        deliveries.push(message?.info()?.delivered);
    }
    same!(deliveries, [1, 2, 3]);
    let advisory = tokio::time::timeout(Duration::from_secs(20), advisories.next()).await?.ok_or("closed")?;
    let advisory: serde_json::Value = serde_json::from_slice(&advisory.payload)?;
    same!((advisory["stream_seq"].as_u64(), advisory["deliveries"].as_u64()), (Some(1), Some(3)));
    drop(context);
    Ok(())
}

pub(crate) async fn acknowledging_the_last_acknowledges_all(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "ACKALL", 10).await?;
    let config = consumer::pull::Config { ack_policy: AckPolicy::All, ..durable("d") };
    let mut consumer: PullConsumer = stream.create_consumer(config).await?;
    let messages = fetched(&consumer, 8).await?;
    messages[5].double_ack().await?;
    let info = consumer.info().await?;
    same!((info.num_ack_pending, info.ack_floor.stream_sequence, info.num_pending), (2, 6, 2));
    Ok(())
}

pub(crate) async fn no_more_than_may_be_pending(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "MAXPEND", 10).await?;
    let config = consumer::pull::Config { max_ack_pending: 3, ..durable("d") };
    let consumer: PullConsumer = stream.create_consumer(config).await?;
    let batch = || async {
        let batch = consumer.batch().max_messages(10).expires(Duration::from_secs(1)).messages().await?;
        let messages: Result<Vec<_>, Failure> = batch.try_collect().await;
        messages
    };
    let messages = batch().await?;
    same!(messages.len(), 3);
    same!(batch().await?.len(), 0);
    messages[1].double_ack().await?;
    same!(payloads(&batch().await?), ["4"]);
    Ok(())
}

pub(crate) async fn double_acknowledgement(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "DOUBLE", 1).await?;
    let mut consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let messages = fetched(&consumer, 1).await?;
    messages[0].double_ack().await?;
    same!(consumer.info().await?.num_ack_pending, 0);
    // Also of what is acknowledged already.
    messages[0].double_ack().await?;
    Ok(())
}

pub(crate) async fn pull_expires_with_heartbeats(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "EXPIRE", 0).await?;
    let consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let begun = std::time::Instant::now();
    let mut batch =
        consumer.batch().max_messages(5).expires(Duration::from_millis(1500)).heartbeat(Duration::from_millis(300)).messages().await?;
    context.publish("expire.x", "only".into()).await?.await?;
    let mut count = 0;
    while let Some(message) = batch.next().await {
        same!(&message?.payload[..], b"only");
        count += 1;
    }
    same!(count, 1);
    check!(begun.elapsed() > Duration::from_millis(1200), "it ended after {:?}", begun.elapsed());
    Ok(())
}

pub(crate) async fn pull_by_bytes(server: Arc<Server>) -> Outcome {
    let context = server.jetstream().await?;
    let stream = context.create_stream(Config { name: "BYTES".into(), subjects: vec!["bytes.>".into()], ..Config::default() }).await?;
    for _ in 0..10 {
        context.publish("bytes.x", vec![1; 400].into()).await?.await?;
    }
    let consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let batch = consumer.batch().max_messages(10).max_bytes(1500).expires(Duration::from_secs(2)).messages().await?;
    let messages: Vec<_> = batch.filter_map(|message| async { message.ok() }).collect().await;
    same!(messages.len(), 3);
    Ok(())
}

async fn push(server: &Server, stream: &Stream, config: consumer::push::Config) -> Result<PushConsumer, Failure> {
    let _ = server;
    Ok(stream.create_consumer(config).await?)
}

pub(crate) async fn push_to_a_subject(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "PUSH", 5).await?;
    let config = consumer::push::Config { deliver_subject: "pushed.here".into(), durable_name: Some("d".into()), ..Default::default() };
    let mut consumer = push(&server, &stream, config).await?;
    let mut messages = consumer.messages().await?;
    context.publish("push.x", "6".into()).await?.await?;
    for n in 1..=6 {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?.ok_or("ended")??;
        same!(&message.payload[..], n.to_string().as_bytes());
        message.ack().await?;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let info = consumer.info().await?;
    same!((info.push_bound, info.num_ack_pending, info.num_pending), (true, 0, 0));
    Ok(())
}

pub(crate) async fn push_to_a_group(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "PGROUP", 0).await?;
    let config = consumer::push::Config {
        deliver_subject: "pgroup.here".replace("pgroup", "grouped"),
        deliver_group: Some("g".into()),
        durable_name: Some("d".into()),
        ..Default::default()
    };
    let consumer = push(&server, &stream, config).await?;
    let (mut a, mut b) = (consumer.messages().await?, consumer.messages().await?);
    for n in 0..60 {
        context.publish("pgroup.x", n.to_string().into()).await?.await?;
    }
    let (mut in_a, mut in_b) = (0, 0);
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), a.next()).await {
        message?.ack().await?;
        in_a += 1;
    }
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), b.next()).await {
        message?.ack().await?;
        in_b += 1;
    }
    same!(in_a + in_b, 60);
    check!(in_a > 0 && in_b > 0, "one got everything: {in_a} {in_b}");
    Ok(())
}

pub(crate) async fn push_with_flow_control(server: Arc<Server>) -> Outcome {
    let context = server.jetstream().await?;
    let stream = context.create_stream(Config { name: "FLOW".into(), subjects: vec!["flow.>".into()], ..Config::default() }).await?;
    let payload = bytes::Bytes::from(vec![3; 10_000]);
    let mut acks = Vec::new();
    for _ in 0..1000 {
        acks.push(context.publish("flow.x", payload.clone()).await?);
    }
    for ack in acks {
        ack.await?;
    }
    // Ten times the window that flow control begins with.
    let config = consumer::push::Config {
        deliver_subject: "flowing.here".into(),
        flow_control: true,
        idle_heartbeat: Duration::from_millis(500),
        ack_policy: AckPolicy::None,
        ..Default::default()
    };
    let mut messages = push(&server, &stream, config).await?.messages().await?;
    for n in 0..1000 {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?.ok_or("ended")??;
        same!(message.info()?.stream_sequence, n + 1);
    }
    // Heartbeats keep it alive.
    check!(tokio::time::timeout(Duration::from_secs(2), messages.next()).await.is_err(), "something came, or it ended");
    Ok(())
}

pub(crate) async fn ordered_push(server: Arc<Server>) -> Outcome {
    let (context, stream) = filled(&server, "ORDPUSH", 20).await?;
    let config = consumer::push::OrderedConfig { deliver_subject: context_inbox(&server).await?, ..Default::default() };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?;
    for n in 1..=20 {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?.ok_or("ended")??;
        same!(&message.payload[..], n.to_string().as_bytes());
    }
    context.publish("ordpush.x", "21".into()).await?.await?;
    let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?.ok_or("ended")??;
    same!((&message.payload[..], message.info()?.pending), (&b"21"[..], 0));
    Ok(())
}

async fn context_inbox(server: &Server) -> Result<String, Failure> {
    Ok(server.client().await?.new_inbox())
}

pub(crate) async fn ordered_pull(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "ORDPULL", 300).await?;
    let consumer = stream.create_consumer(consumer::pull::OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    for n in 1..=300 {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await?.ok_or("ended")??;
        same!(&message.payload[..], n.to_string().as_bytes());
    }
    Ok(())
}

pub(crate) async fn headers_only(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "HDRONLY", 1).await?;
    let consumer: PullConsumer = stream.create_consumer(consumer::pull::Config { headers_only: true, ..durable("d") }).await?;
    let messages = fetched(&consumer, 1).await?;
    let headers = messages[0].headers.as_ref().ok_or("no headers")?;
    same!(headers.get("Nats-Msg-Size").map(|value| value.as_str()), Some("1"));
    same!(messages[0].payload.len(), 0);
    Ok(())
}

pub(crate) async fn pause_and_resume(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "PAUSE", 3).await?;
    let client = server.client().await?;
    let consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let until = jiff::Timestamp::now() + Duration::from_secs(60);
    let ask = |body: String| {
        let client = client.clone();
        async move {
            let answer = client.request("$JS.API.CONSUMER.PAUSE.PAUSE.d", body.into()).await?;
            Ok::<serde_json::Value, Failure>(serde_json::from_slice(&answer.payload)?)
        }
    };
    same!(ask(format!("{{\"pause_until\":\"{until}\"}}")).await?["paused"].as_bool(), Some(true));
    same!(fetched(&consumer, 3).await?.len(), 0);
    same!(ask("{}".to_owned()).await?["paused"].as_bool(), Some(false));
    same!(fetched(&consumer, 3).await?.len(), 3);
    Ok(())
}

pub(crate) async fn ephemerals_end(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "EPHEMERAL", 1).await?;
    let config = consumer::pull::Config { inactive_threshold: Duration::from_millis(600), ..Default::default() };
    let consumer: PullConsumer = stream.create_consumer(config).await?;
    let name = consumer.cached_info().name.clone();
    // What is owed keeps it alive in nats-server.
    fetched(&consumer, 1).await?.first().ok_or("no message")?.double_ack().await?;
    // Looking is use in nats-server's eyes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    check!(stream.consumer_info(&name).await.is_err(), "it is still there");
    Ok(())
}

pub(crate) async fn described_listed_updated_deleted(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "CINFO", 5).await?;
    let config = consumer::pull::Config { description: Some("one".into()), ..durable("d") };
    let consumer: PullConsumer = stream.create_consumer(config.clone()).await?;
    let info = consumer.cached_info();
    same!(
        (info.config.ack_wait, info.config.max_deliver, info.config.max_waiting, info.config.max_ack_pending),
        (Duration::from_secs(30), -1, 512, 1000)
    );
    stream.create_consumer(durable("e")).await?;
    let mut names: Vec<String> = stream.consumer_names().try_collect().await?;
    names.sort();
    same!(names, ["d", "e"]);
    same!(stream.consumers().try_collect::<Vec<_>>().await?.len(), 2);
    let updated = stream.update_consumer(consumer::pull::Config { max_ack_pending: 7, ..config.clone() }).await?;
    same!(updated.cached_info().config.max_ack_pending, 7);
    let other = consumer::pull::Config { deliver_policy: DeliverPolicy::New, ..config };
    check!(stream.update_consumer(other).await.is_err(), "where it begins was changed");
    check!(stream.delete_consumer("d").await?.success, "not deleted");
    check!(stream.consumer_info("d").await.is_err(), "still there");
    check!(fetched(&consumer, 1).await.is_err() || fetched(&consumer, 1).await?.is_empty(), "it still delivers");
    Ok(())
}

pub(crate) async fn what_is_deleted_is_not_delivered(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "GONE", 9).await?;
    let mut consumer: PullConsumer =
        stream.create_consumer(consumer::pull::Config { filter_subject: "gone.*".into(), ..durable("d") }).await?;
    same!(payloads(&fetched(&consumer, 2).await?), ["1", "2"]);
    stream.delete_message(4).await?;
    stream.purge().filter("gone.0").await?;
    same!(pending(&mut consumer, 3).await?, 3);
    let messages = fetched(&consumer, 9).await?;
    same!(payloads(&messages), ["5", "7", "8"].iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    same!(consumer.info().await?.num_pending, 0);
    Ok(())
}

pub(crate) async fn several_pull_side_by_side(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "SIDE", 300).await?;
    let consumer: PullConsumer = stream.create_consumer(durable("d")).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let consumer = consumer.clone();
        tasks.spawn(async move {
            let mut seen = Vec::new();
            loop {
                let messages = fetched(&consumer, 20).await?;
                if messages.is_empty() {
                    return Ok::<_, Failure>(seen);
                }
                for message in messages {
                    seen.push(message.info()?.stream_sequence);
                    message.ack().await?;
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(seen) = tasks.join_next().await {
        all.extend(seen??);
    }
    all.sort_unstable();
    same!(all, (1..=300).collect::<Vec<u64>>());
    Ok(())
}

pub(crate) async fn strict_creation(server: Arc<Server>) -> Outcome {
    let (_, stream) = filled(&server, "STRICT", 0).await?;
    stream.create_consumer_strict(durable("d")).await?;
    stream.create_consumer_strict(durable("d")).await?;
    let other = consumer::pull::Config { max_ack_pending: 3, ..durable("d") };
    check!(stream.create_consumer_strict(other).await.is_err(), "another was created over it");
    Ok(())
}
