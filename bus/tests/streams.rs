//! Streams and consumers as their users see them.

use std::error::Error;
use std::time::Duration;

use bartizan_bus::{
    Bus, BusConfig, ConsumerConfig, DeliverPolicy, Delivery, LogReader, Message, OpenError, PublishError, ReadError, Stream, StreamConfig,
    StreamName,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// For what must happen but may take as long as a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn message(n: u64) -> Result<Message> {
    Ok(Message { subject: "sec.alerts.high.test".parse()?, msg_id: None, time_ns: n as i64, payload: n.to_string().into() })
}

fn with_id(id: &str, time_ns: i64) -> Result<Message> {
    Ok(Message { msg_id: Some(id.to_owned()), time_ns, ..message(0)? })
}

fn fill(stream: &Stream, count: u64) -> Result<()> {
    for n in 1..=count {
        stream.append(message(n)?)?;
    }
    Ok(())
}

fn seqs(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.seq).collect()
}

#[test]
fn a_folder_has_one_bus_and_says_who_has_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let error = Bus::open(dir.path(), &BusConfig::default()).expect_err("the folder is taken");
    assert!(matches!(&error, OpenError::Locked { pid, .. } if *pid == Some(std::process::id())), "{error}");
    bus.close()?;
    let again = Bus::open(dir.path(), &BusConfig::default())?;
    assert!(matches!(bus.stream(StreamName::Alerts).append(message(1)?), Err(PublishError::Closed { .. })));
    again.stream(StreamName::Alerts).append(message(1)?)?;
    drop(again);
    Bus::open(dir.path(), &BusConfig::default())?;
    Ok(())
}

#[test]
fn files_are_private() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("deep/data");
    let bus = Bus::open(&data, &BusConfig::default())?;
    fill(bus.stream(StreamName::Alerts), 1)?;
    bus.stream(StreamName::Alerts).consumer("siem", ConsumerConfig::default())?;
    let mut folders = vec![data];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(std::fs::metadata(&folder)?.permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                assert_eq!(entry.metadata()?.permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
                files += 1;
            }
        }
    }
    assert!(files >= 7, "a lock, four streams' notes, a segment, a consumer; found {files}");
    Ok(())
}

#[tokio::test]
async fn an_acknowledged_alert_is_synced_and_publishers_share_a_sync() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    let publishers: Vec<_> = (0..50)
        .map(|n| {
            let (stream, message) = (stream.clone(), message(n).expect("a message"));
            tokio::spawn(async move {
                let ack = stream.publish(message).await.expect("published");
                assert!(stream.synced_seq() >= ack.seq);
                ack.seq
            })
        })
        .collect();
    let mut all = Vec::new();
    for publisher in publishers {
        all.push(tokio::time::timeout(PATIENCE, publisher).await??);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=50).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn events_are_synced_within_their_interval() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Events);
    let ack = stream.publish(message(1)?).await?;
    tokio::time::timeout(PATIENCE, stream.wait_synced(ack.seq)).await??;
    assert_eq!(stream.synced_seq(), 1);
    let waiting = tokio::spawn({
        let stream = stream.clone();
        async move { stream.wait_synced(2).await }
    });
    bus.close()?;
    assert!(matches!(tokio::time::timeout(PATIENCE, waiting).await??, Err(PublishError::Closed { .. })));
    Ok(())
}

#[test]
fn a_message_id_counts_once_also_within_a_batch_and_after_a_restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let window = Duration::from_nanos(1000);
    let config = BusConfig { alerts: StreamConfig { duplicate_window: window, ..StreamConfig::alerts() }, ..BusConfig::default() };
    for restart in 0..2 {
        let bus = Bus::open(dir.path(), &config)?;
        let stream = bus.stream(StreamName::Alerts);
        let acks = stream.append_batch(vec![with_id("a", 1)?, with_id("b", 2)?, with_id("a", 3)?])?;
        let acks: Vec<(u64, bool)> = acks.iter().map(|ack| (ack.seq, ack.duplicate)).collect();
        assert_eq!(acks, [(1, restart > 0), (2, restart > 0), (1, true)]);
        let info = stream.info();
        assert_eq!((info.messages, info.duplicates), (2, if restart > 0 { 3 } else { 1 }));
    }
    let bus = Bus::open(dir.path(), &config)?;
    let late = bus.stream(StreamName::Alerts).append(with_id("a", 1002)?)?;
    assert_eq!((late.seq, late.duplicate), (3, false), "the window has passed");
    Ok(())
}

