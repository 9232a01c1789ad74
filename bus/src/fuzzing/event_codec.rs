//! Stored events, alerts and matches.

use crate::event::{
    AlertJson, EventJson, PatternMatchJson, decode_alert, decode_event, decode_match, encode_alert, encode_event, encode_match,
};

/// A byte that chooses the type, then a stored record. What decodes decodes to the same value again once it is encoded, and can be shown.
pub fn event_codec(data: &[u8]) {
    let Some((kind, record)) = data.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(event) = decode_event(record) else { return };
            assert_eq!(decode_event(&encode_event(&event)).expect("its own encoding"), event);
            show(&EventJson::new(&event, None), event.subject().as_str());
        }
        1 => {
            let Ok(alert) = decode_alert(record) else { return };
            assert_eq!(decode_alert(&encode_alert(&alert)).expect("its own encoding"), alert);
            assert!(!alert.msg_id().is_empty());
            show(&AlertJson::new(&alert, Some(1)), alert.subject().as_str());
        }
        _ => {
            let Ok(found) = decode_match(record) else { return };
            assert_eq!(decode_match(&encode_match(&found)).expect("its own encoding"), found);
            assert!(!found.msg_id().is_empty());
            show(&PatternMatchJson::new(&found, Some(1)), found.subject().as_str());
        }
    }
}

fn show(json: &impl serde::Serialize, subject: &str) {
    let text = serde_json::to_string(json).expect("JSON");
    serde_json::from_str::<serde_json::Value>(&text).expect("reads back");
    assert!(subject.starts_with("sec."));
}
