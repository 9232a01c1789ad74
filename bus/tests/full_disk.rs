//! The kernel itself refuses to write: a file size limit cuts writes short in the middle of a batch, as a full disk does.
//!
//! One test in a process of its own, since the limit holds for all of it.

use std::error::Error;

use bartizan_bus::{Bus, BusConfig, LogReader, Message, PublishError, StreamName};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

const LIMIT: u64 = 50_000;

fn batch(n: usize) -> Result<Vec<Message>, Box<dyn Error>> {
    let message = |size| Ok(Message { subject: "sec.alerts.high.test".parse()?, msg_id: None, time_ns: 1, payload: vec![7; size].into() });
    (0..n).map(|n| message(300 + n)).collect()
}

#[test]
fn writes_cut_short_leave_no_trace() -> Result<(), Box<dyn Error>> {
    // SAFETY: ignoring a signal installs no handler that could run.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    let dir = tempfile::tempdir()?;
    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let stream = bus.stream(StreamName::Alerts);
    setrlimit(Resource::RLIMIT_FSIZE, LIMIT, hard)?;
    let (mut accepted, mut refused) = (0, 0);
    while refused < 3 {
        match stream.append_batch(batch(7)?) {
            Ok(acks) => accepted += acks.len() as u64,
            Err(PublishError::Full { .. }) => refused += 1,
            Err(other) => return Err(other.into()),
        }
        assert!(accepted * 300 < 4 * LIMIT, "the limit does not hold");
    }
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard)?;
    assert!(accepted > 0);
    let failing = stream.info();
    assert!(failing.write_failing && failing.seconds_since_write_error.is_some(), "{failing:?}");
    let next = stream.append_batch(batch(1)?)?;
    let next = next.first().map(|ack| ack.seq).ok_or("no acknowledgement")?;
    assert!(next > accepted, "sequences of what was refused are not used again");
    let info = stream.info();
    assert_eq!((info.write_errors, info.messages, info.failed), (3, accepted + 1, None));
    assert!(!info.write_failing && info.seconds_since_write_error.is_some());
    bus.close()?;

    let bus = Bus::open(dir.path(), &BusConfig::default())?;
    let info = bus.stream(StreamName::Alerts).info();
    assert_eq!((info.messages, info.truncated_at_open, info.skipped_sequences_at_open), (accepted + 1, 0, 0));
    let mut log = LogReader::open(dir.path(), StreamName::Alerts)?;
    // After a refusal the log goes on in another segment, for which the limit counts anew.
    let mut seqs = Vec::new();
    while let Some(record) = log.next()? {
        seqs.push(record.seq);
    }
    assert_eq!((seqs.len() as u64, seqs.last()), (accepted + 1, Some(&next)));
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1 || pair[1] == pair[0] + 8), "each refusal costs the sequences of its batch");
    assert_eq!(log.skipped(), 0, "what was refused is not missing");
    Ok(())
}
