//! The status report for people, and as one JSON object.
//!
//! A reason stands on the page once: in the verdict if it is a fault, else behind what is not seen because of it.

mod budget;
mod correlation;
mod detectors;
mod fields;
mod nats;
mod sinks;

use serde_json::Value;

use super::clock::uptime;
use super::escape::escape;
use super::paint::Paint;
use crate::config::units::about_bytes as about;
use crate::status::{
    AuthStatus, Blind, ConsumerStatus, ContainersStatus, CpuStatus, FilesStatus, HashStatus, HookState, HookStatus, IgnoreStatus,
    KindCount, LibraryStatus, ProcessTable, RedactionStatus, StatusReport, StreamStatus, SubscriptionStatus, Verdict, skipped_runs,
};

/// The report with `verdict` (`working` or `degraded`) and `reasons` beside its own fields, on one line.
pub(crate) fn json(report: &StatusReport, verdict: &Verdict) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(report)?;
    let (word, reasons) = match verdict {
        Verdict::Working => ("working", &[][..]),
        Verdict::Degraded(reasons) => ("degraded", reasons.as_slice()),
    };
    if let Value::Object(map) = &mut value {
        map.insert("verdict".to_owned(), Value::from(word));
        map.insert("reasons".to_owned(), Value::from(reasons));
    }
    serde_json::to_string(&value).map(|json| super::escape::json(&json))
}

/// The page, without a line feed at its end.
pub(crate) fn render(report: &StatusReport, verdict: &Verdict, paint: Paint) -> String {
    let mut page = Page { paint, text: String::new() };
    page.head(report, verdict);
    page.list("Problems since the start", report.problems.iter().map(|problem| paint.yellow(&escape(problem))));
    page.section("Hooks", hooks(report));
    page.list("Blind", report.blind.iter().map(|blind| self::blind(blind, paint)));
    let skipped = report.kinds.iter().filter(|row| row.skipped() > 0);
    let skipped = skipped.map(|row| paint.yellow(&skipped_runs(&escape(&row.kind), row.skipped())));
    page.list("Records", lines(&kinds(&report.kinds), paint).into_iter().chain(skipped));
    page.list("Libraries", report.libraries.iter().map(|library| self::library(library, paint)));
    page.list("Watched files", files(&report.files, paint));
    let entries = |only: bool| report.ignore.iter().filter(move |entry| entry.only == only).flat_map(|entry| ignored(entry, paint));
    page.list("Left out by configuration (sensor.ignore)", entries(false));
    page.list("All that is told of some kinds (sensor.only)", entries(true));
    page.section("Streams", streams(&report.streams));
    page.text.extend(report.budget.iter().map(|budget| format!("\n  {}", budget::budget(budget))));
    page.section("Consumers", consumers(&report.consumers));
    page.section("Subscriptions", subscriptions(&report.subscriptions));
    page.section("Sinks", sinks::sinks(report));
    page.list("Detectors", detectors::detectors(report, paint));
    page.list("Correlation", correlation::correlation(report, paint));
    page.list("NATS", nats::nats(report));
    page.list("Redaction", report.redaction.iter().map(|status| redaction(status, paint)));
    page.list("Metrics", report.metrics.iter().map(|address| escape(address)));
    let (table, usage) = (report.process_table, report.self_usage);
    page.list(
        "Itself",
        [
            format!("process table: {} of {} entries, {} evicted", table.entries, table.max, table.evicted),
            containers(&report.containers),
            authentications(report.auth),
            hashes(report.hashes),
            ceiling(report.cpu),
            format!("memory: {}, processor time: {:.1} s", about(usage.rss_bytes), usage.cpu_seconds),
        ],
    );
    page.text
}

struct Page {
    paint: Paint,
    text: String,
}

impl Page {
    fn head(&mut self, report: &StatusReport, verdict: &Verdict) {
        let paint = self.paint;
        let line = match verdict {
            Verdict::Working => paint.green("Bartizan works as well as this kernel allows."),
            Verdict::Degraded(reasons) => {
                let reasons = reasons.iter().map(|reason| format!("\n  - {}", escape(reason))).collect::<String>();
                format!("{}{reasons}", paint.yellow("Bartizan works, but less well than it could here:"))
            }
        };
        self.text = format!(
            "{line}\n\nversion {}, pid {}, host {}, kernel {}{}\nup {} since {}, data folder {}",
            escape(&report.version),
            report.pid,
            escape(&report.host),
            escape(&report.kernel),
            report.kernel_state.lockdown.as_deref().map(|mode| format!(", lockdown {}", escape(mode))).unwrap_or_default(),
            uptime(report.uptime_s),
            escape(&report.started),
            escape(&report.data_dir)
        );
    }

