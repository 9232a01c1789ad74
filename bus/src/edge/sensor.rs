//! The sensor's own streams for NATS clients: JSON out, alerts of custom modules in.

use std::borrow::Cow;
use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::config::StreamName;
use crate::event::{
    Alert, AlertId, AlertJson, Attack, Confidence, EventJson, EventTime, PatternMatchJson, Severity, Status, decode_alert, decode_event,
    decode_match, encode_alert,
};
use crate::headers;
use crate::jetstream::{Builtin, StreamConfig};
use crate::message::{Message, PubAck};
use crate::nats::route::Routed;
use crate::store::Stored;
use crate::stream::Stream;

/// Longest text of an alert that a module publishes.
const LONGEST_TEXT: usize = 64 * 1024;

/// A stream's settings as JetStream shows them, and how it is served.
pub(super) fn builtin(stream: &Stream) -> (StreamConfig, Arc<dyn Builtin>) {
    let info = stream.info();
    let kind = match stream.name() {
        StreamName::Events => "events",
        StreamName::Alerts => "alerts",
        StreamName::Matches => "matches",
        StreamName::Responses => "responses",
    };
    let ns = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX);
    let config = StreamConfig {
        name: stream.name().as_str().to_owned(),
        description: format!("kept by Bartizan itself: {kind}"),
        subjects: vec![format!("sec.{kind}.>")],
        max_age: ns(info.max_age_s),
        duplicate_window: ns(info.duplicate_window_s),
        allow_direct: true,
        deny_delete: true,
        deny_purge: true,
        ..StreamConfig::default()
    };
    (config, Arc::new(SensorStream { stream: stream.clone() }))
}

struct SensorStream {
    stream: Stream,
}

impl Builtin for SensorStream {
    fn render<'a>(&self, message: &'a Stored) -> Cow<'a, [u8]> {
        render(self.stream.name(), message)
    }

    fn publish(&self, message: &Routed<'_>) -> Result<PubAck, String> {
        if self.stream.name() != StreamName::Alerts {
            return Err(format!(
                "{} is written by Bartizan itself; a module publishes alerts to sec.alerts.<severity>.<its name>",
                self.stream.name()
            ));
        }
        let alert = alert_of(message, now(), &host())?;
        let subject = alert.subject();
        let message = Message { subject, msg_id: Some(alert.msg_id()), time_ns: alert.time.wall_ns, payload: encode_alert(&alert).into() };
        self.stream.append(message).map_err(|error| error.to_string())
    }
}

/// A message of one of the sensor's streams as JSON.
pub(super) fn render(stream: StreamName, message: &Stored) -> Cow<'_, [u8]> {
    let (payload, seq) = (message.payload(), Some(message.seq));
    let json = match stream {
        StreamName::Events => decode_event(payload).ok().and_then(|event| serde_json::to_vec(&EventJson::new(&event, seq)).ok()),
        StreamName::Alerts => decode_alert(payload).ok().and_then(|alert| serde_json::to_vec(&AlertJson::new(&alert, seq)).ok()),
        StreamName::Matches => decode_match(payload).ok().and_then(|found| serde_json::to_vec(&PatternMatchJson::new(&found, seq)).ok()),
        StreamName::Responses => None,
    };
    // What does not read back is shown as it is: whoever looks should see that something is there.
    json.map_or(Cow::Borrowed(payload), Cow::Owned)
}

fn now() -> EventTime {
    let read = |clock| clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec());
    EventTime { boot_ns: u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0), wall_ns: read(ClockId::CLOCK_REALTIME) }
}

fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// An alert as a module writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModuleAlert {
    title: String,
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    explanation: String,
    #[serde(default)]
    confidence: Option<String>,
    #[serde(default)]
    attack: Vec<ModuleAttack>,
    #[serde(default)]
    next_steps: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModuleAttack {
    tactic: String,
    technique: String,
}

