//! Which containers a recorder has to look up, so that a replay knows them: it makes no events, and so looks at the images itself.

use bartizan_sensor_ebpf::abi::{Record, decode};

use crate::capture::rings::Aligned;
use crate::capture::seed::Found;
use crate::enrich::container::known::{Answer, Known, Request};
use crate::enrich::container::{Place, of_path};
use crate::project::{What, project};

/// Images whose time has not come, at most; beyond them one is looked at before its time, which costs a replay its name at worst.
const WAITING_MAX: usize = 8192;

/// Containers of a recording.
#[derive(Default)]
pub(super) struct Containers {
    known: Known,
    /// Of records that are not due, with their boot clock: a replay knows a container only from then on.
    waiting: Vec<(u64, Place)>,
    aligned: Aligned,
}

impl Containers {
    /// Looks at a record of a ring. What is none is told by the replay.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        let bytes = if bytes.as_ptr().align_offset(align_of::<u64>()) == 0 { bytes } else { self.aligned.copy(bytes) };
        let (Ok(Record::Exec(..)), Ok(record)) = (decode(bytes), project(bytes)) else { return };
        let What::Exec { image, .. } = record.what else { return };
        let Some(place) = image.cgroup.as_deref().and_then(of_path) else { return };
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push((record.subject.ktime, place));
        } else {
            self.known.info(&place, record.subject.ktime);
        }
    }

    /// Looks at a process that ran already.
    pub(super) fn seed(&mut self, found: &Found) {
        let Ok((seed, _)) = found.clone().observation() else { return };
        let What::Seed(image) = seed.what else { return };
        if let Some(place) = image.cgroup.as_deref().and_then(of_path) {
            self.known.info(&place, seed.subject.ktime);
        }
    }

    /// Records up to this time have their place.
    pub(super) fn due(&mut self, limit: u64) {
        let known = &mut self.known;
        self.waiting.retain(|(ktime, place)| {
            if *ktime <= limit {
                known.info(place, *ktime);
            }
            *ktime > limit
        });
    }

    /// Takes an answer, as the replay will.
    pub(super) fn answer(&mut self, request: &Request, answer: &Answer, now: u64) {
        self.known.answer(request, answer.clone(), now);
    }

    /// The next one to look up.
    pub(super) fn next(&mut self) -> Option<Request> {
        self.known.next_request()
    }
}
