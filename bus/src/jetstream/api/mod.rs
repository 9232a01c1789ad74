//! `$JS.API.…`: which request is whose, and the shape of every answer.

mod consumers;
mod messages;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::stream::{Entry, answer};
use super::{API_LEVEL, Js, config};
use crate::headers;
use crate::nats::route::Routed;

/// Names and infos on one page.
const NAMES_PAGE: usize = 1024;
const LIST_PAGE: usize = 256;

/// An answer: its type, and what it says.
#[derive(Serialize)]
struct Response<T> {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
    #[serde(flatten)]
    body: Option<T>,
}

/// Part of a long list.
#[derive(Serialize)]
struct Page {
    total: usize,
    offset: usize,
    limit: usize,
}

/// Which part is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PageRequest {
    offset: usize,
    subject: String,
}

#[derive(Serialize)]
struct Success {
    success: bool,
}

/// A Unix time as Go prints it; 0 is Go's zero time.
pub(super) fn timestamp(ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(ns.into()) {
        Ok(time) if ns != 0 => time.to_string(),
        _ => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// Random letters and digits.
pub(super) fn made_up_name(length: usize) -> Result<String, ApiError> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::consumer(error.to_string()))?;
    Ok(bytes.iter().map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()] as char).collect())
}

/// Reads a request's body; an empty one is as good as `{}`.
fn body<T: for<'de> Deserialize<'de> + Default>(message: &Routed<'_>) -> Result<T, ApiError> {
    if matches!(message.payload.trim_ascii(), b"" | b"null") { Ok(T::default()) } else { config::read(message.payload) }
}

fn page<T>(items: Vec<T>, offset: usize, limit: usize) -> (Page, Vec<T>) {
    let total = items.len();
    // Behind the end is at the end, as in nats-server.
    let offset = offset.min(total);
    (Page { total, offset, limit }, items.into_iter().skip(offset).take(limit).collect())
}

impl Js {
    /// Answers a request. Gives the stream whose consumers have something to do because of it.
    pub(super) fn api(&self, subject: &str, message: &Routed<'_>) -> Option<Arc<Entry>> {
        if let Some(rest) = subject.strip_prefix("DIRECT.GET.") {
            self.direct_get(rest, message);
            return None;
        }
        let needed = headers::get(message.headers, "Nats-Required-Api-Level").map(|level| level.parse::<u64>().unwrap_or(u64::MAX));
        let level = if needed.is_some_and(|needed| needed > API_LEVEL) { Err(ApiError::api_level()) } else { Ok(()) };
        let (kind, rest) = split_kind(subject);
        let name = |rest: &str| -> Result<String, ApiError> {
            if rest.contains('.') || rest.is_empty() { Err(ApiError::bad_request()) } else { Ok(rest.to_owned()) }
        };
        let mut pump = None;
        match kind {
            "INFO" => self.respond(message, "account_info", level.and_then(|()| self.account_info())),
            "STREAM.CREATE" => self.respond(message, "stream_create", level.and_then(|()| self.stream_create(&name(rest)?, message))),
            "STREAM.UPDATE" => self.respond(message, "stream_update", level.and_then(|()| self.stream_update(&name(rest)?, message))),
            "STREAM.INFO" => self.respond(message, "stream_info", level.and_then(|()| self.stream_info(&name(rest)?, message))),
            "STREAM.DELETE" => self.respond(message, "stream_delete", level.and_then(|()| self.stream_delete(&name(rest)?))),
            "STREAM.PURGE" => {
                pump = self.stream(rest);
                self.respond(message, "stream_purge", level.and_then(|()| self.stream_purge(&name(rest)?, message)));
            }
            "STREAM.NAMES" => self.respond(message, "stream_names", level.and_then(|()| self.stream_names(message))),
            "STREAM.LIST" => self.respond(message, "stream_list", level.and_then(|()| self.stream_list(message))),
            "STREAM.MSG.GET" => self.respond(message, "stream_msg_get", level.and_then(|()| self.message_get(&name(rest)?, message))),
            "STREAM.MSG.DELETE" => {
                pump = self.stream(rest);
                self.respond(message, "stream_msg_delete", level.and_then(|()| self.message_delete(&name(rest)?, message)));
            }
            "CONSUMER.CREATE" | "CONSUMER.DURABLE.CREATE" => {
                let result = level.and_then(|()| self.consumer_create(kind == "CONSUMER.DURABLE.CREATE", rest, message));
                pump = result.as_ref().ok().map(|(entry, _)| Arc::clone(entry));
                self.respond(message, "consumer_create", result.map(|(_, info)| info));
            }
            "CONSUMER.INFO" => self.respond(message, "consumer_info", level.and_then(|()| self.consumer_info(rest, message))),
            "CONSUMER.DELETE" => self.respond(message, "consumer_delete", level.and_then(|()| self.consumer_delete(rest, message))),
            "CONSUMER.NAMES" => self.respond(message, "consumer_names", level.and_then(|()| self.consumer_names(rest, message))),
            "CONSUMER.LIST" => self.respond(message, "consumer_list", level.and_then(|()| self.consumer_list(rest, message))),
            "CONSUMER.PAUSE" => {
                pump = rest.split_once('.').and_then(|(stream, _)| self.stream(stream));
                self.respond(message, "consumer_pause", level.and_then(|()| self.consumer_pause(rest, message)));
            }
            // nats-server is silent here, so that its clients wait for their timeout.
            _ => {
                let error = ApiError { description: format!("bad request: this server has no {kind}"), ..ApiError::bad_request() };
                self.respond::<Success>(message, "unknown", Err(error));
            }
        }
        pump
    }

