//! The generated parts of `docs/performance.md`: what stands between two markers, which name the bench that writes there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Sees whether the table of `cargo xtask bench <bench>` could be written.
///
/// # Errors
/// The file cannot be read or has not each marker once.
pub(super) fn check(path: &Path, bench: &str) -> Result<()> {
    splice(&read(path)?, bench, "").map(|_| ()).with_context(|| path.display().to_string())
}

/// Puts `table` between the markers of `cargo xtask bench <bench>`; the rest of the file is others' and stays.
///
/// # Errors
/// As [`check`], or the file cannot be written.
pub(super) fn write(path: &Path, bench: &str, table: &str) -> Result<()> {
    let text = splice(&read(path)?, bench, table).with_context(|| path.display().to_string())?;
    fs::write(path, text).with_context(|| format!("{} cannot be written: check who owns the checkout", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read: check it out again, or give --print-only", path.display()))
}

fn markers(bench: &str) -> [String; 2] {
    ["begin", "end"].map(|side| format!("<!-- {side}: cargo xtask bench {bench} -->"))
}

fn splice(text: &str, bench: &str, table: &str) -> Result<String> {
    let [begin, end] = markers(bench);
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match parts {
        Some((before, after)) if !after.contains(&begin) && !after.contains(&end) => {
            Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", table.trim()))
        }
        Some(_) | None => bail!("it needs the lines {begin:?} and {end:?} once each, in this order: put them back"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let [begin, end] = markers("x");
        let others = markers("x y").join("theirs");
        let text = format!("# Title\n{others}\n{begin}\nold\n{end}\nmore\n");
        assert_eq!(splice(&text, "x", "new\n").ok(), Some(format!("# Title\n{others}\n{begin}\n\nnew\n\n{end}\nmore\n")));
    }

    #[test]
    fn missing_and_doubled_markers_are_refused() {
        let [begin, end] = markers("x");
        for text in [String::new(), begin.clone(), format!("{end}{begin}"), format!("{begin}{end}{begin}{end}"), markers("y").concat()] {
            assert!(splice(&text, "x", "t").is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn writing_again_gives_the_same(before in "[a-z\n]{0,20}", after in "[a-z\n]{0,20}", table in "[a-z|\n]{0,20}") {
            let [begin, end] = markers("x");
            let once = splice(&format!("{before}{begin}{end}{after}"), "x", &table).unwrap();
            prop_assert_eq!(splice(&once, "x", &table).unwrap(), once);
        }
    }
}
