//! What is known of containers, bounded, and which of them have to be looked up. A state machine: answers and times come in, requests go out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bartizan_bus::event::{ContainerInfo, Pod};
use minicbor::{Decode, Encode};

use super::id::{Place, Runtime};
use super::runtime::Metadata;

/// Containers that are remembered, at most. The one that was not heard of for longest makes room.
const CONTAINERS_MAX: usize = 4096;
/// Lookups that wait to be handed over, at most.
const WANTED_MAX: usize = 256;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;

/// How long after a lookup that found nothing the next event of the container brings about another: a runtime may write its files a moment
/// after the first exec. After the last of these the container counts as unknown.
const RETRIES: [u64; 4] = [100 * MILLISECOND, SECOND, 5 * SECOND, 30 * SECOND];
/// How long an answer holds, found or not: a container may be renamed.
const HOLDS: u64 = 600 * SECOND;
/// How long after a lookup that found no room the next may be tried.
const NO_ROOM: u64 = SECOND;

/// A container to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// Its id.
    #[n(0)]
    pub id: String,
    /// Its runtime; without one every runtime that has ids of this form is tried.
    #[n(1)]
    pub runtime: Option<Runtime>,
    /// The user whose containers it is among; `None` is root.
    #[n(2)]
    pub user: Option<u32>,
}

/// What a lookup found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// The runtime's files.
    #[n(0)]
    Found(#[n(0)] Runtime, #[n(1)] Metadata),
    /// No runtime has such a container, as yet.
    #[n(1)]
    Absent,
    /// Files that cannot be read, or are not believed: a sentence.
    #[n(2)]
    Failed(#[n(0)] String),
    /// There was no room for one more lookup.
    #[n(3)]
    NoRoom,
}

/// Numbers for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownReport {
    /// Containers remembered.
    pub held: usize,
    /// Most that are.
    pub max: usize,
    /// Of those that are remembered, with what their runtime says.
    pub known: usize,
    /// Lookups that are under way.
    pub waiting: usize,
    /// Lookups that failed, since the start.
    pub failed: u64,
    /// Lookups for which there was no room, since the start.
    pub dropped: u64,
    /// Containers that made room, since the start.
    pub evicted: u64,
    /// Why the last lookup that failed did.
    pub last_failure: Option<String>,
}

/// One container.
#[derive(Debug)]
struct Entry {
    place: Place,
    /// What its control group says. Who holds this very object may be given what was found.
    base: Arc<ContainerInfo>,
    /// With what its runtime says.
    found: Option<Arc<ContainerInfo>>,
    /// Lookups in a row that found nothing.
    misses: usize,
    /// A lookup is under way.
    asked: bool,
    /// Boot clock from which it may be looked up again, nanoseconds.
    next: u64,
    /// Larger is more recent.
    used: u64,
}

/// The containers, by id.
#[derive(Debug)]
pub struct Known {
    entries: HashMap<String, Entry>,
    wanted: VecDeque<Request>,
    max: usize,
    uses: u64,
    failed: u64,
    dropped: u64,
    evicted: u64,
    last_failure: Option<String>,
}

impl Default for Known {
    fn default() -> Self {
        Self::new(CONTAINERS_MAX)
    }
}

