//! The table as it is written: every key of every sink type. A key that belongs to another type is refused by name.

use bartizan_bus::event::Severity;
use serde::Deserialize;

use super::nats::{ClientCertificate, Domain, HubStream, Login, NatsConfig, SubjectPrefix, TlsConfig};
use super::syslog::{AppName, Facility, Framing, SyslogConfig};
use super::values::{Address, DurationSetting, FilePath, SinkName, Start};
use super::{Protocol, SinkConfig, SinkType};

/// All keys. serde cannot refuse unknown keys in a flattened enum, so the types share one table here and are told apart below.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    name: SinkName,
    #[serde(rename = "type")]
    kind: SinkType,
    address: Address,
    min_severity: Option<Severity>,
    start: Option<Start>,
    connect_timeout: Option<DurationSetting>,
    retry_min: Option<DurationSetting>,
    retry_max: Option<DurationSetting>,
    retry_config: Option<DurationSetting>,

    facility: Option<Facility>,
    app_name: Option<AppName>,
    framing: Option<Framing>,
    max_message_bytes: Option<usize>,
    write_timeout: Option<DurationSetting>,
    confirm_after: Option<DurationSetting>,

    fallback_addresses: Option<Vec<Address>>,
    stream: Option<HubStream>,
    create_stream: Option<bool>,
    subject_prefix: Option<SubjectPrefix>,
    domain: Option<Domain>,
    ack_timeout: Option<DurationSetting>,
    creds_file: Option<FilePath>,
    nkey_file: Option<FilePath>,
    user: Option<String>,
    password_file: Option<FilePath>,
    token_file: Option<FilePath>,
    tls: Option<bool>,
    tls_first: Option<bool>,
    ca_file: Option<FilePath>,
    cert_file: Option<FilePath>,
    key_file: Option<FilePath>,
}

