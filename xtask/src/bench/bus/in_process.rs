//! The bus in its own process: what the example `bench_inprocess` of bartizan-bus says.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::report::cell;
use super::super::stats::{Summary, summary};
use super::{Bench, quiet, run};
use crate::command;

/// One measurement: its name, the example's options, and the goal for messages a second, where there is one.
const WORK: &[(&str, &[&str], Option<f64>)] = &[
    ("published, synced every 200 ms", &["--store=log", "--sync=interval"], Some(1_500_000.0)),
    ("published and acknowledged, every message synced", &["--store=log", "--sync=always"], Some(400_000.0)),
    ("published, kept in memory alone", &["--store=memory"], None),
];

/// Measures and gives the text; `None` where the example is missing.
///
/// # Errors
/// The example fails.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Option<String>> {
    let Some(program) = &bench.needs.in_process else { return Ok(None) };
    let mut text = String::from(
        "One thread publishes messages of 256 random bytes. Processor time is of the whole process, helper threads and all.\n\n\
         | work | msg/s | goal | | CPU, µs/msg | of it helpers' | RSS peak, MiB | on disk, B/msg | processors |\n\
         |---|--:|--:|---|--:|--:|--:|--:|--:|\n",
    );
    let folder = bench.folder.join("in-process");
    for (name, options, goal) in WORK {
        let mut answers = Vec::new();
        for _ in 0..bench.plan.rounds {
            quiet::wait(bench.plan.patience);
            let mut command = Command::new(program);
            command::clean(&mut command).args(*options).args(run::lasting(&bench.plan)).arg("--folder").arg(&folder);
            let answer = run::ask(&mut command)?;
            std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
            eprintln!("        {name}: {:.0}/s", throughput(&answer).unwrap_or_default());
            answers.push(answer);
        }
        // Writing into a String cannot fail.
        let _ = row(&mut text, name, *goal, &answers);
    }
    Ok(Some(text))
}

fn throughput(answer: &Value) -> Option<f64> {
    Some(answer["messages"].as_f64()? / (answer["wall_ns"].as_f64()? / 1e9))
}

fn row(text: &mut String, name: &str, goal: Option<f64>, answers: &[Value]) -> std::fmt::Result {
    let of = |value: &dyn Fn(&Value) -> Option<f64>| summary(answers.iter().filter_map(value));
    let each = |answer: &Value, field: &str| Some(answer[field].as_f64()? / 1000.0 / answer["messages"].as_f64()?.max(1.0));
    let measured = of(&throughput);
    let verdict = match (goal, measured) {
        (Some(goal), Some(Summary { median, .. })) if median >= goal => "met",
        (Some(_), _) => "**missed**",
        (None, _) => "",
    };
    writeln!(
        text,
        "| {name} | {} | {} | {verdict} | {} | {} | {} | {} | {} |",
        cell(measured, 0),
        goal.map_or("—".to_owned(), |goal| format!("{goal:.0}")),
        cell(of(&|answer| each(answer, "cpu_ns")), 3),
        cell(of(&|answer| each(answer, "helpers_cpu_ns")), 3),
        cell(of(&|answer| Some(answer["peak_bytes"].as_f64()? / 1_048_576.0)), 0),
        cell(of(&|answer| Some(answer["disk_bytes"].as_f64()? / answer["stored"].as_f64()?.max(1.0))), 0),
        cell(of(&|answer| Some(answer["cpu_ns"].as_f64()? / answer["wall_ns"].as_f64()?)), 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_is_of_the_median() {
        let answer = |messages: u64| serde_json::json!({"messages": messages, "wall_ns": 1_000_000_000_u64, "cpu_ns": 2_000_000_000_u64});
        let mut text = String::new();
        row(&mut text, "w", Some(100.0), &[answer(90), answer(100), answer(110)]).unwrap();
        assert!(text.starts_with("| w | 100 (90–110) | 100 | met |") && text.ends_with("| — | — | 2.00 |\n"), "{text}");
        text.clear();
        row(&mut text, "w", Some(100.0), &[answer(99)]).unwrap();
        assert!(text.contains("**missed**"), "{text}");
    }
}
