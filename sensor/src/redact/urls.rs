//! Credentials in URLs: before the host, and in the query.

use std::ops::Range;

use super::names::{Names, Says, is_plain};
use super::patterns::Pattern;

/// Query parameters that sign a request or stand for a login, besides those whose names say it.
const PARAMETERS: &[&str] =
    &["sig", "signature", "x-amz-signature", "x-goog-signature", "x-amz-security-token", "auth", "jwt", "hmac", "sas"];

/// A user name of so many letters and digits, without a password, is a token.
const LONE_TOKEN: usize = 32;

/// Passwords that say that the user name is the secret one.
const NO_PASSWORD: &[&str] = &["", "x-oauth-basic"];

/// Calls `hit` for each secret in the URLs of `text`.
pub(super) fn find(text: &str, names: &Names, mut hit: impl FnMut(Pattern, Range<usize>)) {
    for (at, separator) in text.match_indices("://") {
        let scheme = text[..at].bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let start = at + separator.len();
        let rest = &text[start..];
        let url = &rest[..rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')).unwrap_or(rest.len())];
        if !scheme || url.is_empty() {
            continue;
        }
        let user = userinfo(url);
        if let Some(secret) = user.and_then(secret_of) {
            hit(Pattern::UrlUser, start + secret.start..start + secret.end);
        }
        // A password may hold a question mark.
        let behind = user.map_or(0, str::len);
        if let Some(query) = url.get(behind..).and_then(|rest| rest.find(['?', '#'])).map(|at| behind + at + 1) {
            parameters(&url[query..], names, |range| hit(Pattern::UrlQuery, start + query + range.start..start + query + range.end));
        }
    }
}

/// What stands before the `@` of the authority. A password with `/`, `?` or `#` in it is no valid URL, and is typed all the same: then
/// what stands behind the colon is no port.
fn userinfo(url: &str) -> Option<&str> {
    let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
    if let Some(at) = authority.rfind('@') {
        return Some(&authority[..at]);
    }
    let (_, port) = authority.split_once(':')?;
    if port.bytes().all(|byte| byte.is_ascii_digit()) || authority.starts_with('[') {
        return None;
    }
    url.find('@').map(|at| &url[..at])
}

/// The secret part of it.
fn secret_of(user: &str) -> Option<Range<usize>> {
    match user.split_once(':') {
        Some((name, password)) if !NO_PASSWORD.contains(&password) => {
            (!is_plain(password) || password.len() > 3).then_some(name.len() + 1..user.len())
        }
        Some((name, _)) => (!name.is_empty()).then_some(0..name.len()),
        None => (user.len() >= LONE_TOKEN && user.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(0..user.len()),
    }
}

/// Calls `hit` for each value of a query whose name says that it is a secret.
fn parameters(query: &str, names: &Names, mut hit: impl FnMut(Range<usize>)) {
    let mut start = 0;
    for parameter in query.split(['&', ';']) {
        if let Some((name, value)) = parameter.split_once('=') {
            let known = PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known));
            if !is_plain(value) && (known || names.strict(name) != Says::Nothing) {
                hit(start + name.len() + 1..start + parameter.len());
            }
        }
        start += parameter.len() + 1;
    }
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
    fn passwords_before_the_host() {
        assert_eq!(found("https://u:hunter2@h/x"), ["hunter2"]);
        assert_eq!(found("url=postgres://u:p@ss@h:5432/db now"), ["p@ss"]);
        assert_eq!(found("redis://:hunter2@h"), ["hunter2"]);
        assert_eq!(found("postgres://u:hun/ter?2@h/db"), ["hun/ter?2"], "no valid URL, but what was typed");
        assert_eq!(found("https://0123456789abcdef0123456789abcdef01234567:x-oauth-basic@h"), ["0123456789abcdef0123456789abcdef01234567"]);
        assert_eq!(found("https://0123456789abcdef0123456789abcdef01234567@h"), ["0123456789abcdef0123456789abcdef01234567"]);
    }

    #[test]
    fn addresses_without_a_secret() {
        for text in
            ["ssh://git@h:22/x", "http://h:8080/a@b", "http://[::1]:80/a@b", "http://u@h/", "://x:y@h", "http://h/?q=a@b", "git@h:x.git"]
        {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn parameters_that_sign() {
        assert_eq!(found("https://b.example/o?X-Amz-Credential=a&X-Amz-Signature=abc123&x=1"), ["a", "abc123"]);
        assert_eq!(found("https://u:pw@h/p?access_token=t0k#token=t1"), ["pw", "t0k#token=t1"]);
        assert_eq!(found("https://h/p?token=&page_token_type=x&q=token"), Vec::<&str>::new());
    }

    proptest::proptest! {
        #[test]
        fn ranges_are_of_the_text(text in "(://|[a-z]{0,4}|@|:|\\?|#|&|=|token|sig|é| |/){0,24}") {
            find(&text, &Names::default(), |_, range| assert!(text.get(range).is_some_and(|found| !found.is_empty())));
        }
    }
}
