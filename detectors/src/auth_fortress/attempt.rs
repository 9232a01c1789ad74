//! What one event says of an attempt: who tried to become whom from where, and what that proves.

use std::net::{IpAddr, Ipv6Addr};

use bartizan_bus::event::{Auth, AuthSource, EventId, Outcome, SecurityEvent};
use minicbor::{Decode, Encode};

/// Longest user, host or terminal name that is kept, bytes. Clients choose them.
const MAX_NAME: usize = 128;

/// PAM services by which a user of this host becomes another one, or shows to be himself once more: whatever they put into
/// `PAM_RHOST`, the attempt is made here.
const LOCAL_SERVICES: &[&str] = &["sudo", "sudo-i", "su", "su-l", "doas", "polkit-1", "pkexec", "runuser", "runuser-l", "chsh", "chfn"];

/// Linux-PAM's results of `pam_authenticate` that mean: somebody named an account, tried, and was judged. From
/// `security/_pam_types.h`: PERM_DENIED (a locked account; `pam_faillock`, `pam_access`), AUTH_ERR, USER_UNKNOWN, MAXTRIES,
/// ACCT_EXPIRED.
const JUDGED: &[i32] = &[6, 7, 10, 11, 13];

/// Where an attempt comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) enum Source {
    /// A peer on the network: its IPv4 address, or the /64 of its IPv6 address, which is what one customer is given.
    #[n(0)]
    Net(#[n(0)] IpAddr),
    /// A peer that is known by the name only that reverse DNS gave.
    #[n(1)]
    Name(#[n(0)] String),
    /// Somebody on this host.
    #[n(2)]
    Local {
        /// The requesting user, or `uid N` where the program does not name it.
        #[n(0)]
        who: String,
        /// The terminal.
        #[n(1)]
        tty: Option<String>,
    },
}

/// The network that counts as one source: the address itself for IPv4, the /64 for IPv6.
pub(crate) fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Source {
    fn of(auth: &Auth, event: &SecurityEvent) -> Self {
        if let Some(process) = event.process.as_ref().filter(|process| process.euid != 0) {
            // Anybody may call libpam and give it any remote host: what such a program says is its user's own doing.
            return Self::Local { who: format!("uid {}", process.uid), tty: None };
        }
        let local = auth.service.as_deref().is_some_and(|service| LOCAL_SERVICES.contains(&service));
        let rhost = auth.rhost.as_deref().filter(|rhost| !rhost.is_empty() && *rhost != &*event.host && !local);
        match (auth.peer_ip.filter(|_| !local), rhost) {
            (Some(ip), _) => Self::Net(network_of(ip)),
            (None, Some(name)) => match name.parse::<IpAddr>() {
                Ok(ip) => Self::Net(network_of(ip)),
                Err(_) => Self::Name(clip(&name.to_ascii_lowercase())),
            },
            (None, None) => Self::Local {
                who: match (auth.ruser.as_deref().filter(|ruser| !ruser.is_empty()), &event.process) {
                    (Some(ruser), _) => clip(ruser),
                    (None, Some(process)) => format!("uid {}", process.uid),
                    (None, None) => "an unknown user".to_owned(),
                },
                tty: auth.tty.as_deref().filter(|tty| !tty.is_empty()).map(|tty| clip(tty.strip_prefix("/dev/").unwrap_or(tty))),
            },
        }
    }

    /// For a sentence: `from 192.0.2.7`, `by alice on pts/3`.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Net(ip @ IpAddr::V4(_)) => format!("from {ip}"),
            Self::Net(ip @ IpAddr::V6(_)) => format!("from {ip}/64"),
            Self::Name(name) => format!("from {name}"),
            Self::Local { who, tty: Some(tty) } => format!("by {who} on {tty}"),
            Self::Local { who, tty: None } => format!("by {who} without a terminal"),
        }
    }
}

/// What an attempt proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client is the user.
    Success,
    /// The same by a key that the client holds, which nobody guesses by trying passwords.
    KeySuccess,
    /// A wrong password, or what was given for one.
    Guess,
    /// The client offered a key that does not open this account. Agents offer all keys that they have.
    KeyOffer,
    /// Nothing was judged: the client went away, a backend did not answer, another module goes on.
    NotJudged,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) source: Source,
    /// The peer's very address.
    pub(super) address: Option<IpAddr>,
    /// As the client named it; empty when none was named.
    pub(super) user: String,
    pub(super) service: Option<String>,
    pub(super) verdict: Verdict,
    pub(super) told_by: AuthSource,
    pub(super) login: EventId,
    pub(super) event: EventId,
    /// Boot clock.
    pub(super) time_ns: u64,
}

impl Attempt {
    /// The attempt that `event` with body `auth` (kind `auth.authenticate`, or `auth.session_open` for who and whence) tells.
    pub(super) fn of(auth: &Auth, event: &SecurityEvent) -> Self {
        let source = Source::of(auth, event);
        let address = match source {
            Source::Net(_) => auth.peer_ip.or_else(|| auth.rhost.as_deref()?.parse().ok()).map(|ip| ip.to_canonical()),
            Source::Name(_) | Source::Local { .. } => None,
        };
        Self {
            source,
            address,
            user: clip(auth.user.as_deref().unwrap_or_default()),
            service: auth.service.as_deref().map(clip),
            verdict: verdict(auth, event.outcome),
            told_by: auth.source,
            login: auth.login,
            event: event.id,
            time_ns: event.time.boot_ns,
        }
    }
}

