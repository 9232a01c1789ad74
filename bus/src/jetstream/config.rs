//! Stream and consumer settings as JSON has them: reading, completing, checking.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ApiError;
use crate::pattern::{Filter, Pattern};
use crate::store::Limits;

/// Longest name of a stream or consumer.
const MAX_NAME: usize = 255;
const MIN_AGE: i64 = 100_000_000;
const DEFAULT_WINDOW: i64 = 120_000_000_000;
const DEFAULT_ACK_WAIT: i64 = 30_000_000_000;
const DEFAULT_MAX_ACK_PENDING: i64 = 1000;
const DEFAULT_MAX_WAITING: i64 = 512;
const DEFAULT_INACTIVE: i64 = 5_000_000_000;
/// State on disk and in memory is bounded by it; nats-server has no bound.
pub(crate) const MOST_ACK_PENDING: i64 = 1_000_000;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a full stream does with one more message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// Deletes the oldest.
    #[default]
    Old,
    /// Refuses the new one.
    New,
}

/// Where a stream is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// What a stream's consumers may ask for at most, and get when they ask for nothing; 0 for JetStream's own defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are JetStream's own")]
pub struct ConsumerLimits {
    #[serde(skip_serializing_if = "is_default")]
    pub inactive_threshold: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
}

/// A stream's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are JetStream's own: https://docs.nats.io/nats-concepts/jetstream/streams")]
pub struct StreamConfig {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub subjects: Vec<String>,
    pub retention: String,
    pub max_consumers: i64,
    pub max_msgs: i64,
    pub max_bytes: i64,
    pub max_age: i64,
    pub max_msgs_per_subject: i64,
    pub max_msg_size: i64,
    pub discard: Discard,
    pub storage: Storage,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub no_ack: bool,
    pub duplicate_window: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub discard_new_per_subject: bool,
    pub compression: String,
    #[serde(skip_serializing_if = "is_default")]
    pub first_seq: u64,
    pub allow_direct: bool,
    pub mirror_direct: bool,
    pub sealed: bool,
    pub deny_delete: bool,
    pub deny_purge: bool,
    pub allow_rollup_hdrs: bool,
    pub consumer_limits: ConsumerLimits,
    #[serde(skip_serializing_if = "is_default")]
    pub allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub subject_delete_marker_ttl: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing)]
    pub pedantic: Option<bool>,
    #[serde(skip_serializing)]
    pub template_owner: Option<Value>,
    #[serde(skip_serializing)]
    pub placement: Option<Value>,
    #[serde(skip_serializing)]
    pub mirror: Option<Value>,
    #[serde(skip_serializing)]
    pub sources: Option<Vec<Value>>,
    #[serde(skip_serializing)]
    pub subject_transform: Option<Value>,
    #[serde(skip_serializing)]
    pub republish: Option<Value>,
    #[serde(skip_serializing)]
    pub allow_atomic: Option<bool>,
    #[serde(skip_serializing)]
    pub allow_batched: Option<bool>,
    #[serde(skip_serializing)]
    pub allow_msg_counter: Option<bool>,
    #[serde(skip_serializing)]
    pub allow_msg_schedules: Option<bool>,
    #[serde(skip_serializing)]
    pub persist_mode: Option<String>,
}

/// Whether a name may be a stream's or consumer's.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains([' ', '\t', '\r', '\n', '\x0c', '.', '*', '>', '\\', '/'])
}

