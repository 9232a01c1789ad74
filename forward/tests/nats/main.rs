//! Delivery to real nats-servers, in Debian's version and in a current one.

#[path = "../common/mod.rs"]
mod common;
mod secrets;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream;
use bartizan_bus::event::Alert;
use bartizan_bus::{Bus, StreamName};
use bartizan_forward::{
    Address, ClientCertificate, Domain, FilePath, Forwarder, HubStream, Login, NatsConfig, Protocol, SinkConfig, SinkState, SinkStatus,
    StatusHandle, SubjectPrefix, TlsConfig,
};
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use nkeys::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use common::{DEADLINE, alert, expected_json, free_port, message, ms, open_bus, publish, sink_config, until};
use secrets::{Authority, Operator, private};
use server::{JETSTREAM, NatsServer, Stored, Version, alerts_stream, stored};

macro_rules! against_both_servers {
    ($($test:ident)*) => {
        mod debian_2_9 {
            $(#[tokio::test] async fn $test() { super::$test(super::Version::Debian).await; })*
        }
        mod pypi_2_14 {
            $(#[tokio::test] async fn $test() { super::$test(super::Version::Pypi).await; })*
        }
    };
}

against_both_servers! {
    alerts_arrive_as_they_were_published
    a_hub_that_is_down_at_first_gets_everything
    a_killed_hub_has_each_alert_once
    a_stopped_hub_has_each_alert_once
    a_hub_that_hangs_is_left_and_has_each_alert_once
    an_engine_that_dies_between_alert_and_acknowledgement_repeats_nothing
    an_engine_with_an_old_cursor_repeats_nothing
    an_update_is_not_swallowed
    a_hub_without_jetstream_is_named_and_served_once_it_has_it
    a_wrong_password_is_named_and_the_right_one_works
    a_wrong_token_is_named_and_the_right_one_works
    a_wrong_nkey_is_named_and_the_right_one_works
    wrong_credentials_are_named_and_the_right_ones_work
    a_missing_permission_is_named
    tls_with_a_private_authority_and_no_other
    a_server_that_asks_for_a_certificate_gets_one
    a_stream_that_is_missing_is_named_and_used_once_it_is_there
    a_stream_that_captures_something_else_is_named
    an_alert_larger_than_the_hub_takes_is_shrunk
    a_full_stream_is_waited_for
    a_short_duplicate_window_is_warned_about
    a_domain_and_a_prefix_are_honoured
    the_next_address_is_tried
}

/// An edge: a bus and a sink that delivers to a hub.
struct Edge {
    dir: tempfile::TempDir,
    config: SinkConfig,
}

impl Edge {
    fn new(server: &NatsServer) -> Self {
        let nats = NatsConfig { create_stream: true, ack_timeout: ms(5000), ..NatsConfig::default() };
        Self { dir: tempfile::tempdir().unwrap(), config: sink_config("hub", &server.address(), Protocol::Nats(nats)) }
    }

    fn nats(&mut self) -> &mut NatsConfig {
        match &mut self.config.protocol {
            Protocol::Nats(nats) => nats,
            Protocol::Syslog(syslog) => panic!("{syslog:?} is no NATS sink"),
        }
    }

    async fn bus(&self) -> Bus {
        open_bus(self.dir.path()).await
    }

    fn run(&self, bus: &Bus) -> Run {
        let forwarder = Forwarder::new(&self.config, bus.stream(StreamName::Alerts).clone(), 9).unwrap();
        let status = forwarder.status();
        let (stop, stopped) = watch::channel(false);
        Run { status, stop, task: tokio::spawn(async move { forwarder.run(stopped).await.unwrap() }) }
    }

    /// A secret beside the bus.
    fn secret(&self, content: &str) -> FilePath {
        private(self.dir.path(), "secret", content)
    }
}

struct Run {
    status: StatusHandle,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Run {
    async fn until_confirmed(&self, last: u64) -> SinkStatus {
        until(&self.status, "everything confirmed", |now| now.cursor == last).await
    }

    /// Waits until the sink says that somebody must change something, and returns what it says.
    async fn until_misconfigured(&self, about: &str) -> SinkStatus {
        let now = until(&self.status, about, |now| now.state == SinkState::Misconfigured).await;
        let error = now.last_error.clone().unwrap();
        assert!(error.contains(about), "{error:?} does not say {about:?}");
        assert_eq!((now.confirmed, now.refused), (0, 0), "{now:#?}");
        now
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }

    /// Ends as a crash would.
    async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// The hub has each alert from 1 to `last` exactly once and as it was published.
fn check_once(stored: &[Stored], last: u64) {
    let mut times = BTreeMap::new();
    for Stored { subject, msg_id, headers, json, bytes: _ } in stored {
        let seq = json["seq"].as_u64().unwrap();
        let alert = alert(seq);
        assert_eq!(json, &expected_json(&alert, seq));
        assert_eq!((subject.as_str(), msg_id), (alert.subject().as_str(), &alert.msg_id()));
        assert_eq!(headers.get("Nats-Expected-Stream").unwrap().as_str(), "ALERTS");
        assert_eq!(headers.get("Content-Type").unwrap().as_str(), "application/json");
        *times.entry(seq).or_insert(0_u64) += 1;
    }
    let wrong: Vec<(u64, u64)> =
        (1..=last).map(|seq| (seq, times.get(&seq).copied().unwrap_or(0))).filter(|(_, times)| *times != 1).collect();
    assert!(wrong.is_empty(), "not there once (sequence, times): {wrong:?}");
    assert_eq!(times.len() as u64, last);
}

async fn alerts_arrive_as_they_were_published(version: Version) {
    let server = NatsServer::started(version).await;
    let edge = Edge::new(&server);
    let jetstream = server.jetstream().await;
    let mut live = jetstream.client().subscribe("sec.alerts.>").await.unwrap();
    jetstream.client().flush().await.unwrap();
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=100);
    let run = edge.run(&bus);
    let now = run.until_confirmed(last).await;
    assert_eq!((now.sent, now.confirmed, now.resent, now.duplicates, now.shrunk), (100, 100, 0, 0, 0));
    assert_eq!((now.kind, now.address, now.warning), ("nats", format!("ALERTS on {}", server.address()), None));
    run.stop().await;
    for number in 1..=last {
        let message = tokio::time::timeout(DEADLINE, live.next()).await.unwrap().unwrap();
        let expected = alert(number);
        assert_eq!(message.subject.as_str(), expected.subject().as_str());
        assert_eq!(message.headers.unwrap().get("Nats-Msg-Id").unwrap().as_str(), format!("{}/1", expected.id));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap(), expected_json(&expected, number));
    }
    let stored = stored(&jetstream).await;
    check_once(&stored, last);
    assert!(stored.iter().zip(1..).all(|(message, seq)| message.json["seq"] == seq), "in order");
    let made = jetstream.get_stream("ALERTS").await.unwrap().cached_info().config.clone();
    assert_eq!((made.subjects, made.storage), (vec!["sec.alerts.>".to_owned()], jetstream::stream::StorageType::File));
    assert_eq!((made.duplicate_window, made.max_age), (Duration::from_secs(86_400), Duration::from_secs(30 * 86_400)));
}

async fn a_hub_that_is_down_at_first_gets_everything(version: Version) {
    let mut server = NatsServer::configured(version, "");
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    publish(&bus, 1..=200);
    let run = edge.run(&bus);
    let now = until(&run.status, "two failed attempts", |now| now.failed_attempts >= 2).await;
    assert_eq!((now.confirmed, now.lag, now.state == SinkState::Misconfigured), (0, 200, false));
    assert!(now.last_error.unwrap().contains(&server.address()));
    let last = publish(&bus, 201..=300);
    server.start().await;
    run.until_confirmed(last).await;
    run.stop().await;
    check_once(&stored(&server.jetstream().await).await, last);
}

/// Publishes 1,000 alerts a few at a time, ends the hub with `signal` when some are confirmed, starts it again when more
/// were published.
async fn interrupted_by(version: Version, signal: Signal) {
    let mut server = NatsServer::started(version).await;
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let run = edge.run(&bus);
    let publisher = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for step in 0..100 {
                publish(&bus, step * 10 + 1..=step * 10 + 10);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    until(&run.status, "some confirmed", |now| now.confirmed >= 200).await;
    server.end(signal).await;
    until(&run.status, "the loss to be noticed", |now| now.failed_attempts >= 1).await;
    server.start().await;
    publisher.await.unwrap();
    let now = run.until_confirmed(1000).await;
    assert_eq!((now.confirmed, now.lag, now.in_flight), (1000, 0, 0));
    run.stop().await;
    check_once(&stored(&server.jetstream().await).await, 1000);
    println!("{signal}: 1000 alerts, {} sent again, {} of them known to the hub", now.resent, now.duplicates);
}

async fn a_killed_hub_has_each_alert_once(version: Version) {
    interrupted_by(version, Signal::SIGKILL).await;
}

async fn a_stopped_hub_has_each_alert_once(version: Version) {
    interrupted_by(version, Signal::SIGTERM).await;
}

async fn a_hub_that_hangs_is_left_and_has_each_alert_once(version: Version) {
    let server = NatsServer::started(version).await;
    let mut edge = Edge::new(&server);
    edge.nats().ack_timeout = ms(500);
    edge.config.connect_timeout = ms(500);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=50);
    let run = edge.run(&bus);
    run.until_confirmed(last).await;
    server.signal(Signal::SIGSTOP);
    let last = publish(&bus, 51..=400);
    let now = until(&run.status, "two failed attempts", |now| now.failed_attempts >= 2).await;
    assert_eq!((now.confirmed, now.state == SinkState::Misconfigured), (50, false));
    server.signal(Signal::SIGCONT);
    run.until_confirmed(last).await;
    run.stop().await;
    check_once(&stored(&server.jetstream().await).await, last);
}

async fn an_engine_that_dies_between_alert_and_acknowledgement_repeats_nothing(version: Version) {
    let server = NatsServer::started(version).await;
    let edge = Edge::new(&server);
    let mut known = 0;
    for life in 0..10_u64 {
        let bus = edge.bus().await;
        let published = publish(&bus, life * 100 + 1..=life * 100 + 100);
        let run = edge.run(&bus);
        // Alternately before and after some are confirmed; the last life may finish.
        let now = match life {
            9 => run.until_confirmed(published).await,
            life if life % 2 == 0 => until(&run.status, "something sent", |now| now.sent > 0).await,
            _ => until(&run.status, "something confirmed", |now| now.confirmed > 0).await,
        };
        known += now.duplicates;
        run.crash().await;
    }
    check_once(&stored(&server.jetstream().await).await, 1000);
    println!("10 lives: {known} and more were sent to a hub that had them");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() { copy(&entry.path(), &target) } else { fs::copy(entry.path(), target).map(drop).unwrap() }
    }
}

/// As if the process had died after the hub stored every alert and before one acknowledgement moved the cursor.
async fn an_engine_with_an_old_cursor_repeats_nothing(version: Version) {
    let server = NatsServer::started(version).await;
    let mut edge = Edge::new(&server);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=300);
    // The consumer exists and has acknowledged nothing.
    drop(Forwarder::new(&edge.config, bus.stream(StreamName::Alerts).clone(), 9).unwrap());
    drop(bus);
    let old = tempfile::tempdir().unwrap();
    copy(edge.dir.path(), old.path());
    let bus = edge.bus().await;
    let run = edge.run(&bus);
    assert_eq!(run.until_confirmed(last).await.duplicates, 0);
    run.crash().await;
    drop(bus);
    edge.dir = old;
    let bus = edge.bus().await;
    let run = edge.run(&bus);
    let now = run.until_confirmed(last).await;
    assert_eq!((now.confirmed, now.duplicates), (300, 300));
    run.stop().await;
    check_once(&stored(&server.jetstream().await).await, last);
}

