//! [`LogReader`] beside a writer, and over files that are written in arbitrary pieces, cut and damaged.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use bartizan_bus::{Bus, BusConfig, LogReader, Message, ReadError, Record, StreamConfig, StreamName, SyncPolicy};
use proptest::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn config(segment_bytes: u64) -> BusConfig {
    let sync = SyncPolicy::Interval(std::time::Duration::from_secs(3600));
    let events = StreamConfig { segment_bytes, sync, compression: None, ..StreamConfig::events() };
    BusConfig { events, ..BusConfig::default() }
}

fn message(n: u64, size: usize) -> Result<Message> {
    Ok(Message { subject: "sec.events.test".parse()?, msg_id: None, time_ns: n as i64 * 1000, payload: vec![n as u8; size].into() })
}

/// A stream of batches of these sizes, one message of `size` bytes each.
fn write_stream(dir: &Path, segment_bytes: u64, batches: &[usize], size: usize) -> Result<u64> {
    let bus = Bus::open(dir, &config(segment_bytes))?;
    let mut n = 0;
    for batch in batches {
        let messages: Result<Vec<Message>> = (n..n + *batch as u64).map(|n| message(n + 1, size)).collect();
        bus.stream(StreamName::Events).append_batch(messages?)?;
        n += *batch as u64;
    }
    bus.close()?;
    Ok(n)
}

fn read_to_end(log: &mut LogReader) -> std::result::Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    while let Some(record) = log.next()? {
        records.push(record);
    }
    Ok(records)
}

fn segments(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir.join("streams/EVENTS"))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    Ok(paths)
}

#[test]
fn a_missing_stream_is_said_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let error = LogReader::open(dir.path(), StreamName::Alerts).expect_err("there is nothing");
    assert!(matches!(&error, ReadError::NoStream { .. }), "{error}");
    assert!(error.to_string().contains("streams/ALERTS"), "{error}");
    Ok(())
}

#[test]
fn follows_a_writer_across_segments_and_retention() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = config(2048);
    config.events.max_bytes = 16 * 1024;
    let bus = Bus::open(dir.path(), &config)?;
    let stream = bus.stream(StreamName::Events);
    let mut log = LogReader::open(dir.path(), StreamName::Events)?;
    assert_eq!(log.next()?, None);
    for n in 1..=60 {
        stream.append(message(n, 300)?)?;
        let record = log.next()?.ok_or("the reader does not follow")?;
        assert_eq!((record.seq, record.payload[0]), (n, n as u8));
        assert_eq!(log.next()?, None);
    }
    // While nobody reads, retention takes what the reader has not seen; it says so and goes on.
    for n in 61..=300 {
        stream.append(message(n, 300)?)?;
    }
    stream.enforce_retention(0)?;
    let first = stream.info().first_seq;
    assert!(first > 100, "retention left the stream from {first}");
    let rest = read_to_end(&mut log)?;
    let rest: Vec<u64> = rest.iter().map(|record| record.seq).collect();
    assert_eq!(rest.last(), Some(&300));
    let unseen = 240 - rest.len() as u64;
    assert_eq!(log.skipped(), unseen, "what was not read was counted");
    assert!(unseen > 0);
    Ok(())
}

#[test]
fn seeks_by_sequence_time_and_to_the_end() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &config(4096))?;
    let stream = bus.stream(StreamName::Events);
    for n in 1..=500 {
        // Ten seconds apart: the reader passes over whole segments.
        stream.append(Message { time_ns: n * 10_000_000_000, ..message(n as u64, 100)? })?;
    }
    assert!(stream.info().segments > 10);
    let mut log = LogReader::open(dir.path(), StreamName::Events)?;
    for seq in [1, 250, 500, 33] {
        log.seek_seq(seq)?;
        assert_eq!(log.next()?.map(|record| record.seq), Some(seq));
    }
    log.seek_seq(501)?;
    assert_eq!(log.next()?, None);
    for (time_s, seq) in [(0, 1), (10, 1), (11, 2), (2_500, 250), (2_501, 251), (5_000, 500)] {
        log.seek_time(time_s * 1_000_000_000)?;
        assert_eq!(log.next()?.map(|record| record.seq), Some(seq), "from {time_s} s");
    }
    log.seek_time(i64::MAX)?;
    assert_eq!(log.next()?, None);
    log.seek_end()?;
    assert_eq!(log.next()?, None);
    stream.append(message(501, 1)?)?;
    assert_eq!(log.next()?.map(|record| record.seq), Some(501));
    assert_eq!(log.skipped(), 0);
    Ok(())
}

