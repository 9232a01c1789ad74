//! Delivery to a real rsyslogd: down, killed, restarted, and the engine itself dying in the middle.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bartizan_bus::StreamName;
use bartizan_bus::event::Alert;
use bartizan_forward::{AppName, DEFAULT_MAX_MESSAGE_BYTES, Facility, Forwarder, Framing, SinkConfig, SyslogEncoder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use common::{DEADLINE, alert, expected_json, free_port, message, ms, open_bus, publish, syslog, syslog_config, until};

const RSYSLOGD: &str = "/usr/sbin/rsyslogd";

/// rsyslogd in the foreground with everything of its own in one folder.
struct Rsyslog {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Rsyslog {
    /// Writes the configuration; `global` is put into `global(...)`, `imtcp` into imtcp's `module(...)`.
    fn configured(global: &str, imtcp: &str) -> Self {
        assert!(Path::new(RSYSLOGD).exists(), "{RSYSLOGD} is missing and this test needs the real one: apt-get install rsyslog");
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = dir.path().display();
        // docs/forwarding.md shows the same receiver.
        let config = format!(
            r#"global(workDirectory="{path}" {global})
module(load="imtcp" {imtcp})
template(name="bartizan-json" type="string" string="%msg%\n")
template(name="bartizan-header" type="string" string="%pri%|%timereported:::date-rfc3339%|%hostname%|%app-name%|%msgid%|%structured-data%\n")
ruleset(name="bartizan") {{
  action(type="omfile" file="{path}/alerts.json" template="bartizan-json")
  action(type="omfile" file="{path}/headers" template="bartizan-header")
}}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="bartizan")
"#
        );
        fs::write(dir.path().join("rsyslog.conf"), config).unwrap();
        Self { dir, port, child: None }
    }

    /// Starts it and waits until it listens.
    async fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        // A killed one leaves its pid file behind.
        let _absent = fs::remove_file(path("pid"));
        let log = fs::OpenOptions::new().create(true).append(true).open(path("stderr")).unwrap();
        let child = Command::new(RSYSLOGD)
            .args(["-n", "-f"])
            .arg(path("rsyslog.conf"))
            .arg("-i")
            .arg(path("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let state = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(state.is_none(), "rsyslogd ended: {}", fs::read_to_string(path("stderr")).unwrap());
            assert!(tokio::time::Instant::now() < deadline, "rsyslogd does not listen: {}", fs::read_to_string(path("stderr")).unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal and waits for the end.
    async fn end(&mut self, signal: Signal) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn alerts(&self) -> PathBuf {
        self.dir.path().join("alerts.json")
    }

    fn line_count(&self) -> usize {
        fs::read(self.alerts()).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
    }

    async fn until_lines(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.line_count() < count {
            assert!(tokio::time::Instant::now() < deadline, "{} of {count} lines arrived", self.line_count());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// What rsyslog wrote: each line a JSON object; sequences in the order of arrival. A rsyslogd that was killed may have
/// left one line torn, to which the next one is appended: at most `torn` such lines are taken.
fn received(rsyslog: &Rsyslog, torn: usize) -> Vec<(u64, serde_json::Value)> {
    let text = fs::read_to_string(rsyslog.alerts()).unwrap();
    let mut torn_lines = 0;
    let mut out = Vec::new();
    for line in text.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| {
            torn_lines += 1;
            assert!(torn_lines <= torn, "{error} in {line}");
            let last = line.rfind("{\"id\":\"a1a1").unwrap_or_else(|| panic!("{error} in {line}"));
            serde_json::from_str(&line[last..]).unwrap_or_else(|error| panic!("{error} in {line}"))
        });
        out.push((json["seq"].as_u64().unwrap(), json));
    }
    out
}

/// Every alert from 1 to `last` is there, as it was published; returns how many came more than once.
fn check_complete(received: &[(u64, serde_json::Value)], last: u64) -> u64 {
    let mut times = BTreeMap::new();
    for (seq, json) in received {
        assert_eq!(json, &expected_json(&alert(*seq), *seq));
        *times.entry(*seq).or_insert(0_u64) += 1;
    }
    let missing: Vec<u64> = (1..=last).filter(|seq| !times.contains_key(seq)).collect();
    assert!(missing.is_empty(), "{} alerts are missing: {missing:?}", missing.len());
    assert_eq!(times.len() as u64, last);
    times.values().map(|times| times - 1).sum()
}

/// On each connection alerts come in order; a step back is a new connection.
fn check_order(received: &[(u64, serde_json::Value)], connections: usize) {
    let steps_back = received.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1).count();
    assert!(steps_back < connections, "{steps_back} breaks in the order on {connections} connections");
}

struct Rig {
    dir: tempfile::TempDir,
    config: SinkConfig,
}

impl Rig {
    fn new(rsyslog: &Rsyslog) -> Self {
        let mut config = syslog_config(&rsyslog.address());
        // Ample time for rsyslogd to write what it read, also on a loaded machine: it is what the guarantee rests on.
        syslog(&mut config).confirm_after = ms(2000);
        Self { dir: tempfile::tempdir().unwrap(), config }
    }
}

#[tokio::test]
async fn alerts_arrive_as_they_were_published_in_both_framings() {
    for framing in [Framing::OctetCounted, Framing::Lf] {
        let mut rsyslog = Rsyslog::configured("", "");
        rsyslog.start().await;
        let mut rig = Rig::new(&rsyslog);
        syslog(&mut rig.config).framing = framing;
        syslog(&mut rig.config).facility = Facility::Authpriv;
        let bus = open_bus(rig.dir.path()).await;
        let last = publish(&bus, 1..=100);
        let forwarder = Forwarder::new(&rig.config, bus.stream(StreamName::Alerts).clone(), 1).unwrap();
        let status = forwarder.status();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(forwarder.run(stopped));
        let now = until(&status, "everything confirmed", |now| now.cursor == last).await;
        assert_eq!((now.sent, now.confirmed, now.resent, now.shrunk), (last, last, 0, 0));
        stop.send_replace(true);
        running.await.unwrap().unwrap();
        rsyslog.until_lines(100).await;
        rsyslog.end(Signal::SIGTERM).await;
        let received = received(&rsyslog, 0);
        assert_eq!(check_complete(&received, last), 0);
        check_order(&received, 1);
        let headers = fs::read_to_string(rsyslog.dir.path().join("headers")).unwrap();
        // Alert 1 is medium: authpriv (10) * 8 + warning (4).
        let expected = format!(
            "84|2026-11-23T07:12:01.000000Z|web-01|bartizan|ALERT|[bartizan@32473 id=\"{}\" revision=\"1\" \
             rule=\"runtime_watcher.reverse_shell\" severity=\"medium\"]",
            alert(1).id
        );
        assert_eq!(headers.lines().next().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_receiver_that_is_down_at_first_gets_everything() {
    let mut rsyslog = Rsyslog::configured("", "");
    let rig = Rig::new(&rsyslog);
    let bus = open_bus(rig.dir.path()).await;
    publish(&bus, 1..=200);
    let forwarder = Forwarder::new(&rig.config, bus.stream(StreamName::Alerts).clone(), 2).unwrap();
    let status = forwarder.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let now = until(&status, "two failed attempts", |now| now.failed_attempts >= 2).await;
    assert_eq!((now.confirmed, now.lag), (0, 200));
    let last = publish(&bus, 201..=300);
    rsyslog.start().await;
    until(&status, "everything confirmed", |now| now.cursor == last).await;
    running.abort();
    rsyslog.until_lines(300).await;
    assert_eq!(check_complete(&received(&rsyslog, 0), last), 0);
}

/// Publishes 1,000 alerts a few at a time, ends rsyslogd with `signal` when some have arrived, starts it again when more
/// were published.
async fn interrupted_by(signal: Signal) {
    let mut rsyslog = Rsyslog::configured("", "");
    rsyslog.start().await;
    let rig = Rig::new(&rsyslog);
    let bus = open_bus(rig.dir.path()).await;
    let forwarder = Forwarder::new(&rig.config, bus.stream(StreamName::Alerts).clone(), 3).unwrap();
    let status = forwarder.status();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    let publisher = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for step in 0..100 {
                publish(&bus, step * 10 + 1..=step * 10 + 10);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    rsyslog.until_lines(200).await;
    rsyslog.end(signal).await;
    until(&status, "the loss to be noticed", |now| now.failed_attempts >= 1).await;
    rsyslog.start().await;
    publisher.await.unwrap();
    let now = until(&status, "everything confirmed", |now| now.cursor == 1000).await;
    assert_eq!((now.confirmed, now.lag, now.in_flight), (1000, 0, 0));
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    rsyslog.end(Signal::SIGTERM).await;
    let received = received(&rsyslog, 1);
    let repeated = check_complete(&received, 1000);
    check_order(&received, 2);
    println!("{signal}: 1000 alerts, {repeated} of them twice, {} sent again", now.resent);
    assert!(repeated <= now.resent, "{repeated} came twice and only {} were sent again", now.resent);
}

#[tokio::test]
async fn a_killed_receiver_loses_nothing() {
    interrupted_by(Signal::SIGKILL).await;
}

#[tokio::test]
async fn a_restarted_receiver_loses_nothing() {
    interrupted_by(Signal::SIGTERM).await;
}

#[tokio::test]
async fn an_engine_that_dies_in_the_middle_loses_nothing() {
    let mut rsyslog = Rsyslog::configured("", "");
    rsyslog.start().await;
    let mut rig = Rig::new(&rsyslog);
    syslog(&mut rig.config).confirm_after = ms(100);
    let mut lives = 0;
    for life in 0..10_u64 {
        let bus = open_bus(rig.dir.path()).await;
        let published = publish(&bus, life * 100 + 1..=life * 100 + 100);
        let forwarder = Forwarder::new(&rig.config, bus.stream(StreamName::Alerts).clone(), life + 1).unwrap();
        let status = forwarder.status();
        let (_stop, stopped) = watch::channel(false);
        let running = tokio::spawn(forwarder.run(stopped));
        // Alternately before and after some are confirmed; the last life may finish.
        match life {
            9 => until(&status, "everything confirmed", |now| now.cursor == published).await,
            life if life % 2 == 0 => until(&status, "something sent", |now| now.sent > 0).await,
            _ => until(&status, "something confirmed", |now| now.confirmed > 0).await,
        };
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        lives += 1;
    }
    rsyslog.until_lines(1000).await;
    rsyslog.end(Signal::SIGTERM).await;
    let received = received(&rsyslog, 0);
    let repeated = check_complete(&received, 1000);
    check_order(&received, lives);
    println!("{lives} lives: 1000 alerts, {repeated} repeats");
}

/// An rsyslogd with its own limits.
const STOCK: (&str, &str) = ("", "");

/// Delivers these alerts to a stock or a configured rsyslogd and returns the lines that it wrote.
async fn deliver(alerts: &[Alert], (global, imtcp): (&str, &str), max_message_bytes: usize, lines: usize) -> Vec<String> {
    let mut rsyslog = Rsyslog::configured(global, imtcp);
    rsyslog.start().await;
    let mut rig = Rig::new(&rsyslog);
    syslog(&mut rig.config).max_message_bytes = max_message_bytes;
    syslog(&mut rig.config).confirm_after = ms(50);
    let bus = open_bus(rig.dir.path()).await;
    bus.stream(StreamName::Alerts).append_batch(alerts.iter().map(message).collect()).unwrap();
    let forwarder = Forwarder::new(&rig.config, bus.stream(StreamName::Alerts).clone(), 4).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(forwarder.run(stopped));
    rsyslog.until_lines(lines).await;
    running.abort();
    rsyslog.end(Signal::SIGTERM).await;
    fs::read_to_string(rsyslog.alerts()).unwrap().lines().map(str::to_owned).collect()
}

/// An alert whose message has exactly this many bytes.
fn alert_of_size(bytes: usize) -> Alert {
    let encoder = SyslogEncoder {
        facility: Facility::Local0,
        app_name: AppName::default(),
        process_id: std::process::id(),
        framing: Framing::Lf,
        max_message_bytes: usize::MAX,
    };
    let size = |alert: &Alert| {
        let mut frame = Vec::new();
        encoder.encode(alert, 1, &mut frame);
        frame.len() - 1
    };
    let mut alert = alert(1);
    let missing = bytes - size(&alert);
    alert.explanation.push_str(&"x".repeat(missing));
    assert_eq!(size(&alert), bytes);
    alert
}

#[tokio::test]
async fn a_stock_rsyslog_takes_messages_of_the_default_size_whole_and_not_a_byte_more() {
    let fits = alert_of_size(DEFAULT_MAX_MESSAGE_BYTES);
    let lines = deliver(std::slice::from_ref(&fits), STOCK, DEFAULT_MAX_MESSAGE_BYTES, 1).await;
    assert_eq!(lines.len(), 1);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&lines[0]).unwrap(), expected_json(&fits, 1));

    // With our limit above the receiver's, the receiver cuts: this is why the default is what it is.
    let too_long = alert_of_size(DEFAULT_MAX_MESSAGE_BYTES + 1);
    let lines = deliver(&[too_long], STOCK, DEFAULT_MAX_MESSAGE_BYTES + 1, 1).await;
    assert!(serde_json::from_str::<serde_json::Value>(&lines[0]).is_err(), "{} bytes fit", DEFAULT_MAX_MESSAGE_BYTES + 1);
}

#[tokio::test]
async fn a_megabyte_of_arguments_arrives_shrunk_or_whole_if_both_sides_allow_it() {
    let mut huge = alert(1);
    huge.lineage[0].argv.push("\u{1}\"]\n".repeat(1 << 18));
    let alerts = [huge.clone(), alert(2)];
    let lines = deliver(&alerts, STOCK, DEFAULT_MAX_MESSAGE_BYTES, 2).await;
    assert_eq!(lines.len(), 2);
    let json: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(json["id"], huge.id.to_string());
    assert_eq!(json["shrunk"]["fields"], serde_json::json!(["lineage[2..].argv", "lineage[0..2].argv to 32 arguments of 256 bytes"]));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&lines[1]).unwrap(), expected_json(&alert(2), 2));

    let raised = (r#"maxMessageSize="16m""#, r#"maxFrameSize="16777216""#);
    let lines = deliver(&alerts, raised, 16 << 20, 2).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&lines[0]).unwrap(), expected_json(&huge, 1));
}
