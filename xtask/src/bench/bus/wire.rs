//! The sections over the wire: every measurement, every round, every server.

use anyhow::{Context, Result};

use super::case::{Case, Section, cases};
use super::run::{self, Run};
use super::server::Kind;
use super::{Bench, disk, quiet, table};

/// All rounds of a measurement, by server in the order of turns. A server that failed has fewer.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) runs: Vec<(Kind, Vec<Run>)>,
    /// What went wrong; the table says it.
    pub(super) failed: Vec<(Kind, String)>,
}

/// Measures a section and gives its text.
///
/// # Errors
/// The driver fails without a server. A server that fails at one measurement has a row that says so.
pub(super) fn measure(bench: &Bench<'_>, section: Section) -> Result<Option<String>> {
    if section == Section::Driver {
        return driver(bench).map(Some);
    }
    let cases: Vec<Case> = cases(section).into_iter().filter(|case| case.quick || !bench.plan.quick).collect();
    let syncs = if section == Section::Publish { disk::measure(bench.folder)? } else { Vec::new() };
    let mut measured = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        eprintln!("      [{}/{}] {}", index + 1, cases.len(), case.name);
        measured.push(rounds(bench, case));
    }
    Ok(Some(table::render(&cases, &measured, &syncs)))
}

fn rounds(bench: &Bench<'_>, case: &Case) -> Measured {
    let turns: Vec<_> = bench.needs.servers.iter().filter(|program| case.is_for(program.kind)).collect();
    let mut measured = Measured { runs: turns.iter().map(|program| (program.kind, Vec::new())).collect(), failed: Vec::new() };
    for round in 0..bench.plan.rounds {
        for (program, (kind, runs)) in turns.iter().zip(&mut measured.runs) {
            if measured.failed.iter().any(|(failed, _)| failed == kind) {
                continue;
            }
            match quiet::undisturbed(bench.plan.patience, || run::turn(bench, program, case)) {
                Ok(run) => {
                    let cpu = run.each(run.cpu);
                    let others = run.others();
                    let busy = if others > quiet::BEARABLE { format!("; others used {others:.1} processors") } else { String::new() };
                    eprintln!(
                        "        round {}: {:11} {:>9.0}/s, {cpu:.2} µs of CPU each{busy}",
                        round + 1,
                        kind.title(),
                        run.throughput()
                    );
                    runs.push(run);
                }
                Err(error) => {
                    eprintln!("        {} FAILED: {error:#}", kind.title());
                    measured.failed.push((*kind, format!("{:#}", error.root_cause())));
                }
            }
        }
    }
    measured
}

/// The driver against a socket that takes and gives everything.
fn driver(bench: &Bench<'_>) -> Result<String> {
    let mut rows = Vec::new();
    for size in [16, 256, 1024] {
        let mut runs = Vec::new();
        for _ in 0..bench.plan.rounds {
            let mut driver = std::process::Command::new(&bench.needs.driver);
            crate::command::clean(&mut driver);
            driver.args(run::lasting(&bench.plan)).args(["--pid", &std::process::id().to_string()]);
            driver.args(["ceiling", "--size", &size.to_string()]);
            runs.push(Run::read(&run::ask(&mut driver).context("the driver against nothing")?)?);
        }
        rows.push((size, runs));
    }
    Ok(table::driver(&rows))
}