impl Known {
    fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), wanted: VecDeque::new(), max, uses: 0, failed: 0, dropped: 0, evicted: 0, last_failure: None }
    }

    /// What is known of the container at `place`, at `now` of the boot clock. What is not, will be looked up.
    pub fn info(&mut self, place: &Place, now: u64) -> Arc<ContainerInfo> {
        let id = &place.id;
        match self.entries.get(id) {
            Some(entry) if entry.place == *place => {}
            // Root's word counts more than that of a user who gives a group of his the same name, and of whoever is in a container.
            Some(entry) if entry.place.is_of_host() && entry.place.user.is_none() => return Arc::new(base(place)),
            Some(_) | None if !place.is_of_host() => return Arc::new(base(place)),
            Some(_) | None => self.insert(place),
        }
        self.ask(id, now);
        self.uses += 1;
        match self.entries.get_mut(id) {
            Some(entry) => {
                entry.used = self.uses;
                Arc::clone(entry.found.as_ref().unwrap_or(&entry.base))
            }
            // Not reached: it was just put in.
            None => Arc::new(base(place)),
        }
    }

    /// What was found meanwhile of the container `id`, of which somebody holds what its control group says. `None` when nothing was.
    pub fn found(&mut self, id: &str, held: &Arc<ContainerInfo>, now: u64) -> Option<Arc<ContainerInfo>> {
        // The object itself tells that it is this container and no other of the same name.
        let is_this = |entry: &&mut Entry| Arc::ptr_eq(&entry.base, held);
        self.uses += 1;
        let entry = self.entries.get_mut(id).filter(is_this)?;
        entry.used = self.uses;
        let found = entry.found.clone();
        if found.is_none() {
            self.ask(id, now);
        }
        found
    }

    /// The next container to be looked up.
    pub fn next_request(&mut self) -> Option<Request> {
        self.wanted.pop_front()
    }

    /// Takes the answer to a request.
    pub fn answer(&mut self, request: &Request, answer: Answer, now: u64) {
        match &answer {
            Answer::Failed(why) => {
                self.failed += 1;
                self.last_failure = Some(why.clone());
            }
            Answer::NoRoom => self.dropped += 1,
            Answer::Found(..) | Answer::Absent => {}
        }
        let Some(entry) = self.entries.get_mut(&request.id).filter(|entry| entry.place.user == request.user) else { return };
        entry.asked = false;
        match answer {
            Answer::Found(runtime, metadata) => {
                entry.found = Some(Arc::new(metadata.complete(&entry.base, runtime)));
                (entry.misses, entry.next) = (0, now.saturating_add(HOLDS));
            }
            Answer::Absent | Answer::Failed(_) => {
                entry.next = now.saturating_add(RETRIES.get(entry.misses).copied().unwrap_or(HOLDS));
                entry.misses += 1;
            }
            Answer::NoRoom => entry.next = now.saturating_add(NO_ROOM),
        }
    }

    /// Numbers for `status`.
    pub fn report(&self) -> KnownReport {
        KnownReport {
            held: self.entries.len(),
            max: self.max,
            known: self.entries.values().filter(|entry| entry.found.is_some()).count(),
            waiting: self.entries.values().filter(|entry| entry.asked).count(),
            failed: self.failed,
            dropped: self.dropped,
            evicted: self.evicted,
            last_failure: self.last_failure.clone(),
        }
    }

    fn insert(&mut self, place: &Place) {
        if self.entries.len() >= self.max && !self.entries.contains_key(&place.id) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
                self.evicted += 1;
            }
        }
        let entry =
            Entry { place: place.clone(), base: Arc::new(base(place)), found: None, misses: 0, asked: false, next: 0, used: self.uses };
        self.entries.insert(place.id.clone(), entry);
    }

    /// Wants a lookup if one is due.
    fn ask(&mut self, id: &str, now: u64) {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| !entry.asked && entry.next <= now) else { return };
        let runtime = entry.place.runtime;
        if !runtime.is_none_or(has_files) {
            return;
        }
        if self.wanted.len() >= WANTED_MAX {
            self.dropped += 1;
            entry.next = now.saturating_add(NO_ROOM);
            return;
        }
        entry.asked = true;
        self.wanted.push_back(Request { id: id.to_owned(), runtime, user: entry.place.user });
    }
}

/// Whether a runtime's files are read.
fn has_files(runtime: Runtime) -> bool {
    match runtime {
        Runtime::Docker | Runtime::Containerd | Runtime::CriO | Runtime::Podman => true,
        Runtime::Lxc | Runtime::Nspawn | Runtime::Buildkit => false,
    }
}

