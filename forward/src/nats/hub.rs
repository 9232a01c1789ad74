//! The stream on the hub: that it is there, takes these alerts and acknowledges them, and how long it knows a repeat.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{RequestError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use bartizan_bus::event::Severity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::connect::End;
use super::errors::{Refusal, jetstream_error};
use crate::config::{HubStream, NatsConfig, SubjectPrefix};
use crate::sink::SinkError;

/// Duplicate window of a stream that Bartizan makes, and the shortest that it does not warn about: an alert whose
/// acknowledgement was lost with the connection is recognised if the hub is back within a day.
pub(super) const DUPLICATE_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Age limit of a stream that Bartizan makes: as long as its own ALERTS keeps them.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Smallest message in bytes, headers included, that a hub must take: the shortest form of an alert fits with room to spare.
pub(super) const MIN_MESSAGE_BYTES: usize = 2048;

/// JetStream's error number for a stream that is not there.
const STREAM_NOT_FOUND: u64 = 10059;

/// What Bartizan reads of a stream's configuration. Anything else may be as it likes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct StreamConfig {
    #[serde(default)]
    subjects: Option<Vec<String>>,
    /// Nanoseconds.
    #[serde(default)]
    duplicate_window: u64,
    /// Bytes; 0 and less mean no limit.
    #[serde(default)]
    max_msg_size: i64,
    #[serde(default)]
    no_ack: bool,
    #[serde(default)]
    sealed: bool,
}

#[derive(Debug, Deserialize)]
struct StreamInfo {
    config: StreamConfig,
}

/// What Bartizan asks for with `create_stream`.
#[derive(Debug, Serialize)]
struct NewStream<'a> {
    name: &'a str,
    subjects: [String; 1],
    retention: &'static str,
    storage: &'static str,
    discard: &'static str,
    num_replicas: u32,
    /// Nanoseconds, as is the next.
    max_age: u64,
    duplicate_window: u64,
}

/// What a session needs to know about the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hub {
    /// The stream's subjects when the session began.
    pub(super) subjects: Vec<String>,
    /// The stream's own limit in bytes, headers included.
    pub(super) max_message: Option<usize>,
    /// For the operator, although delivery works.
    pub(super) warning: Option<String>,
}

/// Subjects of all alerts under this prefix.
fn all_alerts(prefix: &SubjectPrefix) -> String {
    format!("{prefix}.alerts.>")
}

/// The `nats` command that makes the stream as `create_stream` would.
fn add_command(stream: &HubStream, prefix: &SubjectPrefix) -> String {
    format!(
        "nats stream add {stream} --subjects '{}' --storage file --retention limits --discard old --max-age 30d --dupe-window 24h --defaults",
        all_alerts(prefix)
    )
}

/// Looks at the stream, makes it if that is wanted, and checks it.
pub(super) async fn examine(
    context: &Context,
    end: &End,
    has_jetstream: bool,
    config: &NatsConfig,
    min_severity: Severity,
) -> Result<Hub, SinkError> {
    let NatsConfig { stream, create_stream, subject_prefix, .. } = config;
    let ask = Ask { context, end, has_jetstream, limit: config.ack_timeout.0 };
    let found = match ask.request(format!("STREAM.INFO.{stream}"), &serde_json::json!({})).await? {
        Response::Ok(StreamInfo { config }) => config,
        Response::Err { error } if error.error_code().0 == STREAM_NOT_FOUND => {
            if !create_stream {
                let command = add_command(stream, subject_prefix);
                let reason = format!("the hub has no stream {stream}: make it with `{command}`, or set create_stream = true");
                return Err(SinkError::Config { reason });
            }
            let new = NewStream {
                name: stream.as_str(),
                subjects: [all_alerts(subject_prefix)],
                retention: "limits",
                storage: "file",
                discard: "old",
                num_replicas: 1,
                max_age: nanoseconds(MAX_AGE),
                duplicate_window: nanoseconds(DUPLICATE_WINDOW),
            };
            match ask.request(format!("STREAM.CREATE.{stream}"), &new).await? {
                Response::Ok(StreamInfo { config }) => {
                    tracing::info!(%stream, "made the stream on the hub");
                    config
                }
                Response::Err { error } => return Err(refused(&format!("to make the stream {stream}"), &error)),
            }
        }
        Response::Err { error } => return Err(refused(&format!("to show the stream {stream}"), &error)),
    };
    check(&found, stream, subject_prefix, min_severity)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn refused(what: &str, error: &async_nats::jetstream::Error) -> SinkError {
    match jetstream_error(what, error) {
        Refusal::End(error) => error,
        Refusal::TooLarge(said) => SinkError::retry(said),
    }
}

/// Asks JetStream's API on one connection.
struct Ask<'a> {
    context: &'a Context,
    end: &'a End,
    has_jetstream: bool,
    limit: Duration,
}

