//! `ike_proposals` and `esp_proposals`.

use std::sync::Arc;

use wire::proposal::Proposal;
use wire::suite_text::{self, SuiteError};

use super::Suites;
use super::read::{Property, Reader, short};
use super::source::Span;
use super::yaml::Value;

/// Proposals in one offer: the number is one byte, and nobody reads a longer list.
const MOST: usize = 64;

type Parser = fn(&str) -> Result<Proposal, SuiteError>;

pub(crate) fn ike(reader: &mut Reader<'_>, p: Option<Property<'_>>) -> Arc<Suites> {
    suites(reader, p, suite_text::parse_ike, "aes128-sha256-modp2048")
}

pub(crate) fn esp(reader: &mut Reader<'_>, p: Option<Property<'_>>) -> Arc<Suites> {
    suites(reader, p, suite_text::parse_esp, "aes128gcm16")
}

/// A list, or texts with commas between, as in strongSwan. The `!` is dropped: strict is the rule.
fn suites(
    reader: &mut Reader<'_>,
    p: Option<Property<'_>>,
    parse: Parser,
    default: &str,
) -> Arc<Suites> {
    let mut found = Found::default();
    let Some(p) = p else {
        found.add(default, parse).ok();
        return found.into();
    };
    let items = match &p.node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(p.node),
    };
    for item in items {
        let Some(text) = reader.text(Property { name: p.name, node: item }, default) else {
            continue;
        };
        let text = text.trim().trim_end_matches('!');
        for one in text.split(',').map(str::trim) {
            match found.add(one.trim_end_matches('!'), parse) {
                Err(error) => refuse(reader, item.span, p.name, one, &error),
                Ok(Some(proposal)) => review(reader, item.span, p.name, one, &proposal),
                Ok(None) => {}
            }
        }
    }
    if items.is_empty() {
        reader.error(
            p.node.span,
            format!("`{}` is empty", p.name),
            format!("write for instance `{default}`, or remove the line"),
        );
    }
    found.into()
}

/// What was read so far.
#[derive(Default)]
struct Found {
    text: Vec<String>,
    proposals: Vec<Proposal>,
}

impl Found {
    /// The proposal, if it is not there yet.
    fn add(&mut self, text: &str, parse: Parser) -> Result<Option<Proposal>, SuiteError> {
        if self.text.iter().any(|known| known == text) {
            return Ok(None);
        }
        if self.text.len() >= MOST {
            return Err(SuiteError::Incomplete(format!("there are more than {MOST} proposals")));
        }
        let mut proposal = parse(text)?;
        self.text.push(text.to_owned());
        proposal.number = self.text.len() as u8;
        self.proposals.push(proposal.clone());
        Ok(Some(proposal))
    }
}

impl From<Found> for Arc<Suites> {
    fn from(found: Found) -> Self {
        Self::new(Suites { text: found.text, proposals: found.proposals.into() })
    }
}

/// What cannot be done at all is an error; what cannot be done in part, or should not be, a note.
fn review(reader: &mut Reader<'_>, span: Span, name: &str, text: &str, proposal: &Proposal) {
    let review = ike::suite::review(proposal);
    let missing = review.missing.join(", ");
    if !review.usable {
        let message = format!(
            "the proposal `{}` in `{name}` cannot be used: Warren does not have {missing}",
            short(text)
        );
        let example =
            if name.starts_with("ike") { "aes128-sha256-modp2048" } else { "aes128gcm16" };
        reader.error(span, message, format!("write for instance `{example}`"));
        return;
    }
    if !review.missing.is_empty() {
        let message = format!("`{}` in `{name}`: Warren does not have {missing}", short(text));
        reader.found.note(span, message, "it is left out of what is offered");
    }
    for weak in review.weak {
        reader.found.note(span, format!("`{}` in `{name}`: {weak}", short(text)), "");
    }
}

fn refuse(reader: &mut Reader<'_>, span: Span, name: &str, text: &str, error: &SuiteError) {
    match error {
        SuiteError::UnknownAlgorithm { keyword, nearest, known } => {
            let meant = nearest
                .as_ref()
                .map(|near| format!("did you mean `{near}`?\n"))
                .unwrap_or_default();
            let message = format!("unknown algorithm `{}` in `{name}`", short(keyword));
            reader.error(span, message, format!("{meant}known are: {known}"));
        }
        SuiteError::Incomplete(why) => {
            let example =
                if name.starts_with("ike") { "aes128-sha256-modp2048" } else { "aes128gcm16" };
            let message =
                format!("the proposal `{}` in `{name}` cannot be used: {why}", short(text));
            reader.error(span, message, format!("write for instance `{example}`"));
        }
    }
}
