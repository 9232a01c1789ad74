//! Throwaway: how fast the log takes messages.
use bartizan_bus::SyncPolicy;
use bartizan_bus::log::{Log, LogConfig};
use bartizan_bus::pattern::Filter;
use bartizan_bus::store::{Hint, Limits, Put, Store};
use std::time::{Duration, Instant};
fn main() {
    let n: u64 = 3_000_000;
    for (name, sync) in [("interval", SyncPolicy::Interval(Duration::from_millis(200))), ("always", SyncPolicy::Always)] {
        let dir = tempfile::tempdir_in(".").unwrap();
        let compression = if std::env::var_os("RAW").is_some() { None } else { Some(3) };
        let log = Log::open(dir.path(), LogConfig { sync, compression, ..LogConfig::new("S", Limits::default()) }, "b").unwrap();
        let payload = [7u8; 256];
        let t = Instant::now();
        for i in 0..n {
            log.append(&[Put { subject: "sec.events.process.exec", headers: b"", payload: &payload, time_ns: i as i64 }]).unwrap();
        }
        let appended = t.elapsed();
        log.flush().unwrap();
        while log.durable().borrow().acked_seq < n {
            std::thread::sleep(Duration::from_micros(100));
        }
        let acked = t.elapsed();
        println!("{name}: append {:.0}/s acked {:.0}/s", n as f64 / appended.as_secs_f64(), n as f64 / acked.as_secs_f64());
        let t = Instant::now();
        let (mut from, mut h, mut c) = (1, Hint::default(), 0u64);
        let all = Filter::all();
        while let Some(m) = log.next(from, &all, &mut h).unwrap() {
            from = m.seq + 1;
            c += 1;
        }
        println!("  read {:.0}/s", c as f64 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        log.close().unwrap();
        println!(
            "  close {:?}; rss {}",
            t.elapsed(),
            std::fs::read_to_string("/proc/self/status")
                .unwrap()
                .lines()
                .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"))
                .collect::<Vec<_>>()
                .join(" ")
        );
        drop(log);
        let t = Instant::now();
        let log = Log::open(dir.path(), LogConfig { sync, ..LogConfig::new("S", Limits::default()) }, "b").unwrap();
        println!("  open {:?} {:?}", t.elapsed(), log.state());
    }
}
