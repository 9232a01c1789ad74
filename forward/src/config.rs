//! What an operator writes under `[[forward]]`, checked key by key.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use bartizan_bus::event::Severity;
use serde::Deserialize;

/// Largest syslog message that a stock rsyslog 8 takes whole, in bytes without the frame's own length or line feed.
/// rsyslog's `maxMessageSize` is 8096 unless `global(maxMessageSize=...)` raises it ("size is 8191 bytes, max msg size is
/// 8096, truncating..."); what is longer it stores as two messages of which neither is JSON.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 8096;

/// Smallest `max_message_bytes`: RFC 5424 §6.1 asks receivers to take 2048 octets, and the shortest form of an alert fits in it.
pub const MIN_MAX_MESSAGE_BYTES: usize = 2048;

/// Largest `max_message_bytes`.
pub const MAX_MAX_MESSAGE_BYTES: usize = 16 << 20;

/// One `[[forward]]` table: where alerts go and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Name of the sink; also of its durable consumer, `forward-<name>`. Renaming it starts a new cursor.
    pub name: SinkName,
    /// Protocol.
    #[serde(rename = "type")]
    pub kind: SinkType,
    /// Receiver.
    pub address: Address,
    /// Syslog facility.
    #[serde(default)]
    pub facility: Facility,
    /// Syslog APP-NAME.
    #[serde(default)]
    pub app_name: AppName,
    /// How messages are told apart on the TCP stream.
    #[serde(default)]
    pub framing: Framing,
    /// Alerts below this are not sent to this sink; they are counted.
    #[serde(default)]
    pub min_severity: Severity,
    /// Where a sink begins that has no cursor yet.
    #[serde(default)]
    pub start: Start,
    /// Largest message in bytes, [`MIN_MAX_MESSAGE_BYTES`] to [`MAX_MAX_MESSAGE_BYTES`]; a larger alert is shrunk by
    /// dropping named fields. Must not exceed the receiver's own limit. Default [`DEFAULT_MAX_MESSAGE_BYTES`].
    #[serde(default = "default_max_message_bytes")]
    pub max_message_bytes: usize,
    /// Longest wait for a connection to one address. Default 5 s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: DurationSetting,
    /// Longest time in which the receiver's kernel may acknowledge not one byte although some wait. Default 15 s.
    #[serde(default = "default_write_timeout")]
    pub write_timeout: DurationSetting,
    /// How long a connection must stay healthy after the receiver's kernel has acknowledged an alert, before the alert
    /// counts as delivered. Default 1 s.
    #[serde(default = "default_confirm_after")]
    pub confirm_after: DurationSetting,
    /// First pause between attempts; doubles up to `retry_max`. Default 1 s.
    #[serde(default = "default_retry_min")]
    pub retry_min: DurationSetting,
    /// Longest pause between attempts. Default 30 s.
    #[serde(default = "default_retry_max")]
    pub retry_max: DurationSetting,
}

fn default_max_message_bytes() -> usize {
    DEFAULT_MAX_MESSAGE_BYTES
}
fn default_connect_timeout() -> DurationSetting {
    DurationSetting(Duration::from_secs(5))
}
fn default_write_timeout() -> DurationSetting {
    DurationSetting(Duration::from_secs(15))
}
fn default_confirm_after() -> DurationSetting {
    DurationSetting(Duration::from_secs(1))
}
fn default_retry_min() -> DurationSetting {
    DurationSetting(Duration::from_secs(1))
}
fn default_retry_max() -> DurationSetting {
    DurationSetting(Duration::from_secs(30))
}

impl SinkConfig {
    /// A syslog sink with every other key at its default.
    pub fn syslog(name: SinkName, address: Address) -> Self {
        Self {
            name,
            kind: SinkType::Syslog,
            address,
            facility: Facility::default(),
            app_name: AppName::default(),
            framing: Framing::default(),
            min_severity: Severity::default(),
            start: Start::default(),
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            connect_timeout: default_connect_timeout(),
            write_timeout: default_write_timeout(),
            confirm_after: default_confirm_after(),
            retry_min: default_retry_min(),
            retry_max: default_retry_max(),
        }
    }
}

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
    /// Not an APP-NAME.
    #[error("app_name {0:?} is not allowed: use 1 to 48 printable ASCII characters without spaces (RFC 5424 §6.2.5)")]
    AppName(String),
    /// Not a duration.
    #[error("{0:?} is not a duration from 1ms to 1h: write a number with its unit, such as \"500ms\" or \"5s\"")]
    Duration(String),
}