#[test]
fn damage_is_named_once_and_passed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let count = write_stream(dir.path(), 2048, &[1; 40], 200)?;
    let paths = segments(dir.path())?;
    assert!(paths.len() > 4);
    let mut bytes = std::fs::read(&paths[1])?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&paths[1], bytes)?;

    // A reader in another process...
    let mut log = LogReader::open(dir.path(), StreamName::Events)?;
    let (mut seen, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match log.next() {
            Ok(Some(record)) => seen.push(record.seq),
            Ok(None) => break,
            Err(ReadError::Damaged { path, offset, missing, .. }) => damaged.push((path, offset, missing)),
            Err(other) => return Err(other.into()),
        }
    }
    let [(path, offset, missing)] = &damaged[..] else { return Err(format!("reported: {damaged:?}").into()) };
    assert_eq!(path, &paths[1]);
    assert!((64..=middle as u64).contains(offset));
    assert_eq!((seen.len() as u64 + missing, log.skipped(), seen.last()), (count, *missing, Some(&count)));

    // ... and a consumer in this one, before and after the damage is known at start.
    for round in 0..2 {
        let bus = Bus::open(dir.path(), &config(2048))?;
        let mut consumer = bus.stream(StreamName::Events).consumer(&format!("c{round}"), Default::default())?;
        let (mut fetched, mut errors) = (Vec::new(), 0);
        loop {
            match consumer.try_fetch(7) {
                Ok(deliveries) if deliveries.is_empty() => break,
                Ok(deliveries) => fetched.extend(deliveries.into_iter().map(|delivery| delivery.seq)),
                Err(ReadError::Damaged { path, .. }) => {
                    assert_eq!(path, paths[1]);
                    errors += 1;
                }
                Err(other) => return Err(other.into()),
            }
        }
        assert_eq!((fetched, errors), (seen.clone(), 1));
        assert_eq!(consumer.info().unreadable, *missing);
        assert_eq!(bus.stream(StreamName::Events).info().unreadable_messages, *missing);
        drop(consumer);
        bus.close()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(6), ..ProptestConfig::default() })]

    /// A segment that appears in arbitrary pieces: whole batches come out as soon as they are whole, and nothing else ever.
    #[test]
    fn arbitrary_pieces_give_whole_batches(batches in prop::collection::vec(1usize..6, 1..12), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30), size in 0usize..400) {
        let run = || -> Result<()> {
            let (source, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
            write_stream(source.path(), 1 << 20, &batches, size)?;
            let [path] = &segments(source.path())?[..] else { return Err("one segment was expected".into()) };
            let bytes = std::fs::read(path)?;
            let record = 32 + "sec.events.test".len() + size;
            let mut ends: Vec<(usize, u64)> = Vec::new();
            for batch in &batches {
                let (at, seq) = ends.last().copied().unwrap_or((64, 0));
                ends.push((at + batch * record, seq + *batch as u64));
            }
            assert_eq!(ends.last().map(|(end, _)| *end), Some(bytes.len()));

            let folder = copy.path().join("streams/EVENTS");
            std::fs::create_dir_all(&folder)?;
            let mut file = std::fs::File::create(folder.join(path.file_name().ok_or("no name")?))?;
            let mut log = LogReader::open(copy.path(), StreamName::Events)?;
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            let (mut written, mut seen) = (0, 0);
            for cut in cuts {
                file.write_all(&bytes[written..cut])?;
                written = cut;
                for record in read_to_end(&mut log)? {
                    seen += 1;
                    assert_eq!((record.seq, record.payload.len()), (seen, size));
                }
                let whole = ends.iter().filter(|(end, _)| *end <= cut).map(|(_, seq)| *seq).max().unwrap_or(0);
                assert_eq!(seen, whole);
            }
            Ok(())
        };
        run().map_err(|error| TestCaseError::fail(error.to_string()))?;
    }

    /// Bit flips and cuts anywhere in the files: no panic, no record that was not written, and the bus opens all the same.
    #[test]
    fn damaged_files_never_give_wrong_records(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4), cut in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>()))) {
        let run = || -> Result<()> {
            let dir = tempfile::tempdir()?;
            let count = write_stream(dir.path(), 2048, &[3, 1, 5, 2, 4, 1, 1, 6, 2, 3], 150)?;
            let paths = segments(dir.path())?;
            for (file, bit) in &flips {
                let path = &paths[file.index(paths.len())];
                let mut bytes = std::fs::read(path)?;
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(path, bytes)?;
            }
            if let Some((file, at)) = &cut {
                let path = &paths[file.index(paths.len())];
                let bytes = std::fs::read(path)?;
                std::fs::write(path, &bytes[..at.index(bytes.len() + 1)])?;
            }
            let check = |records: &[(u64, usize, u8)]| {
                assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0));
                assert!(records.iter().all(|(seq, len, first)| (1..=count).contains(seq) && *len == 150 && *first == *seq as u8));
            };
            // An error per damaged place, so their number is bounded; more would be a reader that does not get on.
            let mut log = LogReader::open(dir.path(), StreamName::Events)?;
            let (mut seen, mut errors) = (Vec::new(), 0);
            loop {
                match log.next() {
                    Ok(Some(record)) => seen.push((record.seq, record.payload.len(), record.payload[0])),
                    Ok(None) => break,
                    Err(ReadError::Damaged { .. }) => errors += 1,
                    Err(other) => return Err(other.into()),
                }
                assert!(errors <= 10, "the reader stands still");
            }
            check(&seen);

            let bus = Bus::open(dir.path(), &config(2048))?;
            let mut consumer = bus.stream(StreamName::Events).consumer("c", Default::default())?;
            let (mut fetched, mut errors) = (Vec::new(), 0);
            loop {
                match consumer.try_fetch(4) {
                    Ok(deliveries) if deliveries.is_empty() => break,
                    Ok(deliveries) => fetched.extend(deliveries.iter().map(|d| (d.seq, d.payload.len(), d.payload[0]))),
                    Err(ReadError::Damaged { .. }) => errors += 1,
                    Err(other) => return Err(other.into()),
                }
                assert!(errors <= 10, "the consumer stands still");
            }
            check(&fetched);
            // New messages get sequences that none of the old ones had, and are read.
            let ack = bus.stream(StreamName::Events).append(message(77, 10)?)?;
            assert!(ack.seq > count || fetched.len() as u64 == ack.seq - 1, "sequence {} may have been used", ack.seq);
            assert_eq!(consumer.try_fetch(1)?.first().map(|delivery| delivery.seq), Some(ack.seq));
            Ok(())
        };
        run().map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
}
