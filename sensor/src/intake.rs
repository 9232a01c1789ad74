//! What goes in, and what becomes of it: the one seam between the kernel and everything behind it.
//!
//! Invariants worth naming:
//!
//! - **An [`Input`] is all that the events depend on.** What was read from a clock, a ring, a map or a file comes in as one, so that the
//!   same inputs give the same events, live and from a recording.
//! - **Whoever captures does not know who takes**: [`Intake`] makes events of inputs, [`crate::recording::Writer`] writes them to a file.
//! - **Nothing is lost without a count**: bytes that are no record, events that the stream does not take.

use std::sync::Arc;

use bartizan_bus::event::{AccountChange, Body, EventId, ExecId, Gap, Heartbeat, KindLoss, Loss, SecurityEvent, Severity, Start, Stop};
use bartizan_bus::{PublishError, Stream};
use bartizan_sensor_ebpf::abi::{
    Kind, ProbeGathered, ProbeSource, Ring, SynGathered, SynSource, UdpGathered, UdpPeer, WriteGathered, WriteKey,
};

use crate::capture::files::{FileDeed, Judge, WatchList};
use crate::capture::rings::{Aligned, Merge};
use crate::capture::seed::Found;
use crate::counts::Tally;
use crate::enrich::Enricher;
use crate::enrich::container::known::{Answer, Request};
use crate::enrich::users::Names;
use crate::hash::{self, Wanted};
use crate::logins::LoginsFile;
use crate::project::probe::gather;
use crate::project::{Act, NO_CPU, Observation, Subject, What, project, syn, wire};

/// Events published at once, at most.
const PUBLISH_BATCH: usize = 1024;

/// One thing that capture learned. Times are of the boot clock, in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// The sensor has attached its hooks.
    Begin {
        /// When.
        now: u64,
        /// What it sees.
        start: Start,
        /// What EVENTS cannot speak for.
        gap: Option<Gap>,
    },
    /// Logins that processes of an earlier run belong to.
    Logins(Vec<(ExecId, EventId)>),
    /// Every user name, from now on.
    Users(Names),
    /// What has to be added to the boot clock to get Unix time, nanoseconds.
    WallOffset(i64),
    /// A process that already runs.
    Seed(Found),
    /// A record of a ring, as the kernel wrote it.
    Record(&'a [u8]),
    /// Packets to closed ports, as they lay in the kernel's map.
    Probe(ProbeSource, ProbeGathered),
    /// UDP packets, likewise.
    UdpFlow(UdpPeer, Box<UdpGathered>),
    /// Attempts to connect to ports that listen, likewise.
    Syn(SynSource, Box<SynGathered>),
    /// The watched files, from now on.
    Watched(WatchList),
    /// What a process did to a watched file, as fanotify tells it.
    FileDeed(Box<FileDeed>),
    /// What processes wrote, as it lay in the kernel's map.
    Writes {
        /// When it was taken.
        now: u64,
        /// All is to be told now.
        all: bool,
        /// By process and file.
        gathered: Vec<(WriteKey, WriteGathered)>,
    },
    /// Entries of the host's account files that are others than before, with the inode number of their file.
    Accounts {
        /// When they were read.
        now: u64,
        /// In the order of the files and of names.
        changes: Vec<(u64, AccountChange)>,
    },
    /// Records up to this time have their place: none that is older will come.
    Due(u64),
    /// Time goes on.
    Heartbeat {
        /// When.
        now: u64,
        /// Seconds that the sensor runs.
        uptime_s: u64,
    },
    /// What the sensor found out about the kernel by itself.
    Own {
        /// When.
        now: u64,
        /// How bad.
        severity: Severity,
        /// What.
        body: Box<Body>,
    },
    /// Records were lost since the last of these.
    Lost {
        /// When that was found out.
        now: u64,
        /// How many, by kind and reason.
        lost: Vec<KindLoss>,
    },
    /// Every process that there is: its pid, and its start in ticks of /proc.
    Alive(Vec<(u32, u64)>),
    /// An executable was hashed, or will not be.
    Hashed {
        /// When that was known.
        now: u64,
        /// What came of it.
        answer: hash::Answer,
    },
    /// What the files of a container runtime say.
    Container {
        /// When they were read.
        now: u64,
        /// Whom they were read for.
        request: Request,
        /// What came of it.
        answer: Answer,
    },
    /// A second is over.
    Second,
    /// The end: nothing comes after it.
    Stop {
        /// When.
        now: u64,
    },
}

