//! What the guest's serial console says: fed bytes, it knows the program's exit code or the kernel's panic.

use std::collections::VecDeque;

use crate::stream::Lines;

/// Lines kept for an error message.
const TAIL: usize = 12;

/// How the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The program ended with this code (128 + signal number when a signal ended it).
    Exit(u8),
    /// The kernel panicked, and this is what it said.
    Panic(String),
}

/// The console as read so far.
#[derive(Debug)]
pub(crate) struct Console {
    marker: String,
    lines: Lines,
    tail: VecDeque<String>,
    verdict: Option<Verdict>,
}

impl Console {
    /// A console on which a line of `marker` and a number is the program's exit code.
    pub(crate) fn new(marker: &str) -> Self {
        Self { marker: marker.to_owned(), lines: Lines::default(), tail: VecDeque::new(), verdict: None }
    }

    /// Takes a piece of output. True once the verdict is known; the first one stands.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> bool {
        let Self { marker, lines, tail, verdict } = self;
        lines.feed(piece, |line| {
            if verdict.is_none() {
                *verdict = judge(line, marker);
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        });
        verdict.is_some()
    }

    /// The verdict, if one was seen.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The last complete lines.
    pub(crate) fn tail(&self) -> String {
        self.tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn judge(line: &str, marker: &str) -> Option<Verdict> {
    if let Some(at) = line.find("Kernel panic - not syncing") {
        return Some(Verdict::Panic(line[at..].to_owned()));
    }
    line.strip_prefix(marker)?.strip_prefix(' ')?.trim().parse().ok().map(Verdict::Exit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exit_code_is_read_from_its_line_only() {
        let mut console = Console::new("MARK-1");
        assert!(!console.feed(b"MARK-1\r\nMARK-2 0\r\nsays MARK-1 0\r\nMARK-1 x\r\nMARK-1 3"));
        assert_eq!(console.verdict(), None, "the line is not complete");
        assert!(console.feed(b"7\r\nMARK-1 0\r\n"));
        assert_eq!(console.verdict(), Some(&Verdict::Exit(37)), "the first stands");
    }

    #[test]
    fn panic_is_a_verdict() {
        let mut console = Console::new("M");
        assert!(console.feed(b"[    2.1] Kernel panic - not syncing: Attempted to kill init!\r\n"));
        assert_eq!(console.verdict(), Some(&Verdict::Panic("Kernel panic - not syncing: Attempted to kill init!".into())));
    }

    #[test]
    fn tail_is_bounded() {
        let mut console = Console::new("M");
        (0..1000).for_each(|n| {
            console.feed(format!("line {n}\n").as_bytes());
        });
        assert_eq!(console.tail().lines().count(), TAIL);
        assert!(console.tail().ends_with("line 999"));
    }

    proptest! {
        #[test]
        fn verdict_does_not_depend_on_how_the_bytes_are_cut(noise in "[ -~]{0,30}", code in any::<u8>(), cut in 0_usize..60) {
            prop_assume!(!noise.contains("MARK"));
            let text = format!("{noise}\r\nMARK {code}\r\n");
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let mut console = Console::new("MARK");
            console.feed(head);
            prop_assert!(console.feed(tail) || cut >= text.len());
            prop_assert_eq!(console.verdict(), Some(&Verdict::Exit(code)));
        }
    }
}
