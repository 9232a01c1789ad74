//! One connection to a hub through async-nats, with everything off that would repeat or reconnect on its own.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError, rustls};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Settings, errors, secrets};
use crate::config::{Address, ClientCertificate, FilePath, Login, TlsConfig};
use crate::sink::SinkError;

/// An idle connection is probed this often; async-nats gives it up when three probes are unanswered.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// A name can have several addresses, each of which gets the whole `connect_timeout`; an attempt takes at most this many times it.
const ATTEMPT: u32 = 3;

/// After a client has ended, its reason is on the way through another task; it is waited for this long.
const REASON_WAIT: Duration = Duration::from_secs(1);

/// Port 0 has no listener anywhere, so connecting there fails at once.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// A connection. Dropping every handle to `client` closes it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) end: End,
}

/// What is known about the connection's end.
#[derive(Debug, Default)]
struct Ending {
    /// The last `-ERR` that did not decide anything by itself.
    words: Option<String>,
    why: Option<SinkError>,
}

/// Watches for the end of a connection.
#[derive(Debug, Clone)]
pub(super) struct End {
    ending: watch::Receiver<Ending>,
    address: Arc<Address>,
}

impl End {
    /// Waits for the end and says why. Cancel safe, and the same at each call.
    pub(super) async fn reason(&self) -> SinkError {
        let mut ending = self.ending.clone();
        let known = ending.wait_for(|ending| ending.why.is_some()).await.ok().and_then(|ending| ending.why.clone());
        known.unwrap_or_else(|| SinkError::retry(format!("the connection to {} ended", self.address)))
    }

    /// The reason if it comes soon, for when something failed that an end explains.
    pub(super) async fn reason_or(&self, otherwise: String) -> SinkError {
        timeout(REASON_WAIT, self.reason()).await.unwrap_or_else(|_| SinkError::retry(otherwise))
    }
}

/// Puts what happened into `ending`. The first reason stands.
fn note(ending: &watch::Sender<Ending>, address: &Address, login: &Login, event: Event) {
    let (why, words) = match event {
        Event::Disconnected => (None, None),
        Event::Closed => return,
        Event::LameDuckMode => (Some(SinkError::retry(format!("{address} is shutting down (lame duck mode)"))), None),
        Event::ServerError(ServerError::AuthorizationViolation) => (errors::server_said(address, login, "Authorization Violation"), None),
        Event::ServerError(ServerError::Other(text)) => (errors::server_said(address, login, &text), Some(text)),
        Event::Connected | Event::Draining | Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => return,
        // Those of the reconnection that leads nowhere.
        Event::ClientError(_) => return,
    };
    ending.send_if_modified(|ending| {
        if ending.why.is_some() {
            return false;
        }
        ending.why = match (why, words) {
            (Some(why), _) => Some(why),
            (None, Some(words)) => {
                ending.words = Some(words);
                return false;
            }
            (None, None) => {
                let said = ending.words.take().map(|words| format!(" after it said {words:?}")).unwrap_or_default();
                Some(SinkError::retry(format!("{address} closed the connection{said}")))
            }
        };
        true
    });
}

/// Connects to `address` and logs in.
pub(super) async fn connect(settings: &Settings, address: &Address) -> Result<Link, SinkError> {
    let Settings { name, addresses: _, min_severity: _, connect_timeout, nats } = settings;
    let retry = |why: String| SinkError::retry(format!("cannot connect to {address}: {why}"));
    let url = format!("nats://{address}");
    let server: ServerAddr = url.parse().map_err(|error| SinkError::Config {
        reason: format!("address {address} cannot be used for NATS ({error}): write a DNS name, or an IP address without a zone"),
    })?;
    let (sender, ending) = watch::channel(Ending::default());
    let seen = (Arc::new(sender), Arc::new(address.clone()), Arc::new(nats.login.clone()));
    let end = End { ending, address: Arc::clone(&seen.1) };
    let limit = connect_timeout.0 * ATTEMPT;
    let work = async {
        let options = options(&nats.login, nats.tls.as_ref())
            .await?
            .name(format!("bartizan {}", name.consumer()))
            .connection_timeout(connect_timeout.0)
            .request_timeout(Some(nats.ack_timeout.0))
            .ping_interval(PING_INTERVAL)
            // Each name's addresses are tried by us and by DNS, not by what a server advertises.
            .ignore_discovered_servers()
            // The least that async-nats takes, 0 being its word for "no limit". See NOWHERE for where the one attempt goes.
            .max_reconnects(1)
            .event_callback(move |event| {
                let (sender, address, login) = seen.clone();
                async move { note(&sender, &address, &login, event) }
            });
        let client = options.connect(server).await.map_err(|error| errors::connect_error(address, &nats.login, &error))?;
        // From here on there is nowhere to reconnect to: after a loss the client ends, its acknowledgements fail, and what
        // still waited in it is not sent behind the engine's back.
        client.set_server_pool(NOWHERE).await.map_err(|error| retry(error.to_string()))?;
        Ok(Link { client, end })
    };
    timeout(limit, work).await.unwrap_or_else(|_| Err(retry(format!("not done in {limit:?}"))))
}