impl StreamConfig {
    /// Completes and checks what a client sent.
    pub(crate) fn checked(mut self) -> Result<Self, ApiError> {
        if self.name.contains(['/', '\\']) {
            return Err(ApiError::stream_separators());
        }
        let reason = |reason: &str| Err(ApiError::stream_config(reason));
        if !is_name(&self.name) {
            return reason("stream name is required and can not contain '.', '*', '>', '\\', '/'");
        }
        for limit in
            [&mut self.max_consumers, &mut self.max_msgs, &mut self.max_bytes, &mut self.max_msgs_per_subject, &mut self.max_msg_size]
        {
            if *limit <= 0 {
                *limit = -1;
            }
        }
        match self.num_replicas {
            0 | 1 => self.num_replicas = 1,
            _ => return Err(ApiError::replicas()),
        }
        match self.retention.as_str() {
            "" | "limits" => self.retention = "limits".to_owned(),
            "interest" | "workqueue" => {
                return reason("this server keeps streams by limits only: interest and work-queue retention are not supported");
            }
            _ => return Err(ApiError::invalid_json(format!("can not unmarshal {:?}", self.retention))),
        }
        match self.compression.as_str() {
            "" => self.compression = "none".to_owned(),
            "none" | "s2" => {}
            _ => return Err(ApiError::invalid_json("unknown compression algorithm")),
        }
        let unsupported = [
            (self.mirror.is_some(), "mirrors"),
            (self.sources.as_ref().is_some_and(|sources| !sources.is_empty()), "sources"),
            (self.subject_transform.is_some(), "subject transforms"),
            (self.republish.is_some(), "republish"),
            (self.placement.as_ref().is_some_and(|placement| !placement.as_object().is_some_and(serde_json::Map::is_empty)), "placement"),
            (self.allow_atomic == Some(true) || self.allow_batched == Some(true), "batch publishing"),
            (self.allow_msg_counter == Some(true), "counters"),
            (self.allow_msg_schedules == Some(true), "scheduled messages"),
            (self.subject_delete_marker_ttl != 0, "subject delete markers"),
            (self.first_seq > 1, "a first sequence"),
        ];
        if let Some((_, what)) = unsupported.iter().find(|(asked, _)| *asked) {
            return Err(ApiError::stream_config(format!("{what} are not supported by this server")));
        }
        if self.max_age != 0 && self.max_age < MIN_AGE {
            return reason("max age needs to be >= 100ms");
        }
        if self.duplicate_window == 0 {
            self.duplicate_window = if self.max_age > 0 { DEFAULT_WINDOW.min(self.max_age) } else { DEFAULT_WINDOW };
        }
        if self.max_age > 0 && self.duplicate_window > self.max_age {
            return reason("duplicates window can not be larger then max age");
        }
        if self.duplicate_window < MIN_AGE {
            return reason("duplicates window needs to be >= 100ms");
        }
        if self.discard_new_per_subject {
            if self.discard != Discard::New {
                return reason("discard new per subject requires discard new policy to be set");
            }
            if self.max_msgs_per_subject <= 0 {
                return reason("discard new per subject requires max msgs per subject > 0");
            }
        }
        if self.deny_purge && self.allow_rollup_hdrs {
            return reason("roll-ups require the purge permission");
        }
        if self.sealed {
            (self.max_age, self.discard, self.deny_delete, self.deny_purge, self.allow_rollup_hdrs) = (0, Discard::New, true, true, false);
        }
        if self.subjects.is_empty() {
            self.subjects = vec![self.name.clone()];
        }
        self.check_subjects()?;
        Ok(self)
    }

    fn check_subjects(&self) -> Result<(), ApiError> {
        let patterns = self.patterns()?;
        for (n, pattern) in patterns.iter().enumerate() {
            if pattern.is_all() && !self.no_ack {
                return Err(ApiError::stream_config("capturing all subjects requires no-ack to be true"));
            }
            for (reserved, but, what) in [("$JS.>", Some("$JS.EVENT.>"), "jetstream api"), ("$SYS.>", None, "system api")] {
                let parse = |text: &str| text.parse::<Pattern>().ok();
                let overlaps = parse(reserved).is_some_and(|reserved| reserved.overlaps(pattern));
                let excused = but.and_then(parse).is_some_and(|but| but.covers(pattern));
                if overlaps && !excused && !self.no_ack {
                    return Err(ApiError::stream_config(format!("subjects that overlap with {what} require no-ack to be true")));
                }
            }
            for other in &patterns[..n] {
                if other == pattern {
                    return Err(ApiError::stream_config("duplicate subjects detected"));
                }
                if other.overlaps(pattern) {
                    return Err(ApiError::stream_config(format!("subject \"{other}\" overlaps with \"{pattern}\"")));
                }
            }
        }
        Ok(())
    }

