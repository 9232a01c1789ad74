//! `[redaction]` of the configuration.

use regex::Regex;
use serde::Deserialize;

use super::patterns::Pattern;

/// Most entries of a list: each costs time in every event.
const LIST_MAX: usize = 256;

/// Bound of one compiled expression, bytes.
const REGEX_SIZE: usize = 1 << 20;

/// `[redaction]`: which secrets are replaced before anything is stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionConfig {
    /// Off: argument vectors are stored as they are.
    pub enabled: bool,
    /// Names of options, variables, parameters and headers whose values are secrets, besides the built-in ones.
    pub extra_names: Vec<String>,
    /// Regular expressions of secrets; with a group, the first group is the secret, else the whole match is.
    pub extra_patterns: Vec<String>,
    /// Names whose values stay, and ids of patterns that are not used.
    pub keep: Vec<String>,
}

impl Default for RedactionConfig {
    fn default() -> Self {
        Self { enabled: true, extra_names: Vec::new(), extra_patterns: Vec::new(), keep: Vec::new() }
    }
}

/// A `[redaction]` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedactionConfigError {
    /// A list is too long.
    #[error("redaction.{key} has {len} entries: at most {LIST_MAX} are allowed")]
    TooMany {
        /// Which list.
        key: &'static str,
        /// Its length.
        len: usize,
    },
    /// An entry is no name.
    #[error("redaction.{key}: {name:?} is not a name: write it without `=` and spaces, such as \"--pin\", \"SITE_PIN\" or \"X-Site-Pin\"")]
    Name {
        /// Which list.
        key: &'static str,
        /// The entry.
        name: String,
    },
    /// An entry of `keep` looks like a pattern's id and is none.
    #[error("redaction.keep: there is no pattern {id:?}; there are: {}", ids())]
    Pattern {
        /// The entry.
        id: String,
    },
    /// An expression cannot be compiled.
    #[error("redaction.extra_patterns: {text:?} is not a regular expression: {error}")]
    Regex {
        /// The entry.
        text: String,
        /// Why not, on one line.
        error: String,
    },
    /// An expression matches everywhere.
    #[error(
        "redaction.extra_patterns: {text:?} matches the empty text, so it says of nothing that it is a secret: ask for one character at least"
    )]
    Empty {
        /// The entry.
        text: String,
    },
}

fn ids() -> String {
    Pattern::ALL.iter().map(|pattern| pattern.id()).collect::<Vec<_>>().join(", ")
}

/// First part of every pattern's id.
fn is_family(word: &str) -> bool {
    Pattern::ALL.iter().any(|pattern| pattern.id().split('.').next() == Some(word))
}

impl RedactionConfig {
    /// What no single key can tell.
    ///
    /// # Errors
    /// [`RedactionConfigError`] for the first thing that is wrong.
    pub fn validate(&self) -> Result<(), RedactionConfigError> {
        self.expressions()?;
        let Self { enabled: _, extra_names, extra_patterns, keep } = self;
        for (key, list) in [("extra_names", extra_names), ("extra_patterns", extra_patterns), ("keep", keep)] {
            if list.len() > LIST_MAX {
                return Err(RedactionConfigError::TooMany { key, len: list.len() });
            }
        }
        for (key, list) in [("extra_names", extra_names), ("keep", keep)] {
            let is_name = |name: &str| {
                let name = name.trim_start_matches('-');
                !name.is_empty()
                    && name.len() <= super::names::NAME_MAX
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
            };
            if let Some(name) = list.iter().find(|name| !is_name(name)) {
                return Err(RedactionConfigError::Name { key, name: name.clone() });
            }
        }
        let unknown = |id: &&String| id.split_once('.').is_some_and(|(family, _)| is_family(family)) && Pattern::by_id(id).is_none();
        match keep.iter().find(unknown) {
            Some(id) => Err(RedactionConfigError::Pattern { id: id.clone() }),
            None => Ok(()),
        }
    }

    /// The compiled expressions.
    ///
    /// # Errors
    /// [`RedactionConfigError`] for the first one that is wrong.
    pub(super) fn expressions(&self) -> Result<Vec<Regex>, RedactionConfigError> {
        let compile = |text: &String| {
            let compiled = regex::RegexBuilder::new(text).size_limit(REGEX_SIZE).build();
            let expression = compiled.map_err(|error| RedactionConfigError::Regex {
                text: text.clone(),
                error: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
            })?;
            if expression.is_match("") { Err(RedactionConfigError::Empty { text: text.clone() }) } else { Ok(expression) }
        };
        self.extra_patterns.iter().map(compile).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = |change: fn(&mut RedactionConfig)| {
            let mut config = RedactionConfig::default();
            change(&mut config);
            config.validate().map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(error(|_| {}), "");
        assert_eq!(error(|config| config.keep = vec!["shape.jwt".into(), "spring.datasource.password".into()]), "");
        assert!(error(|config| config.keep = vec!["shape.jvt".into()]).contains("no pattern \"shape.jvt\"; there are: option.name"));
        assert!(error(|config| config.extra_names = vec!["A=b".into()]).contains("without `=`"));
        assert!(error(|config| config.extra_names = vec![String::new()]).contains("extra_names"));
        assert!(error(|config| config.extra_patterns = vec!["(".into()]).contains("not a regular expression"));
        assert!(error(|config| config.extra_patterns = vec!["x*".into()]).contains("empty text"));
        assert!(error(|config| config.extra_patterns = vec!["(?:a{1000}){1000}".into()]).contains("not a regular expression"));
        assert!(error(|config| config.keep = vec!["a".into(); 257]).contains("at most 256"));
    }
}
