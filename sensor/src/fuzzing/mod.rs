//! What the fuzz targets in `fuzz/` call: functions that take any bytes, and panic when an invariant is broken.
//!
//! Every committed input under `fuzz/corpus/` runs through them as a unit test too, so that a crash that was found stays found.

mod containers;
mod recording;
mod records;

pub use containers::containers;
pub use recording::recording;
pub use records::records;

/// One target: its name, which is the name of its corpus folder too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 3] = [("containers", containers), ("recording", recording), ("records", records)];

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
