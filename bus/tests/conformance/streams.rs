//! Streams and what is published into them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, ErrorCode};
use futures_util::TryStreamExt;

use crate::server::Server;
use crate::{Outcome, Test, check, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    use crate::streams;
    tests!(false:
        streams::create_describe_update_delete, streams::names_and_lists, streams::errors_have_jetstreams_numbers,
        streams::publish_is_acknowledged_in_order, streams::duplicates_are_told, streams::expectations_are_kept, streams::rollup_replaces,
        streams::limits_delete_the_oldest, streams::discard_new_refuses, streams::age_deletes, streams::messages_are_read_and_deleted,
        streams::direct_get, streams::purge_in_all_forms, streams::a_message_nobody_stores_has_no_responders, streams::thousands_in_flight,
        streams::account_information,
    )
}

async fn made(server: &Server, config: Config) -> Result<(jetstream::Context, jetstream::stream::Stream), crate::Failure> {
    let context = server.jetstream().await?;
    let stream = context.create_stream(config).await?;
    Ok((context, stream))
}

fn named(name: &str) -> Config {
    Config { name: name.to_owned(), subjects: vec![format!("{}.>", name.to_lowercase())], ..Config::default() }
}

fn with(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, *value);
    }
    headers
}

pub(crate) async fn create_describe_update_delete(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, Config { description: Some("one".into()), max_messages: 10, ..named("LIFE") }).await?;
    same!(stream.cached_info().state.messages, 0);
    // Once more the same is fine; another is not.
    context.create_stream(Config { description: Some("one".into()), max_messages: 10, ..named("LIFE") }).await?;
    let error = context.create_stream(Config { max_messages: 11, ..named("LIFE") }).await.err().ok_or("created")?;
    check!(matches!(error.kind(), CreateStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST), "{error:?}");
    for n in 0..20 {
        context.publish(format!("life.{}", n % 2), "x".into()).await?.await?;
    }
    let info = stream.info().await?;
    same!((info.state.messages, info.state.first_sequence, info.state.last_sequence), (10, 11, 20));
    same!(info.state.subjects_count, 2);
    let info = context.update_stream(Config { max_messages: 5, description: Some("two".into()), ..named("LIFE") }).await?;
    same!((info.config.max_messages, info.config.description.as_deref(), info.state.messages), (5, Some("two"), 5));
    let mut subjects = stream.info_with_subjects("life.>").await?;
    let mut counts = Vec::new();
    while let Some(subject) = subjects.try_next().await? {
        counts.push(subject);
    }
    counts.sort();
    same!(counts, [("life.0".to_owned(), 2), ("life.1".to_owned(), 3)]);
    check!(context.delete_stream("LIFE").await?.success, "not deleted");
    check!(context.get_stream("LIFE").await.is_err(), "still there");
    Ok(())
}