async fn an_update_is_not_swallowed(version: Version) {
    let server = NatsServer::started(version).await;
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let update = Alert { revision: 2, ..alert(1) };
    let alerts = [alert(1), update.clone(), alert(2)];
    bus.stream(StreamName::Alerts).append_batch(alerts.iter().map(message).collect()).unwrap();
    let run = edge.run(&bus);
    assert_eq!(run.until_confirmed(3).await.duplicates, 0);
    run.stop().await;
    let stored = stored(&server.jetstream().await).await;
    let ids: Vec<String> = stored.iter().map(|message| message.msg_id.clone()).collect();
    assert_eq!(ids, alerts.map(|alert| alert.msg_id()));
    assert_eq!(stored[1].json, expected_json(&update, 2));
}

async fn a_hub_without_jetstream_is_named_and_served_once_it_has_it(version: Version) {
    let mut server = NatsServer::configured(version, "");
    server.configure("");
    server.start().await;
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=10);
    let run = edge.run(&bus);
    run.until_misconfigured("the hub has no JetStream").await;
    server.end(Signal::SIGTERM).await;
    server.configure(JETSTREAM);
    server.start().await;
    run.until_confirmed(last).await;
    run.stop().await;
    check_once(&stored(&server.jetstream().await).await, last);
}

