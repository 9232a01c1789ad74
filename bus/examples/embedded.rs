//! The bus inside a program, without a socket: typed publishing, a subscription, a durable consumer that a restart does not confuse,
//! and a log of one's own beside the built-in streams.
//!
//! `cargo run -p bartizan-bus --example embedded -- /tmp/embedded`

use std::sync::Arc;

use bartizan_bus::event::{Body, BootId, EventId, EventTime, Heartbeat, Outcome, SecurityEvent, Severity};
use bartizan_bus::log::{Log, LogConfig, stream_dir};
use bartizan_bus::pattern::Filter;
use bartizan_bus::store::{Hint, Limits, Put, Store};
use bartizan_bus::{Bus, BusConfig, ConsumerConfig, DeliverPolicy, Overflow, StreamName, SubscriptionConfig};

fn heartbeat(n: u32) -> Arc<SecurityEvent> {
    Arc::new(SecurityEvent {
        id: EventId::from_sensor(BootId(7), u64::from(n), n),
        time: EventTime { boot_ns: u64::from(n), wall_ns: i64::from(n) },
        host: "example".into(),
        severity: Severity::Info,
        outcome: Outcome::Success,
        process: None,
        no_subject: Some("sensor".to_owned()),
        tid: None,
        target_tid: None,
        body: Body::Heartbeat(Heartbeat { uptime_s: u64::from(n) }),
        target: None,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: embedded FOLDER, where the streams are kept")?;
    let dir = std::path::Path::new(&dir);
    let durable = ConsumerConfig { deliver: DeliverPolicy::All, ..ConsumerConfig::default() };

    // A subscription begins now and ends with the process; what it does when it is too slow is its own choice.
    let bus = Bus::open(dir, &BusConfig::default())?;
    let events = bus.stream(StreamName::Events);
    let newest = SubscriptionConfig { capacity: 64, overflow: Overflow::DropNewest, ..SubscriptionConfig::default() };
    let mut subscription = events.subscribe("console", newest);
    // A durable consumer begins where it stopped, also after a crash.
    let mut consumer = events.consumer("module", durable.clone())?;
    for n in 1..=3 {
        bus.publish(&heartbeat(n)).await?;
    }
    let delivery = subscription.recv().await?;
    println!("subscription: {} is {}", delivery.seq, delivery.read::<SecurityEvent>()?.kind());
    for delivery in consumer.fetch(2).await? {
        println!("consumer: {}", delivery.seq);
        consumer.ack(delivery.seq);
    }
    consumer.flush_acks()?;
    drop((consumer, subscription));
    bus.close()?;
    drop(bus);

    // The next start: what was acknowledged does not come again.
    let bus = Bus::open(dir, &BusConfig::default())?;
    let mut consumer = bus.stream(StreamName::Events).consumer("module", durable)?;
    for delivery in consumer.fetch(10).await? {
        println!("consumer after a restart: {}", delivery.seq);
        consumer.ack(delivery.seq);
    }

    // A log of one's own: any subjects, headers, limits per subject.
    let limits = Limits { max_msgs_per_subject: Some(1), ..Limits::default() };
    let config = LogConfig::new("SETTINGS", limits);
    let log = Log::open(&stream_dir(dir, "SETTINGS"), config)?;
    for (subject, payload) in [("settings.colour", "red"), ("settings.size", "8"), ("settings.colour", "blue")] {
        log.append(&[Put { subject, headers: b"", payload: payload.as_bytes(), time_ns: 0 }])?;
    }
    log.flush()?;
    log.wait_synced(3).await?;
    let (mut hint, mut from) = (Hint::default(), 1);
    while let Some(message) = log.next(from, &Filter::all(), &mut hint)? {
        println!("log: {} {}={}", message.seq, message.subject(), String::from_utf8_lossy(message.payload()));
        from = message.seq + 1;
    }
    Ok(())
}
