//! What is measured over the wire: one list, from which runs, rows and goals derive.

use clap::ValueEnum;

use super::server::{Durability, Kind};

/// Named for what a person would ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Section {
    /// The load itself, against nothing.
    Driver,
    /// Publish and subscribe, nothing stored.
    Core,
    /// Request and reply.
    Request,
    /// Acknowledged publishes into a stream.
    Publish,
    /// Reading a stream.
    Fetch,
    /// Resident memory with millions of messages and a hundred consumers.
    Memory,
    /// The bus in its own process.
    InProcess,
    /// Bytes on disk for each event of a real sensor.
    EventsDisk,
}

impl Section {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Core => "core",
            Self::Request => "request",
            Self::Publish => "publish",
            Self::Fetch => "fetch",
            Self::Memory => "memory",
            Self::InProcess => "in-process",
            Self::EventsDisk => "events-disk",
        }
    }

    /// Name of its place in the document.
    pub(super) fn marker(self) -> &'static str {
        match self {
            Self::Driver => "bus --only driver",
            Self::Core => "bus --only core",
            Self::Request => "bus --only request",
            Self::Publish => "bus --only publish",
            Self::Fetch => "bus --only fetch",
            Self::Memory => "bus --only memory",
            Self::InProcess => "bus --only in-process",
            Self::EventsDisk => "bus --only events-disk",
        }
    }

    /// Heading in the document.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Driver => "Bus: the load itself",
            Self::Core => "Bus: publish and subscribe",
            Self::Request => "Bus: request and reply",
            Self::Publish => "Bus: publish into a stream",
            Self::Fetch => "Bus: read a stream",
            Self::Memory => "Bus: memory",
            Self::InProcess => "Bus: in the process",
            Self::EventsDisk => "Bus: bytes on disk for each event",
        }
    }

    /// For progress.
    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::Driver => "how fast the raw driver is against a server that does nothing",
            Self::Core => "publish and subscribe, nothing stored",
            Self::Request => "requests, one at a time",
            Self::Publish => "acknowledged publishes into a stream",
            Self::Fetch => "a stored stream, read in batches",
            Self::Memory => "resident memory with millions of messages and a hundred consumers",
            Self::InProcess => "publishing inside the process",
            Self::EventsDisk => "bytes on disk for each event of a real sensor",
        }
    }
}

/// What a goal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Messages a second.
    Throughput,
    /// Processor time of the server for a message.
    Cpu,
    /// The latency that 99 of 100 messages do not exceed.
    P99,
}

/// Ours to nats-server's, from issue 4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// The ratio is this or greater.
    AtLeast(Measure, f64),
    /// The ratio is this or less.
    AtMost(Measure, f64),
}

impl Goal {
    /// What its ratio is of.
    pub(super) fn measure(self) -> Measure {
        match self {
            Self::AtLeast(measure, _) | Self::AtMost(measure, _) => measure,
        }
    }

    /// Whether a ratio meets it.
    pub(super) fn met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(_, least) => ratio >= least,
            Self::AtMost(_, most) => ratio <= most,
        }
    }

    /// `throughput ≥ 1.5`.
    pub(super) fn text(self) -> String {
        let name = match self.measure() {
            Measure::Throughput => "throughput",
            Measure::Cpu => "CPU",
            Measure::P99 => "p99",
        };
        match self {
            Self::AtLeast(_, least) => format!("{name} ≥ {least}"),
            Self::AtMost(_, most) => format!("{name} ≤ {most}"),
        }
    }
}

/// Throughput and processor time over the wire.
const OVER_THE_WIRE: &[Goal] = &[Goal::AtLeast(Measure::Throughput, 1.5), Goal::AtMost(Measure::Cpu, 0.7)];
/// Group commit.
const SYNCED: &[Goal] = &[Goal::AtLeast(Measure::Throughput, 20.0)];
/// One publisher that waits for each sync.
const SYNCED_ALONE: &[Goal] = &[Goal::AtMost(Measure::P99, 1.0)];

/// What drives a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// A socket and prepared bytes, in each server's own protocol.
    Raw,
    /// async-nats.
    AsyncNats,
}

impl Client {
    fn text(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::AsyncNats => "async-nats",
        }
    }

    /// The driver's word for it.
    pub(super) fn word(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::AsyncNats, _) => "async-nats",
            (Self::Raw, Kind::Redis) => "redis",
            (Self::Raw, Kind::Ours | Kind::Nats) => "raw",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// First column.
    pub(super) name: String,
    /// The driver's verb and options, the client apart.
    pub(super) work: Vec<String>,
    pub(super) client: Client,
    pub(super) durability: Durability,
    /// Redis can do this, too.
    pub(super) redis: bool,
    /// One thing at a time, which waits for its answer.
    pub(super) one_at_a_time: bool,
    /// Latencies are of whole batches of so many.
    pub(super) batch: Option<u64>,
    /// Part of the short form.
    pub(super) quick: bool,
    pub(super) goals: &'static [Goal],
}

