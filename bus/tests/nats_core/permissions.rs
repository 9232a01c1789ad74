//! What those who are in may do.

use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use bartizan_bus::edge::module_user;
use bartizan_bus::nats::ServerConfig;
use bartizan_bus::nats::auth::{Credential, Permission, User, Users};
use futures_util::TryStreamExt;

use crate::auth::password;
use crate::server::{Kind, Server, config};
use crate::{Failure, Outcome, Test, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    tests!(
        permissions::publish,
        permissions::subscribe,
        permissions::no_wider_pattern,
        permissions::denied_in_part,
        permissions::a_request_that_is_not_allowed,
        permissions::a_module_reads_its_streams,
        permissions::a_module_does_nothing_else,
        permissions::no_way_round_by_a_reply,
        permissions::modules_are_kept_apart,
    )
}

fn permission(allow: &[&str], deny: &[&str]) -> Result<Permission, Failure> {
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
    Ok(Permission { allow: patterns(allow)?, deny: patterns(deny)? })
}

async fn server(kind: Kind, publish: Permission, subscribe: Permission) -> Result<Server, Failure> {
    let limited = User { publish, subscribe, ..password("u", "p") };
    Server::start(kind, ServerConfig { users: Users(vec![password("admin", "p"), limited]), ..config() }).await
}

const LIMITED: &str = ",\"user\":\"u\",\"pass\":\"p\"";
const ADMIN: &str = ",\"user\":\"admin\",\"pass\":\"p\"";

pub(crate) async fn publish(kind: Kind) -> Outcome {
    let server = server(kind, permission(&["a.>", "b.*"], &["a.secret.>"])?, Permission::default()).await?;
    let mut wire = server.client(LIMITED).await?;
    wire.says("SUB > 1\r\nPUB a.x 1\r\n1\r\nPUB b.x 1\r\n2\r\nPING\r\n", "MSG a.x 1 1\r\n1\r\nMSG b.x 1 1\r\n2\r\nPONG\r\n").await?;
    for subject in ["c", "a", "b", "b.x.y", "a.secret.x", "$JS.API.INFO", "A.x"] {
        let refused = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\nPONG\r\n");
        wire.says(&format!("PUB {subject} 1\r\nx\r\nPING\r\n"), &refused).await?;
        wire.says(&format!("HPUB {subject} r 12 13\r\nNATS/1.0\r\n\r\nx\r\nPING\r\n"), &refused).await?;
    }
    same!(server.violations().unwrap_or(14), 14);
    // The other user is not in this.
    server.client(ADMIN).await?.says("SUB c 1\r\nPUB c 1\r\nx\r\n", "MSG c 1 1\r\nx\r\n").await
}

pub(crate) async fn subscribe(kind: Kind) -> Outcome {
    let server = server(kind, Permission::default(), permission(&["a.>", "b.*"], &["a.secret", "a.hidden.>"])?).await?;
    let mut wire = server.client(LIMITED).await?;
    wire.says("SUB a.x 1\r\nSUB a.y.* 2\r\nSUB b.* 3\r\nPUB b.x 1\r\nx\r\nPING\r\n", "MSG b.x 3 1\r\nx\r\nPONG\r\n").await?;
    for subject in [">", "*", "a", "*.x", "b.x.y", "c.x", "a.secret", "a.hidden.x", "a.hidden.>", "_INBOX.x"] {
        let refused = format!("-ERR 'Permissions Violation for Subscription to \"{subject}\"'\r\nPONG\r\n");
        wire.says(&format!("SUB {subject} 7\r\nPING\r\n"), &refused).await?;
        let refused = format!("-ERR 'Permissions Violation for Subscription to \"{subject}\" using queue \"g\"'\r\nPONG\r\n");
        wire.says(&format!("SUB {subject} g 8\r\nPING\r\n"), &refused).await?;
    }
    same!(server.violations().unwrap_or(20), 20);
    // A refused one does not take the sid.
    wire.says("SUB a.z 7\r\nPUB a.z 1\r\nx\r\nPING\r\n", "MSG a.z 7 1\r\nx\r\nPONG\r\n").await
}

