//! `[nats]`: who may connect to the edge bus, and where.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan_bus::SyncPolicy;
use bartizan_bus::edge::{Credentials, CredentialsError, EdgeConfig, GENERATED_USER, module_user};
use bartizan_bus::nats::auth::{Credential, Permission, User, Users};
use bartizan_bus::nats::{ServerConfig, TlsConfig};
use bartizan_bus::pattern::Pattern;
use serde::Deserialize;

use super::fields;

/// `[nats]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Whether `bartizan run` serves NATS clients.
    pub enabled: bool,
    /// Where.
    pub listen: SocketAddr,
    /// Whether clients need no credential. Only on a loopback address.
    pub no_auth: bool,
    /// Largest headers and payload together.
    #[serde(deserialize_with = "fields::size::<_, 1024, {8 << 20}>")]
    pub max_payload: u64,
    /// A connection with more than this to be sent is closed.
    #[serde(deserialize_with = "fields::size::<_, {1 << 20}, {1 << 30}>")]
    pub max_pending: u64,
    /// Connections at a time.
    #[serde(deserialize_with = "fields::count::<_, 1, 65536>")]
    pub max_connections: usize,
    /// When streams that clients make are synced: `always`, `interval` or `os`.
    pub sync: Sync,
    /// Users beside the one that is made at first start.
    pub users: Vec<NatsUser>,
    /// TLS.
    pub tls: Option<NatsTls>,
}

/// When a stream is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Before a message is acknowledged.
    Always,
    /// At most 200 ms after.
    Interval,
    /// When the operating system likes.
    Os,
}

impl Sync {
    /// As the bus has it.
    pub fn policy(self) -> SyncPolicy {
        match self {
            Self::Always => SyncPolicy::Always,
            Self::Interval => SyncPolicy::Interval(Duration::from_millis(200)),
            Self::Os => SyncPolicy::Os,
        }
    }
}

/// `[[nats.users]]`: exactly one of `password_file`, `bcrypt`, `token_file`, `nkey`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsUser {
    /// User name; of a module also the name of its alerts.
    pub name: String,
    /// File with the password in its first line.
    pub password_file: Option<PathBuf>,
    /// bcrypt hash of the password.
    pub bcrypt: Option<String>,
    /// File with a token in its first line.
    pub token_file: Option<PathBuf>,
    /// Public user nkey (`U…`).
    pub nkey: Option<String>,
    /// It reads the sensor's streams and publishes alerts under its own name, nothing else.
    #[serde(default)]
    pub module: bool,
    /// What it may publish to; everything without.
    pub publish: Option<Vec<String>>,
    /// What it may not publish to.
    #[serde(default)]
    pub deny_publish: Vec<String>,
    /// What it may subscribe to; everything without.
    pub subscribe: Option<Vec<String>>,
    /// What it may not subscribe to.
    #[serde(default)]
    pub deny_subscribe: Vec<String>,
}

/// `[nats.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsTls {
    /// PEM file with the certificate and those that signed it.
    pub cert: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// PEM file with what client certificates must be signed by.
    pub client_ca: Option<PathBuf>,
    /// The handshake comes before INFO.
    #[serde(default)]
    pub handshake_first: bool,
}

impl Default for NatsConfig {
    fn default() -> Self {
        let server = ServerConfig::default();
        Self {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 4222).into(),
            no_auth: false,
            max_payload: server.max_payload as u64,
            max_pending: server.max_pending as u64,
            max_connections: 1024,
            sync: Sync::Interval,
            users: Vec::new(),
            tls: None,
        }
    }
}

/// Settings that do not do.
#[derive(Debug, thiserror::Error)]
pub enum NatsConfigError {
    /// A user.
    #[error("nats.users {name:?}: {reason}")]
    User {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// Open to the network.
    #[error("nats.no_auth on {0}, which others can reach: listen on 127.0.0.1, or leave no_auth out")]
    Open(SocketAddr),
    /// Users whom nobody asks who they are.
    #[error("nats.no_auth (--no-auth) and nats.users: nobody would be asked for a credential, or everybody; leave one of the two out")]
    OpenToUsers,
    /// The generated credential.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl NatsConfig {
    /// What can be told without touching a file.
    ///
    /// # Errors
    /// [`NatsConfigError`].
    pub fn validate(&self) -> Result<(), NatsConfigError> {
        if self.no_auth && !self.listen.ip().is_loopback() {
            return Err(NatsConfigError::Open(self.listen));
        }
        if self.no_auth && !self.users.is_empty() {
            return Err(NatsConfigError::OpenToUsers);
        }
        let mut names = if self.no_auth { Vec::new() } else { vec![GENERATED_USER] };
        for user in &self.users {
            let given = [user.password_file.is_some(), user.bcrypt.is_some(), user.token_file.is_some(), user.nkey.is_some()];
            if given.iter().filter(|given| **given).count() != 1 {
                return Err(user.wrong("give exactly one of password_file, bcrypt, token_file, nkey"));
            }
            let lists = [user.publish.as_deref(), Some(&user.deny_publish[..]), user.subscribe.as_deref(), Some(&user.deny_subscribe[..])];
            for text in lists.into_iter().flatten().flatten() {
                text.parse::<Pattern>().map_err(|error| user.wrong(error))?;
            }
            if user.module && module_user(&user.name, Credential::Token(String::new())).is_none() {
                return Err(user.wrong("a module's name is a subject token: no dots, no wildcards, no spaces"));
            }
            if user.module && lists.into_iter().flatten().any(|list| !list.is_empty()) {
                return Err(user.wrong("what a module may do is fixed: leave the lists out, or leave module out"));
            }
            if [&user.publish, &user.subscribe].into_iter().flatten().any(Vec::is_empty) {
                return Err(user.wrong("an empty list: leave it out to allow everything, or deny everything with [\">\"]"));
            }
            if user.bcrypt.as_deref().is_some_and(|hash| hash.len() != 60 || !hash.starts_with("$2")) {
                return Err(
                    user.wrong("bcrypt is a hash of 60 characters that begins with $2, as `htpasswd -bnBC 11 user password` makes it")
                );
            }
            if names.contains(&user.name.as_str()) {
                return Err(user.wrong("there are two of this name"));
            }
            names.push(&user.name);
        }
        Ok(())
    }

    /// The service's settings; makes the credential of the data folder where there is none.
    ///
    /// # Errors
    /// [`NatsConfigError`].
    pub fn edge(&self, data_dir: &Path) -> Result<EdgeConfig, NatsConfigError> {
        self.validate()?;
        let mut users = Vec::new();
        if !self.no_auth {
            users.push(Credentials::of(data_dir)?.to_user());
        }
        for user in &self.users {
            users.push(user.to_user()?);
        }
        let tls = self.tls.as_ref().map(|tls| TlsConfig {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            client_ca: tls.client_ca.clone(),
            handshake_first: tls.handshake_first,
            timeout: Duration::from_secs(2),
        });
        let server = ServerConfig {
            listen: self.listen,
            max_payload: usize::try_from(self.max_payload).unwrap_or(usize::MAX),
            max_pending: usize::try_from(self.max_pending).unwrap_or(usize::MAX),
            max_connections: self.max_connections,
            users: Users(users),
            tls,
            ..ServerConfig::default()
        };
        Ok(EdgeConfig { server, sync: self.sync.policy(), keep_sensor_names: true })
    }
}

impl NatsUser {
    fn wrong(&self, reason: impl std::fmt::Display) -> NatsConfigError {
        NatsConfigError::User { name: self.name.clone(), reason: reason.to_string() }
    }