impl Case {
    /// Whether this server has a turn.
    pub(super) fn is_for(&self, kind: Kind) -> bool {
        kind != Kind::Redis || (self.redis && self.client == Client::Raw)
    }
}

fn case(name: String, work: &str, client: Client) -> Case {
    let work = work.split(' ').map(str::to_owned).collect();
    Case {
        name: format!("{name}, {}", client.text()),
        work,
        client,
        durability: Durability::Interval,
        redis: true,
        one_at_a_time: false,
        batch: None,
        quick: false,
        goals: OVER_THE_WIRE,
    }
}

/// The measurements of a section; empty for one that is not of this kind.
pub(super) fn cases(section: Section) -> Vec<Case> {
    match section {
        Section::Core => core(),
        Section::Request => request(),
        Section::Publish => publish(),
        Section::Fetch => fetch(),
        Section::Driver | Section::Memory | Section::InProcess | Section::EventsDisk => Vec::new(),
    }
}

fn core() -> Vec<Case> {
    let mut cases = Vec::new();
    for client in [Client::Raw, Client::AsyncNats] {
        for size in [16, 256, 1024] {
            let quick = client == Client::Raw || size == 256;
            cases.push(Case { quick, ..case(format!("{size} B"), &format!("core --size {size}"), client) });
        }
    }
    cases
}

fn request() -> Vec<Case> {
    let one = |client| Case {
        redis: false,
        one_at_a_time: true,
        quick: client == Client::Raw,
        ..case("16 B".to_owned(), "request --size 16", client)
    };
    vec![one(Client::Raw), one(Client::AsyncNats)]
}

fn publish() -> Vec<Case> {
    let mut cases = Vec::new();
    for durability in [Durability::Interval, Durability::Always] {
        for (client, publishers) in [(Client::Raw, 1), (Client::Raw, 8), (Client::AsyncNats, 1), (Client::AsyncNats, 8)] {
            for window in [1000, 1] {
                let goals = match (durability, window, publishers) {
                    (Durability::Interval, _, _) => OVER_THE_WIRE,
                    (Durability::Always, 1000, _) => SYNCED,
                    (Durability::Always, _, 1) => SYNCED_ALONE,
                    (Durability::Always, _, _) => &[],
                };
                let in_flight = if window == 1 { "one at a time".to_owned() } else { format!("{window} in flight") };
                let who = if publishers == 1 { "1 publisher".to_owned() } else { format!("{publishers} publishers") };
                let name = format!("{}, {who}, {in_flight}", durability.text());
                let work = format!("publish --size 256 --window {window} --publishers {publishers}");
                let quick = client == Client::Raw && publishers == 1;
                cases.push(Case { durability, one_at_a_time: window == 1, quick, goals, ..case(name, &work, client) });
            }
        }
    }
    cases
}

fn fetch() -> Vec<Case> {
    let mut cases = Vec::new();
    for client in [Client::Raw, Client::AsyncNats] {
        for (name, option) in [("explicit ack", " --ack"), ("no ack", "")] {
            let case = case(format!("500 at a time, {name}"), &format!("fetch --size 256 --batch 500{option}"), client);
            cases.push(Case { batch: Some(500), quick: client == Client::Raw, ..case });
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_clear_and_sections_are_theirs() {
        for section in Section::value_variants() {
            let shown = section.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(shown.as_deref(), Some(section.name()));
            assert_eq!(section.marker(), format!("bus --only {}", section.name()));
            let mut names: Vec<String> = cases(*section).into_iter().map(|case| case.name).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "{section:?}");
        }
    }

    #[test]
    fn goals_are_judged_by_their_side() {
        assert!(Goal::AtLeast(Measure::Throughput, 1.5).met(1.5) && !Goal::AtLeast(Measure::Throughput, 1.5).met(1.49));
        assert!(Goal::AtMost(Measure::Cpu, 0.7).met(0.7) && !Goal::AtMost(Measure::Cpu, 0.7).met(0.71));
    }

    #[test]
    fn synced_goals_are_where_every_message_is_synced() {
        for case in cases(Section::Publish) {
            assert_eq!(case.goals == SYNCED, case.durability == Durability::Always && !case.one_at_a_time, "{}", case.name);
        }
        assert!(!cases(Section::Request)[0].is_for(Kind::Redis) && cases(Section::Core)[0].is_for(Kind::Redis));
    }
}
