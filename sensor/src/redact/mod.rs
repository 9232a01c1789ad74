//! Secrets in argument vectors are replaced before anything is stored.
//!
//! Invariants worth naming:
//!
//! - **Nothing is stored first.** [`Redactor::what`] is called where observations become events, before the process table has them: what
//!   a fork copies is redacted already, and so are lineages, alerts and what forwarders send.
//! - **Equal secrets of a host give equal hashes**, wherever they stand, and nobody can try guesses without the host's key.
//! - **Redacting twice changes nothing**: text that is `[redacted:…]` is no secret.
//! - **The list is a document**: docs/redaction.md is checked against [`Pattern::ALL`].
//! - **What cannot hold a secret costs one search** over its bytes and no allocation.

mod apply;
mod assignments;
mod config;
mod headers;
mod key;
mod names;
mod patterns;
mod programs;
mod scan;
mod shapes;
mod shell;
#[cfg(test)]
mod tests;
mod urls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::AhoCorasick;
use bartizan_bus::event::{Body, Helper, Http, KernelProbe, Kexec, Module, Sysctl};
use regex::Regex;

pub use config::{RedactionConfig, RedactionConfigError};
pub use key::{KEY_FILE, Key, KeyError};
pub use patterns::{Example, Pattern};

use crate::project::What;
use crate::project::pam::{Item, Pam, PamStep};
use names::Names;

/// So often is redacted text looked at again: an option's value may uncover another. What still changes then is replaced as a whole.
const PASSES: usize = 4;

/// Without one of these, in any case of letters, no built-in pattern finds anything; names, programs and shapes have theirs besides.
const NEEDLES: &[&str] = &["://", "pass", "pwd", "secret", "token", "key", "credential", "bearer", "auth", "cookie", "sudo", "cryptsetup"];

/// How many values were replaced, by pattern. Shared with `status`.
#[derive(Debug)]
pub struct Redactions([AtomicU64; Pattern::ALL.len()]);

