//! Contents taken apart in sealed blocks.

use crate::log::shred::{shred, unshred};

/// More than a block may hold.
const MOST: usize = 1 << 20;

/// A byte of settings; then bytes to be put together, or contents, each behind its length, to be taken apart. What is taken apart is put
/// together again byte for byte; foreign bytes are refused or give as many contents as there are messages.
pub fn shredded(data: &[u8]) {
    let Some((&settings, bytes)) = data.split_first() else { return };
    if settings & 1 == 0 {
        let times: Vec<i64> = (0..i64::from(settings >> 1)).map(|n| n << (settings >> 2)).collect();
        let (mut count, mut size) = (0, 0);
        let whole = unshred(bytes, &times, |content| {
            (count, size) = (count + 1, size + content.len());
            (size <= MOST).then_some(())
        });
        assert!(whole.is_none() || count == times.len());
        return;
    }
    let (mut contents, mut rest) = (Vec::new(), bytes);
    while let Some((&len, behind)) = rest.split_first() {
        let (content, next) = behind.split_at(usize::from(len).min(behind.len()));
        contents.push(content);
        rest = next;
    }
    let times: Vec<i64> = contents.iter().map(|content| content.iter().fold(0, |time, byte| time << 8 | i64::from(*byte))).collect();
    let Some(shredded) = shred(&contents, &times) else { return };
    let mut back = contents.iter();
    let whole = unshred(&shredded, &times, |content| {
        assert_eq!(Some(&content), back.next());
        Some(())
    });
    assert!(whole.is_some() && back.next().is_none());
}
