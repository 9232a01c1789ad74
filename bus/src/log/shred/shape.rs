//! The shape of a content, and its values: CBOR read and written without knowing what it means.

use std::ops::Range;

use super::HashMap;

/// Maps in maps, at most.
const MAX_DEPTH: usize = 16;
/// Elements of an array with columns of their own; those behind share the last one's.
const MAX_ELEMENTS: usize = 12;
/// Longer contents are kept whole: each of their values takes memory for a moment.
pub(super) const MAX_LEN: usize = 64 * 1024;
/// A number and a map.
const MAX_ITEMS: u8 = 2;

/// A value of a content.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
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

pub(super) fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
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
pub(super) fn float_len(first: u8) -> Option<usize> {
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
            // As keys they are not taken apart, nor is anything that has one.
            4 | 5 if !is_key && depth < MAX_DEPTH && argument <= self.bytes.len() as u64 => {
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
    if content.len() > MAX_LEN {
        return false;
    }
    is_map(content.first()) || content.first().is_some_and(|byte| *byte < 24) && is_map(content.get(1))
}

pub(super) fn parse<'a>(content: &'a [u8], template: &mut Vec<u8>, values: &mut Vec<Value<'a>>) -> bool {
    template.clear();
    values.clear();
    if !is_candidate(content) {
        return false;
    }
    let mut parser = Parser { bytes: content, template, values };
    let mut items = 0;
    while !parser.bytes.is_empty() {
        items += 1;
        if items > MAX_ITEMS || parser.item(false, 0).is_none() {
            return false;
        }
    }
    true
}

/// One step of writing a content of some shape.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// These bytes of the template.
    Literal(Range<usize>),
    /// The next value of a column, where the template has this byte: a number or a length goes into the byte, a float behind it.
    Value(u8, usize),
}

/// Columns by the place of their values.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// (place above, step) to place.
    places: HashMap<(usize, Vec<u8>), usize>,
    /// (place, first byte in the template) to column.
    columns: HashMap<(usize, u8), usize>,
    /// Whether each column is of numbers.
    pub(super) numbers: Vec<bool>,
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
    pub(super) fn steps(&mut self, template: &[u8]) -> Option<Vec<Step>> {
        let mut walk = Walk { places: self, template, at: 0, steps: Vec::new() };
        let mut index = 0;
        while walk.at < template.len() {
            let place = walk.places.below(0, vec![0xff, index]);
            walk.item(place, 0)?;
            index += 1;
            if index > MAX_ITEMS {
                return None;
            }
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
        let is_number = matches!(first, 0x00 | 0x20);
        if is_number || matches!(first, 0x40 | 0x60) || float_len(first).is_some() {
            self.at += 1;
            let column = self.places.column(place, first, is_number);
            self.steps.push(Step::Value(first, column));
            return Some(());
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
