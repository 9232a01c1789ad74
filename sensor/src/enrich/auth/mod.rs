//! Puts the calls of one PAM handle, and what sshd says of one connection, together into the steps of one login.
//!
//! Invariants worth naming:
//!
//! - **A handle belongs to a process and is followed across fork**: a child has its parent's handle as it was at the fork, and
//!   what it changes stays its own (keyboard-interactive authenticates in a child).
//! - **An attempt is told once.** What PAM told is left out when sshd's log says it again; what is left out is counted.
//! - **Every table is bounded**; what made room is counted. Nothing here reads a clock or a file.

mod sshd;

use std::collections::{BTreeMap, VecDeque};

use bartizan_bus::event::{Auth, AuthSource, Body, EventId, Outcome};

use crate::project::pam::{Item, Pam, PamStep, PamVerdict};
use sshd::{Client, Line};

/// Transactions that are held at once, at most: one for each login that is under way or open.
const TRANSACTIONS: usize = 4096;
/// `PAM_SUCCESS`, security/_pam_types.h.
const PAM_SUCCESS: i32 = 0;
/// Under this handle stands what sshd's log told of a connection: no handle is at address 0.
const LOG: u64 = 0;

/// A process, as a key: its pid and the start that the kernel told.
pub(super) type Who = (u32, u64);

/// Who calls, and whose handles it may have inherited.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The process.
    pub(super) who: Who,
    /// Its parent, that one's parent, and so on.
    pub(super) ancestors: Vec<Who>,
    /// Effective user id.
    pub(super) euid: u32,
}

/// What a step becomes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// The event's body.
    pub(super) body: Body,
    /// Whether it succeeded.
    pub(super) outcome: Outcome,
    /// The calling process and all that it makes from now on belong to this login.
    pub(super) logs_in: Option<EventId>,
}

/// One transaction.
#[derive(Debug, Clone)]
struct Transaction {
    auth: Auth,
    /// Verdicts of `pam_authenticate` that sshd's log has not said again yet.
    unsaid: u32,
}

/// All transactions that are under way.
#[derive(Debug, Default)]
pub struct Transactions {
    open: BTreeMap<(Who, u64), Transaction>,
    /// In the order of arrival, those of callers without privilege and those of root; may name some that are gone. The first make
    /// room first: anybody may begin thousands.
    arrived: [VecDeque<(Who, u64)>; 2],
    evicted: u64,
    said_again: u64,
}

impl Transactions {
    /// Transactions held, the most that are, and those that made room.
    pub fn table(&self) -> (usize, usize, u64) {
        (self.open.len(), TRANSACTIONS, self.evicted)
    }

    /// Lines of sshd's log that said what PAM had told.
    pub fn said_again(&self) -> u64 {
        self.said_again
    }

    /// The process ended, or replaced its image: its handles are gone.
    pub(super) fn forget(&mut self, who: Who) {
        let gone: Vec<_> = self.open.range((who, 0)..=(who, u64::MAX)).map(|(key, _)| *key).collect();
        for key in gone {
            self.open.remove(&key);
        }
    }

    /// Takes a call into libpam. `id` is the record's event id.
    pub(super) fn pam(&mut self, pam: Pam, caller: &Caller, id: EventId) -> Option<Step> {
        let Pam { handle, step, truncated } = pam;
        if handle == LOG && !matches!(step, PamStep::Start { .. }) {
            // libpam refuses a null handle before it does anything.
            return None;
        }
        match step {
            PamStep::Start { service, user, result } => {
                // sshd's log may have begun this connection's login already: the name was unknown, say.
                let mut auth = match self.open.get(&(caller.who, LOG)) {
                    Some(log) => Auth { source: AuthSource::Pam, method: None, ..log.auth.clone() },
                    None => Auth::of(AuthSource::Pam, id),
                };
                (auth.service, auth.user, auth.truncated, auth.pam_result) = (service, user, truncated, Some(result));
                if result == PAM_SUCCESS {
                    self.put(caller, handle, Transaction { auth: Auth { pam_result: None, ..auth.clone() }, unsaid: 0 });
                }
                Some(Step { body: Body::AuthStart(auth), outcome: outcome(result), logs_in: None })
            }
            PamStep::Item { item, value } => {
                let auth = &mut self.transaction(caller, handle, id).auth;
                auth.truncated |= truncated;
                match item {
                    Item::Service => auth.service = value,
                    Item::User => auth.user = value,
                    Item::Tty => auth.tty = value,
                    Item::Rhost => {
                        auth.peer_ip = value.as_deref().and_then(|host| host.parse().ok());
                        auth.rhost = value;
                    }
                    Item::Ruser => auth.ruser = value,
                    Item::Other => {}
                }
                None
            }
            PamStep::Verdict { call, result } => {
                let transaction = self.transaction(caller, handle, id);
                let auth = Auth { pam_result: Some(result), ..transaction.auth.clone() };
                let mut logs_in = None;
                let body = match call {
                    PamVerdict::Authenticate => {
                        transaction.unsaid = transaction.unsaid.saturating_add(1);
                        Body::Authenticate(auth)
                    }
                    PamVerdict::Account => Body::Account(auth),
                    PamVerdict::SessionOpen => {
                        // Anybody may call libpam; only root opens sessions of others.
                        logs_in = (result == PAM_SUCCESS && caller.euid == 0).then_some(auth.login);
                        Body::SessionOpen(auth)
                    }
                    PamVerdict::SessionClose => Body::SessionClose(auth),
                    PamVerdict::Password => Body::PasswordChange(auth),
                };
                Some(Step { body, outcome: outcome(result), logs_in })
            }
            PamStep::End => {
                self.open.remove(&(caller.who, handle));
                None
            }
        }
    }

