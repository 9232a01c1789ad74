//! Which class each refusal of a hub belongs to. Values in, values out.

use std::error::Error;
use std::io;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::rustls::{self, CertificateError};
use async_nats::{ConnectError, ConnectErrorKind, ServerError};

use crate::config::{Address, Login};
use crate::sink::SinkError;

/// Pause after "too many requests", for which JetStream names no time of its own.
const TOO_MANY_REQUESTS_PAUSE: Duration = Duration::from_secs(5);

/// What an error code means for a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Goes away by itself, or when the hub has room again.
    Retry,
    /// The hub wants less.
    Throttled,
    /// The message is too large.
    TooLarge,
    /// Somebody must change something: what.
    Config(&'static str),
}

/// JetStream's own error numbers (`server/errors.json` of nats-server 2.14.5) that publishing, STREAM.INFO and STREAM.CREATE
/// can meet and whose HTTP-like class would mislead or whose remedy is known. The rest goes by class, see [`class_of`].
const CODES: &[(u64, Class)] = &[
    (10002, Class::Retry), // resource limits exceeded for account
    (10005, Class::Retry), // no suitable peers for placement
    (10023, Class::Retry), // insufficient resources
    (10025, Class::Config("this Bartizan and this nats-server do not understand each other: tell both versions when you ask for help")),
    (10027, Class::Config("raise the account's limit of streams, or make the stream under another account")),
    (10028, Class::Retry), // insufficient memory resources available
    (10035, Class::Config("the login belongs to an account that the hub does not know: check the hub's resolver")),
    (10039, Class::Config("enable JetStream for this login's account on the hub")),
    (10047, Class::Retry), // insufficient storage resources available
    (10052, Class::Config("the hub does not take such a stream: make it by hand")),
    (10054, Class::TooLarge),
    (10058, Class::Config("remove create_stream, or name another stream")),
    (10059, Class::Config("make the stream on the hub")),
    (10060, Class::Config("another stream captures this subject: set `stream` to it, or change subject_prefix or the streams' subjects")),
    (10065, Class::Config("another stream on the hub captures some of these subjects: set `stream` to it, or set another subject_prefix")),
    (10074, Class::Config("make the stream by hand")),
    (10076, Class::Config("enable JetStream on the hub")),
    (10077, Class::Retry), // store failed: the stream is full and discards new messages, or its disk is
    (10109, Class::Config("the stream is sealed: name one that takes messages")),
    (10158, Class::Retry), // duplicate message id is in process
    (10167, Class::Throttled),
];

fn class_of(http: usize, number: u64) -> Class {
    let known = CODES.iter().find(|(code, _)| *code == number).map(|(_, class)| *class);
    known.unwrap_or(match http {
        408 | 409 | 429 | 500.. => Class::Retry,
        _ => Class::Config("look the number up in nats-server's server/errors.json"),
    })
}

/// The error of one answer of JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The session ends with this.
    End(SinkError),
    /// The message is too large for the hub, with the hub's words.
    TooLarge(String),
}

/// Sorts an error that JetStream answered to `what`, such as "alert 7".
pub(super) fn jetstream_error(what: &str, error: &jetstream::Error) -> Refusal {
    let number = error.error_code().0;
    let said = format!("the hub refused {what}: {error}");
    match class_of(error.code(), number) {
        Class::Retry => Refusal::End(SinkError::retry(said)),
        Class::Throttled => Refusal::End(SinkError::Throttled { after: TOO_MANY_REQUESTS_PAUSE, reason: said }),
        Class::TooLarge => Refusal::TooLarge(said),
        Class::Config(remedy) => Refusal::End(SinkError::Config { reason: format!("{said}: {remedy}") }),
    }
}

/// Sorts a `-ERR` of the server on a connection that works. `None`: it says nothing about what to do.
pub(super) fn server_said(address: &Address, login: &Login, text: &str) -> Option<SinkError> {
    let lower = text.to_ascii_lowercase();
    let config = |remedy: &str| Some(SinkError::Config { reason: format!("{address} said {text:?}: {remedy}") });
    if lower.contains("permissions violation") {
        config("give this login the permission on the hub; docs/forwarding.md lists those that Bartizan needs")
    } else if lower.contains("authorization violation") || lower.contains("authentication expired") || lower.contains("revoked") {
        config(&format!("check {}", login.key()))
    } else if lower.contains("maximum payload") || lower.contains("stale connection") || lower.contains("connections exceeded") {
        Some(SinkError::retry(format!("{address} said {text:?}")))
    } else {
        None
    }
}