/// Takes what capture learns.
pub trait Sink: Send {
    /// Takes one input. No where it could not be kept.
    fn take(&mut self, input: Input<'_>) -> bool;

    /// The next container whose runtime's files are to be read. The answer comes as an [`Input::Container`].
    fn next_container(&mut self) -> Option<Request>;

    /// Whether records wait for their time.
    fn waits(&self) -> bool;

    /// Whether nothing can be taken any more: capture is to end.
    fn is_broken(&self) -> bool;

    /// Executables that are to be hashed since the last call. Whoever only keeps inputs wants none: a recording has no hashes.
    fn wanted(&mut self) -> Vec<Wanted>;
}

/// Makes events of inputs and puts them into EVENTS.
pub struct Intake {
    merge: Merge,
    aligned: Aligned,
    files: Judge,
    enricher: Enricher,
    events: Stream,
    tally: Arc<Tally>,
    logins: Option<LoginsFile>,
}

impl Intake {
    /// Events go to `events`, counts to `tally`. `logins`: where logins are kept for the next run, if there is to be one.
    pub fn new(enricher: Enricher, events: Stream, tally: Arc<Tally>, logins: Option<LoginsFile>) -> Self {
        Self { merge: Merge::default(), aligned: Aligned::default(), files: Judge::default(), enricher, events, tally, logins }
    }

    /// Whether `bytes`, if it is a record, was put among those that wait.
    fn record(&mut self, bytes: &[u8]) -> bool {
        // A ring's memory is aligned; a file's need not be.
        let bytes = if bytes.as_ptr().align_offset(align_of::<u64>()) == 0 { bytes } else { self.aligned.copy(bytes) };
        match project(bytes) {
            Ok(record) => {
                self.merge.push(record);
                true
            }
            Err(error) => {
                self.tally.undecodable(1, error.to_string());
                false
            }
        }
    }

    fn due(&mut self, limit: u64) -> bool {
        let records = self.merge.due(limit);
        let unfinished = self.enricher.unfinished(limit);
        if records.is_empty() && unfinished.is_empty() {
            return true;
        }
        // What was gathered in a map has the stamp of its first packet, which says nothing of a ring.
        let ringed = records.iter().filter(|record| record.subject.cpu != NO_CPU);
        let stamps: Vec<(Ring, u64)> = ringed.map(|record| (record.kind.ring(), record.subject.ktime)).collect();
        // An event is large: it is put where it stays at once, and only pointers are gathered.
        let mut events = Vec::with_capacity(records.len());
        for record in records.into_iter().filter_map(|record| self.files.judge(record)) {
            events.extend(self.enricher.event(record, false).map(Arc::new));
            events.extend(self.enricher.more().map(Arc::new));
        }
        events.extend(unfinished.into_iter().map(Arc::new));
        let stored = self.publish(&events);
        if stored {
            self.tally.arrived(&stamps);
        }
        stored
    }

    fn seed(&mut self, found: Found) -> bool {
        match found.observation() {
            Ok((observation, approximate)) => {
                let event = self.enricher.event(observation, approximate);
                self.publish(&event.into_iter().map(Arc::new).collect::<Vec<_>>())
            }
            Err(error) => {
                self.tally.undecodable(1, error.to_string());
                false
            }
        }
    }

    fn own(&mut self, now: u64, severity: Severity, body: Body) -> bool {
        let event = self.enricher.own(now, severity, body);
        self.publish(&[Arc::new(event)])
    }

    /// Ends those whose exit was never seen.
    fn forget_all_but(&mut self, mut alive: Vec<(u32, u64)>) {
        alive.sort_unstable();
        let mut gone = self.enricher.table().living();
        gone.retain(|id| alive.binary_search(&(id.pid, id.start_ticks())).is_err());
        // The table is in no order of its own, and who ended first makes room first.
        gone.sort_unstable();
        self.enricher.forget(&gone);
    }

    /// Appends `events` in order. What the stream does not take is counted by kind. Returns whether it took all.
    fn publish(&mut self, events: &[Arc<SecurityEvent>]) -> bool {
        let mut stored = true;
        let mut events = events;
        while !events.is_empty() {
            let (batch, rest) = events.split_at(events.len().min(PUBLISH_BATCH));
            events = rest;
            let kinds = batch.iter().map(|event| event.kind());
            match self.events.append_typed(batch) {
                Ok(_) => self.tally.received(kinds),
                Err(error) => {
                    stored = false;
                    let reason = if matches!(error, PublishError::Full { .. }) { "disk_full" } else { "bus_error" };
                    self.tally.unpublished(kinds, reason, error.to_string());
                }
            }
        }
        stored
    }

