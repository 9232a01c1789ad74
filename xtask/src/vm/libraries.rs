//! The shared libraries that a program needs, as the host's own loader finds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// The libraries of `program` and its loader; none for a static program.
///
/// # Errors
/// A library that the host lacks, or `ldd` cannot run.
pub(crate) fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    command::clean(&mut ldd).arg(program).env("LC_ALL", "C");
    let output = ldd.output();
    let output = match output {
        Ok(output) => output,
        Err(error) => bail!("`ldd` could not be started ({error}): run `apt-get install libc-bin`"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        // ldd's way to say that a program is static.
        if complained.contains("not a dynamic executable") || said.contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("`ldd {}` failed ({:?}): check that the file is a program of this machine", program.display(), complained.trim());
    }
    match parse(&said) {
        Ok(found) => Ok(found),
        Err(missing) => bail!("{} needs the library {missing}, which this machine lacks: install its package", program.display()),
    }
}

/// Reads `ldd`'s listing: `name => /path (0x…)`, `/path (0x…)`, or `name => not found`, which is the error.
fn parse(listing: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in listing.lines().map(str::trim) {
        let path = match line.split_once(" => ") {
            Some((name, rest)) if rest.trim() == "not found" => return Err(name.to_owned()),
            Some((_, rest)) => rest,
            None => line,
        };
        // The address is the last word; a path may hold spaces.
        let path = path.rsplit_once(" (0x").map_or(path, |(path, _)| path);
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_line_is_read() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \tliba.so => /opt/a b/liba.so (0x00)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/opt/a b/liba.so", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse(listing), Ok(paths.map(PathBuf::from).to_vec()));
        assert_eq!(parse("\tstatically linked\n"), Ok(vec![]));
        assert_eq!(parse("\tlibx.so.1 => not found\n"), Err("libx.so.1".to_owned()));
    }

    #[test]
    fn this_test_binary_has_a_libc_that_exists() -> Result<()> {
        let found = of(&std::env::current_exe()?)?;
        assert!(found.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{found:?}");
        assert!(found.iter().all(|path| path.exists()));
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_program_is_refused_or_has_none() {
        assert!(of(Path::new("/no/such/program")).is_err());
    }

    proptest! {
        #[test]
        fn no_listing_makes_it_panic(listing in "\\PC{0,200}") {
            if let Ok(paths) = parse(&listing) {
                prop_assert!(paths.iter().all(|path| path.is_absolute()));
            }
        }
    }
}
