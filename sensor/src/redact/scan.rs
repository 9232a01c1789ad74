//! What is secret in the words of a command.

use std::ops::Range;

use super::names::{Says, is_path, is_plain};
use super::patterns::Pattern;
use super::programs::{self, Found, Program};
use super::{Redactor, assignments, headers, shapes, shell, urls};

/// Scripts within scripts (`ssh h "su -c 'mysql -pX'"`), at most.
const DEPTH: usize = 4;

/// A secret.
#[derive(Debug)]
pub(super) struct Hit {
    /// Which word it is in.
    pub(super) word: usize,
    /// Where in it.
    pub(super) range: Range<usize>,
    /// Why.
    pub(super) pattern: Pattern,
    /// What it is without quotes and escapes, where it has some.
    pub(super) value: Option<String>,
}

/// A word, and whether its `$` stand for themselves.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    literal: bool,
}

impl Redactor {
    /// Every secret in an argument vector.
    pub(super) fn hits(&self, argv: &[String]) -> Vec<Hit> {
        // No shell comes after these any more.
        let words: Vec<Word<'_>> = argv.iter().map(|text| Word { text, literal: true }).collect();
        let mut hits = Vec::new();
        self.command(&words, 0, &mut hits);
        hits
    }

    fn hit(&self, words: &[Word<'_>], word: usize, range: Range<usize>, pattern: Pattern, hits: &mut Vec<Hit>) {
        let Some(value) = words.get(word).and_then(|word| word.text.get(range.clone())) else { return };
        let literal = words.get(word).is_some_and(|word| word.literal);
        if !self.kept.contains(&pattern) && !value.is_empty() && (literal || !is_reference(value)) {
            hits.push(Hit { word, range, pattern, value: None });
        }
    }

    fn command(&self, words: &[Word<'_>], depth: usize, hits: &mut Vec<Hit>) {
        let mut program: Option<&'static Program> = None;
        // The word `login` came; what the next word is the value of.
        let (mut login, mut wanted): (bool, Option<(Pattern, Option<char>, bool)>) = (false, None);
        for (at, word) in words.iter().enumerate() {
            let text = word.text;
            let before = at.checked_sub(1).and_then(|before| words.get(before)).map_or("", |word| word.text);
            let is_value = wanted.is_some();
            if let Some((pattern, separator, or_path)) = wanted.take()
                && !(or_path && is_path(text))
                && !is_plain(text)
            {
                let range = separator.map_or(Some(0..text.len()), |separator| programs::behind(text, separator));
                if let Some(range) = range {
                    self.hit(words, at, range, pattern, hits);
                }
            }
            let is_option = text.starts_with('-');
            if !is_value && !is_option && !matches!(before, "-u" | "--user" | "--username") {
                let found = programs::find(text);
                if found.is_some() || program.is_some_and(|program| program.runs_next) {
                    (program, login) = (found, false);
                }
                login |= text == "login";
            }
            if !is_value && let Some(known) = program {
                match known.judge(text, login) {
                    Some(Found::Here(range)) if !is_plain(&text[range.clone()]) => self.hit(words, at, range, known.pattern(), hits),
                    Some(Found::Here(_)) | None => {}
                    Some(Found::Next(separator)) => wanted = Some((known.pattern(), separator, false)),
                    Some(Found::Last) => {
                        let last = words.len() - 1;
                        if last > at + 1 {
                            self.hit(words, last, 0..words.get(last).map_or(0, |word| word.text.len()), known.pattern(), hits);
                        }
                    }
                }
            }
            if is_option && !is_value && wanted.is_none() && !program.is_some_and(|program| program.is_not(text)) {
                // A value that begins with a dash is taken for the next option.
                let has_value = words.get(at + 1).is_some_and(|next| !next.text.starts_with('-'));
                wanted = match self.option(text) {
                    Says::Nothing => None,
                    says => has_value.then_some((Pattern::Option, None, says == Says::SecretOrPath)),
                };
            }
            let is_header = matches!(before, "-H" | "--header" | "--proxy-header");
            if before == "-b" || before == "--cookie" || text.starts_with("--cookie=") {
                let from = text.strip_prefix("--cookie=").map_or(0, |rest| text.len() - rest.len());
                // Without `=` it is a file.
                if program.is_some_and(|program| program.pattern() == Pattern::Curl) && text[from..].contains('=') {
                    self.hit(words, at, from..text.len(), Pattern::Cookie, hits);
                }
            }
            let is_script = depth < DEPTH && is_script(text, before, program);
            if !is_script || !is_asked(before, program) {
                self.named(words, at, is_header, hits);
            }
            self.shaped(words, at, hits);
            if is_script {
                self.script(at, text, depth + 1, hits);
            }
        }
    }

    /// What a long option's name says of the next word.
    fn option(&self, word: &str) -> Says {
        let long = word.starts_with("--") || word.len() >= 5;
        let is_name = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if long && is_name { self.names.strict(word) } else { Says::Nothing }
    }

    /// What is a secret in a word because a name in it says so.
    fn named(&self, words: &[Word<'_>], at: usize, is_header: bool, hits: &mut Vec<Hit>) {
        let Some(text) = words.get(at).map(|word| word.text) else { return };
        assignments::find(text, &self.names, |pattern, range| self.hit(words, at, range, pattern, hits));
        urls::find(text, &self.names, |pattern, range| self.hit(words, at, range, pattern, hits));
        headers::find(text, is_header, &self.names, |pattern, range| self.hit(words, at, range, pattern, hits));
    }

    /// What is a secret in a word by its form, in scripts too: a key block is no word of theirs.
    fn shaped(&self, words: &[Word<'_>], at: usize, hits: &mut Vec<Hit>) {
        let Some(text) = words.get(at).map(|word| word.text) else { return };
        shapes::find(text, |pattern, range| self.hit(words, at, range, pattern, hits));
        for expression in &self.expressions {
            for captures in expression.captures_iter(text) {
                if let Some(found) = captures.get(1).or_else(|| captures.get(0)) {
                    self.hit(words, at, found.range(), Pattern::Extra, hits);
                }
            }
        }
    }

    /// The words of a script in word `at`.
    fn script(&self, at: usize, script: &str, depth: usize, hits: &mut Vec<Hit>) {
        let commands = shell::commands(script);
        for (number, command) in commands.iter().enumerate() {
            let words: Vec<Word<'_>> = command.words.iter().map(|word| Word { text: &word.text, literal: word.literal_dollar }).collect();
            let mut found = Vec::new();
            self.command(&words, depth, &mut found);
            let next = commands.get(number + 1).filter(|_| command.piped);
            if next.is_some_and(|next| shell::reads_password(&next.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>())) {
                self.echoed(&words, &mut found);
            }
            for Hit { word, range, pattern, value } in found {
                let Some(word) = command.words.get(word) else { continue };
                let value = value.or_else(|| word.text.get(range.clone()).map(str::to_owned));
                if let Some(range) = word.place(&range) {
                    hits.push(Hit { word: at, range, pattern, value });
                }
            }
        }
    }

    /// What `echo` or `printf` writes for a command that reads a password.
    fn echoed(&self, words: &[Word<'_>], hits: &mut Vec<Hit>) {
        if !words.first().is_some_and(|word| matches!(word.text.rsplit('/').next(), Some("echo" | "printf"))) {
            return;
        }
        for (at, word) in words.iter().enumerate().skip(1) {
            // Options of echo, formats of printf.
            if !word.text.starts_with(['-', '%']) {
                let end = word.text.strip_suffix("\\n").unwrap_or(word.text).len();
                self.hit(words, at, 0..end, Pattern::EchoPipe, hits);
            }
        }
    }
}

/// A shell will read this word: it stands behind `-c` and its kind, or is one of a program that hands its words to a shell.
fn is_asked(before: &str, program: Option<&Program>) -> bool {
    let group = before.strip_prefix('-').filter(|group| !group.starts_with('-') && group.len() <= 4);
    matches!(before, "--command" | "-S" | "--split-string")
        || group.is_some_and(|group| group.ends_with('c'))
        || program.is_some_and(|program| program.scripts)
}

/// The word is more than a word of a shell, and one will read it or has to read a part of it first.
fn is_script(text: &str, before: &str, program: Option<&Program>) -> bool {
    let has_words = text.contains(|c: char| c.is_whitespace() || matches!(c, ';' | '|' | '&' | '`' | '\'' | '"' | '('));
    has_words && (is_asked(before, program) || text.contains("$("))
}

/// A variable or the output of a command: what the shell will put in its place is not here.
fn is_reference(value: &str) -> bool {
    let Some(rest) = value.strip_prefix('$') else { return value.starts_with('`') && value.ends_with('`') };
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let braced = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    braced.is_some_and(is_name) || is_name(rest) || matches!(rest, "@" | "*") || (rest.starts_with('(') && rest.ends_with(')'))
}
