//! Settings of module `network_guardian`: the `[detectors.network_guardian]` table.

use std::net::IpAddr;

use serde::Deserialize;

use crate::config::{ConfigError, PeerNet};
use crate::period::Period;

/// Largest threshold: how many distinct keys of one source are remembered grows with it.
const MAX_THRESHOLD: usize = 1_000;

/// Settings of module `network_guardian`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkGuardianConfig {
    /// Whether the module runs.
    pub enabled: bool,
    /// Sources of packets and connections that are not looked at: monitoring scanners, load balancers. A port is the port on this host.
    pub excepted_sources: Vec<PeerNet>,
    /// Programs whose connections out are not looked at.
    pub health_checkers: Vec<HealthChecker>,
    /// First and last port that this host gives to its own outgoing connections (`net.ipv4.ip_local_port_range`).
    pub ephemeral_ports: [u16; 2],
    /// A scan is over when it was quiet for so long; one that the slow form found, after a whole `slow_window`.
    pub quiet: Period,
    /// Rule `network_guardian.port_scan_in`.
    pub port_scan_in: PortScanInConfig,
    /// Rule `network_guardian.port_scan_out`.
    pub port_scan_out: PortScanOutConfig,
    /// Rule `network_guardian.sweep_out`.
    pub sweep_out: SweepOutConfig,
    /// Rule `network_guardian.raw_scan_out`.
    pub raw_scan_out: RawScanOutConfig,
    /// Rule `network_guardian.login_hammering`.
    pub login_hammering: LoginHammeringConfig,
}

impl Default for NetworkGuardianConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            excepted_sources: Vec::new(),
            health_checkers: Vec::new(),
            // Linux's default since 3.2 (net/ipv4/af_inet.c, inet_init_net).
            ephemeral_ports: [32_768, 60_999],
            quiet: Period::minutes(30),
            port_scan_in: PortScanInConfig::default(),
            port_scan_out: PortScanOutConfig::default(),
            sweep_out: SweepOutConfig::default(),
            raw_scan_out: RawScanOutConfig::default(),
            login_hammering: LoginHammeringConfig::default(),
        }
    }
}

/// One exception: a program that connects to many ports or hosts by design.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthChecker {
    /// A name for people.
    pub name: String,
    /// Path of the executed file of the process or of one of its ancestors, or of the script that an interpreter among them was given as
    /// its first argument.
    pub program: String,
    /// Only connections to these. Without this, to any.
    #[serde(default)]
    pub targets: Vec<PeerNet>,
}

/// Settings of rule `network_guardian.port_scan_in`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortScanInConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// So many ports probed by one source within `window` are a scan.
    pub ports: usize,
    /// See `ports`.
    pub window: Period,
    /// So many ports probed by one source within `slow_window` are a scan too.
    pub slow_ports: usize,
    /// See `slow_ports`.
    pub slow_window: Period,
    /// So many alerts may be raised within `window`; sources beyond are named in the newest of them.
    pub max_new_alerts: usize,
    /// Most sources that are remembered with fewer than four ports, as many again with more, and as many peers of UDP sockets.
    pub max_sources: usize,
    /// Most scans that are followed at the same time.
    pub max_scans: usize,
}

impl Default for PortScanInConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            ports: 20,
            window: Period::minutes(5),
            slow_ports: 20,
            slow_window: Period::hours(24),
            max_new_alerts: 32,
            max_sources: 8_192,
            max_scans: 256,
        }
    }
}

/// Settings of rule `network_guardian.port_scan_out`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortScanOutConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Failed connections to so many ports of one host within `window` are a scan.
    pub ports: usize,
    /// See `ports`.
    pub window: Period,
    /// Failed connections to so many ports of one host within `slow_window` are a scan too.
    pub slow_ports: usize,
    /// See `slow_ports`.
    pub slow_window: Period,
    /// Only when more than so many of a hundred tried ports failed.
    pub min_failed_percent: u8,
    /// Most pairs of an origin and a host that are remembered.
    pub max_targets: usize,
    /// Most scans that are followed at the same time.
    pub max_scans: usize,
}

