//! `bartizan run`: the sensor itself.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use bartizan_bus::event::Alert;
use jiff::tz::TimeZone;

use super::Common;
use super::alert_block::AlertBlocks;
use super::escape::escape;
use super::exit::{Exit, Failure, chain};
use super::paint::{ColorChoice, Paint};
use super::replay;
use crate::config::Config;
use crate::daemon::{self, DaemonError, OnAlert};

/// Alerts that wait for a slow reader of standard output.
const QUEUE: usize = 256;

/// Run the sensor, the bus, the detectors and the forwarders until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not attach this kernel hook; repeatable, and added to `sensor.disable_hooks` of the configuration
    #[arg(long = "disable-hook", value_name = "NAME")]
    disable_hooks: Vec<String>,

    /// Instead of the kernel, take what `bartizan record` wrote to FILE, judge it, and end; needs no root
    #[arg(long, value_name = "FILE", conflicts_with = "disable_hooks")]
    replay: Option<PathBuf>,

    /// With --replay: of a damaged or cut recording, replay what is good before that
    #[arg(long, requires = "replay")]
    allow_damaged: bool,
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    crate::allocator::give_memory_back();
    if let Some(file) = &args.replay {
        return replay::run(common, file, args.allow_damaged);
    }
    let mut config = common.config()?;
    disable(&mut config, &args.disable_hooks);
    daemon::run(config, announcer()).map(|()| Exit::Ok).map_err(|error| Failure::new(exit(&error), chain(&error)))
}

/// Shows alerts on standard output as they come: as blocks on a terminal, else a line each.
fn announcer() -> OnAlert {
    let blocks = AlertBlocks::new(Paint::for_stdout(ColorChoice::Auto), TimeZone::system());
    let terminal = std::io::stdout().is_terminal();
    let show = shower(std::io::stdout());
    Box::new(move |alert, seq| show(if terminal { format!("\n{}\n", blocks.render(alert, seq)) } else { line(alert) }))
}

/// Writes each text as a line, from a thread of its own: a stopped terminal (Ctrl-S) or a pipe that nobody reads makes a write wait
/// for ever. Nobody waits for the thread, at the stop neither. What finds the queue full is not shown, and the next line says so.
fn shower(mut out: impl Write + Send + 'static) -> impl Fn(String) + Send {
    let (queue, queued) = mpsc::sync_channel::<String>(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let missed = Arc::clone(&dropped);
    let thread = thread::Builder::new().name("show alerts".to_owned()).spawn(move || {
        for text in queued {
            // Whoever watched is gone; the alert is stored all the same.
            let _ = match missed.swap(0, Ordering::Relaxed) {
                0 => writeln!(out, "{text}"),
                missed => writeln!(out, "{missed} alerts are stored and were not shown here: this output was stuck\n{text}"),
            };
            let _ = out.flush();
        }
    });
    if let Err(error) = thread {
        tracing::warn!("alerts are stored but not shown here, because the thread that would show them cannot be started: {error}");
    }
    move |text| {
        if queue.try_send(text).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An alert on one line: what, who, and the lineage from the oldest known ancestor down.
pub(super) fn line(alert: &Alert) -> String {
    let lineage: Vec<String> = alert.lineage.iter().rev().map(|entry| format!("{}({})", escape(&entry.name), entry.pid)).collect();
    format!(
        "{} {} {} on {}: {}; lineage {}; id {}",
        alert.severity.as_str().to_uppercase(),
        alert.time.to_rfc3339(),
        escape(&alert.rule),
        escape(&alert.host),
        escape(&alert.title),
        lineage.join(" > "),
        alert.id
    )
}

/// A hook that does not exist is wrong usage (or configuration); all else is a failure.
fn exit(error: &DaemonError) -> Exit {
    if matches!(error, DaemonError::UnknownHook { .. }) { Exit::Usage } else { Exit::Failed }
}

/// Adds hooks of the command line to those that the configuration leaves out.
pub(super) fn disable(config: &mut Config, hooks: &[String]) {
    for hook in hooks {
        if !config.sensor.disable_hooks.contains(hook) {
            config.sensor.disable_hooks.push(hook.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender};
    use std::time::Duration;

    use super::*;

    /// Takes each write only when told to, as a stopped terminal does.
    struct Stuck {
        go: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_holds_nobody_up_and_is_told_what_it_missed() {
        let (let_go, go) = mpsc::channel();
        let (written, seen) = mpsc::channel();
        let show = shower(Stuck { go, written });
        let many = QUEUE + 10;
        for n in 0..many {
            show(format!("alert {n}"));
        }
        // From here on nothing waits.
        drop(let_go);
        let mut all = String::new();
        while !all.contains("not shown here") {
            all += &seen.recv_timeout(Duration::from_secs(20)).expect("the thread goes on");
        }
        show("the next".to_owned());
        drop(show);
        all.extend(seen);
        let shown = all.lines().filter(|line| line.starts_with("alert ")).count();
        let missed: usize = all.lines().filter_map(|line| line.split_once(" alerts are stored")?.0.parse::<usize>().ok()).sum();
        assert!(missed >= 9 && shown + missed == many, "{shown} shown, {missed} missed");
        assert!(all.ends_with("the next\n"), "{all}");
    }

    #[test]
    fn an_alert_is_one_line_whatever_is_in_it() {
        let mut alert = crate::cli::samples::alert();
        alert.title = "a\nb\u{1b}[2J".to_owned();
        let line = line(&alert);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.contains("lineage") && line.contains(&alert.id.to_string()));
    }

    #[test]
    fn hooks_of_the_command_line_are_added_once() {
        let mut config = Config::default();
        config.sensor.disable_hooks = vec!["exec".into()];
        disable(&mut config, &["exec".into(), "exit".into(), "exit".into()]);
        assert_eq!(config.sensor.disable_hooks, ["exec", "exit"]);
    }
}
