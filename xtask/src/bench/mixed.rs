//! Everything at once, for a while: what the sensor's memory comes to, and how late events are on the bus under load.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::arrival::Arrivals;
use super::goal::{self, Goal};
use super::measure::Bench;
use super::observer::Counts;
use super::process::{self, Memory};
use super::report::Head;
use super::stats::summary;
use super::storm::Storm;

/// A round of the load, with the operations of each: more than a host does, less than it could, so that opens do not drown the rest.
const ROUND: [(Storm, u64); 6] = [
    (Storm::Shell, 300),
    (Storm::Exec, 1_000),
    (Storm::Connect, 10_000),
    (Storm::Refused, 2_000),
    (Storm::Open, 100_000),
    (Storm::Login, 30),
];

/// Rows of the table of memory, at most.
const ROWS: usize = 10;
const MIB: f64 = 1_048_576.0;

/// What came of it.
#[derive(Debug, Clone, Default)]
struct Mixed {
    /// How long after the start, with the memory then.
    samples: Vec<(Duration, Memory)>,
    /// What was done of each kind that an operation makes.
    done: BTreeMap<&'static str, u64>,
    counts: Counts,
    /// Processor time of the sensor, and the time in which it was used.
    cpu: Duration,
    took: Duration,
}

/// Measures it: the text of the section.
///
/// # Errors
/// A storm or the sensor fails.
pub(super) fn measure(bench: &Bench<'_>, head: Head) -> Result<String> {
    let seconds = Duration::from_secs(bench.plan.seconds);
    eprintln!("      everything at once for {} s", bench.plan.seconds);
    let sensor = bench.bartizan(bench.folder.join("mixed"))?;
    sensor.rest()?;
    let (before, cpu, began) = (sensor.counts()?, process::cpu(sensor.pid())?, Instant::now());
    let mut mixed = Mixed { samples: vec![(Duration::ZERO, process::memory(sensor.pid())?)], ..Mixed::default() };
    while began.elapsed() < seconds {
        // Two at a time, so that kinds meet in the rings.
        for pair in ROUND.chunks(2) {
            std::thread::scope(|scope| {
                let running: Vec<_> = pair.iter().map(|(storm, operations)| scope.spawn(|| bench.storm(*storm, *operations))).collect();
                running.into_iter().try_for_each(|storm| storm.join().unwrap_or_else(|_| bail!("a storm panicked")).map(drop))
            })?;
        }
        for (storm, operations) in ROUND {
            if let Some((kind, each)) = storm.event() {
                *mixed.done.entry(kind).or_default() += operations * each;
            }
        }
        mixed.samples.push((began.elapsed(), process::memory(sensor.pid())?));
    }
    sensor.rest()?;
    mixed.took = began.elapsed();
    mixed.cpu = process::cpu(sensor.pid())?.saturating_sub(cpu);
    mixed.counts = sensor.counts()?.since(&before);
    mixed.samples.push((began.elapsed(), process::memory(sensor.pid())?));
    let arrivals = Arrivals::from_status(&sensor.status()?);
    sensor.stop()?;
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = render(&mut text, &head, &mixed, &arrivals);
    Ok(text)
}

fn render(text: &mut String, head: &Head, mixed: &Mixed, arrivals: &Arrivals) -> std::fmt::Result {
    let Mixed { samples, done, counts, cpu, took } = mixed;
    writeln!(text, "### Everything at once\n")?;
    head.write(text)?;
    let round: Vec<String> = ROUND.iter().map(|(storm, operations)| format!("{operations} of `{}`", storm.name())).collect();
    writeln!(text, "- {:.0} s of rounds, each of {}, two storms at a time; all streams on.\n", took.as_secs_f64(), round.join(", "))?;
    writeln!(text, "| after, s | resident, MiB | of it anonymous, MiB | most so far, MiB |\n|--:|--:|--:|--:|")?;
    let step = samples.len().div_ceil(ROWS).max(1);
    let last = samples.len().saturating_sub(1);
    for (_, (at, memory)) in samples.iter().enumerate().filter(|(index, _)| index.is_multiple_of(step) || *index == last) {
        let Memory { rss, anonymous, peak, maps: _ } = memory;
        let [rss, anonymous, peak] = [rss, anonymous, peak].map(|bytes| *bytes as f64 / MIB);
        writeln!(text, "| {:.0} | {rss:.1} | {anonymous:.1} | {peak:.1} |", at.as_secs_f64())?;
    }
    let all = counts.all();
    write!(text, "\n{all} records received, {} lost, {} program runs skipped; ", counts.lost, counts.skipped)?;
    let share = cpu.as_secs_f64() / took.as_secs_f64().max(1e-9);
    let each = cpu.as_secs_f64() * 1e6 / all.max(1) as f64;
    writeln!(text, "{share:.2} processors used by the sensor, {each:.1} µs a record. {}.\n", told(done, counts))?;
    writeln!(text, "From the kernel's stamp of a record until its event was appended to EVENTS:\n")?;
    arrivals.write(text)?;
    let resident = samples.last().map(|(_, memory)| memory.rss as f64 / MIB);
    let mut goals = vec![Goal {
        what: format!("resident after {:.0} s of it", took.as_secs_f64()),
        most: 60.0,
        unit: "MiB",
        digits: 1,
        measured: summary(resident),
        falco: "66 MB (23 MB anonymous)",
    }];
    goals.extend(arrivals.goals(", under this load"));
    goal::table(text, &goals)
}

/// What was done beside what was received, by kind.
fn told(done: &BTreeMap<&'static str, u64>, counts: &Counts) -> String {
    let word = |(kind, done): (&&str, &u64)| match counts.of(kind) {
        0 => format!("{done} of `{kind}` done, which this build does not record"),
        received => format!("{done} of `{kind}` done, {received} received (others' among them)"),
    };
    done.iter().map(word).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_over_time_and_the_last_counts() {
        let memory = |mib: u64| Memory { rss: mib << 20, anonymous: mib << 19, peak: mib << 20, maps: 0 };
        let samples = (0..25).map(|index| (Duration::from_secs(index), memory(10 + index))).collect();
        let received = [("process.exec".to_owned(), 12)].into();
        let mixed = Mixed {
            samples,
            done: [("process.exec", 10), ("file.open", 5)].into(),
            counts: Counts { received, lost: 1, skipped: 2 },
            cpu: Duration::from_micros(120),
            took: Duration::from_secs(24),
        };
        let mut text = String::new();
        assert!(render(&mut text, &Head::default(), &mixed, &Arrivals::default()).is_ok());
        for row in [
            "| 0 | 10.0 | 5.0 | 10.0 |\n| 3 | 13.0",
            "| 24 | 34.0 | 17.0 | 34.0 |",
            "12 records received, 1 lost, 2 program runs skipped; 0.00 processors used by the sensor, 10.0 µs a record.",
            "5 of `file.open` done, which this build does not record; 10 of `process.exec` done, 12 received",
            "| resident after 24 s of it | 60.0 MiB | 34.0 | met | 66 MB (23 MB anonymous) |",
        ] {
            assert!(text.contains(row), "{row}\nis not in\n{text}");
        }
    }
}