pub(crate) async fn names_and_lists(server: Arc<Server>) -> Outcome {
    let (context, _) = made(&server, named("LISTA")).await?;
    context.create_stream(named("LISTB")).await?;
    let names: Vec<String> = context.stream_names().try_collect().await?;
    check!(["LISTA", "LISTB"].iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    let infos: Vec<_> = context.streams().try_collect().await?;
    check!(infos.iter().any(|info| info.config.name == "LISTB"), "{} streams", infos.len());
    same!(context.stream_by_subject("lista.x").await?, "LISTA");
    check!(context.stream_by_subject("listc.x").await.is_err(), "somebody has it");
    Ok(())
}

pub(crate) async fn errors_have_jetstreams_numbers(server: Arc<Server>) -> Outcome {
    let (context, stream) = made(&server, named("ERR")).await?;
    let raw = server.client().await?;
    for (subject, body, code) in [
        ("STREAM.INFO.NOPE", "", 10059),
        ("STREAM.CREATE.X", "{nope", 10025),
        ("STREAM.CREATE.UNK", r#"{"name":"UNK","subjects":["unk"],"bogus_field":1}"#, 10025),
        ("STREAM.CREATE.X", r#"{"name":"Y","subjects":["y"]}"#, 10056),
        ("STREAM.CREATE.R3", r#"{"name":"R3","subjects":["r3"],"num_replicas":3}"#, 10074),
        ("STREAM.CREATE.MA", r#"{"name":"MA","subjects":["ma"],"max_age":1000}"#, 10052),
        ("STREAM.CREATE.OV", r#"{"name":"OV","subjects":["err.a"]}"#, 10065),
        ("CONSUMER.INFO.ERR.nope", "", 10014),
        ("CONSUMER.INFO.NOPE.nope", "", 10059),
        (
            "CONSUMER.CREATE.ERR.zz",
            r#"{"stream_name":"ERR","config":{"durable_name":"zz","ack_policy":"explicit"},"action":"update"}"#,
            10149,
        ),
        ("CONSUMER.CREATE.ERR.a.err.b", r#"{"stream_name":"ERR","config":{"durable_name":"a","filter_subject":"err.a"}}"#, 10131),
        ("CONSUMER.CREATE.ERR", r#"{"stream_name":"ERR","config":{"durable_name":"a"}}"#, 10020),
        ("CONSUMER.CREATE.ERR.p", r#"{"stream_name":"ERR","config":{"name":"p","deliver_subject":"a.*"}}"#, 10079),
        ("CONSUMER.CREATE.ERR.p", r#"{"stream_name":"ERR","config":{"name":"p","deliver_subject":"err.x"}}"#, 10081),
        ("CONSUMER.CREATE.ERR.p", r#"{"stream_name":"ERR","config":{"name":"p","deliver_policy":"by_start_sequence"}}"#, 10094),
        (
            "CONSUMER.CREATE.ERR.p",
            r#"{"stream_name":"ERR","config":{"name":"p","filter_subject":"err.a","filter_subjects":["err.b"]}}"#,
            10136,
        ),
        ("STREAM.MSG.GET.ERR", r#"{"seq":9}"#, 10037),
        ("STREAM.MSG.DELETE.ERR", r#"{"seq":9}"#, 10057),
        ("STREAM.PURGE.ERR", r#"{"seq":1,"keep":1}"#, 10003),
    ] {
        let answer = raw.request(format!("$JS.API.{subject}"), body.into()).await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
        same!((subject, body, answer["error"]["err_code"].as_u64()), (subject, body, Some(code)));
    }
    drop((context, stream));
    Ok(())
}

pub(crate) async fn publish_is_acknowledged_in_order(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, named("PUBS")).await?;
    for n in 1..=100 {
        let ack = context.publish("pubs.x", n.to_string().into()).await?.await?;
        same!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("PUBS", n, false));
    }
    let info = stream.info().await?;
    same!((info.state.messages, info.state.last_sequence), (100, 100));
    check!(info.state.bytes >= 100 * 8, "{} bytes", info.state.bytes);
    Ok(())
}

pub(crate) async fn duplicates_are_told(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, Config { duplicate_window: Duration::from_secs(3), ..named("DUP") }).await?;
    let publish = |id: &'static str| {
        let context = context.clone();
        async move { Ok::<_, crate::Failure>(context.publish_with_headers("dup.x", with(&[("Nats-Msg-Id", id)]), "x".into()).await?.await?) }
    };
    same!((publish("a").await?.duplicate, publish("b").await?.duplicate), (false, false));
    let again = publish("a").await?;
    same!((again.duplicate, again.sequence), (true, 1));
    same!(stream.info().await?.state.messages, 2);
    tokio::time::sleep(Duration::from_millis(4500)).await;
    same!(publish("a").await?.duplicate, false);
    Ok(())
}

pub(crate) async fn expectations_are_kept(server: Arc<Server>) -> Outcome {
    let (context, _) = made(&server, named("EXP")).await?;
    let publish = |subject: &'static str, pairs: &'static [(&'static str, &'static str)]| {
        let context = context.clone();
        async move {
            let ack = context.publish_with_headers(subject, with(pairs), "x".into()).await.map_err(|e| e.to_string())?;
            ack.await.map_err(|error| format!("{:?}", error.kind()))
        }
    };
    same!(publish("exp.a", &[("Nats-Expected-Stream", "EXP"), ("Nats-Msg-Id", "m1")]).await.map(|ack| ack.sequence), Ok(1));
    check!(publish("exp.a", &[("Nats-Expected-Stream", "OTHER")]).await.is_err(), "another stream");
    same!(publish("exp.b", &[("Nats-Expected-Last-Sequence", "1")]).await.map(|ack| ack.sequence), Ok(2));
    same!(
        publish("exp.b", &[("Nats-Expected-Last-Sequence", "1")]).await.err(),
        Some(format!("{:?}", PublishErrorKind::WrongLastSequence))
    );
    same!(publish("exp.a", &[("Nats-Expected-Last-Subject-Sequence", "1")]).await.map(|ack| ack.sequence), Ok(3));
    check!(publish("exp.a", &[("Nats-Expected-Last-Subject-Sequence", "1")]).await.is_err(), "the subject has moved");
    same!(publish("exp.new", &[("Nats-Expected-Last-Subject-Sequence", "0")]).await.map(|ack| ack.sequence), Ok(4));
    check!(publish("exp.a", &[("Nats-Expected-Last-Msg-Id", "m1")]).await.is_err(), "the last message has no id");
    same!(publish("exp.a", &[("Nats-Msg-Id", "m2")]).await.map(|ack| ack.sequence), Ok(5));
    same!(publish("exp.a", &[("Nats-Expected-Last-Msg-Id", "m2")]).await.map(|ack| ack.sequence), Ok(6));
    Ok(())
}

pub(crate) async fn rollup_replaces(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, Config { allow_rollup: true, ..named("ROLL") }).await?;
    for _ in 0..5 {
        context.publish("roll.a", "x".into()).await?.await?;
        context.publish("roll.b", "x".into()).await?.await?;
    }
    context.publish_with_headers("roll.a", with(&[("Nats-Rollup", "sub")]), "all".into()).await?.await?;
    same!(stream.info().await?.state.messages, 6);
    context.publish_with_headers("roll.b", with(&[("Nats-Rollup", "all")]), "all".into()).await?.await?;
    let info = stream.info().await?;
    same!((info.state.messages, info.state.first_sequence), (1, 12));
    Ok(())
}

pub(crate) async fn limits_delete_the_oldest(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, Config { max_messages_per_subject: 2, max_messages: 5, ..named("LIM") }).await?;
    for n in 0..12 {
        context.publish(format!("lim.{}", n % 4), n.to_string().into()).await?.await?;
    }
    let info = stream.info().await?;
    same!((info.state.messages, info.state.first_sequence, info.state.last_sequence), (5, 8, 12));
    let (context, mut stream) = made(&server, Config { max_bytes: 2000, ..named("LIMB") }).await?;
    for _ in 0..50 {
        context.publish("limb.x", vec![0; 100].into()).await?.await?;
    }
    let info = stream.info().await?;
    check!(info.state.bytes <= 2000 && info.state.messages >= 10 && info.state.messages < 20, "{:?}", info.state);
    Ok(())
}

pub(crate) async fn discard_new_refuses(server: Arc<Server>) -> Outcome {
    let config = Config { max_messages: 3, discard: DiscardPolicy::New, ..named("DNEW") };
    let (context, mut stream) = made(&server, config).await?;
    for _ in 0..3 {
        context.publish("dnew.x", "x".into()).await?.await?;
    }
    check!(context.publish("dnew.x", "x".into()).await?.await.is_err(), "a fourth was accepted");
    same!(stream.info().await?.state.messages, 3);
    stream.delete_message(1).await?;
    same!(context.publish("dnew.x", "x".into()).await?.await?.sequence, 4);
    let config = Config { max_message_size: 10, ..named("DSIZE") };
    let (context, _) = made(&server, config).await?;
    check!(context.publish("dsize.x", "more than ten bytes".into()).await?.await.is_err(), "too large");
    Ok(())
}

pub(crate) async fn age_deletes(server: Arc<Server>) -> Outcome {
    let window = Duration::from_millis(100);
    let (context, mut stream) = made(&server, Config { max_age: Duration::from_secs(3), duplicate_window: window, ..named("AGE") }).await?;
    for _ in 0..5 {
        context.publish("age.x", "x".into()).await?.await?;
    }
    same!(stream.info().await?.state.messages, 5);
    tokio::time::sleep(Duration::from_millis(5000)).await;
    let info = stream.info().await?;
    same!((info.state.messages, info.state.first_sequence, info.state.last_sequence), (0, 6, 5));
    Ok(())
}

pub(crate) async fn messages_are_read_and_deleted(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, named("MSGS")).await?;
    for n in 1..=6 {
        context.publish_with_headers(format!("msgs.{}", n % 2), with(&[("N", "x")]), n.to_string().into()).await?.await?;
    }
    let message = stream.get_raw_message(2).await?;
    same!((message.subject.as_str(), message.sequence, &message.payload[..]), ("msgs.0", 2, &b"2"[..]));
    same!(message.headers.get("N").map(|value| value.as_str()), Some("x"));
    same!(stream.get_last_raw_message_by_subject("msgs.1").await?.sequence, 5);
    same!(stream.get_next_raw_message_by_subject("msgs.0").await?.sequence, 2);
    check!(stream.delete_message(4).await?, "not deleted");
    check!(stream.get_raw_message(4).await.is_err(), "still there");
    check!(stream.delete_message(4).await.is_err(), "deleted twice");
    same!(stream.get_first_raw_message_by_subject("msgs.0", 3).await?.sequence, 6);
    let info = stream.info().await?;
    same!((info.state.messages, info.state.deleted_count), (5, Some(1)));
    Ok(())
}

pub(crate) async fn direct_get(server: Arc<Server>) -> Outcome {
    let (context, stream) = made(&server, Config { allow_direct: true, ..named("DIRECT") }).await?;
    for n in 1..=4 {
        context.publish(format!("direct.{}", n % 2), n.to_string().into()).await?.await?;
    }
    let message = stream.direct_get(3).await?;
    same!((message.subject.as_str(), message.sequence, &message.payload[..]), ("direct.1", 3, &b"3"[..]));
    same!(stream.direct_get_last_for_subject("direct.0").await?.sequence, 4);
    same!(stream.direct_get_first_for_subject("direct.0").await?.sequence, 2);
    same!(stream.direct_get_next_for_subject("direct.1", Some(2)).await?.sequence, 3);
    let error = stream.direct_get(9).await.err().ok_or("found")?;
    same!(error.kind(), jetstream::stream::DirectGetErrorKind::NotFound);
    let (_, stream) = made(&server, named("INDIRECT")).await?;
    check!(stream.direct_get(1).await.is_err(), "direct access was not allowed");
    Ok(())
}

pub(crate) async fn purge_in_all_forms(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, named("PURGE")).await?;
    let fill = || async {
        for n in 0..10 {
            context.publish(format!("purge.{}", n % 2), "x".into()).await?.await?;
        }
        Ok::<_, crate::Failure>(())
    };
    fill().await?;
    same!(stream.purge().filter("purge.0").await?.purged, 5);
    same!(stream.purge().sequence(6).await?.purged, 2);
    same!(stream.purge().keep(1).await?.purged, 2);
    same!(stream.info().await?.state.messages, 1);
    fill().await?;
    same!(stream.purge().filter("purge.1").keep(2).await?.purged, 4);
    same!(stream.purge().await?.purged, 7);
    let info = stream.info().await?;
    same!((info.state.messages, info.state.first_sequence, info.state.last_sequence), (0, 21, 20));
    Ok(())
}

pub(crate) async fn a_message_nobody_stores_has_no_responders(server: Arc<Server>) -> Outcome {
    let context = server.jetstream().await?;
    let error = context.publish("stored.nowhere", "x".into()).await?.await.err().ok_or("acknowledged")?;
    same!(error.kind(), PublishErrorKind::StreamNotFound);
    Ok(())
}

pub(crate) async fn thousands_in_flight(server: Arc<Server>) -> Outcome {
    let (context, mut stream) = made(&server, named("FLIGHT")).await?;
    let mut acks = Vec::new();
    for n in 0..5000 {
        acks.push(context.publish("flight.x", n.to_string().into()).await?);
    }
    for (n, ack) in acks.into_iter().enumerate() {
        same!(ack.await?.sequence, n as u64 + 1);
    }
    same!(stream.info().await?.state.messages, 5000);
    Ok(())
}

pub(crate) async fn account_information(server: Arc<Server>) -> Outcome {
    let (context, _) = made(&server, named("ACCOUNT")).await?;
    let account = context.query_account().await?;
    check!(account.streams > 0, "{account:?}");
    Ok(())
}
