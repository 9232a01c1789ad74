//! A JSON object of another crate's status, taken apart key by key. What nobody takes is still there at the end, and is
//! printed: a newer part of Bartizan may say more than this page knows, and nothing of it is lost.

use serde_json::{Map, Value};

use crate::cli::escape::{self, escape};

/// The keys that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// All of `value`.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Object(map) => Self(map.clone()),
            Value::Null => Self::default(),
            other => Self(Map::from_iter([("value".to_owned(), other.clone())])),
        }
    }

    /// Nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the value of `key`, if it is of the form that `read` reads. Null is read as nothing.
    fn take<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.0.get(key)?;
        let taken = read(value);
        if taken.is_some() || value.is_null() {
            self.0.remove(key);
        }
        taken
    }

    /// Takes a number.
    pub(super) fn number(&mut self, key: &str) -> Option<u64> {
        self.take(key, Value::as_u64)
    }

    /// Takes a number; 0 if there is none.
    pub(super) fn count(&mut self, key: &str) -> u64 {
        self.number(key).unwrap_or_default()
    }

    /// Takes a truth.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, Value::as_bool)
    }

    /// Takes a text, safe for the terminal.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take(key, |value| value.as_str().map(escape))
    }

    /// Takes an object; an empty one if there is none.
    pub(super) fn object(&mut self, key: &str) -> Self {
        self.take(key, |value| value.is_object().then(|| Self::of(value))).unwrap_or_default()
    }

    /// Takes an array of objects; an empty one if there is none.
    pub(super) fn list(&mut self, key: &str) -> Vec<Self> {
        let objects = |value: &Value| value.as_array().filter(|items| items.iter().all(Value::is_object)).cloned();
        self.take(key, objects).unwrap_or_default().iter().map(Self::of).collect()
    }

    /// Takes every number that is left, as `name number`; those that are 0 say nothing.
    pub(super) fn counters(&mut self) -> Vec<String> {
        let names: Vec<String> = self.0.iter().filter(|(_, value)| value.is_u64()).map(|(name, _)| name.clone()).collect();
        names.iter().filter_map(|name| self.counter(name)).collect()
    }

    /// Takes a number as `name number`, unless it is 0.
    pub(super) fn counter(&mut self, name: &str) -> Option<String> {
        self.number(name).filter(|count| *count > 0).map(|count| format!("{} {count}", escape(name)))
    }

    /// What is left, as `prefix` `key=value`.
    pub(super) fn rest(self, prefix: &str) -> Vec<String> {
        let said = |value: &Value| value.as_str().map_or_else(|| escape::json(&value.to_string()), escape);
        self.0.iter().map(|(key, value)| format!("{prefix}{}={}", escape(key), said(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_takes_is_left() {
        let mut fields = Fields::of(&json!({
            "n": 1, "zero": 0, "t": "a\u{1b}", "none": null, "o": { "x": 1 }, "l": [{ "y": 2 }], "odd": -1, "mixed": [1, {}], "yes": true,
        }));
        assert_eq!(
            (fields.number("n"), fields.text("t"), fields.text("none"), fields.flag("yes")),
            (Some(1), Some("a\\x1b".into()), None, Some(true))
        );
        assert_eq!(fields.object("o").rest("o."), ["o.x=1"]);
        assert_eq!(fields.list("l").pop().expect("an item").counters(), ["y 2"]);
        assert_eq!((fields.number("odd"), fields.list("mixed").len(), fields.counter("zero")), (None, 0, None));
        assert_eq!(fields.rest("more."), ["more.mixed=[1,{}]", "more.odd=-1"]);
        assert_eq!(Fields::of(&json!([1])).rest(""), ["value=[1]"]);
        assert!(Fields::of(&Value::Null).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_of_it_can_draw(key in any::<String>(), text in any::<String>()) {
            let rest = Fields::of(&json!({ &key: &text, "nested": { &key: [&text] } })).rest("");
            prop_assert!(rest.iter().all(|part| !part.chars().any(char::is_control)));
        }
    }
}
