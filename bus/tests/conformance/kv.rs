//! Key-value buckets and object stores, as clients build them on streams.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{self, Operation};
use async_nats::jetstream::object_store;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use crate::server::Server;
use crate::{Failure, Outcome, Test, check, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    use crate::kv;
    tests!(false:
        kv::put_get_delete, kv::create_and_update, kv::history_and_keys, kv::watch_what_is_and_what_comes, kv::purge_forgets,
        kv::values_expire, kv::status_and_deletion, kv::many_keys, kv::objects, kv::a_large_object, kv::objects_watched_and_replaced,
    )
}

async fn bucket(server: &Server, name: &str, history: i64) -> Result<kv::Store, Failure> {
    Ok(server.jetstream().await?.create_key_value(kv::Config { bucket: name.to_owned(), history, ..Default::default() }).await?)
}

pub(crate) async fn put_get_delete(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "basic", 1).await?;
    same!(kv.get("a").await?, None);
    same!(kv.put("a", "1".into()).await?, 1);
    same!(kv.get("a").await?.as_deref(), Some(&b"1"[..]));
    same!(kv.put("a", "2".into()).await?, 2);
    same!(kv.put("b.c/d", "3".into()).await?, 3);
    let entry = kv.entry("a").await?.ok_or("no entry")?;
    same!((entry.revision, entry.operation, &entry.value[..]), (2, Operation::Put, &b"2"[..]));
    kv.delete("a").await?;
    same!(kv.get("a").await?, None);
    same!(kv.entry("a").await?.map(|entry| entry.operation), Some(Operation::Delete));
    same!(kv.get("b.c/d").await?.as_deref(), Some(&b"3"[..]));
    Ok(())
}

pub(crate) async fn create_and_update(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "update", 5).await?;
    let first = kv.create("k", "1".into()).await?;
    same!(kv.create("k", "x".into()).await.err().map(|error| error.kind()), Some(kv::CreateErrorKind::AlreadyExists));
    let second = kv.update("k", "2".into(), first).await?;
    check!(kv.update("k", "x".into(), first).await.is_err(), "an old revision was updated");
    kv.delete_expect_revision("k", Some(second)).await?;
    check!(kv.create("k", "3".into()).await? > second, "not created again after its deletion");
    same!(kv.get("k").await?.as_deref(), Some(&b"3"[..]));
    Ok(())
}

pub(crate) async fn history_and_keys(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "history", 3).await?;
    for n in 0..5 {
        kv.put("a", n.to_string().into()).await?;
        kv.put(format!("b.{n}"), "x".into()).await?;
    }
    kv.delete("b.0").await?;
    let history: Vec<kv::Entry> = kv.history("a").await?.try_collect().await?;
    same!(history.iter().map(|entry| String::from_utf8_lossy(&entry.value).into_owned()).collect::<Vec<_>>(), ["2", "3", "4"]);
    let mut keys: Vec<String> = kv.keys().await?.try_collect().await?;
    keys.sort();
    same!(keys, ["a", "b.1", "b.2", "b.3", "b.4"]);
    same!(kv.entry_for_revision("a", history[0].revision).await?.map(|entry| entry.value), Some("2".into()));
    Ok(())
}

pub(crate) async fn watch_what_is_and_what_comes(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "watch", 1).await?;
    kv.put("a.1", "old".into()).await?;
    kv.put("b.1", "other".into()).await?;
    let mut news = kv.watch("a.*").await?;
    let mut all = kv.watch_with_history("a.>").await?;
    kv.put("a.2", "new".into()).await?;
    kv.put("b.2", "new".into()).await?;
    kv.delete("a.1").await?;
    let expect = |entry: Option<Result<kv::Entry, kv::WatcherError>>, key: &str, operation| -> Outcome {
        let entry = entry.ok_or("ended")??;
        same!((entry.key.as_str(), entry.operation), (key, operation));
        Ok(())
    };
    let soon = Duration::from_secs(5);
    expect(tokio::time::timeout(soon, news.next()).await?, "a.2", Operation::Put)?;
    expect(tokio::time::timeout(soon, news.next()).await?, "a.1", Operation::Delete)?;
    expect(tokio::time::timeout(soon, all.next()).await?, "a.1", Operation::Put)?;
    expect(tokio::time::timeout(soon, all.next()).await?, "a.2", Operation::Put)?;
    expect(tokio::time::timeout(soon, all.next()).await?, "a.1", Operation::Delete)?;
    Ok(())
}

