//! `bartizan completions`: what a shell needs to complete this command line.

use clap::{Command, ValueEnum};
use clap_complete::aot;

use super::exit::Exit;
use super::out::{Out, Stop};

/// Print the completions of a shell to standard output. docs/cli.md says where each shell looks for them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells that Bartizan's users have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
}

impl From<Shell> for aot::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
            Shell::Elvish => Self::Elvish,
        }
    }
}

/// Runs the verb. `command` is the whole command line's definition.
pub(crate) fn run(args: &Args, command: Command) -> Result<Exit, Stop> {
    let mut out = Out::stdout();
    out.line(text(args.shell, command).trim_end())?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// The script. It is made in memory first: the generator panics when its output cannot be written.
fn text(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    aot::generate(aot::Shell::from(shell), &mut command, "bartizan", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_shell_gets_every_verb_and_its_options() {
        let verbs: Vec<String> = Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        assert!(verbs.iter().any(|verb| verb == "completions"));
        for shell in Shell::value_variants() {
            let script = text(*shell, Cli::command());
            assert!(script.lines().count() > 20, "{shell:?}: {script}");
            for word in verbs.iter().map(String::as_str).chain(["data-dir", "disable-hook", "follow"]) {
                assert!(script.contains(word), "{word} is not in {shell:?}'s:\n{script}");
            }
        }
    }
}
