//! Syslog over TCP against receivers that misbehave as real ones do: half open, reset in a frame, closed at once.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bartizan_bus::StreamName;
use bartizan_forward::{DurationSetting, Forwarder, Framing, SinkConfig, SinkState};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use common::{DEADLINE, alert, expected_json, open_bus, publish, syslog, syslog_config, until};

/// Reads whole frames strictly, to the end of the connection or until `count` have come. What is not a frame panics.
async fn read_frames(stream: &mut TcpStream, framing: Framing, count: usize) -> Vec<String> {
    tokio::time::timeout(DEADLINE, read_frames_unbounded(stream, framing, count)).await.expect("frames come")
}

async fn read_frames_unbounded(stream: &mut TcpStream, framing: Framing, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    loop {
        while frames.len() < count {
            let end = match framing {
                Framing::OctetCounted => {
                    let Some(space) = bytes.iter().position(|b| *b == b' ') else { break };
                    let length: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().expect("a frame begins with its length");
                    bytes.drain(..=space).for_each(drop);
                    while bytes.len() < length {
                        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                            return frames;
                        }
                    }
                    length
                }
                Framing::Lf => match bytes.iter().position(|b| *b == b'\n') {
                    Some(end) => end,
                    None => break,
                },
            };
            frames.push(String::from_utf8(bytes.drain(..end).collect()).unwrap());
            if framing == Framing::Lf {
                bytes.remove(0);
            }
        }
        if frames.len() == count || stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return frames;
        }
    }
}

/// The JSON behind a frame's structured data.
fn json(frame: &str) -> serde_json::Value {
    let (_, json) = frame.split_once("] {").unwrap_or_else(|| panic!("no JSON in {frame}"));
    serde_json::from_str(&format!("{{{json}")).unwrap_or_else(|error| panic!("{error} in {frame}"))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(DEADLINE, listener.accept()).await.expect("the sink connects").unwrap().0
}

struct Rig {
    _dir: tempfile::TempDir,
    bus: bartizan_bus::Bus,
    listener: TcpListener,
    config: SinkConfig,
}

async fn rig(listener: TcpListener) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    let config = syslog_config(&listener.local_addr().unwrap().to_string());
    Rig { _dir: dir, bus, listener, config }
}

impl Rig {
    fn forwarder(&self) -> Forwarder {
        Forwarder::new(&self.config, self.bus.stream(StreamName::Alerts).clone(), 7).unwrap()
    }
}

#[tokio::test]
async fn both_framings_carry_the_same_json_over_ipv4_ipv6_and_a_name() {
    for (bind, framing, name) in
        [("127.0.0.1:0", Framing::OctetCounted, None), ("[::1]:0", Framing::Lf, None), ("127.0.0.1:0", Framing::Lf, Some("localhost"))]
    {
        let mut rig = rig(TcpListener::bind(bind).await.unwrap()).await;
        syslog(&mut rig.config).framing = framing;
        if let Some(name) = name {
            let port = rig.listener.local_addr().unwrap().port();
            rig.config.address = bartizan_forward::Address::try_from(format!("{name}:{port}")).unwrap();
        }
        publish(&rig.bus, 1..=20);
        let forwarder = rig.forwarder();
        let status = forwarder.status();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(forwarder.run(stopped));
        let mut peer = accept(&rig.listener).await;
        let frames = read_frames(&mut peer, framing, 20).await;
        for (frame, seq) in frames.iter().zip(1..) {
            assert_eq!(json(frame), expected_json(&alert(seq), seq));
        }
        let now = until(&status, "everything confirmed", |now| now.cursor == 20).await;
        assert_eq!((now.kind, now.shrunk), ("syslog", 0));
        stop.send_replace(true);
        running.await.unwrap().unwrap();
        assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the sink says goodbye");
    }
}