/// What a module published, as the alert it is. Its id is made of the module and the message id, so that publishing again with the same
/// `Nats-Msg-Id` is a duplicate; without one each publication is an alert of its own.
fn alert_of(message: &Routed<'_>, time: EventTime, host: &str) -> Result<Alert, String> {
    const FORM: &str = "an alert is published to sec.alerts.<severity>.<module>, severity being info, low, medium, high or critical";
    let mut tokens = message.subject.split('.').skip(2);
    let (Some(severity), Some(module), None) = (tokens.next(), tokens.next(), tokens.next()) else { return Err(FORM.to_owned()) };
    let severity = match severity {
        "info" => Severity::Info,
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "high" => Severity::High,
        "critical" => Severity::Critical,
        _ => return Err(FORM.to_owned()),
    };
    if message.payload.len() > LONGEST_TEXT {
        return Err(format!("an alert has at most {LONGEST_TEXT} bytes, this one has {}", message.payload.len()));
    }
    let given: ModuleAlert = serde_json::from_slice(message.payload).map_err(|error| {
        format!("an alert is a JSON object with \"title\", and may have \"rule\", \"explanation\", \"confidence\", \"attack\", \"next_steps\": {error}")
    })?;
    if given.title.trim().is_empty() {
        return Err("an alert needs a title".to_owned());
    }
    let confidence = match given.confidence.as_deref() {
        None | Some("medium") => Confidence::Medium,
        Some("low") => Confidence::Low,
        Some("high") => Confidence::High,
        Some(other) => return Err(format!("confidence is low, medium or high, not {other:?}")),
    };
    let mut hasher = Sha256::new();
    hasher.update(b"module alert\0");
    hasher.update(module);
    match headers::get(message.headers, headers::MSG_ID) {
        Some(id) => hasher.update([b"\0id\0", id.as_bytes()].concat()),
        None => hasher.update([&b"\0at\0"[..], &time.boot_ns.to_le_bytes(), &time.wall_ns.to_le_bytes(), message.payload].concat()),
    }
    hasher.update([b"\0", host.as_bytes()].concat());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize()[..16]);
    Ok(Alert {
        id: AlertId(id),
        revision: 1,
        time,
        host: host.to_owned(),
        detector: module.to_owned(),
        rule: given.rule.unwrap_or_else(|| module.to_owned()),
        title: given.title,
        severity,
        confidence,
        attack: given.attack.into_iter().map(|ModuleAttack { tactic, technique }| Attack { tactic, technique }).collect(),
        entities: Vec::new(),
        evidence: Vec::new(),
        trigger_seq: 0,
        lineage: Vec::new(),
        explanation: given.explanation,
        next_steps: given.next_steps,
        status: Status::Open,
        login: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(subject: &'a str, headers: &'a [u8], payload: &'a str) -> Routed<'a> {
        Routed { subject, reply: None, headers, payload: payload.as_bytes(), module: None }
    }

    #[test]
    fn a_module_alert_becomes_an_alert_under_its_name() {
        let headers = headers::msg_id_block("42");
        let time = EventTime { boot_ns: 5, wall_ns: 7 };
        let json = r#"{"title":"odd","attack":[{"tactic":"TA0002","technique":"T1059"}],"confidence":"high"}"#;
        let alert = alert_of(&message("sec.alerts.high.scanner", &headers, json), time, "h").expect("an alert");
        assert_eq!((alert.subject().as_str(), alert.title.as_str(), alert.severity), ("sec.alerts.high.scanner", "odd", Severity::High));
        let again =
            alert_of(&message("sec.alerts.high.scanner", &headers, json), EventTime { boot_ns: 9, wall_ns: 9 }, "h").expect("an alert");
        assert_eq!(again.msg_id(), alert.msg_id(), "the same message id is the same alert");
        let other = alert_of(&message("sec.alerts.high.other", &headers, json), time, "h").expect("an alert");
        assert_ne!(other.id, alert.id);
    }

    #[test]
    fn what_is_no_alert_is_refused_with_a_reason() {
        for (subject, payload, words) in [
            ("sec.alerts.high", "{}", "sec.alerts.<severity>.<module>"),
            ("sec.alerts.grave.m", "{}", "severity"),
            ("sec.alerts.high.m.x", "{}", "sec.alerts.<severity>.<module>"),
            ("sec.alerts.high.m", "{}", "title"),
            ("sec.alerts.high.m", "no json", "JSON"),
            ("sec.alerts.high.m", r#"{"title":" "}"#, "title"),
            ("sec.alerts.high.m", r#"{"title":"x","severity":"low"}"#, "unknown field"),
            ("sec.alerts.high.m", r#"{"title":"x","confidence":"sure"}"#, "confidence"),
        ] {
            let error = alert_of(&message(subject, b"", payload), EventTime::default(), "h").expect_err(payload);
            assert!(error.contains(words), "{error}");
        }
    }
}
