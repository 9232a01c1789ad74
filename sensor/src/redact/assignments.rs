//! `NAME=value` and `"name": "value"`, anywhere in a word.

use std::ops::Range;

use super::names::{NAME_MAX, Names, Says, is_path, is_plain};
use super::patterns::Pattern;

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Start of the name that ends at `end`.
fn name_start(text: &str, end: usize) -> usize {
    let bytes = text.as_bytes();
    let mut start = end;
    while start > 0 && end - start <= NAME_MAX && bytes.get(start - 1).is_some_and(|byte| is_name(*byte)) {
        start -= 1;
    }
    start
}

/// A value that a name says is a secret, but that is none.
fn is_none(says: Says, value: &str) -> bool {
    says == Says::Nothing || is_plain(value) || (says == Says::SecretOrPath && is_path(value))
}

/// Calls `hit` for each value in `text` whose name says that it is a secret.
pub(super) fn find(text: &str, names: &Names, mut hit: impl FnMut(Pattern, Range<usize>)) {
    for (equals, _) in text.match_indices('=') {
        let start = name_start(text, equals);
        let name = &text[start..equals];
        // `docker run -eNAME=value`.
        let name = name.strip_prefix("-e").filter(|rest| rest.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase())).unwrap_or(name);
        // A file to read the value from: `kubectl create secret generic x --from-file=password=./p`.
        if name.is_empty() || name_is_about_files(text, start) {
            continue;
        }
        let says = names.variable(name);
        if says == Says::Nothing {
            continue;
        }
        let from = equals + 1;
        let range = if start == 0 { unquoted(text, from..text.len()) } else { from_inside(text, from) };
        let value = &text[range.clone()];
        // docker build --secret id=…: which one, not what it is.
        let names_one =
            name.trim_start_matches('-') == "secret" && ["id=", "type=", "src=", "source="].iter().any(|key| value.starts_with(key));
        // A comparison.
        if !value.starts_with('=') && !names_one && !is_none(says, value) {
            hit(if name.starts_with('-') { Pattern::Option } else { Pattern::Assignment }, range);
        }
    }
    json(text, names, &mut hit);
}

fn name_is_about_files(text: &str, start: usize) -> bool {
    text[..start].ends_with("--from-file=") || text[..start].ends_with("--from-env-file=")
}

/// Without the quotes around it, if they are a pair.
fn unquoted(text: &str, range: Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    match (bytes.get(range.start), range.len() >= 2) {
        (Some(quote @ (b'"' | b'\'')), true) if bytes.get(range.end - 1) == Some(quote) => range.start + 1..range.end - 1,
        _ => range,
    }
}

/// The value that begins at `from` in a longer text. It ends at white space or a quote, at `&`, and at `,` or `;` when another
/// assignment or nothing follows: passwords hold commas too.
fn from_inside(text: &str, from: usize) -> Range<usize> {
    let rest = &text[from..];
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inner = from + 1;
        return inner..text[inner..].find(quote).map_or(text.len(), |at| inner + at);
    }
    let ends = |(at, c): &(usize, char)| match c {
        '"' | '\'' | '`' | '&' => true,
        ',' | ';' => {
            let next = rest[at + 1..].trim_start();
            let name = next.bytes().take_while(|byte| is_name(*byte)).count();
            next.is_empty() || (name > 0 && next.as_bytes().get(name) == Some(&b'='))
        }
        c => c.is_whitespace(),
    };
    from..rest.char_indices().find(ends).map_or(text.len(), |(at, _)| from + at)
}

