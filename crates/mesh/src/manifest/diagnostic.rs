//! What is wrong with a manifest, where, and what to write instead.

use std::fmt;

use serde::Serialize;

use super::source::{HIDDEN, Sources, Span};

/// No line of a rendered diagnostic is longer.
const WIDTH: usize = 100;
/// A file with more errors than this is not read by anyone; the rest is only counted.
const MOST: usize = 200;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest is refused.
    Error,
    /// The manifest is taken; somebody should know.
    Note,
}

/// One finding: where, what, and the remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where; `None` for what concerns no line.
    pub span: Option<Span>,
    /// What is wrong.
    pub message: String,
    /// What to write instead. May have several lines; empty where there is nothing to do.
    pub remedy: String,
}

/// A finding that does not refuse the manifest.
pub type Note = Diagnostic;

/// A finding as programs read it (`--json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the file.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column in characters, from 1.
    pub column: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// The findings of one manifest, with the lines they speak of.
///
/// Never shows a secret: the lines were cut when the files were read.
#[derive(Clone, Default)]
pub struct Diagnostics {
    pub(crate) sources: Sources,
    items: Vec<Diagnostic>,
    dropped: usize,
}

impl Diagnostics {
    /// No findings yet, about these files.
    pub fn new(sources: Sources) -> Self {
        Self { sources, items: Vec::new(), dropped: 0 }
    }

    /// Adds an error.
    pub fn push(
        &mut self,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Error, span.into(), message.into(), remedy.into());
    }

    /// Adds a note.
    pub fn note(
        &mut self,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Note, span.into(), message.into(), remedy.into());
    }

    fn add(&mut self, severity: Severity, span: Option<Span>, message: String, remedy: String) {
        if self.items.len() >= MOST {
            self.dropped += 1;
            return;
        }
        let new = Diagnostic { severity, span, message, remedy };
        if !self.items.contains(&new) {
            self.items.push(new);
        }
    }

    /// Whether anything refuses the manifest.
    pub fn has_errors(&self) -> bool {
        self.dropped > 0 || self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many findings, those beyond the bound included.
    pub fn len(&self) -> usize {
        self.items.len() + self.dropped
    }

    /// The findings in the order of the files' lines.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.sorted().into_iter()
    }

    /// The findings for programs.
    pub fn reports(&self) -> Vec<Report> {
        self.iter().map(|item| self.sources.report(item)).collect()
    }

    /// The findings for people: each with file, line, column, the line itself, and the remedy.
    pub fn render(&self) -> String {
        let mut out: Vec<String> = self.iter().map(|item| self.sources.render(item)).collect();
        if self.dropped > 0 {
            out.push(format!("error: and {} more\n", self.dropped));
        }
        out.join("\n")
    }

    /// The files spoken of.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn into_notes(self) -> Vec<Note> {
        self.sorted().into_iter().cloned().collect()
    }

    fn sorted(&self) -> Vec<&Diagnostic> {
        let mut items: Vec<&Diagnostic> = self.items.iter().collect();
        items.sort_by_key(|item| item.span.map(|span| (span.file, span.line, span.column)));
        items
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Diagnostics {}

impl Sources {
    /// One finding for programs.
    pub fn report(&self, item: &Diagnostic) -> Report {
        Report {
            severity: item.severity,
            file: item.span.map(|span| self.name(span.file).to_owned()),
            line: item.span.map(|span| span.line),
            column: item.span.map(|span| span.column),
            message: item.message.clone(),
            remedy: item.remedy.clone(),
        }
    }

    /// One finding for people, in at most 100 columns.
    pub fn render(&self, item: &Diagnostic) -> String {
        let (title, help) = match item.severity {
            Severity::Error => ("error: ", "help: "),
            Severity::Note => ("note: ", "help: "),
        };
        let mut out = hanging(title, title.len(), &item.message);
        let gutter = match item.span {
            Some(span) => self.snippet(span, &mut out),
            None => 1,
        };
        if !item.remedy.is_empty() {
            let first = format!("{:gutter$} = {help}", "");
            out.push_str(&hanging(&first, first.chars().count(), &item.remedy));
        }
        out
    }

    /// The place and its line; the result is the width of the line number.
    fn snippet(&self, span: Span, out: &mut String) -> usize {
        let number = span.line.to_string();
        let gutter = number.len();
        let place = format!("{}:{}:{}", self.name(span.file), span.line, span.column);
        out.push_str(&format!("{:gutter$}--> {}\n", "", printable(&place)));
        let Some(line) = self.line(span.file, span.line) else { return gutter };
        let (text, at, width) = window(&printable(line), span, WIDTH - gutter - 4);
        out.push_str(&format!("{:gutter$} |\n", ""));
        out.push_str(format!("{number} | {text}").trim_end());
        out.push_str(&format!("\n{:gutter$} | {:at$}{}\n", "", "", "^".repeat(width)));
        gutter
    }
}

/// The part of a line that fits, with the span in it: text, where to underline, how far.
fn window(line: &str, span: Span, room: usize) -> (String, usize, usize) {
    let chars: Vec<char> = line.chars().collect();
    let column = (span.column.max(1) as usize - 1).min(chars.len());
    let start = if chars.len() <= room {
        0
    } else {
        column.saturating_sub(room / 3).min(chars.len() - room)
    };
    let end = chars.len().min(start + room);
    let mut text: String = chars[start..end].iter().collect();
    if start > 0 {
        text = format!("…{}", text.chars().skip(1).collect::<String>());
    }
    if end < chars.len() {
        text.pop();
        text.push('…');
    }
    let at = column - start;
    // The width of a secret is not shown either.
    let hidden = chars.get(column) == HIDDEN.chars().next().as_ref();
    let width = if hidden { HIDDEN.chars().count() } else { span.width.max(1) as usize };
    let width = width.min((end - start).saturating_sub(at)).max(1);
    (text, at, width)
}

/// A terminal must not obey what a manifest says; a tab is shown, being the error so often.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                '→'
            } else if c.is_control() {
                '�'
            } else {
                c
            }
        })
        .collect()
}

