//! First bytes of connections, put together from the segments that the kernel sent up, until they say what they have to say.
//!
//! Invariants worth naming:
//!
//! - **Everything is bounded**: connections that are being read, their bytes (by the kernel), and the time that they may take.
//! - **What never becomes whole is told as far as it came**, when no more is to come or for too long nothing did.

use std::collections::{HashMap, VecDeque};

use bartizan_sensor_ebpf::abi::Kind;
use bartizan_wire::{Parsed, dns, http1, ssh, tls};

use crate::project::wire::{self, Piece};
use crate::project::{Act, Subject};

/// Directions of connections that are read at once, at most; the oldest makes room and is told as far as it came.
const STREAMS: usize = 4096;
/// Longest time to wait for the rest, nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

/// What was read, and of whom.
#[derive(Debug)]
pub(super) struct Read {
    /// Whose connection: that of the last piece.
    pub(super) subject: Subject,
    /// What is told.
    pub(super) act: Act,
    /// The DNS message, when it is one.
    pub(super) message: Option<dns::Message>,
}

/// Names one direction of a connection: the socket's cookie, and whether this host sends.
type Key = (u64, bool);

/// The directions that are being read.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: HashMap<Key, Stream>,
    /// In the order of their first piece, with the number of their beginning; those that are gone meanwhile are passed over.
    order: VecDeque<(Key, u64)>,
    begun: u64,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    kind: Kind,
    subject: Subject,
    /// The last piece, whose data are all bytes so far. DNS: those behind the last message that was told.
    piece: Piece,
    /// Bytes that came, told ones too.
    came: u32,
    /// It has said what it has to say: more of it is not looked at.
    said: bool,
}

impl Streams {
    /// Takes a piece; what can be told now comes back.
    pub(super) fn take(&mut self, kind: Kind, subject: &Subject, piece: Piece) -> Vec<Read> {
        if wire::is_datagram(kind, &piece) {
            let message = wire::udp_dns(&piece);
            return message.map(|message| read_dns(subject, &piece, message, piece.whole)).into_iter().collect();
        }
        let key = (piece.cookie, piece.outgoing);
        let mut told = Vec::new();
        if piece.offset == 0 {
            // A connection that begins anew on the same socket.
            told.extend(self.end(key));
            while self.open.len() >= STREAMS {
                let Some((oldest, number)) = self.order.pop_front() else { break };
                if self.open.get(&oldest).is_some_and(|stream| stream.number == number) {
                    told.extend(self.end(oldest));
                }
            }
            self.begun += 1;
            self.order.push_back((key, self.begun));
            let stream = Stream { number: self.begun, kind, subject: *subject, came: piece.data.len() as u32, said: false, piece };
            self.open.insert(key, stream);
        } else {
            // A beginning that was lost leaves a rest that means nothing.
            let Some(stream) = self.open.get_mut(&key).filter(|stream| stream.came == piece.offset) else { return told };
            stream.came += piece.data.len() as u32;
            stream.subject = *subject;
            let Piece { socket, direction, last, data, .. } = piece;
            (stream.piece.socket, stream.piece.direction, stream.piece.last) = (socket, direction, last);
            if !stream.said {
                stream.piece.data.extend_from_slice(&data);
            }
        }
        if let Some(stream) = self.open.get_mut(&key) {
            told.extend(stream.read());
            if stream.piece.last {
                told.extend(self.end(key));
            }
        }
        told
    }

    /// Ends what waits for too long at `now` (boot clock, nanoseconds); what it said comes back.
    pub(super) fn expire(&mut self, now: u64) -> Vec<Read> {
        let mut told = Vec::new();
        while let Some((key, number)) = self.order.front().copied() {
            match self.open.get(&key) {
                Some(stream) if stream.number == number && now.saturating_sub(stream.subject.ktime) < PATIENCE => break,
                Some(stream) if stream.number == number => told.extend(self.end(key)),
                Some(_) | None => {}
            }
            self.order.pop_front();
        }
        told
    }

    /// Ends one direction; what it said so far comes back unless it was told.
    fn end(&mut self, key: Key) -> Option<Read> {
        let mut stream = self.open.remove(&key)?;
        if stream.said { None } else { stream.finish() }
    }
}

/// What the bytes of a direction are.
enum Said {
    /// Nothing that is told.
    Nothing,
    /// More is needed.
    More(Option<Act>),
    /// All.
    All(Act),
}

impl Said {
    fn of<T>(parsed: Parsed<T>, act: impl Fn(&T) -> Act) -> Self {
        match parsed {
            Parsed::NotThis(_) => Self::Nothing,
            Parsed::Incomplete(part) => Self::More(part.as_ref().map(act)),
            Parsed::Complete(whole) => Self::All(act(&whole)),
        }
    }
}

impl Stream {
    /// What can be told now.
    fn read(&mut self) -> Vec<Read> {
        if self.said {
            return Vec::new();
        }
        if self.kind == Kind::DnsBytes {
            return self.messages();
        }
        match self.parse() {
            Said::More(_) => Vec::new(),
            Said::Nothing => {
                self.said = true;
                Vec::new()
            }
            Said::All(act) => {
                self.said = true;
                self.piece.data = Vec::new();
                vec![Read { subject: self.subject, act, message: None }]
            }
        }
    }

    /// What can be told when no more comes.
    fn finish(&mut self) -> Option<Read> {
        match self.parse() {
            Said::More(act) => act.map(|act| Read { subject: self.subject, act, message: None }),
            Said::Nothing | Said::All(_) => None,
        }
    }

    fn parse(&self) -> Said {
        let piece = &self.piece;
        let bytes = piece.data.as_slice();
        match self.kind {
            Kind::TlsBytes => match tls::client_hello(bytes) {
                Parsed::NotThis(_) => Said::of(tls::server_hello(bytes), |hello| wire::server_hello(piece, hello)),
                hello => Said::of(hello, |hello| wire::client_hello(piece, hello)),
            },
            Kind::HttpBytes => Said::of(http1::request(bytes), |request| wire::http(piece, request)),
            Kind::SshBytes => Said::of(ssh::identification(bytes), |identification| wire::ssh(piece, identification)),
            // What is left of DNS is the beginning of a message.
            Kind::DnsBytes => match dns::tcp(bytes).next() {
                Some(Parsed::Incomplete(Some(message))) => Said::More(Some(wire::dns(piece, &message, bytes.len() as u32))),
                _ => Said::Nothing,
            },
            _ => Said::Nothing,
        }
    }

    /// The DNS messages that are whole.
    fn messages(&mut self) -> Vec<Read> {
        let mut told = Vec::new();
        let mut at = 0;
        for message in dns::tcp(&self.piece.data) {
            match message {
                Parsed::Complete(message) => {
                    let length = self.piece.data.get(at..at + 2).and_then(|two| Some(u16::from_be_bytes(two.try_into().ok()?)));
                    let length = u32::from(length.unwrap_or_default());
                    at += 2 + length as usize;
                    told.push(read_dns(&self.subject, &self.piece, message, length));
                }
                Parsed::Incomplete(_) => break,
                Parsed::NotThis(_) => {
                    self.said = true;
                    break;
                }
            }
        }
        self.piece.data.drain(..at.min(self.piece.data.len()));
        told
    }
}

fn read_dns(subject: &Subject, piece: &Piece, message: dns::Message, bytes: u32) -> Read {
    Read { subject: *subject, act: wire::dns(piece, &message, bytes), message: Some(message) }
}