/// The sink first has the wrong secret in its file, then the right one. `about` is what the first says.
async fn with_secrets(
    server: &NatsServer,
    login: impl Fn(FilePath) -> Login,
    [wrong, right]: [&str; 2],
    about: &str,
    admin: ConnectOptions,
) {
    let mut edge = Edge::new(server);
    let file = edge.secret(wrong);
    edge.nats().login = login(file.clone());
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=20);
    let run = edge.run(&bus);
    run.until_misconfigured(about).await;
    // Readable by all, a secret is not even tried.
    fs::write(file.as_path(), right).unwrap();
    fs::set_permissions(file.as_path(), fs::Permissions::from_mode(0o644)).unwrap();
    until(&run.status, "the mode to be refused", |now| now.last_error.as_ref().unwrap().contains("has mode 0644")).await;
    assert_eq!(run.status.snapshot().confirmed, 0);
    edge.secret(right);
    run.until_confirmed(last).await;
    run.stop().await;
    check_once(&stored(&server.admin(admin).await).await, last);
}

async fn a_wrong_password_is_named_and_the_right_one_works(version: Version) {
    let mut server = NatsServer::configured(version, "authorization { user: edge, password: \"s3cr3t pass\" }");
    server.start().await;
    let login = |file| Login::Password { user: "edge".to_owned(), file };
    let admin = ConnectOptions::with_user_and_password("edge".to_owned(), "s3cr3t pass".to_owned());
    with_secrets(&server, login, ["wrong", "s3cr3t pass\n"], "check user and password_file", admin).await;
}

