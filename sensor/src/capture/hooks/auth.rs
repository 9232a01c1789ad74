//! Who logs in, by libpam and sshd.

use bartizan_sensor_ebpf::abi::Kind;

use super::{Attach, Hook, ProgramSpec, Tier};
use crate::capture::libraries::Library;

const fn pam(program: &'static str, symbol: &'static str) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Uprobe { library: Library::Pam, symbol, cookie: None }, optional: false, part: 0 }
}

/// A call into libpam whose verdict becomes a record of this kind.
const fn pam_verdict(program: &'static str, symbol: &'static str, kind: Kind) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Uprobe { library: Library::Pam, symbol, cookie: Some(kind as u64) }, optional: false, part: 0 }
}

const fn libc(program: &'static str, symbol: &'static str) -> ProgramSpec {
    ProgramSpec { program, attach: Attach::Uprobe { library: Library::C, symbol, cookie: None }, optional: false, part: 0 }
}

/// In the order of the status page.
pub(super) const HOOKS: &[Hook] = &[
    Hook {
        name: "auth_pam",
        kinds: &["auth.start", "auth.authenticate", "auth.account", "auth.session_open", "auth.session_close", "auth.password_change"],
        tiers: &[Tier {
            name: "uprobe",
            programs: &[
                pam("pam_start", "pam_start"),
                pam("pam_started", "pam_start"),
                // Linux-PAM 1.4 and newer.
                ProgramSpec { optional: true, ..pam("pam_start_confdir", "pam_start_confdir") },
                ProgramSpec { optional: true, ..pam("pam_started", "pam_start_confdir") },
                pam("pam_set_item", "pam_set_item"),
                pam_verdict("pam_call", "pam_authenticate", Kind::PamAuthenticate),
                pam_verdict("pam_called", "pam_authenticate", Kind::PamAuthenticate),
                pam_verdict("pam_call", "pam_acct_mgmt", Kind::PamAccount),
                pam_verdict("pam_called", "pam_acct_mgmt", Kind::PamAccount),
                pam_verdict("pam_call", "pam_open_session", Kind::PamSessionOpen),
                pam_verdict("pam_called", "pam_open_session", Kind::PamSessionOpen),
                pam_verdict("pam_call", "pam_close_session", Kind::PamSessionClose),
                pam_verdict("pam_called", "pam_close_session", Kind::PamSessionClose),
                pam_verdict("pam_call", "pam_chauthtok", Kind::PamPassword),
                pam_verdict("pam_called", "pam_chauthtok", Kind::PamPassword),
                pam("pam_end", "pam_end"),
            ],
            blind: None,
        }],
        without: "logins, sudo, su and every other authentication through PAM, and which processes belong to which login",
        costs: &[
            "auth_fortress.brute_force",
            "auth_fortress.spray",
            "auth_fortress.success_after_failures",
            "network_guardian.login_hammering (logins that succeed)",
            "correlate.brute_force_to_shell",
        ],
    },
    Hook {
        name: "auth_sshd_log",
        kinds: &["auth.authenticate", "auth.invalid_user"],
        tiers: &[Tier { name: "uprobe", programs: &[libc("syslog", "syslog"), libc("syslog_chk", "__syslog_chk")], blind: None }],
        without: "what PAM never sees of sshd: public keys, unknown users, and passwords of a server without PAM",
        costs: &["auth_fortress.brute_force (public keys)", "auth_fortress.spray (unknown users)", "auth_fortress.success_after_failures"],
    },
];