/// Members of JSON objects, and of what looks like them. Quotes may be escaped, as in a string within a string.
fn json(text: &str, names: &Names, hit: &mut impl FnMut(Pattern, Range<usize>)) {
    let bytes = text.as_bytes();
    for (colon, _) in text.match_indices(':') {
        let before = text[..colon].trim_end_matches(' ');
        let Some(quote) = before.bytes().next_back().filter(|byte| matches!(byte, b'"' | b'\'')) else { continue };
        let escaped = before.ends_with("\\\"");
        let name_end = before.len() - 1 - usize::from(escaped);
        let start = name_start(text, name_end);
        let says = names.variable(&text[start..name_end]);
        if start == 0 || bytes.get(start - 1) != Some(&quote) || says == Says::Nothing {
            continue;
        }
        let value = colon + 1 + (text[colon + 1..].len() - text[colon + 1..].trim_start().len());
        let opening = if escaped { "\\\"" } else { &before[before.len() - 1..] };
        let range = match text[value..].strip_prefix(opening) {
            Some(inner) => {
                let from = value + opening.len();
                from..from + closing(inner, opening)
            }
            None => {
                let end = text[value..].find(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | '"' | '\''));
                value..end.map_or(text.len(), |at| value + at)
            }
        };
        if !is_none(says, &text[range.clone()]) {
            hit(Pattern::Json, range);
        }
    }
}

/// Where `quote` closes in `inner`: not behind a backslash of its own.
fn closing(inner: &str, quote: &str) -> usize {
    let mut from = 0;
    while let Some(at) = inner.get(from..).and_then(|rest| rest.find(quote)).map(|at| from + at) {
        let backslashes = inner[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 0 {
            return at;
        }
        from = at + quote.len();
    }
    inner.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        find(text, &Names::default(), |_, range| all.push(&text[range]));
        all
    }

    #[test]
    fn values_at_the_beginning_are_whole() {
        assert_eq!(found("PASSWORD=a b&c,d=e"), ["a b&c,d=e"]);
        assert_eq!(found("--password=hunter2"), ["hunter2"]);
        assert_eq!(found("-Dspring.datasource.password=hunter2"), ["hunter2"]);
        assert_eq!(found("-ePASSWORD_PROD=hunter2"), ["hunter2"]);
        assert_eq!(found("TOKEN='quoted one'"), ["quoted one"]);
    }

    #[test]
    fn values_inside_end_where_the_next_begins() {
        assert_eq!(found("host=h password=hun,ter2 dbname=x"), ["hun,ter2"]);
        assert_eq!(found("Server=h;Pwd=hun;ter;Database=x"), ["hun;ter"]);
        assert_eq!(found("user=me&password=hunter2&x=1"), ["hunter2"]);
        assert_eq!(found("f(password=\"hun ter\")"), ["hun ter"]);
        assert_eq!(found("--set=a=1,db.password=hunter2,b=2"), ["hunter2"]);
        assert_eq!(found("username=u,password=hunter2"), ["hunter2"]);
    }

    #[test]
    fn members_of_objects() {
        assert_eq!(found(r#"{"user":"u","password": "hun\"ter2","n":1}"#), [r#"hun\"ter2"#]);
        assert_eq!(found(r#""{\"token\":\"hunter2\"}""#), ["hunter2"]);
        assert_eq!(found("{'api_key': 'hunter2'}"), ["hunter2"]);
        assert_eq!(found(r#"{"pin":1,"password":1234}"#), ["1234"]);
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "password=",
            "--password=",
            "--token-file=/run/x",
            "if password==other",
            "PASSWORD_FILE=/run/x",
            "--secret=id=npm,src=x",
            "--from-file=password=./p",
            "GOOGLE_APPLICATION_CREDENTIALS=/etc/x.json",
            "PWD=/root",
            "--password=false",
            r#"{"password":""}"#,
            r#"{"password":null}"#,
            "MONKEY=banana",
            "author=me",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ranges_are_of_the_text(text in "(password|token|TOKEN|=|:|\"|'|\\\\|,|;|&| |é|[a-z]{1,3}|\\{|\\}){0,24}") {
            find(&text, &Names::default(), |_, range| assert!(text.get(range).is_some_and(|found| !found.is_empty())));
        }
    }
}
