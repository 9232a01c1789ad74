//! Embeds the kernel object that `cargo xtask build` made. A build without it (`cargo check`, `cargo clippy`) gets an empty
//! one, and `bartizan run` then says so instead of starting blind.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let object = env::var_os("BARTIZAN_BPF_OBJECT").map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-env-changed=BARTIZAN_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(out.join("bartizan-ebpf.o"), bytes).unwrap_or_else(|error| panic!("cannot write the embedded kernel object: {error}"));
}

/// Where `cargo xtask build` puts it.
fn default_object() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    Path::new(&manifest).join("../target/bpf/bartizan-ebpf.o")
}
