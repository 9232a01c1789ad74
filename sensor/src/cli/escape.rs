//! Untrusted text on its way to a terminal. Everything that a program on the host can choose (argv, paths, names) passes here.
//!
//! Invariants worth naming:
//!
//! - **What comes out cannot draw**: no control character (C0, DEL, C1), no line or paragraph separator, no bidirectional
//!   control and no invisible format character leaves this file; each is written as a visible escape.
//! - **What comes out is one line.**
//! - **JSON keeps its meaning**: there the same characters become JSON's own escapes.

/// Characters that a terminal acts on, or that show nothing while they change what is around them.
fn is_dangerous(c: char) -> bool {
    // `is_control` is category Cc: C0, DEL and C1.
    c.is_control()
        || matches!(c,
            '\u{2028}' | '\u{2029}'                       // line and paragraph separator
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}' // bidirectional controls
            | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' // zero width, deprecated format
            | '\u{00ad}' | '\u{034f}' | '\u{180b}'..='\u{180f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' // other invisible ones
            | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}' // fillers that show nothing
            | '\u{fe00}'..='\u{fe0f}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' // selectors, tags
        )
}

/// The one way of a character to the terminal.
fn push(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_dangerous(c) && u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if is_dangerous(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        c => out.push(c),
    }
}

/// `text` with everything dangerous written as an escape.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c));
    out
}

/// One argument as a shell would take it back: bare when it can be, else `'…'`, else (control characters, quotes) `$'…'`,
/// in which a backslash is always doubled so that an escape cannot be mistaken for text.
pub(crate) fn quote(argument: &str) -> String {
    let bare = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '=' | ',' | '+' | '@' | '%' | '^');
    if !argument.is_empty() && argument.chars().all(|c| bare(c) && !is_dangerous(c)) {
        return argument.to_owned();
    }
    let mut out = String::with_capacity(argument.len() + 3);
    let plain = !argument.chars().any(|c| c == '\'' || is_dangerous(c));
    if plain {
        out.push('\'');
        out.push_str(argument);
    } else {
        out.push_str("$'");
        for c in argument.chars() {
            if matches!(c, '\'' | '\\') {
                out.push('\\');
            }
            push(&mut out, c);
        }
    }
    out.push('\'');
    out
}

/// JSON with everything dangerous as JSON's own `\uXXXX`: JSON itself asks that only of C0. The meaning is unchanged, because
/// outside of strings JSON is printable ASCII.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_dangerous(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// A whole argument vector, quoted and separated by spaces; `…` at the end when it was cut at capture.
pub(crate) fn command_line(argv: &[String], truncated: bool) -> String {
    let mut line = argv.iter().map(|argument| quote(argument)).collect::<Vec<_>>().join(" ");
    if truncated {
        line.push_str(" …");
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_clean(text: &str) -> bool {
        let dangerous = |c: char| {
            let code = u32::from(c);
            code < 0x20
                || (0x7f..=0x9f).contains(&code)
                || (0x202a..=0x202e).contains(&code)
                || (0x2066..=0x2069).contains(&code)
                || matches!(code, 0x2028 | 0x2029 | 0x200e | 0x200f | 0x061c)
        };
        !text.chars().any(dangerous)
    }

    #[test]
    fn escapes_are_visible() {
        assert_eq!(escape("a\u{1b}[31mb"), "a\\x1b[31mb");
        assert_eq!(escape("x\n\r\t\0\u{7f}"), "x\\n\\r\\t\\x00\\x7f");
        assert_eq!(escape("\u{9b}31m\u{202e}gpj.exe\u{2028}"), "\\u{9b}31m\\u{202e}gpj.exe\\u{2028}");
        assert_eq!(escape("naïve 日本 🚀 \\x41"), "naïve 日本 🚀 \\x41");
    }

    #[test]
    fn arguments_are_quoted_as_a_shell_would_take_them() {
        for (argument, quoted) in [
            ("/bin/ls", "/bin/ls"),
            ("--colour=auto", "--colour=auto"),
            ("", "''"),
            ("two words", "'two words'"),
            ("$(id)", "'$(id)'"),
            ("a\\b", "'a\\b'"),
            ("it's", "$'it\\'s'"),
            ("\u{1b}[2J", "$'\\x1b[2J'"),
            ("\\x1b'", "$'\\\\x1b\\''"),
            ("~", "'~'"),
            ("#x", "'#x'"),
        ] {
            assert_eq!(quote(argument), quoted, "{argument:?}");
        }
        assert_eq!(command_line(&["sh".into(), "-c".into(), "id; id".into()], true), "sh -c 'id; id' …");
    }

    proptest! {
        #[test]
        fn nothing_dangerous_comes_out(text in any::<String>()) {
            prop_assert!(is_clean(&escape(&text)));
            prop_assert!(is_clean(&quote(&text)));
        }

        #[test]
        fn dense_control_characters_too(text in prop::collection::vec(prop_oneof![
            0u32..0xa0, 0x2000u32..0x2070, 0xfe00u32..0x10000, 0xe0000u32..0xe0200, 0x0600u32..0x0620
        ], 0..40)) {
            let text: String = text.into_iter().filter_map(char::from_u32).collect();
            prop_assert!(is_clean(&escape(&text)));
            prop_assert!(is_clean(&quote(&text)));
        }

        #[test]
        fn json_keeps_its_meaning(text in any::<String>(), code in prop::collection::vec(0u32..0xe0200, 0..20)) {
            let text: String = text.chars().chain(code.into_iter().filter_map(char::from_u32)).collect();
            let safe = json(&serde_json::json!({ &text: [&text] }).to_string());
            prop_assert!(is_clean(&safe));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("json"), serde_json::json!({ &text: [&text] }));
        }

        #[test]
        fn harmless_text_passes_unchanged(text in "[a-zA-Z0-9 ./\\\\é日-]{0,40}") {
            prop_assert_eq!(escape(&text), text);
        }

        #[test]
        fn ascii_arguments_come_back_through_a_real_shell(argument in "[\\x01-\\x7e]{0,20}") {
            // bash's printf is the judge of `$'…'`.
            let output = std::process::Command::new("bash").arg("-c").arg(format!("printf %s {}", quote(&argument))).output();
            let output = output.expect("bash is there");
            prop_assert_eq!(String::from_utf8_lossy(&output.stdout), argument);
        }
    }
}