/// Text behind `first`, broken at blanks to fit, continued `indent` columns in.
fn hanging(first: &str, indent: usize, text: &str) -> String {
    let mut out = String::new();
    let room = WIDTH - indent;
    let mut lead = first.to_owned();
    for line in text.lines() {
        for piece in fold(line, room) {
            out.push_str(format!("{lead}{}", printable(&piece)).trim_end());
            out.push('\n');
            lead = " ".repeat(indent);
        }
    }
    out
}

fn fold(line: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut current = String::new();
    for word in line.split_inclusive(' ') {
        let (length, more) = (current.chars().count(), word.trim_end().chars().count());
        if length > 0 && length + more > room {
            pieces.push(std::mem::take(&mut current));
        }
        current.push_str(word);
        while current.trim_end().chars().count() > room {
            let rest = current.chars().skip(room).collect();
            pieces.push(current.chars().take(room).collect());
            current = rest;
        }
    }
    pieces.push(current);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wider_than_the_page() {
        let mut sources = Sources::default();
        let file = sources.add("a.yml", &format!("x: {}", "word ".repeat(80)));
        let span = Span { file, line: 1, column: 300, width: 4 };
        let mut found = Diagnostics::new(sources);
        found.push(span, "long ".repeat(60), format!("{} {}", "y".repeat(400), "z ".repeat(90)));
        let text = found.render();
        assert!(text.lines().count() > 10);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(text.contains('^'));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut sources = Sources::default();
        let file = sources.add("a.yml", "x: \u{1b}[31mred\t");
        let mut found = Diagnostics::new(sources);
        found.push(Span { file, line: 1, column: 4, width: 1 }, "bad \u{1b}[0m", "");
        assert!(!found.render().contains('\u{1b}'));
    }

    #[test]
    fn more_than_the_bound_is_counted() {
        let mut found = Diagnostics::default();
        for n in 0..MOST + 5 {
            found.push(None, format!("number {n}"), "");
        }
        assert_eq!(found.len(), MOST + 5);
        assert!(found.render().ends_with("and 5 more\n"));
    }
}
