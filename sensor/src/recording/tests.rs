//! What is written is read; what is damaged is told; what is foreign is refused.

use std::io::Cursor;

use bartizan_bus::event::{
    AccountAction, AccountChange, AccountField, AccountFile, Body, BootId, EventId, ExecId, Gap, KindLoss, ProcessNamespaces, Severity,
    Start, Stdio, StdioEnd, Stop, Umount, decode_event,
};
use bartizan_bus::{LogReader, StreamName};
use bartizan_sensor_ebpf::abi::{
    ABI_VERSION, Exec, Exit, Kind, PROBE_PORTS, ProbeGathered, ProbeSource, Span, SynGathered, SynSource, UdpGathered, UdpPeer,
    WriteGathered, WriteKey,
};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{BlockKind, FORMAT, PRELUDE, block_head, prelude, prelude_of};
use super::*;
use crate::capture::files::{FileDeed, WatchList};
use crate::capture::seed::Found;
use crate::config::Config;
use crate::enrich::container::Runtime;
use crate::enrich::container::known::{Answer, Request};
use crate::enrich::container::runtime::Metadata;
use crate::hash::{self, FileId, Unhashed};
use crate::intake::{Input, Sink};
use crate::project::{ExeInode, Image, Relay, Subject};

fn header() -> Header {
    Header {
        boot: BootId(0x1234_5678),
        host: "host".into(),
        wall_offset: 1_700_000_000_000_000_000,
        started: 5_000,
        start: Start { version: "0.0.7".into(), kernel: "6.1".into(), ..Start::default() },
        key: [7; 32],
    }
}

/// An exit at this time.
fn exit_record(ktime: u64, tgid: u32) -> Vec<u8> {
    let mut record = Exit::new_zeroed();
    record.header.abi = ABI_VERSION;
    record.header.kind = Kind::Exit as u16;
    record.header.len = size_of::<Exit>() as u32;
    (record.header.ktime, record.header.tgid) = (ktime, tgid);
    record.as_bytes().to_vec()
}

fn gathered(last: u64) -> (ProbeSource, ProbeGathered) {
    let key = ProbeSource { source: [9; 16], protocol: 6, family: 2, flags: 2 };
    let value = ProbeGathered { first: 1, last, packets: 3, local: [8; 16], found: 1, pad: 0, ports: [22; PROBE_PORTS] };
    (key, value)
}

fn subject() -> Subject {
    Subject { tgid: 42, start_boottime: 77, kernel_thread: true, ..Subject::nobody(9) }
}

fn image() -> Box<Image> {
    Box::new(Image {
        name: "sh".into(),
        exe: Some("/bin/sh".into()),
        exe_file: Some(ExeInode {
            inode: 1,
            device: 2,
            mode: 3,
            owner: 4,
            nlink: 5,
            size: 7,
            changed: (8, 9),
            magic: 10,
            upper: true,
            alone: false,
        }),
        argv: vec!["sh".into(), "-c".into()],
        loginuid: Some(1000),
        namespaces: ProcessNamespaces { net: Some(8), ..ProcessNamespaces::default() },
        stdio: vec![Stdio { fd: 0, end: StdioEnd::Pipe { inode: 6 } }],
        relay: Some(Relay { tgid: 1, start_boottime: 2, exec_id: 3, fds: vec![0, 1], sockets: Vec::new(), truncated: true }),
        ..Image::default()
    })
}

fn container(answer: Answer) -> Input<'static> {
    Input::Container { now: 52, request: Request { id: "5eed".repeat(16), runtime: Some(Runtime::Docker), user: Some(1000) }, answer }
}

fn hashed(now: u64, result: Result<String, Unhashed>) -> Input<'static> {
    let file = FileId { device: 1, inode: now, changed: (-2, 3), size: 4 };
    Input::Hashed { now, answer: hash::Answer { file, result } }
}

