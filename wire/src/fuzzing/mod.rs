//! What the fuzz targets in `fuzz/` call: functions that take any bytes, and panic when an invariant is broken.
//!
//! The first two bytes say where the rest is cut; what is read until there must be a beginning of what is read of all. Every committed input under
//! `fuzz/corpus/` runs through them as a unit test too, so that a crash that was found stays found.

pub(crate) mod beginning;
mod dns;
mod streams;

pub use dns::dns;
pub use streams::{http1, ssh, tls};

/// One target: its name, which is the name of its corpus folder too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] = [("dns", dns), ("http1", http1), ("ssh", ssh), ("tls", tls)];

/// The bytes of an input, and where they are cut.
fn cut(data: &[u8]) -> Option<(&[u8], usize)> {
    let (at, bytes) = data.split_first_chunk()?;
    Some((bytes, usize::from(u16::from_be_bytes(*at)) % (bytes.len() + 1)))
}

/// The input that cuts these bytes at `at`.
#[cfg(test)]
pub(crate) fn with_cut(bytes: &[u8], at: usize) -> Vec<u8> {
    [&u16::try_from(at).expect("short").to_be_bytes()[..], bytes].concat()
}

/// All characters are printable ASCII.
pub(crate) fn is_safe(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_committed_input_keeps_the_invariants() {
        let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"));
        for (name, target) in TARGETS {
            let folder = corpus.join(name);
            let inputs = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
            let mut ran = 0;
            for input in inputs {
                let path = input.expect("an entry").path();
                let bytes = std::fs::read(&path).expect("readable");
                let done = std::panic::catch_unwind(|| target(&bytes));
                assert!(done.is_ok(), "{} breaks an invariant", path.display());
                ran += 1;
            }
            assert!(ran > 0, "{} is empty: nothing of {name} was tested", folder.display());
        }
    }
}
