//! passwd(5), group(5) and shadow(5): what their lines say, and what of it changed.

use std::collections::{BTreeMap, BTreeSet};

use bartizan_bus::event::{AccountAction, AccountChange, AccountField, AccountFile};
use minicbor::{Decode, Encode};

/// Fields behind the name, in their order.
const PASSWD: &[&str] = &["password", "uid", "gid", "gecos", "home", "shell"];
const GROUP: &[&str] = &["password", "gid", "member"];
const SHADOW: &[&str] = &["password", "last_change", "min_age", "max_age", "warn", "inactive", "expires"];

/// A field's value: what is told of it, and what it is compared by where that is less than it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
struct Told {
    #[n(0)]
    text: String,
    #[n(1)]
    digest: u64,
}

/// What one line says. A field of several values is several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Line {
    #[n(0)]
    id: Option<u32>,
    /// By the field's place.
    #[n(1)]
    fields: BTreeSet<(usize, Told)>,
}

/// The lines of a file by name; of a name that stands there several times, each by its place among them.
pub(super) type Entries = BTreeMap<(String, u32), Line>;

fn names_of(file: AccountFile) -> &'static [&'static str] {
    match file {
        AccountFile::Passwd => PASSWD,
        AccountFile::Group => GROUP,
        AccountFile::Shadow => SHADOW,
    }
}

/// What may be told of a password field, crypt(5).
fn password(field: &[u8]) -> &'static str {
    match field {
        [] => "none",
        [b'!' | b'*', ..] => "locked",
        _ => "set",
    }
}

/// Lines that are read, at most.
const LINES_MAX: usize = 1 << 17;
/// Fields, members among them, that are told of one entry, at most.
const FIELDS_MAX: usize = 256;
/// Bytes that are told of a value, at most.
const TEXT_MAX: usize = 256;

/// Fields that are numbers.
const NUMBERS: &[&str] = &["uid", "gid", "last_change", "min_age", "max_age", "warn", "inactive", "expires"];
/// What is told of a value that cannot be one of its field: a hash that stands in the wrong place must not be told.
const MALFORMED: &str = "malformed";

/// What is told of a value, and whether that is all of it.
fn told(field: &str, value: &[u8]) -> (String, bool) {
    if NUMBERS.contains(&field) {
        let digits = value.strip_prefix(b"-").unwrap_or(value);
        let is_number = digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit);
        return if is_number { (String::from_utf8_lossy(value).into_owned(), true) } else { (MALFORMED.to_owned(), false) };
    }
    // crypt(5): every hash but DES's begins so.
    if value.contains(&b'$') {
        return (MALFORMED.to_owned(), false);
    }
    (String::from_utf8_lossy(&value[..value.len().min(TEXT_MAX)]).into_owned(), value.len() <= TEXT_MAX)
}

/// Reads a file; lines without a name say nothing. `digest` is what values are compared by of which not all is told.
///
/// # Errors
/// It has too many lines, in a sentence.
pub(super) fn parse(file: AccountFile, bytes: &[u8], digest: impl Fn(&[u8]) -> u64) -> Result<Entries, String> {
    if bytes.iter().filter(|byte| **byte == b'\n').count() > LINES_MAX {
        return Err(format!("it has more than {LINES_MAX} lines, which are read at most"));
    }
    let mut entries = Entries::new();
    let names = names_of(file);
    let id_at = names.iter().position(|name| *name == if file == AccountFile::Passwd { "uid" } else { "gid" });
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut values = line.split(|byte| *byte == b':');
        let Some(name) = values.next().filter(|name| !name.is_empty() && name[0] != b'#') else { continue };
        let (name, _) = told("name", name);
        let mut line = Line::default();
        for (index, (field, value)) in names.iter().zip(values).enumerate() {
            let tell = |value: &[u8]| {
                let (text, whole) = told(field, value);
                (index, Told { text, digest: if whole { 0 } else { digest(value) } })
            };
            match *field {
                // It stands in shadow(5), gshadow(5).
                "password" if value == b"x" => {}
                "password" => {
                    line.fields.insert((index, Told { text: password(value).to_owned(), digest: digest(value) }));
                }
                "member" => {
                    let members = value.split(|byte| *byte == b',').filter(|member| !member.is_empty());
                    line.fields.extend(members.map(tell));
                }
                _ if value.is_empty() => {}
                _ => {
                    line.fields.insert(tell(value));
                }
            }
            if Some(index) == id_at {
                line.id = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
        }
        let last = entries.range((name.clone(), 0)..=(name.clone(), u32::MAX)).next_back().map(|((_, place), _)| *place);
        let place = last.map_or(0, |place| place.saturating_add(1));
        entries.insert((name, place), line);
    }
    Ok(entries)
}

