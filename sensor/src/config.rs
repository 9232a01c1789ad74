//! The configuration: files, their merging, and what is allowed in them.
//!
//! Invariants worth naming:
//!
//! - **Nothing is silently ignored.** An unknown key, a value out of range or a file that cannot be read is an error that
//!   names file, line, column and key. Only the absence of the default file means "defaults".
//! - **Every layer is checked alone, then merged, then checked as a whole**, so that an error names the file that has it.
//! - **Layers merge per key**: tables merge, arrays of tables (`[[forward]]`) append, every other value replaces.

mod error;
mod fields;
pub mod files;
pub mod ignore;
pub mod nats;
pub mod units;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan_bus::budget::{Budget, Disk};
use bartizan_bus::{BusConfig, StreamConfig, SyncPolicy};
use serde::Deserialize;

pub use error::ConfigError;
use files::FilesConfig;
use ignore::IgnoreEntry;
use nats::NatsConfig;

use crate::capture::LoadConfig;
use crate::enrich::environment;
use crate::redact::RedactionConfig;

/// The file that is read when `--config` is not given.
pub const DEFAULT_CONFIG: &str = "/etc/bartizan/config.toml";

/// Where everything durable is kept unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/bartizan";

/// The whole configuration, with every default filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of streams, consumers and detector state; also of the control socket.
    pub data_dir: PathBuf,
    /// Capture.
    pub sensor: SensorConfig,
    /// Files that are watched.
    pub files: FilesConfig,
    /// Retention of the streams.
    pub streams: StreamsConfig,
    /// Secrets in command lines.
    pub redaction: RedactionConfig,
    /// Detectors and their knobs.
    pub detectors: bartizan_detectors::Config,
    /// Where alerts go.
    pub forward: Vec<bartizan_forward::SinkConfig>,
    /// NATS clients on the bus.
    pub nats: NatsConfig,
    /// Numbers for Prometheus.
    pub metrics: MetricsConfig,
}

/// `[metrics]`: numbers for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `GET /metrics` is answered, without TLS and to anybody; nowhere without it.
    pub listen: Option<SocketAddr>,
}

/// `[sensor]`: capture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SensorConfig {
    /// Hooks that are not attached. Names are checked by the daemon, which knows them.
    pub disable_hooks: Vec<String>,
    /// Bytes of the ring for what must not be lost (exec, fork, exit); a power of two.
    #[serde(deserialize_with = "fields::ring::<_, {64 << 10}, {1 << 30}>")]
    pub ring_priority: u32,
    /// Bytes of the ring for bulk records (network); a power of two.
    #[serde(deserialize_with = "fields::ring::<_, {64 << 10}, {1 << 30}>")]
    pub ring_bulk: u32,
    /// After something was found in the rings, how long the next records are gathered before they are looked for; 0 looks at once.
    #[serde(deserialize_with = "fields::duration_ms::<_, 0, 100>")]
    pub ring_gather: Duration,
    /// Percent of the bulk ring that waits before a record in it wakes Bartizan, while that does not look by itself (`capture/rings.rs`).
    #[serde(deserialize_with = "fields::count::<_, 1, 90>")]
    pub ring_bulk_wakeup: usize,
    /// Most processes that the process table holds.
    #[serde(deserialize_with = "fields::count::<_, 1024, 4194304>")]
    pub process_table: usize,
    /// Between two `sensor.heartbeat` events.
    #[serde(deserialize_with = "fields::duration::<_, 1, 3600>")]
    pub heartbeat: Duration,
    /// Processor time that Bartizan may use on average, percent of one processor; 0 sets no ceiling. Beyond it, bulk kinds are left out.
    #[serde(deserialize_with = "fields::count::<_, 0, 102400>")]
    pub cpu_limit: usize,
    /// Folder below which the files of container runtimes are read: the host's root, wherever that is mounted.
    pub runtime_root: PathBuf,
    /// Names of environment variables that execs tell; `*` at the end of a name stands for any end.
    pub environment: Vec<String>,
    /// Executables of more bytes are not hashed; 0 hashes none.
    #[serde(deserialize_with = "fields::size::<_, 0, {1 << 40}>")]
    pub hash_max: u64,
    /// Bytes of executables that are read in a second, at most.
    #[serde(deserialize_with = "fields::size::<_, {1 << 20}, {1 << 40}>")]
    pub hash_rate: u64,
    /// What is left out before a record is made of it.
    pub ignore: Vec<IgnoreEntry>,
    /// Of these kinds only what an entry is met by is told.
    pub only: Vec<IgnoreEntry>,
}

