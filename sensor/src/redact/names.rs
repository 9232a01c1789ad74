//! Which names (of options, variables, query parameters, headers) say that their value is a secret, and which values are none.

/// Longest name that is looked at, in bytes: longer ones are no names.
pub(super) const NAME_MAX: usize = 128;

/// Words at whose end a secret's name ends: `PGPASSWORD`, `authToken`.
const ENDINGS: &[&str] = &["password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "accesskey", "privatekey"];

/// Words that are such a name only as a whole.
const WORDS: &[&str] = &["credential", "credentials", "passcode"];

/// Words that are such a name only as its last one: `DB_PASS`, but not `pass-through`.
const LAST: &[&str] =
    &["pass", "pwd", "bearer", "storepass", "keypass", "srcstorepass", "deststorepass", "srckeypass", "destkeypass", "sshpass", "dbpass"];

/// What makes a `key` a secret one when it stands before it.
const KEY_OF: &[&str] = &[
    "api",
    "access",
    "private",
    "secret",
    "auth",
    "encryption",
    "encrypt",
    "signing",
    "master",
    "account",
    "shared",
    "storage",
    "session",
    "license",
];

/// A name that ends so tells about the secret, and is not it: `--token-file`, `AWS_ACCESS_KEY_ID`.
const ABOUT: &[&str] = &[
    "alg",
    "algorithm",
    "arn",
    "backend",
    "class",
    "cmd",
    "command",
    "count",
    "dir",
    "directory",
    "duration",
    "enabled",
    "endpoint",
    "expiration",
    "expires",
    "expiry",
    "file",
    "filename",
    "format",
    "helper",
    "host",
    "id",
    "ids",
    "issuer",
    "key_file",
    "len",
    "length",
    "level",
    "lifetime",
    "limit",
    "manager",
    "max",
    "min",
    "mode",
    "name",
    "names",
    "namespace",
    "path",
    "paths",
    "policy",
    "port",
    "profile",
    "prompt",
    "provider",
    "region",
    "rounds",
    "scope",
    "size",
    "source",
    "stdin",
    "store",
    "timeout",
    "ttl",
    "type",
    "uri",
    "url",
    "user",
    "username",
    "version",
];

/// A name that begins so says whether, or how many: `--no-password`, `MAX_TOKEN`.
const WHETHER: &[&str] = &[
    "allow", "ask", "disable", "enable", "has", "hide", "is", "max", "min", "no", "num", "old", "prompt", "require", "show", "skip",
    "without",
];

/// Values that turn something on or off, or say that there is none.
const PLAIN: &[&str] = &["true", "false", "yes", "no", "on", "off", "none", "null", "nil", "auto", "stdin", "-", "=", "*"];

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing.
    Nothing,
    /// It is a secret.
    Secret,
    /// It is a secret, or the path of a file that holds it.
    SecretOrPath,
}

/// The names of one configuration.
#[derive(Debug, Default, Clone)]
pub(super) struct Names {
    extra: Vec<String>,
    keep: Vec<String>,
}

impl Names {
    /// The built-in names with `extra` ones, without those in `keep`.
    pub(super) fn new(extra: &[String], keep: &[String]) -> Self {
        Self { extra: extra.iter().map(|name| plain(name)).collect(), keep: keep.iter().map(|name| plain(name)).collect() }
    }

    /// What the name of an option, a query parameter or a header says: its last words count.
    pub(super) fn strict(&self, name: &str) -> Says {
        self.judge(name, false)
    }

    /// What the name of a variable says: `NAME_IN_CAPITALS` may have the word anywhere (`DB_PASSWORD_PROD`).
    pub(super) fn variable(&self, name: &str) -> Says {
        self.judge(name, !name.bytes().any(|byte| byte.is_ascii_lowercase()))
    }

    fn judge(&self, name: &str, anywhere: bool) -> Says {
        let name = name.trim_start_matches('-');
        if name.is_empty() || name.len() > NAME_MAX {
            return Says::Nothing;
        }
        if !self.extra.is_empty() || !self.keep.is_empty() {
            let plain = plain(name);
            if self.keep.contains(&plain) {
                return Says::Nothing;
            }
            if self.extra.contains(&plain) {
                return Says::Secret;
            }
        }
        if name == "_auth" {
            return Says::Secret;
        }
        let words = words(name);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return Says::Nothing };
        if ABOUT.contains(last) || (words.len() > 1 && WHETHER.contains(first)) {
            return Says::Nothing;
        }
        let from = if anywhere { 0 } else { words.len() - 1 };
        let mut says = Says::Nothing;
        for (at, word) in words.iter().enumerate().skip(from) {
            let is_last = at + 1 == words.len();
            let before = at.checked_sub(1).and_then(|at| words.get(at));
            if ENDINGS.iter().any(|ending| word.ends_with(ending)) {
                // A private key is as often named by its file.
                says = if word.ends_with("privatekey") { Says::SecretOrPath } else { Says::Secret };
            } else if WORDS.contains(word) {
                says = Says::SecretOrPath;
            } else if is_last && LAST.contains(word) {
                // The shell's own PWD is a folder.
                says = if *word == "pwd" { Says::SecretOrPath } else { Says::Secret };
            } else if *word == "key" && before.is_some_and(|before| KEY_OF.contains(before)) {
                says = if before.is_some_and(|before| *before == "private") { Says::SecretOrPath } else { Says::Secret };
            } else if is_last && *word == "auth" && before.is_some_and(|before| *before == "basic") {
                says = Says::Secret;
            }
            if says != Says::Nothing {
                break;
            }
        }
        says
    }
}