#[test]
fn too_large_is_refused_before_anything_is_written() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    let large = Message { payload: vec![0; 8 * 1024 * 1024 + 1].into(), ..message(1)? };
    assert!(matches!(stream.append_batch(vec![message(1)?, large.clone()]), Err(PublishError::TooLarge { .. })));
    assert!(matches!(stream.append(with_id(&"x".repeat(70_000), 1)?), Err(PublishError::TooLarge { .. })));
    assert_eq!(stream.info().last_seq, 0);
    let largest = Message { payload: large.payload.slice(1..), ..large };
    assert_eq!(stream.append(largest.clone())?.seq, 1);
    assert_eq!(stream.get(1)?.map(|delivery| delivery.payload.len()), Some(largest.payload.len()));
    Ok(())
}

#[test]
fn a_consumer_goes_on_where_it_was() -> Result<()> {
    let dir = tempfile::tempdir()?;
    {
        let bus = Bus::open(dir.path(), &BusConfig::default())?;
        let stream = bus.stream(StreamName::Alerts);
        fill(stream, 10)?;
        let mut consumer = stream.consumer("siem", ConsumerConfig::default())?;
        assert!(matches!(stream.consumer("siem", ConsumerConfig::default()), Err(OpenError::InUse { .. })));
        assert_eq!(seqs(&consumer.try_fetch(6)?), [1, 2, 3, 4, 5, 6]);
        consumer.ack_through(3);
        consumer.ack(5);
        consumer.term(6);
        assert_eq!(consumer.ack_floor(), 3);
    }
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    let [info] = &stream.consumers()[..] else { return Err("one consumer was expected".into()) };
    assert_eq!((info.name.as_str(), info.ack_floor, info.delivered_seq, info.pending, info.ack_pending), ("siem", 3, 6, 4, 1));
    assert!(!info.open);
    let mut consumer = stream.consumer("siem", ConsumerConfig { deliver: DeliverPolicy::New, ..ConsumerConfig::default() })?;
    let fetched = consumer.try_fetch(100)?;
    assert_eq!(seqs(&fetched), [4, 7, 8, 9, 10]);
    assert_eq!(fetched.iter().map(|delivery| delivery.delivered).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
    assert_eq!((consumer.info().redelivered, consumer.info().terminated), (1, 1));
    Ok(())
}

#[test]
fn a_new_consumer_begins_where_it_is_told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    fill(stream, 5)?;
    let first = |name: &str, deliver| -> Result<Vec<u64>> {
        Ok(seqs(&stream.consumer(name, ConsumerConfig { deliver, ..ConsumerConfig::default() })?.try_fetch(1)?))
    };
    assert_eq!(first("all", DeliverPolicy::All)?, [1]);
    assert_eq!(first("three", DeliverPolicy::BySequence(3))?, [3]);
    assert_eq!(first("zero", DeliverPolicy::BySequence(0))?, [1]);
    assert_eq!(first("new", DeliverPolicy::New)?, [0; 0]);
    stream.append(message(6)?)?;
    assert_eq!(first("new", DeliverPolicy::All)?, [6], "it exists: it goes on where it was");
    for name in ["", "a/b", "..", "a b", &"x".repeat(65)] {
        assert!(matches!(stream.consumer(name, ConsumerConfig::default()), Err(OpenError::InvalidName { .. })), "{name:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_comes_again_after_its_wait() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    fill(stream, 4)?;
    let wait = Duration::from_secs(30);
    let config = ConsumerConfig { ack_wait: wait, max_deliver: Some(2), max_ack_pending: 3, ..ConsumerConfig::default() };
    let mut consumer = stream.consumer("siem", config)?;
    assert_eq!(seqs(&consumer.try_fetch(10)?), [1, 2, 3], "no more than may be unacknowledged");
    assert!(consumer.try_fetch(10)?.is_empty());
    consumer.nak(2, Some(wait / 3));
    let again = consumer.fetch(10).await?;
    assert_eq!((seqs(&again), again[0].delivered), (vec![2], 2));
    tokio::time::advance(wait / 3).await;
    consumer.in_progress(3);
    assert_eq!(seqs(&consumer.fetch(10).await?), [1], "after its ack wait");
    consumer.ack(1);
    assert_eq!(seqs(&consumer.fetch(10).await?), [4], "there is room again");
    consumer.ack(4);
    // 2 was delivered as often as it may be: it is given up. 3 comes.
    assert_eq!(seqs(&consumer.fetch(10).await?), [3]);
    consumer.ack(3);
    let info = consumer.info();
    assert_eq!((info.terminated, info.redelivered, info.ack_pending, info.ack_floor), (1, 3, 0, 4));
    Ok(())
}

#[tokio::test]
async fn a_waiting_consumer_wakes_for_a_message_and_for_the_end() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Events).clone();
    let mut consumer = stream.consumer("detectors", ConsumerConfig::default())?;
    let waiting = tokio::spawn(async move {
        let fetched = consumer.fetch(10).await;
        (consumer, fetched)
    });
    tokio::task::yield_now().await;
    stream.append(message(1)?)?;
    let (mut consumer, fetched) = tokio::time::timeout(PATIENCE, waiting).await??;
    assert_eq!(seqs(&fetched?), [1]);
    let waiting = tokio::spawn(async move { consumer.fetch(10).await });
    tokio::task::yield_now().await;
    bus.close()?;
    assert!(matches!(tokio::time::timeout(PATIENCE, waiting).await??, Err(ReadError::Closed { .. })));
    Ok(())
}

