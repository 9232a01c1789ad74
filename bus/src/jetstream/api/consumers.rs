//! Consumers: made, changed, described, paused, ended.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::Js;
use super::super::config::{self, ConsumerConfig, is_name};
use super::super::consumer::{Consumer, Output, Time};
use super::super::error::ApiError;
use super::super::stream::Entry;
use super::{LIST_PAGE, NAMES_PAGE, Page, PageRequest, Success, body, made_up_name, page, timestamp};
use crate::nats::INBOX;
use crate::nats::route::Routed;

/// Letters of a name that the server makes up.
const MADE_UP: usize = 8;

#[derive(Serialize)]
struct Place {
    consumer_seq: u64,
    stream_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<String>,
}

/// A consumer's description.
#[derive(Serialize)]
pub(super) struct ConsumerInfo {
    stream_name: String,
    name: String,
    created: String,
    config: ConsumerConfig,
    delivered: Place,
    ack_floor: Place,
    num_ack_pending: usize,
    num_redelivered: usize,
    num_waiting: usize,
    num_pending: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    push_bound: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
    ts: String,
}

#[derive(Serialize)]
pub(super) struct Names {
    #[serde(flatten)]
    page: Page,
    consumers: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct List {
    #[serde(flatten)]
    page: Page,
    consumers: Vec<ConsumerInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CreateRequest {
    stream_name: String,
    config: Option<ConsumerConfig>,
    action: String,
    pedantic: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PauseRequest {
    pause_until: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Paused {
    paused: bool,
    pause_until: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
}

fn describe(entry: &Entry, consumer: &mut Consumer, time: Time, out: &mut dyn Output) -> ConsumerInfo {
    let active = |ns: Option<i64>| ns.map(timestamp);
    let push_bound = consumer.is_push() && consumer.is_bound(out);
    let paused = consumer.is_paused(time);
    ConsumerInfo {
        stream_name: entry.name.clone(),
        name: consumer.name.clone(),
        created: timestamp(consumer.created_ns),
        delivered: Place {
            consumer_seq: consumer.delivered.0,
            stream_seq: consumer.delivered.1,
            last_active: active(consumer.last_delivered_ns),
        },
        ack_floor: Place {
            consumer_seq: consumer.ack_floor.0,
            stream_seq: consumer.ack_floor.1,
            last_active: active(consumer.last_acked_ns),
        },
        num_ack_pending: consumer.num_ack_pending(),
        num_redelivered: consumer.num_redelivered(),
        num_waiting: consumer.num_waiting(),
        num_pending: consumer.num_pending(&*entry.store),
        push_bound,
        paused,
        pause_remaining: consumer.paused_until_ns.filter(|_| paused).map(|until| until - time.wall_ns),
        config: consumer.config.clone(),
        ts: timestamp(time.wall_ns),
    }
}

fn stream_and_consumer(rest: &str) -> Result<(&str, &str), ApiError> {
    rest.split_once('.').filter(|(_, consumer)| !consumer.contains('.')).ok_or_else(ApiError::bad_request)
}

/// Checks the names that subject and body give, and settles on one.
fn name_of(durable_form: bool, in_subject: Option<&str>, filter: Option<&str>, config: &mut ConsumerConfig) -> Result<String, ApiError> {
    let ConsumerConfig { name, durable_name, .. } = config;
    if !name.is_empty() && !durable_name.is_empty() && name != durable_name {
        return Err(ApiError::durable_and_name());
    }
    for given in [&*name, &*durable_name] {
        if given.len() > 255 {
            return Err(ApiError::consumer_name_too_long());
        }
        if given.contains(['/', '\\']) {
            return Err(ApiError::consumer_separators());
        }
        if !given.is_empty() && !is_name(given) {
            return Err(ApiError::bad_durable_name());
        }
    }
    if durable_form {
        let Some(subject) = in_subject else { return Err(ApiError::durable_not_in_subject()) };
        if durable_name.is_empty() {
            return Err(ApiError::durable_not_set());
        }
        if durable_name != subject {
            return Err(ApiError::durable_mismatch());
        }
        return Ok(subject.to_owned());
    }
    match in_subject {
        None if !durable_name.is_empty() => Err(ApiError::ephemeral_with_durable_name()),
        None if !name.is_empty() => Ok(name.clone()),
        None => Ok(made_up_name(MADE_UP)?),
        Some(subject) => {
            if !is_name(subject) {
                return Err(ApiError::bad_durable_name());
            }
            if [&*name, &*durable_name].iter().any(|given| !given.is_empty() && *given != subject) {
                return Err(ApiError::durable_mismatch());
            }
            if let Some(filter) = filter {
                if !config.filter_subjects.is_empty() {
                    return Err(ApiError::filters_in_subject());
                }
                if config.filter_subject != filter {
                    return Err(ApiError::filter_not_in_subject());
                }
            }
            Ok(subject.to_owned())
        }
    }
}

impl Js {
    pub(super) fn consumer_create(
        &self,
        durable_form: bool,
        rest: &str,
        message: &Routed<'_>,
    ) -> Result<(Arc<Entry>, ConsumerInfo), ApiError> {
        let mut parts = rest.splitn(3, '.');
        let stream = parts.next().unwrap_or_default();
        let (in_subject, filter) = (parts.next(), parts.next());
        let wanted: CreateRequest = config::read(message.payload)?;
        if wanted.stream_name != stream {
            return Err(ApiError::stream_mismatch());
        }
        let entry = self.require(stream)?;
        let Some(mut config) = wanted.config else { return Err(ApiError::consumer_config_required()) };
        if message.module.is_some() && !config.deliver_subject.is_empty() && !config.deliver_subject.starts_with(INBOX) {
            let description = format!("{}: a module's is below {INBOX}", ApiError::bad_deliver_subject().description);
            return Err(ApiError { description, ..ApiError::bad_deliver_subject() });
        }
        let name = name_of(durable_form, in_subject, filter, &mut config)?;
        let time = self.now();
        let mut outbox = entry.outbox(&*self.router);
        let mut state = entry.state();
        if state.deleted {
            return Err(ApiError::stream_not_found());
        }
        let config = config.checked(&state.config)?;
        let config = ConsumerConfig { name: name.clone(), ..config };
        let max_consumers = state.config.max_consumers;
        let in_memory = state.config.storage == config::Storage::Memory;
        let known = state.consumers.len() as i64;
        let info = match state.consumers.get_mut(&name) {
            // Not for others either, who would share it unknowingly.
            Some(consumer) if consumer.owner.as_deref() != message.module => return Err(ApiError::consumer_name_in_use()),
            Some(consumer) => {
                if wanted.action == "create" && consumer.config != config {
                    return Err(ApiError::consumer_exists());
                }
                if consumer.config != config {
                    if consumer.is_push() && consumer.config.deliver_subject != config.deliver_subject && consumer.is_bound(&mut outbox) {
                        return Err(ApiError::consumer_name_in_use());
                    }
                    consumer.update(config, &*entry.store)?;
                }
                consumer.touch(time);
                self.put_consumer_locked(&entry, consumer, in_memory)?;
                describe(&entry, consumer, time, &mut outbox)
            }
            None => {
                if wanted.action == "update" {
                    return Err(ApiError::consumer_does_not_exist());
                }
                if max_consumers > 0 && known >= max_consumers {
                    return Err(ApiError::maximum_consumers());
                }
                // What was published and is on its way to the disk counts.
                entry.store.flush().map_err(|error| ApiError::consumer(error.to_string()))?;
                let mut consumer = Consumer::new(&entry.name, &name, config, &*entry.store, time)?;
                consumer.owner = message.module.map(str::to_owned);
                self.put_consumer_locked(&entry, &mut consumer, in_memory)?;
                let info = describe(&entry, &mut consumer, time, &mut outbox);
                state.consumers.insert(name, consumer);
                info
            }
        };
        drop(state);
        Ok((entry, info))
    }

    fn put_consumer_locked(&self, entry: &Entry, consumer: &mut Consumer, in_memory: bool) -> Result<(), ApiError> {
        if in_memory {
            return Ok(());
        }
        self.put_consumer(entry, consumer).map_err(|error| ApiError::consumer(error.to_string()))
    }

    pub(super) fn consumer_info(&self, rest: &str, message: &Routed<'_>) -> Result<ConsumerInfo, ApiError> {
        let (stream, name) = stream_and_consumer(rest)?;
        let entry = self.require(stream)?;
        let mut outbox = entry.outbox(&*self.router);
        let mut state = entry.state();
        let consumer = state.consumer(name, message.module).ok_or_else(ApiError::consumer_not_found)?;
        Ok(describe(&entry, consumer, self.now(), &mut outbox))
    }

    pub(super) fn consumer_delete(&self, rest: &str, message: &Routed<'_>) -> Result<Success, ApiError> {
        let (stream, name) = stream_and_consumer(rest)?;
        let entry = self.require(stream)?;
        entry.state().consumer(name, message.module).ok_or_else(ApiError::consumer_not_found)?;
        if self.remove_consumer(&entry, name, "409 Consumer Deleted") {
            Ok(Success { success: true })
        } else {
            Err(ApiError::consumer_not_found())
        }
    }

    pub(super) fn consumer_names(&self, stream: &str, message: &Routed<'_>) -> Result<Names, ApiError> {
        let wanted: PageRequest = body(message)?;
        let entry = self.require(stream)?;
        let known = |consumer: &&Consumer| consumer.is_for(message.module);
        let names = entry.state().consumers.values().filter(known).map(|consumer| consumer.name.clone()).collect();
        let (page, consumers) = page(names, wanted.offset, NAMES_PAGE);
        Ok(Names { page, consumers })
    }

    pub(super) fn consumer_list(&self, stream: &str, message: &Routed<'_>) -> Result<List, ApiError> {
        let wanted: PageRequest = body(message)?;
        let entry = self.require(stream)?;
        let time = self.now();
        let mut outbox = entry.outbox(&*self.router);
        let mut state = entry.state();
        let known = state.consumers.values_mut().filter(|consumer| consumer.is_for(message.module));
        let infos = known.map(|consumer| describe(&entry, consumer, time, &mut outbox)).collect();
        let (page, consumers) = page(infos, wanted.offset, LIST_PAGE);
        Ok(List { page, consumers })
    }

    pub(super) fn consumer_pause(&self, rest: &str, message: &Routed<'_>) -> Result<Paused, ApiError> {
        let (stream, name) = stream_and_consumer(rest)?;
        let wanted: PauseRequest = body(message)?;
        let entry = self.require(stream)?;
        let time = self.now();
        let mut state = entry.state();
        let in_memory = state.config.storage == config::Storage::Memory;
        let consumer = state.consumer(name, message.module).ok_or_else(ApiError::consumer_not_found)?;
        let until = match &wanted.pause_until {
            Some(text) => {
                let at = text.parse::<jiff::Timestamp>().map_err(|_| ApiError::invalid_json("pause_until is not a time"))?;
                i64::try_from(at.as_nanosecond()).ok().filter(|at| *at > time.wall_ns)
            }
            None => None,
        };
        consumer.paused_until_ns = until;
        consumer.config.pause_until = until.and(wanted.pause_until);
        self.put_consumer_locked(&entry, consumer, in_memory)?;
        Ok(Paused {
            paused: until.is_some(),
            pause_until: timestamp(until.unwrap_or(0)),
            pause_remaining: until.map(|until| until - time.wall_ns),
        })
    }
}
