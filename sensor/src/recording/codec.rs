//! An [`Input`] as CBOR: an array of its number and its parts. Numbers are never reused.

use bartizan_bus::event::{EventId, ExecId, KindLoss};
use bartizan_sensor_ebpf::abi::{ProbeGathered, ProbeSource, SynGathered, SynSource, UdpGathered, UdpPeer, WriteGathered, WriteKey};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::Error as EncodeError;
use minicbor::{Decoder, Encoder};
use std::convert::Infallible;
use zerocopy::{FromBytes, IntoBytes};

use crate::capture::files::{FileDeed, WatchList};
use crate::capture::seed::Found;
use crate::enrich::users::Names;
use crate::hash::{self, FileId, Unhashed};
use crate::intake::Input;

const BEGIN: u8 = 0;
const LOGINS: u8 = 1;
const USERS: u8 = 2;
const WALL_OFFSET: u8 = 3;
const SEED: u8 = 4;
const PROC_SEED: u8 = 5;
const RECORD: u8 = 6;
const PROBE: u8 = 7;
const DUE: u8 = 8;
const HEARTBEAT: u8 = 9;
const LOST: u8 = 10;
const ALIVE: u8 = 11;
const SECOND: u8 = 12;
const STOP: u8 = 13;
const OWN: u8 = 14;
const CONTAINER: u8 = 15;
const UDP_FLOW: u8 = 16;
const HASHED: u8 = 17;
const WATCHED: u8 = 18;
const FILE_DEED: u8 = 19;
const WRITES: u8 = 20;
const SYN: u8 = 21;
const ACCOUNTS: u8 = 22;

/// Appends `input` to `bytes`.
///
/// # Errors
/// Memory never runs out in a way that is told, so none in practice.
pub fn encode(input: &Input<'_>, bytes: &mut Vec<u8>) -> Result<(), EncodeError<Infallible>> {
    let e = &mut Encoder::new(bytes);
    match input {
        Input::Begin { now, start, gap } => {
            begin(e, BEGIN, 3)?;
            e.u64(*now)?.encode(start)?.encode(gap)?;
        }
        Input::Logins(logins) => {
            begin(e, LOGINS, 1)?;
            e.encode(logins)?;
        }
        Input::Users(names) => {
            begin(e, USERS, 1)?;
            e.encode(names)?;
        }
        Input::WallOffset(offset) => {
            begin(e, WALL_OFFSET, 1)?;
            e.i64(*offset)?;
        }
        Input::Seed(Found::Iterator { record, cmdline }) => {
            begin(e, SEED, 2)?;
            e.bytes(record)?.bytes(cmdline)?;
        }
        Input::Seed(Found::Proc { subject, image }) => {
            begin(e, PROC_SEED, 2)?;
            e.encode(subject)?.encode(image.as_ref())?;
        }
        Input::Record(record) => {
            begin(e, RECORD, 1)?;
            e.bytes(record)?;
        }
        Input::Probe(key, value) => {
            begin(e, PROBE, 2)?;
            e.bytes(key.as_bytes())?.bytes(value.as_bytes())?;
        }
        Input::UdpFlow(key, value) => {
            begin(e, UDP_FLOW, 2)?;
            e.bytes(key.as_bytes())?.bytes(value.as_bytes())?;
        }
        Input::Syn(key, value) => {
            begin(e, SYN, 2)?;
            e.bytes(key.as_bytes())?.bytes(value.as_bytes())?;
        }
        Input::Watched(list) => {
            begin(e, WATCHED, 1)?;
            e.encode(list)?;
        }
        Input::FileDeed(deed) => {
            let FileDeed { now, pid, seq, body } = &**deed;
            begin(e, FILE_DEED, 4)?;
            e.u64(*now)?.u32(*pid)?.u32(*seq)?.encode(body)?;
        }
        Input::Writes { now, all, gathered } => {
            begin(e, WRITES, 3)?;
            e.u64(*now)?.bool(*all)?.array(gathered.len() as u64)?;
            for (key, value) in gathered {
                e.bytes(key.as_bytes())?.bytes(value.as_bytes())?;
            }
        }
        Input::Accounts { now, changes } => {
            begin(e, ACCOUNTS, 2)?;
            e.u64(*now)?.encode(changes)?;
        }
        Input::Due(limit) => {
            begin(e, DUE, 1)?;
            e.u64(*limit)?;
        }
        Input::Heartbeat { now, uptime_s } => {
            begin(e, HEARTBEAT, 2)?;
            e.u64(*now)?.u64(*uptime_s)?;
        }
        Input::Own { now, severity, body } => {
            begin(e, OWN, 3)?;
            e.u64(*now)?.encode(severity)?.encode(body)?;
        }
        Input::Lost { now, lost } => {
            begin(e, LOST, 2)?;
            e.u64(*now)?.encode(lost)?;
        }
        Input::Alive(alive) => {
            begin(e, ALIVE, 1)?;
            e.encode(alive)?;
        }
        Input::Hashed { now, answer: hash::Answer { file, result } } => {
            begin(e, HASHED, 3)?;
            let FileId { device, inode, changed, size } = file;
            e.u64(*now)?.encode((device, inode, changed.0, changed.1, size))?;
            e.encode(match result {
                Ok(sha256) => (0_u8, Some(sha256.as_str())),
                Err(Unhashed::TooLarge) => (1, None),
                Err(Unhashed::Unreachable) => (2, None),
            })?;
        }
        Input::Second => begin(e, SECOND, 0)?,
        Input::Stop { now } => {
            begin(e, STOP, 1)?;
            e.u64(*now)?;
        }
        Input::Container { now, request, answer } => {
            begin(e, CONTAINER, 3)?;
            e.u64(*now)?.encode(request)?.encode(answer)?;
        }
    }
    Ok(())
}

