//! Values that are recognised by their own form, wherever they stand.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::patterns::Pattern;

/// A form: a beginning, and what has to follow it.
struct Shape {
    pattern: Pattern,
    prefix: &'static str,
    body: fn(u8) -> bool,
    /// Fewest bytes behind the beginning: shorter ones are words of somebody's own.
    min: usize,
    /// The beginning itself stays: it is an address.
    keep_prefix: bool,
}

const fn shape(pattern: Pattern, prefix: &'static str, body: fn(u8) -> bool, min: usize) -> Shape {
    Shape { pattern, prefix, body, min, keep_prefix: false }
}

const fn address(pattern: Pattern, prefix: &'static str) -> Shape {
    Shape { pattern, prefix, body: path, min: 8, keep_prefix: true }
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn capital(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn word(byte: u8) -> bool {
    alnum(byte) || byte == b'_'
}

/// base64url, and what tokens join their parts with.
fn token(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn dotted(byte: u8) -> bool {
    token(byte) || byte == b'.'
}

fn path(byte: u8) -> bool {
    token(byte) || matches!(byte, b'/' | b':')
}

use Pattern::{Aws, Github, Gitlab, Google, Jwt, Pem, Registry, Service, Sk, Slack, Stripe};

/// Lengths are those of the issuers' own documents, or a few less where they changed over time.
const SHAPES: &[Shape] = &[
    shape(Aws, "AKIA", capital, 16),
    shape(Aws, "ASIA", capital, 16),
    shape(Github, "ghp_", alnum, 36),
    shape(Github, "gho_", alnum, 36),
    shape(Github, "ghu_", alnum, 36),
    shape(Github, "ghs_", alnum, 36),
    shape(Github, "ghr_", alnum, 36),
    shape(Github, "github_pat_", word, 22),
    shape(Gitlab, "glpat-", token, 20),
    shape(Gitlab, "gldt-", token, 20),
    shape(Gitlab, "glrt-", token, 20),
    shape(Gitlab, "glcbt-", token, 20),
    shape(Slack, "xoxa-", token, 10),
    shape(Slack, "xoxb-", token, 10),
    shape(Slack, "xoxe-", token, 10),
    shape(Slack, "xoxe.", dotted, 10),
    shape(Slack, "xoxp-", token, 10),
    shape(Slack, "xoxr-", token, 10),
    shape(Slack, "xoxs-", token, 10),
    shape(Slack, "xapp-", token, 10),
    address(Slack, "hooks.slack.com/services/"),
    address(Slack, "discord.com/api/webhooks/"),
    shape(Sk, "sk-", alnum, 20),
    shape(Sk, "sk-proj-", token, 20),
    shape(Sk, "sk-ant-", token, 20),
    shape(Sk, "sk-or-", token, 20),
    shape(Stripe, "sk_live_", alnum, 16),
    shape(Stripe, "sk_test_", alnum, 16),
    shape(Stripe, "rk_live_", alnum, 16),
    shape(Stripe, "rk_test_", alnum, 16),
    shape(Stripe, "whsec_", alnum, 16),
    shape(Google, "AIza", token, 35),
    shape(Google, "ya29.", dotted, 20),
    shape(Google, "GOCSPX-", token, 20),
    shape(Registry, "npm_", alnum, 36),
    shape(Registry, "pypi-", token, 50),
    shape(Registry, "rubygems_", alnum, 40),
    shape(Registry, "cio", alnum, 32),
    shape(Service, "hf_", alnum, 30),
    shape(Service, "hvs.", token, 20),
    shape(Service, "hvb.", token, 20),
    shape(Service, "SG.", dotted, 40),
    shape(Service, "dop_v1_", alnum, 40),
    shape(Service, "AGE-SECRET-KEY-1", capital, 40),
    address(Service, "api.telegram.org/bot"),
    shape(Jwt, "eyJ", dotted, 20),
    // The whole of it is looked at in `pem`.
    shape(Pem, "-----BEGIN ", |_| true, 0),
];

/// The beginnings, for the prefilter.
pub(super) fn prefixes() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.prefix)
}

/// Finds the beginnings. Overlapping ones (`sk-` and `sk-ant-`) are all tried, because the longest may not fit.
static PREFIXES: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().match_kind(MatchKind::Standard).build(prefixes()).ok());

