//! Settings of module `auth_fortress`: the `[detectors.auth_fortress]` table.

use bartizan_bus::event::Auth;
use serde::Deserialize;

use super::history::MAX_PER_SOURCE;
use crate::config::{ConfigError, PeerNet};
use crate::period::Period;

/// Settings of module `auth_fortress`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthFortressConfig {
    /// Whether the module runs.
    pub enabled: bool,
    /// Most sources of attempts that are remembered.
    pub max_sources: usize,
    /// Most failures and attacked accounts that are remembered, over all sources.
    pub max_entries: usize,
    /// Attempts that are not looked at.
    pub exceptions: Vec<Exception>,
    /// Rule `auth_fortress.brute_force`.
    pub brute_force: BruteForceConfig,
    /// Rule `auth_fortress.spray`.
    pub spray: SprayConfig,
    /// Rule `auth_fortress.success_after_failures`.
    pub success_after_failures: SuccessConfig,
}

impl Default for AuthFortressConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max_sources: 4_096,
            max_entries: 65_536,
            exceptions: Vec::new(),
            brute_force: BruteForceConfig::default(),
            spray: SprayConfig::default(),
            success_after_failures: SuccessConfig::default(),
        }
    }
}

/// Settings of rule `auth_fortress.brute_force`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BruteForceConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// So many failures of one source within `window` are an attack.
    pub failures: usize,
    /// See `failures`.
    pub window: Period,
    /// So many failures of one source within `slow_window` are an attack too.
    pub slow_failures: usize,
    /// See `slow_failures`.
    pub slow_window: Period,
    /// With more successes than this in the slow window the source is a busy one, and its failures are mistakes.
    pub slow_max_successes: usize,
    /// An attack is over when its source was quiet for so long; a slow one, after a whole `slow_window`.
    pub quiet: Period,
}

impl Default for BruteForceConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 10,
            window: Period::minutes(1),
            slow_failures: 30,
            slow_window: Period::hours(24),
            slow_max_successes: 3,
            quiet: Period::hours(1),
        }
    }
}

/// Settings of rule `auth_fortress.spray`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SprayConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// So many users that one source failed for within `window` are a spray.
    pub users: usize,
    /// Users with more failures than this are not counted: that is guessing, not spraying.
    pub attempts_per_user: usize,
    /// See `users`.
    pub window: Period,
    /// So many users within `slow_window` are a spray too.
    pub slow_users: usize,
    /// See `slow_users`.
    pub slow_window: Period,
    /// A spray is over when its source was quiet for so long; a slow one, after a whole `slow_window`.
    pub quiet: Period,
}

impl Default for SprayConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            users: 8,
            attempts_per_user: 3,
            window: Period::minutes(10),
            slow_users: 16,
            slow_window: Period::hours(24),
            quiet: Period::hours(1),
        }
    }
}

/// Settings of rule `auth_fortress.success_after_failures`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// A success after so many failures of the same source for the same user within `window` is told.
    pub failures: usize,
    /// See `failures`.
    pub window: Period,
}

impl Default for SuccessConfig {
    fn default() -> Self {
        Self { enabled: true, failures: 5, window: Period::minutes(30) }
    }
}

/// Attempts that are not looked at: those that fit everything that is given here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// A name for people.
    pub name: String,
    /// Only from these peers.
    #[serde(default)]
    pub sources: Vec<PeerNet>,
    /// Only for these accounts, as the client names them.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// Only at these PAM services. sshd's log counts as `sshd`.
    #[serde(default)]
    pub services: Vec<String>,
}

impl Exception {
    /// Whether `auth` fits.
    pub fn covers(&self, auth: &Auth) -> bool {
        let Self { name: _, sources, accounts, services } = self;
        let among = |names: &[String], name: Option<&str>| names.is_empty() || name.is_some_and(|name| names.iter().any(|n| n == name));
        let from = || auth.peer_ip.is_some_and(|ip| sources.iter().any(|net| net.contains(ip.to_canonical(), auth.peer_port)));
        (sources.is_empty() || from())
            && among(accounts, auth.user.as_deref())
            && among(services, Some(auth.service.as_deref().unwrap_or("sshd")))
    }
}

