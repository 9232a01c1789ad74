//! Programs whose short options take a secret: `-p` is a password for one and a port for the next.

use std::ops::Range;

use super::patterns::Pattern;

/// How a program is given its secret.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// `-pX` in one word; `-p` alone asks.
    Attached(&'static str),
    /// `-p X`, or in one word `-pX` (`--opt=X` for a long one).
    Value(&'static str),
    /// As above, but the secret is what stands behind this character.
    Behind(&'static str, char),
    /// As above, for values that begin so (`pass:`), behind any option.
    Prefixed(&'static str),
    /// The first word that is no option and has this character: what stands between it and `@`.
    User(char),
    /// The last word, when a group of short options has this letter.
    Last(char),
    /// This long option takes no secret here, or none as the next word.
    Not(&'static str),
}

/// One program, or a kind of them.
#[derive(Debug)]
pub(super) struct Program {
    pattern: Pattern,
    /// File names; `*` at the end stands for any rest.
    names: &'static [&'static str],
    rules: &'static [Rule],
    /// Only behind the word `login`.
    login: bool,
    /// It runs the first word that is no option, which ends its own options.
    pub(super) runs_next: bool,
    /// A shell reads its words.
    pub(super) scripts: bool,
}

use Rule::{Attached, Behind, Last, Not, Prefixed, User, Value};

const fn program(pattern: Pattern, names: &'static [&'static str], rules: &'static [Rule]) -> Program {
    Program { pattern, names, rules, login: false, runs_next: false, scripts: false }
}

/// Programs that hand their words to a shell.
const fn runner(names: &'static [&'static str]) -> Program {
    Program { scripts: true, ..program(Pattern::Option, names, &[]) }
}

/// The table. The first that fits counts.
const PROGRAMS: &[Program] = &[
    program(Pattern::Mysql, &["mysql*", "mariadb*"], &[Attached("-p"), Not("--password")]),
    Program { runs_next: true, ..program(Pattern::Sshpass, &["sshpass"], &[Value("-p")]) },
    program(
        Pattern::Curl,
        &["curl"],
        &[
            Behind("-u", ':'),
            Behind("--user", ':'),
            Behind("-U", ':'),
            Behind("--proxy-user", ':'),
            Behind("-E", ':'),
            Behind("--cert", ':'),
        ],
    ),
    program(Pattern::Redis, &["redis-cli", "valkey-cli"], &[Value("-a")]),
    program(Pattern::Mongo, &["mongo*"], &[Value("-p")]),
    program(Pattern::Ldap, &["ldappasswd"], &[Value("-w"), Value("-a"), Value("-s")]),
    program(Pattern::Ldap, &["ldap*"], &[Value("-w")]),
    program(Pattern::Mssql, &["sqlcmd", "bcp", "tsql", "osql"], &[Value("-P")]),
    program(Pattern::Oracle, &["sqlplus", "sqlldr", "expdp", "impdp"], &[User('/')]),
    program(Pattern::Smb, &["smbclient", "rpcclient", "smbmap", "smbget"], &[Behind("-U", '%'), Behind("--user", '%')]),
    program(Pattern::Openssl, &["openssl"], &[Prefixed("pass:"), Value("-k"), Value("-K"), Not("-pass")]),
    program(Pattern::Archive, &["zip", "unzip", "zipcloak"], &[Value("-P")]),
    program(Pattern::Archive, &["7z", "7za", "7zr", "7zz", "rar", "unrar"], &[Attached("-p"), Attached("-hp")]),
    program(Pattern::Htpasswd, &["htpasswd"], &[Last('b')]),
    program(Pattern::Useradd, &["useradd", "usermod"], &[Value("-p")]),
    program(Pattern::Ipmi, &["ipmitool"], &[Value("-P")]),
    program(Pattern::Snmp, &["snmp*"], &[Value("-c"), Value("-A"), Value("-X")]),
    program(Pattern::Mqtt, &["mosquitto_*"], &[Value("-P")]),
    program(
        Pattern::Remote,
        &["rdesktop", "xfreerdp*", "evil-winrm", "nxc", "netexec", "crackmapexec", "wfreerdp*"],
        &[Value("-p"), Attached("/p:")],
    ),
    program(Pattern::Lftp, &["lftp"], &[Behind("-u", ',')]),
    program(Pattern::Login, &["skopeo", "buildah"], &[Behind("--creds", ':'), Behind("--src-creds", ':'), Behind("--dest-creds", ':')]),
    Program {
        login: true,
        ..program(
            Pattern::Login,
            &["docker", "podman", "nerdctl", "helm", "oras", "crane", "az", "oc", "cf"],
            &[Value("-p"), Not("--secret")],
        )
    },
    program(Pattern::Option, &["vncviewer"], &[Not("-passwd"), Not("-PasswordFile")]),
    runner(&["ssh", "su", "runuser", "watch", "parallel", "tmux", "screen", "eval"]),
];

/// File names for the prefilter, without those that need the word `login` and those that need no rule.
pub(super) fn needles() -> impl Iterator<Item = &'static str> {
    let with_rules = PROGRAMS.iter().filter(|program| !program.login && program.pattern != Pattern::Option);
    with_rules.flat_map(|program| program.names.iter().map(|name| name.trim_end_matches('*'))).chain(["login"])
}