impl Redactions {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn count(&self, pattern: Pattern) {
        if let Some(count) = self.0.get(pattern as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that are not 0, by the pattern's id.
    pub fn by_pattern(&self) -> BTreeMap<&'static str, u64> {
        let counts = Pattern::ALL.iter().zip(&self.0).map(|(pattern, count)| (pattern.id(), count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// What a path is put behind, to be looked at as an address.
const SOME_HOST: &str = "http://host";

/// Why secrets cannot be redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactorError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] RedactionConfigError),
    /// The search for what may be a secret cannot be built.
    #[error("the names in redaction.extra_names are too many or too long: {0}")]
    Needles(#[from] aho_corasick::BuildError),
}

/// Replaces secrets.
#[derive(Debug, Clone)]
pub struct Redactor {
    key: Key,
    names: Names,
    /// Patterns that the operator does not want.
    kept: Vec<Pattern>,
    expressions: Vec<Regex>,
    needles: AhoCorasick,
    counts: Arc<Redactions>,
}

impl Redactor {
    /// A redactor with the host's key. `config.enabled` is the caller's to look at.
    ///
    /// # Errors
    /// [`RedactorError`] for a configuration that `validate` would refuse.
    pub fn new(config: &RedactionConfig, key: Key) -> Result<Self, RedactorError> {
        config.validate()?;
        let RedactionConfig { enabled: _, extra_names, extra_patterns: _, keep } = config;
        // A name of several words is found by its longest part, because `-` and `_` are the same in names.
        let parts = extra_names.iter().filter_map(|name| name.split(['-', '_', '.']).max_by_key(|part| part.len()).map(str::to_owned));
        let needles = NEEDLES.iter().copied().chain(programs::needles()).chain(shapes::prefixes()).map(str::to_owned).chain(parts);
        Ok(Self {
            key,
            names: Names::new(extra_names, keep),
            kept: keep.iter().filter_map(|id| Pattern::by_id(id)).collect(),
            expressions: config.expressions()?,
            needles: AhoCorasick::builder().ascii_case_insensitive(true).build(needles.filter(|needle| !needle.is_empty()))?,
            counts: Arc::new(Redactions::new()),
        })
    }

    /// How many values were replaced.
    pub fn counts(&self) -> Arc<Redactions> {
        Arc::clone(&self.counts)
    }

    /// Replaces what is secret in an observation.
    pub fn what(&self, what: &mut What) {
        match what {
            // The environment goes through `variable` when it is known which variables are kept.
            What::Exec { image, requested, requested_truncated: _, interpreter, interpreter_truncated: _, environment: _ } => {
                self.argv(&mut image.argv);
                self.optional(requested);
                self.optional(interpreter);
            }
            What::ExecFailed { requested, requested_truncated: _, error: _ } => self.optional(requested),
            What::Seed(image) => self.argv(&mut image.argv),
            // A token that was typed where the user name belongs looks like one; a password there looks like any name.
            What::Pam(Pam { step: PamStep::Start { user, .. }, .. }) => self.optional(user),
            What::Pam(Pam { step: PamStep::Item { item: Item::User, value }, .. }) => self.optional(value),
            What::Act(act) => self.body(&mut act.body),
            What::Fork(_)
            | What::Exit(_)
            | What::Piece(_)
            | What::Probe(_)
            | What::Syn(_)
            | What::Account(..)
            | What::Pam(_)
            | What::SshdLog { .. } => {}
        }
    }

    /// Replaces what is secret in a deed.
    pub fn body(&self, body: &mut Body) {
        // A core_pattern is a command line.
        match body {
            Body::Sysctl(Sysctl { old, new, .. }) => {
                self.words(old);
                self.words(new);
            }
            Body::Module(Module { file, args, .. }) => {
                self.optional(file);
                self.words(args);
            }
            Body::Kexec(Kexec { file, .. }) => self.optional(file),
            Body::KernelProbe(KernelProbe { name, .. }) => self.optional(name),
            Body::Helper(Helper { argv, .. }) => self.argv(argv),
            Body::Http(http) => self.http(http),
            // Names of files are chosen by whoever makes them, and sources of mounts hold what is needed to reach them.
            Body::FileOpen(body) => self.optional(&mut body.file.path),
            Body::FileCreate(body) => self.optional(&mut body.file.path),
            Body::FileUnlink(body) => self.optional(&mut body.file.path),
            Body::FileAttributes(body) => self.optional(&mut body.file.path),
            Body::FileXattr(body) => self.optional(&mut body.file.path),
            Body::FileWrite(body) => self.optional(&mut body.file.path),
            Body::FileRename(body) => {
                self.optional(&mut body.file.path);
                self.optional(&mut body.old_path);
            }
            Body::FileLink(body) => {
                self.optional(&mut body.file.path);
                self.optional(&mut body.to);
            }
            Body::Mount(body) => {
                self.optional(&mut body.source);
                self.optional(&mut body.target);
            }
            Body::Umount(body) => self.optional(&mut body.target),
            Body::UnixConnect(body) => {
                self.optional(&mut body.path);
                self.optional(&mut body.abstract_name);
            }
            _ => {}
        }
    }

    /// Replaces what is secret in a request.
    fn http(&self, http: &mut Http) {
        let Http { target, user_agent, .. } = http;
        self.optional(user_agent);
        // A target without a scheme is an address on some host.
        let given = if target.starts_with('/') { format!("{SOME_HOST}{target}") } else { target.clone() };
        let mut word = Some(given);
        self.optional(&mut word);
        if let Some(word) = word {
            *target = word.strip_prefix(SOME_HOST).map_or(word.clone(), str::to_owned);
        }
    }

    /// As [`Self::optional`], for a text that is a command line, its words with single spaces in between.
    fn words(&self, text: &mut Option<String>) {
        if let Some(text) = text {
            let before: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let mut words = before.clone();
            self.argv(&mut words);
            if words != before {
                *text = words.join(" ");
            }
        }
    }

    fn optional(&self, text: &mut Option<String>) {
        if let Some(text) = text {
            // A path is a vector of one word that names no program.
            self.argv(std::slice::from_mut(text));
        }
    }

    /// Replaces what is secret in `NAME=value`: by the name, and what a shell would find in the value (`SUDO_COMMAND`, `PROMPT_COMMAND`).
    pub fn variable(&self, variable: &mut String) {
        self.argv(std::slice::from_mut(variable));
        if let Some((name, value)) = variable.split_once('=') {
            let mut words = ["sh".to_owned(), "-c".to_owned(), value.to_owned()];
            self.argv(&mut words);
            let [_, _, redacted] = words;
            if redacted != value {
                *variable = format!("{name}={redacted}");
            }
        }
    }

    /// Replaces what is secret in an argument vector.
    pub fn argv(&self, argv: &mut [String]) {
        if !self.is_suspicious(argv) {
            return;
        }
        for _ in 0..PASSES {
            if !self.pass(argv) {
                return;
            }
        }
        if self.pass(&mut argv.to_vec()) {
            for word in argv.iter_mut().filter(|word| apply::placeholder_at(word, 0) != Some(word.len())) {
                *word = apply::placeholder(&self.key, word);
            }
        }
    }

    /// Whether anything may be found.
    fn is_suspicious(&self, argv: &[String]) -> bool {
        argv.iter().any(|word| self.needles.is_match(word.as_str()) || self.expressions.iter().any(|expression| expression.is_match(word)))
    }

    /// One look at all words. Returns whether one changed.
    fn pass(&self, argv: &mut [String]) -> bool {
        let mut hits = self.hits(argv);
        hits.sort_by_key(|hit| hit.word);
        let mut changed = false;
        for group in hits.chunk_by(|one, other| one.word == other.word) {
            let Some(word) = group.first().and_then(|hit| argv.get_mut(hit.word)) else { continue };
            if let Some(redacted) = apply::apply(word, group, &self.key, |pattern| self.counts.count(pattern)) {
                *word = redacted;
                changed = true;
            }
        }
        changed
    }
}
