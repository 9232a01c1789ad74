//! The same work by async-nats, which most Rust programs would use. It is the slower end of most measurements: see `driver_cpu_ns`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_nats::jetstream::{self, consumer};
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::Target;
use crate::frames::Random;
use crate::latency::Latencies;
use crate::memory;
use crate::meter::Meter;
use crate::nats::{self, Nats, STREAM};
use crate::phase::Phase;

/// Messages on the way, at most: async-nats drops what a subscription has not read beyond 65,536.
const ON_THE_WAY: u64 = 16_384;
/// Payloads prepared.
const PAYLOADS: usize = 4096;

type Payload = bytes::Bytes;

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio cannot start")
}

fn payloads(size: usize) -> Vec<Payload> {
    let mut random = Random(0x5DEE_CE66);
    let one = |_| {
        let mut bytes = vec![0; size];
        random.fill(&mut bytes);
        bytes.into()
    };
    (0..PAYLOADS).map(one).collect()
}

async fn connect(target: &Target) -> Result<Client> {
    async_nats::connect(target.address.to_string()).await.with_context(|| format!("async-nats cannot connect to {}", target.address))
}

/// Core publish and subscribe.
///
/// # Errors
/// The client fails, or a message is missing.
pub(crate) fn core(target: &Target, size: usize) -> Result<Value> {
    runtime()?.block_on(async {
        let (publisher, subscriber) = (connect(target).await?, connect(target).await?);
        let mut subscription = subscriber.subscribe("core.a").await?;
        subscriber.flush().await?;
        let payloads = payloads(size);
        pass(&publisher, &mut subscription, &payloads, target.warming()).await?;
        let meter = Meter::start(target.pid)?;
        let messages = pass(&publisher, &mut subscription, &payloads, target.measured()).await?;
        meter.stop(messages, Latencies::default())
    })
}

async fn pass(publisher: &Client, subscription: &mut Subscriber, payloads: &[Payload], time: Duration) -> Result<u64> {
    const LAST: &[u8] = b"the last one";
    let received = Arc::new(AtomicU64::new(0));
    let (phase, seen) = (Phase::lasting(time), Arc::clone(&received));
    let (publisher, payloads) = (publisher.clone(), payloads.to_vec());
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while phase.left(sent, Instant::now()) > 0 {
            if sent - seen.load(Ordering::Acquire) > ON_THE_WAY {
                tokio::time::sleep(Duration::from_micros(50)).await;
                continue;
            }
            for _ in 0..64 {
                publisher.publish("core.a", payloads[sent as usize % PAYLOADS].clone()).await?;
                sent += 1;
            }
        }
        publisher.publish("core.a", LAST.into()).await?;
        publisher.flush().await?;
        anyhow::Ok(sent)
    });
    let mut count = 0;
    while let Some(message) = subscription.next().await {
        if message.payload == LAST {
            break;
        }
        count += 1;
        received.store(count, Ordering::Release);
    }
    let sent = sending.await??;
    if sent != count {
        bail!("{sent} messages were published and {count} received");
    }
    Ok(count)
}

/// Requests, one at a time.
///
/// # Errors
/// The client fails, or an answer is missing.
pub(crate) fn request(target: &Target, size: usize) -> Result<Value> {
    runtime()?.block_on(async {
        let (asking, answering) = (connect(target).await?, connect(target).await?);
        let mut requests = answering.subscribe("service.a").await?;
        answering.flush().await?;
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                if let Some(reply) = request.reply
                    && let Err(error) = answering.publish(reply, request.payload).await
                {
                    eprintln!("bus_driver: the answering end: {error}");
                }
            }
        });
        let payloads = payloads(size);
        ask(&asking, &payloads, target.warming()).await?;
        let meter = Meter::start(target.pid)?;
        let (count, latencies) = ask(&asking, &payloads, target.measured()).await?;
        meter.stop(count, latencies)
    })
}

async fn ask(client: &Client, payloads: &[Payload], time: Duration) -> Result<(u64, Latencies)> {
    let (phase, mut count, mut latencies) = (Phase::lasting(time), 0, Latencies::default());
    while phase.left(count, Instant::now()) > 0 {
        let payload = payloads[count as usize % PAYLOADS].clone();
        let before = Instant::now();
        let answer = client.request("service.a", payload.clone()).await?;
        latencies.push(before.elapsed());
        if answer.payload != payload {
            bail!("request {count} got another's answer");
        }
        count += 1;
    }
    Ok((count, latencies))
}

/// Acknowledged publishes into a stream.
///
/// # Errors
/// The client fails, or a publish is refused.
pub(crate) fn publish(target: &Target, size: usize, window: usize, publishers: usize) -> Result<Value> {
    let mut nats = Nats::open(target.address)?;
    nats.make_stream(&target.metadata)?;
    let (warmed, messages, mut answer) = runtime()?.block_on(async {
        let payloads = Arc::new(payloads(size));
        let mut contexts = Vec::new();
        for _ in 0..publishers {
            let mut context = jetstream::new(connect(target).await?);
            // Its usual 5 s are shorter than the queue of a server that syncs each message by itself.
            context.set_timeout(Duration::from_secs(120));
            contexts.push(context);
        }
        let (warmed, _) = publish_all(&contexts, &payloads, window, target.warming()).await?;
        let meter = Meter::start(target.pid)?;
        let (messages, latencies) = publish_all(&contexts, &payloads, window, target.measured()).await?;
        anyhow::Ok((warmed, messages, meter.stop(messages, latencies)?))
    })?;
    nats::check_stored(nats.stored()?, warmed + messages)?;
    answer["stored"] = json!(warmed + messages);
    Ok(answer)
}

