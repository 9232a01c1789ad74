//! Where a shell or interpreter takes its commands from, read off its argument vector.
//!
//! The argument vector is the attacker's to choose, so this is total: any vector has an answer, and what is not
//! understood is taken as an option without a value.

use bartizan_bus::event::Process;
use minicbor::{Decode, Encode};

use super::programs::{Program, Recognised};

/// Where the commands come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Commands {
    /// From standard input.
    #[n(0)]
    Stdin,
    /// From an argument (`-c`, `-e`).
    #[n(1)]
    Inline,
    /// From a file or module.
    #[n(2)]
    File,
    /// It takes none (`--version`, a built-in server).
    #[n(3)]
    Nothing,
}

/// A read argument vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invocation {
    /// Where the commands come from.
    pub(super) commands: Commands,
    /// Told to be interactive, whatever its standard input is.
    pub(super) interactive: bool,
    /// The file, when [`Commands::File`].
    pub(super) script: Option<String>,
}

/// How a program reads its options.
struct Grammar {
    /// Letters whose value (the rest of the word, or the next one) is the program.
    inline: &'static str,
    /// Letters whose value is a file or module to run.
    file: &'static str,
    /// Letters that take a value.
    value: &'static str,
    /// Letters that take a value only within the same word.
    attached: &'static str,
    /// Letters that say: interactive.
    interactive: &'static str,
    /// Letters that say: commands come from standard input, operands are parameters.
    stdin: &'static str,
    /// Letters after which nothing is read.
    nothing: &'static str,
    /// `+x` words are options.
    plus: bool,
    /// `-c` takes the first operand after all options rather than the next word.
    inline_is_operand: bool,
    /// Long options (without dashes) that mean what their group means.
    long_inline: &'static [&'static str],
    long_value: &'static [&'static str],
    long_interactive: &'static [&'static str],
}

const LONG_NOTHING: &[&str] = &["version", "help", "dump-strings", "dump-po-strings"];

const SHELL: Grammar = Grammar {
    inline: "c",
    file: "",
    value: "oO",
    attached: "",
    interactive: "i",
    stdin: "s",
    nothing: "",
    plus: true,
    inline_is_operand: true,
    long_inline: &["command"],
    long_value: &[
        "rcfile",
        "init-file",
        "init-command",
        "emulate",
        "features",
        "profile",
        "debug-output",
        "config",
        "env-config",
        "plugin-config",
    ],
    long_interactive: &["interactive"],
};

const NONE: Grammar = Grammar {
    inline: "ceE",
    file: "f",
    value: "",
    attached: "",
    interactive: "i",
    stdin: "",
    nothing: "V",
    plus: false,
    inline_is_operand: false,
    long_inline: &["eval", "command"],
    long_value: &[],
    long_interactive: &["interactive"],
};

const fn grammar(program: Program) -> Grammar {
    match program {
        // PowerShell's words are not letters; see `powershell`.
        Program::Shell | Program::PowerShell => SHELL,
        Program::Python => Grammar { inline: "c", file: "m", value: "WXQ", long_value: &["check-hash-based-pycs"], ..NONE },
        Program::Perl => Grammar { inline: "eE", file: "", value: "I", attached: "MmCDFidxV", interactive: "", nothing: "v", ..NONE },
        Program::Ruby => Grammar { inline: "e", file: "", value: "IrCEX", attached: "FKTWxi0", interactive: "", nothing: "", ..NONE },
        Program::Php => Grammar { inline: "rBRE", file: "fF", value: "dczt", interactive: "a", nothing: "Simv", ..NONE },
        Program::JavaScript => Grammar {
            inline: "ep",
            file: "",
            value: "rC",
            nothing: "v",
            long_inline: &["eval", "print"],
            long_value: &["require", "import", "loader", "experimental-loader", "conditions", "env-file", "title", "input-type"],
            ..NONE
        },
        Program::Lua => Grammar { inline: "e", file: "", value: "l", nothing: "v", ..NONE },
        Program::Tcl => Grammar { inline: "c", file: "f", value: "", nothing: "v", ..NONE },
        Program::Other => NONE,
    }
}

/// Reads the argument vector of `process`, which is a `recognised` program.
pub(super) fn read(process: &Process, recognised: Recognised) -> Invocation {
    let argv: Vec<&str> = process.argv.iter().skip(recognised.argv0).map(String::as_str).collect();
    parse(recognised.program, &argv)
}

fn is_stdin_path(path: &str) -> bool {
    matches!(path, "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0")
}

fn of(commands: Commands, interactive: bool) -> Invocation {
    Invocation { commands, interactive, script: None }
}

fn file(path: &str, interactive: bool) -> Invocation {
    if is_stdin_path(path) {
        return of(Commands::Stdin, interactive);
    }
    Invocation { commands: Commands::File, interactive, script: Some(path.to_owned()) }
}