async fn a_wrong_token_is_named_and_the_right_one_works(version: Version) {
    let mut server = NatsServer::configured(version, "authorization { token: s3cr3t }");
    server.start().await;
    let admin = ConnectOptions::with_token("s3cr3t".to_owned());
    with_secrets(&server, Login::Token, ["wrong", "s3cr3t\n"], "check token_file", admin).await;
    // Nobody is nobody.
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    publish(&bus, 1..=1);
    let run = edge.run(&bus);
    run.until_misconfigured("none is set").await;
    run.stop().await;
}

async fn a_wrong_nkey_is_named_and_the_right_one_works(version: Version) {
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let mut server = NatsServer::configured(version, &format!("authorization {{ users: [ {{ nkey: {} }} ] }}", right.public_key()));
    server.start().await;
    let (right, wrong) = (right.seed().unwrap(), wrong.seed().unwrap());
    with_secrets(&server, Login::Nkey, [&wrong, &right], "check nkey_file", ConnectOptions::with_nkey(right.clone())).await;
    let mut edge = Edge::new(&server);
    edge.nats().login = Login::Nkey(edge.secret("no seed at all"));
    let bus = edge.bus().await;
    publish(&bus, 1..=1);
    let run = edge.run(&bus);
    run.until_misconfigured("nkey_file cannot be used to sign").await;
    run.stop().await;
}

async fn wrong_credentials_are_named_and_the_right_ones_work(version: Version) {
    let operator = Operator::new();
    let mut server = NatsServer::configured(version, &operator.config);
    server.start().await;
    let (right, wrong) = (operator.creds(), Operator::foreign_creds());
    let admin = ConnectOptions::with_credentials(&right).unwrap();
    with_secrets(&server, Login::Creds, [&wrong, &right], "check creds_file", admin).await;
    let mut edge = Edge::new(&server);
    edge.nats().login = Login::Creds(edge.secret("no credentials at all"));
    let bus = edge.bus().await;
    publish(&bus, 1..=1);
    let run = edge.run(&bus);
    run.until_misconfigured("must hold a user's JWT and seed").await;
    run.stop().await;
}

