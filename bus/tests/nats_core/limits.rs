//! What there is too much of, or too little.

use std::time::Duration;

use bartizan_bus::nats::{CloseReason, ServerConfig};

use crate::server::{Kind, Server, config};
use crate::wire::EOF;
use crate::{Outcome, Test, same, tests};

pub(crate) fn tests() -> impl IntoIterator<Item = Test> {
    tests!(
        limits::max_connections,
        limits::max_subscriptions,
        limits::max_control_line,
        limits::max_control_line_without_an_end,
        limits::max_payload,
        limits::max_payload_while_it_comes,
        limits::stale,
        limits::pongs_keep_it,
        limits::who_does_not_read,
        limits::who_does_not_read_and_is_told_to_go,
        limits::the_end_is_seen_by_who_was_sent_away,
        limits::queue_members_share,
        limits::headers_for_one_and_not_for_the_other,
        limits::a_dead_member_loses_nothing_for_its_group,
        limits::what_the_server_says_of_itself,
    )
}

pub(crate) async fn max_connections(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_connections: 2, ..config() }).await?;
    let mut first = server.client("").await?;
    let mut second = server.client("").await?;
    first.silent().await?;
    second.silent().await?;
    let mut third = server.wire().await?;
    third.expect(&format!("INFO\r\n-ERR 'maximum connections exceeded'\r\n{EOF}")).await?;
    server.counted(CloseReason::TooMany).await?;
    first.silent().await?;
    drop(second);
    // Once the server has seen that one is gone, there is room.
    for _ in 0..500 {
        let mut again = server.wire().await?;
        again.expect("INFO\r\n").await?;
        if again.says("PING\r\n", "PONG\r\n").await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("there is no room after one has gone".into())
}

pub(crate) async fn max_subscriptions(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_subscriptions: 2, ..config() }).await?;
    let mut wire = server.client("").await?;
    wire.says("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nPING\r\n", "-ERR 'maximum subscriptions exceeded'\r\nPONG\r\n").await?;
    wire.says("UNSUB 1\r\nSUB c 3\r\nPUB c 1\r\nx\r\nPUB a 1\r\nx\r\nPING\r\n", "MSG c 3 1\r\nx\r\nPONG\r\n").await?;
    // Those that end by their count make room, also when nobody asks for them again.
    wire.says("UNSUB 3 2\r\nPUB c 1\r\nx\r\nPING\r\n", "MSG c 3 1\r\nx\r\nPONG\r\n").await?;
    for n in 4..10 {
        let expected = format!("MSG d {n} 1\r\nx\r\n");
        wire.send(format!("SUB d {n}\r\nUNSUB {n} 1\r\n")).await?;
        server.client("").await?.says("PUB d 1\r\nx\r\nPING\r\n", "PONG\r\n").await?;
        wire.expect(&expected).await?;
    }
    wire.silent().await
}

const TOO_LONG: &str = "-ERR 'maximum control line exceeded'\r\n<EOF>";

pub(crate) async fn max_control_line(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_control_line: 1024, ..config() }).await?;
    let mut wire = server.client("").await?;
    // Subject, blank and sid make 1,024: as long as it may be.
    let subject = "a".repeat(1022);
    wire.says(&format!("SUB {subject} 1\r\nPUB {subject} 1\r\nx\r\n"), &format!("MSG {subject} 1 1\r\nx\r\n")).await?;
    wire.says(&format!("SUB {subject}a 1\r\nPING\r\n"), TOO_LONG).await
}

pub(crate) async fn max_control_line_without_an_end(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_control_line: 1024, ..config() }).await?;
    let mut wire = server.client("").await?;
    wire.says(&format!("SUB {}", "a".repeat(1100)), TOO_LONG).await
}

pub(crate) async fn max_payload(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_payload: 100, ..config() }).await?;
    let mut wire = server.client("").await?;
    same!(wire.info["max_payload"], 100);
    let most = "x".repeat(100);
    wire.says(&format!("SUB a 1\r\nPUB a 100\r\n{most}\r\n"), &format!("MSG a 1 100\r\n{most}\r\n")).await?;
    let message = format!("12 100\r\nNATS/1.0\r\n\r\n{}\r\n", &most[12..]);
    wire.says(&format!("HPUB a {message}"), &format!("HMSG a 1 {message}")).await?;
    wire.says("PUB a 101\r\n", &format!("-ERR 'Maximum Payload Violation'\r\n{EOF}")).await
}