/// `[streams]`: retention.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamsConfig {
    /// The EVENTS stream.
    pub events: EventsConfig,
    /// The ALERTS stream.
    pub alerts: AlertsConfig,
}

/// `[streams.events]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Events older than this are deleted.
    #[serde(deserialize_with = "fields::duration::<_, 60, 315360000>")]
    pub max_age: Duration,
    /// The oldest events are deleted when the stream is larger than this. `None`: by the disk, see [`Config::events_budget`].
    #[serde(deserialize_with = "fields::size_or_auto::<_, {1 << 20}, {1 << 50}>")]
    pub max_bytes: Option<u64>,
    /// An event is synced to disk at most this long after it was stored: what a power cut can cost.
    #[serde(deserialize_with = "fields::duration_ms::<_, 10, 60000>")]
    pub sync_interval: Duration,
}

/// `[streams.alerts]`. There is no sync interval: an alert is always on disk before it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Alerts older than this are deleted.
    #[serde(deserialize_with = "fields::duration::<_, 60, 315360000>")]
    pub max_age: Duration,
    /// The oldest alerts are deleted when the stream is larger than this.
    #[serde(deserialize_with = "fields::size::<_, {1 << 20}, {1 << 50}>")]
    pub max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(DEFAULT_DATA_DIR),
            sensor: SensorConfig::default(),
            files: FilesConfig::default(),
            streams: StreamsConfig::default(),
            redaction: RedactionConfig::default(),
            detectors: Default::default(),
            forward: Vec::new(),
            nats: NatsConfig::default(),
            metrics: MetricsConfig::default(),
        }
    }
}

impl Default for SensorConfig {
    fn default() -> Self {
        Self {
            disable_hooks: Vec::new(),
            ring_priority: 4 << 20,
            ring_bulk: 8 << 20,
            ring_gather: Duration::from_millis(1),
            ring_bulk_wakeup: 25,
            process_table: 65_536,
            heartbeat: Duration::from_secs(10),
            cpu_limit: 100,
            runtime_root: PathBuf::from("/"),
            environment: environment::DEFAULT.iter().map(|name| (*name).to_owned()).collect(),
            hash_max: 64 << 20,
            hash_rate: 32 << 20,
            ignore: Vec::new(),
            only: Vec::new(),
        }
    }
}

impl SensorConfig {
    /// The entries of `ignore` and of `only`.
    fn left_out(&self) -> Vec<IgnoreEntry> {
        let only = self.only.iter().map(|entry| IgnoreEntry { only: true, ..entry.clone() });
        self.ignore.iter().cloned().chain(only).collect()
    }

