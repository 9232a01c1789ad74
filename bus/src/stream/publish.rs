//! Publishing: duplicates out, then one append and one write for the batch.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::dedupe::Dedupe;
use super::{Inner, lock};
use crate::error::PublishError;
use crate::headers;
use crate::log::record::MAX_TEXT;
use crate::message::{Message, PubAck, Value};
use crate::store::{Put, Store};

/// What each message of a batch becomes.
enum Fate {
    Duplicate(u64),
    /// Appended as the n-th of the batch's new messages.
    New(usize),
    /// Has the message id of the batch's n-th new message.
    DuplicateOfNew(usize),
}

impl Inner {
    /// `values` has for each message what its payload was encoded from, or is empty.
    pub(crate) fn append_batch(&self, messages: &[Message], values: &[Value]) -> Result<Vec<PubAck>, PublishError> {
        if let Some(long) = messages.iter().filter_map(|message| message.msg_id.as_ref()).find(|id| id.len() > MAX_TEXT / 2) {
            return Err(PublishError::TooLarge { what: "message id", bytes: long.len() as u64, max: MAX_TEXT as u64 / 2 });
        }
        let mut dedupe = loop {
            let dedupe = lock(&self.publishing);
            if self.is_closed() {
                return Err(PublishError::Closed { stream: self.name });
            }
            // Only publishers fill the queues, so what is free now stays free until this one is done.
            let Some(full) = self.fan.full(messages) else { break dedupe };
            drop(dedupe);
            full.wait();
        };
        let Sorted { fates, fresh, places } = sort_out(&dedupe, messages);
        let mut first_seq = 0;
        if !fresh.is_empty() {
            let headers: Vec<Vec<u8>> =
                fresh.iter().map(|message| message.msg_id.as_deref().map(headers::msg_id_block).unwrap_or_default()).collect();
            let puts: Vec<Put<'_>> = fresh
                .iter()
                .zip(&headers)
                .map(|(message, headers)| Put {
                    subject: message.subject.as_str(),
                    headers,
                    payload: &message.payload,
                    time_ns: message.time_ns,
                })
                .collect();
            first_seq = self.log.append(&puts).map_err(|error| self.publish_error(error))?;
            // Clients' consumers of this stream flush, too: who finds nothing left to write must know how that went.
            self.log.flush_own(first_seq).map_err(|error| self.publish_error(error))?;
            for (n, message) in fresh.iter().enumerate() {
                if let Some(id) = &message.msg_id {
                    dedupe.insert(id, first_seq + n as u64, message.time_ns);
                }
            }
            self.fan.out(fresh.iter().zip(&places).zip(first_seq..).map(|((message, place), seq)| {
                let value = values.get(*place).cloned().unwrap_or_default();
                (seq, *message, value)
            }));
            let last_seq = first_seq + fresh.len() as u64 - 1;
            self.head.send_modify(|head| head.last_seq = head.last_seq.max(last_seq));
        }
        let duplicates = fates.iter().filter(|fate| !matches!(fate, Fate::New(_))).count();
        self.duplicates.fetch_add(duplicates as u64, Ordering::Relaxed);
        let acks = fates.iter().map(|fate| match *fate {
            Fate::Duplicate(seq) => PubAck { seq, duplicate: true },
            Fate::New(n) => PubAck { seq: first_seq + n as u64, duplicate: false },
            Fate::DuplicateOfNew(n) => PubAck { seq: first_seq + n as u64, duplicate: true },
        });
        Ok(acks.collect())
    }
}

/// A batch, sorted out.
struct Sorted<'a> {
    fates: Vec<Fate>,
    fresh: Vec<&'a Message>,
    /// Which of the batch each of the fresh ones is.
    places: Vec<usize>,
}

/// Tells duplicates, of stored messages and of one another, from new messages.
fn sort_out<'a>(dedupe: &Dedupe, messages: &'a [Message]) -> Sorted<'a> {
    let mut fates = Vec::with_capacity(messages.len());
    let (mut fresh, mut places): (Vec<&Message>, _) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
    let mut batch: HashMap<&str, usize> = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        if let Some(msg_id) = &message.msg_id {
            if let Some(seq) = dedupe.find(msg_id, message.time_ns) {
                fates.push(Fate::Duplicate(seq));
                continue;
            }
            if let Some(n) = batch.get(msg_id.as_str()) {
                fates.push(Fate::DuplicateOfNew(*n));
                continue;
            }
            batch.insert(msg_id, fresh.len());
        }
        fates.push(Fate::New(fresh.len()));
        fresh.push(message);
        places.push(place);
    }
    Sorted { fates, fresh, places }
}