    fn list(&mut self, title: &str, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            self.text.push_str(&format!("\n\n{}", self.paint.bold(title)));
        }
        lines.for_each(|line| self.text.push_str(&format!("\n  {line}")));
    }

    /// A table whose first row is its heading; nothing when there is no other row.
    fn section(&mut self, title: &str, rows: Vec<Row>) {
        if rows.len() > 1 {
            self.list(title, lines(&rows, self.paint));
        }
    }
}

/// A table whose first row is its heading, a line for each row.
fn lines(rows: &[Row], paint: Paint) -> Vec<String> {
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |(index, row): (usize, &Row)| {
        let cells: Vec<String> = row.cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let line = cells.join("  ");
        match (index, row.colour) {
            (0, _) => paint.dim(line.trim_end()),
            (_, Some(colour)) => colour(paint, line.trim_end()),
            (_, None) => line.trim_end().to_owned(),
        }
    };
    rows.iter().enumerate().map(line).collect()
}

type Colour = fn(Paint, &str) -> String;

struct Row {
    cells: Vec<String>,
    colour: Option<Colour>,
}

fn row<const N: usize>(cells: [String; N]) -> Row {
    Row { cells: cells.into(), colour: None }
}

fn heading<const N: usize>(cells: [&str; N]) -> Row {
    row(cells.map(str::to_owned))
}

impl Row {
    fn colour_if(self, condition: bool, colour: Colour) -> Self {
        if condition { Self { colour: Some(colour), ..self } } else { self }
    }
}

fn hooks(report: &StatusReport) -> Vec<Row> {
    let mut rows = vec![heading(["hook", "state", "tier", "runs", "skipped", "events", ""])];
    for hook in &report.hooks {
        let HookStatus { name, kinds, tier, best, state, reason, runs, recursion_misses } = hook;
        let tier = if *best || tier == "none" { escape(tier) } else { format!("{} (not the best)", escape(tier)) };
        let (bad, warn) = (*state == HookState::Failed, *state == HookState::Disabled);
        let told = hook.at_fault() || report.blind.iter().any(|blind| blind.hook == *name);
        rows.push(
            row([
                escape(name),
                state.as_str().to_owned(),
                tier,
                runs.map_or_else(|| "-".to_owned(), |runs| runs.to_string()),
                recursion_misses.to_string(),
                escape(&kinds.join(", ")),
                reason.as_deref().filter(|_| !told).map(escape).unwrap_or_default(),
            ])
            .colour_if(bad || warn, if bad { Paint::red } else { Paint::yellow }),
        );
    }
    rows
}

fn blind(blind: &Blind, paint: Paint) -> String {
    let Blind { hook, what, why, costs, expected } = blind;
    let costs = if costs.is_empty() { String::new() } else { format!("; weakens {}", escape(&costs.join(", "))) };
    let hook = if hook.is_empty() { String::new() } else { format!(" ({})", escape(hook)) };
    let what = format!("{}{hook}", escape(what));
    if *expected {
        format!("{what}: {}{costs}", escape(why))
    } else {
        paint.yellow(&format!("{what}: this kernel could do better, see above{costs}"))
    }
}

fn library(library: &LibraryStatus, paint: Paint) -> String {
    let LibraryStatus { hook, path, inode, problem } = library;
    match problem {
        None => format!("{} on {} (inode {inode})", escape(hook), escape(path)),
        Some(problem) => paint.red(&format!("{} not on {} (inode {inode}): {}", escape(hook), escape(path), escape(problem))),
    }
}

fn hashes(hashes: HashStatus) -> String {
    let HashStatus { hashed, too_large, unreachable, queue_full, waiting, remembered } = hashes;
    format!(
        "executables: {hashed} hashed, {waiting} wait, {remembered} remembered; not hashed: {too_large} too large, {unreachable} gone or changed, {queue_full} too many at once"
    )
}

