//! `bartizan events`: what happened.

use std::collections::VecDeque;

use bartizan_bus::event::{Body, EventJson, SecurityEvent, decode_event};
use bartizan_bus::{Record, StreamName};
use jiff::tz::TimeZone;

use super::clock::{Since, parse_since};
use super::escape;
use super::event_line::EventLines;
use super::exit::{Exit, Failure};
use super::log::Log;
use super::out::{Out, Stop};
use super::paint::Paint;
use super::{Common, View};
use crate::document;

/// Show what happened, oldest first. Works with and without a running Bartizan.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    view: View,

    /// Only events since then: a duration (5m, 2h, 7d), an RFC 3339 time, or `boot`
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,

    /// Only this kind (process.exec) or category (process); repeatable
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    kinds: Vec<String>,

    /// Only events of this process, also as the target or the child; repeatable
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,

    /// Print what there is to know of every kind (docs/events.md) and nothing else
    #[arg(long, conflicts_with_all = ["kinds", "pids", "since", "schema"])]
    reference: bool,

    /// Print the JSON Schema of `events --json` and nothing else
    #[arg(long, conflicts_with_all = ["kinds", "pids", "since"])]
    schema: bool,
}

/// A kind, or a category that some kind has.
fn parse_kind(text: &str) -> Result<String, String> {
    let known = Body::KINDS.iter().any(|kind| is_kind(text, kind));
    if known { Ok(text.to_owned()) } else { Err(format!("use one of {}, or a category such as `process`", Body::KINDS.join(", "))) }
}

fn is_kind(wanted: &str, kind: &str) -> bool {
    kind == wanted || kind.split_once('.').is_some_and(|(category, _)| category == wanted)
}

/// Which events are shown.
#[derive(Debug, Default)]
struct Filter {
    since_ns: Option<i64>,
    kinds: Vec<String>,
    pids: Vec<u32>,
}

impl Filter {
    fn shows(&self, event: &SecurityEvent) -> bool {
        let Self { since_ns, kinds, pids } = self;
        let child = match &event.body {
            Body::Fork(fork) => Some(fork.child.pid),
            _ => None,
        };
        let subject = event.process.as_ref().map(|process| process.pid);
        let target = event.target.as_ref().map(|process| process.pid);
        since_ns.is_none_or(|since| event.time.wall_ns >= since)
            && (kinds.is_empty() || kinds.iter().any(|wanted| is_kind(wanted, event.kind())))
            && (pids.is_empty() || [subject, target, child].into_iter().flatten().any(|pid| pids.contains(&pid)))
    }
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let Args { view, since, kinds, pids, reference, schema } = args;
    if *reference || *schema {
        let mut out = Out::stdout();
        let text = if *reference { document::events() } else { schema_text()? };
        text.lines().try_for_each(|line| out.line(line))?;
        out.flush()?;
        return Ok(Exit::Ok);
    }
    let mut log = Log::open(&common.data_dir()?, StreamName::Events)?;
    let since_ns = since.map(Since::resolve_now);
    if let Some(since) = since_ns {
        log.seek_time(since)?;
    }
    let mut shown = Shown {
        filter: Filter { since_ns, kinds: kinds.clone(), pids: pids.clone() },
        lines: EventLines::new(Paint::for_stdout(view.color()), TimeZone::system()),
        json: view.json,
    };
    let mut out = Out::stdout();
    let mut kept = VecDeque::new();
    while let Some(record) = log.next()? {
        let Some(line) = shown.line(&record, &mut log)? else { continue };
        match view.limit {
            None => out.line(&line)?,
            Some(limit) => {
                kept.push_back(line);
                if kept.len() > limit {
                    kept.pop_front();
                }
            }
        }
    }
    for line in kept {
        out.line(&line)?;
    }
    out.flush()?;
    if !view.follow {
        return Ok(log.finish());
    }
    loop {
        match log.next()? {
            Some(record) => {
                if let Some(line) = shown.line(&record, &mut log)? {
                    out.line(&line)?;
                    out.flush()?;
                }
            }
            None => log.wait(&out)?,
        }
    }
}

fn schema_text() -> Result<String, Failure> {
    serde_json::to_string_pretty(&document::schema())
        .map_err(|error| Failure::new(Exit::Failed, format_args!("the schema cannot be written as JSON: {error}")))
}

struct Shown {
    filter: Filter,
    lines: EventLines,
    json: bool,
}

impl Shown {
    /// The record's line, if it is to be shown and can be.
    fn line(&mut self, record: &Record, log: &mut Log) -> Result<Option<String>, Failure> {
        let event = match decode_event(&record.payload) {
            Ok(event) => event,
            Err(error) => {
                log.undecodable(record.seq, &error);
                return Ok(None);
            }
        };
        self.lines.observe(&event);
        if !self.filter.shows(&event) {
            return Ok(None);
        }
        if !self.json {
            return Ok(Some(self.lines.render(&event)));
        }
        let json = serde_json::to_string(&EventJson::new(&event, Some(record.seq)));
        json.map(|json| Some(escape::json(&json)))
            .map_err(|error| Failure::new(Exit::Failed, format_args!("event {} cannot be written as JSON: {error}", record.seq)))
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{Exec, Fork};

    use super::*;
    use crate::cli::samples::{TIME, event, process};

    fn exec() -> SecurityEvent {
        event(process(10, "sh", &["sh"]), Body::Exec(Exec::default()))
    }

    fn fork() -> SecurityEvent {
        event(process(10, "sh", &["sh"]), Body::Fork(Fork { child: process(11, "sh", &["sh"]).into(), namespaces: Vec::new() }))
    }

    #[test]
    fn kinds_and_categories_are_known_by_the_one_list() {
        for kind in Body::KINDS {
            assert!(parse_kind(kind).is_ok());
            assert!(parse_kind(kind.split_once('.').expect("two parts").0).is_ok());
        }
        for unknown in ["", "proc", "process.", "exec", "process.exec.x", "Process"] {
            assert!(parse_kind(unknown).expect_err(unknown).contains("network.connect"));
        }
    }

    #[test]
    fn filters_join_with_and_and_values_with_or() {
        let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        assert!(Filter::default().shows(&exec()));
        let by_kind = Filter { kinds: kinds(&["process.fork", "network"]), ..Filter::default() };
        assert!(by_kind.shows(&fork()) && !by_kind.shows(&exec()));
        let by_pid = Filter { pids: vec![11], ..Filter::default() };
        assert!(by_pid.shows(&fork()) && !by_pid.shows(&exec()));
        let both = Filter { pids: vec![10], kinds: kinds(&["process"]), since_ns: Some(TIME.wall_ns) };
        assert!(both.shows(&exec()) && both.shows(&fork()));
        let later = Filter { since_ns: Some(TIME.wall_ns + 1), ..Filter::default() };
        assert!(!later.shows(&exec()));
    }
}
