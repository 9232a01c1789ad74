//! Who proved to be whom: the bodies of `auth.*`.

use std::net::IpAddr;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::EventId;

/// Where a statement about an authentication comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum AuthSource {
    /// The program's own calls into libpam.
    #[n(0)]
    Pam,
    /// What sshd tells syslog: of publickey and of a server without PAM nothing else speaks. A lower bound, because it depends on
    /// sshd's `LogLevel`.
    #[n(1)]
    SshdLog,
}

/// Body of the `auth.*` kinds: one step of an authentication. The event's outcome says whether it succeeded.
///
/// Strings come from clients and are what they sent: a user need not exist.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Auth {
    /// Who says so.
    #[n(0)]
    pub source: AuthSource,
    /// Joins every step of one transaction, and every process below the session that it opened ([`super::Process::login`]): the id of
    /// the first record of it. For PAM one handle from `pam_start` to `pam_end`; for sshd's log one connection.
    #[n(1)]
    pub login: EventId,
    /// PAM service, such as `sshd` or `sudo`.
    #[n(2)]
    pub service: Option<String>,
    /// User to be authenticated (`PAM_USER`), as the client named it.
    #[n(3)]
    pub user: Option<String>,
    /// Remote host (`PAM_RHOST`), as the program named it: an address, or a name that reverse DNS gave.
    #[n(4)]
    pub rhost: Option<String>,
    /// `rhost` when it is an address.
    #[n(5)]
    pub peer_ip: Option<IpAddr>,
    /// Peer's port, where the source tells it (sshd's log).
    #[n(6)]
    pub peer_port: Option<u16>,
    /// Requesting user (`PAM_RUSER`): who typed `sudo` or `su`.
    #[n(7)]
    pub ruser: Option<String>,
    /// Terminal (`PAM_TTY`); sshd says `ssh`.
    #[n(8)]
    pub tty: Option<String>,
    /// How, where the source tells it: sshd's own words (`publickey`, `password`, `keyboard-interactive/pam` ...).
    #[n(9)]
    pub method: Option<String>,
    /// PAM's return value (`PAM_AUTH_ERR` is 7), from `security/_pam_types.h`.
    #[n(10)]
    pub pam_result: Option<i32>,
    /// The account does not exist, or may not log in by sshd's own rules: sshd says so.
    #[n(11)]
    pub invalid_user: bool,
    /// A string was longer than what is kept.
    #[n(12)]
    pub truncated: bool,
}

impl Auth {
    /// A step of `login` of which nothing else is known.
    pub fn of(source: AuthSource, login: EventId) -> Self {
        Self {
            source,
            login,
            service: None,
            user: None,
            rhost: None,
            peer_ip: None,
            peer_port: None,
            ruser: None,
            tty: None,
            method: None,
            pam_result: None,
            invalid_user: false,
            truncated: false,
        }
    }

    /// Name of the PAM result, such as `PAM_AUTH_ERR`; the number for one that Linux-PAM 1.5 does not have.
    pub fn pam_result_name(&self) -> Option<String> {
        let result = self.pam_result?;
        let name = usize::try_from(result).ok().and_then(|index| PAM_RESULTS.get(index));
        Some(name.map_or_else(|| format!("PAM result {result}"), |name| format!("PAM_{name}")))
    }
}

/// Linux-PAM's return values in order, from `security/_pam_types.h` (1.5.2).
const PAM_RESULTS: &[&str] = &[
    "SUCCESS",
    "OPEN_ERR",
    "SYMBOL_ERR",
    "SERVICE_ERR",
    "SYSTEM_ERR",
    "BUF_ERR",
    "PERM_DENIED",
    "AUTH_ERR",
    "CRED_INSUFFICIENT",
    "AUTHINFO_UNAVAIL",
    "USER_UNKNOWN",
    "MAXTRIES",
    "NEW_AUTHTOK_REQD",
    "ACCT_EXPIRED",
    "SESSION_ERR",
    "CRED_UNAVAIL",
    "CRED_EXPIRED",
    "CRED_ERR",
    "NO_MODULE_DATA",
    "CONV_ERR",
    "AUTHTOK_ERR",
    "AUTHTOK_RECOVERY_ERR",
    "AUTHTOK_LOCK_BUSY",
    "AUTHTOK_DISABLE_AGING",
    "TRY_AGAIN",
    "IGNORE",
    "ABORT",
    "AUTHTOK_EXPIRED",
    "MODULE_UNKNOWN",
    "BAD_ITEM",
    "CONV_AGAIN",
    "INCOMPLETE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_linux_pam_s_names() {
        let named = |result| {
            let auth = Auth { pam_result: Some(result), ..Auth::of(AuthSource::Pam, EventId([0; 20])) };
            auth.pam_result_name().expect("there is a result")
        };
        assert_eq!(
            [named(0), named(7), named(10), named(12), named(31)],
            ["PAM_SUCCESS", "PAM_AUTH_ERR", "PAM_USER_UNKNOWN", "PAM_NEW_AUTHTOK_REQD", "PAM_INCOMPLETE"]
        );
        assert_eq!([named(32), named(-1)], ["PAM result 32", "PAM result -1"]);
    }
}
