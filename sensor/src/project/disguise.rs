//! `process.rename`, `process.prctl`.

use bartizan_bus::event::{self, Body};
use bartizan_sensor_ebpf::abi::{Prctl, Rename};

use super::{Act, What, errno, text};

pub(super) fn project_rename(record: &Rename) -> What {
    let Rename { header: _, target, before, after } = record;
    let body = event::Rename { from: text::name(before), to: text::name(after) };
    Act::done(Body::Rename(body)).to(target).into()
}

/// include/uapi/linux/prctl.h.
const PR_SET_MM: u32 = 35;

pub(super) fn project_prctl(record: &Prctl) -> What {
    let Prctl { header: _, option, error, arguments } = record;
    let name = match option {
        4 => "PR_SET_DUMPABLE".to_owned(),
        &PR_SET_MM => "PR_SET_MM".to_owned(),
        36 => "PR_SET_CHILD_SUBREAPER".to_owned(),
        0x5961_6d61 => "PR_SET_PTRACER".to_owned(),
        other => format!("option {other}"),
    };
    let body = event::Prctl {
        option: name,
        part: (*option == PR_SET_MM).then(|| part(arguments[0])),
        arguments: arguments.to_vec(),
        error: errno(*error),
    };
    Act::ended(Body::Prctl(body), -i64::from(*error)).into()
}

/// `PR_SET_MM_*`.
fn part(number: u64) -> String {
    const PARTS: [&str; 15] = [
        "START_CODE",
        "END_CODE",
        "START_DATA",
        "END_DATA",
        "START_STACK",
        "START_BRK",
        "BRK",
        "ARG_START",
        "ARG_END",
        "ENV_START",
        "ENV_END",
        "AUXV",
        "EXE_FILE",
        "MAP",
        "MAP_SIZE",
    ];
    let known = usize::try_from(number).ok().and_then(|number| PARTS.get(number.checked_sub(1)?));
    known.map_or_else(|| format!("part {number}"), |part| format!("PR_SET_MM_{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_numbers_of_the_header() {
        assert_eq!([8, 13, 15, 0, 16].map(part), ["PR_SET_MM_ARG_START", "PR_SET_MM_EXE_FILE", "PR_SET_MM_MAP_SIZE", "part 0", "part 16"]);
    }
}
