//! Putting a stream together from what is on disk.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use tokio::sync::watch;

use super::append::Writer;
use super::dedupe::Dedupe;
use super::ring::Ring;
use super::sync::Syncer;
use super::{Counters, Head, Inner, Synced, lock};
use crate::config::{StreamConfig, StreamName};
use crate::consumer;
use crate::error::OpenError;
use crate::log::recover::{Recovered, recover};
use crate::log::scan::{Scanned, Scanner};
use crate::log::segment::Segment;
use crate::log::stream_dir;

pub(super) fn open(data_dir: &Path, name: StreamName, config: &StreamConfig, boot_id: &str) -> Result<Arc<Inner>, OpenError> {
    let dir = stream_dir(data_dir, name);
    let recovered = recover(&dir, name, boot_id, Inner::reserve_block(config.sync))?;
    let Recovered { segments, active, next_seq, meta, report } = recovered;
    let mut dedupe = Dedupe::new(config.duplicate_window);
    remember_ids(&segments, config, &mut dedupe)?;
    let Some(last) = segments.back().map(Arc::clone) else { unreachable!("recovery leaves a segment to append to") };
    let last_seq = next_seq - 1;

    let consumer_dir = consumer::dir(data_dir, name);
    let consumers = consumer::load_all(&consumer_dir, name)?;
    let inner = Arc::new(Inner {
        name,
        dir: dir.clone(),
        config: config.clone(),
        report,
        gaps: meta.gaps.clone(),
        writer: Mutex::new(Writer::new(active, last, next_seq, dedupe)),
        segments: RwLock::new(segments),
        ring: Mutex::new(Ring::default()),
        reserved: AtomicU64::new(meta.reserved),
        meta: Mutex::new(meta),
        head: watch::Sender::new(Head { last_seq, closed: false }),
        synced: watch::Sender::new(Synced { seq: last_seq, ended: false }),
        syncer: Syncer::default(),
        failure: OnceLock::new(),
        retention: Mutex::new(()),
        counters: Counters::default(),
        consumer_dir,
        consumers: Mutex::new(consumers),
        closed: AtomicBool::new(false),
        crashed: AtomicBool::new(false),
    });
    for cell in lock(&inner.consumers).values() {
        cell.clamp(last_seq);
    }
    inner.start_syncer().map_err(|source| OpenError::Io { action: "start the syncing thread of", path: dir, source })?;
    Ok(inner)
}

/// Reads the message ids of the duplicate window back from the log's end.
fn remember_ids(segments: &VecDeque<Arc<Segment>>, config: &StreamConfig, dedupe: &mut Dedupe) -> Result<(), OpenError> {
    let window_ns = i64::try_from(config.duplicate_window.as_nanos()).unwrap_or(i64::MAX);
    let newest_ns = segments.iter().map(|segment| segment.state()).filter(|state| state.count > 0).map(|state| state.max_time_ns).max();
    let Some(newest_ns) = newest_ns else { return Ok(()) };
    for segment in segments {
        let (len, in_window) = {
            let state = segment.state();
            (state.len, state.count > 0 && newest_ns.saturating_sub(state.max_time_ns) <= window_ns)
        };
        if !in_window {
            continue;
        }
        let io_error = |source| OpenError::Io { action: "read", path: segment.path.clone(), source };
        let mut scanner = Scanner::new(File::open(&segment.path).map_err(io_error)?, segment.first_seq);
        // A record that does not read back is reported to whoever reads it; here it only means an id less.
        while let Scanned::Record { record, .. } = scanner.next(len).map_err(io_error)? {
            if let Some(msg_id) = &record.msg_id {
                dedupe.insert(msg_id, record.seq, record.time_ns);
            }
        }
    }
    Ok(())
}
