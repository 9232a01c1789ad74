//! Recordings of any content.

use std::io::Cursor;

use bartizan_bus::event::{BootId, Start};

use crate::recording::{BlockKind, Header, LEVEL, Reader, block_head, decode, encode, prelude};

/// The header and the blocks' heads are made; what they hold is the input's.
const MADE: u8 = 1;

/// A byte of settings, then a file, or the content of its blocks, each behind two bytes of length. What is no recording is refused, and
/// nothing comes behind a refusal; what is one gives inputs that are written as they were read.
pub fn recording(data: &[u8]) {
    let Some((settings, content)) = data.split_first() else { return };
    let file = if settings & MADE != 0 { made(content) } else { content.to_vec() };
    let Ok(mut reader) = Reader::new(Cursor::new(&file)) else { return };
    let mut given = 0;
    loop {
        match reader.next_input() {
            Ok(Some(input)) => {
                given += 1;
                let mut bytes = Vec::new();
                encode(&input, &mut bytes).expect("what was read can be written");
                let (again, taken) = decode(&bytes).expect("and read again");
                assert_eq!(taken, bytes.len());
                assert_eq!(again, input);
            }
            Ok(None) => break,
            Err(_) => {
                assert!(matches!(reader.next_input(), Ok(None)), "nothing comes behind an error");
                break;
            }
        }
    }
    assert_eq!(reader.totals().inputs, given);
    assert!(reader.offset() <= file.len() as u64);
}

fn made(mut content: &[u8]) -> Vec<u8> {
    let header = Header { boot: BootId(1), host: "host".to_owned(), wall_offset: 1_000, started: 5, start: Start::default(), key: [7; 32] };
    let header = minicbor::to_vec(header).expect("a header");
    let mut file = [prelude(&header).to_vec(), header].concat();
    let mut number = 0;
    while let Some((len, rest)) = content.split_first_chunk::<2>() {
        let (plain, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        content = rest;
        // An odd first byte is an end mark's block.
        let kind = if len[0] & 1 == 1 { BlockKind::End } else { BlockKind::Inputs };
        let stored = zstd::bulk::compress(plain, LEVEL).expect("compressed");
        file.extend_from_slice(&block_head(kind, &stored, plain.len(), number));
        file.extend_from_slice(&stored);
        number += 1;
    }
    file
}
