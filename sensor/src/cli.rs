//! The command line: one file per verb.
//!
//! Invariants worth naming:
//!
//! - **Exit codes mean one thing each** ([`Exit`]); `status` alone uses 1, 2 and 3 with meanings of its own, `doctor` 1 and 2.
//! - **Standard output is the answer, standard error is about it.** `--json` is one object a line and nothing else.
//! - **Untrusted text reaches a terminal only through `escape.rs`.**
//! - **Reading needs no running Bartizan** and takes no lock.

mod alert_block;
mod alerts;
mod bus;
mod clock;
mod completions;
mod doctor;
mod escape;
mod event_line;
mod events;
mod exit;
mod latest;
mod log;
mod match_block;
mod matches;
mod out;
mod paint;
mod record;
mod replay;
mod run;
#[cfg(test)]
pub(crate) mod samples;
mod status;
mod status_page;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use exit::Exit;
pub use paint::ColorChoice;

use self::exit::{Failure, chain, complain};
use self::out::Stop;
use crate::config::Config;

/// Host sensor, event bus, detectors and SIEM delivery in one program.
#[derive(Debug, Parser)]
#[command(name = "bartizan", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What every verb takes.
#[derive(Debug, clap::Args)]
struct Common {
    /// Configuration file; `conf.d/*.toml` beside it is read too [default: /etc/bartizan/config.toml, if it exists]
    #[arg(long, value_name = "PATH", global = true)]
    config: Option<PathBuf>,

    /// Data folder [default: `data_dir` of the configuration, else /var/lib/bartizan]
    #[arg(long, value_name = "PATH", global = true)]
    data_dir: Option<PathBuf>,

    /// What to log to standard error, as in RUST_LOG: a level, or `module=level,…` [default: info for run, else warn]
    #[arg(long = "log", value_name = "FILTER", global = true)]
    log: Option<String>,
}

impl Common {
    /// The configuration with the command line's data folder in it.
    fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref()).map_err(Failure::usage)?;
        if let Some(data_dir) = &self.data_dir {
            config.data_dir = std::path::absolute(data_dir)
                .map_err(|error| Failure::usage(format_args!("--data-dir {} is not a path: {error}", data_dir.display())))?;
        }
        Ok(config)
    }

    /// The data folder, for verbs that need nothing else: with `--data-dir` and no `--config`, no file has to be readable.
    fn data_dir(&self) -> Result<PathBuf, Failure> {
        match (&self.data_dir, &self.config) {
            (Some(data_dir), None) => Ok(data_dir.clone()),
            _ => self.config().map(|config| config.data_dir),
        }
    }
}

/// What the reading verbs take.
#[derive(Debug, clap::Args)]
struct View {
    /// One JSON object a line
    #[arg(long)]
    json: bool,

    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    follow: bool,

    /// Only the last N of what is stored
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,

    /// Colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: ColorChoice,

    /// The same as --color never
    #[arg(long, conflicts_with = "color")]
    no_color: bool,
}

impl View {
    fn color(&self) -> ColorChoice {
        if self.no_color { ColorChoice::Never } else { self.color }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Record(record::Args),
    Events(events::Args),
    Alerts(alerts::Args),
    Matches(matches::Args),
    Status(status::Args),
    Bus(bus::Args),
    Doctor(doctor::Args),
    Version(version::Args),
    Completions(completions::Args),
}

/// Reads the command line of this process, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error).into(),
    };
    let Cli { common, verb } = &cli;
    let Some(verb) = verb else {
        // Nothing can be done when standard output is closed.
        let _ = Cli::command().print_help();
        return Exit::Ok.into();
    };
    if let Err(failure) = start_log(common, verb) {
        return fail(&failure).into();
    }
    let done = match verb {
        Verb::Run(args) => run::run(common, args).map_err(Stop::Failed),
        Verb::Record(args) => record::run(common, args),
        Verb::Events(args) => events::run(common, args),
        Verb::Alerts(args) => alerts::run(common, args),
        Verb::Matches(args) => matches::run(common, args),
        Verb::Status(args) => status::run(common, args),
        Verb::Bus(args) => bus::run(common, args),
        Verb::Doctor(args) => doctor::run(common, args),
        Verb::Version(args) => version::run(args),
        Verb::Completions(args) => completions::run(args, Cli::command()),
    };
    match done {
        Ok(exit) => exit,
        Err(Stop::ReaderGone) => Exit::Ok,
        Err(Stop::Failed(failure)) => fail(&failure),
    }
    .into()
}

fn fail(failure: &Failure) -> Exit {
    complain(&failure.message);
    failure.exit
}

/// clap's own exit code for wrong usage is 2, which for `status` means "not running": it becomes 64 here.
fn wrong_usage(error: &clap::Error) -> Exit {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
        _ => Exit::Usage,
    }
}

/// Logs to standard error. `--log` wins over `RUST_LOG`.
fn start_log(common: &Common, verb: &Verb) -> Result<(), Failure> {
    use std::io::IsTerminal;
    // What async-nats calls an error is a lost connection, which the forwarder tells itself, with what it does about it.
    let stays = matches!(verb, Verb::Run(_)) || matches!(verb, Verb::Bus(args) if args.serves());
    let default = if stays { "info,async_nats=off" } else { "warn" };
    let from_environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let text = common.log.clone().or(from_environment).unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::builder().parse(&text).map_err(|error| {
        let why = chain(&error);
        Failure::usage(format_args!("the log filter {text:?} is not understood ({why}): use a level such as `debug`, or `module=level,…`"))
    })?;
    let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A second subscriber in one process (tests) is refused; the first stays.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colors);
    // Told on standard error again, with a panic when that is full: a log that cannot be written must not end the sensor.
    let _ = log.log_internal_errors(false).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_takes_config_and_data_dir_on_either_side() {
        for verb in [
            &["run"][..],
            &["record", "/f"],
            &["events"],
            &["alerts"],
            &["matches"],
            &["status"],
            &["doctor"],
            &["version"],
            &["completions", "bash"],
        ] {
            let common = &["--config", "/c", "--data-dir", "/d"][..];
            for words in [[verb, common], [common, verb]] {
                let read = Cli::try_parse_from([&["bartizan"], words[0], words[1]].concat()).expect("it is understood");
                assert_eq!((read.common.config, read.common.data_dir), (Some("/c".into()), Some("/d".into())), "{verb:?}");
            }
        }
    }

    #[test]
    fn wrong_usage_never_looks_like_not_running() {
        for args in [&["bartizan", "fly"][..], &["bartizan", "events", "--pid", "x"], &["bartizan", "--data-dir"]] {
            let error = Cli::try_parse_from(args).expect_err("wrong");
            assert_eq!(wrong_usage(&error), Exit::Usage);
        }
    }
}
