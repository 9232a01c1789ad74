//! What can be wrong with a configuration, said so that it can be put right: file, line, column, key, what is allowed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used. Bartizan does not start with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named on the command line is not there.
    #[error("configuration file {} does not exist: name one that does, or leave --config away to run with the defaults", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder is there and cannot be read.
    #[error("cannot read configuration {}: {source}: make it readable for this user, or run as root", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One file says something that cannot be understood or is not allowed.
    #[error("{}, line {line}, column {column}{}: {message}\n{snippet}", path.display(), key_part(key))]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// Dotted key, where the line has one.
        key: Option<String>,
        /// What is wrong and what is allowed.
        message: String,
        /// The line itself with a marker under the place.
        snippet: String,
    },
    /// Each file is right by itself, and together they are not.
    #[error("the configuration as a whole ({}) cannot be used: {message}", file_list(files))]
    Whole {
        /// The files that were merged, in order.
        files: Vec<PathBuf>,
        /// What is wrong and what is allowed.
        message: String,
    },
}

fn key_part(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!(", key `{key}`")).unwrap_or_default()
}

fn file_list(files: &[PathBuf]) -> String {
    match files {
        [] => "defaults only".to_owned(),
        _ => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

impl ConfigError {
    /// Turns the TOML reader's error into one that names the place. Errors without a place are about the whole file.
    pub(super) fn content(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let place = Place::of(text, &span);
        let message = match did_you_mean(error.message()) {
            Some(hint) => format!("{}; did you mean `{hint}`?", error.message().trim()),
            None => error.message().trim().to_owned(),
        };
        Self::Content {
            path: path.to_owned(),
            line: place.line,
            column: place.column,
            key: place.key,
            message: message.replace('\n', ", "),
            snippet: place.snippet,
        }
    }
}

struct Place {
    line: usize,
    column: usize,
    key: Option<String>,
    snippet: String,
}

impl Place {
    fn of(text: &str, span: &Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_text = text[line_start..].lines().next().unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, span.end).min(line_start + line_text.len());
        let marked = text.get(start..end).map_or(1, |marked| marked.chars().count().max(1));
        let gutter = line.to_string();
        let pad = " ".repeat(gutter.len());
        let snippet = format!("{pad} |\n{gutter} | {line_text}\n{pad} | {}{}", " ".repeat(column - 1), "^".repeat(marked));
        Self { line, column, key: key_at(text, line_start, line_text), snippet }
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The dotted key of a line: the nearest table header above, and what stands before the line's `=`. A diagnostic aid that
/// reads lines, not TOML: inside a multi-line value it names no key or the value's table.
fn key_at(text: &str, line_start: usize, line_text: &str) -> Option<String> {
    let header = |line: &str| {
        let line = line.trim();
        let inner = line.strip_prefix("[[").or_else(|| line.strip_prefix('['))?;
        let name = inner.split(']').next()?.trim();
        (!name.is_empty()).then(|| name.to_owned())
    };
    if line_text.trim_start().starts_with('[') {
        return header(line_text);
    }
    let table = text[..line_start].lines().rev().filter(|line| line.trim_start().starts_with('[')).find_map(header);
    let key = line_text.split_once('=').map(|(key, _)| key.trim().to_owned()).filter(|key| !key.is_empty() && !key.starts_with('#'));
    match (table, key) {
        (Some(table), Some(key)) => Some(format!("{table}.{key}")),
        (None, Some(key)) => Some(key),
        (table, None) => table,
    }
}

/// For serde's "unknown field `x`, expected one of `a`, `b`" (and unknown variants): the allowed name nearest to `x`.
fn did_you_mean(message: &str) -> Option<String> {
    let (unknown, allowed) = message.split_once("expected")?;
    if !unknown.starts_with("unknown ") {
        return None;
    }
    let unknown = unknown.split('`').nth(1)?;
    allowed
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| (distance(unknown, name), name))
        .min()
        .filter(|(distance, _)| *distance <= 1 + unknown.chars().count() / 4)
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let message = |name: &str| format!("unknown field `{name}`, expected one of `max_age`, `max_bytes`, `sync_interval`");
        assert_eq!(did_you_mean(&message("max_agee")).as_deref(), Some("max_age"));
        assert_eq!(did_you_mean(&message("maxbytes")).as_deref(), Some("max_bytes"));
        assert_eq!(did_you_mean(&message("colour")), None);
        assert_eq!(did_you_mean("invalid type: integer `5`, expected a string"), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_has_a_line(text in ".*(\n.*){0,3}", start in 0usize..80, len in 0usize..80) {
            let place = Place::of(&text, &(start..start + len));
            prop_assert!(place.line >= 1 && place.column >= 1);
        }
    }
}