async fn a_missing_permission_is_named(version: Version) {
    let users = |publish: &str| {
        format!(
            "authorization {{ users: [\n  {{ user: admin, password: a }}\n  {{ user: edge, password: p, permissions: {{ publish: [{publish}], subscribe: [\"_INBOX.>\"] }} }}\n] }}"
        )
    };
    // What docs/forwarding.md lists, without the alerts' own subjects.
    let mut server = NatsServer::configured(version, &users("\"$JS.API.STREAM.INFO.ALERTS\""));
    server.start().await;
    let admin = || ConnectOptions::with_user_and_password("admin".to_owned(), "a".to_owned());
    server.admin(admin()).await.create_stream(alerts_stream()).await.unwrap();
    let mut edge = Edge::new(&server);
    edge.nats().create_stream = false;
    edge.nats().login = Login::Password { user: "edge".to_owned(), file: edge.secret("p") };
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=20);
    let run = edge.run(&bus);
    let now = run.until_misconfigured("Permissions Violation for Publish to").await;
    assert!(now.last_error.unwrap().contains("sec.alerts."));
    server.end(Signal::SIGTERM).await;
    server.configure(&format!("{JETSTREAM}\n{}", users("\"$JS.API.STREAM.INFO.ALERTS\", \"sec.alerts.>\"")));
    server.start().await;
    run.until_confirmed(last).await;
    run.stop().await;
    check_once(&stored(&server.admin(admin()).await).await, last);
}

/// The server's part of TLS: its files in its folder, and what `tls` has besides.
fn tls_server(version: Version, authority: &Authority, names: &[&str], besides: &str) -> NatsServer {
    let server = NatsServer::configured(version, &format!("tls {{ cert_file: cert.pem, key_file: key.pem, ca_file: ca.pem, {besides} }}"));
    let (cert, key) = authority.sign(names);
    for (name, content) in [("cert.pem", &cert), ("key.pem", &key), ("ca.pem", &authority.pem)] {
        private(server.dir(), name, content);
    }
    server
}

async fn tls_with_a_private_authority_and_no_other(version: Version) {
    let (authority, other) = (Authority::new("hub"), Authority::new("somebody else"));
    let mut server = tls_server(version, &authority, &["127.0.0.1"], "timeout: 5");
    server.start().await;
    let mut edge = Edge::new(&server);
    let ca_file = private(edge.dir.path(), "ca.pem", &other.pem);
    edge.nats().tls = Some(TlsConfig { ca_file: Some(ca_file.clone()), ..TlsConfig::default() });
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=50);
    let run = edge.run(&bus);
    run.until_misconfigured("set ca_file to the authority that signed").await;
    fs::write(ca_file.as_path(), "nothing").unwrap();
    until(&run.status, "the empty file to be named", |now| now.last_error.as_ref().unwrap().contains("has no certificate in it")).await;
    fs::write(ca_file.as_path(), &authority.pem).unwrap();
    run.until_confirmed(last).await;
    run.stop().await;
    let admin = ConnectOptions::new().add_root_certificates(ca_file.as_path().to_owned());
    check_once(&stored(&server.admin(admin).await).await, last);

    // A certificate of that authority for another name.
    let mut server = tls_server(version, &authority, &["hub.example.net"], "timeout: 5");
    server.start().await;
    edge.config.address = Address::try_from(server.address()).unwrap();
    edge.config.name = "other".to_owned().try_into().unwrap();
    let run = edge.run(&bus);
    run.until_misconfigured("set address to a name that stands in").await;
    run.stop().await;

    // A server without TLS is not given the alerts in the clear.
    let server = NatsServer::started(version).await;
    edge.config.address = Address::try_from(server.address()).unwrap();
    let run = edge.run(&bus);
    run.until_misconfigured("did not answer in TLS").await;
    run.stop().await;

    // Debian's is too old for a handshake before the greeting.
    if version == Version::Pypi {
        let mut server = tls_server(version, &authority, &["127.0.0.1"], "handshake_first: true");
        server.start().await;
        edge.config.address = Address::try_from(server.address()).unwrap();
        edge.nats().tls = Some(TlsConfig { first: true, ca_file: Some(ca_file), client: None });
        let run = edge.run(&bus);
        run.until_confirmed(last).await;
        run.stop().await;
    }
}

