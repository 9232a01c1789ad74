//! Calls into libpam, and what sshd tells syslog. They become `auth.*` events when `enrich::auth` has put them together.

use bartizan_sensor_ebpf::abi::{FLAG_NAME_TRUNCATED, Header, Kind, PamItem, PamStart, SshdLog};

use super::{What, text};

/// One step of a PAM transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pam {
    /// Address of the handle in the caller's memory.
    pub handle: u64,
    /// What was called.
    pub step: PamStep,
    /// A string was cut.
    pub truncated: bool,
}

/// What was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PamStep {
    /// `pam_start` returned.
    Start {
        /// Its service.
        service: Option<String>,
        /// Its user.
        user: Option<String>,
        /// What it returned.
        result: i32,
    },
    /// `pam_set_item`.
    Item {
        /// Which.
        item: Item,
        /// Its value; `None` takes it away.
        value: Option<String>,
    },
    /// A call with a verdict returned.
    Verdict {
        /// Which.
        call: PamVerdict,
        /// What it returned.
        result: i32,
    },
    /// `pam_end`.
    End,
}

/// An item that is no secret, by its number in security/_pam_types.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// `PAM_SERVICE`.
    Service,
    /// `PAM_USER`.
    User,
    /// `PAM_TTY`.
    Tty,
    /// `PAM_RHOST`.
    Rhost,
    /// `PAM_RUSER`.
    Ruser,
    /// One that the programs do not send.
    Other,
}

/// A call with a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PamVerdict {
    /// `pam_authenticate`.
    Authenticate,
    /// `pam_acct_mgmt`.
    Account,
    /// `pam_open_session`.
    SessionOpen,
    /// `pam_close_session`.
    SessionClose,
    /// `pam_chauthtok`.
    Password,
}

fn pam(header: &Header, handle: u64, step: PamStep) -> What {
    What::Pam(Pam { handle, step, truncated: header.flags & FLAG_NAME_TRUNCATED != 0 })
}

pub(super) fn project_start(record: &PamStart) -> What {
    let PamStart { header, handle, result, service_len, user_len, service, user } = record;
    let string = |bytes: &[u8], len: u16| text::string(bytes.get(..usize::from(len)));
    let step = PamStep::Start { service: string(service, *service_len), user: string(user, *user_len), result: *result as i32 };
    pam(header, *handle, step)
}

pub(super) fn project_item(record: &PamItem) -> What {
    let PamItem { header, handle, item, len, value } = record;
    let item = match item {
        1 => Item::Service,
        2 => Item::User,
        3 => Item::Tty,
        4 => Item::Rhost,
        8 => Item::Ruser,
        _ => Item::Other,
    };
    pam(header, *handle, PamStep::Item { item, value: text::string(value.get(..*len as usize)) })
}

pub(super) fn project_verdict(header: &Header, kind: Kind, handle: u64, result: u32) -> What {
    let call = match kind {
        Kind::PamAuthenticate => PamVerdict::Authenticate,
        Kind::PamAccount => PamVerdict::Account,
        Kind::PamSessionOpen => PamVerdict::SessionOpen,
        Kind::PamPassword => PamVerdict::Password,
        _ => PamVerdict::SessionClose,
    };
    pam(header, handle, PamStep::Verdict { call, result: result as i32 })
}

pub(super) fn project_end(header: &Header, handle: u64) -> What {
    pam(header, handle, PamStep::End)
}

pub(super) fn project_log(record: &SshdLog) -> What {
    let SshdLog { header, len, pad: _, text: bytes } = record;
    What::SshdLog { text: text::string(bytes.get(..*len as usize)).unwrap_or_default(), truncated: header.flags & FLAG_NAME_TRUNCATED != 0 }
}
