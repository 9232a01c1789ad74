//! The identification string that each side of an SSH connection begins with (RFC 4253 §4.2).
//!
//! ```
//! use bartizan_wire::{Parsed, ssh};
//!
//! let Parsed::Complete(peer) = ssh::identification(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n") else { panic!("SSH") };
//! assert_eq!((peer.protocol.as_str(), peer.software.as_str()), ("2.0", "OpenSSH_9.2p1"));
//! assert_eq!(peer.comments.as_deref(), Some("Debian-2+deb12u3"));
//!
//! assert_eq!(ssh::identification(b"SSH-2.0-Open"), Parsed::Incomplete(None));
//! ```

use crate::Parsed;
use crate::text::escape;

/// Bytes of an identification string with its line end (RFC 4253 §4.2).
pub const MAX_IDENTIFICATION: usize = 255;
/// Bytes that are looked at, with the lines that a server may send before: a peer that sent so many and no identification speaks something else.
pub const MAX_BYTES: usize = 8192;
/// Lines before the identification that are kept.
pub const MAX_LINES: usize = 16;
/// What an identification string begins with.
const PREFIX: &[u8] = b"SSH-";

/// How one side names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// `2.0`; `1.99` of a server that takes version 1 too; `1.5` and such of version 1.
    pub protocol: String,
    /// Program and version.
    pub software: String,
    /// What follows behind a space, often the distribution's version.
    pub comments: Option<String>,
    /// Lines that a server sent before, without their ends, up to [`MAX_LINES`].
    pub before: Vec<String>,
    /// Lines that are not kept because of [`MAX_LINES`].
    pub left_out: usize,
}

/// What either side sends, from its first byte on. A client may send no line before; this takes them from both.
pub fn identification(bytes: &[u8]) -> Parsed<Identification> {
    let mut rest = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let (mut before, mut left_out) = (Vec::new(), 0);
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
        if line.iter().any(|byte| !is_text(*byte)) {
            return Parsed::NotThis("a byte that is no text before the end of an identification string");
        }
        let ours = line.starts_with(PREFIX);
        if ours && line.len() >= MAX_IDENTIFICATION {
            return Parsed::NotThis("an identification string longer than 255 bytes");
        }
        let Some(end) = end else {
            return match bytes.len() < MAX_BYTES {
                true => Parsed::Incomplete(None),
                false => Parsed::NotThis("no identification string in the first 8,192 bytes"),
            };
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(line) = line.strip_prefix(PREFIX) {
            return match line.iter().position(|byte| *byte == b'-') {
                Some(dash) => Parsed::Complete(parts(line, dash, before, left_out)),
                None => Parsed::NotThis("an identification string without a software version"),
            };
        }
        if before.len() < MAX_LINES {
            before.push(escape(line));
        } else {
            left_out += 1;
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
}

/// A line of text, also in an encoding other than ASCII, with its carriage return.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\r' | b' '..=b'~' | 0x80..)
}

/// Of `2.0-OpenSSH_9.2p1 Debian-2`, with the first dash at `dash`.
fn parts(line: &[u8], dash: usize, before: Vec<String>, left_out: usize) -> Identification {
    let (protocol, rest) = line.split_at(dash);
    let mut words = rest.get(1..).unwrap_or_default().splitn(2, |byte| *byte == b' ');
    let software = escape(words.next().unwrap_or_default());
    Identification { protocol: escape(protocol), software, comments: words.next().map(escape), before, left_out }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing;

    /// Of Debian 12's sshd and ssh, copied from the wire; they say the same.
    const OPENSSH: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10\r\n";

    fn whole(bytes: &[u8]) -> Identification {
        match identification(bytes) {
            Parsed::Complete(peer) => peer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_identification_is_taken_apart() {
        let peer = whole(OPENSSH);
        assert_eq!((peer.protocol.as_str(), peer.software.as_str()), ("2.0", "OpenSSH_9.2p1"));
        assert_eq!((peer.comments.as_deref(), peer.before.len()), (Some("Debian-2+deb12u10"), 0));
        let parts = |text: &str| {
            let peer = whole(text.as_bytes());
            (peer.protocol, peer.software, peer.comments)
        };
        let owned = |text: &str| text.to_owned();
        // A dash is not allowed in a version, and libssh has one; a bare line feed ends a line of old clients.
        assert_eq!(parts("SSH-2.0-libssh-0.8.1\n"), (owned("2.0"), owned("libssh-0.8.1"), None));
        assert_eq!(parts("SSH-1.99-x a b \r\n"), (owned("1.99"), owned("x"), Some(owned("a b "))));
        assert_eq!(parts("SSH-2.0-\r\n"), (owned("2.0"), owned(""), None));
        // What follows is of no interest.
        assert_eq!(whole(&[OPENSSH, &[0, 0, 5, 0xff]].concat()), whole(OPENSSH));
    }

    #[test]
    fn lines_before_it_are_kept_up_to_a_limit() {
        let peer = whole(b"Welcome\r\nto b\xc3\xbcro\n\nSSH-2.0-x\r\n");
        assert_eq!(peer.before, ["Welcome", r"to b\xc3\xbcro", ""]);
        let peer = whole(&[&b"line\r\n".repeat(20)[..], OPENSSH].concat());
        assert_eq!((peer.before.len(), peer.left_out), (MAX_LINES, 4));
    }

    #[test]
    fn every_cut_waits_for_the_line_end() {
        assert!((0..OPENSSH.len()).all(|at| identification(&OPENSSH[..at]) == Parsed::Incomplete(None)));
        let lines = [b"hello\r\n", OPENSSH].concat();
        assert!((0..lines.len()).all(|at| identification(&lines[..at]) == Parsed::Incomplete(None)));
    }

    #[test]
    fn what_is_no_identification_is_told() {
        let not = |bytes: &[u8]| matches!(identification(bytes), Parsed::NotThis(_));
        assert!(not(b"\x16\x03\x01"));
        assert!(not(b"SSH-2.0\r\n"));
        assert!(not(b"SSH-2.0-a\0b"));
        // 253 bytes and a line end are the most.
        let longest = [b"SSH-2.0-", &[b'x'; 245][..], b"\r\n"].concat();
        assert_eq!((longest.len(), whole(&longest).software.len()), (MAX_IDENTIFICATION, 245));
        assert!(not(&[b"SSH-2.0-", &[b'x'; 246][..], b"\r\n"].concat()));
        assert!(not(&[b"SSH-2.0-", &[b'x'; 247][..]].concat()));
        assert!(not(&b"220 mail.example.test ESMTP\r\n".repeat(300)));
        assert!(!not(b"220 mail.example.test ESMTP\r\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..400), text in "(SSH-)?[ -~]{0,20}(\r?\n)?(SSH-2.0-[ -~]{0,260})?\r?\n?", at in any::<u16>()) {
            fuzzing::ssh(&bytes);
            let at = usize::from(at) % (text.len() + 1);
            fuzzing::ssh(&fuzzing::with_cut(text.as_bytes(), at));
        }
    }
}