async fn a_server_that_asks_for_a_certificate_gets_one(version: Version) {
    let (authority, other) = (Authority::new("hub"), Authority::new("somebody else"));
    let mut server = tls_server(version, &authority, &["127.0.0.1"], "verify: true, timeout: 5");
    server.start().await;
    let mut edge = Edge::new(&server);
    let dir = edge.dir.path();
    let ca_file = private(dir, "ca.pem", &authority.pem);
    let (cert, key) = other.sign(&["edge"]);
    let client = ClientCertificate { cert_file: private(dir, "cert.pem", &cert), key_file: private(dir, "key.pem", &key) };
    edge.nats().tls = Some(TlsConfig { ca_file: Some(ca_file), ..TlsConfig::default() });
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=50);
    // Without one, and with one of another authority: the server's alert may be lost with the connection, so the class may be either.
    for client in [None, Some(client.clone())] {
        edge.nats().tls.as_mut().unwrap().client = client;
        let run = edge.run(&bus);
        let now = until(&run.status, "the refusal", |now| now.failed_attempts >= 2).await;
        assert_eq!((now.confirmed, now.sent), (0, 0), "{now:#?}");
        run.stop().await;
    }
    let (cert, key) = authority.sign(&["edge"]);
    fs::write(client.cert_file.as_path(), cert).unwrap();
    fs::write(client.key_file.as_path(), key).unwrap();
    fs::set_permissions(client.key_file.as_path(), fs::Permissions::from_mode(0o604)).unwrap();
    let run = edge.run(&bus);
    run.until_misconfigured("key.pem has mode 0604").await;
    fs::set_permissions(client.key_file.as_path(), fs::Permissions::from_mode(0o600)).unwrap();
    let now = run.until_confirmed(last).await;
    assert_eq!(now.confirmed, 50);
    run.stop().await;
}

async fn a_stream_that_is_missing_is_named_and_used_once_it_is_there(version: Version) {
    let server = NatsServer::started(version).await;
    let mut edge = Edge::new(&server);
    edge.nats().create_stream = false;
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=20);
    let run = edge.run(&bus);
    run.until_misconfigured("nats stream add ALERTS --subjects 'sec.alerts.>'").await;
    let jetstream = server.jetstream().await;
    jetstream.create_stream(alerts_stream()).await.unwrap();
    run.until_confirmed(last).await;
    check_once(&stored(&jetstream).await, last);
    // It goes away under a session that works, and comes back.
    jetstream.delete_stream("ALERTS").await.unwrap();
    let last = publish(&bus, 21..=25);
    let now = until(&run.status, "the loss to be named", |now| now.state == SinkState::Misconfigured).await;
    assert_eq!((now.confirmed, now.lag), (20, 5));
    jetstream.create_stream(alerts_stream()).await.unwrap();
    run.until_confirmed(last).await;
    run.stop().await;
    assert_eq!(stored(&jetstream).await.len(), 5);
}

async fn a_stream_that_captures_something_else_is_named(version: Version) {
    let server = NatsServer::started(version).await;
    let jetstream = server.jetstream().await;
    let subjects = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect::<Vec<_>>();
    let mut config = jetstream::stream::Config { subjects: subjects(&["other.>"]), ..alerts_stream() };
    jetstream.create_stream(config.clone()).await.unwrap();
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=4);
    let run = edge.run(&bus);
    run.until_misconfigured("captures other.>, and not sec.alerts.info.*").await;
    // It seems to fit, and for what is published it does not: nobody answers.
    config.subjects = subjects(&["sec.alerts.*.other_detector"]);
    jetstream.update_stream(config.clone()).await.unwrap();
    until(&run.status, "the subject to be named", |now| now.last_error.as_ref().unwrap().contains("does not capture sec.alerts.")).await;
    // Another stream answers, and it is not the one that is meant.
    let other =
        jetstream::stream::Config { name: "OTHER".to_owned(), subjects: subjects(&["sec.alerts.*.runtime_watcher"]), ..alerts_stream() };
    jetstream.create_stream(other).await.unwrap();
    until(&run.status, "the other stream to be noticed", |now| now.last_error.as_ref().unwrap().contains("error code 10060")).await;
    jetstream.delete_stream("OTHER").await.unwrap();
    config.subjects = subjects(&["sec.alerts.>"]);
    jetstream.update_stream(config).await.unwrap();
    run.until_confirmed(last).await;
    run.stop().await;
    check_once(&stored(&jetstream).await, last);
}

