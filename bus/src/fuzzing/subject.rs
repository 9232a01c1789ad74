//! Subjects, patterns, filters, and the server's list of subscriptions.

use crate::nats::sublist::Sublist;
use crate::pattern::{Filter, Pattern};
use crate::subject::Subject;

/// Tokens of a pattern up to which all subjects of a small alphabet are tried.
const BRUTE_FORCE_TOKENS: usize = 4;

/// Lines: the first is a subject, the others are patterns. Whatever matches agrees with a look at the tokens, one by one.
pub fn subject(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let subject = lines.next().unwrap_or_default();
    let patterns: Vec<Pattern> = lines.take(12).filter_map(|line| line.parse().ok()).collect();
    for pattern in &patterns {
        let tokens: Vec<&str> = pattern.as_str().split('.').collect();
        assert!(tokens.iter().all(|token| !token.is_empty()), "{pattern}");
        assert_eq!(pattern.is_literal(), !tokens.iter().any(|token| is_wildcard(token)), "{pattern}");
        assert!(pattern.covers(pattern) && pattern.overlaps(pattern) && Pattern::all().covers(pattern), "{pattern}");
    }
    if let Ok(parsed) = subject.parse::<Subject>() {
        assert_eq!(parsed.as_str(), subject);
        let itself: Pattern = subject.parse().expect("a subject is a pattern");
        assert!(itself.is_literal() && itself.matches(subject));
        matching(subject, &patterns);
    }
    if let [a, b, ..] = &patterns[..] {
        pair(a, b);
    }
}

fn is_wildcard(token: &str) -> bool {
    matches!(token, "*" | ">")
}

/// Token by token, as the NATS documentation says it.
fn naive(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern, subject) {
        ([">"], rest) => !rest.is_empty(),
        ([], rest) => rest.is_empty(),
        ([first, others @ ..], [token, rest @ ..]) => (*first == "*" || first == token) && naive(others, rest),
        (_, []) => false,
    }
}

fn naively(pattern: &Pattern, subject: &str) -> bool {
    naive(&pattern.as_str().split('.').collect::<Vec<_>>(), &subject.split('.').collect::<Vec<_>>())
}

fn matching(subject: &str, patterns: &[Pattern]) {
    let expected: Vec<usize> = (0..patterns.len()).filter(|n| naively(&patterns[*n], subject)).collect();
    for (n, pattern) in patterns.iter().enumerate() {
        assert_eq!(pattern.matches(subject), expected.contains(&n), "{pattern} {subject}");
    }
    let filter = Filter::any_of(patterns.iter().cloned());
    assert_eq!(filter.matches(subject), patterns.is_empty() || !expected.is_empty(), "{filter:?} {subject}");
    let mut list = Sublist::default();
    for (n, pattern) in patterns.iter().enumerate() {
        list.insert(pattern.as_str().as_bytes(), None, n as u64, n);
    }
    let mut found = list.matches(subject.as_bytes()).plain;
    found.sort_unstable();
    assert_eq!(found, expected, "{patterns:?} {subject}");
    for (n, pattern) in patterns.iter().enumerate() {
        list.remove(pattern.as_str().as_bytes(), n as u64);
    }
    assert_eq!(list.len(), 0, "{patterns:?}");
    assert!(list.matches(subject.as_bytes()).is_empty());
}

/// Overlap and covering against every subject of the two patterns' tokens and one more.
fn pair(a: &Pattern, b: &Pattern) {
    assert_eq!(a.overlaps(b), b.overlaps(a), "{a} {b}");
    let tokens = |pattern: &Pattern| pattern.as_str().split('.').count();
    let longest = tokens(a).max(tokens(b));
    if longest > BRUTE_FORCE_TOKENS {
        return;
    }
    let both = [a.as_str(), b.as_str()].join(".");
    let other = format!("{}x", "x".repeat(both.len()));
    let mut alphabet: Vec<&str> = both.split('.').filter(|token| !is_wildcard(token)).collect();
    alphabet.push(&other);
    alphabet.sort_unstable();
    alphabet.dedup();
    let (mut overlap, mut covered) = (false, true);
    let mut subjects: Vec<String> = alphabet.iter().map(|token| (*token).to_owned()).collect();
    for _ in 0..=longest {
        for subject in &subjects {
            let (in_a, in_b) = (naively(a, subject), naively(b, subject));
            overlap |= in_a && in_b;
            covered &= in_a || !in_b;
        }
        if subjects.len() * alphabet.len() > 20_000 {
            return;
        }
        subjects = subjects.iter().flat_map(|subject| alphabet.iter().map(move |token| format!("{subject}.{token}"))).collect();
    }
    assert_eq!((a.overlaps(b), a.covers(b)), (overlap, covered), "{a} {b}");
}