/// One of each.
fn inputs(records: &[Vec<u8>]) -> Vec<Input<'_>> {
    let (key, value) = gathered(40);
    let udp = (UdpPeer::new_zeroed(), UdpGathered { last: 40, packets_sent: 1, ..UdpGathered::new_zeroed() });
    let login = (ExecId { boot: BootId(1), start_ns: 5, pid: 6, exec: 2 }, EventId([3; 20]));
    let mut all = vec![
        Input::Users([(0, "root".to_owned()), (1000, "ann".to_owned())].into()),
        Input::Logins(vec![login]),
        Input::Seed(Found::Iterator { record: vec![1, 2, 3], cmdline: b"a\0b\0".to_vec() }),
        Input::Seed(Found::Proc { subject: subject(), image: image() }),
        Input::Second,
        Input::WallOffset(-5),
    ];
    all.extend(records.iter().map(|record| Input::Record(record)));
    all.extend([
        Input::Probe(key, value),
        Input::UdpFlow(udp.0, Box::new(udp.1)),
        Input::Syn(SynSource::new_zeroed(), Box::new(SynGathered { last: 40, attempts: 1, ..SynGathered::new_zeroed() })),
        Input::Watched(WatchList {
            rules: vec!["/etc/passwd".into()],
            everywhere: true,
            files: vec![(7, 8, 0)],
            mounts: vec![(8, "/mnt".into())],
        }),
        Input::FileDeed(Box::new(FileDeed { now: 41, pid: 42, seq: 1 << 30, body: Body::Umount(Umount::default()) })),
        Input::Writes {
            now: 45,
            all: false,
            gathered: vec![(
                WriteKey { inode: 7, device: 8, tgid: 42 },
                WriteGathered { first: 1, last: 44, pages: 2, ..WriteGathered::default() },
            )],
        },
        Input::Accounts {
            now: 46,
            changes: vec![(
                7,
                AccountChange {
                    file: AccountFile::Shadow,
                    action: AccountAction::Changed,
                    name: "ann".into(),
                    id: None,
                    fields: vec![AccountField { name: "password".into(), old: Some("set".into()), new: Some("locked".into()) }],
                    more_fields: 0,
                },
            )],
        },
        Input::Due(u64::MAX - 1),
        Input::Heartbeat { now: 50, uptime_s: 1 },
        Input::Own { now: 50, severity: Severity::Low, body: Box::new(Body::Stop(Stop { reason: "of itself".into() })) },
        Input::Lost { now: 51, lost: vec![KindLoss { kind: "process.exec".into(), reason: "ring_full".into(), count: 2 }] },
        Input::Alive(vec![(1, 2), (3, 4)]),
        container(Answer::Absent),
        container(Answer::Found(
            Runtime::Docker,
            Metadata { name: Some("web".into()), labels: [("a".into(), "b".into())].into(), ..Metadata::default() },
        )),
        hashed(50, Ok("ab".into())),
        hashed(50, Err(Unhashed::TooLarge)),
        Input::Second,
        Input::Stop { now: 60 },
    ]);
    all
}

fn written(inputs: &[Input<'_>]) -> (Vec<u8>, Totals) {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for input in inputs {
        assert!(writer.take(input.clone()));
    }
    let (bytes, totals, len) = writer.finish().unwrap();
    assert_eq!(len, bytes.len() as u64);
    (bytes, totals)
}