    /// Its subjects.
    pub(crate) fn patterns(&self) -> Result<Vec<Pattern>, ApiError> {
        let parse = |subject: &String| subject.parse::<Pattern>().map_err(|_| ApiError::stream_config("invalid subject"));
        self.subjects.iter().map(parse).collect()
    }

    /// What the store keeps by itself. A stream that discards new messages deletes nothing for them.
    pub(crate) fn limits(&self) -> Limits {
        let limit = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let old = self.discard == Discard::Old;
        Limits {
            max_msgs: limit(self.max_msgs).filter(|_| old),
            max_bytes: limit(self.max_bytes).filter(|_| old),
            max_age: limit(self.max_age).map(Duration::from_nanos),
            max_msgs_per_subject: limit(self.max_msgs_per_subject).filter(|_| !self.discard_new_per_subject),
        }
    }

    /// Whether an existing stream may become this.
    pub(crate) fn check_update(&self, new: &Self) -> Result<(), ApiError> {
        let reason = |reason: &str| Err(ApiError::stream_config(reason));
        if self.storage != new.storage {
            return reason("stream configuration update can not change storage type");
        }
        if self.sealed && !new.sealed {
            return reason("stream configuration update can not unseal a sealed stream");
        }
        if self.deny_delete && !new.deny_delete {
            return reason("stream configuration update can not cancel deny message deletes");
        }
        if self.deny_purge && !new.deny_purge {
            return reason("stream configuration update can not cancel deny purge");
        }
        if self.allow_msg_ttl && !new.allow_msg_ttl {
            return reason("message TTL status can not be disabled");
        }
        Ok(())
    }
}

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are JetStream's own")]
pub enum DeliverPolicy {
    #[default]
    All,
    Last,
    New,
    ByStartSequence,
    ByStartTime,
    LastPerSubject,
}

/// What must be acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are JetStream's own")]
pub enum AckPolicy {
    #[default]
    None,
    All,
    Explicit,
}

/// A consumer's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are JetStream's own: https://docs.nats.io/nats-concepts/jetstream/consumers")]
pub struct ConsumerConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub durable_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "is_default")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<String>,
    pub ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "is_default")]
    pub ack_wait: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_deliver: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    pub replay_policy: String,
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit_bps: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sample_freq: String,
    #[serde(skip_serializing_if = "is_default")]
    pub max_waiting: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub flow_control: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub headers_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub max_batch: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_expires: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub max_bytes: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    #[serde(skip_serializing_if = "is_default")]
    pub idle_heartbeat: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub inactive_threshold: i64,
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub mem_storage: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<String>,
    #[serde(skip_serializing)]
    pub direct: Option<bool>,
    #[serde(skip_serializing)]
    pub priority_groups: Option<Vec<String>>,
    #[serde(skip_serializing)]
    pub priority_policy: Option<String>,
    #[serde(skip_serializing)]
    pub priority_timeout: Option<i64>,
}

impl ConsumerConfig {
    /// Whether messages are pushed to a subject.
    pub(crate) fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// Whether it survives without anybody using it.
    pub(crate) fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// Which subjects it is for.
    pub(crate) fn filter(&self) -> Result<Filter, ApiError> {
        let parse = |subject: &str| subject.parse::<Pattern>().map_err(|_| ApiError::consumer("invalid filter subject"));
        if !self.filter_subject.is_empty() {
            return Ok(parse(&self.filter_subject)?.into());
        }
        let patterns: Result<Vec<Pattern>, ApiError> = self.filter_subjects.iter().map(|subject| parse(subject)).collect();
        Ok(Filter::any_of(patterns?))
    }