/// Settings that are each valid but do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two sinks of one name would share one cursor.
    #[error("two [[forward]] tables have name = \"{name}\": each sink needs a name of its own, because its cursor is kept under it")]
    DuplicateName {
        /// The name.
        name: SinkName,
    },
    /// `max_message_bytes` out of range.
    #[error(
        "max_message_bytes = {found} of [[forward]] \"{name}\" is out of range: allowed are {MIN_MAX_MESSAGE_BYTES} to {MAX_MAX_MESSAGE_BYTES}"
    )]
    MaxMessageBytes {
        /// Sink.
        name: SinkName,
        /// Configured value.
        found: usize,
    },
    /// `retry_min` above `retry_max`.
    #[error("retry_min of [[forward]] \"{name}\" is longer than its retry_max: lower retry_min or raise retry_max")]
    RetryOrder {
        /// Sink.
        name: SinkName,
    },
}

/// Checks what no single key can tell: unique names, ranges, order of timeouts.
///
/// # Errors
/// The first [`ConfigError`] found.
pub fn validate(sinks: &[SinkConfig]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    for sink in sinks {
        let name = || sink.name.clone();
        if !names.insert(&sink.name) {
            return Err(ConfigError::DuplicateName { name: name() });
        }
        if !(MIN_MAX_MESSAGE_BYTES..=MAX_MAX_MESSAGE_BYTES).contains(&sink.max_message_bytes) {
            return Err(ConfigError::MaxMessageBytes { name: name(), found: sink.max_message_bytes });
        }
        if sink.retry_min.0 > sink.retry_max.0 {
            return Err(ConfigError::RetryOrder { name: name() });
        }
    }
    Ok(())
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

/// Protocol of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkType {
    /// RFC 5424 syslog over TCP (RFC 6587), alerts as JSON.
    Syslog,
}

impl SinkType {
    /// The value of `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syslog => "syslog",
        }
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

/// Syslog facility (RFC 5424 §6.2.1). Default `local0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are RFC 5424's own")]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Cron = 9,
    Authpriv = 10,
    Ftp = 11,
    Ntp = 12,
    Audit = 13,
    Alert = 14,
    Clock = 15,
    #[default]
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// Syslog APP-NAME: 1 to 48 printable ASCII characters without spaces. Default `bartizan`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AppName(String);

impl AppName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for AppName {
    fn default() -> Self {
        Self("bartizan".to_owned())
    }
}

impl TryFrom<String> for AppName {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        // RFC 5424 §6.2.5: APP-NAME = NILVALUE / 1*48PRINTUSASCII, PRINTUSASCII = %d33-126.
        if (1..=48).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(TextError::AppName(text))
        }
    }
}

