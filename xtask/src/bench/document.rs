//! The generated part of `docs/performance.md`: what stands between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const BEGIN: &str = "<!-- begin: cargo xtask bench capture -->";
const END: &str = "<!-- end: cargo xtask bench capture -->";

/// Sees whether the table could be written.
///
/// # Errors
/// The file cannot be read or has not each marker once.
pub(super) fn check(path: &Path) -> Result<()> {
    splice(&read(path)?, "").map(|_| ()).with_context(|| path.display().to_string())
}

/// Puts `table` between the markers; the rest of the file is a person's and stays.
///
/// # Errors
/// As [`check`], or the file cannot be written.
pub(super) fn write(path: &Path, table: &str) -> Result<()> {
    let text = splice(&read(path)?, table).with_context(|| path.display().to_string())?;
    fs::write(path, text).with_context(|| format!("{} cannot be written: check who owns the checkout", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read: check it out again, or give --print-only", path.display()))
}

fn splice(text: &str, table: &str) -> Result<String> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    match parts {
        Some((before, after)) if !after.contains(BEGIN) && !after.contains(END) => {
            Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim()))
        }
        Some(_) | None => bail!("it needs the lines {BEGIN:?} and {END:?} once each, in this order: put them back"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("# Title\n{BEGIN}\nold\n{END}\nmore\n");
        assert_eq!(splice(&text, "new\n").ok(), Some(format!("# Title\n{BEGIN}\n\nnew\n\n{END}\nmore\n")));
    }

    #[test]
    fn missing_and_doubled_markers_are_refused() {
        for text in [String::new(), BEGIN.to_owned(), format!("{END}{BEGIN}"), format!("{BEGIN}{END}{BEGIN}{END}")] {
            assert!(splice(&text, "x").is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn writing_again_gives_the_same(before in "[a-z\n]{0,20}", after in "[a-z\n]{0,20}", table in "[a-z|\n]{0,20}") {
            let once = splice(&format!("{before}{BEGIN}{END}{after}"), &table).unwrap();
            prop_assert_eq!(splice(&once, &table).unwrap(), once);
        }
    }
}
