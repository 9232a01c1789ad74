//! What modules in the process get: the same value, in order, each as its subscription says.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bartizan_bus::event::{Body, EventId, EventTime, Heartbeat, Outcome, SecurityEvent, Severity};
use bartizan_bus::pattern::{Filter, Pattern};
use bartizan_bus::{
    Bus, BusConfig, ConsumerConfig, DeliverPolicy, Message, Overflow, PublishError, ReadError, Stream, StreamName, Subscription,
    SubscriptionConfig,
};
use proptest::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// For what must happen but may take as long as a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what must not happen.
const A_WHILE: Duration = Duration::from_millis(100);

fn message(subject: &str, n: u64) -> Message {
    Message { subject: subject.parse().expect("subject"), msg_id: None, time_ns: n as i64, payload: n.to_string().into() }
}

fn publish(stream: &Stream, numbers: impl IntoIterator<Item = u64>) {
    stream.append_batch(numbers.into_iter().map(|n| message("sec.alerts.high.test", n)).collect()).expect("appended");
}

fn with(capacity: usize, overflow: Overflow) -> SubscriptionConfig {
    SubscriptionConfig { capacity, overflow, ..SubscriptionConfig::default() }
}

/// Everything that is there now, as numbers.
fn all(subscription: &mut Subscription) -> Vec<u64> {
    let next = || subscription.try_recv().expect("readable");
    std::iter::from_fn(next).map(|delivery| std::str::from_utf8(&delivery.payload).expect("text").parse().expect("a number")).collect()
}

fn event(n: u64) -> SecurityEvent {
    SecurityEvent {
        id: EventId([n as u8; 20]),
        time: EventTime { boot_ns: n, wall_ns: n as i64 },
        host: "h".into(),
        severity: Severity::Info,
        outcome: Outcome::Unknown,
        process: None,
        no_subject: Some("sensor".to_owned()),
        tid: None,
        target_tid: None,
        body: Body::Heartbeat(Heartbeat { uptime_s: n }),
        target: None,
    }
}

#[tokio::test]
async fn modules_share_the_value_that_was_published() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let events = bus.stream(StreamName::Events);
    let mut module = events.subscribe("module", SubscriptionConfig::default());
    let mut detector = events.consumer("detector", ConsumerConfig::default())?;
    let value = Arc::new(event(7));
    assert_eq!(bus.publish(&value).await?.seq, 1);
    assert!(Arc::ptr_eq(&module.recv().await?.read()?, &value));
    let delivery = detector.fetch(1).await?.remove(0);
    assert!(Arc::ptr_eq(&delivery.read()?, &value));
    assert!(delivery.read::<bartizan_bus::event::Alert>().is_err(), "it is not what it is not");
    drop((module, detector));

    // Nobody is there, so nothing is kept for anybody; later it comes from the log.
    let (late, at) = (Arc::new(event(8)), ConsumerConfig { deliver: DeliverPolicy::BySequence(2), ..ConsumerConfig::default() });
    bus.append(&late)?;
    let read = events.consumer("late", at)?.fetch(1).await?.remove(0).read::<SecurityEvent>()?;
    assert!(!Arc::ptr_eq(&read, &late));
    assert_eq!(*read, *late);
    Ok(())
}

#[test]
fn drop_newest_delivers_the_oldest_and_counts_the_rest() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    publish(stream, [0]);
    let mut subscription = stream.subscribe("slow", with(4, Overflow::DropNewest));
    publish(stream, 1..=3);
    publish(stream, 4..=10);
    let info = stream.subscriptions().remove(0);
    assert_eq!((info.name.as_str(), info.waiting, info.dropped, info.delivered), ("slow", 4, 6, 0));
    assert_eq!(all(&mut subscription), [1, 2, 3, 4], "from the subscription on");
    publish(stream, [11]);
    assert_eq!(all(&mut subscription), [11]);
    assert_eq!((subscription.info().dropped, subscription.info().delivered), (6, 5));
    drop(subscription);
    assert_eq!(stream.subscriptions(), []);
    Ok(())
}