/// The client is told why, although more of what it says is still under way.
pub(crate) async fn max_payload_while_it_comes(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_payload: 100, ..config() }).await?;
    for _ in 0..20 {
        let mut wire = server.client("").await?;
        wire.silent().await?;
        wire.says(&format!("PUB a 3000\r\n{}\r\n", "x".repeat(3000)), &format!("-ERR 'Maximum Payload Violation'\r\n{EOF}")).await?;
    }
    Ok(())
}

pub(crate) async fn stale(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { ping_interval: Duration::from_millis(200), ping_max: 2, ..config() }).await?;
    let mut wire = server.client("").await?;
    wire.answers_pings = false;
    wire.silent().await?;
    wire.expect(&format!("-ERR 'Stale Connection'\r\n{EOF}")).await?;
    same!(wire.pings >= 2, true);
    server.counted(CloseReason::Stale).await
}

pub(crate) async fn pongs_keep_it(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { ping_interval: Duration::from_millis(500), ping_max: 3, ..config() }).await?;
    let mut wire = server.client("").await?;
    wire.silent().await?;
    wire.shows_pings = true;
    // More than it would get without its answers.
    while wire.pings < 5 {
        same!(wire.unit().await?, "PING\r\n");
    }
    wire.shows_pings = false;
    wire.silent().await
}