    /// Keeps what the next run would not know.
    fn remember_logins(&mut self) {
        if let Some(file) = &mut self.logins
            && let Some(logins) = self.enricher.logins()
            && let Err(error) = file.store(logins)
        {
            tracing::warn!(%error, "which process belongs to which login is not saved; after a restart of Bartizan open sessions are not known");
        }
    }
}

impl Sink for Intake {
    fn take(&mut self, input: Input<'_>) -> bool {
        match input {
            Input::Begin { now, start, gap } => {
                let told = gap.is_none_or(|gap| self.own(now, Severity::Low, Body::Gap(gap)));
                self.own(now, Severity::Info, Body::Start(start)) && told
            }
            Input::Logins(logins) => {
                self.enricher.remember_logins(logins);
                true
            }
            Input::Users(names) => {
                self.enricher.set_users(names);
                true
            }
            Input::WallOffset(offset) => {
                self.enricher.set_wall_offset(offset);
                true
            }
            Input::Seed(found) => self.seed(found),
            Input::Record(bytes) => self.record(bytes),
            Input::Probe(key, value) => {
                let what = What::Probe(gather(&key, &value));
                self.merge.push(Observation { kind: Kind::Probe, subject: Subject::nobody(value.last), what });
                true
            }
            Input::UdpFlow(key, value) => {
                let subject = Subject { ktime: value.last, cpu: NO_CPU, ..Subject::from(&value.owner) };
                self.merge.push(Observation { kind: Kind::UdpFlow, subject, what: wire::udp_flow(&key, &value).into() });
                true
            }
            Input::Syn(key, value) => {
                let what = What::Syn(syn::gather(&key, &value));
                self.merge.push(Observation { kind: Kind::Syn, subject: Subject::nobody(value.last), what });
                true
            }
            Input::Watched(list) => {
                self.files.set(list);
                true
            }
            Input::FileDeed(deed) => {
                let FileDeed { now, pid, seq, body } = *deed;
                let subject = Subject::of_pid(pid, now, seq);
                self.merge.push(Observation { kind: Kind::FileOpen, subject, what: Act::done(body).into() });
                true
            }
            Input::Writes { now, all, gathered } => {
                let written = self.files.written(gathered, now, all);
                written.into_iter().for_each(|observation| self.merge.push(observation));
                true
            }
            Input::Accounts { now, changes } => {
                for (inode, change) in changes {
                    let what = What::Account(inode, change);
                    self.merge.push(Observation { kind: Kind::PamPassword, subject: Subject::nobody(now), what });
                }
                true
            }
            Input::Due(limit) => self.due(limit),
            Input::Heartbeat { now, uptime_s } => self.own(now, Severity::Info, Body::Heartbeat(Heartbeat { uptime_s })),
            Input::Own { now, severity, body } => self.own(now, severity, *body),
            Input::Lost { now, lost } => self.own(now, Severity::Medium, Body::Loss(Loss { lost })),
            Input::Alive(alive) => {
                self.forget_all_but(alive);
                true
            }
            Input::Hashed { now, answer } => {
                let events: Vec<_> = self.enricher.hashed(now, &answer).into_iter().map(Arc::new).collect();
                self.publish(&events)
            }
            Input::Container { now, request, answer } => {
                self.enricher.containers_mut().answer(&request, answer, now);
                true
            }
            Input::Second => {
                self.remember_logins();
                let hashes = self.enricher.hashes().counts();
                self.tally.sizes(self.enricher.table(), self.enricher.transactions(), self.enricher.containers(), hashes);
                true
            }
            Input::Stop { now } => self.own(now, Severity::Info, Body::Stop(Stop { reason: "asked to stop".to_owned() })),
        }
    }

    fn next_container(&mut self) -> Option<Request> {
        self.enricher.containers_mut().next_request()
    }

    fn waits(&self) -> bool {
        !self.merge.is_empty()
    }

    fn wanted(&mut self) -> Vec<Wanted> {
        self.enricher.hashes().take_wanted()
    }

    /// A stream that takes nothing now may take something later.
    fn is_broken(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::BootId;
    use bartizan_bus::{Bus, BusConfig, StreamName};
    use bartizan_sensor_ebpf::abi::{ABI_VERSION, Exit};
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;
    use crate::project::Image;

    struct Place {
        _folder: tempfile::TempDir,
        bus: Bus,
        tally: Arc<Tally>,
        intake: Intake,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let bus = Bus::open(folder.path(), &BusConfig::default()).unwrap();
            let tally = Arc::new(Tally::default());
            let enricher = Enricher::new(BootId(9), "host".into(), 1_000, 64);
            let intake = Intake::new(enricher, bus.stream(StreamName::Events).clone(), Arc::clone(&tally), None);
            Self { _folder: folder, bus, tally, intake }
        }

        fn stored(&self) -> u64 {
            self.bus.stream(StreamName::Events).info().messages
        }
    }