/// What is another in `after` than in `before`, by name.
pub(super) fn changes(file: AccountFile, before: &Entries, after: &Entries) -> Vec<AccountChange> {
    let nothing = Line::default();
    let keys: BTreeSet<&(String, u32)> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        if old == new {
            continue;
        }
        let action = match (old, new) {
            (None, _) => AccountAction::Added,
            (_, None) => AccountAction::Removed,
            _ => AccountAction::Changed,
        };
        let id = new.or(old).and_then(|line| line.id);
        let mut fields = fields(names_of(file), old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        let more_fields = fields.len().saturating_sub(FIELDS_MAX) as u32;
        fields.truncate(FIELDS_MAX);
        found.push(AccountChange { file, action, name: key.0.clone(), id, fields, more_fields });
    }
    found
}

/// The fields that differ. One value that gives way to one other is one change; of several values each that came or went is one.
fn fields(names: &[&str], old: &Line, new: &Line) -> Vec<AccountField> {
    let mut told = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let of = |line: &Line, other: &Line| -> Vec<String> {
            line.fields.difference(&other.fields).filter(|(at, _)| *at == index).map(|(_, value)| value.text.clone()).collect()
        };
        let (gone, came) = (of(old, new), of(new, old));
        let field = |old: Option<String>, new: Option<String>| AccountField { name: (*name).to_owned(), old, new };
        if *name == "member" {
            told.extend(gone.into_iter().map(|member| field(Some(member), None)));
            told.extend(came.into_iter().map(|member| field(None, Some(member))));
        } else if !gone.is_empty() || !came.is_empty() {
            told.push(field(gone.into_iter().next(), came.into_iter().next()));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// No digest that anybody should use.
    fn sum(bytes: &[u8]) -> u64 {
        bytes.iter().fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte))
    }

    fn between(file: AccountFile, before: &str, after: &str) -> Vec<String> {
        let [before, after] = [before, after].map(|text| parse(file, text.as_bytes(), sum).unwrap());
        let told = changes(file, &before, &after);
        told.iter()
            .map(|AccountChange { file: _, action, name, id, fields, more_fields: _ }| {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|AccountField { name, old, new }| {
                        format!("{name} {}→{}", old.as_deref().unwrap_or("-"), new.as_deref().unwrap_or("-"))
                    })
                    .collect();
                let id = id.map_or_else(|| "-".to_owned(), |id| id.to_string());
                format!("{action:?} {name} {id} {}", fields.join(", "))
            })
            .collect()
    }

    #[test]
    fn users_come_go_and_change() {
        let root = "root:x:0:0:root:/root:/bin/bash\n";
        let passwd = |before: &str, after: &str| between(AccountFile::Passwd, &format!("{root}{before}"), &format!("{root}{after}"));
        assert_eq!(
            passwd("", "ann:x:1000:100::/home/ann:/bin/sh"),
            ["Added ann 1000 uid -→1000, gid -→100, home -→/home/ann, shell -→/bin/sh"]
        );
        assert_eq!(passwd("ann:x:1000:100:::\n", "ann:x:0:100:::\n"), ["Changed ann 0 uid 1000→0"]);
        assert_eq!(passwd("ann:x:5:5:::", ""), ["Removed ann 5 uid 5→-, gid 5→-"]);
        assert_eq!(passwd("ann:x:5:5:::\n", "ann::5:5:::\n"), ["Changed ann 5 password -→none"]);
        assert_eq!(passwd("a:x:1:1:::\nb:x:2:2:::\n", "b:x:2:2:::\na:x:1:1:::\n"), Vec::<String>::new(), "the order says nothing");
    }

    #[test]
    fn a_second_line_of_a_name_is_one_of_its_own() {
        let told = between(AccountFile::Passwd, "ann:x:1000:1:::\n", "ann:x:1000:1:::\nann:x:0:0:::\n");
        assert_eq!(told, ["Added ann 0 uid -→0, gid -→0"]);
    }

    #[test]
    fn members_come_and_go_one_by_one() {
        let told = between(AccountFile::Group, "sudo:x:27:ann,bob\n", "sudo:x:27:bob,eve,mal\n");
        assert_eq!(told, ["Changed sudo 27 member ann→-, member -→eve, member -→mal"]);
    }

    #[test]
    fn of_a_password_only_its_state_is_told() {
        let shadow = |before: &str, after: &str| {
            let line = |password: &str| format!("ann:{password}:19000:0:99999:7:::\n");
            between(AccountFile::Shadow, &line(before), &line(after))
        };
        assert_eq!(shadow("$y$one", "$y$two"), ["Changed ann - password set→set"]);
        assert_eq!(shadow("$y$one", "!$y$one"), ["Changed ann - password set→locked"]);
        assert_eq!(shadow("!*", ""), ["Changed ann - password locked→none"]);
        assert_eq!(shadow("$y$one", "$y$one"), Vec::<String>::new());
        let aged = between(AccountFile::Shadow, "ann:*:19000:0::::8000:\n", "ann:*:19001:0:::::\n");
        assert_eq!(aged, ["Changed ann - last_change 19000→19001, expires 8000→-"]);
    }

    #[test]
    fn lines_without_a_name_say_nothing() {
        assert_eq!(between(AccountFile::Passwd, "", "#ann:x:1:1:::\n:x:0:0:::\n\n"), Vec::<String>::new());
        assert_eq!(between(AccountFile::Passwd, "", "+::::::\n"), ["Added + - password -→none"], "an entry of NIS is one");
    }

    #[test]
    fn a_hash_in_the_wrong_column_is_not_told_but_its_change_is() {
        for (file, before, after) in [
            (AccountFile::Shadow, "ann:x:$6$salt$one:1::::", "ann:x:$6$salt$two:1::::"),
            (AccountFile::Passwd, "ann:x:$y$one:0:::", "ann:x:$y$two:0:::"),
            (AccountFile::Passwd, "ann:x:5:0::/:$y$one", "ann:x:5:0::/:$y$two"),
        ] {
            let told = between(file, before, after);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("malformed→malformed") && !told[0].contains('$'), "{told:?}");
        }
    }

    #[test]
    fn what_is_told_of_one_entry_is_bounded() {
        let members: Vec<String> = (0..1000).map(|number| format!("u{number}")).collect();
        let after = parse(AccountFile::Group, format!("adm:x:4:{}", members.join(",")).as_bytes(), sum).unwrap();
        let told = changes(AccountFile::Group, &Entries::new(), &after);
        assert_eq!((told[0].fields.len(), told[0].more_fields), (FIELDS_MAX, 1001 - FIELDS_MAX as u32), "the gid is one");
        let long = parse(AccountFile::Passwd, format!("ann:x:1:1:{}:/:/x", "g".repeat(5000)).as_bytes(), sum).unwrap();
        let told = changes(AccountFile::Passwd, &Entries::new(), &long);
        assert!(told[0].fields.iter().all(|field| field.new.as_ref().is_some_and(|new| new.len() <= TEXT_MAX)));
        assert!(parse(AccountFile::Group, &b"a\n".repeat(LINES_MAX + 1), sum).unwrap_err().contains("lines"));
        let same = parse(AccountFile::Group, &b"a\n".repeat(LINES_MAX), sum).unwrap();
        assert_eq!(same.len(), LINES_MAX, "in a time that nobody notices");
    }

    proptest! {
        #[test]
        fn any_file_is_read_and_its_secrets_stay(bytes: Vec<u8>, hash in "[./0-9A-Za-z]{8,20}", column in 1_usize..8) {
            for file in [AccountFile::Passwd, AccountFile::Group, AccountFile::Shadow] {
                let entries = parse(file, &bytes, sum).unwrap();
                prop_assert_eq!(changes(file, &entries, &entries), Vec::new());
                let mut line = ["ann", "x", "1", "2", "3", "4", "5", "6"].map(str::to_owned);
                line[column] = format!("$6${hash}");
                let secret = parse(file, line.join(":").as_bytes(), sum).unwrap();
                let told = format!("{:?}", changes(file, &entries, &secret));
                prop_assert!(!told.contains(&hash));
            }
        }
    }
}