/// How many inputs can be read, and how it ends.
fn read(bytes: &[u8]) -> (u64, Result<(), ReadError>) {
    let mut reader = match Reader::new(Cursor::new(bytes)) {
        Ok(reader) => reader,
        Err(error) => return (0, Err(error)),
    };
    loop {
        match reader.next_input() {
            Ok(Some(_)) => {}
            Ok(None) => return (reader.totals().inputs, Ok(())),
            Err(error) => {
                let inputs = reader.totals().inputs;
                assert!(matches!(reader.next_input(), Ok(None)), "something comes after {error}");
                return (inputs, Err(error));
            }
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let records = [exit_record(10, 4), exit_record(30, 5)];
    let inputs = inputs(&records);
    let (bytes, totals) = written(&inputs);
    let mut reader = Reader::new(Cursor::new(&bytes)).unwrap();
    assert_eq!(*reader.header(), header());
    for input in &inputs {
        assert_eq!(reader.next_input().unwrap().as_ref(), Some(input));
    }
    assert_eq!(reader.next_input().unwrap(), None);
    assert_eq!(reader.offset(), bytes.len() as u64);
    let expected = Totals { last: 5_000, ..totals.clone() };
    assert_eq!(*reader.totals(), expected, "the latest time is the beginning at least");
    assert_eq!((totals.seeds, totals.last, totals.all_records(), totals.all_lost()), (2, 60, 6, 2));
    assert_eq!(
        totals.records,
        [("file.umount", 1), ("network.probe", 1), ("network.syn", 1), ("network.udp_flow", 1), ("process.exit", 2)].into()
    );
}

#[test]
fn a_recorder_has_containers_looked_up_when_their_record_has_its_place() {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let id = "5eed".repeat(16);
    let request = Request { id: id.clone(), runtime: Some(Runtime::Docker), user: None };
    let image = Image { cgroup: Some(format!("/docker/{id}")), ..Image::default() };
    assert!(writer.take(Input::Seed(Found::Proc { subject: subject(), image: Box::new(image) })));
    assert_eq!((writer.next_container(), writer.next_container()), (Some(request.clone()), None));
    let mut record = Exec::new_zeroed();
    (record.header.abi, record.header.kind, record.header.ktime) = (ABI_VERSION, Kind::Exec as u16, 70);
    let other = "0a".repeat(32);
    // The leaf first, as the kernel's walk has it.
    let path = format!("docker-{other}.scope\0system.slice\0");
    record.image.cgroup = Span { offset: size_of::<Exec>() as u16, len: path.len() as u16 };
    let mut bytes = [record.as_bytes(), path.as_bytes()].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    assert!(writer.take(Input::Record(&bytes)) && writer.take(Input::Due(69)));
    assert_eq!(writer.next_container(), None);
    assert!(writer.take(Input::Due(70)));
    assert_eq!(writer.next_container().map(|request| request.id), Some(other));
    let found = Answer::Found(Runtime::Docker, Metadata::default());
    assert!(writer.take(Input::Container { now: 80, request, answer: found }));
}

#[test]
fn the_beginning_is_in_the_header_and_idle_readings_are_not_written() {
    let begin = Input::Begin { now: 1, start: Start::default(), gap: Some(Gap::default()) };
    let record = exit_record(10, 4);
    let (_, totals) = written(&[begin, Input::Due(5), Input::Record(&record), Input::Due(5), Input::Due(11), Input::Due(12)]);
    // The record, and the readings while it waited: at 5 it was not due, at 11 it was.
    assert_eq!(totals.inputs, 3);
}

#[test]
fn every_cut_is_told_and_leaves_what_is_before() {
    let records = [exit_record(10, 4)];
    let (bytes, totals) = written(&inputs(&records));
    let header = minicbor::to_vec(header()).unwrap();
    let mut before = 0;
    for len in 0..bytes.len() {
        let (inputs, result) = read(&bytes[..len]);
        let error = result.expect_err("cut");
        match len {
            _ if len < PRELUDE => assert!(matches!(error, ReadError::NoRecording), "{len}: {error}"),
            _ if len < PRELUDE + header.len() => assert!(matches!(error, ReadError::Header(_)), "{len}: {error}"),
            _ => {
                assert!(matches!(error, ReadError::Cut(at) if at == len as u64), "{len}: {error}");
                assert!(error.leaves_the_rest());
            }
        }
        assert!(inputs >= before, "a longer file holds less");
        before = inputs;
    }
    assert_eq!(before, totals.inputs, "only the end mark is missing");
    let error = read(&bytes[..bytes.len() - 1]).1.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "ends at byte {} without its end mark, because it was cut, or its recorder was killed or still runs: copy it again from where \
             it was recorded, or replay what there is with --allow-damaged",
            bytes.len() - 1
        )
    );
}

#[test]
fn every_damaged_byte_is_told() {
    let records = [exit_record(10, 4)];
    let (bytes, _) = written(&inputs(&records));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged).1.is_err(), "byte {at} of {} is not missed", bytes.len());
    }
    let mut damaged = bytes.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let error = read(&damaged).1.unwrap_err();
    assert!(error.leaves_the_rest());
    let text = error.to_string();
    assert!(
        text.starts_with("is damaged at byte ") && text.contains("(the checksum is wrong)") && text.contains("--allow-damaged"),
        "{text}"
    );
}

