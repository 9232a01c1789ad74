//! JetStream's errors: numbers and words as nats-server has them (`server/errors.json`), because clients match on them.

use serde::Serialize;

/// An answer that says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiError {
    /// As in HTTP.
    pub code: u16,
    /// JetStream's own number.
    pub err_code: u16,
    /// In words.
    pub description: String,
}

/// One list of (name, code, number, words).
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal $err_code:literal $text:literal;)*) => {
        impl ApiError {
            $(#[doc = $text] $(#[$doc])*
            pub(crate) fn $name() -> Self {
                Self { code: $code, err_code: $err_code, description: $text.to_owned() }
            })*
        }
    };
}

errors! {
    bad_request = 400 10003 "bad request";
    consumer_not_found = 404 10014 "consumer not found";
    consumer_name_in_use = 400 10013 "consumer name already in use";
    durable_not_in_subject = 400 10016 "consumer expected to be durable but no durable name set in subject";
    durable_mismatch = 400 10017 "consumer name in subject does not match durable name in request";
    durable_not_set = 400 10018 "consumer expected to be durable but a durable name was not set";
    ephemeral_with_durable_name = 400 10020 "consumer expected to be ephemeral but a durable name was set in request";
    maximum_consumers = 400 10026 "maximum consumers limit reached";
    no_message_found = 404 10037 "no message found";
    stream_mismatch = 400 10056 "stream name in subject does not match request";
    stream_name_in_use = 400 10058 "stream name already in use with a different configuration";
    stream_not_found = 404 10059 "stream not found";
    expected_stream = 400 10060 "expected stream does not match";
    subjects_overlap = 400 10065 "subjects overlap with an existing stream";
    replicas = 500 10074 "replicas > 1 not supported in non-clustered mode";
    consumer_config_required = 400 10078 "consumer config required";
    deliver_to_wildcards = 400 10079 "consumer deliver subject has wildcards";
    push_max_waiting = 400 10080 "consumer in push mode can not set max waiting";
    deliver_cycle = 400 10081 "consumer deliver subject forms a cycle";
    max_ack_pending_policy = 400 10082 "consumer requires ack policy for max ack pending";
    small_heartbeat = 400 10083 "consumer idle heartbeat needs to be >= 100ms";
    pull_rate_limit = 400 10086 "consumer in pull mode can not have rate limit set";
    max_waiting_negative = 400 10087 "consumer max waiting needs to be positive";
    heartbeat_pull = 400 10088 "consumer idle heartbeat requires a push based consumer";
    flow_control_pull = 400 10089 "consumer flow control requires a push based consumer";
    message_too_large = 400 10054 "message size exceeds maximum allowed";
    headers_too_large = 400 10097 "header size exceeds maximum allowed of 64k";
    consumer_name_too_long = 400 10102 "consumer name is too long, maximum allowed is 255";
    bad_durable_name = 400 10103 "durable name can not contain '.', '*', '>'";
    flow_control_heartbeat = 400 10108 "consumer with flow control also needs heartbeats";
    sealed = 400 10109 "invalid operation on sealed stream";
    bad_deliver_subject = 400 10112 "invalid push consumer deliver subject";
    max_batch_negative = 400 10114 "consumer max request batch needs to be > 0";
    max_expires_small = 400 10115 "consumer max request expires needs to be >= 1ms";
    max_deliver_backoff = 400 10116 "max deliver is required to be > length of backoff values";
    consumer_separators = 400 10127 "Consumer name can not contain path separators";
    stream_separators = 400 10128 "Stream name can not contain path separators";
    filter_not_in_subject = 400 10131 "Consumer create request did not match filtered subject from create subject";
    durable_and_name = 400 10132 "Consumer Durable and Name have to be equal if both are provided";
    filter_and_filters = 400 10136 "consumer cannot have both FilterSubject and FilterSubjects specified";
    filters_in_subject = 400 10137 "consumer with multiple subject filters cannot use subject based API";
    filters_overlap = 400 10138 "consumer subject filters cannot overlap";
    filter_empty = 400 10139 "consumer filter in FilterSubjects cannot be empty";
    consumer_exists = 400 10148 "consumer already exists";
    consumer_does_not_exist = 400 10149 "consumer does not exist";
    ack_wait_negative = 400 10183 "consumer ack wait needs to be positive";
    backoff_negative = 400 10184 "consumer backoff needs to be positive";
    ttl_disabled = 400 10166 "per-message TTL is disabled";
    api_level = 412 10185 "JetStream minimum api level required";
}

impl ApiError {
    fn new(code: u16, err_code: u16, description: impl Into<String>) -> Self {
        Self { code, err_code, description: description.into() }
    }

    pub(crate) fn consumer(reason: impl Into<String>) -> Self {
        Self::new(500, 10012, reason)
    }

    pub(crate) fn invalid_json(reason: impl std::fmt::Display) -> Self {
        Self::new(400, 10025, format!("invalid JSON: {reason}"))
    }

    pub(crate) fn stream_create(reason: impl std::fmt::Display) -> Self {
        Self::new(500, 10049, reason.to_string())
    }

    pub(crate) fn stream_config(reason: impl Into<String>) -> Self {
        Self::new(500, 10052, reason)
    }

    pub(crate) fn message_delete(reason: impl std::fmt::Display) -> Self {
        Self::new(500, 10057, reason.to_string())
    }

    pub(crate) fn wrong_last_msg_id(id: &str) -> Self {
        Self::new(400, 10070, format!("wrong last msg ID: {id}"))
    }

    pub(crate) fn wrong_last_sequence(seq: u64) -> Self {
        Self::new(400, 10071, format!("wrong last sequence: {seq}"))
    }

    pub(crate) fn store_failed(reason: impl std::fmt::Display) -> Self {
        Self::new(503, 10077, reason.to_string())
    }

    pub(crate) fn deliver_policy(reason: impl Into<String>) -> Self {
        Self::new(400, 10094, reason)
    }

    pub(crate) fn purge_failed(reason: impl std::fmt::Display) -> Self {
        Self::new(500, 10110, reason.to_string())
    }

    pub(crate) fn rollup_failed(reason: impl Into<String>) -> Self {
        Self::new(500, 10111, reason)
    }

    /// The limit is nanoseconds.
    pub(crate) fn inactive_threshold_limit(limit: i64) -> Self {
        let limit = super::consumer::go_duration(limit);
        Self::new(400, 10153, format!("consumer inactive threshold exceeds system limit of {limit}"))
    }

    pub(crate) fn max_ack_pending_limit(limit: i64) -> Self {
        Self::new(400, 10121, format!("consumer max ack pending exceeds system limit of {limit}"))
    }
}