/// Calls `hit` for each value in `text`.
pub(super) fn find(text: &str, mut hit: impl FnMut(Pattern, Range<usize>)) {
    // The table is a constant: it is built, or the tests fail.
    let Some(prefixes) = PREFIXES.as_ref() else { return };
    let bytes = text.as_bytes();
    for found in prefixes.find_overlapping_iter(bytes) {
        let Some(shape) = SHAPES.get(found.pattern().as_usize()) else { continue };
        let Shape { pattern, prefix: _, body, min, keep_prefix } = shape;
        // Inside another word it is not a beginning.
        if !keep_prefix && found.start() > 0 && bytes.get(found.start() - 1).is_some_and(|byte| word(*byte)) {
            continue;
        }
        if *pattern == Pem {
            if let Some(range) = pem(text, found.end()) {
                hit(Pem, range);
            }
            continue;
        }
        let mut end = found.end();
        while bytes.get(end).is_some_and(|byte| body(*byte)) {
            end += 1;
        }
        // A full stop behind a token ends a sentence.
        while end > found.end() && bytes.get(end - 1) == Some(&b'.') {
            end -= 1;
        }
        let rest = bytes.get(found.end()..end).unwrap_or_default();
        let fits = match pattern {
            Jwt => rest.iter().filter(|byte| **byte == b'.').count() >= 1 && rest.iter().take_while(|byte| token(**byte)).count() >= 8,
            // `cio` is no rare beginning of a word; its tokens have digits.
            Registry | Sk => rest.iter().any(u8::is_ascii_digit),
            _ => true,
        };
        if rest.len() >= *min && fits {
            hit(*pattern, if *keep_prefix { found.end()..end } else { found.start()..end });
        }
    }
}

/// The body of a PEM block of a private key, from behind `-----BEGIN ` on; to the end of the text where its end is cut off.
fn pem(text: &str, from: usize) -> Option<Range<usize>> {
    let rest = text.get(from..)?;
    let label = rest.find("-----")?;
    let label_text = rest.get(..label)?;
    if !(label_text.contains("PRIVATE KEY") || label_text.contains("OPENSSH PRIVATE")) {
        return None;
    }
    let body = from + label + 5;
    let end = text.get(body..)?.find("-----END").map_or(text.len(), |at| body + at);
    let body_text = text.get(body..end)?;
    let (trimmed_start, trimmed_end) = (body_text.trim_start(), body_text.trim());
    let start = body + (body_text.len() - trimmed_start.len());
    (!trimmed_end.is_empty()).then(|| start..start + trimmed_end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        find(text, |_, range| all.push(&text[range]));
        all
    }

    #[test]
    fn hashes_uuids_and_words_are_no_tokens() {
        for text in [
            "6f1ed002ab5595859014ebf0951522d9bd3b8d6c",
            "8d3b0c6e-5f1e-4b6c-9d6a-0c6f4b6a9d6a",
            "task-0123456789abcdefghij-build",
            "sk-learn-some-long-name-of-a-package",
            "eyJust-a-word",
            "AKIAnotcapitals12345",
            "npm_config_registry",
            "ciorganisationswithaverylongnameindeed",
            "msg.SG.short",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn a_token_ends_where_its_letters_do() {
        let token = concat!("ghp_", "0123456789abcdefghijklmnopqrstuvwxyz");
        assert_eq!(found(&format!("https://{token}@host/x?y={token}&z")), [token, token]);
        assert_eq!(found(concat!("the key sk-", "0123456789abcdefghij.")), [concat!("sk-", "0123456789abcdefghij")]);
        assert_eq!(found("see hooks.slack.com/services/T00/B00/abcdef now"), ["T00/B00/abcdef"]);
    }

    #[test]
    fn a_key_block_that_is_cut_off_is_still_one() {
        assert_eq!(found(concat!("-----BEGIN EC PRIVATE", " KEY-----\nMIIEow")), ["MIIEow"]);
    }

    proptest::proptest! {
        #[test]
        fn ranges_are_of_the_text(text in "(ghp_|sk-|eyJ|AKIA|-----BEGIN |PRIVATE KEY|-----|\\.|[ -~é]|[a-zA-Z0-9]{1,40}){0,12}") {
            find(&text, |_, range| assert!(text.get(range).is_some_and(|found| !found.is_empty())));
        }
    }
}
