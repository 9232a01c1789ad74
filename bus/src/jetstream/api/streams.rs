//! Streams: made, changed, described, emptied, ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::config::{self, StreamConfig};
use super::super::error::ApiError;
use super::super::stream::Entry;
use super::super::{Js, consumer_folder};
use super::{LIST_PAGE, NAMES_PAGE, Page, PageRequest, Success, body, page, timestamp};
use crate::config::StreamName;
use crate::nats::route::Routed;
use crate::pattern::{Filter, Pattern};
use crate::store::Purge;

/// Subjects on one page of a description.
const SUBJECTS_PAGE: usize = 100_000;

#[derive(Debug, Serialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    first_ts: String,
    last_seq: u64,
    last_ts: String,
    #[serde(skip_serializing_if = "is_zero")]
    num_subjects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    subjects: Option<BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "is_zero")]
    num_deleted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<Vec<u64>>,
    consumer_count: usize,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Debug, Serialize)]
struct Cluster {
    leader: String,
}

/// A stream's description.
#[derive(Debug, Serialize)]
pub(super) struct StreamInfo {
    config: StreamConfig,
    created: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    ts: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    did_create: bool,
}

#[derive(Serialize)]
pub(super) struct DetailedInfo {
    #[serde(flatten)]
    page: Page,
    #[serde(flatten)]
    info: StreamInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InfoRequest {
    deleted_details: bool,
    subjects_filter: String,
    offset: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PurgeRequest {
    filter: String,
    seq: u64,
    keep: u64,
}

#[derive(Serialize)]
pub(super) struct Purged {
    success: bool,
    purged: u64,
}

#[derive(Serialize)]
pub(super) struct Names {
    #[serde(flatten)]
    page: Page,
    streams: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct List {
    #[serde(flatten)]
    page: Page,
    streams: Vec<StreamInfo>,
}

/// So many deleted sequences are listed one by one at most.
const MOST_DELETED: u64 = 1_000_000;

impl Js {
    fn describe(&self, entry: &Entry, did_create: bool) -> StreamInfo {
        let held = entry.store.state();
        let state = entry.state();
        // A stream that never had a message begins at 0 in nats-server's eyes.
        let first_seq = if held.last_seq == 0 { 0 } else { held.first_seq };
        StreamInfo {
            config: state.config.clone(),
            created: timestamp(entry.created_ns),
            state: State {
                messages: held.messages,
                bytes: held.bytes,
                first_seq,
                first_ts: timestamp(held.first_time_ns),
                last_seq: held.last_seq,
                last_ts: timestamp(held.last_time_ns),
                num_subjects: held.subjects,
                subjects: None,
                num_deleted: held.deleted,
                deleted: None,
                consumer_count: state.consumers.len(),
            },
            cluster: None,
            ts: timestamp(self.now().wall_ns),
            did_create,
        }
    }

    pub(super) fn require(&self, name: &str) -> Result<Arc<Entry>, ApiError> {
        self.stream(name).ok_or_else(ApiError::stream_not_found)
    }

    /// Refuses what only the process itself may do.
    pub(super) fn require_own(&self, name: &str) -> Result<Arc<Entry>, ApiError> {
        let entry = self.require(name)?;
        match entry.builtin {
            None => Ok(entry),
            Some(_) => Err(ApiError::stream_config(format!(
                "stream {name} is kept by Bartizan itself: its settings are in Bartizan's configuration file"
            ))),
        }
    }

    fn overlaps(&self, config: &StreamConfig) -> Result<bool, ApiError> {
        let patterns = config.patterns()?;
        let others = self.all();
        let overlap = |entry: &Arc<Entry>| {
            entry.name != config.name
                && entry
                    .state()
                    .config
                    .patterns()
                    .is_ok_and(|theirs| theirs.iter().any(|pattern| patterns.iter().any(|own| own.overlaps(pattern))))
        };
        Ok(others.iter().any(overlap))
    }

    pub(super) fn stream_create(&self, name: &str, message: &Routed<'_>) -> Result<StreamInfo, ApiError> {
        let wanted: StreamConfig = config::read(message.payload)?;
        if wanted.name != name {
            return Err(ApiError::stream_mismatch());
        }
        if wanted.sealed {
            return Err(ApiError::stream_config("stream configuration for create can not be sealed"));
        }
        let wanted = wanted.checked()?;
        let _admin = crate::log::lock(&self.admin);
        if let Some(entry) = self.stream(name) {
            let same = entry.state().config == wanted;
            return if same { Ok(self.describe(&entry, true)) } else { Err(ApiError::stream_name_in_use()) };
        }
        if self.factory.reserves(name) {
            return Err(ApiError::stream_config(format!("the name {name} belongs to a stream of the sensor")));
        }
        if self.overlaps(&wanted)? {
            return Err(ApiError::subjects_overlap());
        }
        let (store, slow) = self.open_store(&wanted).map_err(|error| ApiError::stream_create(&error))?;
        let entry = Arc::new(Entry::new(wanted.clone(), store, self.now().wall_ns, None, slow));
        self.put_stream(&entry, &wanted).map_err(|error| ApiError::stream_create(&error))?;
        self.enter(&entry);
        self.arm(name);
        Ok(self.describe(&entry, true))
    }

    pub(super) fn stream_update(&self, name: &str, message: &Routed<'_>) -> Result<StreamInfo, ApiError> {
        let wanted: StreamConfig = config::read(message.payload)?;
        if wanted.name != name && !wanted.name.is_empty() {
            return Err(ApiError::stream_mismatch());
        }
        let _admin = crate::log::lock(&self.admin);
        let entry = self.require_own(name)?;
        let wanted = wanted.checked()?;
        if self.overlaps(&wanted)? {
            return Err(ApiError::subjects_overlap());
        }
        {
            let mut state = entry.state();
            state.config.check_update(&wanted)?;
            self.put_stream(&entry, &wanted).map_err(|error| ApiError::stream_create(&error))?;
            state.reconfigure(wanted, &*entry.store)?;
        }
        self.listen(&entry);
        self.arm(name);
        Ok(self.describe(&entry, false))
    }

    pub(super) fn stream_info(&self, name: &str, message: &Routed<'_>) -> Result<DetailedInfo, ApiError> {
        let wanted: InfoRequest = body(message)?;
        let entry = self.require(name)?;
        let mut info = self.describe(&entry, false);
        info.cluster = Some(Cluster { leader: self.server.clone() });
        let mut shown = Page { total: 0, offset: 0, limit: 0 };
        if !wanted.subjects_filter.is_empty() {
            let filter: Filter = wanted.subjects_filter.parse::<Pattern>().map_err(|_| ApiError::bad_request())?.into();
            let (part, subjects) = page(entry.store.subjects(&filter), wanted.offset, SUBJECTS_PAGE);
            shown = part;
            info.state.subjects = Some(subjects.into_iter().collect());
        }
        if wanted.deleted_details && info.state.num_deleted > 0 && info.state.num_deleted <= MOST_DELETED {
            info.state.deleted = Some(entry.store.deleted().into_iter().flat_map(|(first, last)| first..=last).collect());
        }
        Ok(DetailedInfo { page: shown, info })
    }

    pub(super) fn stream_delete(&self, name: &str) -> Result<Success, ApiError> {
        // Before anything else: it is the stream of this moment that goes, not one that takes its name meanwhile.
        let _admin = crate::log::lock(&self.admin);
        let entry = self.require_own(name)?;
        crate::log::lock(&entry.taps).drain(..).for_each(|(_, tap)| self.router.untap(tap));
        self.streams.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(name);
        {
            let mut outbox = entry.outbox(&*self.router);
            let mut state = entry.state();
            state.deleted = true;
            // What is not on the disk now is nowhere: whoever published it is told.
            entry.acknowledge(&mut state, &*self.router);
            state.refuse_owed(name, &ApiError::stream_not_found(), &*self.router);
            state.consumers.values_mut().for_each(|consumer| consumer.end_all("409 Consumer Deleted", &mut outbox));
            state.consumers.clear();
        }
        let _places = crate::log::lock(&entry.places);
        // The definition first: what is left of a deletion that was interrupted is data without a name, which nobody reads.
        self.meta.remove("streams", name).map_err(|error| ApiError::stream_create(&error))?;
        self.meta.remove_folder(&consumer_folder(name)).map_err(|error| ApiError::stream_create(&error))?;
        entry.store.destroy().map_err(|error| ApiError::stream_create(&error))?;
        Ok(Success { success: true })
    }

    pub(super) fn stream_purge(&self, name: &str, message: &Routed<'_>) -> Result<Purged, ApiError> {
        let wanted: PurgeRequest = body(message)?;
        let entry = self.require_own(name)?;
        if wanted.seq > 0 && wanted.keep > 0 {
            return Err(ApiError::bad_request());
        }
        {
            let state = entry.state();
            if state.config.sealed {
                return Err(ApiError::sealed());
            }
            if state.config.deny_purge {
                return Err(ApiError::purge_failed("stream purge not permitted"));
            }
        }
        let filter = match wanted.filter.as_str() {
            "" => Filter::all(),
            text => text.parse::<Pattern>().map_err(|_| ApiError::bad_request())?.into(),
        };
        let purge = Purge { filter, below: (wanted.seq > 0).then_some(wanted.seq), keep: wanted.keep };
        let purged = entry.store.purge(&purge).and_then(|purged| entry.store.flush().map(|()| purged));
        Ok(Purged { success: true, purged: purged.map_err(|error| ApiError::purge_failed(&error))? })
    }

    fn matching(&self, wanted: &PageRequest, message: &Routed<'_>) -> Result<Vec<Arc<Entry>>, ApiError> {
        let mut entries = self.all();
        // What other clients keep here is nothing that a module has to know of.
        entries.retain(|entry| message.module.is_none() || entry.name.parse::<StreamName>().is_ok());
        if !wanted.subject.is_empty() {
            let pattern: Pattern = wanted.subject.parse().map_err(|_| ApiError::bad_request())?;
            entries.retain(|entry| entry.state().config.patterns().is_ok_and(|own| own.iter().any(|own| own.overlaps(&pattern))));
        }
        Ok(entries)
    }

    pub(super) fn stream_names(&self, message: &Routed<'_>) -> Result<Names, ApiError> {
        let wanted: PageRequest = body(message)?;
        let names = self.matching(&wanted, message)?.iter().map(|entry| entry.name.clone()).collect();
        let (page, streams) = page(names, wanted.offset, NAMES_PAGE);
        Ok(Names { page, streams })
    }

    pub(super) fn stream_list(&self, message: &Routed<'_>) -> Result<List, ApiError> {
        let wanted: PageRequest = body(message)?;
        let (page, entries) = page(self.matching(&wanted, message)?, wanted.offset, LIST_PAGE);
        Ok(List { page, streams: entries.iter().map(|entry| self.describe(entry, false)).collect() })
    }
}