async fn publish_all(
    contexts: &[jetstream::Context],
    payloads: &Arc<Vec<Payload>>,
    window: usize,
    time: Duration,
) -> Result<(u64, Latencies)> {
    let phase = Phase::lasting(time);
    let one = |(index, context): (usize, &jetstream::Context)| {
        tokio::spawn(publish_one(context.clone(), format!("bench.p{index:02}"), Arc::clone(payloads), window, phase))
    };
    let tasks: Vec<_> = contexts.iter().enumerate().map(one).collect();
    let (mut sum, mut all) = (0, Latencies::default());
    for task in tasks {
        let (messages, latencies) = task.await??;
        sum += messages;
        all.append(latencies);
    }
    Ok((sum, all))
}

async fn publish_one(
    context: jetstream::Context,
    subject: String,
    payloads: Arc<Vec<Payload>>,
    window: usize,
    phase: Phase,
) -> Result<(u64, Latencies)> {
    let (mut begun, mut latencies, mut in_flight) = (0_u64, Latencies::default(), VecDeque::with_capacity(window));
    let subject = async_nats::Subject::from(subject);
    loop {
        if phase.left(begun, Instant::now()) > 0 {
            let sent = Instant::now();
            let acknowledgement = context.publish(subject.clone(), payloads[begun as usize % PAYLOADS].clone()).await?;
            in_flight.push_back((sent, acknowledgement));
            begun += 1;
            if in_flight.len() < window {
                continue;
            }
        }
        let Some((sent, acknowledgement)) = in_flight.pop_front() else { return Ok((begun, latencies)) };
        acknowledgement.await?;
        latencies.push(sent.elapsed());
    }
}

/// Reading a stored stream in batches.
///
/// # Errors
/// The client fails, or a message is missing.
pub(crate) fn fetch(target: &Target, size: usize, batch: usize, ack: bool, messages: u64) -> Result<Value> {
    memory::fill(target, size, messages)?;
    runtime()?.block_on(async {
        let context = jetstream::new(connect(target).await?);
        let stream = context.get_stream(STREAM).await?;
        let mut names = 0;
        let mut puller = Puller { stream, consumer: None, batch, ack, messages, names: &mut names, position: 0 };
        puller.pull_for(target.warming()).await?;
        puller.consumer = None;
        puller.begin().await?;
        let meter = Meter::start(target.pid)?;
        let (received, latencies) = puller.pull_for(target.measured()).await?;
        context.client().flush().await?;
        let mut answer = meter.stop(received, latencies)?;
        answer["stored"] = json!(messages);
        Ok(answer)
    })
}

struct Puller<'a> {
    stream: jetstream::stream::Stream,
    consumer: Option<consumer::PullConsumer>,
    batch: usize,
    ack: bool,
    messages: u64,
    names: &'a mut u64,
    position: u64,
}

impl Puller<'_> {
    async fn begin(&mut self) -> Result<()> {
        *self.names += 1;
        let ack_policy = if self.ack { consumer::AckPolicy::Explicit } else { consumer::AckPolicy::None };
        let name = format!("a{}", self.names);
        let config = consumer::pull::Config { durable_name: Some(name), ack_policy, ..Default::default() };
        self.consumer = Some(self.stream.create_consumer(config).await?);
        self.position = 0;
        Ok(())
    }

    /// Latencies are of whole batches.
    async fn pull_for(&mut self, time: Duration) -> Result<(u64, Latencies)> {
        let (phase, mut received, mut latencies) = (Phase::lasting(time), 0, Latencies::default());
        while phase.left(received, Instant::now()) > 0 {
            if self.consumer.is_none() || self.position + self.batch as u64 > self.messages {
                self.begin().await?;
            }
            let consumer = self.consumer.as_ref().context("no consumer")?;
            let before = Instant::now();
            let mut batch = consumer.batch().max_messages(self.batch).expires(Duration::from_secs(5)).messages().await?;
            let mut count = 0;
            while let Some(message) = batch.next().await {
                // async-nats hands the error on as a boxed one.
                let message = message.map_err(|error| anyhow::anyhow!("a pull failed: {error}"))?;
                count += 1;
                if self.ack {
                    message.ack().await.map_err(|error| anyhow::anyhow!("an acknowledgement failed: {error}"))?;
                }
            }
            if count != self.batch {
                bail!("a pull of {} ended after {count}", self.batch);
            }
            latencies.push(before.elapsed());
            self.position += count as u64;
            received += count as u64;
        }
        Ok((received, latencies))
    }
}