/// Reads `argv`, argument 0 included.
fn parse(program: Program, argv: &[&str]) -> Invocation {
    if program == Program::PowerShell {
        return powershell(argv);
    }
    let grammar = grammar(program);
    let mut words = argv.iter().skip(1).copied().peekable();
    let (mut interactive, mut stdin, mut inline) = (false, false, false);
    while let Some(word) = words.peek().copied() {
        if word == "--" || (word == "-" && program == Program::Shell) {
            words.next();
            break;
        }
        if word == "-" {
            return of(Commands::Stdin, interactive);
        }
        let plus = grammar.plus && word.starts_with('+') && word.len() > 1;
        if !plus && !word.starts_with('-') {
            break;
        }
        words.next();
        if let Some(long) = word.strip_prefix("--") {
            let (name, attached) = match long.split_once('=') {
                Some((name, _)) => (name, true),
                None => (long, false),
            };
            if LONG_NOTHING.contains(&name) {
                return of(Commands::Nothing, interactive);
            }
            if grammar.long_inline.contains(&name) {
                inline = true;
                break;
            }
            interactive |= grammar.long_interactive.contains(&name);
            if !attached && grammar.long_value.contains(&name) {
                words.next();
            }
            continue;
        }
        for (at, letter) in word.char_indices().skip(1) {
            let rest = &word[at + letter.len_utf8()..];
            if plus {
                if grammar.value.contains(letter) {
                    words.next();
                }
            } else if grammar.nothing.contains(letter) {
                return of(Commands::Nothing, interactive);
            } else if grammar.inline.contains(letter) {
                inline = true;
                if !grammar.inline_is_operand {
                    break;
                }
            } else if grammar.file.contains(letter) {
                let path = if rest.is_empty() { words.next().unwrap_or("-") } else { rest };
                return file(path, interactive);
            } else if grammar.value.contains(letter) {
                // A shell's `-o` takes the next word even inside a cluster (`-eo pipefail`).
                if grammar.inline_is_operand || rest.is_empty() {
                    words.next();
                }
                if !grammar.inline_is_operand {
                    break;
                }
            } else if grammar.attached.contains(letter) {
                break;
            }
            interactive |= grammar.interactive.contains(letter);
            stdin |= grammar.stdin.contains(letter);
        }
        if inline && !grammar.inline_is_operand {
            break;
        }
    }
    if inline {
        // `python -i -c ..`, `lua -i -e ..` go on with standard input; a shell's `-ic` does not.
        let goes_on = interactive && !grammar.inline_is_operand;
        return of(if goes_on { Commands::Stdin } else { Commands::Inline }, interactive);
    }
    match words.next() {
        Some(_) if stdin => of(Commands::Stdin, interactive),
        // `python -i script` goes on with standard input; a shell's `-i script` does not.
        Some(path) if interactive && !grammar.inline_is_operand && !is_stdin_path(path) => {
            Invocation { commands: Commands::Stdin, interactive, script: Some(path.to_owned()) }
        }
        Some(path) => file(path, interactive),
        None => of(Commands::Stdin, interactive),
    }
}