async fn options(login: &Login, tls: Option<&TlsConfig>) -> Result<ConnectOptions, SinkError> {
    let (login, tls) = (login.clone(), tls.cloned());
    let ready = tokio::task::spawn_blocking(move || {
        let options = log_in(&login)?;
        match tls {
            Some(tls) => secure(options, &tls),
            None => Ok(options),
        }
    });
    ready.await.unwrap_or_else(|_| Err(SinkError::retry("the thread that reads the secrets is gone")))
}

fn log_in(login: &Login) -> Result<ConnectOptions, SinkError> {
    let options = ConnectOptions::new();
    Ok(match login {
        Login::Nobody => options,
        Login::Creds(file) => {
            let text = secrets::read("creds_file", file)?;
            options.credentials(&format!("{text}\n")).map_err(|error| SinkError::Config {
                reason: format!(
                    "creds_file {file} cannot be used ({error}): it must hold a user's JWT and seed, as `nsc generate creds` writes it"
                ),
            })?
        }
        Login::Nkey(file) => options.nkey(secrets::read("nkey_file", file)?),
        Login::Password { user, file } => options.user_and_password(user.clone(), secrets::read("password_file", file)?),
        Login::Token(file) => options.token(secrets::read("token_file", file)?),
    })
}

fn secure(mut options: ConnectOptions, tls: &TlsConfig) -> Result<ConnectOptions, SinkError> {
    let TlsConfig { first, ca_file, client } = tls;
    // async-nats asks rustls for the process's provider. Another crate may have brought a second one, and then there is no
    // default; an error means that there is one already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    options = options.require_tls(true);
    if *first {
        options = options.tls_first();
    }
    if let Some(file) = ca_file {
        has_certificate("ca_file", file)?;
        options = options.add_root_certificates(file.as_path().to_owned());
    }
    if let Some(ClientCertificate { cert_file, key_file }) = client {
        has_certificate("cert_file", cert_file)?;
        secrets::check("key_file", key_file)?;
        options = options.add_client_certificate(cert_file.as_path().to_owned(), key_file.as_path().to_owned());
    }
    Ok(options)
}

/// Without a certificate in it a file would only say "unknown issuer" later.
fn has_certificate(key: &str, file: &FilePath) -> Result<(), SinkError> {
    let config = |why: String| SinkError::Config { reason: format!("{key} {file} {why}") };
    let bytes = std::fs::read(file.as_path()).map_err(|error| config(format!("cannot be read: {error}")))?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    match bytes.windows(marker.len()).any(|window| window == marker) {
        true => Ok(()),
        false => Err(config("has no certificate in it: it must be PEM (-----BEGIN CERTIFICATE-----)".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(events: Vec<Event>) -> Option<SinkError> {
        let address = Address::try_from("hub:4222".to_owned()).unwrap();
        let (sender, ending) = watch::channel(Ending::default());
        for event in events {
            note(&sender, &address, &Login::Nobody, event);
        }
        ending.borrow().why.clone()
    }

    fn said(text: &str) -> Event {
        Event::ServerError(ServerError::Other(text.to_owned()))
    }

    #[test]
    fn the_first_reason_stands_and_words_without_a_meaning_are_kept_for_it() {
        assert_eq!(after(vec![Event::Connected, said("Odd")]), None);
        let expected = SinkError::retry("hub:4222 closed the connection after it said \"Odd\"");
        assert_eq!(after(vec![said("Odd"), Event::Disconnected, said("Stale Connection")]), Some(expected));
        let first = after(vec![said("Permissions Violation for Publish to \"a\""), Event::Disconnected]);
        assert!(matches!(first, Some(SinkError::Config { .. })), "{first:?}");
        assert!(
            matches!(after(vec![Event::LameDuckMode, Event::Disconnected]), Some(SinkError::Retry { reason, .. }) if reason.contains("lame duck"))
        );
    }

    #[tokio::test]
    async fn a_connection_whose_client_is_gone_has_ended() {
        let (sender, ending) = watch::channel(Ending::default());
        let end = End { ending, address: Arc::new(Address::try_from("hub:4222".to_owned()).unwrap()) };
        drop(sender);
        assert_eq!(end.reason().await, SinkError::retry("the connection to hub:4222 ended"));
    }
}
