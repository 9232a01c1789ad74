//! HTTP headers in arguments.

use std::ops::Range;

use super::names::{Names, Says, is_plain};
use super::patterns::Pattern;

/// Headers whose names do not say it by themselves.
const SECRET: &[&str] = &["ocp-apim-subscription-key", "x-functions-key", "x-gitlab-token", "x-registry-auth"];

const COOKIES: &[&str] = &["cookie", "set-cookie", "cookie2"];

/// Calls `hit` for each secret header in `text`. `is_header`: it stands behind `-H`.
pub(super) fn find(text: &str, is_header: bool, names: &Names, mut hit: impl FnMut(Pattern, Range<usize>)) {
    authorization(text, |range| hit(Pattern::Authorization, range));
    let line = text.strip_prefix("--header=").or_else(|| text.strip_prefix("-H")).unwrap_or(text);
    let is_header = is_header || line.len() < text.len();
    let offset = text.len() - line.len();
    let Some((name, value)) = line.split_once(':') else { return };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '=' | '/' | '{')) {
        return;
    }
    let start = offset + name.len() + 1 + (value.len() - value.trim_start().len());
    let range = start..text.len();
    if range.is_empty() || is_plain(&text[range.clone()]) {
        return;
    }
    // Behind other options `name: value` is any text; a header's own space and dash tell most of them.
    let shaped = is_header || (name.contains('-') && value.starts_with(' '));
    let lower = name.to_ascii_lowercase();
    if COOKIES.contains(&lower.as_str()) && (is_header || value.starts_with(' ')) {
        hit(Pattern::Cookie, range);
    } else if shaped && (SECRET.contains(&lower.as_str()) || names.strict(name) != Says::Nothing) {
        hit(Pattern::Header, range);
    }
}

/// `Authorization: scheme credentials` anywhere: the credentials, to the quote that closes them, else to the end of the line.
fn authorization(text: &str, mut hit: impl FnMut(Range<usize>)) {
    const NAME: &str = "authorization";
    let lower = text.to_ascii_lowercase();
    for (at, _) in lower.match_indices(NAME) {
        let bytes = text.as_bytes();
        let outer = at.checked_sub(1).and_then(|before| bytes.get(before)).copied().filter(|byte| matches!(byte, b'"' | b'\''));
        let mut start = at + NAME.len();
        // `"Authorization": "…"` in an object.
        let closed = outer.is_some() && bytes.get(start) == outer.as_ref();
        start += usize::from(closed);
        let skip_spaces = |start: &mut usize| {
            while bytes.get(*start) == Some(&b' ') {
                *start += 1;
            }
        };
        skip_spaces(&mut start);
        if !matches!(bytes.get(start), Some(b':' | b'=')) {
            continue;
        }
        start += 1;
        skip_spaces(&mut start);
        let inner = bytes.get(start).copied().filter(|byte| matches!(byte, b'"' | b'\''));
        start += usize::from(inner.is_some());
        let quote = inner.or(outer.filter(|_| !closed));
        let rest = &text[start..];
        let end =
            start + rest.find(|c: char| c == '\n' || c == '\r' || quote.is_some_and(|quote| c == char::from(quote))).unwrap_or(rest.len());
        let value = &text[start..end];
        // One word and a space before the rest is the scheme.
        let scheme =
            value.find(' ').filter(|len| *len > 0 && value[..*len].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        let start = scheme.map_or(start, |len| start + len + 1);
        let trimmed = text[start..end].trim();
        let start = start + (text[start..end].len() - text[start..end].trim_start().len());
        if !is_plain(trimmed) {
            hit(start..start + trimmed.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, is_header: bool) -> Vec<&str> {
        let mut all = Vec::new();
        find(text, is_header, &Names::default(), |_, range| all.push(&text[range]));
        all
    }

    #[test]
    fn the_scheme_stays() {
        assert_eq!(found("Authorization: Bearer hunter2", true), ["hunter2"]);
        assert_eq!(found("-HAuthorization: Basic aHVudGVyMg==", false), ["aHVudGVyMg=="]);
        assert_eq!(found("proxy-authorization: hunter2", true), ["hunter2"]);
        assert_eq!(found("{'Authorization': 'Bearer hunter2', 'x': 'y'}", false), ["hunter2"]);
        assert_eq!(found("requests.get(u, headers={\"Authorization\":\"Bearer hunter2\"})", false), ["hunter2"]);
    }

    #[test]
    fn other_headers() {
        assert_eq!(found("X-Api-Key: hunter2", false), ["hunter2"]);
        assert_eq!(found("--header=PRIVATE-TOKEN: hunter2", false), ["hunter2"]);
        assert_eq!(found("token: hunter2", true), ["hunter2"]);
        assert_eq!(found("Cookie: a=b; c=d", true), ["a=b; c=d"]);
    }

    #[test]
    fn what_is_no_secret_header_stays() {
        for (text, is_header) in [
            ("Accept: application/json", true),
            ("token: of thanks", false),
            ("Authorization", true),
            ("Authorization:", true),
            ("X-Api-Key:", true),
            ("fix the authorization code", false),
            ("http://host:80/x-api-key: y", false),
        ] {
            assert_eq!(found(text, is_header), Vec::<&str>::new(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ranges_are_of_the_text(text in "(authorization|Cookie|x-api-key|:|=|\"|'| |é|\n|-H|[a-z]{1,6}){0,16}", is_header: bool) {
            find(&text, is_header, &Names::default(), |_, range| assert!(text.get(range).is_some_and(|found| !found.is_empty())));
        }
    }
}
