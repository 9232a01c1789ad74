//! Core NATS.

use std::sync::Arc;
use std::time::Duration;

use async_nats::service::ServiceExt;
use futures_util::StreamExt;

use crate::server::Server;
use crate::{Outcome, Test, check, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    use crate::core;
    tests!(false:
        core::publish_and_subscribe, core::wildcards, core::queue_groups_share, core::request_and_reply, core::no_responders_is_told,
        core::headers_pass, core::unsubscribe_after_some, core::drain_delivers_what_was_sent, core::large_payloads_pass_and_too_large_ones_do_not,
        core::many_messages_in_order, core::services_are_found_and_answer, core::what_the_server_says_of_itself,
    )
}

const SOON: Duration = Duration::from_secs(20);
/// Long enough for a busy machine to bring what is on its way.
const NEVER: Duration = Duration::from_millis(1500);

pub(crate) async fn publish_and_subscribe(server: Arc<Server>) -> Outcome {
    let (a, b) = (server.client().await?, server.client().await?);
    let mut sub = b.subscribe("core.plain").await?;
    ready(&b).await?;
    a.publish("core.plain", "hello".into()).await?;
    a.publish_with_reply("core.plain", "answer.here", "again".into()).await?;
    a.flush().await?;
    let first = tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
    same!((first.subject.as_str(), &first.payload[..], first.reply.is_none()), ("core.plain", &b"hello"[..], true));
    let second = tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
    same!((second.reply.as_deref(), &second.payload[..]), (Some("answer.here"), &b"again"[..]));
    Ok(())
}

pub(crate) async fn wildcards(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let mut star = client.subscribe("wild.*.c").await?;
    let mut rest = client.subscribe("wild.>").await?;
    for subject in ["wild.b.c", "wild.b", "wild.b.d", "wild", "wild.x.c"] {
        client.publish(subject, subject.into()).await?;
    }
    client.flush().await?;
    let mut seen = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(NEVER, rest.next()).await {
        seen.push(message.subject.to_string());
    }
    same!(seen, ["wild.b.c", "wild.b", "wild.b.d", "wild.x.c"]);
    let mut seen = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(NEVER, star.next()).await {
        seen.push(message.subject.to_string());
    }
    same!(seen, ["wild.b.c", "wild.x.c"]);
    Ok(())
}

pub(crate) async fn queue_groups_share(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let (mut a, mut b) = (client.queue_subscribe("queue.x", "g".into()).await?, client.queue_subscribe("queue.*", "g".into()).await?);
    let mut plain = client.subscribe("queue.x").await?;
    for n in 0..100 {
        client.publish("queue.x", format!("{n}").into()).await?;
    }
    client.flush().await?;
    let mut counts = [0, 0, 0];
    for (sub, count) in [&mut a, &mut b, &mut plain].into_iter().zip(&mut counts) {
        while let Ok(Some(_)) = tokio::time::timeout(NEVER, sub.next()).await {
            *count += 1;
        }
    }
    same!((counts[0] + counts[1], counts[2]), (100, 100));
    check!(counts[0] > 0 && counts[1] > 0, "one member got everything: {counts:?}");
    Ok(())
}

pub(crate) async fn request_and_reply(server: Arc<Server>) -> Outcome {
    let (asking, answering) = (server.client().await?, server.client().await?);
    let mut sub = answering.subscribe("ask.*").await?;
    ready(&answering).await?;
    tokio::spawn(async move {
        while let Some(message) = sub.next().await {
            if let Some(reply) = message.reply {
                let _ = answering.publish(reply, message.payload).await;
            }
        }
    });
    for n in 0..50 {
        let answer = asking.request(format!("ask.{n}"), format!("q{n}").into()).await?;
        same!(&answer.payload[..], format!("q{n}").as_bytes());
    }
    Ok(())
}

pub(crate) async fn no_responders_is_told(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let error = client.request("nobody.home", "".into()).await.err().ok_or("somebody answered")?;
    same!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    Ok(())
}

pub(crate) async fn headers_pass(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let mut sub = client.subscribe("headers.x").await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("One", "1");
    headers.append("Two", "a");
    headers.append("Two", "b");
    client.publish_with_headers("headers.x", headers, "body".into()).await?;
    let message = tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
    let headers = message.headers.ok_or("no headers")?;
    same!(headers.get("One").map(|value| value.as_str()), Some("1"));
    same!(headers.get_all("Two").map(|value| value.as_str().to_owned()).collect::<Vec<_>>(), ["a", "b"]);
    same!(&message.payload[..], b"body");
    Ok(())
}

