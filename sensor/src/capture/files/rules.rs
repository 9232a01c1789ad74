//! The watched paths as the configuration names them, and which paths are among them. No I/O.

use bartizan_sensor_ebpf::abi::{WANT_CHANGE, WANT_READ};

use crate::config::files::FilesConfig;

/// One entry of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// As it stands there.
    pub(super) text: String,
    /// `WANT_CHANGE`, and `WANT_READ` for secrets.
    pub(super) want: u32,
}

impl Rule {
    /// Its components.
    pub(super) fn components(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').skip(1)
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Those of the configuration.
    pub(super) fn new(config: &FilesConfig) -> Self {
        let FilesConfig { watch, extra_watch, read, extra_read, ignore: _, everywhere: _ } = config;
        let rules = |paths: &[String], want| paths.iter().map(|text| Rule { text: text.clone(), want }).collect::<Vec<_>>();
        // Secrets first: a path in both lists belongs to them.
        let (secret, change) = (WANT_CHANGE | WANT_READ, WANT_CHANGE);
        Self([rules(read, secret), rules(extra_read, secret), rules(watch, change), rules(extra_watch, change)].concat())
    }

    /// Ones of which nothing but their paths matters.
    pub(super) fn named(paths: &[String]) -> Self {
        Self(paths.iter().map(|text| Rule { text: text.clone(), want: WANT_CHANGE }).collect())
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the rule with this text stands.
    pub(super) fn place(&self, text: &str) -> Option<u32> {
        self.0.iter().position(|rule| rule.text == text)?.try_into().ok()
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// The first that `path` is, or lies below.
    pub(super) fn covering(&self, path: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| {
            let mut path = components(path);
            rule.components().all(|wanted| path.next().is_some_and(|have| matches(wanted, have)))
        })
    }

    /// Whether a rule may name something below `path`.
    pub(super) fn leads_through(&self, path: &str) -> bool {
        self.0.iter().any(|rule| {
            let mut wanted = rule.components();
            components(path).all(|have| wanted.next().is_some_and(|wanted| matches(wanted, have)))
        })
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty())
}

/// Whether `name` is what `pattern` says: `*` stands for any characters, none included.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // `split` gives one part at least.
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Rules {
        let own = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Rules::new(&FilesConfig { watch: own(&["/etc/passwd", "/home/*/.ssh"]), read: own(&["/k/host_*_key"]), ..FilesConfig::default() })
    }

    #[test]
    fn a_rule_covers_its_path_and_what_is_below() {
        let rules = rules();
        let covered = |path| rules.covering(path).map(|rule| (rule.text.as_str(), rule.want));
        assert_eq!(covered("/etc/passwd"), Some(("/etc/passwd", WANT_CHANGE)));
        assert_eq!(covered("/home/a/.ssh/x/y"), Some(("/home/*/.ssh", WANT_CHANGE)));
        assert_eq!(covered("/k/host_rsa_key"), Some(("/k/host_*_key", WANT_CHANGE | WANT_READ)));
        for path in ["/etc/passwd-", "/etc", "/home/.ssh", "/k/host_key", "/x/etc/passwd"] {
            assert_eq!(covered(path), None, "{path}");
        }
    }

    #[test]
    fn folders_above_a_rule_lead_to_it() {
        for (path, leads) in [("/", true), ("/home", true), ("/home/a", true), ("/home/a/x", false), ("/var", false), ("/etc/passwd", true)]
        {
            assert_eq!(rules().leads_through(path), leads, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_it_was_made_of(parts in proptest::collection::vec("[ab]{0,3}", 1..4), between in proptest::collection::vec("[abc]{0,3}", 3)) {
            let pattern = parts.join("*");
            let name = parts.iter().zip(between.iter().map(Some).chain(std::iter::repeat(None)))
                .enumerate().map(|(at, (part, between))| if at + 1 < parts.len() { format!("{part}{}", between.map_or("", String::as_str)) } else { part.clone() })
                .collect::<String>();
            prop_assert!(matches(&pattern, &name), "{pattern} {name}");
        }

        #[test]
        fn without_a_star_it_is_equality(pattern in "[ab.]{0,4}", name in "[ab.]{0,4}") {
            prop_assert_eq!(matches(&pattern, &name), pattern == name);
        }
    }
}
