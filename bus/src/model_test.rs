//! The whole bus against a model in memory: random appends, deliveries, acknowledgements, retention, clean restarts, kills and
//! power cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use crate::log::{LogReader, segment, stream_dir};
use crate::{Bus, BusConfig, Consumer, ConsumerConfig, Message, PubAck, StreamConfig, StreamName, SyncPolicy};

const STREAM: StreamName = StreamName::Events;
/// Far from any real clock's age limit, so that only the sizes below decide what retention deletes.
const BASE_NS: i64 = 4_000_000_000_000_000_000;

#[derive(Debug, Clone)]
enum Op {
    Append { messages: Vec<(u8, u16)> },
    Fetch { max: usize },
    Ack { pick: prop::sample::Index },
    AckThrough { pick: prop::sample::Index },
    Nak { pick: prop::sample::Index },
    Term { pick: prop::sample::Index },
    Flush,
    WaitSynced,
    Retain,
    ReopenConsumer,
    Close,
    Kill { torn: usize },
    PowerCut { keep: prop::sample::Index, garbage: Vec<u8> },
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => prop::collection::vec((0u8..30, 0u16..900), 1..12).prop_map(|messages| Op::Append { messages }),
        6 => (1usize..20).prop_map(|max| Op::Fetch { max }),
        4 => index().prop_map(|pick| Op::Ack { pick }),
        2 => index().prop_map(|pick| Op::AckThrough { pick }),
        2 => index().prop_map(|pick| Op::Nak { pick }),
        1 => index().prop_map(|pick| Op::Term { pick }),
        2 => Just(Op::Flush),
        2 => Just(Op::WaitSynced),
        1 => Just(Op::Retain),
        1 => Just(Op::ReopenConsumer),
        1 => Just(Op::Close),
        1 => (0usize..200).prop_map(|torn| Op::Kill { torn }),
        2 => (index(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(keep, garbage)| Op::PowerCut { keep, garbage }),
    ]
}

fn config(max_bytes: u64) -> BusConfig {
    let events = StreamConfig {
        // The power cuts here are made by hand in raw segments; `log/tests.rs` seals.
        compression: None,
        max_bytes,
        segment_bytes: 4096,
        // Long, so that the tests decide when something is synced.
        sync: SyncPolicy::Interval(Duration::from_secs(3600)),
        duplicate_window: Duration::from_secs(3600),
        ..StreamConfig::events()
    };
    BusConfig { events, ..BusConfig::default() }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    id: Option<String>,
    payload: Vec<u8>,
}

/// What must be true.
#[derive(Debug, Default)]
struct Model {
    /// Messages that were appended and not lost to a power cut.
    stored: BTreeMap<u64, Stored>,
    /// Every sequence that was ever handed out.
    handed_out: BTreeSet<u64>,
    ever_acked: BTreeSet<u64>,
    /// Pending or not: what this consumer was given in its present life.
    delivered: BTreeSet<u64>,
    pending: BTreeMap<u64, ()>,
    appended: u64,
}

struct World<'a> {
    dir: &'a Path,
    config: BusConfig,
    boot: u32,
    bus: Option<Bus>,
    consumer: Option<Consumer>,
    model: Model,
}

type Check = Result<(), TestCaseError>;

fn fail(what: &str) -> impl Fn(&dyn std::fmt::Display) -> TestCaseError + '_ {
    move |error| TestCaseError::fail(format!("{what}: {error}"))
}