impl AuthFortressConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { enabled: _, max_sources, max_entries, exceptions, brute_force, spray, success_after_failures } = self;
        let most = MAX_PER_SOURCE as u64;
        let sizes = [
            ("auth_fortress.max_sources", *max_sources, 64, u64::MAX),
            ("auth_fortress.max_entries", *max_entries, 1_024, u64::MAX),
            ("auth_fortress.brute_force.failures", brute_force.failures, 2, most),
            ("auth_fortress.brute_force.slow_failures", brute_force.slow_failures, 2, most),
            ("auth_fortress.brute_force.slow_max_successes", brute_force.slow_max_successes, 0, most),
            ("auth_fortress.spray.users", spray.users, 2, most),
            ("auth_fortress.spray.slow_users", spray.slow_users, 2, most),
            ("auth_fortress.spray.attempts_per_user", spray.attempts_per_user, 1, most),
            ("auth_fortress.success_after_failures.failures", success_after_failures.failures, 2, most),
        ];
        for (key, value, least, most) in sizes {
            let value = value as u64;
            if value < least {
                return Err(ConfigError::TooSmall { key, value, least });
            }
            if value > most {
                return Err(ConfigError::TooLarge { key, value, most });
            }
        }
        let empty = |exception: &&Exception| exception.sources.is_empty() && exception.accounts.is_empty() && exception.services.is_empty();
        match exceptions.iter().find(empty) {
            Some(exception) => Err(ConfigError::ExceptsAll { name: exception.name.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{AuthSource, EventId};

    use super::*;

    fn read(text: &str) -> AuthFortressConfig {
        toml::from_str(text).expect("readable")
    }

    #[test]
    fn an_empty_table_is_the_default_and_valid() {
        assert_eq!(read(""), AuthFortressConfig::default());
        assert_eq!(read("").validate(), Ok(()));
    }

    #[test]
    fn unusable_values_are_named() {
        let refused = |text: &str| read(text).validate().expect_err(text).to_string();
        assert!(refused("max_sources = 1").contains("detectors.auth_fortress.max_sources is 1; it must be at least 64"));
        assert!(refused("[spray]\nusers = 1000").contains("detectors.auth_fortress.spray.users is 1000; it must be at most 128"));
        assert!(refused("[[exceptions]]\nname = \"all\"").contains("\"all\""));
        assert!(toml::from_str::<AuthFortressConfig>("[spray]\nwindow = \"5\"").expect_err("no unit").to_string().contains("\"10m\""));
    }

    #[test]
    fn an_exception_covers_what_fits_all_of_it() {
        let exception = &read(
            "[[exceptions]]\nname = \"scan\"\nsources = [\"192.0.2.0/24\", \"[2001:db8::/32]\"]\naccounts = [\"probe\"]\nservices = [\"sshd\"]",
        )
        .exceptions[0];
        let auth = |ip: &str, user: &str, service: Option<&str>| Auth {
            peer_ip: ip.parse().ok(),
            user: Some(user.to_owned()),
            service: service.map(str::to_owned),
            ..Auth::of(AuthSource::Pam, EventId([0; 20]))
        };
        assert!(exception.covers(&auth("192.0.2.9", "probe", Some("sshd"))));
        assert!(exception.covers(&auth("::ffff:192.0.2.9", "probe", None)));
        assert!(exception.covers(&auth("2001:db8::5", "probe", None)));
        assert!(!exception.covers(&auth("192.0.3.9", "probe", Some("sshd"))));
        assert!(!exception.covers(&auth("192.0.2.9", "root", Some("sshd"))));
        assert!(!exception.covers(&auth("192.0.2.9", "probe", Some("su"))));
        assert!(!exception.covers(&auth("a name", "probe", Some("sshd"))));
    }
}
