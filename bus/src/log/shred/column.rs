//! One column of values, written in the shortest of several ways.

use std::ops::Range;

use super::super::varint::{self, Reader};
use super::HashMap;

/// Byte strings of one length up to this are tried as numbers.
const MAX_WORDS: usize = 8;

/// How a column is written.
mod way {
    /// As it is.
    pub(super) const PLAIN: u8 = 0;
    /// Each as the difference from the one before.
    pub(super) const DIFFERENCE: u8 = 1;
    /// A list of all that differ, then the number in the list of each.
    pub(super) const LIST: u8 = 2;
    /// Each as its distance from what stands in another column (its number follows; 0 is the messages' times) in the same row, and that as
    /// the difference from the distance before.
    pub(super) const REFERENCE: u8 = 3;
    /// The same with the low 32 bits of the other column.
    pub(super) const REFERENCE_LOW: u8 = 4;
    /// Byte strings of one length (which follows) as big-endian numbers of four bytes, in columns.
    pub(super) const WORDS: u8 = 5;
}

fn difference(value: u64, from: u64) -> u64 {
    varint::zigzag(value.wrapping_sub(from) as i64)
}

fn undo(difference: u64, from: u64) -> u64 {
    from.wrapping_add(varint::unzigzag(difference) as u64)
}

/// Bytes that a number takes.
fn width(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Distinct values in the order in which they come first, and the place of each value among them; `None` when most are distinct.
fn list_of<T: Copy + Eq + std::hash::Hash>(values: &[T]) -> Option<(Vec<T>, Vec<u64>)> {
    let (mut known, mut list, mut places) = (HashMap::default(), Vec::new(), Vec::with_capacity(values.len()));
    for value in values {
        let place = *known.entry(*value).or_insert_with(|| {
            list.push(*value);
            list.len() as u64 - 1
        });
        places.push(place);
        if list.len() > values.len() / 2 + 1 {
            return None;
        }
    }
    Some((list, places))
}

/// Columns that others may be written as distances from, by their numbers.
pub(super) type References<'a> = Vec<(usize, &'a [u64])>;

/// Distances of numbers from those of another column, or from its low 32 bits.
fn distances(numbers: &[u64], others: &[u64], low: bool) -> impl Iterator<Item = u64> {
    let of = move |other: &u64| if low { *other & u64::from(u32::MAX) } else { *other };
    numbers.iter().zip(others).map(move |(number, other)| number.wrapping_sub(of(other)))
}

/// Each value as the difference from the one before.
fn differences(values: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    values.scan(0, |last, value| Some(difference(value, std::mem::replace(last, value))))
}

/// `low` for numbers of 32 bits that are part of something larger.
pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: &[u64], references: &References<'_>, low: bool) {
    let plain: usize = numbers.iter().map(|number| width(*number)).sum();
    let by_difference: usize = differences(numbers.iter().copied()).map(width).sum();
    // Ties go to what repeats itself.
    let (mut way, mut least) = if by_difference <= plain { (way::DIFFERENCE, by_difference) } else { (way::PLAIN, plain) };
    let mut reference = None;
    // Below a byte and a half for each there is nothing to be won.
    if least > numbers.len() + numbers.len() / 2 {
        for (column, others) in references.iter().filter(|(_, others)| others.len() == numbers.len()) {
            let size: usize = differences(distances(numbers, others, low)).map(width).sum();
            if size < least {
                let by_reference = if low { way::REFERENCE_LOW } else { way::REFERENCE };
                (way, least, reference) = (by_reference, size, Some((*column, *others)));
            }
        }
    }
    let list = if least > numbers.len() { list_of(numbers) } else { None };
    if let Some((list, places)) = &list {
        let size: usize = list.iter().chain(places).map(|number| width(*number)).sum();
        if size < least {
            out.push(way::LIST);
            varint::put(out, list.len() as u64);
            differences(list.iter().copied()).for_each(|number| varint::put(out, number));
            places.iter().for_each(|place| varint::put(out, *place));
            return;
        }
    }
    out.push(way);
    match (way, reference) {
        (_, Some((column, others))) => {
            varint::put(out, column as u64);
            differences(distances(numbers, others, low)).for_each(|number| varint::put(out, number));
        }
        (way::DIFFERENCE, _) => differences(numbers.iter().copied()).for_each(|number| varint::put(out, number)),
        _ => numbers.iter().for_each(|number| varint::put(out, *number)),
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks(4).map(|word| word.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

pub(super) fn put_strings(out: &mut Vec<u8>, strings: &[&[u8]], references: &References<'_>) {
    let lens = |strings: &[&[u8]]| strings.iter().map(|bytes| width(bytes.len() as u64) + bytes.len()).sum::<usize>();
    let plain = lens(strings);
    if let Some((list, places)) = list_of(strings) {
        let size = lens(&list) + places.iter().map(|place| width(*place)).sum::<usize>();
        if size < plain {
            out.push(way::LIST);
            varint::put(out, list.len() as u64);
            list.iter().for_each(|bytes| varint::put_bytes(out, bytes));
            places.iter().for_each(|place| varint::put(out, *place));
            return;
        }
    }
    let len = strings.first().map_or(0, |first| first.len());
    let count = len.div_ceil(4);
    if (1..=MAX_WORDS).contains(&count) && strings.iter().all(|bytes| bytes.len() == len) {
        let mut columns = vec![Vec::with_capacity(strings.len()); count];
        for bytes in strings {
            columns.iter_mut().zip(words(bytes)).for_each(|(column, word)| column.push(u64::from(word)));
        }
        let mut numbers = Vec::new();
        columns.iter().for_each(|column| put_numbers(&mut numbers, column, references, true));
        if numbers.len() < plain {
            out.push(way::WORDS);
            varint::put(out, len as u64);
            out.append(&mut numbers);
            return;
        }
    }
    out.push(way::PLAIN);
    strings.iter().for_each(|bytes| varint::put(out, bytes.len() as u64));
    strings.iter().for_each(|bytes| out.extend_from_slice(bytes));
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) times: Vec<u64>,
    pub(super) read: Vec<Read<'a>>,
}

impl Columns<'_> {
    /// The numbers of a column that another refers to.
    fn reference(&self, column: usize) -> Option<&[u64]> {
        match column.checked_sub(1) {
            None => Some(&self.times),
            Some(column) => match self.read.get(column)? {
                Read::Numbers(numbers, _) => Some(numbers),
                Read::Strings(..) => None,
            },
        }
    }
}

