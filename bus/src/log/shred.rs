//! Contents of one subject taken apart, so that what is alike lies side by side.
//!
//! Contents that are CBOR (a map, or a small number and a map, as the sensor's own are) differ in their values and hardly in their shape.
//! Each shape is kept once; the values of each place in the maps stand in a column of their own, as differences, as numbers of a list, or
//! as they are, whichever is shortest. zstd then finds what bytes one behind the other hide: an exact time three times in an event, or the
//! path that goes with a program.
//!
//! Invariants worth naming:
//!
//! - **What comes out is what went in, byte for byte.** Only the shortest form of every number and length is taken apart, for only that can
//!   be written again without knowing how it was written. Everything else is kept as it is.
//! - **Nothing is known of what the contents mean.**
//! - **Foreign bytes are read without trust**: in bounded memory and without panics.

use std::ops::Range;

use super::varint::{self, Reader};

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Maps in maps, at most.
const MAX_DEPTH: usize = 16;
/// Elements of an array with columns of their own; those behind share the last one's.
const MAX_ELEMENTS: usize = 12;
/// Columns that another may be written as the difference from.
const MAX_REFERENCES: usize = 6;
/// Byte strings of one length up to this are tried as numbers.
const MAX_WORDS: usize = 8;

/// A value of a content.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The head of a CBOR item.
struct Head {
    major: u8,
    argument: u64,
    /// Bytes that it has.
    len: usize,
}

