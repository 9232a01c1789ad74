//! `bartizan run`: the sensor itself.

use std::io::{IsTerminal, Write};

use bartizan_bus::event::Alert;
use jiff::tz::TimeZone;

use super::Common;
use super::alert_block::AlertBlocks;
use super::escape::escape;
use super::exit::{Exit, Failure, chain};
use super::paint::{ColorChoice, Paint};
use crate::config::Config;
use crate::daemon::{self, DaemonError, OnAlert};

/// Run the sensor, the bus, the detectors and the forwarders until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not attach this kernel hook; repeatable, and added to `sensor.disable_hooks` of the configuration
    #[arg(long = "disable-hook", value_name = "NAME")]
    disable_hooks: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Failure> {
    let mut config = common.config()?;
    disable(&mut config, &args.disable_hooks);
    daemon::run(config, announcer()).map(|()| Exit::Ok).map_err(|error| Failure::new(exit(&error), chain(&error)))
}

/// Shows alerts on standard output as they come: as blocks on a terminal, else a line each.
fn announcer() -> OnAlert {
    let blocks = AlertBlocks::new(Paint::for_stdout(ColorChoice::Auto), TimeZone::system());
    let terminal = std::io::stdout().is_terminal();
    Box::new(move |alert, seq| {
        let text = if terminal { format!("\n{}\n", blocks.render(alert, seq)) } else { line(alert) };
        // Whoever watched is gone; the alert is stored all the same.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    })
}

/// An alert on one line: what, who, and the lineage from the oldest known ancestor down.
fn line(alert: &Alert) -> String {
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

fn disable(config: &mut Config, hooks: &[String]) {
    for hook in hooks {
        if !config.sensor.disable_hooks.contains(hook) {
            config.sensor.disable_hooks.push(hook.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
