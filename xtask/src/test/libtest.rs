//! Counts from the output of libtest, whoever ran it: cargo, a test binary, or a guest's console.

use crate::stream::Lines;

/// Sums of `test result:` lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests marked as ignored.
    pub(crate) ignored: u64,
}

impl Counts {
    /// Adds another sum.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { passed, failed, ignored } = other;
        self.passed = self.passed.saturating_add(passed);
        self.failed = self.failed.saturating_add(failed);
        self.ignored = self.ignored.saturating_add(ignored);
    }

    /// Tests that ran.
    pub(crate) fn ran(self) -> u64 {
        self.passed.saturating_add(self.failed)
    }
}

/// A reader that is fed output in pieces.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    lines: Lines,
    counts: Counts,
}

impl Tally {
    /// Takes a piece of output.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let Self { lines, counts } = self;
        lines.feed(piece, |line| {
            if let Some(found) = parse(line) {
                counts.add(found);
            }
        });
    }

    /// The sums so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`. None for any other line.
fn parse(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let rest = rest.strip_prefix("ok. ").or_else(|| rest.strip_prefix("FAILED. "))?;
    let mut numbers = ["passed", "failed", "ignored"].into_iter().zip(rest.split("; ")).map(|(name, part)| {
        let (number, word) = part.split_once(' ')?;
        (word == name).then(|| number.parse().ok())?
    });
    Some(Counts { passed: numbers.next()??, failed: numbers.next()??, ignored: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn result_lines_are_summed_and_nothing_else() {
        let mut tally = Tally::default();
        tally.feed(
            b"running 3 tests\ntest a ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\r\n\
              test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.00s\n\
              panicked at 'test result: ok. 9 passed; 0 failed; 0 ignored'\ntest result: ok. nine passed; 0 failed; 0 ignored\n",
        );
        assert_eq!(tally.counts(), Counts { passed: 3, failed: 4, ignored: 1 });
        assert_eq!(tally.counts().ran(), 7);
    }

    proptest! {
        #[test]
        fn any_counts_are_read_back(passed in any::<u64>(), failed in any::<u64>(), ignored in any::<u64>()) {
            let word = if failed == 0 { "ok" } else { "FAILED" };
            let line = format!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured");
            prop_assert_eq!(parse(&line), Some(Counts { passed, failed, ignored }));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "test result: (ok. )?[0-9a-z;. ]{0,60}") {
            let mut tally = Tally::default();
            tally.feed(&bytes);
            let _ = parse(&text);
        }
    }
}
