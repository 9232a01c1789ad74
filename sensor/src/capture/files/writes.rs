//! What processes write: the kernel's counts by process and file, joined with the record that says who and what that is.
//!
//! A file that is written to for the first time is told within a second. One that goes on being written to is told at longer and longer
//! intervals, up to a minute, so that a log file is no stream of events.

use std::collections::HashMap;

use bartizan_bus::event::{Body, FileWrite};
use bartizan_sensor_ebpf::abi::{Kind, WriteGathered, WriteKey};

use crate::project::{Act, Observation, Subject, What};

/// Between two events about one process and file, nanoseconds: at first, and at most.
const FIRST: u64 = 1_000_000_000;
const LONGEST: u64 = 60_000_000_000;
/// Processes with their files that are followed, at most. The rest is told each second, and without its path.
const FOLLOWED_MAX: usize = 32_768;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// One process and file.
#[derive(Debug)]
struct Followed {
    /// Who, and which file.
    begun: Observation,
    gathered: WriteGathered,
    /// When it is told next, and how long after that again.
    due: u64,
    interval: u64,
    /// When its record or counts came last.
    seen: u64,
}

/// Everything that is being written to.
#[derive(Debug, Default)]
pub(super) struct Writes {
    followed: HashMap<WriteKey, Followed>,
    /// What images wrote that write no more, to be told next.
    ended: Vec<Observation>,
}

impl Writes {
    /// A record says that a process begins to write to a file.
    pub(super) fn begin(&mut self, key: WriteKey, begun: Observation) {
        let seen = begun.subject.ktime;
        if let Some(followed) = self.followed.get_mut(&key) {
            // The path may be another one now, and the image or even the process: what that one wrote is its own.
            let before = std::mem::replace(&mut followed.begun, begun);
            followed.seen = seen;
            let image = |subject: &Subject| (subject.start_boottime, subject.exec_id);
            if image(&before.subject) != image(&followed.begun.subject) && followed.gathered.pages > 0 {
                self.ended.extend(observation(&before, &std::mem::take(&mut followed.gathered)));
            }
        } else if self.followed.len() < FOLLOWED_MAX {
            let followed = Followed { begun, gathered: WriteGathered::default(), due: seen + FIRST, interval: FIRST, seen };
            self.followed.insert(key, followed);
        }
    }

    /// Adds what the kernel gathered and gives what is due at `now` (boot clock, nanoseconds), or everything at the end.
    pub(super) fn join(&mut self, taken: Vec<(WriteKey, WriteGathered)>, now: u64, all: bool) -> Vec<Observation> {
        let mut told = std::mem::take(&mut self.ended);
        for (key, gathered) in taken.into_iter().filter(|(_, gathered)| gathered.pages > 0) {
            match self.followed.get_mut(&key) {
                Some(followed) => {
                    followed.seen = gathered.last;
                    add(&mut followed.gathered, &gathered);
                }
                // Its record was lost: who it was is known by number, which file by inode.
                None => {
                    let mut body = FileWrite::default();
                    (body.file.inode, body.file.device) = (Some(key.inode), Some(key.device));
                    let subject = Subject::of_pid(key.tgid, gathered.last, key.inode as u32);
                    let what = Act::done(Body::FileWrite(body)).into();
                    told.extend(observation(&Observation { kind: Kind::FileWrite, subject, what }, &gathered));
                }
            }
        }
        self.followed.retain(|_, followed| {
            let due = all || followed.due <= now;
            if due && followed.gathered.pages > 0 {
                told.extend(observation(&followed.begun, &followed.gathered));
                followed.gathered = WriteGathered::default();
                followed.interval = (followed.interval * 2).min(LONGEST);
                followed.due = now + followed.interval;
            }
            // Nothing more to tell, and nothing came for an interval.
            followed.gathered.pages > 0 || followed.seen + followed.interval > now
        });
        // The map is in no order of its own.
        told.sort_by_key(|Observation { subject: Subject { ktime, cpu, seq, tgid, .. }, .. }| (*ktime, *cpu, *seq, *tgid));
        told
    }
}

fn add(sum: &mut WriteGathered, more: &WriteGathered) {
    if sum.pages == 0 {
        sum.first = more.first;
    }
    sum.last = more.last;
    sum.pages += more.pages;
    sum.distinct += more.distinct;
    sum.samples += more.samples;
    if more.has_magic != 0 {
        (sum.magic, sum.has_magic) = (more.magic, 1);
    }
}

