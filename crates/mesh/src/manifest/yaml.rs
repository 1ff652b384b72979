//! A YAML document as a tree in which every value knows its place.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Options, Parser, ScalarStyle};
use zeroize::Zeroizing;

use super::diagnostic::Diagnostics;
use super::source::Span;
use super::syntax;

/// Values in a file, aliases expanded: far above any fleet, far below what fills a host's memory.
const MOST_NODES: usize = 1_000_000;
/// Bytes of text in a file, aliases expanded.
const MOST_BYTES: usize = 32 << 20;
/// Lists in maps in lists.
const DEEPEST: usize = 64;

/// A value and its place.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
    /// First and last line that the value's own text takes.
    pub(crate) lines: (u32, u32),
    /// Levels below this one.
    height: usize,
    /// Nodes in it, itself included.
    size: usize,
    /// Bytes of text in it.
    bytes: usize,
}

#[derive(Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A word, a number, a text. Wiped when dropped: it may be a key.
#[derive(Clone)]
pub(crate) struct Scalar {
    pub(crate) text: Zeroizing<String>,
    /// Written without quotes, so that `true` is a truth value and `~` is nothing.
    pub(crate) plain: bool,
}

/// One `key: value`.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    /// Nothing was written, or `~`, or `null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.plain && matches!(&**scalar.text, "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// The entries, if this is a map.
    pub(crate) fn map(&self) -> Option<&[Entry]> {
        if let Value::Map(entries) = &self.value { Some(entries) } else { None }
    }

    /// The value of a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.map()?.iter().find(|entry| entry.key == key)
    }

    /// The text, if this is a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Scalar(scalar) = &self.value { Some(&scalar.text) } else { None }
    }

    /// What it is, for "expected a list, found …".
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar(scalar) if scalar.plain && scalar.text.parse::<f64>().is_ok() => {
                "a number"
            }
            Value::Scalar(_) => "a single text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map of keys and values",
        }
    }

    /// Whether both say the same, wherever they say it.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
            }
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|(a, b)| a.key == b.key && a.value.same(&b.value))
            }
            _ => false,
        }
    }
}

/// Refused, with a diagnostic.
pub(crate) struct Refused;

/// Reads one document; `None` if the file has none. A syntax error is one diagnostic.
pub(crate) fn read(
    file: u32,
    text: &str,
    found: &mut Diagnostics,
) -> Result<Option<Node>, Refused> {
    if text.len() > MOST_BYTES {
        found.push(None, format!("the file is larger than {} MiB", MOST_BYTES >> 20), "");
        return Err(Refused);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.block_nesting_limit = DEEPEST;
    options.flow_nesting_limit = DEEPEST;
    let mut builder = Builder {
        file,
        lines: text.lines().collect(),
        found,
        root: None,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
        bytes: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.event(event, span).ok_or(Refused)?,
            Err(error) => {
                syntax::explain(file, text, &error, builder.found);
                return Err(Refused);
            }
        }
    }
    Ok(builder.root)
}

type Yaml = granit_parser::Span;

struct Builder<'a> {
    file: u32,
    lines: Vec<&'a str>,
    found: &'a mut Diagnostics,
    root: Option<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

/// A list or map whose end was not seen yet.
struct Open {
    items: Items,
    span: Span,
    anchor: usize,
}

enum Items {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Span)>),
}

