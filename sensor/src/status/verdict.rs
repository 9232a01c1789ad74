//! Whether what a running Bartizan says is as good as this kernel allows, and if not, every reason as a sentence.

use serde_json::Value;

use super::{Blind, ConsumerStatus, HookState, HookStatus, RECENT_LOSS_SECONDS, SinkRow, StatusReport, StreamStatus, SubscriptionStatus};

/// The judgement over a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As well as this kernel allows.
    Working,
    /// Not: each reason is a sentence. Never empty.
    Degraded(Vec<String>),
}

impl StatusReport {
    /// Whether this is as good as this kernel allows, and if not, every reason.
    pub fn verdict(&self) -> Verdict {
        let mut reasons = Vec::new();
        for hook in &self.hooks {
            hook.complain(self.blind.iter().filter(|blind| blind.hook == hook.name), &mut reasons);
        }
        for blind in self.blind.iter().filter(|blind| !blind.expected && !self.at_fault(&blind.hook)) {
            reasons.push(format!("Not seen although this kernel could: {}: {}.", blind.what, blind.why));
        }
        if !self.kernel_state.silenced.is_empty() {
            reasons.push(format!("{}: {}.", crate::watch::SILENCED, self.kernel_state.silenced.join(", ")));
        }
        let minutes = RECENT_LOSS_SECONDS / 60;
        let lost = self.recent_loss.saturating_sub(self.recent_skipped.values().sum());
        if lost > 0 {
            reasons.push(format!("{lost} records were lost in the last {minutes} minutes: see the losses per kind."));
        }
        for (program, runs) in &self.recent_skipped {
            reasons.push(format!("In the last {minutes} minutes {}.", skipped_runs(program, *runs)));
        }
        for library in &self.libraries {
            if let Some(problem) = &library.problem {
                reasons.push(format!("Hook {} is not attached to {}: {problem}.", library.hook, library.path));
            }
        }
        if self.files.beyond > 0 {
            reasons.push(format!(
                "{} watched files and folders have no room and are not watched: name fewer folders in [files], or folders with less in them.",
                self.files.beyond
            ));
        }
        for entry in self.ignore.iter().filter(|entry| entry.only && !entry.missing.is_empty()) {
            reasons.push(format!(
                "An entry of sensor.only ({}) names what is not there ({}), so that less is told of {} than it says: correct it.",
                entry.conditions,
                entry.missing.join("; "),
                entry.kinds.join(", ")
            ));
        }
        if self.cpu.shedding {
            reasons.push(format!(
                "Bartizan is at its CPU ceiling of {} % of a processor and leaves bulk kinds (connections, failed execs, writes of files) out: raise sensor.cpu_limit, or see which program makes so many.",
                self.cpu.limit_percent
            ));
        }
        for stream in &self.streams {
            stream.complain(&mut reasons);
        }
        for consumer in self.consumers.iter().filter(|consumer| consumer.fell_off_since_open() > 0) {
            reasons.push(format!(
                "Consumer {} never saw {} messages of {}, which retention deleted first: raise the stream's max_age or max_bytes.",
                consumer.name,
                consumer.fell_off_since_open(),
                consumer.stream
            ));
        }
        for subscription in self.subscriptions.iter().filter(|subscription| subscription.missed() > 0) {
            reasons.push(format!(
                "{} missed {} messages of {}, which came faster than it takes them: they are still in the stream unless retention deleted them.",
                subscription.name,
                subscription.missed(),
                subscription.stream
            ));
        }
        for sink in self.sink_rows() {
            sink.complain(&mut reasons);
        }
        let undecodable = self.detectors.get("undecodable").and_then(Value::as_u64).unwrap_or_default();
        if undecodable > 0 {
            reasons
                .push(format!("The detectors could not read {undecodable} events: they were written by a newer Bartizan or are damaged."));
        }
        let refused = self.detectors.get("refused").and_then(Value::as_u64).unwrap_or_default();
        if refused > 0 {
            reasons.push(format!("{refused} alerts were given up because they are larger than ALERTS takes: see the log."));
        }
        let lost = |key: &str| self.correlation.get(key).and_then(Value::as_u64).filter(|count| *count > 0);
        if let Some(undecodable) = lost("undecodable") {
            reasons.push(format!("Correlation could not read {undecodable} alerts: they were written by a newer Bartizan or are damaged."));
        }
        if let Some(refused) = lost("refused") {
            reasons.push(format!("{refused} matches were given up because they are larger than MATCHES takes: see the log."));
        }
        if reasons.is_empty() { Verdict::Working } else { Verdict::Degraded(reasons) }
    }
}