/// A name without its leading dashes, in lower case, `-` as `_`.
fn plain(name: &str) -> String {
    name.trim_start_matches('-').to_ascii_lowercase().replace('-', "_")
}

/// The words of a name in lower case: cut at everything that is no letter or digit, and where a capital follows a small letter.
/// Numbers are left out.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut small = false;
    let mut end = |word: &mut String| {
        let trimmed = word.trim_end_matches(|c: char| c.is_ascii_digit());
        if !trimmed.is_empty() {
            words.push(trimmed.to_owned());
        }
        word.clear();
    };
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (small && c.is_ascii_uppercase()) {
            end(&mut word);
        }
        small = c.is_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
        }
    }
    end(&mut word);
    words
}

/// A value that is no secret, whatever its name says: nothing, a switch, or one that is masked already (mysql writes `x` over its own).
pub(super) fn is_plain(value: &str) -> bool {
    value.is_empty() || PLAIN.iter().any(|plain| value.eq_ignore_ascii_case(plain)) || value.bytes().all(|byte| matches!(byte, b'*' | b'x'))
}

/// A value that names a file.
pub(super) fn is_path(value: &str) -> bool {
    let ending = |ending: &str| value.len() > ending.len() && value.ends_with(ending);
    ["/", "./", "../", "~", "$HOME", "file:"].iter().any(|start| value.starts_with(start))
        || [".pem", ".key", ".json", ".crt", ".p12", ".pfx", ".yaml", ".yml"].into_iter().any(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        let names = Names::default();
        for name in [
            "--password",
            "--db-password",
            "-password",
            "--token",
            "--api-key",
            "--secret",
            "--apiKey",
            "--authToken",
            "spring.datasource.password",
            "--client_secret",
            "--oauth2-bearer",
            "--storepass",
            "--db-pass",
            "PRIVATE-TOKEN",
            "x-api-key",
            "_auth",
            "_authToken",
        ] {
            assert_eq!(names.strict(name), Says::Secret, "{name}");
        }
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "PASSWORD",
            "PGPASSWORD",
            "MYSQL_ROOT_PASSWORD",
            "DB_PASSWORD_PROD",
            "PASSWORD2",
            "SECRET_KEY_BASE",
            "GITHUB_TOKEN",
            "NPM_TOKEN",
            "API_KEY",
            "APIKEY",
            "DB_PASS",
            "SSHPASS",
        ] {
            assert_eq!(names.variable(name), Says::Secret, "{name}");
        }
        for name in ["PRIVATE_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "MYSQL_PWD"] {
            assert_eq!(names.variable(name), Says::SecretOrPath, "{name}");
        }
    }

    #[test]
    fn names_that_are_about_secrets() {
        let names = Names::default();
        for name in [
            "--token-file",
            "--password-stdin",
            "--no-password",
            "--ask-password",
            "--token-ttl",
            "AWS_ACCESS_KEY_ID",
            "PASSWORD_FILE",
            "TOKEN_URL",
            "MAX_TOKEN",
            "ALLOW_EMPTY_PASSWORD",
            "PASSWORD_STORE_DIR",
            "OLDPWD_OLD",
            "--pass-through",
            "--passive",
            "--key",
            "KEYBOARD",
            "SSH_AUTH_SOCK",
            "TOKENIZERS_PARALLELISM",
            "--author",
            "--compass",
            "path",
            "",
            "---",
        ] {
            assert_eq!((names.strict(name), names.variable(name)), (Says::Nothing, Says::Nothing), "{name}");
        }
    }

    #[test]
    fn names_of_the_configuration() {
        let names = Names::new(&["--pin-code".to_owned(), "X_SITE".to_owned()], &["CI_JOB_TOKEN".to_owned()]);
        assert_eq!((names.strict("--pin_code"), names.variable("x-site")), (Says::Secret, Says::Secret));
        assert_eq!((names.variable("CI_JOB_TOKEN"), names.strict("--ci-job-token")), (Says::Nothing, Says::Nothing));
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_judged(name in ".{0,40}") {
            let names = Names::default();
            let _ = (names.strict(&name), names.variable(&name), is_plain(&name), is_path(&name));
        }
    }
}
