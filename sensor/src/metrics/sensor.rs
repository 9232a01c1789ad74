//! The sensor: capture, the bus in the process, detection, delivery, and what all of it costs.

use serde_json::Value;

use super::Family;
use crate::status::{ConsumerStatus, SinkRow, StatusReport, StreamStatus, SubscriptionStatus, Verdict};

pub(super) fn families(report: &StatusReport) -> Vec<Family> {
    let mut families = itself(report);
    families.extend(capture(report));
    families.extend(bus(report));
    families.extend(detection(report));
    families.extend(delivery(report));
    families
}

fn itself(report: &StatusReport) -> Vec<Family> {
    let reasons = match report.verdict() {
        Verdict::Working => 0,
        Verdict::Degraded(reasons) => reasons.len() as u64,
    };
    let (table, usage) = (report.process_table, report.self_usage);
    vec![
        Family::gauge("info", "The running version")
            .each([report], |report| ([("version", report.version.as_str()), ("kernel", report.kernel.as_str())], 1)),
        Family::gauge("degraded_reasons", "Reasons for which `bartizan status` says degraded; 0 is as well as this kernel allows")
            .of(reasons),
        Family::gauge("uptime", "Since the start").in_seconds().of(report.uptime_s),
        Family::gauge("resident_memory", "Resident memory").in_bytes().of(usage.rss_bytes),
        Family::counter("cpu", "Processor time since the start, user and system").in_seconds().of(usage.cpu_seconds),
        Family::gauge("shedding", "1 while bulk kinds are left out because of sensor.cpu_limit").of(u64::from(report.cpu.shedding)),
        Family::gauge("process_table_entries", "Processes held").of(table.entries),
        Family::counter("process_table_evicted", "Living processes that had to make room").of(table.evicted),
        Family::gauge("containers", "Containers remembered, by whether their runtime's data is known")
            .each([true, false], |known| ([("known", if *known { "yes" } else { "no" })], containers_known(report, *known))),
        Family::counter("container_lookups_failed", "Files of container runtimes that could not be read or are not believed")
            .of(report.containers.failed),
        Family::counter("container_lookups_dropped", "Lookups of containers that were put off for want of room")
            .of(report.containers.dropped),
    ]
}

/// Containers that are remembered, with their runtime's data or without.
fn containers_known(report: &StatusReport, known: bool) -> u64 {
    let status = &report.containers;
    if known { status.known } else { status.entries.saturating_sub(status.known) }
}

fn capture(report: &StatusReport) -> Vec<Family> {
    let lost: Vec<_> = report
        .kinds
        .iter()
        .flat_map(|kind| kind.lost.iter().map(|(reason, count)| (kind.kind.as_str(), reason.as_str(), *count)))
        .collect();
    vec![
        Family::gauge("hook", "1 for a hook that is attached, by tier").each(&report.hooks, |hook| {
            let labels = [("hook", hook.name.as_str()), ("tier", hook.tier.as_str()), ("state", hook.state.as_str())];
            (labels, u64::from(hook.state == crate::status::HookState::Active))
        }),
        Family::counter("records_received", "Records from the kernel").each(&report.kinds, |kind| ([("kind", &*kind.kind)], kind.received)),
        Family::counter("records_lost", "Records lost, by reason; of reason `recursion` the runs that the kernel skipped, by program")
            .each(lost, |(kind, reason, count)| ([("kind", *kind), ("reason", *reason)], *count)),
        Family::counter("records_filtered_self", "Records that Bartizan itself caused")
            .each(&report.kinds, |kind| ([("kind", &*kind.kind)], kind.filtered_self)),
        Family::counter("records_filtered", "Records left out as `sensor.ignore`, `sensor.only` and `files.ignore` say")
            .each(&report.kinds, |kind| ([("kind", &*kind.kind)], kind.filtered)),
    ]
}