impl World<'_> {
    fn bus(&self) -> &Bus {
        self.bus.as_ref().expect("the bus is open between operations")
    }

    fn consumer(&mut self) -> &mut Consumer {
        self.consumer.as_mut().expect("the consumer is open between operations")
    }

    fn open(&mut self) -> Check {
        let bus = Bus::open_at_boot(self.dir, &self.config, &self.boot.to_string()).map_err(|e| fail("open")(&e))?;
        let config = ConsumerConfig { max_ack_pending: 50, ..ConsumerConfig::default() };
        self.consumer = Some(bus.stream(STREAM).consumer("model", config).map_err(|e| fail("consumer")(&e))?);
        self.bus = Some(bus);
        self.model.delivered.clear();
        self.model.pending.clear();
        Ok(())
    }

    fn append(&mut self, messages: &[(u8, u16)]) -> Check {
        let batch: Vec<Message> = messages
            .iter()
            .map(|(id, size)| {
                self.model.appended += 1;
                let mut payload = self.model.appended.to_le_bytes().to_vec();
                payload.resize(8 + usize::from(*size), *id);
                Message {
                    subject: "sec.events.test".parse().expect("a subject"),
                    // Every third message has an id; ids repeat.
                    msg_id: (id % 3 == 0).then(|| format!("id-{id}")),
                    time_ns: BASE_NS + self.model.appended as i64,
                    payload: payload.into(),
                }
            })
            .collect();
        let acks = self.bus().stream(STREAM).append_batch(batch.clone()).map_err(|e| fail("append")(&e))?;
        prop_assert_eq!(acks.len(), batch.len());
        for (Message { msg_id, payload, .. }, PubAck { seq, duplicate }) in batch.into_iter().zip(acks) {
            if duplicate {
                // The original may have been deleted by retention since; where it is still there it has this id.
                if let Some(original) = self.model.stored.get(&seq) {
                    prop_assert_eq!(&original.id, &msg_id);
                }
                continue;
            }
            let known = msg_id.is_some() && self.model.stored.values().any(|stored| stored.id == msg_id);
            prop_assert!(!known, "message id {:?} was appended twice", msg_id);
            prop_assert!(self.model.handed_out.insert(seq), "sequence {} was handed out twice", seq);
            prop_assert_eq!(self.model.handed_out.last(), Some(&seq));
            self.model.stored.insert(seq, Stored { id: msg_id, payload: payload.to_vec() });
        }
        Ok(())
    }

    fn fetch(&mut self, max: usize) -> Check {
        let first = self.bus().stream(STREAM).info().first_seq;
        let fetched = self.consumer().try_fetch(max).map_err(|e| fail("fetch")(&e))?;
        prop_assert!(fetched.len() <= max);
        for delivery in fetched {
            let Some(stored) = self.model.stored.get(&delivery.seq) else {
                return Err(TestCaseError::fail(format!("sequence {} was delivered and never stored", delivery.seq)));
            };
            prop_assert!(delivery.seq >= first);
            prop_assert_eq!(&stored.payload[..], &delivery.payload[..]);
            prop_assert_eq!(&stored.id, &delivery.msg_id);
            self.model.delivered.insert(delivery.seq);
            self.model.pending.insert(delivery.seq, ());
        }
        prop_assert!(self.consumer().info().ack_pending <= 50);
        Ok(())
    }

    fn picked(&self, pick: prop::sample::Index) -> Option<u64> {
        let pending: Vec<u64> = self.model.pending.keys().copied().collect();
        (!pending.is_empty()).then(|| *pick.get(&pending))
    }

    fn acked(&mut self, seq: u64) {
        self.model.pending.remove(&seq);
        self.model.ever_acked.insert(seq);
    }

    /// Ends the bus without closing it; what is in the page cache stays.
    fn crash(&mut self) {
        let Some(bus) = self.bus.take() else { return };
        bus.clone().crash();
        // The handle first: dropping it writes the cursor, as a kill would not have.
        let cell_drop = self.consumer.take();
        bus.close().expect("closing after a crash does nothing");
        drop(cell_drop);
        drop(bus);
    }

    /// Bytes of the last segment that hold messages up to and with `seq`.
    fn power_cut(&mut self, keep: prop::sample::Index, garbage: &[u8]) -> Check {
        let synced = self.bus().stream(STREAM).synced_seq();
        self.crash();
        let dir = stream_dir(self.dir, STREAM.as_str());
        let Some(&first_seq) = segment::list(&dir).map_err(|e| fail("list")(&e))?.last() else {
            self.boot += 1;
            return self.open();
        };
        let path = dir.join(segment::file_name(first_seq, segment::Form::Raw));
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| fail("open segment")(&e))?;
        let len = file.metadata().map_err(|e| fail("metadata")(&e))?.len();
        let safe = crate::log::end_of(&file, first_seq, synced);
        prop_assert!(safe <= len);
        let cut = safe + keep.index((len - safe) as usize + 1) as u64;
        file.set_len(cut).map_err(|e| fail("cut")(&e))?;
        {
            use std::os::unix::fs::FileExt;
            file.write_all_at(garbage, cut).map_err(|e| fail("garbage")(&e))?;
        }
        self.boot += 1;
        self.open()?;
        let info = self.bus().stream(STREAM).info();
        // What is left is a prefix, and it has all that was synced.
        let left: BTreeMap<u64, Stored> = self.read_all()?;
        let survived = left.keys().last().copied().unwrap_or(0);
        let lost: Vec<u64> = self.model.stored.range(survived + 1..).map(|(seq, _)| *seq).filter(|seq| *seq >= first_seq).collect();
        for seq in lost {
            prop_assert!(seq > synced, "sequence {} was synced (up to {}) and lost", seq, synced);
            self.model.stored.remove(&seq);
        }
        if cut < len || !garbage.is_empty() {
            prop_assert!(info.last_seq >= self.model.handed_out.last().copied().unwrap_or(0));
        }
        Ok(())
    }

    /// Everything in the stream, as another process sees it.
    fn read_all(&self) -> Result<BTreeMap<u64, Stored>, TestCaseError> {
        let mut reader = LogReader::open(self.dir, STREAM).map_err(|e| fail("reader")(&e))?;
        let mut all = BTreeMap::new();
        while let Some(record) = reader.next().map_err(|e| fail("read")(&e))? {
            all.insert(record.seq, Stored { id: record.msg_id, payload: record.payload.to_vec() });
        }
        prop_assert_eq!(reader.skipped(), 0);
        Ok(all)
    }

    fn step(&mut self, op: Op) -> Check {
        match op {
            Op::Append { messages } => self.append(&messages)?,
            Op::Fetch { max } => self.fetch(max)?,
            Op::Ack { pick } => {
                if let Some(seq) = self.picked(pick) {
                    self.consumer().ack(seq);
                    self.acked(seq);
                }
            }
            Op::AckThrough { pick } => {
                if let Some(seq) = self.picked(pick) {
                    self.consumer().ack_through(seq);
                    let through: Vec<u64> = self.model.pending.range(..=seq).map(|(seq, ())| *seq).collect();
                    through.into_iter().for_each(|seq| self.acked(seq));
                }
            }
            Op::Nak { pick } => {
                if let Some(seq) = self.picked(pick) {
                    self.consumer().nak(seq, None);
                }
            }
            Op::Term { pick } => {
                if let Some(seq) = self.picked(pick) {
                    self.consumer().term(seq);
                    self.acked(seq);
                }
            }
            Op::Flush => self.consumer().flush_acks().map_err(|e| fail("flush")(&e))?,
            Op::WaitSynced => self.bus().stream(STREAM).inner.log.sync_now().map_err(|e| fail("sync")(&e))?,
            Op::Retain => self.bus().stream(STREAM).enforce_retention(BASE_NS).map_err(|e| fail("retention")(&e))?,
            Op::ReopenConsumer => {
                self.consumer = None;
                let config = ConsumerConfig { max_ack_pending: 50, ..ConsumerConfig::default() };
                self.consumer = Some(self.bus().stream(STREAM).consumer("model", config).map_err(|e| fail("consumer")(&e))?);
                self.model.pending.clear();
            }
            Op::Close => {
                // Opening enforces the limits; so that nothing is left for it to do, they are enforced before.
                self.bus().stream(STREAM).enforce_retention(BASE_NS).map_err(|e| fail("retention")(&e))?;
                let before = self.bus().stream(STREAM).info();
                self.bus().close().map_err(|e| fail("close")(&e))?;
                (self.consumer, self.bus) = (None, None);
                self.boot += 1;
                self.open()?;
                let after = self.bus().stream(STREAM).info();
                prop_assert_eq!((after.first_seq, after.last_seq, after.messages), (before.first_seq, before.last_seq, before.messages));
                prop_assert_eq!((after.first_time_ns, after.last_time_ns), (before.first_time_ns, before.last_time_ns));
            }
            Op::Kill { torn } => {
                self.bus().stream(STREAM).enforce_retention(BASE_NS).map_err(|e| fail("retention")(&e))?;
                let before = self.bus().stream(STREAM).info();
                self.crash();
                // A write that the kill interrupted: the beginning of the next record.
                let dir = stream_dir(self.dir, STREAM.as_str());
                let first_seq = segment::list(&dir).map_err(|e| fail("list")(&e))?.pop();
                // Nothing was written yet: the kill met the first write of the segment.
                let header = match first_seq {
                    Some(_) => Vec::new(),
                    None => segment::encode_header(segment::Form::Raw, STREAM.as_str(), before.last_seq + 1).to_vec(),
                };
                let first_seq = first_seq.unwrap_or(before.last_seq + 1);
                let mut bytes = Vec::new();
                let payload = vec![7; 300];
                let fields = crate::log::record::Fields {
                    seq: before.last_seq + 1,
                    time_ns: 0,
                    subject: "sec.events.torn",
                    headers: b"",
                    payload: &payload,
                    continues: false,
                    operation: false,
                };
                crate::log::record::encode(&fields, &mut bytes);
                let path = dir.join(segment::file_name(first_seq, segment::Form::Raw));
                let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(|e| fail("open segment")(&e))?;
                std::io::Write::write_all(&mut file, &header).map_err(|e| fail("begin")(&e))?;
                std::io::Write::write_all(&mut file, &bytes[..torn]).map_err(|e| fail("tear")(&e))?;
                self.open()?;
                let after = self.bus().stream(STREAM).info();
                prop_assert_eq!(after.last_seq, before.last_seq, "a kill skips no sequences");
                prop_assert_eq!((after.messages, after.truncated_at_open), (before.messages, torn as u64));
            }
            Op::PowerCut { keep, garbage } => self.power_cut(keep, &garbage)?,
        }
        self.check()
    }

    fn check(&mut self) -> Check {
        let info = self.bus().stream(STREAM).info();
        prop_assert_eq!(info.write_errors, 0);
        prop_assert_eq!(info.unreadable_messages, 0);
        // Retention takes from the front only, and only what is too much.
        let expected: BTreeMap<u64, Stored> =
            self.model.stored.range(info.first_seq..).map(|(seq, stored)| (*seq, stored.clone())).collect();
        prop_assert_eq!(info.messages, expected.len() as u64);
        if info.first_seq > self.model.stored.keys().next().copied().unwrap_or(1) {
            self.model.stored = expected;
        }
        let floor = self.consumer().ack_floor();
        let (pending, delivered_seq) = (self.consumer().info().ack_pending, self.consumer().info().delivered_seq);
        prop_assert!(floor <= delivered_seq && delivered_seq <= info.last_seq);
        prop_assert!(pending <= delivered_seq - floor);
        // At least once: what the floor has passed was acknowledged, or retention took it.
        for seq in self.model.stored.range(..=floor).map(|(seq, _)| *seq) {
            prop_assert!(self.model.ever_acked.contains(&seq), "the floor {} passed {}, which was never acknowledged", floor, seq);
        }
        Ok(())
    }

    /// In the end everything that is stored and was not acknowledged can be had.
    fn drain(&mut self) -> Check {
        prop_assert_eq!(self.read_all()?, self.model.stored.clone());
        self.step(Op::ReopenConsumer)?;
        loop {
            let fetched = self.consumer().try_fetch(7).map_err(|e| fail("fetch")(&e))?;
            if fetched.is_empty() {
                break;
            }
            for delivery in fetched {
                prop_assert_eq!(self.model.stored.get(&delivery.seq).map(|stored| &stored.payload[..]), Some(&delivery.payload[..]));
                self.consumer().ack(delivery.seq);
                self.model.ever_acked.insert(delivery.seq);
            }
        }
        let unseen: Vec<u64> = self.model.stored.keys().copied().filter(|seq| !self.model.ever_acked.contains(seq)).collect();
        prop_assert!(unseen.is_empty(), "never delivered: {:?}", unseen);
        let info = self.consumer().info();
        prop_assert_eq!((info.pending, info.ack_pending, info.unreadable), (0, 0, 0));
        for (seq, stored) in &self.model.stored {
            let got = self.bus().stream(STREAM).get(*seq).map_err(|e| fail("get")(&e))?;
            prop_assert_eq!(got.map(|delivery| delivery.payload.to_vec()), Some(stored.payload.clone()));
        }
        Ok(())
    }
}

proptest! {
    // A tenth of the usual cases (256, or PROPTEST_CASES): each opens a bus, with its syncs, several times.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(10), max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_bus_does_what_the_model_says(ops in prop::collection::vec(op(), 1..60), small in any::<bool>()) {
        let dir = tempfile::tempdir().map_err(|e| fail("tempdir")(&e))?;
        let config = config(if small { 24 * 1024 } else { 64 * 1024 * 1024 });
        let mut world = World { dir: dir.path(), config, boot: 1, bus: None, consumer: None, model: Model::default() };
        world.open()?;
        for op in ops {
            world.step(op)?;
        }
        world.drain()?;
    }
}