/// An alert of about this many bytes as JSON.
fn large(number: u64, bytes: usize) -> Alert {
    let mut alert = alert(number);
    alert.lineage[0].argv.push("x".repeat(bytes));
    alert
}

async fn an_alert_larger_than_the_hub_takes_is_shrunk(version: Version) {
    let mut server = NatsServer::configured(version, "max_payload: 8192");
    server.start().await;
    let jetstream = server.jetstream().await;
    let mut edge = Edge::new(&server);
    let bus = edge.bus().await;
    let alerts = [large(1, 100), large(2, 8192), large(3, 1 << 20), alert(4)];
    bus.stream(StreamName::Alerts).append_batch(alerts.iter().map(message).collect()).unwrap();
    let run = edge.run(&bus);
    let now = run.until_confirmed(4).await;
    assert_eq!((now.confirmed, now.shrunk, now.refused), (4, 2, 0));
    run.stop().await;
    let all = stored(&jetstream).await;
    assert_eq!(all.len(), 4);
    for (message, alert) in all.iter().zip(&alerts) {
        assert_eq!((message.json["id"].as_str().unwrap(), &message.msg_id), (alert.id.to_string().as_str(), &alert.msg_id()));
    }
    assert_eq!(all[0].json, expected_json(&alerts[0], 1));
    assert_eq!(all[3].json, expected_json(&alerts[3], 4));
    assert!(all[1].json["shrunk"]["full_bytes"].as_u64().unwrap() > 8192 && all[1].bytes <= 8192);

    // The stream's own limit counts too, also one that is lowered under a session: the hub then refuses what fits the old one.
    let stream =
        |max_message_size| jetstream::stream::Config { max_age: Duration::from_secs(30 * 86_400), max_message_size, ..alerts_stream() };
    jetstream.update_stream(stream(6000)).await.unwrap();
    let run = edge.run(&bus);
    until(&run.status, "a session", |now| now.state == SinkState::Connected).await;
    jetstream.update_stream(stream(4000)).await.unwrap();
    bus.stream(StreamName::Alerts).append_batch(vec![message(&large(5, 3500))]).unwrap();
    let now = run.until_confirmed(5).await;
    assert!(now.last_error.unwrap().contains("error code 10054"));
    assert_eq!((now.refused, now.failed_attempts), (0, 0));
    run.stop().await;
    let all = stored(&jetstream).await;
    assert!(all[4].bytes <= 4000 && all[4].json["shrunk"]["full_bytes"].as_u64().unwrap() > 4000);

    // Too small for any alert.
    jetstream.update_stream(stream(1000)).await.unwrap();
    edge.config.name = "other".to_owned().try_into().unwrap();
    let run = edge.run(&bus);
    run.until_misconfigured("takes messages of 1000 bytes at most").await;
    run.stop().await;
}

async fn a_full_stream_is_waited_for(version: Version) {
    let server = NatsServer::started(version).await;
    let jetstream = server.jetstream().await;
    let full = jetstream::stream::Config { max_messages: 10, discard: jetstream::stream::DiscardPolicy::New, ..alerts_stream() };
    let mut stream = jetstream.create_stream(full.clone()).await.unwrap();
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=25);
    let run = edge.run(&bus);
    let now = until(&run.status, "the full stream to be named", |now| now.failed_attempts >= 1 && now.confirmed == 10).await;
    assert!(now.last_error.unwrap().contains("maximum messages exceeded"));
    assert_eq!((now.state == SinkState::Misconfigured, now.refused, now.lag), (false, 0, 15));
    jetstream.update_stream(jetstream::stream::Config { max_messages: -1, ..full }).await.unwrap();
    run.until_confirmed(last).await;
    run.stop().await;
    assert_eq!(stream.info().await.unwrap().state.messages, 25);
    check_once(&stored(&jetstream).await, last);
}

async fn a_short_duplicate_window_is_warned_about(version: Version) {
    let server = NatsServer::started(version).await;
    let jetstream = server.jetstream().await;
    let short = jetstream::stream::Config { duplicate_window: Duration::from_secs(120), ..alerts_stream() };
    jetstream.create_stream(short).await.unwrap();
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=5);
    let run = edge.run(&bus);
    let now = run.until_confirmed(last).await;
    let warning = now.warning.unwrap();
    assert!(warning.contains("120s only") && warning.contains("--dupe-window 24h"), "{warning}");
    assert_eq!(now.last_error, None);
    run.stop().await;
    jetstream.update_stream(alerts_stream()).await.unwrap();
    let run = edge.run(&bus);
    assert_eq!(until(&run.status, "a session", |now| now.state == SinkState::Connected).await.warning, None);
    run.stop().await;
}