/// Nothing where nothing is watched.
fn files(status: &FilesStatus, paint: Paint) -> Vec<String> {
    let FilesStatus { files, folders, missing, beyond, ignored, ignored_missing, refused, file_systems } = status;
    if files + folders + missing == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "{files} files and {folders} folders; {missing} entries of [files] name nothing that is there now and are waited for"
    )];
    if !file_systems.is_empty() {
        let places: Vec<String> = file_systems.iter().map(|place| escape(place)).collect();
        lines.push(format!("renames and removals of all files on {}", places.join(", ")));
    }
    if *ignored > 0 {
        lines.push(format!("nothing is told of {ignored} files and folders, and of what is below them (files.ignore)"));
    }
    lines.extend(ignored_missing.iter().map(|path| paint.yellow(&format!("{} of files.ignore is not there now", escape(path)))));
    if *beyond > 0 {
        lines.push(paint.yellow(&format!("no room for {beyond} more: name fewer folders")));
    }
    lines.extend(refused.iter().map(|(path, reason)| paint.yellow(&format!("{}: {}", escape(path), escape(reason)))));
    lines
}

fn ignored(entry: &IgnoreStatus, paint: Paint) -> Vec<String> {
    let IgnoreStatus { only: _, kinds, conditions, missing } = entry;
    let kinds: Vec<String> = kinds.iter().map(|kind| escape(kind)).collect();
    let mut lines = vec![format!("{}: {}", escape(conditions), kinds.join(", "))];
    lines.extend(missing.iter().map(|missing| paint.yellow(&format!("matches nothing now: {}", escape(missing)))));
    lines
}

fn authentications(auth: AuthStatus) -> String {
    let AuthStatus { transactions: ProcessTable { entries, max, evicted }, said_again } = auth;
    format!("authentications under way: {entries} of {max}, {evicted} evicted; lines of sshd's log that PAM had told: {said_again}")
}

fn containers(status: &ContainersStatus) -> String {
    let ContainersStatus { entries, max, evicted, known, waiting, failed, last_failure, dropped } = status;
    let why = last_failure.as_deref().map(|why| format!(" (the last: {})", escape(why))).unwrap_or_default();
    format!(
        "containers: {entries} of {max}, {known} with their runtime's data, {evicted} evicted; lookups: {waiting} waiting, {failed} failed{why}, \
         {dropped} put off for want of room"
    )
}

fn ceiling(cpu: CpuStatus) -> String {
    let CpuStatus { limit_percent, used_percent, shedding } = cpu;
    let limit = if limit_percent == 0 { "no ceiling".to_owned() } else { format!("ceiling {limit_percent} %") };
    format!("processor now: {used_percent} % of one, {limit}{}", if shedding { ", bulk kinds are left out" } else { "" })
}

fn kinds(kinds: &[KindCount]) -> Vec<Row> {
    let mut rows = vec![heading(["kind", "received", "lost", ""])];
    for count in kinds {
        let KindCount { kind, received, lost: _, filtered_self, filtered, unknown_result } = count;
        let total: u64 = count.lost_records().map(|(_, lost)| lost).sum();
        if count.skipped() > 0 && total + received == 0 {
            // A program, which has a line of its own below.
            continue;
        }
        let mut notes: Vec<String> = count.lost_records().map(|(reason, lost)| format!("{}: {lost}", escape(reason))).collect();
        notes.extend((*unknown_result > 0).then(|| format!("told without a result: {unknown_result}")));
        notes.extend((*filtered_self > 0).then(|| format!("Bartizan's own, left out: {filtered_self}")));
        notes.extend((*filtered > 0).then(|| format!("left out by configuration: {filtered}")));
        rows.push(row([escape(kind), received.to_string(), total.to_string(), notes.join(", ")]).colour_if(total > 0, Paint::red));
    }
    rows
}

fn streams(streams: &[StreamStatus]) -> Vec<Row> {
    let mut rows = vec![heading(["stream", "messages", "size", "of", "last", "synced", "write errors", "cut at open"])];
    for stream in streams {
        let StreamStatus { name, messages, bytes, last_seq, synced_seq, write_errors, truncated_at_open, more } = stream;
        let limit = more.get("max_bytes").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), about);
        let cells = [
            escape(name),
            messages.to_string(),
            about(*bytes),
            limit,
            last_seq.to_string(),
            synced_seq.to_string(),
            write_errors.to_string(),
            about(*truncated_at_open),
        ];
        rows.push(row(cells).colour_if(*write_errors > 0 || stream.failed().is_some(), Paint::red));
    }
    rows
}

fn consumers(consumers: &[ConsumerStatus]) -> Vec<Row> {
    let mut rows = vec![heading(["consumer", "stream", "acked", "behind", "unacked", "redelivered", "given up", "never seen"])];
    for consumer in consumers {
        let ConsumerStatus { stream, name, ack_floor, pending, ack_pending, redelivered, terminated, fell_off_retention, more: _ } =
            consumer;
        let counts = [ack_floor, pending, ack_pending, redelivered, terminated, fell_off_retention].map(u64::to_string);
        let cells = [escape(name), escape(stream)].into_iter().chain(counts).collect();
        rows.push(Row { cells, colour: None }.colour_if(*fell_off_retention > 0, Paint::red));
    }
    rows
}

