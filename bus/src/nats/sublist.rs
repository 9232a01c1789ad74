//! Who is subscribed to what: subjects and patterns to subscriptions, found by a concrete subject.

use std::collections::HashMap;

type Map<V> = HashMap<Box<[u8]>, V, foldhash::fast::RandomState>;

/// One subscription in the list.
#[derive(Debug, Clone)]
struct Entry<T> {
    id: u64,
    queue: Option<Box<[u8]>>,
    target: T,
}

#[derive(Debug)]
struct Node<T> {
    children: Map<Node<T>>,
    star: Option<Box<Node<T>>>,
    rest: Vec<Entry<T>>,
    here: Vec<Entry<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { children: Map::default(), star: None, rest: Vec::new(), here: Vec::new() }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_none() && self.rest.is_empty() && self.here.is_empty()
    }
}

/// Who gets a message: everybody in `plain`, and one of each group.
#[derive(Debug, Clone)]
pub(crate) struct Matches<T> {
    pub(crate) plain: Vec<T>,
    /// Queue groups by name.
    pub(crate) groups: Vec<(Box<[u8]>, Vec<T>)>,
}

impl<T> Default for Matches<T> {
    fn default() -> Self {
        Self { plain: Vec::new(), groups: Vec::new() }
    }
}

impl<T: Clone> Matches<T> {
    fn add(&mut self, entries: &[Entry<T>]) {
        for Entry { queue, target, .. } in entries {
            match queue {
                None => self.plain.push(target.clone()),
                Some(queue) => match self.groups.iter_mut().find(|(name, _)| name == queue) {
                    Some((_, members)) => members.push(target.clone()),
                    None => self.groups.push((queue.clone(), vec![target.clone()])),
                },
            }
        }
    }

    /// Calls this with everybody who may get it; with a queue group, with its members only.
    pub(crate) fn each_of<'a>(&'a self, queue: Option<&str>, each: impl FnMut(&'a T)) {
        let plain = if queue.is_none() { &self.plain[..] } else { &[] };
        let groups = self.groups.iter().filter(|(name, _)| queue.is_none_or(|queue| queue.as_bytes() == &**name));
        plain.iter().chain(groups.flat_map(|(_, members)| members)).for_each(each);
    }

    /// Whether nobody gets it.
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}

/// All subscriptions. Subjects without wildcards are found by one look; patterns by a walk through the tokens.
#[derive(Debug)]
pub(crate) struct Sublist<T> {
    literal: Map<Vec<Entry<T>>>,
    patterns: Node<T>,
    with_wildcards: usize,
    len: usize,
}

impl<T> Default for Sublist<T> {
    fn default() -> Self {
        Self { literal: Map::default(), patterns: Node::default(), with_wildcards: 0, len: 0 }
    }
}

fn has_wildcard(subject: &[u8]) -> bool {
    subject.split(|byte| *byte == b'.').any(|token| token == b"*" || token == b">")
}

impl<T: Clone> Sublist<T> {
    /// Subscriptions held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a subscription; the subject is a valid pattern. True when it is the subject's first.
    pub(crate) fn insert(&mut self, subject: &[u8], queue: Option<&[u8]>, id: u64, target: T) -> bool {
        self.len += 1;
        let entry = Entry { id, queue: queue.map(Into::into), target };
        if !has_wildcard(subject) {
            let entries = self.literal.entry(subject.into()).or_default();
            entries.push(entry);
            return entries.len() == 1;
        }
        self.with_wildcards += 1;
        let mut node = &mut self.patterns;
        for token in subject.split(|byte| *byte == b'.') {
            match token {
                b">" => {
                    node.rest.push(entry);
                    return node.rest.len() == 1;
                }
                b"*" => node = node.star.get_or_insert_default(),
                token => node = node.children.entry(token.into()).or_default(),
            }
        }
        node.here.push(entry);
        node.here.len() == 1
    }

