//! Keys of `type = "syslog"`.

use std::time::Duration;

use serde::Deserialize;

use super::values::{DurationSetting, TextError};

/// Largest syslog message that a stock rsyslog 8 takes whole, in bytes without the frame's own length or line feed.
/// rsyslog's `maxMessageSize` is 8096 unless `global(maxMessageSize=...)` raises it ("size is 8191 bytes, max msg size is
/// 8096, truncating..."); what is longer it stores as two messages of which neither is JSON.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 8096;

/// Smallest `max_message_bytes`: RFC 5424 §6.1 asks receivers to take 2048 octets, and the shortest form of an alert fits in it.
pub const MIN_MAX_MESSAGE_BYTES: usize = 2048;

/// Largest `max_message_bytes`.
pub const MAX_MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What a syslog sink has besides what every sink has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Syslog facility.
    pub facility: Facility,
    /// Syslog APP-NAME.
    pub app_name: AppName,
    /// How messages are told apart on the TCP stream.
    pub framing: Framing,
    /// Largest message in bytes, [`MIN_MAX_MESSAGE_BYTES`] to [`MAX_MAX_MESSAGE_BYTES`]; a larger alert is shrunk by
    /// dropping named fields. Must not exceed the receiver's own limit. Default [`DEFAULT_MAX_MESSAGE_BYTES`].
    pub max_message_bytes: usize,
    /// Longest time in which the receiver's kernel may acknowledge not one byte although some wait. Default 15 s.
    pub write_timeout: DurationSetting,
    /// How long a connection must stay healthy after the receiver's kernel has acknowledged an alert, before the alert
    /// counts as delivered. Default 1 s.
    pub confirm_after: DurationSetting,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            facility: Facility::default(),
            app_name: AppName::default(),
            framing: Framing::default(),
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            write_timeout: DurationSetting(Duration::from_secs(15)),
            confirm_after: DurationSetting(Duration::from_secs(1)),
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