fn subscriptions(subscriptions: &[SubscriptionStatus]) -> Vec<Row> {
    let mut rows = vec![heading(["subscription", "stream", "too slow", "delivered", "dropped", "from the log", "never seen"])];
    for subscription in subscriptions {
        let SubscriptionStatus { stream, name, overflow, delivered, dropped, spilled, fell_off_retention, more: _ } = subscription;
        let counts = [delivered, dropped, spilled, fell_off_retention].map(u64::to_string);
        let cells = [escape(name), escape(stream), escape(overflow)].into_iter().chain(counts).collect();
        rows.push(Row { cells, colour: None }.colour_if(subscription.missed() > 0, Paint::red));
    }
    rows
}

fn redaction(status: &RedactionStatus, paint: Paint) -> String {
    let RedactionStatus { enabled, values, patterns } = status;
    if !enabled {
        return paint.yellow("off by configuration: command lines are stored and forwarded with the secrets in them");
    }
    let patterns: Vec<String> = patterns.iter().map(|(id, count)| format!("{}: {count}", escape(id))).collect();
    let by = if patterns.is_empty() { String::new() } else { format!(" ({})", patterns.join(", ")) };
    format!("{values} secret values replaced since the start{by}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::ColorChoice;
    use crate::status::tests::report;

    fn page(report: &StatusReport) -> String {
        render(report, &report.verdict(), Paint::new(ColorChoice::Never, false, None))
    }

    #[test]
    fn a_healthy_page() {
        let mut healthy = report();
        healthy.streams[0].bytes = 1536;
        let page = page(&healthy);
        for expected in [
            "Bartizan works as well as this kernel allows.\n\nversion 0.1.0, pid 4242, host host1, kernel 6.18.0\n",
            "up 1d 02:03:04 since 2026-01-31T08:00:00Z, data folder /var/lib/bartizan",
            "\n  hook  state   tier    runs  skipped  events\n  exec  active  tp_btf  12    0        process.exec",
            "\n  connects by 32-bit programs (connect): this kernel allows no fentry; weakens runtime_watcher.reverse_shell",
            "\n  process.exec  1000      0",
            "  1.5 KiB  256.0 MiB  ",
            "\n  engine: acked up to 1000 of 1000 events, 0 behind",
            "\n  runtime_watcher  1000      0         1       0\n",
            "\n  terminal      ALERTS  spill     0          0        0             0\n",
            "\n  siem  syslog  127.0.0.1:514  connected  1          0",
            "\n\nRedaction\n  3 secret values replaced since the start (assign.name: 3)\n",
            "process table: 120 of 65536 entries, 0 evicted",
            "containers: 3 of 4096, 2 with their runtime's data, 0 evicted; lookups: 0 waiting, 0 failed, 0 put off for want of room",
            "memory: 31.0 MiB, processor time: 1.5 s",
        ] {
            assert!(page.contains(expected), "{expected:?} is not in\n{page}");
        }
    }

    #[test]
    fn a_degraded_page_begins_with_its_reasons() {
        let mut degraded = report();
        degraded.recent_loss = 5;
        degraded.kinds[0].lost.insert("ring_full".into(), 5);
        let page = page(&degraded);
        assert!(page.starts_with("Bartizan works, but less well than it could here:\n  - 5 records were lost"), "{page}");
        assert!(page.contains("\n  process.exec  1000      5     ring_full: 5"), "{page}");
    }

    #[test]
    fn redaction_that_is_off_is_said() {
        let mut off = report();
        off.redaction = Some(RedactionStatus::default());
        assert!(page(&off).contains("\n  off by configuration: command lines are stored"), "{}", page(&off));
        off.redaction = None;
        assert!(!page(&off).contains("Redaction"));
    }

    #[test]
    fn skipped_runs_are_no_lost_records() {
        let mut skipped = report();
        skipped.kinds[0].lost.insert("ring_full".into(), 5);
        skipped.kinds.push(KindCount { lost: [("recursion".into(), 3)].into(), ..KindCount::new("sched_process_exec") });
        let page = page(&skipped);
        let expected = "\n\nRecords\n  kind          received  lost\n  process.exec  1000      5     ring_full: 5\n  \
                        3 runs of sched_process_exec were skipped by the kernel (each may have been a record)\n\n";
        assert!(page.contains(expected), "{page}");
    }

    #[test]
    fn what_is_neither_received_nor_lost_is_shown() {
        let mut report = report();
        report.kinds[0].filtered_self = 2;
        report.kinds[0].unknown_result = 4;
        report.kinds[0].filtered = 8;
        report.ignore = vec![
            IgnoreStatus {
                only: false,
                kinds: vec!["network.connect".into(), "network.tls".into()],
                conditions: "exe /x; uid 33".into(),
                missing: vec!["exe /x: No such file or directory".into()],
            },
            IgnoreStatus { only: true, kinds: vec!["file.write".into()], conditions: "uid 7".into(), missing: Vec::new() },
        ];
        report.problems = vec!["3 records could not be decoded; the first: kind 99 is not known.".into()];
        let page = page(&report);
        assert!(page.starts_with("Bartizan works as well as this kernel allows."), "{page}");
        assert!(
            page.contains("\n\nProblems since the start\n  3 records could not be decoded; the first: kind 99 is not known.\n"),
            "{page}"
        );
        assert!(
            page.contains(
                "\n  process.exec  1000      0     told without a result: 4, Bartizan's own, left out: 2, left out by configuration: 8\n"
            ),
            "{page}"
        );
        let expected = "\n\nLeft out by configuration (sensor.ignore)\n  exe /x; uid 33: network.connect, network.tls\n  matches nothing now: exe /x: No such";
        assert!(page.contains(expected), "{page}");
        assert!(page.contains("\n\nAll that is told of some kinds (sensor.only)\n  uid 7: file.write\n"), "{page}");
    }

    #[test]
    fn a_reason_stands_on_the_page_once() {
        let (mut lesser, why) = (report(), "fexit: this kernel refuses it");
        lesser.hooks[0].reason = Some(why.into());
        lesser.blind[0] = Blind { hook: "exec".into(), why: why.into(), ..lesser.blind[0].clone() };
        assert_eq!(page(&lesser).matches(why).count(), 1, "behind what is not seen: {}", page(&lesser));
        lesser.hooks[0].state = HookState::Failed;
        lesser.blind[0].expected = false;
        assert_eq!(page(&lesser).matches(why).count(), 1, "in the verdict: {}", page(&lesser));
        assert!(page(&lesser).contains("\n  connects by 32-bit programs (exec): this kernel could do better, see above; weakens runtime"));
        lesser.blind.clear();
        lesser.hooks[0].state = HookState::Active;
        assert_eq!(page(&lesser).matches(why).count(), 1, "in the table of hooks: {}", page(&lesser));
    }

    #[test]
    fn json_has_the_verdict() {
        let mut degraded = report();
        degraded.recent_loss = 5;
        let value = |report: &StatusReport| serde_json::from_str::<Value>(&json(report, &report.verdict()).expect("json")).expect("value");
        assert_eq!((&value(&report())["verdict"], &value(&report())["reasons"]), (&Value::from("working"), &Value::Array(Vec::new())));
        assert_eq!(value(&degraded)["verdict"], "degraded");
        assert!(value(&degraded)["reasons"][0].as_str().expect("a sentence").contains("5 records"));
    }

    #[test]
    fn a_page_cannot_draw() {
        let mut evil = report();
        let text = "\u{1b}[2J\u{202e}";
        evil.hooks[0].reason = Some(text.into());
        evil.hooks[0].state = HookState::Failed;
        let detector = serde_json::json!({ "id": text, text: text, "state": { "tables": [{ "name": text }], "counters": { text: 1 } } });
        evil.detectors = serde_json::json!({ text: [text], "detectors": [detector], "first_undecodable": text });
        evil.correlation = serde_json::json!({ text: [text], "first_undecodable": text, "state": { "tables": [{ "name": text }] } });
        evil.problems = vec![text.into()];
        evil.ignore = vec![IgnoreStatus { only: true, kinds: vec![text.into()], conditions: text.into(), missing: vec![text.into()] }];
        evil.containers.last_failure = Some(text.into());
        evil.kinds.push(KindCount { lost: [("recursion".into(), 3)].into(), ..KindCount::new(text) });
        evil.blind[0].hook = text.into();
        evil.sinks[0]["state"] = "failed".into();
        evil.sinks[0]["last_error"] = text.into();
        evil.sinks[0][text] = text.into();
        evil.blind[0].what = text.into();
        assert!(!page(&evil).chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'));
    }

    #[test]
    fn sizes_for_reading() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (u64::MAX, "16777215.9 TiB")] {
            assert_eq!(about(bytes), text);
        }
    }
}