/// Keys of one table that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key of another sink type.
    #[error("key `{key}` of [[forward]] \"{name}\" belongs to type = \"{}\", and this one has type = \"{}\": remove the key", owner.as_str(), kind.as_str())]
    Foreign {
        /// Sink.
        name: SinkName,
        /// Its type.
        kind: SinkType,
        /// The key.
        key: &'static str,
        /// The type that has it.
        owner: SinkType,
    },
    /// More than one way to log in.
    #[error("[[forward]] \"{name}\" has both `{first}` and `{second}`: keep the one login that the hub knows")]
    Logins {
        /// Sink.
        name: SinkName,
        /// One key.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// A key that means nothing without another.
    #[error("[[forward]] \"{name}\" has `{key}` and no `{missing}`: each needs the other")]
    Pair {
        /// Sink.
        name: SinkName,
        /// The key that is there.
        key: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// TLS is off and set up.
    #[error("[[forward]] \"{name}\" has tls = false and `{key}`, which is for TLS: remove one of the two")]
    TlsOff {
        /// Sink.
        name: SinkName,
        /// The key.
        key: &'static str,
    },
}

type Given = (&'static str, bool);

/// The first key of `keys` that is given.
fn first_given(keys: &[Given]) -> Option<&'static str> {
    keys.iter().find(|(_, given)| *given).map(|(key, _)| *key)
}

impl TryFrom<Keys> for SinkConfig {
    type Error = KeyError;

    fn try_from(keys: Keys) -> Result<Self, KeyError> {
        let Keys {
            name,
            kind,
            address,
            min_severity,
            start,
            connect_timeout,
            retry_min,
            retry_max,
            retry_config,
            facility,
            app_name,
            framing,
            max_message_bytes,
            write_timeout,
            confirm_after,
            fallback_addresses,
            stream,
            create_stream,
            subject_prefix,
            domain,
            ack_timeout,
            creds_file,
            nkey_file,
            user,
            password_file,
            token_file,
            tls,
            tls_first,
            ca_file,
            cert_file,
            key_file,
        } = keys;
        let of_syslog = [
            ("facility", facility.is_some()),
            ("app_name", app_name.is_some()),
            ("framing", framing.is_some()),
            ("max_message_bytes", max_message_bytes.is_some()),
            ("write_timeout", write_timeout.is_some()),
            ("confirm_after", confirm_after.is_some()),
        ];
        let of_nats = [
            ("fallback_addresses", fallback_addresses.is_some()),
            ("stream", stream.is_some()),
            ("create_stream", create_stream.is_some()),
            ("subject_prefix", subject_prefix.is_some()),
            ("domain", domain.is_some()),
            ("ack_timeout", ack_timeout.is_some()),
            ("creds_file", creds_file.is_some()),
            ("nkey_file", nkey_file.is_some()),
            ("user", user.is_some()),
            ("password_file", password_file.is_some()),
            ("token_file", token_file.is_some()),
            ("tls", tls.is_some()),
            ("tls_first", tls_first.is_some()),
            ("ca_file", ca_file.is_some()),
            ("cert_file", cert_file.is_some()),
            ("key_file", key_file.is_some()),
        ];
        let (foreign, owner) = match kind {
            SinkType::Syslog => (first_given(&of_nats), SinkType::Nats),
            SinkType::Nats => (first_given(&of_syslog), SinkType::Syslog),
        };
        if let Some(key) = foreign {
            return Err(KeyError::Foreign { name, kind, key, owner });
        }
        let protocol = match kind {
            SinkType::Syslog => {
                let default = SyslogConfig::default();
                Protocol::Syslog(SyslogConfig {
                    facility: facility.unwrap_or(default.facility),
                    app_name: app_name.unwrap_or(default.app_name),
                    framing: framing.unwrap_or(default.framing),
                    max_message_bytes: max_message_bytes.unwrap_or(default.max_message_bytes),
                    write_timeout: write_timeout.unwrap_or(default.write_timeout),
                    confirm_after: confirm_after.unwrap_or(default.confirm_after),
                })
            }
            SinkType::Nats => {
                let default = NatsConfig::default();
                Protocol::Nats(NatsConfig {
                    fallback_addresses: fallback_addresses.unwrap_or(default.fallback_addresses),
                    stream: stream.unwrap_or(default.stream),
                    create_stream: create_stream.unwrap_or(default.create_stream),
                    subject_prefix: subject_prefix.unwrap_or(default.subject_prefix),
                    domain,
                    ack_timeout: ack_timeout.unwrap_or(default.ack_timeout),
                    login: login(&name, creds_file, nkey_file, user, password_file, token_file)?,
                    tls: tls_config(&name, tls, tls_first, ca_file, cert_file, key_file)?,
                })
            }
        };
        let default = Self::new(name, address, protocol);
        Ok(Self {
            min_severity: min_severity.unwrap_or(default.min_severity),
            start: start.unwrap_or(default.start),
            connect_timeout: connect_timeout.unwrap_or(default.connect_timeout),
            retry_min: retry_min.unwrap_or(default.retry_min),
            retry_max: retry_max.unwrap_or(default.retry_max),
            retry_config: retry_config.unwrap_or(default.retry_config),
            ..default
        })
    }
}

fn login(
    name: &SinkName,
    creds: Option<FilePath>,
    nkey: Option<FilePath>,
    user: Option<String>,
    password: Option<FilePath>,
    token: Option<FilePath>,
) -> Result<Login, KeyError> {
    let ways = [
        ("creds_file", creds.is_some()),
        ("nkey_file", nkey.is_some()),
        ("password_file", password.is_some()),
        ("token_file", token.is_some()),
    ];
    let mut given = ways.into_iter().filter(|(_, given)| *given).map(|(key, _)| key);
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        return Err(KeyError::Logins { name: name.clone(), first, second });
    }
    let pair = |key, missing| Err(KeyError::Pair { name: name.clone(), key, missing });
    match (creds, nkey, token, user, password) {
        (Some(file), _, _, None, _) => Ok(Login::Creds(file)),
        (_, Some(file), _, None, _) => Ok(Login::Nkey(file)),
        (_, _, Some(file), None, _) => Ok(Login::Token(file)),
        (_, _, _, Some(user), Some(file)) => Ok(Login::Password { user, file }),
        (_, _, _, Some(_), None) => pair("user", "password_file"),
        (_, _, _, None, Some(_)) => pair("password_file", "user"),
        (None, None, None, None, None) => Ok(Login::Nobody),
    }
}

fn tls_config(
    name: &SinkName,
    tls: Option<bool>,
    first: Option<bool>,
    ca_file: Option<FilePath>,
    cert_file: Option<FilePath>,
    key_file: Option<FilePath>,
) -> Result<Option<TlsConfig>, KeyError> {
    let settings = [
        ("tls_first", first == Some(true)),
        ("ca_file", ca_file.is_some()),
        ("cert_file", cert_file.is_some()),
        ("key_file", key_file.is_some()),
    ];
    let key = first_given(&settings);
    match (tls, key) {
        (Some(false), Some(key)) => return Err(KeyError::TlsOff { name: name.clone(), key }),
        (Some(false) | None, None) => return Ok(None),
        (Some(true), _) | (None, Some(_)) => {}
    }
    let pair = |key, missing| Err(KeyError::Pair { name: name.clone(), key, missing });
    let client = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => return pair("cert_file", "key_file"),
        (None, Some(_)) => return pair("key_file", "cert_file"),
    };
    Ok(Some(TlsConfig { first: first.unwrap_or(false), ca_file, client }))
}