/// `*` allows one token, so not the pattern of one or more.
pub(crate) async fn no_wider_pattern(kind: Kind) -> Outcome {
    let server = server(kind, Permission::default(), permission(&["b.*"], &[])?).await?;
    let mut wire = server.client(LIMITED).await?;
    wire.send("SUB b.> 1\r\nPUB b.x 1\r\nx\r\nPUB b.x.y 1\r\nx\r\nPING\r\n").await?;
    wire.expect("-ERR 'Permissions Violation for Subscription to \"b.>\"'\r\nPONG\r\n").await
}

/// A pattern that has denied subjects in it is allowed, and what is denied does not come through it.
pub(crate) async fn denied_in_part(kind: Kind) -> Outcome {
    let server = server(kind, Permission::default(), permission(&[], &["a.secret.>", "b"])?).await?;
    let mut wire = server.client(LIMITED).await?;
    let publish = "PUB a.x 1\r\n1\r\nPUB a.secret.x 1\r\n2\r\nPUB b 1\r\n3\r\nPUB c 1\r\n4\r\n";
    wire.says(&format!("SUB > 1\r\n{publish}PING\r\n"), "MSG a.x 1 1\r\n1\r\nMSG c 1 1\r\n4\r\nPONG\r\n").await?;
    wire.says("UNSUB 1\r\nSUB a.*.* g 2\r\nPING\r\n", "PONG\r\n").await?;
    let mut admin = server.client(ADMIN).await?;
    admin.says(&format!("{publish}PUB a.y.x 1\r\n5\r\nPING\r\n"), "PONG\r\n").await?;
    wire.says("PING\r\n", "MSG a.y.x 2 1\r\n5\r\nPONG\r\n").await
}

pub(crate) async fn a_request_that_is_not_allowed(kind: Kind) -> Outcome {
    let server = server(kind, permission(&["a"], &[])?, permission(&["_INBOX.>"], &[])?).await?;
    let mut wire = server.client(LIMITED).await?;
    // No 503 either: whether somebody is there is not told.
    wire.says("SUB _INBOX.1 1\r\nPUB b _INBOX.1 0\r\n\r\nPING\r\n", "-ERR 'Permissions Violation for Publish to \"b\"'\r\nPONG\r\n")
        .await?;
    wire.says("PUB a _INBOX.1 0\r\n\r\n", "HMSG _INBOX.1 1 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n").await
}

async fn modules(kind: Kind) -> Result<(Server, jetstream::Context), Failure> {
    let module = |name: &str, user: &str| {
        module_user(name, Credential::Password { user: user.to_owned(), password: "p".to_owned() }).ok_or("no module")
    };
    let users = Users(vec![password("admin", "p"), module("scanner", "u")?, module("probe", "v")?]);
    let server = Server::start(kind, ServerConfig { users, ..config() }).await?;
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "p".into()).connect(server.address.to_string()).await?;
    let admin = jetstream::new(admin);
    for (name, subject) in [("EVENTS", "sec.events.>"), ("ALERTS", "sec.alerts.>"), ("RESPONSES", "sec.responses.>"), ("OTHER", "other.>")]
    {
        admin
            .create_stream(stream::Config { name: name.into(), subjects: vec![subject.into()], allow_direct: true, ..Default::default() })
            .await?;
        admin.publish(subject.replace('>', "x.y"), "kept".into()).await?.await?;
    }
    Ok((server, admin))
}

pub(crate) async fn a_module_reads_its_streams(kind: Kind) -> Outcome {
    let (server, _admin) = modules(kind).await?;
    let client = async_nats::ConnectOptions::with_user_and_password("u".into(), "p".into()).connect(server.address.to_string()).await?;
    let context = jetstream::new(client.clone());
    for name in ["EVENTS", "ALERTS"] {
        let stream = context.get_stream(name).await?;
        let durable = consumer::pull::Config { durable_name: Some("scanner".into()), ..Default::default() };
        let consumer: consumer::PullConsumer = stream.get_or_create_consumer("scanner", durable).await?;
        let got: Vec<_> = consumer.fetch().max_messages(1).messages().await?.try_collect().await?;
        same!((got.len(), &*got[0].payload), (1, &b"kept"[..]));
        got[0].double_ack().await?;
        let filtered = consumer::pull::Config { filter_subject: format!("sec.{}.>", name.to_lowercase()), ..Default::default() };
        let consumer: consumer::PullConsumer = stream.create_consumer(filtered).await?;
        let got: Vec<_> = consumer.fetch().max_messages(1).messages().await?.try_collect().await?;
        same!(got.len(), 1);
        let ordered: consumer::OrderedPushConsumer =
            stream.create_consumer(consumer::push::OrderedConfig { deliver_subject: client.new_inbox(), ..Default::default() }).await?;
        let first = tokio::time::timeout(Duration::from_secs(20), ordered.messages().await?.try_next()).await??;
        same!(first.map(|message| message.payload.to_vec()), Some(b"kept".to_vec()));
        stream.delete_consumer("scanner").await?;
    }
    let ack = context.publish("sec.alerts.high.scanner", "{}".into()).await?.await?;
    same!(ack.stream, "ALERTS");
    Ok(())
}

