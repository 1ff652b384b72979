//! What usually lies behind a YAML syntax error.

use granit_parser::{ErrorKind, ScanError};

use super::diagnostic::Diagnostics;
use super::source::Span;

const PEM: &str = "a certificate or key must be a block: a `|` after the key (`- |` for each item of \
                   ca_certificates), and every line of the PEM indented deeper than the key:\n\
                   instance_certificate: |\n\
                   \u{20} -----BEGIN CERTIFICATE-----\n\
                   \u{20} …";

/// Adds the one diagnostic of a file that cannot be read as YAML.
pub(crate) fn explain(file: u32, text: &str, error: &ScanError, found: &mut Diagnostics) {
    let lines: Vec<&str> = text.lines().collect();
    let marker = error.marker();
    let line = marker.line().clamp(1, lines.len().max(1));
    let column = marker.col() as u32 + 1;
    let span = Span { file, line: line as u32, column, width: 1 };
    let said = error.kind().to_string();
    let (span, message, remedy) = cause(&lines, line, span, error.kind()).unwrap_or((
        span,
        format!("this is not valid YAML: {said}"),
        general(error.kind()),
    ));
    found.push(span, message, remedy);
}

type Cause = (Span, String, String);

fn cause(lines: &[&str], line: usize, span: Span, kind: &ErrorKind) -> Option<Cause> {
    if let Some(at) = tab(lines, line) {
        let span = Span { column: at, width: 1, ..span };
        return Some((
            span,
            "a tab is used as indentation; YAML takes blanks only".into(),
            "replace the tab with blanks".into(),
        ));
    }
    if let Some(begin) = open_pem(lines, line) {
        let column = lines[begin - 1].chars().take_while(|c| c.is_whitespace()).count() as u32 + 1;
        let span = Span { line: begin as u32, column, width: 1, ..span };
        return Some((
            span,
            "the PEM that begins here is not indented as one block of text".into(),
            PEM.into(),
        ));
    }
    match kind {
        ErrorKind::MappingValueNotAllowed => {
            let deeper = line > 1 && depth(lines[line - 1]) > depth(lines[line - 2]) && span.column as usize > depth(lines[line - 1]);
            let remedy = if deeper {
                "align the keys of a map in one column; quote a text that holds `: `"
            } else {
                "quote a text that holds `: `, as in `name: \"a: b\"`"
            };
            Some((span, "a `key: value` is not possible here".into(), remedy.into()))
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => Some((
            span,
            "this line fits neither the map above it nor a new one".into(),
            "align it with the keys that it belongs to, and write `key: value`".into(),
        )),
        ErrorKind::ExpectedBlockSequenceEntry => Some((
            span,
            "a list item `- …` is expected here".into(),
            "align the items of a list in one column, and indent what belongs to an item deeper than its `-`".into(),
        )),
        ErrorKind::UnknownAnchor => Some((
            span,
            "this alias refers to an anchor that is not defined above".into(),
            "define it with `&name`, or quote the text if the `*` belongs to it".into(),
        )),
        ErrorKind::UnclosedFlowCollection { open } => {
            let close = if *open == '{' { '}' } else { ']' };
            Some((span, format!("this `{open}` is not closed"), format!("close it with `{close}`")))
        }
        ErrorKind::UnclosedQuotedScalar => Some((span, "this quote is not closed".into(), "close it on the same line".into())),
        _ => None,
    }
}

fn general(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::UnexpectedCharacter { character } => {
            format!("a text that begins with `{character}` must stand in quotes")
        }
        ErrorKind::RecursionLimitExceeded => "no manifest needs to be nested that deep".into(),
        _ => "look at the indentation and the quotes of this line and of the one above".into(),
    }
}

/// Column of a tab in the indentation of the line, or of the line above it.
fn tab(lines: &[&str], line: usize) -> Option<u32> {
    let text = lines.get(line - 1)?;
    let at = text.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t')?;
    Some(at as u32 + 1)
}

/// Line of a `-----BEGIN` at or above `line` whose `-----END` is not above `line` too.
fn open_pem(lines: &[&str], line: usize) -> Option<usize> {
    const FARTHEST: usize = 200;
    let from = line.saturating_sub(FARTHEST);
    for number in (from + 1..=line.min(lines.len())).rev() {
        let text = lines[number - 1];
        if text.contains("-----BEGIN") {
            return Some(number);
        }
        let closes_here = text.contains("-----END") && number < line;
        let a_key = text.trim_end().contains(": ") || text.trim_end().ends_with(':');
        if closes_here || (a_key && number < line) {
            return None;
        }
    }
    None
}

fn depth(line: &str) -> usize {
    line.chars().take_while(|c| *c == ' ').count()
}
