//! Accounting under load: what the workload did = what was received + what was counted as lost.
//!
//! The workload counts for itself. On a host where others run programs too, their losses are in the same counters, so the
//! sum may only be larger; with nothing lost, and in a guest where nobody else runs, it must be equal.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use bartizan_tests::{Group, Sensor, victim};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Beginnings of the hooks that these tests are about.
const HOOKS: &[&str] = &["process_", "network_"];

/// Set in the guest of `cargo xtask vm`.
const GUEST: &str = "BARTIZAN_VM";

const THREADS: u64 = 3;

/// Rings so small that a sensor which is stopped must lose.
const SMALL_RINGS: &str = "[sensor]\nring_priority = \"64 KiB\"\nring_bulk = \"64 KiB\"\n";

/// A kind of event and the program that makes it.
type Made = [&'static str; 2];

/// Programs that make accept events, one in each tier or kernel.
const ACCEPT: [&str; 3] = ["sys_exit_accept", "fexit_inet_accept", "fexit_inet_accept_flags"];

/// What `status` counts as lost.
#[derive(Debug, Clone, Copy)]
struct Lost {
    /// Records for which there was no room.
    records: u64,
    /// Runs of the program that the kernel skipped. Each may have been a record, or one of the many runs that make none.
    skipped: u64,
}

/// Losses of a kind and of the program that makes it.
fn lost(status: &Value, [kind, program]: Made) -> Lost {
    let of = |name: &str| {
        let rows = status["kinds"].as_array().into_iter().flatten().filter(|row| row["kind"] == name);
        rows.filter_map(|row| row["lost"].as_object()).flat_map(|lost| lost.values().filter_map(Value::as_u64)).sum()
    };
    Lost { records: of(kind), skipped: of(program) }
}

/// The same, as the events of the stream tell it.
fn told_lost(sensor: &Sensor, names: Made) -> u64 {
    let events = sensor.events_json(&["--kind", "sensor.loss"]);
    let entries = events.iter().flat_map(|event| event["body"]["lost"].as_array().into_iter().flatten());
    entries.filter(|entry| names.iter().any(|name| entry["kind"] == *name)).filter_map(|entry| entry["count"].as_u64()).sum()
}

#[track_caller]
fn balance(what: &str, worked: u64, received: u64, lost: Lost) {
    let Lost { records, skipped } = lost;
    println!("{what}: the workload did {worked}, {received} received, {records} lost, {skipped} runs skipped");
    assert!(received <= worked, "{what}: more was told than was done");
    assert!(worked <= received + records + skipped, "{what}: some went missing without being counted");
    if records + skipped == 0 {
        assert_eq!(worked, received, "{what}: nothing was lost");
    }
    if std::env::var_os(GUEST).is_some() {
        assert!(received + records <= worked, "{what}: nobody else's losses are in the count");
    }
}

/// How often something is done: in the guest, which is emulated, a quarter of what it is here. What must balance does so in any number.
fn times(here: u64) -> u64 {
    if std::env::var_os(GUEST).is_some() { here / 4 } else { here }
}

/// Runs `each` on all threads, `times` times in all; returns how often it succeeded.
fn storm(times: u64, each: impl Fn(u64) -> bool + Sync) -> u64 {
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (each, done) = (&each, &done);
            scope.spawn(move || {
                for index in (thread..times).step_by(THREADS as usize) {
                    if each(index) {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    done.into_inner()
}

const EXEC: Made = ["process.exec", "sched_process_exec"];
const EXIT: Made = ["process.exit", "sched_process_exit"];
const CONNECT: Made = ["network.connect", "inet_sock_set_state"];

fn exec_storm(times: u64, marker: &str) -> u64 {
    storm(times, |_| {
        let mut command = Command::new("/bin/true");
        command.arg(marker).stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

fn count_execs(sensor: &Sensor, marker: &str) -> (u64, u64) {
    let with_marker = |event: &&Value| event["process"]["argv"][1] == marker;
    let execs = sensor.events_json(&["--kind", "process.exec"]).iter().filter(with_marker).count() as u64;
    let exits = sensor.events_json(&["--kind", "process.exit"]).iter().filter(with_marker).count() as u64;
    (execs, exits)
}

#[test]
fn an_exec_storm_balances() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let worked = exec_storm(times(3_000), "storm-exec");
    sensor.settle();
    let (execs, exits) = count_execs(&sensor, "storm-exec");
    let status = sensor.status_json();
    balance("exec", worked, execs, lost(&status, EXEC));
    balance("exit", worked, exits, lost(&status, EXIT));
}

#[test]
fn an_exec_storm_over_a_stopped_sensor_is_lost_by_count() {
    let mut sensor = Sensor::with().hooks(HOOKS).config(SMALL_RINGS).start();
    let pid = Pid::from_raw(sensor.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let worked = exec_storm(600, "storm-stopped");
    kill(pid, Signal::SIGCONT).unwrap();
    // Only a ring with room takes the marker, and this test's own verbs: in its log the sensor says so without any.
    bartizan_tests::wait_until("the first loss in the log", || sensor.log().contains("records were lost"));
    sensor.settle();
    let (execs, _) = count_execs(&sensor, "storm-stopped");
    let (code, status) = sensor.status();
    let lost = lost(&status, EXEC);
    assert!(lost.records > 0, "600 execs fit into 64 KiB? {status:#}");
    balance("exec over a stopped sensor", worked, execs, lost);
    assert_eq!(code, Some(1), "a sensor that lost records just now is degraded");
    bartizan_tests::wait_until("the loss told in the stream", || told_lost(&sensor, EXEC) == lost.records + lost.skipped);
}

fn connect_storm(times: u64, peer: SocketAddr) -> u64 {
    storm(times, |_| TcpStream::connect(peer).is_ok())
}

fn count_connects(sensor: &Sensor, peer: SocketAddr, transport: &str) -> u64 {
    let pid = std::process::id().to_string();
    let events = sensor.events_json(&["--kind", "network.connect", "--pid", &pid]);
    let to_peer = |event: &&Value| {
        let socket = &event["body"]["socket"];
        socket["peer_port"] == peer.port() && socket["transport"] == transport
    };
    events.iter().filter(to_peer).count() as u64
}

/// A listener that takes and drops every connection until its owner goes.
struct Sink {
    address: SocketAddr,
    stop: std::sync::Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sink {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = std::sync::Arc::new(AtomicU64::new(0));
        let seen = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
                if seen.load(Ordering::Acquire) != 0 {
                    return;
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Release);
        // Wakes the listener, which then sees that it should end.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_connect_storm_balances() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let sink = Sink::new();
    let worked = connect_storm(times(6_000), sink.address);
    // Refused ones are attempts too.
    let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let refusals = storm(times(2_000), |_| TcpStream::connect(refused).is_err());
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp_peer = datagrams.local_addr().unwrap();
    let udp = storm(times(2_000), |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.connect(udp_peer)).is_ok());
    sensor.settle();
    let status = sensor.status_json();
    let lost = lost(&status, CONNECT);
    let tcp = count_connects(&sensor, sink.address, "tcp");
    let told_refused = count_connects(&sensor, refused, "tcp");
    let told_udp = count_connects(&sensor, udp_peer, "udp");
    // One counter for all three, so they balance together.
    balance("connect", worked + refusals + udp, tcp + told_refused + told_udp, lost);
    let accepts = sensor.events_json(&["--kind", "network.accept", "--pid", &std::process::id().to_string()]);
    let taken = accepts.iter().filter(|event| event["body"]["socket"]["local_port"] == sink.address.port()).count() as u64;
    let [here, elsewhere, older] = ACCEPT.map(|program| self::lost(&status, ["network.accept", program]));
    let skipped = here.skipped + elsewhere.skipped + older.skipped;
    balance("accept", worked, taken, Lost { records: here.records, skipped });
    for (what, worked, received) in [("tcp", worked, tcp), ("refused", refusals, told_refused), ("udp", udp, told_udp)] {
        let all = lost.records + lost.skipped;
        assert!(received <= worked && worked <= received + all, "{what}: did {worked}, {received} received, {lost:?} in all");
    }
}

#[test]
fn a_connect_storm_over_a_stopped_sensor_is_lost_by_count() {
    let mut sensor = Sensor::with().hooks(HOOKS).config(SMALL_RINGS).start();
    let sink = Sink::new();
    let pid = Pid::from_raw(sensor.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let worked = connect_storm(3_000, sink.address);
    kill(pid, Signal::SIGCONT).unwrap();
    sensor.settle();
    let status = sensor.status_json();
    let lost = lost(&status, CONNECT);
    assert!(lost.records > 0, "3,000 connections fit into 64 KiB? {status:#}");
    balance("connect over a stopped sensor", worked, count_connects(&sensor, sink.address, "tcp"), lost);
}

#[test]
fn a_stop_over_a_backlog_stores_all_of_it_in_a_storm() {
    let mut sensor = Sensor::with().hooks(HOOKS).start();
    let peer_socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = peer_socket.local_addr().unwrap();
    let pid = Pid::from_raw(sensor.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let worked = storm(times(20_000), |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.connect(peer)).is_ok());
    kill(pid, Signal::SIGCONT).unwrap();
    sensor.terminate();
    let lost = told_lost(&sensor, CONNECT);
    balance("connect before a stop", worked, count_connects(&sensor, peer, "udp"), Lost { records: lost, skipped: 0 });
}

#[test]
fn a_storm_of_failed_execs_crowds_out_no_exec() {
    let mut sensor = Sensor::with().hooks(HOOKS).config("[sensor]\nring_bulk = \"64 KiB\"\n").start();
    let pid = Pid::from_raw(sensor.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let tried = times(5_000);
    let failed = storm(tried, |_| nix::unistd::execv(c"/nonexistent/storm", &[c"storm"]).is_err());
    let worked = exec_storm(20, "storm-crowded");
    kill(pid, Signal::SIGCONT).unwrap();
    sensor.settle();
    let (execs, _) = count_execs(&sensor, "storm-crowded");
    assert_eq!((failed, execs), (tried, worked));
    assert!(lost(&sensor.status_json(), EXEC).records > 0, "{tried} failed execs fit into 64 KiB?");
}

/// Beyond the ceiling bulk kinds are left out, by count; what must not be lost never is.
#[test]
fn a_sensor_at_its_cpu_ceiling_sheds_bulk_by_count_in_a_storm() {
    let mut sensor = Sensor::with().hooks(HOOKS).config("[sensor]\ncpu_limit = 1\n").start();
    let sink = Sink::new();
    let shedding = |sensor: &Sensor| sensor.status_json()["cpu"]["shedding"] == true;
    // Ten seconds' worth of one percent are gone soon.
    let mut worked = 0;
    bartizan_tests::wait_until("the ceiling", || {
        worked += connect_storm(200, sink.address);
        shedding(&sensor)
    });
    worked += connect_storm(500, sink.address);
    let execs = exec_storm(20, "storm-ceiling");
    let (code, status) = sensor.status();
    let shed = status["kinds"].as_array().into_iter().flatten().find(|row| row["kind"] == "network.connect");
    assert!(shed.is_some_and(|row| row["lost"]["shed"].as_u64() >= Some(1)), "{status:#}");
    assert_eq!(code, Some(1), "a sensor that leaves something out is degraded");
    sensor.settle();
    let status = sensor.status_json();
    balance("connect at the ceiling", worked, count_connects(&sensor, sink.address, "tcp"), lost(&status, CONNECT));
    assert_eq!(count_execs(&sensor, "storm-ceiling").0, execs, "execs are never left out");
}

/// A process whose exec was lost may be the one that matters: it is found while it runs.
#[test]
fn who_was_lost_in_a_storm_is_seeded_again() {
    let mut sensor = Sensor::with().hooks(HOOKS).config(SMALL_RINGS).start();
    let pid = Pid::from_raw(sensor.pid() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    exec_storm(600, "storm-before");
    let mut lost_one = Group::start(victim("/bin/sleep", &sensor.folder().join("log-lost")).arg("603"));
    kill(pid, Signal::SIGCONT).unwrap();
    let lost_pid = lost_one.pid().to_string();
    bartizan_tests::wait_until("the seed of the process whose exec was lost", || {
        sensor.events_json(&["--kind", "process.seed", "--pid", &lost_pid]).iter().any(|event| event["process"]["argv"][1] == "603")
    });
    lost_one.signal(Signal::SIGKILL);
    lost_one.wait();
    sensor.settle();
}