    /// What the kernel's side is to be.
    pub fn load(&self, files: &FilesConfig) -> LoadConfig {
        LoadConfig {
            disabled: self.disable_hooks.clone(),
            ring_priority: self.ring_priority,
            ring_bulk: self.ring_bulk,
            bulk_wakeup: self.ring_bulk_wakeup,
            files_everywhere: files.everywhere,
            files_ignored: !files.ignore.is_empty(),
            ignore: self.left_out(),
            btf: None,
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        let stream = StreamConfig::events();
        let sync_interval = match stream.sync {
            SyncPolicy::Interval(interval) => interval,
            SyncPolicy::Always | SyncPolicy::Os => Duration::from_secs(1),
        };
        Self { max_age: stream.max_age, max_bytes: None, sync_interval }
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        let stream = StreamConfig::alerts();
        Self { max_age: stream.max_age, max_bytes: stream.max_bytes }
    }
}

impl Config {
    /// Reads the configuration. `path` is the file given by `--config`, which must exist; without it the default file is
    /// read if it exists. Either way the `*.toml` files of `conf.d` beside the file are merged over it, in name order.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (main, must_exist) = match path {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_CONFIG), false),
        };
        let mut layers = Vec::new();
        match std::fs::read_to_string(main) {
            Ok(text) => layers.push((main.to_owned(), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ConfigError::Missing { path: main.to_owned() }),
            Err(source) => return Err(ConfigError::Read { path: main.to_owned(), source }),
        }
        for file in drop_ins(&main.with_file_name("conf.d"))? {
            let text = std::fs::read_to_string(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
            layers.push((file, text));
        }
        Self::from_layers(&layers)
    }

    /// Reads the configuration from texts, each with the path that its errors name. Later ones win.
    ///
    /// # Errors
    /// [`ConfigError::Content`] or [`ConfigError::Whole`].
    pub fn from_layers(layers: &[(PathBuf, String)]) -> Result<Self, ConfigError> {
        let mut merged = toml::Table::new();
        for (path, text) in layers {
            let content = |error: toml::de::Error| ConfigError::content(path, text, &error);
            toml::from_str::<Self>(text).map_err(content)?;
            merge(&mut merged, text.parse::<toml::Table>().map_err(content)?);
        }
        let whole = |message: String| ConfigError::Whole { files: layers.iter().map(|(path, _)| path.clone()).collect(), message };
        let config: Self = merged.try_into().map_err(|error: toml::de::Error| whole(error.message().to_owned()))?;
        config.check().map_err(whole)?;
        Ok(config)
    }

    /// What no single key can tell.
    fn check(&self) -> Result<(), String> {
        if !self.data_dir.is_absolute() {
            return Err(format!("data_dir {:?} is not an absolute path: begin it with /", self.data_dir));
        }
        if let Some(complaint) = environment::complaint(&self.sensor.environment) {
            return Err(complaint);
        }
        if !self.sensor.runtime_root.is_absolute() {
            return Err(format!("sensor.runtime_root {:?} is not an absolute path: begin it with /", self.sensor.runtime_root));
        }
        ignore::validate(&self.sensor.left_out())?;
        self.files.validate()?;
        self.redaction.validate().map_err(|error| error.to_string())?;
        self.detectors.validate().map_err(|error| error.to_string())?;
        self.nats.validate().map_err(|error| error.to_string())?;
        bartizan_forward::validate(&self.forward).map_err(|error| error.to_string())
    }

    /// How many bytes EVENTS may hold: what is configured, else a part of the disk that holds the data folder, which is asked.
    pub fn events_budget(&self) -> Budget {
        let disk = Disk::of(&self.data_dir).map_err(|error| {
            tracing::warn!("cannot ask the disk of {} for its size: {error}", self.data_dir.display());
        });
        Budget::new(self.streams.events.max_bytes, disk.ok().map(|disk| disk.total))
    }

    /// The bus's part of the configuration. `events`: the budget of EVENTS.
    pub fn bus(&self, events_budget: &Budget) -> BusConfig {
        let Self {
            data_dir: _,
            sensor: _,
            files: _,
            streams: StreamsConfig { events, alerts },
            redaction: _,
            detectors: _,
            forward: _,
            nats: _,
            metrics: _,
        } = self;
        let mut bus = BusConfig::default();
        bus.events.max_age = events.max_age;
        bus.events.max_bytes = events_budget.bytes;
        bus.events.sync = SyncPolicy::Interval(events.sync_interval);
        bus.alerts.max_age = alerts.max_age;
        bus.alerts.max_bytes = alerts.max_bytes;
        bus
    }
}

/// The `*.toml` files of `folder` in name order; none when there is no such folder. Hidden files are editors' leftovers.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = |source| ConfigError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (Some(toml::Value::Array(old)), toml::Value::Array(new)) if of_tables(old) && of_tables(&new) => old.extend(new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn of_tables(array: &[toml::Value]) -> bool {
    !array.is_empty() && array.iter().all(toml::Value::is_table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::from_layers(&[("/etc/bartizan/config.toml".into(), text.to_owned())])
    }

