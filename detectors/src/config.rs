//! Settings of the detectors: the `[detectors]` table of the configuration file.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use crate::auth_fortress::config::AuthFortressConfig;
use crate::correlate::CorrelateConfig;
use crate::network_guardian::NetworkGuardianConfig;

/// Settings of all detectors and of the engine that runs them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most process images that the lineage table holds.
    pub max_processes: usize,
    /// Events between two snapshots of the detectors' state.
    pub snapshot_every_events: u64,
    /// Module `runtime_watcher`.
    pub runtime_watcher: RuntimeWatcherConfig,
    /// Module `network_guardian`.
    pub network_guardian: NetworkGuardianConfig,
    /// Module `auth_fortress`.
    pub auth_fortress: AuthFortressConfig,
    /// Correlation of the alerts.
    pub correlate: CorrelateConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_processes: 16_384,
            snapshot_every_events: 50_000,
            runtime_watcher: RuntimeWatcherConfig::default(),
            network_guardian: NetworkGuardianConfig::default(),
            auth_fortress: AuthFortressConfig::default(),
            correlate: CorrelateConfig::default(),
        }
    }
}

/// Settings of module `runtime_watcher`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeWatcherConfig {
    /// Whether the module runs.
    pub enabled: bool,
    /// Rule `runtime_watcher.reverse_shell`.
    pub reverse_shell: ReverseShellConfig,
}

impl Default for RuntimeWatcherConfig {
    fn default() -> Self {
        Self { enabled: true, reverse_shell: ReverseShellConfig::default() }
    }
}

/// Settings of rule `runtime_watcher.reverse_shell`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReverseShellConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// File names that are shells besides the built-in ones.
    pub extra_shells: Vec<String>,
    /// File names that are interpreters besides the built-in ones.
    pub extra_interpreters: Vec<String>,
    /// Programs of login services besides the built-in ones: exact paths as the kernel resolves them.
    pub extra_login_services: Vec<String>,
    /// Services whose handler is a shell on a socket by design.
    pub services: Vec<Service>,
    /// Most live processes whose standard streams are remembered.
    pub max_processes: usize,
    /// Most outbound connections that are remembered to tell outbound from inbound.
    pub max_connections: usize,
    /// Most reported processes that are remembered.
    pub max_reports: usize,
}

impl Default for ReverseShellConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            extra_shells: Vec::new(),
            extra_interpreters: Vec::new(),
            extra_login_services: Vec::new(),
            services: Vec::new(),
            max_processes: 16_384,
            max_connections: 8_192,
            max_reports: 4_096,
        }
    }
}

/// One exception: a service whose handler is a shell on a socket by design.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// A name for people.
    pub name: String,
    /// Path of the handler: the executed file as the kernel resolved it, the path that was asked for, or the script
    /// that the interpreter was given.
    pub program: String,
    /// Only on this local port.
    pub local_port: Option<u16>,
    /// Only below this program: the executed file of the parent, or of the process that relays the connection.
    pub parent: Option<String>,
    /// Outbound connections to these peers are excepted too. Without this, only inbound connections are.
    #[serde(default)]
    pub outbound_peers: Vec<PeerNet>,
}

/// An address or network, with or without a port: `192.0.2.7`, `10.0.0.0/8`, `127.0.0.1:6010`, `[2001:db8::/32]:22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PeerNet {
    ip: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

/// Text that is not a [`PeerNet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a peer: write an address or network with or without a port, such as 192.0.2.7, 10.0.0.0/8 or [2001:db8::/32]:22")]
pub struct PeerNetError(String);

impl PeerNet {
    /// Whether `ip` and `port` lie within.
    pub fn contains(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let same_net = match (self.ip, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        };
        same_net && (self.port.is_none() || self.port == port)
    }
}

impl FromStr for PeerNet {
    type Err = PeerNetError;