#[test]
fn retention_by_bytes_takes_whole_segments_and_counts_what_nobody_saw() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let alerts = StreamConfig { segment_bytes: 4096, max_bytes: 16 * 1024, ..StreamConfig::alerts() };
    let bus = Bus::open(dir.path(), &BusConfig { alerts, ..BusConfig::default() })?;
    let stream = bus.stream(StreamName::Alerts);
    let mut consumer = stream.consumer("slow", ConsumerConfig::default())?;
    fill(stream, 2)?;
    assert_eq!(consumer.try_fetch(1)?.len(), 1);
    fill(stream, 2_000)?;
    stream.enforce_retention(0)?;
    let info = stream.info();
    assert!(info.bytes <= 16 * 1024 && info.first_seq > 1_000, "{info:?}");
    assert_eq!((info.messages, info.deleted_messages), (info.last_seq + 1 - info.first_seq, info.first_seq - 1));
    assert_eq!(stream.get(info.first_seq - 1)?, None);
    assert_eq!(consumer.try_fetch(1)?.first().map(|delivery| delivery.seq), Some(info.first_seq));
    assert_eq!(consumer.info().fell_off_retention, info.first_seq - 1);
    Ok(())
}

#[test]
fn retention_by_age_also_empties_a_quiet_stream_and_sequences_go_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let now_ns = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos())?;
    let days = |n: i64| now_ns + n * 24 * 3600 * 1_000_000_000;
    {
        let bus = Bus::open(dir.path(), &BusConfig::default())?;
        let stream = bus.stream(StreamName::Alerts);
        for n in 0..3 {
            stream.append(Message { time_ns: now_ns + n, ..message(1)? })?;
        }
        stream.enforce_retention(days(29))?;
        assert_eq!(stream.info().messages, 3, "30 days are not over");
        stream.enforce_retention(days(31))?;
        let info = stream.info();
        assert_eq!(
            (info.messages, info.first_seq, info.last_seq, info.segments),
            (0, 4, 3, 1),
            "the last file stays: it tells how far the sequences came"
        );
    }
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    assert_eq!(bus.stream(StreamName::Alerts).append(message(4)?)?.seq, 4);
    Ok(())
}

#[test]
fn old_events_that_are_replayed_are_kept_like_new_ones() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Events);
    fill(stream, 3)?;
    let now_ns = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos())?;
    stream.enforce_retention(now_ns)?;
    assert_eq!(stream.info().messages, 3, "their time is 1970, they were written just now");
    Ok(())
}