pub(crate) async fn a_module_does_nothing_else(kind: Kind) -> Outcome {
    let (server, _admin) = modules(kind).await?;
    let mut wire = server.client(LIMITED).await?;
    for subject in [
        "sec.alerts.high.other",
        "sec.alerts.high.scanner.x",
        "sec.events.process.exec",
        "other.x",
        "_INBOX.somebody",
        "$JS.API.STREAM.CREATE.X",
        "$JS.API.STREAM.UPDATE.EVENTS",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.EVENTS",
        "$JS.API.STREAM.MSG.DELETE.EVENTS",
        "$JS.API.STREAM.MSG.GET.OTHER",
        "$JS.API.DIRECT.GET.OTHER.other.x.y",
        "$JS.API.CONSUMER.CREATE.OTHER.c",
        "$JS.API.CONSUMER.CREATE.OTHER.EVENTS.other.x",
        "$JS.API.CONSUMER.CREATE.OTHER",
        "$JS.API.CONSUMER.DURABLE.CREATE.OTHER.c",
        "$JS.API.CONSUMER.MSG.NEXT.OTHER.c",
        "$JS.API.CONSUMER.DELETE.OTHER.c",
        "$JS.API.CONSUMER.CREATE.RESPONSES.c",
        "$JS.ACK.OTHER.c.1.1.1.1.0",
        "$JS.FC.OTHER.c.1",
        "$SYS.REQ.SERVER.PING",
    ] {
        let refused = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\nPONG\r\n");
        wire.says(&format!("PUB {subject} 1\r\nx\r\nPING\r\n"), &refused).await?;
    }
    for subject in [">", "*", "sec.>", "sec.responses.>", "other.>", "$JS.>", "$JS.API.>", "$JS.EVENT.>", "$SYS.>", "*.events.>"] {
        let refused = format!("-ERR 'Permissions Violation for Subscription to \"{subject}\"'\r\nPONG\r\n");
        wire.says(&format!("SUB {subject} 7\r\nPING\r\n"), &refused).await?;
    }
    wire.says("SUB sec.events.> 1\r\nSUB sec.alerts.> 2\r\nSUB sec.matches.> 3\r\nSUB _INBOX.x.> 4\r\nPING\r\n", "PONG\r\n").await
}

