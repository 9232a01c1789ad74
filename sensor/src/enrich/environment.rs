//! Variables of a new image's environment that are kept: those whose names are listed.

use std::collections::HashSet;

use bartizan_sensor_ebpf::abi::{Record, Span, decode};

use crate::project::{Environment, escape_bytes};

/// Listed when the configuration lists none: what makes a program load, run or trust something else than it says, what hides a shell's
/// traces, and what says who came by ssh, sudo or pkexec. Names that end in `*` stand for all that begin so.
pub const DEFAULT: &[&str] = &[
    "LD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5OPT",
    "PERL5LIB",
    "PERL5DB",
    "RUBYOPT",
    "RUBYLIB",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "BASH_ENV",
    "ENV",
    "PROMPT_COMMAND",
    "HISTFILE",
    "HISTSIZE",
    "GIT_SSH_COMMAND",
    "OPENSSL_CONF",
    "SSLKEYLOGFILE",
    "SSH_CONNECTION",
    "SSH_ORIGINAL_COMMAND",
    "SUDO_COMMAND",
    "SUDO_USER",
    "PKEXEC_UID",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// Most entries of the list.
const LIST_MAX: usize = 256;

/// The list.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Names that are kept; looked up for each variable of each image, hence the fast hash.
    names: HashSet<Vec<u8>, foldhash::fast::RandomState>,
    prefixes: Vec<Vec<u8>>,
}

/// What is wrong with a list, in words; `None` when nothing is.
pub fn complaint(names: &[String]) -> Option<String> {
    if names.len() > LIST_MAX {
        return Some(format!("sensor.environment has {} entries: at most {LIST_MAX} are allowed", names.len()));
    }
    let is_name = |name: &str| {
        let stem = name.strip_suffix('*').unwrap_or(name);
        !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'=' | b'*'))
    };
    let wrong = names.iter().find(|name| !is_name(name))?;
    Some(format!(
        "sensor.environment: {wrong:?} is not a name: write it as the program knows it, such as \"LD_PRELOAD\", or with one `*` at its end, such as \"LD_*\""
    ))
}

impl Listed {
    /// A list that [`complaint`] has nothing against.
    pub fn new(names: &[String]) -> Self {
        let mut listed = Self::default();
        for name in names {
            match name.strip_suffix('*') {
                Some(prefix) => listed.prefixes.push(prefix.as_bytes().to_vec()),
                None => {
                    listed.names.insert(name.as_bytes().to_vec());
                }
            }
        }
        listed
    }

    /// The listed variables as `NAME=value`, in their order, and whether some may be missing or cut.
    pub fn kept(&self, environment: &Environment) -> (Vec<String>, bool) {
        let Environment { head, end, len } = environment;
        let looked_at = head.len() + end.len();
        let whole = looked_at as u64 >= u64::from(*len);
        if whole {
            // The end follows the head.
            return (self.of(&[head.as_slice(), end.as_slice()].concat()), false);
        }
        let mut kept = self.of(head);
        // The end begins within a variable, whose name is not known.
        let from = end.iter().position(|byte| *byte == 0).map_or(end.len(), |nul| nul + 1);
        kept.extend(self.of(end.get(from..).unwrap_or_default()));
        (kept, true)
    }

    /// A copy of an exec record in which variables that are not listed are wiped; `None` for what is no exec record.
    pub fn wiped(&self, record: &[u8]) -> Option<Vec<u8>> {
        let Ok(Record::Exec(exec, _)) = decode(record) else { return None };
        let of = |span: Span| usize::from(span.offset)..usize::from(span.offset) + usize::from(span.len);
        let (head, end) = (of(exec.environment), of(exec.environment_end));
        let mut copy = record.to_vec();
        let part = |part: std::ops::Range<usize>| record.get(part).unwrap_or_default();
        let (first, last) = (part(head.clone()), part(end.clone()));
        let whole = (first.len() + last.len()) as u64 >= u64::from(exec.environment_len);
        let mut both = [first, last].concat();
        let (from, to) = both.split_at_mut(first.len());
        if whole {
            self.wipe(&mut both);
        } else {
            self.wipe(from);
            let cut = to.iter().position(|byte| *byte == 0).unwrap_or(to.len());
            to.iter_mut().take(cut).for_each(|byte| *byte = 0);
            self.wipe(to);
        }
        let (from, to) = both.split_at(first.len());
        for (range, bytes) in [(head, from), (end, to)] {
            if let Some(part) = copy.get_mut(range) {
                part.copy_from_slice(bytes);
            }
        }
        Some(copy)
    }

    fn wipe(&self, bytes: &mut [u8]) {
        for variable in bytes.split_mut(|byte| *byte == 0) {
            if !self.is_listed(variable) {
                variable.fill(0);
            }
        }
    }