/// What was written, by whom and to what `begun` says, at the time of the last page.
fn observation(begun: &Observation, gathered: &WriteGathered) -> Option<Observation> {
    let Observation { kind, subject, what: What::Act(act) } = begun else { return None };
    let Body::FileWrite(FileWrite { file, .. }) = &act.body else { return None };
    let WriteGathered { first, last, pages, distinct, samples, magic, has_magic } = *gathered;
    let body = FileWrite {
        file: file.clone(),
        pages,
        bytes: pages * PAGE,
        span_ns: last.saturating_sub(first),
        samples: samples.try_into().unwrap_or(u32::MAX),
        distinct_bytes: (distinct * 100).checked_div(samples).and_then(|mean| mean.try_into().ok()),
        magic: (has_magic != 0).then(|| magic.to_le_bytes().to_vec()),
    };
    let subject = Subject { ktime: last.max(subject.ktime), ..*subject };
    Some(Observation { kind: *kind, subject, what: Act::done(Body::FileWrite(body)).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: WriteKey = WriteKey { inode: 7, device: 1, tgid: 9 };
    const SECOND: u64 = 1_000_000_000;

    fn begun(ktime: u64) -> Observation {
        let mut body = FileWrite::default();
        body.file.path = Some("/x".to_owned());
        let subject = Subject { ktime, tgid: 9, ..Subject::nobody(ktime) };
        Observation { kind: Kind::FileWrite, subject, what: Act::done(Body::FileWrite(body)).into() }
    }

    fn pages(last: u64, pages: u64) -> (WriteKey, WriteGathered) {
        (KEY, WriteGathered { first: last, last, pages, distinct: 57, samples: 1, magic: 0, has_magic: 0 })
    }

    fn bodies(told: Vec<Observation>) -> Vec<(Option<String>, u64, Option<u32>)> {
        let body = |observation: Observation| match observation.what {
            What::Act(act) => match act.body {
                Body::FileWrite(FileWrite { file, pages, distinct_bytes, .. }) => (file.path, pages, distinct_bytes),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        told.into_iter().map(body).collect()
    }

    #[test]
    fn a_file_is_told_within_a_second_and_then_ever_more_seldom() {
        let mut writes = Writes::default();
        writes.begin(KEY, begun(0));
        let mut told = Vec::new();
        for second in 1..=10 {
            let events = writes.join(vec![pages(second * SECOND, 2)], second * SECOND, false);
            told.extend(bodies(events).into_iter().map(|(_, pages, distinct)| (second, pages, distinct)));
        }
        assert_eq!(told, [(1, 2, Some(5700)), (3, 4, Some(5700)), (7, 8, Some(5700))]);
        assert_eq!(bodies(writes.join(Vec::new(), 11 * SECOND, true)), [(Some("/x".to_owned()), 6, Some(5700))]);
    }

    #[test]
    fn what_an_image_wrote_is_not_told_of_the_next_one() {
        let mut writes = Writes::default();
        writes.begin(KEY, begun(0));
        assert!(writes.join(vec![pages(1, 2)], 1, false).is_empty());
        let next = begun(2);
        writes.begin(KEY, Observation { subject: Subject { exec_id: 7, ..next.subject }, ..next });
        let told = writes.join(vec![pages(3, 4)], SECOND, true);
        let told: Vec<_> = told.iter().map(|told| told.subject.exec_id).zip(bodies(told.clone()).into_iter().map(|body| body.1)).collect();
        assert_eq!(told, [(0, 2), (7, 4)]);
    }

    #[test]
    fn counts_without_their_record_are_told_by_number() {
        let told = Writes::default().join(vec![pages(5, 3)], 5, false);
        assert!(told[0].subject.is_number_only());
        assert_eq!(bodies(told), [(None, 3, Some(5700))]);
    }

    #[test]
    fn what_is_written_no_more_is_forgotten() {
        let mut writes = Writes::default();
        writes.begin(KEY, begun(0));
        writes.join(vec![pages(1, 1)], SECOND, false);
        writes.join(Vec::new(), 10 * SECOND, false);
        assert!(writes.followed.is_empty());
    }
}
