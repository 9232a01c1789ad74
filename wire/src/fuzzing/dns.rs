//! DNS messages, cut anywhere.

use super::beginning::{Beginning, check};
use super::cut;
use crate::dns::{self, Data, MAX_OPTIONS, MAX_QUESTIONS, MAX_RECORDS, MAX_TXT, Message};

/// Bytes of UDP payload, or of a TCP stream. Bounds hold, names are in presentation form, and what is read of the first bytes is a beginning of what
/// is read of all.
pub fn dns(data: &[u8]) {
    let Some((bytes, at)) = cut(data) else { return };
    for read in [dns::message, dns::multicast] {
        let whole = read(bytes);
        if let Ok(message) = &whole {
            bounded(message);
        }
        match (read(&bytes[..at]), whole) {
            (Ok(part), Ok(whole)) => assert!(part.begins(&whole), "{at} bytes gave {part:?}, and all of them {whole:?}"),
            (Err(why), Ok(whole)) => assert!(at < 12, "{at} bytes gave {why}, and all of them {whole:?}"),
            (_, Err(_)) => {}
        }
    }
    check(|bytes| dns::tcp(bytes).next().unwrap_or(crate::Parsed::Incomplete(None)), bytes, at);
    // At least a header and a length each.
    assert!(dns::tcp(bytes).count() <= bytes.len() / 14 + 1);
}

/// Limits of the numbers of things, and the form of their texts.
fn bounded(message: &Message) {
    let records = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
    let kept = message.questions.len() + records.clone().count();
    assert!(message.questions.len() <= MAX_QUESTIONS && records.clone().count() <= MAX_RECORDS);
    let announced: usize = message.announced.iter().map(|count| usize::from(*count)).sum();
    assert!(kept + message.left_out + usize::from(message.edns.is_some()) <= announced, "more than announced: {message:?}");
    let all = kept + message.left_out + usize::from(message.edns.is_some()) == announced;
    assert!(all || message.truncated || message.malformed.is_some(), "less than announced: {message:?}");
    assert!(message.edns.as_ref().is_none_or(|edns| edns.options.len() <= MAX_OPTIONS));
    for name in message.questions.iter().map(|question| &question.name).chain(records.clone().map(|record| &record.name)) {
        presentation(name);
    }
    for record in records {
        match &record.data {
            Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => presentation(name),
            Data::Mx { exchange: name, .. } | Data::Srv { target: name, .. } | Data::Svcb { target: name, .. } => presentation(name),
            Data::Txt { text, len, strings } => {
                assert!(text.len() <= 4 * MAX_TXT && len + strings == usize::from(record.len) && super::is_safe(text));
            }
            Data::A(_) | Data::Aaaa(_) | Data::Other | Data::Cut | Data::Malformed(_) => {}
        }
    }
}

/// The labels that a name in presentation form stands for are those that give it again.
fn presentation(name: &str) {
    assert!(name.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !byte.is_ascii_uppercase()), "{name:?}");
    let wire = dns::to_wire(name).unwrap_or_else(|| panic!("{name:?} is no name"));
    assert_eq!(dns::from_wire(&wire).as_deref(), Some(name));
}