    fn of(&self, bytes: &[u8]) -> Vec<String> {
        bytes.split(|byte| *byte == 0).filter(|variable| self.is_listed(variable)).map(escape_bytes).collect()
    }

    fn is_listed(&self, variable: &[u8]) -> bool {
        let Some(name) = variable.iter().position(|byte| *byte == b'=').and_then(|end| variable.get(..end)) else { return false };
        self.names.contains(name) || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(names: &[&str]) -> Listed {
        Listed::new(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn environment(head: &[u8], end: &[u8], len: u32) -> Environment {
        Environment { head: head.to_vec(), end: end.to_vec(), len }
    }

    #[test]
    fn only_listed_names_are_kept() {
        let listed = listed(&["LD_*", "ENV"]);
        let bytes = b"PATH=/bin\0LD_PRELOAD=/x.so\0XLD_PRELOAD=no\0ENV=a=b\0ENVY=no\0LD_PRELOAD\0LD_AUDIT=\xff\0";
        let kept = listed.kept(&environment(bytes, b"", bytes.len() as u32));
        assert_eq!(kept, (vec!["LD_PRELOAD=/x.so".to_owned(), "ENV=a=b".into(), "LD_AUDIT=\\xff".into()], false));
    }

    #[test]
    fn the_two_parts_are_one_where_nothing_is_between() {
        let listed = listed(&["AB"]);
        assert_eq!(listed.kept(&environment(b"X=1\0A", b"B=2\0", 9)), (vec!["AB=2".to_owned()], false));
        assert_eq!(listed.kept(&environment(b"X=1\0AB=3", b"AB=1\0AB=2\0", 99)), (vec!["AB=3".to_owned(), "AB=2".into()], true));
        assert_eq!(listed.kept(&environment(b"", b"", 0)), (Vec::new(), false));
        assert_eq!(listed.kept(&environment(b"", b"", 9)), (Vec::new(), true), "not readable");
    }

    #[test]
    fn a_recording_has_listed_variables_only() {
        use bartizan_sensor_ebpf::abi::{ABI_VERSION, Exec, Kind};
        use zerocopy::{FromZeros, IntoBytes};

        let fixed = size_of::<Exec>();
        let wiped = |head: &[u8], end: &[u8], len: u32| {
            let total = (fixed + head.len() + end.len()).next_multiple_of(8);
            let mut record = Exec::new_zeroed();
            (record.header.abi, record.header.kind, record.header.len) = (ABI_VERSION, Kind::Exec as u16, total as u32);
            record.environment = Span { offset: fixed as u16, len: head.len() as u16 };
            record.environment_end = Span { offset: (fixed + head.len()) as u16, len: end.len() as u16 };
            record.environment_len = len;
            let mut words = vec![0_u64; total / 8];
            let bytes = words.as_mut_bytes();
            bytes[..fixed].copy_from_slice(record.as_bytes());
            bytes[fixed..fixed + head.len()].copy_from_slice(head);
            bytes[fixed + head.len()..][..end.len()].copy_from_slice(end);
            let copy = listed(&["LD_*"]).wiped(words.as_bytes()).expect("an exec record");
            assert_eq!(copy[..fixed], words.as_bytes()[..fixed]);
            copy[fixed..][..head.len() + end.len()].to_vec()
        };
        assert_eq!(wiped(b"A=secret\0LD_X=1\0B=", b"secret\0LD_Y=2\0", 32), b"\0\0\0\0\0\0\0\0\0LD_X=1\0\0\0\0\0\0\0\0\0\0LD_Y=2\0");
        // The end begins within a variable, and its name is not known.
        assert_eq!(wiped(b"A=secret\0", b"LD_Y=2\0LD_X=1\0", 99), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0LD_X=1\0");
        assert_eq!(listed(&["LD_*"]).wiped(&[0; 64]), None);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        assert_eq!(complaint(&DEFAULT.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()), None);
        for wrong in ["", "*", "A=b", "A*B", "A B"] {
            assert!(complaint(&[wrong.to_owned()]).is_some_and(|text| text.contains("is not a name")), "{wrong:?}");
        }
        assert!(complaint(&vec!["A".to_owned(); 257]).is_some_and(|text| text.contains("at most 256")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(head: Vec<u8>, end: Vec<u8>, len: u32) {
            let listed = listed(&["A", "B*"]);
            let (kept, cut) = listed.kept(&environment(&head, &end, len));
            prop_assert_eq!(cut, (head.len() + end.len()) < len as usize);
            prop_assert!(kept.iter().all(|variable| variable.starts_with("A=") || variable.starts_with('B')));
        }
    }
}
