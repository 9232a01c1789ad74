//! Alerts on one connection: published without waiting, confirmed by the stream's acknowledgements in any order.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, Context};
use bartizan_bus::Subject;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::Settings;
use super::connect::{End, Link, connect};
use super::errors::{Refusal, jetstream_error};
use super::hub::{self, Hub, MIN_MESSAGE_BYTES};
use crate::config::{Address, Domain, HubStream, SubjectPrefix};
use crate::engine::WINDOW_ITEMS;
use crate::shrink::render_alert;
use crate::sink::{Item, Rejected, SinkError};

/// Media type of every message.
const CONTENT_TYPE: (&str, &str) = ("Content-Type", "application/json");

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    context: Context,
    end: End,
    stream: HubStream,
    prefix: SubjectPrefix,
    subjects: Vec<String>,
    /// Largest message in bytes, headers included.
    max_message: usize,
    /// As `NatsSink::cap`.
    cap: Option<usize>,
    ack_timeout: Duration,
    acks: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    duplicates: u64,
    /// What the next call ends with.
    failed: Option<SinkError>,
}

/// The answer to one message.
struct Answer {
    item: Arc<Item>,
    /// Size of the message, headers included.
    bytes: usize,
    ack: Result<PublishAck, PublishError>,
}

/// What an answer means.
enum Verdict {
    Confirmed,
    Ended(SinkError),
    /// The client ended before an answer came.
    Gone,
}

impl Session {
    /// Connects to `address` and examines the stream. Also returns what an operator should know.
    pub(super) async fn open(settings: &Settings, address: &Address, cap: Option<usize>) -> Result<(Self, Option<String>), SinkError> {
        let nats = &settings.nats;
        let Link { client, end } = connect(settings, address).await?;
        let Some(server) = client.try_server_info() else { return Err(SinkError::retry(format!("{address} did not introduce itself"))) };
        if !server.headers {
            let reason = format!("{address} has headers switched off, and without `Nats-Msg-Id` it cannot tell a repeat: switch them on");
            return Err(SinkError::Config { reason });
        }
        let prefix = nats.domain.as_ref().map(Domain::as_str).map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
        let context = ContextBuilder::new()
            .api_prefix(prefix)
            .timeout(nats.ack_timeout.0)
            // More than the engine ever has in flight, so that publishing never waits for an acknowledgement.
            .max_ack_inflight(2 * WINDOW_ITEMS)
            .build(client);
        let Hub { subjects, max_message, warning } = hub::examine(&context, &end, server.jetstream, nats, settings.min_severity).await?;
        if server.max_payload < MIN_MESSAGE_BYTES {
            let reason = format!(
                "{address} takes messages of {} bytes at most: raise its max_payload to {MIN_MESSAGE_BYTES} or more",
                server.max_payload
            );
            return Err(SinkError::Config { reason });
        }
        let limits = [Some(server.max_payload), max_message, cap];
        let session = Self {
            context,
            end,
            stream: nats.stream.clone(),
            prefix: nats.subject_prefix.clone(),
            subjects,
            max_message: limits.into_iter().flatten().min().unwrap_or(server.max_payload),
            cap,
            ack_timeout: nats.ack_timeout.0,
            acks: FuturesUnordered::new(),
            duplicates: 0,
            failed: None,
        };
        Ok((session, warning))
    }

    /// As `NatsSink::cap`, for the next session.
    pub(super) fn cap(&self) -> Option<usize> {
        self.cap
    }

    /// Confirmations since the last call that said "duplicate".
    pub(super) fn take_duplicates(&mut self) -> u64 {
        std::mem::take(&mut self.duplicates)
    }

