//! `bartizan bus serve`: NATS and metrics on the same numbers, from the first client to the end by SIGTERM.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fixture::{DEADLINE, Run, bartizan};

/// It does not outlive the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Server {
    running: Running,
    nats: SocketAddr,
    metrics: SocketAddr,
    _folder: tempfile::TempDir,
}

fn serve() -> Server {
    let folder = tempfile::tempdir().expect("temp folder");
    let mut command = bartizan(&["bus", "serve", "--no-auth", "--listen=127.0.0.1:0", "--metrics=127.0.0.1:0"]);
    command.arg("--data-dir").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("the program starts"));
    // Its log is on standard error, too.
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut after = |start: &str| {
        let rest = lines.find_map(|line| line.strip_prefix(start).map(str::to_owned)).expect("it says where it listens");
        rest.split(['/', ',']).next().expect("an address").parse().expect("an address")
    };
    let metrics = after("metrics on http://");
    let nats = after("listening on ");
    Server { running, nats, metrics, _folder: folder }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("deadline");
    stream
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = connect(address);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").expect("ask");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("answer");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    page
}

fn number(page: &str, metric: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {metric} in\n{page}")).parse().expect("a number")
}

/// A client's first words: it asks for a stream, and listens for the answer.
fn create(name: &str, subjects: &str) -> String {
    let stream = format!(r#"{{"name":"{name}","subjects":["{subjects}"]}}"#);
    let len = stream.len();
    format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.CREATE.{name} answer {len}\r\n{stream}\r\n")
}

#[test]
fn metrics_count_what_clients_do() {
    let mut server = serve();
    assert_eq!(number(&scrape(server.metrics), "bartizan_nats_connections"), 0);

    let mut client = connect(server.nats);
    let publish = format!("{}PUB s.a 5\r\nhello\r\nPING\r\n", create("S", "s.>"));
    client.write_all(publish.as_bytes()).expect("publish");
    let mut answers = BufReader::new(client.try_clone().expect("clone")).lines().map(|line| line.expect("text"));
    assert!(answers.any(|line| line == "PONG"), "it answers");

    let page = scrape(server.metrics);
    assert_eq!(number(&page, "bartizan_nats_connections"), 1);
    assert_eq!(number(&page, "bartizan_nats_received_messages_total"), 2);
    assert_eq!(number(&page, "bartizan_jetstream_stream_messages{stream=\"S\"}"), 1);
    assert_eq!(number(&page, "bartizan_jetstream_stream_refused_publications_total{stream=\"S\"}"), 0);

    kill(Pid::from_raw(server.running.0.id().cast_signed()), Signal::SIGTERM).expect("signal");
    assert!(server.running.0.wait().expect("it ends").success());
}

#[test]
fn names_of_the_sensors_streams_are_not_given_away() {
    let server = serve();
    let mut client = connect(server.nats);
    client.write_all(create("EVENTS", "mine.>").as_bytes()).expect("ask");
    let mut answers = BufReader::new(client).lines().map(|line| line.expect("text"));
    let answer = answers.find(|line| line.starts_with('{')).expect("an answer");
    assert!(answer.contains("\"err_code\":10052") && answer.contains("the name EVENTS belongs to a stream of the sensor"), "{answer}");
}

#[test]
fn nobody_is_asked_and_somebody_is_cannot_both_be() {
    let folder = tempfile::tempdir().expect("temp folder");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[[nats.users]]\nname = \"a\"\nnkey = \"U\"\n").expect("write");
    let mut command = bartizan(&["bus", "serve", "--no-auth", "--listen=127.0.0.1:0"]);
    let run = Run::of(command.arg("--config").arg(&config).arg("--data-dir").arg(folder.path().join("data")));
    assert_eq!(run.code, Some(64), "{}", run.stderr);
    assert!(run.stderr.contains("nats.no_auth (--no-auth) and nats.users"), "{}", run.stderr);
}

#[test]
fn an_address_for_metrics_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = taken.local_addr().expect("address");
    let folder = tempfile::tempdir().expect("temp folder");
    let mut command = bartizan(&["bus", "serve", "--no-auth", "--listen=127.0.0.1:0"]);
    let run = Run::of(command.arg(format!("--metrics={address}")).arg("--data-dir").arg(folder.path()));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("cannot serve metrics on {address}: Address already in use")), "{}", run.stderr);
}
