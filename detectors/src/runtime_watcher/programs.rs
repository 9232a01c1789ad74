//! Which programs are shells and interpreters, by file name.

use bartizan_bus::event::{Attack, Process};
use minicbor::{Decode, Encode};

/// A program that runs what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Program {
    /// A POSIX-like or C-like shell.
    #[n(0)]
    Shell,
    /// PowerShell.
    #[n(1)]
    PowerShell,
    /// Python.
    #[n(2)]
    Python,
    /// Perl.
    #[n(3)]
    Perl,
    /// Ruby.
    #[n(4)]
    Ruby,
    /// PHP.
    #[n(5)]
    Php,
    /// Node.js, Deno, Bun.
    #[n(6)]
    JavaScript,
    /// Lua.
    #[n(7)]
    Lua,
    /// Tcl, Expect.
    #[n(8)]
    Tcl,
    /// Another interpreter.
    #[n(9)]
    Other,
}

const SHELLS: &[&str] = &[
    "sh", "bash", "rbash", "dash", "ash", "hush", "lash", "msh", "zsh", "rzsh", "ksh", "rksh", "mksh", "pdksh", "lksh", "oksh", "loksh",
    "yash", "posh", "fish", "csh", "tcsh", "bsd-csh", "elvish", "nu", "xonsh", "toysh",
];

const INTERPRETERS: &[(&str, Program)] = &[
    ("pwsh", Program::PowerShell),
    ("powershell", Program::PowerShell),
    ("python", Program::Python),
    ("pypy", Program::Python),
    ("ipython", Program::Python),
    ("perl", Program::Perl),
    ("ruby", Program::Ruby),
    ("jruby", Program::Ruby),
    ("irb", Program::Ruby),
    ("php", Program::Php),
    ("node", Program::JavaScript),
    ("nodejs", Program::JavaScript),
    ("deno", Program::JavaScript),
    ("bun", Program::JavaScript),
    ("lua", Program::Lua),
    ("luajit", Program::Lua),
    ("tclsh", Program::Tcl),
    ("expect", Program::Tcl),
    ("jimsh", Program::Tcl),
    ("guile", Program::Other),
    ("groovy", Program::Other),
    ("jshell", Program::Other),
];

/// Programs that are what their argument 0 says.
const MULTI_CALL: &[&str] = &["busybox", "toybox", "toolbox", "sbase-box", "coreutils"];

/// The last component of a path, without the mark of `/proc` for a file that has no link any more.
pub(super) fn file_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// `python3.11` -> `python`, `bash-static` -> `bash`, `php8.2` -> `php`, `ksh93` -> `ksh`.
fn stem(name: &str) -> &str {
    let name = name.strip_suffix("-static").unwrap_or(name);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if bare.is_empty() { name } else { bare }
}

fn is_multi_call(name: &str) -> bool {
    MULTI_CALL.contains(&stem(name))
}

/// Knows the programs: the built-in names and those of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Programs {
    extra_shells: Vec<String>,
    extra_interpreters: Vec<String>,
}

/// A recognised program, and where its own arguments begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recognised {
    /// What it is.
    pub(super) program: Program,
    /// Index of the argument that is its argument 0: 1 for `busybox sh -i`, else 0.
    pub(super) argv0: usize,
}

impl Programs {
    /// With extra names.
    pub(super) fn new(extra_shells: &[String], extra_interpreters: &[String]) -> Self {
        Self { extra_shells: extra_shells.to_vec(), extra_interpreters: extra_interpreters.to_vec() }
    }

    fn by_name(&self, name: &str) -> Option<Program> {
        if self.extra_shells.iter().any(|extra| extra == name) {
            return Some(Program::Shell);
        }
        if self.extra_interpreters.iter().any(|extra| extra == name) {
            return Some(Program::Other);
        }
        let stem = stem(name);
        if SHELLS.contains(&name) || SHELLS.contains(&stem) {
            return Some(Program::Shell);
        }
        INTERPRETERS.iter().find(|(known, _)| *known == name || *known == stem).map(|(_, program)| *program)
    }

    /// What `process` is. `requested` is the path that its exec asked for, when that is known.
    ///
    /// The executed file's name decides. A multi-call binary is what it was called as. A file under another name is
    /// taken for a shell or interpreter when its argument 0 or the requested path says so: a copy of a shell is seldom
    /// called by anything but a shell's name, and a program that is none has no reason to be.
    pub(super) fn recognise(&self, process: &Process, requested: Option<&str>) -> Option<Recognised> {
        let arg = |index: usize| process.argv.get(index).map(|arg| file_name(arg.strip_prefix('-').unwrap_or(arg)));
        let exe = process.exe_path().map(file_name);
        let found = |program: Program, argv0: usize| Some(Recognised { program, argv0 });
        if let Some(program) = exe.and_then(|name| self.by_name(name)) {
            return found(program, 0);
        }
        if exe.is_some_and(is_multi_call) {
            let called = arg(0).or(requested.map(file_name))?;
            return if is_multi_call(called) {
                arg(1).and_then(|applet| self.by_name(applet)).and_then(|program| found(program, 1))
            } else {
                self.by_name(called).and_then(|program| found(program, 0))
            };
        }
        let called = arg(0).and_then(|name| self.by_name(name)).or_else(|| requested.and_then(|path| self.by_name(file_name(path))));
        called.and_then(|program| found(program, 0))
    }
}