#[test]
fn damaged_consumer_state_is_named_and_moving_it_away_begins_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    {
        let bus = Bus::open(dir.path(), &BusConfig::default())?;
        let stream = bus.stream(StreamName::Alerts);
        fill(stream, 5)?;
        let mut consumer = stream.consumer("siem", ConsumerConfig::default())?;
        consumer.ack_through(4);
        consumer.flush_acks()?;
    }
    let folder = dir.path().join("consumers/ALERTS");
    let (synced, fast) = (folder.join("siem.json"), folder.join("siem.fast"));
    assert!(fast.exists(), "an unsynced flush was made");
    let old = std::fs::read(&fast)?;
    std::fs::write(&synced, "garbage")?;
    std::fs::write(&fast, "garbage")?;
    let error = Bus::open(dir.path(), &BusConfig::default()).expect_err("the state is damaged");
    assert!(matches!(&error, OpenError::Damaged { path, .. } if *path == synced), "{error}");
    // The operator does as the error says; what lies beside it must not count for the consumer that begins anew.
    std::fs::remove_file(&synced)?;
    std::fs::write(&fast, old)?;
    for _ in 0..2 {
        let bus = Bus::open(dir.path(), &BusConfig::default())?;
        let mut consumer = bus.stream(StreamName::Alerts).consumer("siem", ConsumerConfig::default())?;
        assert_eq!(seqs(&consumer.try_fetch(10)?), [1, 2, 3, 4, 5]);
    }
    Ok(())
}

#[test]
fn publishers_consumers_and_readers_run_side_by_side() -> Result<()> {
    const PUBLISHERS: u64 = 3;
    const BATCHES: u64 = 400;
    let dir = tempfile::tempdir()?;
    let events = StreamConfig { segment_bytes: 8 * 1024, ..StreamConfig::events() };
    let bus = Bus::open(dir.path(), &BusConfig { events, ..BusConfig::default() })?;
    let stream = bus.stream(StreamName::Events);
    let total = PUBLISHERS * BATCHES * 3;
    let by_publisher = |payload: &[u8], last: &mut [u64; PUBLISHERS as usize]| {
        let text = std::str::from_utf8(payload).expect("text");
        let (publisher, n) = text.split_once(' ').expect("two numbers");
        let (publisher, n): (usize, u64) = (publisher.parse().expect("a number"), n.parse().expect("a number"));
        assert_eq!(last[publisher] + 1, n, "messages of publisher {publisher} are out of order");
        last[publisher] = n;
    };
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                for n in 0..BATCHES {
                    let messages =
                        (1..=3).map(|k| Message { payload: format!("{publisher} {}", n * 3 + k).into(), ..message(1).expect("a message") });
                    let acks = stream.append_batch(messages.collect()).expect("appended");
                    assert!(acks.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "a batch is not torn apart");
                }
            });
        }
        scope.spawn(|| {
            let mut consumer = stream.consumer("side", ConsumerConfig::default()).expect("a consumer");
            let (mut seen, mut last) = (0, [0; PUBLISHERS as usize]);
            while seen < total {
                for delivery in consumer.try_fetch(10).expect("readable") {
                    seen += 1;
                    assert_eq!(delivery.seq, seen);
                    by_publisher(&delivery.payload, &mut last);
                    consumer.ack(delivery.seq);
                }
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            let mut log = LogReader::open(dir.path(), StreamName::Events).expect("a stream");
            let (mut seen, mut last) = (0, [0; PUBLISHERS as usize]);
            while seen < total {
                match log.next().expect("readable") {
                    Some(record) => {
                        seen += 1;
                        assert_eq!(record.seq, seen);
                        by_publisher(&record.payload, &mut last);
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    });
    assert!(stream.info().segments > 5);
    Ok(())
}

#[test]
fn what_came_within_the_last_day_is_told_apart() -> Result<()> {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let dir = tempfile::tempdir()?;
    let mut config = BusConfig::default();
    // A message fills a segment, so that each has a segment of its own.
    config.alerts.segment_bytes = 1;
    let bus = Bus::open(dir.path(), &config)?;
    let stream = bus.stream(StreamName::Alerts);
    assert_eq!((stream.info().recent_bytes, stream.info().recent_s), (0, 0));
    for hour in [0, 30, 40, 50] {
        stream.append(Message { time_ns: hour * HOUR_NS, ..message(1)? })?;
    }
    let info = stream.info();
    assert_eq!(info.recent_s, 20 * 3600, "from hour 30 to hour 50");
    assert!(info.recent_bytes > 0 && info.recent_bytes < info.bytes, "{info:?}");
    stream.append(Message { time_ns: 100 * HOUR_NS, ..message(1)? })?;
    assert_eq!(stream.info().recent_s, 0, "the newest stands alone");
    Ok(())
}