/// What a control group says.
fn base(place: &Place) -> ContainerInfo {
    let Place { id: _, runtime, pod, user, within, cut: _ } = place;
    ContainerInfo {
        runtime: runtime.map(|runtime| runtime.as_str().to_owned()),
        pod: pod.clone().map(|uid| Pod { uid: Some(uid), ..Pod::default() }),
        within: within.clone(),
        user: *user,
        ..ContainerInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::enrich::container::of_path;

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    fn docker(number: usize) -> Place {
        of_path(&format!("/system.slice/docker-{}.scope", id(number))).unwrap()
    }

    fn of_user(number: usize) -> Place {
        of_path(&format!("/user.slice/user@1000.service/docker-{}.scope", id(number))).unwrap()
    }

    fn named(name: &str) -> Answer {
        Answer::Found(Runtime::Docker, Metadata { name: Some(name.into()), ..Metadata::default() })
    }

    #[test]
    fn the_first_event_asks_and_later_ones_know() {
        let mut known = Known::default();
        let first = known.info(&docker(1), 0);
        assert_eq!((first.runtime.as_deref(), first.name.as_deref()), (Some("docker"), None));
        let request = known.next_request().unwrap();
        assert_eq!(request, Request { id: id(1), runtime: Some(Runtime::Docker), user: None });
        known.info(&docker(1), 5);
        assert_eq!(known.next_request(), None, "asked once");
        assert_eq!(known.found(&id(1), &first, 6), None);
        known.answer(&request, named("web"), 7);
        assert_eq!(known.info(&docker(1), 8).name.as_deref(), Some("web"));
        assert_eq!(known.found(&id(1), &first, 9).unwrap().name.as_deref(), Some("web"), "the running process's, too");
        assert_eq!((known.report().known, known.report().waiting), (1, 0));
    }

    #[test]
    fn what_is_not_found_is_asked_a_few_times_and_then_seldom() {
        let mut known = Known::default();
        let (mut now, mut asked) = (0, Vec::new());
        while now < 1200 * SECOND {
            known.info(&docker(1), now);
            if let Some(request) = known.next_request() {
                asked.push(now);
                known.answer(&request, Answer::Absent, now);
            }
            now += 50 * MILLISECOND;
        }
        let seconds: Vec<u64> = asked.iter().map(|at| at / (100 * MILLISECOND)).collect();
        assert_eq!(seconds, [0, 1, 11, 61, 361, 6361], "tenths of seconds");
    }

    #[test]
    fn an_answer_is_looked_up_again_after_a_while_and_kept_meanwhile() {
        let mut known = Known::default();
        known.info(&docker(1), 0);
        let request = known.next_request().unwrap();
        known.answer(&request, named("old"), 0);
        assert_eq!(known.info(&docker(1), HOLDS).name.as_deref(), Some("old"));
        let request = known.next_request().unwrap();
        known.answer(&request, named("new"), HOLDS);
        assert_eq!(known.info(&docker(1), HOLDS).name.as_deref(), Some("new"));
        // A container that is gone keeps what was known of it.
        known.info(&docker(1), 2 * HOLDS);
        let request = known.next_request().unwrap();
        known.answer(&request, Answer::Absent, 2 * HOLDS);
        assert_eq!(known.info(&docker(1), 2 * HOLDS).name.as_deref(), Some("new"));
    }

    #[test]
    fn a_user_s_group_does_not_take_the_name_of_root_s_container() {
        let mut known = Known::default();
        // First the imitation, then the real one.
        let imitation = known.info(&of_user(1), 0);
        let asked_for_user = known.next_request().unwrap();
        assert_eq!((imitation.user, asked_for_user.user), (Some(1000), Some(1000)));
        known.info(&docker(1), 1);
        let request = known.next_request().unwrap();
        known.answer(&asked_for_user, named("fake"), 2);
        assert_eq!(known.info(&docker(1), 2).name, None, "another place's answer");
        known.answer(&request, named("web"), 3);
        assert_eq!(known.info(&docker(1), 4).name.as_deref(), Some("web"));
        let again = known.info(&of_user(1), 5);
        assert_eq!((again.name.as_deref(), again.user), (None, Some(1000)));
        assert_eq!(known.found(&id(1), &again, 6), None, "nor by what its processes hold");
        // And the container in a container that claims to be it.
        let inside = of_path(&format!("/docker/{}/docker-{}.scope", id(2), id(1))).unwrap();
        assert_eq!((known.info(&inside, 7).name.as_deref(), known.next_request()), (None, None));
    }

    #[test]
    fn what_has_no_room_is_counted_and_asked_later() {
        let mut known = Known::default();
        for number in 0..=WANTED_MAX {
            known.info(&docker(number), 0);
        }
        assert_eq!((known.report().dropped, known.wanted.len()), (1, WANTED_MAX));
        let request = known.next_request().unwrap();
        known.answer(&request, Answer::NoRoom, 0);
        assert_eq!((known.report().dropped, known.report().waiting), (2, WANTED_MAX - 1));
        known.wanted.clear();
        known.info(&docker(0), NO_ROOM);
        assert_eq!(known.next_request().map(|request| request.id), Some(id(0)));
    }

    #[test]
    fn failures_are_counted_with_their_reason() {
        let mut known = Known::default();
        known.info(&docker(1), 0);
        let request = known.next_request().unwrap();
        known.answer(&request, Answer::Failed("it is a FIFO".into()), 0);
        let report = known.report();
        assert_eq!((report.failed, report.known, report.last_failure.as_deref()), (1, 0, Some("it is a FIFO")));
    }

    #[test]
    fn a_runtime_without_files_is_not_asked() {
        let mut known = Known::default();
        assert_eq!(known.info(&of_path("/lxc.payload.web").unwrap(), 0).runtime.as_deref(), Some("lxc"));
        assert_eq!((known.next_request(), known.report().held), (None, 1));
    }

    #[test]
    fn the_one_not_heard_of_for_longest_makes_room() {
        let mut known = Known::new(2);
        known.info(&docker(1), 0);
        known.info(&docker(2), 1);
        known.info(&docker(1), 2);
        known.info(&docker(3), 3);
        let mut held: Vec<&String> = known.entries.keys().collect();
        held.sort();
        assert_eq!((held, known.report().evicted), (vec![&id(1), &id(3)], 1));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_comes(steps in proptest::collection::vec((0_usize..40, 0_u8..5, 0_u64..100 * SECOND), 0..300)) {
            let mut known = Known::new(8);
            let mut sent = Vec::new();
            for (number, step, now) in steps {
                match (step, sent.pop()) {
                    (0, Some(request)) => known.answer(&request, named("x"), now),
                    (1, Some(request)) => known.answer(&request, Answer::Absent, now),
                    (2, Some(request)) => known.answer(&request, Answer::NoRoom, now),
                    (3, last) => {
                        known.info(&of_user(number), now);
                        sent.extend(last);
                    }
                    (_, last) => {
                        known.info(&docker(number), now);
                        sent.extend(last.into_iter().chain(known.next_request()));
                    }
                }
                prop_assert!(known.entries.len() <= 8 && known.wanted.len() <= WANTED_MAX);
            }
        }
    }
}