fn bus(report: &StatusReport) -> Vec<Family> {
    let stream = |family: Family, number: fn(&StreamStatus) -> u64| {
        family.each(&report.streams, |stream| ([("stream", stream.name.as_str())], number(stream)))
    };
    let consumer = |family: Family, number: fn(&ConsumerStatus) -> u64| {
        family.each(&report.consumers, |consumer| ([("stream", &*consumer.stream), ("consumer", &*consumer.name)], number(consumer)))
    };
    let subscription = |family: Family, number: fn(&SubscriptionStatus) -> u64| {
        family.each(&report.subscriptions, |row| ([("stream", &*row.stream), ("subscription", &*row.name)], number(row)))
    };
    vec![
        stream(Family::gauge("stream_messages", "Messages held"), |stream| stream.messages),
        stream(Family::gauge("stream_disk", "Bytes on disk").in_bytes(), |stream| stream.bytes),
        stream(Family::gauge("stream_last_sequence", "Last sequence given out"), |stream| stream.last_seq),
        stream(Family::gauge("stream_synced_sequence", "Everything up to here is on disk"), |stream| stream.synced_seq),
        stream(Family::counter("stream_write_errors", "Failed writes and syncs"), |stream| stream.write_errors),
        stream(Family::gauge("stream_unreadable_messages", "Messages that damage made unreadable"), StreamStatus::unreadable),
        stream(Family::gauge("stream_failed", "1 when the stream accepts nothing more"), |stream| u64::from(stream.failed().is_some())),
        consumer(Family::gauge("consumer_pending", "Messages not yet delivered"), |consumer| consumer.pending),
        consumer(Family::gauge("consumer_ack_pending", "Messages delivered and not acknowledged"), |consumer| consumer.ack_pending),
        consumer(Family::gauge("consumer_ack_floor", "Everything up to here is acknowledged"), |consumer| consumer.ack_floor),
        consumer(Family::gauge("consumer_fell_off_retention", "Messages deleted before they were seen"), |consumer| {
            consumer.fell_off_retention
        }),
        consumer(Family::gauge("consumer_terminated", "Messages given up"), |consumer| consumer.terminated),
        subscription(Family::counter("subscription_delivered", "Messages received"), |row| row.delivered),
        subscription(
            Family::counter("subscription_missed", "Messages dropped or deleted before they were read"),
            SubscriptionStatus::missed,
        ),
        subscription(Family::counter("subscription_spilled", "Messages read back from the log"), |row| row.spilled),
    ]
}

/// A number of an object; 0 where it has none of this name.
fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn detection(report: &StatusReport) -> Vec<Family> {
    let engine = &report.detectors;
    let detectors: Vec<_> = engine.get("detectors").and_then(Value::as_array).into_iter().flatten().collect();
    let detector = |family: Family, name: &'static str| {
        family.each(&detectors, |row| ([("detector", row.get("id").and_then(Value::as_str).unwrap_or("?"))], number(row, name)))
    };
    let behind = number(engine, "last_seq").saturating_sub(number(engine, "acked_seq"));
    vec![
        detector(Family::counter("detector_observed", "Events looked at"), "observed"),
        detector(Family::counter("detector_alerts", "Alerts published"), "published"),
        Family::gauge("detectors_behind", "Events not yet judged").of(behind),
        Family::counter("detectors_undecodable", "Events that could not be read").of(number(engine, "undecodable")),
        Family::counter("detectors_refused", "Alerts larger than ALERTS takes").of(number(engine, "refused")),
    ]
}

fn delivery(report: &StatusReport) -> Vec<Family> {
    let sinks = report.sink_rows();
    let sink = |family: Family, number: fn(&SinkRow) -> u64| {
        family.each(&sinks, |sink| ([("sink", &*sink.name), ("type", &*sink.kind)], number(sink)))
    };
    vec![
        sink(Family::gauge("sink_lag", "Alerts not yet confirmed"), |sink| sink.lag),
        sink(Family::gauge("sink_failing", "1 for a receiver that takes nothing"), |sink| u64::from(sink.failing())),
        sink(Family::counter("sink_confirmed", "Alerts confirmed"), |sink| sink.confirmed),
        sink(Family::counter("sink_stepped_over", "Alerts that could not be decoded or that the receiver refused for ever"), |sink| {
            sink.undecodable + sink.refused
        }),
    ]
}

#[cfg(test)]
mod tests {
    use crate::metrics::Numbers;
    use crate::status::tests::report;

    #[test]
    fn every_count_of_a_report_is_there() {
        let mut report = report();
        report.kinds[0].lost.insert("ring_full".into(), 5);
        report.subscriptions[0].dropped = 2;
        let text = Numbers { report: Some(report), edge: None }.text().expect("text");
        for line in [
            "bartizan_info{version=\"0.1.0\",kernel=\"6.18.0\"} 1",
            "bartizan_uptime_seconds 93784",
            "bartizan_cpu_seconds_total 1.5",
            "bartizan_resident_memory_bytes 32505856",
            "bartizan_hook{hook=\"exec\",tier=\"tp_btf\",state=\"active\"} 1",
            "bartizan_records_received_total{kind=\"process.exec\"} 1000",
            "bartizan_records_lost_total{kind=\"process.exec\",reason=\"ring_full\"} 5",
            "bartizan_stream_messages{stream=\"ALERTS\"} 0",
            "bartizan_consumer_ack_floor{stream=\"ALERTS\",consumer=\"forward-siem\"} 0",
            "bartizan_subscription_missed_total{stream=\"ALERTS\",subscription=\"terminal\"} 2",
            "bartizan_detector_alerts_total{detector=\"runtime_watcher\"} 1",
            "bartizan_sink_confirmed_total{sink=\"siem\",type=\"syslog\"} 1",
            // The subscription that missed something.
            "bartizan_degraded_reasons 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }
}