pub(crate) async fn unsubscribe_after_some(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let mut sub = client.subscribe("some.x").await?;
    sub.unsubscribe_after(3).await?;
    for _ in 0..5 {
        client.publish("some.x", "x".into()).await?;
    }
    client.flush().await?;
    let mut count = 0;
    while let Ok(Some(_)) = tokio::time::timeout(SOON, sub.next()).await {
        count += 1;
    }
    same!(count, 3);
    Ok(())
}

pub(crate) async fn drain_delivers_what_was_sent(server: Arc<Server>) -> Outcome {
    let (client, other) = (server.client().await?, server.client().await?);
    let mut sub = client.subscribe("drain.x").await?;
    ready(&client).await?;
    for _ in 0..100 {
        other.publish("drain.x", "x".into()).await?;
    }
    other.drain().await?;
    let mut count = 0;
    while count < 100 {
        tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
        count += 1;
    }
    check!(other.publish("drain.x", "x".into()).await.is_err() || other.flush().await.is_err(), "published after the end");
    Ok(())
}

/// The server has seen everything that this client sent before.
async fn ready(client: &async_nats::Client) -> Outcome {
    let inbox = client.new_inbox();
    let mut sub = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, "".into()).await?;
    tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
    Ok(())
}

pub(crate) async fn large_payloads_pass_and_too_large_ones_do_not(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let max = client.server_info().max_payload;
    same!(max, 1024 * 1024);
    let mut sub = client.subscribe("large.x").await?;
    client.publish("large.x", vec![7; max].into()).await?;
    let message = tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
    check!(message.payload.len() == max && message.payload.iter().all(|byte| *byte == 7), "another payload");
    let error = client.publish("large.x", vec![7; max + 1].into()).await.err().ok_or("accepted")?;
    same!(error.kind(), async_nats::client::PublishErrorKind::MaxPayloadExceeded);
    Ok(())
}

pub(crate) async fn many_messages_in_order(server: Arc<Server>) -> Outcome {
    const COUNT: u64 = 50_000;
    let (publisher, subscriber) = (server.client().await?, server.client().await?);
    let mut sub = subscriber.subscribe("many.>").await?;
    ready(&subscriber).await?;
    tokio::spawn(async move {
        for n in 0..COUNT {
            let _ = publisher.publish(format!("many.{}", n % 10), n.to_string().into()).await;
        }
        let _ = publisher.flush().await;
    });
    for n in 0..COUNT {
        let message = tokio::time::timeout(SOON, sub.next()).await?.ok_or("closed")?;
        same!(&message.payload[..], n.to_string().as_bytes());
    }
    Ok(())
}

pub(crate) async fn services_are_found_and_answer(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let service = client.service_builder().description("adds").start("adder", "1.0.0").await?;
    let mut endpoint = service.group("v1").endpoint("add").await?;
    tokio::spawn(async move {
        while let Some(request) = endpoint.next().await {
            let _ = request.respond(Ok("42".into())).await;
        }
    });
    let other = server.client().await?;
    let answer = tokio::time::timeout(SOON, other.request("v1.add", "40 2".into())).await??;
    same!(&answer.payload[..], b"42");
    for verb in ["PING", "INFO", "STATS"] {
        let found = tokio::time::timeout(SOON, other.request(format!("$SRV.{verb}.adder"), "".into())).await??;
        let found: serde_json::Value = serde_json::from_slice(&found.payload)?;
        same!((verb, found["name"].as_str()), (verb, Some("adder")));
    }
    Ok(())
}

pub(crate) async fn what_the_server_says_of_itself(server: Arc<Server>) -> Outcome {
    let client = server.client().await?;
    let info = client.server_info();
    check!(client.is_server_compatible(2, 9, 0), "version {}", info.version);
    same!((info.headers, info.proto, info.port), (true, 1, server.port));
    check!(info.client_id > 0 && info.client_ip == "127.0.0.1", "{info:?}");
    same!(info.server_id.len(), 56);
    Ok(())
}