/// Sorts why there is no connection.
pub(super) fn connect_error(address: &Address, login: &Login, error: &ConnectError) -> SinkError {
    let config = |why: String| SinkError::Config { reason: format!("cannot connect to {address}: {why}") };
    if let Some(error) = find::<rustls::Error>(error) {
        return match tls_remedy(error) {
            Some(remedy) => config(format!("TLS: {error}: {remedy}")),
            None => SinkError::retry(format!("cannot connect to {address}: TLS: {error}")),
        };
    }
    if let Some(ServerError::Other(text)) = find::<ServerError>(error)
        && let Some(error) = server_said(address, login, text)
    {
        return error;
    }
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            config(format!("the server refuses the login (Authorization Violation): check {}", login.key()))
        }
        ConnectErrorKind::Authentication => {
            config(format!("{} cannot be used to sign: it must hold the seed of a user (SU...)", login.key()))
        }
        ConnectErrorKind::Tls => config(format!("{error}: check ca_file, cert_file and key_file")),
        ConnectErrorKind::ServerParse => config(format!("{error}: write the address as a name or without a zone")),
        ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            SinkError::retry(format!("cannot connect to {address}: {error}"))
        }
    }
}

/// What to change after a TLS error; `None` if it may go away by itself.
fn tls_remedy(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("set ca_file to the authority that signed the server's certificate")
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            Some("set address to a name that stands in the server's certificate")
        }
        rustls::Error::InvalidCertificate(_) => Some("give the server a certificate that is valid now and for its name"),
        rustls::Error::AlertReceived(_) => Some("the server refused the handshake: set cert_file and key_file to what it asks for"),
        rustls::Error::InvalidMessage(_) => {
            Some("the server did not answer in TLS: set tls_first as the server's handshake_first is, or enable TLS at the server")
        }
        _ => None,
    }
}

/// The first error of this type in a chain. An `io::Error` hides the one that it was made from from `source`.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> Address {
        Address::try_from("hub:4222".to_owned()).unwrap()
    }

    fn answer(http: usize, number: u64) -> jetstream::Error {
        serde_json::from_value(serde_json::json!({ "code": http, "err_code": number, "description": "words" })).unwrap()
    }

    #[test]
    fn each_number_is_listed_once_and_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn numbers_decide_before_classes() {
        let sorted = |http, number| jetstream_error("alert 7", &answer(http, number));
        assert!(matches!(sorted(503, 10076), Refusal::End(SinkError::Config { reason }) if reason.contains("enable JetStream on the hub")));
        assert!(matches!(sorted(503, 10077), Refusal::End(SinkError::Retry { after: None, .. })));
        assert!(matches!(sorted(500, 10052), Refusal::End(SinkError::Config { .. })));
        assert!(matches!(sorted(429, 10167), Refusal::End(SinkError::Throttled { .. })));
        assert!(matches!(sorted(400, 10054), Refusal::TooLarge(_)));
        assert!(
            matches!(sorted(404, 10059), Refusal::End(SinkError::Config { reason }) if reason.contains("alert 7: words (code 404, error code 10059)"))
        );
        assert!(matches!(sorted(503, 99_999), Refusal::End(SinkError::Retry { .. })));
        assert!(matches!(sorted(400, 99_999), Refusal::End(SinkError::Config { .. })));
    }

    #[test]
    fn what_the_server_says_on_the_way() {
        let said = |text: &str| server_said(&address(), &Login::Nobody, text);
        assert!(
            matches!(said("Permissions Violation for Publish to \"sec.alerts.low.x\""), Some(SinkError::Config { reason }) if reason.contains("sec.alerts.low.x"))
        );
        assert!(matches!(said("User Authentication Expired"), Some(SinkError::Config { reason }) if reason.contains("none is set")));
        assert!(matches!(said("Stale Connection"), Some(SinkError::Retry { .. })));
        assert_eq!(said("Something Else"), None);
    }

    #[test]
    fn a_tls_error_is_found_inside_an_io_error() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = ConnectError::with_source(ConnectErrorKind::Io, io::Error::other(tls));
        let error = connect_error(&address(), &Login::Nobody, &wrapped);
        assert!(matches!(error, SinkError::Config { reason } if reason.contains("hub:4222") && reason.contains("ca_file")));
        let refused = ConnectError::with_source(ConnectErrorKind::Io, io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(matches!(connect_error(&address(), &Login::Nobody, &refused), SinkError::Retry { .. }));
    }

    proptest! {
        /// Whatever numbers a hub invents, a refusal has a class, and one that ends the session for ever does not exist.
        #[test]
        fn every_answer_has_a_class(http in 0_usize..700, number in 0_u64..20_000) {
            match jetstream_error("it", &answer(http, number)) {
                Refusal::End(error) => prop_assert!(!matches!(error, SinkError::Fatal { .. } | SinkError::Poison { .. }), "{}", error),
                Refusal::TooLarge(_) => prop_assert_eq!(number, 10054),
            }
        }
    }
}
