//! The texts of a manifest as they may be shown: lines, with everything secret taken out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stands where a secret stood.
pub(crate) const HIDDEN: &str = "‹not shown: secret›";

/// A place in one of the files of a manifest. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span {
    /// Which file, as numbered by [`Sources`].
    pub file: u32,
    /// Line of the first character.
    pub line: u32,
    /// Column of the first character.
    pub column: u32,
    /// How many characters to underline on that line, at least 1.
    pub width: u32,
}

/// The files of a manifest, by name and line. Holds no secret: those are cut out on the way in.
#[derive(Clone, Default)]
pub struct Sources {
    files: Vec<Arc<Source>>,
}

/// One text and where its lines begin: a manifest may have a hundred thousand of them.
#[derive(Clone)]
struct Source {
    name: String,
    text: Box<str>,
    starts: Box<[u32]>,
    /// Lines of which something was hidden later.
    hidden: BTreeMap<u32, Box<str>>,
}

impl Source {
    fn new(name: &str, text: &str) -> Self {
        let (mut redacted, mut starts) = (String::with_capacity(text.len()), Vec::new());
        for line in redacted_lines(text) {
            starts.push(u32::try_from(redacted.len()).unwrap_or(u32::MAX));
            redacted.push_str(&line);
        }
        let (name, text) = (name.to_owned(), redacted.into_boxed_str());
        Self { name, text, starts: starts.into(), hidden: BTreeMap::new() }
    }

    /// Counted from 1.
    fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let begins = *self.starts.get(index)? as usize;
        let ends = self.starts.get(index + 1).map_or(self.text.len(), |at| *at as usize);
        self.hidden.get(&number).map(|line| &**line).or_else(|| self.text.get(begins..ends))
    }
}

impl Sources {
    /// Adds a file; its number is what spans of it carry.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> u32 {
        self.files.push(Arc::new(Source::new(name, text)));
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The file's name as it was given.
    pub fn name(&self, file: u32) -> &str {
        self.files.get(file as usize).map_or("?", |source| &source.name)
    }

    /// A line as it may be shown. `None` past the end.
    pub fn line(&self, file: u32, line: u32) -> Option<&str> {
        self.files.get(file as usize)?.line(line)
    }

    /// Hides lines `first..=last`; on the first one only what begins at `column`.
    pub(crate) fn hide(&mut self, file: u32, first: u32, last: u32, column: u32) {
        let Some(source) = self.files.get_mut(file as usize) else { return };
        let source = Arc::make_mut(source);
        for number in first..=last.min(source.starts.len() as u32) {
            let Some(line) = source.line(number) else { continue };
            let from =
                if number == first { column.saturating_sub(1) as usize } else { indent(line) };
            let line: Box<str> = cut(line, from).into();
            source.hidden.insert(number, line);
        }
    }
}

/// What a text of secrets looks like from outside, where the tree of the file is not known (yet):
/// private key blocks, values of keys with a secret's name, and anything long in base64.
fn redacted_lines(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut in_key = false;
    let mut below: Option<usize> = None;
    text.split('\n').map(move |line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let depth = indent(line);
        if below.is_some_and(|key| depth <= key && !line.trim().is_empty()) {
            below = None;
        }
        let key = secret_key(line);
        let inside = (in_key || below.is_some()).then_some(depth);
        let from = [key.as_ref().map(|key| key.value), inside, base64_in(line)];
        below = below.or(key.map(|key| key.depth));
        let begins = line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
        in_key = (in_key || begins) && !line.contains("-----END");
        match from.into_iter().flatten().min() {
            Some(from) if !is_frame(line) => cut(line, from),
            _ => line.into(),
        }
    })
}

/// `-----BEGIN …-----` and nothing else: the one line of a key that may be shown.
fn is_frame(line: &str) -> bool {
    let label = line.trim().strip_prefix("-----").and_then(|rest| rest.strip_suffix("-----"));
    label.is_some_and(|label| label.bytes().all(|b| b.is_ascii_uppercase() || b == b' '))
}

struct SecretKey {
    depth: usize,
    value: usize,
}

/// Parts of the names of secrets, as people write them.
const SECRET_NAMES: [&str; 7] =
    ["psk", "ppk", "private_key", "private-key", "private key", "secret", "passphrase"];

pub(crate) fn names_a_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_NAMES.iter().any(|name| key.contains(name))
}

/// Finds `psk:` and the like in a line: how deep the key stands, and at which character its value begins.
fn secret_key(line: &str) -> Option<SecretKey> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let lower = line.to_ascii_lowercase();
    let name = SECRET_NAMES.iter().filter_map(|name| lower.find(name)).min()?;
    let colon = name + lower[name..].find(':')? + 1;
    let value = line[colon..].trim_start();
    if value.starts_with("file:") || value.starts_with("credential:") {
        return None;
    }
    let begins = if value.is_empty() || value.starts_with(['|', '>']) {
        line.chars().count()
    } else {
        line[..line.len() - value.len()].chars().count()
    };
    Some(SecretKey { depth: indent(line), value: begins })
}

/// Where something begins that may be a line of a key whose frame was lost: a long run of the letters
/// of base64, of all kinds.
pub(crate) fn base64_in(line: &str) -> Option<usize> {
    const LONG: usize = 24;
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let mut start = 0;
    for run in line.split(|c| !is_letter(c)) {
        let kinds = [char::is_uppercase, char::is_lowercase, char::is_numeric];
        let of_all = kinds.iter().all(|kind| run.contains(kind));
        if run.len() >= LONG && (of_all || run.len() == line.trim().len()) {
            return Some(line[..start].chars().count());
        }
        let next = line[start + run.len()..].chars().next();
        start += run.len() + next.map_or(0, char::len_utf8);
    }
    None
}

fn indent(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).count()
}

/// Keeps the first `from` characters and replaces the rest, if there is a rest.
fn cut(line: &str, from: usize) -> Cow<'_, str> {
    let Some((at, _)) = line.char_indices().nth(from) else { return line.into() };
    if line[at..].trim().is_empty() {
        return line.into();
    }
    format!("{}{HIDDEN}", &line[..at]).into()
}