    /// Completes and checks what a client sent, for a stream with these subjects.
    pub(crate) fn checked(mut self, stream: &StreamConfig) -> Result<Self, ApiError> {
        match self.replay_policy.as_str() {
            "" | "instant" => self.replay_policy = "instant".to_owned(),
            "original" => return Err(ApiError::consumer("replay at the original pace is not supported by this server")),
            other => return Err(ApiError::invalid_json(format!("can not unmarshal {other:?}"))),
        }
        if self.num_replicas > 1 {
            return Err(ApiError::replicas());
        }
        if self.priority_groups.as_ref().is_some_and(|groups| !groups.is_empty())
            || self.priority_policy.as_ref().is_some_and(|policy| !policy.is_empty() && policy != "none")
        {
            return Err(ApiError::consumer("priority groups are not supported by this server"));
        }
        if self.rate_limit_bps > 0 && self.is_push() {
            return Err(ApiError::consumer("rate limits are not supported by this server"));
        }
        if !matches!(self.sample_freq.trim_end_matches('%'), "" | "0") {
            return Err(ApiError::consumer("sampling of acknowledgements is not supported by this server"));
        }
        if self.direct == Some(true) {
            return Err(ApiError::consumer("direct consumers are not supported by this server"));
        }
        if self.pause_until.as_ref().is_some_and(|until| until.parse::<jiff::Timestamp>().is_err()) {
            return Err(ApiError::invalid_json("pause_until is not a time"));
        }
        if self.ack_wait < 0 {
            return Err(ApiError::ack_wait_negative());
        }
        if self.backoff.iter().any(|wait| *wait < 0) {
            return Err(ApiError::backoff_negative());
        }
        self.complete(&stream.consumer_limits);
        self.check_limits(&stream.consumer_limits)?;
        self.check_kind()?;
        self.check_filters(stream)?;
        self.check_start()?;
        if self.max_ack_pending > MOST_ACK_PENDING {
            return Err(ApiError::max_ack_pending_limit(MOST_ACK_PENDING));
        }
        Ok(self)
    }

    fn check_limits(&self, limits: &ConsumerLimits) -> Result<(), ApiError> {
        if limits.max_ack_pending > 0 && (self.max_ack_pending > limits.max_ack_pending || self.max_ack_pending < 0) {
            return Err(ApiError::max_ack_pending_limit(limits.max_ack_pending));
        }
        if limits.inactive_threshold > 0 && self.inactive_threshold > limits.inactive_threshold {
            return Err(ApiError::inactive_threshold_limit(limits.inactive_threshold));
        }
        Ok(())
    }

    fn complete(&mut self, limits: &ConsumerLimits) {
        let acked = self.ack_policy != AckPolicy::None;
        if let Some(first) = self.backoff.first() {
            self.ack_wait = *first;
        } else if self.ack_wait <= 0 && acked {
            self.ack_wait = DEFAULT_ACK_WAIT;
        }
        if self.max_deliver == 0 {
            self.max_deliver = -1;
        }
        if acked && self.max_ack_pending == 0 {
            self.max_ack_pending = if limits.max_ack_pending > 0 { limits.max_ack_pending } else { DEFAULT_MAX_ACK_PENDING };
        }
        if self.inactive_threshold <= 0 && limits.inactive_threshold > 0 {
            self.inactive_threshold = limits.inactive_threshold;
        }
        if !self.is_push() && self.max_waiting == 0 {
            self.max_waiting = DEFAULT_MAX_WAITING;
        }
        if !self.is_durable() && self.inactive_threshold <= 0 {
            self.inactive_threshold = DEFAULT_INACTIVE;
        }
    }