    /// Publishes one alert. True if it lacks fields.
    pub(super) async fn send(&mut self, item: &Arc<Item>) -> Result<bool, SinkError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let poison = |reason: String| SinkError::Poison { items: vec![Rejected { seq: item.seq, reason }] };
        let subject = subject(&self.prefix, item);
        if let Err(error) = subject.parse::<Subject>() {
            return Err(poison(format!("its detector's name makes no subject: {error}")));
        }
        let id = item.alert.msg_id();
        let header_bytes = header_bytes(&[("Nats-Msg-Id", &id), ("Nats-Expected-Stream", self.stream.as_str()), CONTENT_TYPE]);
        let (json, shrunk) = render_alert(&item.alert, Some(item.seq), self.max_message.saturating_sub(header_bytes));
        let bytes = header_bytes + json.len();
        if bytes > self.max_message {
            return Err(poison(format!("its shortest form has {bytes} bytes, and the hub takes {}", self.max_message)));
        }
        let message = PublishMessage::build()
            .message_id(id)
            .expected_stream(self.stream.as_str())
            .header(CONTENT_TYPE.0, CONTENT_TYPE.1)
            .payload(json.into());
        match self.context.send_publish(subject, message).await {
            Ok(ack) => {
                let item = Arc::clone(item);
                self.acks.push(Box::pin(async move { Answer { item, bytes, ack: ack.into_future().await } }));
                Ok(shrunk.is_some())
            }
            Err(error) => match error.kind() {
                PublishErrorKind::TimedOut => Err(SinkError::retry(format!("the connection took no alert in {:?}", self.ack_timeout))),
                _ => Err(self.end.reason_or(error.to_string()).await),
            },
        }
    }

    /// Waits for acknowledgements, or for the connection's end. Cancel safe: answers leave `acks` without a wait in between.
    pub(super) async fn confirmed(&mut self) -> Result<Vec<u64>, SinkError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let first = tokio::select! {
            // What is already confirmed stays confirmed, also when the connection is gone.
            biased;
            Some(answer) = self.acks.next() => answer,
            why = self.end.reason() => return Err(why),
        };
        let mut confirmed = Vec::new();
        let mut next = Some(first);
        while let Some(answer) = next {
            let seq = answer.item.seq;
            match self.judge(answer) {
                Verdict::Confirmed => confirmed.push(seq),
                Verdict::Ended(error) => {
                    self.failed = Some(error);
                    break;
                }
                // The client has ended, so its reason is known or about to be: nothing is forgotten when this wait is cut short.
                Verdict::Gone if confirmed.is_empty() => return Err(self.end.reason().await),
                Verdict::Gone => break,
            }
            next = self.acks.next().now_or_never().flatten();
        }
        match self.failed.take_if(|_| confirmed.is_empty()) {
            Some(error) => Err(error),
            None => Ok(confirmed),
        }
    }

    fn judge(&mut self, answer: Answer) -> Verdict {
        let Answer { item, bytes, ack } = answer;
        let seq = item.seq;
        let error = match ack {
            Ok(PublishAck { stream, duplicate, .. }) if stream == self.stream.as_str() => {
                self.duplicates += u64::from(duplicate);
                return Verdict::Confirmed;
            }
            Ok(PublishAck { stream, .. }) => {
                let reason =
                    format!("alert {seq} went to the stream {stream}, and not to {}: set `stream` to the one that is meant", self.stream);
                return Verdict::Ended(SinkError::Config { reason });
            }
            Err(error) => error,
        };
        match error.kind() {
            PublishErrorKind::BrokenPipe => Verdict::Gone,
            PublishErrorKind::StreamNotFound => Verdict::Ended(self.not_captured(&item)),
            PublishErrorKind::TimedOut => {
                let unanswered = self.acks.len() + 1;
                let reason =
                    format!("the hub did not acknowledge alert {seq} in {:?}; {unanswered} alerts are sent again", self.ack_timeout);
                Verdict::Ended(SinkError::retry(reason))
            }
            _ => {
                let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<jetstream::Error>());
                match source.map(|source| jetstream_error(&format!("alert {seq}"), source)) {
                    Some(Refusal::End(error)) => Verdict::Ended(error),
                    Some(Refusal::TooLarge(said)) => Verdict::Ended(self.too_large(seq, bytes, said)),
                    None => Verdict::Ended(SinkError::retry(format!("the hub's answer to alert {seq} cannot be used: {error}"))),
                }
            }
        }
    }

    /// Nobody answered for the subject of an alert.
    fn not_captured(&self, item: &Item) -> SinkError {
        let subject = subject(&self.prefix, item);
        if self.subjects.iter().any(|pattern| hub::can_meet(pattern, &subject)) {
            return SinkError::retry(format!("no stream on the hub takes {subject} any more: it was removed, changed or is stopping"));
        }
        let stream = &self.stream;
        SinkError::Config { reason: format!("the stream {stream} does not capture {subject}: add that to its subjects on the hub") }
    }

    /// The hub's limit is lower than it says. The next session tries with half, down to what an alert needs at least.
    fn too_large(&mut self, seq: u64, bytes: usize, said: String) -> SinkError {
        if bytes <= MIN_MESSAGE_BYTES {
            return SinkError::Poison { items: vec![Rejected { seq, reason: said }] };
        }
        self.cap = Some((bytes / 2).max(MIN_MESSAGE_BYTES));
        SinkError::retry(said)
    }
}

/// `<prefix>.alerts.<severity>.<detector>`.
fn subject(prefix: &SubjectPrefix, item: &Item) -> String {
    let own = item.alert.subject();
    // The bus's own subjects begin with one token, `sec`.
    let rest = own.as_str().split_once('.').map_or("", |(_, rest)| rest);
    format!("{prefix}.{rest}")
}

/// Bytes of a header block: `NATS/1.0`, a line for each, an empty line. max_payload counts them.
fn header_bytes(headers: &[(&str, &str)]) -> usize {
    let lines: usize = headers.iter().map(|(name, value)| name.len() + ": ".len() + value.len() + "\r\n".len()).sum();
    "NATS/1.0\r\n".len() + lines + "\r\n".len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shrink::tests::plain_alert;

    #[test]
    fn the_prefix_takes_the_place_of_the_buses_own() {
        let item = Item { seq: 1, alert: plain_alert(1), stored_bytes: 0 };
        assert_eq!(subject(&SubjectPrefix::default(), &item), item.alert.subject().as_str());
        let prefix = SubjectPrefix::try_from("fleet.web".to_owned()).unwrap();
        assert_eq!(subject(&prefix, &item), "fleet.web.alerts.high.runtime_watcher");
    }

    #[test]
    fn header_bytes_are_those_on_the_wire() {
        let block = "NATS/1.0\r\nNats-Msg-Id: a/1\r\nNats-Expected-Stream: ALERTS\r\nContent-Type: application/json\r\n\r\n";
        assert_eq!(header_bytes(&[("Nats-Msg-Id", "a/1"), ("Nats-Expected-Stream", "ALERTS"), CONTENT_TYPE]), block.len());
    }
}