impl Default for PortScanOutConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            ports: 20,
            window: Period::minutes(5),
            slow_ports: 20,
            slow_window: Period::hours(24),
            min_failed_percent: 50,
            max_targets: 8_192,
            max_scans: 256,
        }
    }
}

/// Settings of rule `network_guardian.sweep_out`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepOutConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// So many hosts tried on one port within `window` are a sweep.
    pub hosts: usize,
    /// See `hosts`.
    pub window: Period,
    /// So many hosts tried on one port within `slow_window` are a sweep too.
    pub slow_hosts: usize,
    /// See `slow_hosts`.
    pub slow_window: Period,
    /// Only when more than so many of a hundred tried hosts failed.
    pub min_failed_percent: u8,
    /// Most pairs of an origin and a port that are remembered.
    pub max_targets: usize,
    /// Most sweeps that are followed at the same time.
    pub max_scans: usize,
}

impl Default for SweepOutConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            hosts: 10,
            window: Period::minutes(5),
            slow_hosts: 20,
            slow_window: Period::hours(24),
            min_failed_percent: 50,
            max_targets: 4_096,
            max_scans: 256,
        }
    }
}

/// Settings of rule `network_guardian.raw_scan_out`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawScanOutConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// So many answers of one host within `window`, to ports of this host that no socket has, are a scan that left this host.
    pub answers: usize,
    /// See `answers`.
    pub window: Period,
    /// Most hosts that are remembered.
    pub max_sources: usize,
}

impl Default for RawScanOutConfig {
    fn default() -> Self {
        Self { enabled: true, answers: 20, window: Period::minutes(5), max_sources: 4_096 }
    }
}

/// Settings of rule `network_guardian.login_hammering`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoginHammeringConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// So many connections of one source to login services within `window` without a login are hammering.
    pub connections: usize,
    /// See `connections`.
    pub window: Period,
    /// A connection counts when it is so old and its login has not come: sshd's `LoginGraceTime` is two minutes.
    pub grace: Period,
    /// Only when at most so many of a hundred connections led to a login.
    pub max_success_percent: u8,
    /// Ports of login services on this host.
    pub ports: Vec<u16>,
    /// Programs of login services besides the built-in ones: exact paths as the kernel resolves them.
    pub services: Vec<String>,
    /// Most sources that are remembered.
    pub max_sources: usize,
}

impl Default for LoginHammeringConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            connections: 20,
            window: Period::hours(1),
            grace: Period::minutes(2),
            max_success_percent: 50,
            // FTP, SSH, Telnet, RDP, VNC (IANA's service names and ports).
            ports: vec![21, 22, 23, 3389, 5900],
            services: Vec::new(),
            max_sources: 4_096,
        }
    }
}