    fn check_kind(&self) -> Result<(), ApiError> {
        if !self.backoff.is_empty() && self.max_deliver != -1 && (self.max_deliver as usize) < self.backoff.len() {
            return Err(ApiError::max_deliver_backoff());
        }
        if self.is_push() {
            let Ok(subject) = self.deliver_subject.parse::<Pattern>() else { return Err(ApiError::bad_deliver_subject()) };
            if !subject.is_literal() {
                return Err(ApiError::deliver_to_wildcards());
            }
            if self.max_waiting != 0 {
                return Err(ApiError::push_max_waiting());
            }
            if self.max_ack_pending > 0 && self.ack_policy == AckPolicy::None {
                return Err(ApiError::max_ack_pending_policy());
            }
            if self.idle_heartbeat > 0 && self.idle_heartbeat < MIN_AGE {
                return Err(ApiError::small_heartbeat());
            }
            if self.flow_control && self.idle_heartbeat <= 0 {
                return Err(ApiError::flow_control_heartbeat());
            }
            return Ok(());
        }
        if self.rate_limit_bps > 0 {
            return Err(ApiError::pull_rate_limit());
        }
        if self.max_waiting < 0 {
            return Err(ApiError::max_waiting_negative());
        }
        if self.idle_heartbeat > 0 {
            return Err(ApiError::heartbeat_pull());
        }
        if self.flow_control {
            return Err(ApiError::flow_control_pull());
        }
        if self.max_batch < 0 {
            return Err(ApiError::max_batch_negative());
        }
        if self.max_expires != 0 && self.max_expires < 1_000_000 {
            return Err(ApiError::max_expires_small());
        }
        Ok(())
    }

    fn check_filters(&self, stream: &StreamConfig) -> Result<(), ApiError> {
        if !self.filter_subject.is_empty() && !self.filter_subjects.is_empty() {
            return Err(ApiError::filter_and_filters());
        }
        if self.filter_subjects.iter().any(String::is_empty) {
            return Err(ApiError::filter_empty());
        }
        let filter = self.filter()?;
        for (n, pattern) in filter.patterns().iter().enumerate() {
            if filter.patterns()[..n].iter().any(|other| other.overlaps(pattern)) {
                return Err(ApiError::filters_overlap());
            }
        }
        if self.is_push() {
            let deliver = self.deliver_subject.parse::<Pattern>().map_err(|_| ApiError::bad_deliver_subject())?;
            if stream.patterns()?.iter().any(|pattern| pattern.overlaps(&deliver)) {
                return Err(ApiError::deliver_cycle());
            }
        }
        Ok(())
    }

    fn check_start(&self) -> Result<(), ApiError> {
        let reason = |reason: &str| Err(ApiError::deliver_policy(reason));
        let (seq, time) = (self.opt_start_seq > 0, self.opt_start_time.is_some());
        match self.deliver_policy {
            DeliverPolicy::ByStartSequence if !seq => {
                reason("consumer delivery policy is deliver by start sequence, but optional start sequence is not set")
            }
            DeliverPolicy::ByStartSequence if time => {
                reason("consumer delivery policy is deliver by start sequence, but optional start time is also set")
            }
            DeliverPolicy::ByStartTime if !time => {
                reason("consumer delivery policy is deliver by start time, but optional start time is not set")
            }
            DeliverPolicy::ByStartTime if seq => {
                reason("consumer delivery policy is deliver by start time, but optional start sequence is also set")
            }
            DeliverPolicy::ByStartSequence | DeliverPolicy::ByStartTime => Ok(()),
            DeliverPolicy::LastPerSubject if self.filter_subject.is_empty() && self.filter_subjects.is_empty() => {
                reason("consumer delivery policy is deliver last per subject, but optional filter subject is not set")
            }
            _ if seq => reason("consumer delivery policy is not by start sequence, but optional start sequence is also set"),
            _ if time => reason("consumer delivery policy is not by start time, but optional start time is also set"),
            _ => Ok(()),
        }
    }

