//! What there is to know of every event kind, out of the code: the text of docs/events.md and the JSON Schema of events.
//!
//! Fields and their words are those of the types, hooks and tiers those of the hook table. What is added here is what no type can
//! say: how a kind arises where no hook tells it, what a tier needs and cannot fill, how a kind is evaded, and what covers that.

mod evasions;
mod origins;
mod tiers;

use std::fmt::Write;

use bartizan_bus::event::{Body, EventJson, KindDescription};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use crate::capture::hooks::{Attach, CgroupPlace, Hook, Tier, hooks};
use crate::config::ignore::can_be_left_out;
use evasions::{EVASIONS, LEFT_OUT};
use origins::ORIGINS;
use tiers::{FLOOR, note};

/// Where the schema puts the types that several others use.
const DEFINITIONS: &str = "#/$defs/";

/// The type that has a form for each kind.
const BODY: &str = "Body";

/// JSON Schema of what `bartizan events --json` prints on a line.
pub fn schema() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<EventJson<'static>>()
}

/// The text of docs/events.md.
pub fn events() -> String {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12().for_serialize());
    let kinds = Body::describe(&mut generator);
    let event = <EventJson<'static> as schemars::JsonSchema>::json_schema(&mut generator);
    let mut out = String::from(HEAD);
    out.push_str("| kind | what it tells |\n|---|---|\n");
    for KindDescription { name, summary, body: _ } in &kinds {
        line(&mut out, format_args!("| [`{name}`](#{}) | {summary} |", name.replace(['.'], "")));
    }
    out.push_str("\n## Every event\n\n");
    fields(&mut out, event.as_value());
    for kind in &kinds {
        self::kind(&mut out, kind);
    }
    out.push_str("\n## Types\n");
    for (name, schema) in generator.definitions().iter().filter(|(name, _)| *name != BODY) {
        line(&mut out, format_args!("\n### {name}\n"));
        if let Some(text) = schema.get("description").and_then(Value::as_str) {
            line(&mut out, format_args!("{}\n", one_line(text)));
        }
        fields(&mut out, schema);
    }
    out
}

const HEAD: &str = "\
# Events

Generated from the code by `bartizan events --reference`; a test compares. `bartizan events --schema` prints the JSON Schema.

Linux 5.17 with BTF is the floor of everything: programs of all tiers are loaded as one object, and some call `bpf_loop`. A hook is carried by the
best of its tiers that the kernel has: `fexit`, `fentry` (functions of the kernel; needs BPF trampolines), `tp_btf` (tracepoints with types), `cgroup` (the
root of the unified hierarchy, which must be mounted), `fanotify`, `syscall_tracepoint`, `uprobe`, `iter`. *Since* is the oldest kernel that carries a tier;
what it says besides 5.17 came later, or is there in another form. Whether a kernel has a function with these parameters is asked of its BTF at the start,
and one that has not (compiled otherwise, changed since) takes the next tier. `bartizan status` and the event `sensor.start` say which tiers are in force
and what they cannot see. A field that a tier cannot fill is null, or is marked as the word of the caller.

What is told of a process besides comes from elsewhere. `user` is read from `/etc/passwd`. `exe.sha256` comes from the worker behind
[`process.hash`](#processhash), and `login` from [`auth.session_open`](#authsession_open). `container` is read from the control group's path at the exec,
and its name, image and pod by another thread from files that the runtimes keep; the first events of a container do not have them yet.

Whoever is root can blind all of it at once: stop the sensor (`sensor.stop`, or `sensor.gap` of the next start), set `kernel.ftrace_enabled` to 0, which
silences `fexit` and `fentry` (`kernel.sysctl`, `sensor.health`), or detach its programs (not told). Code that runs in the kernel can do so untold. What each
kind misses besides, and what the kernel side leaves out by itself ([architecture.md](architecture.md#filters-in-the-kernel)), stands with the kind.

";

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a `String` has no failure.
    let _ = writeln!(out, "{text}");
}

/// In the words of JSON, without line breaks, and without links into the code: of those the name stays.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("`None`", "null");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, link)) = rest.split_once("[`") {
        out.push_str(before);
        let Some((name, after)) = link.split_once("`]") else {
            out.push_str("[`");
            rest = link;
            continue;
        };
        out.push_str(&format!("`{}`", name.trim_start_matches("super::").trim_start_matches("Self::")));
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, behind)| behind);
    }
    out.push_str(rest);
    out
}

