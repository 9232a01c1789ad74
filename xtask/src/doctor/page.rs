//! The doctor's page.

use std::fmt::Write;

use super::{Check, Finding};

/// The text, and whether nothing is missing.
pub(super) fn render(checks: &[Check]) -> (String, bool) {
    let mut sorted: Vec<&Check> = checks.iter().collect();
    sorted.sort_by_key(|check| check.area);
    let (mut text, mut area) = (String::new(), None);
    let (mut later, mut missing) = (0, 0);
    for Check { area: of, thing, finding } in sorted {
        // Writing into a String cannot fail.
        if area != Some(*of) {
            let _ = writeln!(text, "{}{}", if area.is_some() { "\n" } else { "" }, of.name());
            area = Some(*of);
        }
        let (word, said) = match finding {
            Finding::There(what) => ("ok", what),
            Finding::Later(how) => {
                later += 1;
                ("later", how)
            }
            Finding::Without(what) => ("without", what),
            Finding::Missing(what) => {
                missing += 1;
                ("MISSING", what)
            }
        };
        let _ = writeln!(text, "  {word:<8} {thing}: {said}");
    }
    let _ = match (missing, later) {
        (0, 0) => writeln!(text, "\nThis machine has everything."),
        (0, _) => writeln!(text, "\nNothing is missing; {later} things come by themselves when they are needed (which takes network)."),
        _ => writeln!(text, "\n{missing} things are missing: do what stands beside them."),
    };
    (text, missing == 0)
}

#[cfg(test)]
mod tests {
    use super::super::Area;
    use super::*;

    fn check(area: Area, thing: &str, finding: Finding) -> Check {
        Check { area, thing: thing.into(), finding }
    }

    #[test]
    fn areas_stand_together_and_only_what_a_person_must_do_fails() {
        let later = check(Area::Vm, "kernel", Finding::Later("apt brings it".into()));
        let there = check(Area::Build, "rustc", Finding::There("1.95".into()));
        let without = check(Area::Bench, "bpftrace", Finding::Without("no peer".into()));
        let (text, good) = render(&[later.clone(), there.clone(), without.clone()]);
        assert!(good);
        assert!(
            text.starts_with(
                "build\n  ok       rustc: 1.95\n\nvm\n  later    kernel: apt brings it\n\nbench\n  without  bpftrace: no peer\n"
            ),
            "{text}"
        );
        assert!(text.contains("1 things come by themselves"), "{text}");
        let missing = check(Area::Build, "cc", Finding::Missing("run `apt-get install gcc`".into()));
        let (text, good) = render(&[later, missing]);
        assert!(!good && text.contains("  MISSING  cc: run `apt-get install gcc`\n"), "{text}");
        assert!(render(&[there]).0.ends_with("This machine has everything.\n"));
    }
}