    /// Takes a message of sshd to syslog.
    pub(super) fn sshd_log(&mut self, text: &str, truncated: bool, caller: &Caller, id: EventId) -> Option<Step> {
        match sshd::parse(text)? {
            Line::InvalidUser(client) => {
                let auth = self.log(caller, id, client, truncated, true);
                Some(Step { body: Body::InvalidUser(auth), outcome: Outcome::Failure, logs_in: None })
            }
            Line::Attempt { accepted, method, client, invalid_user } => {
                if self.pam_told(caller, &method) {
                    self.said_again += 1;
                    return None;
                }
                let auth = Auth { method: Some(method), ..self.log(caller, id, client, truncated, invalid_user) };
                let (outcome, logs_in) = if accepted { (Outcome::Success, Some(auth.login)) } else { (Outcome::Failure, None) };
                Some(Step { body: Body::Authenticate(auth), outcome, logs_in: logs_in.filter(|_| caller.euid == 0) })
            }
        }
    }

    /// Whether PAM has told the attempt that sshd's log speaks of. Passwords are asked by this process, and each verdict is said once;
    /// keyboard-interactive authenticates in a child, whose verdicts are its own.
    fn pam_told(&mut self, caller: &Caller, method: &str) -> bool {
        let mut handles = self.open.range_mut((caller.who, LOG + 1)..=(caller.who, u64::MAX)).map(|(_, transaction)| transaction);
        if method.starts_with("keyboard-interactive") {
            return handles.next().is_some();
        }
        if method != "password" {
            return false;
        }
        match handles.find(|transaction| transaction.unsaid > 0) {
            Some(transaction) => {
                transaction.unsaid -= 1;
                true
            }
            None => false,
        }
    }

    /// The login of this connection as sshd's log tells it: the PAM transaction's, if there is one.
    fn log(&mut self, caller: &Caller, id: EventId, client: Client, truncated: bool, invalid_user: bool) -> Auth {
        let Client { user, host, port } = client;
        let of_pam = self.open.range((caller.who, LOG + 1)..=(caller.who, u64::MAX)).next().map(|(_, transaction)| transaction.auth.login);
        let of_log = self.open.get(&(caller.who, LOG)).map(|transaction| transaction.auth.login);
        let auth = Auth {
            service: Some("sshd".to_owned()),
            user: Some(user),
            peer_ip: host.parse().ok(),
            rhost: Some(host),
            peer_port: Some(port),
            invalid_user,
            truncated,
            ..Auth::of(AuthSource::SshdLog, of_pam.or(of_log).unwrap_or(id))
        };
        self.put(caller, LOG, Transaction { auth: auth.clone(), unsaid: 0 });
        auth
    }

    /// The transaction of this handle: the process's own, a copy of what it inherited, or one of which nothing else is known.
    fn transaction(&mut self, caller: &Caller, handle: u64, id: EventId) -> &mut Transaction {
        let key = (caller.who, handle);
        if !self.open.contains_key(&key) {
            let inherited = caller.ancestors.iter().find_map(|ancestor| self.open.get(&(*ancestor, handle)).cloned());
            self.put(caller, handle, inherited.unwrap_or_else(|| Transaction { auth: Auth::of(AuthSource::Pam, id), unsaid: 0 }));
        }
        let made = Transaction { auth: Auth::of(AuthSource::Pam, id), unsaid: 0 };
        self.open.entry(key).or_insert(made)
    }

    fn put(&mut self, caller: &Caller, handle: u64, transaction: Transaction) {
        let key = (caller.who, handle);
        let [others, root] = &mut self.arrived;
        let mut is_new = self.open.insert(key, transaction).is_none();
        while self.open.len() > TRANSACTIONS {
            match others.pop_front().or_else(|| root.pop_front()) {
                // An entry that it left here before: it stays, and is noted anew.
                Some(oldest) if oldest == key => is_new = true,
                Some(oldest) => self.evicted += u64::from(self.open.remove(&oldest).is_some()),
                None => break,
            }
        }
        if is_new {
            if caller.euid == 0 { root.push_back(key) } else { others.push_back(key) }
        }
        for arrived in &mut self.arrived {
            if arrived.len() > 4 * TRANSACTIONS {
                let open = &self.open;
                arrived.retain(|key| open.contains_key(key));
            }
        }
    }
}

fn outcome(result: i32) -> Outcome {
    if result == PAM_SUCCESS { Outcome::Success } else { Outcome::Failure }
}

#[cfg(test)]
mod tests;
