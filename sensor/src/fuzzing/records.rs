//! Records of the kernel, of any content.

use bartizan_bus::event::{BootId, decode_event, encode_event};
use bartizan_sensor_ebpf::abi::{ABI_VERSION, KINDS};

use crate::capture::rings::Aligned;
use crate::enrich::Enricher;
use crate::project::project;
use crate::redact::{Key, RedactionConfig, Redactor};

/// Bytes of each piece begin with this many of its own: which kind, and how many bytes follow.
const PIECE_HEAD: usize = 3;
/// Pieces of one input, at most.
const PIECES: usize = 64;

/// Records one after the other, each as it would lie in a ring: whatever is in them, they are refused or become events, and an event can be
/// stored and read back. Each piece is a byte that chooses a kind (or leaves the piece as it is), two bytes of length, and content; where a
/// kind was chosen, length, kind and ABI are put right, so that the content is reached.
pub fn records(data: &[u8]) {
    let mut enricher = Enricher::new(BootId(1), "host".to_owned(), 1_000, 64);
    // Making one takes longer than everything else here, so that few inputs ask for it.
    if data.first().is_some_and(|first| first & 7 == 1) {
        let redactor = Redactor::new(&RedactionConfig::default(), Key::from_bytes([7; 32]));
        enricher = enricher.redacting(Some(redactor.expect("the default patterns are sound")));
    }
    let mut aligned = Aligned::default();
    let mut rest = data.get(1..).unwrap_or_default();
    for _ in 0..PIECES {
        let Some((head, behind)) = rest.split_first_chunk::<PIECE_HEAD>() else { return };
        let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(behind.len());
        let (content, next) = behind.split_at(len);
        rest = next;
        let mut record = content.to_vec();
        if let Some(info) = KINDS.get(usize::from(head[0])) {
            // A kind's fixed part, at least; zero where the input ends.
            record.resize(record.len().max(info.fixed), 0);
            let len = record.len() as u32;
            record[0..4].copy_from_slice(&len.to_ne_bytes());
            record[4..6].copy_from_slice(&(info.kind as u16).to_ne_bytes());
            record[22..24].copy_from_slice(&ABI_VERSION.to_ne_bytes());
        }
        let Ok(observation) = project(aligned.copy(&record)) else {
            assert!(KINDS.get(usize::from(head[0])).is_none(), "a record of a known kind, length and ABI is refused");
            continue;
        };
        let again = project(aligned.copy(&record)).expect("as before");
        assert_eq!(observation, again, "the same bytes are the same observation");
        if let Some(event) = enricher.event(observation, false) {
            let bytes = encode_event(&event);
            assert_eq!(decode_event(&bytes).expect("what is stored is read"), event);
        }
    }
}