impl Ask<'_> {
    async fn request<T: DeserializeOwned>(&self, subject: String, body: &impl Serialize) -> Result<Response<T>, SinkError> {
        let Self { context, end, has_jetstream: _, limit: _ } = self;
        let answer = tokio::select! {
            biased;
            answer = context.request(subject.clone(), body) => answer,
            // A permission that lacks is said on the connection, and the request would only time out.
            why = end.reason() => return Err(why),
        };
        answer.map_err(|error| self.unanswered(&subject, &error))
    }

    fn unanswered(&self, subject: &str, error: &RequestError) -> SinkError {
        match error.kind() {
            RequestErrorKind::NoResponders if !self.has_jetstream => SinkError::Config {
                reason: "the hub has no JetStream: enable it there (`jetstream {}` in the server's configuration, or `-js`), or set \
                         address to a server that has it"
                    .to_owned(),
            },
            RequestErrorKind::NoResponders => SinkError::retry(format!(
                "nobody on the hub answers {subject}: JetStream is starting or stopping there, or `domain` names one that it does not have"
            )),
            RequestErrorKind::TimedOut => SinkError::retry(format!("the hub did not answer {subject} in {:?}", self.limit)),
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                SinkError::retry(format!("the hub's answer to {subject} cannot be used: {error}"))
            }
        }
    }
}

/// Whether alerts can be delivered to such a stream at all.
fn check(config: &StreamConfig, stream: &HubStream, prefix: &SubjectPrefix, min_severity: Severity) -> Result<Hub, SinkError> {
    let StreamConfig { subjects, duplicate_window, max_msg_size, no_ack, sealed } = config;
    let refuse = |why: String| Err(SinkError::Config { reason: format!("the stream {stream} on the hub {why}") });
    if *no_ack {
        return refuse("acknowledges nothing (no_ack): nothing could be confirmed; make it with acknowledgements".to_owned());
    }
    if *sealed {
        return refuse("is sealed and takes nothing more: name another one".to_owned());
    }
    let subjects = subjects.clone().unwrap_or_default();
    let severities = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    for severity in severities.into_iter().filter(|severity| *severity >= min_severity) {
        let wanted = format!("{prefix}.alerts.{}.*", severity.as_str());
        if !subjects.iter().any(|subject| can_meet(subject, &wanted)) {
            let all = all_alerts(prefix);
            let has = if subjects.is_empty() { "no subject of its own".to_owned() } else { subjects.join(", ") };
            return refuse(format!(
                "captures {has}, and not {wanted}: run `nats stream edit {stream} --subjects '{all}'` with its other subjects added, or change \
                 subject_prefix"
            ));
        }
    }
    let max_message = usize::try_from(*max_msg_size).ok().filter(|limit| *limit > 0);
    if let Some(limit) = max_message.filter(|limit| *limit < MIN_MESSAGE_BYTES) {
        return refuse(format!("takes messages of {limit} bytes at most: raise its max_msg_size to {MIN_MESSAGE_BYTES} or more"));
    }
    let window = Duration::from_nanos(*duplicate_window);
    let warning = (window < DUPLICATE_WINDOW).then(|| {
        format!(
            "the stream {stream} on the hub recognises a repeated message for {window:?} only: alerts whose acknowledgement is lost in a longer \
             outage are stored twice (same id and revision); run `nats stream edit {stream} --dupe-window 24h`"
        )
    });
    Ok(Hub { subjects, max_message, warning })
}