#[test]
fn blocks_in_another_order_or_left_out_are_told() {
    let head = |number| block_head(BlockKind::Inputs, &zstd::bulk::compress(&[0x81, 12], 3).unwrap(), 2, number).to_vec();
    let block = |number| [head(number), zstd::bulk::compress(&[0x81, 12], 3).unwrap()].concat();
    let bytes = minicbor::to_vec(header()).unwrap();
    let file = |blocks: &[Vec<u8>]| [prelude(&bytes).to_vec(), bytes.clone(), blocks.concat()].concat();
    assert!(matches!(read(&file(&[block(0), block(1)])), (2, Err(ReadError::Cut(_)))));
    for blocks in [[block(0), block(2)], [block(0), block(0)]] {
        let (inputs, result) = read(&file(&blocks));
        assert!(matches!(result, Err(ReadError::Damaged { .. })) && inputs == 1, "{result:?}");
    }
    let (bytes, _) = written(&[Input::Second]);
    let (inputs, result) = read(&[bytes, vec![0]].concat());
    assert!(inputs == 1 && result.unwrap_err().to_string().contains("something stands behind the end mark"));
}

#[test]
fn foreign_files_are_refused_by_what_they_are() {
    let bytes = minicbor::to_vec(header()).unwrap();
    let with = |format, abi| [prelude_of(format, abi, &bytes).to_vec(), bytes.clone()].concat();
    assert!(read(&with(FORMAT, ABI_VERSION)).1.unwrap_err().leaves_the_rest(), "the end mark alone is missing");
    let said = |bytes: &[u8]| {
        let error = read(bytes).1.unwrap_err();
        assert!(!error.leaves_the_rest());
        error.to_string()
    };
    assert_eq!(
        said(&with(FORMAT, ABI_VERSION + 1)),
        format!(
            "holds records of ABI {}, made by bartizan 0.0.7, and this bartizan {} reads ABI {ABI_VERSION}: replay it with bartizan 0.0.7",
            ABI_VERSION + 1,
            env!("CARGO_PKG_VERSION")
        )
    );
    assert_eq!(
        said(&with(FORMAT + 1, ABI_VERSION)),
        format!(
            "is a recording of format {}, and this bartizan reads format {FORMAT}: replay it with a bartizan as new as the one that made it",
            FORMAT + 1
        )
    );
    for file in [&b""[..], b"BTZNREC", b"#!/bin/sh\nexit 0\n# and so on"] {
        assert_eq!(said(file), "is no recording: it does not begin as one; make one with `bartizan record FILE`");
    }
}

/// Takes `room` bytes and no more.
struct Full {
    room: usize,
    bytes: Vec<u8>,
}

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.room - self.bytes.len());
        if taken == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_is_told() {
    let mut writer = Writer::new(Full { room: 400, bytes: Vec::new() }, &header()).unwrap();
    let mut taken = 0;
    while !writer.is_broken() {
        // What compresses badly.
        let record: Vec<u8> = (0..64_u64).flat_map(|n| (n + taken).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
        writer.take(Input::Record(&record));
        writer.take(Input::Second);
        taken += 1;
        assert!(taken < 100, "the disk is full and nobody says so");
    }
    assert!(!writer.take(Input::Second));
    let error = writer.finish().map(drop).unwrap_err();
    assert!(matches!(error, WriteError::Io(_)), "{error}");
}

/// Every event and every alert of a data folder, as they are stored.
fn stored(data_dir: &std::path::Path) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    for stream in [StreamName::Events, StreamName::Alerts] {
        let mut reader = LogReader::open(data_dir, stream).unwrap();
        while let Some(record) = reader.next().unwrap() {
            all.push((record.seq, record.payload.to_vec()));
        }
    }
    all
}

