//! What the host's login server tells, and what it keeps to itself.

use super::{Check, Grade, Sshd};

/// sshd's levels that say less than INFO, from `sshd_config(5)`.
const QUIETER: &[&str] = &["QUIET", "FATAL", "ERROR"];

pub(super) const VERBOSE: &str = "`echo 'LogLevel VERBOSE' > /etc/ssh/sshd_config.d/00-bartizan.conf`, then `sshd -t && systemctl reload ssh` (without systemd: \
     `kill -HUP $(cat /run/sshd.pid)`), then `sshd -T | grep loglevel`. The file counts only when sshd_config has its `Include` line before any LogLevel of its own";

pub(super) const USE_PAM: &str = "`echo 'UsePAM yes' > /etc/ssh/sshd_config.d/00-bartizan-pam.conf`, then `sshd -t && systemctl reload ssh`; first see that \
     /etc/pam.d/sshd exists, else logins fail";

pub(super) fn sshd(sshd: &Sshd) -> Vec<Check> {
    let settings = match sshd {
        Sshd::Absent => return vec![Check::ok("sshd", "no sshd is installed")],
        Sshd::Unknown(why) => {
            return vec![
                Check::new("sshd", Grade::Unknown, format!("sshd is installed and does not say how it is set: {why}"))
                    .costs("how much of failed logins is seen is not known")
                    .remedy("`sudo sshd -T` shows the same error; put it right, then ask again"),
            ];
        }
        Sshd::Settings(settings) => settings,
    };
    let setting = |name: &str| settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    vec![level(setting("loglevel"), setting("maxauthtries")), pam(setting("usepam"))]
}

fn level(level: Option<&str>, tries: Option<&str>) -> Check {
    let id = "sshd.loglevel";
    let Some(level) = level else {
        return Check::new(id, Grade::Unknown, "`sshd -T` names no LogLevel")
            .costs("how much of failed publickey logins is seen is not known");
    };
    let upper = level.to_ascii_uppercase();
    // auth.c, auth_log(): at INFO a failure is logged when MaxAuthTries / 2 came before it on the connection, when the user does not exist,
    // or when it was a password.
    let unlogged = tries.and_then(|tries| tries.parse::<u32>().ok()).map(|tries| tries / 2);
    if upper == "VERBOSE" || upper.starts_with("DEBUG") || (upper == "INFO" && unlogged == Some(0)) {
        Check::ok(id, format!("sshd logs every failed attempt (LogLevel {level})"))
    } else if QUIETER.contains(&upper.as_str()) {
        Check::new(id, Grade::Blind, format!("sshd logs no failed login (LogLevel {level})"))
            .costs("not seen: failed publickey logins and logins of users that do not exist, which PAM never hears of")
            .costs("weaker: every detection of guessing over ssh; passwords are still seen through PAM")
            .remedy(VERBOSE)
    } else {
        Check::new(id, Grade::Warn, format!("sshd says little of failed logins (LogLevel {level})"))
            .costs(format!(
                "not seen: the first {} failed publickey offers of a connection (half of MaxAuthTries) for users that exist: counts of publickey guessing are a lower bound",
                unlogged.map_or_else(|| "few".to_owned(), |unlogged| unlogged.to_string())
            ))
            .remedy(VERBOSE)
    }
}

fn pam(value: Option<&str>) -> Check {
    match value {
        Some("yes") => Check::ok("sshd.usepam", "sshd asks PAM (UsePAM yes)"),
        Some(value) => Check::new("sshd.usepam", Grade::Warn, format!("sshd does not ask PAM (UsePAM {value})"))
            .costs("not seen: PAM's events of ssh logins: passwords, accounts, sessions")
            .costs("weaker: processes are not tied to the ssh login that they came by; what sshd logs is all there is")
            .remedy(USE_PAM),
        None => Check::new("sshd.usepam", Grade::Unknown, "`sshd -T` names no UsePAM: this sshd was built without PAM")
            .costs("not seen: PAM's events of ssh logins"),
    }
}

pub(super) fn libpam(path: Option<&str>, sshd: &Sshd) -> Check {
    match (path, sshd) {
        (Some(path), _) => Check::ok("pam.library", format!("libpam is {path}")),
        (None, Sshd::Absent) => Check::ok("pam.library", "libpam is not installed, and neither is sshd: nobody logs in through PAM"),
        (None, Sshd::Unknown(_) | Sshd::Settings(_)) => {
            Check::new("pam.library", Grade::Warn, "libpam was not found in the library folders")
                .costs("not seen: PAM's events of every service")
                .remedy("`apt-get install libpam0g`; if it is in a folder of its own, add that to /etc/ld.so.conf.d and run `ldconfig`")
        }
    }
}
