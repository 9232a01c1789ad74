//! Keys of `type = "nats"`.

use std::fmt;
use std::time::Duration;

use bartizan_bus::Subject;
use serde::Deserialize;

use super::values::{Address, DurationSetting, FilePath, TextError};

/// What a NATS sink has besides what every sink has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// Other servers of the same cluster, tried in this order when the first does not answer.
    pub fallback_addresses: Vec<Address>,
    /// The stream on the hub. Default `ALERTS`.
    pub stream: HubStream,
    /// Make the stream if the hub lacks it. Default false.
    pub create_stream: bool,
    /// What subjects begin with. Default `sec`.
    pub subject_prefix: SubjectPrefix,
    /// JetStream domain of the hub, for a connection to a leaf node of it.
    pub domain: Option<Domain>,
    /// Longest wait for the hub's answer to one alert or to one request. Default 10 s.
    pub ack_timeout: DurationSetting,
    /// Who Bartizan says that it is.
    pub login: Login,
    /// TLS as it was asked for. Without it the connection is encrypted only if the server demands it.
    pub tls: Option<TlsConfig>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            fallback_addresses: Vec::new(),
            stream: HubStream::default(),
            create_stream: false,
            subject_prefix: SubjectPrefix::default(),
            domain: None,
            ack_timeout: DurationSetting(Duration::from_secs(10)),
            login: Login::Nobody,
            tls: None,
        }
    }
}

/// How Bartizan identifies itself to the hub. Secrets are in files, read at each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    Nobody,
    /// `creds_file`: user JWT and seed, as `nsc generate creds` writes them.
    Creds(FilePath),
    /// `nkey_file`: the seed of a user nkey (`SU...`).
    Nkey(FilePath),
    /// `user` and `password_file`.
    Password {
        /// User name.
        user: String,
        /// File with the password.
        file: FilePath,
    },
    /// `token_file`.
    Token(FilePath),
}

impl Login {
    /// The key that an operator looks at when the login is refused.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Nobody => "creds_file, nkey_file, password_file or token_file (none is set)",
            Self::Creds(_) => "creds_file",
            Self::Nkey(_) => "nkey_file",
            Self::Password { .. } => "user and password_file",
            Self::Token(_) => "token_file",
        }
    }
}

/// TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The handshake comes before the server's greeting (`handshake_first` at the server).
    pub first: bool,
    /// PEM file with the authorities that may have signed the server's certificate; the system's if there is none.
    pub ca_file: Option<FilePath>,
    /// What Bartizan shows when the server asks for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Certificate and, behind it, intermediate ones.
    pub cert_file: FilePath,
    /// Private key.
    pub key_file: FilePath,
}

/// Printable ASCII without what JetStream keeps out of names (`. * > / \` and spaces), 1 to 255 bytes.
fn is_hub_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !b".*>/\\".contains(&b))
}

/// Name of a JetStream stream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HubStream(String);

impl HubStream {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HubStream {
    fn default() -> Self {
        Self("ALERTS".to_owned())
    }
}

impl fmt::Display for HubStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HubStream {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        if is_hub_name(&text) { Ok(Self(text)) } else { Err(TextError::HubStream(text)) }
    }
}

/// A JetStream domain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Domain(String);

impl Domain {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Domain {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        if is_hub_name(&text) { Ok(Self(text)) } else { Err(TextError::Domain(text)) }
    }
}

/// What the hub's subjects begin with, instead of the bus's own `sec`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SubjectPrefix(String);

impl SubjectPrefix {
    /// The prefix as text, without a dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SubjectPrefix {
    fn default() -> Self {
        Self("sec".to_owned())
    }
}

impl fmt::Display for SubjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SubjectPrefix {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        let allowed = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
            && text.parse::<Subject>().is_ok()
            // `$JS`, `$SYS` and the like are the server's own, and under `_INBOX` it answers.
            && !text.starts_with('$')
            && !text.starts_with("_INBOX");
        if allowed { Ok(Self(text)) } else { Err(TextError::SubjectPrefix(text)) }
    }
}