fn verdict(auth: &Auth, outcome: Outcome) -> Verdict {
    let key = auth.method.as_deref().is_some_and(|method| method.starts_with("publickey") || method.starts_with("hostbased"));
    match (outcome, auth.pam_result) {
        (Outcome::Success, _) if key => Verdict::KeySuccess,
        (Outcome::Success, _) => Verdict::Success,
        (Outcome::Failure, _) if key => Verdict::KeyOffer,
        // sshd asks for no proof first, to learn what the server takes.
        (Outcome::Failure, _) if auth.method.as_deref() == Some("none") => Verdict::NotJudged,
        (Outcome::Failure, Some(result)) if !JUDGED.contains(&result) => Verdict::NotJudged,
        (Outcome::Failure, _) => Verdict::Guess,
        (Outcome::Unknown, _) => Verdict::NotJudged,
    }
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NAME)].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bartizan_bus::event::Body;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Host;

    fn event(auth: Auth, outcome: Outcome) -> SecurityEvent {
        let mut host = Host::new();
        host.auth(7, outcome, Body::Authenticate(auth));
        host.take().remove(0)
    }

    fn attempt(auth: Auth, outcome: Outcome) -> Attempt {
        Attempt::of(&auth, &event(auth.clone(), outcome))
    }

    fn pam() -> Auth {
        Auth { service: Some("sshd".into()), user: Some("root".into()), ..Auth::of(AuthSource::Pam, EventId([1; 20])) }
    }

    #[test]
    fn what_a_program_without_privilege_says_of_its_peer_accuses_nobody() {
        let auth =
            Auth { rhost: Some("192.0.2.7".into()), peer_ip: "192.0.2.7".parse().ok(), ..Auth::of(AuthSource::Pam, EventId([1; 20])) };
        let mut event = event(auth.clone(), Outcome::Failure);
        assert_eq!(Attempt::of(&auth, &event).source, Source::Net([192, 0, 2, 7].into()));
        Arc::make_mut(event.process.as_mut().unwrap()).euid = 1000;
        assert_eq!(Attempt::of(&auth, &event).source, Source::Local { who: "uid 1000".into(), tty: None });
    }

    #[test]
    fn only_what_was_judged_is_a_guess() {
        let said = |result| attempt(Auth { pam_result: Some(result), ..pam() }, Outcome::Failure).verdict;
        let guesses: Vec<i32> = (1..32).filter(|result| said(*result) == Verdict::Guess).collect();
        assert_eq!(guesses, [6, 7, 10, 11, 13]);
        // PAM_CONV_ERR: the client went away; PAM_AUTHINFO_UNAVAIL: the directory is down.
        assert_eq!((said(19), said(9)), (Verdict::NotJudged, Verdict::NotJudged));
        assert_eq!(attempt(pam(), Outcome::Unknown).verdict, Verdict::NotJudged);
    }

    #[test]
    fn keys_are_told_apart_from_passwords() {
        let by = |method: &str, outcome| attempt(Auth { method: Some(method.into()), ..pam() }, outcome).verdict;
        assert_eq!((by("publickey", Outcome::Failure), by("publickey", Outcome::Success)), (Verdict::KeyOffer, Verdict::KeySuccess));
        assert_eq!((by("password", Outcome::Failure), by("password", Outcome::Success)), (Verdict::Guess, Verdict::Success));
        assert_eq!(by("keyboard-interactive/pam", Outcome::Failure), Verdict::Guess);
        assert_eq!(by("none", Outcome::Failure), Verdict::NotJudged);
    }

    #[test]
    fn a_source_is_an_address_a_network_a_name_or_somebody_here() {
        let from = |rhost: &str| attempt(Auth { rhost: Some(rhost.into()), ..pam() }, Outcome::Failure).source;
        assert_eq!(from("192.0.2.7").text(), "from 192.0.2.7");
        assert_eq!(from("::ffff:192.0.2.7"), from("192.0.2.7"));
        assert_eq!(from("2001:db8::1:2"), from("2001:db8::3:4"));
        assert_eq!(from("2001:db8::1:2").text(), "from 2001:db8::/64");
        assert_eq!(from("Mail.Example.net").text(), "from mail.example.net");
        let exact = attempt(Auth { rhost: Some("2001:db8::1:2".into()), ..pam() }, Outcome::Failure).address;
        assert_eq!(exact, "2001:db8::1:2".parse().ok());
        let here = |service: &str, ruser: Option<&str>, rhost: &str| {
            let auth = Auth {
                service: Some(service.into()),
                ruser: ruser.map(str::to_owned),
                rhost: Some(rhost.into()),
                tty: Some("/dev/pts/3".into()),
                ..pam()
            };
            attempt(auth, Outcome::Failure).source.text()
        };
        assert_eq!(here("su", Some("eve"), ""), "by eve on pts/3");
        // The host's own name, as some programs set it, is no peer.
        assert_eq!(here("sudo", Some("eve"), "testhost"), "by eve on pts/3");
        assert_eq!(here("sudo", Some("eve"), "192.0.2.7"), "by eve on pts/3");
        assert_eq!(here("login", Some(""), ""), "by uid 1000 on pts/3");
    }

    proptest! {
        #[test]
        fn any_strings_are_taken_and_cut(user in ".{0,300}", rhost in ".{0,300}", ruser in ".{0,300}", tty in ".{0,300}") {
            let auth = Auth { user: Some(user), rhost: Some(rhost), ruser: Some(ruser), tty: Some(tty), ..pam() };
            let attempt = attempt(auth, Outcome::Failure);
            prop_assert!(attempt.user.len() <= MAX_NAME && attempt.source.text().len() <= 3 * MAX_NAME);
        }
    }
}
