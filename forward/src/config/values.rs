//! Values that keys of every sink type take, each checked as it is read.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// A value that a key does not take. Each variant's text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not a sink name.
    #[error("name {0:?} is not allowed: use 1 to 32 lower-case letters, digits, `-` and `_`, such as \"siem\"")]
    Name(String),
    /// Not `host:port`.
    #[error(
        "address {0:?} is not host:port: write a DNS name, an IPv4 address or an IPv6 address in brackets, a colon and a port from 1 \
         to 65535, such as \"siem.example.net:514\" or \"[2001:db8::5]:514\""
    )]
    Address(String),
    /// Not a stream's name.
    #[error("stream {0:?} is not allowed: JetStream takes 1 to 255 printable ASCII characters without spaces and none of `. * > / \\`")]
    HubStream(String),
    /// Not a domain.
    #[error(
        "domain {0:?} is not allowed: write the hub's JetStream domain, printable ASCII characters without spaces and none of `. * > / \\`"
    )]
    Domain(String),
    /// Not a prefix of subjects.
    #[error(
        "subject_prefix {0:?} is not allowed: use 1 to 128 printable ASCII characters, words with dots between them, without spaces, `*` and \
         `>`, and not beginning with `$` or `_INBOX`, such as \"sec\" or \"fleet.web\""
    )]
    SubjectPrefix(String),
    /// Not a file's full path.
    #[error("{0:?} is not an absolute path: begin it with /")]
    Path(String),
    /// Not an APP-NAME.
    #[error("app_name {0:?} is not allowed: use 1 to 48 printable ASCII characters without spaces (RFC 5424 §6.2.5)")]
    AppName(String),
    /// Not a duration.
    #[error("{0:?} is not a duration from 1ms to 1h: write a number with its unit, such as \"500ms\" or \"5s\"")]
    Duration(String),
}

/// Name of a sink: 1 to 32 of `a-z 0-9 - _`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct SinkName(String);

impl SinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The durable consumer that keeps this sink's cursor: `forward-<name>`.
    pub fn consumer(&self) -> String {
        format!("forward-{}", self.0)
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SinkName {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) { Ok(Self(text)) } else { Err(TextError::Name(text)) }
    }
}

/// A receiver: DNS name or IP address, and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// DNS name, IPv4 address, or IPv6 address without brackets (a zone such as `%eth0` is kept).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Letters, digits, `-`, `_` and dots between labels, as the resolver takes them; at most 253 bytes (RFC 1035 §2.3.4).
fn is_host_name(host: &str) -> bool {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let dotted = host.strip_suffix('.').unwrap_or(host);
    // Digits and dots only are meant as an IPv4 address; a resolver would take `10.0.0` for 10.0.0.0.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    host.len() <= 253 && dotted.split('.').all(label_ok) && (!numeric || host.parse::<std::net::Ipv4Addr>().is_ok())
}

impl TryFrom<String> for Address {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        let split = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok())?.filter(|port| *port != 0)?;
            let host = match host.strip_prefix('[') {
                Some(bracketed) => {
                    let host = bracketed.strip_suffix(']')?;
                    let address = host.split_once('%').map_or(host, |(address, _zone)| address);
                    address.parse::<Ipv6Addr>().ok()?;
                    host
                }
                None => is_host_name(host).then_some(host)?,
            };
            Some(Self { host: host.to_owned(), port })
        };
        match split() {
            Some(address) => Ok(address),
            None => Err(TextError::Address(text)),
        }
    }
}

/// Where a sink begins that has no cursor yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest alert that is stored.
    #[default]
    All,
    /// With the next alert.
    New,
}

/// A duration written with its unit, `"500ms"` or `"5s"`, from 1 ms to 1 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DurationSetting(pub Duration);

impl TryFrom<String> for DurationSetting {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        text.parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .filter(|duration| (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(duration))
            .map(Self)
            .ok_or(TextError::Duration(text))
    }
}

/// Full path of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl TryFrom<String> for FilePath {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        // Where a daemon was started from is nobody's intention.
        if text.starts_with('/') { Ok(Self(text.into())) } else { Err(TextError::Path(text)) }
    }
}