/// The program that a word names, if it is in the table.
pub(super) fn find(word: &str) -> Option<&'static Program> {
    if word.len() > 256 || word.contains(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | '\'' | '"' | ';')) {
        return None;
    }
    let file = word.rsplit('/').next()?;
    let fits = |name: &&str| match name.strip_suffix('*') {
        Some(start) => file.starts_with(start),
        None => file == *name,
    };
    PROGRAMS.iter().find(|program| program.names.iter().any(fits))
}

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// In this word.
    Here(Range<usize>),
    /// It is the next word, or what stands there behind the character.
    Next(Option<char>),
    /// It is the last word.
    Last,
}

impl Program {
    /// Why what is found is a secret.
    pub(super) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// What its rules say of a word behind its name. `login`: the word `login` stood before.
    pub(super) fn judge(&self, word: &str, login: bool) -> Option<Found> {
        if self.login && !login {
            return None;
        }
        self.rules.iter().find_map(|rule| rule.judge(word))
    }

    /// Whether the option takes no secret here, whatever its name says.
    pub(super) fn is_not(&self, word: &str) -> bool {
        self.rules.iter().any(|rule| matches!(rule, Not(option) if *option == word))
    }
}

impl Rule {
    fn judge(self, word: &str) -> Option<Found> {
        match self {
            Attached(option) => word.strip_prefix(option).filter(|value| !value.is_empty()).map(|_| Found::Here(option.len()..word.len())),
            Value(option) => value(word, option).map(|range| range.map_or(Found::Next(None), Found::Here)),
            Behind(option, separator) => match value(word, option)? {
                None => Some(Found::Next(Some(separator))),
                Some(range) => behind(&word[range.clone()], separator).map(|inner| Found::Here(range.start + inner.start..range.end)),
            },
            Prefixed(start) => word.strip_prefix(start).filter(|value| !value.is_empty()).map(|_| Found::Here(start.len()..word.len())),
            User(separator) => {
                if word.starts_with(['-', '/', '@', '.']) {
                    return None;
                }
                let inner = behind(word, separator)?;
                let end = word.rfind('@').filter(|at| *at > inner.start).unwrap_or(word.len());
                Some(Found::Here(inner.start..end))
            }
            Last(letter) => {
                let group = word.strip_prefix('-').filter(|group| !group.starts_with('-'))?;
                group.contains(letter).then_some(Found::Last)
            }
            Not(_) => None,
        }
    }
}

/// The value of `option` in this word; `Some(None)` when it is the next word.
fn value(word: &str, option: &str) -> Option<Option<Range<usize>>> {
    let rest = word.strip_prefix(option)?;
    match (rest.is_empty(), option.starts_with("--")) {
        (true, _) => Some(None),
        (false, false) => Some(Some(option.len()..word.len())),
        (false, true) => rest.starts_with('=').then(|| Some(option.len() + 1..word.len())),
    }
}

/// What stands behind the first `separator`, if anything does.
pub(super) fn behind(text: &str, separator: char) -> Option<Range<usize>> {
    let at = text.find(separator)? + separator.len_utf8();
    (at < text.len()).then_some(at..text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_by_their_file() {
        assert_eq!(find("/usr/bin/mysqldump").map(Program::pattern), Some(Pattern::Mysql));
        assert_eq!(find("ldappasswd").map(|program| program.rules.len()), Some(3));
        assert!(find("https://h/mysql").is_none() && find("ls").is_none() && find("curlew").is_none());
    }

    #[test]
    fn an_option_and_its_value() {
        let judge = |name: &str, word: &str, login: bool| find(name).and_then(|program| program.judge(word, login));
        assert_eq!(judge("mysql", "-phunter2", false), Some(Found::Here(2..9)));
        assert_eq!(judge("mysql", "-p", false), None);
        assert_eq!(judge("sshpass", "-p", false), Some(Found::Next(None)));
        assert_eq!(judge("curl", "-uu:p", false), Some(Found::Here(4..5)));
        assert_eq!(judge("curl", "--user=u:p", false), Some(Found::Here(9..10)));
        assert_eq!(judge("curl", "-uu", false), None);
        assert_eq!(judge("curl", "--user-agent=a:b", false), None);
        assert_eq!((judge("docker", "-p", false), judge("docker", "-p", true)), (None, Some(Found::Next(None))));
        assert_eq!(judge("sqlplus", "scott/tiger@db", false), Some(Found::Here(6..11)));
        assert_eq!(judge("ssh", "-p", false), None);
    }
}