/// Much for a subscriber that reads nothing: it is sent away, its publisher and others go on.
pub(crate) async fn who_does_not_read(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_pending: 4 << 20, ..config() }).await?;
    let mut slow = server.client("").await?;
    slow.says("SUB much 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut other = server.client("").await?;
    other.says("SUB few 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut publisher = server.client("").await?;
    let message = format!("PUB much 1000000\r\n{}\r\n", "x".repeat(1_000_000));
    // 40 MB, beyond what the sockets' own buffers take.
    for _ in 0..40 {
        publisher.send(&message).await?;
    }
    publisher.silent().await?;
    publisher.says("PUB few 1\r\nx\r\nPING\r\n", "PONG\r\n").await?;
    other.expect("MSG few 1 1\r\nx\r\n").await?;
    server.counted(CloseReason::SlowConsumerPending).await?;
    // What had been sent may be read; then it ends.
    same!(slow.end().await? < 40_000_000, true);
    Ok(())
}

/// A client that has much to read, reads nothing and does what is forbidden: what it is told cannot reach it, and it is gone all the same.
pub(crate) async fn who_does_not_read_and_is_told_to_go(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { max_connections: 2, write_deadline: Duration::from_secs(50), ..config() }).await?;
    let mut slow = server.client("").await?;
    slow.says("SUB much 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut publisher = server.client("").await?;
    let message = format!("PUB much 1000000\r\n{}\r\n", "x".repeat(1_000_000));
    for _ in 0..20 {
        publisher.send(&message).await?;
    }
    publisher.silent().await?;
    slow.send("FOO\r\n").await?;
    // There were two; when there is room for one more, the first is gone.
    let mut come = false;
    for _ in 0..500 {
        let mut again = server.wire().await?;
        again.expect("INFO\r\n").await?;
        come = again.says("PING\r\n", "PONG\r\n").await.is_ok();
        if come {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    same!(come, true);
    // And its socket is closed too: what was under way can be read, and then it ends well before the write deadline.
    same!(slow.end().await? > 0, true);
    Ok(())
}

/// Another connection has published to it and is idle now: the socket of who was sent away is closed all the same.
pub(crate) async fn the_end_is_seen_by_who_was_sent_away(kind: Kind) -> Outcome {
    let server = Server::start(kind, config()).await?;
    let mut wire = server.client("").await?;
    wire.says("SUB foo 1\r\nPING\r\n", "PONG\r\n").await?;
    let mut other = server.client("").await?;
    other.says("PUB foo 1\r\nx\r\nPING\r\n", "PONG\r\n").await?;
    wire.expect("MSG foo 1 1\r\nx\r\n").await?;
    wire.says("FOO\r\n", &format!("-ERR 'Unknown Protocol Operation'\r\n{EOF}")).await?;
    other.silent().await
}

pub(crate) async fn queue_members_share(kind: Kind) -> Outcome {
    let server = Server::start(kind, config()).await?;
    let mut members = [server.client("").await?, server.client("").await?, server.client("").await?];
    for member in &mut members {
        member.says("SUB work.* g 1\r\nPING\r\n", "PONG\r\n").await?;
    }
    let mut publisher = server.client("").await?;
    publisher.says(&format!("{}PING\r\n", "PUB work.x 1\r\nx\r\n".repeat(300)), "PONG\r\n").await?;
    let mut shares = Vec::new();
    for member in &mut members {
        member.send("PING\r\n").await?;
        let mut share = 0;
        while member.unit().await? == "MSG work.x 1 1\r\nx\r\n" {
            share += 1;
        }
        shares.push(share);
    }
    same!(shares.iter().sum::<u32>(), 300);
    // 100 each on average; less than 40 is what chance does not do.
    same!((shares.iter().all(|share| *share > 40), shares.clone()), (true, shares.clone()));
    Ok(())
}

pub(crate) async fn headers_for_one_and_not_for_the_other(kind: Kind) -> Outcome {
    let server = Server::start(kind, config()).await?;
    let (mut with, mut without) = (server.client("").await?, server.wire().await?);
    without.expect("INFO\r\n").await?;
    without.says("CONNECT {\"verbose\":false,\"headers\":false}\r\nSUB h 3\r\nPING\r\n", "PONG\r\n").await?;
    with.says("SUB h 9\r\nPING\r\n", "PONG\r\n").await?;
    let mut publisher = server.client("").await?;
    publisher.send("HPUB h r 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n").await?;
    with.expect("HMSG h 9 r 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n").await?;
    without.expect("MSG h 3 r 5\r\nhello\r\n").await
}

pub(crate) async fn a_dead_member_loses_nothing_for_its_group(kind: Kind) -> Outcome {
    let server = Server::start(kind, config()).await?;
    let (mut going, mut staying, mut publisher) = (server.client("").await?, server.client("").await?, server.client("").await?);
    going.says("SUB w g 1\r\nPING\r\n", "PONG\r\n").await?;
    staying.says("SUB w g 1\r\nPING\r\n", "PONG\r\n").await?;
    going.says("FOO\r\n", &format!("-ERR 'Unknown Protocol Operation'\r\n{EOF}")).await?;
    publisher.says(&format!("{}PING\r\n", "PUB w 1\r\nx\r\n".repeat(50)), "PONG\r\n").await?;
    staying.expect(&"MSG w 1 1\r\nx\r\n".repeat(50)).await?;
    staying.silent().await
}

pub(crate) async fn what_the_server_says_of_itself(kind: Kind) -> Outcome {
    let server = Server::start(kind, ServerConfig { name: "one".to_owned(), ..config() }).await?;
    let mut wire = server.wire().await?;
    wire.expect("INFO\r\n").await?;
    let info = wire.info.clone();
    same!((info["server_name"].as_str(), info["proto"].as_u64(), info["headers"].as_bool()), (Some("one"), Some(1), Some(true)));
    same!((info["port"].as_u64(), info["max_payload"].as_u64()), (Some(u64::from(server.address.port())), Some(1 << 20)));
    same!((info["jetstream"].as_bool(), info["client_ip"].as_str()), (Some(true), Some("127.0.0.1")));
    same!(info["server_id"].as_str().map(|id| (id.len(), id.starts_with('N'))), Some((56, true)));
    for absent in ["auth_required", "tls_required", "tls_verify", "tls_available", "nonce", "ldm", "connect_urls", "connect_info"] {
        same!((absent, info.get(absent)), (absent, None));
    }
    let version: Vec<u64> = info["version"].as_str().unwrap_or_default().split('.').filter_map(|part| part.parse().ok()).collect();
    same!((version.len(), version.first(), version.get(1) >= Some(&10)), (3, Some(&2), true));
    wire.says("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n", "PONG\r\nINFO\r\n").await?;
    let second = wire.info.clone();
    same!((second["connect_info"].as_bool(), second["remote_account"].as_str()), (Some(true), Some("$G")));
    same!((&second["client_id"], &second["server_id"]), (&info["client_id"], &info["server_id"]));
    Ok(())
}
