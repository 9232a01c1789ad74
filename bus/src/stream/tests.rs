//! What a stream promises when the disk does not play along. What users see in good weather is in `tests/streams.rs`.

use std::fs::File;
use std::time::Duration;

use crate::log::segment::Form;
use crate::log::{segment, stream_dir};
use crate::{Bus, BusConfig, Message, PublishError, StreamConfig, StreamName, SyncPolicy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn message(size: usize) -> Result<Message> {
    Ok(Message { subject: "sec.alerts.high.test".parse()?, msg_id: None, time_ns: 1, payload: vec![7; size].into() })
}

fn small_segments() -> BusConfig {
    BusConfig { alerts: StreamConfig { segment_bytes: 1024, compression: None, ..StreamConfig::alerts() }, ..BusConfig::default() }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_accepted_and_everybody_is_told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let events = StreamConfig { sync: SyncPolicy::Interval(Duration::from_secs(3600)), ..StreamConfig::events() };
    let bus = Bus::open(dir.path(), &BusConfig { events, ..BusConfig::default() })?;
    let stream = bus.stream(StreamName::Events).clone();
    let seq = stream.append(message(10)?)?.seq;
    let waiter = tokio::spawn({
        let stream = stream.clone();
        async move { stream.wait_synced(seq).await }
    });
    // A pipe cannot be synced: fdatasync answers EINVAL.
    let (_reader, pipe) = nix::unistd::pipe()?;
    stream.inner.log.replace_active(std::fs::File::from(pipe));
    assert!(stream.inner.log.sync_now().is_err());
    assert!(matches!(waiter.await?, Err(PublishError::Io { action: "sync", .. })));
    let error = stream.append(message(10)?).expect_err("the stream has failed");
    assert!(error.to_string().contains(".seg"), "{error}");
    let info = stream.info();
    assert!(info.failed.is_some_and(|why| why.contains("cannot sync")), "the info says why");
    assert_eq!((info.last_seq, info.synced_seq), (1, 0));
    assert!(bus.close().is_err(), "closing cannot promise what the sync did not");
    Ok(())
}

#[test]
fn damage_found_while_reading_costs_no_more_than_its_surroundings() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Events);
    // More than the ring holds, so that the oldest are read from the file.
    let count = (crate::log::TAIL_BYTES / 10_000 + 500) as u64;
    for _ in 0..count {
        stream.append(message(10_000)?)?;
    }
    let path = stream_dir(dir.path(), "EVENTS").join(segment::file_name(1, Form::Raw));
    use std::os::unix::fs::FileExt;
    File::options().write(true).open(path)?.write_all_at(&[0xff; 8], 64 + 12 * 10_052 + 5_000)?;
    let mut consumer = stream.consumer("c", crate::ConsumerConfig { max_ack_pending: usize::MAX, ..Default::default() })?;
    let (mut fetched, mut errors) = (0, 0);
    loop {
        match consumer.try_fetch(100) {
            Ok(deliveries) if deliveries.is_empty() => break,
            Ok(deliveries) => fetched += deliveries.len() as u64,
            Err(error) => {
                errors += 1;
                assert!(error.to_string().contains(&format!("byte {}", 64 + 12 * 10_052)), "{error}");
            }
        }
    }
    let info = consumer.info();
    assert_eq!((errors, fetched, info.unreadable), (1, count - 1, 1), "where each message is, is known: damage costs what it hit");
    assert_eq!(stream.info().unreadable_messages, info.unreadable);
    assert!(stream.get(13).is_err());
    assert_eq!(stream.get(12)?.map(|delivery| delivery.seq), Some(12));
    drop(consumer);
    bus.close()?;
    let again = Bus::open(dir.path(), &BusConfig::default())?;
    assert!(again.stream(StreamName::Events).info().unreadable_messages > 0, "damage that was found is known after a restart");
    Ok(())
}

#[test]
fn sequences_survive_the_loss_of_every_segment() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open_at_boot(dir.path(), &small_segments(), "one")?;
    for _ in 0..20 {
        bus.stream(StreamName::Alerts).append(message(200)?)?;
    }
    bus.clone().crash();
    drop(bus);
    let folder = stream_dir(dir.path(), "ALERTS");
    for first_seq in segment::list(&folder)? {
        std::fs::remove_file(folder.join(segment::file_name(first_seq, Form::Raw)))?;
    }
    let bus = Bus::open_at_boot(dir.path(), &small_segments(), "two")?;
    let info = bus.stream(StreamName::Alerts).info();
    assert_eq!((info.messages, info.skipped_sequences_at_open), (0, info.last_seq));
    assert!(bus.stream(StreamName::Alerts).append(message(1)?)?.seq > 20);
    Ok(())
}

#[test]
fn a_burst_beyond_the_reservation_reserves_before_it_hands_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open_at_boot(dir.path(), &BusConfig::default(), "one")?;
    let stream = bus.stream(StreamName::Alerts);
    let batch: Result<Vec<Message>> = (0..10_000).map(|_| message(1)).collect();
    let last = stream.append_batch(batch?)?.last().map(|ack| ack.seq);
    assert_eq!(last, Some(10_000));
    let stored = crate::log::meta::Meta::load(&crate::log::vfs::Disk, &stream_dir(dir.path(), "ALERTS"), "ALERTS")?;
    assert!(stored.is_some_and(|meta| meta.reserved >= 10_000));
    Ok(())
}