/// How messages are told apart on a TCP stream (RFC 6587 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// Decimal length, a space, the message.
    #[default]
    OctetCounted,
    /// The message and a line feed. A message never contains one.
    Lf,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize)]
    struct File {
        forward: Vec<SinkConfig>,
    }

    fn one(keys: &str) -> Result<SinkConfig, String> {
        let text = format!("[[forward]]\n{keys}");
        toml::from_str::<File>(&text).map_err(|error| error.to_string()).map(|mut file| file.forward.remove(0))
    }

    fn minimal(extra: &str) -> Result<SinkConfig, String> {
        one(&format!("name = \"siem\"\ntype = \"syslog\"\naddress = \"siem.example.net:514\"\n{extra}"))
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let read = minimal("").unwrap();
        let built = SinkConfig::syslog(
            SinkName::try_from("siem".to_owned()).unwrap(),
            Address::try_from("siem.example.net:514".to_owned()).unwrap(),
        );
        assert_eq!(read, built);
        assert_eq!((read.facility as u8, read.framing, read.start), (16, Framing::OctetCounted, Start::All));
        assert_eq!(read.app_name.as_str(), "bartizan");
        assert_eq!(read.min_severity, Severity::Info);
        assert_eq!(read.name.consumer(), "forward-siem");
    }

    #[test]
    fn every_key_is_read() {
        let read = minimal(
            "facility = \"local7\"\napp_name = \"edr\"\nframing = \"lf\"\nmin_severity = \"high\"\nstart = \"new\"\nmax_message_bytes = \
             65536\nconnect_timeout = \"2s\"\nwrite_timeout = \"7s\"\nconfirm_after = \"250ms\"\nretry_min = \"2s\"\nretry_max = \"1m\"\n",
        )
        .unwrap();
        assert_eq!(
            (read.facility, read.framing, read.start, read.min_severity),
            (Facility::Local7, Framing::Lf, Start::New, Severity::High)
        );
        assert_eq!(read.confirm_after.0, Duration::from_millis(250));
        assert_eq!(read.retry_max.0, Duration::from_secs(60));
        assert_eq!(read.max_message_bytes, 65536);
    }

    #[test]
    fn errors_name_the_key_and_what_is_allowed() {
        let cases = [
            (minimal("facilty = \"local0\""), "facilty"),
            (minimal("facility = \"local8\""), "local7"),
            (minimal("framing = \"nul\""), "octet-counted"),
            (minimal("start = \"old\""), "`all` or `new`"),
            (minimal("min_severity = \"urgent\""), "critical"),
            (minimal("app_name = \"two words\""), "1 to 48 printable"),
            (minimal("connect_timeout = \"0s\""), "1ms to 1h"),
            (minimal("connect_timeout = \"soon\""), "\"5s\""),
            (one("name = \"SIEM\"\ntype = \"syslog\"\naddress = \"a:1\""), "lower-case"),
            (one("name = \"siem\"\ntype = \"splunk\"\naddress = \"a:1\""), "syslog"),
            (one("name = \"siem\"\ntype = \"syslog\""), "address"),
        ];
        for (result, expected) in cases {
            let error = result.expect_err(expected);
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn addresses() {
        for (text, host, port) in [
            ("siem:514", "siem", 514),
            ("siem.example.net.:6514", "siem.example.net.", 6514),
            ("192.0.2.7:514", "192.0.2.7", 514),
            ("[2001:db8::5]:514", "2001:db8::5", 514),
            ("[fe80::1%eth0]:514", "fe80::1%eth0", 514),
        ] {
            let address = Address::try_from(text.to_owned()).unwrap();
            assert_eq!((address.host(), address.port(), address.to_string().as_str()), (host, port, text));
        }
        for text in [
            "",
            "siem",
            "siem:",
            ":514",
            "siem:0",
            "siem:65536",
            "siem:+5",
            "::1:514",
            "[::1]",
            "[siem]:514",
            "10.0.0:514",
            "a b:514",
            "-a:514",
            "a..b:514",
            "1.2.3.4.5:1",
            "[::1:514",
            "::1]:514",
        ] {
            assert!(Address::try_from(text.to_owned()).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn what_no_single_key_can_tell() {
        let sink = minimal("").unwrap();
        assert_eq!(validate(std::slice::from_ref(&sink)), Ok(()));
        assert!(matches!(validate(&[sink.clone(), sink.clone()]), Err(ConfigError::DuplicateName { .. })));
        for found in [0, MIN_MAX_MESSAGE_BYTES - 1, MAX_MAX_MESSAGE_BYTES + 1] {
            let bad = SinkConfig { max_message_bytes: found, ..sink.clone() };
            assert!(matches!(validate(&[bad]), Err(ConfigError::MaxMessageBytes { .. })));
        }
        let bad = SinkConfig { retry_min: DurationSetting(Duration::from_secs(60)), ..sink };
        assert!(matches!(validate(&[bad]), Err(ConfigError::RetryOrder { .. })));
    }

    proptest! {
        #[test]
        fn an_address_that_is_taken_reads_back_the_same(text in "\\PC{0,40}|[a-z0-9.:%\\[\\]-]{1,30}:[0-9]{1,6}") {
            if let Ok(address) = Address::try_from(text) {
                prop_assert_eq!(Address::try_from(address.to_string()), Ok(address.clone()));
            }
        }
    }
}