/// Whether some subject fits both patterns. `*` stands for one token, `>` at the end for one or more.
pub(super) fn can_meet(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(json: serde_json::Value) -> StreamConfig {
        serde_json::from_value(json).unwrap()
    }

    fn checked(json: serde_json::Value, min_severity: Severity) -> Result<Hub, SinkError> {
        check(&config(json), &HubStream::default(), &SubjectPrefix::default(), min_severity)
    }

    #[test]
    fn a_stream_that_fits() {
        let hub = checked(
            serde_json::json!({ "subjects": ["a.>", "sec.alerts.>"], "duplicate_window": 86_400_000_000_000_u64, "max_msg_size": 65536 }),
            Severity::Info,
        );
        let expected = Hub { subjects: vec!["a.>".to_owned(), "sec.alerts.>".to_owned()], max_message: Some(65536), warning: None };
        assert_eq!(hub, Ok(expected));
        let hub = checked(
            serde_json::json!({ "subjects": ["sec.>"], "duplicate_window": 120_000_000_000_u64, "max_msg_size": -1 }),
            Severity::Info,
        );
        let hub = hub.unwrap();
        assert_eq!(hub.max_message, None);
        assert!(hub.warning.unwrap().contains("120s only"));
    }

    #[test]
    fn a_stream_that_cannot_do_is_refused_with_a_remedy() {
        for (json, expected) in [
            (serde_json::json!({ "subjects": ["sec.>"], "no_ack": true }), "no_ack"),
            (serde_json::json!({ "subjects": ["sec.>"], "sealed": true }), "sealed"),
            (serde_json::json!({ "subjects": ["sec.events.>"] }), "captures sec.events.>, and not sec.alerts.info.*"),
            (serde_json::json!({ "subjects": null }), "no subject of its own"),
            (serde_json::json!({ "subjects": ["sec.>"], "max_msg_size": 500 }), "500 bytes"),
            (serde_json::json!({ "subjects": ["sec.alerts.critical.*"] }), "sec.alerts.info.*"),
        ] {
            let error = checked(json, Severity::Info).unwrap_err();
            assert!(matches!(&error, SinkError::Config { reason } if reason.contains(expected)), "{error}");
        }
        assert!(checked(serde_json::json!({ "subjects": ["sec.alerts.critical.*"] }), Severity::Critical).is_ok());
    }

    #[test]
    fn the_command_makes_what_create_stream_makes() {
        let command = add_command(&HubStream::default(), &SubjectPrefix::default());
        assert!(command.contains("add ALERTS --subjects 'sec.alerts.>'") && command.contains("--max-age 30d") && command.contains("24h"));
        assert_eq!((MAX_AGE.as_secs() / 86_400, DUPLICATE_WINDOW.as_secs() / 3600), (30, 24));
    }

    #[test]
    fn patterns_meet() {
        for (a, b, meet) in [
            ("sec.alerts.>", "sec.alerts.low.x", true),
            (">", "sec", true),
            ("sec.>", "sec", false),
            ("sec.*.low.*", "sec.alerts.low.x", true),
            ("sec.alerts.*", "sec.alerts.low.x", false),
            ("sec.alerts.low.x.y", "sec.alerts.low.x", false),
            ("sec.alerts.high.x", "sec.alerts.*.x", true),
            ("sec.alerts.high.x", "sec.alerts.low.x", false),
        ] {
            assert_eq!(can_meet(a, b), meet, "{a} {b}");
            assert_eq!(can_meet(b, a), meet, "{b} {a}");
        }
    }

    proptest! {
        /// A subject fits a pattern made from it by putting wildcards in its tokens' places.
        #[test]
        fn a_subject_meets_its_own_patterns(tokens in prop::collection::vec(("[a-z]{1,3}", any::<bool>()), 1..6), cut in any::<Option<prop::sample::Index>>()) {
            let subject = tokens.iter().map(|(token, _)| token.as_str()).collect::<Vec<_>>().join(".");
            let mut pattern: Vec<&str> = tokens.iter().map(|(token, wild)| if *wild { "*" } else { token.as_str() }).collect();
            if let Some(cut) = cut {
                pattern.truncate(cut.index(pattern.len()));
                pattern.push(">");
            }
            prop_assert!(can_meet(&pattern.join("."), &subject));
        }

        /// Whatever a hub answers, reading it ends in a value or an error.
        #[test]
        fn any_answer_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), window: i64, size: i64) {
            let _any = serde_json::from_slice::<Response<StreamInfo>>(&bytes);
            let answer = format!("{{\"config\":{{\"subjects\":[\"sec.>\"],\"duplicate_window\":{window},\"max_msg_size\":{size}}}}}");
            if let Ok(Response::Ok(StreamInfo { config })) = serde_json::from_str(&answer) {
                let _verdict = check(&config, &HubStream::default(), &SubjectPrefix::default(), Severity::Info);
            }
        }
    }
}
