//! Showing a stream whose records have revisions, each thing in its latest one: what `alerts` and `matches` have in common.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::path::Path;

use bartizan_bus::event::CodecError;
use bartizan_bus::{Record, StreamName};

use super::View;
use super::escape;
use super::exit::{Exit, Failure, complain};
use super::log::Log;
use super::out::{Out, Stop};

/// What a record of such a stream is.
pub(super) trait Told: Sized {
    /// What its revisions have in common.
    type Id: Copy + Eq + Hash + fmt::Display;
    /// Its stream.
    const STREAM: StreamName;
    /// What several are called.
    const PLURAL: &'static str;
    fn decode(payload: &[u8]) -> Result<Self, CodecError>;
    fn id(&self) -> Self::Id;
    fn revision(&self) -> u32;
    fn json(&self, seq: u64) -> serde_json::Result<String>;
}

/// Shows what `shows` lets through, oldest first, as JSON or as `block` draws it, and goes on with what comes if `view` says so.
pub(super) fn show<T: Told>(
    data_dir: &Path,
    view: &View,
    shows: impl Fn(&T) -> bool,
    block: impl Fn(&T, u64) -> String,
) -> Result<Exit, Stop> {
    let render = |told: &T, seq: u64, first: bool| -> Result<String, Failure> {
        if view.json {
            let failed =
                |error| Failure::new(Exit::Failed, format_args!("{} of {} cannot be written as JSON: {error}", told.id(), T::STREAM));
            return told.json(seq).map(|json| escape::json(&json)).map_err(failed);
        }
        // An empty line before each block, unless it is the first.
        let gap = if first { "" } else { "\n" };
        Ok(format!("{gap}{}", block(told, seq)))
    };
    let mut log = Log::open(data_dir, T::STREAM)?;
    let chosen = choose::<T>(&mut log, &shows, view.limit)?;

    // They are read a second time rather than kept: what is kept is a few words each, however long the lineages.
    let mut again = Log::open_again(data_dir, T::STREAM)?;
    let mut out = Out::stdout();
    let mut shown: u64 = 0;
    while let Some(record) = again.next()? {
        if chosen.last().is_none_or(|last| record.seq > *last) {
            break;
        }
        if chosen.binary_search(&record.seq).is_ok()
            && let Some(told) = decode::<T>(&record, &mut again)
        {
            out.line(&render(&told, record.seq, shown == 0)?)?;
            shown += 1;
        }
    }
    out.flush()?;
    if shown == 0 {
        complain(format_args!("no {}{}", T::PLURAL, if view.follow { " yet; waiting for new ones" } else { "" }));
    }
    if !view.follow {
        return Ok(log.finish());
    }
    loop {
        match log.next()? {
            Some(record) => {
                if let Some(told) = decode::<T>(&record, &mut log).filter(|told| shows(told)) {
                    out.line(&render(&told, record.seq, shown == 0)?)?;
                    out.flush()?;
                    shown += 1;
                }
            }
            None => out.wait()?,
        }
    }
}

/// Sequences, ascending, of the latest revision of everything that is shown; with a limit, of the last ones.
fn choose<T: Told>(log: &mut Log, shows: impl Fn(&T) -> bool, limit: Option<usize>) -> Result<Vec<u64>, Failure> {
    let mut latest: HashMap<T::Id, Latest> = HashMap::new();
    while let Some(record) = log.next()? {
        if let Some(told) = decode::<T>(&record, log) {
            let this = Latest { revision: told.revision(), seq: record.seq, shown: shows(&told) };
            let entry = latest.entry(told.id()).or_insert(this);
            if this.revision >= entry.revision {
                *entry = this;
            }
        }
    }
    let mut chosen: Vec<u64> = latest.into_values().filter(|latest| latest.shown).map(|latest| latest.seq).collect();
    chosen.sort_unstable();
    if let Some(limit) = limit {
        chosen.drain(..chosen.len().saturating_sub(limit));
    }
    Ok(chosen)
}

/// What is kept while the stream is read.
#[derive(Clone, Copy)]
struct Latest {
    revision: u32,
    seq: u64,
    shown: bool,
}

fn decode<T: Told>(record: &Record, log: &mut Log) -> Option<T> {
    match T::decode(&record.payload) {
        Ok(told) => Some(told),
        Err(error) => {
            log.undecodable(record.seq, &error);
            None
        }
    }
}