#[tokio::test]
async fn a_receiver_that_closes_right_after_accept_confirms_nothing() {
    let rig = rig(TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
    publish(&rig.bus, 1..=5);
    let forwarder = rig.forwarder();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    for _ in 0..4 {
        drop(accept(&rig.listener).await);
    }
    let now = until(&status, "four failures", |now| now.failed_attempts >= 4).await;
    assert_eq!((now.confirmed, now.cursor, now.lag), (0, 0, 5));
    let mut peer = accept(&rig.listener).await;
    let frames = read_frames(&mut peer, Framing::OctetCounted, 5).await;
    assert!(frames.iter().map(|frame| json(frame)["seq"].as_u64().unwrap()).eq(1..=5));
    until(&status, "everything confirmed", |now| now.cursor == 5).await;
    running.abort();
}

#[tokio::test]
async fn a_receiver_that_reads_and_closes_within_the_grace_period_gets_everything_again() {
    let rig = {
        let mut rig = rig(TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
        // Longer than any pause of this test, so that the first connection ends within it.
        syslog(&mut rig.config).confirm_after = DurationSetting(Duration::from_secs(5));
        rig
    };
    publish(&rig.bus, 1..=5);
    let forwarder = rig.forwarder();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let mut first = accept(&rig.listener).await;
    assert_eq!(read_frames(&mut first, Framing::OctetCounted, 5).await.len(), 5);
    drop(first);
    let mut second = accept(&rig.listener).await;
    let frames = read_frames(&mut second, Framing::OctetCounted, 5).await;
    assert!(frames.iter().map(|frame| json(frame)["seq"].as_u64().unwrap()).eq(1..=5));
    let now = until(&status, "everything confirmed", |now| now.cursor == 5).await;
    assert_eq!((now.confirmed, now.resent, now.sent), (5, 5, 10));
    running.abort();
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_frame_loses_nothing() {
    let rig = rig(TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
    publish(&rig.bus, 1..=500);
    let forwarder = rig.forwarder();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let mut first = accept(&rig.listener).await;
    let mut part = vec![0; 10_001];
    first.read_exact(&mut part).await.unwrap();
    // Bytes are unread and lingering is off: closing sends RST.
    setsockopt(&first, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(first);
    let mut second = accept(&rig.listener).await;
    let frames = read_frames(&mut second, Framing::OctetCounted, 500).await;
    assert!(frames.iter().map(|frame| json(frame)["seq"].as_u64().unwrap()).eq(1..=500), "in order from the first");
    until(&status, "everything confirmed", |now| now.cursor == 500).await;
    running.abort();
}

#[tokio::test]
async fn a_receiver_that_accepts_and_never_reads_is_left_and_its_alerts_are_sent_again() {
    // A small buffer at the receiver, so that its kernel soon takes no more.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut rig = rig(socket.listen(8).unwrap()).await;
    syslog(&mut rig.config).write_timeout = DurationSetting(Duration::from_secs(1));
    // What such a receiver's kernel acknowledged must not be confirmed before the stall is noticed.
    syslog(&mut rig.config).confirm_after = DurationSetting(Duration::from_secs(20));
    publish(&rig.bus, 1..=3000);
    let forwarder = rig.forwarder();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let first = accept(&rig.listener).await;
    let now = until(&status, "the stall", |now| now.failed_attempts >= 1).await;
    assert!(now.last_error.is_some());
    assert_eq!(now.confirmed, 0);
    let mut second = accept(&rig.listener).await;
    let frames = read_frames(&mut second, Framing::OctetCounted, 3000).await;
    let seqs: BTreeSet<u64> = frames.iter().map(|frame| json(frame)["seq"].as_u64().unwrap()).collect();
    assert!(seqs.into_iter().eq(1..=3000));
    drop(first);
    running.abort();
}

#[tokio::test]
async fn alerts_are_delivered_once_somebody_listens() {
    let rig = rig(TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
    let address = rig.listener.local_addr().unwrap();
    drop(rig.listener);
    publish(&rig.bus, 1..=5);
    let forwarder = Forwarder::new(&rig.config, rig.bus.stream(StreamName::Alerts).clone(), 7).unwrap();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let now = until(&status, "three failed attempts", |now| now.failed_attempts >= 3).await;
    assert!(now.last_error.unwrap().contains(&address.to_string()));
    assert_eq!((now.lag, now.confirmed), (5, 0));
    let listener = TcpListener::bind(address).await.unwrap();
    let mut peer = accept(&listener).await;
    assert_eq!(read_frames(&mut peer, Framing::OctetCounted, 5).await.len(), 5);
    let now = until(&status, "everything confirmed", |now| now.cursor == 5).await;
    assert_eq!((now.state, now.failed_attempts, now.next_retry), (SinkState::Connected, 0, None));
    running.abort();
}