/// The array's length and the input's number.
fn begin(e: &mut Encoder<&mut Vec<u8>>, number: u8, parts: u64) -> Result<(), EncodeError<Infallible>> {
    e.array(parts + 1)?.u8(number)?;
    Ok(())
}

/// Reads one input from the beginning of `bytes`; how many of them it took. A record is borrowed and need not be aligned.
///
/// # Errors
/// The bytes are none.
pub fn decode(bytes: &[u8]) -> Result<(Input<'_>, usize), DecodeError> {
    let mut d = Decoder::new(bytes);
    let parts = d.array()?.and_then(|items| items.checked_sub(1)).ok_or_else(|| DecodeError::message("no array of a known length"))?;
    let number = d.u8()?;
    let input = match (number, parts) {
        (BEGIN, 3) => Input::Begin { now: d.u64()?, start: d.decode()?, gap: d.decode()? },
        (LOGINS, 1) => Input::Logins(d.decode::<Vec<(ExecId, EventId)>>()?),
        (USERS, 1) => Input::Users(d.decode::<Names>()?),
        (WALL_OFFSET, 1) => Input::WallOffset(d.i64()?),
        (SEED, 2) => Input::Seed(Found::Iterator { record: d.bytes()?.to_vec(), cmdline: d.bytes()?.to_vec() }),
        (PROC_SEED, 2) => Input::Seed(Found::Proc { subject: d.decode()?, image: Box::new(d.decode()?) }),
        (RECORD, 1) => Input::Record(d.bytes()?),
        (PROBE, 2) => Input::Probe(plain::<ProbeSource>(d.bytes()?)?, plain::<ProbeGathered>(d.bytes()?)?),
        (UDP_FLOW, 2) => Input::UdpFlow(plain::<UdpPeer>(d.bytes()?)?, Box::new(plain::<UdpGathered>(d.bytes()?)?)),
        (SYN, 2) => Input::Syn(plain::<SynSource>(d.bytes()?)?, Box::new(plain::<SynGathered>(d.bytes()?)?)),
        (WATCHED, 1) => Input::Watched(d.decode::<WatchList>()?),
        (FILE_DEED, 4) => Input::FileDeed(Box::new(FileDeed { now: d.u64()?, pid: d.u32()?, seq: d.u32()?, body: d.decode()? })),
        (WRITES, 3) => Input::Writes { now: d.u64()?, all: d.bool()?, gathered: writes(&mut d)? },
        (ACCOUNTS, 2) => Input::Accounts { now: d.u64()?, changes: d.decode()? },
        (DUE, 1) => Input::Due(d.u64()?),
        (HEARTBEAT, 2) => Input::Heartbeat { now: d.u64()?, uptime_s: d.u64()? },
        (OWN, 3) => Input::Own { now: d.u64()?, severity: d.decode()?, body: Box::new(d.decode()?) },
        (LOST, 2) => Input::Lost { now: d.u64()?, lost: d.decode::<Vec<KindLoss>>()? },
        (ALIVE, 1) => Input::Alive(d.decode::<Vec<(u32, u64)>>()?),
        (HASHED, 3) => {
            let now = d.u64()?;
            let (device, inode, seconds, nanoseconds, size) = d.decode()?;
            let result = match d.decode::<(u8, Option<String>)>()? {
                (0, Some(sha256)) => Ok(sha256),
                (1, None) => Err(Unhashed::TooLarge),
                (2, None) => Err(Unhashed::Unreachable),
                _ => return Err(DecodeError::message("no answer about an executable")),
            };
            Input::Hashed { now, answer: hash::Answer { file: FileId { device, inode, changed: (seconds, nanoseconds), size }, result } }
        }
        (SECOND, 0) => Input::Second,
        (STOP, 1) => Input::Stop { now: d.u64()? },
        (CONTAINER, 3) => Input::Container { now: d.u64()?, request: d.decode()?, answer: d.decode()? },
        _ => return Err(DecodeError::message(format!("no input has number {number} with {parts} parts"))),
    };
    Ok((input, d.position()))
}

/// What was gathered of writes.
fn writes(d: &mut Decoder<'_>) -> Result<Vec<(WriteKey, WriteGathered)>, DecodeError> {
    let many = d.array()?.ok_or_else(|| DecodeError::message("writes are an array of a known length"))?;
    // Room is made as they come: the number is only said.
    let mut gathered = Vec::new();
    for _ in 0..many {
        gathered.push((plain::<WriteKey>(d.bytes()?)?, plain::<WriteGathered>(d.bytes()?)?));
    }
    Ok(gathered)
}

/// A value of a kernel's map.
fn plain<T: FromBytes>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::message("a value of a map has another length"))
}
