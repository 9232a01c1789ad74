//! The end of a test run: a table, the troubles, and one line that a machine can read.

use std::fmt::Write;
use std::time::Duration;

use super::libtest::Counts;
use super::stages::{Part, Report, Stage};
use crate::step;

/// A stage that ran.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Which.
    pub(crate) stage: Stage,
    /// What came of it.
    pub(crate) report: Report,
    /// How long it took.
    pub(crate) took: Duration,
}

/// The text for stdout, and whether everything passed.
///
/// The last line is `N passed, N failed`. A stage that failed without a failing test (a warning, a crash, a build) counts as one failure:
/// so `0 failed` and exit code 0 always go together.
pub(crate) fn render(finished: &[Finished], skipped: &[Stage]) -> (String, bool) {
    let mut text = format!("\n{:<10} {:<7} {:>7} {:>7} {:>8}  time\n", "stage", "result", "passed", "failed", "ignored");
    let mut total = Counts::default();
    for Finished { stage, report, took } in finished {
        let result = if passed(report) { "ok" } else { "FAILED" };
        let Counts { passed, failed, ignored } = report.counts;
        total.add(counted(report));
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{:<10} {result:<7} {passed:>7} {failed:>7} {ignored:>8}  {}", stage.name(), step::seconds(*took));
        for Part { name, counts, passed, took } in &report.parts {
            let result = if *passed { "ok" } else { "FAILED" };
            let Counts { passed, failed, ignored } = *counts;
            let _ = writeln!(text, "{:<10} {result:<7} {passed:>7} {failed:>7} {ignored:>8}  {}, on {name}", "", step::seconds(*took));
        }
    }
    for stage in skipped {
        let _ = writeln!(text, "{:<10} not run (an earlier stage failed)", stage.name());
    }
    for Finished { stage, report, took: _ } in finished {
        for trouble in &report.trouble {
            let _ = writeln!(text, "{}: {trouble}", stage.name());
        }
    }
    let all_passed = skipped.is_empty() && total.failed == 0;
    let _ = writeln!(text, "\n{} passed, {} failed", total.passed, total.failed);
    (text, all_passed)
}

fn passed(report: &Report) -> bool {
    report.trouble.is_empty() && report.counts.failed == 0
}

fn counted(report: &Report) -> Counts {
    let silent = report.counts.failed == 0 && !report.trouble.is_empty();
    Counts { failed: if silent { 1 } else { report.counts.failed }, ..report.counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(stage: Stage, passed: u64, failed: u64, trouble: &[&str]) -> Finished {
        let counts = Counts { passed, failed, ignored: 0 };
        Finished {
            stage,
            report: Report { counts, parts: vec![], trouble: trouble.iter().map(ToString::to_string).collect() },
            took: Duration::ZERO,
        }
    }

    fn last_line(text: &str) -> &str {
        text.lines().last().unwrap_or_default()
    }

    #[test]
    fn all_well() {
        let (text, ok) = render(&[finished(Stage::Unit, 5, 0, &[]), finished(Stage::Kernel, 2, 0, &[])], &[]);
        assert!(ok);
        assert_eq!(last_line(&text), "7 passed, 0 failed");
    }

    #[test]
    fn a_stage_without_tests_counts_as_one_failure() {
        let (text, ok) = render(&[finished(Stage::Unit, 5, 2, &["x"]), finished(Stage::Clippy, 0, 0, &["lint"])], &[]);
        assert!(!ok);
        assert_eq!(last_line(&text), "5 passed, 3 failed");
        assert!(text.contains("clippy: lint"));
    }

    #[test]
    fn each_kernel_is_named_with_its_counts() {
        let mut vm = finished(Stage::Vm, 5, 1, &["linux-image-6.12: capture failed"]);
        let part = |name: &str, passed, failed| Part {
            name: name.into(),
            counts: Counts { passed, failed, ignored: 0 },
            passed: failed == 0,
            took: Duration::from_secs(7),
        };
        vm.report.parts = vec![part("linux-image-6.1", 3, 0), part("linux-image-6.12", 2, 1)];
        let (text, ok) = render(&[vm], &[]);
        assert!(!ok);
        assert!(text.contains("           ok            3       0        0  7.0 s, on linux-image-6.1\n"), "{text}");
        assert!(text.contains("           FAILED        2       1        0  7.0 s, on linux-image-6.12\n"), "{text}");
        assert_eq!(last_line(&text), "5 passed, 1 failed", "parts are not counted twice");
    }

    #[test]
    fn failing_tests_alone_fail_the_run() {
        assert!(!render(&[finished(Stage::Vm, 1, 1, &[])], &[]).1);
    }

    #[test]
    fn a_stage_that_did_not_run_is_no_success() {
        let (text, ok) = render(&[finished(Stage::Packages, 0, 0, &[])], &[Stage::Vm]);
        assert!(!ok);
        assert!(text.contains("vm         not run"), "{text}");
    }
}
