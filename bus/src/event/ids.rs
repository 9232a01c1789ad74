//! Identifiers. All are fixed-size values with one textual form; none is a bare string.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// First eight bytes of the kernel's random boot id (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct BootId(#[n(0)] pub u64);

impl FromStr for BootId {
    type Err = ParseIdError;

    /// Reads the kernel's UUID form.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let hex: String = text.trim().chars().filter(|c| *c != '-').take(16).collect();
        if hex.len() != 16 {
            return Err(ParseIdError { what: "boot id", text: text.to_owned() });
        }
        u64::from_str_radix(&hex, 16).map(Self).map_err(|_| ParseIdError { what: "boot id", text: text.to_owned() })
    }
}

/// Text that is not an identifier of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

/// Names one program image for ever, across processes, execs and boots.
///
/// Text form: `<boot>-<start>-<pid>-<exec>` in hex, hex, decimal, decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct ExecId {
    /// Boot that the process lives in.
    #[n(0)]
    pub boot: BootId,
    /// `task_struct.start_boottime` of the thread-group leader, nanoseconds of boot clock.
    #[n(1)]
    pub start_ns: u64,
    /// Thread-group id in the initial pid namespace.
    #[n(2)]
    pub pid: u32,
    /// `task_struct.self_exec_id`: counts the images that this task has run.
    #[n(3)]
    pub exec: u32,
}

/// `/proc/<pid>/stat` counts start time in these (`USER_HZ` is 100 on every Linux port).
pub const NS_PER_TICK: u64 = 10_000_000;

impl ExecId {
    /// Start time in `/proc` ticks: equal for the exact id and for one that was seeded from `/proc`.
    pub fn start_ticks(&self) -> u64 {
        self.start_ns / NS_PER_TICK
    }

    /// Whether both name the same process, whichever image it ran and however exactly its start time is known.
    pub fn same_process(&self, other: &Self) -> bool {
        self.boot == other.boot && self.pid == other.pid && self.start_ticks() == other.start_ticks()
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, start_ns, pid, exec } = self;
        write!(f, "{:016x}-{start_ns:x}-{pid}-{exec}", boot.0)
    }
}

impl FromStr for ExecId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || ParseIdError { what: "exec id", text: text.to_owned() };
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or_else(error);
        let id = Self {
            boot: BootId(u64::from_str_radix(next()?, 16).map_err(|_| error())?),
            start_ns: u64::from_str_radix(next()?, 16).map_err(|_| error())?,
            pid: next()?.parse().map_err(|_| error())?,
            exec: next()?.parse().map_err(|_| error())?,
        };
        if parts.next().is_some() { Err(error()) } else { Ok(id) }
    }
}

impl Serialize for ExecId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ExecId {
    fn schema_name() -> Cow<'static, str> {
        "ExecId".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Names one image of one process for ever: boot, start, pid and count of images, joined by `-`.",
            "pattern": "^[0-9a-f]+-[0-9a-f]+-[0-9]+-[0-9]+$",
        })
    }
}

/// Names one event for ever. Derived from the kernel record (boot, time, CPU, sequence), so reading it again gives the
/// same id. Text form: 40 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct EventId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 20]);

impl EventId {
    /// Id of a kernel record. `source` is the CPU it was made on, `sequence` that CPU's record counter.
    pub fn from_kernel(boot: BootId, ktime_ns: u64, source: u16, sequence: u32) -> Self {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&boot.0.to_be_bytes()[..4]);
        bytes[4..12].copy_from_slice(&ktime_ns.to_be_bytes());
        bytes[12..14].copy_from_slice(&source.to_be_bytes());
        bytes[14..18].copy_from_slice(&sequence.to_be_bytes());
        Self(bytes)
    }

    /// Id of an event that the sensor itself makes (start, seed, heartbeat, loss, gap). `source` `0xffff` is no CPU.
    pub fn from_sensor(boot: BootId, ktime_ns: u64, sequence: u32) -> Self {
        Self::from_kernel(boot, ktime_ns, u16::MAX, sequence)
    }
}

/// Names one alert for ever: a digest over detector, rule and entity. Text form: 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct AlertId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// Names one match for ever: a digest over pattern and login. Text form: 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct MatchId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

macro_rules! hex_id {
    ($name:ident, $len:expr, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError { what: $what, text: text.to_owned() };
                if text.len() != $len * 2 || !text.is_ascii() {
                    return Err(error());
                }
                let mut bytes = [0; $len];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| error())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!("An ", $what, ": hex digits, for ever the same for the same thing."),
                    "pattern": "^[0-9a-f]+$",
                })
            }
        }
    };
}

hex_id!(EventId, 20, "event id");
hex_id!(AlertId, 16, "alert id");
hex_id!(MatchId, 16, "match id");
