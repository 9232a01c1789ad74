//! A client that asks for more than it reads gets all of it, at its own pace: what waits for it in the server stays bounded, and its
//! connection does not end as that of a slow consumer. Pull, push without flow control, and a batch of direct gets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use bartizan_bus::edge::{Edge, EdgeConfig};
use bartizan_bus::nats::ServerConfig;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MESSAGES: u64 = 4_000;
const SIZE: usize = 8 * 1024;
/// Half of what the stream has.
const MAX_PENDING: usize = 16 * 1024 * 1024;
/// The server stops at 8 MiB and a message; TLS and sockets have buffers of their own.
const MOST_WAITING: u64 = 8 * 1024 * 1024 + 64 * 1024;

/// A client without a library.
struct Client {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
}

/// What a server sends: the first line, and what comes with it.
struct Said {
    line: String,
    content: Vec<u8>,
}

impl Said {
    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.content).contains(text)
    }
}

impl Client {
    fn new(edge: &Edge) -> Result<Self, Failure> {
        let socket = TcpStream::connect(edge.server().local_addr())?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self { reader: BufReader::new(socket.try_clone()?), socket };
        client.send("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB answer.> 1\r\n")?;
        Ok(client)
    }

    fn send(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.socket.write_all(text.as_bytes())?)
    }

    fn publish(&mut self, subject: &str, reply: &str, body: &str) -> Result<(), Failure> {
        self.send(&format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()))
    }

    fn next(&mut self) -> Result<Said, Failure> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err("the server closed the connection".into());
            }
            match line.split_whitespace().next() {
                Some("PING") => self.send("PONG\r\n")?,
                Some("MSG" | "HMSG") => {
                    let size: usize = line.split_whitespace().next_back().ok_or("no size")?.parse()?;
                    let mut content = vec![0; size + 2];
                    self.reader.read_exact(&mut content)?;
                    return Ok(Said { line, content });
                }
                Some("-ERR") => return Err(line.into()),
                _ => {}
            }
        }
    }

    fn request(&mut self, api: &str, body: &str) -> Result<(), Failure> {
        self.publish(&format!("$JS.API.{api}"), "answer.api", body)?;
        let said = self.next()?;
        if said.has("\"error\"") { Err(String::from_utf8_lossy(&said.content).into()) } else { Ok(()) }
    }
}

/// Waits until no more is put into the client's queue; gives the most that was in it.
fn settled(edge: &Edge) -> u64 {
    let pending = || edge.server().stats().connections.iter().map(|connection| connection.pending_bytes).max().unwrap_or(0);
    let sent = || edge.server().stats().out_msgs;
    let end = Instant::now() + Duration::from_secs(30);
    let (mut before, mut most) = (sent(), pending());
    loop {
        std::thread::sleep(Duration::from_millis(300));
        most = most.max(pending());
        let now = sent();
        if now == before && most > MOST_WAITING / 4 || Instant::now() > end {
            return most;
        }
        before = now;
    }
}

#[test]
fn who_reads_slowly_gets_all_of_it() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = ServerConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), max_pending: MAX_PENDING, ..ServerConfig::default() };
    let edge = {
        let _guard = runtime.enter();
        Edge::start(EdgeConfig { server, ..EdgeConfig::default() }, dir.path(), None)?
    };
    let mut writer = Client::new(&edge)?;
    writer.request("STREAM.CREATE.BACK", r#"{"name":"BACK","subjects":["back.>"],"storage":"memory","allow_direct":true}"#)?;
    let payload = "x".repeat(SIZE);
    for n in 0..MESSAGES {
        writer.publish(&format!("back.{}", n % 7), "answer.ack", &payload)?;
        writer.next()?;
    }
    // It listens to the same answers, and would not read them.
    drop(writer);

    // Pull.
    let mut client = Client::new(&edge)?;
    client.request("CONSUMER.CREATE.BACK.pull", r#"{"stream_name":"BACK","config":{"name":"pull","ack_policy":"none"}}"#)?;
    client.publish("$JS.API.CONSUMER.MSG.NEXT.BACK.pull", "answer.pull", &format!(r#"{{"batch":{},"no_wait":true}}"#, MESSAGES + 1))?;
    let waiting = settled(&edge);
    assert!(waiting <= MOST_WAITING, "{waiting} bytes wait");
    for n in 1..=MESSAGES {
        let said = client.next()?;
        assert!(said.line.contains(&format!("$JS.ACK.BACK.pull.1.{n}.{n}.")), "{n}: {}", said.line);
    }
    assert!(client.next()?.has("404 No Messages"), "only when there is no more");
    drop(client);

    // Push, without flow control.
    let mut client = Client::new(&edge)?;
    let config = r#"{"stream_name":"BACK","config":{"name":"push","ack_policy":"none","deliver_subject":"answer.push"}}"#;
    client.publish("$JS.API.CONSUMER.CREATE.BACK.push", "answer.api", config)?;
    let waiting = settled(&edge);
    assert!(waiting <= MOST_WAITING, "{waiting} bytes wait");
    let mut got = 0;
    while got < MESSAGES {
        let said = client.next()?;
        if said.line.contains("$JS.ACK.BACK.push.") {
            got += 1;
            assert!(said.line.contains(&format!("$JS.ACK.BACK.push.1.{got}.{got}.")), "{got}: {}", said.line);
        }
    }
    drop(client);

    // Direct: what is left is named, and asked for again.
    let mut client = Client::new(&edge)?;
    let (mut from, mut batches) = (1, 0);
    while from <= MESSAGES {
        client.publish("$JS.API.DIRECT.GET.BACK", "answer.direct", &format!(r#"{{"batch":{MESSAGES},"seq":{from}}}"#))?;
        let waiting = if batches == 0 { settled(&edge) } else { 0 };
        assert!(waiting <= MOST_WAITING, "{waiting} bytes wait");
        batches += 1;
        loop {
            let said = client.next()?;
            if said.has("204 EOB") {
                let left = MESSAGES + 1 - from;
                assert!(said.has(&format!("Nats-Num-Pending: {left}\r\n")), "{left}: {:?}", String::from_utf8_lossy(&said.content));
                break;
            }
            assert!(said.has(&format!("Nats-Sequence: {from}\r\n")), "{from}: {}", said.line);
            from += 1;
        }
    }
    assert!(batches > 1, "all at once");
    drop(client);

    let stats = edge.server().stats();
    assert_eq!(stats.slow_consumers, 0, "{:?}", stats.closed);
    runtime.block_on(edge.close())?;
    Ok(())
}
