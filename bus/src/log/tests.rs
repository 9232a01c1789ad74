//! The log against its model: whatever is done to both, both answer the same, before and after restarts, kills and sealing.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::vfs::Disk;
use super::{Log, LogConfig};
use crate::config::SyncPolicy;
use crate::pattern::{Filter, Pattern};
use crate::store::{Hint, Limits, MemoryStore, Purge, Put, Store};

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<(u8, u16)>),
    Flush,
    Delete(Vec<u64>),
    Purge { filter: u8, below: Option<u64>, keep: u64 },
    Limits(Limits),
    Expire(i64),
    Compact,
    Restart,
}

fn limits() -> impl Strategy<Value = Limits> {
    let max = |n: u64| prop::option::weighted(0.3, 1..n);
    (max(30u64), max(8000u64), max(4u64)).prop_map(|(max_msgs, max_bytes, max_msgs_per_subject)| Limits {
        max_msgs,
        max_bytes: max_bytes.map(|bytes| bytes + 400),
        max_age: Some(std::time::Duration::from_nanos(50)),
        max_msgs_per_subject,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop::collection::vec((0u8..6, 0u16..900), 1..6).prop_map(Op::Append),
        2 => Just(Op::Flush),
        3 => prop::collection::vec(1u64..80, 1..5).prop_map(Op::Delete),
        2 => (0u8..8, prop::option::of(1u64..80), 0u64..4).prop_map(|(filter, below, keep)| Op::Purge { filter, below, keep }),
        1 => limits().prop_map(Op::Limits),
        1 => (0i64..200).prop_map(Op::Expire),
        2 => Just(Op::Compact),
        2 => Just(Op::Restart),
    ]
}

const SUBJECTS: [&str; 6] = ["a", "a.b", "a.c", "b.c", "b.c.d", "c"];

fn filter(n: u8) -> Filter {
    let patterns: &[&str] = match n {
        0 => &[],
        1 => &["a"],
        2 => &["a.*"],
        3 => &["*.c"],
        4 => &["b.>"],
        5 => &["a.b", "b.c.d"],
        6 => &["nothing"],
        _ => &["*.*.*", "c"],
    };
    Filter::any_of(patterns.iter().map(|text| text.parse::<Pattern>().expect("a pattern")))
}

fn config(limits: Limits, segment_bytes: u64) -> LogConfig {
    LogConfig { sync: SyncPolicy::Always, segment_bytes, background: false, ..LogConfig::new("S", limits) }
}

fn open(dir: &Path, limits: Limits, segment_bytes: u64) -> Arc<Log> {
    Log::open_on(Arc::new(Disk), dir, config(limits, segment_bytes), "boot").expect("open")
}

type Seen = (u64, i64, String, Vec<u8>, Vec<u8>);

fn all(store: &dyn Store, filter: &Filter, from: u64) -> Vec<Seen> {
    let mut hint = Hint::default();
    let mut out = Vec::new();
    let mut from = from;
    while let Some(message) = store.next(from, filter, &mut hint).expect("reads back") {
        from = message.seq + 1;
        out.push((message.seq, message.time_ns, message.subject().to_owned(), message.headers().to_vec(), message.payload().to_vec()));
    }
    out
}

fn same(log: &dyn Store, model: &dyn Store) -> Result<(), TestCaseError> {
    let (mut a, mut b) = (log.state(), model.state());
    // How often something was removed is nobody's business, and the time of the newest message is forgotten with it.
    (a.removals, b.removals) = (0, 0);
    if a.messages == 0 {
        (a.last_time_ns, b.last_time_ns) = (0, 0);
    }
    prop_assert_eq!(a, b);
    prop_assert_eq!(log.deleted(), model.deleted());
    for n in 0..8 {
        let filter = filter(n);
        prop_assert_eq!(log.subjects(&filter), model.subjects(&filter));
        for from in [0, 1, b.first_seq, b.first_seq + 3, b.last_seq / 2, b.last_seq, b.last_seq + 1] {
            prop_assert_eq!(all(log, &filter, from), all(model, &filter, from), "{:?} from {}", filter, from);
            prop_assert_eq!(
                log.count(from, &filter).expect("count"),
                model.count(from, &filter).expect("count"),
                "{:?} from {}",
                filter,
                from
            );
            prop_assert_eq!(log.last(&filter, from).expect("last"), model.last(&filter, from).expect("last"));
            prop_assert_eq!(log.last_per_subject(&filter, from).expect("each"), model.last_per_subject(&filter, from).expect("each"));
        }
    }
    for seq in 0..b.last_seq + 2 {
        prop_assert_eq!(log.get(seq).expect("get"), model.get(seq).expect("get"));
    }
    for subject in SUBJECTS {
        prop_assert_eq!(log.subject_count(subject), model.subject_count(subject));
    }
    for time_ns in [0, 5, 50, b.first_time_ns, b.last_time_ns, b.last_time_ns + 1] {
        prop_assert_eq!(log.seq_at(time_ns).expect("time"), model.seq_at(time_ns).expect("time"), "since {}", time_ns);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(4), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_log_answers_as_its_model(ops in prop::collection::vec(op(), 1..40), first in limits(), small in any::<bool>(), finally in any::<bool>()) {
        let dir = tempfile::tempdir().expect("folder");
        let segment_bytes = if small { 1500 } else { 1 << 20 };
        let mut log = open(dir.path(), first, segment_bytes);
        let model = MemoryStore::new(first);
        let (mut now, mut limits) = (0, first);
        for op in ops {
            match op {
                Op::Append(batch) => {
                    let payloads: Vec<(usize, Vec<u8>)> = batch.iter().map(|(s, len)| (usize::from(*s), vec![*s ^ *len as u8; usize::from(*len)])).collect();
                    let puts: Vec<Put<'_>> = payloads.iter().map(|(s, payload)| {
                        now += 1;
                        let headers: &[u8] = if payload.len() % 2 == 0 { b"NATS/1.0\r\nA: b\r\n\r\n" } else { b"" };
                        Put { subject: SUBJECTS[*s], headers, payload, time_ns: now }
                    }).collect();
                    prop_assert_eq!(log.append(&puts).expect("append"), model.append(&puts).expect("append"));
                }
                Op::Flush => log.flush().expect("flush"),
                Op::Delete(seqs) => prop_assert_eq!(log.delete(&seqs).expect("delete"), model.delete(&seqs).expect("delete")),
                Op::Purge { filter: n, below, keep } => {
                    let purge = Purge { filter: filter(n), below, keep };
                    prop_assert_eq!(log.purge(&purge).expect("purge"), model.purge(&purge).expect("purge"));
                }
                Op::Limits(new) => {
                    limits = new;
                    log.set_limits(new).expect("limits");
                    model.set_limits(new).expect("limits");
                }
                Op::Expire(back) => {
                    log.expire(now - back + 50).expect("expire");
                    model.expire(now - back + 50).expect("expire");
                }
                Op::Compact => {
                    log.flush().expect("flush");
                    log.compact();
                }
                Op::Restart => {
                    log.close().expect("close");
                    drop(log);
                    log = open(dir.path(), limits, segment_bytes);
                    prop_assert!(log.report().is_clean(), "{:?}", log.report());
                }
            }
            same(&*log, &model)?;
        }
        // A kill after a flush loses nothing.
        log.flush().expect("flush");
        if finally {
            log.crash();
        }
        drop(log);
        let log = open(dir.path(), limits, segment_bytes);
        same(&*log, &model)?;
    }
}