pub(crate) async fn purge_forgets(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "purge", 10).await?;
    for n in 0..5 {
        kv.put("a", n.to_string().into()).await?;
    }
    kv.put("b", "stays".into()).await?;
    kv.purge("a").await?;
    let history: Vec<kv::Entry> = kv.history("a").await?.try_collect().await?;
    same!(history.iter().map(|entry| entry.operation).collect::<Vec<_>>(), [Operation::Purge]);
    same!((kv.get("a").await?, kv.get("b").await?.as_deref()), (None, Some(&b"stays"[..])));
    Ok(())
}

pub(crate) async fn values_expire(server: Arc<Server>) -> Outcome {
    let config = kv::Config { bucket: "expire".into(), max_age: Duration::from_millis(800), ..Default::default() };
    let kv = server.jetstream().await?.create_key_value(config).await?;
    kv.put("a", "1".into()).await?;
    check!(kv.get("a").await?.is_some(), "gone at once");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    same!(kv.get("a").await?, None);
    Ok(())
}

pub(crate) async fn status_and_deletion(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "status", 2).await?;
    kv.put("a", "1".into()).await?;
    let context = server.jetstream().await?;
    let status = context.get_key_value("status").await?.status().await?;
    same!((status.values(), status.history(), status.bucket()), (1, 2, "status"));
    context.delete_key_value("status").await?;
    check!(context.get_key_value("status").await.is_err(), "still there");
    Ok(())
}

pub(crate) async fn many_keys(server: Arc<Server>) -> Outcome {
    let kv = bucket(&server, "many", 1).await?;
    for round in 0..3 {
        for n in 0..500 {
            kv.put(format!("k{n}"), format!("{round}").into()).await?;
        }
    }
    let keys: Vec<String> = kv.keys().await?.try_collect().await?;
    same!(keys.len(), 500);
    for n in [0, 250, 499] {
        same!(kv.get(format!("k{n}")).await?.as_deref(), Some(&b"2"[..]));
    }
    same!(server.jetstream().await?.get_key_value("many").await?.status().await?.values(), 500);
    Ok(())
}

async fn store(server: &Server, name: &str) -> Result<object_store::ObjectStore, Failure> {
    Ok(server.jetstream().await?.create_object_store(object_store::Config { bucket: name.to_owned(), ..Default::default() }).await?)
}

async fn read(store: &object_store::ObjectStore, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    store.get(name).await?.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

pub(crate) async fn objects(server: Arc<Server>) -> Outcome {
    let store = store(&server, "objects").await?;
    let info = store.put("one", &mut &b"first content"[..]).await?;
    same!((info.size, info.chunks), (13, 1));
    store.put("two", &mut &b""[..]).await?;
    same!(read(&store, "one").await?, b"first content");
    same!(read(&store, "two").await?, b"");
    let mut names: Vec<String> = store.list().await?.map_ok(|info| info.name).try_collect().await?;
    names.sort();
    same!(names, ["one", "two"]);
    store.delete("one").await?;
    check!(store.get("one").await.is_err(), "still there");
    check!(store.info("one").await?.deleted, "not marked as deleted");
    Ok(())
}

pub(crate) async fn a_large_object(server: Arc<Server>) -> Outcome {
    let store = store(&server, "large").await?;
    let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let info = store.put("big", &mut &content[..]).await?;
    check!(info.chunks > 30, "{} chunks", info.chunks);
    check!(read(&store, "big").await? == content, "another content");
    Ok(())
}

pub(crate) async fn objects_watched_and_replaced(server: Arc<Server>) -> Outcome {
    let store = store(&server, "replace").await?;
    let mut watch = store.watch().await?;
    store.put("x", &mut &b"one"[..]).await?;
    store.put("x", &mut &b"two!"[..]).await?;
    same!(read(&store, "x").await?, b"two!");
    let soon = Duration::from_secs(5);
    let first = tokio::time::timeout(soon, watch.next()).await?.ok_or("ended")??;
    same!((first.name.as_str(), first.size), ("x", 3));
    let second = tokio::time::timeout(soon, watch.next()).await?.ok_or("ended")??;
    same!(second.size, 4);
    Ok(())
}