#[test]
fn two_replays_give_the_same_events_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rec");
    // The second ring's records come behind the first one's, and are older.
    let records = [exit_record(300, 4), exit_record(301, 5), exit_record(120, 6), exit_record(121, 42)];
    std::fs::write(&path, written(&inputs(&records)).0).unwrap();
    let recording = replay::Recording::check(&path, false).unwrap();
    assert!(recording.damage.is_none());
    let [first, second] = ["one", "two"].map(|name| {
        let config = Config { data_dir: folder.path().join(name), ..Config::default() };
        let replayed = replay::replay(&config, &recording, Box::new(|_, _| {})).unwrap();
        // The first seed's record is three bytes, which are none.
        assert_eq!((replayed.interrupted, replayed.counts.own_losses().values().sum::<u64>()), (false, 1));
        assert_eq!(replayed.kept.0, replayed.kept.1);
        stored(&config.data_dir)
    });
    assert_eq!(first, second);
    let events: Vec<_> = first.iter().map(|(_, bytes)| decode_event(bytes).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind()).collect();
    // What is own is published at once; records are, in the order of their time, when that has come.
    let exits = ["process.exit"; 4];
    let expected = [
        &["sensor.start", "process.seed", "network.probe", "network.udp_flow", "network.syn", "file.umount", "file.write"][..],
        &["auth.account_change"],
        &exits,
        &["sensor.heartbeat", "sensor.stop", "sensor.loss", "sensor.stop"],
    ]
    .concat();
    assert_eq!(kinds, expected);
    let pids: Vec<_> =
        events.iter().filter(|event| event.kind() == "process.exit").map(|event| event.process.as_ref().unwrap().pid).collect();
    assert_eq!(pids, [6, 42, 4, 5]);
    assert_eq!(events[0].time.wall_ns, 5_000 + header().wall_offset);
    assert_eq!(events[8].id, EventId::from_kernel(header().boot, 120, 0, 0));
    // The wall clock stepped in between, and the seed's user has its name.
    assert_eq!(events[8].time.wall_ns, 120 - 5);
    assert_eq!(events[1].process.as_ref().unwrap().user.as_deref(), Some("root"));
}

fn any_input() -> impl Strategy<Value = (u8, Vec<u8>, u64, u64)> {
    (0_u8..11, proptest::collection::vec(any::<u8>(), 0..300), any::<u64>(), any::<u64>())
}

fn make((which, bytes, a, b): &(u8, Vec<u8>, u64, u64)) -> Input<'_> {
    match which {
        0 => Input::WallOffset(*a as i64),
        1 => Input::Seed(Found::Iterator { record: bytes.clone(), cmdline: b.to_le_bytes().to_vec() }),
        2 => Input::Users([(*a as u32, String::from_utf8_lossy(bytes).into_owned())].into()),
        3 => Input::Due(*a),
        4 => Input::Heartbeat { now: *a, uptime_s: *b },
        5 => Input::Alive(vec![(*a as u32, *b), (*b as u32, *a)]),
        6 => Input::Stop { now: *a },
        7 => Input::Second,
        8 => Input::Seed(Found::Proc {
            subject: Subject { ktime: *a, start_boottime: *b, ..subject() },
            image: Box::new(Image { argv: vec![String::from_utf8_lossy(bytes).into_owned()], ..*image() }),
        }),
        9 => hashed(*a, if b % 2 == 0 { Ok(b.to_string()) } else { Err(Unhashed::Unreachable) }),
        _ => Input::Record(bytes),
    }
}

proptest! {
    #[test]
    fn inputs_come_back_as_they_were(parts in proptest::collection::vec(any_input(), 0..40)) {
        let inputs: Vec<Input<'_>> = parts.iter().map(make).collect();
        let mut bytes = Vec::new();
        for input in &inputs {
            encode(input, &mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        for input in &inputs {
            let (read, taken) = decode(rest).unwrap();
            prop_assert_eq!(&read, input);
            rest = &rest[taken..];
        }
        prop_assert!(rest.is_empty());
        let (file, totals) = written(&inputs);
        let (count, result) = read(&file);
        prop_assert!(result.is_ok());
        prop_assert_eq!(count, totals.inputs);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), after_header: bool) {
        let _ = decode(&bytes);
        let header = minicbor::to_vec(header()).unwrap();
        let file = if after_header { [prelude(&header).to_vec(), header, bytes].concat() } else { bytes };
        prop_assert!(read(&file).1.is_err());
    }
}