/// The section of one kind.
fn kind(out: &mut String, kind: &KindDescription) {
    let KindDescription { name, summary, body } = kind;
    line(out, format_args!("\n## {name}\n"));
    let text = body.get("description").and_then(Value::as_str).map_or_else(|| (*summary).to_owned(), one_line);
    line(out, format_args!("{text}\n"));
    fields(out, body.as_value());
    if let Some((_, origin)) = ORIGINS.iter().find(|(kind, _)| kind == name) {
        line(out, format_args!("\n{origin}"));
    }
    let carried: Vec<&Hook> = hooks().filter(|hook| hook.kinds.contains(name)).collect();
    if !carried.is_empty() {
        line(out, format_args!("\n| hook | tier | since | at | not seen | fields that it cannot fill |\n|---|---|---|---|---|---|"));
    }
    for hook in carried {
        for tier in hook.tiers {
            let Tier { name, programs: _, blind } = tier;
            let places = places(tier);
            let note = note(hook.name, name);
            let floor = note.and_then(|note| note.floor).unwrap_or(FLOOR);
            let fields = note.and_then(|note| note.fields).unwrap_or("");
            line(out, format_args!("| `{}` | `{name}` | {floor} | {places} | {} | {fields} |", hook.name, blind.unwrap_or("")));
        }
    }
    let configured = can_be_left_out(name).then_some(LEFT_OUT);
    let evasions: Vec<_> = EVASIONS.iter().filter(|(kind, _, _)| kind == name).copied().chain(configured).collect();
    if !evasions.is_empty() {
        line(out, format_args!("\n| evaded by | covered by |\n|---|---|"));
        evasions.iter().for_each(|(_, how, cover)| line(out, format_args!("| {how} | {cover} |")));
    }
}

/// Where the programs of a tier are, each place once.
fn places(tier: &Tier) -> String {
    let mut places: Vec<String> = Vec::new();
    for spec in tier.programs {
        let place = match spec.attach {
            Attach::TpBtf(name, _) => format!("`{name}`"),
            Attach::Fexit(name, _) => format!("return of `{name}`"),
            Attach::Fentry(name, _) => format!("entry of `{name}`"),
            Attach::Tracepoint(_, name) => format!("`{name}`"),
            Attach::Cgroup(CgroupPlace::Sysctl) => "`/proc/sys`".to_owned(),
            Attach::Cgroup(CgroupPlace::Ingress) => "packets in".to_owned(),
            Attach::Cgroup(CgroupPlace::Egress) => "packets out".to_owned(),
            Attach::Cgroup(CgroupPlace::PostBind4) => "IPv4 binds".to_owned(),
            Attach::Cgroup(CgroupPlace::PostBind6) => "IPv6 binds".to_owned(),
            Attach::Cgroup(CgroupPlace::SockCreate) => "new INET sockets".to_owned(),
            Attach::IterTask => "task iterator".to_owned(),
            Attach::Uprobe { library, symbol, .. } => format!("`{symbol}` of {}", library.soname()),
            Attach::Fanotify(_) => "fanotify".to_owned(),
        };
        let place = if spec.optional { format!("{place} (where there is one)") } else { place };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.is_empty() { "`/proc`".to_owned() } else { places.join(", ") }
}

/// The fields of an object, the values of an enumeration, or the forms of a choice.
fn fields(out: &mut String, schema: &Value) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        return table(out, properties);
    }
    let Some(forms) = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(*key)).and_then(Value::as_array) else {
        let values = schema.get("enum").and_then(Value::as_array);
        let values: Vec<String> = values.into_iter().flatten().map(|value| format!("`{value}`")).collect();
        if !values.is_empty() {
            line(out, format_args!("{}", values.join(", ")));
        }
        return;
    };
    for form in forms {
        let text = form.get("description").and_then(Value::as_str).map(one_line).unwrap_or_default();
        match form.get("const").or_else(|| form.pointer("/properties/type/const")) {
            Some(value) => line(out, format_args!("- `{}`: {text}", value.as_str().unwrap_or_default())),
            None => line(out, format_args!("- {}", type_of(form))),
        }
        if let Some(properties) = form.get("properties").and_then(Value::as_object) {
            for (name, property) in properties.iter().filter(|(name, _)| *name != "type") {
                let text = property.get("description").and_then(Value::as_str).map(one_line).unwrap_or_default();
                line(out, format_args!("  - `{name}` ({}): {text}", type_of(property)));
            }
        }
    }
}

