//! Finds the properties in a file of any of the three shapes, and merges what is included.

use std::collections::BTreeSet;

use super::Ref;
use super::nearest::{listed, nearest};
use super::properties::{LISTS, NAMES};
use super::read::{Property, Reader, short};
use super::source::{self, Span};
use super::yaml::{self, Entry, Node, Value};

/// Files included by files included by …
const DEEPEST: usize = 8;
/// Files in all.
const MOST_FILES: usize = 4096;
/// Properties whose values are never shown, however their names are mistyped.
const SECRETS: [&str; 3] = ["psk", "ppk", "instance_private_key"];

/// The properties of one half of the fleet.
pub(crate) struct Section {
    /// Where they begin.
    pub(crate) at: Span,
    pub(crate) entries: Vec<Entry>,
}

/// What a manifest says for either half.
pub(crate) struct Sections {
    pub(crate) main: Section,
    pub(crate) windows: Option<Section>,
}

/// Reads a file and everything that it includes. `None` where there is nothing to check further.
pub(crate) fn sections(reader: &mut Reader<'_>, name: &str, text: &str) -> Option<Sections> {
    let (mut main, mut windows) = one_file(reader, name, text)?;
    if main.is_none() {
        main = windows.take();
    }
    let Some(mut main) = main else {
        nothing(reader);
        return None;
    };
    let mut seen = BTreeSet::from([name.to_owned()]);
    include(reader, &mut main, name, &mut seen, 0);
    if let Some(half) = &mut windows {
        let mut seen = BTreeSet::from([name.to_owned()]);
        include(reader, half, name, &mut seen, 0);
    }
    Some(Sections { main, windows })
}

type Halves = (Option<Section>, Option<Section>);

fn one_file(reader: &mut Reader<'_>, name: &str, text: &str) -> Option<Halves> {
    let file = reader.found.sources.add(name, text);
    let root = yaml::read(file, text, &mut reader.found).ok()?;
    let Some(root) = root.filter(|root| !root.is_null()) else {
        return Some((None, None));
    };
    hide_secrets(reader, &root);
    let halves = find(reader, root)?;
    for section in [&halves.0, &halves.1].into_iter().flatten() {
        reader.check_keys(&section.entries, NAMES, "the manifest");
    }
    Some(halves)
}

fn nothing(reader: &mut Reader<'_>) {
    let span = Span { file: 0, line: 1, column: 1, width: 1 };
    let remedy = "write at least `ipsec_subnets` and the credentials: `instance_certificate`, \
                  `instance_private_key` and `ca_certificates`, or `psk`";
    reader.error(span, "the file is empty", remedy);
}

fn find(reader: &mut Reader<'_>, root: Node) -> Option<Halves> {
    let span = root.span;
    let kind = root.kind();
    if let Some(addons) = root.get("addons") {
        return addons_of(reader, addons);
    }
    if let Some(ipsec) = root.get("properties").and_then(|entry| entry.value.get("ipsec")) {
        return Some((Some(section(reader, ipsec)?), None));
    }
    if let Some(ipsec) = root.get("ipsec") {
        beside_ipsec(reader, root.map().unwrap_or_default());
        return Some((Some(section(reader, ipsec)?), None));
    }
    match root.value {
        Value::Map(entries) => Some((
            Some(Section { at: entries.first().map_or(span, |e| e.key_span), entries }),
            None,
        )),
        _ => {
            let remedy = "write `ipsec_subnets:` and the other properties, each as `key: value`";
            reader.error(
                span,
                format!("a manifest must be a map of keys and values, found {kind}"),
                remedy,
            );
            None
        }
    }
}

/// Nothing else may stand where `ipsec:` begins the file; a property there was not indented.
fn beside_ipsec(reader: &mut Reader<'_>, entries: &[Entry]) {
    let (properties, others): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| NAMES.contains(&entry.key.as_str()));
    for entry in properties {
        let message = format!("`{}` stands beside `ipsec:`", entry.key);
        reader.error(entry.key_span, message, "indent it below `ipsec:`");
    }
    let others: Vec<Entry> = others.into_iter().cloned().collect();
    reader.check_keys(&others, &["ipsec"], "a file that begins with `ipsec:`");
}