/// Reads `count` numbers.
pub(super) fn numbers(reader: &mut Reader<'_>, count: usize, columns: &Columns<'_>) -> Option<Vec<u64>> {
    let way = *reader.take(1)?.first()?;
    if way == way::LIST {
        let len = reader.count()?;
        let mut list: Vec<u64> = Vec::with_capacity(len);
        for _ in 0..len {
            let next = undo(reader.number()?, list.last().copied().unwrap_or(0));
            list.push(next);
        }
        return bounded(reader, count)?.map(|_| list.get(reader.size()?).copied()).collect();
    }
    let reference = match way {
        way::REFERENCE | way::REFERENCE_LOW => Some(columns.reference(reader.size()?).filter(|others| others.len() == count)?),
        way::DIFFERENCE | way::PLAIN => None,
        _ => return None,
    };
    let (rows, mut last) = (bounded(reader, count)?, 0);
    let mut out: Vec<u64> = Vec::with_capacity(count);
    for row in rows {
        let number = reader.number()?;
        last = if way == way::PLAIN { number } else { undo(number, last) };
        out.push(match reference {
            Some(others) if way == way::REFERENCE_LOW => last.wrapping_add(others[row] & u64::from(u32::MAX)),
            Some(others) => last.wrapping_add(others[row]),
            None => last,
        });
    }
    Some(out)
}

/// Rows that may be there: each takes a byte at least.
fn bounded(reader: &Reader<'_>, count: usize) -> Option<Range<usize>> {
    (count <= reader.0.len()).then_some(0..count)
}

/// A byte string of a column.
#[derive(Debug, Clone)]
pub(super) enum Piece<'a> {
    Borrowed(&'a [u8]),
    /// Made of numbers: so many bytes.
    Made([u8; MAX_WORDS * 4], usize),
}

impl Piece<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Made(bytes, len) => &bytes[..*len],
        }
    }
}

pub(super) fn strings<'a>(reader: &mut Reader<'a>, count: usize, columns: &Columns<'_>) -> Option<Vec<Piece<'a>>> {
    match *reader.take(1)?.first()? {
        way::PLAIN => {
            let lens: Vec<usize> = bounded(reader, count)?.map(|_| reader.size()).collect::<Option<_>>()?;
            lens.into_iter().map(|len| reader.take(len).map(Piece::Borrowed)).collect()
        }
        way::LIST => {
            let list: Vec<&[u8]> = (0..reader.count()?).map(|_| reader.bytes()).collect::<Option<_>>()?;
            bounded(reader, count)?.map(|_| list.get(reader.size()?).map(|bytes| Piece::Borrowed(bytes))).collect()
        }
        way::WORDS => {
            let len = reader.size().filter(|len| (1..=MAX_WORDS * 4).contains(len))?;
            let mut pieces: Vec<Piece<'a>> = bounded(reader, count)?.map(|_| Piece::Made([0; MAX_WORDS * 4], len)).collect();
            for start in (0..len).step_by(4) {
                let size = (len - start).min(4);
                for (piece, number) in pieces.iter_mut().zip(numbers(reader, count, columns)?) {
                    let word = u32::try_from(number).ok()?.to_be_bytes();
                    if let Piece::Made(bytes, _) = piece {
                        bytes[start..start + size].copy_from_slice(&word[4 - size..]);
                    }
                }
            }
            Some(pieces)
        }
        _ => None,
    }
}

/// A column that was read, and how far it is used.
#[derive(Debug)]
pub(super) enum Read<'a> {
    Numbers(Vec<u64>, usize),
    Strings(Vec<Piece<'a>>, usize),
}
