//! What is wanted, beside what was measured. Nothing is judged but in words.

use std::fmt::Write;

use super::report::cell;
use super::stats::Summary;

/// Where the figures of Falco come from: not from the run whose table they stand in.
const FALCO: &str = "Falco's figures are cited and were not measured in this run: Falco 0.45-dev with its modern eBPF driver and 25 stable \
                     rules, zero drops, on another day on a machine of this kind (2 virtual processors, kernel 6.18).";

/// One number and its limit.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub(super) what: String,
    /// The most that is wanted.
    pub(super) most: f64,
    pub(super) unit: &'static str,
    /// Digits after the point.
    pub(super) digits: usize,
    /// `None` where there is nothing to measure.
    pub(super) measured: Option<Summary>,
    /// The same of Falco, in the same unit; empty where there is no figure.
    pub(super) falco: &'static str,
}

impl Goal {
    /// By the median.
    fn verdict(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(Summary { median, min: _, max: _ }) if median <= self.most => "met",
            Some(_) => "missed",
        }
    }
}

/// A table of them; nothing of none.
pub(super) fn table(text: &mut String, goals: &[Goal]) -> std::fmt::Result {
    if goals.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n| goal | at most | Bartizan | | Falco |\n|---|--:|--:|---|--:|")?;
    for goal in goals {
        let Goal { what, most, unit, digits, measured, falco } = goal;
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        writeln!(text, "| {what} | {most:.digits$}{unit} | {} | {} | {falco} |", cell(*measured, *digits), goal.verdict())?;
    }
    if goals.iter().any(|goal| !goal.falco.is_empty()) {
        writeln!(text, "\n{FALCO}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(measured: Option<f64>, falco: &'static str) -> Goal {
        let measured = measured.map(|value| Summary { median: value, min: value, max: value });
        Goal { what: "exec".to_owned(), most: 15.0, unit: "µs", digits: 1, measured, falco }
    }

    #[test]
    fn what_is_not_above_the_limit_is_met() {
        assert_eq!(goal(Some(15.0), "").verdict(), "met");
        assert_eq!(goal(Some(15.1), "").verdict(), "missed");
        assert_eq!(goal(None, "").verdict(), "not measured");
    }

    #[test]
    fn cited_figures_are_named_as_such() {
        let render = |goals: &[Goal]| {
            let mut text = String::new();
            assert!(table(&mut text, goals).is_ok());
            text
        };
        let text = render(&[goal(Some(20.0), "30–34 µs")]);
        assert!(text.contains("| exec | 15.0 µs | 20.0 | missed | 30–34 µs |") && text.contains("not measured in this run"), "{text}");
        assert!(!render(&[goal(None, "")]).contains("cited"));
        assert_eq!(render(&[]), "");
    }
}