impl NetworkGuardianConfig {
    /// Whether `ip` is excepted for `port` of this host.
    pub(super) fn excepts(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let ip = ip.to_canonical();
        self.excepted_sources.iter().any(|net| net.contains(ip, port))
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            enabled: _,
            excepted_sources: _,
            health_checkers,
            ephemeral_ports,
            quiet: _,
            port_scan_in,
            port_scan_out,
            sweep_out,
            raw_scan_out,
            login_hammering,
        } = self;
        let most = MAX_THRESHOLD;
        let [first, last] = ephemeral_ports.map(usize::from);
        let sizes = [
            ("network_guardian.ephemeral_ports[0]", first, 1, last.max(1)),
            ("network_guardian.port_scan_in.ports", port_scan_in.ports, 2, most),
            ("network_guardian.port_scan_in.slow_ports", port_scan_in.slow_ports, 2, most),
            ("network_guardian.port_scan_in.max_new_alerts", port_scan_in.max_new_alerts, 1, usize::MAX),
            ("network_guardian.port_scan_in.max_sources", port_scan_in.max_sources, 64, usize::MAX),
            ("network_guardian.port_scan_in.max_scans", port_scan_in.max_scans, 16, usize::MAX),
            ("network_guardian.port_scan_out.ports", port_scan_out.ports, 2, most),
            ("network_guardian.port_scan_out.slow_ports", port_scan_out.slow_ports, 2, most),
            ("network_guardian.port_scan_out.min_failed_percent", port_scan_out.min_failed_percent.into(), 0, 99),
            ("network_guardian.port_scan_out.max_targets", port_scan_out.max_targets, 64, usize::MAX),
            ("network_guardian.port_scan_out.max_scans", port_scan_out.max_scans, 16, usize::MAX),
            ("network_guardian.sweep_out.hosts", sweep_out.hosts, 2, most),
            ("network_guardian.sweep_out.slow_hosts", sweep_out.slow_hosts, 2, most),
            ("network_guardian.sweep_out.min_failed_percent", sweep_out.min_failed_percent.into(), 0, 99),
            ("network_guardian.sweep_out.max_targets", sweep_out.max_targets, 64, usize::MAX),
            ("network_guardian.sweep_out.max_scans", sweep_out.max_scans, 16, usize::MAX),
            ("network_guardian.raw_scan_out.answers", raw_scan_out.answers, 2, usize::MAX),
            ("network_guardian.raw_scan_out.max_sources", raw_scan_out.max_sources, 64, usize::MAX),
            ("network_guardian.login_hammering.connections", login_hammering.connections, 2, usize::MAX),
            ("network_guardian.login_hammering.max_success_percent", login_hammering.max_success_percent.into(), 0, 99),
            ("network_guardian.login_hammering.max_sources", login_hammering.max_sources, 64, usize::MAX),
        ];
        for (key, value, least, most) in sizes {
            let (value, least, most) = (value as u64, least as u64, most as u64);
            if value < least {
                return Err(ConfigError::TooSmall { key, value, least });
            }
            if value > most {
                return Err(ConfigError::TooLarge { key, value, most });
            }
        }
        let paths = health_checkers.iter().map(|checker| ("health_checkers.program", &checker.program));
        let paths = paths.chain(login_hammering.services.iter().map(|path| ("login_hammering.services", path)));
        for (key, path) in paths {
            if !path.starts_with('/') {
                return Err(ConfigError::NotAbsolute { module: super::ID, key, path: path.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> NetworkGuardianConfig {
        toml::from_str(text).expect("readable")
    }

    #[test]
    fn an_empty_table_is_the_default_and_valid() {
        assert_eq!(read(""), NetworkGuardianConfig::default());
        assert_eq!(read("").validate(), Ok(()));
    }

    #[test]
    fn the_documented_form_is_read() {
        let config = read(
            r#"
            excepted_sources = ["192.0.2.7", "10.0.0.0/8:22"]
            [port_scan_in]
            slow_window = "12h"
            [[health_checkers]]
            name = "checks"
            program = "/usr/lib/nagios/plugins/check_tcp"
            targets = ["10.0.0.0/8", "[2001:db8::/32]:443"]
            "#,
        );
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.port_scan_in.slow_window, Period::hours(12));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(config.excepts(ip("192.0.2.7"), Some(9)));
        assert!(config.excepts(ip("::ffff:192.0.2.7"), Some(9)));
        assert!(config.excepts(ip("10.1.1.1"), Some(22)));
        assert!(!config.excepts(ip("10.1.1.1"), Some(23)));
    }

    #[test]
    fn unusable_values_are_named() {
        let refused = |text: &str| read(text).validate().expect_err(text).to_string();
        assert!(refused("[port_scan_in]\nports = 1").contains("detectors.network_guardian.port_scan_in.ports is 1; it must be at least 2"));
        assert!(refused("[sweep_out]\nhosts = 5000").contains("network_guardian.sweep_out.hosts is 5000; it must be at most 1000"));
        assert!(refused("ephemeral_ports = [60000, 40000]").contains("ephemeral_ports[0] is 60000; it must be at most 40000"));
        assert!(refused("[login_hammering]\nservices = [\"sshd\"]").contains("network_guardian.login_hammering.services has \"sshd\""));
        assert!(refused("[[health_checkers]]\nname = \"x\"\nprogram = \"curl\"").contains("\"curl\""));
        assert!(
            toml::from_str::<NetworkGuardianConfig>("[sweep_out]\nwindow = \"5\"").expect_err("no unit").to_string().contains("\"10m\"")
        );
        assert!(
            toml::from_str::<NetworkGuardianConfig>("[sweep_in]\nhosts = 5").expect_err("no such rule").to_string().contains("sweep_in")
        );
    }
}