    fn respond<T: Serialize>(&self, message: &Routed<'_>, kind: &str, result: Result<T, ApiError>) {
        let (body, error) = match result {
            Ok(body) => (Some(body), None),
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                (None, Some(error))
            }
        };
        let Some(reply) = message.reply else { return };
        let response = Response { r#type: format!("io.nats.jetstream.api.v1.{kind}_response"), error, body };
        match serde_json::to_vec(&response) {
            Ok(json) => answer(&*self.router, reply, &json),
            Err(error) => tracing::warn!(kind, %error, "cannot write an answer"),
        }
    }

    fn account_info(&self) -> Result<serde_json::Value, ApiError> {
        let (mut memory, mut storage, mut consumers) = (0, 0, 0);
        let all = self.all();
        for entry in &all {
            let bytes = entry.store.state().bytes;
            let state = entry.state();
            consumers += state.consumers.len();
            match state.config.storage {
                config::Storage::File => storage += bytes,
                config::Storage::Memory => memory += bytes,
            }
        }
        Ok(serde_json::json!({
            "memory": memory, "storage": storage, "reserved_memory": 0, "reserved_storage": 0,
            "streams": all.len(), "consumers": consumers,
            "limits": {
                "max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1, "max_ack_pending": -1,
                "memory_max_stream_bytes": -1, "storage_max_stream_bytes": -1, "max_bytes_required": false,
            },
            "api": {
                "level": API_LEVEL,
                "total": self.requests.load(Ordering::Relaxed),
                "errors": self.errors.load(Ordering::Relaxed),
            },
        }))
    }
}

/// What is asked, and of whom.
fn split_kind(subject: &str) -> (&str, &str) {
    const KINDS: [&str; 17] = [
        "STREAM.MSG.GET",
        "STREAM.MSG.DELETE",
        "STREAM.CREATE",
        "STREAM.UPDATE",
        "STREAM.INFO",
        "STREAM.DELETE",
        "STREAM.PURGE",
        "STREAM.NAMES",
        "STREAM.LIST",
        "CONSUMER.DURABLE.CREATE",
        "CONSUMER.CREATE",
        "CONSUMER.INFO",
        "CONSUMER.DELETE",
        "CONSUMER.NAMES",
        "CONSUMER.LIST",
        "CONSUMER.PAUSE",
        "INFO",
    ];
    for kind in KINDS {
        if subject == kind {
            return (kind, "");
        }
        if let Some(rest) = subject.strip_prefix(kind).and_then(|rest| rest.strip_prefix('.')) {
            return (kind, rest);
        }
    }
    (subject, "")
}
