//! `bartizan run`: the sensor itself.

use super::Common;
use super::exit::{Exit, Failure, chain};
use crate::config::Config;
use crate::daemon::{self, DaemonError};

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
    daemon::run(config).map(|()| Exit::Ok).map_err(|error| Failure::new(exit(&error), chain(&error)))
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
    fn hooks_of_the_command_line_are_added_once() {
        let mut config = Config::default();
        config.sensor.disable_hooks = vec!["exec".into()];
        disable(&mut config, &["exec".into(), "exit".into(), "exit".into()]);
        assert_eq!(config.sensor.disable_hooks, ["exec", "exit"]);
    }
}
