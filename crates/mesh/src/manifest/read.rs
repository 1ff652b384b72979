//! Values out of a tree, with a finding for each that is not what is meant.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::nearest::{listed, nearest};
use super::secret::SecretBytes;
use super::source::{self, Span};
use super::yaml::{Entry, Node, Value};
use super::{Options, Ref, Resolver, quantity};

/// Reads values and collects what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) found: Diagnostics,
    pub(crate) resolver: &'a dyn Resolver,
    pub(crate) options: Options,
}

/// A property and its value.
#[derive(Clone, Copy)]
pub(crate) struct Property<'a> {
    pub(crate) name: &'a str,
    pub(crate) node: &'a Node,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(resolver: &'a dyn Resolver, options: Options) -> Self {
        Self { found: Diagnostics::default(), resolver, options }
    }

    pub(crate) fn error(
        &mut self,
        span: Span,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.push(span, message, remedy);
    }

    /// Every key must be known and stand there once.
    pub(crate) fn check_keys(&mut self, entries: &[Entry], known: &[&str], place: &str) {
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for entry in entries {
            if let Some(first) = seen.insert(&entry.key, entry.key_span) {
                let name = self.found.sources().name(first.file).to_owned();
                self.error(
                    entry.key_span,
                    format!("`{}` is given twice", short(&entry.key)),
                    format!("keep one of the two; the first is in {name}, line {}", first.line),
                );
            } else if !known.contains(&entry.key.as_str()) {
                self.unknown_key(entry, known, place);
            }
        }
    }

    fn unknown_key(&mut self, entry: &Entry, known: &[&str], place: &str) {
        let span = entry.key_span;
        let remedy = match nearest(&entry.key, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("remove it; known in {place} are: {}", known.join(", ")),
        };
        self.error(span, format!("unknown key `{}` in {place}", short(&entry.key)), remedy);
    }

    /// "`x` must be …, found …".
    pub(crate) fn expected(&mut self, p: Property<'_>, what: &str, example: &str) {
        let message = format!("`{}` must be {what}, found {}", p.name, p.node.kind());
        self.error(p.node.span, message, format!("write for instance `{example}`"));
    }

    pub(crate) fn text<'n>(&mut self, p: Property<'n>, example: &str) -> Option<&'n str> {
        let text = p.node.text().filter(|_| !p.node.is_null());
        if text.is_none() {
            self.expected(p, "a text", &format!("{}: {example}", p.name));
        }
        text
    }

    pub(crate) fn truth(&mut self, p: Property<'_>) -> Option<bool> {
        if let Value::Scalar(scalar) = &p.node.value
            && scalar.plain
        {
            match scalar.text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => return Some(true),
                "false" | "no" | "off" => return Some(false),
                _ => {}
            }
        }
        let found =
            p.node.text().map_or(p.node.kind().to_owned(), |text| format!("`{}`", short(text)));
        self.error(
            p.node.span,
            format!("`{}` must be true or false, found {found}", p.name),
            format!("write `{0}: true` or `{0}: false`, without quotes", p.name),
        );
        None
    }

    pub(crate) fn number(
        &mut self,
        p: Property<'_>,
        range: RangeInclusive<i64>,
        unit: &str,
    ) -> Option<i64> {
        let value = p.node.text().and_then(|text| text.trim().parse::<i64>().ok());
        let of = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
        let bounds = format!("write a whole number{of} from {} to {}", range.start(), range.end());
        match value {
            Some(value) if range.contains(&value) => Some(value),
            Some(value) => {
                self.error(p.node.span, format!("`{}` is out of range: {value}", p.name), bounds);
                None
            }
            None => {
                let found = p
                    .node
                    .text()
                    .map_or(p.node.kind().to_owned(), |text| format!("`{}`", short(text)));
                let message = format!("`{}` must be a whole number{of}, found {found}", p.name);
                self.error(p.node.span, message, bounds);
                None
            }
        }
    }

    /// A time within bounds.
    pub(crate) fn duration(
        &mut self,
        p: Property<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let text = self.text(p, "30m")?;
        let bounds = format!(
            "write a time from {} to {}, as in `90s`, `30m`, `8h`; a plain number is seconds",
            human(*range.start()),
            human(*range.end())
        );
        match quantity::duration(text) {
            Some(value) if range.contains(&value) => return Some(value),
            Some(_) => self.error(
                p.node.span,
                format!("`{}` is out of range: {}", p.name, short(text)),
                bounds,
            ),
            None => self.error(
                p.node.span,
                format!("`{}` is not a time: `{}`", p.name, short(text)),
                bounds,
            ),
        }
        None
    }

    /// One of a few words. `synonyms` are refused, but with the right word.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        p: Property<'_>,
        words: &[(&str, T)],
        synonyms: &[(&str, &str)],
    ) -> Option<T> {
        let names = || words.iter().map(|(name, _)| *name);
        let text = self.text(p, words.first().map_or("", |(name, _)| name))?;
        if let Some((_, value)) =
            words.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()))
        {
            return Some(*value);
        }
        let meant = synonyms
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(text.trim()))
            .map(|(_, name)| *name)
            .or_else(|| nearest(text, names()));
        let remedy = match meant {
            Some(name) => format!("did you mean `{name}`? Known are {}", listed(names())),
            None => format!("write {}", listed(names())),
        };
        self.error(p.node.span, format!("unknown value `{}` of `{}`", short(text), p.name), remedy);
        None
    }

    /// The items of a list. A single value is an error, nothing is an empty list.
    pub(crate) fn list<'n>(&mut self, p: Property<'n>, example: &str) -> Option<&'n [Node]> {
        match &p.node.value {
            Value::List(items) => Some(items),
            _ if p.node.is_null() => Some(&[]),
            _ => {
                let message = format!("`{}` must be a list, found {}", p.name, p.node.kind());
                let remedy = format!("begin each item with `- `:\n{}:\n- {example}", p.name);
                self.error(p.node.span, message, remedy);
                None
            }
        }
    }

    /// A value that may stand elsewhere: as it is, `file:PATH`, or `credential:NAME`.
    pub(crate) fn resolved(&mut self, p: Property<'_>) -> Option<SecretBytes> {
        let Some(text) = p.node.text().filter(|_| !p.node.is_null()) else {
            self.expected(
                p,
                "a text, `file:PATH` or `credential:NAME`",
                &format!("{}: file:/etc/warren/…", p.name),
            );
            return None;
        };
        let word = text.trim();
        let reference = if let Some(path) = word.strip_prefix("file:") {
            let from = self.found.sources().name(p.node.span.file).to_owned();
            Ref::File { path: path.trim().to_owned(), from }
        } else if let Some(name) = word.strip_prefix("credential:") {
            Ref::Credential { name: name.trim().to_owned() }
        } else if word.starts_with("((") && word.ends_with("))") {
            let remedy = "fill it in first: `bosh interpolate FILE --vars-store …`, or write `file:PATH` instead";
            self.error(
                p.node.span,
                format!("`{}` is a variable that was not filled in", p.name),
                remedy,
            );
            return None;
        } else {
            return Some(SecretBytes::new(text.as_bytes().to_vec()));
        };
        match self.resolver.read(&reference) {
            Ok(text) => Some(SecretBytes::new(text.into_bytes())),
            Err(why) => {
                let remedy = "the file must be there and readable when the manifest is read";
                self.error(
                    p.node.span,
                    format!("`{}`: cannot read what it refers to: {why}", p.name),
                    remedy,
                );
                None
            }
        }
    }
}

/// What was written, short enough for a message; nothing that may be a piece of a key.
pub(crate) fn short(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    if source::base64_in(line).is_some() {
        return source::HIDDEN.to_owned();
    }
    if line.chars().count() > 60 {
        format!("{}…", line.chars().take(60).collect::<String>())
    } else {
        line.to_owned()
    }
}

/// A time as one would write it.
pub(crate) fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.is_zero() => "0".to_owned(),
        _ if time.subsec_millis() != 0 => format!("{}ms", time.as_millis()),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