/// PowerShell: whole words, any case, any unambiguous prefix.
fn powershell(argv: &[&str]) -> Invocation {
    let mut words = argv.iter().skip(1);
    let mut interactive = false;
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix('-') else { return file(word, interactive) };
        let name = name.trim_start_matches('-').to_ascii_lowercase();
        let is = |full: &str, least: usize| name.len() >= least && full.starts_with(&name);
        if is("command", 1) || is("commandwithargs", 8) || is("encodedcommand", 1) || name == "ec" {
            let from_stdin = words.next().is_none_or(|value| *value == "-");
            return of(if from_stdin || interactive { Commands::Stdin } else { Commands::Inline }, interactive);
        }
        if is("file", 1) {
            return file(words.next().copied().unwrap_or("-"), interactive);
        }
        if is("version", 1) || is("help", 1) || name == "?" {
            return of(Commands::Nothing, interactive);
        }
        interactive |= is("noexit", 3) || is("interactive", 1);
        if is("workingdirectory", 1)
            || is("executionpolicy", 2)
            || is("configurationname", 8)
            || is("settingsfile", 3)
            || is("inputformat", 3)
        {
            words.next();
        }
    }
    of(Commands::Stdin, interactive)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commands(program: Program, line: &str) -> Commands {
        let argv: Vec<&str> = line.split_whitespace().collect();
        parse(program, &argv).commands
    }

    #[test]
    fn shells_that_read_standard_input() {
        for line in [
            "sh",
            "-bash",
            "bash -i",
            "bash -li",
            "sh -s",
            "bash -s -- a b",
            "sh -s a b",
            "bash --norc",
            "bash --noprofile --norc -i",
            "bash --login",
            "sh -",
            "sh --",
            "bash +x",
            "bash +o history -i",
            "sh -x",
            "bash -o pipefail",
            "bash -eo pipefail",
            "sh -eu",
            "bash --rcfile /tmp/rc -i",
            "sh /dev/stdin",
            "zsh -o extendedglob",
            "bash --rcfile=/tmp/rc",
            "zsh -f",
            "fish --private",
            "bash -O extglob",
        ] {
            assert_eq!(commands(Program::Shell, line), Commands::Stdin, "{line}");
        }
        assert_eq!(parse(Program::Shell, &[]).commands, Commands::Stdin);
        assert!(parse(Program::Shell, &["sh", "-xi"]).interactive);
        assert!(!parse(Program::Shell, &["sh", "-x"]).interactive);
    }

    #[test]
    fn shells_that_do_not() {
        for line in
            ["sh -c id", "bash -lc id", "bash -ic id", "bash --norc -c id", "sh -ec id", "bash -euo pipefail -c id", "fish --command=id"]
        {
            assert_eq!(commands(Program::Shell, line), Commands::Inline, "{line}");
        }
        for line in [
            "sh script.sh",
            "bash -x script.sh -s",
            "sh -- script.sh",
            "bash - script.sh",
            "bash +x script.sh",
            "bash -o pipefail script.sh",
        ] {
            assert_eq!(commands(Program::Shell, line), Commands::File, "{line}");
        }
        assert_eq!(parse(Program::Shell, &["sh", "-e", "/opt/h.sh", "x"]).script.as_deref(), Some("/opt/h.sh"));
        assert_eq!(commands(Program::Shell, "bash --version"), Commands::Nothing);
    }

    #[test]
    fn interpreters_that_read_standard_input() {
        for (program, line) in [
            (Program::Python, "python3"),
            (Program::Python, "python3 -"),
            (Program::Python, "python3 -i"),
            (Program::Python, "python3 -u -"),
            (Program::Python, "python3 -W ignore -X utf8"),
            (Program::Python, "python3 -ic pass"),
            (Program::Python, "python3 -i script.py"),
            (Program::Perl, "perl"),
            (Program::Perl, "perl -w -"),
            (Program::Perl, "perl -Mstrict"),
            (Program::Perl, "perl -I /lib"),
            (Program::Ruby, "ruby -rsocket"),
            (Program::Ruby, "ruby -r socket -"),
            (Program::Php, "php"),
            (Program::Php, "php -a"),
            (Program::Php, "php -d x=1"),
            (Program::JavaScript, "node"),
            (Program::JavaScript, "node -i"),
            (Program::JavaScript, "node --inspect -"),
            (Program::JavaScript, "node --require x"),
            (Program::Lua, "lua5.4 -i"),
            (Program::Lua, "lua -"),
            (Program::Tcl, "tclsh"),
            (Program::PowerShell, "pwsh"),
            (Program::PowerShell, "pwsh -NoProfile -Command -"),
            (Program::PowerShell, "pwsh -NoLogo -noexit -c id"),
        ] {
            assert_eq!(commands(program, line), Commands::Stdin, "{line}");
        }
    }

    #[test]
    fn interpreters_that_do_not() {
        for (program, line, expected) in [
            (Program::Python, "python3 app.py -i", Commands::File),
            (Program::Python, "python3 -m http.server", Commands::File),
            (Program::Python, "python3 -c print()", Commands::Inline),
            (Program::Python, "python3 -uc print()", Commands::Inline),
            (Program::Python, "python3 -V", Commands::Nothing),
            (Program::Perl, "perl -e 1", Commands::Inline),
            (Program::Perl, "perl -MIO -e 1", Commands::Inline),
            (Program::Perl, "perl -lne 1", Commands::Inline),
            (Program::Perl, "perl x.pl", Commands::File),
            (Program::Ruby, "ruby -rsocket -e 1", Commands::Inline),
            (Program::Php, "php -r 1", Commands::Inline),
            (Program::Php, "php -f x.php", Commands::File),
            (Program::Php, "php -S 127.0.0.1:80", Commands::Nothing),
            (Program::JavaScript, "node --max-old-space-size=9 app.js", Commands::File),
            (Program::JavaScript, "node -e 1", Commands::Inline),
            (Program::JavaScript, "node --eval=1", Commands::Inline),
            (Program::Lua, "lua -e x()", Commands::Inline),
            (Program::Lua, "lua x.lua", Commands::File),
            (Program::PowerShell, "pwsh -File x.ps1", Commands::File),
            (Program::PowerShell, "pwsh x.ps1", Commands::File),
            (Program::PowerShell, "pwsh -c id", Commands::Inline),
        ] {
            assert_eq!(commands(program, line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_vector_has_an_answer(argv in prop::collection::vec("[-+a-zé =/]{0,8}", 0..8), which in 0usize..10) {
            let program = [Program::Shell, Program::PowerShell, Program::Python, Program::Perl, Program::Ruby, Program::Php,
                Program::JavaScript, Program::Lua, Program::Tcl, Program::Other][which];
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let read = parse(program, &words);
            if read.commands == Commands::File {
                prop_assert!(read.script.is_some_and(|script| words.contains(&script.as_str()) || words.iter().any(|word| word.ends_with(&script))));
            }
        }

        #[test]
        fn a_shell_with_a_command_string_never_reads_standard_input(before in prop::collection::vec("-[eux]{1,3}", 0..4), command in "[a-z ]{1,9}") {
            let mut argv: Vec<&str> = vec!["sh"];
            argv.extend(before.iter().map(String::as_str));
            argv.extend(["-c", &command]);
            prop_assert_eq!(parse(Program::Shell, &argv).commands, Commands::Inline);
        }
    }
}