    /// Removes a subscription. True when it was the subject's last.
    pub(crate) fn remove(&mut self, subject: &[u8], id: u64) -> bool {
        if !has_wildcard(subject) {
            let Some(entries) = self.literal.get_mut(subject) else { return false };
            let before = entries.len();
            entries.retain(|entry| entry.id != id);
            self.len -= before - entries.len();
            if entries.is_empty() {
                self.literal.remove(subject);
                return true;
            }
            return false;
        }
        let tokens: Vec<&[u8]> = subject.split(|byte| *byte == b'.').collect();
        let removed = remove_from(&mut self.patterns, &tokens, id);
        self.len -= removed;
        self.with_wildcards -= removed;
        removed > 0
    }

    /// Who is subscribed to a concrete subject.
    pub(crate) fn matches(&self, subject: &[u8]) -> Matches<T> {
        let mut found = Matches::default();
        if let Some(entries) = self.literal.get(subject) {
            found.add(entries);
        }
        if self.with_wildcards > 0 {
            walk(&self.patterns, subject, &mut found);
        }
        found
    }
}

fn remove_from<T>(node: &mut Node<T>, tokens: &[&[u8]], id: u64) -> usize {
    let drain = |entries: &mut Vec<Entry<T>>| {
        let before = entries.len();
        entries.retain(|entry| entry.id != id);
        before - entries.len()
    };
    match tokens.split_first() {
        None => drain(&mut node.here),
        Some((&b">", _)) => drain(&mut node.rest),
        Some((&b"*", rest)) => {
            let removed = node.star.as_mut().map_or(0, |star| remove_from(star, rest, id));
            if node.star.as_ref().is_some_and(|star| star.is_empty()) {
                node.star = None;
            }
            removed
        }
        Some((token, rest)) => {
            let Some(child) = node.children.get_mut(*token) else { return 0 };
            let removed = remove_from(child, rest, id);
            if child.is_empty() {
                node.children.remove(*token);
            }
            removed
        }
    }
}

fn walk<T: Clone>(node: &Node<T>, subject: &[u8], found: &mut Matches<T>) {
    found.add(&node.rest);
    let (token, rest) = match memchr::memchr(b'.', subject) {
        Some(dot) => (&subject[..dot], Some(&subject[dot + 1..])),
        None => (subject, None),
    };
    for next in [node.children.get(token), node.star.as_deref()].into_iter().flatten() {
        match rest {
            Some(rest) => walk(next, rest, found),
            None => found.add(&next.here),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pattern::Pattern;

    fn subject() -> impl Strategy<Value = String> {
        proptest::collection::vec("[abc]", 1..4).prop_map(|tokens| tokens.join("."))
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_every_pattern_finds(
            subs in proptest::collection::vec((prop_oneof![pattern_text(), Just(">".to_owned())], prop::option::of("[pq]"), any::<bool>()), 0..30),
            subjects in proptest::collection::vec(subject(), 1..10),
        ) {
            let mut list = Sublist::default();
            for (id, (pattern, queue, _)) in subs.iter().enumerate() {
                list.insert(pattern.as_bytes(), queue.as_deref().map(str::as_bytes), id as u64, id);
            }
            for (id, (pattern, _, gone)) in subs.iter().enumerate() {
                if *gone {
                    list.remove(pattern.as_bytes(), id as u64);
                }
            }
            prop_assert_eq!(list.len(), subs.iter().filter(|(.., gone)| !gone).count());
            for subject in subjects {
                let found = list.matches(subject.as_bytes());
                let passes = |pattern: &str| pattern.parse::<Pattern>().expect("a pattern").matches(&subject);
                let expected = |wanted: Option<&str>| -> Vec<usize> {
                    subs.iter().enumerate().filter(|(_, (pattern, queue, gone))| !gone && queue.as_deref() == wanted && passes(pattern)).map(|(id, _)| id).collect()
                };
                let sorted = |mut ids: Vec<usize>| { ids.sort_unstable(); ids };
                prop_assert_eq!(sorted(found.plain.clone()), expected(None));
                for queue in ["p", "q"] {
                    let members = found.groups.iter().find(|(name, _)| &**name == queue.as_bytes()).map(|(_, members)| members.clone()).unwrap_or_default();
                    prop_assert_eq!(sorted(members), expected(Some(queue)));
                }
            }
        }
    }

    fn pattern_text() -> impl Strategy<Value = String> {
        (proptest::collection::vec("[abc*]", 1..4), any::<bool>())
            .prop_map(|(tokens, rest)| tokens.join(".") + if rest { ".>" } else { "" })
    }
}