fn section(reader: &mut Reader<'_>, ipsec: &Entry) -> Option<Section> {
    match &ipsec.value.value {
        Value::Map(entries) => Some(Section { at: ipsec.key_span, entries: entries.clone() }),
        _ => {
            let message =
                format!("`ipsec` must be a map of properties, found {}", ipsec.value.kind());
            let remedy = "indent the properties deeper than `ipsec:`, as in\nipsec:\n  ipsec_subnets:\n  - 10.0.0.0/16";
            reader.error(ipsec.key_span, message, remedy);
            None
        }
    }
}

/// A BOSH runtime config: of all its addons, those with a job of ours.
fn addons_of(reader: &mut Reader<'_>, addons: &Entry) -> Option<Halves> {
    let p = Property { name: "addons", node: &addons.value };
    let items = reader.list(p, "name: ipsec-addon")?;
    let mut halves = (None, None);
    let mut others = Vec::new();
    let mut refused = false;
    for addon in items {
        for job in jobs(addon) {
            let half = match job.get("name").and_then(|name| name.value.text()) {
                Some("ipsec") => &mut halves.0,
                Some("ipsec-win") => &mut halves.1,
                Some(other) => {
                    others.push((other, job.span));
                    continue;
                }
                None => continue,
            };
            match job_section(reader, addon, job) {
                Some(new) => put(reader, half, new),
                None => refused = true,
            }
        }
    }
    if halves.0.is_none() && halves.1.is_none() {
        if !refused {
            no_job(reader, addons, &others);
        }
        return None;
    }
    Some(halves)
}

fn jobs(addon: &Node) -> &[Node] {
    match addon.get("jobs").map(|jobs| &jobs.value.value) {
        Some(Value::List(jobs)) => jobs,
        _ => &[],
    }
}

/// The properties of a job; as in BOSH, those of the addon count only where the job has none.
fn job_section(reader: &mut Reader<'_>, addon: &Node, job: &Node) -> Option<Section> {
    let properties = job.get("properties").or_else(|| addon.get("properties"));
    if let Some(ipsec) = properties.and_then(|p| p.value.get("ipsec")) {
        return section(reader, ipsec);
    }
    let span = properties.map_or(job.span, |p| p.key_span);
    let keys = properties.and_then(|p| p.value.map()).unwrap_or_default();
    let near = keys.iter().find(|entry| nearest(&entry.key, ["ipsec"]).is_some());
    match near {
        Some(entry) => {
            let message =
                format!("unknown key `{}` in the properties of job `ipsec`", short(&entry.key));
            reader.error(entry.key_span, message, "did you mean `ipsec`?");
        }
        None => reader.error(
            span,
            "the job `ipsec` has no properties",
            "add to this addon:\nproperties:\n  ipsec:\n    ipsec_subnets:\n    - 10.0.0.0/16",
        ),
    }
    None
}

/// One manifest serves all hosts: two addons must not tell them different things.
fn put(reader: &mut Reader<'_>, half: &mut Option<Section>, new: Section) {
    let Some(old) = half else {
        *half = Some(new);
        return;
    };
    let differs = new.entries.iter().find(|entry| {
        !old.entries.iter().any(|known| known.key == entry.key && known.value.same(&entry.value))
    });
    let missing =
        old.entries.iter().find(|entry| !new.entries.iter().any(|known| known.key == entry.key));
    if let Some(key) = differs.or(missing).map(|entry| entry.key.clone()) {
        let message =
            format!("a second addon with this job says something else: `{}` differs", short(&key));
        let remedy = format!(
            "all hosts share one manifest: make both alike, or keep one; the first is in line {}",
            old.at.line
        );
        reader.error(new.at, message, remedy);
    }
}

fn no_job(reader: &mut Reader<'_>, addons: &Entry, others: &[(&str, Span)]) {
    let near = others.iter().find(|(name, _)| nearest(name, ["ipsec", "ipsec-win"]).is_some());
    let message = "no addon has a job named `ipsec`";
    match near {
        Some((name, span)) => {
            reader.error(
                *span,
                message,
                format!("did you mean `name: ipsec` where `{}` stands?", short(name)),
            );
        }
        None if others.is_empty() => {
            reader.error(addons.key_span, message, "add `jobs:` with `- name: ipsec` to the addon");
        }
        None => {
            let names = listed(others.iter().take(10).map(|(name, _)| *name));
            reader.error(
                addons.key_span,
                message,
                format!("the jobs found are {names}; one must be `ipsec`"),
            );
        }
    }
}