    fn from_str(text: &str) -> Result<Self, PeerNetError> {
        let error = || PeerNetError(text.to_owned());
        let (net, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (net, port) = rest.split_once(']').ok_or_else(error)?;
                (net, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(error)?) })
            }
            // A colon more than once is IPv6, which takes a port only in brackets.
            None if text.matches(':').count() == 1 => {
                let (net, port) = text.split_once(':').ok_or_else(error)?;
                (net, Some(port))
            }
            None => (text, None),
        };
        let (ip, prefix) = match net.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix.parse::<u8>().map_err(|_| error())?)),
            None => (net, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| error())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(error());
        }
        let port = port.map(|port| port.parse::<u16>().map_err(|_| error())).transpose()?;
        Ok(Self { ip, prefix, port })
    }
}

impl TryFrom<String> for PeerNet {
    type Error = PeerNetError;

    fn try_from(text: String) -> Result<Self, PeerNetError> {
        text.parse()
    }
}

impl fmt::Display for PeerNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, prefix, port } = self;
        match port {
            Some(port) => write!(f, "[{ip}/{prefix}]:{port}"),
            None => write!(f, "{ip}/{prefix}"),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A table without room.
    #[error("detectors.{key} is {value}; it must be at least {least}")]
    TooSmall {
        /// Which setting.
        key: &'static str,
        /// What it is.
        value: u64,
        /// What it must be at least.
        least: u64,
    },
    /// More than can be kept.
    #[error("detectors.{key} is {value}; it must be at most {most}")]
    TooLarge {
        /// Which setting.
        key: &'static str,
        /// What it is.
        value: u64,
        /// What it may be at most.
        most: u64,
    },
    /// A path that is not absolute matches nothing.
    #[error("detectors.{module}.{key} has {path:?}; write the absolute path as the kernel resolves it")]
    NotAbsolute {
        /// Which module.
        module: &'static str,
        /// Which setting.
        key: &'static str,
        /// What it is.
        path: String,
    },
    /// An exception without a condition.
    #[error(
        "the exception {name:?} in detectors.auth_fortress.exceptions covers every attempt: give it sources, accounts or services, or set detectors.auth_fortress.enabled = false"
    )]
    ExceptsAll {
        /// Its name.
        name: String,
    },
    /// A path that is not absolute matches nothing.
    #[error("detectors.runtime_watcher.reverse_shell.{key} has {path:?}; write the absolute path as the kernel resolves it")]
    RelativePath {
        /// Which setting.
        key: &'static str,
        /// What it is.
        path: String,
    },
    /// A file name with a slash matches nothing.
    #[error("detectors.runtime_watcher.reverse_shell.{key} has {name:?}; write a file name without its folder")]
    NotAName {
        /// Which setting.
        key: &'static str,
        /// What it is.
        name: String,
    },
}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { max_processes, snapshot_every_events, runtime_watcher, network_guardian, auth_fortress, correlate } = self;
        network_guardian.validate()?;
        auth_fortress.validate()?;
        correlate.validate()?;
        let ReverseShellConfig {
            enabled: _,
            extra_shells,
            extra_interpreters,
            extra_login_services,
            services,
            max_processes: rule_processes,
            max_connections,
            max_reports,
        } = &runtime_watcher.reverse_shell;
        let sizes = [
            ("max_processes", *max_processes as u64, 64),
            ("snapshot_every_events", *snapshot_every_events, 1),
            ("runtime_watcher.reverse_shell.max_processes", *rule_processes as u64, 64),
            ("runtime_watcher.reverse_shell.max_connections", *max_connections as u64, 64),
            ("runtime_watcher.reverse_shell.max_reports", *max_reports as u64, 64),
        ];
        for (key, value, least) in sizes {
            if value < least {
                return Err(ConfigError::TooSmall { key, value, least });
            }
        }
        let names = extra_shells.iter().map(|name| ("extra_shells", name));
        let names = names.chain(extra_interpreters.iter().map(|name| ("extra_interpreters", name)));
        for (key, name) in names {
            if name.is_empty() || name.contains('/') {
                return Err(ConfigError::NotAName { key, name: name.clone() });
            }
        }
        let paths = extra_login_services.iter().map(|path| ("extra_login_services", path));
        let paths = paths.chain(services.iter().map(|service| ("services.program", &service.program)));
        let paths = paths.chain(services.iter().filter_map(|service| service.parent.as_ref()).map(|path| ("services.parent", path)));
        for (key, path) in paths {
            if !path.starts_with('/') {
                return Err(ConfigError::RelativePath { key, path: path.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_is_the_default_and_valid() {
        let config: Config = toml::from_str("").expect("empty");
        assert_eq!(config, Config::default());
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn the_documented_form_is_read() {
        let text = r#"
            max_processes = 4096
            [runtime_watcher.reverse_shell]
            extra_shells = ["corpsh"]
            [[runtime_watcher.reverse_shell.services]]
            name = "status page"
            program = "/usr/local/bin/handler"
            local_port = 7000
            parent = "/usr/sbin/inetd"
            [[runtime_watcher.reverse_shell.services]]
            name = "runner"
            program = "/usr/bin/bash"
            outbound_peers = ["10.0.0.0/8", "[2001:db8::1]:443"]
        "#;
        let config: Config = toml::from_str(text).expect("valid");
        assert_eq!(config.validate(), Ok(()));
        let rule = &config.runtime_watcher.reverse_shell;
        assert_eq!(rule.services[0].local_port, Some(7000));
        assert_eq!(rule.services[1].outbound_peers.len(), 2);
    }

    #[test]
    fn unknown_settings_and_unusable_values_are_named() {
        let error = toml::from_str::<Config>("[runtime_watcher.reverse_shell]\nservice = []").expect_err("unknown");
        assert!(error.to_string().contains("service"), "{error}");
        let config: Config = toml::from_str("[runtime_watcher.reverse_shell]\nextra_login_services = [\"sshd\"]").expect("reads");
        assert!(config.validate().expect_err("relative").to_string().contains("\"sshd\""));
        let config: Config = toml::from_str("[runtime_watcher.reverse_shell]\nextra_shells = [\"/bin/x\"]").expect("reads");
        assert!(config.validate().is_err());
        let config: Config = toml::from_str("max_processes = 0").expect("reads");
        assert!(config.validate().expect_err("small").to_string().contains("max_processes"));
    }

    #[test]
    fn peers_are_matched_by_network_and_port() {
        let peer = |text: &str| text.parse::<PeerNet>().expect("valid");
        let ip = |text: &str| text.parse::<IpAddr>().expect("valid");
        assert!(peer("10.0.0.0/8").contains(ip("10.9.8.7"), Some(1)));
        assert!(!peer("10.0.0.0/8").contains(ip("11.0.0.1"), None));
        assert!(peer("0.0.0.0/0").contains(ip("203.0.113.9"), None));
        assert!(!peer("0.0.0.0/0").contains(ip("::1"), None));
        assert!(peer("127.0.0.1:6010").contains(ip("127.0.0.1"), Some(6010)));
        assert!(!peer("127.0.0.1:6010").contains(ip("127.0.0.1"), Some(6011)));
        assert!(peer("[2001:db8::/32]:22").contains(ip("2001:db8:1::5"), Some(22)));
        assert!(peer("::1").contains(ip("::1"), Some(5)));
        for bad in ["", "x", "1.2.3.4/33", "1.2.3.4:99999", "[::1", "[::1]x", "::1/129", "1.2.3.4/"] {
            assert!(bad.parse::<PeerNet>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_prints_as_itself(text in "[0-9a-f:./\\[\\]]{0,24}") {
            if let Ok(peer) = text.parse::<PeerNet>() {
                prop_assert_eq!(peer.to_string().parse::<PeerNet>(), Ok(peer));
                prop_assert!(peer.contains(peer.ip, peer.port));
            }
        }
    }
}