async fn a_domain_and_a_prefix_are_honoured(version: Version) {
    let mut server = NatsServer::configured(version, "");
    server.configure("jetstream { store_dir: js, domain: hub }");
    server.start().await;
    let mut edge = Edge::new(&server);
    edge.nats().domain = Some(Domain::try_from("elsewhere".to_owned()).unwrap());
    edge.nats().subject_prefix = SubjectPrefix::try_from("fleet.web".to_owned()).unwrap();
    edge.nats().stream = HubStream::try_from("FLEET".to_owned()).unwrap();
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=5);
    let run = edge.run(&bus);
    let now = until(&run.status, "a failed attempt", |now| now.failed_attempts >= 1).await;
    assert!(
        now.last_error.as_ref().unwrap().contains("$JS.elsewhere.API") || now.last_error.as_ref().unwrap().contains("`domain`"),
        "{now:#?}"
    );
    run.stop().await;
    edge.nats().domain = Some(Domain::try_from("hub".to_owned()).unwrap());
    let run = edge.run(&bus);
    run.until_confirmed(last).await;
    run.stop().await;
    let stream = server.jetstream().await.get_stream("FLEET").await.unwrap();
    assert_eq!(stream.cached_info().config.subjects, ["fleet.web.alerts.>"]);
    let first = stream.get_raw_message(1).await.unwrap();
    assert_eq!(first.subject.as_str(), "fleet.web.alerts.medium.runtime_watcher");
}

async fn the_next_address_is_tried(version: Version) {
    let server = NatsServer::started(version).await;
    let mut edge = Edge::new(&server);
    edge.nats().fallback_addresses = vec![edge.config.address.clone()];
    edge.config.address = Address::try_from(format!("127.0.0.1:{}", free_port())).unwrap();
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=5);
    let run = edge.run(&bus);
    let now = run.until_confirmed(last).await;
    assert_eq!(now.failed_attempts, 0);
    assert!(now.address.ends_with(&server.address()), "{}", now.address);
    run.stop().await;
}

/// A server on its way out asks its clients to leave.
#[tokio::test]
async fn a_lame_duck_is_left() {
    let server = NatsServer::started(Version::Pypi).await;
    let edge = Edge::new(&server);
    let bus = edge.bus().await;
    let last = publish(&bus, 1..=5);
    let run = edge.run(&bus);
    run.until_confirmed(last).await;
    server.signal(Signal::SIGUSR2);
    until(&run.status, "the words of the duck", |now| now.last_error.as_ref().is_some_and(|error| error.contains("lame duck"))).await;
    run.crash().await;
}

/// async-nats would connect again by itself. Here a lost connection ends the session, and the engine alone makes the next.
#[tokio::test]
async fn a_session_is_one_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = sink_config("hub", &listener.local_addr().unwrap().to_string(), Protocol::Nats(NatsConfig::default()));
    // The engine's own second attempt is far away.
    (config.retry_min, config.retry_max) = (ms(3_600_000), ms(3_600_000));
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    publish(&bus, 1..=5);
    let forwarder = Forwarder::new(&config, bus.stream(StreamName::Alerts).clone(), 9).unwrap();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let (mut peer, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    peer.write_all(b"INFO {\"server_id\":\"a\",\"version\":\"2.14.6\",\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    let mut greeted = false;
    while !String::from_utf8_lossy(&said).contains("STREAM.INFO.ALERTS") {
        assert_ne!(peer.read_buf(&mut said).await.unwrap(), 0);
        if !greeted && said.ends_with(b"PING\r\n") {
            peer.write_all(b"PONG\r\n").await.unwrap();
            greeted = true;
        }
    }
    drop(peer);
    let now = until(&status, "the loss", |now| now.failed_attempts >= 1).await;
    assert!(now.last_error.unwrap().contains("closed the connection"));
    let again = tokio::time::timeout(Duration::from_secs(3), listener.accept()).await;
    assert!(again.is_err(), "somebody connected again behind the engine's back");
    running.abort();
}