#[test]
fn spill_reads_from_the_log_what_memory_does_not_hold() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    let mut subscription = stream.subscribe("slow", with(4, Overflow::Spill));
    publish(stream, 1..=10);
    assert_eq!(all(&mut subscription), (1..=10).collect::<Vec<_>>());
    assert_eq!(subscription.info().spilled, 0, "so many are in memory");
    for from in (11..=20_000).step_by(100) {
        publish(stream, from..from + 100);
    }
    assert_eq!(all(&mut subscription), (11..=20_010).collect::<Vec<_>>());
    let info = subscription.info();
    assert!((1..20_000).contains(&info.spilled), "{info:?}: the last ones are in memory");
    assert_eq!((info.dropped, info.fell_off_retention, info.delivered), (0, 0, 20_010));
    Ok(())
}

#[test]
fn block_makes_the_publisher_wait_and_loses_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts).clone();
    let mut subscription = stream.subscribe("strict", with(4, Overflow::Block));
    publish(&stream, 1..=7);
    assert_eq!(subscription.info().waiting, 7, "a batch that is longer fits into an empty queue");
    let (said, says) = mpsc::channel();
    let publisher = thread::spawn({
        let stream = stream.clone();
        move || {
            publish(&stream, 8..=9);
            said.send(()).expect("somebody listens");
        }
    });
    assert_eq!(says.recv_timeout(A_WHILE), Err(mpsc::RecvTimeoutError::Timeout));
    for expected in 1..=5 {
        assert_eq!(subscription.try_recv()?.map(|delivery| delivery.seq), Some(expected));
    }
    says.recv_timeout(PATIENCE)?;
    publisher.join().expect("publisher");
    assert_eq!(all(&mut subscription), [6, 7, 8, 9]);
    let info = subscription.info();
    assert!(info.publishers_waited >= 1 && info.dropped == 0, "{info:?}");
    Ok(())
}

#[test]
fn who_waits_for_a_subscriber_goes_on_when_it_ends_or_the_bus_closes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts).clone();
    for close in [false, true] {
        let subscription = stream.subscribe("stuck", with(1, Overflow::Block));
        publish(&stream, [1]);
        let (said, says) = mpsc::channel();
        let publisher = thread::spawn({
            let stream = stream.clone();
            move || said.send(stream.append(message("sec.alerts.high.test", 2))).expect("somebody listens")
        });
        assert!(says.recv_timeout(A_WHILE).is_err());
        let kept = if close {
            bus.close()?;
            Some(subscription)
        } else {
            drop(subscription);
            None
        };
        let result = says.recv_timeout(PATIENCE)?;
        assert_eq!(matches!(result, Err(PublishError::Closed { .. })), close, "{result:?}");
        publisher.join().expect("publisher");
        if let Some(mut subscription) = kept {
            assert_eq!(all(&mut subscription), [1], "what was queued is still received");
        }
    }
    Ok(())
}

#[tokio::test]
async fn receiving_ends_with_the_bus_and_not_before_the_last_message() -> Result<()> {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::Spill] {
        let dir = tempfile::tempdir()?;
        let bus = Bus::open(dir.path(), &BusConfig::default())?;
        let stream = bus.stream(StreamName::Alerts);
        let mut subscription = stream.subscribe("one", with(8, overflow));
        let receiver = tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                match subscription.recv().await {
                    Ok(delivery) => seen.push(delivery.seq),
                    Err(error) => return (seen, error),
                }
            }
        });
        publish(stream, 1..=3);
        tokio::task::yield_now().await;
        publish(stream, 4..=5);
        bus.close()?;
        let (seen, error) = tokio::time::timeout(PATIENCE, receiver).await??;
        assert_eq!(seen, [1, 2, 3, 4, 5], "{overflow:?}");
        assert!(matches!(error, ReadError::Closed { .. }), "{error}");
    }
    Ok(())
}

#[test]
fn what_retention_took_is_counted() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = BusConfig::default();
    (config.alerts.segment_bytes, config.alerts.max_bytes, config.alerts.compression) = (4096, 16 * 1024, None);
    let bus = Bus::open(dir.path(), &config)?;
    let stream = bus.stream(StreamName::Alerts);
    let mut subscription = stream.subscribe("slow", with(4, Overflow::Spill));
    for from in (1..=10_000).step_by(50) {
        publish(stream, from..from + 50);
    }
    stream.enforce_retention(0)?;
    let seen = all(&mut subscription);
    let info = subscription.info();
    assert!(info.fell_off_retention > 0, "{info:?}");
    assert_eq!(seen, (info.fell_off_retention + 1..=10_000).collect::<Vec<_>>());
    Ok(())
}