    /// Whether an existing consumer may become this.
    pub(crate) fn check_update(&self, new: &Self) -> Result<(), ApiError> {
        let fixed = [
            (self.deliver_policy != new.deliver_policy, "deliver policy can not be updated"),
            (self.opt_start_seq != new.opt_start_seq, "start sequence can not be updated"),
            (self.opt_start_time != new.opt_start_time, "start time can not be updated"),
            (self.ack_policy != new.ack_policy, "ack policy can not be updated"),
            (self.replay_policy != new.replay_policy, "replay policy can not be updated"),
            (self.idle_heartbeat != new.idle_heartbeat, "heart beats can not be updated"),
            (self.flow_control != new.flow_control, "flow control can not be updated"),
            (self.is_push() && !new.is_push(), "can not update push consumer to pull based"),
            (!self.is_push() && new.is_push(), "can not update pull consumer to push based"),
            (self.max_waiting != new.max_waiting, "max waiting can not be updated"),
            (self.mem_storage != new.mem_storage, "storage type can not be updated"),
        ];
        match fixed.iter().find(|(changed, _)| *changed) {
            Some((_, reason)) => Err(ApiError::consumer(*reason)),
            None => Ok(()),
        }
    }
}

/// Reads a request strictly: an unknown field is an error, `null` is as good as nothing.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(ApiError::invalid_json)?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
            Some(field) => ApiError::invalid_json(format!("json: unknown field {field:?}")),
            None => ApiError::invalid_json(text),
        }
    })
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minimal_stream_is_completed_as_nats_server_does() {
        let config: StreamConfig = read(br#"{"name":"EVT","subjects":["evt.>"],"max_age":604800000000000,"sources":null}"#).expect("read");
        let config = config.checked().expect("fine");
        let json = serde_json::to_string(&config).expect("json");
        assert_eq!(
            json,
            concat!(
                r#"{"name":"EVT","subjects":["evt.>"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":604800000000000,"#,
                r#""max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,"#,
                r#""compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"#,
                r#""allow_rollup_hdrs":false,"consumer_limits":{}}"#
            )
        );
    }

    #[test]
    fn what_does_not_fit_is_named_as_nats_server_names_it() {
        for (json, code, words) in [
            (r#"{"name":"a.b"}"#, 10052, "stream name is required"),
            (r#"{"name":"S","max_age":1000}"#, 10052, "max age needs to be >= 100ms"),
            (r#"{"name":"S","subjects":["a..b"]}"#, 10052, "invalid subject"),
            (r#"{"name":"S","subjects":["$JS.>"]}"#, 10052, "jetstream api"),
            (r#"{"name":"S","subjects":["a","a"]}"#, 10052, "duplicate subjects"),
            (r#"{"name":"S","subjects":["a.*","a.b"]}"#, 10052, "overlaps"),
            (r#"{"name":"S","num_replicas":3}"#, 10074, "replicas > 1"),
            (r#"{"name":"S","retention":"workqueue"}"#, 10052, "not supported"),
            (r#"{"name":"S","mirror":{"name":"T"}}"#, 10052, "mirrors are not supported"),
            (r#"{"name":"S","bogus_field":1}"#, 10025, r#"json: unknown field "bogus_field""#),
            ("{nope", 10025, "invalid JSON"),
        ] {
            let error = read::<StreamConfig>(json.as_bytes()).and_then(StreamConfig::checked).expect_err(json);
            assert_eq!(error.err_code, code, "{json}: {error:?}");
            assert!(error.description.contains(words), "{json}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), name in ".{0,8}", number in any::<i64>(), field in "[a-z_]{1,20}") {
            let _ = read::<StreamConfig>(&bytes).and_then(StreamConfig::checked);
            let json = serde_json::json!({"name": name, "subjects": [name], "max_age": number, "duplicate_window": number, field: number}).to_string();
            let stream = read::<StreamConfig>(json.as_bytes()).and_then(StreamConfig::checked);
            let json = serde_json::json!({"name": name, "filter_subjects": [name], "ack_wait": number, "max_deliver": number, "backoff": [number, 1]}).to_string();
            let _ = read::<ConsumerConfig>(json.as_bytes()).and_then(|config| config.checked(&stream.unwrap_or_default()));
        }
    }
}
