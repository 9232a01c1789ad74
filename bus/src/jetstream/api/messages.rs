//! Messages by sequence and by subject: read through the API or directly, and deleted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::error::ApiError;
use super::super::stream::{Entry, answer_with};
use super::super::{Js, tap};
use super::{Success, body, timestamp};
use crate::error::ReadError;
use crate::nats::route::Routed;
use crate::pattern::{Filter, Pattern};
use crate::store::{Hint, Stored};

/// Subjects that one request may ask the newest message of.
const MOST_SUBJECTS: usize = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GetRequest {
    seq: u64,
    last_by_subj: String,
    next_by_subj: String,
    start_time: Option<String>,
    batch: usize,
    max_bytes: u64,
    multi_last: Vec<String>,
    up_to_seq: u64,
    up_to_time: Option<String>,
    no_hdr: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeleteRequest {
    seq: u64,
    no_erase: bool,
}

#[derive(Serialize)]
struct Message {
    subject: String,
    seq: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    hdrs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    time: String,
}

#[derive(Serialize)]
pub(super) struct Got {
    message: Message,
}

fn read_failed(error: &ReadError) -> ApiError {
    ApiError::stream_create(error)
}

fn filter(text: &str) -> Result<Filter, ApiError> {
    Ok(text.parse::<Pattern>().map_err(|_| ApiError::bad_request())?.into())
}

fn time_ns(text: &str) -> Result<i64, ApiError> {
    let time = text.parse::<jiff::Timestamp>().map_err(|_| ApiError::bad_request())?;
    Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

/// The one message that is asked for.
fn find(entry: &Entry, wanted: &GetRequest) -> Result<Option<Stored>, ApiError> {
    let store = &*entry.store;
    let found = if !wanted.last_by_subj.is_empty() {
        store.last(&filter(&wanted.last_by_subj)?, u64::MAX)
    } else if !wanted.next_by_subj.is_empty() {
        store.next(start(entry, wanted)?, &filter(&wanted.next_by_subj)?, &mut Hint::default())
    } else if wanted.start_time.is_some() {
        store.next(start(entry, wanted)?, &Filter::all(), &mut Hint::default())
    } else {
        store.get(wanted.seq)
    };
    found.map_err(|error| read_failed(&error))
}

fn start(entry: &Entry, wanted: &GetRequest) -> Result<u64, ApiError> {
    match &wanted.start_time {
        Some(time) => entry.store.seq_at(time_ns(time)?).map_err(|error| read_failed(&error)),
        None => Ok(wanted.seq),
    }
}

/// Headers of a message that is answered directly.
fn direct_headers(entry: &Entry, message: &Stored, more: &str) -> Vec<u8> {
    let head = message.headers().strip_suffix(b"\r\n").filter(|head| !head.is_empty()).unwrap_or(b"NATS/1.0\r\n");
    let (stream, subject, seq, time) = (&entry.name, message.subject(), message.seq, timestamp(message.time_ns));
    let added =
        format!("Nats-Stream: {stream}\r\nNats-Subject: {subject}\r\nNats-Sequence: {seq}\r\nNats-Time-Stamp: {time}\r\n{more}\r\n");
    [head, added.as_bytes()].concat()
}

impl Js {
    pub(super) fn message_get(&self, name: &str, message: &Routed<'_>) -> Result<Got, ApiError> {
        let wanted: GetRequest = body(message)?;
        let entry = self.require(name)?;
        if wanted.seq == 0 && wanted.last_by_subj.is_empty() && wanted.next_by_subj.is_empty() && wanted.start_time.is_none() {
            return Err(ApiError::bad_request());
        }
        // Either a sequence or the newest of a subject; which one is meant nobody can tell.
        if !wanted.last_by_subj.is_empty() && (wanted.seq > 0 || !wanted.next_by_subj.is_empty()) {
            return Err(ApiError::bad_request());
        }
        let found = find(&entry, &wanted)?.ok_or_else(ApiError::no_message_found)?;
        let rendered = match &entry.builtin {
            Some(builtin) => builtin.render(&found),
            None => found.payload().into(),
        };
        Ok(Got {
            message: Message {
                subject: found.subject().to_owned(),
                seq: found.seq,
                hdrs: if wanted.no_hdr { String::new() } else { STANDARD.encode(found.headers()) },
                data: STANDARD.encode(rendered),
                time: timestamp(found.time_ns),
            },
        })
    }

    pub(super) fn message_delete(&self, name: &str, message: &Routed<'_>) -> Result<Success, ApiError> {
        // Nothing asked for is a request that was cut off, not a message that is missing.
        if message.payload.trim_ascii().is_empty() {
            return Err(ApiError::bad_request());
        }
        let wanted: DeleteRequest = body(message)?;
        let entry = self.require_own(name)?;
        {
            let state = entry.state();
            if state.config.sealed {
                return Err(ApiError::sealed());
            }
            if state.config.deny_delete {
                return Err(ApiError::message_delete("message delete not permitted"));
            }
        }
        let deleted = entry.store.delete(&[wanted.seq]).and_then(|deleted| entry.store.flush().map(|()| deleted));
        match deleted {
            Ok(0) => Err(ApiError::message_delete("no message found")),
            Ok(_) => Ok(Success { success: true }),
            Err(error) => Err(ApiError::message_delete(&error)),
        }
    }

    /// `DIRECT.GET`: answered with the message itself, headers and all.
    pub(super) fn direct_get(&self, rest: &str, message: &Routed<'_>) {
        let Some(reply) = message.reply else { return };
        let (stream, subject) = rest.split_once('.').map_or((rest, None), |(stream, subject)| (stream, Some(subject)));
        let entry = self.stream(stream).filter(|entry| entry.state().config.allow_direct);
        // Without direct access nobody listens there.
        let Some(entry) = entry else { return tap::no_responders(self, reply, message.subject) };
        if let Err(line) = self.answer_directly(&entry, subject, message, reply) {
            let block = format!("NATS/1.0 {line}\r\n\r\n");
            answer_with(&*self.router, reply, block.as_bytes(), b"");
        }
    }

    fn answer_directly(&self, entry: &Entry, subject: Option<&str>, message: &Routed<'_>, reply: &str) -> Result<(), &'static str> {
        let mut wanted: GetRequest = match subject {
            None if matches!(message.payload.trim_ascii(), b"" | b"{}") => return Err("408 Empty Request"),
            _ => body(message).map_err(|_| "408 Malformed Request")?,
        };
        if let Some(subject) = subject {
            subject.clone_into(&mut wanted.last_by_subj);
        }
        let asks = wanted.seq > 0 || !wanted.last_by_subj.is_empty() || !wanted.next_by_subj.is_empty() || wanted.start_time.is_some();
        if !wanted.multi_last.is_empty() {
            return self.answer_newest(entry, &wanted, reply);
        }
        if wanted.batch > 0 {
            return self.answer_batch(entry, &wanted, reply);
        }
        if !asks {
            return Err("408 Bad Request");
        }
        match find(entry, &wanted) {
            Ok(Some(found)) => {
                self.send_direct(entry, &found, reply, "", wanted.no_hdr);
                Ok(())
            }
            Ok(None) => Err("404 Message Not Found"),
            Err(_) => Err("408 Bad Request"),
        }
    }

    /// Gives whether who asked can have more: of a batch, what is left is named in its end and asked for again, as behind `max_bytes`.
    fn send_direct(&self, entry: &Entry, found: &Stored, reply: &str, more: &str, without: bool) -> bool {
        let headers = if without { b"NATS/1.0\r\n\r\n".to_vec() } else { direct_headers(entry, found, more) };
        let rendered = match &entry.builtin {
            Some(builtin) => builtin.render(found),
            None => found.payload().into(),
        };
        let crowded = answer_with(&*self.router, reply, &headers, &rendered).crowded;
        // Nothing of it was sent yet, perhaps.
        !crowded || {
            self.router.flush();
            !self.router.is_crowded(reply)
        }
    }

    fn end_of_batch(&self, reply: &str, pending: u64, last: u64, up_to: Option<u64>) {
        let up_to = up_to.map(|seq| format!("Nats-UpTo-Sequence: {seq}\r\n")).unwrap_or_default();
        let block = format!("NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n{up_to}\r\n");
        answer_with(&*self.router, reply, block.as_bytes(), b"");
    }

    fn answer_batch(&self, entry: &Entry, wanted: &GetRequest, reply: &str) -> Result<(), &'static str> {
        let store = &*entry.store;
        let passes = match wanted.next_by_subj.as_str() {
            "" => Filter::all(),
            text => filter(text).map_err(|_| "408 Bad Request")?,
        };
        let mut from = start(entry, wanted).map_err(|_| "408 Bad Request")?;
        let mut pending = store.count(from, &passes).map_err(|_| "408 Bad Request")?;
        if pending == 0 {
            return Err("404 Message Not Found");
        }
        let (mut last, mut bytes, mut hint) = (0, 0, Hint::default());
        for _ in 0..wanted.batch {
            let Ok(Some(found)) = store.next(from, &passes, &mut hint) else { break };
            pending = pending.saturating_sub(1);
            let more = format!("Nats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n");
            let room = self.send_direct(entry, &found, reply, &more, wanted.no_hdr);
            (from, last) = (found.seq + 1, found.seq);
            bytes += found.size();
            if !room || wanted.max_bytes > 0 && bytes >= wanted.max_bytes {
                break;
            }
        }
        self.end_of_batch(reply, pending, last, None);
        Ok(())
    }

    fn answer_newest(&self, entry: &Entry, wanted: &GetRequest, reply: &str) -> Result<(), &'static str> {
        let store = &*entry.store;
        let patterns: Result<Vec<Pattern>, _> = wanted.multi_last.iter().map(|text| text.parse::<Pattern>()).collect();
        let passes = Filter::any_of(patterns.map_err(|_| "408 Bad Request")?);
        let up_to = match (&wanted.up_to_time, wanted.up_to_seq) {
            (Some(time), _) => {
                let at = time_ns(time).map_err(|_| "408 Bad Request")?;
                store.seq_at(at).map_err(|_| "408 Bad Request")?.saturating_sub(1)
            }
            (None, 0) => store.state().last_seq,
            (None, seq) => seq,
        };
        let seqs = store.last_per_subject(&passes, up_to).map_err(|_| "408 Bad Request")?;
        if seqs.len() > MOST_SUBJECTS {
            return Err("413 Too Many Results");
        }
        let seqs: Vec<u64> = seqs.into_iter().filter(|seq| *seq >= wanted.seq).collect();
        if seqs.is_empty() {
            return Err("404 Message Not Found");
        }
        let limit = if wanted.batch == 0 { seqs.len() } else { wanted.batch };
        let (mut pending, mut last, mut bytes) = (seqs.len() as u64, 0, 0);
        for seq in seqs.iter().take(limit) {
            let Ok(Some(found)) = store.get(*seq) else { continue };
            pending -= 1;
            let more = format!("Nats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n");
            let room = self.send_direct(entry, &found, reply, &more, wanted.no_hdr);
            last = *seq;
            bytes += found.size();
            if !room || wanted.max_bytes > 0 && bytes >= wanted.max_bytes {
                break;
            }
        }
        self.end_of_batch(reply, pending, last, Some(up_to));
        Ok(())
    }
}
