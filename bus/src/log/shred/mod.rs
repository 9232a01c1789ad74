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

mod column;
mod shape;

use super::varint::{self, Reader};
use column::{Columns, Read, numbers, put_numbers, put_strings, strings};
use shape::{MAX_LEN, Places, Step, Value, float_len, parse, put_head};

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Columns that another may be written as the distance from.
const MAX_REFERENCES: usize = 6;
/// Columns of a subject's contents, at most: a sensor's events have about a hundred.
const MAX_COLUMNS: usize = 4096;
/// Bytes of a subject's contents taken apart, at most: several times what a block holds of contents that are.
const MAX_SHREDDED: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
struct Column<'a> {
    numbers: Vec<u64>,
    bytes: Vec<&'a [u8]>,
}

/// Takes contents apart, whose messages have these times; `None` where it wins nothing, as with most that is no CBOR.
pub(crate) fn shred(contents: &[&[u8]], times: &[i64]) -> Option<Vec<u8>> {
    let shredded = take_apart(contents, times)?;
    if shredded.len() >= contents.iter().map(|content| content.len()).sum() || shredded.len() > MAX_SHREDDED {
        return None;
    }
    // What is written here is all that will be left of these contents.
    let mut left = contents.iter();
    let same = unshred(&shredded, times, |content| (left.next().copied() == Some(content)).then_some(()));
    if same.is_none() || left.next().is_some() {
        tracing::error!("contents of a block would not have come back as they were and are kept whole: please report it");
        debug_assert!(false, "contents do not come back as they were");
        return None;
    }
    Some(shredded)
}