/// Answers and deliveries to a module go to itself: they are nothing that a stream stores or anybody else is shown, whatever the module names
/// as reply or deliver subject.
pub(crate) async fn no_way_round_by_a_reply(kind: Kind) -> Outcome {
    let (server, admin) = modules(kind).await?;
    let mut witness = server.client(ADMIN).await?;
    witness.says("SUB sec.alerts.> 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut wire = server.client(LIMITED).await?;
    wire.says("SUB _INBOX.x.* 1\r\nPING\r\n", "PONG\r\n").await?;
    for subject in ["$JS.API.INFO", "sec.alerts.high.scanner"] {
        let refused = "-ERR 'Permissions Violation for Publish with Reply of \"sec.alerts.high.other\"'\r\nPONG\r\n";
        wire.says(&format!("PUB {subject} sec.alerts.high.other 0\r\n\r\nPING\r\n"), refused).await?;
    }
    let push = "{\"stream_name\":\"EVENTS\",\"config\":{\"deliver_subject\":\"sec.alerts.high.other\",\"ack_policy\":\"none\"}}";
    wire.send(format!("PUB $JS.API.CONSUMER.CREATE.EVENTS _INBOX.x.1 {}\r\n{push}\r\n", push.len())).await?;
    let answer = wire.unit().await?;
    if !(answer.starts_with("MSG _INBOX.x.1 1 ") && answer.contains("\"err_code\":10112")) {
        return Err(format!("it says {answer}").into());
    }
    wire.says("PUB $JS.API.STREAM.NAMES _INBOX.x.2 0\r\n\r\n", "").await?;
    wire.unit().await?;
    witness.says("PING\r\n", "PONG\r\n").await?;
    let state = admin.get_stream("ALERTS").await?.cached_info().state.clone();
    same!(state.messages, 1);
    Ok(())
}

/// One module knows nothing of another's consumers, of other clients' streams, and of what is answered to others.
pub(crate) async fn modules_are_kept_apart(kind: Kind) -> Outcome {
    let (server, admin) = modules(kind).await?;
    let mut wire = server.client(LIMITED).await?;
    for inboxes in ["_INBOX.>", "_INBOX.*", "_INBOX.*.x", "_INBOX.*.>"] {
        let refused = format!("-ERR 'Permissions Violation for Subscription to \"{inboxes}\"'\r\nPONG\r\n");
        wire.says(&format!("SUB {inboxes} 7\r\nPING\r\n"), &refused).await?;
    }
    let context = async |user: &str| -> Result<jetstream::Context, Failure> {
        let options = async_nats::ConnectOptions::with_user_and_password(user.into(), "p".into());
        Ok(jetstream::new(options.connect(server.address.to_string()).await?))
    };
    let (owner, other) = (context("u").await?, context("v").await?);
    let durable = || consumer::pull::Config { durable_name: Some("mine".into()), ..Default::default() };
    let mine: consumer::PullConsumer = owner.create_consumer_on_stream(durable(), "EVENTS").await?;
    let got: Vec<_> = mine.fetch().max_messages(1).messages().await?.try_collect().await?;
    let ack = got[0].reply.clone().ok_or("no reply")?;

    let stream = other.get_stream("EVENTS").await?;
    same!(stream.get_consumer::<consumer::pull::Config>("mine").await.is_err(), true);
    same!(stream.delete_consumer("mine").await.is_err(), true);
    let pause = other.client().request("$JS.API.CONSUMER.PAUSE.EVENTS.mine", "{\"pause_until\":\"2099-01-01T00:00:00Z\"}".into()).await?;
    same!(String::from_utf8_lossy(&pause.payload).contains("consumer not found"), true);
    same!(stream.create_consumer(durable()).await.is_err(), true);
    same!(stream.consumer_names().try_collect::<Vec<_>>().await?.is_empty(), true);
    same!(stream.consumers().try_collect::<Vec<_>>().await?.is_empty(), true);
    let next = other.client().request("$JS.API.CONSUMER.MSG.NEXT.EVENTS.mine", "".into()).await;
    same!(next.map_err(|error| error.kind()).err(), Some(async_nats::RequestErrorKind::NoResponders));
    other.client().publish(ack.clone(), "+TERM".into()).await?;
    other.client().flush().await?;
    let seen = admin.get_stream("EVENTS").await?.get_consumer::<consumer::pull::Config>("mine").await?;
    same!(seen.cached_info().num_ack_pending, 1);
    got[0].double_ack().await?;
    let names: Vec<String> = owner.stream_names().try_collect().await?;
    same!((names.contains(&"EVENTS".to_owned()), names.contains(&"OTHER".to_owned())), (true, false));
    // Nor does anybody else share it unknowingly. Still its own after the next start: that is tested where consumers are stored.
    same!(admin.create_consumer_on_stream(durable(), "EVENTS").await.is_err(), true);

    // A publisher's inbox is not told, and an operator's queue group is not joined.
    wire.says("SUB sec.alerts.> 1\r\nSUB sec.alerts.> siem 2\r\nPING\r\n", "PONG\r\n").await?;
    let mut siem = server.client(ADMIN).await?;
    siem.says("SUB sec.alerts.high.* siem 1\r\nSUB sec.alerts.> siem 2\r\nUNSUB 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut publisher = server.client(ADMIN).await?;
    for _ in 0..20 {
        publisher.says("PUB sec.alerts.high.x _INBOX.secret.1 2\r\nhi\r\nPING\r\n", "PONG\r\n").await?;
        siem.says("", "MSG sec.alerts.high.x 2 _INBOX.secret.1 2\r\nhi\r\n").await?;
        let two = [wire.unit().await?, wire.unit().await?];
        same!(two.iter().all(|unit| unit.starts_with("MSG sec.alerts.high.x ") && !unit.contains("_INBOX")), true);
    }
    Ok(())
}
