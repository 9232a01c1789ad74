//! From hits to text: overlapping ones become one, and what is replaced already stays.

use std::ops::Range;

use super::key::Key;
use super::patterns::Pattern;
use super::scan::Hit;

const OPENING: &str = "[redacted:";
/// Hexadecimal digits of the hash.
const DIGITS: usize = 16;
const LEN: usize = OPENING.len() + DIGITS + 1;

/// What stands for a secret.
pub(super) fn placeholder(key: &Key, value: &str) -> String {
    format!("{OPENING}{}]", key.hash(value))
}

/// End of the placeholder that begins at `at`.
pub(super) fn placeholder_at(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..at.checked_add(LEN)?)?;
    let digits = rest.strip_prefix(OPENING)?.strip_suffix(']')?;
    digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(at + LEN)
}

/// Whether a value is nothing but a placeholder, quoted or not.
pub(super) fn is_placeholder(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'']);
    placeholder_at(bare, 0) == Some(bare.len())
}

/// The word with its hits replaced; `None` when nothing is left to replace. `count` is called for each replacement.
pub(super) fn apply(word: &str, hits: &[Hit], key: &Key, mut count: impl FnMut(Pattern)) -> Option<String> {
    let known: Vec<Range<usize>> = word.match_indices(OPENING).filter_map(|(at, _)| placeholder_at(word, at).map(|end| at..end)).collect();
    let mut ranges: Vec<(Range<usize>, &Hit)> = Vec::new();
    for hit in hits {
        let mut range = hit.range.clone();
        // A placeholder is never cut: where a hit begins or ends in one, it takes it in.
        for placeholder in &known {
            if placeholder.start < range.end && range.start < placeholder.end {
                range = range.start.min(placeholder.start)..range.end.max(placeholder.end);
            }
        }
        let value = word.get(range.clone()).unwrap_or_default();
        if !value.is_empty() && !is_placeholder(value) {
            ranges.push((range, hit));
        }
    }
    ranges.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let mut merged: Vec<(Range<usize>, &Hit, bool)> = Vec::new();
    for (range, hit) in ranges {
        match merged.last_mut() {
            Some((last, _, grown)) if range.start < last.end => {
                *grown |= range.end > last.end;
                last.end = last.end.max(range.end);
            }
            _ => merged.push((range.clone(), hit, range != hit.range)),
        }
    }
    if merged.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(word.len());
    let mut from = 0;
    for (range, hit, grown) in merged {
        let Hit { word: _, range: _, pattern, value } = hit;
        let raw = word.get(range.clone()).unwrap_or_default();
        // The value without its quotes and escapes hashes as the same value elsewhere does.
        let value = value.as_deref().filter(|_| !grown).unwrap_or(raw);
        text.push_str(word.get(from..range.start).unwrap_or_default());
        text.push_str(&placeholder(key, value));
        count(*pattern);
        from = range.end;
    }
    text.push_str(word.get(from..).unwrap_or_default());
    Some(text)
}