impl Program {
    /// ATT&CK: execution by this kind of interpreter.
    pub(super) fn attack(self) -> Attack {
        let technique = match self {
            Self::Shell => "T1059.004",
            Self::PowerShell => "T1059.001",
            Self::Python => "T1059.006",
            Self::JavaScript => "T1059.007",
            Self::Perl | Self::Ruby | Self::Php | Self::Lua | Self::Tcl | Self::Other => "T1059",
        };
        Attack { tactic: "TA0002".to_owned(), technique: technique.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::SecurityEvent;

    use super::*;
    use crate::testing::Host;

    fn recognise(exe: &str, argv: &[&str]) -> Option<(Program, usize)> {
        recognise_as(exe, None, argv)
    }

    fn recognise_as(exe: &str, requested: Option<&str>, argv: &[&str]) -> Option<(Program, usize)> {
        let mut host = Host::new();
        host.seed(1, 0, exe, argv);
        let events: Vec<SecurityEvent> = host.take();
        let process = events[0].process.as_ref().expect("subject");
        let programs = Programs::new(&["corpsh".to_owned()], &["rexx".to_owned()]);
        programs.recognise(process, requested).map(|found| (found.program, found.argv0))
    }

    #[test]
    fn names_are_known_with_version_and_without() {
        for shell in ["/bin/sh", "/usr/bin/dash", "/bin/bash", "/usr/bin/bash-5.2", "/bin/bash-static", "/usr/bin/ksh93", "/bin/zsh-5.9"] {
            assert_eq!(recognise(shell, &["x"]), Some((Program::Shell, 0)), "{shell}");
        }
        assert_eq!(recognise("/usr/bin/python3.11", &["python3"]), Some((Program::Python, 0)));
        assert_eq!(recognise("/usr/bin/php8.2", &["php"]), Some((Program::Php, 0)));
        assert_eq!(recognise("/usr/bin/ruby3.1", &["ruby"]), Some((Program::Ruby, 0)));
        assert_eq!(recognise("/usr/bin/lua5.4", &["lua"]), Some((Program::Lua, 0)));
        assert_eq!(recognise("/usr/bin/node", &["node"]), Some((Program::JavaScript, 0)));
        assert_eq!(recognise("/opt/corpsh", &["corpsh"]), Some((Program::Shell, 0)));
        assert_eq!(recognise("/usr/bin/rexx", &["rexx"]), Some((Program::Other, 0)));
        assert_eq!(recognise("/tmp/bash (deleted)", &["x"]), Some((Program::Shell, 0)));
    }

    #[test]
    fn programs_that_only_look_like_it_are_not() {
        for other in [
            "/usr/bin/ls",
            "/usr/bin/ssh",
            "/usr/sbin/sshd",
            "/usr/sbin/php-fpm8.2",
            "/usr/bin/python3-config",
            "/usr/bin/7",
            "/usr/bin/nc",
        ] {
            assert_eq!(recognise(other, &[other]), None, "{other}");
        }
    }

    #[test]
    fn multi_call_binaries_are_what_they_are_called() {
        assert_eq!(recognise("/bin/busybox", &["sh", "-i"]), Some((Program::Shell, 0)));
        assert_eq!(recognise("/bin/busybox", &["-sh"]), Some((Program::Shell, 0)));
        assert_eq!(recognise("/bin/busybox", &["/bin/busybox", "ash"]), Some((Program::Shell, 1)));
        assert_eq!(recognise("/bin/busybox", &["busybox", "ls"]), None);
        assert_eq!(recognise("/bin/busybox", &["cat"]), None);
        assert_eq!(recognise("/bin/busybox", &["busybox"]), None);
        assert_eq!(recognise_as("/bin/busybox", Some("/bin/sh"), &[]), Some((Program::Shell, 0)));
    }

    #[test]
    fn a_renamed_shell_is_known_by_argument_0_or_the_requested_path() {
        assert_eq!(recognise("/tmp/x", &["-bash"]), Some((Program::Shell, 0)));
        assert_eq!(recognise_as("/tmp/x", Some("/bin/sh"), &["y"]), Some((Program::Shell, 0)));
        assert_eq!(recognise_as("/tmp/x", Some("/tmp/x"), &["x"]), None);
    }
}