fn take_apart(contents: &[&[u8]], times: &[i64]) -> Option<Vec<u8>> {
    let mut places = Places::default();
    let mut templates: HashMap<Vec<u8>, usize> = HashMap::default();
    let mut ordered: Vec<(Vec<u8>, Vec<Step>)> = Vec::new();
    let mut columns: Vec<Column<'_>> = Vec::new();
    let (mut shapes, mut raw) = (Vec::with_capacity(contents.len()), Vec::new());
    let (mut template, mut values) = (Vec::new(), Vec::new());
    for content in contents {
        if !parse(content, &mut template, &mut values) {
            shapes.push(0);
            raw.push(*content);
            if raw.len() > contents.len() / 2 {
                return None;
            }
            continue;
        }
        let shape = match templates.get(&template) {
            Some(shape) => *shape,
            None => {
                // The parser takes nothing that this refuses: its columns would stay behind.
                let steps = places.steps(&template)?;
                templates.insert(template.clone(), ordered.len());
                ordered.push((template.clone(), steps));
                columns.resize_with(places.numbers.len(), Column::default);
                if columns.len() > MAX_COLUMNS {
                    return None;
                }
                ordered.len() - 1
            }
        };
        shapes.push(shape as u64 + 1);
        let mut values = values.iter();
        for step in &ordered[shape].1 {
            let Step::Value(_, column) = step else { continue };
            match values.next()? {
                Value::Number(number) => columns[*column].numbers.push(*number),
                Value::Bytes(bytes) => columns[*column].bytes.push(bytes),
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

/// Puts contents together again whose messages have these times: hands each one to `each`, one behind the other. `None` where the bytes are none of
/// [`shred`]'s, or `each` does not want more.
pub(crate) fn unshred(bytes: &[u8], times: &[i64], mut each: impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    if bytes.len() > MAX_SHREDDED {
        return None;
    }
    let mut reader = Reader(bytes);
    let mut places = Places::default();
    let mut templates: Vec<(&[u8], Vec<Step>)> = Vec::new();
    for _ in 0..reader.count().filter(|count| *count <= times.len())? {
        let template = reader.bytes().filter(|template| template.len() <= MAX_LEN)?;
        templates.push((template, places.steps(template)?));
        if places.numbers.len() > MAX_COLUMNS {
            return None;
        }
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
            if let Step::Value(_, column) = step {
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
            if content.len() > MAX_LEN {
                return None;
            }
            let (first, column) = match step {
                Step::Literal(range) => {
                    content.extend_from_slice(&template[range.clone()]);
                    continue;
                }
                Step::Value(first, column) => (*first, &mut columns[*column]),
            };
            match column {
                Read::Numbers(numbers, used) => {
                    put_head(&mut content, first >> 5, *numbers.get(*used)?);
                    *used += 1;
                }
                Read::Strings(strings, used) => {
                    let bytes = strings.get(*used)?.bytes();
                    *used += 1;
                    match float_len(first) {
                        Some(len) if len == bytes.len() => content.push(first),
                        Some(_) => return None,
                        None => put_head(&mut content, first >> 5, bytes.len() as u64),
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

    /// The same with keys of any type, and more behind it.
    fn odd() -> impl Strategy<Value = Vec<u8>> {
        (proptest::collection::vec((item(), item()), 0..4), proptest::collection::vec(item(), 0..4)).prop_map(|(fields, behind)| {
            let mut out = vec![1, 0xa0 | fields.len() as u8];
            fields.iter().for_each(|(key, item)| out.extend([key.as_slice(), item].concat()));
            out.extend(behind.concat());
            out
        })
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(contents in proptest::collection::vec(content(), 1..30), again in 1usize..4) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).cycle().take(contents.len() * again).collect();
            let shredded = take_apart(&contents, &times(contents.len())).expect("all of it is CBOR");
            prop_assert_eq!(back(&shredded, contents.len()).expect("read"), contents);
        }

        #[test]
        fn so_does_what_is_no_cbor(contents in proptest::collection::vec(prop_oneof![content().boxed(), odd().boxed(), proptest::collection::vec(any::<u8>(), 0..30).boxed()], 1..30)) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            if let Some(shredded) = take_apart(&contents, &times(contents.len())) {
                prop_assert_eq!(back(&shredded, contents.len()).expect("read"), contents);
            }
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(contents in proptest::collection::vec(content(), 1..9), change in any::<(prop::sample::Index, u8)>(), count in 0usize..40) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let mut shredded = take_apart(&contents, &times(contents.len())).expect("all of it is CBOR");
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
            let shredded = take_apart(&contents, &times(contents.len())).expect("most of it");
            assert_eq!(back(&shredded, 3).expect("read"), contents);
        }
        assert_eq!(shred(&[b"{\"a\":1}", b"text", &[0xa1, 0, 1]], &times(3)), None, "most of it is something else");
    }

    #[test]
    fn what_cannot_be_taken_apart_leaves_nothing_behind() {
        // An array and a map as keys; as many items behind the map as a byte counts.
        let many = [&[0xa0][..], &[1; 255]].concat();
        for odd in [&[0xa2, 5, 1, 0x80, 2][..], &[0xa1, 0xa0, 1], &many] {
            for contents in [[odd, &[0xa1, 0, 2], &[0xa1, 1, 1]], [odd, &[0xa1, 0, 1], &[0xa1, 0, 2]]] {
                let shredded = take_apart(&contents, &times(3)).expect("most of it");
                assert_eq!(back(&shredded, 3).expect("read"), contents);
            }
        }
    }

    #[test]
    fn a_few_bytes_do_not_become_many() {
        // One template of a million empty strings; one string that a million values share.
        let mut template = vec![0x9a, 0, 0x10, 0, 0];
        template.extend(vec![0x40; 1 << 20]);
        let mut bytes = Vec::new();
        varint::put(&mut bytes, 1);
        varint::put_bytes(&mut bytes, &template);
        assert_eq!(back(&bytes, 1), None);
        // Short enough, and 48 GB together.
        let mut template = vec![0x99, 0xc0, 0];
        template.extend(vec![0x40; 0xc000]);
        let mut bytes = Vec::new();
        varint::put(&mut bytes, 1);
        varint::put_bytes(&mut bytes, &template);
        bytes.extend_from_slice(&[0, 1, 0]);
        for _ in 0..12 {
            bytes.extend_from_slice(&[2, 1]);
            varint::put_bytes(&mut bytes, &vec![7; 60_000]);
            bytes.extend(vec![0; 1]);
        }
        assert_eq!(back(&bytes, 1), None);
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