    fn first_line(&self, path: &Path) -> Result<String, NatsConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| self.wrong(format_args!("cannot read {}: {error}", path.display())))?;
        match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
            Some(line) => Ok(line.to_owned()),
            None => Err(self.wrong(format_args!("{} is empty", path.display()))),
        }
    }

    fn to_user(&self) -> Result<User, NatsConfigError> {
        let user = self.name.clone();
        let credential = match (&self.password_file, &self.bcrypt, &self.token_file, &self.nkey) {
            (Some(path), ..) => Credential::Password { user, password: self.first_line(path)? },
            (_, Some(hash), ..) => Credential::Password { user, password: hash.clone() },
            (_, _, Some(path), _) => Credential::Token(self.first_line(path)?),
            (.., Some(key)) => Credential::Nkey(key.clone()),
            _ => return Err(self.wrong("it has no credential")),
        };
        if self.module {
            return module_user(&self.name, credential).ok_or_else(|| self.wrong("a module's name is a subject token"));
        }
        let patterns = |texts: &[String]| -> Result<Vec<Pattern>, NatsConfigError> {
            texts.iter().map(|text| text.parse().map_err(|error| self.wrong(error))).collect()
        };
        Ok(User {
            credential,
            publish: Permission { allow: patterns(self.publish.as_deref().unwrap_or_default())?, deny: patterns(&self.deny_publish)? },
            subscribe: Permission {
                allow: patterns(self.subscribe.as_deref().unwrap_or_default())?,
                deny: patterns(&self.deny_subscribe)?,
            },
            module: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> NatsConfig {
        toml::from_str(text).expect("toml")
    }

    #[test]
    fn a_module_needs_little() {
        let dir = tempfile::tempdir().expect("folder");
        let password = dir.path().join("password");
        std::fs::write(&password, "s3cr3t\n").expect("write");
        let config = read(&format!("[[users]]\nname = \"scanner\"\npassword_file = {password:?}\nmodule = true\n"));
        let edge = config.edge(dir.path()).expect("fine");
        let names: Vec<&str> = edge.server.users.0.iter().map(User::name).collect();
        assert_eq!(names, ["bartizan", "scanner"]);
        assert_eq!(edge.server.listen.to_string(), "127.0.0.1:4222");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        for (text, words) in [
            ("listen = \"0.0.0.0:4222\"\nno_auth = true", "which others can reach"),
            ("[[users]]\nname = \"a\"", "exactly one of"),
            ("[[users]]\nname = \"a\"\nbcrypt = \"x\"\nnkey = \"U\"", "exactly one of"),
            ("[[users]]\nname = \"a\"\nbcrypt = \"x\"\npublish = [\"a..b\"]", "not a subject pattern"),
            ("[[users]]\nname = \"a.b\"\nbcrypt = \"x\"\nmodule = true", "subject token"),
            ("[[users]]\nname = \"a\"\nbcrypt = \"x\"\nmodule = true\npublish = [\"b\"]", "leave module out"),
            ("[[users]]\nname = \"a\"\nbcrypt = \"x\"\npublish = []", "an empty list"),
            ("[[users]]\nname = \"a\"\nbcrypt = \"secret\"", "60 characters"),
            ("[[users]]\nname = \"bartizan\"\nnkey = \"U\"", "two of this name"),
            ("[[users]]\nname = \"a\"\nnkey = \"U\"\n[[users]]\nname = \"a\"\nnkey = \"V\"", "two of this name"),
            ("[[users]]\nname = \"a\"\npassword_file = \"/nowhere\"", "/nowhere"),
        ] {
            let error = read(text).edge(dir.path()).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