    fn exit(ktime: u64) -> Exit {
        let mut record = Exit::new_zeroed();
        (record.header.abi, record.header.kind, record.header.len) = (ABI_VERSION, Kind::Exit as u16, size_of::<Exit>() as u32);
        (record.header.ktime, record.header.tgid) = (ktime, 7);
        record
    }

    fn seed(tgid: u32, ticks: u64) -> Input<'static> {
        let subject = Subject { tgid, start_boottime: ticks * bartizan_bus::event::NS_PER_TICK, ..Subject::nobody(1) };
        Input::Seed(Found::Proc { subject, image: Box::new(Image::default()) })
    }

    #[test]
    fn a_record_waits_for_its_time() {
        let mut place = Place::new();
        assert!(place.intake.take(Input::Record(exit(50).as_bytes())));
        assert!(place.intake.take(Input::Due(49)) && place.intake.waits());
        assert_eq!(place.stored(), 0);
        assert!(place.intake.take(Input::Due(50)) && !place.intake.waits());
        assert_eq!(place.stored(), 1);
    }

    #[test]
    fn a_record_is_read_wherever_it_lies() {
        let mut place = Place::new();
        let mut bytes = vec![0; 9];
        bytes.extend_from_slice(exit(50).as_bytes());
        for start in 1..=9 {
            let mut bytes = bytes.clone();
            bytes.drain(..9 - start);
            assert!(place.intake.take(Input::Record(&bytes[start..])), "{start}");
        }
        assert!(place.tally.counts().decode_error.is_none());
    }

    #[test]
    fn bytes_that_are_no_record_are_counted() {
        let mut place = Place::new();
        assert!(!place.intake.take(Input::Record(&[1, 2, 3])));
        assert!(!place.intake.take(Input::Seed(Found::Iterator { record: vec![4], cmdline: Vec::new() })));
        let counts = place.tally.counts();
        assert_eq!(counts.own_losses().get(&("unknown".to_owned(), "decode")), Some(&2));
        assert_eq!(counts.decode_error.as_deref(), Some("record of 3 bytes where at least 64 are needed"));
    }

    #[test]
    fn what_a_closed_stream_does_not_take_is_counted_and_told() {
        let mut place = Place::new();
        place.bus.close().unwrap();
        assert!(!place.intake.take(Input::Heartbeat { now: 1, uptime_s: 1 }));
        assert_eq!(place.tally.counts().own_losses().get(&("sensor.heartbeat".to_owned(), "bus_error")), Some(&1));
    }

    #[test]
    fn a_container_s_name_comes_in_and_later_events_have_it() {
        use crate::enrich::container::Runtime;
        use crate::enrich::container::runtime::Metadata;
        let mut place = Place::new();
        let image = |path: &str| Box::new(Image { cgroup: Some(path.to_owned()), ..Image::default() });
        let path = format!("/docker/{}", "5eed".repeat(16));
        let seed = |tgid| Input::Seed(Found::Proc { subject: Subject { tgid, ..Subject::nobody(1) }, image: image(&path) });
        place.intake.take(seed(5));
        let request = place.intake.next_container().unwrap();
        assert_eq!(place.intake.next_container(), None);
        let metadata = Metadata { name: Some("web".into()), ..Metadata::default() };
        place.intake.take(Input::Container { now: 2, request, answer: Answer::Found(Runtime::Docker, metadata) });
        place.intake.take(seed(6));
        place.intake.take(Input::Record(exit(50).as_bytes()));
        place.intake.take(Input::Due(50));
        place.intake.take(Input::Second);
        assert_eq!(place.tally.counts().containers.known, 1);
        let table = place.intake.enricher.table();
        let name = |pid| table.by_pid(pid).and_then(|entry| entry.process.container_info.clone()).and_then(|info| info.name.clone());
        assert_eq!((name(5), name(6).as_deref()), (None, Some("web")), "the first is told with its next event");
    }

    #[test]
    fn those_that_ended_unseen_are_given_up() {
        let mut place = Place::new();
        for (tgid, ticks) in [(5, 10), (6, 20), (7, 30)] {
            assert!(place.intake.take(seed(tgid, ticks)));
        }
        // One lives, one is gone, and one pid is another process now.
        assert!(place.intake.take(Input::Alive(vec![(7, 31), (5, 10)])));
        let living: Vec<u32> = place.intake.enricher.table().living().iter().map(|id| id.pid).collect();
        assert_eq!(living, [5]);
    }
}
