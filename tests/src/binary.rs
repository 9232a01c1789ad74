//! Which `bartizan` the tests run.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The program under test: `$BARTIZAN_BIN`, else the newest of this workspace's `target/debug/bartizan` and
/// `target/release/bartizan`.
///
/// # Panics
/// There is none.
#[track_caller]
pub fn bartizan() -> PathBuf {
    if let Some(named) = std::env::var_os("BARTIZAN_BIN") {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "BARTIZAN_BIN names {}, which is no file: build it with `cargo xtask build`", path.display());
        return path;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let built = ["debug", "release"].map(|profile| target.join(profile).join("bartizan"));
    let newest = built.iter().filter_map(|path| Some((modified(path)?, path))).max();
    match newest {
        Some((_, path)) => path.clone(),
        None => panic!("there is no bartizan in {}: build it with `cargo xtask build`, or name one in BARTIZAN_BIN", target.display()),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok().filter(|metadata| metadata.is_file())?.modified().ok()
}