impl StatusReport {
    /// The sinks, as far as the judgement and the page need them.
    pub fn sink_rows(&self) -> Vec<SinkRow> {
        SinkRow::all(&self.sinks)
    }

    /// Whether the verdict names this hook.
    pub fn at_fault(&self, hook: &str) -> bool {
        self.hooks.iter().any(|known| known.name == hook && known.at_fault())
    }
}

/// Skipped runs as what they are: not lost records, but the most that may have been.
pub(crate) fn skipped_runs(program: &str, runs: u64) -> String {
    match runs {
        1 => format!("1 run of {program} was skipped by the kernel (it may have been a record)"),
        _ => format!("{runs} runs of {program} were skipped by the kernel (each may have been a record)"),
    }
}

impl ConsumerStatus {
    /// Messages that retention deleted unseen, as found in this run. A consumer that does not say which counts all.
    pub fn fell_off_since_open(&self) -> u64 {
        self.more.get("fell_off_since_open").and_then(Value::as_u64).unwrap_or(self.fell_off_retention)
    }
}

impl SubscriptionStatus {
    /// Messages that it did not get.
    pub fn missed(&self) -> u64 {
        self.dropped + self.fell_off_retention
    }
}

impl StreamStatus {
    /// Why the stream accepts nothing more until Bartizan is started again.
    pub fn failed(&self) -> Option<&str> {
        self.more.get("failed")?.as_str()
    }

    /// Messages that damage made unreadable.
    pub fn unreadable(&self) -> u64 {
        self.more.get("unreadable_messages").and_then(Value::as_u64).unwrap_or_default()
    }

    /// The last write failed, or one did within the last [`RECENT_LOSS_SECONDS`]. A stream that does not say when counts as one.
    fn writes_fail(&self) -> bool {
        let failing = self.more.get("write_failing").and_then(Value::as_bool).unwrap_or_default();
        let since = self.more.get("seconds_since_write_error").and_then(Value::as_u64);
        failing || since.is_none_or(|since| since <= RECENT_LOSS_SECONDS)
    }

    fn complain(&self, reasons: &mut Vec<String>) {
        let name = &self.name;
        if let Some(why) = self.failed() {
            reasons.push(format!("Stream {name} accepts nothing more until Bartizan is started again: {why}."));
        }
        if self.write_errors > 0 && self.writes_fail() {
            reasons.push(format!(
                "Stream {name} had {} failed writes: see that the data folder's disk has room and works.",
                self.write_errors
            ));
        }
        if self.unreadable() > 0 {
            reasons.push(format!("Stream {name} has {} messages that damage made unreadable: check the disk.", self.unreadable()));
        }
    }
}

impl HookStatus {
    /// This kernel could do better.
    pub fn at_fault(&self) -> bool {
        match self.state {
            HookState::Active | HookState::Unavailable => false,
            HookState::Disabled | HookState::Failed => true,
        }
    }