    fn error(text: &str) -> String {
        load(text).expect_err(text).to_string()
    }

    #[test]
    fn nothing_means_the_defaults() {
        let config = load("").expect("empty");
        assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
        assert_eq!(config.sensor, SensorConfig::default());
        let default = Budget::new(None, None);
        let mut bus = BusConfig::default();
        bus.events.max_bytes = default.bytes;
        assert_eq!((config.bus(&default), config.streams.events.max_bytes), (bus, None));
        assert!(config.forward.is_empty());
    }

    #[test]
    fn every_key_is_read() {
        let config = load(
            "data_dir = \"/srv/b\"\n[sensor]\ndisable_hooks = [\"exec\"]\nring_priority = \"8 MiB\"\nring_bulk = 1048576\n\
             ring_gather = \"5ms\"\nring_bulk_wakeup = 10\nprocess_table = 2048\nheartbeat = \"30s\"\ncpu_limit = 25\nruntime_root = \"/host\"\nenvironment = [\"LD_*\", \"ENV\"]\n\
             hash_max = 0\nhash_rate = \"1 MiB\"\n[[sensor.ignore]]\nkinds = [\"network.*\"]\nexe = [\"/x\"]\nuid = [33]\n\
             cgroup = [\"/a/b\"]\nnetwork = [\"10.0.0.0/8\"]\n[[sensor.only]]\nkinds = [\"file.write\"]\nuid = [7]\n[streams.events]\nmax_age = \"1d\"\nmax_bytes = \"1 GiB\"\n\
             sync_interval = \"250ms\"\n[streams.alerts]\nmax_age = \"90d\"\nmax_bytes = \"64 MiB\"\n\
             [[forward]]\nname = \"siem\"\ntype = \"syslog\"\naddress = \"siem:514\"\n",
        )
        .expect("all keys");
        assert_eq!(config.data_dir, Path::new("/srv/b"));
        let sensor = SensorConfig {
            disable_hooks: vec!["exec".into()],
            ring_priority: 8 << 20,
            ring_bulk: 1 << 20,
            ring_gather: Duration::from_millis(5),
            ring_bulk_wakeup: 10,
            process_table: 2048,
            heartbeat: Duration::from_secs(30),
            cpu_limit: 25,
            runtime_root: "/host".into(),
            environment: vec!["LD_*".into(), "ENV".into()],
            hash_max: 0,
            hash_rate: 1 << 20,
            ignore: vec![IgnoreEntry {
                kinds: vec!["network.*".into()],
                exe: vec!["/x".into()],
                uid: vec![33],
                cgroup: vec!["/a/b".into()],
                network: vec!["10.0.0.0/8".parse().expect("a network")],
                only: false,
            }],
            only: vec![IgnoreEntry { kinds: vec!["file.write".into()], uid: vec![7], ..IgnoreEntry::default() }],
        };
        assert_eq!(config.sensor, sensor);
        let bus = config.bus(&config.events_budget());
        assert_eq!((bus.events.max_age, bus.events.max_bytes), (Duration::from_secs(86_400), 1 << 30));
        assert_eq!(bus.events.sync, SyncPolicy::Interval(Duration::from_millis(250)));
        assert_eq!((bus.alerts.max_age, bus.alerts.max_bytes), (Duration::from_secs(90 * 86_400), 64 << 20));
        assert_eq!(bus.alerts.sync, SyncPolicy::Always);
        assert_eq!(config.forward[0].name.as_str(), "siem");
    }