fn table(out: &mut String, properties: &Map<String, Value>) {
    line(out, format_args!("| field | type | meaning |\n|---|---|---|"));
    for (name, property) in properties {
        let text = property.get("description").and_then(Value::as_str).map(one_line).unwrap_or_default();
        line(out, format_args!("| `{name}` | {} | {} |", type_of(property), text.replace('|', "\\|")));
    }
}

/// A type in words.
fn type_of(schema: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix(DEFINITIONS).unwrap_or(name);
        if name == BODY {
            return "the fields of its kind, below".to_owned();
        }
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(forms) = schema.get("anyOf").and_then(Value::as_array) {
        let forms: Vec<String> = forms.iter().map(type_of).filter(|form| form != "null").collect();
        return format!("{} or null", forms.join(" or "));
    }
    match schema.get("type") {
        Some(Value::String(name)) if name == "array" => {
            format!("list of {}", schema.get("items").map(type_of).unwrap_or_else(|| "anything".to_owned()))
        }
        Some(Value::String(name)) => format_name(name, schema),
        Some(Value::Array(names)) => {
            let names: Vec<String> = names.iter().filter_map(Value::as_str).map(|name| format_name(name, schema)).collect();
            names.join(" or ")
        }
        _ => "anything".to_owned(),
    }
}

fn format_name(name: &str, schema: &Value) -> String {
    match (name, schema.get("format").and_then(Value::as_str)) {
        ("null" | "boolean", _) | (_, None) => name.to_owned(),
        (_, Some(format)) => format.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::tiers::{NOTES, TierNote};
    use super::*;

    #[test]
    fn the_page_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == events(), "docs/events.md is not what the code says; write it with `bartizan events --reference > docs/events.md`");
    }

    #[test]
    fn every_kind_says_how_it_is_evaded_and_how_it_arises() {
        for (kind, how, cover) in EVASIONS {
            assert!(Body::KINDS.contains(kind), "{kind}");
            assert!(!how.is_empty() && !cover.is_empty());
        }
        for kind in Body::KINDS {
            assert!(EVASIONS.iter().any(|(of, _, _)| of == kind), "say in document/evasions.rs how {kind} is evaded");
            let arises = hooks().any(|hook| hook.kinds.contains(kind)) || ORIGINS.iter().any(|(of, _)| of == kind);
            assert!(arises, "{kind} has no hook: say in document/origins.rs how it arises");
        }
        let mut generator = SchemaGenerator::default();
        for kind in Body::describe(&mut generator) {
            assert!(kind.body.get("properties").is_some(), "{} has no fields", kind.name);
        }
    }

    #[test]
    fn what_is_said_of_kinds_and_tiers_is_about_one_that_is_there_and_said_once() {
        for (kind, _) in ORIGINS {
            assert!(Body::KINDS.contains(kind), "{kind}");
            assert_eq!(ORIGINS.iter().filter(|(of, _)| of == kind).count(), 1, "{kind}");
        }
        for TierNote { hook: of, tier: name, floor, fields } in NOTES {
            assert!(hooks().any(|hook| hook.name == *of && hook.tiers.iter().any(|tier| tier.name == *name)), "{of}:{name}");
            assert_eq!(NOTES.iter().filter(|note| (note.hook, note.tier) == (*of, *name)).count(), 1, "{of}:{name}");
            assert!(floor.is_some() || fields.is_some());
        }
    }

    #[test]
    fn links_into_the_code_become_names() {
        let text = "One of [`Exec::relay`], or\n[`login`](super::Auth::login) in [`super::Process`]; `None` [`without an end.";
        assert_eq!(one_line(text), "One of `Exec::relay`, or `login` in `Process`; null [`without an end.");
    }

    #[test]
    fn the_schema_takes_what_is_printed() {
        let schema = schema();
        let properties = schema.get("properties").and_then(Value::as_object).expect("fields");
        for field in ["id", "time", "kind", "process", "target", "body"] {
            assert!(properties.contains_key(field), "{field}");
        }
    }
}
