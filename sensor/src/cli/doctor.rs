//! `bartizan doctor`: what this kernel and host allow, what the rest costs, and what to do.

use std::time::Duration;

use super::Common;
use super::escape::{self, escape};
use super::exit::{Exit, Failure};
use super::out::{Out, Stop};
use super::paint::{ColorChoice, Paint};
use crate::control;
use crate::doctor::{Check, Grade, Verdict, examine, gather, verdict};

/// How long a running Bartizan may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Width that findings, costs and remedies are wrapped to, beside their indentation.
const WIDTH: usize = 110;

/// Look at this kernel and host: what they allow, what each missing piece costs in detection, and what to do about it. Works with and
/// without a running Bartizan; as root it attaches each hook for a moment. Exit code 0: all is well; 1: something can be better, is not
/// seen, or could not be looked at; 2: Bartizan cannot run here; 64: wrong usage or configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON object, with `verdict` and `checks`
    #[arg(long)]
    json: bool,

    /// Colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: ColorChoice,

    /// The same as --color never
    #[arg(long, conflicts_with = "color")]
    no_color: bool,
}

/// Runs the verb.
pub(crate) fn run(common: &Common, args: &Args) -> Result<Exit, Stop> {
    let config = common.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, format_args!("cannot wait for an answer: {error}")))?;
    let running = runtime.block_on(control::status(&config.data_dir, PATIENCE));
    let checks = examine(&gather(&config, running));
    let verdict = verdict(&checks);
    let mut out = Out::stdout();
    if args.json {
        let json = serde_json::to_string(&serde_json::json!({ "verdict": verdict, "checks": checks }));
        let json = json.map_err(|error| Failure::new(Exit::Failed, format_args!("the checks cannot be written as JSON: {error}")))?;
        out.line(&escape::json(&json))?;
    } else {
        let color = if args.no_color { ColorChoice::Never } else { args.color };
        out.line(&render(&checks, verdict, Paint::for_stdout(color)))?;
    }
    out.flush()?;
    Ok(match verdict {
        Verdict::Well => Exit::Ok,
        Verdict::Improvable => Exit::Failed,
        Verdict::CannotRun => Exit::NotRunning,
    })
}

/// The page, without a line feed at its end.
fn render(checks: &[Check], verdict: Verdict, paint: Paint) -> String {
    let count = |grade: Grade| checks.iter().filter(|check| check.grade == grade).count();
    let (better, blind, unknown) = (count(Grade::Warn), count(Grade::Blind), count(Grade::Unknown));
    let mut text = match verdict {
        Verdict::Well => paint.green("All is well."),
        Verdict::CannotRun => paint.red("Bartizan cannot run here:"),
        Verdict::Improvable => {
            paint.yellow(&format!("Bartizan can run here. To improve: {better}; not seen: {blind}; not looked at: {unknown}."))
        }
    };
    if verdict == Verdict::CannotRun {
        let stops = checks.iter().filter(|check| check.grade == Grade::Stop);
        text.extend(stops.map(|check| format!("\n  - {}", escape(&check.finding))));
    }
    let mut part = "";
    for check in checks {
        let Check { id, grade, finding, costs, remedies } = check;
        let next = title(id.split('.').next().unwrap_or(id));
        if next != part {
            text.push_str(&format!("\n\n{}", paint.bold(next)));
            part = next;
        }
        let word = format!("{:<7}", grade.as_str());
        let word = match grade {
            Grade::Ok => paint.green(&word),
            Grade::Unknown => paint.dim(&word),
            Grade::Warn => paint.yellow(&word),
            Grade::Blind | Grade::Stop => paint.red(&word),
        };
        text.push_str(&format!("\n  {word} {}", wrapped(&escape(finding), 10)));
        let lines = costs.iter().map(|cost| ("cost", cost)).chain(remedies.iter().map(|remedy| ("do", remedy)));
        for (word, line) in lines {
            text.push_str(&format!("\n          {} {}", paint.bold(&format!("{word:<5}")), wrapped(&escape(line), 16)));
        }
    }
    text
}

/// The heading of a part; checks of an unknown one stand under its id.
fn title(part: &str) -> &str {
    match part {
        "user" => "Who asks",
        "kernel" => "Kernel",
        "hooks" | "hook" => "Hooks",
        "data" => "Data folder",
        "host" => "Clock",
        "sshd" | "pam" => "Logins",
        "forward" => "Receivers",
        other => other,
    }
}

/// Words in lines of [`WIDTH`], the second and later ones indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let len = word.chars().count();
        if width > 0 && width + 1 + len > WIDTH {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += len;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, grade: Grade) -> Check {
        Check {
            id: id.into(),
            grade,
            finding: format!("{id} was found"),
            costs: vec!["not seen: x".into()],
            remedies: vec!["`do it`".into()],
        }
    }

    fn page(checks: &[Check]) -> String {
        render(checks, verdict(checks), Paint::new(ColorChoice::Never, false, None))
    }

    #[test]
    fn each_grade_has_its_word_and_each_part_its_heading_once() {
        let page = page(&[
            check("kernel.btf", Grade::Ok),
            check("kernel.lockdown", Grade::Unknown),
            check("hooks", Grade::Ok),
            check("hook.process_exec", Grade::Blind),
            check("sshd.loglevel", Grade::Warn),
        ]);
        assert!(
            page.starts_with(
                "Bartizan can run here. To improve: 1; not seen: 1; not looked at: 1.\n\nKernel\n  OK      kernel.btf was found"
            ),
            "{page}"
        );
        assert!(page.contains("\n  BLIND   hook.process_exec was found\n          cost  not seen: x\n          do    `do it`"), "{page}");
        assert_eq!((page.matches("\nKernel\n").count(), page.matches("\nHooks\n").count()), (1, 1), "{page}");
    }

    #[test]
    fn what_stops_it_stands_first() {
        let page = page(&[check("kernel.btf", Grade::Ok), check("kernel.machine", Grade::Stop)]);
        assert!(page.starts_with("Bartizan cannot run here:\n  - kernel.machine was found\n"), "{page}");
        assert_eq!(verdict(&[check("a", Grade::Ok)]), Verdict::Well);
    }

    #[test]
    fn long_lines_are_wrapped_and_lose_nothing() {
        let text = "word ".repeat(80);
        let lines = wrapped(text.trim_end(), 4);
        assert!(lines.lines().count() > 3 && lines.lines().all(|line| line.chars().count() <= WIDTH + 4), "{lines}");
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>().join(" "), text.trim_end());
    }

    #[test]
    fn a_page_cannot_draw() {
        let mut evil = check("\u{1b}[2J", Grade::Warn);
        evil.id = "hook.x".into();
        evil.finding = "\u{1b}[2J\u{202e}".into();
        evil.costs = vec!["\u{7}".into()];
        let page = page(&[evil]);
        assert!(!page.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{page:?}");
    }
}