/// Merges the files of `include` into the section: lists are joined, all else may be said only once.
fn include(
    reader: &mut Reader<'_>,
    into: &mut Section,
    from: &str,
    seen: &mut BTreeSet<String>,
    depth: usize,
) {
    let Some(index) = into.entries.iter().position(|entry| entry.key == "include") else { return };
    let entry = into.entries.remove(index);
    let p = Property { name: "include", node: &entry.value };
    let Some(items) = reader.list(p, "peers/*.yml") else { return };
    for item in items {
        let p = Property { name: "include", node: item };
        let Some(path) = reader.text(p, "more.yml") else { continue };
        let paths = match reader.resolver.expand(path, from) {
            Ok(paths) => paths,
            Err(why) => {
                reader.error(item.span, format!("cannot include `{}`: {why}", short(path)), "");
                continue;
            }
        };
        for path in paths {
            if let Some(part) = part(reader, &path, from, item.span, seen, depth) {
                absorb(reader, into, part);
            }
        }
    }
}

fn part(
    reader: &mut Reader<'_>,
    path: &str,
    from: &str,
    at: Span,
    seen: &mut BTreeSet<String>,
    depth: usize,
) -> Option<Section> {
    if !seen.insert(path.to_owned()) {
        reader.error(at, format!("`{}` is included twice", short(path)), "include each file once");
        return None;
    }
    if depth >= DEEPEST || seen.len() > MOST_FILES {
        let message = "too many files include one another";
        reader.error(at, message, format!("at most {MOST_FILES} files, {DEEPEST} levels deep"));
        return None;
    }
    let reference = Ref::Include { path: path.to_owned(), from: from.to_owned() };
    let text = match reader.resolver.read(&reference) {
        Ok(text) => text,
        Err(why) => {
            let remedy = "remove the line, or put the file there";
            reader.error(at, format!("cannot include `{}`: {why}", short(path)), remedy);
            return None;
        }
    };
    let (main, _) = one_file(reader, path, &text)?;
    let mut section = main?;
    include(reader, &mut section, path, seen, depth + 1);
    Some(section)
}

fn absorb(reader: &mut Reader<'_>, into: &mut Section, part: Section) {
    for entry in part.entries {
        let Some(known) = into.entries.iter_mut().find(|known| known.key == entry.key) else {
            into.entries.push(entry);
            continue;
        };
        if known.value.is_null() {
            *known = entry;
            continue;
        }
        if LISTS.contains(&entry.key.as_str())
            && let (Value::List(all), Value::List(more)) =
                (&mut known.value.value, &entry.value.value)
        {
            all.extend(more.iter().cloned());
            continue;
        }
        if !entry.value.is_null() && !known.value.same(&entry.value) {
            let first = known.key_span;
            let name = reader.found.sources().name(first.file).to_owned();
            let message = format!("`{}` is already set to something else", short(&entry.key));
            reader.error(
                entry.key_span,
                message,
                format!("remove it here or in {name}, line {}", first.line),
            );
        }
    }
}

/// Cuts the values of secret properties out of the lines that may be shown, wherever they stand.
fn hide_secrets(reader: &mut Reader<'_>, node: &Node) {
    match &node.value {
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| hide_secrets(reader, item)),
        Value::Map(entries) => {
            for entry in entries {
                if source::names_a_secret(&entry.key) || nearest(&entry.key, SECRETS).is_some() {
                    hide(reader, &entry.value);
                } else {
                    hide_secrets(reader, &entry.value);
                }
            }
        }
    }
}

/// References are no secrets: `file:…` is what the operator wants to see in an error.
fn hide(reader: &mut Reader<'_>, node: &Node) {
    let text = node.text().unwrap_or_default().trim_start();
    if text.starts_with("file:") || text.starts_with("credential:") || node.is_null() {
        return;
    }
    let (first, last) = node.lines;
    let column = if first == node.span.line { node.span.column } else { 1 };
    reader.found.sources.hide(node.span.file, first, last, column);
}