/// Reads a head in its shortest form; none of indefinite length.
fn head(bytes: &[u8]) -> Option<Head> {
    let first = *bytes.first()?;
    let (major, info) = (first >> 5, first & 31);
    let (argument, len, least) = match info {
        0..24 => (u64::from(info), 1, 0),
        24 => (u64::from(*bytes.get(1)?), 2, 24),
        25 => (u64::from(u16::from_be_bytes(bytes.get(1..3)?.try_into().ok()?)), 3, 1 << 8),
        26 => (u64::from(u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?)), 5, 1 << 16),
        27 => (u64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?), 9, 1 << 32),
        _ => return None,
    };
    // Of major type 7 these are floats and have no shortest form here; a simple value in two bytes is 32 or more.
    let shortest = if major == 7 { info != 24 || argument >= 32 } else { argument >= least };
    shortest.then_some(Head { major, argument, len })
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let first = major << 5;
    match argument {
        0..24 => out.push(first | argument as u8),
        24..=0xff => out.extend_from_slice(&[first | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(first | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(first | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(first | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

/// Bytes of a float with this first byte.
fn float_len(first: u8) -> Option<usize> {
    match first {
        0xf9 => Some(2),
        0xfa => Some(4),
        0xfb => Some(8),
        _ => None,
    }
}

/// Takes a content apart: what is the same in others of its shape goes into the template, its values go into `values`.
struct Parser<'a, 'b> {
    bytes: &'a [u8],
    template: &'b mut Vec<u8>,
    values: &'b mut Vec<Value<'a>>,
}

impl<'a> Parser<'a, '_> {
    fn keep(&mut self, len: usize) -> Option<()> {
        let (kept, rest) = self.bytes.split_at_checked(len)?;
        self.template.extend_from_slice(kept);
        self.bytes = rest;
        Some(())
    }

    fn value(&mut self, first: u8, skip: usize, len: usize) -> Option<()> {
        let (value, rest) = self.bytes.get(skip..)?.split_at_checked(len)?;
        self.template.push(first);
        self.values.push(Value::Bytes(value));
        self.bytes = rest;
        Some(())
    }

    fn item(&mut self, is_key: bool, depth: usize) -> Option<()> {
        let Head { major, argument, len } = head(self.bytes)?;
        match major {
            0 | 1 if !is_key => {
                self.template.push(major << 5);
                self.values.push(Value::Number(argument));
                self.bytes = &self.bytes[len..];
            }
            0 | 1 => self.keep(len)?,
            2 | 3 => {
                let size = usize::try_from(argument).ok()?;
                if is_key { self.keep(len.checked_add(size)?)? } else { self.value(major << 5, len, size)? }
            }
            4 | 5 if depth < MAX_DEPTH && argument <= self.bytes.len() as u64 => {
                self.keep(len)?;
                for _ in 0..argument {
                    if major == 5 {
                        self.item(true, depth + 1)?;
                    }
                    self.item(false, depth + 1)?;
                }
            }
            7 => match float_len(self.bytes[0]) {
                Some(size) if !is_key => self.value(self.bytes[0], 1, size)?,
                _ => self.keep(len)?,
            },
            _ => return None,
        }
        Some(())
    }
}

/// A content that may be worth it: a map, or a small number and a map.
fn is_candidate(content: &[u8]) -> bool {
    let is_map = |byte: Option<&u8>| byte.is_some_and(|byte| byte >> 5 == 5);
    is_map(content.first()) || content.first().is_some_and(|byte| *byte < 24) && is_map(content.get(1))
}

fn parse<'a>(content: &'a [u8], template: &mut Vec<u8>, values: &mut Vec<Value<'a>>) -> bool {
    template.clear();
    values.clear();
    if !is_candidate(content) {
        return false;
    }
    let mut parser = Parser { bytes: content, template, values };
    while !parser.bytes.is_empty() {
        if parser.item(false, 0).is_none() {
            return false;
        }
    }
    true
}

/// One step of writing a content of some shape.
#[derive(Debug, Clone)]
enum Step {
    /// These bytes of the template.
    Literal(Range<usize>),
    /// The next number of a column, behind this major type.
    Number(u8, usize),
    /// The next byte string of a column, behind this major type and its length.
    Bytes(u8, usize),
    /// The next float of a column, behind this byte.
    Float(u8, usize),
}

/// Columns by the place of their values.
#[derive(Debug, Default)]
struct Places {
    /// (place above, step) to place.
    places: HashMap<(usize, Vec<u8>), usize>,
    /// (place, first byte in the template) to column.
    columns: HashMap<(usize, u8), usize>,
    /// Whether each column is of numbers.
    numbers: Vec<bool>,
}

impl Places {
    fn below(&mut self, place: usize, step: Vec<u8>) -> usize {
        let next = self.places.len() + 1;
        *self.places.entry((place, step)).or_insert(next)
    }

    fn column(&mut self, place: usize, first: u8, is_number: bool) -> usize {
        let next = self.numbers.len();
        let column = *self.columns.entry((place, first)).or_insert(next);
        if column == next {
            self.numbers.push(is_number);
        }
        column
    }

    /// The steps that write contents of this template; `None` where it is none.
    fn steps(&mut self, template: &[u8]) -> Option<Vec<Step>> {
        let mut walk = Walk { places: self, template, at: 0, steps: Vec::new() };
        let mut index = 0;
        while walk.at < template.len() {
            let place = walk.places.below(0, vec![0xff, index]);
            walk.item(place, 0)?;
            index = index.checked_add(1)?;
        }
        Some(walk.steps)
    }
}

struct Walk<'a> {
    places: &'a mut Places,
    template: &'a [u8],
    at: usize,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn literal(&mut self, len: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.template.len())?;
        let range = self.at..end;
        match self.steps.last_mut() {
            Some(Step::Literal(last)) if last.end == range.start => last.end = end,
            _ => self.steps.push(Step::Literal(range.clone())),
        }
        self.at = end;
        Some(range)
    }

    fn key(&mut self) -> Option<Range<usize>> {
        let Head { major, argument, len } = head(&self.template[self.at..])?;
        match major {
            0 | 1 => self.literal(len),
            2 | 3 => self.literal(len.checked_add(usize::try_from(argument).ok()?)?),
            // Arrays and maps as keys are not taken apart.
            7 => self.literal(len),
            _ => None,
        }
    }

    fn item(&mut self, place: usize, depth: usize) -> Option<()> {
        let first = *self.template.get(self.at)?;
        match first {
            0x00 | 0x20 => {
                self.at += 1;
                let column = self.places.column(place, first, true);
                self.steps.push(Step::Number(first >> 5, column));
                return Some(());
            }
            0x40 | 0x60 => {
                self.at += 1;
                let column = self.places.column(place, first, false);
                self.steps.push(Step::Bytes(first >> 5, column));
                return Some(());
            }
            _ if float_len(first).is_some() => {
                self.at += 1;
                let column = self.places.column(place, first, false);
                self.steps.push(Step::Float(first, column));
                return Some(());
            }
            _ => {}
        }
        let Head { major, argument, len } = head(&self.template[self.at..])?;
        match major {
            4 | 5 if depth < MAX_DEPTH && argument <= self.template.len() as u64 => {
                self.literal(len)?;
                for index in 0..argument {
                    let step = if major == 5 {
                        let key = self.key()?;
                        self.template[key].to_vec()
                    } else {
                        vec![0xfe, index.min(MAX_ELEMENTS as u64 - 1) as u8]
                    };
                    let below = self.places.below(place, step);
                    self.item(below, depth + 1)?;
                }
                Some(())
            }
            7 => self.literal(len).map(drop),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Column<'a> {
    numbers: Vec<u64>,
    bytes: Vec<&'a [u8]>,
}

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
    let value = value.wrapping_sub(from) as i64;
    ((value << 1) ^ (value >> 63)) as u64
}

fn undo(difference: u64, from: u64) -> u64 {
    let value = (difference >> 1) as i64 ^ -((difference & 1) as i64);
    from.wrapping_add(value as u64)
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
type References<'a> = Vec<(usize, &'a [u64])>;

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
fn put_numbers(out: &mut Vec<u8>, numbers: &[u64], references: &References<'_>, low: bool) {
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

fn put_strings(out: &mut Vec<u8>, strings: &[&[u8]], references: &References<'_>) {
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

/// Takes contents apart, whose messages have these times; `None` where most of them cannot be.
pub(crate) fn shred(contents: &[&[u8]], times: &[i64]) -> Option<Vec<u8>> {
    let mut places = Places::default();
    let mut templates: HashMap<Vec<u8>, usize> = HashMap::default();
    let mut ordered: Vec<(Vec<u8>, Vec<Step>)> = Vec::new();
    let mut columns: Vec<Column<'_>> = Vec::new();
    let (mut shapes, mut raw) = (Vec::with_capacity(contents.len()), Vec::new());
    let (mut template, mut values) = (Vec::new(), Vec::new());
    for content in contents {
        let known = parse(content, &mut template, &mut values).then(|| match templates.get(&template) {
            Some(shape) => Some(*shape),
            None => {
                let steps = places.steps(&template)?;
                templates.insert(template.clone(), ordered.len());
                ordered.push((template.clone(), steps));
                columns.resize_with(places.numbers.len(), Column::default);
                Some(ordered.len() - 1)
            }
        });
        let Some(shape) = known.flatten() else {
            shapes.push(0);
            raw.push(*content);
            if raw.len() > contents.len() / 2 {
                return None;
            }
            continue;
        };
        shapes.push(shape as u64 + 1);
        let mut values = values.iter();
        for step in &ordered[shape].1 {
            match step {
                Step::Literal(_) => {}
                Step::Number(_, column) | Step::Bytes(_, column) | Step::Float(_, column) => match values.next()? {
                    Value::Number(number) => columns[*column].numbers.push(*number),
                    Value::Bytes(bytes) => columns[*column].bytes.push(bytes),
                },
            }
        }
    }
    let mut out = Vec::new();
    varint::put(&mut out, ordered.len() as u64);
    ordered.iter().for_each(|(template, _)| varint::put_bytes(&mut out, template));
    put_numbers(&mut out, &shapes, &Vec::new(), false);
    put_strings(&mut out, &raw, &Vec::new());
    let full = contents.len() - raw.len();
    let times = times_of_rows(times, &shapes);
    let mut references = vec![(0, &times[..])];
    for (at, column) in columns.iter().enumerate() {
        if places.numbers[at] {
            put_numbers(&mut out, &column.numbers, &references, false);
            // One in every content: rows are contents.
            if column.numbers.len() == full && references.len() < MAX_REFERENCES && column.numbers.iter().any(|number| *number >= 1 << 32) {
                references.push((at + 1, &column.numbers));
            }
        } else {
            put_strings(&mut out, &column.bytes, &references);
        }
    }
    Some(out)
}

/// Times of those messages whose contents are taken apart.
fn times_of_rows(times: &[i64], shapes: &[u64]) -> Vec<u64> {
    times.iter().zip(shapes).filter(|(_, shape)| **shape > 0).map(|(time, _)| *time as u64).collect()
}

/// What was read so far.
#[derive(Debug, Default)]
struct Columns<'a> {
    times: Vec<u64>,
    read: Vec<Read<'a>>,
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
fn numbers(reader: &mut Reader<'_>, count: usize, columns: &Columns<'_>) -> Option<Vec<u64>> {
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
enum Piece<'a> {
    Borrowed(&'a [u8]),
    /// Made of numbers: so many bytes.
    Made([u8; MAX_WORDS * 4], usize),
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Made(bytes, len) => &bytes[..*len],
        }
    }
}

fn strings<'a>(reader: &mut Reader<'a>, count: usize, columns: &Columns<'_>) -> Option<Vec<Piece<'a>>> {
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
enum Read<'a> {
    Numbers(Vec<u64>, usize),
    Strings(Vec<Piece<'a>>, usize),
}

/// Puts contents together again whose messages have these times: hands each one to `each`, one behind the other. `None` where the bytes are none of
/// [`shred`]'s, or `each` does not want more.
pub(crate) fn unshred(bytes: &[u8], times: &[i64], mut each: impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    let mut reader = Reader(bytes);
    let mut places = Places::default();
    let mut templates: Vec<(&[u8], Vec<Step>)> = Vec::new();
    for _ in 0..reader.count()? {
        let template = reader.bytes()?;
        templates.push((template, places.steps(template)?));
    }
    let shapes = numbers(&mut reader, times.len(), &Columns::default())?;
    let mut rows = vec![0_usize; templates.len() + 1];
    for shape in &shapes {
        *rows.get_mut(usize::try_from(*shape).ok()?)? += 1;
    }
    let raw = strings(&mut reader, rows[0], &Columns::default())?;
    let mut lens = vec![0_usize; places.numbers.len()];
    for ((_, steps), rows) in templates.iter().zip(&rows[1..]) {
        for step in steps {
            if let Step::Number(_, column) | Step::Bytes(_, column) | Step::Float(_, column) = step {
                lens[*column] = lens[*column].checked_add(*rows)?;
            }
        }
    }
    let mut columns = Columns { times: times_of_rows(times, &shapes), read: Vec::with_capacity(lens.len()) };
    for (is_number, len) in places.numbers.iter().zip(&lens) {
        let column = if *is_number {
            Read::Numbers(numbers(&mut reader, *len, &columns)?, 0)
        } else {
            Read::Strings(strings(&mut reader, *len, &columns)?, 0)
        };
        columns.read.push(column);
    }
    let mut columns = columns.read;
    if !reader.0.is_empty() {
        return None;
    }
    let mut raw = raw.iter();
    let mut content = Vec::new();
    for shape in shapes {
        let Some((template, steps)) = (shape as usize).checked_sub(1).and_then(|shape| templates.get(shape)) else {
            each(raw.next()?.bytes())?;
            continue;
        };
        content.clear();
        for step in steps {
            let (column, major) = match step {
                Step::Literal(range) => {
                    content.extend_from_slice(&template[range.clone()]);
                    continue;
                }
                Step::Number(major, column) | Step::Bytes(major, column) | Step::Float(major, column) => (&mut columns[*column], *major),
            };
            match column {
                Read::Numbers(numbers, used) => {
                    put_head(&mut content, major, *numbers.get(*used)?);
                    *used += 1;
                }
                Read::Strings(strings, used) => {
                    let bytes = strings.get(*used)?.bytes();
                    *used += 1;
                    match float_len(major) {
                        Some(len) if len == bytes.len() => content.push(major),
                        Some(_) => return None,
                        None => put_head(&mut content, major, bytes.len() as u64),
                    }
                    content.extend_from_slice(bytes);
                }
            }
        }
        each(&content)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(count: usize) -> Vec<i64> {
        (0..count as i64).map(|n| 1_795_764_890_077_739_844 + n * n * 1000).collect()
    }

    fn back(shredded: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        unshred(shredded, &times(count), |content| {
            out.push(content.to_vec());
            Some(())
        })?;
        Some(out)
    }

    /// CBOR in its shortest form, of any shape.
    fn item() -> impl Strategy<Value = Vec<u8>> {
        let with_head = |major: u8, bytes: Vec<u8>| {
            let mut out = Vec::new();
            put_head(&mut out, major, bytes.len() as u64);
            out.extend_from_slice(&bytes);
            out
        };
        let number = (0u8..2, prop_oneof![0u64..300, any::<u64>()]).prop_map(|(major, number)| {
            let mut out = Vec::new();
            put_head(&mut out, major, number);
            out
        });
        let text = (2u8..4, proptest::collection::vec(0u8..4, 0..40)).prop_map(move |(major, bytes)| with_head(major, bytes));
        let other = prop_oneof![
            Just(vec![0xf6]),
            Just(vec![0xf5]),
            Just(vec![0xf8, 0x40]),
            any::<u16>().prop_map(|half| [&[0xf9][..], &half.to_be_bytes()].concat()),
            any::<u64>().prop_map(|double| [&[0xfb][..], &double.to_be_bytes()].concat()),
        ];
        prop_oneof![number, text, other].prop_recursive(4, 40, 6, |inner| {
            (4u8..6, proptest::collection::vec((0u8..20, inner), 0..6)).prop_map(|(major, items)| {
                let mut out = Vec::new();
                put_head(&mut out, major, items.len() as u64);
                for (key, item) in items {
                    if major == 5 {
                        out.push(key);
                    }
                    out.extend_from_slice(&item);
                }
                out
            })
        })
    }

    /// A version and a map, as the sensor writes them.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec((0u8..6, item()), 0..6).prop_map(|fields| {
            let mut out = vec![1, 0xa0 | fields.len() as u8];
            fields.iter().for_each(|(key, item)| {
                out.push(*key);
                out.extend_from_slice(item);
            });
            out
        })
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(contents in proptest::collection::vec(content(), 1..30), again in 1usize..4) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).cycle().take(contents.len() * again).collect();
            let shredded = shred(&contents, &times(contents.len())).expect("all of it is CBOR");
            prop_assert_eq!(back(&shredded, contents.len()).expect("read"), contents);
        }

        #[test]
        fn so_does_what_is_no_cbor(contents in proptest::collection::vec(prop_oneof![content(), proptest::collection::vec(any::<u8>(), 0..30)], 1..30)) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            if let Some(shredded) = shred(&contents, &times(contents.len())) {
                prop_assert_eq!(back(&shredded, contents.len()).expect("read"), contents);
            }
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(contents in proptest::collection::vec(content(), 1..9), change in any::<(prop::sample::Index, u8)>(), count in 0usize..40) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let mut shredded = shred(&contents, &times(contents.len())).expect("all of it is CBOR");
            let at = change.0.index(shredded.len());
            shredded[at] = change.1;
            let _ = back(&shredded, contents.len());
            let _ = back(&shredded, count);
        }
    }

    #[test]
    fn longer_forms_stay_as_they_are() {
        // 1 in two bytes, a map of indefinite length, a tag.
        for odd in [&[0xa1, 0, 0x18, 1][..], &[0xbf, 0xff], &[0xa1, 0, 0xc0, 0]] {
            let contents = [odd, &[0xa1, 0, 1], &[0xa1, 0, 2]];
            let shredded = shred(&contents, &times(contents.len())).expect("most of it");
            assert_eq!(back(&shredded, 3).expect("read"), contents);
        }
        assert_eq!(shred(&[b"{\"a\":1}", b"text", &[0xa1, 0, 1]], &times(3)), None, "most of it is something else");
    }

    #[test]
    fn a_time_that_stands_twice_is_stored_once() {
        let mut contents = Vec::new();
        let mut time = 50_812_103_492_593_u64;
        for n in 0..1000_u64 {
            time += 100_000 + n * 7919 % 50_000;
            // An id that has the time in it, the time on two clocks, and in every third one another time nearby.
            let mut content = vec![1, 0xa3 + u8::from(n % 3 == 0), 0, 0x54];
            content.extend_from_slice(&[&[1, 2, 3, 4][..], &time.to_be_bytes(), &[0, 1], &(n as u32).to_be_bytes(), &[0, 0]].concat());
            content.push(1);
            put_head(&mut content, 0, time);
            content.push(2);
            put_head(&mut content, 0, time + 1_795_764_890_077_739_844);
            if n % 3 == 0 {
                content.push(3);
                put_head(&mut content, 0, time - 7000 - n % 300);
            }
            contents.push(content);
        }
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let shredded = shred(&contents, &times(contents.len())).expect("CBOR");
        assert_eq!(back(&shredded, contents.len()).expect("read"), contents);
        let packed = zstd::bulk::compress(&shredded, 3).expect("packed");
        // Of the differences, 16 bits each are not to be guessed.
        assert!(packed.len() < 1000 * 3 + 600, "{}", packed.len());
        let as_it_is = zstd::bulk::compress(&contents.concat(), 3).expect("packed");
        assert!(as_it_is.len() > 1000 * 10, "{}", as_it_is.len());
    }
}