impl Builder<'_> {
    /// `None` ends the reading, with a diagnostic.
    fn event(&mut self, event: Event<'_>, at: Yaml) -> Option<()> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => self.refuse(
                self.span(at),
                "the file has more than one YAML document",
                "keep one document; remove the `---` and what follows it, or move it to a file of its own",
            ),
            Event::Scalar(text, style, anchor, _) => self.scalar(text.into_owned(), style, anchor, at),
            Event::SequenceStart(_, anchor, _) => self.start(Items::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.start(Items::Map(Vec::new(), None), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => self.alias(id, at),
            _ => Some(()),
        }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, anchor: usize, at: Yaml) -> Option<()> {
        let first = at.start.line() as u32;
        let ends_before = at.end.col() == 0 && at.end.line() > at.start.line();
        let last = at.end.line() as u32 - u32::from(ends_before);
        let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let span = if block { self.header(first) } else { None }.unwrap_or(self.span(at));
        let bytes = text.len();
        let scalar = Scalar { text: Zeroizing::new(text), plain: style == ScalarStyle::Plain };
        let value = Value::Scalar(scalar);
        self.place(Node { value, span, lines: (first, last), height: 0, size: 1, bytes }, anchor)
    }

    fn start(&mut self, items: Items, anchor: usize, at: Yaml) -> Option<()> {
        let span = Span { width: 1, ..self.span(at) };
        self.open.push(Open { items, span, anchor });
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        let open = self.open.pop()?;
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map(entries, _) => Value::Map(merged(entries)),
        };
        let (mut height, mut size, mut bytes, mut last) = (0, 1, 0, open.span.line);
        for child in children(&value) {
            last = last.max(child.lines.1);
            height = height.max(child.height + 1);
            size += child.size;
            bytes += child.bytes;
        }
        let lines = (open.span.line, last);
        self.place(Node { value, span: open.span, lines, height, size, bytes }, open.anchor)
    }

    /// The node is copied with the places where it was written: that is where a remedy is needed.
    fn alias(&mut self, id: usize, at: Yaml) -> Option<()> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return self.refuse(
                self.span(at),
                "this alias refers to a value that it is part of",
                "",
            );
        };
        self.nodes += node.size;
        self.place(node, 0)
    }

    fn place(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.nodes += 1;
        self.bytes += node.bytes;
        if self.nodes > MOST_NODES
            || self.bytes > MOST_BYTES
            || self.open.len() + node.height > 2 * DEEPEST
        {
            return self.refuse(
                node.span,
                "the file is too large or too deep once its aliases are followed",
                "write the values out instead of repeating aliases of aliases",
            );
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map(entries, key)) => match key.take() {
                Some((key, key_span)) => entries.push(Entry { key, key_span, value: node }),
                None => match node.value {
                    Value::Scalar(scalar) => *key = Some((scalar.text.to_string(), node.span)),
                    _ => {
                        return self.refuse(
                            node.span,
                            "a key must be a word, not a list or a map",
                            "",
                        );
                    }
                },
            },
        }
        Some(())
    }

    fn refuse(&mut self, span: Span, message: &str, remedy: &str) -> Option<()> {
        self.found.push(span, message, remedy);
        None
    }

    fn span(&self, at: Yaml) -> Span {
        span_of(self.file, at)
    }

    /// The `|` above a block of text: that line is shown, the text itself may be a key.
    fn header(&self, first: u32) -> Option<Span> {
        let above = self.lines.get(..(first as usize).checked_sub(1)?)?;
        let (index, line) =
            above.iter().enumerate().rev().find(|(_, line)| !line.trim().is_empty())?;
        let column =
            line.chars().collect::<Vec<_>>().iter().rposition(|c| matches!(c, '|' | '>'))?;
        Some(Span { file: self.file, line: index as u32 + 1, column: column as u32 + 1, width: 1 })
    }
}

pub(crate) fn span_of(file: u32, at: Yaml) -> Span {
    let one_line = at.start.line() == at.end.line();
    let width = if one_line { at.end.col().saturating_sub(at.start.col()).max(1) } else { 1 };
    Span {
        file,
        line: at.start.line() as u32,
        column: at.start.col() as u32 + 1,
        width: width as u32,
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Node> + '_> {
    match value {
        Value::Scalar(_) => Box::new(std::iter::empty()),
        Value::List(items) => Box::new(items.iter()),
        Value::Map(entries) => Box::new(entries.iter().map(|entry| &entry.value)),
    }
}

/// `<<: *other` (YAML 1.1): the other map's keys, where this one has none of that name.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    if !entries.iter().any(|entry| entry.key == "<<") {
        return entries;
    }
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    let mut names: BTreeSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let maps = match merge.value.value {
            Value::Map(entries) => vec![entries],
            Value::List(items) => {
                items.iter().filter_map(|item| item.map().map(<[Entry]>::to_vec)).collect()
            }
            Value::Scalar(_) => Vec::new(),
        };
        for entry in maps.into_iter().flatten() {
            if names.insert(entry.key.clone()) {
                own.push(entry);
            }
        }
    }
    own
}