    /// One sentence with what is not seen, because both have the same reason.
    fn complain<'a>(&self, blind: impl Iterator<Item = &'a Blind>, reasons: &mut Vec<String>) {
        let how = match (self.state, self.tier.as_str()) {
            (HookState::Active | HookState::Unavailable, _) => return,
            (HookState::Disabled, "none") => "is not attached".to_owned(),
            // A better tier is held back.
            (HookState::Disabled, tier) => format!("is attached as {tier} only"),
            (HookState::Failed, _) => "could not be attached".to_owned(),
        };
        let why = self.reason.as_deref().unwrap_or("no reason is known");
        let unseen: Vec<&str> = blind.map(|blind| blind.what.as_str()).collect();
        let unseen = if unseen.is_empty() { String::new() } else { format!(". Not seen: {}", unseen.join("; ")) };
        reasons.push(format!("Hook {} ({}) {how}: {why}{unseen}.", self.name, self.kinds.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::tests::report;
    use super::*;

    fn reason(change: impl FnOnce(&mut StatusReport)) -> String {
        let mut report = report();
        change(&mut report);
        match report.verdict() {
            Verdict::Working => String::new(),
            Verdict::Degraded(reasons) => reasons.join("\n"),
        }
    }

    #[test]
    fn a_healthy_sensor_works_though_its_kernel_leaves_it_blind() {
        assert_eq!(report().verdict(), Verdict::Working);
        assert_eq!(reason(|report| report.hooks[0].state = HookState::Unavailable), "");
        assert_eq!(reason(|report| report.hooks[0].best = false), "");
        assert_eq!(reason(|report| report.problems = vec!["It is over.".into()]), "");
    }

    type Change = fn(&mut StatusReport);

    #[test]
    fn every_fault_is_a_sentence() {
        let faults: [(&str, Change); 17] = [
            ("terminal missed 7 messages of ALERTS", |report| {
                report.subscriptions[0].dropped = 4;
                report.subscriptions[0].fell_off_retention = 3;
            }),
            ("Hook exec (process.exec) is not attached: --disable-hook.", |report| {
                report.hooks[0].state = HookState::Disabled;
                report.hooks[0].tier = "none".into();
                report.hooks[0].reason = Some("--disable-hook".into());
            }),
            ("Hook exec (process.exec) is attached as tp_btf only: ", |report| report.hooks[0].state = HookState::Disabled),
            ("could not be attached", |report| report.hooks[0].state = HookState::Failed),
            ("although this kernel could", |report| report.blind[0].expected = false),
            ("In the last 5 minutes 3 runs of sched_process_exec were skipped by the kernel (each may have been a record).", |report| {
                report.recent_loss = 3;
                report.recent_skipped = BTreeMap::from([("sched_process_exec".into(), 3)]);
            }),
            ("3 records were lost in the last 5 minutes", |report| report.recent_loss = 3),
            ("Stream ALERTS had 1 failed writes", |report| report.streams[0].write_errors = 1),
            ("Stream ALERTS accepts nothing more until Bartizan is started again: EIO.", |report| {
                report.streams[0].more.insert("failed".into(), "EIO".into());
            }),
            ("Stream ALERTS has 4 messages that damage made unreadable", |report| {
                report.streams[0].more.insert("unreadable_messages".into(), 4.into());
            }),
            ("The detectors could not read 5 events", |report| report.detectors["undecodable"] = 5.into()),
            ("3 alerts were given up", |report| report.detectors["refused"] = 3.into()),
            ("Correlation could not read 5 alerts", |report| report.correlation = json!({ "undecodable": 5 })),
            ("3 matches were given up", |report| report.correlation = json!({ "refused": 3 })),
            ("Consumer forward-siem never saw 9 messages of ALERTS", |report| {
                report.consumers[0].more.insert("fell_off_since_open".into(), 9.into());
            }),
            ("Sink siem (syslog 127.0.0.1:514) does not deliver, it is retrying, and 0 alerts wait: refused.", |report| {
                report.sinks[0]["state"] = json!("retrying");
                report.sinks[0]["last_error"] = json!("refused");
            }),
            ("stepped over 0 alerts that could not be decoded and 2", |report| report.sinks[0]["refused"] = json!(2)),
        ];
        for (expected, change) in faults {
            let reason = reason(change);
            assert!(reason.contains(expected) && reason.ends_with('.'), "{reason:?} does not say {expected:?}");
        }
    }

    #[test]
    fn what_is_over_does_not_degrade_for_ever() {
        let write_error = |seconds: u64, failing: bool| {
            reason(move |report| {
                let stream = &mut report.streams[0];
                stream.write_errors = 1;
                stream.more.insert("seconds_since_write_error".into(), seconds.into());
                stream.more.insert("write_failing".into(), failing.into());
            })
        };
        assert_eq!(write_error(RECENT_LOSS_SECONDS + 1, false), "");
        assert!(!write_error(RECENT_LOSS_SECONDS, false).is_empty());
        assert!(!write_error(RECENT_LOSS_SECONDS + 1, true).is_empty());
        // Of an earlier run.
        assert_eq!(reason(|report| report.consumers[0].fell_off_retention = 9), "");
    }

    #[test]
    fn a_disabled_hook_is_one_reason_with_what_it_costs() {
        let one = reason(|report| {
            report.hooks[0].state = HookState::Disabled;
            report.hooks[0].tier = "none".into();
            report.hooks[0].reason = Some("disabled by the operator".into());
            report.blind[0] = Blind {
                hook: "exec".into(),
                what: "new program images".into(),
                why: "disabled by the operator".into(),
                costs: Vec::new(),
                expected: false,
            };
        });
        assert_eq!(one, "Hook exec (process.exec) is not attached: disabled by the operator. Not seen: new program images.");
    }

    #[test]
    fn lost_records_and_skipped_runs_are_told_apart() {
        let two = reason(|report| {
            report.recent_loss = 8;
            report.recent_skipped = BTreeMap::from([("sched_process_exec".into(), 1)]);
        });
        let expected = "7 records were lost in the last 5 minutes: see the losses per kind.\n\
                        In the last 5 minutes 1 run of sched_process_exec was skipped by the kernel (it may have been a record).";
        assert_eq!(two, expected);
    }

    #[test]
    fn a_sink_that_has_just_begun_is_not_failing() {
        assert_eq!(reason(|report| report.sinks[0]["state"] = json!("connecting")), "");
        assert!(!reason(|report| report.sinks[0] = json!({ "state": "connecting", "failed_attempts": 2 })).is_empty());
    }
}
