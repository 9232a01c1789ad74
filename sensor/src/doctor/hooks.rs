//! What each hook gets, and what the rest costs.

use super::{Check, Grade, Hooks, Kernel, remedies};
use crate::status::{Blind, HookState, HookStatus};

pub(super) fn hooks(hooks: &Hooks, kernel: &Kernel) -> Vec<Check> {
    let (how, hooks, blind) = match hooks {
        Hooks::Running { pid, hooks, blind } => (format!("Bartizan runs (pid {pid}): the hooks below are its own"), hooks, blind),
        Hooks::Tried { hooks, blind } => {
            ("Bartizan does not run here: each hook was attached for a moment and detached".to_owned(), hooks, blind)
        }
        Hooks::Refused(why) => {
            let check = Check::new("hooks", Grade::Stop, why.clone());
            return vec![if kernel.lockdown.as_deref() == Some("confidentiality") {
                check.remedy(remedies::CONFIDENTIALITY)
            } else {
                check.remedy("do what the sentence above says, and see the checks of the kernel")
            }];
        }
        Hooks::Untried(why) => {
            return vec![
                Check::new("hooks", Grade::Unknown, format!("which hooks this kernel carries was not tried: {why}"))
                    .remedy("run it as root: `sudo bartizan doctor`"),
            ];
        }
    };
    let mut checks = vec![Check::ok("hooks", how)];
    for hook in hooks {
        let blind: Vec<&Blind> = blind.iter().filter(|blind| blind.hook == hook.name).collect();
        checks.push(self::hook(hook, &blind));
    }
    checks
}

fn hook(hook: &HookStatus, blind: &[&Blind]) -> Check {
    let HookStatus { name, kinds, tier, best, state, reason, runs: _, recursion_misses } = hook;
    let id = format!("hook.{name}");
    let kinds = kinds.join(", ");
    let attached =
        if tier == "none" { format!("{name} ({kinds}) is not attached") } else { format!("{name} ({kinds}) is attached as {tier}") };
    let check = match state {
        HookState::Unavailable if tier == "none" && blind.is_empty() => {
            let why = reason.as_deref().unwrap_or("this kernel has nothing of that");
            return Check::ok(&id, format!("{name} ({kinds}) is not needed: {why}"));
        }
        HookState::Active if *best && blind.is_empty() => Check::ok(&id, attached),
        HookState::Active | HookState::Unavailable if blind.is_empty() => {
            Check::ok(&id, format!("{attached}, and misses nothing that the best tier sees"))
        }
        HookState::Active | HookState::Unavailable => Check::new(&id, Grade::Blind, attached),
        HookState::Disabled | HookState::Failed => Check::new(&id, Grade::Warn, attached),
    };
    let mut check = match reason {
        Some(reason) if check.grade != Grade::Ok => {
            let remedies = remedies::remedies(reason).into_iter().map(str::to_owned).collect();
            Check { finding: format!("{}: {reason}", check.finding), remedies, ..check }
        }
        _ => check,
    };
    for blind in blind {
        check = check.costs(format!("not seen: {}", blind.what));
        check.costs.extend(blind.costs.iter().map(|cost| format!("weaker: {cost}")));
    }
    if *recursion_misses > 0 {
        check.finding += &format!("; the kernel skipped {recursion_misses} runs of it");
    }
    check
}