/// Three publishers, one receiver per policy: each receiver sees every message it can, once, in the stream's order.
#[test]
fn under_load_order_holds_and_the_numbers_add_up() -> Result<()> {
    const EACH: u64 = 5_000;
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Events).clone();
    let receivers: Vec<_> = [Overflow::Block, Overflow::DropNewest, Overflow::Spill]
        .map(|overflow| {
            let mut subscription = stream.subscribe("one", with(64, overflow));
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
                runtime.block_on(async {
                    let mut seen = Vec::new();
                    while seen.last() != Some(&(3 * EACH)) && seen.len() as u64 + subscription.info().dropped < 3 * EACH {
                        seen.push(subscription.recv().await.expect("readable").seq);
                    }
                    (overflow, seen, subscription.info())
                })
            })
        })
        .into();
    let publishers = [1, 2, 3].map(|_| {
        let stream = stream.clone();
        thread::spawn(move || (0..EACH / 5).for_each(|n| publish(&stream, n..n + 5)))
    });
    publishers.into_iter().for_each(|publisher| publisher.join().expect("publisher"));
    // Whoever drops may have dropped the last one: the messages it has room for now end it.
    for receiver in receivers {
        let (overflow, seen, info) = receiver.join().expect("receiver");
        assert!(seen.is_sorted_by(|a, b| a < b), "{overflow:?}");
        assert_eq!(info.delivered, seen.len() as u64);
        assert_eq!(info.delivered + info.dropped, 3 * EACH, "{info:?}");
        assert_eq!(info.dropped > 0, overflow == Overflow::DropNewest && seen.len() as u64 != 3 * EACH);
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Op {
    Publish { subjects: Vec<bool> },
    Receive { count: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        prop::collection::vec(any::<bool>(), 1..40).prop_map(|subjects| Op::Publish { subjects }),
        (1usize..50).prop_map(|count| Op::Receive { count }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Against a list: what was published, filtered, without what did not fit when it came.
    #[test]
    fn subscriptions_do_as_the_model_says(ops in prop::collection::vec(op(), 1..60), capacity in 1usize..20, filtered in any::<bool>()) {
        let dir = tempfile::tempdir().expect("folder");
        let bus = Bus::open(dir.path(), &BusConfig::default()).expect("bus");
        let stream = bus.stream(StreamName::Alerts);
        let filter = if filtered { Filter::from("sec.*.b".parse::<Pattern>().expect("pattern")) } else { Filter::all() };
        let mut dropping = stream.subscribe("d", SubscriptionConfig { filter: filter.clone(), ..with(capacity, Overflow::DropNewest) });
        let mut spilling = stream.subscribe("s", SubscriptionConfig { filter, ..with(capacity, Overflow::Spill) });
        let (mut n, mut waiting, mut behind, mut dropped) = (0, Vec::new(), Vec::new(), 0);
        for op in ops {
            match op {
                Op::Publish { subjects } => {
                    let mut batch = Vec::new();
                    for b in subjects {
                        n += 1;
                        batch.push(message(if b { "sec.x.b" } else { "sec.x.a" }, n));
                        if b || !filtered {
                            behind.push(n);
                            if waiting.len() < capacity { waiting.push(n) } else { dropped += 1 }
                        }
                    }
                    stream.append_batch(batch).expect("appended");
                }
                Op::Receive { count } => {
                    for (subscription, model) in [(&mut dropping, &mut waiting), (&mut spilling, &mut behind)] {
                        for _ in 0..count {
                            let expected = (!model.is_empty()).then(|| model.remove(0));
                            prop_assert_eq!(subscription.try_recv().expect("readable").map(|delivery| delivery.seq), expected);
                        }
                    }
                }
            }
            prop_assert_eq!(dropping.info().dropped, dropped);
        }
    }
}