    #[test]
    fn an_unknown_key_is_placed_and_the_right_one_offered() {
        let expected = "/etc/bartizan/config.toml, line 3, column 1, key `streams.events.max_agee`: unknown field `max_agee`, \
                        expected one of `max_age`, `max_bytes`, `sync_interval`; did you mean `max_age`?\n  |\n3 | max_agee = \"1d\"\n  | ^^^^^^^^";
        assert_eq!(error("# a comment\n[streams.events]\nmax_agee = \"1d\"\n"), expected);
        assert!(error("[sensr]\n").contains("did you mean `sensor`?"));
    }

    #[test]
    fn errors_say_what_is_allowed() {
        for (text, expected) in [
            (
                "[sensor]\nring_bulk = \"3 MiB\"",
                "line 2, column 13, key `sensor.ring_bulk`: 3 MiB is not a power of two, which the kernel's ring buffers must be: use 2 MiB or 4 MiB",
            ),
            ("[sensor]\nring_bulk = \"1 KiB\"", "64 KiB to 1 GiB are allowed"),
            ("[sensor]\nring_gather = \"101ms\"", "key `sensor.ring_gather`: 101ms is out of range: 0ms to 100ms are allowed"),
            ("[sensor]\nring_bulk_wakeup = 0", "key `sensor.ring_bulk_wakeup`: 0 is out of range: 1 to 90 are allowed"),
            ("[sensor]\nring_bulk_wakeup = 91", "91 is out of range"),
            ("[[sensor.ignore]]\nkinds = [\"process.exec\"]\nuid = [1]", "sensor.ignore: process.exec cannot be left out"),
            ("[[sensor.only]]\nkinds = [\"process.exec\"]\nuid = [1]", "sensor.only: process.exec cannot be left out"),
            ("[[sensor.ignore]]\nnetwork = [\"10.0.0.1/8\"]", "write 10.0.0.0/8"),
            ("[[sensor.ignore]]\npath = \"/x\"", "unknown field `path`"),
            ("[sensor]\nring_bulk = -1", "a size such as \"2 GiB\""),
            ("[sensor]\nprocess_table = 3", "1024 to 4194304 are allowed"),
            ("[sensor]\nenvironment = [\"A=b\"]", "sensor.environment: \"A=b\" is not a name"),
            ("[sensor]\nhash_rate = 0", "1 MiB to 1 TiB are allowed"),
            ("[sensor]\nheartbeat = 5", "a duration with its unit in quotes, such as \"1s\""),
            ("[sensor]\nheartbeat = \"5\"", "\"1h30m\""),
            ("[sensor]\nheartbeat = \"2h\"", "1s to 1h are allowed"),
            ("[streams.events]\nmax_bytes = \"2 gigs\"", "\"2 gigs\" is not a size"),
            ("[streams.events]\nmax_bytes = \"2 gigs\"", "or write \"auto\""),
            ("[streams.events]\nmax_bytes = \"1 KiB\"", "1 MiB to 1024 TiB are allowed"),
            ("[streams.alerts]\nsync_interval = \"1s\"", "unknown field `sync_interval`"),
            ("data_dir = \"relative\"", "is not an absolute path"),
            ("data_dir = \"/a\"\ndata_dir = \"/b\"", "line 2"),
            ("data_dir = /var", "line 1, column"),
            ("[[forward]]\nname = \"siem\"\ntype = \"syslog\"\naddress = \"siem\"", "key `forward.address`"),
            ("[[forward]]\nname = \"siem\"", "line 1"),
            (
                "[[forward]]\nname = \"hub\"\ntype = \"nats\"\naddress = \"hub:4222\"\nframing = \"lf\"",
                "line 1, column 1, key `forward`: key `framing` of [[forward]] \"hub\" belongs to type = \"syslog\"",
            ),
            ("[[forward]]\nname = \"hub\"\ntype = \"nats\"\naddress = \"hub:4222\"\nstraem = \"A\"", "did you mean `stream`?"),
        ] {
            let error = error(text);
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn layers_merge_per_key_and_forwards_append() {
        let sink = |name: &str| format!("[[forward]]\nname = \"{name}\"\ntype = \"syslog\"\naddress = \"{name}:514\"\n");
        let layers = [
            ("/c/config.toml".into(), format!("[sensor]\nheartbeat = \"30s\"\ndisable_hooks = [\"a\"]\n{}", sink("one"))),
            ("/c/conf.d/1.toml".into(), format!("[sensor]\nprocess_table = 4096\n{}", sink("two"))),
            ("/c/conf.d/2.toml".into(), "[sensor]\nprocess_table = 8192\ndisable_hooks = [\"b\"]\n".to_owned()),
        ];
        let config = Config::from_layers(&layers).expect("three layers");
        assert_eq!((config.sensor.heartbeat, config.sensor.process_table), (Duration::from_secs(30), 8192));
        assert_eq!(config.sensor.disable_hooks, ["b"]);
        let names: Vec<&str> = config.forward.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn two_files_with_the_same_sink_are_refused_by_both_names() {
        let sink = "[[forward]]\nname = \"siem\"\ntype = \"syslog\"\naddress = \"a:514\"\n".to_owned();
        let layers = [("/c/a.toml".into(), sink.clone()), ("/c/b.toml".into(), sink)];
        let error = Config::from_layers(&layers).expect_err("twice").to_string();
        assert!(error.contains("/c/a.toml, /c/b.toml") && error.contains("siem"), "{error}");
    }

    #[test]
    fn files_and_drop_ins_are_read_in_name_order() {
        let temp = tempfile::tempdir().expect("temp folder");
        let main = temp.path().join("config.toml");
        let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).expect(name);
        std::fs::create_dir(temp.path().join("conf.d")).expect("conf.d");
        write("config.toml", "[sensor]\nprocess_table = 1024\n");
        write("conf.d/20-b.toml", "[sensor]\nprocess_table = 4096\n");
        write("conf.d/10-a.toml", "[sensor]\nprocess_table = 2048\nheartbeat = \"7s\"\n");
        write("conf.d/30-c.toml~", "this is no TOML");
        write("conf.d/.40-d.toml", "nor is this");
        let config = Config::load(Some(&main)).expect("config");
        assert_eq!((config.sensor.process_table, config.sensor.heartbeat), (4096, Duration::from_secs(7)));

        write("conf.d/20-b.toml", "[sensor]\nprocess_table = 1\n");
        let error = Config::load(Some(&main)).expect_err("bad drop-in").to_string();
        assert!(error.contains("conf.d/20-b.toml, line 2, column 17"), "{error}");
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_readable() {
        let temp = tempfile::tempdir().expect("temp folder");
        assert!(matches!(Config::load(Some(&temp.path().join("none.toml"))), Err(ConfigError::Missing { .. })));
        assert!(matches!(Config::load(Some(temp.path())), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn the_packaged_file_shows_the_defaults() {
        let packaged = include_str!("../../packaging/config.toml");
        let same = |text: &str| format!("{:?}", load(text).expect("packaged")) == format!("{:?}", Config::default());
        assert!(same(packaged));
        // With every setting taken in, and every example left out.
        fn setting(line: &str) -> Option<&str> {
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
        }
        let settings: Vec<&str> = packaged.lines().filter_map(setting).map(str::trim).collect();
        assert!(settings.len() > 20, "{settings:?}");
        assert!(same(&settings.join("\n")));
    }

    #[test]
    fn the_packaged_examples_are_valid() {
        let packaged = include_str!("../../packaging/config.toml");
        let example = |line: &&str| line.starts_with('[') && line.ends_with(']') && !line.contains(' ') || line.contains(" = ");
        let examples: Vec<&str> = packaged.lines().filter_map(|line| line.strip_prefix("# ")).filter(example).collect();
        let config = load(&examples.join("\n")).expect("examples");
        let names: Vec<&str> = config.forward.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["siem", "hub"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z_]{0,8}(\\.[a-z]{1,4})? ?[=\\[\\]\"'{}]?[^\u{1}]{0,8}\n?){0,6}") {
            let _ = load(&text).map_err(|error| error.to_string());
        }
    }
}
