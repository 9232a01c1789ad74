//! How long EVENTS reaches back.

use crate::cli::escape::escape;
use crate::config::units::{about_bytes as about, format_duration};
use crate::status::BudgetStatus;

/// One sentence: the limits, where the size comes from, and how many days that is.
pub(super) fn budget(budget: &BudgetStatus) -> String {
    let BudgetStatus { stream, max_bytes, source, disk_bytes, max_age_s, bytes_per_day, days, ends_by } = budget;
    let disk = disk_bytes.map_or_else(|| "disk".to_owned(), |bytes| format!("{} disk", about(bytes)));
    let why = match source.as_str() {
        "configured" => "as configured".to_owned(),
        "disk_part" => format!("a tenth of the {disk}"),
        "most" => format!("the most without configuration; a tenth of the {disk} would be more"),
        "least" => format!("the least without configuration; a tenth of the {disk} would be less"),
        "half_disk" => format!("half of the {disk}, which is small"),
        "unknown_disk" => "the least, because the disk does not say how large it is".to_owned(),
        other => escape(other),
    };
    let age = format_duration(std::time::Duration::from_secs(*max_age_s));
    let limits = format!("{} keeps {age} or {} ({why}), whichever ends first", escape(stream), about(*max_bytes));
    let rate = match (bytes_per_day, days) {
        (Some(rate), Some(days)) => {
            let limit = if ends_by.as_deref() == Some("size") { "size" } else { "age" };
            format!("at the present {} a day that is {days:.1} days, by {limit}", about(*rate))
        }
        _ => "how many days that is, is not known yet: it takes an hour of events".to_owned(),
    };
    format!("{limits}; {rate}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_for_each_source() {
        let mut status = BudgetStatus {
            stream: "EVENTS".into(),
            max_bytes: 2 << 30,
            source: "disk_part".into(),
            disk_bytes: Some(20 << 30),
            max_age_s: 7 * 86_400,
            bytes_per_day: None,
            days: None,
            ends_by: None,
        };
        assert_eq!(
            budget(&status),
            "EVENTS keeps 7d or 2.0 GiB (a tenth of the 20.0 GiB disk), whichever ends first; how many days that is, is not known yet: it takes an hour of events"
        );
        status.bytes_per_day = Some(1 << 30);
        status.days = Some(2.0);
        status.ends_by = Some("size".into());
        assert!(budget(&status).ends_with("first; at the present 1.0 GiB a day that is 2.0 days, by size"), "{}", budget(&status));
        for (source, expected) in [
            ("configured", "(as configured)"),
            ("most", "would be more"),
            ("least", "would be less"),
            ("half_disk", "half of the 20.0 GiB disk"),
        ] {
            status.source = source.into();
            assert!(budget(&status).contains(expected), "{}", budget(&status));
        }
    }
}
